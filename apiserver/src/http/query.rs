//! The query string, read as tolerantly as Go reads it: `?&a=b`, a bare `?` and unknown names are
//! all right.

use std::time::Duration;

use crate::engine::VersionMatch;
use crate::status::ApiError;

#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(text: Option<&str>) -> Query {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            return Query::default();
        };
        Query(
            form_urlencoded::parse(text.as_bytes())
                .filter(|(name, _)| !name.is_empty())
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect(),
        )
    }

    /// The first value of this name, even if it is empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name)?;
        Some(&found.1)
    }

    /// As [`Query::get`], where an empty value means "not given".
    pub(super) fn filled(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// True for `=1`, `=true` and (as in Go's conversion) an empty value; false for `0`, `false`.
    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        let value = self.get(name)?;
        Some(!value.eq_ignore_ascii_case("false") && value != "0")
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let Some(value) = self.filled(name) else {
            return Ok(None);
        };
        let number = value.parse().map_err(|_| {
            ApiError::bad_request(format!("strconv.ParseInt: parsing {value:?}: invalid syntax"))
        });
        number.map(Some)
    }

    pub(super) fn resource_version(&self) -> Result<Option<u64>, ApiError> {
        let Some(value) = self.filled("resourceVersion") else {
            return Ok(None);
        };
        let number = value.parse().map_err(|_| {
            ApiError::bad_request(format!(
                "resourceVersion: Invalid value: {value:?}: strconv.ParseUint: parsing {value:?}: \
                 invalid syntax"
            ))
        });
        number.map(Some)
    }

    pub(super) fn version_match(&self) -> Result<Option<VersionMatch>, ApiError> {
        match self.filled("resourceVersionMatch") {
            None => Ok(None),
            Some("Exact") => Ok(Some(VersionMatch::Exact)),
            Some("NotOlderThan") => Ok(Some(VersionMatch::NotOlderThan)),
            Some(other) => Err(super::options::unsupported(
                "ListOptions",
                "resourceVersionMatch",
                other,
                &["Exact", "NotOlderThan", ""],
            )),
        }
    }

    /// `?timeout=`: a Go duration.
    pub(super) fn timeout(&self) -> Result<Option<Duration>, ApiError> {
        let Some(value) = self.filled("timeout") else {
            return Ok(None);
        };
        go_duration(value).map(Some).ok_or_else(|| {
            ApiError::bad_request(format!(
                "invalid timeout specified in the request URI: time: invalid duration {value:?}"
            ))
        })
    }
}

/// `6m59s`, `500ms`, `1.5h`, `0`; `None` when it is no duration or a negative one.
fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut seconds = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += number
            * match &rest[..unit_end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok())?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_clients_really_send_is_read() {
        assert!(Query::parse(None).get("x").is_none());
        assert!(Query::parse(Some("")).get("x").is_none());
        let query = Query::parse(Some("&limit=500&watch=true&labelSelector=a%3Db%2Cc"));
        assert_eq!(query.number("limit").unwrap(), Some(500));
        assert_eq!(query.flag("watch"), Some(true));
        assert_eq!(query.filled("labelSelector"), Some("a=b,c"));
        assert_eq!(query.flag("allowWatchBookmarks"), None);
    }

    #[test]
    fn bad_numbers_are_bad_requests() {
        let query = Query::parse(Some("limit=x&resourceVersion=abc"));
        assert_eq!(query.number("limit").unwrap_err().code, 400);
        assert_eq!(query.resource_version().unwrap_err().code, 400);
    }

    #[test]
    fn durations_are_go_durations() {
        assert_eq!(go_duration("6m59s"), Some(Duration::from_secs(419)));
        assert_eq!(go_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(go_duration("0"), Some(Duration::ZERO));
        for bad in ["", "5", "s", "-1s", "1x"] {
            assert_eq!(go_duration(bad), None, "{bad}");
        }
    }
}
