//! Get, list and watch: everything from the cache, the store only for its newest revision and for
//! a past that the cache no longer has.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use commonage_store::{RangeQuery, Revision, StoreError, Version};

use super::page::PageToken;
use super::{Engine, List, ListOptions, VersionMatch, WatchOptions};
use crate::cache::{Begin, Extras, Objects, ResourceCache, Selection, Watch, end_of, range};
use crate::kinds::view;
use crate::object::Object;
use crate::resource::ResourceDef;
use crate::selector::FieldSelector;
use crate::status::ApiError;

/// How long a read waits for a version that has not come yet; kube-apiserver's number.
const FRESHNESS_TIMEOUT: Duration = Duration::from_secs(3);
/// Keys read from the store at once for a page in the past.
const RANGE_KEYS: usize = 1000;

/// Which state a list shows.
enum At {
    /// The newest, or any at least as new as was waited for.
    Now,
    Exactly(Version),
}

impl Engine {
    /// `version`: `None` is a consistent read, `Some(0)` any, `Some(n)` not older than n.
    pub async fn get(
        &self,
        def: &ResourceDef,
        namespace: &str,
        name: &str,
        version: Option<u64>,
    ) -> Result<Arc<Object>, ApiError> {
        self.fresh(version).await?;
        let path = format!("{namespace}/{name}");
        let resource = self.resource(def)?;
        match (resource.get(&path), resource.unreadable(&path)) {
            (Some(found), _) => Ok(found.seen_as(def)),
            (None, Some((_, why))) => Err(ApiError::unreadable(def, name, &why)),
            (None, None) => Err(ApiError::not_found(def, name)),
        }
    }

    /// `namespace`: `None` is all namespaces (and what cluster-scoped kinds use).
    pub async fn list(
        &self,
        def: &ResourceDef,
        namespace: Option<&str>,
        options: ListOptions,
    ) -> Result<List, ApiError> {
        let resource = self.resource(def)?;
        check_fields(def, options.field_selector.as_ref())?;
        let token = options
            .continue_
            .as_deref()
            .map(|text| PageToken::decode(text, def.is_namespaced(), namespace))
            .transpose()?;
        if token.is_some() && options.resource_version.is_some_and(|version| version != 0) {
            return Err(ApiError::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let of_source = self.of_source(def, options.field_selector.as_ref());
        let selection = Selection::new(
            resource.fields().clone(),
            namespace,
            options.label_selector,
            options.field_selector,
        )
        .or(of_source)
        .seen_by(def.view());
        let exact = match options.version_match {
            Some(VersionMatch::Exact) => true,
            Some(VersionMatch::NotOlderThan) => false,
            // The semantics of a time before `resourceVersionMatch`.
            None => {
                options.limit > 0 && options.resource_version.is_some_and(|version| version != 0)
            }
        };
        // Any state will do, then all of it does, as with kube-apiserver's cache.
        let limit = if options.resource_version == Some(0) { 0 } else { options.limit };
        let at = match (&token, options.resource_version) {
            (Some(token), _) => match token.version() {
                Some(version) => At::Exactly(version),
                None => {
                    self.fresh(None).await?;
                    At::Now
                }
            },
            (None, version) => {
                self.fresh(version).await?;
                if exact { At::Exactly(Version(version.unwrap_or(0))) } else { At::Now }
            }
        };
        let request = Request { resource, selection, limit, token };
        let mut list = match at {
            At::Now => self.list_now(&request),
            At::Exactly(version) => self.list_at(&request, version).await?,
        };
        if def.stored_as.is_some() || def.view().is_some() {
            list.items.iter_mut().for_each(|object| *object = object.seen_as(def));
        }
        Ok(list)
    }

    /// Errors that come before the stream are answered as a Status; a version that is too old is
    /// an ERROR event in the stream, as Kubernetes does it.
    pub async fn watch(
        &self,
        def: &Arc<ResourceDef>,
        namespace: Option<&str>,
        options: WatchOptions,
    ) -> Result<Watch, ApiError> {
        let resource = self.resource(def)?;
        check_fields(def, options.field_selector.as_ref())?;
        let of_source = self.of_source(def, options.field_selector.as_ref());
        let selection = Selection::new(
            resource.fields().clone(),
            namespace,
            options.label_selector,
            options.field_selector,
        )
        .or(of_source)
        .seen_by(def.view());
        let initial = options.send_initial_events;
        let begin = match (initial, options.resource_version) {
            (Some(true), version) => {
                match self.fresh(version).await {
                    // As kube-apiserver has it: the watch is there, and says what is wrong.
                    Err(error) if error.code == 504 => {
                        return Ok(self.cache.no_watch(def.clone(), &error));
                    }
                    outcome => outcome?,
                }
                Begin::State
            }
            (None, None | Some(0)) => {
                self.fresh(options.resource_version).await?;
                Begin::State
            }
            (Some(false), None | Some(0)) => {
                self.fresh(None).await?;
                Begin::After(end_of(self.cache.revision()))
            }
            // Another server may be ahead of this one. A version that has not come, here or anywhere,
            // is waited for without a word, as kube-apiserver does.
            (_, Some(version)) => Begin::After(Version(version)),
        };
        let extras = Extras {
            bookmarks: options.bookmarks,
            initial_end: initial == Some(true) && options.bookmarks,
            timeout: options.timeout,
        };
        Ok(self.cache.watch(&resource, def.clone(), selection, begin, extras))
    }

    /// For a selector of events about an object on loan: that of the events about its source.
    fn of_source(
        &self,
        def: &ResourceDef,
        fields: Option<&FieldSelector>,
    ) -> Option<FieldSelector> {
        let shown = view::shown_in_events(def, fields?)?;
        // Where the view is not served, nobody can mean it.
        self.scheme().by_kind("", shown.kind())?;
        Some(shown.events_of_source(fields?))
    }

    /// Of a kind on loan: its source's.
    pub(crate) fn resource(&self, def: &ResourceDef) -> Result<Arc<ResourceCache>, ApiError> {
        let source = self.source(def);
        self.cache
            .resource(source.as_deref().unwrap_or(def))
            .ok_or_else(|| ApiError::unavailable("this kind is not being served yet"))
    }

    /// The kind whose objects a kind on loan shows; `None` for every other kind.
    pub(crate) fn source(&self, def: &ResourceDef) -> Option<Arc<ResourceDef>> {
        let (group, kind) = def.view()?.source();
        self.scheme().by_kind(group, kind).cloned()
    }

    /// Waits until the cache is as new as a read wants it: `None` is as new as the store.
    pub(crate) async fn fresh(&self, version: Option<u64>) -> Result<(), ApiError> {
        let revision = match version {
            Some(0) => return Ok(()),
            Some(version) => Version(version).revision(),
            None => self.store.revision().await.map_err(|error| unavailable(&error))?,
        };
        if tokio::time::timeout(FRESHNESS_TIMEOUT, self.cache.reached(revision)).await.is_ok() {
            return Ok(());
        }
        let current = end_of(self.cache.revision());
        Err(ApiError::timeout_rv_too_large(version.unwrap_or(end_of(revision).0), current.0))
    }

    fn list_now(&self, request: &Request) -> List {
        // The revision is read first: what the snapshot has beyond it carries its own version.
        let revision = end_of(self.cache.revision());
        let (objects, changed) = request.resource.snapshot_of(&request.selection);
        request.page(&objects, revision.max(end_of(changed.revision())))
    }

    async fn list_at(&self, request: &Request, version: Version) -> Result<List, ApiError> {
        self.fresh(Some(version.0)).await?;
        let (objects, changed) = request.resource.snapshot_of(&request.selection);
        if changed.revision() <= version.revision() {
            return Ok(request.page(&as_at(version, objects, &request.resource), version));
        }
        if let Some(objects) = request.resource.kept_snapshot(version, &request.selection) {
            return Ok(request.page(&objects, version));
        }
        match self.objects_at(request, version.revision()).await {
            // Only what this page needs of it: no snapshot for other lists.
            Ok(objects) => {
                Ok(request.page_of(&as_at(version, objects, &request.resource), version))
            }
            Err(StoreError::Compacted { .. }) => Err(match &request.token {
                Some(token) => ApiError::expired_continue(token.inconsistent().encode()),
                None => ApiError::expired_list(),
            }),
            Err(error) => Err(unavailable(&error)),
        }
    }

    /// As much of the past as one page needs: one object more than its limit.
    async fn objects_at(
        &self,
        request: &Request,
        revision: Revision,
    ) -> Result<Objects, StoreError> {
        let prefix = request.resource.def().key_prefix();
        let place = request
            .selection
            .namespace()
            .map_or(String::new(), |namespace| format!("{namespace}/"));
        let scope = Bytes::from(format!("{prefix}{place}"));
        let mut after =
            request.token.as_ref().map(|token| Bytes::from(format!("{prefix}{}", token.after)));
        let mut objects = Objects::new();
        let mut fetched = 0;
        loop {
            let query =
                RangeQuery { prefix: scope.clone(), after, at: Some(revision), limit: RANGE_KEYS };
            let page = self.store.range(query).await?;
            fetched += page.entries.len();
            for entry in &page.entries {
                let Some(path) =
                    std::str::from_utf8(&entry.key).ok().and_then(|key| key.get(prefix.len()..))
                else {
                    continue;
                };
                if let Ok(object) = request.resource.read(path, &entry.value, entry.version)
                    && request.selection.matches(&object)
                {
                    objects.insert(object.shared_path(), Arc::new(object));
                }
            }
            after = page.entries.last().map(|entry| entry.key.clone());
            if !page.more || (request.limit > 0 && objects.len() > request.limit) {
                request.resource.traffic().listed_past(fetched, objects.len());
                return Ok(objects);
            }
        }
    }
}

/// A state at the end of a revision, as it was at a version within it.
fn as_at(version: Version, mut objects: Objects, resource: &ResourceCache) -> Objects {
    if version == end_of(version.revision()) {
        return objects;
    }
    for (path, previous) in resource.behind(version) {
        match previous {
            Some(previous) => drop(objects.insert(path, previous)),
            None => drop(objects.remove(&path)),
        }
    }
    objects
}

struct Request {
    resource: Arc<ResourceCache>,
    selection: Selection,
    limit: usize,
    token: Option<PageToken>,
}

impl Request {
    /// The page of a whole state, which is kept for the next page and for other lists.
    fn page(&self, objects: &Objects, version: Version) -> List {
        let page = self.page_of(objects, version);
        if page.continue_.is_some() {
            self.resource.keep_snapshot(version, &self.selection, objects);
        }
        page
    }

    fn page_of(&self, objects: &Objects, version: Version) -> List {
        let namespace = self.selection.namespace();
        let after = self.token.as_ref().map(|token| token.after.as_str());
        let wanted = if self.limit == 0 { usize::MAX } else { self.limit + 1 };
        let mut fetched = 0;
        let mut items: Vec<Arc<Object>> = range(objects, namespace, after)
            .inspect(|_| fetched += 1)
            .filter(|object| self.selection.matches(object))
            .take(wanted)
            .cloned()
            .collect();
        self.resource.traffic().listed(fetched, items.len());
        if self.limit == 0 || items.len() <= self.limit {
            return List { items, version, continue_: None, remaining: None };
        }
        items.truncate(self.limit);
        let last = items.last().map_or("", |object| object.path());
        let remaining =
            self.selection.is_unselective().then(|| self.remaining(objects, last, items.len()));
        let continue_ = Some(PageToken::new(version, last, remaining).encode());
        List { items, version, continue_, remaining }
    }

    /// Counted once per list: the next pages subtract.
    fn remaining(&self, objects: &Objects, last: &str, returned: usize) -> u64 {
        let left = self.token.as_ref().and_then(|token| token.left);
        match (left, self.selection.namespace(), &self.token) {
            (Some(left), _, _) => left.saturating_sub(returned as u64),
            (None, None, None) => (objects.len() - returned) as u64,
            _ => range(objects, self.selection.namespace(), Some(last)).count() as u64,
        }
    }
}

pub(crate) fn unavailable(error: &StoreError) -> ApiError {
    tracing::warn!(%error, "the store failed a request");
    match error {
        // Its words name etcd and its endpoints: whose client knows neither knows whom to ask.
        StoreError::Unavailable(why) => ApiError::store_unavailable(why),
        error => ApiError::unavailable(error.to_string()),
    }
}

fn check_fields(def: &ResourceDef, selector: Option<&FieldSelector>) -> Result<(), ApiError> {
    selector.map_or(Ok(()), |selector| selector.check_supported(def))
}
