//! What a request may ask of the engine, and what it gets: plain data.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use commonage_store::Version;

use crate::auth::UserInfo;
use crate::object::Object;
use crate::selector::{FieldSelector, LabelSelector};
use crate::status::ApiError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionMatch {
    Exact,
    NotOlderThan,
}

/// The query of a list. `None` is "not given".
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    pub label_selector: Option<LabelSelector>,
    pub field_selector: Option<FieldSelector>,
    /// Items at most; 0 is no limit.
    pub limit: usize,
    pub continue_: Option<String>,
    pub resource_version: Option<u64>,
    pub version_match: Option<VersionMatch>,
}

/// A page of a list; all pages of one list have the same version.
#[derive(Clone, Debug)]
pub struct List {
    pub items: Vec<Arc<Object>>,
    pub version: Version,
    pub continue_: Option<String>,
    /// Known only for lists without selectors.
    pub remaining: Option<u64>,
}

/// The query of a watch.
#[derive(Clone, Debug)]
pub struct WatchOptions {
    pub label_selector: Option<LabelSelector>,
    pub field_selector: Option<FieldSelector>,
    pub resource_version: Option<u64>,
    pub version_match: Option<VersionMatch>,
    pub bookmarks: bool,
    pub send_initial_events: Option<bool>,
    /// The stream ends after this long; a bookmark goes out shortly before.
    pub timeout: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Unknown and duplicate fields are dropped silently.
    Ignore,
    /// They are dropped, and each is a warning.
    #[default]
    Warn,
    /// They are an error (400).
    Strict,
}

/// What every write carries.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub field_manager: Option<String>,
    pub field_validation: FieldValidation,
    /// What a strict reader finds wrong with the text of the body: `duplicate field "spec.a"`.
    pub findings: Vec<String>,
    /// The JSON of the body where findings are told in its order: that of a built-in kind.
    pub text: Bytes,
    pub user: Arc<UserInfo>,
    /// The object's `managedFields` are settled: it is what a server-side apply made.
    pub applied: bool,
    /// Why the user may not create the object that the request patches: an apply would.
    pub create_refused: Option<Box<ApiError>>,
}

/// What a write left behind.
#[derive(Clone, Debug)]
pub struct Written {
    pub object: Arc<Object>,
    /// Texts for `Warning` headers.
    pub warnings: Vec<String>,
    /// The object did not exist before.
    pub created: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    Json,
    Merge,
    /// Built-in kinds only: 415 for the others.
    Strategic,
    /// Server-side apply; the body may be YAML. With `force` it takes fields from others.
    Apply {
        force: bool,
    },
}

impl PatchKind {
    /// The media types of patches that custom kinds take.
    pub const CUSTOM: [&str; 3] = [
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/apply-patch+yaml",
    ];
    /// Those of built-in kinds.
    pub const BUILT_IN: [&str; 4] = [
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    ];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// The `DeleteOptions` body or query. `dryRun` is in [`WriteOptions`].
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub propagation: Option<Propagation>,
    /// Seconds between telling and killing; `None`: as the object says.
    pub grace_s: Option<i64>,
}

#[derive(Clone, Debug)]
pub enum Deleted {
    /// It is removed: answer the success Status with its uid.
    Gone(Arc<Object>),
    /// Finalizers hold it: answer the object, which has a deletionTimestamp now.
    Marked(Arc<Object>),
}
