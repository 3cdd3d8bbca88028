//! The newest revision, for many who ask at once: one question to etcd answers all who were waiting
//! when it was sent.
//!
//! A read is linearizable if etcd was asked after the read came. So whoever comes while a question
//! is on the way waits for the next one, and no more than that.

use tokio::sync::{mpsc, oneshot};

use super::Connection;
use super::committer::again;
use crate::{Revision, StoreError};

/// Readers waiting, at most; more wait for room.
const WAITING_MAX: usize = 1_024;

type Reply = oneshot::Sender<Result<Revision, StoreError>>;

#[derive(Debug)]
pub(super) struct Newest(mpsc::Sender<Reply>);

impl Newest {
    /// Asks until the value is dropped.
    pub(super) fn new(connection: Connection) -> Newest {
        let (ask, asked) = mpsc::channel(WAITING_MAX);
        tokio::spawn(answer(connection, asked));
        Newest(ask)
    }

    pub(super) async fn revision(&self) -> Result<Revision, StoreError> {
        let stopped = || StoreError::Unavailable("the store was closed".into());
        let (reply, answer) = oneshot::channel();
        self.0.send(reply).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

async fn answer(connection: Connection, mut asked: mpsc::Receiver<Reply>) {
    let mut waiting: Vec<Reply> = Vec::new();
    while asked.recv_many(&mut waiting, WAITING_MAX).await > 0 {
        // Who has gone need not be answered, and if all have, etcd need not be asked.
        waiting.retain(|reply| !reply.is_closed());
        if waiting.is_empty() {
            continue;
        }
        let newest = connection.revision().await;
        for reply in waiting.drain(..) {
            let one = match &newest {
                Ok(revision) => Ok(*revision),
                Err(error) => Err(again(error)),
            };
            // Its reader may have gone meanwhile.
            let _ = reply.send(one);
        }
    }
}
