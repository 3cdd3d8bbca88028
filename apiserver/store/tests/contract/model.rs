//! The engines against the model: whatever is done to both, both answer the same.
//!
//! Revisions may differ by name (etcd begins at 1), so the test keeps a dictionary of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use commonage_store::embedded::{EmbeddedOptions, EmbeddedStore};
use commonage_store::etcd::{EtcdOptions, EtcdStore};
use commonage_store::memory::MemoryStore;
use commonage_store::{
    Batch, Committed, Compare, GuardedWrite, Op, RangeQuery, Revision, Store, StoreError, Version,
};
use futures::future::BoxFuture;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::etcd_process::EtcdProcess;
use crate::words::*;

#[derive(Clone, Debug)]
enum Guard {
    Absent,
    Present,
    /// At the version of the n-th change so far, counted from the newest.
    At(usize),
}

#[derive(Clone, Debug)]
enum Step {
    Write {
        guards: Vec<(u8, Guard)>,
        ops: Vec<(u8, Option<u8>)>,
    },
    /// Forget all but the last n revisions.
    Compact(usize),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..6_u8;
    let guard = prop_oneof![
        2 => Just(Guard::Absent),
        2 => Just(Guard::Present),
        3 => (0..6_usize).prop_map(Guard::At),
    ];
    let guards = vec((key.clone(), guard), 0..3);
    let ops = vec((key, option::weighted(0.7, any::<u8>())), 0..5);
    prop_oneof![
        20 => (guards, ops).prop_map(|(guards, ops)| Step::Write { guards, ops }),
        1 => (0..10_usize).prop_map(Step::Compact),
        1 => Just(Step::Reopen),
    ]
}

fn key(number: u8) -> Bytes {
    bytes(format!("/key/{number}"))
}

type Opener = dyn Fn() -> BoxFuture<'static, Arc<dyn Store>>;

/// A change that both have made, by both names.
struct Twin {
    key: Bytes,
    model: Version,
    engine: Version,
}

struct Comparison<'a> {
    model: MemoryStore,
    engine: Option<Arc<dyn Store>>,
    open: &'a Opener,
    changes: Vec<Twin>,
    /// Revisions at which both are the same, by the model's name.
    revisions: BTreeMap<Revision, Revision>,
    oldest: Revision,
}

impl Comparison<'_> {
    async fn run(open: &Opener, steps: Vec<Step>) {
        let engine = open().await;
        let start = engine.revision().await.unwrap();
        let mut comparison = Comparison {
            model: MemoryStore::new(),
            engine: Some(engine),
            open,
            changes: Vec::new(),
            revisions: BTreeMap::from([(Revision(0), start)]),
            oldest: Revision(0),
        };
        for step in steps {
            comparison.step(step).await;
        }
        comparison.compare_everything().await;
    }

    fn engine(&self) -> &dyn Store {
        &**self.engine.as_ref().unwrap()
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Write { guards, ops } => self.write(guards, ops).await,
            Step::Compact(kept) => {
                let (&model, &engine) =
                    self.revisions.iter().nth_back(kept).unwrap_or((&Revision(0), &Revision(0)));
                if model.0 > 0 {
                    self.model.compact(model).await.unwrap();
                    self.engine().compact(engine).await.unwrap();
                    self.oldest = self.oldest.max(model);
                }
            }
            Step::Reopen => {
                self.engine = None;
                self.engine = Some((self.open)().await);
            }
        }
    }

    /// The same write in the words of each.
    fn speak(
        &self,
        guards: &[(u8, Guard)],
        ops: &[(u8, Option<u8>)],
        name: impl Fn(&Twin) -> Version,
    ) -> GuardedWrite {
        let compares = guards.iter().map(|(number, guard)| {
            let key = key(*number);
            match guard {
                Guard::Absent => Compare::Absent { key },
                Guard::Present => Compare::Present { key },
                Guard::At(back) => {
                    let own = self.changes.iter().rev().filter(|change| change.key == key);
                    let version = own.skip(back / 2).map(&name).next().unwrap_or(Version(0));
                    Compare::At { key, version }
                }
            }
        });
        let ops = ops.iter().map(|(number, value)| {
            let key = key(*number);
            match value {
                Some(value) => Op::Put { key, value: bytes(value.to_string()) },
                None => Op::Delete { key },
            }
        });
        GuardedWrite { compares: compares.collect(), ops: ops.collect() }
    }

    async fn write(&mut self, guards: Vec<(u8, Guard)>, ops: Vec<(u8, Option<u8>)>) {
        let for_model = self.speak(&guards, &ops, |twin| twin.model);
        let for_engine = self.speak(&guards, &ops, |twin| twin.engine);
        let keys: Vec<_> = ops.iter().map(|(number, _)| key(*number)).collect();
        let model = self.model.commit(for_model).await;
        let engine = self.engine().commit(for_engine).await;
        match (model, engine) {
            (Ok(model), Ok(engine)) => self.both_landed(keys, model, engine),
            (
                Err(StoreError::Conflict { compare: model }),
                Err(StoreError::Conflict { compare: engine }),
            ) => assert_eq!(model, engine),
            (Err(StoreError::Refused(_)), Err(StoreError::Refused(_))) => {}
            (model, engine) => panic!("model: {model:?}, engine: {engine:?}"),
        }
    }

    fn both_landed(&mut self, keys: Vec<Bytes>, model: Committed, engine: Committed) {
        assert_eq!(model.versions.len(), engine.versions.len());
        match self.revisions.insert(model.revision, engine.revision) {
            Some(known) => assert_eq!(known, engine.revision, "a revision without a change"),
            None => assert!(self.revisions.values().is_sorted()),
        }
        let versions = model.versions.into_iter().zip(engine.versions);
        for (key, (model, engine)) in keys.into_iter().zip(versions) {
            let no_change = commonage_store::NO_CHANGE_INDEX;
            assert_eq!(model.index() == no_change, engine.index() == no_change);
            if model.index() != no_change {
                self.changes.push(Twin { key, model, engine });
            }
        }
    }

    async fn compare_everything(&self) {
        let names: BTreeMap<_, _> = self.changes.iter().map(|t| (t.model, t.engine)).collect();
        for (&model, &engine) in &self.revisions {
            let read = |at| RangeQuery { at: Some(at), ..all("/") };
            let expected = self.model.range(read(model)).await;
            let found = self.engine().range(read(engine)).await;
            match (expected, found) {
                (Ok(expected), Ok(found)) => {
                    let name = |v: &Version| names[v];
                    let expected: Vec<_> = expected
                        .entries
                        .iter()
                        .map(|e| (&e.key, &e.value, name(&e.version)))
                        .collect();
                    let found: Vec<_> =
                        found.entries.iter().map(|e| (&e.key, &e.value, e.version)).collect();
                    assert_eq!(found, expected, "at {model:?} of the model");
                }
                (Err(StoreError::Compacted { .. }), Err(StoreError::Compacted { .. })) => {}
                (expected, found) => panic!("model: {expected:?}, engine: {found:?}"),
            }
        }
        let (&newest, &newest_of_engine) = self.revisions.last_key_value().unwrap();
        let from = self.revisions.range(self.oldest..).next().unwrap();
        if *from.0 == newest {
            return;
        }
        let expected = batches_to(&mut self.model.tail(*from.0), newest).await;
        let found = batches_to(&mut self.engine().tail(*from.1), newest_of_engine).await;
        let expected: Vec<_> = expected.iter().map(|batch| renamed(batch, &names)).collect();
        let found: Vec<_> = found.iter().map(contents).collect();
        assert_eq!(found, expected);
    }
}

type Contents = Vec<(Bytes, Option<Bytes>, Version)>;

fn contents(batch: &Batch) -> Contents {
    batch.changes.iter().map(|c| (c.key.clone(), c.value.clone(), c.version)).collect()
}

fn renamed(batch: &Batch, names: &BTreeMap<Version, Version>) -> Contents {
    contents(batch).into_iter().map(|(key, value, v)| (key, value, names[&v])).collect()
}

/// Tries `cases` random histories; each gets a place of its own to open the engine at.
fn compare(cases: u32, place: impl Fn() -> (Box<Opener>, Option<tempfile::TempDir>)) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let outcome = TestRunner::new(config).run(&vec(step(), 1..60), |steps| {
        let (open, _dir) = place();
        runtime.block_on(Comparison::run(&*open, steps));
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn the_embedded_engine_does_as_the_model_does() {
    compare(60, || {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let open: Box<Opener> = Box::new(move || {
            let options = EmbeddedOptions { recent_bytes: 600, ..EmbeddedOptions::default() };
            let store = EmbeddedStore::open(&path, options).unwrap();
            Box::pin(async { Arc::new(store) as Arc<dyn Store> })
        });
        (open, Some(dir))
    });
}

#[test]
fn etcd_does_as_the_model_does() {
    // A process for each case: revisions are compacted for all prefixes at once.
    compare(12, || {
        let process = Arc::new(EtcdProcess::start());
        let open: Box<Opener> = Box::new(move || {
            let process = process.clone();
            Box::pin(async move {
                let options = EtcdOptions::new([process.endpoint()]);
                Arc::new(EtcdStore::connect(options).await.unwrap()) as Arc<dyn Store>
            })
        });
        (open, None)
    });
}
