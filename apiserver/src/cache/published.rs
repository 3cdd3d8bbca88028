//! How far the cache is, and who waits until it is further.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Wake, Waker};

use commonage_store::Revision;
use futures::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The revision up to which everything can be read from the cache.
#[derive(Debug, Default)]
pub(super) struct Published {
    revision: AtomicU64,
    waiting: Mutex<Waiting>,
}

/// By the revision that they wait for.
#[derive(Debug, Default)]
struct Waiting {
    readers: BTreeMap<u64, Vec<oneshot::Sender<()>>>,
    /// Tasks whose writes have been answered.
    writers: BTreeMap<u64, Vec<Waker>>,
    /// Nobody will come to let go of writers.
    ended: bool,
}

impl Published {
    pub(super) fn revision(&self) -> Revision {
        Revision(self.revision.load(Ordering::Acquire))
    }

    pub(super) fn advance(&self, to: Revision) {
        self.revision.fetch_max(to.0, Ordering::AcqRel);
        let (readers, writers) = {
            let mut waiting = self.waiting.lock();
            (up_to(&mut waiting.readers, to), up_to(&mut waiting.writers, to))
        };
        for reader in readers.into_values().flatten() {
            // It may have given up.
            let _ = reader.send(());
        }
        writers.into_values().flatten().for_each(Waker::wake);
    }

    /// Returns once `revision` is published.
    pub(super) async fn reached(&self, revision: Revision) {
        if self.revision() >= revision {
            return;
        }
        let told = {
            let mut waiting = self.waiting.lock();
            // `advance` raises the revision before it takes the lock: either it is seen here, or
            // the waiter is seen there.
            if self.revision() >= revision {
                return;
            }
            let (tell, told) = oneshot::channel();
            waiting.readers.entry(revision.0).or_default().push(tell);
            told
        };
        // The sender is never dropped unsent while the cache lives.
        let _ = told.await;
    }

    /// Wakes the task once `revision` is published, or with [`Published::release`].
    fn wake_at(&self, revision: Revision, task: Waker) {
        if self.revision() < revision {
            let mut waiting = self.waiting.lock();
            if self.revision() < revision && !waiting.ended {
                waiting.writers.entry(revision.0).or_default().push(task);
                return;
            }
        }
        task.wake();
    }

    /// Wakes all tasks whose writes have been answered, however far the cache is: if it is slow they
    /// have to look at the clock.
    pub(super) fn release(&self) {
        let writers = std::mem::take(&mut self.waiting.lock().writers);
        writers.into_values().flatten().for_each(Waker::wake);
    }

    /// As [`Published::release`], and nobody is held back from here on.
    pub(super) fn end(&self) {
        self.waiting.lock().ended = true;
        self.release();
    }
}

fn up_to<T>(waiting: &mut BTreeMap<u64, Vec<T>>, to: Revision) -> BTreeMap<u64, Vec<T>> {
    let later = waiting.split_off(&(to.0 + 1));
    std::mem::replace(waiting, later)
}

/// What the store answers to a write, told when what it wrote can be read, or soon after: a task that
/// was woken before would only go on waiting, and each wake-up of one costs as much as a look-up.
/// `landed` is how far the store's log is known to be when it answers.
pub(super) async fn answered<T>(
    published: &Arc<Published>,
    landed: impl Fn() -> Revision + Send + Sync + 'static,
    answer: impl Future<Output = T>,
) -> T {
    let later = Arc::new(Later { published: published.clone(), landed, task: AtomicWaker::new() });
    let waker = Waker::from(later.clone());
    let mut answer = std::pin::pin!(answer);
    std::future::poll_fn(move |cx| {
        later.task.register(cx.waker());
        answer.as_mut().poll(&mut Context::from_waker(&waker))
    })
    .await
}

/// Wakes its task when the cache has come to where the log is now.
struct Later<L> {
    published: Arc<Published>,
    landed: L,
    task: AtomicWaker,
}

impl<L: Fn() -> Revision + Send + Sync + 'static> Wake for Later<L> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(task) = self.task.take() {
            self.published.wake_at((self.landed)(), task);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::pin::Pin;

    use futures::FutureExt;

    use super::*;

    /// A task that waits for the answer of a store whose log is at revision 5.
    struct Waits {
        published: Arc<Published>,
        woken: Arc<Woken>,
        answer: oneshot::Sender<u8>,
        task: Pin<Box<dyn Future<Output = u8>>>,
    }

    #[derive(Default)]
    struct Woken(AtomicU64);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Woken {
        fn times(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn waits() -> Waits {
        let (published, woken) = (Arc::new(Published::default()), Arc::new(Woken::default()));
        let (answer, told) = oneshot::channel();
        let of_task = published.clone();
        let mut task: Pin<Box<dyn Future<Output = u8>>> =
            Box::pin(async move { answered(&of_task, || Revision(5), told).await.unwrap() });
        let waker = Waker::from(woken.clone());
        assert!(task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        Waits { published, woken, answer, task }
    }

    #[test]
    fn an_answer_waits_for_the_cache() {
        let Waits { published, woken, answer, task } = waits();
        answer.send(7).unwrap();
        published.advance(Revision(4));
        assert_eq!(woken.times(), 0);
        published.advance(Revision(5));
        assert_eq!(woken.times(), 1);
        assert_eq!(task.now_or_never(), Some(7));
    }

    #[test]
    fn an_answer_does_not_wait_for_a_cache_that_is_there() {
        let Waits { published, woken, answer, task } = waits();
        published.advance(Revision(5));
        answer.send(7).unwrap();
        assert_eq!(woken.times(), 1);
        assert_eq!(task.now_or_never(), Some(7));
    }

    #[test]
    fn who_waits_for_a_slow_cache_is_let_go() {
        let Waits { published, woken, answer, task } = waits();
        answer.send(7).unwrap();
        assert_eq!(woken.times(), 0);
        published.release();
        assert_eq!(woken.times(), 1);
        assert_eq!(task.now_or_never(), Some(7));
        let Waits { published, woken, answer, task: _task } = waits();
        published.end();
        answer.send(7).unwrap();
        assert_eq!(woken.times(), 1);
    }
}
