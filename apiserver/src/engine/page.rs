//! The token between two pages of a list.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use commonage_store::Version;
use serde::{Deserialize, Serialize};

use crate::status::ApiError;

/// Where a paged list goes on. Opaque to clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PageToken {
    /// The list's version; 0 goes on in the present, after the list's own version expired.
    #[serde(rename = "rv")]
    version: u64,
    /// The path of the last object returned.
    pub(super) after: String,
    /// Objects left after this page, where nothing but the namespace selects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) left: Option<u64>,
}

impl PageToken {
    pub(super) fn new(version: Version, after: &str, left: Option<u64>) -> PageToken {
        PageToken { version: version.0, after: after.to_owned(), left }
    }

    /// The same place, in the present.
    pub(super) fn inconsistent(&self) -> PageToken {
        PageToken { version: 0, after: self.after.clone(), left: None }
    }

    /// `None`: the present.
    pub(super) fn version(&self) -> Option<Version> {
        (self.version != 0).then_some(Version(self.version))
    }

    pub(super) fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).expect("numbers and strings serialize"))
    }

    pub(super) fn decode(text: &str, namespace: Option<&str>) -> Result<PageToken, ApiError> {
        let invalid =
            |why: String| ApiError::bad_request(format!("continue key is not valid: {why}"));
        let json = URL_SAFE_NO_PAD
            .decode(text.trim_end_matches('='))
            .map_err(|error| invalid(error.to_string()))?;
        let token: PageToken =
            serde_json::from_slice(&json).map_err(|error| invalid(error.to_string()))?;
        let inside = token
            .after
            .split_once('/')
            .is_some_and(|(of, _)| namespace.is_none_or(|asked| asked == of));
        if !inside {
            return Err(invalid("it belongs to another list".to_owned()));
        }
        Ok(token)
    }
}
