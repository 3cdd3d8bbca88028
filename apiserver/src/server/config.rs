//! How a server is configured.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use commonage_store::etcd::EtcdTls;

use crate::audit::AuditConfig;
use crate::auth::authenticator::Authenticator;
use crate::auth::jwt::SigningKey;
use crate::auth::oidc::{Oidc, OidcConfig};
use crate::auth::service_accounts::ServiceAccounts;
use crate::auth::tokens::Tokens;
use crate::engine::Settings;
use crate::http::{AUTHORITY_CHECK_EVERY, STALL_TIME_MAX};
use crate::pki::Pki;

/// Where objects are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// In files under `data_dir/store`, by this process alone.
    Embedded,
    /// In etcd, whose client endpoints these are (`http://127.0.0.1:2379`), of any number of members.
    Etcd(Vec<String>),
    /// In memory: gone when the server stops. For tests.
    Memory,
}

/// How a server is to run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Made if it does not exist. Holds `pki/`, `kubeconfig` and, with the embedded store, `store/`.
    pub data_dir: PathBuf,
    /// Port 0 takes any free one: see [`ApiServer::listen_addr`].
    pub listen: SocketAddr,
    pub store: StoreKind,
    pub storage: Storage,
    /// DNS names and addresses that clients reach the server by, beyond those it finds itself
    /// (loopback, the listen address, the host's name).
    pub extra_names: Vec<String>,
    /// Tasks are shown as core/v1 pods too, and agents as nodes, so that `kubectl logs`, `exec`,
    /// `attach`, `cp` and `port-forward` work. Programs that look after pods will see them.
    pub serve_pods: bool,
    pub authentication: Authentication,
    pub audit: AuditConfig,
    /// How long a server that is to stop goes on serving, with `/readyz` failing: for a load
    /// balancer to notice.
    pub shutdown_delay: Duration,
    /// Shown at the end of `/metrics`: what else runs in this process.
    pub more_metrics: Option<fn() -> String>,
    /// How long a client may take nothing of what is sent to it, before its connection is closed or
    /// its stream reset.
    pub stall_time_max: Duration,
    /// How often it is looked whether those who have a watch or a session open may still have it.
    pub authority_check_every: Duration,
}

/// How the store is used. The names are those of kube-apiserver's options.
#[derive(Clone, Debug)]
pub struct Storage {
    /// With these, etcd is spoken to by TLS.
    pub etcd_tls: Option<EtcdTlsFiles>,
    /// How long Events are kept; zero is for ever.
    pub event_ttl: Duration,
    /// How often the past is forgotten; zero is never.
    pub compaction_interval: Duration,
    /// Which kinds are encrypted, and with which keys: an EncryptionConfiguration. Read once.
    pub encryption_config: Option<PathBuf>,
}

impl Default for Storage {
    fn default() -> Storage {
        let Settings { event_ttl, compaction_interval, .. } = Settings::default();
        Storage { etcd_tls: None, event_ttl, compaction_interval, encryption_config: None }
    }
}

/// PEM files.
#[derive(Clone, Debug)]
pub struct EtcdTlsFiles {
    /// The authority of etcd's certificates.
    pub ca: PathBuf,
    /// Our certificate and its key, if etcd asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl EtcdTlsFiles {
    pub(super) fn read(&self) -> anyhow::Result<EtcdTls> {
        let read = |path: &Path| {
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
        };
        let identity = self.identity.as_ref();
        let identity = identity.map(|(certificate, key)| Ok((read(certificate)?, read(key)?)));
        let identity_pem = identity.transpose().map_err(|error: anyhow::Error| error)?;
        Ok(EtcdTls { ca_pem: read(&self.ca)?, identity_pem })
    }
}

/// Whose credentials are accepted, beside client certificates of the cluster's own authority.
/// Everything may be left out; the names are those of kube-apiserver's options.
#[derive(Clone, Debug, Default)]
pub struct Authentication {
    /// Bearer tokens in kube-apiserver's format: `token,user,uid,"group1,group2"`.
    pub token_auth_file: Option<PathBuf>,
    /// The first one is written into tokens of service accounts; all are accepted.
    pub service_account_issuers: Vec<String>,
    /// Whom tokens have to be for that are shown to this server: the issuers, if none is given.
    pub api_audiences: Vec<String>,
    /// Tokens of an OpenID Connect issuer.
    pub oidc: Option<OidcConfig>,
}

impl Authentication {
    pub(super) fn authenticator(self, pki: &Pki) -> anyhow::Result<Authenticator> {
        let tokens = match &self.token_auth_file {
            Some(file) => Tokens::load(file)?,
            None => Tokens::default(),
        };
        let key = SigningKey::from_pkcs8(&pki.service_account_key()?)
            .context("pki/sa.key is no ECDSA key on the curve P-256")?;
        let accounts = ServiceAccounts::new(key, self.service_account_issuers);
        let oidc = self.oidc.map(Oidc::new).transpose()?;
        Ok(Authenticator::new(tokens, accounts, oidc, self.api_audiences))
    }
}

impl Config {
    /// With everything that may be left out left out.
    pub fn new(data_dir: &Path, listen: SocketAddr, store: StoreKind) -> Config {
        Config {
            data_dir: data_dir.to_owned(),
            listen,
            store,
            storage: Storage::default(),
            extra_names: Vec::new(),
            serve_pods: true,
            authentication: Authentication::default(),
            audit: AuditConfig::default(),
            shutdown_delay: Duration::ZERO,
            more_metrics: None,
            stall_time_max: STALL_TIME_MAX,
            authority_check_every: AUTHORITY_CHECK_EVERY,
        }
    }

    /// On a free loopback port, with the store in memory: what most tests want.
    pub fn for_tests(data_dir: &Path) -> Config {
        let listen = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        Config::new(data_dir, listen, StoreKind::Memory)
    }

    #[must_use]
    pub fn with_tokens(mut self, file: Option<PathBuf>) -> Config {
        self.authentication.token_auth_file = file;
        self
    }
}
