//! A rule, compiled.

use kube_cel::cel::IdedExpr;
use kube_cel::cel::common::ast::Expr;
use kube_cel::cel::parser::Parser;
use serde_json::Value;

use super::children::children;
use super::field_path::field_path;
use super::parser::{self, Parsed, Refused};

/// Length of an expression, in bytes. Kubernetes has no such limit; nobody writes rules as long.
const EXPRESSION_BYTES_MAX: usize = 32 << 10;

/// Levels of an expression: evaluating one takes a stack of as many frames.
const DEPTH_MAX: usize = 250;

/// Parsing recurses more deeply than evaluating.
const PARSER_STACK_BYTES: usize = 64 << 20;

#[derive(Clone, Debug)]
pub(in crate::schema) struct Rule {
    /// Or why it did not compile.
    pub(super) expression: Result<IdedExpr, String>,
    pub(super) message_expression: Option<IdedExpr>,
    /// As written.
    pub(super) text: String,
    pub(super) message: String,
    pub(super) reason: String,
    /// Appended to the path of the place.
    pub(super) field_path: Option<String>,
    /// A transition rule: it speaks of the old value too.
    pub(super) uses_old: bool,
    pub(super) optional_old: bool,
}

impl Rule {
    /// All rules of a schema; those without a text are passed over.
    pub(in crate::schema) fn all(schema: &Value) -> Vec<Rule> {
        let rules = schema.get("x-kubernetes-validations").and_then(Value::as_array);
        let text = |rule: &Value, name: &str| {
            rule.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let rules = rules.into_iter().flatten();
        let compiled = rules.map(|rule| {
            let expression = parse(&text(rule, "rule")).map(|parsed| parsed.expression);
            let message_expression = text(rule, "messageExpression");
            Rule {
                uses_old: expression.as_ref().is_ok_and(|expression| names(expression, "oldSelf")),
                expression,
                message_expression: match message_expression.trim().is_empty() {
                    true => None,
                    false => parse(&message_expression).ok().map(|parsed| parsed.expression),
                },
                text: text(rule, "rule"),
                message: text(rule, "message").trim().to_owned(),
                reason: text(rule, "reason"),
                field_path: field_path(&text(rule, "fieldPath"), schema),
                optional_old: rule.get("optionalOldSelf") == Some(&Value::Bool(true)),
            }
        });
        compiled.filter(|rule| !rule.text.trim().is_empty()).collect()
    }

    /// What errors call the rule.
    pub(super) fn name(&self) -> &str {
        if self.message.is_empty() { self.text.trim() } else { &self.message }
    }
}

/// Parses an expression; the error is in cel-go's words.
pub(super) fn parse(text: &str) -> Result<Parsed, String> {
    if text.len() > EXPRESSION_BYTES_MAX {
        return Err(format!("expression is longer than {EXPRESSION_BYTES_MAX} bytes"));
    }
    let text = text.to_owned();
    // The parsers work with a stack as deep as the expression, and one may give up with a panic.
    let thread = std::thread::Builder::new().stack_size(PARSER_STACK_BYTES);
    let parsed = thread.spawn(move || match parser::parse(&text) {
        Ok(parsed) if depth(&parsed.expression) > DEPTH_MAX => {
            Err(located(&text, 0, &format!("expression recursion limit exceeded: {DEPTH_MAX}")))
        }
        Ok(parsed) => Ok(parsed),
        Err(Refused::Macro(place, why)) => Err(located(&text, place, &why)),
        Err(Refused::Malformed) => Err(syntax_error(&text)),
    });
    let joined = thread_result(parsed);
    joined.unwrap_or_else(|| Err("expression cannot be parsed".to_owned()))
}

/// What the grammar's own parser says of a text that is no expression.
fn syntax_error(text: &str) -> String {
    let errors = match Parser::new().enable_optional_syntax(true).parse(text) {
        Ok(_) => return located(text, 0, "Syntax error: unexpected input"),
        Err(errors) => errors,
    };
    let told = errors.errors.iter().map(|error| {
        let (line, column) = (error.pos.0.max(1) as usize, error.pos.1.max(1) as usize);
        drawn(text, line, column, &error.msg)
    });
    told.collect::<Vec<_>>().join("\n")
}

fn thread_result<T>(spawned: std::io::Result<std::thread::JoinHandle<T>>) -> Option<T> {
    spawned.ok()?.join().ok()
}

/// An error at a place, a byte offset, drawn as cel-go does.
pub(super) fn located(text: &str, place: usize, message: &str) -> String {
    let before = text.get(..place).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    drawn(text, line, column, message)
}

/// Lines and columns count from one.
fn drawn(text: &str, line: usize, column: usize, message: &str) -> String {
    let source = text.lines().nth(line - 1).unwrap_or_default().replace('\t', " ");
    let dots = ".".repeat(column - 1);
    format!("ERROR: <input>:{line}:{column}: {message}\n | {source}\n | {dots}^")
}

fn depth(expression: &IdedExpr) -> usize {
    let (mut deepest, mut waiting) = (0, vec![(expression, 1)]);
    while let Some((at, depth)) = waiting.pop() {
        deepest = deepest.max(depth);
        waiting.extend(children(at).into_iter().map(|child| (child, depth + 1)));
    }
    deepest
}

/// Whether an expression has this identifier.
pub(super) fn names(expression: &IdedExpr, name: &str) -> bool {
    let mut waiting = vec![expression];
    while let Some(at) = waiting.pop() {
        if matches!(&at.expr, Expr::Ident(found) if found == name) {
            return true;
        }
        waiting.extend(children(at));
    }
    false
}
