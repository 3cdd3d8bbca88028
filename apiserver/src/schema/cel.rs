//! Validation rules (`x-kubernetes-validations`) in the Common Expression Language.

pub(super) mod check;
mod field_path;

pub(super) use field_path::field_path;
