//! From an object in memory to one that everybody can read.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use commonage_store::{
    Committed, Compare, GuardedWrite, Op, Revision, StoreError, Version, WRITE_BYTES_MAX,
    write_bytes,
};
use serde_json::Value;
use tokio::time::Instant;

use super::read::unavailable;
use super::{Engine, FieldValidation, WriteOptions, fence};
use crate::builtin;
use crate::cache::EventKind;
use crate::object::{self, Object};
use crate::resource::{Origin, ResourceDef};
use crate::schema;
use crate::status::ApiError;

/// A write is answered even if the cache does not get there: it is durable, and the next read
/// waits by itself.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a write of unknown outcome is looked for, while the store does not answer.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(10);
const SETTLE_PAUSE: Duration = Duration::from_millis(200);

/// Why a guarded write did not land.
pub(crate) enum CommitError {
    /// This compare did not hold.
    Conflict(usize),
    Failed(ApiError),
}

impl Engine {
    /// Commits and waits until the cache has it. Behind the request's fence, if it has one.
    pub(crate) async fn commit(&self, write: GuardedWrite) -> Result<Committed, CommitError> {
        match fence::current() {
            None => self.commit_now(write).await,
            Some(fence) => self.commit_behind(&fence, write).await,
        }
    }

    pub(super) async fn commit_now(&self, write: GuardedWrite) -> Result<Committed, CommitError> {
        let proof = proof_of(&write);
        let bytes = write_bytes(&write);
        let defines = self.definitions.concern(&write);
        let answer = self.cache.answered(&self.store, self.store.commit(write)).await;
        let committed = match answer {
            Ok(committed) => committed,
            Err(StoreError::Conflict { compare }) => return Err(CommitError::Conflict(compare)),
            Err(StoreError::UnknownOutcome(why)) => self.settle(proof, &why).await?,
            Err(StoreError::Refused(why)) => {
                tracing::warn!(why, "the store refused a write");
                let error = match bytes > WRITE_BYTES_MAX {
                    true => ApiError::too_large(WRITE_BYTES_MAX),
                    // Too much at once: a thousand tasks in one acceptance.
                    false => ApiError::new(422, "Invalid", why),
                };
                return Err(CommitError::Failed(error));
            }
            Err(StoreError::Full(why)) => {
                self.store_is_full();
                return Err(CommitError::Failed(ApiError::store_full(&why)));
            }
            Err(error) => return Err(CommitError::Failed(unavailable(&error))),
        };
        self.published(committed.revision).await;
        if defines {
            self.definitions_settled().await;
        }
        Ok(committed)
    }

    /// Returns when everybody can read what was committed at `revision`.
    async fn published(&self, revision: Revision) {
        if self.cache.revision() >= revision {
            return;
        }
        if tokio::time::timeout(PUBLISH_TIMEOUT, self.cache.reached(revision)).await.is_err() {
            tracing::error!(
                revision = revision.0,
                "a write was committed but did not come back in time"
            );
        }
    }

    /// The outcome of a write is unknown: it landed if what it put is there now. If not, it may
    /// still land; the client must look again.
    async fn settle(&self, proof: Proof, why: &str) -> Result<Committed, CommitError> {
        tracing::warn!(why, "the outcome of a write is unknown; looking");
        let unknown = || {
            CommitError::Failed(ApiError::timeout(
                "request did not complete within the allotted timeout",
            ))
        };
        let Some((key, value)) = proof.put else { return Err(unknown()) };
        let deadline = Instant::now() + SETTLE_TIME_MAX;
        let entry = loop {
            match self.store.get(&key, None).await {
                Ok(entry) => break entry,
                // An election takes a second or two.
                Err(_) if Instant::now() < deadline => tokio::time::sleep(SETTLE_PAUSE).await,
                Err(_) => return Err(unknown()),
            }
        };
        let Some(entry) = entry.filter(|entry| entry.value == value) else { return Err(unknown()) };
        let first = entry.version.0 - proof.place;
        let versions = (0..proof.ops).map(|place| Version(first + place)).collect();
        Ok(Committed { revision: entry.version.revision(), versions })
    }

    /// The object just written, from the cache if nobody has changed it since.
    pub(crate) fn written(
        &self,
        def: &ResourceDef,
        path: &str,
        value: &Bytes,
        version: Version,
    ) -> Result<Arc<Object>, ApiError> {
        match self.resource(def)?.get(path).filter(|object| object.version == version) {
            Some(object) => Ok(object.seen_as(def)),
            None => self.pretended(def, path, value, version),
        }
    }

    /// The object that a dry run would have written.
    pub(crate) fn pretended(
        &self,
        def: &ResourceDef,
        path: &str,
        value: &Bytes,
        version: Version,
    ) -> Result<Arc<Object>, ApiError> {
        match Object::decode(self.resource(def)?.fields(), path, value, version, EventKind::Added) {
            Ok((object, _)) => Ok(Arc::new(object).seen_as(def)),
            Err(error) => {
                tracing::error!(path, %error, "an object that was accepted can't be read");
                Err(ApiError::internal("the object that was written can't be read"))
            }
        }
    }

    /// How an object gets to its key: for some time only, if it tells what happened lately.
    pub(crate) fn put(&self, def: &ResourceDef, key: Bytes, value: Bytes) -> Op {
        let is_event = def.kind == "Event" && matches!(def.group.as_str(), "" | "events.k8s.io");
        match self.settings.event_ttl {
            ttl if is_event && !ttl.is_zero() => Op::PutFor { key, value, ttl },
            _ => Op::Put { key, value },
        }
    }

    /// The guard against writing into a namespace that is gone: the key that must be there.
    pub(crate) fn namespace_guard(&self, def: &ResourceDef, namespace: &str) -> Option<Compare> {
        let namespaces = self.namespaces.as_ref().filter(|_| def.is_namespaced())?;
        Some(Compare::Present { key: namespaces.key("", namespace).into() })
    }
}

/// How to recognize a write of unknown outcome. What was put carries a fresh uid or is compared
/// with the version before it, so that equal bytes are this write's.
struct Proof {
    put: Option<(Bytes, Bytes)>,
    place: u64,
    ops: u64,
}

fn proof_of(write: &GuardedWrite) -> Proof {
    let first = write.ops.iter().enumerate().find_map(|(place, op)| match op {
        Op::Put { key, value } | Op::PutFor { key, value, .. } => {
            Some((place as u64, (key.clone(), value.clone())))
        }
        Op::Delete { .. } => None,
    });
    let (place, put) = first.map_or((0, None), |(place, put)| (place, Some(put)));
    Proof { put, place, ops: write.ops.len() as u64 }
}

/// Takes out the version, which only the store says. Returns the one that the client gave.
pub(crate) fn take_version(object: &mut Value) -> Option<String> {
    let metadata = object.get_mut("metadata")?.as_object_mut()?;
    match metadata.remove("resourceVersion")? {
        Value::String(version) if version.is_empty() || version == "0" => None,
        Value::String(version) => Some(version),
        _ => None,
    }
}

/// Prunes and defaults a body, and returns what it had too much, in the order in which Kubernetes
/// tells it. Of a custom kind: what the text had twice, unknown metadata, the rest by name. Of a
/// built-in kind: as it comes in the text, else by name after what the text had twice.
pub(crate) fn clean(def: &ResourceDef, object: &mut Value, options: &WriteOptions) -> Vec<String> {
    let mut unknown = def.schema.prune(object);
    def.schema.default(object);
    if let Some(zero) = &def.zero {
        builtin::fill(zero, object);
    }
    if options.field_validation == FieldValidation::Ignore {
        return Vec::new();
    }
    if def.origin == Origin::Custom {
        unknown.sort_by(|a, b| {
            let of_metadata = |path: &str| !path.starts_with("metadata.");
            (of_metadata(a), a).cmp(&(of_metadata(b), b))
        });
    }
    let told = unknown.iter().map(|path| format!("unknown field {path:?}"));
    let findings: Vec<String> = options.findings.iter().cloned().chain(told).collect();
    match findings.len() > 1 && !options.text.is_empty() {
        true => schema::in_order_of_text(&options.text, &unknown, findings),
        false => findings,
    }
}

/// What becomes of findings: nothing, warnings or an error made by `refuse`.
pub(crate) fn judge(
    findings: Vec<String>,
    options: &WriteOptions,
    refuse: impl FnOnce(String) -> ApiError,
) -> Result<Vec<String>, ApiError> {
    match options.field_validation {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Strict if !findings.is_empty() => {
            Err(refuse(format!("strict decoding error: {}", findings.join(", "))))
        }
        // One warning for each line of what a decoder found.
        FieldValidation::Strict | FieldValidation::Warn => Ok(findings
            .iter()
            .flat_map(|finding| match finding.split_once(":\n") {
                Some((_, lines)) => lines.lines().map(|line| line.trim().to_owned()).collect(),
                None => vec![finding.clone()],
            })
            .collect()),
    }
}

/// The stored form of an object of a kind that has one version only.
pub(crate) fn encode(object: &Value) -> Bytes {
    object::encode(object)
}

pub(crate) fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Whether anything in `metadata.finalizers` holds the object.
pub(crate) fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty())
}

pub(crate) fn is_deleting(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}
