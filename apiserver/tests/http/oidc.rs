//! Tokens of an OpenID Connect issuer: a small one of our own, over HTTPS with its own authority.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use commonage_apiserver::auth::oidc::OidcConfig;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer as Signer, KeyPair};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::{Answer, Server};

const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// A key on P-256 with a name.
struct Key {
    id: &'static str,
    pair: EcdsaKeyPair,
}

impl Key {
    fn new(id: &'static str) -> Key {
        let pkcs8 = KeyPair::generate().unwrap().serialize_der();
        let random = SystemRandom::new();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &random).unwrap();
        Key { id, pair }
    }

    fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let half = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({"kty": "EC", "crv": "P-256", "kid": self.id, "x": half(&point[1..33]), "y": half(&point[33..])})
    }

    fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": "ES256", "kid": self.id});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

/// Serves discovery and keys until the test ends.
struct Issuer {
    url: String,
    ca_file: PathBuf,
    keys: Arc<Mutex<Vec<Value>>>,
    _dir: TempDir,
}

impl Issuer {
    async fn start(keys: &[&Key]) -> Issuer {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&ca_key).unwrap();
        let ca_file = dir.path().join("ca.crt");
        std::fs::write(&ca_file, ca.pem()).unwrap();
        let signer = Signer::new(params, ca_key);
        let leaf_key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&leaf_key, &signer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivateKeyDer::from(PrivatePkcs8KeyDer::from(leaf_key.serialize_der())),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let keys = Arc::new(Mutex::new(keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()));
        let (published, issuer) = (keys.clone(), url.clone());
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                let (published, issuer) = (published.clone(), issuer.clone());
                let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let answer = match request.uri().path() {
                        "/.well-known/openid-configuration" => {
                            json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")})
                        }
                        "/keys" => json!({"keys": *published.lock().unwrap()}),
                        _ => Value::Null,
                    };
                    let body = Full::new(Bytes::from(answer.to_string()));
                    async move { Ok::<_, Infallible>(Response::new(body)) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Issuer { url, ca_file, keys, _dir: dir }
    }

    fn config(&self) -> OidcConfig {
        OidcConfig {
            issuer_url: self.url.clone(),
            client_id: "us".into(),
            username_claim: "email".into(),
            groups_claim: "groups".into(),
            groups_prefix: "oidc:".into(),
            ca_file: Some(self.ca_file.clone()),
            signing_algs: vec!["ES256".into(), "RS256".into()],
            ..OidcConfig::default()
        }
    }

    fn claims(&self, change: Value) -> Value {
        let mut claims = json!({
            "iss": self.url, "aud": "us", "exp": now_s() + 600, "email": "ann@example.com",
            "groups": ["dev"],
        });
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    }
}

fn now_s() -> i64 {
    jiff::Timestamp::now().as_second()
}

async fn start(issuer: &Issuer) -> Server {
    Server::start_with(|config| config.authentication.oidc = Some(issuer.config())).await
}

async fn who(server: &Server, token: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    server.raw("POST", WHO, Bytes::from_static(b"{}"), &[("authorization", &bearer)]).await
}

#[tokio::test]
async fn an_issuers_users_are_let_in() {
    let key = Key::new("one");
    let issuer = Issuer::start(&[&key]).await;
    let server = start(&issuer).await;
    let me = who(&server, &key.sign(&issuer.claims(json!({"jti": "7"})))).await;
    assert_eq!(me.status, StatusCode::CREATED, "{me:?}");
    assert_eq!(
        me.json()["status"]["userInfo"],
        json!({
            "username": "ann@example.com",
            "groups": ["oidc:dev", "system:authenticated"],
            "extra": {"authentication.kubernetes.io/credential-id": ["JTI=7"]},
        })
    );
    server.stop().await;
}

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it() {
    let (old, new) = (Key::new("old"), Key::new("new"));
    let issuer = Issuer::start(&[&old]).await;
    let server = start(&issuer).await;
    let token = |key: &Key| key.sign(&issuer.claims(json!({})));
    assert_eq!(who(&server, &token(&old)).await.status, StatusCode::CREATED);
    issuer.keys.lock().unwrap().push(new.jwk());
    // At once, unless keys have just been fetched for another unknown one: then a little later.
    let found = async {
        while who(&server, &token(&new)).await.status != StatusCode::CREATED {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), found).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn tokens_that_prove_nothing_are_refused() {
    let (key, strange) = (Key::new("one"), Key::new("one"));
    let issuer = Issuer::start(&[&key]).await;
    let server = start(&issuer).await;
    let good = key.sign(&issuer.claims(json!({})));
    assert_eq!(who(&server, &good).await.status, StatusCode::CREATED);
    let claims = good.split('.').nth(1).unwrap();
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = format!("{}.{claims}.", part(json!({"alg": "none"})));
    // The public key as the secret of an HMAC.
    let signed = format!("{}.{claims}", part(json!({"alg": "HS256", "kid": "one"})));
    let public = key.pair.public_key().as_ref();
    let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, public);
    let tag = ring::hmac::sign(&secret, signed.as_bytes());
    let confused = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag));
    for (what, token) in [
        ("another audience", key.sign(&issuer.claims(json!({"aud": "them"})))),
        ("another issuer", key.sign(&issuer.claims(json!({"iss": "https://else.where"})))),
        ("expired", key.sign(&issuer.claims(json!({"exp": now_s() - 10})))),
        ("without end", key.sign(&issuer.claims(json!({"exp": null})))),
        ("not yet valid", key.sign(&issuer.claims(json!({"nbf": now_s() + 3600})))),
        ("unverified address", key.sign(&issuer.claims(json!({"email_verified": false})))),
        ("another key of the same name", strange.sign(&issuer.claims(json!({})))),
        ("none", unsigned),
        ("HS256", confused),
    ] {
        assert_eq!(who(&server, &token).await.status, StatusCode::UNAUTHORIZED, "{what}");
    }
    server.stop().await;
}

#[tokio::test]
async fn an_issuer_that_is_away_does_not_keep_the_server_down() {
    let key = Key::new("one");
    let issuer = Issuer::start(&[&key]).await;
    let gone = OidcConfig { issuer_url: "https://localhost:1".into(), ..issuer.config() };
    let server = Server::start_with(|config| config.authentication.oidc = Some(gone)).await;
    let token = key.sign(&issuer.claims(json!({"iss": "https://localhost:1"})));
    assert_eq!(who(&server, &token).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(who(&server, "t-alice").await.status, StatusCode::CREATED);
    server.stop().await;
}
