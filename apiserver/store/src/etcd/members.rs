//! The members of an etcd cluster, and which of them is asked.
//!
//! One member at a time, until it fails: a balancer that spreads requests would prefer the member
//! that is down, because it answers (with a refusal) fastest. Nothing is sent twice here; who asks
//! decides whether another member may be asked the same.

use std::time::Duration;

use etcd_client::{
    Certificate, Client, ConnectOptions, Identity, KvClient, LeaseClient, TlsOptions, WatchClient,
};

use tokio::sync::watch;

use super::{EtcdOptions, EtcdTls};
use crate::StoreError;

/// Longer than a lost SYN, shorter than anybody's patience.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);
/// etcd refuses clients that ask more often than every 5 s.
const PING_EVERY: Duration = Duration::from_secs(6);
/// With `PING_EVERY`: after this and that, a member that has gone without a word is known to be gone.
const PING_TIME_MAX: Duration = Duration::from_secs(3);

/// One member, by one connection.
#[derive(Clone)]
pub(super) struct Member {
    place: usize,
    pub(super) kv: KvClient,
    pub(super) watch: WatchClient,
    pub(super) lease: LeaseClient,
}

pub(super) struct Members {
    all: Vec<Member>,
    endpoints: Vec<String>,
    current: watch::Sender<usize>,
}

impl Members {
    /// Connects to nobody yet.
    pub(super) async fn new(options: &EtcdOptions) -> Result<Members, StoreError> {
        let mut all = Vec::with_capacity(options.endpoints.len());
        for (place, endpoint) in options.endpoints.iter().enumerate() {
            let client = Client::connect([endpoint], Some(connect_options(options.tls.as_ref())))
                .await
                .map_err(|error| {
                    StoreError::Refused(format!("etcd at {endpoint} cannot be used: {error}"))
                })?;
            all.push(Member {
                place,
                // A page or a batch of large values exceeds the default of 4 MB.
                kv: client.kv_client().max_decoding_message_size(usize::MAX),
                watch: client.watch_client().max_decoding_message_size(usize::MAX),
                lease: client.lease_client(),
            });
        }
        if all.is_empty() {
            return Err(StoreError::Refused("no endpoint of etcd is given".into()));
        }
        // Several API servers with the same list should not all lean on the same member.
        let first = std::process::id() as usize % all.len();
        let endpoints = options.endpoints.clone();
        Ok(Members { all, endpoints, current: watch::Sender::new(first) })
    }

    pub(super) fn current(&self) -> &Member {
        &self.all[*self.current.borrow()]
    }

    /// `member` failed: the next one from now on, unless somebody else has gone on already.
    pub(super) fn leave(&self, member: &Member) {
        let next = (member.place + 1) % self.all.len();
        let left = self.current.send_if_modified(|current| {
            let leaves = *current == member.place && next != member.place;
            if leaves {
                *current = next;
            }
            leaves
        });
        if left {
            tracing::info!(
                from = self.endpoints[member.place],
                to = self.endpoints[next],
                "asking another member of etcd"
            );
        }
    }

    /// Returns when somebody has found `member` to fail. What is silent, such as a watch, may be so
    /// because nothing happens; who asks and gets no answer knows better.
    pub(super) async fn left(&self, member: &Member) {
        let mut current = self.current.subscribe();
        // The sender is here: it does not close.
        let _ = current.wait_for(|current| *current != member.place).await;
    }

    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    /// For messages.
    pub(super) fn names(&self) -> String {
        self.endpoints.join(", ")
    }
}

fn connect_options(tls: Option<&EtcdTls>) -> ConnectOptions {
    let options = ConnectOptions::new()
        .with_connect_timeout(CONNECT_TIME_MAX)
        .with_keep_alive(PING_EVERY, PING_TIME_MAX)
        .with_keep_alive_while_idle(true)
        .with_require_leader(true);
    let Some(tls) = tls else { return options };
    let mut config = TlsOptions::new().ca_certificate(Certificate::from_pem(&tls.ca_pem));
    if let Some((certificate, key)) = &tls.identity_pem {
        config = config.identity(Identity::from_pem(certificate, key));
    }
    options.with_tls(config)
}
