//! `format:` of strings and numbers. Kubernetes ignores formats it does not know; so do we.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine as _;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Int32,
    Int64,
    DateTime,
    Date,
    Duration,
    Byte,
    Uuid,
    Ip4,
    Ip6,
    Cidr,
    Hostname,
    Uri,
    Email,
}

impl Format {
    pub(super) fn parse(name: &str) -> Option<Format> {
        Some(match name {
            "int32" => Format::Int32,
            "int64" => Format::Int64,
            "date-time" => Format::DateTime,
            "date" => Format::Date,
            "duration" => Format::Duration,
            "byte" => Format::Byte,
            "uuid" => Format::Uuid,
            "ipv4" => Format::Ip4,
            "ipv6" => Format::Ip6,
            "cidr" => Format::Cidr,
            "hostname" => Format::Hostname,
            "uri" => Format::Uri,
            "email" => Format::Email,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Format::Int32 => "int32",
            Format::Int64 => "int64",
            Format::DateTime => "date-time",
            Format::Date => "date",
            Format::Duration => "duration",
            Format::Byte => "byte",
            Format::Uuid => "uuid",
            Format::Ip4 => "ipv4",
            Format::Ip6 => "ipv6",
            Format::Cidr => "cidr",
            Format::Hostname => "hostname",
            Format::Uri => "uri",
            Format::Email => "email",
        }
    }

    /// Whether the text has this format; the number formats say nothing about text.
    pub(super) fn holds(self, text: &str) -> bool {
        match self {
            Format::Int32 | Format::Int64 => true,
            Format::DateTime => is_date_time(text),
            Format::Date => {
                text.parse::<jiff::civil::Date>().is_ok() && text.len() == "2006-01-02".len()
            }
            Format::Duration => is_duration(text),
            Format::Byte => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
            Format::Uuid => uuid::Uuid::try_parse(text).is_ok(),
            Format::Ip4 => text.parse::<Ipv4Addr>().is_ok(),
            Format::Ip6 => text.parse::<Ipv6Addr>().is_ok(),
            Format::Cidr => is_cidr(text),
            Format::Hostname => is_hostname(text),
            Format::Uri => text
                .parse::<http::Uri>()
                .is_ok_and(|uri| uri.scheme().is_some() || text.starts_with('/')),
            Format::Email => text
                .split_once('@')
                .is_some_and(|(user, host)| !user.is_empty() && is_hostname(host)),
        }
    }
}

/// RFC 3339 with a zone: a local time means nothing on another machine.
fn is_date_time(text: &str) -> bool {
    let has_time = text.as_bytes().get(10).is_some_and(|c| matches!(c, b'T' | b't'));
    has_time && text.parse::<jiff::Timestamp>().is_ok()
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let most = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.parse::<u8>().is_ok_and(|bits| bits <= most)
}

fn is_hostname(text: &str) -> bool {
    let label = |label: &str| {
        let inner = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// Go's `time.ParseDuration`: `1h30m`, `-1.5s`, `0`.
fn is_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        if rest[..digits].parse::<f64>().is_err() {
            return false;
        }
        rest = &rest[digits..];
        let units = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"];
        let Some(after) = units.iter().find_map(|unit| rest.strip_prefix(unit)) else {
            return false;
        };
        rest = after;
    }
    true
}
