//! Walks over values along their types.

mod compare;
mod merge;
mod remove;
mod to_set;
mod validate;

pub(crate) use compare::{Delta, UNOWNED_METADATA, compare_objects, compare_owned};
pub(crate) use merge::merge;
pub(crate) use remove::{remove, with_named_fields};
pub(crate) use to_set::{to_set, without_details_of_atoms};
pub(crate) use validate::validate;
