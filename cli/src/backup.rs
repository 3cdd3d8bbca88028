//! `cmn backup`: everything that a store has, at one revision, in one file.
//!
//! etcd is read directly. An embedded store is its server's alone: while that runs, it is asked;
//! while it does not, the store is read.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args as ClapArgs;
use commonage_apiserver::backup::{self, About, Place};
use commonage_apiserver::server::StoreKind;
use futures::TryStreamExt;
use http::Request;
use kube::client::Body;

use crate::{
    args::Global,
    errors::{Failure, Result, exit},
    kubeconfig::{Cluster, default_data_dir},
    output,
    server::StorageArgs,
};

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cmn backup --data-dir DIR monday.backup                   of `cmn up --data-dir DIR`, running or not
  cmn backup --store etcd://HOST:2379 monday.backup         of a cluster over etcd

The file has all objects, secrets too, and may be restored into a store of the other kind.
DIR/pki, the cluster's certificate authority, is not in it: keep a copy of that, once.")]
pub(crate) struct Args {
    /// The backup, written whole or not at all
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where the server keeps everything; as for `cmn up`, if not given
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    storage: StorageArgs,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let Args { file, data_dir, storage } = args;
    let data_dir = data_dir.unwrap_or_else(default_data_dir);
    let (kind, storage) = (storage.kind(), storage.config());
    let store = data_dir.join("store");
    if kind == StoreKind::Embedded && !store.exists() {
        return Err(Failure::new(format!("there is no store in {}", data_dir.display()))
            .hint("name the server's directory with --data-dir DIR, or its etcd with --store"));
    }
    let place = Place { kind: &kind, storage: &storage, data_dir: &data_dir };
    let about = match backup::of_store(place, &file).await {
        Err(error) if kind == StoreKind::Embedded && is_open_elsewhere(&error) => {
            of_server(&data_dir, &file).await?
        }
        outcome => outcome.map_err(|error| failed(&file, &error))?,
    };
    output::line(&format!(
        "{}: {} keys at revision {}",
        file.display(),
        about.keys,
        about.revision.0
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn failed(file: &Path, error: &anyhow::Error) -> Failure {
    Failure::new(format!("no backup was written to {}: {error:#}", file.display()))
}

/// The one process that may read the store is the server.
pub(crate) fn is_open_elsewhere(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains("is open in another process")
}

/// From the server that runs on this directory, as its administrator.
async fn of_server(data_dir: &Path, file: &Path) -> Result<About> {
    let kubeconfig = Some(data_dir.join("kubeconfig"));
    let global = Global { kubeconfig, ..Global::default() };
    let cluster = Cluster::connect(&global).await?;
    let tried = format!("cannot get a backup from the server at {}", cluster.url);
    let request = Request::get("/backup").body(Body::empty()).expect("the path is a good one");
    let answer =
        cluster.client.send(request).await.map_err(|error| Failure::api(&tried, &error))?;
    if !answer.status().is_success() {
        return Err(
            Failure::new(format!("{tried}: it answers {}", answer.status())).exit(exit::REFUSED)
        );
    }
    let parts = http_body_util::BodyExt::into_data_stream(answer.into_body());
    backup::of_parts(parts.map_err(|error| std::io::Error::other(error.to_string())), file)
        .await
        .map_err(|error| failed(file, &error))
}
