//! Patterns as Go's `regexp` reads them: kube-apiserver's schemas and rules are written for it.
//!
//! [`translate`] refuses what Go refuses, in its words, and writes the rest in the syntax of the crate
//! `regex`, which differs: `\d`, `\s`, `\w` and `\b` mean ASCII in Go, classes know no operators, a lone `{`
//! is a brace, `\Q…\E` quotes, and groups may share a name.

mod class;
mod escape;

/// As in Go: more repetitions than this are refused, nested ones multiplied.
const REPEAT_MAX: u32 = 1000;

/// The pattern in the syntax of the crate `regex`.
///
/// # Errors
/// What Go's parser says, such as "error parsing regexp: missing closing ): `(a`".
pub(crate) fn translate(pattern: &str) -> Result<String, String> {
    let mut parser = Parser {
        whole: pattern,
        rest: pattern,
        out: String::new(),
        groups: vec![Group::default()],
    };
    match parser.run() {
        Ok(()) => Ok(parser.out),
        Err(Refused(what, part)) => Err(format!("error parsing regexp: {what}: `{part}`")),
    }
}

/// What is wrong, and the part of the pattern that is.
struct Refused<'p>(&'static str, &'p str);

#[derive(Default)]
struct Group {
    /// How many repetitions the last operand stands for; `None` where there is none to repeat.
    operand: Option<u32>,
    /// The most that any operand of the group so far stands for.
    most: u32,
}

struct Parser<'p> {
    whole: &'p str,
    rest: &'p str,
    out: String,
    /// Those that are open, the whole pattern first.
    groups: Vec<Group>,
}

impl<'p> Parser<'p> {
    fn run(&mut self) -> Result<(), Refused<'p>> {
        // Where the repetition operator begins that ends where the rest begins.
        let mut last: Option<&'p str> = None;
        while let Some(next) = self.rest.chars().next() {
            let before = self.rest;
            let mut repeated = None;
            match next {
                '(' if before.starts_with("(?") => self.flags()?,
                '(' => self.open("(", 1),
                ')' => self.close()?,
                '|' => {
                    self.group().operand = None;
                    self.copy(1);
                }
                '[' => self.class()?,
                '*' | '+' | '?' => {
                    self.copy(1);
                    self.repeat(before, last, None)?;
                    repeated = Some(before);
                }
                '{' => match counts(before) {
                    Some((least, most, length)) => {
                        let text = &before[..length];
                        let too_many =
                            |count: Option<u32>| count.is_none_or(|count| count > REPEAT_MAX);
                        let upside_down = matches!((least, most), (Some(least), Some(Some(most))) if least > most);
                        if too_many(least) || most.is_some_and(too_many) || upside_down {
                            return Err(Refused("invalid repeat count", text));
                        }
                        self.copy(length);
                        let times = most.flatten().or(least).unwrap_or(0);
                        self.repeat(before, last, Some(times))?;
                        repeated = Some(before);
                    }
                    None => self.literal('{', 1),
                },
                '\\' => self.escape()?,
                '^' | '$' | '.' => {
                    self.copy(1);
                    self.operand();
                }
                other => self.literal(other, other.len_utf8()),
            }
            last = repeated;
        }
        match self.groups.len() {
            1 => Ok(()),
            _ => Err(Refused("missing closing )", self.whole)),
        }
    }

    fn group(&mut self) -> &mut Group {
        // The whole pattern's is never closed.
        if self.groups.is_empty() {
            self.groups.push(Group::default());
        }
        let last = self.groups.len() - 1;
        &mut self.groups[last]
    }

    /// Something that can be repeated was read.
    fn operand(&mut self) {
        let group = self.group();
        group.operand = Some(1);
        group.most = group.most.max(1);
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
    }

    /// Takes over what means the same in both syntaxes.
    fn copy(&mut self, bytes: usize) {
        self.out.push_str(&self.rest[..bytes]);
        self.skip(bytes);
    }

    fn literal(&mut self, c: char, bytes: usize) {
        push_literal(&mut self.out, c);
        self.skip(bytes);
        self.operand();
    }

    fn open(&mut self, written: &str, bytes: usize) {
        self.out.push_str(written);
        self.skip(bytes);
        self.groups.push(Group::default());
    }

    fn close(&mut self) -> Result<(), Refused<'p>> {
        if self.groups.len() < 2 {
            return Err(Refused("unexpected )", self.whole));
        }
        self.copy(1);
        let inner = self.groups.pop().map_or(1, |group| group.most.max(1));
        let group = self.group();
        group.operand = Some(inner);
        group.most = group.most.max(inner);
        Ok(())
    }

    /// A repetition operator was read that began at `before`; `times` of a counted one.
    fn repeat(
        &mut self,
        before: &'p str,
        last: Option<&'p str>,
        times: Option<u32>,
    ) -> Result<(), Refused<'p>> {
        if self.rest.starts_with('?') {
            self.copy(1);
        }
        let after = self.rest.len();
        let text = |from: &'p str| &from[..from.len() - after];
        if let Some(last) = last {
            return Err(Refused("invalid nested repetition operator", text(last)));
        }
        let group = self.group();
        let Some(operand) = group.operand else {
            return Err(Refused("missing argument to repetition operator", text(before)));
        };
        let product = operand.saturating_mul(times.unwrap_or(1).max(1));
        if product > REPEAT_MAX {
            return Err(Refused("invalid repeat count", text(before)));
        }
        group.operand = Some(product);
        group.most = group.most.max(product);
        Ok(())
    }

    /// `(?flags)`, `(?flags:` and named groups, which lose their names.
    fn flags(&mut self) -> Result<(), Refused<'p>> {
        let text = self.rest;
        let named =
            text.starts_with("(?P<") && text.len() > 4 || text.starts_with("(?<") && text.len() > 3;
        if named {
            let Some(end) = text.find('>') else {
                return Err(Refused("invalid named capture", text));
            };
            let name = text[..end].trim_start_matches("(?P<").trim_start_matches("(?<");
            if name.is_empty() || !name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric()) {
                return Err(Refused("invalid named capture", &text[..=end]));
            }
            self.open("(", end + 1);
            return Ok(());
        }
        let (mut negative, mut any) = (false, false);
        for (at, c) in text.char_indices().skip(2) {
            let end = at + c.len_utf8();
            match c {
                'i' | 'm' | 's' | 'U' => any = true,
                '-' if !negative => (negative, any) = (true, false),
                ':' | ')' if !negative || any => {
                    let group = if c == ':' { Some(Group::default()) } else { None };
                    // `(?)` changes nothing, and is none in the other syntax.
                    if end > "(?)".len() || c == ':' {
                        self.out.push_str(&text[..end]);
                    }
                    self.skip(end);
                    self.groups.extend(group);
                    return Ok(());
                }
                _ => return Err(Refused("invalid or unsupported Perl syntax", &text[..end])),
            }
        }
        Err(Refused("invalid or unsupported Perl syntax", text))
    }
}

/// Writes a character that stands for itself, in or out of a class.
fn push_literal(out: &mut String, c: char) {
    if c.is_ascii_alphanumeric() || !c.is_ascii() {
        out.push(c);
    } else {
        out.push_str(&format!("\\x{{{:X}}}", u32::from(c)));
    }
}

/// `{least}`, `{least,}`, `{least,most}` and its length in bytes; `None` for what is none of them. A
/// number is `None` when it is too large to count to; `most` is `Some(None)` then, and absent where nothing
/// is said.
type Counts = (Option<u32>, Option<Option<u32>>, usize);

fn counts(text: &str) -> Option<Counts> {
    let end = text.find('}')?;
    let inside = &text[1..end];
    // Leading zeros are none of Go's numbers.
    let number = |digits: &str| -> Option<Option<u32>> {
        let legal = !digits.is_empty()
            && digits.bytes().all(|b| b.is_ascii_digit())
            && (digits.len() == 1 || !digits.starts_with('0'));
        legal.then(|| digits.parse().ok())
    };
    let (least, most) = match inside.split_once(',') {
        None => (number(inside)?, None),
        Some((least, "")) => (number(least)?, None),
        Some((least, most)) => (number(least)?, Some(number(most)?)),
    };
    Some((least, most, end + 1))
}

#[cfg(test)]
mod tests;
