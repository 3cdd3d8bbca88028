//! Reading and replacing the authority's files: whole or not at all, keys for the owner alone.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::PkiError;

const OWNER_ONLY: u32 = 0o600;
const EVERYBODY_READS: u32 = 0o644;

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> PkiError {
    let path = path.to_owned();
    move |source| PkiError::File { operation, path, source }
}

pub(super) fn make_dir(path: &Path) -> Result<(), PkiError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed("make the folder", path))
}

/// `None` when there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

pub(super) fn write_private(path: &Path, text: &str) -> Result<(), PkiError> {
    write(path, text, OWNER_ONLY)
}

pub(super) fn write_public(path: &Path, text: &str) -> Result<(), PkiError> {
    write(path, text, EVERYBODY_READS)
}

/// Temporary, fsync, rename, fsync of the folder: a reader sees the old text or the new one, and
/// a crash leaves one of them.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    let write = || {
        // A crashed predecessor with our process id may have left its own.
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(failed("write", path))
}
