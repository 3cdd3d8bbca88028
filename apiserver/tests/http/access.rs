//! Who may what: roles and bindings, escalation, impersonation, reviews, agents and frameworks.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::support::{self, Answer, Server};

const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
const CLUSTER_ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const OURS: &str = "/apis/commonage.dev/v1/namespaces/default";
const SELF_ACCESS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
const RBAC: &str = "rbac.authorization.k8s.io";

fn role(name: &str, rules: Value) -> Value {
    json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": "Role", "metadata": {"name": name},
        "rules": rules,
    })
}

fn binding(name: &str, kind: &str, role: &str, user: &str) -> Value {
    json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": "RoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": role},
        "subjects": [{"kind": "User", "apiGroup": RBAC, "name": user}],
    })
}

/// What root makes must succeed.
async fn make(server: &Server, uri: &str, body: Value) {
    let made = server.call("POST", uri, Some(body)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
}

async fn call_as(
    server: &Server,
    user: &str,
    method: &str,
    uri: &str,
    body: Option<Value>,
) -> Answer {
    server.call_with(method, uri, body, &[("impersonate-user", user)]).await
}

async fn may(server: &Server, user: &str, verb: &str, resource: &str) -> Value {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let asked = json!({"spec": {"resourceAttributes": {
        "namespace": "default", "verb": verb, "resource": resource, "subresource": subresource,
    }}});
    let answer = call_as(server, user, "POST", SELF_ACCESS, Some(asked)).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    answer.json()["status"].clone()
}

#[tokio::test]
async fn a_binding_holds_as_soon_as_it_is_written() {
    let server = Server::start().await;
    let refused = call_as(&server, "bob", "GET", MAPS, None).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(refused.header("x-content-type-options"), "nosniff");
    assert_eq!(
        refused.json()["message"],
        "configmaps is forbidden: User \"bob\" cannot list resource \"configmaps\" in API group \
         \"\" in the namespace \"default\""
    );
    assert_eq!(may(&server, "bob", "list", "configmaps").await, json!({"allowed": false}));
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "get"]}]);
    make(&server, ROLES, role("reader", rules)).await;
    make(&server, BINDINGS, binding("b", "Role", "reader", "bob")).await;
    assert_eq!(call_as(&server, "bob", "GET", MAPS, None).await.status, StatusCode::OK);
    assert_eq!(
        may(&server, "bob", "list", "configmaps").await,
        json!({
            "allowed": true,
            "reason": "RBAC: allowed by RoleBinding \"b/default\" of Role \"reader\" to User \"bob\"",
        })
    );
    let elsewhere = MAPS.replace("default", "kube-system");
    let refused = call_as(&server, "bob", "GET", &elsewhere, None).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    server.call("DELETE", &format!("{ROLES}/reader"), None).await;
    let refused = call_as(&server, "bob", "GET", MAPS, None).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let why = ": RBAC: role.rbac.authorization.k8s.io \"reader\" not found";
    assert!(refused.json()["message"].as_str().unwrap().ends_with(why), "{refused:?}");
    server.stop().await;
}

#[tokio::test]
async fn nobody_grants_what_they_have_not() {
    let server = Server::start().await;
    make(&server, BINDINGS, binding("owner", "ClusterRole", "admin", "olga")).await;
    let held = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]);
    let made = call_as(&server, "olga", "POST", ROLES, Some(role("fine", held))).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let agents = json!([{"apiGroups": ["commonage.dev"], "resources": ["agents"], "verbs": ["get", "list"]}]);
    let refused = call_as(&server, "olga", "POST", ROLES, Some(role("more", agents))).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(
        refused.json()["message"],
        "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"olga\" \
         (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently \
         held:\n{APIGroups:[\"commonage.dev\"], Resources:[\"agents\"], Verbs:[\"get\" \"list\"]}"
    );
    let root = binding("root", "ClusterRole", "cluster-admin", "olga");
    let refused = call_as(&server, "olga", "POST", BINDINGS, Some(root.clone())).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let message = refused.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("{APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"*\"]}\n{NonResourceURLs:[\"*\"], Verbs:[\"*\"]}"), "{message}");
    let nothing = binding("nothing", "ClusterRole", "nothing", "olga");
    let missing = call_as(&server, "olga", "POST", BINDINGS, Some(nothing)).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND, "{missing:?}");
    // Who may bind a role, may bind it.
    let bind = json!([{"apiGroups": [RBAC], "resources": ["clusterroles"], "verbs": ["bind"], "resourceNames": ["cluster-admin"]}]);
    make(&server, ROLES, role("binder", bind)).await;
    make(&server, BINDINGS, binding("binder", "Role", "binder", "olga")).await;
    let made = call_as(&server, "olga", "POST", BINDINGS, Some(root)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_role_reference_never_changes() {
    let server = Server::start().await;
    make(&server, BINDINGS, binding("b", "ClusterRole", "view", "bob")).await;
    let other = binding("b", "ClusterRole", "edit", "bob");
    let refused = server.call("PUT", &format!("{BINDINGS}/b"), Some(other)).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    let message = refused.json()["message"].as_str().unwrap().to_owned();
    assert!(
        message.starts_with("RoleBinding.rbac.authorization.k8s.io \"b\" is invalid: roleRef: ")
    );
    assert!(message.ends_with("cannot change roleRef"), "{message}");
    server.stop().await;
}

#[tokio::test]
async fn cluster_roles_gather_what_their_selectors_find() {
    let server = Server::start().await;
    let view = format!("{CLUSTER_ROLES}/view");
    let has_widgets = |role: Value| role["rules"].to_string().contains("widgets");
    let before = server.call("GET", &view, None).await.json();
    assert!(before["rules"].to_string().contains("configmaps") && !has_widgets(before));
    let label = "rbac.authorization.k8s.io/aggregate-to-view";
    let part = json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRole",
        "metadata": {"name": "system:widgets", "labels": {label: "true"}},
        "rules": [{"apiGroups": ["x"], "resources": ["widgets"], "verbs": ["get"]}],
    });
    make(&server, CLUSTER_ROLES, part).await;
    // The admin role gathers from edit, which gathers from view.
    let admin = format!("{CLUSTER_ROLES}/admin");
    let gathered = async {
        while !has_widgets(server.call("GET", &admin, None).await.json()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), gathered).await.unwrap();
    assert!(has_widgets(server.call("GET", &view, None).await.json()));
    server.stop().await;
}

#[tokio::test]
async fn impersonation_needs_leave() {
    let server = Server::start().await;
    let alice = [("authorization", "Bearer t-alice"), ("impersonate-user", "bob")];
    let refused = server.raw("GET", MAPS, Bytes::new(), &alice).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(
        refused.json()["message"],
        "users \"bob\" is forbidden: User \"alice\" cannot impersonate resource \"users\" in API \
         group \"\" at the cluster scope"
    );
    let groups = server.call_with("GET", MAPS, None, &[("impersonate-group", "dev")]).await;
    assert_eq!(groups.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        groups.json()["message"],
        "requested [{Group  dev    }] without impersonating a user"
    );
    let who = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let sent = [
        ("impersonate-user", "bob"),
        ("impersonate-group", "dev"),
        ("impersonate-extra-scopes", "a"),
    ];
    let answer = server.call_with("POST", who, Some(json!({})), &sent).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let answer = answer.json();
    assert_eq!(answer["kind"], "SelfSubjectReview");
    assert_eq!(
        answer["status"]["userInfo"],
        json!({"username": "bob", "groups": ["dev", "system:authenticated"], "extra": {"scopes": ["a"]}})
    );
    server.stop().await;
}

#[tokio::test]
async fn reviews_are_answered_and_forgotten() {
    let server = Server::start().await;
    let base = "/apis/authorization.k8s.io/v1";
    let looked = server.call("GET", SELF_ACCESS, None).await;
    assert_eq!(looked.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(
        looked.json()["message"],
        "the server does not allow this method on the requested resource"
    );
    let empty = server.call("POST", SELF_ACCESS, Some(json!({"spec": {}}))).await;
    assert_eq!(empty.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        empty.json()["message"],
        ".authorization.k8s.io \"\" is invalid: spec.resourceAttributes: \
         Invalid value: \"null\": exactly one of nonResourceAttributes or resourceAttributes must \
         be specified"
    );
    make(&server, BINDINGS, binding("b", "ClusterRole", "view", "bob")).await;
    let asked = json!({"spec": {"user": "bob", "resourceAttributes": {
        "namespace": "default", "verb": "get", "group": "commonage.dev", "resource": "tasks",
        "fieldSelector": {"requirements": [{"key": "a", "operator": "Exists"}]},
    }}});
    let all =
        server.call("POST", &format!("{base}/subjectaccessreviews"), Some(asked.clone())).await;
    assert_eq!(
        all.json()["status"],
        json!({
            "allowed": true,
            "reason": "RBAC: allowed by RoleBinding \"b/default\" of ClusterRole \"view\" to User \"bob\"",
            "evaluationError": "spec.resourceAttributes.fieldSelector ignored due to parse error",
        })
    );
    let local = format!("{base}/namespaces/kube-system/localsubjectaccessreviews");
    let elsewhere = server.call("POST", &local, Some(asked)).await;
    assert_eq!(elsewhere.status, StatusCode::UNPROCESSABLE_ENTITY, "{elsewhere:?}");
    let asked = json!({"spec": {"namespace": "default"}});
    let rules = format!("{base}/selfsubjectrulesreviews");
    let rules = call_as(&server, "bob", "POST", &rules, Some(asked)).await.json();
    assert_eq!(rules["status"]["incomplete"], false);
    let text = rules["status"]["resourceRules"].to_string();
    assert!(text.contains("tasks/log") && text.contains("selfsubjectreviews"), "{text}");
    assert!(rules["status"]["nonResourceRules"].to_string().contains("/openapi/*"));
    server.stop().await;
}

#[tokio::test]
async fn a_token_review_says_whose_a_token_is() {
    let server = Server::start().await;
    let tokens = "/apis/authentication.k8s.io/v1/tokenreviews";
    let ask = |token: &str| server.call("POST", tokens, Some(json!({"spec": {"token": token}})));
    let known = ask("t-alice").await.json();
    assert_eq!(
        known["status"],
        json!({
            "authenticated": true,
            "user": {"username": "alice", "uid": "2", "groups": ["dev", "system:authenticated"]},
            "audiences": ["https://kubernetes.default.svc.cluster.local"],
        })
    );
    let unknown = ask("wrong").await.json();
    assert_eq!(unknown["status"], json!({"user": {}, "error": "invalid bearer token"}));
    assert_eq!(ask("").await.status, StatusCode::BAD_REQUEST);
    server.stop().await;
}

#[tokio::test]
async fn an_agent_sees_its_own_tasks_only() {
    let server = Server::start().await;
    let get = |uri: String| {
        let server = &server;
        async move {
            support::send(server.tls_as_agent("n1").await, "GET", &uri, Bytes::new(), &[]).await
        }
    };
    let everywhere = "/apis/commonage.dev/v1/tasks";
    let own = get(format!("{everywhere}?fieldSelector=spec.agent%3Dn1")).await;
    assert_eq!(own.status, StatusCode::OK, "{own:?}");
    let all = get(everywhere.to_owned()).await;
    assert_eq!(all.status, StatusCode::FORBIDDEN);
    let why = ": can only list/watch tasks with spec.agent field selector";
    assert!(all.json()["message"].as_str().unwrap().ends_with(why), "{all:?}");
    let gone = get(format!("{OURS}/tasks/gone")).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    server.stop().await;
}

#[tokio::test]
async fn a_frameworks_account_reaches_what_is_its_own() {
    let server = Server::start().await;
    let rules = json!([{
        "apiGroups": ["commonage.dev"], "resources": ["frameworks"], "resourceNames": ["spark"],
        "verbs": ["get", "list", "watch", "update", "patch", "use"],
    }]);
    make(&server, ROLES, role("spark", rules)).await;
    make(&server, BINDINGS, binding("spark", "Role", "spark", "sam")).await;
    let task = |name: &str, framework: &str| {
        json!({
            "apiVersion": "commonage.dev/v1", "kind": "Task", "metadata": {"name": name},
            "spec": {
                "framework": framework, "container": {"command": ["true"]},
                "resources": {"cpu": "1", "memory": "8Mi"},
            },
        })
    };
    let tasks = format!("{OURS}/tasks");
    make(&server, &tasks, task("foreign", "flink")).await;
    for (method, uri, body, status) in [
        ("POST", tasks.clone(), Some(task("own", "spark")), 201),
        ("POST", tasks.clone(), Some(task("more", "flink")), 403),
        ("GET", format!("{tasks}/own"), None, 200),
        ("GET", format!("{tasks}/foreign"), None, 403),
        ("GET", format!("{tasks}/gone"), None, 404),
        ("GET", tasks.clone(), None, 403),
        ("GET", format!("{tasks}?fieldSelector=spec.framework%3Dspark"), None, 200),
        ("GET", format!("{tasks}?fieldSelector=spec.framework%3Dflink"), None, 403),
        ("GET", format!("{OURS}/offers?fieldSelector=spec.framework%3Dspark"), None, 200),
        ("GET", format!("{OURS}/frameworks/flink"), None, 403),
        ("GET", format!("{OURS}/frameworks?fieldSelector=metadata.name%3Dspark"), None, 200),
        ("DELETE", format!("{tasks}/foreign"), None, 403),
        ("DELETE", format!("{tasks}/own"), None, 200),
        ("GET", "/apis/commonage.dev/v1/agents".to_owned(), None, 403),
    ] {
        let answer = call_as(&server, "sam", method, &uri, body).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {uri}: {answer:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn who_shows_a_certificate_is_told_its_digest() {
    let server = Server::start().await;
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let uri = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let json = [("content-type", "application/json")];
    let body = Bytes::from(review.to_string());
    let told = support::send(server.tls_as_agent("n1").await, "POST", uri, body, &json).await;
    assert_eq!(told.status, StatusCode::CREATED, "{told:?}");
    let user = &told.json()["status"]["userInfo"];
    assert_eq!(user["username"], "system:agent:n1");
    let ids = user["extra"]["authentication.kubernetes.io/credential-id"].as_array().unwrap();
    let digest = ids[0].as_str().unwrap().strip_prefix("X509SHA256=").unwrap();
    assert!(ids.len() == 1 && digest.len() == 64, "{ids:?}");
    server.stop().await;
}

/// What was allowed when it began is looked at again: a watch ends with the binding, and with the account whose token
/// it shows; those of others go on.
#[tokio::test]
async fn a_watch_ends_when_its_authority_does() {
    let server = Server::start_with(|config| {
        config.authority_check_every = Duration::from_millis(50);
    })
    .await;
    let reads = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}]);
    make(&server, ROLES, role("reader", reads)).await;
    make(&server, BINDINGS, binding("alice", "Role", "reader", "alice")).await;
    let account = "system:serviceaccount:default:robot";
    make(&server, BINDINGS, binding("robot", "Role", "reader", account)).await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let robot =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    make(&server, accounts, robot).await;
    let asked =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let token = server.call("POST", &format!("{accounts}/robot/token"), Some(asked)).await;
    let token = format!("Bearer {}", token.json()["status"]["token"].as_str().unwrap());
    let watch = async |headers: &[(&str, &str)]| {
        let uri = format!("{MAPS}?watch=true");
        let stream = server.tls().await;
        let answer = support::begin(stream, "GET", &uri, Bytes::new(), headers).await;
        assert_eq!(answer.status(), StatusCode::OK);
        answer.into_body()
    };
    let root = [("authorization", "Bearer t-root")];
    let mut of_root = watch(&root).await;
    let of_alice = watch(&[("authorization", "Bearer t-alice")]).await;
    let as_alice = watch(&[root[0], ("impersonate-user", "alice")]).await;
    let of_robot = watch(&[("authorization", &token)]).await;
    let all = async |bodies: Vec<hyper::body::Incoming>| {
        for body in bodies {
            let ended = tokio::time::timeout(Duration::from_secs(60), body.collect()).await;
            ended.expect("the watch goes on").unwrap();
        }
    };
    let gone = server.call("DELETE", &format!("{BINDINGS}/alice"), None).await;
    assert_eq!(gone.status, StatusCode::OK);
    all(vec![of_alice, as_alice]).await;
    let gone = server.call("DELETE", &format!("{accounts}/robot"), None).await;
    assert_eq!(gone.status, StatusCode::OK);
    all(vec![of_robot]).await;
    make(
        &server,
        MAPS,
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}),
    )
    .await;
    let event = of_root.frame().await.unwrap().unwrap();
    assert!(event.data_ref().unwrap().starts_with(b"{\"type\":\"ADDED\""), "{event:?}");
    drop(of_root);
    server.stop().await;
}
