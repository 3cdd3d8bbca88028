//! Directories below `/run/commonage`: they come with the first who needs one, and go with the last.

use std::fs;
use std::io::{
    self,
    ErrorKind::{AlreadyExists, NotFound},
};
use std::path::Path;

/// The directory that they all lie in, by its last name.
const HOME: &str = "commonage";
/// Somebody may remove the empty directory between its making and its use; never so often in a row.
const TRIES: usize = 100;

/// Makes a directory and something in it.
///
/// # Errors
/// The file system's.
pub fn make_in<T>(directory: &Path, mut make: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..TRIES {
        match fs::create_dir_all(directory) {
            // Its parent went; or it was there, and was gone when it was looked at.
            Err(error) if matches!(error.kind(), NotFound | AlreadyExists) => continue,
            Err(error) => return Err(error),
            Ok(()) => {}
        }
        match make() {
            Err(error) if error.kind() == NotFound => {}
            made => return made,
        }
    }
    fs::create_dir_all(directory).and_then(|()| make())
}

/// Removes a directory and the one around it, as far as nobody has anything in them.
pub fn sweep(directory: &Path) {
    let _ = fs::remove_dir(directory);
    if let Some(home) = directory.parent().filter(|home| home.ends_with(HOME)) {
        let _ = fs::remove_dir(home);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::thread;

    use super::*;

    #[test]
    fn whoever_sweeps_is_in_nobodys_way() {
        let top = tempfile::tempdir().unwrap();
        let (one, other) = (top.path().join("commonage/one"), top.path().join("commonage/other"));
        thread::scope(|scope| {
            for worker in 0..4 {
                let (one, other) = (&one, &other);
                scope.spawn(move || {
                    let directory = if worker % 2 == 0 { one } else { other };
                    for number in 0..200 {
                        let path = directory.join(format!("{worker}-{number}"));
                        make_in(directory, || fs::write(&path, "")).unwrap();
                        fs::remove_file(&path).unwrap();
                        sweep(directory);
                    }
                });
            }
        });
        sweep(&one);
        sweep(&other);
        assert!(!top.path().join("commonage").exists());
        assert!(top.path().exists());
    }
}
