//! An acceptance that is sent once more, because its answer got lost: it is recognized by what it
//! did the first time.

use std::sync::Arc;

use commonage_schemas::volume::bytes;
use commonage_schemas::{GROUP, Reservation, Volume, reasons};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::{ports, task};
use super::body::{Acceptance, Launched, What};
use super::{Accepted, Scene};
use crate::object::Object;
use crate::status::ApiError;

impl Scene<'_> {
    /// What this very acceptance did before; `None` if it did not.
    ///
    /// # Errors
    /// 409 `TaskIdReused`: a task of that name was launched on the offer, but another one.
    pub(super) fn done_before(
        &self,
        acceptance: &Acceptance,
    ) -> Result<Option<Accepted>, ApiError> {
        if acceptance.tasks.is_empty() && acceptance.edits() == 0 {
            return Ok(None);
        }
        let mut tasks = Vec::with_capacity(acceptance.tasks.len());
        for launched in &acceptance.tasks {
            let Some(task) = self.launched_before(acceptance, launched)? else { return Ok(None) };
            tasks.push(task);
        }
        let (mut reservations, mut volumes) = (Vec::new(), Vec::new());
        for operation in &acceptance.operations {
            let done = match &operation.what {
                What::Launch | What::LaunchGroup => true,
                What::Reserve(reserve) => {
                    reservations.push(reserve.name.clone());
                    let found = self.read::<Reservation>("Reservation", "", &reserve.name)?;
                    found.is_some_and(|found| {
                        let offer = found.status.and_then(|status| status.offer);
                        self.is_of(acceptance, offer.as_deref())
                            && found.spec.resources == reserve.resources
                            && found.spec.parent == reserve.parent
                    })
                }
                What::Unreserve(unreserve) => {
                    let name = &unreserve.reservation;
                    unreserve.resources.is_none()
                        && self.read::<Reservation>("Reservation", "", name)?.is_none()
                }
                What::CreateVolume(create) => {
                    volumes.push(create.name.clone());
                    let found = self.read::<Volume>("Volume", self.namespace, &create.name)?;
                    found.is_some_and(|found| {
                        let offer = found.status.and_then(|status| status.offer);
                        self.is_of(acceptance, offer.as_deref())
                            && found.spec.reservation == create.reservation
                    })
                }
                What::DestroyVolume(destroy) => {
                    self.read::<Volume>("Volume", self.namespace, &destroy.volume)?.is_none()
                }
                What::GrowVolume(resize) | What::ShrinkVolume(resize) => {
                    volumes.push(resize.volume.clone());
                    let found = self.read::<Volume>("Volume", self.namespace, &resize.volume)?;
                    found.is_some_and(|found| {
                        let size = bytes(&found.spec.size);
                        let offer = found.status.and_then(|status| status.offer);
                        self.is_of(acceptance, offer.as_deref()) && size == bytes(&resize.size)
                    })
                }
            };
            if !done {
                return Ok(None);
            }
        }
        Ok(Some(Accepted { tasks, reservations, volumes, again: true }))
    }

    fn is_of(&self, acceptance: &Acceptance, offer: Option<&str>) -> bool {
        let named = offer.and_then(|offer| offer.split_once('/'));
        named.is_some_and(|(namespace, name)| {
            namespace == self.namespace && acceptance.offers.iter().any(|one| one == name)
        })
    }

    /// The task of that name if it was launched on this offer.
    fn launched_before(
        &self,
        acceptance: &Acceptance,
        launched: &Launched,
    ) -> Result<Option<Arc<Object>>, ApiError> {
        let name = launched.object["metadata"]["name"].as_str().unwrap_or_default();
        let path = format!("{}/{name}", self.namespace);
        let Some(found) = self.engine.resource(self.tasks)?.get(&path) else { return Ok(None) };
        let old = found.to_value();
        let offer = old["spec"]["offer"].as_str();
        if !acceptance.offers.iter().any(|one| offer == Some(one)) {
            return Ok(None);
        }
        let options = self.options_of_a_part();
        let (mut asked, _) = self
            .engine
            .prepare_metadata(self.tasks, self.namespace, launched.object.clone(), &options)
            .map_err(|error| launched.locate(error))?;
        task::forget_lent(&mut asked);
        task::default_resources(&mut asked);
        task::keep_given(&old, &mut asked);
        ports::keep(&old, &mut asked);
        if asked["spec"] != old["spec"] {
            let why = "a task of this name was launched on this offer, with another spec";
            let error = ApiError::refused(self.tasks, name, reasons::status::TASK_ID_REUSED, why);
            return Err(launched.locate(error));
        }
        Ok(Some(found))
    }

    fn read<T: DeserializeOwned>(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<T>, ApiError> {
        let scheme = self.engine.scheme();
        let Some(def) = scheme.by_kind(GROUP, kind) else { return Ok(None) };
        let found = self.engine.resource(def)?.get(&format!("{namespace}/{name}"));
        let value: Option<Value> = found.filter(|object| !object.deleting).map(|o| o.to_value());
        value.map(|value| serde_json::from_value(value).map_err(ApiError::internal)).transpose()
    }
}
