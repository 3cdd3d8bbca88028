//! What single functions cost, as kube-apiserver estimates it: by the sizes of what they read.
//!
//! Some numbers are odd (functions that parse a text given as an argument count as if it had no
//! length); which definitions are accepted hangs on them, so they are what they are there.

use std::rc::Rc;

use super::cost::values_of;
use super::decl::Decl;
use super::estimate::{PER_CHARACTER, PER_PATTERN_CHARACTER, Range};
use super::types::Type;

/// An operand.
pub(super) struct Node {
    pub(super) size: Option<Range>,
    pub(super) path: Option<Rc<Decl>>,
    pub(super) type_: Type,
    /// Its value, where it is a number that is written out.
    pub(super) literal: Option<u64>,
}

impl Node {
    pub(super) fn size_or_unknown(&self) -> Range {
        self.size.unwrap_or(Range::UNKNOWN)
    }

    /// The size and type of the items of a list.
    fn items(&self) -> Option<(Range, Type)> {
        let type_ = match &self.type_ {
            Type::List(of) | Type::Optional(of) => (**of).clone(),
            Type::Map(of) => of.0.clone(),
            _ => return None,
        };
        let decl = self.path.as_deref().and_then(values_of);
        let size = decl.map(|decl| Range { min: 0, max: decl.elements_max });
        Some((size.unwrap_or(Range::UNKNOWN), type_))
    }
}

type Cost = (Range, Option<Range>);

/// The longest pattern of a named format, in characters.
const FORMAT_CHARACTERS_MAX: f64 = 64.0;

/// The cost of a call beside that of its arguments, and the size of what it makes.
pub(super) fn of_function(name: &str, id: &str, target: Option<&Node>, args: &[Node]) -> Cost {
    let library = match target {
        Some(target) => of_method(name, id, target, args),
        None => of_call(name, args),
    };
    library.unwrap_or_else(|| of_language(id, target, args))
}

fn of_call(name: &str, args: &[Node]) -> Option<Cost> {
    let factor = match (name, args) {
        ("url", [text]) => return Some((text.size_or_unknown().scaled(PER_CHARACTER), None)),
        ("sets.contains" | "sets.intersects", [_, _]) => 1.0,
        ("sets.equivalent", [_, _]) => 2.0,
        _ => return None,
    };
    let pairs = args[0].size_or_unknown().times(args[1].size_or_unknown());
    Some((pairs.scaled(factor).plus(Range::ONE), None))
}

fn of_method(name: &str, id: &str, target: &Node, args: &[Node]) -> Option<Cost> {
    let size = target.size_or_unknown();
    let of_arg = |at: usize| args.get(at).map(Node::size_or_unknown);
    Some(match name {
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => match target.items() {
            Some((of_items, Type::String | Type::Bytes)) => {
                (size.times(Range::ONE.plus(of_items.scaled(PER_CHARACTER))), None)
            }
            Some(_) => (size, None),
            None => (size.scaled(PER_CHARACTER), None),
        },
        "lowerAscii" | "upperAscii" | "substring" | "trim" => {
            (size.scaled(PER_CHARACTER), Some(size))
        }
        "replace" => {
            let made = replaced(size, of_arg(0)?, of_arg(1)?);
            (size.scaled(2.0 * PER_CHARACTER), Some(made))
        }
        "split" => {
            let most = args.get(1).and_then(|limit| limit.literal).unwrap_or(size.max);
            (size.scaled(2.0 * PER_CHARACTER), Some(Range { min: 0, max: most }))
        }
        "join" => {
            let of_items = target.items().map_or(Range::NONE, |(items, _)| size.times(items));
            let between =
                Range { min: size.min.saturating_sub(1), max: size.max.saturating_sub(1) };
            let made = match of_arg(0) {
                Some(separator) => of_items.plus(separator.times(between)),
                None => of_items,
            };
            (made.scaled(PER_CHARACTER), Some(made))
        }
        "find" | "findAll" => {
            let text = size.plus(Range::ONE).scaled(PER_CHARACTER);
            let pattern = of_arg(0)?.scaled(PER_PATTERN_CHARACTER);
            (text.times(pattern), Some(Range { min: 0, max: size.max }))
        }
        "containsIP" | "containsCIDR" => (of_addresses(name, id, of_arg(0)?), None),
        "validate" => {
            let text = of_arg(0)?.scaled(PER_CHARACTER);
            (text.scaled(FORMAT_CHARACTERS_MAX * PER_PATTERN_CHARACTER), None)
        }
        _ => return None,
    })
}

fn of_addresses(name: &str, id: &str, arg: Range) -> Range {
    // An address has four bytes or sixteen.
    let bytes = Range { min: 4, max: 16 };
    let mut cost = bytes.plus(bytes).scaled(PER_CHARACTER);
    if name == "containsCIDR" {
        cost = cost.plus(bytes.scaled(PER_CHARACTER)).plus(Range::ONE);
    }
    match id {
        "" => cost,
        _ => cost.plus(arg.scaled(PER_CHARACTER)),
    }
}

/// The size of a text in which others are replaced.
fn replaced(size: Range, old: Range, new: Range) -> Range {
    let longest = match old.min {
        // An empty text is found around every character.
        0 => size.max.saturating_add(1).saturating_mul(new.max).saturating_add(size.max),
        least if new.max <= least => size.max,
        least => size.max.div_ceil(least).saturating_mul(new.max),
    };
    let shortest = match old.max {
        0 => size.min.saturating_add(1).saturating_mul(new.min).saturating_add(size.min),
        most if most <= new.min => size.min,
        most => size.min.div_ceil(most).saturating_mul(new.min),
    };
    Range { min: shortest, max: longest }
}

fn of_language(id: &str, target: Option<&Node>, args: &[Node]) -> Cost {
    let of_arg = |at: usize| args.get(at).map_or(Range::UNKNOWN, Node::size_or_unknown);
    let of_target = target.map(Node::size_or_unknown);
    match (id, of_target) {
        ("string_format", Some(size)) => (size.scaled(PER_CHARACTER), Some(size.plus(of_arg(0)))),
        ("string_to_bytes", _) => {
            let size = of_arg(0);
            let made = Range { min: size.min, max: size.max.saturating_mul(4) };
            (size.scaled(PER_CHARACTER), Some(made))
        }
        ("bytes_to_string", _) => {
            let size = of_arg(0);
            (size.scaled(PER_CHARACTER), Some(Range { min: size.min / 4, max: size.max }))
        }
        ("strings_quote", _) => {
            let size = of_arg(0);
            let made = size.plus(Range { min: 0, max: size.max }).plus(Range::exactly(2));
            (size.scaled(PER_CHARACTER), Some(made))
        }
        ("starts_with_string" | "ends_with_string", _) => (of_arg(0).scaled(PER_CHARACTER), None),
        ("in_list", _) => (of_arg(1), None),
        ("matches_string", Some(size)) => {
            let text = size.plus(Range::ONE).scaled(PER_CHARACTER);
            (text.times(of_arg(0).scaled(PER_PATTERN_CHARACTER)), None)
        }
        ("contains_string", Some(size)) => {
            let text = size.scaled(PER_CHARACTER);
            (text.times(of_arg(0).scaled(PER_CHARACTER)), None)
        }
        ("add_string", _) => {
            let size = of_arg(0).plus(of_arg(1));
            (size.scaled(PER_CHARACTER), Some(size))
        }
        // Addresses, quantities and the like are small.
        ("equals", _) if args.iter().all(|arg| matches!(arg.type_, Type::Opaque(_))) => {
            (Range::ONE, None)
        }
        ("equals" | "less_string", _) => {
            let max = of_arg(0).max.min(of_arg(1).max);
            (Range { min: max.min(1), max }.scaled(PER_CHARACTER), None)
        }
        _ => (Range::ONE, None),
    }
}
