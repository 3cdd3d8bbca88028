//! What nobody needs any more makes room on the disk: images, sandboxes and logs of ended tasks, content of deleted
//! Volumes.

use super::*;
use crate::collect::Sandboxes;
use crate::detect::disk_used;
use crate::prepare::collect_volumes;

impl Driver {
    /// Removes what may go and what the disk has no room for; one such job at a time. Images go first: they can be
    /// pulled again.
    pub(super) fn collect(&mut self) {
        if std::mem::replace(&mut self.collecting, true) {
            return;
        }
        let actuals = || self.records.values().filter_map(|record| record.actual.as_ref());
        let used = actuals()
            .filter(|actual| !matches!(actual.phase, Phase::Ended(_)))
            .filter_map(|actual| actual.entry.image.as_ref()?.parse().ok())
            .collect();
        let ended: Vec<(Uid, Timestamp)> = actuals()
            .filter(|actual| actual.remains == Remains::Nothing)
            .filter_map(|actual| match &actual.phase {
                Phase::Ended(end) => Some((actual.entry.uid.clone(), end.at())),
                _ => None,
            })
            .collect();
        let workshop = self.parts.workshop.clone();
        let (ledger, rule) = (self.parts.ledger.clone(), self.parts.sandboxes);
        self.jobs.spawn(async move {
            collect_volumes(&workshop.client, &workshop.directory).await;
            match workshop.images.collect(&used).await {
                Ok(done) if done.images.is_empty() && done.layers == 0 => {}
                Ok(done) => tracing::info!(?done.images, layers = done.layers, bytes = done.bytes, "images removed"),
                Err(error) => tracing::warn!(%error, "images can't be collected"),
            }
            let collected = tokio::task::spawn_blocking(move || make_room(&ledger, rule, &ended));
            Wake::Collected { pressed: collected.await.ok().flatten() }
        });
    }

    /// A disk that has become too full, or is so no more, is not left to the next look at everything.
    pub(super) fn watch_disk(&mut self) {
        let used = disk_used(&self.parts.ledger.directory());
        let is_pressed = used.is_ok_and(|used| self.parts.sandboxes.is_pressed(used));
        if is_pressed || self.pressed == Some(true) {
            self.collect();
        }
    }

    /// How full the disk is is told when that changes, after what could go has gone.
    pub(super) fn collected(&mut self, pressed: Option<bool>) {
        self.collecting = false;
        if pressed.is_some() && std::mem::replace(&mut self.pressed, pressed) != pressed {
            self.parts.changed.notify_one();
        }
    }
}

/// Whether the disk is too full all the same; `None`: that can't be found out. Blocks.
fn make_room(ledger: &Ledger, rule: Sandboxes, ended: &[(Uid, Timestamp)]) -> Option<bool> {
    let used = || disk_used(&ledger.directory()).ok();
    let full = used()?;
    let now = Timestamp::now();
    let due = rule.due(ended, full, now);
    let due: Vec<&Uid> = due.iter().filter(|uid| ledger.collected(uid).is_none()).collect();
    for uid in &due {
        let why = format!("when {:.0} % of the agent's disk were used", full * 100.0);
        if let Err(error) = ledger.collect(uid, &format!("{now:.0} {why}")) {
            tracing::warn!(uid, error = describe(&error), "a sandbox can't be removed");
        }
    }
    if !due.is_empty() {
        tracing::info!(sandboxes = due.len(), used = full, "sandboxes of ended tasks removed");
    }
    Some(rule.is_pressed(used()?))
}
