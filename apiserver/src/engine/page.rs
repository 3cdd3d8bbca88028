//! The token between two pages of a list, in the form that kube-apiserver gives it.

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE_NO_PAD};
use commonage_store::Version;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::schema::{self, go};
use crate::status::ApiError;

/// As Go decodes: bits that are left over at the end may be anything.
const AS_GO: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

const FORM: &str = "meta.k8s.io/v1";
/// A token's version that goes on in the present. (0 is what a broken token has.)
const PRESENT: i64 = -1;

/// Where a paged list goes on. Opaque to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PageToken {
    /// The list's version; `None` goes on in the present, after the list's own version expired.
    version: Option<Version>,
    /// The path of the last object returned.
    pub(super) after: String,
    /// Objects left after this page, where nothing but the namespace selects.
    pub(super) left: Option<u64>,
}

/// As it is encoded: `start` is a slash, the last object's path, and a NUL.
#[derive(Default, Serialize, Deserialize)]
struct Encoded {
    #[serde(rename = "v", default)]
    form: String,
    #[serde(default)]
    rv: i64,
    #[serde(default)]
    start: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<u64>,
}

impl PageToken {
    pub(super) fn new(version: Version, after: &str, left: Option<u64>) -> PageToken {
        PageToken { version: Some(version), after: after.to_owned(), left }
    }

    /// The same place, in the present.
    pub(super) fn inconsistent(&self) -> PageToken {
        PageToken { version: None, after: self.after.clone(), left: None }
    }

    /// `None`: the present.
    pub(super) fn version(&self) -> Option<Version> {
        self.version
    }

    pub(super) fn encode(&self) -> String {
        // A cluster-scoped object's path begins with the slash already.
        let slash = if self.after.starts_with('/') { "" } else { "/" };
        let encoded = Encoded {
            form: FORM.to_owned(),
            rv: self.version.map_or(PRESENT, |version| i64::try_from(version.0).unwrap_or(PRESENT)),
            start: format!("{slash}{}\0", self.after),
            left: self.left,
        };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&encoded).expect("numbers and strings serialize"))
    }

    /// `namespaced`: the kind; `namespace`: the one that the list is of.
    pub(super) fn decode(
        text: &str,
        namespaced: bool,
        namespace: Option<&str>,
    ) -> Result<PageToken, ApiError> {
        let invalid = |why: String| {
            ApiError::bad_request(format!("invalid continue token: continue key is not valid{why}"))
        };
        let json = AS_GO.decode(text).map_err(|error| invalid(base64_message(&error, text)))?;
        let (json, _) = schema::decode_strict(&json)
            .map_err(|refused| invalid(format!(": {}", refused.into_message())))?;
        let token = match json {
            Value::Null => Encoded::default(),
            Value::Object(_) => {
                serde_json::from_value(json).map_err(|error| invalid(format!(": json: {error}")))?
            }
            other => {
                let found = go::json_type(&other);
                let into = "into Go value of type storage.continueToken";
                return Err(invalid(format!(": json: cannot unmarshal {found} {into}")));
            }
        };
        if token.form != FORM {
            let why = ": server does not recognize this encoded version";
            return Err(invalid(format!("{why} {}", token.form)));
        }
        if token.rv == 0 {
            let why = ": incorrect encoded start resourceVersion (version meta.k8s.io/v1)";
            return Err(invalid(why.to_owned()));
        }
        if token.start.is_empty() {
            return Err(invalid(": encoded start key empty (version meta.k8s.io/v1)".to_owned()));
        }
        let start = token.start.trim_end_matches('\0');
        let path = start.strip_prefix('/').unwrap_or(start);
        let inside = match path.split_once('/') {
            Some((of, name)) => {
                let clean = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('/');
                namespaced && clean(of) && clean(name) && namespace.is_none_or(|asked| asked == of)
            }
            None => !namespaced && !matches!(path, "" | "." | ".."),
        };
        if !inside {
            return Err(invalid(format!(": {}", token.start)));
        }
        Ok(PageToken {
            version: u64::try_from(token.rv).ok().map(Version),
            after: if namespaced { path.to_owned() } else { format!("/{path}") },
            left: token.left,
        })
    }
}

/// What Go's decoder says.
fn base64_message(error: &base64::DecodeError, text: &str) -> String {
    let foreign = |c: u8| !c.is_ascii_alphanumeric() && !matches!(c, b'-' | b'_');
    let at = match text.bytes().position(foreign) {
        Some(at) => at,
        // One character too many: it is no byte by itself.
        None if text.len() % 4 == 1 => text.len() - 1,
        None => return format!(": {error}"),
    };
    format!(": illegal base64 data at input byte {at}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_has_the_form_of_kubernetes() {
        let token = PageToken::new(Version(871), "ns/c001", None);
        let json = URL_SAFE_NO_PAD.decode(token.encode()).unwrap();
        assert_eq!(json, br#"{"v":"meta.k8s.io/v1","rv":871,"start":"/ns/c001\u0000"}"#);
        assert_eq!(PageToken::decode(&token.encode(), true, Some("ns")).unwrap(), token);
        assert_eq!(PageToken::decode(&token.encode(), true, None).unwrap(), token);
        let now = token.inconsistent();
        assert_eq!(PageToken::decode(&now.encode(), true, None).unwrap().version(), None);
        let cluster = PageToken::new(Version(5), "/a", Some(3));
        assert_eq!(PageToken::decode(&cluster.encode(), false, None).unwrap(), cluster);
    }

    #[test]
    fn foreign_and_broken_tokens_are_refused() {
        let encoded = |json: &str| URL_SAFE_NO_PAD.encode(json);
        let refused = |text: &str| {
            PageToken::decode(text, true, Some("ns")).unwrap_err().message.replacen(
                "invalid continue token: continue key is not valid",
                "",
                1,
            )
        };
        for (text, why) in [
            ("a?b", "illegal base64 data at input byte 1"),
            ("e30=", "illegal base64 data at input byte 3"),
            ("bogus", "illegal base64 data at input byte 4"),
            ("garbage", r"invalid character '\u0081' looking for beginning of value"),
            ("xyz", "invalid character 'Ç' looking for beginning of value"),
            ("eyJ", "unexpected end of JSON input"),
            (&encoded("x"), "invalid character 'x' looking for beginning of value"),
            (&encoded("nothing"), "invalid character 'o' in literal null (expecting 'u')"),
            (
                &encoded("[]"),
                "json: cannot unmarshal array into Go value of type storage.continueToken",
            ),
            (&encoded("null"), "server does not recognize this encoded version "),
        ] {
            assert_eq!(refused(text), format!(": {why}"), "{text}");
        }
        assert_eq!(refused(&encoded("{}")), ": server does not recognize this encoded version ");
        let token = |rv, start: &str| {
            refused(&encoded(&format!(r#"{{"v":"meta.k8s.io/v1","rv":{rv},"start":"{start}"}}"#)))
        };
        assert!(token(0, "/ns/a").contains("incorrect encoded start resourceVersion"));
        assert!(token(1, "").contains("encoded start key empty"));
        assert_eq!(token(1, "/other/a"), ": /other/a");
        assert_eq!(token(1, "/ns/../x/a"), ": /ns/../x/a");
    }
}
