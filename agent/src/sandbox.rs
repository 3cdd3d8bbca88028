//! What lies in the sandboxes of tasks, of ended ones as long as they are kept, served to the API server:
//! `GET /sandbox/{namespace}/{name}/{uid}?path=`.
//!
//! A sandbox is its task's, and may hold links to anywhere: the kernel resolves every path inside it and refuses
//! what leads out (`RESOLVE_BENEATH`).

use std::os::fd::OwnedFd;
use std::path::Path;

use axum::extract::{Path as Segments, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use commonage_schemas::sandbox::{EntryKind, SandboxEntry, SandboxListing};
use commonage_schemas::{GROUP, VERSION};
use commonage_shim::launch::SANDBOX_MOUNT;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::ledger::{Ledger, is_uid};
use crate::session::Refusal;

/// As many as a person scrolls through, and a megabyte or two of answer.
const ENTRIES_MAX: usize = 10_000;

pub(crate) fn router(ledger: Ledger) -> Router {
    Router::new().route("/sandbox/{namespace}/{name}/{uid}", get(answer)).with_state(ledger)
}

async fn answer(
    State(ledger): State<Ledger>,
    Segments((namespace, name, uid)): Segments<(String, String, String)>,
    uri: Uri,
) -> Response {
    if !is_uid(&uid) {
        return Refusal::bad_request("the uid is not one").into_response();
    }
    let query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let wanted = query.filter(|(name, _)| name == "path").map(|(_, path)| path.into_owned());
    let wanted = wanted.last().unwrap_or_default();
    let listing = tokio::task::spawn_blocking(move || {
        let entry = ledger.entry(&uid);
        if let (Some(_), Some(since)) = (&entry, ledger.collected(&uid)) {
            return Err(Refusal::collected(&name, &since));
        }
        if !entry.is_some_and(|entry| entry.namespace == namespace && entry.name == name) {
            return Err(Refusal::new(
                StatusCode::NOT_FOUND,
                format!(
                    "this agent has no sandbox of task {name:?}: it has not started, or was removed"
                ),
            ));
        }
        list(&ledger.sandbox(&uid), &wanted)
    });
    match listing.await {
        Ok(Ok(listing)) => Json(listing).into_response(),
        Ok(Err(refusal)) => refusal.into_response(),
        Err(_) => Refusal::internal("a bug").into_response(),
    }
}

/// What is at a path of a sandbox. Both `results/a` and `/sandbox/results/a` are read. Blocks.
fn list(sandbox: &Path, wanted: &str) -> Result<SandboxListing, Refusal> {
    let inside =
        wanted.strip_prefix(SANDBOX_MOUNT).filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let path = inside.unwrap_or(wanted).trim_matches('/');
    let refuse = |errno: Errno| refused(wanted, errno);
    let top = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::openat(CWD, sandbox, top, Mode::empty()).map_err(refuse)?;
    let found = open(&top, path, OFlags::PATH).map_err(refuse)?;
    let stat = rustix::fs::fstat(&found).map_err(refuse)?;
    let mut listing = SandboxListing {
        api_version: format!("{GROUP}/{VERSION}"),
        kind: "SandboxListing".to_owned(),
        path: path.to_owned(),
        ..SandboxListing::default()
    };
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        let directory = open(&top, path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(refuse)?;
        list_directory(&directory, &mut listing).map_err(refuse)?;
    } else {
        let name = path.rsplit('/').next().unwrap_or(path);
        listing.entries.push(entry(name.to_owned(), &stat, None));
    }
    Ok(listing)
}

fn open(top: &OwnedFd, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { "." } else { path };
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(top, path, flags | OFlags::CLOEXEC, Mode::empty(), beneath)
}

fn list_directory(directory: &OwnedFd, listing: &mut SandboxListing) -> Result<(), Errno> {
    for found in Dir::read_from(directory)? {
        let found = found?;
        let name = found.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if listing.entries.len() == ENTRIES_MAX {
            listing.truncated = true;
            break;
        }
        let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // Gone since it was listed.
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(errno),
        };
        let target = rustix::fs::readlinkat(directory, name, Vec::new()).ok();
        let target = target.map(|target| target.to_string_lossy().into_owned());
        listing.entries.push(entry(name.to_string_lossy().into_owned(), &stat, target));
    }
    listing.entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(())
}

fn entry(name: String, stat: &Stat, target: Option<String>) -> SandboxEntry {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Link,
        _ => EntryKind::Other,
    };
    SandboxEntry {
        name,
        kind,
        size_bytes: u64::try_from(stat.st_size).unwrap_or_default(),
        mode: format!("{:04o}", stat.st_mode & 0o7777),
        user: stat.st_uid,
        group: stat.st_gid,
        modified_at: Time(Timestamp::from_second(stat.st_mtime).unwrap_or_default()),
        target,
    }
}

fn refused(path: &str, errno: Errno) -> Refusal {
    let no = |status, what: &str| Refusal::new(status, format!("{path:?}: {what}"));
    match errno {
        Errno::NOENT | Errno::NOTDIR => {
            no(StatusCode::NOT_FOUND, "there is nothing of that name in the sandbox")
        }
        Errno::XDEV | Errno::LOOP => no(StatusCode::BAD_REQUEST, "leads out of the sandbox"),
        Errno::INVAL | Errno::NAMETOOLONG => no(StatusCode::BAD_REQUEST, "is no path"),
        other => no(StatusCode::INTERNAL_SERVER_ERROR, &other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn told(listing: &SandboxListing) -> Vec<String> {
        let line = |entry: &SandboxEntry| {
            let target = entry.target.as_ref().map_or(String::new(), |to| format!(" -> {to}"));
            format!("{} {:?} {} {}{target}", entry.name, entry.kind, entry.size_bytes, entry.mode)
        };
        listing.entries.iter().map(line).collect()
    }

    #[test]
    fn a_sandbox_is_listed_and_nothing_outside_of_it() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "x").unwrap();
        let sandbox = dir.path().join("sandbox");
        std::fs::create_dir_all(sandbox.join("out/deep")).unwrap();
        let mode = |path: &str, mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(sandbox.join(path), mode).unwrap();
        };
        std::fs::write(sandbox.join("out/a.txt"), "hello").unwrap();
        mode("out/a.txt", 0o640);
        mode("out/deep", 0o755);
        mode("out", 0o755);
        symlink("out", sandbox.join("inner")).unwrap();
        symlink("/etc", sandbox.join("etc")).unwrap();
        symlink("../secret", sandbox.join("up")).unwrap();
        let top = list(&sandbox, "").unwrap();
        let links: Vec<String> =
            told(&top).into_iter().filter(|line| line.contains("Link")).collect();
        assert_eq!(links.len(), 3);
        assert!(links[0].starts_with("etc Link 4 0777 -> /etc"), "{links:?}");
        for path in ["out", "/sandbox/out", "out/", "inner"] {
            let listing = list(&sandbox, path).unwrap();
            let lines = told(&listing);
            assert_eq!(lines[0], "a.txt File 5 0640", "{path}");
            assert!(lines[1].starts_with("deep Directory") && lines[1].ends_with("0755"));
        }
        assert_eq!(told(&list(&sandbox, "out/a.txt").unwrap()), ["a.txt File 5 0640"]);
        assert!(list(&sandbox, "out/deep").unwrap().entries.is_empty());
        for (path, words) in [
            ("etc", "leads out"),
            ("etc/passwd", "leads out"),
            ("up", "leads out"),
            ("..", "leads out"),
            ("out/../../secret", "leads out"),
            ("nothing", "nothing of that name"),
            ("out/a.txt/b", "nothing of that name"),
            ("a\0b", "no path"),
        ] {
            let refusal = format!("{:?}", list(&sandbox, path).unwrap_err());
            assert!(refusal.contains(words), "{path}: {refusal}");
        }
    }
}
