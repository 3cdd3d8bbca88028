//! The end of Events: they say what happened lately, and would otherwise fill the store.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::update::Target;
use super::{DeleteOptions, Engine, WriteOptions};
use crate::object::Object;

/// kube-apiserver's `--event-ttl`.
const EVENT_AGE_MAX: SignedDuration = SignedDuration::from_hours(1);
/// Events may live so much longer than they should.
const LOOK_AFTER: Duration = Duration::from_secs(60);

impl Engine {
    /// Deletes Events an hour after they were last written about, until the engine stops.
    pub(super) async fn expire_events(self: Arc<Self>) {
        let Some(def) = self.scheme().by_kind("", "Event").cloned() else { return };
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_AFTER) => {}
                () = self.shutdown.cancelled() => return,
            }
            let Ok(resource) = self.resource(&def) else { return };
            let (events, _) = resource.snapshot();
            let oldest = Timestamp::now() - EVENT_AGE_MAX;
            for event in
                events.values().filter(|event| last_seen(event).is_none_or(|seen| seen < oldest))
            {
                let target = Target::new(&def, event.namespace(), event.name(), None);
                let delete = DeleteOptions {
                    resource_version: Some(event.version.0.to_string()),
                    ..DeleteOptions::default()
                };
                // One that changed meanwhile is not old any more.
                let deleted =
                    self.clone().delete_now(target, delete, WriteOptions::default()).await;
                if let Err(error) = deleted
                    .map(drop)
                    .or_else(|error| if error.code < 500 { Ok(()) } else { Err(error) })
                {
                    tracing::warn!(%error, "an old event can't be deleted; trying again");
                    break;
                }
            }
        }
    }
}

fn last_seen(event: &Object) -> Option<Timestamp> {
    let event = event.to_value();
    let places =
        ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"];
    let times = places.iter().filter_map(|place| event.pointer(place).and_then(Value::as_str));
    times.filter_map(|time| time.parse().ok()).max()
}
