//! Operations that make, change or delete Reservations and Volumes.

use std::collections::BTreeMap;
use std::sync::Arc;

use commonage_schemas::offer::{CreateVolume, Reserve, ResizeVolume, Unreserve};
use commonage_schemas::resources::{Amount, DISK, Resources};
use commonage_schemas::volume::bytes;
use commonage_schemas::{GROUP, Reservation, Volume, reservation};
use commonage_store::{Compare, Op};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Scene;
use super::body::{Operation, What, locate};
use super::pool::{Pool, PoolVolume, shortage};
use crate::engine::{encode, take_version};
use crate::meta;
use crate::object::Object;
use crate::resource::ResourceDef;
use crate::status::{ApiError, Cause};

/// What becomes of one Reservation or Volume.
pub(super) struct Edit {
    def: Arc<ResourceDef>,
    namespace: String,
    name: String,
    /// As it was; `None`: it is new.
    old: Option<Arc<Object>>,
    /// As it is to be; `None`: it is deleted.
    new: Option<Value>,
}

impl Edit {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn is_reservation(&self) -> bool {
        self.def.kind == "Reservation"
    }

    pub(super) fn is_new(&self) -> bool {
        self.old.is_none()
    }

    pub(super) fn stays(&self) -> bool {
        self.new.is_some()
    }

    pub(super) fn def(&self) -> &Arc<ResourceDef> {
        &self.def
    }

    /// What must hold, and what to do then.
    pub(super) fn write(&self) -> (Compare, Op) {
        let key = bytes::Bytes::from(self.def.key(&self.namespace, &self.name));
        let compare = match &self.old {
            Some(old) => Compare::At { key: key.clone(), version: old.version },
            None => Compare::Absent { key: key.clone() },
        };
        let op = match &self.new {
            Some(new) => Op::Put { key, value: encode(new) },
            None => Op::Delete { key },
        };
        (compare, op)
    }
}

/// Why an operation can't be done.
pub(super) enum Refusal {
    Causes(Vec<Cause>),
    Error(ApiError),
}

impl From<Cause> for Refusal {
    fn from(cause: Cause) -> Self {
        Refusal::Causes(vec![cause])
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Refusal::Error(error)
    }
}

/// Edits so far, by kind and name.
#[derive(Default)]
pub(super) struct Edits(BTreeMap<(bool, String), Edit>);

impl Edits {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Edit> {
        self.0.values()
    }

    fn put(&mut self, edit: Edit) {
        let key = (edit.is_reservation(), edit.name.clone());
        if edit.old.is_none() && edit.new.is_none() {
            // Made and deleted in one go: nobody will have seen it.
            self.0.remove(&key);
        } else {
            self.0.insert(key, edit);
        }
    }
}

/// One acceptance's view of Reservations and Volumes.
pub(super) struct Editor<'s> {
    pub(super) scene: &'s Scene<'s>,
    /// `namespace/name` of the offer that is answered.
    pub(super) offer: String,
    pub(super) now: Timestamp,
    pub(super) edits: Edits,
}

impl Editor<'_> {
    pub(super) fn apply(&mut self, pool: &mut Pool, operation: &Operation) -> Result<(), Refusal> {
        match &operation.what {
            What::Launch | What::LaunchGroup => Ok(()),
            What::Reserve(reserve) => self.reserve(pool, operation, reserve),
            What::Unreserve(unreserve) => self.unreserve(pool, operation, unreserve),
            What::CreateVolume(create) => self.create_volume(pool, operation, create),
            What::DestroyVolume(destroy) => self.destroy_volume(pool, operation, &destroy.volume),
            What::GrowVolume(resize) => self.resize(pool, operation, resize, true),
            What::ShrinkVolume(resize) => self.resize(pool, operation, resize, false),
        }
    }

    fn reserve(
        &mut self,
        pool: &mut Pool,
        at: &Operation,
        reserve: &Reserve,
    ) -> Result<(), Refusal> {
        let Reserve { name, queue, resources, parent } = reserve;
        let queue = queue.clone().unwrap_or_else(|| pool.queue.clone());
        if queue != pool.queue && !queue.starts_with(&format!("{}.", pool.queue)) {
            let detail = format!("must be the offer's queue {:?}, or one below it", pool.queue);
            return Err(Cause::invalid(at.field("queue"), &json!(queue), &detail).into());
        }
        if resources.is_empty() {
            return Err(Cause::required(at.field("resources"), "how much to set aside").into());
        }
        if let Some(parent) = parent
            && !pool.reserved.contains_key(parent)
        {
            let detail = "the offer brings nothing of this reservation";
            return Err(Cause::invalid(at.field("parent"), &json!(parent), detail).into());
        }
        pool.take(parent.as_deref(), resources).map_err(|error| {
            let have = match parent {
                Some(parent) => pool.reserved.get(parent).cloned().unwrap_or_default(),
                None => pool.plain.clone(),
            };
            let whose = if parent.is_some() { "the reservation" } else { "the offer" };
            let (name, detail) = shortage(&error, &have, whose);
            let wanted = resources.get(&name).map(|amount| json!(amount.to_text(&name)));
            let field = at.field(&format!("resources.{name}"));
            Cause::invalid(field, &wanted.unwrap_or_default(), &detail)
        })?;
        pool.give_back(Some(name), resources).map_err(ApiError::internal)?;
        let spec = json!({
            "queue": queue, "resources": resources, "agent": pool.agent, "parent": parent,
        });
        let status = json!({
            "phase": "Bound", "agents": [pool.agent], "offer": self.offer,
            "conditions": [self.bound("set aside by an accepted offer")],
        });
        self.make(at, "Reservation", "", name, spec, status)
    }

    fn unreserve(
        &mut self,
        pool: &mut Pool,
        at: &Operation,
        unreserve: &Unreserve,
    ) -> Result<(), Refusal> {
        let name = &unreserve.reservation;
        if !pool.reserved.contains_key(name) {
            let detail = "the offer brings nothing of this reservation";
            return Err(Cause::invalid(at.field("reservation"), &json!(name), detail).into());
        }
        let mut edit = self.find("Reservation", "", name)?;
        let Some(mut object) = edit.new.take() else {
            return Err(ApiError::not_found(&edit.def, name).into());
        };
        let read: Reservation =
            serde_json::from_value(object.clone()).map_err(ApiError::internal)?;
        if unreserve.resources.is_some() && read.count() > 1 {
            let detail = "it is on several agents: change spec.resources instead";
            return Err(Cause::forbidden(at.field("resources"), detail).into());
        }
        let all = &read.spec.resources;
        let given_up = unreserve.resources.as_ref().unwrap_or(all);
        pool.take(Some(name), given_up).map_err(|error| {
            let have = pool.reserved.get(name).cloned().unwrap_or_default();
            let (short, detail) = shortage(&error, &have, "the part of it that was offered");
            let wanted = given_up.get(&short).map(|amount| json!(amount.to_text(&short)));
            let field = match unreserve.resources {
                Some(_) => at.field(&format!("resources.{short}")),
                None => at.field("reservation"),
            };
            let detail = format!("{short}: {detail}; the rest is in use");
            Cause::invalid(field, &wanted.unwrap_or_default(), &detail)
        })?;
        let parent = read.spec.parent.as_deref();
        let back = parent.filter(|parent| pool.reserved.contains_key(*parent));
        pool.give_back(back, given_up).map_err(ApiError::internal)?;
        let left = all.checked_sub(given_up).map_err(ApiError::internal)?;
        if !left.is_empty() {
            object["spec"]["resources"] = json!(left);
            meta::bump_generation(&mut object);
            edit.new = Some(object);
        } else {
            pool.reserved.remove(name);
        }
        self.edits.put(edit);
        Ok(())
    }

    fn create_volume(
        &mut self,
        pool: &mut Pool,
        at: &Operation,
        create: &CreateVolume,
    ) -> Result<(), Refusal> {
        let CreateVolume { name, reservation, size, shared } = create;
        if !pool.reserved.contains_key(reservation) {
            let detail = "the offer brings nothing of this reservation";
            let field = at.field("reservation");
            return Err(Cause::invalid(field, &json!(reservation), detail).into());
        }
        self.take_disk(pool, at, reservation, bytes(size), size)?;
        let held = PoolVolume {
            reservation: reservation.clone(),
            bytes: bytes(size),
            shared: *shared,
            mounted: false,
        };
        pool.volumes.insert(name.clone(), held);
        let spec = json!({"reservation": reservation, "size": size, "shared": shared});
        let status = json!({
            "phase": "Bound", "size": size, "agent": pool.agent, "offer": self.offer,
            "conditions": [self.bound("made from an accepted offer")],
        });
        self.make(at, "Volume", self.scene.namespace, name, spec, status)
    }

    fn destroy_volume(
        &mut self,
        pool: &mut Pool,
        at: &Operation,
        name: &str,
    ) -> Result<(), Refusal> {
        let edit = self.unused_volume(pool, at, name)?;
        let Some(volume) = pool.volumes.remove(name) else { return Ok(()) };
        pool.give_back(Some(&volume.reservation), &disk(volume.bytes))
            .map_err(ApiError::internal)?;
        self.edits.put(Edit { new: None, ..edit });
        Ok(())
    }

    fn resize(
        &mut self,
        pool: &mut Pool,
        at: &Operation,
        resize: &ResizeVolume,
        grow: bool,
    ) -> Result<(), Refusal> {
        let name = &resize.volume;
        let mut edit = self.unused_volume(pool, at, name)?;
        let (before, wanted) =
            (pool.volumes.get(name).map_or(0, |volume| volume.bytes), bytes(&resize.size));
        let invalid = |detail: &str| Cause::invalid(at.field("size"), &json!(resize.size), detail);
        if grow && wanted < before {
            return Err(invalid("must not be less than what the volume has").into());
        }
        if !grow && wanted > before {
            return Err(invalid("must not be more than what the volume has").into());
        }
        let reservation =
            pool.volumes.get(name).map(|volume| volume.reservation.clone()).unwrap_or_default();
        if grow {
            self.take_disk(pool, at, &reservation, wanted - before, &resize.size)?;
        } else {
            pool.give_back(Some(&reservation), &disk(before - wanted))
                .map_err(ApiError::internal)?;
        }
        if let Some(volume) = pool.volumes.get_mut(name) {
            volume.bytes = wanted;
        }
        if let Some(object) = &mut edit.new {
            object["spec"]["size"] = json!(resize.size);
            object["status"]["size"] = json!(resize.size);
            object["status"]["offer"] = json!(self.offer);
            meta::bump_generation(object);
        }
        self.edits.put(edit);
        Ok(())
    }

    /// A volume that came with the offer and that nobody uses.
    fn unused_volume(&self, pool: &Pool, at: &Operation, name: &str) -> Result<Edit, Refusal> {
        let invalid = |detail: &str| Cause::invalid(at.field("volume"), &json!(name), detail);
        match pool.volumes.get(name) {
            None => return Err(invalid("the offer does not bring this volume").into()),
            Some(volume) if volume.mounted => {
                return Err(invalid("a task of this acceptance mounts it").into());
            }
            Some(_) => {}
        }
        let edit = self.find("Volume", self.scene.namespace, name)?;
        let Some(object) = &edit.new else {
            return Err(ApiError::not_found(&edit.def, name).into());
        };
        let read: Volume = serde_json::from_value(object.clone()).map_err(ApiError::internal)?;
        let users = read.status.map(|status| status.used_by).unwrap_or_default();
        if !users.is_empty() {
            return Err(invalid(&format!("it is used by {}", users.join(", "))).into());
        }
        Ok(edit)
    }

    fn take_disk(
        &self,
        pool: &mut Pool,
        at: &Operation,
        reservation: &str,
        bytes: i64,
        size: &str,
    ) -> Result<(), Refusal> {
        pool.take(Some(reservation), &disk(bytes)).map_err(|error| {
            let have = pool.reserved.get(reservation).cloned().unwrap_or_default();
            let whose = format!("the offered part of reservation {reservation:?}");
            let (_, detail) = shortage(&error, &have, &whose);
            Cause::invalid(at.field("size"), &json!(size), &format!("disk: {detail}")).into()
        })
    }

    /// The object as the operations before have left it.
    fn find(&self, kind: &str, namespace: &str, name: &str) -> Result<Edit, Refusal> {
        let def = self.def(kind)?;
        if let Some(edit) = self.edits.0.get(&(kind == "Reservation", name.to_owned())) {
            return Ok(Edit {
                def,
                namespace: edit.namespace.clone(),
                name: edit.name.clone(),
                old: edit.old.clone(),
                new: edit.new.clone(),
            });
        }
        let path = format!("{namespace}/{name}");
        let found = self.scene.engine.resource(&def)?.get(&path).filter(|object| !object.deleting);
        let old = found.ok_or_else(|| ApiError::not_found(&def, name))?;
        let mut object = old.to_value();
        take_version(&mut object);
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Ok(Edit { def, namespace, name, old: Some(old), new: Some(object) })
    }

    fn make(
        &mut self,
        at: &Operation,
        kind: &str,
        namespace: &str,
        name: &str,
        spec: Value,
        status: Value,
    ) -> Result<(), Refusal> {
        let def = self.def(kind)?;
        let engine = self.scene.engine;
        let path = format!("{namespace}/{name}");
        if engine.resource(&def)?.get(&path).is_some()
            || self.edits.0.contains_key(&(kind == "Reservation", name.to_owned()))
        {
            let place = format!("operations[{}].{}.", at.number, at.what.member());
            return Err(locate(&place, ApiError::already_exists(&def, name)).into());
        }
        let mut object = json!({
            "apiVersion": def.api_version(), "kind": kind, "metadata": {"name": name}, "spec": spec,
        });
        if let Some(spec) = object["spec"].as_object_mut() {
            spec.retain(|_, value| !value.is_null());
        }
        let place = format!("operations[{}].{}.", at.number, at.what.member());
        let options = self.scene.options_of_a_part();
        let (mut object, warnings) = engine
            .prepare_metadata(&def, namespace, object, &options)
            .map_err(|error| locate(&place, error))?;
        object["status"] = status;
        let prepared = engine
            .validated(&def, namespace, object, warnings)
            .map_err(|error| locate(&place, error))?;
        let new = Some(prepared.object);
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        self.edits.put(Edit { def, namespace, name, old: None, new });
        Ok(())
    }

    fn def(&self, kind: &str) -> Result<Arc<ResourceDef>, ApiError> {
        let def = self.scene.engine.scheme().by_kind(GROUP, kind).cloned();
        def.ok_or_else(|| ApiError::internal(format!("{kind}s are not served")))
    }

    fn bound(&self, message: &str) -> Value {
        json!({
            "type": reservation::BOUND, "status": "True", "reason": "Accepted",
            "message": message, "lastTransitionTime": meta::time_text(self.now),
        })
    }
}

fn disk(bytes: i64) -> Resources {
    std::iter::once((DISK.to_owned(), Amount::Scalar(bytes.max(0)))).collect()
}
