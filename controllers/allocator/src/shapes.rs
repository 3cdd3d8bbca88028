//! Shapes: what a waiting task needs, without its name. A thousand equal tasks are one shape, so
//! that what is found out about one of them (no room anywhere) need not be found out again.

use std::sync::Arc;

use crate::lanes::{Goods, Lanes};
use crate::selector::Selector;
use crate::table::{Id, Table};

/// Everything about a task that decides where it can go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    pub(crate) lanes: Lanes,
    /// Ports and things that it names itself.
    pub(crate) goods: Goods,
    /// Ports to be picked for it.
    pub(crate) picks: usize,
    /// Numbers under names that no agent has.
    pub(crate) unknown: Vec<Arc<str>>,
    pub(crate) required: Selector,
    pub(crate) preferred: Selector,
    pub(crate) spread: Option<String>,
    /// With the namespace whose tasks are looked at.
    pub(crate) anti_affinity: Option<(Arc<str>, Selector)>,
}

/// The shapes in use, each once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shapes(Table<Arc<Shape>, (Arc<Shape>, usize)>);

impl Shapes {
    pub(crate) fn acquire(&mut self, shape: Shape) -> Id {
        let shape = Arc::new(shape);
        let id = self.0.id_or_insert_with(&shape, || (shape.clone(), 0));
        self.0[id].1 += 1;
        id
    }

    pub(crate) fn release(&mut self, id: Id) {
        let (shape, users) = &mut self.0[id];
        *users -= 1;
        if *users == 0 {
            let shape = shape.clone();
            self.0.remove(&shape);
        }
    }

    pub(crate) fn get(&self, id: Id) -> &Shape {
        &self.0[id].0
    }

    pub(crate) fn shared(&self, id: Id) -> Arc<Shape> {
        self.0[id].0.clone()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Shape> {
        self.0.iter().map(|(_, (shape, _))| &**shape)
    }

    pub(crate) fn span(&self) -> usize {
        self.0.span()
    }
}
