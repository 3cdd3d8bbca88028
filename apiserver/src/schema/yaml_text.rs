//! What Go's YAML decoder says about a text: keys that are there twice, and why it is no YAML.
//!
//! Only for texts that were found wrong already.

use std::collections::HashSet;

use granit_parser::{ErrorKind, Event, Parser, ScanError};

/// A collection that is being read.
enum Open {
    List,
    Map {
        seen: HashSet<String>,
        /// The key whose value comes next, if it is a scalar's; and whether it was there before.
        key: Option<(String, bool)>,
        /// The next node is a value.
        value_next: bool,
    },
}

/// Where a collection begins, counted from 1.
type Line = usize;

/// What comes before a second document: Go's decoder reads one.
pub(super) fn first_document(text: &str) -> &str {
    let mut parser = Parser::new_from_str(text);
    let mut documents = 0;
    while let Some(Ok((event, span))) = parser.next_event() {
        documents += usize::from(matches!(event, Event::DocumentStart(..)));
        if documents > 1 {
            let (at, _) = text.char_indices().nth(span.start.index()).unwrap_or((text.len(), ' '));
            return &text[..at];
        }
    }
    text
}

/// `line 9: key "foo" already set in map` for each key that is there again, with the line of its value.
///
/// # Errors
/// Not YAML: as [`syntax_error`].
pub(super) fn repeated_keys(text: &str) -> Result<Vec<String>, String> {
    let mut findings = Vec::new();
    let mut open: Vec<(Open, Line)> = Vec::new();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| syntax_error(text, &error))?;
        let line = span.start.line();
        match event {
            Event::Scalar(value, ..) => scalar(&mut open, Some(&value), line, &mut findings),
            Event::Alias(_) => scalar(&mut open, None, line, &mut findings),
            Event::SequenceStart(..) => open.push((Open::List, line)),
            Event::MappingStart(..) => {
                let map = Open::Map { seen: HashSet::new(), key: None, value_next: false };
                open.push((map, line));
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let begun = open.pop().map_or(line, |(_, begun)| begun);
                scalar(&mut open, None, begun, &mut findings);
            }
            _ => {}
        }
    }
    Ok(findings)
}

/// A node is complete: a key of the collection around it, or the value of one.
fn scalar(open: &mut [(Open, Line)], text: Option<&str>, line: Line, findings: &mut Vec<String>) {
    let Some((Open::Map { seen, key, value_next }, _)) = open.last_mut() else {
        return;
    };
    if *value_next {
        if let Some((key, true)) = key.take() {
            findings.push(format!("line {line}: key {key:?} already set in map"));
        }
    } else {
        *key = text.map(|text| (text.to_owned(), !seen.insert(text.to_owned())));
    }
    *value_next = !*value_next;
}

/// In the words of libyaml, which Go's decoder is a translation of. Like it, lines are counted from 0
/// where the grammar is wrong and from 1 where a character is, and the first is not named.
fn syntax_error(text: &str, error: &ScanError) -> String {
    let open = matches!(
        error.kind(),
        ErrorKind::UnexpectedEofFlowMapping
            | ErrorKind::UnexpectedEofFlowSequence
            | ErrorKind::UnclosedFlowCollection { .. }
    );
    let at_end = error.marker().index() >= text.trim_end().chars().count();
    if (open || at_end)
        && let Some(why) = missing_at_end(text)
    {
        // The end is at the beginning of a line of its own.
        return format!("yaml: line {}: {why}", text.lines().count());
    }
    let (why, grammar) = match error.kind() {
        ErrorKind::ExpectedBlockMappingKey => ("did not find expected key", true),
        ErrorKind::ExpectedFlowMappingSeparator | ErrorKind::UnexpectedEofFlowMapping => {
            ("did not find expected ',' or '}'", true)
        }
        ErrorKind::ExpectedFlowSequenceSeparator => ("did not find expected ',' or ']'", true),
        ErrorKind::ExpectedBlockSequenceEntry => ("did not find expected '-' indicator", true),
        ErrorKind::ExpectedNodeContent
        | ErrorKind::UnexpectedEofFlowSequence
        | ErrorKind::UnclosedFlowCollection { .. } => ("did not find expected node content", true),
        ErrorKind::ExpectedDocumentStart => ("did not find expected <document start>", true),
        ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => {
            ("could not find expected ':'", false)
        }
        ErrorKind::UnexpectedCharacter { .. }
        | ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation => ("found character that cannot start any token", false),
        ErrorKind::UnclosedQuotedScalar => ("found unexpected end of stream", false),
        ErrorKind::UnknownQuotedScalarEscape => ("found unknown escape character", false),
        other => {
            let text = other.to_string();
            let why = text.split_once(", ").filter(|_| text.starts_with("while "));
            return located(error, why.map_or(text.as_str(), |(_, why)| why), false);
        }
    };
    located(error, why, grammar)
}

/// What is missing where the text ends within brackets that are not closed; `None` when it does not.
fn missing_at_end(text: &str) -> Option<&'static str> {
    let mut open = Vec::new();
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (Some(end), c) if c == end => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') if !open.is_empty() => quote = Some(c),
            (None, '[' | '{') => open.push(c),
            (None, ']' | '}') => drop(open.pop()),
            _ => {}
        }
    }
    let bracket = open.last().filter(|_| quote.is_none())?;
    Some(match (text.trim_end().ends_with(['[', '{', ',', ':']), bracket) {
        (true, _) => "did not find expected node content",
        (false, '[') => "did not find expected ',' or ']'",
        (false, _) => "did not find expected ',' or '}'",
    })
}

fn located(error: &ScanError, why: &str, grammar: bool) -> String {
    match error.marker().line().saturating_sub(1) {
        0 => format!("yaml: {why}"),
        line => format!("yaml: line {}: {why}", if grammar { line } else { line + 1 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_that_comes_again_is_told_with_the_line_of_its_value() {
        let text = "\na: 1\nb:\n- c: 1\n  c: 2\n- {d: 1, d: [2]}\nb:\n  e: 1\na: 3\na: 4\n";
        let wanted = [
            r#"line 5: key "c" already set in map"#,
            r#"line 6: key "d" already set in map"#,
            r#"line 8: key "b" already set in map"#,
            r#"line 9: key "a" already set in map"#,
            r#"line 10: key "a" already set in map"#,
        ];
        assert_eq!(repeated_keys(text), Ok(wanted.map(str::to_owned).to_vec()));
        assert_eq!(repeated_keys("a: 1\nb: {a: 1}\n? [a]\n: 1\n? [a]\n: 2\n"), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_yaml_is_told_as_libyaml_tells_it() {
        for (text, wanted) in [
            ("a: b: c", "yaml: mapping values are not allowed in this context"),
            ("x: 1\na: b: c", "yaml: line 2: mapping values are not allowed in this context"),
            ("a: [1, 2", "yaml: line 1: did not find expected ',' or ']'"),
            ("{", "yaml: line 1: did not find expected node content"),
            ("a: 1\nb: {c: 1\n", "yaml: line 2: did not find expected ',' or '}'"),
            ("a: 1\nb: {c: 1\nd: 2", "yaml: line 2: did not find expected ',' or '}'"),
            ("a: 1\n- b", "yaml: line 1: did not find expected key"),
            ("a: @b", "yaml: found character that cannot start any token"),
            ("a: 1\nb: \"c", "yaml: line 2: found unexpected end of stream"),
        ] {
            assert_eq!(repeated_keys(text), Err(wanted.to_owned()), "{text}");
        }
    }
}
