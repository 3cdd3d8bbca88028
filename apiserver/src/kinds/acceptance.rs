//! Accepting offers: tasks out of offered resources, all in one guarded write.

mod body;
mod fit;

use std::sync::Arc;

use bytes::Bytes;
use commonage_schemas::offer::{OfferVerdict, refuse_seconds};
use commonage_schemas::{GROUP, TaskState};
use commonage_store::{Compare, GuardedWrite, Op, Version};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use self::body::{Acceptance, Launched, acceptance};
use self::fit::{Offered, fit};
use super::{offer, state, task};
use crate::engine::{
    CommitError, Engine, Prepared, RETRY_FOR, WriteOptions, Written, encode, mark, take_version,
};
use crate::meta;
use crate::object::Object;
use crate::resource::ResourceDef;
use crate::status::{ApiError, Cause};
use crate::strategy::SubresourceRequest;

/// Tasks launched by one acceptance, at most: an etcd transaction has 128 operations unless it is
/// configured otherwise, and the offers are among them.
const TASKS_MAX: usize = 100;
/// Offers used up by one acceptance, at most; for the same reason.
const OFFERS_MAX: usize = 20;
/// `POST offers/NAME/accept`.
pub(super) async fn accept(
    engine: &Arc<Engine>,
    request: &SubresourceRequest,
) -> Result<(u16, Bytes), ApiError> {
    let tasks = task_def(engine)?;
    let acceptance = acceptance(&request.body, &request.name)?;
    let scene = Scene {
        engine,
        tasks: &tasks,
        offers: &request.def,
        namespace: &request.namespace,
        options: &request.options,
        // An operation of the body stands in front of each field.
        kind: "OfferAcceptance",
    };
    let launched = scene.launch(&acceptance).await?;
    let names: Vec<&str> = launched.iter().map(|task| task.name()).collect();
    let mut answer = request.body.clone();
    answer["apiVersion"] = json!(request.def.api_version());
    answer["kind"] = json!("OfferAcceptance");
    answer["metadata"] = json!({"name": request.name, "namespace": request.namespace});
    answer["status"] = json!({"tasks": names});
    for (place, task) in acceptance.tasks.iter().zip(&launched) {
        answer["operations"][place.operation]["launch"]["tasks"][place.number] = task.to_value();
    }
    Ok((201, serde_json::to_vec(&answer).map_err(ApiError::internal)?.into()))
}

/// A plain create of a task that names an offer.
pub(super) async fn launch_one(
    engine: &Arc<Engine>,
    tasks: &Arc<ResourceDef>,
    namespace: &str,
    offer: &str,
    task: Value,
    options: &WriteOptions,
) -> Result<Written, ApiError> {
    let scheme = engine.scheme();
    let offers = scheme
        .by_kind(GROUP, "Offer")
        .ok_or_else(|| ApiError::internal("offers are not served"))?;
    let scene = Scene { engine, tasks, offers, namespace, options, kind: "Task" };
    let launched = Launched { operation: 0, number: 0, path: String::new(), object: task };
    let acceptance =
        Acceptance { offers: vec![offer.to_owned()], tasks: vec![launched], refuse_seconds: None };
    let object = scene
        .launch(&acceptance)
        .await?
        .pop()
        .ok_or_else(|| ApiError::internal("no task was launched"))?;
    Ok(Written { object, warnings: Vec::new(), created: true })
}

fn task_def(engine: &Engine) -> Result<Arc<ResourceDef>, ApiError> {
    let def = engine.scheme().by_kind(GROUP, "Task").cloned();
    def.ok_or_else(|| ApiError::internal("tasks are not served"))
}

/// Where an acceptance takes place.
struct Scene<'a> {
    engine: &'a Arc<Engine>,
    tasks: &'a Arc<ResourceDef>,
    offers: &'a Arc<ResourceDef>,
    namespace: &'a str,
    options: &'a WriteOptions,
    /// What is invalid when something is.
    kind: &'static str,
}

enum Failure {
    /// Somebody wrote one of the offers meanwhile.
    Again,
    Failed(ApiError),
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Failure::Failed(error)
    }
}

impl Scene<'_> {
    async fn launch(&self, acceptance: &Acceptance) -> Result<Vec<Arc<Object>>, ApiError> {
        let name = acceptance.offers.first().map_or("", String::as_str);
        let limits = [
            ("offers", acceptance.offers.len(), OFFERS_MAX),
            ("operations", acceptance.tasks.len(), TASKS_MAX),
        ];
        let over = limits.into_iter().filter(|(_, count, most)| count > most);
        let causes: Vec<Cause> =
            over.map(|(field, count, most)| Cause::too_many(field, count, most)).collect();
        self.check(name, causes)?;
        self.engine.check_namespace(self.tasks, self.namespace, "").await?;
        let deadline = Instant::now() + RETRY_FOR;
        while Instant::now() < deadline {
            self.engine.fresh(None).await?;
            match self.launch_once(acceptance, name).await {
                Ok(launched) => return Ok(launched),
                Err(Failure::Again) => {}
                Err(Failure::Failed(error)) => return Err(error),
            }
        }
        Err(ApiError::conflict(self.offers, name))
    }

    fn check(&self, name: &str, causes: Vec<Cause>) -> Result<(), ApiError> {
        if causes.is_empty() {
            return Ok(());
        }
        Err(ApiError::invalid_kind(GROUP, self.kind, name, causes))
    }

    async fn launch_once(
        &self,
        acceptance: &Acceptance,
        name: &str,
    ) -> Result<Vec<Arc<Object>>, Failure> {
        let now = Timestamp::now();
        let offers = self.offers(&acceptance.offers, now)?;
        let offered =
            Offered::of(&offers).map_err(|causes| self.check(name, causes).err()).map_err(
                |error| error.unwrap_or_else(|| ApiError::internal("an offer can't be read")),
            )?;
        let mut tasks = Vec::with_capacity(acceptance.tasks.len());
        let mut causes = Vec::new();
        for launched in &acceptance.tasks {
            let options = WriteOptions { findings: Vec::new(), ..self.options.clone() };
            // A plain create has its metadata already; making it once more does no harm.
            let prepared = self.engine.prepare_metadata(
                self.tasks,
                self.namespace,
                launched.object.clone(),
                &options,
            );
            let (mut task, warnings) = prepared.map_err(|error| launched.locate(error))?;
            // Before it is seen whether they fit.
            task::default_resources(&mut task);
            causes.extend(launched.located(offered.claim(&mut task, &acceptance.offers)));
            tasks.push((task, warnings));
        }
        causes.extend(body::duplicates(&acceptance.tasks, tasks.iter().map(|(task, _)| task)));
        if causes.is_empty() {
            causes.extend(fit(&offered, &acceptance.tasks, tasks.iter_mut().map(|(task, _)| task)));
        }
        self.check(name, causes)?;
        let mut prepared = Vec::with_capacity(tasks.len());
        for ((mut task, warnings), launched) in tasks.into_iter().zip(&acceptance.tasks) {
            task::begin(&mut task);
            task::place(&mut task, &offered.agent);
            state::enter(&mut task, TaskState::Staging, now);
            let valid = self.engine.validated(self.tasks, self.namespace, task, warnings);
            prepared.push(valid.map_err(|error| launched.locate(error))?);
        }
        self.store(acceptance, &offers, &prepared, now).await
    }

    /// The offers as they are now, in the order named. One that is not there any more is gone.
    fn offers(
        &self,
        names: &[String],
        now: Timestamp,
    ) -> Result<Vec<(Arc<Object>, Value)>, ApiError> {
        let resource = self.engine.resource(self.offers)?;
        names
            .iter()
            .map(|name| {
                let found = resource
                    .get(&format!("{}/{name}", self.namespace))
                    .filter(|offer| !offer.deleting);
                let offer = found.ok_or_else(|| offer::gone(self.offers, name))?;
                let value = offer.to_value();
                if offer::has_expired(&value, now) {
                    return Err(offer::gone(self.offers, name));
                }
                Ok((offer, value))
            })
            .collect()
    }

    async fn store(
        &self,
        acceptance: &Acceptance,
        offers: &[(Arc<Object>, Value)],
        tasks: &[Prepared],
        now: Timestamp,
    ) -> Result<Vec<Arc<Object>>, Failure> {
        let names: Vec<String> = tasks.iter().map(|task| task.name().to_owned()).collect();
        let values: Vec<Bytes> = tasks.iter().map(|task| encode(&task.object)).collect();
        let written = |place: usize, version: Version| {
            self.engine.written(self.tasks, &tasks[place].path(), &values[place], version)
        };
        if self.options.dry_run {
            return Ok((0..tasks.len())
                .map(|place| written(place, Version(0)))
                .collect::<Result<_, _>>()?);
        }
        let mut write = GuardedWrite::default();
        for (task, value) in tasks.iter().zip(&values) {
            write.compares.push(Compare::Absent { key: task.key() });
            write.ops.push(Op::Put { key: task.key(), value: value.clone() });
        }
        for (object, value) in offers {
            let key = Bytes::from(self.offers.key(self.namespace, object.name()));
            write.compares.push(Compare::At { key: key.clone(), version: object.version });
            let mut answered = value.clone();
            take_version(&mut answered);
            mark(&mut answered, &meta::time_text(now));
            let refuse = Some(refuse_seconds(acceptance.refuse_seconds));
            offer::answer(&mut answered, OfferVerdict::Accepted, refuse, &names, now);
            write.ops.push(Op::Put { key, value: encode(&answered) });
        }
        write.compares.extend(self.engine.namespace_guard(self.tasks, self.namespace));
        match self.engine.commit(write).await {
            Ok(committed) => Ok((0..tasks.len())
                .map(|place| written(place, committed.versions[place]))
                .collect::<Result<_, _>>()?),
            Err(CommitError::Conflict(place)) if place < tasks.len() => {
                let generated = acceptance.tasks[place].is_unnamed();
                if generated {
                    return Err(Failure::Again);
                }
                Err(ApiError::already_exists(self.tasks, &names[place]).into())
            }
            Err(CommitError::Conflict(place)) if place < tasks.len() + offers.len() => {
                Err(Failure::Again)
            }
            Err(CommitError::Conflict(_)) => {
                Err(ApiError::not_found_in("", "namespaces", self.namespace).into())
            }
            Err(CommitError::Failed(error)) => Err(error.into()),
        }
    }
}
