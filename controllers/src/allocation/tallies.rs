//! Counts that follow every change, so that a turn of the statuses looks at what has changed and not
//! at all that there is.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use commonage_schemas::{Task, TaskState, names::DEFAULT_FRAMEWORK};

use super::cache::Key;

#[derive(Debug, Default)]
pub(crate) struct Tallies {
    tasks: HashMap<Key, (Key, TaskState)>,
    /// Tasks of each framework, by state.
    states: HashMap<Key, BTreeMap<&'static str, u64>>,
    /// Agents on which something may have changed since they were last asked for, each once.
    agents: HashSet<Arc<str>>,
    /// The same, in the order in which they came.
    waiting: VecDeque<Arc<str>>,
    /// How often something may have changed on an agent since that was asked for last.
    touches: usize,
}

impl Tallies {
    pub(crate) fn task(&mut self, key: &Key, task: Option<&Task>) {
        let now = task.map(|task| {
            let framework = task.spec.framework.as_deref().unwrap_or(DEFAULT_FRAMEWORK);
            ((key.0.clone(), framework.to_owned()), task.state())
        });
        let before = match &now {
            Some(now) => self.tasks.insert(key.clone(), now.clone()),
            None => self.tasks.remove(key),
        };
        if before == now {
            return;
        }
        if let Some((framework, state)) = before
            && let Some(states) = self.states.get_mut(&framework)
            && let Some(count) = states.get_mut(state.name())
        {
            *count -= 1;
            if *count == 0 {
                states.remove(state.name());
            }
            if states.is_empty() {
                self.states.remove(&framework);
            }
        }
        if let Some((framework, state)) = now {
            *self.states.entry(framework).or_default().entry(state.name()).or_default() += 1;
        }
    }

    pub(crate) fn touch_agent(&mut self, name: &str) {
        self.touches += 1;
        if !self.agents.contains(name) {
            let name: Arc<str> = name.into();
            self.agents.insert(name.clone());
            self.waiting.push_back(name);
        }
    }

    pub(crate) fn states(&self, framework: &Key) -> BTreeMap<&'static str, u64> {
        self.states.get(framework).cloned().unwrap_or_default()
    }

    pub(crate) fn take_touches(&mut self) -> usize {
        std::mem::take(&mut self.touches)
    }

    /// Agents that were touched, at most so many; the others stay for the next time.
    pub(crate) fn take_agents(&mut self, most: usize) -> Vec<Arc<str>> {
        let taken: Vec<_> = self.waiting.drain(..most.min(self.waiting.len())).collect();
        for name in &taken {
            self.agents.remove(name);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use commonage_schemas::{TaskSpec, TaskStatus};

    use super::*;

    #[test]
    fn every_task_counts_once_in_its_state() {
        let mut tallies = Tallies::default();
        let key = ("ns".to_owned(), "t".to_owned());
        let framework = ("ns".to_owned(), "default".to_owned());
        let mut task = Task::new("t", TaskSpec::default());
        for state in [TaskState::Pending, TaskState::Running, TaskState::Running] {
            task.status = Some(TaskStatus { state, ..TaskStatus::default() });
            tallies.task(&key, Some(&task));
        }
        assert_eq!(tallies.states(&framework), BTreeMap::from([("Running", 1)]));
        tallies.task(&key, None);
        assert!(tallies.states(&framework).is_empty());
    }

    #[test]
    fn agents_are_taken_in_turn_and_each_once() {
        let mut tallies = Tallies::default();
        ["a", "b", "a", "c"].iter().for_each(|name| tallies.touch_agent(name));
        assert_eq!(tallies.take_agents(2), ["a".into(), "b".into()]);
        ["a", "c"].iter().for_each(|name| tallies.touch_agent(name));
        assert_eq!(tallies.take_agents(9), ["c".into(), "a".into()]);
        assert!(tallies.take_agents(9).is_empty());
    }
}
