//! What a backslash begins.

use super::{Parser, Refused, push_literal};

/// Of ASCII only, as in Go.
const DIGITS: &str = "0-9";
const SPACES: &str = r"\t\n\x0C\r ";
const WORDS: &str = "0-9A-Za-z_";

/// A class of Perl, as the crate `regex` writes it; and whether it is what is not in it.
pub(super) fn perl_class(text: &str) -> Option<(&'static str, bool)> {
    Some(match text.get(..2)? {
        r"\d" => (DIGITS, false),
        r"\D" => (DIGITS, true),
        r"\s" => (SPACES, false),
        r"\S" => (SPACES, true),
        r"\w" => (WORDS, false),
        r"\W" => (WORDS, true),
        _ => return None,
    })
}

/// `\pL`, `\p{Greek}`, `\P{^Greek}` in the other syntax, and the bytes that it takes; `None` for anything
/// else.
pub(super) fn unicode_class<'p>(text: &'p str) -> Result<Option<(String, usize)>, Refused<'p>> {
    const UNKNOWN: &str = "invalid character class range";
    let negative = match text.get(..2) {
        Some(r"\p") => false,
        Some(r"\P") => true,
        _ => return Ok(None),
    };
    let (name, length) = match text[2..].chars().next() {
        None => return Err(Refused(UNKNOWN, text)),
        Some('{') => match text.find('}') {
            None => return Err(Refused(UNKNOWN, text)),
            Some(end) => (&text[3..end], end + 1),
        },
        Some(letter) => {
            let end = 2 + letter.len_utf8();
            (&text[2..end], end)
        }
    };
    let (name, negative) = match name.strip_prefix('^') {
        Some(name) => (name, !negative),
        None => (name, negative),
    };
    let plain = !name.is_empty() && name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric());
    let written = format!("\\{}{{{name}}}", if negative { 'P' } else { 'p' });
    if !plain || (name != "Any" && regex::Regex::new(&written).is_err()) {
        return Err(Refused(UNKNOWN, &text[..length]));
    }
    Ok(Some((written, length)))
}

/// The character that an escape stands for, and the bytes that it takes.
pub(super) fn character<'p>(text: &'p str) -> Result<(char, usize), Refused<'p>> {
    let mut after = text[1..].char_indices().map(|(at, c)| (at + 1 + c.len_utf8(), c));
    let Some((end, c)) = after.next() else {
        return Err(Refused("trailing backslash at end of expression", ""));
    };
    let refused = |end: usize| Err(Refused("invalid escape sequence", &text[..end]));
    let simple = |code: u8| Ok((char::from(code), end));
    match c {
        'a' => simple(7),
        'f' => simple(12),
        'n' => simple(10),
        'r' => simple(13),
        't' => simple(9),
        'v' => simple(11),
        '0'..='7' => {
            let digits = text[1..].bytes().take(3).take_while(|b| matches!(b, b'0'..=b'7')).count();
            // A single one but zero refers back, which Go does not.
            if c != '0' && digits < 2 {
                return refused(end);
            }
            let code = u32::from_str_radix(&text[1..=digits], 8).ok().and_then(char::from_u32);
            code.map_or_else(|| refused(1 + digits), |code| Ok((code, 1 + digits)))
        }
        'x' if text[end..].starts_with('{') => {
            let digits: String =
                text[end + 1..].chars().take_while(char::is_ascii_hexdigit).collect();
            let last = end + 1 + digits.len();
            let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
            match (text[last..].chars().next(), code) {
                (Some('}'), Some(code)) => Ok((code, last + 1)),
                (next, _) => refused(last + next.map_or(0, char::len_utf8)),
            }
        }
        'x' => {
            let two: String = text[end..].chars().take(2).collect();
            let stop = end + two.len();
            match u8::from_str_radix(&two, 16) {
                Ok(code) if two.len() == 2 && !two.starts_with('+') => Ok((char::from(code), stop)),
                _ => refused(stop),
            }
        }
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => Ok((c, end)),
        _ => refused(end),
    }
}

impl<'p> Parser<'p> {
    pub(super) fn escape(&mut self) -> Result<(), Refused<'p>> {
        let text = self.rest;
        match text.get(..2) {
            Some(r"\A" | r"\z") => {
                self.copy(2);
                self.operand();
            }
            Some(r"\b" | r"\B") => {
                self.out.push_str(&format!("(?-u:{})", &text[..2]));
                self.skip(2);
                self.operand();
            }
            Some(r"\C") => return Err(Refused("invalid escape sequence", &text[..2])),
            Some(r"\Q") => {
                let quoted = &text[2..];
                let (quoted, rest) = quoted.split_once(r"\E").unwrap_or((quoted, ""));
                for c in quoted.chars() {
                    push_literal(&mut self.out, c);
                    self.operand();
                }
                self.rest = rest;
            }
            _ => {
                if let Some((written, length)) = unicode_class(text)? {
                    self.out.push_str(&written);
                    self.skip(length);
                    self.operand();
                } else if let Some((class, negative)) = perl_class(text) {
                    self.out.push_str(&format!("[{}{class}]", if negative { "^" } else { "" }));
                    self.skip(2);
                    self.operand();
                } else {
                    let (c, length) = character(text)?;
                    self.literal(c, length);
                }
            }
        }
        Ok(())
    }
}
