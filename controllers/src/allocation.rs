//! The allocator's driver: the only writer of offers and of bindings.
//!
//! A watch wakes it; it tells the allocator what has changed, asks for a plan, carries the plan out
//! and takes in the answers before it plans again, so that what it has just given away is never
//! taken for free. It keeps nothing that is not in the API: started anew, it goes on from there.

mod accounting;
mod apply;
pub(crate) mod cache;
mod follow;
mod info;
mod preemption;
mod reserved;
pub(crate) mod standby;
mod starving;
mod statuses;
mod tallies;
mod unanswered;
pub mod whatif;
mod words;
mod world;

use std::time::Duration;

use commonage_allocator::Plan;
use commonage_schemas::reasons;
use jiff::Timestamp;
use kube::Client;
use tokio::time::{Instant, sleep_until};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{debug, info as log};

use crate::{events, metrics};

use self::{
    accounting::Accounting,
    apply::Outcome,
    standby::Standby,
    statuses::Statuses,
    world::{Input, Inputs},
};

/// At least one cycle in so long (Mesos' `allocation_interval`): offers and refusals end by time.
const CYCLE_AT_LEAST_EVERY: Duration = Duration::from_secs(1);
/// Between two cycles: changes of so long are decided together, and nobody notices the wait.
const CYCLE_AT_MOST_EVERY: Duration = Duration::from_millis(2);
/// After a write whose outcome is unknown: until then the watch has shown whether it landed.
const AFTER_UNKNOWN_OUTCOME: Duration = Duration::from_secs(2);
/// Tasks that no watch has shown are asked for so often, and so many at one time: when the watch is late because there is
/// much to do, to ask for all of them at every turn would make it later.
const ASKED_AT_MOST_EVERY: Duration = Duration::from_secs(2);
const ASKED_AT_ONCE: usize = 500;
/// Statuses of queues, frameworks and agents are for people and dashboards.
const STATUSES_AT_MOST_EVERY: Duration = Duration::from_millis(500);
/// Inputs taken in at one go.
const INPUTS_PER_TURN: usize = 1024;

/// `decided` is cancelled when everything is known and has been decided about for the first time.
pub(crate) async fn run(
    standby: Standby,
    client: Client,
    decided: CancellationToken,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let began = Instant::now();
    let (world, mut inputs) = tokio::select! {
        ready = standby.ready() => ready?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let known = began.elapsed();
    let mut driver = Driver {
        client,
        shutdown: shutdown.clone(),
        accounting: Accounting::over(world, Timestamp::now()),
        statuses: Statuses::default(),
        publishing: None,
        next_cycle: Instant::now(),
        next_statuses: Instant::now(),
        next_asking: Instant::now(),
    };
    let all = began.elapsed();
    log!(known_ms = known.as_millis(), accounted_ms = (all - known).as_millis(), "deciding");
    let mut waiting = Vec::with_capacity(INPUTS_PER_TURN);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            taken = inputs.recv(&mut waiting, INPUTS_PER_TURN) => {
                anyhow::ensure!(taken > 0, "all watches of the allocator ended");
                driver.take_in(&mut waiting, &mut inputs);
            }
            () = sleep_until(driver.next_cycle) => {}
        }
        if Instant::now() >= driver.next_cycle {
            driver.cycle().await;
            decided.cancel();
        }
    }
}

struct Driver {
    client: Client,
    shutdown: CancellationToken,
    accounting: Accounting,
    statuses: Statuses,
    publishing: Option<AbortOnDropHandle<()>>,
    next_cycle: Instant,
    next_statuses: Instant,
    next_asking: Instant,
}

impl Driver {
    /// Takes in what has arrived, all of it that is there, and asks for a cycle soon.
    fn take_in(&mut self, waiting: &mut Vec<Input>, inputs: &mut Inputs) {
        let mut changed = false;
        self.accounting.tick(Timestamp::now());
        loop {
            for input in waiting.drain(..) {
                changed |= self.accounting.take_in(input);
            }
            match inputs.try_recv() {
                Some(more) => waiting.push(more),
                None => break,
            }
        }
        if changed {
            self.next_cycle = self.next_cycle.min(Instant::now() + CYCLE_AT_MOST_EVERY);
        }
    }

    async fn cycle(&mut self) {
        let started = Instant::now();
        self.accounting.tick(Timestamp::now());
        self.find_missing_tasks().await;
        let mut writes = self.accounting.serve_from_reservations();
        let deciding = Instant::now();
        let plan = self.accounting.plan(rand::random());
        metrics::ran(deciding.elapsed());
        metrics::decided(plan.bindings.len(), plan.preempt.len());
        writes.extend(self.accounting.writes(&plan));
        let decided = writes.len();
        self.next_cycle = started + next_cycle_in(&plan, self.accounting.now_ms());
        let outcomes = apply::apply(&self.client, writes, &self.shutdown).await;
        if self.shutdown.is_cancelled() {
            return;
        }
        let mut wait = Duration::ZERO;
        for outcome in outcomes {
            if matches!(outcome, Outcome::Unknown) {
                wait = AFTER_UNKNOWN_OUTCOME;
            }
            if self.accounting.take_in_outcome(outcome) {
                self.next_cycle = self.next_cycle.min(Instant::now() + CYCLE_AT_MOST_EVERY);
            }
        }
        self.invert(&plan).await;
        preemption::tell_called_in(
            &self.client,
            std::mem::take(&mut self.accounting.lent.called_in),
        )
        .await;
        preemption::tell(&self.client, self.accounting.world(), &plan.preempt).await;
        metrics::carried_out(started.elapsed());
        if decided > 0 {
            debug!(decided, took_ms = started.elapsed().as_millis(), "allocated");
        }
        self.publish(&plan);
        self.next_cycle = self.next_cycle.max(Instant::now() + wait);
    }

    /// Has the statuses written, beside what goes on here.
    fn publish(&mut self, plan: &Plan) {
        let busy = self.publishing.as_ref().is_some_and(|publishing| !publishing.is_finished());
        if busy || Instant::now() < self.next_statuses {
            return;
        }
        let news = self.statuses.news(&mut self.accounting, plan);
        self.publishing =
            Some(AbortOnDropHandle::new(tokio::spawn(news.publish(self.client.clone()))));
        self.next_statuses = Instant::now() + STATUSES_AT_MOST_EVERY;
    }

    /// Inverse offers: asks frameworks to leave agents that are going to be maintained. There is
    /// nothing to answer; at the start of the window their tasks are told to end.
    async fn invert(&mut self, plan: &Plan) {
        for inverse in &plan.inverse_offers {
            let key = (inverse.framework.namespace.to_string(), inverse.framework.name.to_string());
            if let Some(framework) = self.accounting.world().frameworks.get(&key) {
                let start = i64::try_from(inverse.starts_at_ms).unwrap_or(i64::MAX);
                let start = Timestamp::from_millisecond(start).unwrap_or(Timestamp::MAX);
                let message = format!(
                    "agent {} will be maintained from {start:.0} on: leave it before, its tasks are ended then",
                    inverse.agent
                );
                events::warn(
                    &self.client,
                    &**framework,
                    reasons::framework::INVERSE_OFFER,
                    message,
                )
                .await;
            }
        }
        self.accounting.asked_to_leave(&plan.inverse_offers);
    }

    /// Offers that were accepted a while ago and whose tasks no watch has shown: asks for the tasks.
    async fn find_missing_tasks(&mut self) {
        if Instant::now() < self.next_asking {
            return;
        }
        let mut missing = self.accounting.missing_tasks();
        if missing.is_empty() {
            return;
        }
        missing.truncate(ASKED_AT_ONCE);
        log!(tasks = missing.len(), "asking for tasks of accepted offers");
        if let Ok(found) = apply::read_tasks(&self.client, &missing).await {
            self.accounting.take_in_found(&missing, found);
        }
        self.next_asking = Instant::now() + ASKED_AT_MOST_EVERY;
    }
}

/// When to look again if nothing changes meanwhile.
fn next_cycle_in(plan: &Plan, now_ms: u64) -> Duration {
    let wake = plan.next_wake_ms.map(|at| Duration::from_millis(at.saturating_sub(now_ms)));
    wake.unwrap_or(CYCLE_AT_LEAST_EVERY).clamp(CYCLE_AT_MOST_EVERY, CYCLE_AT_LEAST_EVERY)
}
