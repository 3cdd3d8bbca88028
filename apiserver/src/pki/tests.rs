#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;

use super::*;

fn names() -> Vec<String> {
    ["127.0.0.1", "::1", "localhost"].map(str::to_owned).into()
}

#[test]
fn a_second_start_finds_the_same_authority_and_identities() {
    let dir = tempfile::tempdir().unwrap();
    let first = Pki::open(dir.path()).unwrap();
    let admin = first.admin().unwrap();
    let serving = first.serving(&names()).unwrap();
    let agent = first.issue_agent("node-1").unwrap();

    let second = Pki::open(dir.path()).unwrap();
    assert_eq!(first.ca_pem(), second.ca_pem());
    assert_eq!(admin.certificate_pem, second.admin().unwrap().certificate_pem);
    assert_eq!(serving.certificate_pem, second.serving(&names()).unwrap().certificate_pem);
    assert_eq!(agent.certificate_pem, second.issue_agent("node-1").unwrap().certificate_pem);
}

#[test]
fn other_names_get_another_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path()).unwrap();
    let before = pki.serving(&names()).unwrap();
    let mut more = names();
    more.push("machine.example".to_owned());
    let after = pki.serving(&more).unwrap();
    assert_ne!(before.certificate_pem, after.certificate_pem);
}

#[test]
fn keys_are_for_their_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path()).unwrap();
    pki.admin().unwrap();
    pki.issue_agent("a").unwrap();
    for key in ["ca.key", "admin.key", "agents/a.key"] {
        let mode = std::fs::metadata(dir.path().join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
}

#[test]
fn a_torn_pair_is_issued_anew() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path()).unwrap();
    pki.admin().unwrap();
    let other = pki.controllers().unwrap();
    std::fs::write(dir.path().join("admin.key"), &other.key_pem).unwrap();
    let again = pki.admin().unwrap();
    let (chain, _) = again.der().unwrap();
    assert!(key_matches(&chain[0], &KeyPair::from_pem(&again.key_pem).unwrap()));
}

#[test]
fn a_lost_authority_key_is_an_error_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    Pki::open(dir.path()).unwrap();
    std::fs::remove_file(dir.path().join("ca.key")).unwrap();
    let error = Pki::open(dir.path()).err().unwrap().to_string();
    assert!(error.contains("ca.key is missing"), "{error}");
}

#[test]
fn an_agent_name_cannot_leave_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path()).unwrap();
    for name in ["", "../x", "A", "a/b", "-a", "a..b"] {
        assert!(pki.issue_agent(name).is_err(), "{name:?}");
    }
}

#[test]
fn a_kubeconfig_says_what_kubectl_needs() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path()).unwrap();
    let path = dir.path().join("kubeconfig");
    let identity = pki.admin().unwrap();
    write_kubeconfig(
        &path,
        &Kubeconfig {
            server: "https://127.0.0.1:1",
            ca_pem: pki.ca_pem(),
            user: "admin",
            identity: &identity,
        },
    )
    .unwrap();
    let config = kube::config::Kubeconfig::read_from(&path).unwrap();
    assert_eq!(config.current_context.as_deref(), Some("admin@commonage"));
    assert_eq!(config.auth_infos.len(), 1);
}
