//! Everything that is not an object: discovery, OpenAPI, the version, health and metrics.

use std::sync::atomic::Ordering::Relaxed;

use axum::body::Body;
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_TYPE, ETAG, EXPIRES, HOST, IF_NONE_MATCH, LAST_MODIFIED, LOCATION, VARY,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::chain::Call;
use super::health;
use super::metrics::EngineCounts;
use super::negotiate::{Format, accept, clauses};
use super::{respond, routes, tokens};
use crate::discovery::{self, Root};
use crate::openapi::Document;
use crate::status::ApiError;

const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// What is answered to it: Go refuses to parse a media type with an `@`.
const V2_PROTOBUF_SENT: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) async fn handle(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    call.app.engine.definitions_settled().await;
    let scheme = &call.app.engine.scheme();
    let path = call.info.path.strip_prefix('/').unwrap_or_default();
    let routed = routes::are_of(scheme, &call.info.path);
    // A slash at the end does not matter to the router, nor to the handler of custom kinds.
    let path = match routed || path.starts_with("apis/") {
        true => path.trim_end_matches('/'),
        false => path,
    };
    let path: Vec<&str> = path.split('/').collect();
    if routed && call.info.verb != "get" {
        // Elsewhere the method means nothing.
        return Err(ApiError::method_not_allowed_here());
    }
    let ok = |json: Vec<u8>| -> Result<Response<Body>, ApiError> {
        let format = Format::negotiate(call.headers, call.query)?;
        Ok(respond::document(StatusCode::OK, json.into(), format))
    };
    // These two are for people, whatever is asked for.
    let indented = |json: Vec<u8>| {
        let json = respond::indented(json.into());
        Ok(respond::document(StatusCode::OK, json, Format::plain()))
    };
    match path[..] {
        [""] => indented(paths(call)),
        ["version"] => indented(discovery::version()),
        ["metrics"] => Ok(metrics(call)),
        ["backup"] => Ok(backup(call)),
        [".well-known", "openid-configuration"] => Ok(tokens::issuer_document(call)),
        ["openid", "v1", "jwks"] => Ok(tokens::key_set(call)),
        [probe @ ("livez" | "readyz" | "healthz")] => Ok(health::answer(call, probe, None).await),
        [probe @ ("livez" | "readyz" | "healthz"), check] => {
            Ok(health::answer(call, probe, Some(check)).await)
        }
        ["api"] => discovery_root(call, Root::Core),
        ["apis"] => discovery_root(call, Root::Groups),
        ["api", version] => match discovery::api_resource_list(scheme, "", version) {
            Some(json) => ok(json),
            None => routes::not_found(call),
        },
        ["apis", group] => match discovery::api_group(scheme, group) {
            Some(json) => ok(json),
            None => routes::not_found(call),
        },
        ["apis", group, version] => match discovery::api_resource_list(scheme, group, version) {
            Some(json) => ok(json),
            None => routes::not_found(call),
        },
        ["openapi", "v2"] => openapi_v2(call),
        ["openapi", "v3"] => openapi_index(call),
        ["openapi", "v3", ..] => openapi_v3(call, &path[2..].join("/")),
        _ => routes::not_found(call),
    }
}

fn paths(call: &Call<'_>) -> Vec<u8> {
    let mut paths: Vec<String> = ["/api", "/apis", "/healthz", "/livez", "/metrics"]
        .into_iter()
        .chain(["/openapi/v2", "/openapi/v3", "/openid/v1/jwks", "/readyz", "/version"])
        .chain(["/.well-known/openid-configuration"])
        .map(str::to_owned)
        .collect();
    for (group, version) in call.app.engine.scheme().group_versions() {
        paths.push(match group {
            "" => format!("/api/{version}"),
            group => format!("/apis/{group}/{version}"),
        });
    }
    paths.sort();
    serde_json::json!({ "paths": paths }).to_string().into()
}

/// Everything in the store at one revision, for `cmn backup`: what is encrypted there is so here.
/// (Who may read it reads all that is not: administrators, and nobody by default besides them.)
fn backup(call: &Call<'_>) -> Response<Body> {
    let parts = commonage_store::backup::stream(call.app.at_rest.clone());
    let mut response = Response::new(Body::from_stream(parts));
    let kind = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn metrics(call: &Call<'_>) -> Response<Body> {
    let engine = &call.app.engine;
    let counts = EngineCounts {
        objects: engine.object_counts(),
        unreadable: engine.unreadable_counts(),
        store: call.app.store.asked(),
        traffic: engine.traffic(),
        audited: call.app.audit.as_ref().map_or((0, 0), |audit| audit.counted()),
        cache_version: engine.cache_version(),
        watches_closed_slow: engine.watch_counters().closed_slow.load(Relaxed),
    };
    let mut page = call.app.metrics.render(&counts);
    if let Some(more) = call.app.more_metrics {
        page.push_str(&more());
    }
    let mut response = Response::new(Body::from(page));
    let kind = HeaderValue::from_static(METRICS_TYPE);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// `/api` and `/apis`: aggregated for whom asks for it, else the plain list.
fn discovery_root(call: &Call<'_>, root: Root) -> Result<Response<Body>, ApiError> {
    let accepted = accept(call.headers);
    let aggregated = clauses(&accepted).find_map_sorted(|clause| {
        if !clause.is_json() {
            return None;
        }
        match clause.parameter("as") {
            None => Some(false),
            Some("APIGroupDiscoveryList") => (clause.parameter("g") == Some("apidiscovery.k8s.io")
                && clause.parameter("v") == Some("v2"))
            .then_some(true),
            Some(_) => None,
        }
    });
    let scheme = &call.app.engine.scheme();
    if aggregated != Some(true) {
        let format = Format::negotiate(call.headers, call.query)?;
        let json = match root {
            Root::Core => discovery::api_versions(&host(call.headers)),
            Root::Groups => discovery::api_group_list(scheme),
        };
        return Ok(respond::document(StatusCode::OK, json.into(), format));
    }
    let (json, etag) = discovery::aggregated(scheme, root);
    let mut response = match matches_etag(call.headers, &etag) {
        true => not_modified(),
        false => respond::document(StatusCode::OK, json.into(), Format::plain()),
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(AGGREGATED));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    set_etag(headers, &etag);
    Ok(response)
}

fn host(headers: &HeaderMap) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    host.unwrap_or("localhost").to_owned()
}

/// How long a client may keep a document.
#[derive(Clone, Copy)]
enum Freshness {
    /// Its URL says which version it is.
    Forever,
    Revalidate,
}

fn openapi_json(
    call: &Call<'_>,
    document: &Document,
    freshness: Freshness,
) -> Result<Response<Body>, ApiError> {
    let accepted = accept(call.headers);
    let mut wanted = clauses(&accepted);
    let json = wanted.is_empty()
        || wanted.find_map_sorted(|clause| clause.is_json().then_some(())).is_some();
    if !json {
        return Err(ApiError::not_acceptable(&["application/json"]));
    }
    let format = Format { gzip: super::negotiate::accepts_gzip(call.headers), ..Format::plain() };
    Ok(openapi_answer(call, document, freshness, |bytes| {
        respond::document(StatusCode::OK, bytes, format)
    }))
}

fn openapi_answer(
    call: &Call<'_>,
    document: &Document,
    freshness: Freshness,
    answer: impl FnOnce(Bytes) -> Response<Body>,
) -> Response<Body> {
    let etag = format!("\"{}\"", document.hash);
    let mut response = match matches_etag(call.headers, &etag) {
        true => not_modified(),
        false => answer(document.bytes.clone()),
    };
    let headers = response.headers_mut();
    set_etag(headers, &etag);
    headers.append(VARY, HeaderValue::from_static("Accept"));
    headers.insert(LAST_MODIFIED, http_date(document.built));
    if matches!(freshness, Freshness::Forever) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        let year = std::time::Duration::from_secs(365 * 24 * 60 * 60);
        let expires = jiff::Timestamp::now().checked_add(year);
        headers.insert(EXPIRES, http_date(expires.unwrap_or(jiff::Timestamp::MAX)));
    }
    response
}

fn http_date(at: jiff::Timestamp) -> HeaderValue {
    let text = at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    HeaderValue::from_str(&text).expect("a date is ASCII")
}

/// The index of the version 3 documents, which kube-apiserver sends as a file without a type.
fn openapi_index(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let mut response = openapi_json(call, &call.app.openapi().v3_index, Freshness::Revalidate)?;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}

fn openapi_v3(call: &Call<'_>, path: &str) -> Result<Response<Body>, ApiError> {
    let openapi = call.app.openapi();
    // Kubernetes sends no words here.
    let Some(document) = openapi.v3(path) else {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_FOUND;
        return Ok(response);
    };
    match call.query.filled("hash") {
        None => openapi_json(call, document, Freshness::Revalidate),
        Some(hash) if hash == document.hash => openapi_json(call, document, Freshness::Forever),
        // An old document's URL: the client is sent to today's.
        Some(_) => {
            let place = format!("/openapi/v3/{path}?hash={}", document.hash);
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            set_etag(headers, &format!("\"{}\"", document.hash));
            headers.append(VARY, HeaderValue::from_static("Accept"));
            if let Ok(place) = HeaderValue::from_str(&place) {
                headers.insert(LOCATION, place);
            }
            Ok(response)
        }
    }
}

fn openapi_v2(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let openapi = call.app.openapi();
    let accepted = accept(call.headers);
    let mut wanted = clauses(&accepted);
    let protobuf = wanted.find_map_sorted(|clause| match clause.media {
        V2_PROTOBUF | V2_PROTOBUF_SENT => openapi.v2_protobuf.as_ref().map(Some),
        _ if clause.is_json() => Some(None),
        _ => None,
    });
    match (protobuf, &openapi.v2_json) {
        (Some(Some(document)), _) => {
            let answer = |bytes: Bytes| {
                let mut response = Response::new(Body::from(bytes));
                let kind = HeaderValue::from_static(V2_PROTOBUF_SENT);
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response
            };
            let freshness = Freshness::Revalidate;
            Ok(openapi_answer(call, document, freshness, answer))
        }
        (_, None) => Ok(respond::page_not_found()),
        (None, Some(_)) if !wanted.is_empty() => {
            Err(ApiError::not_acceptable(&["application/json", V2_PROTOBUF]))
        }
        (_, Some(document)) => openapi_json(call, document, Freshness::Revalidate),
    }
}

fn matches_etag(headers: &HeaderMap, etag: &str) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| matches!(value.trim(), "*") || value.trim().trim_start_matches("W/") == etag)
}

fn not_modified() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response
}

fn set_etag(headers: &mut HeaderMap, etag: &str) {
    if let Ok(value) = HeaderValue::from_str(etag) {
        headers.insert(ETAG, value);
    }
}
