//! What a task is given to read that no disk is to have: Secrets, ConfigMaps, its token.
//!
//! A file system in memory for each task that has any, made before its container and removed after it. It lies below
//! `/run`, where no task sees it and only root passes; the container has parts of it bound to where they are wanted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use crate::group::{absent, unmount};
use crate::run_dir;

/// Where they all are.
pub(crate) const PLACE: &str = "/run/commonage/memory";
/// Beside the content: names, and a token that is replaced.
const ROOM_BYTES: u64 = 1 << 20;

/// Where that of one task is or would be. `id`: letters, digits and `-`, unique on the machine.
#[must_use]
pub fn place(id: &str) -> PathBuf {
    Path::new(PLACE).join(id)
}

/// Makes it, empty, with room for so much.
///
/// # Errors
/// The kernel's. Nothing is left then.
pub fn make(id: &str, bytes: u64) -> io::Result<PathBuf> {
    remove(id)?;
    let place = place(id);
    run_dir::make_in(Path::new(PLACE), || fs::create_dir(&place))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let options = format!("mode=700,size={}", bytes.saturating_add(ROOM_BYTES));
    let none: Option<&str> = None;
    let made = mount(Some("commonage"), &place, Some("tmpfs"), flags, Some(options.as_str()))
        .and_then(|()| mount(none, &place, none, MsFlags::MS_PRIVATE, none));
    if let Err(errno) = made {
        remove(id)?;
        return Err(errno.into());
    }
    Ok(place)
}

/// Removes it with all that is in it. Safe to repeat.
///
/// # Errors
/// The kernel's.
pub fn remove(id: &str) -> io::Result<()> {
    let place = place(id);
    if !place.exists() {
        return Ok(());
    }
    unmount(&place)?;
    // Not recursive: what is still mounted there must not be emptied.
    absent(fs::remove_dir(place))?;
    run_dir::sweep(Path::new(PLACE));
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_is_in_memory_and_gone_without_a_trace() {
        let id = format!("test-{}", std::process::id());
        let place = make(&id, 4096).unwrap();
        let kind = nix::sys::statfs::statfs(&place).unwrap().filesystem_type();
        assert_eq!(kind, nix::sys::statfs::TMPFS_MAGIC);
        fs::write(place.join("key"), "x".repeat(4096)).unwrap();
        // Once more: what an agent finds that was killed over it.
        assert_eq!(fs::read_dir(make(&id, 4096).unwrap()).unwrap().count(), 0);
        remove(&id).unwrap();
        assert!(!place.exists());
        remove(&id).unwrap();
    }
}
