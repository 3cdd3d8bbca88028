//! `format:` of strings. Kubernetes ignores formats it does not know, and those of numbers; so do we.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use base64::Engine as _;
use regex::Regex;

/// A known format, by its index in [`FORMATS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format(usize);

type Holds = fn(&str) -> bool;

/// The formats that kube-apiserver 1.36 checks.
const FORMATS: [(&str, Holds); 25] = [
    ("bsonobjectid", |text| text.len() == 24 && text.bytes().all(|c| c.is_ascii_hexdigit())),
    ("uri", is_request_uri),
    ("email", is_email),
    ("hostname", is_hostname),
    ("ipv4", |text| text.parse::<Ipv4Addr>().is_ok()),
    ("ipv6", |text| text.parse::<Ipv6Addr>().is_ok()),
    ("cidr", is_cidr),
    ("mac", is_mac),
    ("uuid", |text| is_uuid(text, None)),
    ("uuid3", |text| is_uuid(text, Some('3'))),
    ("uuid4", |text| is_uuid(text, Some('4'))),
    ("uuid5", |text| is_uuid(text, Some('5'))),
    ("isbn", |text| is_isbn10(text) || is_isbn13(text)),
    ("isbn10", is_isbn10),
    ("isbn13", is_isbn13),
    ("creditcard", is_credit_card),
    ("ssn", |text| SSN.is_match(text)),
    ("hexcolor", |text| HEX_COLOR.is_match(text)),
    ("rgbcolor", |text| RGB_COLOR.is_match(text)),
    ("byte", |text| {
        !text.is_empty() && base64::engine::general_purpose::STANDARD.decode(text).is_ok()
    }),
    ("password", |_| true),
    ("date", |text| text.len() == "2006-01-02".len() && text.parse::<jiff::civil::Date>().is_ok()),
    ("duration", is_duration),
    ("date-time", is_date_time),
    ("datetime", is_date_time),
];

static SSN: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\d{3}[- ]?\d{2}[- ]?\d{4}$"));
static HEX_COLOR: LazyLock<Regex> =
    LazyLock::new(|| pattern("^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"));
static RGB_COLOR: LazyLock<Regex> = LazyLock::new(|| {
    let part = r"\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*";
    pattern(&format!(r"^rgb\({part},{part},{part}\)$"))
});

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("our own patterns compile")
}

impl Format {
    pub(super) fn parse(name: &str) -> Option<Format> {
        FORMATS.iter().position(|(known, _)| *known == name).map(Format)
    }

    pub(super) fn name(self) -> &'static str {
        FORMATS[self.0].0
    }

    pub(super) fn holds(self, text: &str) -> bool {
        FORMATS[self.0].1(text)
    }
}

/// RFC 3339 with a zone: a local time means nothing on another machine.
fn is_date_time(text: &str) -> bool {
    let has_time = text.as_bytes().get(10).is_some_and(|c| matches!(c, b'T' | b't'));
    has_time && text.parse::<jiff::Timestamp>().is_ok()
}

/// An absolute path, or a text that starts with a scheme.
fn is_request_uri(text: &str) -> bool {
    if text.chars().any(|c| c.is_control() || c == ' ') {
        return false;
    }
    let has_scheme = text.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    });
    has_scheme || text.starts_with('/')
}

/// `a@example.com`, also as `Name <a@example.com>`.
fn is_email(text: &str) -> bool {
    let address = match text.rsplit_once('<') {
        Some((_, rest)) => match rest.trim_end().strip_suffix('>') {
            Some(address) => address,
            None => return false,
        },
        None => text.trim(),
    };
    let sound = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && !part.ends_with('.')
            && !part.contains("..")
            && !part.contains(|c: char| {
                c.is_whitespace() || c.is_control() || "<>()[],;:\\".contains(c)
            })
    };
    address
        .rsplit_once('@')
        .is_some_and(|(user, host)| sound(user) && !user.contains('@') && sound(host))
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let most = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.bytes().all(|c| c.is_ascii_digit()) && bits.parse::<u8>().is_ok_and(|bits| bits <= most)
}

/// Six, eight or twenty bytes in hexadecimal: `00:00:5e:00:53:01`, with dashes, or `0000.5e00.5301`.
fn is_mac(text: &str) -> bool {
    let (separator, digits) = match text.as_bytes() {
        [_, _, b':', ..] => (':', 2),
        [_, _, b'-', ..] => ('-', 2),
        [_, _, _, _, b'.', ..] => ('.', 4),
        _ => return false,
    };
    let groups: Vec<&str> = text.split(separator).collect();
    matches!(groups.len() * digits, 12 | 16 | 40)
        && groups
            .iter()
            .all(|group| group.len() == digits && group.bytes().all(|c| c.is_ascii_hexdigit()))
}

fn is_uuid(text: &str, version: Option<char>) -> bool {
    let mut digits = String::with_capacity(32);
    let mut lengths = [8, 4, 4, 4, 12].into_iter();
    let mut rest = text;
    for length in lengths.by_ref() {
        let Some((part, after)) = rest.split_at_checked(length) else { return false };
        digits.push_str(part);
        rest = after.strip_prefix('-').unwrap_or(after);
    }
    rest.is_empty()
        && !text.ends_with('-')
        && digits.bytes().all(|c| c.is_ascii_hexdigit())
        && version.is_none_or(|version| {
            let is_rfc = digits[16..17].contains(['8', '9', 'a', 'b', 'A', 'B']);
            digits[12..13].starts_with(version) && (version == '3' || is_rfc)
        })
}

fn isbn_digits(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '-' | ' ')).collect()
}

fn is_isbn10(text: &str) -> bool {
    let digits = isbn_digits(text);
    let value = |(index, c): (usize, char)| match c {
        'X' if index == 9 => Some(10),
        other => other.to_digit(10),
    };
    let values: Option<Vec<u32>> = digits.chars().enumerate().map(value).collect();
    values.is_some_and(|values| {
        values.len() == 10
            && values.iter().zip((1..=10).rev()).map(|(a, b)| a * b).sum::<u32>() % 11 == 0
    })
}

fn is_isbn13(text: &str) -> bool {
    let digits: Option<Vec<u32>> = isbn_digits(text).chars().map(|c| c.to_digit(10)).collect();
    digits.is_some_and(|digits| {
        let weights = [1, 3].into_iter().cycle();
        digits.len() == 13 && digits.iter().zip(weights).map(|(a, b)| a * b).sum::<u32>() % 10 == 0
    })
}

/// Luhn's sum over 12 to 19 digits.
fn is_credit_card(text: &str) -> bool {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(10)).collect();
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(index, digit)| match index % 2 {
            0 => *digit,
            _ => digit * 2 / 10 + digit * 2 % 10,
        })
        .sum();
    (12..=19).contains(&digits.len()) && sum.is_multiple_of(10)
}

fn is_hostname(text: &str) -> bool {
    let label = |label: &str| {
        let inner = |c: char| c.is_alphanumeric() || c == '-';
        !label.is_empty()
            && label.len() <= 63
            && label.chars().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 255 && text.split('.').all(label)
}

/// Go's durations (`1h30m`, `-1.5s`, `0`), and numbers with units in words (`2 weeks`).
fn is_duration(text: &str) -> bool {
    const GO: [&str; 8] = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"];
    const WORDS: [&str; 27] = [
        "ns", "nano", "us", "µs", "micro", "ms", "milli", "s", "sec", "second", "m", "min",
        "minute", "h", "hr", "hour", "d", "day", "w", "wk", "week", "nanos", "micros", "millis",
        "secs", "mins", "hrs",
    ];
    let units = |units: &[&str], text: &str, between: bool| -> bool {
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
            if between {
                rest = rest.trim_start();
            }
            let end = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
            let unit = &rest[..end];
            let plural = unit.strip_suffix('s').filter(|_| between);
            if !units.contains(&unit) && !plural.is_some_and(|unit| units.contains(&unit)) {
                return false;
            }
            rest = &rest[end..];
            if between {
                rest = rest.trim_start();
            }
        }
        true
    };
    units(&GO, text, false) || units(&WORDS, text, true)
}
