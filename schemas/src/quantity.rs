//! Kubernetes quantities (`500m`, `4Gi`, `1e3`) as fixed-point integers.
//!
//! A quantity is text on the wire and an `i64` in memory, counted in a [`Unit`]. Nothing here ever
//! goes through a float, so that sums are exact and two readers always agree. What does not fit the
//! unit is rounded up, as Kubernetes does: a request is never understood as less than was written.

use std::fmt::Write as _;

/// What one step of the integer stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Thousandths: cpu, gpu and everything countable (`1` is 1000).
    Thousandths,
    /// Bytes: memory and disk (`1Ki` is 1024).
    Bytes,
}

impl Unit {
    const fn steps_per_one(self) -> u128 {
        match self {
            Self::Thousandths => 1000,
            Self::Bytes => 1,
        }
    }

    const fn example(self) -> &'static str {
        match self {
            Self::Thousandths => "\"500m\", \"0.5\" or \"2\"",
            Self::Bytes => "\"512Mi\", \"1.5Gi\" or \"1e9\"",
        }
    }
}

/// Why a text is not a quantity; `Display` names the text, the fault and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Nothing was written.
    #[error("a quantity is missing; write for example {example}")]
    Empty {
        /// Texts that would have been right.
        example: &'static str,
    },
    /// A sign says less than nothing.
    #[error("{text:?} is negative; a quantity is 0 or more, for example {example}")]
    Negative {
        /// What was written.
        text: String,
        /// Texts that would have been right.
        example: &'static str,
    },
    /// The part before the suffix is no number.
    #[error("{text:?} is not a quantity: it has no digits; write for example {example}")]
    NoDigits {
        /// What was written.
        text: String,
        /// Texts that would have been right.
        example: &'static str,
    },
    /// What follows the number is not one of the suffixes.
    #[error(
        "{text:?} is not a quantity: unknown suffix {suffix:?} (known: n u m k M G T P E, \
         Ki Mi Gi Ti Pi Ei); write for example {example}"
    )]
    Suffix {
        /// What was written.
        text: String,
        /// The part that was not understood.
        suffix: String,
        /// Texts that would have been right.
        example: &'static str,
    },
    /// More than the integer holds.
    #[error("{text:?} is too large: the most is {most}")]
    TooLarge {
        /// What was written.
        text: String,
        /// The largest amount of that unit.
        most: String,
    },
}

/// Digits after the decimal point that are kept exactly; what is beyond only rounds up. Twelve
/// leave room in 128 bits for every suffix.
const FRACTION_DIGITS: usize = 12;

/// Exponents beyond this overflow 64 bits for any digit but 0, or round up to one step.
const EXPONENT_MOST: u32 = 24;

/// Reads a quantity into whole steps of `unit`, rounding up.
///
/// # Errors
/// [`QuantityError`]: empty, negative, without digits, with an unknown suffix, or too large.
pub fn parse(text: &str, unit: Unit) -> Result<i64, QuantityError> {
    let example = unit.example();
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(QuantityError::Empty { example });
    }
    if trimmed.starts_with('-') {
        return Err(QuantityError::Negative { text: text.to_owned(), example });
    }
    let unsigned = trimmed.strip_prefix('+').unwrap_or(trimmed);
    let number = Number::split(unsigned)
        .ok_or_else(|| QuantityError::NoDigits { text: text.to_owned(), example })?;
    let (times, over) = suffix(number.suffix).ok_or_else(|| QuantityError::Suffix {
        text: text.to_owned(),
        suffix: number.suffix.to_owned(),
        example,
    })?;
    number.steps(times, over, unit).and_then(|steps| i64::try_from(steps).ok()).ok_or_else(|| {
        QuantityError::TooLarge { text: text.to_owned(), most: format(i64::MAX, unit) }
    })
}

/// Writes steps of `unit` in the shortest exact form: `2`, `500m`, `4Gi`, `1536Mi`.
#[must_use]
pub fn format(steps: i64, unit: Unit) -> String {
    let mut text = String::with_capacity(8);
    match unit {
        Unit::Thousandths if steps % 1000 == 0 => write!(text, "{}", steps / 1000),
        Unit::Thousandths => write!(text, "{steps}m"),
        Unit::Bytes => {
            const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
            let (mut value, mut power) = (steps, 0);
            while value != 0 && value % 1024 == 0 && power + 1 < SUFFIXES.len() {
                value /= 1024;
                power += 1;
            }
            write!(text, "{value}{}", SUFFIXES[power])
        }
    }
    .expect("writing to a String cannot fail");
    text
}

/// A decimal number and the text that follows it.
struct Number<'a> {
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

impl<'a> Number<'a> {
    fn split(text: &'a str) -> Option<Self> {
        let (whole, rest) = leading_digits(text);
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(after) => leading_digits(after),
            None => ("", rest),
        };
        (!whole.is_empty() || !fraction.is_empty()).then_some(Self { whole, fraction, suffix })
    }

    /// The number × `times` ÷ `over` in steps, rounded up; `None` when it does not fit.
    fn steps(&self, times: u128, over: u128, unit: Unit) -> Option<u128> {
        let fraction = self.fraction.trim_end_matches('0');
        let kept = &fraction[..fraction.len().min(FRACTION_DIGITS)];
        let cut = fraction.len() > kept.len();
        let mut mantissa: u128 = 0;
        for digit in self.whole.bytes().chain(kept.bytes()) {
            mantissa = mantissa.checked_mul(10)?.checked_add(u128::from(digit - b'0'))?;
        }
        let divisor = 10_u128.pow(kept.len() as u32).checked_mul(over)?;
        let dividend = mantissa.checked_mul(times)?.checked_mul(unit.steps_per_one())?;
        if cut {
            return (dividend / divisor).checked_add(1);
        }
        Some(dividend.div_ceil(divisor))
    }
}

fn leading_digits(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// A suffix as a fraction; `None` when there is no such suffix.
fn suffix(suffix: &str) -> Option<(u128, u128)> {
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => {
            let digits = exponent.strip_prefix(['e', 'E'])?;
            let (negative, digits) = match digits.strip_prefix('-') {
                Some(rest) => (true, rest),
                None => (false, digits.strip_prefix('+').unwrap_or(digits)),
            };
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            let power = digits.parse::<u32>().map_or(EXPONENT_MOST, |p| p.min(EXPONENT_MOST));
            let factor = 10_u128.pow(power);
            if negative { (1, factor) } else { (factor, 1) }
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_every_form_of_kubernetes() {
        for (text, unit, steps) in [
            ("500m", Unit::Thousandths, 500),
            ("0.1", Unit::Thousandths, 100),
            (".5", Unit::Thousandths, 500),
            ("5.", Unit::Thousandths, 5000),
            ("+2", Unit::Thousandths, 2000),
            ("2", Unit::Thousandths, 2000),
            ("1e3", Unit::Thousandths, 1_000_000),
            ("1E-2", Unit::Thousandths, 10),
            ("1500000u", Unit::Thousandths, 1500),
            ("100n", Unit::Thousandths, 1),
            ("0.0001", Unit::Thousandths, 1),
            ("0.00000000000000000001", Unit::Thousandths, 1),
            ("0", Unit::Thousandths, 0),
            ("0.000", Unit::Thousandths, 0),
            ("1k", Unit::Thousandths, 1_000_000),
            ("4Gi", Unit::Bytes, 4 << 30),
            ("1.5Gi", Unit::Bytes, 3 << 29),
            ("100k", Unit::Bytes, 100_000),
            ("1e3", Unit::Bytes, 1000),
            ("1024", Unit::Bytes, 1024),
            ("500m", Unit::Bytes, 1),
            ("1.500000000000000000Pi", Unit::Bytes, 3 << 49),
            ("7Ei", Unit::Bytes, 7 << 60),
            ("9223372036854775807", Unit::Bytes, i64::MAX),
        ] {
            assert_eq!(parse(text, unit), Ok(steps), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong_and_what_would_be_right() {
        for (text, unit, part) in [
            ("", Unit::Bytes, "missing"),
            ("  ", Unit::Bytes, "missing"),
            ("-1", Unit::Bytes, "negative"),
            ("abc", Unit::Thousandths, "no digits"),
            ("m", Unit::Thousandths, "no digits"),
            (".", Unit::Thousandths, "no digits"),
            ("4Gx", Unit::Bytes, "unknown suffix \"Gx\""),
            ("4GB", Unit::Bytes, "unknown suffix \"GB\""),
            ("1e", Unit::Bytes, "unknown suffix \"e\""),
            ("1e+-3", Unit::Bytes, "unknown suffix"),
            ("1 Gi", Unit::Bytes, "unknown suffix \" Gi\""),
            ("8Ei", Unit::Bytes, "too large"),
            ("1e99999999999", Unit::Bytes, "too large"),
            ("99999999999999999999999999999999999999999999", Unit::Bytes, "too large"),
        ] {
            let message = parse(text, unit).unwrap_err().to_string();
            assert!(message.contains(part), "{text}: {message}");
        }
        let message = parse("4GB", Unit::Bytes).unwrap_err().to_string();
        assert!(message.contains("write for example \"512Mi\""), "{message}");
    }

    #[test]
    fn writes_the_shortest_exact_form_and_reads_it_back() {
        for (steps, unit, text) in [
            (0, Unit::Thousandths, "0"),
            (500, Unit::Thousandths, "500m"),
            (1500, Unit::Thousandths, "1500m"),
            (2000, Unit::Thousandths, "2"),
            (0, Unit::Bytes, "0"),
            (1000, Unit::Bytes, "1000"),
            (3 << 29, Unit::Bytes, "1536Mi"),
            (4 << 30, Unit::Bytes, "4Gi"),
            (1 << 60, Unit::Bytes, "1Ei"),
            (i64::MAX, Unit::Bytes, "9223372036854775807"),
        ] {
            assert_eq!(format(steps, unit), text);
            assert_eq!(parse(text, unit), Ok(steps), "{text}");
        }
    }
}
