//! Amounts under their names, spelled out once for many equal ones.

use std::sync::Arc;

use commonage_schemas::resources::Resources;

use crate::lanes::{Goods, LaneNames, Lanes};

/// What was spelled out, each under a number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Amounts {
    all: Arc<Vec<Arc<Resources>>>,
    recent: Vec<(Lanes, Goods, u32)>,
}

impl Amounts {
    /// Agents are of a few kinds: more than so many at a time are not looked through.
    const RECENT: usize = 8;

    /// The number of so much.
    pub(crate) fn number(&mut self, names: &LaneNames, lanes: &Lanes, goods: &Goods) -> u32 {
        let known = self.recent.iter().find(|one| one.0 == *lanes && one.1 == *goods);
        if let Some((_, _, number)) = known {
            return *number;
        }
        let all = Arc::make_mut(&mut self.all);
        let number = u32::try_from(all.len()).expect("they are forgotten long before");
        all.push(Arc::new(names.resources(lanes, Some(goods))));
        if self.recent.len() == Self::RECENT {
            self.recent.remove(0);
        }
        self.recent.push((*lanes, goods.clone(), number));
        number
    }

    /// So much.
    pub(crate) fn print(
        &mut self,
        names: &LaneNames,
        lanes: &Lanes,
        goods: &Goods,
    ) -> Arc<Resources> {
        let number = self.number(names, lanes, goods);
        self.all[number as usize].clone()
    }

    /// All of them by number, as they are now.
    pub(crate) fn all(&self) -> Arc<Vec<Arc<Resources>>> {
        self.all.clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.all.len()
    }
}
