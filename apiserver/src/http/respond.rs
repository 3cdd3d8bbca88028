//! Answers: objects, lists and errors in the form that was negotiated.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use commonage_schemas::names::FENCED_HEADER;
use http::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, VARY, WARNING, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use jiff::Timestamp;
use serde_json::Value;

use super::body::{ItemsBody, gzip};
use super::negotiate::{Encoding, Format, Shape};
use super::query::Query;
use crate::engine::List;
use crate::object::Object;
use crate::resource::{Origin, ResourceDef};
use crate::schema::go::quoted;
use crate::status::ApiError;
use crate::table::{self, Headers, IncludeObject, ListMeta, TableOptions};

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
const YAML: HeaderValue = HeaderValue::from_static("application/yaml");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
pub(super) const NO_SNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const GZIP: HeaderValue = HeaderValue::from_static("gzip");

/// As kube-apiserver: below this, compressing costs more than it saves on a cluster's network.
const GZIP_BYTES_MIN: u64 = 128 * 1024;
/// Characters of all warnings together that are sent whole, as in Kubernetes: proxies refuse large
/// headers.
const WARNINGS_RUNES_MAX: usize = 4 * 1024;
/// Characters of one warning, when they are cut.
const WARNING_RUNES_MAX: usize = 256;

/// The `Status` of a failed request, in the form that was asked for.
pub(super) fn error(error: &ApiError, headers: &HeaderMap, query: &Query) -> Response<Body> {
    let status = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // What cannot be said in any form that was asked for is said for people.
    let format =
        Format::of_status(headers, query).unwrap_or(Format { pretty: true, ..Format::plain() });
    let mut response = document(status, error.to_json().into(), format);
    add_warnings(&mut response, &error.warnings);
    let headers = response.headers_mut();
    if let Some(seconds) = error.retry_after_s() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if error.reason == "Fenced" {
        // For whoever looks after a leader's connection and not after its requests.
        headers.insert(FENCED_HEADER, HeaderValue::from_static("true"));
    }
    if error.code == 413 {
        // What else the client meant to send cannot be told from a next request.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The authorizer's refusal. What it says is made of what was sent: no browser is to guess at it.
pub(super) fn forbidden(refusal: &ApiError, headers: &HeaderMap, query: &Query) -> Response<Body> {
    let mut response = error(refusal, headers, query);
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, NO_SNIFF);
    response
}

pub(super) fn text(status: StatusCode, text: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response
}

/// What Go's multiplexer says of a path that nobody serves.
pub(super) fn page_not_found() -> Response<Body> {
    let mut response = text(StatusCode::NOT_FOUND, "404 page not found\n");
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, NO_SNIFF);
    response
}

/// A document that stands ready as JSON.
pub(super) fn document(status: StatusCode, json: Bytes, format: Format) -> Response<Body> {
    let (bytes, content_type) = match format.encoding {
        Encoding::Json if format.pretty => (indented(json), JSON),
        Encoding::Json => (json, JSON),
        Encoding::Yaml => (yaml(json), YAML),
    };
    let compress = format.gzip && bytes.len() as u64 >= GZIP_BYTES_MIN;
    let body = if compress { gzip(&bytes) } else { bytes };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    if compress {
        mark_gzip(&mut response);
    }
    response
}

fn mark_gzip(response: &mut Response<Body>) {
    let headers = response.headers_mut();
    headers.insert(CONTENT_ENCODING, GZIP);
    headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
}

/// Two spaces and no newline at the end, as Go indents; members stay in their order.
pub(super) fn indented(json: Bytes) -> Bytes {
    let mut text = Vec::with_capacity(json.len() * 2);
    let mut depth = 0;
    let mut in_string = false;
    let mut bytes = json.iter().copied().peekable();
    let line = |text: &mut Vec<u8>, depth: usize| {
        text.push(b'\n');
        text.resize(text.len() + 2 * depth, b' ');
    };
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                text.push(byte);
                text.extend(bytes.next());
                continue;
            }
            _ => {}
        }
        match byte {
            _ if in_string => text.push(byte),
            b' ' | b'\n' | b'\r' | b'\t' => {}
            b'{' | b'[' => {
                text.push(byte);
                if bytes.peek().is_some_and(|next| !matches!(next, b'}' | b']')) {
                    depth += 1;
                    line(&mut text, depth);
                } else {
                    text.extend(bytes.next());
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                line(&mut text, depth);
                text.push(byte);
            }
            b',' => {
                text.push(byte);
                line(&mut text, depth);
            }
            b':' => text.extend(b": "),
            _ => text.push(byte),
        }
    }
    text.into()
}

fn yaml(json: Bytes) -> Bytes {
    let value = serde_json::from_slice::<Value>(&json).ok();
    match value.and_then(|value| serde_saphyr::to_string(&value).ok()) {
        Some(text) => text.into(),
        // JSON is YAML too.
        None => json,
    }
}

/// How the Tables of this request look.
pub(super) fn table_options(
    version: table::TableVersion,
    query: &Query,
) -> Result<TableOptions, ApiError> {
    let include = match query.filled("includeObject") {
        None | Some("Metadata") => IncludeObject::Metadata,
        Some("None") => IncludeObject::None,
        Some("Object") => IncludeObject::Object,
        Some(other) => {
            return Err(ApiError::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {}: \
                 must be 'Metadata', 'Object', 'None', or empty",
                quoted(other)
            )));
        }
    };
    Ok(TableOptions { version, include, now: Timestamp::now() })
}

/// What Kubernetes' messages call the type of a kind, `suffix` for its list.
fn go_type(def: &ResourceDef, suffix: &str) -> String {
    match def.origin {
        Origin::Custom => format!("*unstructured.Unstructured{suffix}"),
        Origin::BuiltIn => {
            let package = match def.group.split('.').next() {
                None | Some("") => "core",
                Some(group) => group,
            };
            format!("*{package}.{}{suffix}", def.kind)
        }
    }
}

/// One object, after a GET or a write.
pub(super) fn object(
    status: StatusCode,
    def: &ResourceDef,
    object: &Object,
    format: Format,
    query: &Query,
) -> Result<Response<Body>, ApiError> {
    let json = match format.shape {
        Shape::Whole => object.body_of(format.lean),
        Shape::Table(version) => {
            let options = table_options(version, query)?;
            table::render_one(def, &object.to_value(), Headers::Shown, options).into()
        }
        Shape::Metadata(version) => table::render_partial(object, version, format.lean).into(),
        Shape::MetadataList(_) => {
            return Err(ApiError::not_acceptable_because(format!(
                "you requested PartialObjectMetadataList, but the requested object is not a list ({})",
                go_type(def, "")
            )));
        }
    };
    Ok(document(status, json, format))
}

/// Objects that are rendered in place; more take longer than other requests should wait for.
const RENDER_IN_PLACE_MAX: usize = 1000;

/// A page of a list.
pub(super) async fn list(
    def: &Arc<ResourceDef>,
    list: List,
    format: Format,
    query: &Query,
) -> Result<Response<Body>, ApiError> {
    let as_it_is =
        format.shape == Shape::Whole && format.encoding == Encoding::Json && !format.pretty;
    if as_it_is || list.items.len() <= RENDER_IN_PLACE_MAX {
        return render_list(def, list, format, query);
    }
    let (def, query) = (def.clone(), query.clone());
    tokio::task::spawn_blocking(move || render_list(&def, list, format, &query))
        .await
        .unwrap_or_else(|failed| {
            tracing::error!(%failed, "rendering a list failed");
            Err(ApiError::internal("the list could not be rendered"))
        })
}

fn render_list(
    def: &ResourceDef,
    list: List,
    format: Format,
    query: &Query,
) -> Result<Response<Body>, ApiError> {
    let version = list.version.0.to_string();
    let meta = ListMeta {
        resource_version: &version,
        continue_: list.continue_.as_deref().unwrap_or(""),
        remaining_item_count: list.remaining,
    };
    // Parsed one after the other: a tree is gone before the next one is made.
    let values = list.items.iter().map(|object| object.to_value());
    let json = match format.shape {
        Shape::Whole => return Ok(whole_list(def, &meta, list.items, format)),
        Shape::Table(version) => {
            table::render_list(def, &meta, values, table_options(version, query)?)
        }
        Shape::MetadataList(version) => {
            table::render_partial_list(&meta, list.items.iter().map(|item| &**item), version)
        }
        Shape::Metadata(_) => {
            return Err(ApiError::not_acceptable_because(format!(
                "you requested PartialObjectMetadata, but the requested object is a list ({})",
                go_type(def, "List")
            )));
        }
    };
    Ok(document(StatusCode::OK, json.into(), format))
}

/// The items' bytes go out as they lie in the cache: nothing is parsed or copied but into the
/// socket's pieces.
fn whole_list(
    def: &ResourceDef,
    meta: &ListMeta<'_>,
    items: Vec<Arc<Object>>,
    format: Format,
) -> Response<Body> {
    let mut head = serde_json::json!({
        "kind": def.list_kind,
        "apiVersion": def.api_version(),
        "metadata": {"resourceVersion": meta.resource_version},
    });
    if !meta.continue_.is_empty() {
        head["metadata"]["continue"] = meta.continue_.into();
        if let Some(remaining) = meta.remaining_item_count {
            head["metadata"]["remainingItemCount"] = remaining.into();
        }
    }
    let mut head = head.to_string();
    head.pop();
    head.push_str(",\"items\":[");
    // As Go prints them: the items of a list that has a type of its own do not repeat theirs.
    let omitted = match def.origin {
        Origin::Custom => Bytes::new(),
        Origin::BuiltIn => {
            let (api_version, kind) = (def.api_version(), &def.kind);
            format!("\"apiVersion\":\"{api_version}\",\"kind\":\"{kind}\",").into()
        }
    };
    let body = ItemsBody::new(head.into(), items, omitted, Bytes::from_static(b"]}\n"));
    if format.pretty || format.encoding == Encoding::Yaml {
        return document(StatusCode::OK, body.whole(), format);
    }
    let compress = format.gzip && body.bytes() >= GZIP_BYTES_MIN;
    let mut response = match compress {
        true => Response::new(Body::new(body.compressed())),
        false => Response::new(Body::new(body)),
    };
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    if compress {
        mark_gzip(&mut response);
    }
    response
}

/// A warning that comes before those that the answer has.
pub(super) fn warn_first(response: &mut Response<Body>, warning: String) {
    let others: Vec<HeaderValue> = response.headers().get_all(WARNING).iter().cloned().collect();
    response.headers_mut().remove(WARNING);
    add_warnings(response, &[warning]);
    for other in others {
        response.headers_mut().append(WARNING, other);
    }
}

/// `Warning: 299 - "…"` for each text, each once. When all together are too long for a header that
/// proxies let through, each is cut.
pub(super) fn add_warnings(response: &mut Response<Body>, warnings: &[String]) {
    let mut texts: Vec<&str> = Vec::with_capacity(warnings.len());
    for warning in warnings {
        if !warning.is_empty() && !texts.contains(&warning.as_str()) {
            texts.push(warning);
        }
    }
    let length = |text: &str| text.chars().count();
    let cut = texts.iter().map(|text| length(text)).sum::<usize>() > WARNINGS_RUNES_MAX;
    let mut written = 0;
    for text in texts {
        if cut && written >= WARNINGS_RUNES_MAX {
            return;
        }
        let text: String = match cut {
            true => text.chars().take(WARNING_RUNES_MAX).collect(),
            false => text.to_owned(),
        };
        // A header is one line: Kubernetes leaves out what is not.
        if text.chars().any(char::is_control) {
            continue;
        }
        written += length(&text);
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(warnings: &[&str]) -> Vec<String> {
        let mut response = Response::new(Body::empty());
        let warnings: Vec<String> = warnings.iter().map(|text| (*text).to_owned()).collect();
        add_warnings(&mut response, &warnings);
        let all = response.headers().get_all(WARNING).iter();
        all.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
    }

    #[test]
    fn warnings_are_quoted_told_once_and_cut_when_there_are_many() {
        assert_eq!(
            headers(&["unknown field \"a\"", "b\\c", "b\\c", "", "two\nlines"]),
            ["299 - \"unknown field \\\"a\\\"\"", "299 - \"b\\\\c\""]
        );
        let long = "x".repeat(300);
        assert_eq!(headers(&[&long])[0].len(), 300 + 8);
        let many: Vec<String> = (0..40).map(|number| format!("{number:03}{long}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let cut = headers(&many);
        assert_eq!((cut.len(), cut[0].len()), (16, 256 + 8));
    }
}
