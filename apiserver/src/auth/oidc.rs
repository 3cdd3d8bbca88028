//! Identities of an OpenID Connect issuer: kube-apiserver's `--oidc-*` options.
//!
//! What a token says counts only after a key of the issuer verified it. Keys are fetched in the
//! background and once more, at a bounded rate, when a token names one that is not known.

mod fetch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::jwt::{Jwk, Unverified};
use super::{AUTHENTICATED, CREDENTIAL_ID, UserInfo};
use fetch::Client;

/// Signatures that can be checked here: Kubernetes' list without ES512.
const ALGORITHMS: [&str; 8] =
    ["RS256", "RS384", "RS512", "ES256", "ES384", "PS256", "PS384", "PS512"];
/// Until the issuer has answered for the first time.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// So that a key that the issuer withdrew is forgotten.
const REFRESH_AFTER: Duration = Duration::from_secs(10 * 60);
/// Between two fetches because of an unknown key: anybody can make up keys' names.
const UNKNOWN_KEY_PAUSE: Duration = Duration::from_secs(5);
/// How far an issuer's clock may be ahead.
const NOT_BEFORE_LEEWAY_S: i64 = 5 * 60;

/// kube-apiserver's options of the same names; empty texts are what was not given.
#[derive(Clone, Debug, Default)]
pub struct OidcConfig {
    pub issuer_url: String,
    pub client_id: String,
    /// `sub` if empty.
    pub username_claim: String,
    /// If `None`: the issuer's URL and `#`, but nothing before an e-mail address. `-`: nothing.
    pub username_prefix: Option<String>,
    pub groups_claim: String,
    pub groups_prefix: String,
    pub required_claims: BTreeMap<String, String>,
    /// The authorities that the issuer's certificate is checked against, PEM; the system's if `None`.
    pub ca_file: Option<PathBuf>,
    /// `RS256` if empty.
    pub signing_algs: Vec<String>,
}

pub(crate) struct Oidc {
    config: OidcConfig,
    client: Client,
    keys: RwLock<Option<Arc<Vec<Jwk>>>>,
    /// When keys were last fetched because a token named an unknown one. Held while they are.
    asked: tokio::sync::Mutex<Option<Instant>>,
}

impl Oidc {
    /// # Errors
    /// The options are not usable; says which.
    pub(crate) fn new(mut config: OidcConfig) -> anyhow::Result<Oidc> {
        anyhow::ensure!(
            config.issuer_url.starts_with("https://"),
            "--oidc-issuer-url has to begin with https://, not {:?}",
            config.issuer_url
        );
        anyhow::ensure!(!config.client_id.is_empty(), "--oidc-client-id is missing");
        if config.signing_algs.is_empty() {
            config.signing_algs.push("RS256".into());
        }
        for algorithm in &config.signing_algs {
            anyhow::ensure!(
                ALGORITHMS.contains(&algorithm.as_str()),
                "--oidc-signing-algs: {algorithm:?} is none of {}",
                ALGORITHMS.join(", ")
            );
        }
        if config.username_claim.is_empty() {
            config.username_claim = "sub".into();
        }
        config.username_prefix = Some(match config.username_prefix.take().as_deref() {
            Some("-") => String::new(),
            Some("") | None if config.username_claim == "email" => String::new(),
            Some("") | None => format!("{}#", config.issuer_url),
            Some(prefix) => prefix.to_owned(),
        });
        let client = Client::new(config.ca_file.as_deref())?;
        let (keys, asked) = (RwLock::default(), tokio::sync::Mutex::default());
        Ok(Oidc { config, client, keys, asked })
    }

    /// Fetches the keys until there are some, and now and then afterwards.
    pub(crate) async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let work = async {
            loop {
                let pause = match self.refresh().await {
                    Ok(()) => REFRESH_AFTER,
                    Err(error) => {
                        let issuer = &self.config.issuer_url;
                        tracing::warn!(%issuer, error = format!("{error:#}"), "no keys of the OIDC issuer");
                        RETRY_AFTER
                    }
                };
                tokio::time::sleep(pause).await;
            }
        };
        stop.run_until_cancelled(work).await;
    }

    async fn refresh(&self) -> anyhow::Result<()> {
        let issuer = &self.config.issuer_url;
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let document = self.client.get(&url).await?;
        anyhow::ensure!(
            document["issuer"] == issuer.as_str(),
            "the issuer calls itself {}, not {issuer:?}",
            document["issuer"]
        );
        let keys = document["jwks_uri"].as_str();
        let keys = keys.ok_or_else(|| anyhow::anyhow!("the issuer names no jwks_uri"))?;
        let keys = self.client.get(keys).await?;
        let keys = keys["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
        let keys: Vec<Jwk> = keys.iter().filter_map(Jwk::from_json).collect();
        *self.keys.write() = Some(Arc::new(keys));
        Ok(())
    }

    /// `None` when the token is another issuer's.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub(crate) async fn recognize(
        &self,
        token: &str,
        now_s: i64,
    ) -> Option<Result<Arc<UserInfo>, String>> {
        let token = Unverified::parse(token)?;
        if token.text("iss") != self.config.issuer_url {
            return None;
        }
        if !self.verified(&token).await {
            return Some(Err("oidc: failed to verify signature".into()));
        }
        Some(self.config.user(&token, now_s).map(Arc::new))
    }

    async fn verified(&self, token: &Unverified<'_>) -> bool {
        if !self.config.signing_algs.contains(&token.algorithm) {
            return false;
        }
        let known = self.keys.read().clone();
        if let Some(keys) = known
            && let Some(verified) = verify(&keys, token)
        {
            return verified;
        }
        let mut asked = self.asked.lock().await;
        // Somebody else may have fetched it meanwhile.
        let known = self.keys.read().clone();
        if let Some(verified) = known.and_then(|keys| verify(&keys, token)) {
            return verified;
        }
        if asked.is_some_and(|at| at.elapsed() < UNKNOWN_KEY_PAUSE) {
            return false;
        }
        *asked = Some(Instant::now());
        if let Err(error) = self.refresh().await {
            tracing::warn!(
                error = format!("{error:#}"),
                "the keys of the OIDC issuer can't be fetched"
            );
        }
        drop(asked);
        let known = self.keys.read().clone();
        known.and_then(|keys| verify(&keys, token)).unwrap_or(false)
    }
}

/// `None` when no key fits the token at all.
fn verify(keys: &[Jwk], token: &Unverified<'_>) -> Option<bool> {
    let mut fitting = keys.iter().filter(|key| key.fits(token)).peekable();
    fitting.peek()?;
    Some(fitting.any(|key| key.verifies(token)))
}

impl OidcConfig {
    /// The user of a token whose signature is right.
    fn user(&self, token: &Unverified<'_>, now_s: i64) -> Result<UserInfo, String> {
        if !token.audiences().contains(&self.client_id) {
            let (wanted, found) = (&self.client_id, token.audiences());
            return Err(format!("oidc: expected audience {wanted:?} got {found:?}"));
        }
        let expires_s = token.time_s("exp").ok_or("oidc: token has no expiry")?;
        if expires_s < now_s {
            return Err("oidc: token is expired".into());
        }
        if token.time_s("nbf").is_some_and(|from_s| now_s + NOT_BEFORE_LEEWAY_S < from_s) {
            return Err("oidc: current time before the nbf (not before) time".into());
        }
        let claims = &token.claims;
        for (claim, wanted) in &self.required_claims {
            match claims.get(claim).and_then(Value::as_str) {
                Some(found) if found == wanted => {}
                Some(found) => {
                    return Err(format!(
                        "oidc: required claim {claim} value does not match. Got = {found}, want = {wanted}"
                    ));
                }
                None => {
                    return Err(format!("oidc: required claim {claim} not present in ID token"));
                }
            }
        }
        let name = self.user_name(claims)?;
        let mut groups = self.groups(claims)?;
        groups.push(AUTHENTICATED.to_owned());
        let mut extra = BTreeMap::new();
        match token.text("jti") {
            "" => {}
            id => drop(extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("JTI={id}")])),
        }
        Ok(UserInfo { name, uid: String::new(), groups, extra })
    }

    fn user_name(&self, claims: &Map<String, Value>) -> Result<String, String> {
        let claim = &self.username_claim;
        let name = claims.get(claim).and_then(Value::as_str).unwrap_or_default();
        if name.is_empty() {
            return Err(format!("oidc: parse username claims {claim:?}: claim not present"));
        }
        // Whoever proved no address must not pass for its owner.
        if claim == "email" && claims.get("email_verified").is_some_and(|it| *it != true) {
            return Err("oidc: email not verified".into());
        }
        Ok(format!("{}{name}", self.username_prefix.as_deref().unwrap_or_default()))
    }

    /// One text or a list of texts.
    fn groups(&self, claims: &Map<String, Value>) -> Result<Vec<String>, String> {
        let claim = &self.groups_claim;
        let names: Vec<&str> = match claims.get(claim).filter(|_| !claim.is_empty()) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(list)) if list.iter().all(Value::is_string) => {
                list.iter().filter_map(Value::as_str).collect()
            }
            Some(_) => {
                return Err(format!("oidc: parse groups claim {claim:?}: not a list of texts"));
            }
        };
        let prefixed = names.into_iter().map(|name| format!("{}{name}", self.groups_prefix));
        Ok(prefixed.collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::auth::jwt::tests::new_key;

    const NOW_S: i64 = 1_800_000_000;

    fn config(change: impl FnOnce(&mut OidcConfig)) -> OidcConfig {
        let mut config = OidcConfig {
            issuer_url: "https://issuer".into(),
            client_id: "us".into(),
            groups_claim: "groups".into(),
            ..OidcConfig::default()
        };
        change(&mut config);
        Oidc::new(config).unwrap().config
    }

    fn user(config: &OidcConfig, claims: Value) -> Result<UserInfo, String> {
        let mut all = json!({"iss": "https://issuer", "aud": "us", "sub": "1", "exp": NOW_S + 60});
        for (name, value) in claims.as_object().unwrap() {
            all[name] = value.clone();
        }
        let token = new_key().sign(&all).unwrap();
        config.user(&Unverified::parse(&token).unwrap(), NOW_S)
    }

    #[test]
    fn claims_become_a_user() {
        let plain = config(|_| {});
        let found = user(&plain, json!({"groups": ["dev"], "jti": "j"})).unwrap();
        assert_eq!(found.name, "https://issuer#1");
        assert_eq!(found.groups, ["dev", AUTHENTICATED]);
        assert_eq!(found.extra[CREDENTIAL_ID], ["JTI=j"]);
        let prefixed = config(|config| {
            config.username_prefix = Some("o:".into());
            config.groups_prefix = "o:".into();
        });
        let found = user(&prefixed, json!({"groups": "dev"})).unwrap();
        assert_eq!((&*found.name, &*found.groups[0]), ("o:1", "o:dev"));
        let email = config(|config| config.username_claim = "email".into());
        let verified = json!({"email": "a@b", "email_verified": true});
        assert_eq!(user(&email, verified).unwrap().name, "a@b");
        assert!(user(&email, json!({"email": "a@b", "email_verified": false})).is_err());
        assert!(user(&email, json!({})).is_err());
        let bare = config(|config| config.username_prefix = Some("-".into()));
        assert_eq!(user(&bare, json!({})).unwrap().name, "1");
    }

    #[test]
    fn tokens_for_others_and_old_ones_are_refused() {
        let strict = config(|config| {
            config.required_claims.insert("hd".into(), "example.com".into());
        });
        let good = json!({"hd": "example.com"});
        assert!(user(&strict, good).is_ok());
        for bad in [
            json!({}),
            json!({"hd": "else"}),
            json!({"hd": "example.com", "aud": "them"}),
            json!({"hd": "example.com", "aud": ["them", "others"]}),
            json!({"hd": "example.com", "exp": NOW_S - 1}),
            json!({"hd": "example.com", "exp": null}),
            json!({"hd": "example.com", "nbf": NOW_S + 301}),
            json!({"hd": "example.com", "groups": [1]}),
            json!({"hd": "example.com", "sub": null}),
        ] {
            assert!(user(&strict, bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn options_that_cannot_work_are_refused() {
        for (issuer, client, algorithm) in [
            ("http://issuer", "us", "RS256"),
            ("https://issuer", "", "RS256"),
            ("https://issuer", "us", "HS256"),
            ("https://issuer", "us", "none"),
        ] {
            let config = OidcConfig {
                issuer_url: issuer.into(),
                client_id: client.into(),
                signing_algs: vec![algorithm.into()],
                ..OidcConfig::default()
            };
            assert!(Oidc::new(config).is_err(), "{issuer} {client} {algorithm}");
        }
    }
}
