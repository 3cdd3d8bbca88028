//! What the engine does in a second: creates over each store, status patches, events to many
//! watchers, lists.
//!
//! Prints one line per measurement; nothing is judged here.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use commonage_apiserver::auth::UserInfo;
use commonage_apiserver::builtin;
use commonage_apiserver::engine::{Engine, ListOptions, PatchKind, WatchOptions, WriteOptions};
use commonage_apiserver::resource::ResourceDef;
use commonage_store::Store;
use commonage_store::embedded::{EmbeddedOptions, EmbeddedStore};
use commonage_store::memory::MemoryStore;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const CREATES: u64 = 50_000;
const STATUS_PATCHES: u64 = 20_000;

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    // Cargo passes flags of the standard harness.
    let dir = tempfile::tempdir()?;
    for clients in [32, 256] {
        creates("memory", Arc::new(MemoryStore::new()), clients, 0).await?;
        let path = dir.path().join(format!("c{clients}"));
        creates(
            "embedded",
            Arc::new(EmbeddedStore::open(path, EmbeddedOptions::default())?),
            clients,
            0,
        )
        .await?;
    }
    let path = dir.path().join("watched");
    creates("embedded", Arc::new(EmbeddedStore::open(path, EmbeddedOptions::default())?), 32, 100)
        .await?;
    Ok(())
}

/// Creates tasks from so many clients, seen by so many watchers.
async fn creates(
    name: &str,
    store: Arc<dyn Store>,
    clients: u64,
    watchers: u64,
) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    let engine = Engine::start(store, Arc::new(builtin::scheme()?), shutdown.clone()).await?;
    let def =
        engine.scheme().by_kind("commonage.dev", "Task").cloned().expect("tasks are compiled in");
    let seen = Arc::new(AtomicU64::new(0));
    let mut watching = Vec::new();
    for _ in 0..watchers {
        let watch = engine.watch(&def, None, watch_options()).await.map_err(anyhow::Error::from)?;
        watching.push(tokio::spawn(count(watch, seen.clone())));
    }
    let start = Instant::now();
    let mut writers = Vec::new();
    for client in 0..clients {
        writers.push(tokio::spawn(write(engine.clone(), def.clone(), client, CREATES / clients)));
    }
    let mut latencies = Vec::new();
    for writer in writers {
        latencies.extend(writer.await??);
    }
    let seconds = start.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |part: f64| latencies[(latencies.len() as f64 * part) as usize].as_micros();
    let made = latencies.len() as u64;
    println!(
        "{name}: {clients} clients: {:.0} creates/s, p50 {} us, p99 {} us",
        made as f64 / seconds,
        at(0.5),
        at(0.99)
    );
    if watchers > 0 {
        while seen.load(Ordering::Relaxed) < made * watchers {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let seconds = start.elapsed().as_secs_f64();
        println!("  {watchers} watchers: {:.0} events/s", (made * watchers) as f64 / seconds);
    }
    let start = Instant::now();
    let list = engine
        .list(&def, Some("default"), ListOptions::default())
        .await
        .map_err(anyhow::Error::from)?;
    println!("  list of {}: {:?}", list.items.len(), start.elapsed());
    status_patches(&engine, clients).await?;
    shutdown.cancel();
    for watch in watching {
        watch.await?;
    }
    engine.stopped().await;
    Ok(())
}

async fn write(
    engine: Arc<Engine>,
    def: Arc<ResourceDef>,
    client: u64,
    count: u64,
) -> anyhow::Result<Vec<Duration>> {
    let options = WriteOptions { user: Arc::new(UserInfo::admin()), ..WriteOptions::default() };
    let mut latencies = Vec::with_capacity(count as usize);
    for number in 0..count {
        let body = serde_json::to_vec(&task(client, number))?;
        let start = Instant::now();
        let body: Value = serde_json::from_slice(&body)?;
        engine.create(&def, "default", body, options.clone()).await?;
        latencies.push(start.elapsed());
    }
    Ok(latencies)
}

/// Each client patches the status of a task of its own, again and again, as an agent does.
async fn status_patches(engine: &Arc<Engine>, clients: u64) -> anyhow::Result<()> {
    let def =
        engine.scheme().by_kind("commonage.dev", "Agent").cloned().expect("agents are compiled in");
    let start = Instant::now();
    let mut patching = Vec::new();
    for client in 0..clients {
        let (engine, def) = (engine.clone(), def.clone());
        patching.push(tokio::spawn(async move {
            let options = WriteOptions {
                user: Arc::new(UserInfo::admin()),
                field_manager: Some("commonage-agent".into()),
                ..WriteOptions::default()
            };
            let name = format!("agent-{client}");
            let body = json!({
                "apiVersion": "commonage.dev/v1", "kind": "Agent", "metadata": {"name": name}, "spec": {},
            });
            engine.create(&def, "", body, options.clone()).await?;
            for number in 0..STATUS_PATCHES / clients {
                let body = status(number).to_string().into();
                let (kind, options) = (PatchKind::Merge, options.clone());
                engine.patch(&def, "", &name, Some("status"), kind, body, options).await?;
            }
            anyhow::Ok(())
        }));
    }
    for one in patching {
        one.await??;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("  {:.0} status patches/s", STATUS_PATCHES as f64 / seconds);
    Ok(())
}

/// What an agent says about itself from time to time.
fn status(number: u64) -> Value {
    json!({"status": {
        "capacity": {"cpu": "8", "memory": "32Gi"}, "allocatable": {"cpu": "7", "memory": "30Gi"},
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "Running",
            "message": format!("heart-beat {number}"), "lastTransitionTime": "2026-01-01T00:00:00Z",
        }],
    }})
}

async fn count(mut watch: commonage_apiserver::engine::Watch, seen: Arc<AtomicU64>) {
    while let Some(chunk) = watch.next().await {
        std::hint::black_box(chunk.bytes());
        seen.fetch_add(chunk.events().len() as u64, Ordering::Relaxed);
    }
}

fn watch_options() -> WatchOptions {
    WatchOptions {
        label_selector: None,
        field_selector: None,
        resource_version: None,
        version_match: None,
        bookmarks: false,
        send_initial_events: None,
        timeout: Duration::from_secs(600),
    }
}

fn task(client: u64, number: u64) -> Value {
    json!({
        "apiVersion": "commonage.dev/v1", "kind": "Task",
        "metadata": {"name": format!("bench-{client}-{number}"), "labels": {"app": "bench", "client": client.to_string()}},
        "spec": {
            "resources": {"cpu": "100m", "memory": "64Mi"},
            "container": {"command": ["sh", "-c", "sleep 1"], "env": [{"name": "A", "value": "1"}]},
        },
    })
}
