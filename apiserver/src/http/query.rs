//! The query string, read as tolerantly as Go reads it: `?&a=b`, a bare `?` and unknown names are
//! all right.

use std::time::Duration;

use crate::schema::go::quoted;
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

    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// True for `=1`, `=true` and (as in Go's conversion) an empty value; false for `0`, `false`.
    pub(crate) fn flag(&self, name: &str) -> Option<bool> {
        let value = self.get(name)?;
        Some(!value.eq_ignore_ascii_case("false") && value != "0")
    }

    /// # Errors
    /// 400 for what Go's `strconv.ParseInt` does not take; an empty value is such.
    pub(super) fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let number = value.parse().map_err(|error| {
            let why = parse_words(&error);
            ApiError::bad_request(format!("strconv.ParseInt: parsing {}: {why}", quoted(value)))
        });
        number.map(Some)
    }

    /// # Errors
    /// 500: Kubernetes takes the version for opaque until its store cannot read it.
    pub(super) fn resource_version(&self) -> Result<Option<u64>, ApiError> {
        let Some(value) = self.filled("resourceVersion") else {
            return Ok(None);
        };
        // Go has no sign here.
        let number = if value.starts_with('+') { "" } else { value };
        let number = number.parse().map_err(|error| {
            let why = match parse_words(&error) {
                why if value.bytes().all(|byte| byte.is_ascii_digit()) => why,
                _ => "invalid syntax",
            };
            let value = quoted(value);
            let message = format!(
                "resourceVersion: Invalid value: {value}: strconv.ParseUint: parsing {value}: {why}"
            );
            ApiError::new(500, "", message)
        });
        number.map(Some)
    }

    /// `?timeout=`: a Go duration.
    pub(super) fn timeout(&self) -> Result<Option<Duration>, ApiError> {
        let Some(value) = self.filled("timeout") else {
            return Ok(None);
        };
        go_duration(value).map(Some).map_err(|why| {
            let message = format!("invalid timeout specified in the request URL - time: {why}");
            ApiError::bad_request(message)
        })
    }
}

/// What Go says about a number.
fn parse_words(error: &std::num::ParseIntError) -> &'static str {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    match error.kind() {
        PosOverflow | NegOverflow => "value out of range",
        _ => "invalid syntax",
    }
}

/// `6m59s`, `500ms`, `1.5h`, `0`; a negative one counts as none.
///
/// # Errors
/// Why it is no duration, in Go's words.
fn go_duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("invalid duration {}", quoted(text));
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut seconds = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
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
                "" => return Err(format!("missing unit in duration {}", quoted(text))),
                unit => {
                    let (unit, text) = (quoted(unit), quoted(text));
                    return Err(format!("unknown unit {unit} in duration {text}"));
                }
            };
        rest = &rest[unit_end..];
    }
    if text.starts_with('-') {
        return Ok(Duration::ZERO);
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| invalid())
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
        assert_eq!(query.resource_version().unwrap_err().code, 500);
    }

    #[test]
    fn durations_are_go_durations() {
        let seconds = |text| go_duration(text).map(|duration| duration.as_secs_f64());
        assert_eq!(seconds("6m59s"), Ok(419.0));
        assert_eq!(seconds("500ms"), Ok(0.5));
        assert_eq!(seconds("0"), Ok(0.0));
        assert_eq!(seconds("-1s"), Ok(0.0));
        for (bad, why) in [
            ("s", "invalid duration \"s\""),
            ("5", "missing unit in duration \"5\""),
            ("1x", "unknown unit \"x\" in duration \"1x\""),
        ] {
            assert_eq!(go_duration(bad), Err(why.to_owned()));
        }
    }
}
