//! Which host ports a cluster on this machine gives to its tasks.
//!
//! Several clusters may run side by side, and none knows what the others have given away. So each
//! claims a block of ports for as long as it runs; the first gets the usual one. A data directory
//! remembers its block, because tasks that outlived a crash still listen there.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use commonage_schemas::resources::Ranges;
use commonage_shim::run_dir;
use nix::fcntl::{Flock, FlockArg};

use crate::errors::{Failure, Result};

const CLAIMS: &str = "/run/commonage/ports";
/// In the data directory: the first port of the block.
const MEMORY: &str = "ports";
/// The usual block is that of Mesos' agents, 31000 to 32000; further ones lie below it, down to
/// where services that people know have their ports, and all below Linux' ephemeral ones (32768).
const FIRSTS: [u16; 12] = [
    31_000, 30_000, 29_000, 28_000, 27_000, 26_000, 25_000, 24_000, 23_000, 22_000, 21_000, 20_000,
];

/// A block of ports that no other cluster on this machine has.
#[derive(Debug)]
pub(crate) struct Claim {
    first: u16,
    path: PathBuf,
    _lock: Flock<File>,
}

impl Claim {
    pub(crate) fn make(data_dir: &Path) -> Result<Self> {
        Self::make_in(Path::new(CLAIMS), data_dir)
    }

    fn make_in(claims: &Path, data_dir: &Path) -> Result<Self> {
        let failed = |error: std::io::Error| {
            Failure::new(format!("cannot claim ports in {}: {error}", claims.display()))
                .hint("say which ports are this cluster's: --resources ports=31000-31999")
        };
        let memory = data_dir.join(MEMORY);
        let remembered = fs::read_to_string(&memory).ok().and_then(|text| text.trim().parse().ok());
        let remembered = remembered.filter(|first| FIRSTS.contains(first));
        for first in remembered.into_iter().chain(FIRSTS) {
            if let Some(claim) = Self::of_block(claims, first).map_err(failed)? {
                fs::write(&memory, format!("{first}\n")).map_err(failed)?;
                return Ok(claim);
            }
        }
        Err(Failure::new("all blocks of ports of this machine belong to other clusters")
            .hint("say which ports are this cluster's: --resources ports=19000-19999"))
    }

    fn of_block(claims: &Path, first: u16) -> std::io::Result<Option<Self>> {
        let path = claims.join(first.to_string());
        loop {
            let open = || File::options().create(true).truncate(false).write(true).open(&path);
            let file = run_dir::make_in(claims, open)?;
            let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => lock,
                Err((_, nix::Error::EWOULDBLOCK)) => return Ok(None),
                Err((_, error)) => return Err(error.into()),
            };
            // Whoever had it before has removed the file just then: the lock is on nothing.
            let same = fs::metadata(&path).is_ok_and(|now| {
                lock.metadata()
                    .is_ok_and(|locked| (locked.dev(), locked.ino()) == (now.dev(), now.ino()))
            });
            if same {
                return Ok(Some(Self { first, path, _lock: lock }));
            }
        }
    }

    pub(crate) fn ports(&self) -> Ranges {
        // The usual block has one port more, as it always had.
        let last = if self.first == FIRSTS[0] { self.first + 1_000 } else { self.first + 999 };
        Ranges::from_pairs([(self.first, last)])
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        if let Some(claims) = self.path.parent() {
            run_dir::sweep(claims);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn clusters_get_blocks_of_their_own_and_the_same_again() {
        let directory = tempfile::tempdir().unwrap();
        let data = |name: &str| {
            let path = directory.path().join(name);
            fs::create_dir_all(&path).unwrap();
            path
        };
        let claims = directory.path().join("claims");
        let (a, b) = (data("a"), data("b"));
        let first = Claim::make_in(&claims, &a).unwrap();
        let second = Claim::make_in(&claims, &b).unwrap();
        assert_eq!(first.ports().to_string(), "31000-32000");
        assert_eq!(second.ports().to_string(), "30000-30999");
        drop((first, second));
        let again = Claim::make_in(&claims, &b).unwrap();
        assert_eq!(again.ports().to_string(), "30000-30999", "tasks may still listen there");
        drop(again);
        assert!(!claims.exists(), "the last one leaves nothing");
    }
}
