//! The etcd engine: the log is etcd's own, of one member or of a cluster.
//!
//! * A key lies in etcd under the store's prefix. A value carries one more byte at its end: the
//!   index of its change within its revision. etcd tells a reader the revision of a key but not
//!   that index, and a version must be the same whether it is read, tailed or answered.
//! * Many guarded writes share a transaction (`committer`): in one list if no compare of theirs
//!   fails, else each nested with its own compares.
//! * A tail is one watch over all keys of etcd, so that it always knows how far the log is.
//! * A transaction is sent a second time only when it surely was not done (`fault`).
//!
//! Works with etcd 3.4 and later, with its default limits.

mod committer;
mod fault;
mod leases;
mod members;
mod newest;
mod numbering;
mod request;
mod tail;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{GetOptions, KeyValue};
use futures::stream::BoxStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use self::committer::{Committer, Pending, QUEUE_WRITES_MAX};
use self::leases::Leases;
use self::members::Members;
use self::newest::Newest;
use crate::check::{check_prefix, check_write};
use crate::{
    Batch, Committed, Entry, GuardedWrite, Op, Page, RangeQuery, Revision, Store, StoreError,
    Version,
};

/// Keys of one page: 500 cost five times as much per key, more gain nothing.
const PAGE_KEYS_MAX: i64 = 10_000;

/// Bytes that one page should not exceed by much: the first page tells how large values are.
const PAGE_BYTES: usize = 16 << 20;

/// Keys of the first page, when nothing is known about the size of the values.
const FIRST_PAGE_KEYS: i64 = 1_000;

/// How long one member of several may take to answer a read before the next one is asked: longer
/// than the disk of a member that works takes.
const MEMBER_PATIENCE: Duration = Duration::from_secs(2);

/// Bytes of the prefix, at most: so that `FRAME_BYTES` of a write has room for it.
const PREFIX_BYTES_MAX: usize = 32;

/// Certificates, as PEM.
#[derive(Clone)]
pub struct EtcdTls {
    /// The authority of etcd's own certificates.
    pub ca_pem: Vec<u8>,
    /// Our certificate and its key, for an etcd that asks for them.
    pub identity_pem: Option<(Vec<u8>, Vec<u8>)>,
}

impl std::fmt::Debug for EtcdTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the key.
        f.debug_struct("EtcdTls").finish_non_exhaustive()
    }
}

/// How etcd is found and used.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    /// `host:port`, `http://host:port` or `https://host:port` of each member.
    pub endpoints: Vec<String>,
    /// How its members know us and we them; `None` is plain text.
    pub tls: Option<EtcdTls>,
    /// Keys of the store begin with this in etcd; two stores in one etcd need two prefixes. Begins
    /// with `/`, does not end with it.
    pub prefix: String,
    /// Transactions on the way at once, at most. What comes while one is on its way goes with the next,
    /// and the larger they are the less each write costs etcd and us: so a second one goes only when the
    /// first takes long, as it does over a slow network or to a slow disk, and the next one waits up to
    /// a millisecond for those whom the last one answered.
    pub requests_in_flight: usize,
    /// After this long an answer is not waited for any more, and a write's outcome is unknown.
    pub request_timeout: Duration,
}

impl EtcdOptions {
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> EtcdOptions {
        EtcdOptions {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            tls: None,
            prefix: "/commonage".into(),
            requests_in_flight: 4,
            request_timeout: Duration::from_secs(15),
        }
    }
}

/// A log in etcd. Dropping it lets the writes in hand be finished.
#[derive(Debug)]
pub struct EtcdStore {
    connection: Connection,
    queue: mpsc::Sender<Pending>,
    /// The newest revision of a write of ours.
    landed: Arc<AtomicU64>,
    leases: Leases,
    newest: Newest,
}

/// What every part needs to speak to etcd.
#[derive(Clone)]
struct Connection {
    members: Arc<Members>,
    prefix: Arc<[u8]>,
    timeout: Duration,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let prefix = self.prefix.escape_ascii().to_string();
        f.debug_struct("Connection").field("prefix", &prefix).finish_non_exhaustive()
    }
}

impl EtcdStore {
    /// Connects, and reads once to see that etcd answers.
    ///
    /// # Errors
    ///
    /// `Refused` for options that cannot work; `Unavailable` when etcd does not answer in time: the
    /// caller may try again.
    pub async fn connect(options: EtcdOptions) -> Result<EtcdStore, StoreError> {
        let prefix = options.prefix.clone();
        if !prefix.starts_with('/') || prefix.ends_with('/') || prefix.len() > PREFIX_BYTES_MAX {
            return Err(StoreError::Refused(format!(
                "the prefix {prefix:?} must begin with /, not end with it, and have at most \
                 {PREFIX_BYTES_MAX} bytes"
            )));
        }
        let connection = Connection {
            members: Arc::new(Members::new(&options).await?),
            prefix: prefix.into_bytes().into(),
            timeout: options.request_timeout,
        };
        connection.revision().await?;
        let (queue, queued) = mpsc::channel(QUEUE_WRITES_MAX);
        let landed = Arc::new(AtomicU64::new(0));
        let committer = Committer::new(
            connection.clone(),
            queued,
            options.requests_in_flight.max(1),
            landed.clone(),
        );
        // Ends when the store is dropped; if it ended earlier, every commit says so.
        tokio::spawn(committer.run());
        let newest = Newest::new(connection.clone());
        Ok(EtcdStore { connection, queue, landed, leases: Leases::default(), newest })
    }
}

impl EtcdStore {
    /// What the expiring keys of a write hang on: the one of them that lives longest decides.
    async fn lease_for(&self, write: &GuardedWrite) -> Result<i64, StoreError> {
        let ttl = |op: &Op| match op {
            Op::PutFor { ttl, .. } => Some(*ttl),
            _ => None,
        };
        let (keys, longest) = write
            .ops
            .iter()
            .filter_map(ttl)
            .fold((0, Duration::ZERO), |(keys, longest), ttl| (keys + 1, longest.max(ttl)));
        match keys {
            0 => Ok(0),
            keys => self.leases.for_keys(&self.connection, longest, keys).await,
        }
    }
}

impl Connection {
    fn key(&self, key: &[u8]) -> Vec<u8> {
        [&*self.prefix, key].concat()
    }

    /// A linearizable read which fails instead of waiting for ever. A member that does not answer
    /// is left for the next one: asking twice does no harm.
    async fn get(
        &self,
        key: Vec<u8>,
        options: GetOptions,
        asked: Option<Revision>,
    ) -> Result<etcd_client::GetResponse, StoreError> {
        let deadline = Instant::now() + self.timeout;
        let mut members = self.members.count();
        loop {
            let member = self.members.current();
            let mut kv = member.kv.clone();
            let left = deadline.saturating_duration_since(Instant::now());
            let patience = if members > 1 { left.min(MEMBER_PATIENCE) } else { left };
            let get = kv.get(key.clone(), Some(options.clone()));
            let failure = match tokio::time::timeout(patience, get).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(error)) => match asked.filter(|_| fault::is_compacted(&error)) {
                    Some(asked) => return Err(self.compacted(asked).await),
                    None if !fault::is_of_member(&error) => return Err(fault::of_read(&error)),
                    None => fault::of_read(&error),
                },
                Err(_) => fault::no_answer(patience),
            };
            self.members.leave(member);
            members -= 1;
            if members == 0 {
                return Err(self.said_of_all(failure));
            }
        }
    }

    /// The last failure, when no member answered.
    fn said_of_all(&self, failure: StoreError) -> StoreError {
        match failure {
            StoreError::Unavailable(why) => {
                StoreError::Unavailable(format!("etcd at {}: {why}", self.members.names()))
            }
            other => other,
        }
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        let response = self.get(self.key(b"/"), GetOptions::new().with_count_only(), None).await?;
        header_revision(response.header())
    }

    /// `asked` is compacted; etcd tells what is not only to one who watches.
    async fn compacted(&self, asked: Revision) -> StoreError {
        let oldest = match tail::oldest_revision(self, asked).await {
            Some(oldest) => oldest.max(Revision(asked.0 + 1)),
            None => Revision(asked.0 + 1),
        };
        StoreError::Compacted { asked, oldest }
    }

    async fn range(&self, query: &RangeQuery) -> Result<Page, StoreError> {
        let prefix: &[u8] = if query.prefix.is_empty() { b"/" } else { &query.prefix };
        let end = end_of_prefix(self.key(prefix));
        let mut start = match &query.after {
            Some(after) if &**after >= prefix => successor(self.key(after)),
            _ => self.key(prefix),
        };
        let mut page_keys = FIRST_PAGE_KEYS;
        let mut at = query.at;
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let left = match query.limit {
                0 => i64::MAX,
                limit => i64::try_from(limit - entries.len()).unwrap_or(i64::MAX),
            };
            let mut options =
                GetOptions::new().with_range(end.clone()).with_limit(page_keys.min(left));
            if let Some(at) = at {
                options = options.with_revision(etcd_revision(at));
            }
            let mut response = self.get(start, options, at).await?;
            let revision = match at {
                Some(at) => at,
                None => header_revision(response.header())?,
            };
            at = Some(revision);
            let more = response.more();
            let mut bytes = 0;
            for pair in response.take_kvs() {
                bytes += pair.key().len() + pair.value().len();
                entries.extend(self.entry(pair));
            }
            let full = query.limit != 0 && entries.len() >= query.limit;
            let last = entries.last();
            match last {
                Some(last) if more && !full => start = successor(self.key(&last.key)),
                _ => {
                    return Ok(Page { entries, revision, more });
                }
            }
            page_keys = next_page_keys(page_keys, bytes);
        }
    }

    /// The entry of a pair under our prefix.
    fn entry(&self, pair: KeyValue) -> Option<Entry> {
        let revision = Revision(u64::try_from(pair.mod_revision()).ok()?);
        let (key, value) = pair.into_key_value();
        let key = Bytes::from(key);
        if !key.starts_with(&self.prefix) {
            return None;
        }
        let (value, index) = numbering::separate(value);
        let version = Version::new(revision, index);
        Some(Entry { key: key.slice(self.prefix.len()..), value, version })
    }
}

fn next_page_keys(keys: i64, bytes: usize) -> i64 {
    let keys = usize::try_from(keys).unwrap_or(1).max(1);
    let key_bytes = (bytes / keys).max(1);
    i64::try_from(PAGE_BYTES / key_bytes).unwrap_or(PAGE_KEYS_MAX).clamp(10, PAGE_KEYS_MAX)
}

/// etcd takes 0 for "now"; its first revision, before any write, is 1.
fn etcd_revision(revision: Revision) -> i64 {
    i64::try_from(revision.0.max(1)).unwrap_or(i64::MAX)
}

fn header_revision(header: Option<&etcd_client::ResponseHeader>) -> Result<Revision, StoreError> {
    header
        .and_then(|header| u64::try_from(header.revision()).ok())
        .map(Revision)
        .ok_or_else(|| StoreError::Unavailable("etcd answered without a revision".into()))
}

/// The first key behind `key`.
fn successor(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

/// The first key that does not begin with `prefix`.
fn end_of_prefix(mut prefix: Vec<u8>) -> Vec<u8> {
    while let Some(last) = prefix.pop() {
        if last < u8::MAX {
            prefix.push(last + 1);
            return prefix;
        }
    }
    // To etcd: up to the last key.
    vec![0]
}

#[async_trait]
impl Store for EtcdStore {
    async fn commit(&self, write: GuardedWrite) -> Result<Committed, StoreError> {
        check_write(&write)?;
        let lease = self.lease_for(&write).await?;
        let (reply, answer) = oneshot::channel();
        let stopped = || StoreError::Unavailable("the store's committer stopped".into());
        self.queue.send(Pending { write, lease, reply }).await.map_err(|_| stopped())?;
        let outcome = answer
            .await
            .unwrap_or_else(|_| Err(StoreError::UnknownOutcome("the committer stopped".into())));
        if lease != 0 && matches!(outcome, Err(StoreError::Unavailable(_))) {
            self.leases.forget(lease);
        }
        outcome
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.newest.revision().await
    }

    fn landed(&self) -> Revision {
        Revision(self.landed.load(Ordering::Acquire))
    }

    async fn get(&self, key: &[u8], at: Option<Revision>) -> Result<Option<Entry>, StoreError> {
        if !key.starts_with(b"/") {
            return Ok(None);
        }
        let mut options = GetOptions::new();
        if let Some(at) = at {
            options = options.with_revision(etcd_revision(at));
        }
        let mut response = self.connection.get(self.connection.key(key), options, at).await?;
        Ok(response.take_kvs().pop().and_then(|pair| self.connection.entry(pair)))
    }

    async fn range(&self, query: RangeQuery) -> Result<Page, StoreError> {
        /// Compactions during one read of "now" before it is given up.
        const ATTEMPTS: usize = 3;
        check_prefix(&query.prefix)?;
        let mut attempt = 1;
        loop {
            match self.connection.range(&query).await {
                Err(StoreError::Compacted { .. }) if query.at.is_none() && attempt < ATTEMPTS => {
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    fn tail(&self, after: Revision) -> BoxStream<'static, Result<Batch, StoreError>> {
        tail::tail(self.connection.clone(), after)
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        if revision == Revision(0) {
            return Ok(());
        }
        let mut kv = self.connection.members.current().kv.clone();
        let compact = kv.compact(etcd_revision(revision), None);
        match tokio::time::timeout(self.connection.timeout, compact).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) if fault::is_compacted(&error) => Ok(()),
            Ok(Err(error)) => Err(fault::of_read(&error)),
            Err(_) => Err(fault::no_answer(self.connection.timeout)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_behind_all_its_keys() {
        assert_eq!(end_of_prefix(b"/a/".to_vec()), b"/a0");
        assert_eq!(end_of_prefix(b"/a\xff\xff".to_vec()), b"/b");
        assert_eq!(end_of_prefix(b"\xff".to_vec()), [0]);
    }

    #[test]
    fn pages_grow_with_small_values_and_shrink_with_large_ones() {
        assert_eq!(next_page_keys(1_000, 1_000 * 1_000), 10_000);
        assert_eq!(next_page_keys(1_000, 1_000 * 16_384), 1_024);
        assert_eq!(next_page_keys(1_000, 1_000 * 1_000_000 * 100), 10);
        assert_eq!(next_page_keys(1_000, 0), 10_000);
    }
}
