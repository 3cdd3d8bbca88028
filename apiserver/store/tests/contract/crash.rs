//! What kill -9 must not take away: nothing that was acknowledged. (etcd's crash is in `etcd.rs`.)
//!
//! The test runs its own executable again as the process to be killed.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use commonage_store::embedded::{EmbeddedOptions, EmbeddedStore};
use commonage_store::{Revision, Store, StoreError, Version};

use crate::words::*;

const DIRECTORY: &str = "COMMONAGE_TEST_STORE_DIRECTORY";
const ROUND: &str = "COMMONAGE_TEST_STORE_ROUND";

/// The process that is killed: writes without end, and prints the version and key of each write
/// that was acknowledged. Not a test by itself.
#[test]
#[ignore = "run by acknowledged_writes_survive_kill_9"]
fn writer_process() {
    let Ok(dir) = std::env::var(DIRECTORY) else { return };
    let round = std::env::var(ROUND).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = EmbeddedStore::open(dir, EmbeddedOptions::default()).unwrap();
        let store = Arc::new(store);
        let writers = (0..16).map(|writer| {
            let (store, round) = (store.clone(), round.clone());
            tokio::spawn(async move {
                for number in 0_u64.. {
                    let key = format!("/{round}/{writer}/{number}");
                    let ops = [put(&key, "v".repeat(700)), put(format!("/hot/{writer}"), &key)];
                    let committed = store.commit(write([absent(&key)], ops)).await.unwrap();
                    let line = format!("acknowledged {} {key}\n", committed.versions[0].0);
                    std::io::stdout().write_all(line.as_bytes()).unwrap();
                    if number % 20 == 19 && writer == 0 {
                        store.compact(committed.revision).await.unwrap();
                    }
                }
            })
        });
        futures::future::join_all(writers).await;
    });
}

fn start_writer(dir: &Path, round: usize) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::writer_process", "--ignored", "--nocapture"])
        .env(DIRECTORY, dir)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What a whole line says; a line that was cut off says nothing.
fn acknowledged(line: &str) -> Option<(String, Version)> {
    let mut words = line.strip_suffix('\n')?.strip_prefix("acknowledged ")?.split(' ');
    let version = words.next()?.parse().ok()?;
    Some((words.next()?.to_owned(), Version(version)))
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut known: HashMap<String, Version> = HashMap::new();
    for round in 0..6 {
        let mut child = start_writer(dir.path(), round);
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let enough = known.len() + 200 + round * 150;
        let mut line = String::new();
        while known.len() < enough {
            line.clear();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "the writer ended by itself");
            known.extend(acknowledged(&line));
        }
        let second = EmbeddedStore::open(dir.path(), EmbeddedOptions::default());
        let Err(StoreError::Unavailable(why)) = second else { panic!("opened twice") };
        assert!(why.contains("another process"), "{why}");

        child.kill().unwrap();
        child.wait().unwrap();
        line.clear();
        while output.read_line(&mut line).unwrap() > 0 {
            known.extend(acknowledged(&line));
            line.clear();
        }
        check(dir.path(), &known).await;
    }
}

/// Opens the directory after the crash: all that is known is there, at its version, and the log
/// goes on behind it.
async fn check(dir: &Path, known: &HashMap<String, Version>) {
    let store = EmbeddedStore::open(dir, EmbeddedOptions::default()).unwrap();
    let newest = store.revision().await.unwrap();
    for (key, version) in known {
        let entry = store.get(key.as_bytes(), None).await.unwrap();
        let entry = entry.unwrap_or_else(|| panic!("{key} was acknowledged and is lost"));
        assert_eq!((entry.version, entry.value.len()), (*version, 700), "{key}");
        assert!(version.revision() <= newest);
    }
    // Both halves of each write, or none.
    for entry in store.range(all("/hot/")).await.unwrap().entries {
        let partner = store.get(&entry.value, None).await.unwrap().unwrap();
        assert_eq!(partner.version.revision(), entry.version.revision());
    }
    let next_revision = must(&store, [put("/after", "")]).await.revision;
    assert_eq!(next_revision, Revision(newest.0 + 1));
    let batch = next(&mut store.tail(newest)).await;
    assert_eq!(batch.revision, next_revision);
}
