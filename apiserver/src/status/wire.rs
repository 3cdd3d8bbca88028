//! The `Status` object as clients read it.

use serde::Serialize;
use serde_json::Value;

use super::{ApiError, StatusDetails, about};
use crate::resource::ResourceDef;

impl ApiError {
    /// The `Status` object as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        Status {
            kind: "Status",
            api_version: "v1",
            metadata: StatusMeta { continue_: self.continue_.as_deref() },
            status: "Failure",
            message: &self.message,
            reason: &self.reason,
            details: self.details.as_deref(),
            code: self.code,
        }
        .to_json()
    }

    /// As [`ApiError::to_json`], for the object of a watch's ERROR event.
    pub fn to_value(&self) -> Value {
        serde_json::from_slice(&self.to_json()).expect("a Status we serialized parses")
    }
}

/// The `Status` of a DELETE that removed the object.
pub fn success_status(def: &ResourceDef, name: &str, uid: &str) -> Vec<u8> {
    let details = StatusDetails { uid: uid.into(), ..about(&def.group, &def.plural, name) };
    Status {
        kind: "Status",
        api_version: "v1",
        metadata: StatusMeta { continue_: None },
        status: "Success",
        message: "",
        reason: "",
        details: Some(&details),
        code: 0,
    }
    .to_json()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    kind: &'a str,
    api_version: &'a str,
    metadata: StatusMeta<'a>,
    status: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a StatusDetails>,
    #[serde(skip_serializing_if = "is_zero")]
    code: u16,
}

#[derive(Serialize)]
struct StatusMeta<'a> {
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    continue_: Option<&'a str>,
}

impl Status<'_> {
    fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and integers always serialize")
    }
}

fn is_zero(code: &u16) -> bool {
    *code == 0
}
