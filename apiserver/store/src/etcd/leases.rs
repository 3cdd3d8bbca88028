//! Leases of etcd, for keys that go by themselves.
//!
//! A lease for each key would cost a write more for each, and etcd a timer. So keys whose time is
//! about the same share one, which ends a little later than any of them asked for.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Connection, fault};
use crate::StoreError;

/// A key may live so much longer than it should; kube-apiserver's number.
const SHARED_FOR_MAX: Duration = Duration::from_secs(60);
/// Keys of one lease, at most: etcd deletes all of them in one revision, whose changes must have
/// indexes.
const KEYS_MAX: usize = 200;

#[derive(Debug, Default)]
pub(super) struct Leases {
    current: Mutex<Option<Lease>>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    id: i64,
    ends: Instant,
    keys: usize,
}

impl Leases {
    /// A lease that ends not before `ttl` has passed, with room for `keys` more.
    pub(super) async fn for_keys(
        &self,
        connection: &Connection,
        ttl: Duration,
        keys: usize,
    ) -> Result<i64, StoreError> {
        if let Some(id) = self.take_part(ttl, keys) {
            return Ok(id);
        }
        let shared_for = shared_for(ttl);
        let lasts = ttl + shared_for;
        // Whole seconds, and never less than was asked for.
        let seconds = i64::try_from(lasts.as_secs()).unwrap_or(i64::MAX / 2) + 1;
        let member = connection.members.current();
        let mut client = member.lease.clone();
        let granted =
            match tokio::time::timeout(connection.timeout, client.grant(seconds, None)).await {
                Ok(Ok(granted)) => granted,
                Ok(Err(error)) => {
                    if fault::is_of_member(&error) {
                        connection.members.leave(member);
                    }
                    return Err(fault::of_lease(&error));
                }
                Err(_) => {
                    connection.members.leave(member);
                    return Err(fault::no_answer(connection.timeout));
                }
            };
        let lease = Lease { id: granted.id(), ends: Instant::now() + lasts, keys };
        *self.current.lock() = Some(lease);
        Ok(lease.id)
    }

    /// Whatever went wrong may be the lease's fault: the next key gets another one.
    pub(super) fn forget(&self, id: i64) {
        let mut current = self.current.lock();
        if current.is_some_and(|lease| lease.id == id) {
            *current = None;
        }
    }

    fn take_part(&self, ttl: Duration, keys: usize) -> Option<i64> {
        let mut current = self.current.lock();
        let lease = current.as_mut()?;
        let left = lease.ends.saturating_duration_since(Instant::now());
        let fits = left >= ttl && left <= ttl + shared_for(ttl) && lease.keys + keys <= KEYS_MAX;
        fits.then(|| {
            lease.keys += keys;
            lease.id
        })
    }
}

/// Short lives are not made much longer.
fn shared_for(ttl: Duration) -> Duration {
    (ttl / 20).min(SHARED_FOR_MAX)
}
