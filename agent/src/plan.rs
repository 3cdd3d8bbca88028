//! What to do next about one task: pure, from what is wanted and what is known.
//!
//! [`plan`] looks at the whole record of a task each time and says what is missing; it takes no
//! event and remembers nothing. So it does not matter how often, how late or in which order the
//! driver was woken, nor whether the agent was killed in between: the same record gives the same
//! steps. The simulated agent shares it.

use commonage_schemas::reasons::task as reasons;
use commonage_schemas::{Task, TaskSpec, TaskState, TaskStatus};
use commonage_shim::Launch;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use crate::company::Standing;
use crate::ledger::{KillCause, KillOrder};
use crate::prepare::{self, Prepared};
use crate::task::outcome::{self, End};
use crate::task::spec::{self, Refusal, Site};

mod record;

pub use record::{Actual, Health, Phase, Preparation, Record, Remains, Reporting, Words};

/// A launch that takes longer than this is worth a state of its own (`Starting`); the usual one,
/// some 15 ms, goes from `Staging` to `Running` in one report.
const STARTING_AFTER: SignedDuration = SignedDuration::from_millis(250);
/// A task that takes longer than this to end is worth a state of its own (`Killing`); one that ends at its signal goes
/// from `Running` to `Killed` in one report.
const KILLING_AFTER: SignedDuration = SignedDuration::from_millis(250);
/// `SIGKILL` is repeated so often while the container is still there: it can't be ignored, but the
/// message to the shim can be lost.
const KILL_AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(5);

const SIGKILL: i32 = 9;

/// What holds for all tasks of this agent right now.
#[derive(Clone, Debug)]
pub struct Context<'a> {
    pub now: Timestamp,
    pub site: &'a Site,
    /// The agent stops, and takes its tasks with it: all have to be gone by then.
    pub kill_all_by: Option<Timestamp>,
    /// How long the logs of a task stay whose Task object is gone.
    pub keep_deleted: SignedDuration,
    /// What the other tasks of its group mean for it.
    pub group: Standing,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Get ready what the task needs: its image, files, secrets.
    Prepare,
    /// Write the entry, then have a shim make the container.
    Launch(Box<Launch>),
    /// Write the order into the entry; the signal follows in the next plan.
    OrderKill(KillOrder),
    /// Have the shim send this signal.
    Signal(i32),
    /// Begin health and readiness checks.
    Watch,
    /// Tell the API server.
    Report(Box<TaskStatus>),
    /// Remove the state directory and forget the task.
    Forget,
}

impl Action {
    /// Whether it changes the ledger or the container. Of these at most one is under way per task.
    pub fn is_exclusive(&self) -> bool {
        matches!(
            self,
            Action::Launch(_) | Action::OrderKill(_) | Action::Signal(_) | Action::Forget
        )
    }
}

/// What to do now, and when to look again even if nothing happens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub wake_at: Option<Timestamp>,
}

impl Plan {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// What to do about one task.
pub fn plan(record: &Record, context: &Context<'_>) -> Plan {
    let mut plan = Plan::default();
    let wanted = match &record.actual {
        None => begin(record, context, &mut plan),
        Some(actual) => go_on(record, actual, context, &mut plan),
    };
    if let Some(status) = wanted {
        report(record, status, context, &mut plan);
    }
    if record.busy {
        plan.actions.retain(|action| !action.is_exclusive());
    }
    plan
}

/// Nothing was begun for this task.
fn begin(record: &Record, context: &Context<'_>, plan: &mut Plan) -> Option<TaskStatus> {
    let Some(task) = &record.desired else {
        // Neither wanted nor there.
        plan.actions.push(Action::Forget);
        return None;
    };
    // A task that is still Pending is nobody's yet, whatever its spec says.
    if task.state().is_terminal() || task.state() == TaskState::Pending || record.busy {
        return None;
    }
    if has_run(task) {
        // A task runs once. The ledger does not know it, so its directory was lost.
        let end = End::ShimLost { seen_at: context.now };
        return Some(outcome::of(&end, None));
    }
    if is_deleting(task) {
        let message = "the Task object was deleted before the task ran";
        return Some(outcome::never_ran(reasons::DELETED, message, context.now));
    }
    if let Some(kill) = &task.spec.kill {
        let message = kill.message.as_deref().unwrap_or("it was to end before it ran");
        return Some(outcome::never_ran(&kill.reason, message, context.now));
    }
    if let Standing::Over(words) = &context.group {
        return Some(outcome::never_ran(words.reason, &words.message, context.now));
    }
    if context.kill_all_by.is_some() {
        return None;
    }
    match spec::check(task).and_then(|()| prepare(task, record, context, plan)) {
        Ok(status) => status,
        Err(Refusal { reason, message }) => Some(outcome::refused(reason, &message, context.now)),
    }
}

/// Gets ready what the task needs, if anything, and then launches it.
fn prepare(
    task: &Task,
    record: &Record,
    context: &Context<'_>,
    plan: &mut Plan,
) -> Result<Option<TaskStatus>, Refusal> {
    let nothing = Prepared::default();
    let prepared = match &record.preparation {
        Preparation::Failed(words) => {
            return Ok(Some(outcome::not_prepared(words.reason, &words.message, context.now)));
        }
        _ if !prepare::is_needed(task) => &nothing,
        Preparation::Ready(prepared) => prepared.as_ref(),
        Preparation::NotBegun => {
            plan.actions.push(Action::Prepare);
            return Ok(None);
        }
        Preparation::UnderWay(words) => return Ok(words.as_ref().map(staging)),
        Preparation::Waiting { words, until } => {
            match context.now < *until {
                true => plan.wake(*until),
                false => plan.actions.push(Action::Prepare),
            }
            return Ok(Some(staging(words)));
        }
    };
    let launch = spec::launch(task, context.site, Default::default(), prepared)?;
    if let Standing::Wait { until, words } = &context.group {
        plan.wake(*until);
        return Ok(words.as_ref().map(staging));
    }
    plan.actions.push(Action::Launch(Box::new(launch)));
    Ok(None)
}

fn staging(words: &Words) -> TaskStatus {
    TaskStatus {
        state: TaskState::Staging,
        reason: Some(words.reason.to_owned()),
        message: Some(words.message.clone()),
        ..TaskStatus::default()
    }
}

/// Something was begun: the status that the API server should have.
fn go_on(
    record: &Record,
    actual: &Actual,
    context: &Context<'_>,
    plan: &mut Plan,
) -> Option<TaskStatus> {
    match &actual.phase {
        Phase::Launching { since } => {
            order_kill(record, actual, None, context, plan);
            let due = *since + STARTING_AFTER;
            if context.now < due {
                plan.wake(due);
                return None;
            }
            Some(status(TaskState::Starting, actual))
        }
        Phase::Running { started_at } => {
            order_kill(record, actual, Some(*started_at), context, plan);
            signal(record, actual, context, plan);
            watch(record, actual, plan);
            if let Some(due) = killing_told_at(record, actual).filter(|due| context.now < *due) {
                plan.wake(due);
                return None;
            }
            Some(running(actual, *started_at, record, context.site))
        }
        Phase::Ended(end) => {
            if record.desired.is_none() {
                forget(record, context, plan);
            }
            // Whoever hears of the end may count on what the task held being free.
            let cleanup_pending = match &actual.remains {
                Remains::Unknown => return None,
                Remains::Nothing => None,
                Remains::Something(what) => Some(what.clone()),
            };
            let mut status = outcome::of(end, actual.entry.kill.as_ref());
            status.cleanup_pending = cleanup_pending;
            status.container_id = Some(actual.entry.uid.clone());
            status.ready = was_ready(record).map(|_| false);
            Some(status)
        }
    }
}

/// Orders the end of a living task that nobody wants any more, once.
fn order_kill(
    record: &Record,
    actual: &Actual,
    started_at: Option<Timestamp>,
    context: &Context<'_>,
    plan: &mut Plan,
) {
    if actual.entry.kill.is_some() {
        return;
    }
    let deadline = record.desired.as_ref().zip(started_at).and_then(|(task, started_at)| {
        Some(started_at + SignedDuration::from_secs(task.spec.max_completion_seconds?))
    });
    let cause = match &record.desired {
        // At shutdown the API server may never have answered: absence says nothing then.
        None if context.kill_all_by.is_some() => KillCause::AgentShutdown,
        None => KillCause::Abandoned,
        Some(task) if task.state().is_terminal() => KillCause::Abandoned,
        Some(task) if is_deleting(task) => KillCause::Deleted,
        Some(Task { spec: TaskSpec { kill: Some(kill), .. }, .. }) => KillCause::Ordered {
            reason: kill.reason.clone(),
            message: kill.message.clone().unwrap_or_default(),
        },
        Some(_) if context.kill_all_by.is_some() => KillCause::AgentShutdown,
        Some(_) => match (&context.group, &actual.health.failed, deadline) {
            _ if actual.over_disk.is_some() => {
                KillCause::DiskLimit(actual.over_disk.clone().unwrap_or_default())
            }
            (Standing::Over(words), ..) => KillCause::GroupEnded(words.message.clone()),
            (_, Some(how), _) => KillCause::HealthCheckFailed(how.clone()),
            (_, None, Some(deadline)) if context.now >= deadline => KillCause::MaxCompletionTime,
            (_, None, deadline) => {
                if let Some(deadline) = deadline {
                    plan.wake(deadline);
                }
                return;
            }
        },
    };
    let (signal, grace_seconds) = kill_policy(record.desired.as_ref(), actual.entry.stop_signal);
    plan.actions.push(Action::OrderKill(KillOrder {
        cause,
        ordered_at: context.now,
        signal,
        grace_seconds,
    }));
}

/// Signal and grace of the task's own policy; of the default one when the Task is gone. Where the policy says
/// nothing but the default, the image's wish counts.
fn kill_policy(task: Option<&Task>, wish: Option<i32>) -> (i32, i64) {
    let policy = task.map(|task| task.spec.kill_policy.clone()).unwrap_or_default();
    let signal = match task.map(spec::kill_signal) {
        Some(Ok(signal)) => signal,
        // A policy that can't be read was refused before the launch.
        None | Some(Err(_)) => nix::sys::signal::Signal::SIGTERM as i32,
    };
    let signal = match wish {
        Some(wish) if signal == nix::sys::signal::Signal::SIGTERM as i32 => wish,
        _ => signal,
    };
    // `kubectl delete --grace-period=N`; 0 is at once. Absent when nobody said anything.
    let asked = task.and_then(|task| task.metadata.deletion_grace_period_seconds);
    // An order shortens the task's own, and never lengthens it.
    let ordered = task.and_then(|task| task.spec.kill.as_ref()?.grace_period_seconds);
    let own = policy.grace_period_seconds;
    let own = ordered.map_or(own, |ordered| own.min(ordered));
    (signal, asked.unwrap_or(own).max(0))
}

/// Sends what the order says and is due.
fn signal(record: &Record, actual: &Actual, context: &Context<'_>, plan: &mut Plan) {
    let Some(order) = &actual.entry.kill else {
        return;
    };
    // A later delete may shorten the wait, never lengthen it.
    let asked =
        record.desired.as_ref().and_then(|task| task.metadata.deletion_grace_period_seconds);
    let grace_seconds =
        asked.map_or(order.grace_seconds, |asked| asked.clamp(0, order.grace_seconds));
    let patience = order.ordered_at + SignedDuration::from_secs(grace_seconds);
    let kill_at = context.kill_all_by.map_or(patience, |by| patience.min(by));
    match actual.signalled {
        Some((SIGKILL, sent_at)) => {
            let again = sent_at + KILL_AGAIN_AFTER;
            if context.now >= again {
                plan.actions.push(Action::Signal(SIGKILL));
            }
            plan.wake(again.max(context.now + KILL_AGAIN_AFTER));
        }
        _ if context.now >= kill_at => plan.actions.push(Action::Signal(SIGKILL)),
        Some(_) => plan.wake(kill_at),
        None => {
            plan.actions.push(Action::Signal(order.signal));
            plan.wake(kill_at);
        }
    }
}

fn watch(record: &Record, actual: &Actual, plan: &mut Plan) {
    let Some(task) = &record.desired else {
        return;
    };
    let has_checks = task.spec.health_check.is_some() || task.spec.readiness_check.is_some();
    // A task on its way out is expected to stop answering.
    if has_checks && !actual.health.watched && actual.entry.kill.is_none() {
        plan.actions.push(Action::Watch);
    }
}

fn forget(record: &Record, context: &Context<'_>, plan: &mut Plan) {
    let due = record.gone_since.unwrap_or(context.now) + context.keep_deleted;
    if context.now >= due {
        plan.actions.push(Action::Forget);
    } else {
        plan.wake(due);
    }
}

/// When to say that the task is being ended, if it is and nobody has heard of it.
fn killing_told_at(record: &Record, actual: &Actual) -> Option<Timestamp> {
    let kill = actual.entry.kill.as_ref()?;
    let is_told = record.desired.as_ref().is_some_and(|task| task.state() == TaskState::Killing);
    (!is_told).then(|| kill.ordered_at + KILLING_AFTER)
}

fn status(state: TaskState, actual: &Actual) -> TaskStatus {
    TaskStatus { state, container_id: Some(actual.entry.uid.clone()), ..TaskStatus::default() }
}

/// The status of a task whose command runs.
fn running(actual: &Actual, started_at: Timestamp, record: &Record, site: &Site) -> TaskStatus {
    let mut status = status(TaskState::Running, actual);
    status.started_at = Some(Time(started_at));
    status.gpus = actual.entry.gpus.clone();
    status.healthy = actual.health.healthy;
    status.ready = actual.health.ready;
    if let Some(kill) = &actual.entry.kill {
        let (reason, message) = outcome::killing(kill);
        status.state = TaskState::Killing;
        status.reason = Some(reason.to_owned());
        status.message = Some(message);
    }
    if let Some(task) = &record.desired {
        let container = &task.spec.container;
        status.host_ports = container.ports.iter().map(|port| port.host_port).collect();
        if container.network.as_deref().is_none_or(|name| name == "Host") {
            status.ip = site.host.parse::<std::net::IpAddr>().ok().map(|ip| ip.to_string());
        } else {
            status.ip = actual.address.map(|address| address.to_string());
        }
    }
    status
}

/// Reports what the API server does not know yet.
fn report(record: &Record, wanted: TaskStatus, context: &Context<'_>, plan: &mut Plan) {
    let Some(task) = &record.desired else {
        return;
    };
    let known = task.status.clone().unwrap_or_default();
    // Times are not compared: the API keeps whole seconds. A verdict that a restarted agent has
    // not reached again yet stays what it was.
    // While it is staged, what there is to say changes without the state.
    let said = wanted.state != TaskState::Staging
        || (known.reason == wanted.reason && known.message == wanted.message);
    let same = known.state == wanted.state
        && said
        && wanted.healthy.is_none_or(|verdict| known.healthy == Some(verdict))
        && wanted.ready.is_none_or(|verdict| known.ready == Some(verdict));
    // The one thing that changes after the end.
    let cleaned = known.cleanup_pending.is_some() && wanted.cleanup_pending.is_none();
    let is_news = match known.state.is_terminal() {
        true => cleaned && wanted.state == known.state,
        false => !same,
    };
    if !is_news || record.report.in_flight {
        return;
    }
    if !known.state.can_become(wanted.state) {
        return;
    }
    match record.report.not_before {
        Some(not_before) if context.now < not_before => plan.wake(not_before),
        _ => plan.actions.push(Action::Report(Box::new(TaskStatus {
            agent: Some(context.site.agent.clone()),
            ..wanted
        }))),
    }
}

fn is_deleting(task: &Task) -> bool {
    task.metadata.deletion_timestamp.is_some()
}

/// Whether some agent has ever reported a container of this task.
fn has_run(task: &Task) -> bool {
    let began = |state: TaskState| {
        matches!(state, TaskState::Starting | TaskState::Running | TaskState::Killing)
    };
    began(task.state())
        || task.status.iter().flat_map(|status| &status.history).any(|change| began(change.state))
}

/// What the API server last heard about readiness, if anything.
fn was_ready(record: &Record) -> Option<bool> {
    record.desired.as_ref()?.status.as_ref()?.ready
}

/// The uid under which a Task is known; empty only for an object that no server has stored.
pub fn uid_of(task: &Task) -> String {
    task.uid().unwrap_or_default()
}

#[cfg(test)]
mod tests;
