//! The options of the API server, which `cmn apiserver` and `cmn up` share. Where kube-apiserver
//! has an option for the same thing, it has the same name and the same meaning.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{ArgAction, Args};
use commonage_apiserver::{
    Config,
    audit::{AuditConfig, LogConfig},
    auth::oidc::OidcConfig,
    server::Authentication,
};

mod storage;

pub(crate) use storage::{StorageArgs, Store};

use crate::wait;

pub(crate) const LISTEN_DEFAULT: &str = "127.0.0.1:7443";

#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// Where everything is kept; /var/lib/commonage, or ~/.local/share/commonage, if not given
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where the API server listens; port 0 picks a free one
    #[arg(long, value_name = "IP:PORT", default_value = LISTEN_DEFAULT)]
    pub(crate) listen: SocketAddr,
    /// Show tasks as pods and agents as nodes too, so that `kubectl logs`, `exec`, `attach`, `cp` and
    /// `port-forward` work. On in `cmn up`, off in `cmn apiserver`, unless given
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
        default_missing_value = "true")]
    serve_pods: Option<bool>,
    /// On SIGTERM, fail /readyz and go on serving for this long before stopping, such as 10s
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = wait::duration)]
    shutdown_delay_duration: Duration,
    #[command(flatten)]
    storage: StorageArgs,
    #[command(flatten)]
    tokens: TokenArgs,
    #[command(flatten)]
    oidc: OidcArgs,
    #[command(flatten)]
    audit: AuditArgs,
}

/// Whose bearer tokens are accepted.
#[derive(Debug, Args)]
#[command(next_help_heading = "Tokens")]
struct TokenArgs {
    /// Bearer tokens, in the format of kube-apiserver: token,user,uid,"group1,group2"
    #[arg(long, value_name = "CSV")]
    token_auth_file: Option<PathBuf>,
    /// What tokens of service accounts name as their issuer. May be given more than once: the first is
    /// written, all are accepted
    #[arg(long = "service-account-issuer", value_name = "URL")]
    service_account_issuers: Vec<String>,
    /// Whom tokens have to be for that are shown to this server; the issuers if not given
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    api_audiences: Vec<String>,
}

/// An OpenID Connect issuer whose users are let in.
#[derive(Debug, Args)]
#[command(next_help_heading = "OpenID Connect")]
struct OidcArgs {
    /// The issuer; has to begin with https://
    #[arg(long, value_name = "URL", requires = "oidc_client_id")]
    oidc_issuer_url: Option<String>,
    /// Whom tokens have to be for
    #[arg(long, value_name = "ID", requires = "oidc_issuer_url")]
    oidc_client_id: Option<String>,
    /// The claim that is the user's name
    #[arg(long, value_name = "CLAIM", default_value = "sub")]
    oidc_username_claim: String,
    /// Put before users' names; `-` for nothing. URL# if not given, and nothing before e-mail addresses
    #[arg(long, value_name = "TEXT")]
    oidc_username_prefix: Option<String>,
    /// The claim that names the user's groups
    #[arg(long, value_name = "CLAIM", default_value = "")]
    oidc_groups_claim: String,
    /// Put before groups' names
    #[arg(long, value_name = "TEXT", default_value = "")]
    oidc_groups_prefix: String,
    /// A claim that tokens must have. May be given more than once
    #[arg(long = "oidc-required-claim", value_name = "CLAIM=VALUE", value_parser = pair)]
    oidc_required_claims: Vec<(String, String)>,
    /// Authorities to check the issuer's certificate against; the system's if not given
    #[arg(long, value_name = "PEM")]
    oidc_ca_file: Option<PathBuf>,
    /// RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "RS256")]
    oidc_signing_algs: Vec<String>,
}

/// Who did what, written down.
#[derive(Debug, Args)]
#[command(next_help_heading = "Audit")]
struct AuditArgs {
    /// Write events to this file; `-` is standard output
    #[arg(long, value_name = "FILE")]
    audit_log_path: Option<PathBuf>,
    /// Which requests are written down, and what of them: a Policy of audit.k8s.io/v1
    #[arg(long, value_name = "YAML")]
    audit_policy_file: Option<PathBuf>,
    /// Begin a new file when this one has so many MiB
    #[arg(long, value_name = "MIB", default_value_t = 100)]
    audit_log_maxsize: u64,
    /// Full files that are kept; 0 keeps all
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    audit_log_maxbackup: usize,
}

impl ServerArgs {
    pub(crate) fn store(&self) -> Store {
        self.storage.store()
    }

    /// `serve_pods` is what holds if the option is not given.
    pub(crate) fn config(self, data_dir: &Path, serve_pods: bool) -> Config {
        let Self { tokens, oidc, audit, storage, .. } = self;
        let store = storage.kind();
        let log = audit.audit_log_path.map(|path| LogConfig {
            path,
            size_max_mib: audit.audit_log_maxsize,
            backups_max: audit.audit_log_maxbackup,
        });
        Config {
            serve_pods: self.serve_pods.unwrap_or(serve_pods),
            shutdown_delay: self.shutdown_delay_duration,
            authentication: Authentication {
                token_auth_file: tokens.token_auth_file,
                service_account_issuers: tokens.service_account_issuers,
                api_audiences: tokens.api_audiences,
                oidc: oidc.config(),
            },
            audit: AuditConfig { log, policy_file: audit.audit_policy_file },
            storage: storage.config(),
            ..Config::new(data_dir, self.listen, store)
        }
    }
}

impl OidcArgs {
    fn config(self) -> Option<OidcConfig> {
        Some(OidcConfig {
            issuer_url: self.oidc_issuer_url?,
            client_id: self.oidc_client_id.unwrap_or_default(),
            username_claim: self.oidc_username_claim,
            username_prefix: self.oidc_username_prefix,
            groups_claim: self.oidc_groups_claim,
            groups_prefix: self.oidc_groups_prefix,
            required_claims: self.oidc_required_claims.into_iter().collect(),
            ca_file: self.oidc_ca_file,
            signing_algs: self.oidc_signing_algs,
        })
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (claim, value) = text.split_once('=').ok_or("expected CLAIM=VALUE")?;
    Ok((claim.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;
    use commonage_apiserver::server::StoreKind;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        server: ServerArgs,
    }

    fn config(line: &str) -> Result<Config, String> {
        let words = std::iter::once("cmn").chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        Ok(line.server.config(Path::new("/d"), true))
    }

    #[test]
    fn options_reach_the_server() {
        let plain = config("").unwrap();
        assert!(
            plain.serve_pods && plain.authentication.oidc.is_none() && plain.audit.log.is_none()
        );
        assert!(!config("--serve-pods=false").unwrap().serve_pods);
        let full = config(
            "--service-account-issuer https://a --service-account-issuer https://b --api-audiences x,y \
             --oidc-issuer-url https://i --oidc-client-id us --oidc-required-claim hd=e \
             --oidc-signing-algs RS256,ES256 --audit-log-path - --audit-log-maxsize 5 \
             --shutdown-delay-duration 1m",
        )
        .unwrap();
        assert_eq!(full.shutdown_delay, Duration::from_secs(60));
        let authentication = full.authentication;
        assert_eq!(authentication.service_account_issuers, ["https://a", "https://b"]);
        assert_eq!(authentication.api_audiences, ["x", "y"]);
        let oidc = authentication.oidc.unwrap();
        assert_eq!((&*oidc.client_id, &*oidc.username_claim), ("us", "sub"));
        assert_eq!(oidc.required_claims["hd"], "e");
        assert_eq!(oidc.signing_algs, ["RS256", "ES256"]);
        assert_eq!(full.audit.log.unwrap().size_max_mib, 5);
    }

    #[test]
    fn an_issuer_needs_a_client() {
        assert!(config("--oidc-issuer-url https://i").is_err());
    }

    #[test]
    fn etcd_has_endpoints_and_certificates() {
        let plain = config("--store etcd://a:1,b:2 --store etcd://c:3").unwrap();
        let StoreKind::Etcd(endpoints) = plain.store else { panic!("{:?}", plain.store) };
        assert_eq!(endpoints, ["http://a:1", "http://b:2", "http://c:3"]);
        assert!(plain.storage.etcd_tls.is_none());
        let secure = "--store etcd://a:1 --etcd-cafile ca --etcd-certfile c --etcd-keyfile k";
        let secure = config(secure).unwrap();
        assert_eq!(secure.store, StoreKind::Etcd(vec!["https://a:1".to_owned()]));
        assert!(secure.storage.etcd_tls.unwrap().identity.is_some());
        assert_eq!(config("").unwrap().store, StoreKind::Embedded);
        for half in ["--etcd-certfile c --etcd-keyfile k", "--etcd-cafile ca --etcd-certfile c"] {
            assert!(config(&format!("--store etcd://a:1 {half}")).is_err(), "{half}");
        }
    }
}
