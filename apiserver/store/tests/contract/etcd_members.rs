//! etcd of more than one address, and etcd that asks who we are.

use std::path::Path;
use std::time::{Duration, Instant};

use commonage_store::etcd::{EtcdOptions, EtcdStore, EtcdTls};
use commonage_store::{Store, StoreError};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::etcd_process::EtcdProcess;
use crate::words::*;

/// An address that nobody listens on.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_down_is_not_asked_again() {
    let process = EtcdProcess::start();
    // Whichever is asked first.
    for endpoints in [
        [process.endpoint(), nobody(), nobody()],
        [nobody(), process.endpoint(), nobody()],
        [nobody(), nobody(), process.endpoint()],
    ] {
        let store = EtcdStore::connect(EtcdOptions::new(endpoints)).await.unwrap();
        let start = store.revision().await.unwrap();
        let mut tail = store.tail(start);
        for number in 0..20 {
            must(&store, [put("/a", number.to_string())]).await;
        }
        let newest = store.revision().await.unwrap();
        assert_eq!(changes(&batches_to(&mut tail, newest).await).len(), 20);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_no_member_answers_it_is_said_at_once() {
    let mut process = EtcdProcess::start();
    let other = nobody();
    let options = EtcdOptions::new([process.endpoint(), other.clone()]);
    let store = EtcdStore::connect(options).await.unwrap();
    process.kill();
    let began = Instant::now();
    let outcome = soon("a clear refusal", async {
        loop {
            match store.commit(write([], [put("/a", "")])).await {
                Err(StoreError::Unavailable(why)) => break why,
                Err(StoreError::UnknownOutcome(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
    assert!(outcome.contains("etcd"), "{outcome}");
    let Err(StoreError::Unavailable(why)) = store.revision().await else { panic!("it is down") };
    assert!(why.contains(&other) && why.contains(&process.endpoint()), "{why}");
    assert!(began.elapsed() < Duration::from_secs(20));
    process.start_again();
    soon("etcd back", async { while store.revision().await.is_err() {} }).await;
    must(&store, [put("/a", "")]).await;
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

fn file(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_asks_for_certificates_is_shown_one() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (certificate, key) = authority.issue("127.0.0.1");
    let process = EtcdProcess::start_with(&[
        "--cert-file",
        &file(dir.path(), "server.pem", &certificate),
        "--key-file",
        &file(dir.path(), "server.key", &key),
        "--trusted-ca-file",
        &file(dir.path(), "ca.pem", &authority.pem),
        "--client-cert-auth",
    ]);
    let options = |ca: &Authority, identity: Option<(String, String)>| EtcdOptions {
        tls: Some(EtcdTls {
            ca_pem: ca.pem.clone().into_bytes(),
            identity_pem: identity
                .map(|(certificate, key)| (certificate.into_bytes(), key.into_bytes())),
        }),
        request_timeout: Duration::from_secs(10),
        ..EtcdOptions::new([format!("https://{}", process.endpoint())])
    };
    let us = || Some(authority.issue("apiserver"));
    let store = EtcdStore::connect(options(&authority, us())).await.unwrap();
    must(&store, [put("/a", "1")]).await;
    for wrong in [
        options(&authority, None),
        options(&authority, Some(stranger.issue("apiserver"))),
        options(&stranger, us()),
    ] {
        let outcome = EtcdStore::connect(wrong).await;
        assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    }
}
