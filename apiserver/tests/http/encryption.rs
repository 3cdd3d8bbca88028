//! Secrets as they lie in the store.

use std::path::{Path, PathBuf};

use commonage_apiserver::server::StoreKind;
use commonage_apiserver::{ApiServer, Config};
use serde_json::{Value, json};

use crate::support::Server;

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const CANARY: &str = "canary-of-the-mine";

/// Kinds of providers with a key each: its name is the kind's (`aesgcm-1`), its secret `AAAA…` or
/// `BBBB…`, 32 bytes of base64.
fn configuration(dir: &Path, keys: &[(&str, char)]) -> PathBuf {
    let mut text = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n\
                    resources:\n- resources: [secrets]\n  providers:\n"
        .to_owned();
    for (name, letter) in keys {
        let secret = format!("{}=", String::from(*letter).repeat(43));
        let kind = name.split('-').next().unwrap();
        text.push_str(&format!("  - {kind}: {{keys: [{{name: {name}, secret: {secret}}}]}}\n"));
    }
    text.push_str("  - identity: {}\n");
    let path = dir.join("encryption.yaml");
    std::fs::write(&path, text).unwrap();
    path
}

async fn server(dir: &Path, keys: &[(&str, char)]) -> Server {
    let encryption_config = (!keys.is_empty()).then(|| configuration(dir, keys));
    Server::start_over_with(dir, StoreKind::Embedded, |config| {
        config.storage.encryption_config = encryption_config;
    })
    .await
}

/// Whether any file of the store has these bytes in it.
fn lies_in(dir: &Path, bytes: &[u8]) -> bool {
    let mut left = vec![dir.join("store")];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if holds(&std::fs::read(path).unwrap(), bytes) {
            return true;
        }
    }
    false
}

fn holds(all: &[u8], bytes: &[u8]) -> bool {
    all.windows(bytes.len()).any(|part| part == bytes)
}

fn secret(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"k": CANARY}})
}

#[tokio::test]
async fn secrets_are_encrypted_and_keys_can_be_turned() {
    use base64::Engine as _;
    let dir = tempfile::tempdir().unwrap();
    let plain = base64::engine::general_purpose::STANDARD.encode(CANARY);
    let one = server(dir.path(), &[("aesgcm-1", 'A')]).await;
    let made = one.call("POST", SECRETS, Some(secret("s"))).await;
    assert_eq!(made.status, 201);
    assert_eq!(one.call("GET", &format!("{SECRETS}/s"), None).await.json()["data"]["k"], plain);
    let backup = one.call("GET", "/backup", None).await;
    assert_eq!(backup.status, 200);
    assert!(holds(&backup.body, b"k8s:enc:aesgcm:v1:aesgcm-1:"));
    assert!(holds(&backup.body, b"/secrets/default/s") && !holds(&backup.body, plain.as_bytes()));
    one.stop().await;
    assert!(lies_in(dir.path(), b"k8s:enc:aesgcm:v1:aesgcm-1:"));
    assert!(!lies_in(dir.path(), plain.as_bytes()));
    assert!(!lies_in(dir.path(), CANARY.as_bytes()));

    // A new key first, the old one still known: what is written again is written with the new one,
    // though nothing of it has changed.
    let two = server(dir.path(), &[("secretbox-2", 'E'), ("aesgcm-1", 'A')]).await;
    let path = format!("{SECRETS}/s");
    let found = two.call("GET", &path, None).await.json();
    assert_eq!(found["data"]["k"], plain);
    assert_eq!(two.call("PUT", &path, Some(found)).await.status, 200);
    two.stop().await;
    assert!(lies_in(dir.path(), b"k8s:enc:secretbox:v1:secretbox-2:"));

    let only_new = server(dir.path(), &[("secretbox-2", 'E')]).await;
    assert_eq!(only_new.call("GET", &path, None).await.json()["data"]["k"], plain);
    only_new.stop().await;

    // The wrong key: the server starts, everything else works, and it is said what is missing.
    let wrong = server(dir.path(), &[("aesgcm-3", 'I')]).await;
    assert_eq!(wrong.call("POST", SECRETS, Some(secret("t"))).await.status, 201);
    let listed = wrong.call("GET", SECRETS, None).await.json();
    let names: Vec<&str> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["metadata"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["t"]);
    let refused = wrong.call("GET", &path, None).await;
    assert_eq!(refused.status, 500);
    let message = refused.json()["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains("secrets \"s\"") && message.contains("secretbox:v1:secretbox-2:"),
        "{message}"
    );
    assert_eq!(wrong.call("DELETE", &path, None).await.status, 200);
    assert_eq!(wrong.call("GET", &path, None).await.status, 404);
    wrong.stop().await;
}

#[tokio::test]
async fn a_configuration_that_is_wrong_stops_the_server_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("encryption.yaml");
    std::fs::write(&path, "apiVersion: v1\nkind: Secret\nresources: []\n").unwrap();
    let mut config = Config::for_tests(dir.path());
    config.storage.encryption_config = Some(path);
    let error = format!("{:#}", ApiServer::start(config).await.err().unwrap());
    assert!(error.contains("encryption.yaml"), "{error}");
}
