//! Namespaces: what comes with a new one, and the end of those that are deleted.
//!
//! Emptying a namespace is `contents`' business; here is when it is done and what is said about it,
//! in the conditions and words of kube-controller-manager.

mod contents;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace, NamespaceCondition, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    core::PartialObjectMeta,
    runtime::{
        Controller,
        controller::{self, Action},
        reflector::ObjectRef,
        watcher,
    },
};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::patch::{Written, overtaken};
use crate::reconciling::until_ended;
use crate::resources::{Served, discover};
use contents::Contents;

/// A namespace that is not empty yet, or a failed reconcile, is looked at again after this long; after a quarter longer
/// each time when nothing of it has gone meanwhile. Not before, though what is said about it changes with every look, which is
/// a change of it.
const RETRY_AFTER: Duration = Duration::from_millis(250);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(15);
/// After a look that has taken long, so many times as long, up to this: there is much, and it takes its time to go.
const REST_PER_LOOK: u32 = 4;
const REST_PER_LOOK_MAX: Duration = Duration::from_secs(2);
/// Namespaces that are emptied at once: each takes dozens of requests.
const AT_ONCE: u16 = 8;
/// Ours among the finalizers of a namespace's spec.
const FINALIZER: &str = "kubernetes";
/// Which every namespace has, for those that name none.
const DEFAULT_ACCOUNT: &str = "default";
/// Which every namespace has: how to know this API server.
const ROOT_CA: &str = "kube-root-ca.crt";
const ROOT_CA_WORDS: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
     endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
     distributions of Kubernetes clusters.";

struct Context {
    client: Client,
    kinds: KnownKinds,
    /// PEM; without it, nothing is published.
    ca_pem: Option<String>,
    /// Those that are being emptied, by name.
    looks: Mutex<HashMap<String, Look>>,
}

/// A look at a namespace that was not empty.
#[derive(Debug, Clone, Copy)]
struct Look {
    next: Instant,
    rest: Duration,
    /// Objects that were left.
    left: usize,
}

impl Look {
    /// After one that has found so many objects `left` and has taken so long.
    fn after(before: Option<Look>, left: usize, took: Duration) -> Look {
        let stuck = before.filter(|before| left >= before.left);
        let rest = stuck.map_or(RETRY_AFTER, |before| before.rest * 5 / 4);
        let rest = rest.max((took * REST_PER_LOOK).min(REST_PER_LOOK_MAX)).min(RETRY_AFTER_MAX);
        Look { next: Instant::now() + rest, rest, left }
    }
}

pub(crate) async fn run(
    client: Client,
    ca_pem: Option<String>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let named = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
    let accounts = Api::<PartialObjectMeta<ServiceAccount>>::all(client.clone());
    let maps = Api::<PartialObjectMeta<ConfigMap>>::all(client.clone());
    let home = |namespace: Option<String>| {
        Some(ObjectRef::<Namespace>::new(namespace.as_deref().unwrap_or_default()))
    };
    let controller =
        Controller::new(Api::<Namespace>::all(client.clone()), watcher::Config::default());
    let known = controller.store();
    let running = controller
        .watches(accounts, named(DEFAULT_ACCOUNT), move |one| home(one.namespace()))
        .watches(maps, named(ROOT_CA), move |one| home(one.namespace()))
        .with_config(controller::Config::default().concurrency(AT_ONCE))
        .graceful_shutdown_on(shutdown.clone().cancelled_owned())
        .run(
            reconcile,
            |_, _, _| Action::requeue(RETRY_AFTER),
            Arc::new(Context {
                client,
                ca_pem,
                kinds: KnownKinds::default(),
                looks: Mutex::default(),
            }),
        )
        .for_each(|result| async {
            match result {
                // What was in a namespace may be seen to go after the namespace itself.
                Ok(_) | Err(kube::runtime::controller::Error::ObjectNotFound(_)) => {}
                Err(error) => warn!(%error, "namespace not reconciled"),
            }
        });
    until_ended(running, known, shutdown).await;
    Ok(())
}

async fn reconcile(namespace: Arc<Namespace>, cx: Arc<Context>) -> Result<Action, kube::Error> {
    let Some(Time(deleted)) = namespace.metadata.deletion_timestamp else {
        furnish(&namespace, &cx).await?;
        return Ok(Action::await_change());
    };
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
    if !finalizers.into_iter().flatten().any(|one| one == FINALIZER) {
        return Ok(Action::await_change());
    }
    let name = namespace.name_any();
    let began = Instant::now();
    let last = cx.looks.lock().await.get(&name).copied();
    if let Some(last) = last.filter(|last| last.next > began) {
        return Ok(Action::requeue(last.next - began));
    }
    let contents = match cx.kinds.since(&cx.client, deleted).await {
        Ok(kinds) => Contents::remove(&cx.client, &kinds, &name).await,
        Err(error) => Contents::unknown(&error),
    };
    let api = Api::<Namespace>::all(cx.client.clone());
    let conditions = conditions(&namespace, &contents.findings(), Timestamp::now());
    let before = namespace.status.as_ref().and_then(|status| status.conditions.as_ref());
    if before != Some(&conditions) {
        let status = json!({"status": {"conditions": conditions}});
        let params = PatchParams::default();
        overtaken(api.patch_status(&name, &params, &Patch::Merge(status)).await)?;
    }
    if !contents.is_empty() {
        let look = Look::after(last, contents.left(), began.elapsed());
        cx.looks.lock().await.insert(name, look);
        return Ok(Action::requeue(look.rest));
    }
    cx.looks.lock().await.remove(&name);
    match finalize(&api, &name).await? {
        Written::Yes => {
            info!(name, "namespace removed");
            Ok(Action::await_change())
        }
        Written::Overtaken => Ok(Action::requeue(RETRY_AFTER)),
    }
}

/// The kinds that there are, asked for as rarely as that can be right.
#[derive(Default)]
struct KnownKinds(Mutex<Option<(Timestamp, Arc<Vec<Served>>)>>);

impl KnownKinds {
    /// The kinds as they were at some time after `deletion`: kinds that came later have no objects
    /// in a namespace that takes none any more.
    async fn since(&self, client: &Client, deletion: Timestamp) -> kube::Result<Arc<Vec<Served>>> {
        let mut known = self.0.lock().await;
        // (The time of deletion is in whole seconds.)
        let late = deletion.saturating_add(SignedDuration::from_secs(1));
        if let (Some((at, kinds)), Ok(late)) = (&*known, late)
            && *at > late
        {
            return Ok(kinds.clone());
        }
        let at = Timestamp::now();
        let kinds = Arc::new(discover(client).await?);
        *known = Some((at, kinds.clone()));
        Ok(kinds)
    }
}

/// Takes our finalizer off.
async fn finalize(api: &Api<Namespace>, name: &str) -> kube::Result<Written> {
    let Some(mut namespace) = api.get_opt(name).await? else { return Ok(Written::Yes) };
    if let Some(spec) = &mut namespace.spec
        && let Some(finalizers) = &mut spec.finalizers
    {
        finalizers.retain(|one| one != FINALIZER);
    }
    let params = PostParams::default();
    overtaken(api.replace_subresource("finalize", name, &params, &namespace).await)
}

/// What a namespace is found to be like: a condition's type, and why it is true if it is.
pub(crate) type Finding = (&'static Words, Option<(String, String)>);

/// A condition of a namespace that ends.
pub(crate) struct Words {
    type_: &'static str,
    /// Reason and message while it is false.
    fine: (&'static str, &'static str),
}

const fn words(type_: &'static str, reason: &'static str, message: &'static str) -> Words {
    Words { type_, fine: (reason, message) }
}

static DISCOVERY: Words = words(
    "NamespaceDeletionDiscoveryFailure",
    "ResourcesDiscovered",
    "All resources successfully discovered",
);
static PARSING: Words = words(
    "NamespaceDeletionGroupVersionParsingFailure",
    "ParsedGroupVersions",
    "All legacy kube types successfully parsed",
);
static DELETION: Words = words(
    "NamespaceDeletionContentFailure",
    "ContentDeleted",
    "All content successfully deleted, may be waiting on finalization",
);
static REMAINING: Words =
    words("NamespaceContentRemaining", "ContentRemoved", "All content successfully removed");
static FINALIZERS: Words = words(
    "NamespaceFinalizersRemaining",
    "ContentHasNoFinalizers",
    "All content-preserving finalizers finished",
);

/// The namespace's conditions with these findings in them; times change only with the status.
fn conditions(
    namespace: &Namespace,
    findings: &[Finding],
    now: Timestamp,
) -> Vec<NamespaceCondition> {
    let before = namespace.status.as_ref().and_then(|status| status.conditions.as_ref());
    let mut conditions = before.cloned().unwrap_or_default();
    for (words, trouble) in findings {
        let status = if trouble.is_some() { "True" } else { "False" };
        let (reason, message) = match trouble {
            Some((reason, message)) => (reason.clone(), message.clone()),
            None => (words.fine.0.to_owned(), words.fine.1.to_owned()),
        };
        let condition = NamespaceCondition {
            type_: words.type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason),
            message: Some(message),
            last_transition_time: Some(Time(now)),
        };
        match conditions.iter_mut().find(|one| one.type_ == words.type_) {
            Some(one) => {
                let time = match one.status == condition.status {
                    true => one.last_transition_time.clone(),
                    false => condition.last_transition_time.clone(),
                };
                *one = NamespaceCondition { last_transition_time: time, ..condition };
            }
            None => conditions.push(condition),
        }
    }
    conditions
}

/// What every namespace has, as clients expect it.
async fn furnish(namespace: &Namespace, cx: &Context) -> kube::Result<()> {
    let home = namespace.name_any();
    let accounts = Api::<ServiceAccount>::namespaced(cx.client.clone(), &home);
    if accounts.get_metadata_opt(DEFAULT_ACCOUNT).await?.is_none() {
        let metadata =
            ObjectMeta { name: Some(DEFAULT_ACCOUNT.to_owned()), ..ObjectMeta::default() };
        let account = ServiceAccount { metadata, ..ServiceAccount::default() };
        unless_in_the_way(accounts.create(&PostParams::default(), &account).await)?;
    }
    let Some(ca_pem) = &cx.ca_pem else { return Ok(()) };
    let maps = Api::<ConfigMap>::namespaced(cx.client.clone(), &home);
    let words = ("kubernetes.io/description".to_owned(), ROOT_CA_WORDS.to_owned());
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(ROOT_CA.to_owned()),
            annotations: Some([words].into()),
            ..ObjectMeta::default()
        },
        data: Some([("ca.crt".to_owned(), ca_pem.clone())].into()),
        ..ConfigMap::default()
    };
    match maps.get_opt(ROOT_CA).await? {
        None => unless_in_the_way(maps.create(&PostParams::default(), &map).await),
        Some(found) if found.data == map.data => Ok(()),
        Some(_) => {
            let data = Patch::Merge(json!({"data": map.data}));
            overtaken(maps.patch(ROOT_CA, &PatchParams::default(), &data).await).map(drop)
        }
    }
}

/// A namespace that began to end, or somebody who was faster, is no failure.
fn unless_in_the_way<T>(made: kube::Result<T>) -> kube::Result<()> {
    match made {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404 | 409) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap_or_default()
    }

    #[test]
    fn a_namespace_from_which_nothing_goes_is_looked_at_ever_less() {
        let at_once = Duration::ZERO;
        let first = Look::after(None, 9, at_once);
        let going = Look::after(Some(first), 8, at_once);
        assert_eq!((first.rest, going.rest), (RETRY_AFTER, RETRY_AFTER));
        let mut stuck = going;
        for _ in 0..3 {
            let before = stuck.rest;
            stuck = Look::after(Some(stuck), 8, at_once);
            assert_eq!(stuck.rest, before * 5 / 4);
        }
        assert_eq!(Look::after(Some(stuck), 7, at_once).rest, RETRY_AFTER, "something has gone");
        let took = Duration::from_millis(300);
        assert_eq!(Look::after(Some(stuck), 7, took).rest, took * REST_PER_LOOK);
        assert_eq!(Look::after(Some(stuck), 7, 100 * took).rest, REST_PER_LOOK_MAX);
        for _ in 0..30 {
            stuck = Look::after(Some(stuck), 8, at_once);
        }
        assert_eq!(stuck.rest, RETRY_AFTER_MAX);
    }

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let mut namespace = Namespace::default();
        let some = |count: u32| {
            let message =
                format!("Some resources are remaining: maps. has {count} resource instances");
            Some(("SomeResourcesRemain".to_owned(), message))
        };
        let mut look = |trouble, second| {
            let conditions = conditions(&namespace, &[(&REMAINING, trouble)], at(second));
            let last = conditions.clone().pop();
            namespace.status.get_or_insert_default().conditions = Some(conditions);
            last.map(|one| (one.status, one.reason, one.last_transition_time.map(|time| time.0)))
        };
        let (yes, no) = ("True".to_owned(), "False".to_owned());
        let reason = |text: &str| Some(text.to_owned());
        let remain = reason("SomeResourcesRemain");
        assert_eq!(look(some(2), 1), Some((yes.clone(), remain.clone(), Some(at(1)))));
        assert_eq!(look(some(1), 2), Some((yes, remain, Some(at(1)))));
        assert_eq!(look(None, 3), Some((no, reason("ContentRemoved"), Some(at(3)))));
    }
}
