//! Which tasks are placed in one step: a single one, a group, or a whole gang.

use std::collections::BTreeMap;

use crate::cycle::Cycle;
use crate::cycle::fit::Bundle;
use crate::table::Id;
use crate::tasks::MembersKey;

/// What is placed in one step.
pub(super) enum Party {
    /// All of these, or none.
    Ready(Vec<Bundle>),
    /// Some of the gang do not exist yet.
    Incomplete,
}

impl Cycle<'_> {
    /// The tasks that are placed together with this one.
    pub(super) fn party(&self, task: Id) -> Party {
        let first = &self.state.tasks[task];
        let Some((gang, size)) = &first.gang else {
            return Party::Ready(vec![self.group_bundle(task)]);
        };
        let members = self.members(&self.state.gangs, gang, first.leaf);
        if members.len() < *size {
            return Party::Incomplete;
        }
        let mut waiting: Vec<_> = members
            .into_iter()
            .filter(|id| !self.done.contains(id))
            .filter_map(|id| Some((self.state.tasks[id].wait.as_ref()?.turn, id)))
            .collect();
        waiting.sort_unstable();
        let mut groups: BTreeMap<&MembersKey, ()> = BTreeMap::new();
        let mut bundles = Vec::new();
        for (_, id) in waiting {
            match &self.state.tasks[id].group {
                None => bundles.push(self.bundle(vec![id], None)),
                Some(group) if groups.insert(group, ()).is_none() => {
                    bundles.push(self.group_bundle(id));
                }
                Some(_) => {}
            }
        }
        // One may have found a place where nothing has changed, when another did not.
        for bundle in &mut bundles {
            bundle.fresh = true;
        }
        Party::Ready(bundles)
    }

    /// The task with all that wait in its group.
    fn group_bundle(&self, task: Id) -> Bundle {
        let first = &self.state.tasks[task];
        let Some(group) = &first.group else { return self.bundle(vec![task], None) };
        let members = self.members(&self.state.groups, group, first.leaf);
        let pinned =
            members.iter().find_map(|id| self.state.tasks[*id].held.as_ref().map(|h| h.agent));
        let mut waiting: Vec<_> = members
            .into_iter()
            .filter_map(|id| Some((self.state.tasks[id].wait.as_ref()?.turn, id)))
            .collect();
        waiting.sort_unstable();
        self.bundle(waiting.into_iter().map(|(_, id)| id).collect(), pinned)
    }

    /// Those of one leaf: a step charges one leaf only.
    fn members(&self, all: &crate::tasks::Members, key: &MembersKey, leaf: Id) -> Vec<Id> {
        let members = all.get(key).into_iter().flatten().copied();
        members.filter(|id| self.state.tasks[*id].leaf == leaf).collect()
    }
}
