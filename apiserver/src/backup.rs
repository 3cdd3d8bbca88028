//! Backups of a store and stores filled from them, for `cmn backup` and `cmn restore`.
//!
//! What a backup is, and why what is restored has new revisions, is told in `commonage_store`. Here
//! is only which store, and which file.

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::Path;

use anyhow::Context;
use bytes::Bytes;
use commonage_store::backup::{self, Reader};
use futures::{Stream, StreamExt};

pub use commonage_store::backup::{About, BackupError};
pub use commonage_store::{Revision, StoreError};

use crate::server::{Storage, StoreKind, open_renumbered};
use crate::timed_store::{kind_of, resource};

/// Which store.
#[derive(Clone, Debug)]
pub struct Place<'p> {
    pub kind: &'p StoreKind,
    pub storage: &'p Storage,
    /// Of the server whose store it is.
    pub data_dir: &'p Path,
}

/// Writes a backup of a store to `file`. An embedded store is its server's alone: while that runs,
/// its error says that the store is open, and the backup is to be had from the server.
pub async fn of_store(place: Place<'_>, file: &Path) -> anyhow::Result<About> {
    let store = open_renumbered(place.kind, place.storage, place.data_dir).await?;
    of_parts(backup::stream(std::sync::Arc::new(store)), file).await
}

/// Writes the bytes of a backup to `file`, which is whole or not there: it gets its name when it has
/// been read once more and found good.
pub async fn of_parts<E>(
    parts: impl Stream<Item = Result<Bytes, E>>,
    file: &Path,
) -> anyhow::Result<About>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let mut unfinished = file.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let unfinished = Path::new(&unfinished);
    let outcome = write_parts(parts, unfinished).await;
    if outcome.is_err() {
        // There may be nothing to remove.
        let _ = std::fs::remove_file(unfinished);
    }
    let about = outcome?;
    std::fs::rename(unfinished, file)
        .with_context(|| format!("cannot name the backup {}", file.display()))?;
    Ok(about)
}

async fn write_parts<E>(
    parts: impl Stream<Item = Result<Bytes, E>>,
    path: &Path,
) -> anyhow::Result<About>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let cannot = || format!("cannot write {}", path.display());
    let mut file = private(path).with_context(cannot)?;
    let mut parts = std::pin::pin!(parts);
    while let Some(part) = parts.next().await {
        let part = part.context("the store ended in the middle")?;
        file.write_all(&part).with_context(cannot)?;
    }
    file.sync_all().with_context(cannot)?;
    verify(path).with_context(|| format!("{} is no good backup", path.display()))
}

/// All secrets are in it.
fn private(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Reads a backup to its end, to see that it is whole.
pub fn verify(file: &Path) -> Result<About, BackupError> {
    let file = File::open(file).map_err(BackupError::Unreadable)?;
    backup::verify(BufReader::new(file))
}

/// Fills an empty store from a backup that was verified; returns its newest revision.
pub async fn restore(file: &Path, place: Place<'_>) -> anyhow::Result<Revision> {
    let store = open_renumbered(place.kind, place.storage, place.data_dir).await?;
    let file = File::open(file).map_err(BackupError::Unreadable)?;
    let mut reader = Reader::new(BufReader::new(file))?;
    // Events tell what happened lately, and go as they do when they are written.
    let event_ttl = place.storage.event_ttl;
    let ttl_of = |key: &[u8]| {
        let resource = resource(kind_of(key));
        let is_event = matches!(resource.as_str(), "events" | "events.events.k8s.io");
        (is_event && !event_ttl.is_zero()).then_some(event_ttl)
    };
    Ok(backup::restore(&store, &mut reader, ttl_of).await?)
}
