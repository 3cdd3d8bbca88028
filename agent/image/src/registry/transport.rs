//! Connections, and where they may lead.
//!
//! A registry is whoever the task names; where it redirects to, the task did not say. So a redirect leads to
//! the same host, or by HTTPS to a public address, or to a host that the operator has named. The address is
//! judged when the connection is made, not before: names can change their mind.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::TokioExecutor;

use crate::error::Error;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Where images may come from, beyond HTTPS and public addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Registries, `host` or `host:port`, that are spoken to without TLS. Those on the machine itself always
    /// are.
    pub insecure: Vec<String>,
    /// Hosts, `host` or `host:port`, that a registry may redirect to though they are not public or not HTTPS.
    pub redirects: Vec<String>,
}

/// Which addresses a connection may go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Wherever the name leads, save the machine's metadata service.
    Direct,
    /// Public addresses only.
    Public,
}

type Http = Client<HttpsConnector<HttpConnector<Resolver>>, Empty<Bytes>>;

pub(super) struct Transport {
    direct: Http,
    public: Http,
    policy: Policy,
}

impl Transport {
    pub(super) fn new(policy: Policy) -> Transport {
        Transport { direct: client(Way::Direct), public: client(Way::Public), policy }
    }

    pub(super) async fn request(
        &self,
        request: Request<Empty<Bytes>>,
        way: Way,
    ) -> Result<Response<Incoming>, ClientError> {
        match way {
            Way::Direct => self.direct.request(request).await,
            Way::Public => self.public.request(request).await,
        }
    }

    /// How a registry is spoken to.
    pub(super) fn scheme(&self, authority: &str) -> &'static str {
        let host = host_of(authority);
        let loopback = host == "localhost"
            || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if loopback || named(&self.policy.insecure, authority) { "http" } else { "https" }
    }

    /// Where a redirect leads, and by which way; `home` is what was asked for first.
    pub(super) fn redirect(
        &self,
        home: &Uri,
        from: &Uri,
        location: &str,
    ) -> Result<(Uri, Way), Error> {
        let forbid = |why: &str| {
            let shown: String = location.chars().take(200).collect();
            Err(Error::Forbidden(format!(
                "{} redirects to {shown:?}: {why}",
                from.authority().map_or("", |a| a.as_str())
            )))
        };
        let Some(target) = resolve(from, location) else {
            return forbid("that is no address");
        };
        let (Some(scheme), Some(authority)) = (target.scheme_str(), target.authority()) else {
            return forbid("that is no address");
        };
        if !matches!(scheme, "http" | "https") {
            return forbid("only http and https are followed");
        }
        if authority.as_str().contains('@') {
            return forbid("it carries credentials");
        }
        let same_host = Some(authority) == home.authority();
        if same_host && (scheme == "https" || home.scheme_str() == Some("http")) {
            return Ok((target, Way::Direct));
        }
        if named(&self.policy.redirects, authority.as_str()) {
            return Ok((target, Way::Direct));
        }
        if scheme != "https" {
            return forbid("only https is followed to another host");
        }
        // A name is judged when it is resolved.
        if host_of(authority.as_str()).parse::<IpAddr>().is_ok_and(|a| !is_public(a)) {
            return forbid("that is no public address");
        }
        Ok((target, Way::Public))
    }

    /// Where a registry may send its clients for a token: what it may redirect to, and other ports of its host.
    pub(super) fn realm(&self, home: &Uri, realm: &str) -> Result<(Uri, Way), Error> {
        let target = resolve(home, realm);
        let same_host = target.as_ref().is_some_and(|target| {
            let host = |uri: &Uri| uri.authority().map(|a| host_of(a.as_str()).to_owned());
            host(target) == host(home)
                && matches!(target.scheme_str(), Some("https") | Some("http"))
                && (target.scheme_str() == Some("https") || home.scheme_str() == Some("http"))
        });
        match target {
            Some(target) if same_host => Ok((target, Way::Direct)),
            _ => self.redirect(home, home, realm),
        }
    }
}

fn client(way: Way) -> Http {
    let mut http = HttpConnector::new_with_resolver(Resolver(way));
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3");
    let tls = match config.clone().with_native_roots() {
        Ok(config) => config.with_no_client_auth(),
        // Then nothing is trusted, and what needs no TLS still works.
        Err(error) => {
            tracing::warn!(%error, "this machine trusts no certificate authority");
            config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
        }
    };
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(http);
    Client::builder(TokioExecutor::new()).pool_idle_timeout(IDLE_TIMEOUT).build(connector)
}

/// A target relative to where it was found.
fn resolve(from: &Uri, location: &str) -> Option<Uri> {
    if location.starts_with('/') && !location.starts_with("//") {
        let mut parts = from.clone().into_parts();
        parts.path_and_query = Some(location.parse().ok()?);
        return Uri::from_parts(parts).ok();
    }
    location.parse().ok()
}

/// Whether a list names a host with this port, or the host with any.
fn named(list: &[String], authority: &str) -> bool {
    list.iter().any(|name| name == authority || name == host_of(authority))
}

/// Without the port, and an IPv6 address without its brackets.
fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => authority.split(':').next().unwrap_or(authority),
    }
}

/// Looks names up, and leaves out addresses that must not be gone to.
#[derive(Clone)]
struct Resolver(Way);

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotAllowed(String);

impl tower_service::Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let way = self.0;
        Box::pin(async move {
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<_> = found
                .iter()
                .copied()
                .filter(|address| match way {
                    Way::Direct => !is_link_local(address.ip()),
                    Way::Public => is_public(address.ip()),
                })
                .collect();
            match allowed.is_empty() && !found.is_empty() {
                true => Err(std::io::Error::other(NotAllowed(format!(
                    "{} is {}, which is no address to go to from here",
                    name.as_str(),
                    found[0].ip()
                )))),
                false => Ok(allowed.into_iter()),
            }
        })
    }
}

/// Whether an error is this module's own refusal, and why.
pub(super) fn forbidden(error: &ClientError) -> Option<String> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(refusal) = current.downcast_ref::<NotAllowed>() {
            return Some(refusal.to_string());
        }
        let inner = current.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(refusal) = inner.and_then(|inner| inner.downcast_ref::<NotAllowed>()) {
            return Some(refusal.to_string());
        }
        cause = current.source();
    }
    None
}

/// An error with its causes, which hyper leaves out.
pub(super) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

/// An address in figures is not resolved, and so looked at here.
pub(super) fn refuse_literal(url: &Uri) -> Result<(), Error> {
    let host = host_of(url.authority().map_or("", |authority| authority.as_str()));
    match host.parse::<IpAddr>() {
        Ok(address) if is_link_local(address) => {
            Err(Error::Forbidden(format!("{host} is no address to go to from here")))
        }
        _ => Ok(()),
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.is_link_local(),
            None => v6.segments()[0] & 0xffc0 == 0xfe80,
        },
    }
}

/// Whether an address belongs to the internet rather than to this machine or its surroundings.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    !(v4.is_private()
        || v4.is_loopback()
        || v4.is_link_local()
        || v4.is_broadcast()
        || v4.is_documentation()
        || v4.is_multicast()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 198 && (b == 18 || b == 19))
        || (a == 192 && b == 0 && c == 0))
}

fn is_public_v6(v6: Ipv6Addr) -> bool {
    let segments = v6.segments();
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            embedded(high, low)
        }
        [0x2002, high, low, ..] => embedded(high, low),
        // Global unicast, without what is set aside for documentation and benchmarks.
        [first, second, ..] => {
            first & 0xe000 == 0x2000 && !(first == 0x2001 && (second == 0xdb8 || second < 0x200))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_are_public_or_not() {
        for public in ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "198.51.99.1"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for other in [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "255.255.255.255",
            "224.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "ff02::1",
        ] {
            assert!(!is_public(other.parse().unwrap()), "{other}");
        }
    }

    #[test]
    fn a_redirect_leads_home_or_to_the_public_by_https() {
        let transport = Transport::new(Policy {
            redirects: vec!["store.corp:9000".to_owned()],
            ..Policy::default()
        });
        let home: Uri = "https://registry.example.com/v2/a/blobs/x".parse().unwrap();
        let local: Uri = "http://127.0.0.1:5000/v2/a/blobs/x".parse().unwrap();
        let go = |home: &Uri, to: &str| transport.redirect(home, home, to).map(|(_, way)| way);
        assert_eq!(go(&home, "https://cdn.example.com/x").unwrap(), Way::Public);
        assert_eq!(go(&home, "/elsewhere").unwrap(), Way::Direct);
        assert_eq!(go(&home, "http://store.corp:9000/x").unwrap(), Way::Direct);
        assert_eq!(go(&local, "http://127.0.0.1:5000/y").unwrap(), Way::Direct);
        for (home, to, why) in [
            (&home, "http://cdn.example.com/x", "only https"),
            (&home, "http://registry.example.com/x", "only https"),
            (&home, "https://10.0.0.1/x", "no public"),
            (&home, "https://[::1]/x", "no public"),
            (&home, "file:///etc/passwd", "no address"),
            (&home, "ftp://a/b", "only http"),
            (&home, "https://u:p@cdn.example.com/", "credentials"),
            (&home, "//x y", "no address"),
            (&local, "http://169.254.169.254/latest/meta-data", "only https"),
            (&local, "http://127.0.0.1:5001/y", "only https"),
        ] {
            let error = go(home, to).unwrap_err();
            assert!(matches!(&error, Error::Forbidden(t) if t.contains(why)), "{to}: {error}");
        }
    }

    #[test]
    fn only_this_machine_is_spoken_to_in_the_clear() {
        let policy = Policy { insecure: vec!["old.corp".to_owned()], ..Policy::default() };
        let transport = Transport::new(policy);
        for (host, scheme) in [
            ("127.0.0.1:5000", "http"),
            ("localhost:5000", "http"),
            ("[::1]:5000", "http"),
            ("old.corp:5000", "http"),
            ("10.0.0.1:5000", "https"),
            ("quay.io", "https"),
        ] {
            assert_eq!(transport.scheme(host), scheme, "{host}");
        }
    }
}
