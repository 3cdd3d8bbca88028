//! One object seen as different versions of its kind, and an old object seen through a new schema.
//!
//! All versions of a kind share one store, where each object is of the one version that the kind is
//! stored as. For most, the only conversion is that of the name of the version (strategy `None`), so
//! that a few bytes change.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde_json::Value;

use super::{METADATA_OPEN, Object, encode, frame};
use crate::cache::EventKind;
use crate::kinds::event;
use crate::resource::{Conversion, ResourceDef};

/// What every body begins with.
const VERSION_FIRST: &[u8] = b"{\"apiVersion\":\"";

/// The stored form of an object of `def`.
pub(crate) fn encode_as(def: &ResourceDef, object: &Value) -> Bytes {
    let Some(stored) = &def.stored_as else { return encode(object) };
    let mut object = object.clone();
    object["apiVersion"] = stored.def.api_version().into();
    match stored.conversion {
        Conversion::Name => {}
        Conversion::Fields => drop(stored.def.schema.prune(&mut object)),
        Conversion::Event => event::to_core(&mut object),
    }
    encode(&object)
}

impl Object {
    /// The object as `def` has it, which may be another version than the stored one.
    pub(crate) fn seen_as(self: &Arc<Object>, def: &ResourceDef) -> Arc<Object> {
        if let Some(view) = def.view() {
            return Arc::new(view.object(self, EventKind::Added).0);
        }
        let Some(stored) = &def.stored_as else { return self.clone() };
        if stored.conversion == Conversion::Name
            && let Some(renamed) = self.renamed(&def.api_version())
        {
            return Arc::new(renamed);
        }
        let mut value = self.to_value();
        value["apiVersion"] = def.api_version().into();
        match stored.conversion {
            Conversion::Event => event::to_new(&mut value),
            Conversion::Name | Conversion::Fields => drop(def.schema.prune(&mut value)),
        }
        Arc::new(self.rebuilt(value))
    }

    fn renamed(&self, api_version: &str) -> Option<Object> {
        let rest = self.body.strip_prefix(VERSION_FIRST)?;
        let length = rest.iter().position(|byte| *byte == b'"')?;
        let mut body = BytesMut::with_capacity(self.body.len() + api_version.len());
        body.extend_from_slice(VERSION_FIRST);
        body.extend_from_slice(api_version.as_bytes());
        body.extend_from_slice(&rest[length..]);
        let splice_at = self.splice_at + api_version.len() - length;
        Some(Object { body: body.freeze(), splice_at, ..self.alike() })
    }

    /// The same object with another content.
    fn rebuilt(&self, mut value: Value) -> Object {
        if let Some(metadata) = value["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
        }
        let bytes = encode(&value);
        let open = bytes.windows(METADATA_OPEN.len()).position(|window| window == METADATA_OPEN);
        let splice_at = METADATA_OPEN.len() + open.expect("an object that was read has metadata");
        let (before, after) = (&bytes[..splice_at], &bytes[splice_at..]);
        let (_, body) = frame(EventKind::Added, before, self.version, after);
        Object { body, splice_at, ..self.alike() }
    }

    fn alike(&self) -> Object {
        Object {
            path: self.path.clone(),
            namespace_length: self.namespace_length,
            uid: self.uid.clone(),
            version: self.version,
            body: self.body.clone(),
            splice_at: self.splice_at,
            labels: self.labels.clone(),
            fields: self.fields.clone(),
            deleting: self.deleting,
        }
    }
}

/// How stored values of a kind whose definition may change are read: as the stored version of now,
/// with the schema of now.
#[derive(Clone, Debug)]
pub(crate) struct Normal {
    def: Arc<ResourceDef>,
    /// What a value of the stored version begins with.
    begin: Bytes,
}

impl Normal {
    pub(crate) fn new(def: Arc<ResourceDef>) -> Normal {
        let begin = format!("{{\"apiVersion\":\"{}\"", def.api_version()).into();
        Normal { def, begin }
    }

    /// The value may be taken as it is, if whoever wrote it knew the schema of now.
    pub(crate) fn is_current(&self, value: &[u8]) -> bool {
        value.starts_with(&self.begin)
    }

    /// Whoever wrote the value knew the schema of now, because there was no other before.
    pub(crate) fn is_all_there_was(&self, value: &[u8]) -> bool {
        self.def.never_changed && self.is_current(value)
    }

    /// The value as it would be stored today; `None` when it is so already.
    pub(crate) fn of_value(&self, value: &[u8]) -> Option<Bytes> {
        let mut object: Value = serde_json::from_slice(value).ok()?;
        // What is no object at all is for whoever decodes it to refuse.
        if !object["metadata"].is_object() {
            return None;
        }
        self.amend(&mut object).then(|| encode(&object))
    }

    /// As [`Normal::of_value`], of an object in memory.
    pub(crate) fn of_object(&self, object: &Object) -> Option<Object> {
        let mut value = object.to_value();
        self.amend(&mut value).then(|| object.rebuilt(value))
    }

    /// Whether anything changed.
    fn amend(&self, object: &mut Value) -> bool {
        let before = object.clone();
        object["apiVersion"] = self.def.api_version().into();
        self.def.schema.prune(object);
        self.def.schema.default(object);
        *object != before
    }
}
