//! The audit log: who did what, and how it was answered, as `audit.k8s.io/v1` Events, one JSON
//! line each, for the requests that a policy asks for.
//!
//! `http/audited.rs` tells a [`Record`] what happens to a request. Nothing here waits for a disk.

mod log;
mod policy;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

pub use log::LogConfig;
pub(crate) use policy::{Level, Stage};

use crate::auth::UserInfo;
use crate::auth::authorizer::Attributes;
use log::Log;
use policy::{Policy, Wanted};

/// kube-apiserver's `--audit-*` options.
#[derive(Clone, Debug, Default)]
pub struct AuditConfig {
    /// Off if `None`.
    pub log: Option<LogConfig>,
    /// Nothing is written down without one.
    pub policy_file: Option<PathBuf>,
}

pub(crate) struct Audit {
    policy: Policy,
    log: Log,
}

/// A request when it has come in.
pub(crate) struct Received<'a> {
    pub(crate) id: &'a str,
    pub(crate) uri: &'a str,
    /// `None`: the credentials were refused.
    pub(crate) user: Option<&'a UserInfo>,
    pub(crate) source_ips: Vec<String>,
    pub(crate) user_agent: &'a str,
    pub(crate) request: &'a Attributes<'a>,
    pub(crate) version: &'a str,
    pub(crate) at: Timestamp,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    kind: &'static str,
    api_version: &'static str,
    level: Level,
    #[serde(rename = "auditID")]
    audit_id: String,
    stage: Stage,
    #[serde(rename = "requestURI")]
    request_uri: String,
    verb: String,
    user: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    impersonated_user: Option<Value>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    source_ips: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    user_agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_ref: Option<ObjectRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_object: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_object: Option<Value>,
    request_received_timestamp: String,
    stage_timestamp: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'static str, String>,
}

#[derive(Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectRef {
    #[serde(skip_serializing_if = "String::is_empty")]
    resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    subresource: String,
}

/// One request that is written down. Dropping it ends it: nobody goes away unseen.
pub(crate) struct Record {
    audit: Arc<Audit>,
    wanted: Wanted,
    event: Event,
    ended: bool,
}

impl Audit {
    /// `None`: no request will be written down.
    ///
    /// # Errors
    /// The policy or the log can't be used.
    pub(crate) fn open(config: AuditConfig) -> anyhow::Result<Option<Arc<Audit>>> {
        let Some(log) = config.log else { return Ok(None) };
        let Some(policy) = &config.policy_file else {
            tracing::warn!("there is an audit log and no audit policy: nothing will be logged");
            return Ok(None);
        };
        let audit = Audit { policy: Policy::load(policy)?, log: Log::open(log)? };
        Ok(Some(Arc::new(audit)))
    }

    /// For metrics: events, and those that were not written.
    pub(crate) fn counted(&self) -> (u64, u64) {
        let counters = &self.log.counters;
        (counters.events.load(Relaxed), counters.errors.load(Relaxed))
    }

    /// `None`: the policy does not ask for it.
    pub(crate) fn begin(self: &Arc<Self>, received: Received<'_>) -> Option<Record> {
        let Received { id, uri, user, source_ips, user_agent, request, version, at } = received;
        let wanted = self.policy.wants(user, request)?;
        let object_ref = request.is_resource.then(|| ObjectRef {
            resource: request.resource.to_owned(),
            namespace: request.namespace.to_owned(),
            name: request.name.to_owned(),
            api_group: request.group.to_owned(),
            api_version: version.to_owned(),
            subresource: request.subresource.to_owned(),
        });
        let record = Record {
            audit: self.clone(),
            event: Event {
                kind: "Event",
                api_version: "audit.k8s.io/v1",
                level: wanted.level,
                audit_id: id.to_owned(),
                stage: Stage::RequestReceived,
                request_uri: uri.to_owned(),
                verb: request.verb.to_owned(),
                user: user.map_or_else(|| json!({}), user_value),
                impersonated_user: None,
                source_ips,
                user_agent: user_agent.to_owned(),
                object_ref,
                response_status: None,
                request_object: None,
                response_object: None,
                request_received_timestamp: micros(at),
                stage_timestamp: String::new(),
                annotations: BTreeMap::new(),
            },
            wanted,
            ended: false,
        };
        record.emit(Stage::RequestReceived);
        Some(record)
    }
}

fn micros(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

fn user_value(user: &UserInfo) -> Value {
    let mut value = json!({"username": user.name});
    if !user.uid.is_empty() {
        value["uid"] = user.uid.as_str().into();
    }
    if !user.groups.is_empty() {
        value["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        value["extra"] = json!(user.extra);
    }
    value
}

impl Record {
    pub(crate) fn level(&self) -> Level {
        self.wanted.level
    }

    /// A create's object, whose name its URL did not say.
    pub(crate) fn lacks_name(&self) -> bool {
        let unnamed = self.event.object_ref.as_ref().is_some_and(|object| object.name.is_empty());
        unnamed && self.event.verb == "create"
    }

    pub(crate) fn name_object(&mut self, name: String) {
        if let Some(object) = &mut self.event.object_ref {
            object.name = name;
        }
    }

    pub(crate) fn impersonated(&mut self, user: &UserInfo) {
        self.event.impersonated_user = Some(user_value(user));
    }

    pub(crate) fn decided(&mut self, allowed: bool, reason: String) {
        let decision = if allowed { "allow" } else { "forbid" };
        self.event.annotations.insert("authorization.k8s.io/decision", decision.to_owned());
        self.event.annotations.insert("authorization.k8s.io/reason", reason);
    }

    pub(crate) fn request_object(&mut self, mut object: Value) {
        self.trim(&mut object);
        self.event.request_object = Some(object);
    }

    pub(crate) fn response_object(&mut self, mut object: Value) {
        self.trim(&mut object);
        self.event.response_object = Some(object);
    }

    /// `status` is the failure that was answered, if it was one.
    pub(crate) fn answered(&mut self, code: u16, status: Option<Value>) {
        let mut said = json!({"metadata": {}, "code": code});
        if let Some(Value::Object(mut status)) = status {
            for field in ["status", "message", "reason", "details"] {
                if let Some(value) = status.remove(field) {
                    said[field] = value;
                }
            }
        }
        self.event.response_status = Some(said);
    }

    /// The head of an answer that may go on for hours has been sent.
    pub(crate) fn started(&mut self) {
        self.emit(Stage::ResponseStarted);
    }

    pub(crate) fn panicked(&mut self) {
        let why = "APIServer panic'd: the server's log has the details";
        let status = json!({"status": "Failure", "reason": "InternalError", "message": why});
        self.answered(500, Some(status));
        self.emit(Stage::Panic);
        self.ended = true;
    }

    fn trim(&self, object: &mut Value) {
        if !self.wanted.omit_managed_fields {
            return;
        }
        let forget = |object: &mut Value| {
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("managedFields");
            }
        };
        forget(object);
        let items = object.get_mut("items").and_then(Value::as_array_mut);
        items.into_iter().flatten().for_each(forget);
    }

    fn emit(&self, stage: Stage) {
        if self.wanted.omit_stages.contains(&stage) {
            return;
        }
        let mut event = self.event.clone();
        event.stage = stage;
        event.stage_timestamp = micros(Timestamp::now());
        let Ok(mut line) = serde_json::to_vec(&event) else { return };
        line.push(b'\n');
        self.audit.log.write(line);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.ended {
            self.emit(Stage::ResponseComplete);
        }
    }
}
