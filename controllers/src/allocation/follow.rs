//! One kind as it is and as it changes, like kube-runtime's `watcher`, and two things more: it reads what there is as a
//! stream, which is decoded while the server still sends; and it can be asked whether it has got as far as a version.
//!
//! A new leader asks that. What it has followed while another one led may be behind, and the last that the other one
//! wrote may be what it does not know yet.

use std::{fmt::Debug, time::Duration};

use futures::StreamExt;
use kube::{
    Api, Resource,
    api::{WatchEvent, WatchParams},
    runtime::watcher::Event,
};
use serde::de::DeserializeOwned;
use std::pin::pin;
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{cache::version, world::Input};

/// A server that was asked how far it is and is not there yet is asked again after this long.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// After a failure: the first time, and at most.
const RETRY_AFTER: Duration = Duration::from_millis(100);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);
/// The server ends a watch after at most ten minutes and sends a bookmark each minute: one that is silent for so long is
/// a connection that is dead without a word.
const SILENT_MAX: Duration = Duration::from_secs(150);
/// What the server puts on the bookmark behind the last object that there was.
const INITIAL_END: &str = "k8s.io/initial-events-end";

/// Why a stream ended.
enum End {
    /// The server's time for it was over, or it is to be opened anew.
    Normal,
    /// What came after the version that we have is not known any more.
    Expired,
    /// Nobody listens to us.
    Unheard,
}

/// Follows one kind until the receiver of its events is gone.
pub(super) struct Follower<K> {
    pub(super) api: Api<K>,
    pub(super) wrap: fn(Event<K>) -> Input,
    pub(super) sender: mpsc::Sender<Input>,
    /// The version that somebody waits for us to reach; 0: nobody does.
    pub(super) wanted: watch::Receiver<u64>,
    /// The version that we have said to have reached.
    pub(super) told: u64,
}

impl<K> Follower<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    pub(super) async fn run(mut self) {
        // Everything up to here has been passed on.
        let mut reached = None;
        let mut wait = RETRY_AFTER;
        loop {
            let sender = self.sender.clone();
            let before = reached;
            let end = tokio::select! {
                end = self.stream(&mut reached) => end,
                // A kind that is quiet would not notice by itself.
                () = sender.closed() => return,
            };
            if reached != before {
                wait = RETRY_AFTER;
            }
            match end {
                Ok(End::Normal) => {}
                Ok(End::Unheard) => return,
                Ok(End::Expired) => reached = None,
                Err(error) => {
                    warn!(kind = %K::kind(&()), %error, "watch interrupted, resuming");
                    sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
                    wait = (wait * 2).min(RETRY_AFTER_MAX);
                }
            }
        }
    }

    /// One watch, from `reached` on or from the beginning.
    async fn stream(&mut self, reached: &mut Option<u64>) -> kube::Result<End> {
        let mut is_listing = reached.is_none();
        let params = WatchParams {
            bookmarks: true,
            send_initial_events: is_listing,
            ..WatchParams::default()
        };
        // Without a version the state is as new as the store's.
        let from = reached.map_or(String::new(), |version| version.to_string());
        self.wanted.mark_unchanged();
        let mut events = pin!(self.api.watch(&params, &from).await?);
        if is_listing && !self.pass(Event::Init).await {
            return Ok(End::Unheard);
        }
        let mut behind = false;
        loop {
            let event = tokio::select! {
                event = timeout(SILENT_MAX, events.next()) => event,
                // A watch that is opened anew says at its start how far it is.
                Ok(()) = self.wanted.changed(), if !is_listing => return Ok(End::Normal),
            };
            let Ok(Some(event)) = event else { return Ok(End::Normal) };
            let heard = match event {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) if is_listing => {
                    self.pass(Event::InitApply(object)).await
                }
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                    let at = version(&object);
                    *reached = Some(at);
                    self.pass(Event::Apply(object)).await && self.tell(at).await
                }
                Ok(WatchEvent::Deleted(object)) => {
                    let at = version(&object);
                    *reached = Some(at);
                    self.pass(Event::Delete(object)).await && self.tell(at).await
                }
                Ok(WatchEvent::Bookmark(bookmark)) => {
                    let ends = bookmark.metadata.annotations.contains_key(INITIAL_END);
                    if is_listing && !ends {
                        continue;
                    }
                    let at = bookmark.metadata.resource_version.parse().unwrap_or(0);
                    *reached = Some(at);
                    if at < *self.wanted.borrow() {
                        behind = true;
                    }
                    let listed =
                        !std::mem::take(&mut is_listing) || self.pass(Event::InitDone).await;
                    listed && self.tell(at).await
                }
                Ok(WatchEvent::Error(status)) if status.code == 410 => {
                    debug!(kind = %K::kind(&()), "the watch is too old, listing anew");
                    return Ok(End::Expired);
                }
                Ok(WatchEvent::Error(status)) => return Err(kube::Error::Api(status)),
                Err(error) if is_unreadable(&error) => {
                    // It would come again and again.
                    warn!(kind = %K::kind(&()), %error, "an object can't be read");
                    true
                }
                Err(error) => return Err(error),
            };
            if !heard {
                return Ok(End::Unheard);
            }
            if behind {
                sleep(ASK_AGAIN_AFTER).await;
                return Ok(End::Normal);
            }
        }
    }

    /// Says that everything up to `at` has been passed on, if that is waited for.
    async fn tell(&mut self, at: u64) -> bool {
        let wanted = *self.wanted.borrow();
        if at < wanted || self.told >= wanted {
            return true;
        }
        self.told = wanted;
        self.wanted.mark_unchanged();
        self.sender.send(Input::Reached(K::kind(&()), wanted)).await.is_ok()
    }

    async fn pass(&self, event: Event<K>) -> bool {
        self.sender.send((self.wrap)(event)).await.is_ok()
    }
}

/// Whether a line of a watch is no event of the kind: to kube it may look like a Status that says nothing.
fn is_unreadable(error: &kube::Error) -> bool {
    match error {
        kube::Error::SerdeError(_) => true,
        kube::Error::Api(status) => status.code == 0 && status.message.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        convert::Infallible,
        sync::{Arc, Mutex},
    };

    use commonage_schemas::Queue;
    use http::{Request, Response};
    use kube::{Client, ResourceExt, client::Body};
    use serde_json::{Value, json};

    use super::*;

    /// An API whose watches say this, one after the other; the last of them stays open.
    fn api(watches: Vec<Vec<Value>>) -> (Api<Queue>, Arc<Mutex<Vec<String>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let queries = asked.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let mut asked = queries.lock().unwrap();
            let said = watches.get(asked.len()).cloned();
            asked.push(request.uri().query().unwrap_or_default().to_owned());
            async move {
                match said {
                    Some(events) => {
                        let lines: String = events.iter().map(|line| format!("{line}\n")).collect();
                        Ok::<_, Infallible>(Response::new(Body::from(lines.into_bytes())))
                    }
                    None => std::future::pending().await,
                }
            }
        });
        (Api::all(Client::new(service, "n")), asked)
    }

    fn queue(kind: &str, name: &str, version: u64) -> Value {
        json!({"type": kind, "object": {
            "apiVersion": "commonage.dev/v1", "kind": "Queue",
            "metadata": {"name": name, "resourceVersion": version.to_string()}, "spec": {},
        }})
    }

    fn bookmark(version: u64, is_end: bool) -> Value {
        let annotations = if is_end { json!({INITIAL_END: "true"}) } else { json!({}) };
        json!({"type": "BOOKMARK", "object": {
            "apiVersion": "commonage.dev/v1", "kind": "Queue",
            "metadata": {"resourceVersion": version.to_string(), "annotations": annotations},
        }})
    }

    /// What is passed on, in words, until this is.
    async fn follow(
        watches: Vec<Vec<Value>>,
        want: u64,
        until: &str,
    ) -> (Vec<String>, Vec<String>) {
        let (api, asked) = api(watches);
        let (sender, mut receiver) = mpsc::channel(16);
        let (_wants, wanted) = watch::channel(want);
        let follower = Follower { api, wrap: Input::Queue, sender, wanted, told: 0 };
        let follower = tokio::spawn(follower.run());
        let mut heard = Vec::new();
        while heard.last().is_none_or(|last| last != until) {
            let input = timeout(Duration::from_secs(60), receiver.recv()).await;
            heard.push(match input.expect(until).unwrap() {
                Input::Queue(Event::Init) => "init".to_owned(),
                Input::Queue(Event::InitApply(queue)) => format!("there {}", queue.name_any()),
                Input::Queue(Event::InitDone) => "all".to_owned(),
                Input::Queue(Event::Apply(queue)) => queue.name_any(),
                Input::Queue(Event::Delete(queue)) => format!("no {}", queue.name_any()),
                Input::Reached(kind, version) => format!("{kind} at {version}"),
                other => panic!("{other:?}"),
            });
        }
        drop(receiver);
        timeout(Duration::from_secs(60), follower).await.expect("it ends").unwrap();
        let asked = asked.lock().unwrap().clone();
        (heard, asked)
    }

    #[tokio::test]
    async fn what_there_is_comes_first_and_then_what_changes() {
        let first = vec![queue("ADDED", "a", 3), bookmark(5, true), queue("MODIFIED", "a", 7)];
        let second = vec![queue("DELETED", "a", 9), bookmark(20, false), queue("ADDED", "b", 21)];
        let (heard, asked) = follow(vec![first, second], 0, "b").await;
        assert_eq!(heard, ["init", "there a", "all", "a", "no a", "b"]);
        assert!(asked[0].contains("sendInitialEvents=true"), "{asked:?}");
        assert!(asked[0].ends_with("resourceVersion="), "as new as the store: {asked:?}");
        assert!(asked[1].ends_with("resourceVersion=7"), "{asked:?}");
    }

    #[tokio::test]
    async fn what_is_too_old_is_read_anew() {
        let gone = json!({"type": "ERROR", "object": {
            "kind": "Status", "status": "Failure", "message": "too old", "reason": "Expired", "code": 410,
        }});
        let first = vec![queue("ADDED", "a", 3), bookmark(5, true)];
        let third = vec![queue("ADDED", "b", 30), bookmark(31, true)];
        let (heard, asked) = follow(vec![first, vec![gone], third], 31, "Queue at 31").await;
        assert_eq!(heard, ["init", "there a", "all", "init", "there b", "all", "Queue at 31"]);
        assert!(asked[2].contains("sendInitialEvents=true"), "{asked:?}");
    }

    #[tokio::test]
    async fn it_says_when_everything_up_to_a_version_has_come() {
        let behind = vec![bookmark(8, true)];
        let still = vec![bookmark(9, false)];
        let there = vec![queue("ADDED", "late", 10), bookmark(12, false)];
        let (heard, asked) = follow(vec![behind, still, there], 11, "Queue at 11").await;
        assert_eq!(heard, ["init", "all", "late", "Queue at 11"]);
        assert!(asked[2].ends_with("resourceVersion=9"), "{asked:?}");
    }

    #[tokio::test]
    async fn an_object_that_can_not_be_read_is_passed_over() {
        let broken = json!({"type": "ADDED", "object": {"metadata": 7}});
        let first = vec![bookmark(5, true), broken, queue("ADDED", "b", 7)];
        let (heard, _) = follow(vec![first], 0, "b").await;
        assert_eq!(heard, ["init", "all", "b"]);
    }
}
