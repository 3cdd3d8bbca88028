//! Where a request carries its bearer token.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};

use crate::streams;

/// Says in front of it that a WebSocket protocol is a token: browsers cannot set other headers.
pub(crate) const BEARER_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// The token; `None` when there are no credentials, or of another kind.
///
/// # Errors
/// Why what is there cannot be a token, for the log.
pub(super) fn token(headers: &HeaderMap) -> Result<Option<String>, &'static str> {
    if let Some(credentials) = headers.get(AUTHORIZATION) {
        let token = credentials.to_str().ok().and_then(|text| {
            let (scheme, token) = text.trim().split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
        });
        // Other schemes count as no credentials, as in Kubernetes.
        return Ok(token);
    }
    if !streams::watch::is_asked_for(headers) {
        return Ok(None);
    }
    let (mut tokens, mut others) = (Vec::new(), 0);
    for protocol in streams::words(headers, SEC_WEBSOCKET_PROTOCOL) {
        match protocol.strip_prefix(BEARER_PROTOCOL) {
            Some(token) => tokens.push(token),
            None => others += 1,
        }
    }
    let [token] = tokens.as_slice() else {
        return if tokens.is_empty() { Ok(None) } else { Err("more than one token") };
    };
    if others == 0 {
        return Err("missing additional subprotocol");
    }
    let decoded = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_| "not base64url")?;
    String::from_utf8(decoded).map(Some).map_err(|_| "not a text")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_token_comes_in_a_header_or_a_protocol() {
        let socket = |protocols: &str| {
            token(&headers(&[
                ("connection", "Upgrade"),
                ("upgrade", "websocket"),
                ("sec-websocket-protocol", protocols),
            ]))
        };
        let of = |text: &str| format!("{BEARER_PROTOCOL}{}", BASE64_URL_SAFE_NO_PAD.encode(text));
        let known = Ok(Some("t-root".to_owned()));
        assert_eq!(token(&headers(&[("authorization", "bearer t-root")])), known);
        assert_eq!(token(&headers(&[("authorization", "Basic eA==")])), Ok(None));
        assert_eq!(socket(&format!("{}, v5.channel.k8s.io", of("t-root"))), known);
        assert_eq!(socket("v5.channel.k8s.io"), Ok(None));
        assert!(socket(&of("t-root")).is_err());
        assert!(socket(&format!("{}, {}, v5", of("a"), of("b"))).is_err());
        assert!(socket(&format!("{BEARER_PROTOCOL}=!, v5")).is_err());
        // Without an upgrade it is a header like any other.
        assert_eq!(token(&headers(&[("sec-websocket-protocol", &of("t-root"))])), Ok(None));
    }
}
