//! Files that a task wants in its sandbox before it starts: by HTTP, or from the machine itself.
//!
//! They are put together in a directory of their own, which becomes the sandbox when the task is launched, and
//! vanishes with this value when it is not.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use commonage_image::{Digest, Error, Limits, digest_of, extract};
use commonage_schemas::Task;
use commonage_schemas::reasons::task as reasons;
use commonage_schemas::task::Fetch;
use kube::ResourceExt;

use super::{Outcome, Prepared, Workshop, again, failed};

/// A file larger than this wants a volume.
const FILE_MAX: u64 = 64 << 30;
/// What may lie in the cache; beyond it what was used longest ago goes.
const CACHE_MAX: u64 = 8 << 30;

/// A sandbox in the making.
#[derive(Clone, Debug)]
pub struct Fetched(Arc<Half>);

#[derive(Debug)]
struct Half(PathBuf);

impl Drop for Half {
    fn drop(&mut self) {
        // Moved away when the task was launched; else of no use.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Fetched {
    /// The directory, to be moved to where the sandbox shall be.
    pub fn path(&self) -> PathBuf {
        self.0.0.join("sandbox")
    }
}

/// Removes what an earlier agent left half done.
pub(crate) fn clean(directory: &Path) {
    let _ = fs::remove_dir_all(directory.join("tmp"));
}

impl Workshop {
    /// Everything that `spec.fetch` names.
    pub(super) async fn fetch(&self, task: &Task, prepared: &mut Prepared) -> Result<(), Outcome> {
        if task.spec.fetch.is_empty() {
            return Ok(());
        }
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let home = self.directory.join("tmp");
        let half = Half(home.join(format!("{}-{number}", task.uid().unwrap_or_default())));
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(half.0.join("sandbox")).map_err(|error| disk("spec.fetch", &error))?;
        for (place, fetch) in task.spec.fetch.iter().enumerate() {
            let field = format!("spec.fetch[{place}]");
            let name = name_of(&fetch.uri).ok_or_else(|| {
                failed(reasons::FETCH_FAILED, format!("{field}.uri: names no file"))
            })?;
            let file = self.get(fetch, &half.0.join(format!("file-{place}")), &field).await?;
            let (sandbox, fetch) = (half.0.join("sandbox"), fetch.clone());
            let put = tokio::task::spawn_blocking(move || put(&file, &sandbox, &name, &fetch));
            let put =
                put.await.map_err(|e| again(reasons::FETCH_FAILED, format!("{field}: {e}")))?;
            put.map_err(|error| told(&field, error))?;
        }
        prepared.fetched = Some(Fetched(Arc::new(half)));
        Ok(())
    }

    /// One file, out of the cache or by a new download, with the right checksum.
    async fn get(&self, fetch: &Fetch, to: &Path, field: &str) -> Result<PathBuf, Outcome> {
        let wanted = match &fetch.sha256 {
            Some(hex) => Some(checksum(hex).map_err(|what| {
                failed(reasons::FETCH_FAILED, format!("{field}.sha256: {what}"))
            })?),
            None => None,
        };
        let cache = self.directory.join("fetched");
        let key = Digest::of(format!("{}\n{wanted:?}", fetch.uri).as_bytes()).hex();
        let kept = cache.join(&key);
        if fetch.cache && kept.is_file() {
            let (path, good) = (kept.clone(), wanted);
            let digest = tokio::task::spawn_blocking(move || digest_of(&path));
            if let Ok(Ok(digest)) = digest.await
                && good.is_none_or(|good| good == digest)
            {
                let _ = fs::File::options()
                    .append(true)
                    .open(&kept)
                    .and_then(|file| file.set_modified(std::time::SystemTime::now()));
                return Ok(kept);
            }
        }
        let digest = match fetch.uri.strip_prefix("file://") {
            Some(path) => {
                let (path, to) = (PathBuf::from(path), to.to_owned());
                let copied = tokio::task::spawn_blocking(move || copy_public(&path, &to));
                let copied =
                    copied.await.map_err(|e| again(reasons::FETCH_FAILED, e.to_string()))?;
                copied.map_err(|error| told(&format!("{field}.uri"), error))?
            }
            None => self
                .images
                .download(&fetch.uri, to, FILE_MAX)
                .await
                .map_err(|error| told(&format!("{field}.uri"), error))?,
        };
        if let Some(wanted) = wanted.filter(|wanted| *wanted != digest) {
            let what = format!("{field}.sha256: {} has {digest} instead of {wanted}", fetch.uri);
            return Err(failed(reasons::FETCH_FAILED, what));
        }
        if !fetch.cache {
            return Ok(to.to_owned());
        }
        let put = fs::create_dir_all(&cache).and_then(|()| fs::rename(to, &kept));
        put.map_err(|error| disk(field, &error))?;
        shrink(&cache, &kept);
        Ok(kept)
    }
}

/// The last part of a path, without query.
fn name_of(uri: &str) -> Option<String> {
    let path = uri.split(['?', '#']).next()?;
    let (_, rest) = path.split_once("://")?;
    let (_, name) = rest.rsplit_once('/')?;
    (!matches!(name, "" | "." | "..") && !name.contains('\0')).then(|| name.to_owned())
}

fn checksum(hex: &str) -> Result<Digest, String> {
    let hex = hex.trim().to_ascii_lowercase();
    format!("sha256:{}", hex.trim_start_matches("sha256:")).parse()
}

/// Into the sandbox: as it is, or what is in it.
fn put(file: &Path, sandbox: &Path, name: &str, fetch: &Fetch) -> Result<(), Error> {
    let to_error = |error: io::Error| match error.kind() {
        io::ErrorKind::StorageFull => Error::DiskFull(format!("{name}: {error}")),
        _ => Error::Local(format!("{name}: {error}")),
    };
    if fetch.extract {
        return extract(file, sandbox, &Limits::default());
    }
    let to = sandbox.join(name);
    fs::copy(file, &to).map_err(to_error)?;
    let mode = if fetch.executable { 0o755 } else { 0o644 };
    fs::set_permissions(&to, fs::Permissions::from_mode(mode)).map_err(to_error)
}

/// A file of the machine that every user of it may read: the agent reads as root, and a task is not to see what
/// its own eyes could not.
fn copy_public(path: &Path, to: &Path) -> Result<Digest, Error> {
    let refuse = |why: &str| Err(Error::Forbidden(format!("{}: {why}", path.display())));
    let open = fs::File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path);
    let mut file = match open {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::NotFound(format!("{}: {error}", path.display())));
        }
        Err(error) => return refuse(&error.to_string()),
    };
    // What was opened, by whatever links.
    use std::os::fd::AsRawFd;
    let real = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let (Ok(real), Ok(meta)) = (real, file.metadata()) else { return refuse("can't be looked at") };
    let open_to_all = real
        .ancestors()
        .skip(1)
        .all(|directory| fs::metadata(directory).is_ok_and(|meta| meta.mode() & 0o001 != 0));
    if !meta.is_file() || meta.mode() & 0o004 == 0 || !open_to_all {
        return refuse("is no file that every user of the machine may read");
    }
    let mut copy = fs::File::create(to).map_err(|e| Error::Local(e.to_string()))?;
    io::copy(&mut file, &mut copy).map_err(|error| match error.kind() {
        io::ErrorKind::StorageFull => Error::DiskFull(error.to_string()),
        _ => Error::Local(error.to_string()),
    })?;
    digest_of(to)
}

/// Keeps the cache within its bound; `newest` stays in any case.
fn shrink(cache: &Path, newest: &Path) {
    let entries = fs::read_dir(cache).into_iter().flatten().flatten();
    let mut all: Vec<_> = entries
        .filter_map(|entry| {
            let meta = entry.metadata().ok()?;
            Some((meta.modified().ok()?, meta.len(), entry.path()))
        })
        .collect();
    all.sort();
    let mut total: u64 = all.iter().map(|(_, length, _)| length).sum();
    for (_, length, path) in all.iter().filter(|(_, _, path)| path != newest) {
        if total <= CACHE_MAX {
            return;
        }
        // In use it may be: then its name goes, not its content.
        let _ = fs::remove_file(path);
        total = total.saturating_sub(*length);
    }
}

fn disk(field: &str, error: &io::Error) -> Outcome {
    match error.kind() {
        io::ErrorKind::StorageFull => failed(reasons::DISK_FULL, format!("{field}: {error}")),
        _ => again(reasons::FETCH_FAILED, format!("{field}: {error}")),
    }
}

fn told(field: &str, error: Error) -> Outcome {
    let message = format!("{field}: {error}");
    match error {
        Error::DiskFull(_) => failed(reasons::DISK_FULL, message),
        error if error.is_transient() => again(reasons::FETCH_FAILED, message),
        _ => failed(reasons::FETCH_FAILED, message),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn files_are_named_as_their_address_ends() {
        assert_eq!(name_of("https://x/a/b.tar.gz?sig=1#f").as_deref(), Some("b.tar.gz"));
        for none in ["https://x", "https://x/", "https://x/..", "b", "file:///a/."] {
            assert_eq!(name_of(none), None, "{none}");
        }
        assert!(checksum(&"AB".repeat(32)).is_ok() && checksum("12").is_err());
    }

    #[test]
    fn only_what_everybody_may_read_comes_from_the_machine() {
        let dir = tempfile::tempdir().unwrap();
        let (file, to) = (dir.path().join("f"), dir.path().join("copy"));
        fs::write(&file, "x").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let closed = copy_public(&file, &to).unwrap_err();
        assert!(matches!(closed, Error::Forbidden(_)), "its directory is closed: {closed}");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(copy_public(&file, &to).unwrap(), Digest::of(b"x"));
        std::os::unix::fs::symlink("/etc/shadow", dir.path().join("l")).unwrap();
        for secret in
            [dir.path().join("l"), "/etc/shadow".into(), "/dev/zero".into(), "/etc".into()]
        {
            assert!(copy_public(&secret, &to).is_err(), "{}", secret.display());
        }
        assert!(matches!(copy_public(&dir.path().join("no"), &to), Err(Error::NotFound(_))));
    }
}
