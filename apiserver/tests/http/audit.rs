//! The audit log: what is written of which request, and what is not.

use bytes::Bytes;
use commonage_apiserver::audit::{AuditConfig, LogConfig};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

async fn start(rules: &str) -> (Server, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.yaml");
    std::fs::write(&policy, format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{rules}")).unwrap();
    let path = dir.path().join("audit.log");
    let server = Server::start_with(|config| {
        config.audit = AuditConfig {
            log: Some(LogConfig { path, ..LogConfig::default() }),
            policy_file: Some(policy),
        };
    })
    .await;
    (server, dir)
}

/// Stops the server, and reads what it wrote of callers from outside.
async fn events(server: Server, dir: &TempDir) -> Vec<Value> {
    server.stop().await;
    let text = std::fs::read_to_string(dir.path().join("audit.log")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}})
}

#[tokio::test]
async fn a_request_is_written_down_as_kubernetes_writes_it() {
    let rules = "rules: [{level: Metadata, resources: [{resources: [configmaps]}]}]";
    let (server, dir) = start(rules).await;
    let id = [("audit-id", "mine"), ("user-agent", "test/1"), ("impersonate-user", "bob")];
    server.call("POST", MAPS, Some(map("a"))).await;
    server.call_with("GET", &format!("{MAPS}/a"), None, &id).await;
    // Nothing is to be written of these.
    server.call("GET", SECRETS, None).await;
    server.call("GET", "/version", None).await;
    let events = events(server, &dir).await;
    let stages: Vec<&str> = events.iter().map(|event| event["stage"].as_str().unwrap()).collect();
    assert_eq!(
        stages,
        ["RequestReceived", "ResponseComplete", "RequestReceived", "ResponseComplete"]
    );
    let created = &events[1];
    assert_eq!((&created["kind"], &created["level"]), (&json!("Event"), &json!("Metadata")));
    assert_eq!(created["objectRef"]["name"], "a");
    assert_eq!(created["responseStatus"], json!({"metadata": {}, "code": 201}));
    assert_eq!(created["annotations"]["authorization.k8s.io/decision"], "allow");
    assert_eq!(
        (&created["requestObject"], &created["responseObject"]),
        (&Value::Null, &Value::Null)
    );
    let read = &events[3];
    assert_eq!(read["auditID"], "mine");
    assert_eq!(read["requestURI"], format!("{MAPS}/a"));
    assert_eq!(read["user"]["username"], "root");
    assert_eq!(read["impersonatedUser"]["username"], "bob");
    assert_eq!((&read["userAgent"], &read["sourceIPs"]), (&json!("test/1"), &json!(["127.0.0.1"])));
    assert_eq!(
        read["objectRef"],
        json!({"resource": "configmaps", "namespace": "default", "name": "a", "apiVersion": "v1"})
    );
    assert_eq!((&read["verb"], &read["responseStatus"]["code"]), (&json!("get"), &json!(403)));
    assert_eq!(read["responseStatus"]["reason"], "Forbidden");
    assert_eq!(read["annotations"]["authorization.k8s.io/decision"], "forbid");
}

#[tokio::test]
async fn bodies_are_kept_as_far_as_the_policy_says() {
    let rules = "omitStages: [RequestReceived]\nomitManagedFields: true\nrules:\n\
                 - {level: Metadata, resources: [{resources: [secrets]}]}\n\
                 - {level: Request, verbs: [delete]}\n\
                 - {level: RequestResponse, resources: [{resources: [configmaps]}]}\n";
    let (server, dir) = start(rules).await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "hidden"}});
    server.call("POST", SECRETS, Some(secret)).await;
    server.call("POST", MAPS, Some(map("a"))).await;
    let options =
        json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
    server.call("DELETE", &format!("{MAPS}/a"), Some(options)).await;
    let events = events(server, &dir).await;
    assert_eq!(events.len(), 3);
    assert!(!events[0].to_string().contains("hidden"), "{}", events[0]);
    assert_eq!(events[0]["objectRef"]["name"], "s");
    assert_eq!(events[1]["requestObject"]["data"], json!({"k": "v"}));
    assert_eq!(events[1]["responseObject"]["data"], json!({"k": "v"}));
    assert_eq!(events[1]["responseObject"]["metadata"]["managedFields"], Value::Null);
    assert_eq!(events[2]["requestObject"]["propagationPolicy"], "Background");
    assert_eq!(events[2]["responseObject"], Value::Null);
}

#[tokio::test]
async fn a_watch_is_written_down_when_it_starts_and_when_it_ends() {
    let rules = "omitStages: [RequestReceived]\nrules: [{level: RequestResponse, verbs: [watch]}]";
    let (server, dir) = start(rules).await;
    let watched = server.call("GET", &format!("{MAPS}?watch=1&timeoutSeconds=1"), None).await;
    assert_eq!(watched.status, 200);
    let ours = |event: &&Value| event["objectRef"]["resource"] == "configmaps";
    let events = events(server, &dir).await;
    let stages: Vec<&Value> = events.iter().filter(ours).map(|event| &event["stage"]).collect();
    assert_eq!(stages, [&json!("ResponseStarted"), &json!("ResponseComplete")]);
}

#[tokio::test]
async fn refused_credentials_are_written_down() {
    let (server, dir) = start("rules: [{level: Metadata}]").await;
    let wrong = [("authorization", "Bearer wrong")];
    let refused = server.raw("GET", MAPS, Bytes::new(), &wrong).await;
    assert_eq!(refused.status, 401);
    let events = events(server, &dir).await;
    let last = events.last().unwrap();
    assert_eq!((&last["user"], &last["responseStatus"]["code"]), (&json!({}), &json!(401)));
    assert_eq!(last["responseStatus"]["reason"], "Unauthorized");
}
