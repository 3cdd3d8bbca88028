//! Tasks that share their fate: who they are, what they share, and when it goes.

use commonage_schemas::reasons::task as reasons;
use commonage_shim::launch::{Network, PortMapping};

use super::*;
use crate::task::spec::port_mappings;

impl Driver {
    /// The tasks of this machine that have a group's name.
    pub(super) fn company(&self, key: &str) -> Company<'_> {
        let uids = self.groups.get(key).into_iter().flatten();
        Company(uids.filter_map(|uid| Some((uid, &**self.records.get(uid)?))).collect())
    }

    /// Gives a task that is about to be launched its place in its group, and the ports of all of them to the
    /// network that the first of them makes.
    pub(super) fn join_group(&self, entry: &mut Entry, launch: &mut Launch) -> Result<(), Words> {
        let uid = &entry.uid;
        let task = self.records.get(uid).and_then(|record| record.desired.as_ref());
        let Some(key) = task.and_then(company::key) else { return Ok(()) };
        let company = self.company(&key);
        let membership = company.join(uid, key);
        if let Network::Cni(network) = &mut launch.network {
            let of_round = |other: &Uid| membership.members.contains(other);
            let tasks = company.0.iter().filter(|(other, _)| of_round(other));
            let tasks = tasks.filter_map(|(_, record)| record.desired.as_ref());
            let ports = tasks.flat_map(|task| port_mappings(&task.spec.container));
            let all: Vec<PortMapping> = ports.collect();
            let is_late = self.rounds.contains_key(&membership.round)
                && !company.founders(&membership.round).contains(uid);
            if is_late && !network.ports.is_empty() {
                return Err(Words {
                    reason: reasons::UNSUPPORTED,
                    message: "spec.container.ports: its group runs already, and no ports can be led to its \
                              network any more"
                        .to_owned(),
                });
            }
            network.ports = all;
        }
        entry.group = Some(membership);
        Ok(())
    }

    /// Forgets a task without an entry in the books of its group.
    pub(super) fn leave_company(&mut self, uid: &Uid) {
        let Some(key) = self.records.get(uid).and_then(|record| company::key_of(record)) else {
            return;
        };
        if let Some(uids) = self.groups.get_mut(&key) {
            uids.remove(uid);
            if uids.is_empty() {
                self.groups.remove(&key);
            }
        }
    }

    /// Lets go of what a group's rounds shared that are over.
    pub(super) fn part(&mut self, key: &str) {
        if self.rounds.is_empty() {
            return;
        }
        let alive = self.company(key).rounds_alive();
        let over: Vec<Uid> = self
            .rounds
            .iter()
            .filter(|(round, of)| *of == key && !alive.contains(*round))
            .map(|(round, _)| round.clone())
            .filter(|round| !self.leaving.contains(round))
            .collect();
        for round in over {
            self.leaving.insert(round.clone());
            let shims = self.parts.shims.clone();
            self.jobs.spawn_blocking(move || Wake::Parted {
                removed: shims.part(&round).map_err(|error| describe(&error)),
                round,
            });
        }
    }

    /// The same for all groups, in case something could not be removed before.
    pub(super) fn part_all(&mut self) {
        let keys: HashSet<String> = self.rounds.values().cloned().collect();
        keys.iter().for_each(|key| self.part(key));
    }

    pub(super) fn parted(&mut self, round: &Uid, removed: Result<(), String>) {
        self.leaving.remove(round);
        match removed {
            Ok(()) => drop(self.rounds.remove(round)),
            Err(error) => {
                tracing::warn!(round, error, "what a group shared can't be removed; tried again");
            }
        }
    }
}
