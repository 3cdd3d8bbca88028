//! The macros of the language and of the libraries that Kubernetes enables: calls that stand for
//! loops. The parts they make are where the call's parenthesis is, as in cel-go.

use kube_cel::cel::IdedExpr;
use kube_cel::cel::common::ast::operators as op;
use kube_cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, Expr, ListExpr, LiteralValue, MapExpr, SelectExpr,
};

use super::parser::{Parser, Refused};

/// The variable that a loop builds its result in; no expression can name it.
pub(super) const ACCUMULATOR: &str = "@result";
/// The variable of a loop without turns, by which a value gets a name.
pub(super) const UNUSED: &str = "#unused";
/// Adds a member, or the members of a map, to a map.
pub(super) const MAP_INSERT: &str = "cel.@mapInsert";

/// Where a macro is called.
pub(super) struct Site<'p> {
    pub(super) parser: &'p mut Parser,
    pub(super) place: usize,
}

type Expanded = Result<IdedExpr, Refused>;
type Expander = fn(&mut Site<'_>, Option<IdedExpr>, Vec<IdedExpr>) -> Expanded;

pub(super) fn find(name: &str, has_target: bool, args: usize) -> Option<Expander> {
    Some(match (name, has_target, args) {
        ("has", false, 1) => has,
        ("all", true, 2 | 3) => all,
        ("exists", true, 2 | 3) => exists,
        ("exists_one" | "existsOne", true, 2 | 3) => exists_one,
        ("map", true, 2 | 3) => map,
        ("filter", true, 2) => filter,
        ("transformList", true, 3 | 4) => transform_list,
        ("transformMap", true, 3 | 4) => transform_map,
        ("transformMapEntry", true, 3 | 4) => transform_map_entry,
        ("optMap", true, 2) => opt_map,
        ("optFlatMap", true, 2) => opt_flat_map,
        _ => return None,
    })
}

/// The variables of a loop.
struct Variables(String, Option<String>);

/// What is special about a loop.
struct Loop {
    init: IdedExpr,
    condition: IdedExpr,
    step: IdedExpr,
    result: IdedExpr,
}

impl Site<'_> {
    fn part(&mut self, expr: Expr) -> IdedExpr {
        let place = self.place;
        self.parser.part(place, expr)
    }

    fn call(&mut self, name: &str, args: Vec<IdedExpr>) -> IdedExpr {
        let place = self.place;
        self.parser.call(place, name, args)
    }

    fn method(&mut self, target: IdedExpr, name: &str) -> IdedExpr {
        let call =
            CallExpr { func_name: name.into(), target: Some(Box::new(target)), args: vec![] };
        self.part(Expr::Call(call))
    }

    fn bool(&mut self, value: bool) -> IdedExpr {
        self.part(Expr::Literal(LiteralValue::Boolean(value.into())))
    }

    fn int(&mut self, value: i64) -> IdedExpr {
        self.part(Expr::Literal(LiteralValue::Int(value.into())))
    }

    fn accumulator(&mut self) -> IdedExpr {
        self.part(Expr::Ident(ACCUMULATOR.into()))
    }

    fn list(&mut self, elements: Vec<IdedExpr>) -> IdedExpr {
        self.part(Expr::List(ListExpr::new(elements)))
    }

    fn refuse<T>(&self, at: &IdedExpr, message: &str) -> Result<T, Refused> {
        Err(Refused::Macro(self.parser.place_of(at), message.to_owned()))
    }

    fn variable(&self, arg: &IdedExpr) -> Result<String, Refused> {
        match &arg.expr {
            Expr::Ident(name) if name == ACCUMULATOR => {
                self.refuse(arg, "iteration variable overwrites accumulator variable")
            }
            Expr::Ident(name) => Ok(name.clone()),
            _ => self.refuse(arg, "argument must be a simple name"),
        }
    }

    /// The variables of a macro whose arguments after them number `rest`.
    fn variables(&self, args: &mut Vec<IdedExpr>, rest: usize) -> Result<Variables, Refused> {
        let first = self.variable(&args.remove(0))?;
        if args.len() == rest {
            return Ok(Variables(first, None));
        }
        let at = args.remove(0);
        let second = self.variable(&at)?;
        if first == second {
            return self.refuse(&at, &format!("duplicate variable name: {first}"));
        }
        Ok(Variables(first, Some(second)))
    }

    fn fold(&mut self, target: Option<IdedExpr>, variables: Variables, of: Loop) -> Expanded {
        let Some(iter_range) = target else { return Err(Refused::Malformed) };
        Ok(self.part(Expr::Comprehension(Box::new(ComprehensionExpr {
            iter_range,
            iter_var: variables.0,
            iter_var2: variables.1,
            accu_var: ACCUMULATOR.into(),
            accu_init: of.init,
            loop_cond: of.condition,
            loop_step: of.step,
            result: of.result,
        }))))
    }

    /// `if` the filter holds the step is made, otherwise none is.
    fn filtered(&mut self, filter: Option<IdedExpr>, step: IdedExpr) -> IdedExpr {
        match filter {
            None => step,
            Some(filter) => {
                let unchanged = self.accumulator();
                self.call(op::CONDITIONAL, vec![filter, step, unchanged])
            }
        }
    }

    /// A loop over everything that builds a value up.
    fn build(
        &mut self,
        target: Option<IdedExpr>,
        variables: Variables,
        init: IdedExpr,
        step: IdedExpr,
    ) -> Expanded {
        let condition = self.bool(true);
        let result = self.accumulator();
        self.fold(target, variables, Loop { init, condition, step, result })
    }
}

fn has(site: &mut Site<'_>, _: Option<IdedExpr>, mut args: Vec<IdedExpr>) -> Expanded {
    let arg = args.remove(0);
    match arg.expr {
        Expr::Select(select) => Ok(site.part(Expr::Select(SelectExpr { test: true, ..select }))),
        _ => site.refuse(&arg, "invalid argument to has() macro"),
    }
}

fn all(site: &mut Site<'_>, target: Option<IdedExpr>, args: Vec<IdedExpr>) -> Expanded {
    quantified(site, target, args, true)
}

fn exists(site: &mut Site<'_>, target: Option<IdedExpr>, args: Vec<IdedExpr>) -> Expanded {
    quantified(site, target, args, false)
}

/// Whether the argument holds of all, or of any: looks on while the answer is still `undecided`.
fn quantified(
    site: &mut Site<'_>,
    target: Option<IdedExpr>,
    mut args: Vec<IdedExpr>,
    undecided: bool,
) -> Expanded {
    let variables = site.variables(&mut args, 1)?;
    let init = site.bool(undecided);
    let so_far = site.accumulator();
    let (open, join) = match undecided {
        true => (so_far, op::LOGICAL_AND),
        false => (site.call(op::LOGICAL_NOT, vec![so_far]), op::LOGICAL_OR),
    };
    let condition = site.call(op::NOT_STRICTLY_FALSE, vec![open]);
    let so_far = site.accumulator();
    let step = site.call(join, vec![so_far, args.remove(0)]);
    let result = site.accumulator();
    site.fold(target, variables, Loop { init, condition, step, result })
}

fn exists_one(site: &mut Site<'_>, target: Option<IdedExpr>, mut args: Vec<IdedExpr>) -> Expanded {
    let variables = site.variables(&mut args, 1)?;
    let init = site.int(0);
    let condition = site.bool(true);
    let (so_far, one) = (site.accumulator(), site.int(1));
    let more = site.call(op::ADD, vec![so_far, one]);
    let step = site.filtered(Some(args.remove(0)), more);
    let (counted, one) = (site.accumulator(), site.int(1));
    let result = site.call(op::EQUALS, vec![counted, one]);
    site.fold(target, variables, Loop { init, condition, step, result })
}

fn map(site: &mut Site<'_>, target: Option<IdedExpr>, mut args: Vec<IdedExpr>) -> Expanded {
    let variables = Variables(site.variable(&args.remove(0))?, None);
    list_of(site, target, variables, args)
}

fn transform_list(
    site: &mut Site<'_>,
    target: Option<IdedExpr>,
    mut args: Vec<IdedExpr>,
) -> Expanded {
    let rest = args.len() - 2;
    let variables = site.variables(&mut args, rest)?;
    list_of(site, target, variables, args)
}

/// A list of what the last argument says of those for which the one before it holds.
fn list_of(
    site: &mut Site<'_>,
    target: Option<IdedExpr>,
    variables: Variables,
    mut args: Vec<IdedExpr>,
) -> Expanded {
    let Some(value) = args.pop() else { return Err(Refused::Malformed) };
    let init = site.list(vec![]);
    let (so_far, added) = (site.accumulator(), site.list(vec![value]));
    let longer = site.call(op::ADD, vec![so_far, added]);
    let step = site.filtered(args.pop(), longer);
    site.build(target, variables, init, step)
}

fn filter(site: &mut Site<'_>, target: Option<IdedExpr>, mut args: Vec<IdedExpr>) -> Expanded {
    let variable = args.remove(0);
    let name = site.variable(&variable)?;
    let init = site.list(vec![]);
    let (so_far, added) = (site.accumulator(), site.list(vec![variable]));
    let longer = site.call(op::ADD, vec![so_far, added]);
    let step = site.filtered(args.pop(), longer);
    site.build(target, Variables(name, None), init, step)
}

fn transform_map(
    site: &mut Site<'_>,
    target: Option<IdedExpr>,
    mut args: Vec<IdedExpr>,
) -> Expanded {
    let rest = args.len() - 2;
    let variables = site.variables(&mut args, rest)?;
    let Some(value) = args.pop() else { return Err(Refused::Malformed) };
    let init = site.part(Expr::Map(MapExpr::default()));
    let (so_far, key) = (site.accumulator(), site.part(Expr::Ident(variables.0.clone())));
    let more = site.call(MAP_INSERT, vec![so_far, key, value]);
    let step = site.filtered(args.pop(), more);
    site.build(target, variables, init, step)
}

fn transform_map_entry(
    site: &mut Site<'_>,
    target: Option<IdedExpr>,
    mut args: Vec<IdedExpr>,
) -> Expanded {
    let rest = args.len() - 2;
    let variables = site.variables(&mut args, rest)?;
    let Some(entries) = args.pop() else { return Err(Refused::Malformed) };
    let init = site.part(Expr::Map(MapExpr::default()));
    let so_far = site.accumulator();
    let more = site.call(MAP_INSERT, vec![so_far, entries]);
    let step = site.filtered(args.pop(), more);
    site.build(target, variables, init, step)
}

fn opt_map(site: &mut Site<'_>, target: Option<IdedExpr>, args: Vec<IdedExpr>) -> Expanded {
    of_optional(site, target, args, true)
}

fn opt_flat_map(site: &mut Site<'_>, target: Option<IdedExpr>, args: Vec<IdedExpr>) -> Expanded {
    of_optional(site, target, args, false)
}

/// `target.hasValue() ? optional.of(…) : optional.none()`, with the value under a name.
fn of_optional(
    site: &mut Site<'_>,
    target: Option<IdedExpr>,
    mut args: Vec<IdedExpr>,
    wrap: bool,
) -> Expanded {
    let name = site.variable(&args.remove(0))?;
    let (Some(target), Some(result)) = (target, args.pop()) else {
        return Err(Refused::Malformed);
    };
    let has_value = site.method(target.clone(), "hasValue");
    let value = site.method(target, "value");
    let bound = Box::new(ComprehensionExpr {
        iter_range: site.list(vec![]),
        iter_var: UNUSED.into(),
        iter_var2: None,
        accu_var: name.clone(),
        accu_init: value,
        loop_cond: site.bool(false),
        loop_step: site.part(Expr::Ident(name)),
        result,
    });
    let mut yes = site.part(Expr::Comprehension(bound));
    if wrap {
        yes = site.call("optional.of", vec![yes]);
    }
    let no = site.call("optional.none", vec![]);
    Ok(site.call(op::CONDITIONAL, vec![has_value, yes, no]))
}
