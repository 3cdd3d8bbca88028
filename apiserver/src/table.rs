//! `kubectl get`: objects as rows of `meta.k8s.io/v1 Table`.
//!
//! Serializes row by row into one buffer; an object is borrowed for its row only.

use std::borrow::Borrow;

use jiff::Timestamp;
use serde_json::Value;

use crate::resource::ResourceDef;

/// `includeObject=`: what of each object goes along with its row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

/// A list's `metadata`.
#[derive(Clone, Debug, Default)]
pub struct ListMeta<'a> {
    pub resource_version: &'a str,
    /// Empty: nothing remains.
    pub continue_: &'a str,
    pub remaining_item_count: Option<u64>,
}

/// `meta.k8s.io/v1` or, for old clients, `v1beta1`; the same shape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TableVersion {
    #[default]
    V1,
    V1Beta1,
}

/// How to render; the same for every row of a request.
#[derive(Clone, Copy, Debug)]
pub struct TableOptions {
    pub version: TableVersion,
    pub include: IncludeObject,
    /// Ages are relative to this.
    pub now: Timestamp,
}

/// The Table of a list.
pub fn render_list<V: Borrow<Value>>(
    _def: &ResourceDef,
    _meta: &ListMeta<'_>,
    _objects: impl IntoIterator<Item = V>,
    _options: TableOptions,
) -> Vec<u8> {
    Vec::new()
}

/// Whether a table carries its column definitions: in a watch only the first event's does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Headers {
    Shown,
    Omitted,
}

/// The Table of one object: a GET, a write's answer, or a watch event's object.
pub fn render_one(
    _def: &ResourceDef,
    _object: &Value,
    _headers: Headers,
    _options: TableOptions,
) -> Vec<u8> {
    Vec::new()
}

/// `PartialObjectMetadata` of one object.
pub fn render_partial(_object: &Value) -> Vec<u8> {
    Vec::new()
}

/// `PartialObjectMetadataList`.
pub fn render_partial_list<V: Borrow<Value>>(
    _meta: &ListMeta<'_>,
    _objects: impl IntoIterator<Item = V>,
) -> Vec<u8> {
    Vec::new()
}

/// A duration as `kubectl get` shows ages: `5m`, `3h7m`, `12d`.
pub fn human_duration(_seconds: i64) -> String {
    String::new()
}
