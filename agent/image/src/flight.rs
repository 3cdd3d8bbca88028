//! Single flight: what several want at once is done once, goes on while anybody waits, and stops when nobody
//! does.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::error::Error;

enum State<P, T> {
    Going(P),
    Done(Result<T, Error>),
}

struct Flight<P, T> {
    state: watch::Receiver<State<P, T>>,
    task: AbortHandle,
}

impl<P, T> Drop for Flight<P, T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is under way, by key.
pub(crate) struct Flights<K, P, T>(Mutex<HashMap<K, Weak<Flight<P, T>>>>);

/// Tells everybody who waits how far it is.
pub(crate) struct Reporter<P, T>(Arc<watch::Sender<State<P, T>>>);

impl<P, T> Reporter<P, T> {
    pub(crate) fn say(&self, progress: P) {
        self.0.send_replace(State::Going(progress));
    }
}

impl<K, P, T> Flights<K, P, T>
where
    K: Eq + Hash,
    P: Clone + Default + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
{
    pub(crate) fn new() -> Self {
        Flights(Mutex::new(HashMap::new()))
    }

    /// The result of what is under way for `key`, else of what `start` begins. `heard` hears how far it is.
    pub(crate) async fn join<F>(
        &self,
        key: K,
        start: impl FnOnce(Reporter<P, T>) -> F,
        mut heard: impl FnMut(P),
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let flight = self.board(key, start);
        let mut state = flight.state.clone();
        loop {
            match &*state.borrow_and_update() {
                State::Done(result) => return result.clone(),
                State::Going(progress) => heard(progress.clone()),
            }
            if state.changed().await.is_err() {
                return Err(Error::Local("what was under way has stopped".to_owned()));
            }
        }
    }

    fn board<F>(&self, key: K, start: impl FnOnce(Reporter<P, T>) -> F) -> Arc<Flight<P, T>>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&key).and_then(Weak::upgrade) {
            return flight;
        }
        flights.retain(|_, flight| flight.strong_count() > 0);
        let (sender, state) = watch::channel(State::Going(P::default()));
        let sender = Arc::new(sender);
        let work = start(Reporter(Arc::clone(&sender)));
        let task = tokio::spawn(async move {
            let result = work.await;
            sender.send_replace(State::Done(result));
        });
        let flight = Arc::new(Flight { state, task: task.abort_handle() });
        flights.insert(key, Arc::downgrade(&flight));
        flight
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::{Notify, oneshot};

    use super::*;

    #[tokio::test]
    async fn many_wait_for_one() {
        let flights: Arc<Flights<&str, u32, u32>> = Arc::new(Flights::new());
        let started = Arc::new(AtomicU32::new(0));
        let go = Arc::new(Notify::new());
        let join = || {
            let (flights, started, go) = (flights.clone(), started.clone(), go.clone());
            async move {
                let start = |reporter: Reporter<u32, u32>| async move {
                    started.fetch_add(1, Ordering::SeqCst);
                    reporter.say(50);
                    go.notified().await;
                    Ok(7)
                };
                let mut heard = Vec::new();
                let result = flights.join("a", start, |p| heard.push(p)).await;
                (result, heard)
            }
        };
        let (a, b, ()) = tokio::join!(join(), join(), async {
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            go.notify_one();
        });
        assert_eq!((a.0.unwrap(), b.0.unwrap()), (7, 7));
        assert_eq!(started.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn nobody_waiting_ends_it() {
        let flights: Flights<u8, (), ()> = Flights::new();
        let (alive, ended) = oneshot::channel::<()>();
        let start = |_| async move {
            let _alive = alive;
            std::future::pending().await
        };
        let waiting = flights.join(1, start, |()| {});
        let _ = tokio::time::timeout(std::time::Duration::from_millis(20), waiting).await;
        assert!(ended.await.is_err(), "the work was dropped");
    }
}
