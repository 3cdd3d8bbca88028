//! What a registry wants to see: a name and password, or a token that somebody else gives for them.

use std::collections::BTreeMap;

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Deserialize;

use super::{Attempt, Session, retry_after};
use crate::error::Error;

const TOKEN_MAX: usize = 256 << 10;

/// One challenge of a header `WWW-Authenticate`.
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    scheme: String,
    parameters: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

impl Session {
    /// What to show after a refusal; `shown` is what was refused.
    pub(super) async fn authorize(
        &self,
        refusal: &Response<Incoming>,
        url: &Uri,
        shown: Option<&HeaderValue>,
    ) -> Result<HeaderValue, Attempt> {
        let mut current = self.authorization.lock().await;
        // Another request of this pull has just got a new one.
        if let Some(newer) = current.as_ref().filter(|now| Some(*now) != shown) {
            return Ok(newer.clone());
        }
        let challenges: Vec<Challenge> = refusal
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| parse(value.to_str().ok()?))
            .collect();
        let by = |scheme: &str| challenges.iter().find(|c| c.scheme == scheme);
        let value = match (by("bearer"), by("basic"), &self.credentials) {
            (Some(challenge), _, _) => self.token(challenge, url).await?,
            (None, Some(_), Some(credentials)) if shown.is_none() => credentials.basic(),
            (None, Some(_), Some(_)) => {
                let host = self.reference.endpoint();
                let text = format!("{host} does not take the credentials it was given");
                return Err(Attempt::Failed(Error::Denied(text)));
            }
            (None, _, _) => {
                let host = self.reference.endpoint();
                let text = format!(
                    "{host} wants credentials, and spec.container.imagePullSecrets names none for it"
                );
                return Err(Attempt::Failed(Error::Denied(text)));
            }
        };
        let mut value = HeaderValue::from_str(&value).map_err(|_| {
            Attempt::Failed(Error::Denied("the token can't be sent as a header".to_owned()))
        })?;
        value.set_sensitive(true);
        *current = Some(value.clone());
        Ok(value)
    }

    async fn token(&self, challenge: &Challenge, url: &Uri) -> Result<String, Attempt> {
        let realm = challenge.parameters.get("realm").map_or("", String::as_str);
        let transport = &self.registry.transport;
        let (realm, way) = transport.realm(url, realm).map_err(Attempt::Failed)?;
        let mut query = Vec::new();
        if let Some(service) = challenge.parameters.get("service") {
            query.push(format!("service={}", escape(service)));
        }
        let scope = match challenge.parameters.get("scope") {
            Some(scope) => scope.clone(),
            None => format!("repository:{}:pull", self.reference.repository()),
        };
        query.push(format!("scope={}", escape(&scope)));
        let mut headers = HeaderMap::new();
        let basic = self.credentials.as_ref().map(|credentials| {
            query.push(format!("account={}", escape(&credentials.username)));
            credentials.basic()
        });
        let glue = if realm.query().is_some() { '&' } else { '?' };
        let target: Uri = format!("{realm}{glue}{}", query.join("&")).parse().map_err(|_| {
            Attempt::Failed(Error::Forbidden(format!("{realm}: no address to get a token from")))
        })?;
        headers.insert(http::header::ACCEPT, HeaderValue::from_static("application/json"));
        let basic = basic.and_then(|basic| HeaderValue::from_str(&basic).ok());
        let response = self.registry.send(&target, &headers, basic.as_ref(), way).await?;
        self.read_token(response, &realm).await
    }

    async fn read_token(
        &self,
        response: Response<Incoming>,
        realm: &Uri,
    ) -> Result<String, Attempt> {
        let status = response.status();
        let asked = retry_after(response.headers());
        let host = realm.authority().map_or("", |authority| authority.as_str());
        if status != StatusCode::OK {
            let text = format!("{host} gives no token for {}: {status}", self.reference);
            return Err(match status.as_u16() {
                429 | 500..=599 => Attempt::Again(Error::Unavailable(text), asked),
                _ => Attempt::Failed(Error::Denied(text)),
            });
        }
        let body = Limited::new(response.into_body(), TOKEN_MAX).collect();
        let body = tokio::time::timeout(self.registry.pace.stall, body).await;
        let Ok(Ok(body)) = body else {
            let text = format!("{host}: the answer with the token broke off");
            return Err(Attempt::Again(Error::Unavailable(text), None));
        };
        let token: Option<Token> = serde_json::from_slice(&body.to_bytes()).ok();
        let token = token.map(|t| if t.token.is_empty() { t.access_token } else { t.token });
        match token.filter(|token| !token.is_empty()) {
            Some(token) => Ok(format!("Bearer {token}")),
            None => {
                let text = format!("{host}: its answer has no token");
                Err(Attempt::Failed(Error::Denied(text)))
            }
        }
    }
}

/// `Bearer realm="…",service="…",scope="…"`.
fn parse(text: &str) -> Option<Challenge> {
    let (scheme, mut rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    let mut parameters = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([' ', ',']);
        let Some((name, after)) = rest.split_once('=') else { break };
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        parameters.insert(name.trim().to_ascii_lowercase(), value.to_owned());
        rest = after;
    }
    Some(Challenge { scheme: scheme.to_ascii_lowercase(), parameters })
}

/// For a query.
fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    text.bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn challenges_are_taken_apart() {
        let text = r#"Bearer realm="https://auth.x/token?a=b",service="reg,istry", scope="repository:a:pull,push""#;
        let challenge = parse(text).unwrap();
        assert_eq!(challenge.scheme, "bearer");
        assert_eq!(challenge.parameters["realm"], "https://auth.x/token?a=b");
        assert_eq!(challenge.parameters["service"], "reg,istry");
        assert_eq!(challenge.parameters["scope"], "repository:a:pull,push");
        assert_eq!(parse("Basic realm=x").unwrap().parameters["realm"], "x");
        assert_eq!(parse("Basic").unwrap().scheme, "basic");
        assert_eq!(parse(r#"Bearer realm="open"#), None);
        assert_eq!(escape("repository:a/b:pull"), "repository%3Aa%2Fb%3Apull");
    }
}
