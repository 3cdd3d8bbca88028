//! What the API server does in a second, what that costs, and how it compares: `make bench`.
//!
//! `api_bench [ROW,…]` measures a server of ours (`$CMN`) over each of its stores, or, with
//! `BENCH_KUBECONFIG`, any other Kubernetes API server: it defines a kind of its own there and takes
//! it away afterwards. `BENCH_PIDS` names that server's processes, for their processor time. A row
//! is named by itself (`watch` is all that begin so), by its store, or by both (`etcd/create`).
//! `BENCH_JSON` names a file for the figures.

mod client;
mod kind;
mod load;
mod report;
mod rows;
mod store_rows;
mod target;
mod watch_rows;
mod watches;

use std::path::{Path, PathBuf};

use report::Figure;
use target::{Kind, Target};

/// As the server: what is measured is the server, not its client's memory allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Wanted(Vec<String>);

impl Wanted {
    fn is(&self, kind: Kind, row: &str) -> bool {
        let of_kind = format!("{}/", kind.name());
        let names = |word: &String| {
            let word = word.strip_prefix(&of_kind).unwrap_or(word);
            // `create` is that row alone; `watch` is none, and so all that begin like this.
            let begins = || row.starts_with(&format!("{word}-")) && !is_row(word);
            word == kind.name() || word == row || begins()
        };
        self.0.is_empty() || self.0.iter().any(names)
    }
}

fn is_row(word: &str) -> bool {
    let mut all = rows::NAMES.iter().chain(&watch_rows::NAMES).chain(&store_rows::NAMES);
    all.any(|row| *row == word)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .flat_map(|words| words.split(',').map(str::to_owned).collect::<Vec<_>>())
        .filter(|word| !word.is_empty())
        .collect();
    let wanted = Wanted(wanted);
    let mut figures = Vec::new();
    report::print_head();
    match std::env::var_os("BENCH_KUBECONFIG") {
        Some(kubeconfig) => foreign(Path::new(&kubeconfig), &wanted, &mut figures).await?,
        None => {
            for kind in [Kind::Embedded, Kind::Etcd] {
                ours(kind, &wanted, &mut figures).await?;
            }
        }
    }
    match std::env::var_os("BENCH_JSON") {
        Some(path) => report::write(&figures, &PathBuf::from(path)),
        None => Ok(()),
    }
}

/// A row that fails is said so, and the others go on.
fn take(figures: &mut Vec<Figure>, row: &str, kind: Kind, measured: anyhow::Result<Figure>) {
    match measured {
        Ok(figure) => {
            report::print(&figure);
            figures.push(figure);
        }
        Err(error) => println!("{row:<11} {:<8} failed: {error:#}", kind.name()),
    }
}

async fn ours(kind: Kind, wanted: &Wanted, figures: &mut Vec<Figure>) -> anyhow::Result<()> {
    let on_one = rows::NAMES.iter().chain(&watch_rows::NAMES);
    let on_one: Vec<&str> = on_one.copied().filter(|row| wanted.is(kind, row)).collect();
    if !on_one.is_empty() {
        let target = Target::start(kind).await?;
        on_server(&target, &on_one, figures).await?;
    }
    for row in store_rows::NAMES.into_iter().filter(|row| wanted.is(kind, row)) {
        take(figures, row, kind, store_rows::run(row, kind).await);
    }
    Ok(())
}

async fn foreign(
    kubeconfig: &Path,
    wanted: &Wanted,
    figures: &mut Vec<Figure>,
) -> anyhow::Result<()> {
    let pids = std::env::var("BENCH_PIDS").unwrap_or_default();
    let pids = pids.split(',').filter_map(|pid| pid.parse().ok()).collect();
    let target = Target::foreign(kubeconfig, pids)?;
    let rows = rows::NAMES.iter().chain(&watch_rows::NAMES);
    let rows: Vec<&str> = rows.copied().filter(|row| wanted.is(Kind::Foreign, row)).collect();
    let measured = on_server(&target, &rows, figures).await;
    kind::clean_up(target.server(), &[rows::NAMESPACE, rows::LIST_NAMESPACE]).await?;
    measured
}

async fn on_server(
    target: &Target,
    wanted: &[&str],
    figures: &mut Vec<Figure>,
) -> anyhow::Result<()> {
    kind::define(target.server()).await?;
    for namespace in [rows::NAMESPACE, rows::LIST_NAMESPACE] {
        kind::make_namespace(target.server(), namespace).await?;
    }
    for row in wanted {
        let measured = match rows::NAMES.contains(row) {
            true => rows::run(row, target).await,
            false => watch_rows::run(row, target).await,
        };
        take(figures, row, target.kind, measured);
    }
    Ok(())
}
