//! What is reserved is given to refinements and volumes without asking anybody.

use commonage_schemas::{Volume, reservation::BOUND};
use serde_json::{Value, json};

use super::Accounting;
use crate::allocation::{
    apply::Write,
    reserved::{Taken, disk, minus, named, plus},
};

impl Accounting {
    /// Refinements and volumes that there is room for now.
    pub(crate) fn serve_from_reservations(&mut self) -> Vec<Write> {
        self.claims.taken.clear();
        if !std::mem::take(&mut self.claims.look) || self.world.reservations.iter().next().is_none()
        {
            return Vec::new();
        }
        let mut taken = Taken::new();
        let mut writes = self.refine(&mut taken);
        writes.extend(self.provide_volumes(&mut taken));
        self.claims.taken = taken;
        writes
    }

    fn refine(&self, taken: &mut Taken) -> Vec<Write> {
        let view = self.view();
        let mut writes = Vec::new();
        for child in self.world.reservations.iter().filter(|r| r.agents().len() < r.count()) {
            let Some(parent) = child.spec.parent.as_deref() else { continue };
            let above = self.world.reservations.get(&named(parent));
            let places: Vec<String> = above.map(|r| r.agents().to_vec()).unwrap_or_default();
            let wanted = child.spec.agent.as_ref();
            let place = places.iter().filter(|a| wanted.is_none_or(|w| w == *a)).find(|agent| {
                let place = (parent.to_owned(), (*agent).clone());
                let taken = taken.get(&place).cloned().unwrap_or_default();
                let free = minus(&self.reserved.free(&view, parent, agent), &taken);
                !child.agents().contains(agent) && free.contains(&child.spec.resources)
            });
            if let Some(agent) = place {
                let place = taken.entry((parent.to_owned(), agent.clone())).or_default();
                *place = plus(place, &child.spec.resources);
                writes.push(self.bound(child.clone(), std::slice::from_ref(agent)));
            }
        }
        writes
    }

    fn provide_volumes(&self, taken: &mut Taken) -> Vec<Write> {
        let view = self.view();
        let mut writes = Vec::new();
        for volume in self.world.volumes.iter() {
            let (has, wants) = (volume.bound_bytes(), volume.wanted_bytes());
            if volume.is_bound() && has == wants || volume.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let name = &volume.spec.reservation;
            let more = disk(wants - has);
            let places = match view.place_of(volume) {
                Some(agent) => vec![agent.to_owned()],
                None => {
                    let found = self.world.reservations.get(&named(name));
                    found.map(|r| r.agents().to_vec()).unwrap_or_default()
                }
            };
            let place = places.into_iter().find(|agent| {
                let taken = taken.get(&(name.clone(), agent.clone())).cloned().unwrap_or_default();
                minus(&self.reserved.free(&view, name, agent), &taken).contains(&more)
            });
            let status = match place {
                Some(agent) => {
                    let place = taken.entry((name.clone(), agent.clone())).or_default();
                    *place = plus(place, &more);
                    let condition = self.condition(true, "SetAside", "its disk is set aside");
                    json!({"phase": "Bound", "size": volume.spec.size, "agent": agent,
                           "conditions": [condition]})
                }
                None => match self.waits(volume) {
                    Some(status) => status,
                    None => continue,
                },
            };
            writes.push(Write::Provide(volume.clone(), status));
        }
        writes
    }

    /// What a volume says that waits; `None`: it says so already.
    fn waits(&self, volume: &Volume) -> Option<Value> {
        let name = &volume.spec.reservation;
        let message = match self.world.reservations.get(&named(name)) {
            None => format!("reservation {name} does not exist"),
            Some(found) if found.agents().is_empty() => format!("reservation {name} is not bound"),
            Some(_) => format!("reservation {name} has too little disk left"),
        };
        let conditions =
            volume.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
        if conditions.iter().any(|c| c.type_ == BOUND && c.message == message) {
            return None;
        }
        let phase = if volume.is_bound() { "Bound" } else { "Pending" };
        let condition = self.condition(volume.is_bound(), "WaitingForDisk", &message);
        Some(json!({"phase": phase, "conditions": [condition]}))
    }
}
