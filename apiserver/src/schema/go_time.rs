//! What Go's `time.Parse` says of a text that is no time in the layouts of Kubernetes' `Time` and
//! `MicroTime`.
//!
//! Only for texts that were found wrong already, or that are short.

/// Of `metav1.Time`.
pub(crate) const SECONDS: &str = "2006-01-02T15:04:05Z07:00";
/// Of `metav1.MicroTime`.
pub(crate) const MICROSECONDS: &str = "2006-01-02T15:04:05.000000Z07:00";

const MICRO_DIGITS: usize = 6;

enum Failure {
    /// What is left of the text, and the part of the layout that it is not.
    Part(String, &'static str),
    OutOfRange(&'static str),
    Extra(String),
}

/// # Errors
/// As Go says it: `parsing time "x" as "2006-…": cannot parse "x" as "2006"`.
pub(crate) fn check(text: &str, layout: &str) -> Result<(), String> {
    read(text, layout == MICROSECONDS).map_err(|failure| match failure {
        Failure::Part(rest, part) => {
            format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {part:?}")
        }
        Failure::OutOfRange(what) => format!("parsing time {text:?}: {what} out of range"),
        Failure::Extra(rest) => format!("parsing time {text:?}: extra text: {rest:?}"),
    })
}

fn read(text: &str, micros: bool) -> Result<(), Failure> {
    let mut rest = text.as_bytes();
    let left = |rest: &[u8]| String::from_utf8_lossy(rest).into_owned();
    let fail = |rest: &[u8], part| Failure::Part(left(rest), part);
    let year = match rest.get(..4).and_then(number) {
        Some(year) => year,
        None => return Err(fail(rest, "2006")),
    };
    rest = &rest[4..];
    let mut day_of_month = (0, 0);
    // Prefix, part of the layout, name, the least and the first that is too much, whether one digit will do.
    let parts: [(&'static str, &'static str, &'static str, u32, u32, bool); 5] = [
        ("-", "01", "month", 1, 13, false),
        ("-", "02", "day", 0, 100, false),
        ("T", "15", "hour", 0, 24, true),
        (":", "04", "minute", 0, 60, false),
        (":", "05", "second", 0, 60, false),
    ];
    for (prefix, part, name, least, beyond, short) in parts {
        rest = rest.strip_prefix(prefix.as_bytes()).ok_or_else(|| fail(rest, prefix))?;
        let digits = match rest.get(..2).and_then(number) {
            Some(_) => 2,
            None if short && rest.first().is_some_and(u8::is_ascii_digit) => 1,
            None => return Err(fail(rest, part)),
        };
        let value = number(&rest[..digits]).unwrap_or_default();
        if value < least || value >= beyond {
            return Err(Failure::OutOfRange(name));
        }
        match name {
            "month" => day_of_month.0 = value,
            "day" => day_of_month.1 = value,
            _ => {}
        }
        rest = &rest[digits..];
    }
    let digits =
        rest.get(1..).map_or(0, |rest| rest.iter().take_while(|c| c.is_ascii_digit()).count());
    let point = rest.first().is_some_and(|c| matches!(c, b'.' | b','));
    match (micros, point && digits > 0) {
        // As many as the layout has, no more and no less.
        (true, true) if digits >= MICRO_DIGITS => rest = &rest[1 + MICRO_DIGITS..],
        (true, _) => return Err(fail(rest, ".000000")),
        // As many as there are, though the layout has none.
        (false, true) => rest = &rest[1 + digits..],
        (false, false) => {}
    }
    rest = zone(rest)
        .map_err(|wrong| wrong.map_or_else(|| fail(rest, "Z07:00"), Failure::OutOfRange))?;
    if !rest.is_empty() {
        return Err(Failure::Extra(left(rest)));
    }
    let (month, day) = day_of_month;
    if day < 1 || day > days_in(month, year) {
        return Err(Failure::OutOfRange("day"));
    }
    Ok(())
}

/// What follows the zone; what is out of range in it, or nothing where it is none.
fn zone(text: &[u8]) -> Result<&[u8], Option<&'static str>> {
    if let Some(rest) = text.strip_prefix(b"Z") {
        return Ok(rest);
    }
    let (Some(sign), Some(hours), Some(b':'), Some(minutes)) = (
        text.first(),
        text.get(1..3).and_then(number),
        text.get(3),
        text.get(4..6).and_then(number),
    ) else {
        return Err(None);
    };
    match (sign, hours, minutes) {
        (_, 25.., _) => Err(Some("time zone offset hour")),
        (_, _, 61..) => Err(Some("time zone offset minute")),
        (b'+' | b'-', _, _) => Ok(&text[6..]),
        _ => Err(None),
    }
}

fn number(digits: &[u8]) -> Option<u32> {
    let legal = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    legal.then(|| digits.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0')))
}

fn days_in(month: u32, year: u32) -> u32 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_time_is_told_as_go_tells_it() {
        for (text, told) in [
            ("noon", r#" as "2006-01-02T15:04:05Z07:00": cannot parse "noon" as "2006""#),
            ("", r#" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "2006""#),
            ("2020", r#" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "-""#),
            ("2020-1-01", r#" as "2006-01-02T15:04:05Z07:00": cannot parse "1-01" as "01""#),
            ("2020-01-01", r#" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "T""#),
            (
                "2020-01-01 00:00:00Z",
                r#" as "2006-01-02T15:04:05Z07:00": cannot parse " 00:00:00Z" as "T""#,
            ),
            (
                "2020-01-01T00:00:00",
                r#" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "Z07:00""#,
            ),
            (
                "2020-01-01T00:00:00+1",
                r#" as "2006-01-02T15:04:05Z07:00": cannot parse "+1" as "Z07:00""#,
            ),
            ("2020-13-01T00:00:00Z", ": month out of range"),
            ("2021-02-29T00:00:00Z", ": day out of range"),
            ("2020-01-01T25:00:00Z", ": hour out of range"),
            ("2020-01-01T00:60:00Z", ": minute out of range"),
            ("2020-01-01T00:00:00+25:00", ": time zone offset hour out of range"),
            ("2020-01-01T00:00:00Zulu", r#": extra text: "ulu""#),
        ] {
            let told = format!("parsing time {text:?}{told}");
            assert_eq!(check(text, SECONDS).err(), Some(told), "{text}");
        }
        let micros =
            r#"parsing time "x" as "2006-01-02T15:04:05.000000Z07:00": cannot parse "x" as "2006""#;
        assert_eq!(check("x", MICROSECONDS).err().as_deref(), Some(micros));
    }

    #[test]
    fn times_are_times() {
        for text in [
            "2020-02-29T00:00:00Z",
            "2020-01-01T23:59:59.123456+02:00",
            "2020-01-01T9:00:00-00:30",
            "0001-01-01T00:00:00Z",
        ] {
            assert_eq!(check(text, SECONDS), Ok(()), "{text}");
        }
        assert_eq!(check("2020-01-01T23:59:59.123456+02:00", MICROSECONDS), Ok(()));
        for (end, told) in [
            ("Z", r#"cannot parse "Z" as ".000000""#),
            (".123Z", r#"cannot parse ".123Z" as ".000000""#),
            (".123456789Z", r#"cannot parse "789Z" as "Z07:00""#),
        ] {
            let found = check(&format!("2020-01-01T00:00:00{end}"), MICROSECONDS).unwrap_err();
            assert!(found.ends_with(told), "{found}");
        }
    }
}
