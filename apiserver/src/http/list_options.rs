//! The query of a list, a watch and a deletecollection: decoded and refused in the order and the
//! words of apimachinery's ListOptions.

use std::time::Duration;

use rand::Rng;
use serde_json::Value;

use super::query::Query;
use crate::engine::{ListOptions, VersionMatch, WatchOptions};
use crate::selector::{FieldSelector, LabelSelector};
use crate::status::{ApiError, Cause};

/// kube-apiserver's default of --min-request-timeout: a watch that names no timeout lasts this
/// long, or up to twice that, so that watches begun together do not end together.
const WATCH_SECONDS_MIN: u64 = 1800;
/// A client may ask for longer, but not for ever: a day.
const WATCH_SECONDS_MAX: i64 = 24 * 60 * 60;
const EXACT: &str = "Exact";
const NOT_OLDER_THAN: &str = "NotOlderThan";

/// What both have in common, decoded.
struct Decoded {
    labels: Option<LabelSelector>,
    fields: Option<FieldSelector>,
    seconds: Option<i64>,
    limit: i64,
}

fn decode(query: &Query) -> Result<Decoded, ApiError> {
    // Kubernetes converts the numbers first, then the selectors.
    let seconds = query.number("timeoutSeconds")?;
    let limit = query.number("limit")?.unwrap_or(0);
    let labels = query.filled("labelSelector").map(LabelSelector::parse).transpose()?;
    let fields = query.filled("fieldSelector").map(FieldSelector::parse).transpose()?;
    Ok(Decoded { labels, fields, seconds, limit })
}

pub(super) fn list(query: &Query) -> Result<ListOptions, ApiError> {
    let Decoded { labels, fields, seconds: _, limit } = decode(query)?;
    refuse(list_causes(query))?;
    Ok(ListOptions {
        label_selector: labels,
        field_selector: fields,
        // A negative limit is none.
        limit: usize::try_from(limit).unwrap_or(0),
        continue_: query.filled("continue").map(str::to_owned),
        resource_version: listed_version(query)?,
        version_match: version_match(query),
    })
}

/// A list says itself what it can't read, where a get and a watch leave it to the store.
fn listed_version(query: &Query) -> Result<Option<u64>, ApiError> {
    match query.resource_version() {
        // Refused with the token, whatever it is, and after the token itself.
        Err(_) if query.filled("continue").is_some() => Ok(Some(u64::MAX)),
        Err(error) => {
            let message = format!("invalid resource version: {}", error.message);
            Err(ApiError::bad_request(message))
        }
        version => version,
    }
}

/// `name`: of the one object that the old `/watch/` prefix names in its URL.
pub(super) fn watch(query: &Query, name: Option<&str>) -> Result<WatchOptions, ApiError> {
    let Decoded { labels, mut fields, seconds, .. } = decode(query)?;
    // The old prefix does not need the parameter, and Kubernetes then checks as for a list.
    match query.flag("watch") {
        Some(true) => refuse(watch_causes(query))?,
        _ => refuse(list_causes(query))?,
    }
    if let Some(name) = name {
        match fields.as_ref().filter(|fields| !fields.is_empty()) {
            None => fields = Some(FieldSelector::of_name(name)),
            Some(fields) if fields.exact("metadata.name") == Some(name) => {}
            Some(_) => {
                return Err(ApiError::bad_request(
                    "fieldSelector metadata.name doesn't match requested name",
                ));
            }
        }
    }
    let seconds = match seconds {
        None | Some(0) => rand::rng().random_range(WATCH_SECONDS_MIN..2 * WATCH_SECONDS_MIN),
        Some(seconds) => seconds.clamp(0, WATCH_SECONDS_MAX).unsigned_abs(),
    };
    Ok(WatchOptions {
        label_selector: labels,
        field_selector: fields,
        resource_version: query.resource_version()?,
        version_match: version_match(query),
        bookmarks: query.flag("allowWatchBookmarks").unwrap_or(false),
        send_initial_events: query.flag("sendInitialEvents"),
        timeout: Duration::from_secs(seconds),
    })
}

fn version_match(query: &Query) -> Option<VersionMatch> {
    match query.filled("resourceVersionMatch")? {
        EXACT => Some(VersionMatch::Exact),
        _ => Some(VersionMatch::NotOlderThan),
    }
}

fn refuse(causes: Vec<Cause>) -> Result<(), ApiError> {
    match causes.is_empty() {
        true => Ok(()),
        false => Err(ApiError::invalid_kind("meta.k8s.io", "ListOptions", "", causes)),
    }
}

const MATCH: &str = "resourceVersionMatch";

fn list_causes(query: &Query) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut forbidden = |why: &str| causes.push(Cause::forbidden(MATCH, why));
    if let Some(version_match) = query.filled(MATCH) {
        if query.filled("resourceVersion").is_none() {
            forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if query.filled("continue").is_some() {
            forbidden("resourceVersionMatch is forbidden when continue is provided");
        }
        if version_match == EXACT && query.filled("resourceVersion") == Some("0") {
            forbidden("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
        }
        if !matches!(version_match, EXACT | NOT_OLDER_THAN) {
            let value = Value::from(version_match);
            causes.push(Cause::not_supported(MATCH, &value, [EXACT, NOT_OLDER_THAN, ""]));
        }
    }
    if query.get("sendInitialEvents").is_some() {
        let why = "sendInitialEvents is forbidden for list";
        causes.push(Cause::forbidden("sendInitialEvents", why));
    }
    causes
}

fn watch_causes(query: &Query) -> Vec<Cause> {
    let mut causes = Vec::new();
    let initial = query.get("sendInitialEvents").is_some();
    let version_match = query.filled(MATCH);
    if initial && version_match != Some(NOT_OLDER_THAN) {
        let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        causes.push(Cause::forbidden(MATCH, why));
    }
    let Some(version_match) = version_match else { return causes };
    if !initial {
        let why =
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
        causes.push(Cause::forbidden(MATCH, why));
    }
    if version_match != NOT_OLDER_THAN {
        causes.push(Cause::not_supported(MATCH, &Value::from(version_match), [NOT_OLDER_THAN]));
    }
    if query.filled("continue").is_some() {
        let why = "resourceVersionMatch is forbidden when continue is provided";
        causes.push(Cause::forbidden(MATCH, why));
    }
    causes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn refused(text: &str) -> (u16, String) {
        let query = Query::parse(Some(text));
        let error = match query.flag("watch") {
            Some(true) => watch(&query, None).map(|_| ()),
            _ => list(&query).map(|_| ()),
        };
        error.map_err(|error| (error.code, error.message)).unwrap_err()
    }

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        for text in [
            "resourceVersionMatch=Exact",
            "resourceVersionMatch=Exact&resourceVersion=0",
            "resourceVersionMatch=NotOlderThan&resourceVersion=1&continue=x",
            "resourceVersionMatch=Newest&resourceVersion=1",
            "sendInitialEvents=true",
            "watch=1&sendInitialEvents=true",
            "watch=1&resourceVersionMatch=NotOlderThan",
            "watch=1&resourceVersionMatch=Exact&sendInitialEvents=false",
        ] {
            assert_eq!(refused(text).0, 422, "{text}");
        }
        assert_eq!(
            refused("resourceVersionMatch=Newest").1,
            "ListOptions.meta.k8s.io \"\" is invalid: [resourceVersionMatch: Forbidden: \
             resourceVersionMatch is forbidden unless resourceVersion is provided, \
             resourceVersionMatch: Unsupported value: \"Newest\": supported values: \"Exact\", \
             \"NotOlderThan\", \"\"]"
        );
    }

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        assert_eq!(refused("limit=x").1, "strconv.ParseInt: parsing \"x\": invalid syntax");
        assert_eq!(refused("limit=").1, "strconv.ParseInt: parsing \"\": invalid syntax");
        assert_eq!(
            refused("watch=1&timeoutSeconds=99999999999999999999").1,
            "strconv.ParseInt: parsing \"99999999999999999999\": value out of range"
        );
        assert_eq!(list(&Query::parse(Some("limit=-1"))).unwrap().limit, 0);
        let why = "resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": \
                   invalid syntax";
        let of_list = format!("invalid resource version: {why}");
        assert_eq!(refused("resourceVersion=abc"), (400, of_list));
        assert_eq!(refused("watch=1&resourceVersion=abc"), (500, why.to_owned()));
        assert!(list(&Query::parse(Some("resourceVersion=abc&continue=x"))).is_ok());
    }

    #[test]
    fn a_watch_of_one_name_is_a_selector() {
        let of = |text| watch(&Query::parse(Some(text)), Some("a"));
        assert_eq!(of("").unwrap().field_selector.unwrap().exact("metadata.name"), Some("a"));
        assert!(of("fieldSelector=metadata.name%3Da").is_ok());
        assert_eq!(of("fieldSelector=metadata.name%3Db").unwrap_err().code, 400);
    }
}
