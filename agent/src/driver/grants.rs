//! What a task is given out of what this machine has only so much of, when its container is about to be made:
//! GPUs, users, disk, a place in its group. All of it goes into the ledger before anything is done.

use commonage_schemas::reasons::task as reasons;
use commonage_shim::launch::IdRange;

use super::*;
use crate::users;

impl Driver {
    /// Decides, and puts what comes of it into the entry and the order.
    ///
    /// # Errors
    /// There is not what was promised.
    pub(super) fn grant(
        &self,
        task: &Task,
        entry: &mut Entry,
        launch: &mut Launch,
    ) -> Result<(), Words> {
        entry.ids = self.users_of(task, &entry.uid);
        launch.user_namespace = entry.ids;
        let disk = disk::limit_of(task);
        entry.disk = disk.map(|bytes| self.limit_disk(&entry.uid, bytes));
        self.join_group(entry, launch)?;
        let reason = reasons::GPU_UNAVAILABLE;
        let gpus = self.give_gpus(task.spec.resources.gpus(), launch);
        entry.gpus = gpus.map_err(|message| Words { reason, message })?;
        Ok(())
    }

    /// Numbers for the users of a task that has its own. That it can have them was seen when its order was made.
    fn users_of(&self, task: &Task, uid: &Uid) -> Option<IdRange> {
        let leave = &self.parts.site.leave;
        let wanted =
            users::wanted(task, leave.user_namespaces, leave.no_user_namespaces.as_deref());
        if wanted != Ok(true) {
            return None;
        }
        // Until it is forgotten, because its files may lie about.
        let all = self.records.values().filter_map(|record| record.actual.as_ref());
        let taken = all.filter_map(|actual| Some(actual.entry.ids?.first)).collect();
        Some(users::range_of(uid, &taken))
    }

    fn limit_disk(&self, uid: &Uid, bytes: u64) -> disk::DiskLimit {
        let all = self.records.values().filter_map(|record| record.actual.as_ref());
        let taken = all.filter_map(|actual| actual.entry.disk?.project).collect();
        let project = self.parts.shims.keeps_quotas().then(|| disk::project_of(uid, &taken));
        disk::DiskLimit { bytes, project }
    }

    /// Chooses GPUs, and puts into the order what they take.
    fn give_gpus(&self, wanted: i64, launch: &mut Launch) -> Result<Vec<String>, String> {
        let Some(wanted) = usize::try_from(wanted).ok().filter(|wanted| *wanted > 0) else {
            return Ok(Vec::new());
        };
        let Some(gpus) = &self.parts.gpus else {
            return Err(format!("it was promised {wanted} GPUs, and this agent has none to give"));
        };
        let begun = self.records.values().filter_map(|record| record.actual.as_ref());
        // Also what is left of a container may hold a device open.
        let held = begun.filter(|actual| {
            !matches!(actual.phase, Phase::Ended(_)) || actual.remains != Remains::Nothing
        });
        let held = held.flat_map(|actual| &actual.entry.gpus).map(String::as_str).collect();
        let given = gpus.pick(wanted, &held)?;
        gpus.equip(launch, &given)?;
        Ok(given.into_iter().map(|gpu| gpu.description.uuid).collect())
    }
}
