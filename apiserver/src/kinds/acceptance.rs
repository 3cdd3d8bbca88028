//! Accepting offers: tasks, reservations and volumes out of offered resources, all in one guarded
//! write.

mod again;
mod answer;
mod body;
mod edits;
mod fit;
mod pool;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use commonage_schemas::offer::{OfferVerdict, refuse_seconds};
use commonage_schemas::{GROUP, TaskState};
use commonage_store::{Compare, GuardedWrite, Op, Version};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use self::body::{Acceptance, Launched, Operation, What, acceptance};
use self::edits::{Editor, Edits, Refusal};
use self::fit::fit;
use self::pool::Pool;
use super::{offer, sandbox, state, task};
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
/// Everything that one acceptance writes.
const WRITES_MAX: usize = 120;

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
    let accepted = scene.accept(&acceptance).await?;
    let names: Vec<&str> = accepted.tasks.iter().map(|task| task.name()).collect();
    let mut status = json!({ "tasks": names });
    for (field, names) in [("reservations", &accepted.reservations), ("volumes", &accepted.volumes)]
    {
        if !names.is_empty() {
            status[field] = json!(names);
        }
    }
    let members = [
        ("apiVersion", json!(request.def.api_version())),
        ("kind", json!("OfferAcceptance")),
        ("metadata", json!({"name": request.name, "namespace": request.namespace})),
        ("status", status),
    ];
    let members = members.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
    let places = acceptance.tasks.iter().map(|one| (one.operation, one.member, one.number));
    let tasks = places.zip(accepted.tasks.iter().cloned());
    let answer = answer::answer(&request.body, members, tasks)?;
    let code = if accepted.again { 200 } else { 201 };
    Ok((code, answer.into()))
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
    let launched =
        Launched { operation: 0, number: 0, member: "launch", path: String::new(), object: task };
    let acceptance = Acceptance {
        offers: vec![offer.to_owned()],
        operations: vec![Operation { number: 0, what: What::Launch }],
        tasks: vec![launched],
        refuse_seconds: None,
    };
    let mut accepted = scene.accept(&acceptance).await?;
    let task = accepted.tasks.pop();
    let object = task.ok_or_else(|| ApiError::internal("no task was launched"))?;
    Ok(Written { object, warnings: Vec::new(), created: !accepted.again })
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

/// What an acceptance has done.
struct Accepted {
    tasks: Vec<Arc<Object>>,
    /// Those that it made or changed, by name.
    reservations: Vec<String>,
    volumes: Vec<String>,
    /// It had been done before, by the same request.
    again: bool,
}

/// What a compare of the write guards.
enum Guard {
    Task(usize),
    Offer,
    Edit(usize),
    Namespace,
}

impl Scene<'_> {
    async fn accept(&self, acceptance: &Acceptance) -> Result<Accepted, ApiError> {
        let name = acceptance.offers.first().map_or("", String::as_str);
        let writes = acceptance.offers.len() + acceptance.tasks.len() + acceptance.edits();
        let limits = [
            ("offers", acceptance.offers.len(), OFFERS_MAX),
            ("operations", acceptance.tasks.len(), TASKS_MAX),
            ("operations", writes, WRITES_MAX),
        ];
        let over = limits.into_iter().find(|(_, count, most)| count > most);
        let causes = over.map(|(field, count, most)| Cause::too_many(field, count, most));
        self.check(name, causes.into_iter().collect())?;
        self.engine.check_namespace(self.tasks, self.namespace, "").await?;
        let deadline = Instant::now() + RETRY_FOR;
        while Instant::now() < deadline {
            self.engine.fresh(None).await?;
            match self.accept_once(acceptance, name).await {
                Ok(accepted) => return Ok(accepted),
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

    /// The options of the request, for an object that its body contains.
    fn options_of_a_part(&self) -> WriteOptions {
        WriteOptions { findings: Vec::new(), ..self.options.clone() }
    }

    async fn accept_once(&self, acceptance: &Acceptance, name: &str) -> Result<Accepted, Failure> {
        let now = Timestamp::now();
        let offers = match self.offers(&acceptance.offers, now) {
            Ok(offers) => offers,
            // Perhaps by this very request, whose answer got lost.
            Err(gone) => return Ok(self.done_before(acceptance)?.ok_or(gone)?),
        };
        let mut pool = Pool::of(&offers).or_else(|causes| {
            self.check(name, causes)?;
            Err(ApiError::internal("an offer can't be read"))
        })?;
        let mut tasks = self.prepare(acceptance, name, &pool)?;
        let offer = format!("{}/{name}", self.namespace);
        let mut editor = Editor { scene: self, offer, now, edits: Edits::default() };
        for operation in &acceptance.operations {
            let causes = match editor.apply(&mut pool, operation) {
                Ok(()) => {
                    let launched = acceptance.tasks.iter().zip(&mut tasks);
                    let mine = launched.filter(|(one, _)| one.operation == operation.number);
                    fit(&mut pool, mine.map(|(launched, (task, _))| (launched, task)))
                }
                Err(Refusal::Causes(causes)) => causes,
                Err(Refusal::Error(error)) => return Err(error.into()),
            };
            self.check(name, causes)?;
        }
        let mut prepared = Vec::with_capacity(tasks.len());
        let sizes = group_sizes(tasks.iter().map(|(task, _)| task));
        for ((mut task, warnings), launched) in tasks.into_iter().zip(&acceptance.tasks) {
            task::begin(&mut task);
            task::place(&mut task, &pool.agent);
            if let Some(size) = group_of(&task).and_then(|group| sizes.get(&group)) {
                task["status"]["groupSize"] = json!(size);
            }
            state::enter(&mut task, TaskState::Staging, now);
            sandbox::check(self.engine, self.tasks, &task).map_err(|e| launched.locate(e))?;
            let valid = self.engine.validated(self.tasks, self.namespace, task, warnings);
            prepared.push(valid.map_err(|error| launched.locate(error))?);
        }
        self.store(acceptance, &offers, &prepared, &editor.edits, now).await
    }

    /// The tasks with their metadata and defaults, as ones of the offer.
    fn prepare(
        &self,
        acceptance: &Acceptance,
        name: &str,
        pool: &Pool,
    ) -> Result<Vec<(Value, Vec<String>)>, ApiError> {
        let mut tasks = Vec::with_capacity(acceptance.tasks.len());
        let mut causes = Vec::new();
        for launched in &acceptance.tasks {
            // A plain create has its metadata already; making it once more does no harm.
            let prepared = self.engine.prepare_metadata(
                self.tasks,
                self.namespace,
                launched.object.clone(),
                &self.options_of_a_part(),
            );
            let (mut task, warnings) = prepared.map_err(|error| launched.locate(error))?;
            // Before it is seen whether they fit.
            task::forget_lent(&mut task);
            task::default_resources(&mut task);
            causes.extend(launched.located(pool.claim(&mut task, &acceptance.offers)));
            tasks.push((task, warnings));
        }
        causes.extend(body::duplicates(&acceptance.tasks, tasks.iter().map(|(task, _)| task)));
        self.check(name, causes)?;
        Ok(tasks)
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
        edits: &Edits,
        now: Timestamp,
    ) -> Result<Accepted, Failure> {
        let names: Vec<String> = tasks.iter().map(|task| task.name().to_owned()).collect();
        let values: Vec<Bytes> = tasks.iter().map(|task| encode(&task.object)).collect();
        let written = |place: usize, version: Version| {
            self.engine.written(self.tasks, &tasks[place].path(), &values[place], version)
        };
        let named = |reservations: bool| -> Vec<String> {
            let stay = edits.iter().filter(|e| e.stays() && e.is_reservation() == reservations);
            stay.map(|edit| edit.name().to_owned()).collect()
        };
        let accepted = |tasks: Vec<Arc<Object>>| Accepted {
            tasks,
            reservations: named(true),
            volumes: named(false),
            again: false,
        };
        if self.options.dry_run {
            let tasks: Result<_, ApiError> =
                (0..tasks.len()).map(|place| written(place, Version(0))).collect();
            return Ok(accepted(tasks?));
        }
        let (mut write, mut guards) = (GuardedWrite::default(), Vec::new());
        for (place, (task, value)) in tasks.iter().zip(&values).enumerate() {
            write.compares.push(Compare::Absent { key: task.key() });
            write.ops.push(Op::Put { key: task.key(), value: value.clone() });
            guards.push(Guard::Task(place));
        }
        for (object, value) in offers {
            let key = Bytes::from(self.offers.key(self.namespace, object.name()));
            write.compares.push(Compare::At { key: key.clone(), version: object.version });
            guards.push(Guard::Offer);
            let mut answered = value.clone();
            take_version(&mut answered);
            mark(&mut answered, &meta::time_text(now));
            let refuse = Some(refuse_seconds(acceptance.refuse_seconds));
            offer::answer(&mut answered, OfferVerdict::Accepted, refuse, now);
            let did =
                [("tasks", &names), ("reservations", &named(true)), ("volumes", &named(false))];
            for (field, names) in did.into_iter().filter(|(_, names)| !names.is_empty()) {
                answered["status"]["answer"][field] = json!(names);
            }
            write.ops.push(Op::Put { key, value: encode(&answered) });
        }
        for (place, edit) in edits.iter().enumerate() {
            let (compare, op) = edit.write();
            write.compares.push(compare);
            write.ops.push(op);
            guards.push(Guard::Edit(place));
        }
        write.compares.extend(self.engine.namespace_guard(self.tasks, self.namespace));
        match self.engine.commit(write).await {
            Ok(committed) => {
                let tasks: Result<_, ApiError> = (0..tasks.len())
                    .map(|place| written(place, committed.versions[place]))
                    .collect();
                Ok(accepted(tasks?))
            }
            Err(CommitError::Conflict(place)) => {
                match guards.get(place).unwrap_or(&Guard::Namespace) {
                    Guard::Task(place) if !acceptance.tasks[*place].is_unnamed() => {
                        Err(ApiError::already_exists(self.tasks, &names[*place]).into())
                    }
                    Guard::Edit(place) => match edits.iter().nth(*place) {
                        Some(edit) if edit.is_new() => {
                            Err(ApiError::already_exists(edit.def(), edit.name()).into())
                        }
                        _ => Err(Failure::Again),
                    },
                    Guard::Task(_) | Guard::Offer => Err(Failure::Again),
                    Guard::Namespace => {
                        Err(ApiError::not_found_in("", "namespaces", self.namespace).into())
                    }
                }
            }
            Err(CommitError::Failed(error)) => Err(error.into()),
        }
    }
}

fn group_of(task: &Value) -> Option<String> {
    task["spec"]["group"].as_str().map(str::to_owned)
}

/// How many of each group are launched at once.
fn group_sizes<'a>(tasks: impl Iterator<Item = &'a Value>) -> BTreeMap<String, usize> {
    let mut sizes = BTreeMap::new();
    for group in tasks.filter_map(group_of) {
        *sizes.entry(group).or_default() += 1;
    }
    sizes
}
