//! What the offers of one acceptance hold together, and what its operations have left of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use commonage_schemas::OfferSpec;
use commonage_schemas::resources::{Resources, ResourcesError};
use commonage_schemas::volume::bytes;
use serde_json::{Value, json};

use crate::object::Object;
use crate::status::Cause;

/// What is there to be used; every operation takes out of it, or puts back.
pub(super) struct Pool {
    pub(super) agent: String,
    pub(super) framework: String,
    pub(super) queue: String,
    /// What nobody has reserved.
    pub(super) plain: Resources,
    /// What is there of each reservation.
    pub(super) reserved: BTreeMap<String, Resources>,
    /// What may be taken back at any time, for tasks that may be killed at any time.
    pub(super) lent: Resources,
    pub(super) volumes: BTreeMap<String, PoolVolume>,
}

/// A volume that tasks of the acceptance may mount.
pub(super) struct PoolVolume {
    pub(super) reservation: String,
    pub(super) bytes: i64,
    pub(super) shared: bool,
    /// A task of the acceptance mounts it.
    pub(super) mounted: bool,
}

impl Pool {
    /// Offers can be joined when they are of one agent, framework and queue.
    pub(super) fn of(offers: &[(Arc<Object>, Value)]) -> Result<Pool, Vec<Cause>> {
        let mut joined: Option<Pool> = None;
        for (number, (object, offer)) in offers.iter().enumerate() {
            let field = format!("offers[{}]", number.saturating_sub(1));
            let name = json!(object.name());
            let unreadable = |error: &dyn std::fmt::Display| {
                vec![Cause::invalid(&*field, &name, &format!("the offer can't be read: {error}"))]
            };
            let spec: OfferSpec = serde_json::from_value(offer["spec"].clone())
                .map_err(|error| unreadable(&error))?;
            let pool = joined.get_or_insert_with(|| Pool {
                agent: spec.agent.clone(),
                framework: spec.framework.clone(),
                queue: spec.queue.clone(),
                plain: Resources::new(),
                reserved: BTreeMap::new(),
                lent: Resources::new(),
                volumes: BTreeMap::new(),
            });
            let same = [
                ("agent", &spec.agent, &pool.agent),
                ("framework", &spec.framework, &pool.framework),
                ("queue", &spec.queue, &pool.queue),
            ];
            if let Some((what, is, wanted)) = same.into_iter().find(|(_, is, wanted)| is != wanted)
            {
                let detail =
                    format!("its {what} is {is:?}, that of the offer in the path is {wanted:?}");
                return Err(vec![Cause::invalid(field, &name, &detail)]);
            }
            pool.add(&spec).map_err(|error| unreadable(&error))?;
        }
        joined.ok_or_else(|| vec![Cause::required("offers", "")])
    }

    fn add(&mut self, spec: &OfferSpec) -> Result<(), ResourcesError> {
        let mut plain = spec.resources.clone();
        for part in &spec.reserved {
            plain = plain.checked_sub(&part.resources)?;
            self.give_back(Some(&part.reservation), &part.resources)?;
        }
        if let Some(lent) = &spec.revocable {
            plain = plain.checked_sub(lent)?;
            self.lent = self.lent.checked_add(lent)?;
        }
        self.plain = self.plain.checked_add(&plain)?;
        for volume in &spec.volumes {
            let held = PoolVolume {
                reservation: volume.reservation.clone(),
                bytes: bytes(&volume.size),
                shared: volume.shared,
                mounted: false,
            };
            self.volumes.insert(volume.volume.clone(), held);
        }
        Ok(())
    }

    /// Takes out of a reservation, or of what nobody has reserved.
    pub(super) fn take(
        &mut self,
        reservation: Option<&str>,
        resources: &Resources,
    ) -> Result<(), ResourcesError> {
        let nothing = &mut Resources::new();
        let from = match reservation {
            None => &mut self.plain,
            Some(name) => self.reserved.get_mut(name).unwrap_or(nothing),
        };
        *from = from.checked_sub(resources)?;
        Ok(())
    }

    /// Puts back into a reservation, or into what nobody has reserved.
    pub(super) fn give_back(
        &mut self,
        reservation: Option<&str>,
        resources: &Resources,
    ) -> Result<(), ResourcesError> {
        let to = match reservation {
            None => &mut self.plain,
            Some(name) => self.reserved.entry(name.to_owned()).or_default(),
        };
        *to = to.checked_add(resources)?;
        Ok(())
    }

    /// Everything that is left, reserved or not, and what is lent for those who may have that.
    pub(super) fn left(&self, revocable: bool) -> Resources {
        let lent = revocable.then_some(&self.lent);
        self.reserved.values().chain(lent).fold(self.plain.clone(), |sum, part| {
            // Parts of one offer, which held their sum.
            sum.checked_add(part).unwrap_or(sum)
        })
    }

    /// Makes the task one of this offer's framework and queue; what contradicts that is wrong.
    pub(super) fn claim(&self, task: &mut Value, offers: &[String]) -> Vec<Cause> {
        let mut causes = Vec::new();
        let mut set = |field: &str, wanted: &str, also: &[String]| {
            let given = &task["spec"][field];
            let fits =
                given.is_null() || given == wanted || also.iter().any(|one| given == one.as_str());
            if !fits {
                let detail = format!("the offer's is {wanted:?}");
                causes.push(Cause::invalid(format!("spec.{field}"), given, &detail));
            }
            if given.is_null() {
                task["spec"][field] = json!(wanted);
            }
        };
        set("framework", &self.framework, &[]);
        set("queue", &self.queue, &[]);
        set("agent", &self.agent, &[]);
        set("offer", offers.first().map_or("", String::as_str), offers);
        causes
    }
}

/// The resource that there is too little of, and a sentence about it.
pub(super) fn shortage(error: &ResourcesError, have: &Resources, whose: &str) -> (String, String) {
    let (ResourcesError::NotEnough { name, .. }
    | ResourcesError::Overflow { name }
    | ResourcesError::Mismatch { name, .. }) = error;
    let left = have.get(name).map_or_else(|| "nothing".to_owned(), |amount| amount.to_text(name));
    (name.clone(), format!("{whose} has {left} of it left"))
}
