//! The API server as a whole: starts its parts in order, and stops them in the other.
//!
//! `cmn up`, `cmn apiserver` and the tests call it. Everything it keeps lies under `data_dir`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use commonage_store::etcd::{EtcdOptions, EtcdStore};
use commonage_store::renumbered::RenumberedStore;
use commonage_store::{Store, StoreError};
use http::Request;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::Audit;
use crate::auth::UserInfo;
use crate::auth::token_secrets::TokenSecrets;
use crate::encryption::{EncryptedStore, Encryption};
use crate::engine::{Engine, Settings};
use crate::http::{App, Caller, Listener, Parts, check_open_calls, serve, tls_config, waiting};
use crate::pki::{Identity, Kubeconfig, Pki, PkiError, write_kubeconfig};
use crate::proxy::AgentProxy;
use crate::timed_store::TimedStore;

mod config;

pub use config::{Authentication, Config, EtcdTlsFiles, Storage, StoreKind};

/// How long requests under way may take to finish when the server goes down.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);
/// For the last bytes of answers and the connections' goodbyes.
const GOODBYE_TIME_MAX: Duration = Duration::from_secs(2);

/// A running server. Dropping it does not stop it: call [`ApiServer::shutdown`].
pub struct ApiServer {
    app: Arc<App>,
    pki: Pki,
    listen_addr: SocketAddr,
    server_url: String,
    admin_kubeconfig: PathBuf,
    stop: CancellationToken,
    engine_stop: CancellationToken,
    connections: TaskTracker,
    accepting: JoinHandle<()>,
    shutdown_delay: Duration,
}

impl ApiServer {
    /// Returns when the server answers requests.
    pub async fn start(config: Config) -> anyhow::Result<ApiServer> {
        let Config { data_dir, listen, store, extra_names, serve_pods, shutdown_delay, .. } =
            config;
        let Config { authentication, audit, storage, .. } = config;
        let pki =
            Pki::open(&data_dir.join("pki")).context("cannot open the cluster's authority")?;
        let authenticator = authentication.authenticator(&pki)?;
        let audit = Audit::open(audit)?;
        // The port first: it tells a second server at once that there is another, before it
        // touches the other's store.
        let listener = Listener::bind(listen).map_err(|error| cannot_listen(listen, &error))?;
        let listen_addr = listener.address()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let serving = pki.serving(&names(listen_addr.ip(), extra_names))?;
        let tls = tls_config(&provider, pki.ca_der(), &serving)?;
        let agents = AgentProxy::new(&provider, pki.ca_der(), &pki.apiserver_client()?)?;

        let opened = open_store(&store, &storage, &data_dir).await;
        let store = match opened {
            Err(error) if waits_for(&store, &error) => {
                tracing::warn!(error = format!("{error:#}"), "waiting for etcd");
                let opening = open_patiently(&store, &storage, &data_dir);
                waiting::serve_until(&listener, &tls, opening).await
            }
            opened => opened,
        };
        let encryption = storage.encryption_config.as_deref().map(Encryption::load).transpose()?;
        let at_rest = store?;
        let store = match &encryption {
            Some(encryption) => Arc::new(EncryptedStore::new(at_rest.clone(), encryption.clone())),
            None => at_rest.clone(),
        };
        let store = Arc::new(TimedStore::new(store));
        let scheme = crate::builtin::scheme().context("a compiled-in definition is broken")?;
        let scheme = match serve_pods {
            true => scheme.with(crate::kinds::view::definitions()),
            false => scheme,
        };
        if let Some(encryption) = &encryption {
            let known: Vec<String> = scheme.iter().map(|def| def.group_resource()).collect();
            for name in encryption.unknown(&known) {
                tracing::warn!(
                    "the encryption configuration names {name}, which is no kind of this server yet"
                );
            }
        }
        let engine_stop = CancellationToken::new();
        let settings = Settings {
            event_ttl: storage.event_ttl,
            compaction_interval: storage.compaction_interval,
            encryption,
        };
        let scheme = Arc::new(scheme);
        let engine =
            Engine::start_with(store.clone(), scheme, settings, engine_stop.clone()).await?;
        let server_url = format!("https://{}", reachable(listen_addr));
        let app = Arc::new(App::new(Parts {
            engine,
            store,
            at_rest,
            authenticator,
            audit,
            server_url: server_url.clone(),
            agents,
            more_metrics: config.more_metrics,
            stall_time_max: config.stall_time_max,
        }));
        let admin_kubeconfig = data_dir.join("kubeconfig");
        write_kubeconfig(
            &admin_kubeconfig,
            &Kubeconfig {
                server: &server_url,
                ca_pem: pki.ca_pem(),
                user: "admin",
                identity: &pki.admin()?,
            },
        )?;
        let stop = CancellationToken::new();
        let connections = TaskTracker::new();
        // It ends with the watches, and is waited for with the connections.
        connections.spawn(app.clone().follow_scheme());
        connections.spawn(fill_token_secrets(app.clone(), pki.ca_pem().to_owned()));
        connections.spawn(check_open_calls(app.clone(), config.authority_check_every));
        if let Some(oidc) = app.authenticator.oidc() {
            connections.spawn(oidc.clone().follow(app.end_watches.clone()));
        }
        let accepting = tokio::spawn(listener.run(
            app.clone(),
            Arc::new(tls),
            stop.clone(),
            connections.clone(),
        ));
        tracing::info!(address = %listen_addr, "the API server is ready");
        Ok(ApiServer {
            app,
            pki,
            listen_addr,
            server_url,
            admin_kubeconfig,
            stop,
            engine_stop,
            connections,
            accepting,
            shutdown_delay,
        })
    }

    /// Returns when the store can't be used any more until the server is started anew.
    pub async fn store_failed(&self) -> StoreError {
        self.app.at_rest.failed().await
    }

    pub fn listen_addr(&self) -> SocketAddr {
        self.listen_addr
    }

    /// `https://host:port`, as kubeconfigs on this machine name it.
    pub fn server_url(&self) -> &str {
        &self.server_url
    }

    /// The administrator's kubeconfig, written anew at each start.
    pub fn admin_kubeconfig_path(&self) -> &Path {
        &self.admin_kubeconfig
    }

    /// The authority's certificate, PEM.
    pub fn ca_pem(&self) -> &str {
        self.pki.ca_pem()
    }

    pub fn engine(&self) -> &Arc<Engine> {
        &self.app.engine
    }

    /// The server without a socket, for callers in this process: `kube::Client::new(router,
    /// "default")` works. Every request counts as `user`'s.
    pub fn router_for(&self, user: UserInfo) -> Router {
        let app = self.app.clone();
        let caller = Caller::InProcess(Arc::new(user));
        Router::new().fallback(move |request: Request<Body>| {
            let (app, caller) = (app.clone(), caller.clone());
            serve(app, caller, request)
        })
    }

    /// A client of this server, in process.
    pub fn client_for(&self, user: UserInfo) -> kube::Client {
        kube::Client::new(self.router_for(user), "default")
    }

    /// Certificate and key of the agent called `name`: the same again while they are valid.
    pub fn issue_agent_identity(&self, name: &str) -> Result<Identity, PkiError> {
        self.pki.issue_agent(name)
    }

    /// Writes a kubeconfig for the agent called `name` to `path`.
    pub fn write_agent_kubeconfig(&self, name: &str, path: &Path) -> Result<(), PkiError> {
        let identity = self.pki.issue_agent(name)?;
        self.write_kubeconfig(path, &format!("system:agent:{name}"), &identity)
    }

    /// Writes the kubeconfig of the controllers, for when they run in a process of their own.
    pub fn write_controllers_kubeconfig(&self, path: &Path) -> Result<(), PkiError> {
        let identity = self.pki.controllers()?;
        self.write_kubeconfig(path, "system:controllers", &identity)
    }

    fn write_kubeconfig(
        &self,
        path: &Path,
        user: &str,
        identity: &Identity,
    ) -> Result<(), PkiError> {
        let config =
            Kubeconfig { server: &self.server_url, ca_pem: self.pki.ca_pem(), user, identity };
        write_kubeconfig(path, &config)
    }

    /// Fails `/readyz`, waits as configured, stops accepting, lets requests finish (10 s at most), ends the watches, and
    /// then stops what stands behind them.
    pub async fn shutdown(self) {
        let ApiServer { app, stop, engine_stop, connections, accepting, shutdown_delay, .. } = self;
        app.draining.store(true, Relaxed);
        if !shutdown_delay.is_zero() {
            tokio::time::sleep(shutdown_delay).await;
        }
        stop.cancel();
        if let Err(error) = accepting.await {
            tracing::error!(%error, "the accept loop had died");
        }
        app.requests.close();
        let drained = tokio::time::timeout(DRAIN_TIME_MAX, app.requests.wait()).await;
        if drained.is_err() {
            tracing::warn!("requests were still running after {DRAIN_TIME_MAX:?}: going down");
        }
        app.end_watches.cancel();
        connections.close();
        // Whoever does not hang up by then is hung up on when the process ends.
        let _ = tokio::time::timeout(GOODBYE_TIME_MAX, connections.wait()).await;
        engine_stop.cancel();
        app.engine.stopped().await;
    }
}

/// Ends with the watches.
async fn fill_token_secrets(app: Arc<App>, ca_pem: String) {
    let accounts = app.authenticator.accounts();
    let secrets = TokenSecrets { engine: &app.engine, accounts, ca_pem: &ca_pem };
    secrets.follow(&app.end_watches).await;
}

async fn open_store(
    kind: &StoreKind,
    storage: &Storage,
    data_dir: &Path,
) -> anyhow::Result<Arc<dyn Store>> {
    let engine = open_engine(kind, storage, data_dir).await?;
    Ok(Arc::new(match kind {
        // Others take care of it, and may take it back.
        StoreKind::Etcd(_) => {
            RenumberedStore::open_remembering(engine, data_dir.join("etcd.seen")).await?
        }
        _ => RenumberedStore::open(engine).await?,
    }))
}

/// The store, as backups see it.
pub(crate) async fn open_renumbered(
    kind: &StoreKind,
    storage: &Storage,
    data_dir: &Path,
) -> anyhow::Result<RenumberedStore> {
    let engine = open_engine(kind, storage, data_dir).await?;
    Ok(RenumberedStore::open(engine).await?)
}

async fn open_engine(
    kind: &StoreKind,
    storage: &Storage,
    data_dir: &Path,
) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match kind {
        StoreKind::Embedded => {
            let dir = data_dir.join("store");
            let store = commonage_store::embedded::EmbeddedStore::open(&dir, Default::default())
                .with_context(|| format!("cannot open the store in {}", dir.display()))?;
            Arc::new(store)
        }
        StoreKind::Etcd(endpoints) => {
            let mut options = EtcdOptions::new(endpoints);
            options.tls = storage.etcd_tls.as_ref().map(EtcdTlsFiles::read).transpose()?;
            let store = EtcdStore::connect(options)
                .await
                .with_context(|| format!("cannot use etcd at {}", endpoints.join(", ")))?;
            Arc::new(store)
        }
        StoreKind::Memory => Arc::new(commonage_store::memory::MemoryStore::new()),
    })
}

/// An etcd that does not answer may do so later; nothing else mends itself.
fn waits_for(kind: &StoreKind, error: &anyhow::Error) -> bool {
    matches!(kind, StoreKind::Etcd(_))
        && matches!(error.downcast_ref(), Some(StoreError::Unavailable(_)))
}

/// Tries until etcd answers, with pauses.
async fn open_patiently(
    kind: &StoreKind,
    storage: &Storage,
    data_dir: &Path,
) -> anyhow::Result<Arc<dyn Store>> {
    const PAUSE_FIRST: Duration = Duration::from_millis(200);
    const PAUSE_MAX: Duration = Duration::from_secs(2);
    let mut pause = PAUSE_FIRST;
    loop {
        tokio::time::sleep(pause).await;
        match open_store(kind, storage, data_dir).await {
            Err(error) if waits_for(kind, &error) => pause = (pause * 2).min(PAUSE_MAX),
            opened => return opened,
        }
    }
}

fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> anyhow::Error {
    let port = address.port();
    match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "cannot listen on {address}: another process has this port. Is a server running \
             already (`ss -ltnp 'sport = :{port}'` names it)? Stop it, or choose another port with \
             --listen."
        ),
        std::io::ErrorKind::PermissionDenied => anyhow::anyhow!(
            "cannot listen on {address}: not permitted. Ports below 1024 are for root; choose \
             another with --listen."
        ),
        std::io::ErrorKind::AddrNotAvailable => anyhow::anyhow!(
            "cannot listen on {address}: this machine has no such address. Choose one that `ip \
             addr` shows, or 0.0.0.0 for all, with --listen."
        ),
        _ => anyhow::anyhow!("cannot listen on {address}: {error}"),
    }
}

/// What the serving certificate is for.
fn names(listen: IpAddr, extra: Vec<String>) -> Vec<String> {
    let mut names: Vec<String> = ["127.0.0.1", "::1", "localhost"].map(str::to_owned).into();
    if let Ok(host) = std::fs::read_to_string("/proc/sys/kernel/hostname") {
        names.push(host.trim().to_owned());
    }
    if !listen.is_unspecified() {
        names.push(listen.to_string());
    }
    names.extend(extra);
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| !name.is_empty() && seen.insert(name.clone()));
    names
}

/// An address that a client on this machine can connect to.
fn reachable(listen: SocketAddr) -> SocketAddr {
    match listen.ip().is_unspecified() {
        true => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), listen.port()),
        false => listen,
    }
}
