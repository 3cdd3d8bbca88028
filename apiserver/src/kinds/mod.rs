//! The kinds with rules of their own, one file each.

pub mod namespace;

use std::collections::HashMap;
use std::sync::Arc;

use crate::strategy::Strategy;

/// Strategies by group and plural name; kinds that are not here have none.
pub(crate) fn strategies() -> HashMap<(String, String), Arc<dyn Strategy>> {
    let all: [(&str, &str, Arc<dyn Strategy>); 1] = [("", "namespaces", Arc::new(namespace::Namespaces))];
    all.into_iter().map(|(group, plural, strategy)| ((group.to_owned(), plural.to_owned()), strategy)).collect()
}
