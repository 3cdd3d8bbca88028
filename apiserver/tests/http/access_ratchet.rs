//! Every operation that the OpenAPI documents name, decided for every kind of caller: a new
//! endpoint without a row here fails, so that somebody thinks about who may call it.

use std::collections::BTreeSet;

use commonage_apiserver::auth::UserInfo;
use http::Request;
use serde_json::{Value, json};

use crate::support::Server;

const READ: &str = "get list";
const WRITE: &str = "create update patch delete deletecollection";
const CHANGE: &str = "update patch";

/// Resource, verbs, and who may beside the administrator; in namespace `room`, where the viewer
/// and the editor are bound. The agent is `x`, and so is every name that is asked for.
const ROWS: &[(&str, &str, &str)] = &[
    ("configmaps", READ, "viewer editor"),
    ("configmaps", WRITE, "editor"),
    ("events", READ, "viewer editor"),
    ("events", "create update patch", "editor agent"),
    ("events", "delete deletecollection", "editor"),
    ("events.events.k8s.io", READ, ""),
    ("events.events.k8s.io", "create update patch", "agent"),
    ("events.events.k8s.io", "delete deletecollection", ""),
    ("namespaces", "get", "viewer editor"),
    ("namespaces", "list create update patch delete", ""),
    ("namespaces/status", "get", "viewer editor"),
    ("namespaces/status", CHANGE, ""),
    ("namespaces/finalize", "update", ""),
    ("nodes", READ, ""),
    ("pods", READ, "viewer editor"),
    ("pods", "delete", "editor"),
    ("secrets", READ, "editor"),
    ("secrets", WRITE, "editor"),
    ("services", READ, "viewer editor"),
    ("serviceaccounts", READ, "viewer editor"),
    ("serviceaccounts", WRITE, "editor"),
    ("serviceaccounts/token", "create", "editor"),
    ("customresourcedefinitions.apiextensions.k8s.io", READ, ""),
    ("customresourcedefinitions.apiextensions.k8s.io", WRITE, ""),
    ("customresourcedefinitions.apiextensions.k8s.io/status", "get update patch", ""),
    ("selfsubjectreviews.authentication.k8s.io", "create", "nobody viewer editor agent"),
    ("tokenreviews.authentication.k8s.io", "create", ""),
    ("localsubjectaccessreviews.authorization.k8s.io", "create", ""),
    ("selfsubjectaccessreviews.authorization.k8s.io", "create", "nobody viewer editor agent"),
    ("selfsubjectrulesreviews.authorization.k8s.io", "create", "nobody viewer editor agent"),
    ("subjectaccessreviews.authorization.k8s.io", "create", ""),
    ("leases.coordination.k8s.io", READ, "editor"),
    ("leases.coordination.k8s.io", WRITE, "editor"),
    ("nodes.metrics.k8s.io", READ, ""),
    ("pods.metrics.k8s.io", READ, "viewer editor"),
    ("clusterroles.rbac.authorization.k8s.io", READ, ""),
    ("clusterroles.rbac.authorization.k8s.io", WRITE, ""),
    ("clusterrolebindings.rbac.authorization.k8s.io", READ, ""),
    ("clusterrolebindings.rbac.authorization.k8s.io", WRITE, ""),
    ("roles.rbac.authorization.k8s.io", READ, ""),
    ("roles.rbac.authorization.k8s.io", WRITE, ""),
    ("rolebindings.rbac.authorization.k8s.io", READ, ""),
    ("rolebindings.rbac.authorization.k8s.io", WRITE, ""),
    ("agents.commonage.dev", "get update patch", "agent"),
    // A create names nothing in its URL: the agent's is refused once its body is read.
    ("agents.commonage.dev", "create list delete deletecollection", ""),
    ("agents.commonage.dev/status", "get update patch", "agent"),
    ("frameworks.commonage.dev", READ, "viewer editor"),
    ("frameworks.commonage.dev", WRITE, "editor"),
    ("frameworks.commonage.dev/status", "get", "viewer editor"),
    ("frameworks.commonage.dev/status", CHANGE, ""),
    ("offers.commonage.dev", READ, "viewer editor"),
    ("offers.commonage.dev", WRITE, ""),
    ("offers.commonage.dev/status", "get", "viewer editor"),
    ("offers.commonage.dev/status", CHANGE, ""),
    ("offers.commonage.dev/accept", "create", "editor"),
    ("offers.commonage.dev/decline", "create", "editor"),
    ("queues.commonage.dev", READ, ""),
    ("queues.commonage.dev", WRITE, ""),
    ("queues.commonage.dev/status", "get update patch", ""),
    ("reservations.commonage.dev", READ, ""),
    ("reservations.commonage.dev", WRITE, ""),
    ("reservations.commonage.dev/status", "get update patch", ""),
    // Of an agent's tasks, this one does not exist: it may learn that.
    ("tasks.commonage.dev", "get", "viewer editor agent"),
    ("tasks.commonage.dev", "list", "viewer editor"),
    ("tasks.commonage.dev", WRITE, "editor"),
    ("tasks.commonage.dev/status", "get", "viewer editor agent"),
    ("tasks.commonage.dev/status", CHANGE, "agent"),
    ("tasks.commonage.dev/binding", "create", ""),
    ("tasks.commonage.dev/kill", "create", "editor"),
    // Of an agent's tasks, this one does not exist. A token of a task is no editor's: it speaks as the task.
    ("tasks.commonage.dev/token", "create", "agent"),
    // Of the volumes that an agent's tasks named, this one does not exist any more: it may learn that.
    ("volumes.commonage.dev", "get", "viewer editor agent"),
    ("volumes.commonage.dev", "list", "viewer editor"),
    ("volumes.commonage.dev", WRITE, "editor"),
    ("volumes.commonage.dev/status", "get", "viewer editor"),
    ("volumes.commonage.dev/status", CHANGE, ""),
];

/// Documents, by their beginning; who may read them beside the administrator.
const PATHS: &[(&str, &str)] = &[
    ("/api", "nobody viewer editor agent"),
    ("/apis", "nobody viewer editor agent"),
    ("/openapi", "nobody viewer editor agent"),
    ("/version", "anonymous nobody viewer editor agent"),
    ("/healthz", "anonymous nobody viewer editor agent"),
    ("/livez", "anonymous nobody viewer editor agent"),
    ("/readyz", "anonymous nobody viewer editor agent"),
    ("/metrics", ""),
    // For service accounts.
    ("/.well-known", ""),
    ("/openid", ""),
];

const OTHER_AGENT: &str =
    r#"{"apiVersion": "commonage.dev/v1", "kind": "Agent", "metadata": {"name": "other"}}"#;

struct Caller {
    name: &'static str,
    client: kube::Client,
}

impl Caller {
    async fn may(&self, method: &str, path: &str) -> bool {
        let body = match method {
            // What an agent may create depends on the name in the body.
            "post" => OTHER_AGENT.as_bytes().to_vec(),
            "put" | "patch" => b"{}".to_vec(),
            _ => Vec::new(),
        };
        let request = Request::builder()
            .method(method.to_uppercase().as_str())
            .uri(path)
            .header("content-type", "application/json")
            .body(kube::client::Body::from(body))
            .unwrap();
        let answer = self.client.send(request).await.unwrap();
        answer.status() != 403 && answer.status() != 401
    }
}

async fn callers(server: &Server) -> Vec<Caller> {
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/room/rolebindings";
    let room = json!({"metadata": {"name": "room"}});
    assert_eq!(server.call("POST", "/api/v1/namespaces", Some(room)).await.status, 201);
    for (user, role) in [("viewer", "view"), ("editor", "edit")] {
        let group = "rbac.authorization.k8s.io";
        let binding = json!({
            "metadata": {"name": user},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "apiGroup": group, "name": user}],
        });
        let made = server.call("POST", bindings, Some(binding)).await;
        assert_eq!(made.status, 201, "{made:?}");
    }
    let plain = |name: &str| UserInfo::authenticated(name, &[]);
    let all = [
        ("anonymous", UserInfo::anonymous()),
        ("nobody", plain("nobody")),
        ("viewer", plain("viewer")),
        ("editor", plain("editor")),
        ("agent", UserInfo::agent("x")),
        ("admin", UserInfo::admin()),
    ];
    all.map(|(name, user)| Caller { name, client: server.api.client_for(user) }).into()
}

/// One operation of the documents.
struct Operation {
    method: String,
    path: String,
    /// `tasks.commonage.dev/status`.
    resource: String,
    verb: &'static str,
    /// A namespaced kind in all namespaces: for administrators.
    everywhere: bool,
}

fn operation(method: &str, path: &str) -> Operation {
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let (group, mut rest) = match segments.as_slice() {
        ["api", _, rest @ ..] => ("", rest),
        ["apis", group, _, rest @ ..] => (*group, rest),
        _ => panic!("{path} is under neither root: teach this test about it"),
    };
    let mut namespaced = false;
    if let ["namespaces", "{namespace}", inner @ ..] = rest {
        (rest, namespaced) = (inner, true);
    }
    let (plural, named, subresource) = match rest {
        [plural] => (plural, false, ""),
        [plural, "{name}"] => (plural, true, ""),
        [plural, "{name}", subresource] => (plural, true, *subresource),
        _ => panic!("{path} is of no known form: teach this test about it"),
    };
    let mut resource = plural.to_string();
    if !group.is_empty() {
        resource = format!("{resource}.{group}");
    }
    if !subresource.is_empty() {
        resource = format!("{resource}/{subresource}");
    }
    let verb = match (method, named) {
        ("get", false) => "list",
        ("get", true) => "get",
        ("post", _) => "create",
        ("put", _) => "update",
        ("patch", _) => "patch",
        ("delete", false) => "deletecollection",
        ("delete", true) => "delete",
        _ => panic!("{method} {path}: teach this test about the method"),
    };
    let path = path.replace("{namespace}", "room").replace("{name}", "x");
    // The namespace is the object itself, and the viewer's is `room`.
    let path = match resource.as_str() {
        "namespaces" | "namespaces/status" | "namespaces/finalize" => {
            path.replace("/namespaces/x", "/namespaces/room")
        }
        _ => path,
    };
    let path = if method == "get" { path } else { format!("{path}?dryRun=All") };
    let everywhere = !namespaced && !named && verb == "list";
    Operation { method: method.to_owned(), path, resource, verb, everywhere }
}

async fn operations(server: &Server) -> Vec<Operation> {
    let index = server.call("GET", "/openapi/v3", None).await.json();
    let mut all = Vec::new();
    for entry in index["paths"].as_object().unwrap().values() {
        let url = entry["serverRelativeURL"].as_str().unwrap();
        let document: Value = server.call("GET", url, None).await.json();
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters");
            all.extend(methods.map(|method| operation(method, path)));
        }
    }
    all
}

#[tokio::test]
async fn every_operation_is_decided_as_this_table_says() {
    let server = Server::start().await;
    let callers = callers(&server).await;
    let mut wrong = BTreeSet::new();
    let mut count = 0;
    for operation in operations(&server).await {
        let Operation { method, path, resource, verb, everywhere } = &operation;
        let row = ROWS.iter().find(|(named, verbs, _)| {
            named == resource && verbs.split(' ').any(|one| one == *verb)
        });
        let Some((_, _, who)) = row else {
            wrong.insert(format!("no row says who may {verb} {resource}"));
            continue;
        };
        let may_everywhere = *everywhere && resource != "namespaces";
        let who = if may_everywhere { "" } else { who };
        for caller in &callers {
            count += 1;
            let expected = caller.name == "admin" || who.split(' ').any(|one| one == caller.name);
            if caller.may(method, path).await != expected {
                let should = if expected { "must be" } else { "must not be" };
                wrong.insert(format!(
                    "{} {should} allowed to {verb} {resource} ({path})",
                    caller.name
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.into_iter().collect::<Vec<_>>().join("\n"));
    assert!(count > 500, "{count}");
    server.stop().await;
}

#[tokio::test]
async fn every_document_is_readable_by_whom_this_table_says() {
    let server = Server::start().await;
    let callers = callers(&server).await;
    let root = server.call("GET", "/", None).await.json();
    for path in root["paths"].as_array().unwrap() {
        let path = path.as_str().unwrap();
        let beginning = format!("/{}", path.split('/').nth(1).unwrap());
        let row = PATHS.iter().find(|(named, _)| *named == beginning);
        let (_, who) = row.unwrap_or_else(|| panic!("no row says who may read {path}"));
        for caller in &callers {
            let expected = caller.name == "admin" || who.split(' ').any(|one| one == caller.name);
            assert_eq!(caller.may("get", path).await, expected, "{} {path}", caller.name);
        }
    }
    server.stop().await;
}
