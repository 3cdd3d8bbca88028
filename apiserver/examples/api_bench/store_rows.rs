//! The rows of the table that begin with a full store: memory, and the time of a restart.

use anyhow::Context;
use bytes::Bytes;
use commonage_store::{Compare, GuardedWrite, Op, Store};
use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};

use crate::client::Request;
use crate::kind::{self, SMALL_BYTES};
use crate::report::Figure;
use crate::rows::NAMESPACE;
use crate::target::{Kind, Target};

pub(crate) const NAMES: [&str; 2] = ["memory", "restart"];

/// The difference between these two leaves out what a server needs however little it holds.
const CACHED: [usize; 2] = [100_000, 300_000];
const CACHED_BYTES: usize = 1024;
const RESTARTED: usize = 1_000_000;
/// An object of 256 bytes, once the server has added what it adds.
const RESTARTED_BYTES: usize = 600;
/// Writes that wait for the store at once, so that it can put many into a group.
const WRITERS: usize = 1000;

pub(crate) async fn run(row: &str, kind: Kind) -> anyhow::Result<Figure> {
    match row {
        "memory" => memory(kind).await,
        "restart" => restart(kind).await,
        row => anyhow::bail!("there is no row {row}"),
    }
}

/// A server whose store has one object of `bytes`, as they are stored; it does not run.
async fn prepared(kind: Kind, bytes: usize) -> anyhow::Result<Target> {
    let mut target = Target::start(kind).await?;
    kind::define(target.server()).await?;
    kind::make_namespace(target.server(), NAMESPACE).await?;
    make_template(&target, bytes).await?;
    target.stop();
    Ok(target)
}

/// Starts the server on the objects up to number `count`, those before `begin` being there already;
/// how long that took, in seconds.
async fn serve_full(target: &mut Target, begin: usize, count: usize) -> anyhow::Result<f64> {
    fill(&*target.store().await?, begin, count).await?;
    let took = target.serve().await?;
    let path = format!("{}/{}", kind::collection(NAMESPACE), name(count - 1));
    let (status, _) = target.server().once(&Request::get(path)).await?;
    anyhow::ensure!(status == 200, "the last object: {status}");
    Ok(took.as_secs_f64())
}

fn name(number: usize) -> String {
    format!("full-{number:09}")
}

/// The object that all others are copies of, as the server stores it.
async fn make_template(target: &Target, bytes: usize) -> anyhow::Result<()> {
    let mut connection = target.server().connect().await?;
    let probe = kind::create(NAMESPACE, &kind::object("probe", "a-0", SMALL_BYTES));
    let answered = connection.send(&probe).await?.body.len();
    let sent = (SMALL_BYTES + bytes).saturating_sub(answered);
    let template = kind::create(NAMESPACE, &kind::object(&name(0), "a-0", sent));
    let status = connection.send(&template).await?.status;
    anyhow::ensure!(status == 201, "create: {status}");
    Ok(())
}

/// Puts copies of the object number 0 into the store, each by a write of its own.
async fn fill(store: &dyn Store, begin: usize, count: usize) -> anyhow::Result<()> {
    let key = format!("{}{NAMESPACE}/{}", kind::key_prefix(), name(0));
    let entry = store.get(key.as_bytes(), None).await?;
    let entry = entry.context("the object is not where it should be in the store")?;
    let value = String::from_utf8(entry.value.to_vec())?;
    let uid = value.split("\"uid\":\"").nth(1).and_then(|rest| rest.get(..36));
    let uid = uid.context("the object has no uid")?.to_owned();
    let mut writing = FuturesUnordered::new();
    for number in begin..count {
        let key = Bytes::from(key.replace(&name(0), &name(number)));
        let of_its_own = format!("{}{number:09}", &uid[..27]);
        let value = value.replace(&name(0), &name(number)).replace(&uid, &of_its_own).into();
        let compares = vec![Compare::Absent { key: key.clone() }];
        writing.push(store.commit(GuardedWrite { compares, ops: vec![Op::Put { key, value }] }));
        if writing.len() >= WRITERS {
            writing.next().await.transpose()?;
        }
    }
    writing.try_collect::<Vec<_>>().await?;
    Ok(())
}

async fn memory(kind: Kind) -> anyhow::Result<Figure> {
    let mut target = prepared(kind, CACHED_BYTES).await?;
    let [few, many] = CACHED;
    serve_full(&mut target, 1, few).await?;
    let before = target.resident_bytes();
    target.stop();
    serve_full(&mut target, few, many).await?;
    let each = (target.resident_bytes() - before) / (many - few) as f64;
    Ok(Figure::new("memory", &target, "memory for an object of 1 KB", (each / 1e3, "KB"))
        .beside("≤ 2", "~10")
        .and("resident MB with 100,000", before / 1e6))
}

async fn restart(kind: Kind) -> anyhow::Result<Figure> {
    let mut target = prepared(kind, RESTARTED_BYTES).await?;
    let seconds = serve_full(&mut target, 1, RESTARTED).await?;
    Ok(Figure::new("restart", &target, "restart with 1,000,000 objects", (seconds, "s"))
        .beside("≤ 15, ≤ 3 GB", "–")
        .and("processor s", target.cpu().server / 1e6)
        .and("resident GB", target.resident_bytes() / 1e9))
}
