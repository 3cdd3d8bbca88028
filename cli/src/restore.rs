//! `cmn restore`: an empty store, filled from a backup.
//!
//! What was written after the backup is gone, and everybody has to know: the restored store counts
//! its revisions from behind all that can have been given before, so that clients who remember any of
//! them are told to list again, and none is mistaken for another.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args as ClapArgs;
use commonage_apiserver::backup::{self, BackupError, Place};
use commonage_apiserver::server::StoreKind;

use crate::{
    backup::is_open_elsewhere,
    errors::{Failure, Result},
    kubeconfig::default_data_dir,
    output, role,
    server::StorageArgs,
};

#[derive(Debug, ClapArgs)]
#[command(after_help = "Stop the API servers first, and empty the store:
  mv DIR/store DIR/store.old;  cmn restore monday.backup --data-dir DIR
  etcdctl del --prefix /commonage/;  cmn restore monday.backup --store etcd://HOST:2379

Then start the API servers. Agents and their tasks may run on meanwhile.")]
pub(crate) struct Args {
    /// What `cmn backup` wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where the server is to keep everything; as for `cmn up`, if not given
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    storage: StorageArgs,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let Args { file, data_dir, storage } = args;
    // First of all: nothing is touched for a file that is no good.
    let about = backup::verify(&file).map_err(|error| no_good(&file, &error))?;
    let data_dir = data_dir.unwrap_or_else(default_data_dir);
    let (kind, storage) = (storage.kind(), storage.config());
    if kind == StoreKind::Embedded {
        role::make_data_dir(&data_dir)?;
    }
    let place = Place { kind: &kind, storage: &storage, data_dir: &data_dir };
    let newest =
        backup::restore(&file, place).await.map_err(|error| failed(&kind, &data_dir, &error))?;
    output::line(&format!(
        "{} keys as of revision {} are restored; revisions go on at {}",
        about.keys, about.revision.0, newest.0
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn no_good(file: &Path, error: &BackupError) -> Failure {
    let failure = Failure::new(format!("{} cannot be restored: {error}", file.display()));
    match error {
        BackupError::Format(_) => {
            failure.hint("use the version of cmn that wrote it, or a newer one")
        }
        BackupError::Truncated | BackupError::Damaged => {
            failure.hint("nothing was changed; take another backup")
        }
        _ => failure,
    }
}

fn failed(kind: &StoreKind, data_dir: &Path, error: &anyhow::Error) -> Failure {
    let store = match kind {
        StoreKind::Etcd(members) => format!("the store in etcd at {}", members.join(", ")),
        _ => format!("the store in {}", data_dir.join("store").display()),
    };
    if is_open_elsewhere(error) {
        let what = format!("{store} is open: a server runs on it");
        return Failure::new(what).hint("stop it, then restore");
    }
    match error.downcast_ref::<BackupError>() {
        Some(BackupError::NotEmpty) => {
            let failure = Failure::new(format!("{store} is not empty, and was left as it is"));
            match kind {
                StoreKind::Etcd(_) => {
                    failure.hint("with all API servers stopped: etcdctl del --prefix /commonage/")
                }
                _ => failure.hint(format!(
                    "with the server stopped: mv {0} {0}.old",
                    data_dir.join("store").display()
                )),
            }
        }
        _ => Failure::new(format!("{store} was not restored: {error:#}")),
    }
}
