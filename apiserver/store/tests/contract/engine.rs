//! The engines that the contract is run against.

use std::sync::Arc;

use commonage_store::embedded::{EmbeddedOptions, EmbeddedStore};
use commonage_store::etcd::{EtcdOptions, EtcdStore};
use commonage_store::memory::MemoryStore;
use commonage_store::renumbered::RenumberedStore;
use commonage_store::{Revision, Store};

use crate::etcd_process::EtcdProcess;

/// A fresh, empty store, and what must live as long as it does. Fields are dropped in order: first
/// the store, then what it stands on.
pub(crate) struct Engine {
    pub(crate) store: Arc<dyn Store>,
    _ground: Option<Box<dyn Send>>,
}

pub(crate) async fn memory() -> Engine {
    Engine { store: Arc::new(MemoryStore::new()), _ground: None }
}

pub(crate) async fn embedded() -> Engine {
    let dir = tempfile::tempdir().unwrap();
    // Hardly any memory for tails, so that they read the log too.
    let options = EmbeddedOptions { recent_bytes: 4_096, ..EmbeddedOptions::default() };
    let store = EmbeddedStore::open(dir.path(), options).unwrap();
    Engine { store: Arc::new(store), _ground: Some(Box::new(dir)) }
}

/// As a store is that was restored: the same contract, from a later revision on.
pub(crate) async fn renumbered() -> Engine {
    let store = RenumberedStore::open(Arc::new(MemoryStore::new())).await.unwrap();
    store.begin_after(Revision(1_000_000)).await.unwrap();
    Engine { store: Arc::new(store), _ground: None }
}

pub(crate) async fn etcd() -> Engine {
    let process = EtcdProcess::start();
    let options = EtcdOptions::new([process.endpoint()]);
    let store = EtcdStore::connect(options).await.unwrap();
    Engine { store: Arc::new(store), _ground: Some(Box::new(process)) }
}

/// Makes a test of each named function for every engine.
macro_rules! for_every_engine {
    ($($test:ident),* $(,)?) => {
        $crate::engine::for_every_engine!(@ memory $($test),*);
        $crate::engine::for_every_engine!(@ embedded $($test),*);
        $crate::engine::for_every_engine!(@ renumbered $($test),*);
        $crate::engine::for_every_engine!(@ etcd $($test),*);
    };
    (@ $engine:ident $($test:ident),*) => {
        mod $engine {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let engine = $crate::engine::$engine().await;
                    super::$test(engine.store.clone()).await;
                }
            )*
        }
    };
}
pub(crate) use for_every_engine;
