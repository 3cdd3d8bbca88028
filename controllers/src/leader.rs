//! Who of several controllers' processes decides: the one that holds a Lease.
//!
//! The Lease is an ordinary coordination.k8s.io/v1 one, with the fields and the rules of client-go's
//! leader election. It decides who *should* lead. Who *may write* is decided by the API server: all
//! writes of a term carry it as a fence ([`client`]), and none lands once another term has begun,
//! however long the process that sent it slept.

mod client;
mod holder;
mod lease;

use std::time::Duration;

use anyhow::{Context, ensure};
use kube::Client;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{info, warn};

use lease::{Leases, Seen, Term};

pub use holder::identity;

use crate::{Settings, allocation::standby::Standby};

/// How the leader is elected; the names and numbers are those of kube-controller-manager.
#[derive(Clone, Debug)]
pub struct Election {
    /// Where the Lease is, and its name.
    pub namespace: String,
    pub name: String,
    /// Who we are: [`identity`] makes one that is nobody else's.
    pub identity: String,
    /// So long after the leader was last seen alive, another one takes over.
    pub lease_duration: Duration,
    /// A leader that could not renew for so long stops.
    pub renew_deadline: Duration,
    /// Between two attempts to renew, or to take over.
    pub retry_period: Duration,
    /// Whether one that another one has deposed stands again, or ends.
    pub rejoin: bool,
}

impl Election {
    /// # Errors
    /// Numbers with which two could believe that they lead, or a leader would give up at once.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.lease_duration >= Duration::from_secs(1),
            "the duration of the lease must be 1 s at least"
        );
        ensure!(
            self.lease_duration > self.renew_deadline,
            "the duration of the lease must be longer than the deadline for renewing it"
        );
        ensure!(
            self.renew_deadline > self.retry_period.mul_f64(JITTER_MAX),
            "the deadline for renewing must be longer than the period of retries, by a fifth of it"
        );
        ensure!(!self.retry_period.is_zero(), "the period of retries must not be 0");
        Ok(())
    }
}

/// A period lasts so many times as long, at most: so that candidates do not ask all at once.
const JITTER_MAX: f64 = 1.2;
/// Controllers that stop have this long to finish what they are writing.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);

/// How a term ended.
enum End {
    /// We were asked to stop.
    Asked,
    /// The controllers ended by themselves.
    Died(anyhow::Result<()>),
    /// Another one leads.
    Deposed,
    /// The API could not be reached for too long; perhaps nobody leads.
    Unrenewed,
}

/// Runs the controllers while we lead, and waits while another one does, until `shutdown`.
///
/// # Errors
/// A controller died; or another process took over while we led: whatever we know is old, and to
/// begin afresh is to start again.
pub async fn run(
    client: Client,
    settings: Settings,
    election: Election,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    election.check()?;
    let leases = Leases::new(client.clone(), election.clone());
    loop {
        // Whoever takes over knows the cluster already.
        let elected = CancellationToken::new();
        let standby = tokio::spawn(Standby::new(&client).keep_up(elected.clone()));
        let standby = AbortOnDropHandle::new(standby);
        let mut term = tokio::select! {
            term = campaign(&leases) => term,
            () = shutdown.cancelled() => return Ok(()),
        };
        elected.cancel();
        let standby = standby.await.context("standing by panicked")?.leads_from(term.begins_at());
        info!(identity = election.identity, term = term.number(), "leading");
        let deposed = CancellationToken::new();
        let fenced = client::behind(&client, &term.fence(&election)?, deposed.clone());
        let stop = CancellationToken::new();
        let controllers = crate::lead(standby, fenced, settings.clone(), stop.clone());
        let mut controllers = tokio::spawn(controllers);
        let end = tokio::select! {
            () = shutdown.cancelled() => End::Asked,
            died = &mut controllers => End::Died(died.context("the controllers panicked").flatten()),
            () = deposed.cancelled() => End::Deposed,
            end = keep(&leases, &mut term) => end,
        };
        match end {
            End::Died(result) => {
                leases.release(&term).await;
                return result;
            }
            End::Asked => {
                stop.cancel();
                // The next one need not wait for what is still under way: the fence keeps the two apart.
                let stopped = timeout(STOP_TIME_MAX, &mut controllers);
                let (stopped, ()) = tokio::join!(stopped, leases.release(&term));
                controllers.abort();
                return stopped
                    .map_or(Ok(()), |ended| ended.context("the controllers panicked")?);
            }
            End::Deposed => {
                controllers.abort();
                let _ = controllers.await;
                let ended = format!(
                    "another process leads: the term {} of {} has ended, and no write of it lands any more",
                    term.number(),
                    election.identity
                );
                anyhow::ensure!(election.rejoin, ended);
                warn!("{ended}: standing again");
            }
            End::Unrenewed => {
                warn!(
                    "the lease could not be renewed in time: stopping, and waiting to lead again"
                );
                controllers.abort();
                // It has let go of its client before the next term begins.
                let _ = controllers.await;
            }
        }
    }
}

/// Returns once we lead.
async fn campaign(leases: &Leases) -> Term {
    let Election { renew_deadline, retry_period, .. } = *leases.election();
    let mut seen = Seen::default();
    let mut told = String::new();
    loop {
        let answered = match timeout(renew_deadline, leases.try_take(&mut seen)).await {
            Ok(Ok(Some(term))) => return term,
            Ok(Ok(None)) => true,
            Err(_) => {
                warn!("the API does not answer a candidate for the lead; trying again");
                false
            }
            Ok(Err(error)) => {
                let error = format!("{:#}", anyhow::Error::new(error));
                warn!(error, "the lease of the leader can't be read or written; trying again");
                false
            }
        };
        if told != seen.holder() {
            told = seen.holder().to_owned();
            info!(leader = told, "standing by");
        }
        let jitter = rand::random_range(1.0..JITTER_MAX);
        // Whoever sees at once that nobody leads does not wait for its turn, unless the API is in trouble.
        tokio::select! {
            () = sleep(retry_period.mul_f64(jitter)) => {}
            () = seen.holder_dies(), if answered => {}
            () = leases.released(&seen), if answered => {}
        }
    }
}

/// Renews until that fails.
async fn keep(leases: &Leases, term: &mut Term) -> End {
    let Election { renew_deadline, retry_period, .. } = *leases.election();
    let mut renewed = Instant::now();
    let mut was_stopped = false;
    loop {
        let turn = Instant::now();
        sleep(retry_period).await;
        let left = match was_stopped {
            true => renew_deadline,
            false => renew_deadline.saturating_sub(renewed.elapsed()).max(retry_period),
        };
        match timeout(left, leases.renew(term)).await {
            Ok(Ok(true)) => renewed = Instant::now(),
            Ok(Ok(false)) => return End::Deposed,
            Ok(Err(error)) => {
                warn!(%error, "the lease of the leader can't be renewed; trying again")
            }
            Err(_) => warn!("the API does not answer a leader that renews its lease"),
        }
        // A process that was stopped for a while, also while it asked, finds its deadline passed: it
        // asks once more, to know why.
        was_stopped = turn.elapsed() > left + retry_period * 2;
        if renewed.elapsed() >= renew_deadline && !was_stopped {
            return End::Unrenewed;
        }
    }
}

#[cfg(test)]
mod stopped_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_cannot_work_are_refused() {
        let election = |lease_s, renew_s, retry_s| Election {
            namespace: "n".into(),
            name: "l".into(),
            identity: "i".into(),
            lease_duration: Duration::from_secs(lease_s),
            renew_deadline: Duration::from_secs(renew_s),
            retry_period: Duration::from_secs(retry_s),
            rejoin: false,
        };
        assert!(election(15, 10, 2).check().is_ok());
        for (lease_s, renew_s, retry_s) in [(10, 10, 2), (15, 2, 2), (0, 0, 0), (15, 10, 0)] {
            assert!(election(lease_s, renew_s, retry_s).check().is_err(), "{lease_s} {renew_s}");
        }
    }
}
