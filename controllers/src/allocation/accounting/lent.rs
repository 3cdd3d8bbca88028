//! What agents lend beyond what they can promise, to tasks that may be killed at any time; and how it
//! is called in when there is less of it than they hold.

use std::{collections::BTreeMap, sync::Arc};

use commonage_allocator::TaskInfo;
use commonage_schemas::{Resources, Task, TaskKill, reasons};
use kube::ResourceExt;

use super::{Accounting, object_key};
use crate::allocation::{
    apply::Write,
    cache::key,
    info,
    reserved::{Taken, minus, named, plus},
};

#[derive(Debug, Default)]
pub(crate) struct Lent {
    /// Agents whose tasks hold more than is lent, and what is lent.
    short: BTreeMap<String, Resources>,
    /// Tasks that are to end for that, and what they are told.
    pub(crate) called_in: Vec<(Arc<Task>, String)>,
}

impl Accounting {
    /// A bound task as the allocator is to see it: what it holds of its agent's parts is told as
    /// that.
    pub(super) fn with_parts(&self, task: Option<&Task>, mut info: TaskInfo) -> TaskInfo {
        let bound = task.filter(|task| info.agent.is_some() && task.is_bound());
        let Some(task) = bound else { return info };
        let (parts, sum) = self.reserved.parts_of_task(&self.view(), task);
        if !parts.is_empty() {
            info.resources = minus(&info.resources, &sum);
            let ports = sum.ports().cloned().unwrap_or_default();
            info.host_ports.retain(|port| !ports.has(*port));
            info.parts = parts;
        }
        info
    }

    /// What refinements and volumes are given in this turn.
    pub(super) fn take_taken(&mut self) -> Taken {
        std::mem::take(&mut self.claims.taken)
    }

    /// Tasks on an agent that hold something lent and are not ending.
    fn borrowers(&self, agent: &str) -> Vec<Arc<Task>> {
        let tasks = self.reserved.tasks_on(agent);
        let found = tasks.iter().filter_map(|key| self.world.tasks.get(key).cloned());
        let holds = |task: &Arc<Task>| {
            task.spec.lent.is_some() && info::task(task).is_some_and(|info| !info.ending)
        };
        found.filter(holds).collect()
    }

    /// Notes whether an agent lends less than its tasks hold of that.
    pub(super) fn note_lent(&mut self, agent: &str, lent: &Resources) {
        let borrowers = self.borrowers(agent);
        if is_any(&minus(&borrowed(&borrowers), lent)) {
            self.lent.short.insert(agent.to_owned(), lent.clone());
        } else {
            self.lent.short.remove(agent);
        }
    }

    /// Ends tasks for which less is lent than they hold: those of the lowest priority, the youngest
    /// first, and no more than it takes.
    pub(super) fn call_in(&mut self) -> Vec<Write> {
        let mut writes = Vec::new();
        for (agent, lent) in self.lent.short.clone() {
            let mut tasks = self.borrowers(&agent);
            let mut short = minus(&borrowed(&tasks), &lent);
            if !is_any(&short) || self.world.agents.get(&named(&agent)).is_none() {
                self.lent.short.remove(&agent);
                continue;
            }
            tasks.sort_by_key(|task| {
                let created = task.metadata.creation_timestamp.as_ref().map(|time| time.0);
                (task.spec.priority, std::cmp::Reverse(created), task.name_any())
            });
            for task in tasks {
                let held = task.spec.lent.clone().unwrap_or_default();
                if !is_any(&short.min(&held)) {
                    continue;
                }
                short = minus(&short, &held);
                let key = key(task.as_ref());
                let message = format!("agent {agent} takes back what it had lent");
                let mut order = TaskKill::new(reasons::task::PREEMPTED, message.clone());
                order.metadata.uid = task.uid();
                writes.push(Write::Kill(object_key(&key), order));
                self.lent.called_in.push((task, message));
            }
        }
        writes
    }
}

fn is_any(resources: &Resources) -> bool {
    resources.iter().any(|(_, amount)| !amount.is_zero())
}

fn borrowed(tasks: &[Arc<Task>]) -> Resources {
    let lent = tasks.iter().filter_map(|task| task.spec.lent.as_ref());
    lent.fold(Resources::new(), |sum, some| plus(&sum, some))
}
