//! What a request for a log asks for.

use commonage_shim::launch::Stream as Output;
use jiff::{SignedDuration, Timestamp};

/// A log's query, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub outputs: Vec<Output>,
    pub follow: bool,
    pub timestamps: bool,
    /// Lines to begin with, counted from the end.
    pub tail_lines: Option<u64>,
    /// Nothing that came before this; nanoseconds since 1970.
    pub since_ns: Option<u64>,
    /// Nothing beyond so many bytes.
    pub limit_bytes: Option<u64>,
}

impl Wanted {
    /// Parameters that are not known are none of ours.
    pub(super) fn parse(query: &str, now: Timestamp) -> Result<Wanted, &'static str> {
        let mut wanted = Wanted {
            outputs: vec![Output::Stdout, Output::Stderr],
            follow: false,
            timestamps: false,
            tail_lines: None,
            since_ns: None,
            limit_bytes: None,
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            // `?follow` alone means yes.
            let yes = !matches!(value.as_ref(), "false" | "0" | "False" | "FALSE" | "f" | "F");
            match name.as_ref() {
                "follow" => wanted.follow = yes,
                "timestamps" => wanted.timestamps = yes,
                "tailLines" => wanted.tail_lines = Some(number(&value, TAIL_LINES)?),
                "limitBytes" => wanted.limit_bytes = Some(number(&value, LIMIT_BYTES)?),
                "sinceSeconds" => {
                    let seconds = number(&value, SINCE_SECONDS)?;
                    let seconds = i64::try_from(seconds).map_err(|_| SINCE_SECONDS)?;
                    let since = now.checked_sub(SignedDuration::from_secs(seconds));
                    // Before time began is before everything.
                    wanted.since_ns = Some(since.map_or(0, nanoseconds));
                }
                "sinceTime" => {
                    let since: Timestamp = value.parse().map_err(|_| SINCE_TIME)?;
                    wanted.since_ns = Some(nanoseconds(since));
                }
                "stream" => {
                    wanted.outputs = match value.to_ascii_lowercase().as_str() {
                        "" | "all" => vec![Output::Stdout, Output::Stderr],
                        "stdout" => vec![Output::Stdout],
                        "stderr" => vec![Output::Stderr],
                        _ => return Err("stream is stdout, stderr or absent"),
                    }
                }
                _ => {}
            }
        }
        Ok(wanted)
    }

    /// Whether it begins where the log does.
    pub(super) fn is_all(&self) -> bool {
        self.tail_lines.is_none() && self.since_ns.is_none()
    }

    /// Whether bytes are passed on as they are, without a look at lines.
    pub(super) fn is_raw(&self) -> bool {
        self.outputs.len() == 1 && !self.timestamps && self.since_ns.is_none()
    }
}

const TAIL_LINES: &str = "tailLines is a number that is not negative";
const LIMIT_BYTES: &str = "limitBytes is a number that is not negative";
const SINCE_SECONDS: &str = "sinceSeconds is a number that is not negative";
const SINCE_TIME: &str = "sinceTime is a time as in RFC 3339";

fn number(value: &str, message: &'static str) -> Result<u64, &'static str> {
    value.parse().map_err(|_| message)
}

fn nanoseconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn queries_are_understood() {
        let now = Timestamp::from_second(1_000).unwrap();
        let parse = |query: &str| Wanted::parse(query, now);
        let all = parse("").unwrap();
        assert!(all.is_all() && !all.is_raw() && !all.follow);
        let some = parse("follow&timestamps=true&tailLines=5&limitBytes=9&stream=Stderr").unwrap();
        assert!(some.follow && some.timestamps && !some.is_all());
        assert_eq!((some.tail_lines, some.limit_bytes), (Some(5), Some(9)));
        assert_eq!(some.outputs, [Output::Stderr]);
        assert_eq!(parse("sinceSeconds=10").unwrap().since_ns, Some(990_000_000_000));
        assert_eq!(parse("sinceSeconds=99999999999").unwrap().since_ns, Some(0));
        let since = parse("sinceTime=1970-01-01T00:00:01.5Z").unwrap().since_ns;
        assert_eq!(since, Some(1_500_000_000));
        for bad in ["tailLines=-1", "limitBytes=x", "sinceSeconds=1.5", "sinceTime=now", "stream=x"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
