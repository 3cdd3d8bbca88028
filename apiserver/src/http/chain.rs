//! The filters that every request passes, in kube-apiserver's order: panic recovery, audit id,
//! deadline, authentication, impersonation, requests in flight, authorization; then the handler.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use axum::body::Body;
use futures::FutureExt;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;

use super::audited::{Arrival, Slot};
use super::metrics::{Metrics, Observation};
use super::query::Query;
use super::request_info::RequestInfo;
use super::{App, Ends, credentials, documents, impersonate, resources, respond};
pub(super) use crate::auth::authorizer::Attributes;
use crate::auth::authorizer::{self, Verdict};
use crate::auth::{CONTROLLERS, MASTERS, UserInfo};
use crate::engine::fence::{self, Fence};
use crate::status::ApiError;

/// kube-apiserver's --request-timeout. `?timeout=` only makes it shorter.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(60);
/// Of a server that takes no more requests; in kube-apiserver's words.
const GOING_DOWN: &str = "The apiserver is shutting down, please try again later.";
/// By then another server answers under the same address, if there is one.
const GOING_DOWN_RETRY_S: u32 = 5;
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// Kubernetes' own bound on an audit id that a client brings.
const AUDIT_ID_BYTES_MAX: usize = 64;

/// Where a request comes from, and whose it is as far as that says.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// Through a socket; with the identity of its client certificate, if it showed one.
    Connection { user: Option<Arc<UserInfo>>, from: IpAddr },
    /// From this process, which vouches for the identity.
    InProcess(Arc<UserInfo>),
}

/// One request on its way, as the handlers see it.
pub(super) struct Call<'a> {
    pub(super) app: &'a Arc<App>,
    pub(super) user: Arc<UserInfo>,
    pub(super) info: &'a RequestInfo,
    pub(super) query: &'a Query,
    pub(super) headers: &'a HeaderMap,
    pub(super) verdict: Verdict,
    /// What the connection can become: something other than HTTP.
    pub(super) upgrade: Mutex<Option<OnUpgrade>>,
    /// When it has to end, if it would not by itself.
    pub(super) ends: Ends,
}

impl Call<'_> {
    /// Refuses a caller who may not do this too, on what the request is about.
    pub(super) fn demand(&self, verb: &'static str) -> Result<(), ApiError> {
        match self.verdict_on(verb) {
            (Verdict::Allowed, _) => Ok(()),
            (_, refusal) => Err(refusal),
        }
    }

    /// What the authorizer says to another verb on the same object, and the refusal that it means.
    pub(super) fn verdict_on(&self, verb: &str) -> (Verdict, ApiError) {
        let request = Attributes { verb, ..attributes(self.info, field_selector(self.query)) };
        let decision = self.app.engine.access().decide(&self.user, &request);
        (decision.verdict, authorizer::forbidden(&self.user, &request, &decision.reason()))
    }

    /// The refusal of what the verdict left open.
    pub(super) fn forbidden(&self) -> ApiError {
        authorizer::forbidden(&self.user, &attributes(self.info, field_selector(self.query)), "")
    }
}

fn field_selector(query: &Query) -> &str {
    query.filled("fieldSelector").unwrap_or_default()
}

pub(super) fn attributes<'a>(info: &'a RequestInfo, field_selector: &'a str) -> Attributes<'a> {
    let selects = matches!(info.verb, "list" | "watch" | "deletecollection");
    Attributes {
        verb: info.verb,
        is_resource: info.is_resource,
        path: &info.path,
        group: &info.group,
        resource: &info.resource,
        subresource: &info.subresource,
        namespace: &info.namespace,
        name: &info.name,
        field_selector: if selects { field_selector } else { "" },
    }
}

/// Answers one request, whatever happens.
pub(crate) async fn serve(app: Arc<App>, caller: Caller, request: Request<Body>) -> Response<Body> {
    let started = Instant::now();
    let _running = app.requests.token();
    let (mut head, body) = request.into_parts();
    let upgrade = Mutex::new(head.extensions.remove::<OnUpgrade>());
    let query = Query::parse(head.uri.query());
    let info = RequestInfo::new(&head.method, head.uri.path(), &query);
    let audit_id = audit_id(&head.headers);
    let slot = Slot::default();
    let arrival = Arrival {
        id: audit_id.to_str().unwrap_or_default(),
        uri: head.uri.path_and_query().map_or("/", |uri| uri.as_str()),
        caller: &caller,
        headers: &head.headers,
        request: attributes(&info, field_selector(&query)),
        version: &info.version,
        waited_us: AtomicU64::new(0),
    };
    let answer = answer(&app, &arrival, &slot, &info, &query, upgrade, body);
    let response = recovered(&app.metrics, &slot, answer)
        .await
        .unwrap_or_else(|error| respond::error(&error, &head.headers, &query));
    let waited = Duration::from_micros(arrival.waited_us.load(Relaxed));
    let mut response = slot.finish(response, info.is_long_running()).await;
    let headers = response.headers_mut();
    headers.insert(AUDIT_ID, audit_id);
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    if head.method == Method::HEAD {
        response = without_body(response);
    }
    if matches!(caller, Caller::InProcess(_)) {
        app.metrics.own_request(response.status().as_u16(), method_name(&head.method));
    }
    observe(&app, &info, &query, response, started, waited)
}

/// As labels have it: no client can make one up.
fn method_name(method: &Method) -> &'static str {
    const KNOWN: [Method; 6] =
        [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    let names = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
    KNOWN.iter().position(|known| known == method).map_or("OTHER", |at| names[at])
}

/// The answer to HEAD: HTTP/2 takes a body there for an error.
fn without_body(response: Response<Body>) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        head.headers.entry(CONTENT_LENGTH).or_insert(length.into());
    }
    Response::from_parts(head, Body::empty())
}

/// What the handler answers, or a 500 if it panics: one request's bug is not everybody's. The panic
/// itself has been written to the log by the panic hook.
async fn recovered(
    metrics: &Metrics,
    slot: &Slot,
    answer: impl Future<Output = Result<Response<Body>, ApiError>>,
) -> Result<Response<Body>, ApiError> {
    AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|_| {
        metrics.panics.fetch_add(1, Relaxed);
        slot.panicked();
        let error = "this request made the server panic; its log has the details";
        Err(ApiError::internal(error))
    })
}

fn audit_id(headers: &HeaderMap) -> HeaderValue {
    let brought = headers.get(AUDIT_ID);
    let usable = brought.filter(|id| !id.is_empty() && id.len() <= AUDIT_ID_BYTES_MAX);
    usable.cloned().unwrap_or_else(|| {
        let mut buffer = uuid::Uuid::encode_buffer();
        let id = uuid::Uuid::new_v4().hyphenated().encode_lower(&mut buffer);
        HeaderValue::from_str(id).expect("a UUID is hexadecimal digits and hyphens")
    })
}

async fn answer(
    app: &Arc<App>,
    arrival: &Arrival<'_>,
    slot: &Slot,
    info: &RequestInfo,
    query: &Query,
    upgrade: Mutex<Option<OnUpgrade>>,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let Arrival { caller, headers, request, .. } = arrival;
    let long_running = info.is_long_running();
    let deadline = match if long_running { None } else { query.timeout()? } {
        Some(asked) if !asked.is_zero() => asked.min(REQUEST_TIME_MAX),
        _ => REQUEST_TIME_MAX,
    };
    let asked = Instant::now();
    let authenticated = authenticate(app, caller, headers).await;
    app.metrics.access.authenticated(authenticated.is_ok(), asked.elapsed());
    slot.begin(app, arrival, authenticated.as_deref().ok());
    let caller = authenticated?;
    if app.requests.is_closed() && matches!(arrival.caller, Caller::Connection { .. }) {
        // It came on a connection that has not been told yet.
        return Err(ApiError::too_many(GOING_DOWN, GOING_DOWN_RETRY_S));
    }
    let user = match impersonate::effective_user(&app.engine, caller.clone(), headers) {
        Ok(user) => user,
        Err(error) if error.code == 403 => return Ok(respond::forbidden(&error, headers, query)),
        Err(error) => return Err(error),
    };
    if !Arc::ptr_eq(&caller, &user) {
        slot.impersonated(&user);
    }
    let exempt = long_running || user.is_in(MASTERS) || user.is_in(CONTROLLERS);
    let _place = match long_running {
        true => None,
        false => {
            let came = Instant::now();
            let place = app.limits.enter(&app.metrics, info.is_read_only(), exempt).await;
            arrival.waited_us.store(came.elapsed().as_micros() as u64, Relaxed);
            Some(place?)
        }
    };
    let asked = Instant::now();
    let decision = app.engine.access().decide(&user, request);
    app.metrics.access.authorized(!decision.is_denied(), asked.elapsed());
    slot.decided(&decision);
    if decision.is_denied() {
        let refusal = authorizer::forbidden(&user, request, &decision.reason());
        return Ok(respond::forbidden(&refusal, headers, query));
    }
    let fence = if info.is_read_only() { None } else { Fence::of(headers)? };
    if let Some(fence) = &fence {
        // The store decides; but who does not lead any more is to hear that, and not first what
        // else has changed since.
        app.engine.leading(fence).await?;
    }
    let ends = match long_running {
        true => {
            let selector = request.field_selector;
            app.open_calls.enter(&app.end_watches, arrival.caller, headers, info, selector)
        }
        false => Ends::with(&app.end_watches),
    };
    let call = Call { app, user, info, query, headers, verdict: decision.verdict, upgrade, ends };
    // What a handler needs is large, whichever it is, and all around it is moved a dozen times on its
    // way into the connection.
    let handled = Box::pin(async {
        let body = if long_running { body } else { slot.receive(headers, body).await? };
        match info.is_resource {
            true => resources::handle(&call, body).await,
            false => documents::handle(&call).await,
        }
    });
    if long_running {
        return handled.await;
    }
    let handled = fence::behind(fence, handled);
    tokio::time::timeout(deadline, handled)
        .await
        .unwrap_or_else(|_| Err(ApiError::deadline_exceeded()))
}

pub(super) async fn authenticate(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
) -> Result<Arc<UserInfo>, ApiError> {
    match caller {
        Caller::InProcess(user) | Caller::Connection { user: Some(user), .. } => {
            return Ok(user.clone());
        }
        Caller::Connection { user: None, .. } => {}
    }
    let refused = |why: &str| {
        tracing::debug!(target: "commonage::http", why, "a token was refused");
        ApiError::unauthorized()
    };
    match credentials::token(headers).map_err(refused)? {
        None => Ok(Arc::new(UserInfo::anonymous())),
        Some(token) => {
            app.authenticator.user(&app.engine, &token).await.map_err(|why| refused(&why))
        }
    }
}

/// Counts a request that has been answered; its answer goes on.
fn observe(
    app: &App,
    info: &RequestInfo,
    query: &Query,
    response: Response<Body>,
    started: Instant,
    waited: Duration,
) -> Response<Body> {
    let scheme = app.engine.scheme();
    let def = match info.is_resource {
        true => scheme.get(&info.group, &info.version, &info.resource),
        false => None,
    };
    let scope = match (info.is_resource, info.name.is_empty(), info.namespace.is_empty()) {
        (false, _, _) => "",
        (_, false, _) => "resource",
        (_, true, false) => "namespace",
        (_, true, true) => "cluster",
    };
    let verb = match info.verb {
        "get" | "head" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        _ => "OTHER",
    };
    let took = started.elapsed();
    let code = response.status().as_u16();
    tracing::debug!(target: "commonage::http", verb, path = info.path, code, ?took);
    let series = app.metrics.observe(&Observation {
        verb,
        def,
        subresource: &info.subresource,
        scope,
        code,
        dry_run: query.filled("dryRun") == Some("All"),
        took,
        waited,
    });
    match matches!(verb, "GET" | "LIST") && !info.is_long_running() {
        true => response.map(|body| series.measure(body)),
        false => response,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_500_and_counted() {
        let metrics = Metrics::default();
        let answer = async { panic!("on purpose") };
        let error =
            recovered(&metrics, &Slot::default(), answer).await.err().map(|error| error.code);
        assert_eq!(error, Some(500));
        assert_eq!(metrics.panics.load(Relaxed), 1);
    }

    #[test]
    fn an_audit_id_is_echoed_unless_it_is_no_id() {
        let mut headers = HeaderMap::new();
        assert_eq!(audit_id(&headers).len(), 36);
        headers.insert(AUDIT_ID, HeaderValue::from_static("mine"));
        assert_eq!(audit_id(&headers), "mine");
        let long = "x".repeat(AUDIT_ID_BYTES_MAX + 1);
        headers.insert(AUDIT_ID, long.parse().expect("it is ASCII"));
        assert_eq!(audit_id(&headers).len(), 36);
    }
}
