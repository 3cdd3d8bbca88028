//! The one place that writes to definitions by itself: names and conditions, and their removal.
//!
//! Every server runs one. All of them come to the same conclusions, and whoever is second finds
//! nothing left to do.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{RETRY_AFTER, everything};
use crate::engine::Engine;
use crate::meta;

/// How often definitions are looked at whose objects wait for their finalizers.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(500);

impl Engine {
    /// Accepts the names of definitions and removes those that are deleted, until the engine stops.
    pub(in crate::engine) async fn govern_definitions(self: Arc<Self>) {
        let Some(kind) = self.definitions.kind.clone() else { return };
        let work = async {
            while !self.shutdown.is_cancelled() {
                let mut changes = match self.watch(&kind, None, everything()).await {
                    Ok(changes) => changes,
                    Err(error) => {
                        tracing::warn!(%error, "definitions can't be watched; trying again");
                        tokio::time::sleep(RETRY_AFTER).await;
                        continue;
                    }
                };
                loop {
                    let unfinished = self.govern_once().await;
                    tokio::select! {
                        chunk = changes.next() => if chunk.is_none() { break },
                        () = tokio::time::sleep(LOOK_AGAIN_AFTER), if unfinished => {}
                    }
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = self.shutdown.cancelled() => {}
        }
    }

    /// Whether something is left to look at without a change to any definition.
    async fn govern_once(self: &Arc<Self>) -> bool {
        let Some(kind) = self.definitions.kind.clone() else { return false };
        let Ok(resource) = self.resource(&kind) else { return true };
        let (objects, _) = resource.snapshot();
        let mut unfinished = false;
        for object in objects.values() {
            let done = match object.deleting {
                true => self.remove_definition(&kind, object).await,
                false => self.accept_names(&kind, object).await.map(|()| true),
            };
            match done {
                Ok(done) => unfinished |= !done,
                Err(error) if error.code == 404 => {}
                Err(error) => {
                    tracing::warn!(name = object.name(), %error, "a definition waits; trying again");
                    unfinished = true;
                }
            }
        }
        unfinished
    }
}

/// A condition that is to be.
pub(super) struct Condition {
    pub(super) type_: &'static str,
    pub(super) status: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// Puts the condition in the place of the one of its type, which keeps its time unless the status
/// changes.
pub(crate) fn set_condition(definition: &mut Value, condition: &Condition, now: jiff::Timestamp) {
    let status = if condition.status { "True" } else { "False" };
    let mut next = json!({
        "type": condition.type_, "status": status, "lastTransitionTime": meta::time_text(now),
        "reason": condition.reason, "message": condition.message,
    });
    let conditions = &mut definition["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(all) = conditions.as_array_mut() else { return };
    match all.iter_mut().find(|known| known["type"] == condition.type_) {
        Some(known) => {
            if known["status"] == next["status"] {
                next["lastTransitionTime"] = known["lastTransitionTime"].take();
            }
            *known = next;
        }
        None => all.push(next),
    }
}

pub(super) fn condition<'d>(definition: &'d Value, type_: &str) -> Option<&'d Value> {
    let conditions = definition["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == type_)
}
