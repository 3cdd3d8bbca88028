#![allow(clippy::unwrap_used)]
use super::*;
use axum::routing::get;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test-ca");
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["node-1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn identity(&self) -> Identity {
        let (certificate_pem, key_pem) = self.issue("system:agent:node-1");
        Identity { certificate_pem, key_pem, ca_pem: self.pem.clone() }
    }
}

/// What a client with this certificate gets for `GET /healthz`.
async fn ask(
    address: SocketAddr,
    trusted: &Authority,
    client: Option<(String, String)>,
) -> std::io::Result<String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(certificates(&trusted.pem, "CA").unwrap().remove(0)).unwrap();
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match client {
        Some((pem, key_pem)) => config
            .with_client_auth_cert(certificates(&pem, "own").unwrap(), key(&key_pem).unwrap())
            .unwrap(),
        None => config.with_no_client_auth(),
    };
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("node-1").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let request = b"GET /healthz HTTP/1.1\r\nhost: node-1\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8(answer).unwrap())
}

#[tokio::test]
async fn only_the_api_server_is_served() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let endpoint = Endpoint::bind(listen, &authority.identity()).await.unwrap();
    let address = endpoint.address;
    let shutdown = CancellationToken::new();
    let router = Router::new().route("/healthz", get(|| async { "fine" }));
    let serving = tokio::spawn(endpoint.serve(router, shutdown.clone()));

    let api_server = Some(authority.issue("system:apiserver"));
    let answer = ask(address, &authority, api_server).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("fine"), "{answer}");

    let refused = [
        ("no certificate", None),
        ("an agent", Some(authority.issue("system:agent:node-1"))),
        ("an administrator", Some(authority.issue("admin"))),
        ("another cluster's API server", Some(stranger.issue("system:apiserver"))),
    ];
    for (who, client) in refused {
        let answer = ask(address, &authority, client).await.unwrap_or_default();
        assert_eq!(answer, "", "{who} was answered");
    }
    shutdown.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn answers_are_not_held_back() {
    let authority = Authority::new();
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let endpoint = Endpoint::bind(listen, &authority.identity()).await.unwrap();
    let (accepted, client) = tokio::join!(endpoint.accept(), TcpStream::connect(endpoint.address));
    let (stream, peer) = accepted.unwrap();
    assert!(stream.nodelay().unwrap());
    assert_eq!(peer, client.unwrap().local_addr().unwrap());
}

#[tokio::test]
async fn what_keeps_it_from_starting_is_named() {
    let authority = Authority::new();
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let taken = Endpoint::bind(listen, &authority.identity()).await.unwrap();
    let again = Endpoint::bind(taken.address, &authority.identity()).await;
    let error = again.err().unwrap().to_string();
    assert!(error.contains(&taken.address.to_string()), "{error}");

    let empty = Identity { certificate_pem: String::new(), ..authority.identity() };
    let error = Endpoint::bind(listen, &empty).await.err().unwrap().to_string();
    assert!(error.contains("certificate is not in the PEM"), "{error}");
}
