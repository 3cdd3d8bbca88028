//! What it costs to decide who may, with few and with many bindings of others: whole requests,
//! sent in process, of a user who has two bindings.
//!
//! Prints one line per measurement; nothing is judged here.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use commonage_apiserver::auth::UserInfo;
use commonage_apiserver::{ApiServer, Config};
use http::Request;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

const BINDINGS: [usize; 3] = [1, 100, 10_000];
const REQUESTS: usize = 2_000;
const CHANGES: usize = 20;

const NAMESPACED: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let server = ApiServer::start(Config::for_tests(dir.path())).await?;
    let admin = server.client_for(UserInfo::admin());
    let alice = server.client_for(UserInfo::authenticated("alice", &[]));
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]);
    let role = json!({"metadata": {"name": "reader"}, "rules": rules});
    create(&admin, &format!("{NAMESPACED}/roles"), role).await?;
    for number in 0..2 {
        bind(&admin, &format!("alice-{number}"), "alice").await?;
    }
    create(&admin, MAPS, json!({"metadata": {"name": "a"}})).await?;
    let mut made = 0;
    for bindings in BINDINGS {
        while made < bindings {
            bind(&admin, &format!("other-{made}"), &format!("other-{made}")).await?;
            made += 1;
        }
        let of_admin = median(&admin).await?;
        let of_alice = median(&alice).await?;
        println!(
            "{bindings} bindings of others: GET p50 {of_alice:?}, without a decision {of_admin:?}"
        );
        let mut after_change = Vec::new();
        for change in 0..CHANGES {
            bind(&admin, &format!("change-{bindings}-{change}"), "somebody").await?;
            after_change.push(get(&alice).await?);
        }
        after_change.sort_unstable();
        println!("  the first GET after a change: p50 {:?}", after_change[CHANGES / 2]);
    }
    server.shutdown().await;
    Ok(())
}

async fn bind(client: &Client, name: &str, user: &str) -> anyhow::Result<()> {
    let group = "rbac.authorization.k8s.io";
    let body = json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "reader"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
    });
    create(client, &format!("{NAMESPACED}/rolebindings"), body).await
}

async fn create(client: &Client, path: &str, body: Value) -> anyhow::Result<()> {
    let request = Request::post(path).header("content-type", "application/json");
    let answer = client.send(request.body(Body::from(body.to_string().into_bytes()))?).await?;
    anyhow::ensure!(answer.status() == 201, "{path}: {}", answer.status());
    Ok(())
}

async fn get(client: &Client) -> anyhow::Result<Duration> {
    let request = Request::get(format!("{MAPS}/a")).body(Body::empty())?;
    let start = Instant::now();
    let answer = client.send(request).await?;
    let took = start.elapsed();
    anyhow::ensure!(answer.status() == 200, "{}", answer.status());
    Ok(took)
}

async fn median(client: &Client) -> anyhow::Result<Duration> {
    let mut all = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        all.push(get(client).await?);
    }
    all.sort_unstable();
    Ok(all[REQUESTS / 2])
}
