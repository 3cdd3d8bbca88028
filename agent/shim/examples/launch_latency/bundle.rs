//! The root file system that all runtimes get: this program and what it is linked with.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) struct Bundle {
    directory: tempfile::TempDir,
}

impl Bundle {
    pub(crate) fn make() -> io::Result<Bundle> {
        let directory =
            tempfile::Builder::new().prefix("launch-latency-").tempdir_in("/var/tmp")?;
        let bundle = Bundle { directory };
        let program = std::env::current_exe()?;
        let listed = Command::new("ldd").arg(&program).output()?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let libraries = listed.split_whitespace().filter(|word| word.starts_with('/'));
        let copies = libraries.map(|at| (Path::new(at), &at[1..]));
        for (from, to) in copies.chain([(program.as_path(), "payload")]) {
            let to = bundle.rootfs().join(to);
            fs::create_dir_all(to.parent().unwrap_or(Path::new("/")))?;
            fs::copy(from, to)?;
        }
        for place in ["dev", "proc", "sys", "tmp", "sandbox", "etc"] {
            fs::create_dir_all(bundle.rootfs().join(place))?;
        }
        Ok(bundle)
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.directory.path().join("rootfs")
    }

    /// A directory of this name, empty.
    pub(crate) fn place(&self, name: &str) -> io::Result<PathBuf> {
        let place = self.directory.path().join(name);
        fs::create_dir_all(&place)?;
        Ok(place)
    }
}
