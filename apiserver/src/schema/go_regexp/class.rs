//! `[…]`: characters, ranges and classes, without the operators that the crate `regex` knows.

use super::escape::{character, perl_class, unicode_class};
use super::{Parser, Refused, push_literal};

const POSIX: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
    "space", "upper", "word", "xdigit",
];

impl<'p> Parser<'p> {
    pub(super) fn class(&mut self) -> Result<(), Refused<'p>> {
        let whole = self.rest;
        self.copy(1);
        if self.rest.starts_with('^') {
            self.copy(1);
        }
        let mut first = true;
        while first || !self.rest.starts_with(']') {
            first = false;
            if let Some((written, length)) = posix(self.rest)? {
                self.out.push_str(written);
                self.skip(length);
            } else if let Some((written, length)) = unicode_class(self.rest)? {
                self.out.push_str(&written);
                self.skip(length);
            } else if let Some((class, negative)) = perl_class(self.rest) {
                self.out.push_str(&format!("[{}{class}]", if negative { "^" } else { "" }));
                self.skip(2);
            } else {
                self.range(whole)?;
            }
        }
        self.copy(1);
        self.operand();
        Ok(())
    }

    /// One character, or two with all between them.
    fn range(&mut self, whole: &'p str) -> Result<(), Refused<'p>> {
        let text = self.rest;
        let low = self.class_character(whole)?;
        push_literal(&mut self.out, low);
        if !self.rest.starts_with('-') || self.rest.len() < 2 || self.rest.starts_with("-]") {
            return Ok(());
        }
        self.skip(1);
        let high = self.class_character(whole)?;
        if high < low {
            let part = &text[..text.len() - self.rest.len()];
            return Err(Refused("invalid character class range", part));
        }
        self.out.push('-');
        push_literal(&mut self.out, high);
        Ok(())
    }

    fn class_character(&mut self, whole: &'p str) -> Result<char, Refused<'p>> {
        let (c, length) = match self.rest.chars().next() {
            None => return Err(Refused("missing closing ]", whole)),
            Some('\\') => character(self.rest)?,
            Some(c) => (c, c.len_utf8()),
        };
        self.skip(length);
        Ok(c)
    }
}

/// `[:alpha:]` and its length; `None` for what does not look like one.
fn posix<'p>(text: &'p str) -> Result<Option<(&'p str, usize)>, Refused<'p>> {
    let Some(end) = text.strip_prefix("[:").and_then(|inside| inside.find(":]")) else {
        return Ok(None);
    };
    let length = "[:".len() + end + ":]".len();
    let name = text[2..2 + end].trim_start_matches('^');
    match POSIX.contains(&name) {
        true => Ok(Some((&text[..length], length))),
        false => Err(Refused("invalid character class range", &text[..length])),
    }
}
