//! What evaluating an expression costs at most, by the sizes that the schema allows: an estimate
//! in kube-apiserver's steps, by which definitions are refused whose rules could stall a server.
//! What an evaluation really costs is metered when it happens (see `eval`).

use std::collections::HashMap;
use std::rc::Rc;

use kube_cel::cel::IdedExpr;
use kube_cel::cel::common::ast::operators as op;
use kube_cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SelectExpr,
};

use super::checker::Checked;
use super::decl::{Decl, Shape};
use super::estimate::Range;
use super::library_cost::{Node, of_function};
use super::macros::ACCUMULATOR;
use super::parser::qualified;
use super::types::Type;

const LIST_COST: u64 = 10;
const MAP_COST: u64 = 30;
const STRUCT_COST: u64 = 40;

/// The largest cost of a checked expression about a value of this declaration.
pub(super) fn estimate(expression: &IdedExpr, checked: &Checked, root: &Rc<Decl>) -> u64 {
    let mut coster = Coster {
        checked,
        root,
        paths: HashMap::new(),
        locals: Vec::new(),
        sizes: HashMap::new(),
        entries: HashMap::new(),
    };
    coster.cost(expression).max
}

/// Sizes of the keys and values of a list or map that an expression makes.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    is_list: bool,
    key: Range,
    value: Range,
}

struct Local {
    name: String,
    path: Option<Rc<Decl>>,
    size: Option<Range>,
    entry: Option<Entry>,
}

struct Coster<'c> {
    checked: &'c Checked,
    root: &'c Rc<Decl>,
    /// The declarations of parts that are places of the object.
    paths: HashMap<u64, Rc<Decl>>,
    /// Innermost last.
    locals: Vec<Local>,
    sizes: HashMap<u64, Range>,
    entries: HashMap<u64, Entry>,
}

impl Coster<'_> {
    fn cost(&mut self, at: &IdedExpr) -> Range {
        match &at.expr {
            Expr::Literal(_) | Expr::Unspecified => Range::NONE,
            Expr::Ident(name) => {
                let path = match self.local(name) {
                    Some(local) => local.path.clone(),
                    None => Some(self.root.clone()),
                };
                self.set_path(at, path);
                Range::ONE
            }
            Expr::Select(select) => self.select(at, select),
            Expr::Call(call) => self.call(at, call),
            Expr::List(list) => {
                let (mut sum, mut of_items) = (Range::exactly(LIST_COST), None);
                for item in &list.elements {
                    sum = sum.plus(self.cost(item));
                    of_items = joined(of_items, self.size_or_unknown(item));
                }
                let value = of_items.unwrap_or(Range::NONE);
                self.entries.insert(at.id, Entry { is_list: true, key: Range::ONE, value });
                sum
            }
            Expr::Map(map) => {
                let (mut sum, mut of_keys, mut of_values) = (Range::exactly(MAP_COST), None, None);
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else { continue };
                    sum = sum.plus(self.cost(&entry.key)).plus(self.cost(&entry.value));
                    of_keys = joined(of_keys, self.size_or_unknown(&entry.key));
                    of_values = joined(of_values, self.size_or_unknown(&entry.value));
                }
                let key = of_keys.unwrap_or(Range::NONE);
                let value = of_values.unwrap_or(Range::NONE);
                self.entries.insert(at.id, Entry { is_list: false, key, value });
                sum
            }
            Expr::Struct(_) => Range::exactly(STRUCT_COST),
            Expr::Comprehension(of) if is_binding(of) => {
                let sum = self.cost(&of.iter_range).plus(self.cost(&of.accu_init));
                self.push_value(&of.accu_var, &of.accu_init);
                let sum = sum.plus(self.cost(&of.result));
                self.locals.pop();
                self.copy_size(at, &of.result);
                sum
            }
            Expr::Comprehension(of) => self.comprehension(at, of),
        }
    }

    fn select(&mut self, at: &IdedExpr, select: &SelectExpr) -> Range {
        let sum = self.cost(&select.operand);
        // Asking whether there is a field is free.
        if select.test {
            return sum;
        }
        let path = self.path(&select.operand);
        let path = path.and_then(|decl| match &decl.shape {
            Shape::Object(fields) => fields.get(&select.field).cloned(),
            _ => None,
        });
        self.set_path(at, path);
        match self.type_of(&select.operand) {
            Type::Map(_) | Type::Object(_) | Type::Variable(_) => sum.plus(Range::ONE),
            _ => sum,
        }
    }

    fn call(&mut self, at: &IdedExpr, call: &CallExpr) -> Range {
        let name = call.func_name.as_str();
        if let ("dyn", [arg]) = (name, &call.args[..]) {
            let sum = self.cost(arg).plus(Range::ONE);
            self.copy_size(at, arg);
            return sum;
        }
        let mut costs = Vec::with_capacity(call.args.len());
        let mut args = Vec::with_capacity(call.args.len());
        for arg in &call.args {
            costs.push(self.cost(arg));
            args.push(self.node(arg));
        }
        if name == op::OPT_SELECT {
            return Range::ONE.plus(costs[0]);
        }
        let checked = self.checked;
        let Some(ids) = checked.overloads.get(&at.id).filter(|ids| !ids.is_empty()) else {
            return Range::NONE;
        };
        let mut sum = Range::NONE;
        let mut whole = name.to_owned();
        let mut target = None;
        if let Some(part) = call.target.as_deref() {
            // The first word of a function's name is no value.
            match qualified(part).filter(|_| !checked.types.contains_key(&part.id)) {
                Some(prefix) => whole = format!("{prefix}.{name}"),
                None => {
                    sum = self.cost(part);
                    target = Some(self.node(part));
                }
            }
        }
        let (mut cost, mut size) = (None, None);
        for id in ids {
            let found = self.overload(at, call, (&whole, id), (target.as_ref(), &args), &costs);
            cost = joined(cost, found.0);
            size = match (size, found.1) {
                (Some(before), Some(found)) => joined(Some(before), found),
                (before, found) => before.or(found),
            };
            if let ("index_list" | "index_map", [list, _]) = (*id, &call.args[..]) {
                size = self.entry(list).map(|entry| entry.value);
                let path = args[0].path.as_ref().and_then(|decl| values_of(decl));
                self.set_path(at, path);
            }
            size = size.or_else(|| self.size(at));
        }
        if let Some(size) = size {
            self.sizes.insert(at.id, size);
        }
        sum.plus(cost.unwrap_or(Range::NONE))
    }

    /// The cost of a call meant in one way, with that of its arguments, and the size of its result.
    fn overload(
        &mut self,
        at: &IdedExpr,
        call: &CallExpr,
        (name, id): (&str, &str),
        (target, args): (Option<&Node>, &[Node]),
        costs: &[Range],
    ) -> (Range, Option<Range>) {
        let sum = costs.iter().fold(Range::NONE, |sum, cost| sum.plus(*cost));
        match (id, costs) {
            ("logical_or" | "logical_and", [left, right]) => {
                (Range { min: left.min, max: left.plus(*right).max }, None)
            }
            ("conditional", [condition, yes, no]) => {
                let size = args[1].size_or_unknown().or(args[2].size_or_unknown());
                self.join_entries(at, &call.args[1], &call.args[2]);
                (condition.plus(yes.or(*no)), Some(size))
            }
            ("add_list", [_, _]) => {
                let size = args[0].size_or_unknown().plus(args[1].size_or_unknown());
                self.join_entries(at, &call.args[0], &call.args[1]);
                (sum.plus(Range::ONE), Some(size))
            }
            _ => {
                let (cost, size) = of_function(name, id, target, args);
                (cost.plus(sum), size)
            }
        }
    }

    fn join_entries(&mut self, at: &IdedExpr, a: &IdedExpr, b: &IdedExpr) {
        if let (Some(a), Some(b)) = (self.entry(a), self.entry(b)) {
            let joined =
                Entry { is_list: a.is_list, key: a.key.or(b.key), value: a.value.or(b.value) };
            self.entries.insert(at.id, joined);
        }
    }

    fn comprehension(&mut self, at: &IdedExpr, of: &ComprehensionExpr) -> Range {
        let mut sum = self.cost(&of.iter_range).plus(self.cost(&of.accu_init));
        self.push_value(&of.accu_var, &of.accu_init);
        let outside = self.locals.len();
        self.push_variables(of);
        let turn = self.cost(&of.loop_cond).plus(self.cost(&of.loop_step));
        self.locals.truncate(outside);
        sum = sum.plus(self.cost(&of.result));
        self.locals.pop();
        let turns = self.size_or_unknown(&of.iter_range);
        match &of.accu_init.expr {
            Expr::Literal(_) => self.copy_size(at, &of.accu_init),
            Expr::List(_) | Expr::Map(_) => {
                self.sizes.insert(at.id, turns);
                if let Some(entry) = self.entry(&of.loop_step) {
                    self.entries.insert(at.id, entry);
                }
            }
            _ => {}
        }
        sum.plus(turns.times(turn))
    }

    /// The variables of a loop: of a list its items, of a map its keys, or both with their values.
    fn push_variables(&mut self, of: &ComprehensionExpr) {
        let entry = self.entry(&of.iter_range);
        let is_list = match entry {
            Some(entry) => entry.is_list,
            None => matches!(self.type_of(&of.iter_range), Type::List(_)),
        };
        let range = self.path(&of.iter_range);
        let (key, value) = (entry.map(|entry| entry.key), entry.map(|entry| entry.value));
        let values = range.as_deref().and_then(values_of);
        let keys = range.filter(|_| !is_list).map(|_| Decl::key());
        let local =
            |name: &String, path, size| Local { name: name.clone(), path, size, entry: None };
        match &of.iter_var2 {
            None if is_list => self.locals.push(local(&of.iter_var, values, value)),
            None => self.locals.push(local(&of.iter_var, keys, key)),
            Some(second) => {
                self.locals.push(local(&of.iter_var, keys, key));
                self.locals.push(local(second, values, value));
            }
        }
    }

    fn push_value(&mut self, name: &str, value: &IdedExpr) {
        let (path, size, entry) = (self.path(value), self.size(value), self.entry(value));
        self.locals.push(Local { name: name.to_owned(), path, size, entry });
    }

    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.iter().rev().find(|local| local.name == name)
    }

    fn of_ident(&self, at: &IdedExpr) -> Option<&Local> {
        match &at.expr {
            Expr::Ident(name) => self.local(name),
            _ => None,
        }
    }

    fn type_of(&self, at: &IdedExpr) -> Type {
        self.checked.types.get(&at.id).cloned().unwrap_or(Type::Dyn)
    }

    fn path(&self, at: &IdedExpr) -> Option<Rc<Decl>> {
        match self.of_ident(at) {
            Some(local) => local.path.clone(),
            None => self.paths.get(&at.id).cloned(),
        }
    }

    fn set_path(&mut self, at: &IdedExpr, path: Option<Rc<Decl>>) {
        match path {
            Some(path) => self.paths.insert(at.id, path),
            None => self.paths.remove(&at.id),
        };
    }

    fn node(&mut self, at: &IdedExpr) -> Node {
        let literal = match &at.expr {
            Expr::Literal(LiteralValue::Int(value)) => u64::try_from(*value.inner()).ok(),
            _ => None,
        };
        Node { size: self.size(at), path: self.path(at), type_: self.type_of(at), literal }
    }

    fn size_or_unknown(&mut self, at: &IdedExpr) -> Range {
        self.size(at).unwrap_or(Range::UNKNOWN)
    }

    fn copy_size(&mut self, to: &IdedExpr, from: &IdedExpr) {
        if let Some(size) = self.size(from) {
            self.sizes.insert(to.id, size);
        }
        if let Some(entry) = self.entry(from) {
            self.entries.insert(to.id, entry);
        }
    }

    fn size(&self, at: &IdedExpr) -> Option<Range> {
        if let Some(size) = self.sizes.get(&at.id) {
            return Some(*size);
        }
        let written = match &at.expr {
            Expr::Literal(LiteralValue::String(text)) => Some(text.inner().chars().count()),
            Expr::Literal(LiteralValue::Bytes(bytes)) => Some(bytes.inner().len()),
            Expr::Literal(_) => Some(1),
            Expr::List(list) => Some(list.elements.len()),
            Expr::Map(map) => Some(map.entries.len()),
            _ => None,
        };
        if let Some(written) = written {
            return Some(Range::exactly(written as u64));
        }
        if let Some(decl) = self.path(at) {
            return Some(Range { min: 0, max: decl.elements_max });
        }
        if self.type_of(at).is_scalar() {
            return Some(Range::ONE);
        }
        self.of_ident(at).and_then(|local| local.size)
    }

    fn entry(&self, at: &IdedExpr) -> Option<Entry> {
        let known = self.entries.get(&at.id).copied();
        known.or_else(|| self.of_ident(at).and_then(|local| local.entry))
    }
}

fn joined(before: Option<Range>, found: Range) -> Option<Range> {
    Some(before.map_or(found, |before| before.or(found)))
}

pub(super) fn values_of(decl: &Decl) -> Option<Rc<Decl>> {
    match &decl.shape {
        Shape::List(of) | Shape::Map(of) => Some(of.clone()),
        _ => None,
    }
}

/// Whether the loop has no turns and only gives a value a name.
fn is_binding(of: &ComprehensionExpr) -> bool {
    let empty = matches!(&of.iter_range.expr, Expr::List(list) if list.elements.is_empty());
    let never =
        matches!(&of.loop_cond.expr, Expr::Literal(LiteralValue::Boolean(value)) if !value.inner());
    empty && never && of.accu_var != ACCUMULATOR
}
