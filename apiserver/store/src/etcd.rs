//! The etcd engine: the log is etcd's own, of one member or of a cluster.
//!
//! * A key lies in etcd under the store's prefix. A value carries one more byte at its end: the
//!   index of its change within its revision. etcd tells a reader the revision of a key but not
//!   that index, and a version must be the same whether it is read, tailed or answered.
//! * Many guarded writes share a transaction (`committer`), each nested with its own compares.
//! * A tail is one watch over all keys of etcd, so that it always knows how far the log is.
//!
//! Works with etcd 3.4 and later, with its default limits.

mod committer;
mod fault;
mod numbering;
mod request;
mod tail;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{Client, ConnectOptions, GetOptions, KeyValue, KvClient, WatchClient};
use futures::stream::BoxStream;
use tokio::sync::{mpsc, oneshot};

use self::committer::{Committer, Pending, QUEUE_WRITES_MAX};
use crate::check::{check_prefix, check_write};
use crate::{
    Batch, Committed, Entry, GuardedWrite, Page, RangeQuery, Revision, Store, StoreError, Version,
};

/// Keys of one page: 500 cost five times as much per key, more gain nothing.
const PAGE_KEYS_MAX: i64 = 10_000;

/// Bytes that one page should not exceed by much: the first page tells how large values are.
const PAGE_BYTES: usize = 16 << 20;

/// Keys of the first page, when nothing is known about the size of the values.
const FIRST_PAGE_KEYS: i64 = 1_000;

/// Bytes of the prefix, at most: so that `FRAME_BYTES` of a write has room for it.
const PREFIX_BYTES_MAX: usize = 32;

/// How etcd is found and used.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    /// `host:port` or `http://host:port` of each member.
    pub endpoints: Vec<String>,
    /// Keys of the store begin with this in etcd; two stores in one etcd need two prefixes. Begins
    /// with `/`, does not end with it.
    pub prefix: String,
    /// Transactions on the way at once: one waits for the disk while the next is read. Two were
    /// faster than three or four, whose transactions are smaller.
    pub requests_in_flight: usize,
    /// After this long an answer is not waited for any more, and a write's outcome is unknown.
    pub request_timeout: Duration,
}

impl EtcdOptions {
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> EtcdOptions {
        EtcdOptions {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            prefix: "/commonage".into(),
            requests_in_flight: 2,
            request_timeout: Duration::from_secs(15),
        }
    }
}

/// A log in etcd. Dropping it lets the writes in hand be finished.
#[derive(Debug)]
pub struct EtcdStore {
    connection: Connection,
    queue: mpsc::Sender<Pending>,
}

/// What every part needs to speak to etcd.
#[derive(Clone)]
struct Connection {
    kv: KvClient,
    watch: WatchClient,
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
        let EtcdOptions { endpoints, prefix, requests_in_flight, request_timeout } = options;
        if !prefix.starts_with('/') || prefix.ends_with('/') || prefix.len() > PREFIX_BYTES_MAX {
            return Err(StoreError::Refused(format!(
                "the prefix {prefix:?} must begin with /, not end with it, and have at most \
                 {PREFIX_BYTES_MAX} bytes"
            )));
        }
        let connect = ConnectOptions::new()
            .with_connect_timeout(Duration::from_secs(5))
            // etcd refuses clients that ask more often than every 5 s.
            .with_keep_alive(Duration::from_secs(10), Duration::from_secs(5))
            .with_keep_alive_while_idle(true)
            .with_require_leader(true);
        let client = Client::connect(&endpoints, Some(connect))
            .await
            .map_err(|error| StoreError::Unavailable(format!("no way to etcd: {error}")))?;
        let connection = Connection {
            // A page or a batch of large values exceeds the default of 4 MB.
            kv: client.kv_client().max_decoding_message_size(usize::MAX),
            watch: client.watch_client().max_decoding_message_size(usize::MAX),
            prefix: prefix.into_bytes().into(),
            timeout: request_timeout,
        };
        connection.revision().await?;
        let (queue, queued) = mpsc::channel(QUEUE_WRITES_MAX);
        let committer = Committer::new(connection.clone(), queued, requests_in_flight.max(1));
        // Ends when the store is dropped; if it ended earlier, every commit says so.
        tokio::spawn(committer.run());
        Ok(EtcdStore { connection, queue })
    }
}

impl Connection {
    fn key(&self, key: &[u8]) -> Vec<u8> {
        [&*self.prefix, key].concat()
    }

    /// A linearizable read which fails instead of waiting for ever.
    async fn get(
        &self,
        key: Vec<u8>,
        options: GetOptions,
        asked: Option<Revision>,
    ) -> Result<etcd_client::GetResponse, StoreError> {
        let mut kv = self.kv.clone();
        match tokio::time::timeout(self.timeout, kv.get(key, Some(options))).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => match asked.filter(|_| fault::is_compacted(&error)) {
                Some(asked) => Err(self.compacted(asked).await),
                None => Err(fault::of_read(&error)),
            },
            Err(_) => Err(fault::no_answer(self.timeout)),
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
        let (reply, answer) = oneshot::channel();
        let stopped = || StoreError::Unavailable("the store's committer stopped".into());
        self.queue.send(Pending { write, reply }).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| StoreError::UnknownOutcome("the committer stopped".into()))?
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.connection.revision().await
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
        let mut kv = self.connection.kv.clone();
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
