//! The grammar of label selectors, read as apimachinery's `labels.Parse` reads it, with its words
//! for what it does not take.

use super::{LabelRequirement, LabelTest};
use crate::schema::go::quoted;

const OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    End,
    Identifier,
    In,
    NotIn,
    Not,
    Equal,
    NotEqual,
    Greater,
    Less,
    Comma,
    Open,
    Close,
    Error,
}

pub(super) fn parse(text: &str) -> Result<Vec<LabelRequirement>, String> {
    let mut parser = Parser { tokens: tokens(text), at: 0 };
    let mut requirements = Vec::new();
    loop {
        match parser.look_value() {
            (Token::Identifier | Token::Not, _) => {
                let requirement = parser.requirement();
                requirements.push(
                    requirement.map_err(|why| format!("unable to parse requirement: {why}"))?,
                );
                match parser.take_value() {
                    (Token::End, _) => return Ok(requirements),
                    (Token::Comma, _) => {
                        let (token, text) = parser.look_value();
                        // A comma at the end is an error to Kubernetes too.
                        if !matches!(token, Token::Identifier | Token::Not) {
                            return Err(format!("found '{text}', expected: identifier after ','"));
                        }
                    }
                    (_, text) => {
                        return Err(format!("found '{text}', expected: ',' or 'end of string'"));
                    }
                }
            }
            (Token::End, _) => return Ok(requirements),
            (_, text) => {
                return Err(format!("found '{text}', expected: !, identifier, or 'end of string'"));
            }
        }
    }
}

/// The last one is the end of the text.
fn tokens(text: &str) -> Vec<(Token, &str)> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let Some(first) = rest.chars().next() else {
            tokens.push((Token::End, ""));
            return tokens;
        };
        let (token, length) = if is_special(first) {
            special(rest)
        } else {
            let ends = |c: char| is_special(c) || matches!(c, ' ' | '\t' | '\r' | '\n');
            let length = rest.find(ends).unwrap_or(rest.len());
            let token = match &rest[..length] {
                "in" => Token::In,
                "notin" => Token::NotIn,
                _ => Token::Identifier,
            };
            (token, length)
        };
        let (lexeme, after) = rest.split_at(length);
        tokens.push((token, lexeme));
        rest = after;
    }
}

fn is_special(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn special(rest: &str) -> (Token, usize) {
    let token = match rest.as_bytes() {
        [b'=', b'=', ..] => return (Token::Equal, 2),
        [b'!', b'=', ..] => return (Token::NotEqual, 2),
        [b'=', ..] => Token::Equal,
        [b'!', ..] => Token::Not,
        [b'(', ..] => Token::Open,
        [b')', ..] => Token::Close,
        [b',', ..] => Token::Comma,
        [b'>', ..] => Token::Greater,
        [b'<', ..] => Token::Less,
        _ => Token::Error,
    };
    (token, 1)
}

struct Parser<'t> {
    tokens: Vec<(Token, &'t str)>,
    at: usize,
}

impl<'t> Parser<'t> {
    fn look(&self) -> (Token, &'t str) {
        self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    /// `in` and `notin` are operators only where an operator is expected.
    fn look_value(&self) -> (Token, &'t str) {
        match self.look() {
            (Token::In | Token::NotIn, text) => (Token::Identifier, text),
            other => other,
        }
    }

    fn take(&mut self) -> (Token, &'t str) {
        let token = self.look();
        self.at += 1;
        token
    }

    fn take_value(&mut self) -> (Token, &'t str) {
        let token = self.look_value();
        self.at += 1;
        token
    }

    fn requirement(&mut self) -> Result<LabelRequirement, String> {
        let (mut token, mut key) = self.take_value();
        let absent = token == Token::Not;
        if absent {
            (token, key) = self.take_value();
        }
        if token != Token::Identifier {
            return Err(format!("found '{key}', expected: identifier"));
        }
        let why = crate::meta::qualified_name_errors(key).join("; ");
        if !why.is_empty() {
            return Err(format!("<nil>: Invalid value: {}: {why}", quoted(key)));
        }
        let test = match self.look_value().0 {
            _ if absent => LabelTest::Absent,
            Token::End | Token::Comma => LabelTest::Exists,
            _ => self.test(key)?,
        };
        Ok(LabelRequirement { key: key.to_owned(), test })
    }

    fn test(&mut self, key: &str) -> Result<LabelTest, String> {
        let (operator, text) = self.take();
        let mut values = match operator {
            Token::In | Token::NotIn => self.values()?,
            Token::Equal | Token::NotEqual | Token::Greater | Token::Less => {
                vec![self.exact_value()?.to_owned()]
            }
            _ => return Err(format!("found '{text}', expected: {OPERATORS}")),
        };
        values.sort_unstable();
        values.dedup();
        let mut wrong = Vec::new();
        if values.is_empty() {
            let why = "for 'in', 'notin' operators, values set can't be empty";
            wrong.push(format!("values: Invalid value: []: {why}"));
        }
        let number = values.first().and_then(|value| value.parse::<i64>().ok());
        if matches!(operator, Token::Greater | Token::Less) && number.is_none() {
            let why = "for 'Gt', 'Lt' operators, the value must be an integer";
            wrong.push(format!("values[0]: Invalid value: {}: {why}", quoted(&values[0])));
        }
        for (at, value) in values.iter().enumerate() {
            let why = crate::meta::label_value_errors(value).join("; ");
            if !why.is_empty() {
                let value = quoted(value);
                wrong.push(format!("values[{at}][{key}]: Invalid value: {value}: {why}"));
            }
        }
        match (wrong.len(), operator, number) {
            (0, Token::In | Token::Equal, _) => Ok(LabelTest::In(values)),
            (0, Token::Greater, Some(number)) => Ok(LabelTest::Greater(number)),
            (0, Token::Less, Some(number)) => Ok(LabelTest::Less(number)),
            (0, ..) => Ok(LabelTest::NotIn(values)),
            (1, ..) => Err(wrong.remove(0)),
            _ => Err(format!("[{}]", wrong.join(", "))),
        }
    }

    fn exact_value(&mut self) -> Result<&'t str, String> {
        match self.look_value() {
            (Token::End | Token::Comma, _) => Ok(""),
            (Token::Identifier, text) => {
                self.at += 1;
                Ok(text)
            }
            (_, text) => Err(format!("found '{text}', expected: identifier")),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        let (token, text) = self.take_value();
        if token != Token::Open {
            return Err(format!("found '{text}' expected: '('"));
        }
        let mut values: Vec<String> = Vec::new();
        match self.look_value() {
            (Token::Close, _) => {
                self.at += 1;
                return Ok(values);
            }
            (Token::Identifier | Token::Comma, _) => {}
            (_, text) => return Err(format!("found '{text}', expected: ',', ')' or identifier")),
        }
        loop {
            match self.take_value() {
                (Token::Identifier, text) => {
                    values.push(text.to_owned());
                    match self.look_value() {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => break,
                        (_, text) => return Err(format!("found '{text}', expected: ',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    // Nothing between two commas, or at an end, is the empty value.
                    if values.is_empty() {
                        values.push(String::new());
                    }
                    match self.look_value().0 {
                        Token::Close => {
                            values.push(String::new());
                            break;
                        }
                        Token::Comma => {
                            self.at += 1;
                            values.push(String::new());
                        }
                        _ => {}
                    }
                }
                (_, text) => return Err(format!("found '{text}', expected: ',', or identifier")),
            }
        }
        self.at += 1;
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_wrong_is_said_in_kubernetes_words() {
        for (text, message) in [
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            ("a,", "found '', expected: identifier after ','"),
            ("=x", "found '=', expected: !, identifier, or 'end of string'"),
            (
                "a b",
                "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
            ),
            ("!", "unable to parse requirement: found '', expected: identifier"),
            ("a in", "unable to parse requirement: found '' expected: '('"),
            ("a in x", "unable to parse requirement: found 'x' expected: '('"),
            ("a in (x", "unable to parse requirement: found '', expected: ',' or ')'"),
            (
                "a in (=)",
                "unable to parse requirement: found '=', expected: ',', ')' or identifier",
            ),
            ("a=(", "unable to parse requirement: found '(', expected: identifier"),
            (
                "a in ()",
                "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' \
                 operators, values set can't be empty",
            ),
            (
                "a>x",
                "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' \
                 operators, the value must be an integer",
            ),
            ("!a=b", "found '=', expected: ',' or 'end of string'"),
        ] {
            assert_eq!(parse(text).unwrap_err(), message, "{text}");
        }
    }
}
