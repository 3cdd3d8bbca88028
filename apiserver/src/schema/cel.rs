//! Validation rules (`x-kubernetes-validations`) in the Common Expression Language: compiled with
//! the schema, checked when a definition is written, run after everything else holds.

pub(super) mod check;
mod checker;
mod children;
mod cost;
mod decl;
mod estimate;
mod eval;
mod field_path;
mod functions;
mod image;
mod lexer;
mod library_cost;
mod macros;
mod operand;
mod overloads;
mod parser;
mod rule;
mod typed_lists;
mod types;
mod value;
mod walk;

pub(super) use field_path::field_path;
pub(super) use rule::Rule;
pub(super) use walk::check as run;
