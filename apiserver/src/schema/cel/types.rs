//! The types of expressions, as far as a schema tells them, so that a rule that cannot hold is
//! refused when it is defined and not when it is first needed.

use std::rc::Rc;

use kube_cel::cel::IdedExpr;
use kube_cel::cel::common::ast::operators as op;
use kube_cel::cel::common::ast::{CallExpr, Expr, LiteralValue, SelectExpr};
use serde_json::Value;

use super::children::children;
use super::functions::is_namespace;
use super::rule::located;
use super::value::escape;

#[derive(Clone, Debug)]
pub(super) enum Type<'s> {
    /// Not known until the expression is evaluated.
    Any,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp,
    List(Rc<Type<'s>>),
    Map(Rc<Type<'s>>),
    /// Of the properties of a schema, and whether it is a resource with a type and names.
    Object(&'s Value, bool),
    /// The names in metadata.
    Names,
}

/// The functions there are; a name that is not here is a mistake.
const FUNCTIONS: &str = " size contains startsWith endsWith matches int uint double string bytes bool dyn type duration \
    timestamp getFullYear getMonth getDayOfYear getDayOfMonth getDate getDayOfWeek getHours getMinutes getSeconds \
    getMilliseconds value hasValue or orValue of none ofNonZeroValue optMap optFlatMap charAt indexOf lastIndexOf \
    lowerAscii upperAscii replace split substring trim join quote reverse isSorted sum min max flatten distinct slice \
    sort range first last find findAll url isURL getScheme getHost getHostname getPort getEscapedPath getQuery ip isIP \
    cidr isCIDR family isUnspecified isLoopback isLinkLocalMulticast isLinkLocalUnicast isGlobalUnicast isCanonical \
    containsIP containsCIDR prefixLength masked quantity isQuantity isInteger asInteger asApproximateFloat sign add sub \
    isGreaterThan isLessThan compareTo semver isSemver major minor patch format validate named equivalent intersects \
    greatest least ceil floor round trunc abs isInf isNaN isFinite bitOr bitAnd bitXor bitNot bitShiftLeft bitShiftRight \
    encode decode escapeKey sqrt ";

type Checked<'s> = Result<Type<'s>, String>;

impl<'s> Type<'s> {
    pub(super) fn of(schema: &'s Value, is_resource: bool) -> Type<'s> {
        let flag = |name: &str| schema.get(name) == Some(&Value::Bool(true));
        if flag("x-kubernetes-int-or-string") {
            return Type::Any;
        }
        let format = schema.get("format").and_then(Value::as_str).unwrap_or_default();
        match (schema.get("type").and_then(Value::as_str).unwrap_or_default(), format) {
            ("boolean", _) => Type::Bool,
            ("integer", _) => Type::Int,
            ("number", _) => Type::Double,
            ("string", "byte") => Type::Bytes,
            ("string", "duration") => Type::Duration,
            ("string", "date" | "date-time" | "datetime") => Type::Timestamp,
            ("string", _) => Type::String,
            ("array", _) => Type::List(Rc::new(match schema.get("items") {
                Some(items) => Type::of(items, false),
                None => Type::Any,
            })),
            ("object", _) => match schema.get("additionalProperties") {
                Some(values) if values.is_object() => Type::Map(Rc::new(Type::of(values, false))),
                Some(Value::Bool(true)) => Type::Map(Rc::new(Type::Any)),
                _ if schema.get("properties").is_none()
                    && flag("x-kubernetes-preserve-unknown-fields")
                    && !is_resource =>
                {
                    Type::Any
                }
                _ => Type::Object(schema, is_resource || flag("x-kubernetes-embedded-resource")),
            },
            _ => Type::Any,
        }
    }

    fn name(&self) -> String {
        match self {
            Type::Any => "dyn".into(),
            Type::Null => "null".into(),
            Type::Bool => "bool".into(),
            Type::Int => "int".into(),
            Type::Uint => "uint".into(),
            Type::Double => "double".into(),
            Type::String => "string".into(),
            Type::Bytes => "bytes".into(),
            Type::Duration => "google.protobuf.Duration".into(),
            Type::Timestamp => "google.protobuf.Timestamp".into(),
            Type::List(items) => format!("list({})", items.name()),
            Type::Map(values) => format!("map(string, {})", values.name()),
            Type::Object(..) | Type::Names => "object".into(),
        }
    }

    fn is_scalar(&self) -> bool {
        matches!(
            self,
            Type::Bool | Type::Int | Type::Uint | Type::Double | Type::String | Type::Bytes
        )
    }
}

/// Names that expressions may use here, innermost first.
struct Names<'n, 's> {
    name: &'n str,
    type_: Type<'s>,
    outer: Option<&'n Names<'n, 's>>,
}

/// The type of an expression about `self_`; errors are in cel-go's words.
pub(super) fn check<'s>(
    expression: &IdedExpr,
    text: &str,
    self_: &Type<'s>,
    optional_old: bool,
) -> Checked<'s> {
    let old = if optional_old { Type::Any } else { self_.clone() };
    let outer = Names { name: "oldSelf", type_: old, outer: None };
    let names = Names { name: "self", type_: self_.clone(), outer: Some(&outer) };
    Checker { text }.type_of(expression, &names)
}

struct Checker<'t> {
    text: &'t str,
}

impl<'t> Checker<'t> {
    fn type_of<'s>(&self, expression: &IdedExpr, names: &Names<'_, 's>) -> Checked<'s> {
        match &expression.expr {
            Expr::Literal(literal) => Ok(match literal {
                LiteralValue::Boolean(_) => Type::Bool,
                LiteralValue::Bytes(_) => Type::Bytes,
                LiteralValue::Double(_) => Type::Double,
                LiteralValue::Int(_) => Type::Int,
                LiteralValue::Null => Type::Null,
                LiteralValue::String(_) => Type::String,
                LiteralValue::UInt(_) => Type::Uint,
            }),
            Expr::Ident(name) => self.ident(name, names),
            Expr::Select(select) => self.select(select, names),
            Expr::Call(call) => self.call(call, names),
            Expr::Comprehension(of) => {
                let item = match self.type_of(&of.iter_range, names)? {
                    Type::List(items) => (*items).clone(),
                    Type::Map(_) => Type::String,
                    other if other.is_scalar() => {
                        let message = format!(
                            "expression of type '{}' cannot be range of a comprehension (must be list, map, or dynamic)",
                            other.name()
                        );
                        return self.error("", &message);
                    }
                    _ => Type::Any,
                };
                let accu = self.type_of(&of.accu_init, names)?;
                let item = Names { name: &of.iter_var, type_: item, outer: Some(names) };
                let type_ = accu.clone();
                let inner = Names { name: &of.accu_var, type_, outer: Some(&item) };
                let step = self.type_of(&of.loop_step, &inner)?;
                match (accu, &of.result.expr) {
                    (_, Expr::Call(_)) | (Type::Bool, _) => Ok(Type::Bool),
                    _ => Ok(step),
                }
            }
            Expr::List(list) => {
                let mut of_items = None;
                for element in &list.elements {
                    of_items.get_or_insert(self.type_of(element, names)?);
                }
                Ok(Type::List(Rc::new(of_items.unwrap_or(Type::Any))))
            }
            Expr::Map(_) => {
                children(expression)
                    .into_iter()
                    .try_for_each(|part| self.type_of(part, names).map(drop))?;
                Ok(Type::Map(Rc::new(Type::Any)))
            }
            Expr::Struct(of) => {
                let message =
                    format!("undeclared reference to '{}' (in container '')", of.type_name);
                self.error(&of.type_name, &message)
            }
            Expr::Unspecified => self.error("", "unspecified expression"),
        }
    }

    fn ident<'s>(&self, name: &str, names: &Names<'_, 's>) -> Checked<'s> {
        let mut at = Some(names);
        while let Some(names) = at {
            if names.name == name {
                return Ok(names.type_.clone());
            }
            at = names.outer;
        }
        let is_type = matches!(
            name,
            "bool"
                | "int"
                | "uint"
                | "double"
                | "string"
                | "bytes"
                | "list"
                | "map"
                | "null_type"
                | "type"
        );
        if is_type {
            return Ok(Type::Any);
        }
        self.error(name, &format!("undeclared reference to '{name}' (in container '')"))
    }

    fn select<'s>(&self, select: &SelectExpr, names: &Names<'_, 's>) -> Checked<'s> {
        let field = select.field.as_str();
        let found = match self.type_of(&select.operand, names)? {
            Type::Object(schema, is_resource) => of_property(schema, field, is_resource),
            Type::Names => matches!(field, "name" | "generateName").then_some(Type::String),
            Type::Map(values) => Some((*values).clone()),
            Type::Any => Some(Type::Any),
            other => {
                let message = format!("type '{}' does not support field selection", other.name());
                return self.error(&format!(".{field}"), &message);
            }
        };
        match (found, select.test) {
            (None, _) => self.error(&format!(".{field}"), &format!("undefined field '{field}'")),
            (Some(_), true) => Ok(Type::Bool),
            (Some(type_), false) => Ok(type_),
        }
    }

    fn call<'s>(&self, call: &CallExpr, names: &Names<'_, 's>) -> Checked<'s> {
        let name = call.func_name.as_str();
        let target = call.target.as_deref().filter(|target| is_namespace(target).is_none());
        let parts = target.into_iter().chain(&call.args);
        let of_parts =
            parts.map(|part| self.type_of(part, names)).collect::<Result<Vec<_>, _>>()?;
        match (name, of_parts.as_slice()) {
            (op::LOGICAL_AND | op::LOGICAL_OR, [left, right]) => {
                let is_bool = |type_: &Type<'_>| matches!(type_, Type::Bool | Type::Any);
                match is_bool(left) && is_bool(right) {
                    true => Ok(Type::Bool),
                    false => self.mismatch(name, &of_parts),
                }
            }
            (op::LOGICAL_NOT, [Type::Bool | Type::Any]) => Ok(Type::Bool),
            (op::LOGICAL_NOT, _) => self.mismatch(name, &of_parts),
            (op::EQUALS | op::NOT_EQUALS, [left, right]) => match same(left, right) {
                true => Ok(Type::Bool),
                false => self.mismatch(name, &of_parts),
            },
            (op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS, [left, right]) => {
                let number =
                    |type_: &Type<'_>| matches!(type_, Type::Int | Type::Uint | Type::Double);
                match same(left, right) || (number(left) && number(right)) {
                    true => Ok(Type::Bool),
                    false => self.mismatch(name, &of_parts),
                }
            }
            (op::ADD | op::SUBSTRACT | op::MULTIPLY | op::DIVIDE | op::MODULO, [left, right]) => {
                match same(left, right) {
                    true if left.is_scalar() => Ok(left.clone()),
                    true if matches!((left, name), (Type::List(_), op::ADD)) => Ok(left.clone()),
                    true => Ok(Type::Any),
                    false => self.mismatch(name, &of_parts),
                }
            }
            (op::IN | op::NOT_STRICTLY_FALSE, _) => Ok(Type::Bool),
            (op::CONDITIONAL, [_, yes, _]) => Ok(yes.clone()),
            (op::INDEX, [Type::List(of) | Type::Map(of), _]) => Ok((**of).clone()),
            (op::NEGATE, [one]) => Ok(one.clone()),
            (op::INDEX | op::OPT_INDEX | op::OPT_SELECT, _) => Ok(Type::Any),
            _ => self.function(name),
        }
    }

    fn function<'s>(&self, name: &str) -> Checked<'s> {
        if !FUNCTIONS.contains(&format!(" {name} ")) {
            let message = format!("undeclared reference to '{name}' (in container '')");
            return self.error(&format!("{name}("), &message);
        }
        Ok(match name {
            "size" | "indexOf" | "lastIndexOf" | "int" => Type::Int,
            "startsWith" | "endsWith" | "matches" | "isURL" | "isIP" | "isCIDR" | "isQuantity"
            | "isSorted" | "hasValue" | "isSemver" | "bool" | "isGreaterThan" | "isLessThan" => {
                Type::Bool
            }
            "lowerAscii" | "upperAscii" | "replace" | "substring" | "trim" | "join" | "string"
            | "charAt" => Type::String,
            "uint" => Type::Uint,
            "double" => Type::Double,
            _ => Type::Any,
        })
    }

    fn mismatch<'s>(&self, name: &str, parts: &[Type<'_>]) -> Checked<'s> {
        let parts: Vec<String> = parts.iter().map(Type::name).collect();
        let message =
            format!("found no matching overload for '{name}' applied to '({})'", parts.join(", "));
        self.error(name.trim_matches('_'), &message)
    }

    /// The error drawn below the first place where this is written.
    fn error<'s>(&self, what: &str, message: &str) -> Checked<'s> {
        let at = if what.is_empty() { 0 } else { self.find(what) };
        let before = &self.text[..at];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        // A call is where its parenthesis is.
        let column = if what.ends_with('(') { column + what.chars().count() - 1 } else { column };
        Err(located(self.text, line, column, message))
    }

    fn find(&self, what: &str) -> usize {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let whole = |at: &usize| {
            let (before, after) = (&self.text[..*at], &self.text[at + what.len()..]);
            let starts = !what.starts_with(is_word) || !before.ends_with(is_word);
            starts && (!what.ends_with(is_word) || !after.starts_with(is_word))
        };
        self.text.match_indices(what).map(|(at, _)| at).find(whole).unwrap_or_default()
    }
}

fn of_property<'s>(schema: &'s Value, field: &str, is_resource: bool) -> Option<Type<'s>> {
    if is_resource {
        match field {
            "apiVersion" | "kind" => return Some(Type::String),
            "metadata" => return Some(Type::Names),
            _ => {}
        }
    }
    let properties = schema.get("properties").and_then(Value::as_object)?;
    let (_, property) = properties.iter().find(|(name, _)| escape(name) == field)?;
    Some(Type::of(property, false))
}

/// Whether values of these types can be compared, as far as one can tell.
fn same(left: &Type<'_>, right: &Type<'_>) -> bool {
    !(left.is_scalar() && right.is_scalar())
        || std::mem::discriminant(left) == std::mem::discriminant(right)
}
