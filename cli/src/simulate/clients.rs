//! Many clients over few connections, by HTTP/2.

use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{
    Client, Config,
    client::{Body, ConfigExt},
};
use tower::{BoxError, ServiceBuilder, ServiceExt};

use crate::{
    errors::{Failure, Result, exit},
    role,
};

/// Watches over one connection: servers let no more than 250 streams be open on one.
const WATCHES_PER_CONNECTION: usize = 200;
/// Connections for everything else, which comes and goes.
const REQUEST_CONNECTIONS: usize = 8;

pub(super) struct Clients {
    requests: Vec<Client>,
    watches: Vec<Client>,
}

impl Clients {
    /// For so many watches.
    pub(super) fn new(config: &Config, watches: usize) -> Result<Clients> {
        let all = |count: usize| (0..count).map(|_| connect(config)).collect::<Result<_>>();
        Ok(Clients {
            requests: all(REQUEST_CONNECTIONS)?,
            watches: all(watches.div_ceil(WATCHES_PER_CONNECTION).max(1))?,
        })
    }

    pub(super) fn requests(&self) -> Client {
        self.requests_of(0)
    }

    pub(super) fn requests_of(&self, number: usize) -> Client {
        self.requests[number % self.requests.len()].clone()
    }

    pub(super) fn watch_of(&self, number: usize) -> Client {
        self.watches[number % self.watches.len()].clone()
    }
}

/// A client with one connection of its own.
fn connect(config: &Config) -> Result<Client> {
    let broken = |why: String| {
        Failure::new(format!("cannot talk to {}: {why}", config.cluster_url))
            .exit(exit::UNREACHABLE)
    };
    let tls = config.rustls_client_config().map_err(|error| broken(error.to_string()))?;
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    // The head of a request and its body are written one after the other: without this the body waits until the head is
    // acknowledged, 40 ms later.
    http.set_nodelay(true);
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http2()
        .wrap_connector(http);
    let http = legacy::Client::builder(TokioExecutor::new()).http2_only(true).build(connector);
    let auth = config.auth_layer().map_err(|error| broken(error.to_string()))?;
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(auth)
        .map_err(BoxError::from)
        .service(http.map_request(|request: http::Request<Body>| request));
    Ok(role::lean(Client::new(service, config.default_namespace.clone())))
}
