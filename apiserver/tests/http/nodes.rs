//! What clients find beside the node that an Agent is shown as.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Answer, Server};

const AGENTS: &str = "/apis/commonage.dev/v1/agents";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/commonage-agents/leases";
const OF_NODES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";

async fn create(server: &Server, path: &str, object: Value) -> Value {
    let made = server.call("POST", path, Some(object)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    made.json()
}

async fn create_agent(server: &Server, name: &str) {
    let agent = json!({"apiVersion": "commonage.dev/v1", "kind": "Agent", "metadata": {"name": name}, "spec": {}});
    create(server, AGENTS, agent).await;
    create(server, LEASES, json!({"metadata": {"name": name}, "spec": {"holderIdentity": name}}))
        .await;
}

async fn lease_of(server: &Server, node: &str) -> Answer {
    server.call("GET", &format!("{OF_NODES}/{node}"), None).await
}

#[tokio::test]
async fn the_lease_of_an_agent_is_that_of_its_node() {
    let server = Server::start().await;
    create_agent(&server, "n1").await;
    let lease = lease_of(&server, "n1").await.json();
    assert_eq!(lease["spec"]["holderIdentity"], "n1");
    assert_eq!(lease["metadata"]["namespace"], "kube-node-lease");
    let missing = lease_of(&server, "n2").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert_eq!(missing.json()["message"], "leases.coordination.k8s.io \"n2\" not found");
    server.stop().await;
}

#[tokio::test]
async fn without_nodes_there_are_no_leases_of_nodes() {
    let server = Server::start_with(|config| config.serve_pods = false).await;
    create_agent(&server, "n1").await;
    assert_eq!(lease_of(&server, "n1").await.status, StatusCode::NOT_FOUND);
    server.stop().await;
}

#[tokio::test]
async fn a_token_that_is_bound_to_a_node_ends_with_it() {
    let server = Server::start().await;
    create_agent(&server, "n1").await;
    create(&server, ACCOUNTS, json!({"metadata": {"name": "robot"}})).await;
    let bound = |name: &str| json!({"spec": {"boundObjectRef": {"kind": "Node", "apiVersion": "v1", "name": name}}});
    let path = format!("{ACCOUNTS}/robot/token");
    let missing = server.call("POST", &path, Some(bound("n2"))).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert_eq!(missing.json()["message"], "nodes \"n2\" not found");
    let token = create(&server, &path, bound("n1")).await["status"]["token"].clone();
    let bearer = format!("Bearer {}", token.as_str().unwrap());
    let who = async || {
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        let body = Bytes::from_static(b"{}");
        server.raw("POST", path, body, &[("authorization", &bearer)]).await
    };
    let known = who().await;
    assert_eq!(known.status, StatusCode::CREATED, "{known:?}");
    let extra = &known.json()["status"]["userInfo"]["extra"];
    assert_eq!(extra["authentication.kubernetes.io/node-name"], json!(["n1"]), "{extra}");
    let deleted = server.call("DELETE", &format!("{AGENTS}/n1"), None).await;
    assert_eq!(deleted.status, StatusCode::OK, "{deleted:?}");
    assert_eq!(who().await.status, StatusCode::UNAUTHORIZED);
    server.stop().await;
}
