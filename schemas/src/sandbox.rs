//! What lies in a task's sandbox: an agent's answer to `GET tasks/NAME/sandbox?path=…`. No kind of ours: nothing of
//! it is stored.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

/// A directory of a sandbox, or one file of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxListing {
    pub api_version: String,
    pub kind: String,
    /// From the top of the sandbox, without a slash before it; empty: the sandbox itself.
    pub path: String,
    /// By name.
    pub entries: Vec<SandboxEntry>,
    /// There are more than one answer tells.
    #[serde(default, skip_serializing_if = "crate::is_false")]
    pub truncated: bool,
}

/// One file, directory or link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxEntry {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: EntryKind,
    pub size_bytes: u64,
    /// Permissions in octal, such as `0644`.
    pub mode: String,
    /// Numbers of its owner, as the task has them.
    pub user: u32,
    pub group: u32,
    pub modified_at: Time,
    /// Where a link leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// What kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    File,
    Directory,
    Link,
    /// A socket, a pipe.
    Other,
}
