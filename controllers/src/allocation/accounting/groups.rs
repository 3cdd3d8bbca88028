//! Tasks of one group share their fate: when one of them ends otherwise than `Finished`, or is told to
//! end, so are the others.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use commonage_schemas::{Task, TaskKill, TaskState, names::DEFAULT_FRAMEWORK, reasons};
use kube::ResourceExt;

use super::{Accounting, object_key};
use crate::allocation::{apply::Write, cache::Key};

/// Namespace, framework and group.
type Name = (String, String, String);

#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// Those of each group that are not over.
    members: HashMap<Name, BTreeSet<Key>>,
    /// The group of each of them, and whether its end was told to the others.
    of: HashMap<Key, (Name, bool)>,
    /// Tasks to end, with what they are told.
    doomed: BTreeMap<Key, String>,
}

fn name_of(key: &Key, task: &Task) -> Option<Name> {
    let framework = task.spec.framework.as_deref().unwrap_or(DEFAULT_FRAMEWORK);
    let group = task.spec.group.as_ref()?;
    Some((key.0.clone(), framework.to_owned(), group.clone()))
}

/// What a task's end means for the others of its group, in words; `None`: nothing.
fn end_of(task: &Task) -> Option<String> {
    let state = task.state();
    let told = task.spec.kill.is_some() || task.metadata.deletion_timestamp.is_some();
    let name = task.name_any();
    let group = task.spec.group.as_deref().unwrap_or_default();
    match state {
        TaskState::Finished => None,
        _ if state.is_terminal() => Some(format!("task {name} of its group {group} is {state}")),
        _ if told || state == TaskState::Killing => {
            Some(format!("task {name} of its group {group} is told to end"))
        }
        _ => None,
    }
}

impl Groups {
    /// Takes in a task, or that there is none any more. `others` tells whether a task of that name
    /// is older than the end of this one.
    pub(crate) fn task(
        &mut self,
        key: &Key,
        task: Option<&Task>,
        older: impl Fn(&Key, &Task) -> bool,
    ) {
        let before = self.of.remove(key);
        if let Some((name, _)) = &before
            && let Some(members) = self.members.get_mut(name)
        {
            members.remove(key);
            if members.is_empty() {
                self.members.remove(name);
            }
        }
        let (was_member, told) = before.map_or((false, false), |(_, told)| (true, told));
        let Some((task, name)) = task.and_then(|task| Some((task, name_of(key, task)?))) else {
            self.doomed.remove(key);
            return;
        };
        let why = end_of(task);
        let ends = why.is_some();
        // It is told once: those that come later are a group made anew under the same name.
        if let Some(why) = why.filter(|_| !told) {
            for other in self.members.get(&name).into_iter().flatten() {
                if was_member || older(other, task) {
                    self.doomed.entry(other.clone()).or_insert_with(|| why.clone());
                }
            }
        }
        if !task.state().is_terminal() {
            self.members.entry(name.clone()).or_default().insert(key.clone());
            self.of.insert(key.clone(), (name, ends));
        }
    }
}

impl Accounting {
    pub(super) fn note_group(&mut self, key: &Key) {
        let tasks = &self.world.tasks;
        let older = |other: &Key, ended: &Task| {
            let created = tasks.get(other).and_then(|t| t.metadata.creation_timestamp.as_ref());
            let ended = ended.status.as_ref().and_then(|status| status.finished_at.as_ref());
            match (created, ended) {
                (Some(created), Some(ended)) => created.0 < ended.0,
                // It is not over yet: those that are there now are its group.
                _ => true,
            }
        };
        self.groups.task(key, tasks.get(key).map(AsRef::as_ref), older);
    }

    /// Ends tasks whose group has lost one.
    pub(super) fn end_groups(&mut self) -> Vec<Write> {
        let tasks = &self.world.tasks;
        let runs = |key: &Key| {
            tasks.get(key).filter(|task| !task.state().is_terminal() && task.spec.kill.is_none())
        };
        self.groups.doomed.retain(|key, _| runs(key).is_some());
        let writes = self.groups.doomed.iter().filter_map(|(key, why)| {
            let mut order = TaskKill::new(reasons::task::GROUP_ENDED, why.clone());
            order.metadata.uid = runs(key)?.uid();
            Some(Write::Kill(object_key(key), order))
        });
        writes.collect()
    }
}
