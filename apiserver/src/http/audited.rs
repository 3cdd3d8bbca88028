//! What the audit log is told of a request on its way. Without one, or where its policy asks for
//! nothing, nothing is read or kept.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, USER_AGENT};
use http::{HeaderMap, Response};
use http_body_util::BodyExt;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;

use super::chain::Caller;
use super::{App, body, decode};
use crate::audit::{Level, Received, Record};
use crate::auth::UserInfo;
use crate::auth::authorizer::{Attributes, Decision};
use crate::status::ApiError;

/// The record of one request, if there is one.
#[derive(Default)]
pub(super) struct Slot(Mutex<Option<Record>>);

/// What is known of a request before its caller is.
pub(super) struct Arrival<'a> {
    pub(super) id: &'a str,
    pub(super) uri: &'a str,
    pub(super) caller: &'a Caller,
    pub(super) headers: &'a HeaderMap,
    pub(super) request: Attributes<'a>,
    pub(super) version: &'a str,
    /// How long it stood in line for a place, in microseconds.
    pub(super) waited_us: AtomicU64,
}

impl Slot {
    /// `user` is `None` if the credentials were refused.
    pub(super) fn begin(&self, app: &Arc<App>, arrival: &Arrival<'_>, user: Option<&UserInfo>) {
        let Some(audit) = &app.audit else { return };
        let text = |name| {
            let value = arrival.headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default()
        };
        let forwarded = text("x-forwarded-for").split(',').map(|one| one.trim().to_owned());
        let mut source_ips: Vec<String> = forwarded.filter(|one| !one.is_empty()).collect();
        let peer = match arrival.caller {
            Caller::Connection { from, .. } => from.to_string(),
            // The control plane's own parts, in this process.
            Caller::InProcess(_) => "127.0.0.1".to_owned(),
        };
        if source_ips.last() != Some(&peer) {
            source_ips.push(peer);
        }
        *self.0.lock() = audit.begin(Received {
            id: arrival.id,
            uri: arrival.uri,
            user,
            source_ips,
            user_agent: text(USER_AGENT.as_str()),
            request: &arrival.request,
            version: arrival.version,
            at: Timestamp::now(),
        });
    }

    fn with(&self, act: impl FnOnce(&mut Record)) {
        if let Some(record) = self.0.lock().as_mut() {
            act(record);
        }
    }

    pub(super) fn impersonated(&self, user: &UserInfo) {
        self.with(|record| record.impersonated(user));
    }

    pub(super) fn decided(&self, decision: &Decision) {
        self.with(|record| record.decided(!decision.is_denied(), decision.reason()));
    }

    pub(super) fn panicked(&self) {
        self.with(Record::panicked);
    }

    /// The body, read and kept if the policy asks for it. What is no object is not kept.
    pub(super) async fn receive(&self, headers: &HeaderMap, body: Body) -> Result<Body, ApiError> {
        let wanted = self.0.lock().as_ref().is_some_and(|record| record.level() >= Level::Request);
        if !wanted {
            return Ok(body);
        }
        let bytes = body::read(headers, body).await?;
        if !bytes.is_empty()
            && let Ok(object) = decode::options(headers, &bytes)
        {
            self.with(|record| record.request_object(object));
        }
        Ok(Body::from(bytes))
    }

    /// Ends the record, with the answer or, where that goes on, with its last byte.
    pub(super) async fn finish(
        self,
        response: Response<Body>,
        long_running: bool,
    ) -> Response<Body> {
        let Some(mut record) = self.0.into_inner() else { return response };
        let code = response.status().as_u16();
        if long_running && response.status().is_success() || code == 101 {
            record.answered(code, None);
            record.started();
            // It lives as long as the body that holds it.
            return response.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    let _lives = &record;
                    frame
                }))
            });
        }
        let failed = code >= 400;
        let plain = !response.headers().contains_key(CONTENT_ENCODING);
        let whole = record.level() == Level::RequestResponse && plain;
        if !(failed || whole || record.lacks_name()) {
            record.answered(code, None);
            return response;
        }
        let (head, body) = response.into_parts();
        // Bodies that are not watches are made in this process: reading one waits for nobody.
        let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        tell(&mut record, code, &bytes, whole);
        Response::from_parts(head, Body::from(bytes))
    }
}

fn tell(record: &mut Record, code: u16, bytes: &Bytes, whole: bool) {
    #[derive(Default, Deserialize)]
    struct Named {
        #[serde(default)]
        metadata: Metadata,
    }
    #[derive(Default, Deserialize)]
    struct Metadata {
        #[serde(default)]
        name: String,
    }
    let parsed = |wanted: bool| {
        let parsed = wanted.then(|| serde_json::from_slice::<Value>(bytes).ok());
        parsed.flatten()
    };
    record.answered(code, parsed(code >= 400));
    if code < 400 && record.lacks_name() {
        let named: Named = serde_json::from_slice(bytes).unwrap_or_default();
        record.name_object(named.metadata.name);
    }
    if let Some(object) = parsed(whole) {
        record.response_object(object);
    }
}
