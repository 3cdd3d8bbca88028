//! What an agent finds that the one before it has left.

use super::*;

impl Driver {
    /// Reads the ledger: which tasks were begun, and what has become of them since.
    pub(super) async fn recover(&mut self) -> anyhow::Result<()> {
        let ledger = self.parts.ledger.clone();
        let shims = self.parts.shims.clone();
        let found = tokio::task::spawn_blocking(move || scan(&ledger, &shims)).await??;
        let now = Timestamp::now();
        for (entry, seen) in found {
            let uid = entry.uid.clone();
            tracing::info!(uid, task = entry.name, namespace = entry.namespace, ?seen, "found");
            if let Some(group) = &entry.group {
                self.groups.entry(group.key.clone()).or_default().insert(uid.clone());
                self.rounds.insert(group.round.clone(), group.key.clone());
            }
            let record =
                Record { actual: Some(Actual::launching(entry, now)), ..Record::default() };
            self.records.insert(uid.clone(), Box::new(record));
            match seen {
                Seen::NotStarted | Seen::Starting => self.settle(&uid),
                seen => self.settled(&uid, seen),
            }
        }
        let (shims, found) = (self.parts.shims.clone(), self.rounds.clone());
        let remembered = tokio::task::spawn_blocking(move || shims.groups()).await?;
        // Of those that no task has any more the key does not matter.
        self.rounds.extend(remembered.into_iter().map(|round| (round, String::new())));
        self.rounds.extend(found);
        self.part_all();
        Ok(())
    }
}

/// Every entry of the ledger with what its container is found to be. Blocks.
fn scan(ledger: &Ledger, shims: &Shims) -> anyhow::Result<Vec<(Entry, Seen)>> {
    let mut found = Vec::new();
    for entry in ledger.entries()? {
        match shims.look(&entry.uid) {
            // Written down and never begun: as if it had never been.
            Seen::NotStarted => remove(shims, &entry.uid),
            Seen::Ended(end) => {
                shims.tidy(std::slice::from_ref(&entry.uid));
                found.push((entry, Seen::Ended(end)));
            }
            seen => found.push((entry, seen)),
        }
    }
    for uid in ledger.leftovers()? {
        match shims.look(&uid) {
            // Whose it is nobody can say any more, nor how it was to be ended.
            Seen::Starting | Seen::Running { .. } => {
                tracing::error!(uid, "the ledger entry of a container is damaged; it is killed");
                found.push(shims.give_up(&uid));
            }
            Seen::NotStarted | Seen::Ended(_) => remove(shims, &uid),
        }
    }
    Ok(found)
}

fn remove(shims: &Shims, uid: &str) {
    if let Err(error) = shims.remove(uid) {
        tracing::warn!(uid, error = describe(&error), "state directory can't be removed");
    }
}
