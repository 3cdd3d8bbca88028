//! Whether an expression can be evaluated at all, as far as the types of its parts tell. What is
//! wrong is told in cel-go's words, all of it at once, each with its place.

use std::collections::HashMap;
use std::rc::Rc;

use kube_cel::cel::IdedExpr;
use kube_cel::cel::common::ast::operators as op;
use kube_cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, ListExpr, LiteralValue, MapExpr, SelectExpr,
};

use super::overloads;
use super::parser::{Parsed, qualified};
use super::rule::located;
use super::types::{Bindings, Type};

/// What is known of an expression that passed; by the ids of its parts.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) types: HashMap<u64, Type>,
    /// The ways in which a call may be meant.
    pub(super) overloads: HashMap<u64, Vec<&'static str>>,
    pub(super) result: Type,
}

/// Types that are named by more than one word.
const QUALIFIED_TYPES: [&str; 8] = [
    "google.protobuf.Duration",
    "google.protobuf.Timestamp",
    "net.IP",
    "net.CIDR",
    "kubernetes.URL",
    "kubernetes.Quantity",
    "kubernetes.Semver",
    "kubernetes.NamedFormat",
];

/// `variables` are those that the expression may name.
pub(super) fn check(
    parsed: &Parsed,
    text: &str,
    variables: &[(&str, Type)],
) -> Result<Checked, String> {
    let scope = variables.iter().map(|(name, type_)| ((*name).to_owned(), type_.clone()));
    let mut checker = Checker {
        places: &parsed.places,
        scope: scope.collect(),
        bindings: Bindings::default(),
        types: HashMap::new(),
        overloads: HashMap::new(),
        errors: Vec::new(),
    };
    let result = checker.check(&parsed.expression);
    if !checker.errors.is_empty() {
        checker.errors.sort_by_key(|(place, _)| *place);
        let told = checker.errors.iter().map(|(place, why)| located(text, *place, why));
        return Err(told.collect::<Vec<_>>().join("\n"));
    }
    let Checker { bindings, types, overloads, .. } = checker;
    let types = types.into_iter().map(|(id, type_)| (id, bindings.settle(&type_))).collect();
    Ok(Checked { types, overloads, result: bindings.settle(&result) })
}

struct Checker<'p> {
    places: &'p [usize],
    /// Innermost last.
    scope: Vec<(String, Type)>,
    bindings: Bindings,
    types: HashMap<u64, Type>,
    overloads: HashMap<u64, Vec<&'static str>>,
    errors: Vec<(usize, String)>,
}

impl Checker<'_> {
    fn error(&mut self, at: &IdedExpr, message: String) -> Type {
        self.errors.push((self.places.get(at.id as usize).copied().unwrap_or(0), message));
        Type::Error
    }

    fn undeclared(&mut self, at: &IdedExpr, name: &str) -> Type {
        self.error(at, format!("undeclared reference to '{name}' (in container '')"))
    }

    fn mismatch(&mut self, at: &IdedExpr, wanted: &Type, found: &Type) -> Type {
        let (wanted, found) = (self.bindings.settle(wanted), self.bindings.settle(found));
        let message = format!("expected type '{}' but found '{}'", wanted.name(), found.name());
        self.error(at, message)
    }

    fn check(&mut self, at: &IdedExpr) -> Type {
        let type_ = match &at.expr {
            Expr::Literal(literal) => of_literal(literal),
            Expr::Ident(name) => match self.lookup(name) {
                Some(type_) => type_,
                None => self.undeclared(at, name),
            },
            Expr::Select(select) => self.select(at, select),
            Expr::Call(call) => self.call(at, call),
            Expr::List(list) => self.list(list),
            Expr::Map(map) => self.map(map),
            Expr::Comprehension(of) => self.comprehension(of),
            Expr::Struct(of) => self.undeclared(at, &of.type_name),
            Expr::Unspecified => self.error(at, "unspecified expression".into()),
        };
        self.types.insert(at.id, type_.clone());
        type_
    }

    fn lookup(&self, name: &str) -> Option<Type> {
        let found = self.scope.iter().rev().find(|(found, _)| found == name);
        if let Some((_, type_)) = found {
            return Some(type_.clone());
        }
        let named = match name {
            "bool" => Type::Bool,
            "int" => Type::Int,
            "uint" => Type::Uint,
            "double" => Type::Double,
            "string" => Type::String,
            "bytes" => Type::Bytes,
            "list" => Type::list(Type::Dyn),
            "map" => Type::map(Type::Dyn, Type::Dyn),
            "null_type" => Type::Null,
            "type" => Type::AsValue(Rc::new(Type::Dyn)),
            "optional_type" => Type::optional(Type::Dyn),
            name if QUALIFIED_TYPES.contains(&name) => Type::Dyn,
            _ => return None,
        };
        Some(Type::AsValue(Rc::new(named)))
    }

    fn select(&mut self, at: &IdedExpr, select: &SelectExpr) -> Type {
        if !select.test
            && let Some(name) = qualified(at).filter(|name| QUALIFIED_TYPES.contains(&&**name))
            && let Some(type_) = self.lookup(&name)
        {
            return type_;
        }
        let found = self.field(at, &select.operand, &select.field, false);
        if select.test { Type::Bool } else { found }
    }

    fn field(&mut self, at: &IdedExpr, operand: &IdedExpr, field: &str, optional: bool) -> Type {
        let operand = self.check(operand);
        let operand = self.bindings.settle(&operand);
        let (target, is_optional) = match &operand {
            Type::Optional(of) => ((**of).clone(), true),
            other => (other.clone(), false),
        };
        let found = match &target {
            Type::Map(of) => of.1.clone(),
            Type::Object(decl) => match decl.field(field) {
                Some(decl) => decl.type_of(),
                None => self.error(at, format!("undefined field '{field}'")),
            },
            Type::Variable(_) => {
                self.bindings.fits(&target, &Type::Dyn);
                Type::Dyn
            }
            Type::Dyn | Type::Error => Type::Dyn,
            other => {
                let name = other.name();
                self.error(at, format!("type '{name}' does not support field selection"));
                Type::Dyn
            }
        };
        if optional || is_optional { Type::optional(found) } else { found }
    }

    fn call(&mut self, at: &IdedExpr, call: &CallExpr) -> Type {
        if let (op::OPT_SELECT, [operand, field]) = (call.func_name.as_str(), &call.args[..]) {
            let Expr::Literal(LiteralValue::String(name)) = &field.expr else {
                return self.error(field, "unsupported optional field selection".into());
            };
            return self.field(at, operand, name.inner(), true);
        }
        let mut args: Vec<Type> = call.args.iter().map(|arg| self.check(arg)).collect();
        let mut name = call.func_name.clone();
        let mut is_method = false;
        if let Some(target) = call.target.as_deref() {
            let whole = qualified(target).map(|prefix| format!("{prefix}.{name}"));
            match whole.filter(|name| is_known(name)) {
                Some(whole) => name = whole,
                None => {
                    is_method = true;
                    args.insert(0, self.check(target));
                }
            }
        }
        if !is_known(&name) {
            return self.undeclared(at, &name);
        }
        let found = self.resolve(at, &name, is_method, &args);
        self.validate(&name, call);
        found
    }

    fn resolve(&mut self, at: &IdedExpr, name: &str, is_method: bool, args: &[Type]) -> Type {
        let mut found: Option<Type> = None;
        let mut ids = Vec::new();
        let ways = overloads::of(name);
        let ways = ways.iter().flat_map(|ways| ways.iter());
        for overload in ways.filter(|overload| overload.is_method == is_method) {
            let (wanted, result) = overload.types(&mut self.bindings);
            if !self.bindings.fit_all(&wanted, args) {
                continue;
            }
            ids.push(overload.id);
            let result = self.bindings.settle(&result);
            found = Some(match found {
                Some(before) if before != result => Type::Dyn,
                _ => result,
            });
        }
        self.overloads.insert(at.id, ids);
        if let Some(found) = found {
            return found;
        }
        let names: Vec<String> = args.iter().map(|arg| self.bindings.settle(arg).name()).collect();
        let applied = match names.split_first() {
            Some((target, args)) if is_method => format!("{target}.({})", args.join(", ")),
            _ => format!("({})", names.join(", ")),
        };
        self.error(at, format!("found no matching overload for '{name}' applied to '{applied}'"))
    }

    /// Literals that the function cannot take.
    fn validate(&mut self, name: &str, call: &CallExpr) {
        let Some(last) = call.args.last() else { return };
        let Expr::Literal(LiteralValue::String(text)) = &last.expr else { return };
        let holds = match name {
            "matches" => crate::schema::go_regexp::translate(text.inner()).is_ok(),
            "duration" | "timestamp" => super::functions::converts(name, text.inner()),
            _ => true,
        };
        if !holds {
            self.error(last, format!("invalid {name} argument"));
        }
    }

    /// The type of what stands side by side in a literal.
    fn join(&mut self, at: &IdedExpr, before: Option<Type>, found: Type) -> Type {
        let Some(before) = before else { return found };
        if !self.bindings.fits(&found, &before) {
            return self.mismatch(at, &before, &found);
        }
        if found.is_open() { found } else { before }
    }

    fn list(&mut self, list: &ListExpr) -> Type {
        let mut of_items = None;
        for (index, item) in list.elements.iter().enumerate() {
            let mut found = self.check(item);
            if list.optional_indices.contains(&index) {
                found = self.unwrapped(item, found);
            }
            of_items = Some(self.join(item, of_items, found));
        }
        Type::list(of_items.unwrap_or_else(|| self.bindings.fresh()))
    }

    fn unwrapped(&mut self, at: &IdedExpr, found: Type) -> Type {
        match self.bindings.settle(&found) {
            Type::Optional(of) => (*of).clone(),
            open if open.is_open() => open,
            other => {
                let wanted = Type::optional(other.clone());
                self.mismatch(at, &wanted, &other)
            }
        }
    }

    fn map(&mut self, map: &MapExpr) -> Type {
        let (mut of_keys, mut of_values) = (None, None);
        for entry in &map.entries {
            let EntryExpr::MapEntry(entry) = &entry.expr else { continue };
            let key = self.check(&entry.key);
            of_keys = Some(self.join(&entry.key, of_keys, key));
            let mut value = self.check(&entry.value);
            if entry.optional {
                value = self.unwrapped(&entry.value, value);
            }
            of_values = Some(self.join(&entry.value, of_values, value));
        }
        let keys = of_keys.unwrap_or_else(|| self.bindings.fresh());
        let values = of_values.unwrap_or_else(|| self.bindings.fresh());
        Type::map(keys, values)
    }

    fn comprehension(&mut self, of: &ComprehensionExpr) -> Type {
        let range = self.check(&of.iter_range);
        let range = self.bindings.settle(&range);
        let accumulated = self.check(&of.accu_init);
        let two = of.iter_var2.is_some();
        let (first, second) = match &range {
            Type::List(items) if two => (Type::Int, (**items).clone()),
            Type::List(items) => ((**items).clone(), Type::Dyn),
            Type::Map(of) => (of.0.clone(), of.1.clone()),
            Type::Dyn | Type::Error | Type::Variable(_) => {
                self.bindings.fits(&range, &Type::Dyn);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let message = format!(
                    "expression of type '{}' cannot be range of a comprehension (must be list, map, or dynamic)",
                    other.name()
                );
                self.error(&of.iter_range, message);
                (Type::Error, Type::Error)
            }
        };
        let outside = self.scope.len();
        self.scope.push((of.accu_var.clone(), accumulated.clone()));
        let inside = self.scope.len();
        self.scope.push((of.iter_var.clone(), first));
        self.scope.extend(of.iter_var2.iter().map(|name| (name.clone(), second.clone())));
        self.checked(&of.loop_cond, &Type::Bool);
        self.checked(&of.loop_step, &accumulated);
        self.scope.truncate(inside);
        let result = self.check(&of.result);
        self.scope.truncate(outside);
        self.bindings.settle(&result)
    }

    fn checked(&mut self, at: &IdedExpr, wanted: &Type) {
        let found = self.check(at);
        if !self.bindings.fits(&found, wanted) {
            self.mismatch(at, wanted, &found);
        }
    }
}

fn is_known(name: &str) -> bool {
    overloads::of(name).is_some()
}

fn of_literal(literal: &LiteralValue) -> Type {
    match literal {
        LiteralValue::Boolean(_) => Type::Bool,
        LiteralValue::Bytes(_) => Type::Bytes,
        LiteralValue::Double(_) => Type::Double,
        LiteralValue::Int(_) => Type::Int,
        LiteralValue::Null => Type::Null,
        LiteralValue::String(_) => Type::String,
        LiteralValue::UInt(_) => Type::Uint,
    }
}
