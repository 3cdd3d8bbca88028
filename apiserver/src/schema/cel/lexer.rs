//! From the text of an expression to tokens. What is not an expression at all is told by the
//! grammar's own parser (see `rule`), so that an error here needs no words.

use kube_cel::cel::common::ast::LiteralValue;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Ident(String),
    Literal(LiteralValue),
    /// An operator or a bracket.
    Mark(&'static str),
    End,
}

/// The text is no sequence of tokens, or no expression.
#[derive(Debug, PartialEq)]
pub(super) struct Malformed;

/// Longest first.
const MARKS: [&str; 26] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",",
    "(", ")", "[", "]", "{", "}", "=", "`",
];

/// Words that no variable may have as its name.
const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

pub(super) fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

/// Tokens with the places where they start, in bytes; the last one is `End`.
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, Malformed> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(next) = text[at..].chars().next() {
        let rest = &text[at..];
        if next.is_whitespace() {
            at += next.len_utf8();
        } else if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if let Some((length, literal)) = quoted(rest)? {
            tokens.push((at, Token::Literal(literal)));
            at += length;
        } else if next.is_ascii_digit() || (next == '.' && rest[1..].starts_with(is_digit)) {
            let (length, literal) = number(rest)?;
            tokens.push((at, Token::Literal(literal)));
            at += length;
        } else if next.is_ascii_alphabetic() || next == '_' {
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            tokens.push((at, word(&rest[..length])));
            at += length;
        } else {
            let mark = MARKS.iter().find(|mark| rest.starts_with(**mark)).ok_or(Malformed)?;
            tokens.push((at, Token::Mark(mark)));
            at += mark.len();
        }
    }
    tokens.push((text.len(), Token::End));
    Ok(tokens)
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

fn word(text: &str) -> Token {
    match text {
        "true" => Token::Literal(LiteralValue::Boolean(true.into())),
        "false" => Token::Literal(LiteralValue::Boolean(false.into())),
        "null" => Token::Literal(LiteralValue::Null),
        "in" => Token::Mark("in"),
        name => Token::Ident(name.to_owned()),
    }
}

fn number(text: &str) -> Result<(usize, LiteralValue), Malformed> {
    let digits = |text: &str| text.find(|c| !is_digit(c)).unwrap_or(text.len());
    if let Some(hex) = text.strip_prefix("0x") {
        let length = hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
        return whole(&hex[..length], 16, &hex[length..], length + 2);
    }
    let mut length = digits(text);
    let mut fraction = false;
    if let Some(rest) = text[length..].strip_prefix('.')
        && rest.starts_with(is_digit)
    {
        length += 1 + digits(rest);
        fraction = true;
    }
    if let Some(rest) = text[length..].strip_prefix(['e', 'E']) {
        let signed = rest.strip_prefix(['+', '-']).unwrap_or(rest);
        if signed.starts_with(is_digit) {
            length += 1 + (rest.len() - signed.len()) + digits(signed);
            fraction = true;
        }
    }
    if fraction {
        let value: f64 = text[..length].parse().map_err(|_| Malformed)?;
        return Ok((length, LiteralValue::Double(value.into())));
    }
    whole(&text[..length], 10, &text[length..], length)
}

fn whole(
    digits: &str,
    radix: u32,
    rest: &str,
    length: usize,
) -> Result<(usize, LiteralValue), Malformed> {
    if rest.starts_with(['u', 'U']) {
        let value = u64::from_str_radix(digits, radix).map_err(|_| Malformed)?;
        return Ok((length + 1, LiteralValue::UInt(value.into())));
    }
    // The least number is written with its sign, which is no part of this token.
    let value = u64::from_str_radix(digits, radix).map_err(|_| Malformed)?;
    let value = match i64::try_from(value) {
        Ok(value) => value,
        Err(_) if value == i64::MIN.unsigned_abs() => i64::MIN,
        Err(_) => return Err(Malformed),
    };
    Ok((length, LiteralValue::Int(value.into())))
}

/// A string or bytes, if one begins here.
fn quoted(text: &str) -> Result<Option<(usize, LiteralValue)>, Malformed> {
    let prefix = text.find(['"', '\'']).filter(|prefix| *prefix <= 2);
    let Some(prefix) = prefix else { return Ok(None) };
    let flags = text[..prefix].to_ascii_lowercase();
    let (raw, bytes) = match flags.as_str() {
        "" => (false, false),
        "r" => (true, false),
        "b" => (false, true),
        "rb" | "br" => (true, true),
        _ => return Ok(None),
    };
    let rest = &text[prefix..];
    let one = &rest[..1];
    let triple = one.repeat(3);
    let quote = if rest.starts_with(&triple) { triple.as_str() } else { one };
    let body = &rest[quote.len()..];
    let mut content = Content { text: Vec::new(), bytes };
    let mut at = 0;
    loop {
        let left = body.get(at..).ok_or(Malformed)?;
        if left.starts_with(quote) {
            let length = prefix + 2 * quote.len() + at;
            return content.literal().map(|literal| Some((length, literal)));
        }
        let next = left.chars().next().ok_or(Malformed)?;
        if next == '\n' && quote.len() == 1 {
            return Err(Malformed);
        }
        if next == '\\' && !raw {
            at += 1 + content.escape(&left[1..])?;
        } else {
            content.text.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes());
            at += next.len_utf8();
        }
    }
}

struct Content {
    text: Vec<u8>,
    bytes: bool,
}

impl Content {
    fn literal(self) -> Result<LiteralValue, Malformed> {
        if self.bytes {
            return Ok(LiteralValue::Bytes(self.text.into()));
        }
        let text = String::from_utf8(self.text).map_err(|_| Malformed)?;
        Ok(LiteralValue::String(text.into()))
    }

    /// What follows a backslash; how long it is.
    fn escape(&mut self, text: &str) -> Result<usize, Malformed> {
        let kind = text.chars().next().ok_or(Malformed)?;
        let plain = match kind {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 11,
            '\\' | '\'' | '"' | '`' | '?' => kind as u8,
            _ => 0,
        };
        if plain != 0 {
            self.text.push(plain);
            return Ok(1);
        }
        let (skip, length, radix) = match kind {
            'x' | 'X' => (1, 2, 16),
            'u' => (1, 4, 16),
            'U' => (1, 8, 16),
            '0'..='3' => (0, 3, 8),
            _ => return Err(Malformed),
        };
        let digits = text.get(skip..skip + length).ok_or(Malformed)?;
        let code = u32::from_str_radix(digits, radix).map_err(|_| Malformed)?;
        if self.bytes {
            self.text.push(u8::try_from(code).map_err(|_| Malformed)?);
        } else {
            let c = char::from_u32(code).ok_or(Malformed)?;
            self.text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        Ok(skip + length)
    }
}
