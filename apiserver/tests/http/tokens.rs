//! Tokens of service accounts: issued, used, reviewed, and worthless when they should be.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Answer, Server};

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const API: &str = "https://kubernetes.default.svc.cluster.local";

async fn make_account(server: &Server, name: &str) -> String {
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
    let made = server.call("POST", ACCOUNTS, Some(account)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    made.json()["metadata"]["uid"].as_str().unwrap().to_owned()
}

async fn request(server: &Server, name: &str, spec: Value) -> Answer {
    server.call("POST", &format!("{ACCOUNTS}/{name}/token"), Some(json!({"spec": spec}))).await
}

async fn token(server: &Server, name: &str, spec: Value) -> String {
    let answer = request(server, name, spec).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    answer.json()["status"]["token"].as_str().unwrap().to_owned()
}

async fn who(server: &Server, token: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    let body = Bytes::from_static(b"{}");
    server.raw("POST", WHO, body, &[("authorization", &bearer)]).await
}

async fn review(server: &Server, spec: Value) -> Value {
    let answer = server.call("POST", REVIEWS, Some(json!({"spec": spec}))).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    answer.json()["status"].clone()
}

#[tokio::test]
async fn a_token_is_asked_for_and_used() {
    let server = Server::start().await;
    let uid = make_account(&server, "robot").await;
    let answer = request(&server, "robot", json!({})).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    let answer = answer.json();
    assert_eq!(answer["kind"], "TokenRequest");
    assert_eq!(answer["apiVersion"], "authentication.k8s.io/v1");
    assert_eq!(answer["metadata"]["name"], "robot");
    assert_eq!(
        answer["spec"],
        json!({"audiences": [API], "expirationSeconds": 3600, "boundObjectRef": null})
    );
    let token = answer["status"]["token"].as_str().unwrap();
    for _ in 0..2 {
        let me = who(&server, token).await;
        assert_eq!(me.status, StatusCode::CREATED, "{me:?}");
        let me = me.json()["status"]["userInfo"].clone();
        assert_eq!(me["username"], "system:serviceaccount:default:robot");
        assert_eq!(me["uid"], uid);
        let groups =
            ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"];
        assert_eq!(me["groups"], json!(groups));
        let id = me["extra"]["authentication.kubernetes.io/credential-id"][0].as_str().unwrap();
        assert!(id.starts_with("JTI="));
    }
    // It may what its roles say, and no more.
    let bearer = format!("Bearer {token}");
    let listed = server.raw("GET", SECRETS, Bytes::new(), &[("authorization", &bearer)]).await;
    assert_eq!(listed.status, StatusCode::FORBIDDEN);
    let forged = format!("{}x", &token[..token.len() - 1]);
    let refused = who(&server, &forged).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert_eq!(refused.json()["message"], "Unauthorized");
    server.stop().await;
}

#[tokio::test]
async fn requests_are_refused_in_kubernetes_words() {
    let server = Server::start().await;
    make_account(&server, "robot").await;
    let invalid = "TokenRequest.authentication.k8s.io \"\" is invalid: ";
    let missing = json!({"kind": "Secret", "apiVersion": "v1", "name": "gone"});
    let node = json!({"kind": "Task", "apiVersion": "commonage.dev/v1", "name": "t"});
    for (spec, status, message) in [
        (
            json!({"expirationSeconds": 599}),
            422,
            format!(
                "{invalid}spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes"
            ),
        ),
        (
            json!({"expirationSeconds": 4_294_967_297_i64}),
            422,
            format!(
                "{invalid}spec.expirationSeconds: Invalid value: 4294967297: may not specify a duration larger than \
                 2^32 seconds"
            ),
        ),
        (json!({"boundObjectRef": missing}), 404, "secrets \"gone\" not found".to_owned()),
        (
            json!({"boundObjectRef": node}),
            400,
            "cannot bind token to object of type commonage.dev/v1, Kind=Task".to_owned(),
        ),
    ] {
        let answer = request(&server, "robot", spec).await;
        assert_eq!(answer.status.as_u16(), status, "{answer:?}");
        assert_eq!(answer.json()["message"], message);
    }
    let nobody = request(&server, "nobody", json!({})).await;
    assert_eq!(nobody.status, StatusCode::NOT_FOUND);
    assert_eq!(nobody.json()["message"], "serviceaccounts \"nobody\" not found");
    let other = json!({"metadata": {"name": "other"}, "spec": {}});
    let answer = server.call("POST", &format!("{ACCOUNTS}/robot/token"), Some(other)).await;
    assert_eq!(
        answer.json()["message"],
        "TokenRequest.authentication.k8s.io \"robot\" is invalid: metadata.name: Invalid value: \"other\": must match \
         the service account name if specified"
    );
    let looked = server.call("GET", &format!("{ACCOUNTS}/robot/token"), None).await;
    assert_eq!(looked.status, StatusCode::METHOD_NOT_ALLOWED);
    server.stop().await;
}

#[tokio::test]
async fn a_token_ends_with_its_account() {
    let server = Server::start().await;
    make_account(&server, "robot").await;
    let old = token(&server, "robot", json!({})).await;
    assert_eq!(who(&server, &old).await.status, StatusCode::CREATED);
    server.call("DELETE", &format!("{ACCOUNTS}/robot"), None).await;
    assert_eq!(who(&server, &old).await.status, StatusCode::UNAUTHORIZED);
    // Another account of the same name is another account.
    make_account(&server, "robot").await;
    assert_eq!(who(&server, &old).await.status, StatusCode::UNAUTHORIZED);
    let why = review(&server, json!({"token": old})).await["error"].clone();
    assert!(why.as_str().unwrap().contains("does not match claim"), "{why}");
    server.stop().await;
}

#[tokio::test]
async fn a_bound_token_ends_with_its_secret() {
    let server = Server::start().await;
    make_account(&server, "robot").await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}});
    let secret = server.call("POST", SECRETS, Some(secret)).await.json();
    let mut bound = json!({"kind": "Secret", "apiVersion": "v1", "name": "s", "uid": "other"});
    let conflict = request(&server, "robot", json!({"boundObjectRef": bound})).await;
    assert_eq!(conflict.status, StatusCode::CONFLICT);
    assert_eq!(
        conflict.json()["message"],
        "Operation cannot be fulfilled on Secret \"s\": the UID in the bound object reference (other) does not match \
         the UID in record. The object might have been deleted and then recreated"
    );
    bound["uid"] = secret["metadata"]["uid"].clone();
    let token = token(&server, "robot", json!({"boundObjectRef": bound})).await;
    assert_eq!(who(&server, &token).await.status, StatusCode::CREATED);
    server.call("DELETE", &format!("{SECRETS}/s"), None).await;
    assert_eq!(who(&server, &token).await.status, StatusCode::UNAUTHORIZED);
    server.stop().await;
}

#[tokio::test]
async fn a_token_is_good_for_its_audiences_only() {
    let server = Server::start().await;
    make_account(&server, "robot").await;
    let token = token(&server, "robot", json!({"audiences": ["vault", "other"]})).await;
    assert_eq!(who(&server, &token).await.status, StatusCode::UNAUTHORIZED);
    let refused = review(&server, json!({"token": token})).await;
    assert_eq!(
        refused,
        json!({
            "user": {},
            "error": format!(
                "[invalid bearer token, token audiences [\"vault\" \"other\"] is invalid for the target audiences \
                 [\"{API}\"]]"
            ),
        })
    );
    let known = review(&server, json!({"token": token, "audiences": ["else", "vault"]})).await;
    assert_eq!(known["authenticated"], true);
    assert_eq!(known["audiences"], json!(["vault"]));
    assert_eq!(known["user"]["username"], "system:serviceaccount:default:robot");
    // A token that says no audience is for this server.
    let agnostic = json!({"token": "t-alice", "audiences": ["vault"]});
    assert_eq!(review(&server, agnostic).await["authenticated"], Value::Null);
    server.stop().await;
}

#[tokio::test]
async fn others_learn_how_to_recognize_tokens() {
    let server = Server::start().await;
    make_account(&server, "robot").await;
    let token = token(&server, "robot", json!({})).await;
    let bearer = format!("Bearer {token}");
    let get = |uri: &'static str, bearer: String| {
        let server = &server;
        async move { server.raw("GET", uri, Bytes::new(), &[("authorization", &bearer)]).await }
    };
    let document = get("/.well-known/openid-configuration", bearer.clone()).await;
    assert_eq!(document.status, StatusCode::OK, "{document:?}");
    assert_eq!(document.header("cache-control"), "public, max-age=3600");
    let document = document.json();
    assert_eq!(document["issuer"], API);
    assert_eq!(document["id_token_signing_alg_values_supported"], json!(["ES256"]));
    assert_eq!(document["jwks_uri"], format!("{}/openid/v1/jwks", server.api.server_url()));
    let keys = get("/openid/v1/jwks", bearer).await;
    assert_eq!(keys.header("content-type"), "application/jwk-set+json");
    let keys = keys.json();
    assert_eq!((&keys["keys"][0]["alg"], &keys["keys"][0]["kty"]), (&json!("ES256"), &json!("EC")));
    let stranger = get("/openid/v1/jwks", "Bearer t-alice".to_owned()).await;
    assert_eq!(stranger.status, StatusCode::FORBIDDEN);
    server.stop().await;
}

#[tokio::test]
async fn tokens_outlive_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_in(dir.path()).await;
    make_account(&server, "robot").await;
    let token = token(&server, "robot", json!({"expirationSeconds": 600})).await;
    server.stop().await;
    let server = Server::start_in(dir.path()).await;
    assert_eq!(who(&server, &token).await.status, StatusCode::CREATED);
    server.stop().await;
}

#[tokio::test]
async fn a_secret_made_for_an_account_holds_a_token_and_goes_with_it() {
    use base64::prelude::{BASE64_STANDARD, Engine as _};

    let server = Server::start().await;
    let uid = make_account(&server, "robot").await;
    let secret = |name: &str, account: &str| {
        Some(json!({
            "metadata": {
                "name": name, "annotations": {"kubernetes.io/service-account.name": account},
            },
            "type": "kubernetes.io/service-account-token",
        }))
    };
    let made = server.call("POST", SECRETS, secret("robot-token", "robot")).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let path = format!("{SECRETS}/robot-token");
    let filled = until(&server, &path, |answer| !answer.json()["data"]["token"].is_null()).await;
    let filled = filled.json();
    let annotations = &filled["metadata"]["annotations"];
    assert_eq!(annotations["kubernetes.io/service-account.uid"], *uid);
    let text = |key: &str| {
        let bytes = BASE64_STANDARD.decode(filled["data"][key].as_str().unwrap()).unwrap();
        String::from_utf8(bytes).unwrap()
    };
    assert_eq!(text("namespace"), "default");
    assert!(text("ca.crt").contains("BEGIN CERTIFICATE"));
    let me = who(&server, &text("token")).await.json();
    assert_eq!(me["status"]["userInfo"]["username"], "system:serviceaccount:default:robot");
    // One for nobody is not kept.
    server.call("POST", SECRETS, secret("nobodys", "nobody")).await;
    let gone = |answer: &Answer| answer.status == StatusCode::NOT_FOUND;
    until(&server, &format!("{SECRETS}/nobodys"), gone).await;
    let deleted = server.call("DELETE", &format!("{ACCOUNTS}/robot"), None).await;
    assert_eq!(deleted.status, StatusCode::OK, "{deleted:?}");
    until(&server, &path, gone).await;
    assert_eq!(who(&server, &text("token")).await.status, StatusCode::UNAUTHORIZED);
    server.stop().await;
}

/// Asks again until the answer is as wanted.
async fn until(server: &Server, uri: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
    let asking = async {
        loop {
            let answer = server.call("GET", uri, None).await;
            if wanted(&answer) {
                return answer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), asking)
        .await
        .unwrap_or_else(|_| panic!("{uri} never came to that"))
}
