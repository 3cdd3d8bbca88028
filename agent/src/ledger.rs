//! The ledger: what this agent has undertaken, one directory per task, written before it is done.
//!
//! ```text
//! <data_dir>/agent/tasks/<uid>/entry.json   ours: whose task, on which boot, told to end and why
//!                             /task.json    the order to the shim          (see commonage-shim)
//!                             /exit.json    how it ended, left by the shim
//!                             /sandbox/     the task's writable directory
//! ```
//!
//! A directory without `task.json` never had a container, and one without `entry.json` has none that counts: that is
//! written last, before the shim is asked for. Everything here blocks on the disk, so
//! the driver calls it from blocking threads only.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

use commonage_failpoint::reach;
use commonage_shim::launch::IdRange;
use commonage_shim::{StateDir, read_sealed, sealed};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::disk::DiskLimit;

/// A task's uid: the name of its container, its ledger entry and its control group.
pub type Uid = String;

const ENTRY_FILE: &str = "entry.json";
/// The same once more, for when a disk has damaged the first.
const COPY_FILE: &str = "entry.copy";
/// Marks an end that no shim has recorded.
const ENDED_FILE: &str = "ended";
/// Says since when and why what the task left is gone.
const COLLECTED_FILE: &str = "collected";

/// What the agent has undertaken for one task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    pub uid: Uid,
    pub namespace: String,
    pub name: String,
    /// The start of the machine on which the container was made: on another one it cannot live.
    pub boot_id: String,
    /// That and why the task was told to end; kept so that a restarted agent neither grants the
    /// grace period twice nor forgets the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill: Option<KillOrder>,
    /// Digest of the image that it runs: what must not be collected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The signal by which that image wants to be ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<i32>,
    /// The GPUs that it was given, by UUID: nobody else's until it has ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<String>,
    /// Its users' numbers on the machine, if they are others than the machine's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<IdRange>,
    /// What it may take of the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskLimit>,
    /// Whom it shares its fate with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Membership>,
}

/// A task's place in its group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Membership {
    /// Which group: see [`crate::company::key`].
    pub key: String,
    /// Names may be used again when a group has ended: the uid of the first task that was launched in this one.
    pub round: Uid,
    /// Who was launched together with this task, itself included.
    pub members: Vec<Uid>,
}

/// The decision to end a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KillOrder {
    pub cause: KillCause,
    pub ordered_at: Timestamp,
    /// The first signal, by number.
    pub signal: i32,
    /// Time between that and `SIGKILL`.
    pub grace_seconds: i64,
}

/// Why a task was told to end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum KillCause {
    /// Its Task is being deleted.
    Deleted,
    /// Its Task does not exist any more, or the control plane has already closed it.
    Abandoned,
    /// Somebody asked for it (`spec.kill`); for programs and in words.
    Ordered { reason: String, message: String },
    /// Its health check failed; in words.
    HealthCheckFailed(String),
    /// It ran for longer than `maxCompletionSeconds`.
    MaxCompletionTime,
    /// It has reached its limit of disk; in words.
    DiskLimit(String),
    /// Another task of its group failed or was told to end; in words.
    GroupEnded(String),
    /// The agent stops everything.
    AgentShutdown,
}

/// The ledger could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("{operation} {path}")]
    Io { operation: &'static str, path: PathBuf, source: std::io::Error },
    #[error("parse {path}")]
    Parse { path: PathBuf, source: serde_json::Error },
}

/// The directory of all entries.
#[derive(Clone, Debug)]
pub struct Ledger {
    tasks: PathBuf,
}

impl Ledger {
    /// Opens the ledger below a data directory, and makes it when absent.
    pub fn open(data_dir: &Path) -> Result<Ledger, LedgerError> {
        let tasks = data_dir.join("agent").join("tasks");
        private_dir(&tasks)?;
        // The shims and the control groups need a path that stays right whoever looks at it.
        let tasks = fs::canonicalize(&tasks).map_err(io("resolve", &tasks))?;
        Ok(Ledger { tasks })
    }

    /// The state directory of a task; the caller has checked that `uid` is one.
    pub fn state_dir(&self, uid: &str) -> StateDir {
        StateDir::new(self.tasks.join(uid))
    }

    /// Where the tasks' directories are.
    pub fn directory(&self) -> PathBuf {
        self.tasks.clone()
    }

    /// Makes a directory in that of a task, unless it is there. Only root passes the task's own; inside the
    /// container it may be everybody's.
    pub fn make_dir(&self, directory: &Path) -> Result<(), LedgerError> {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(directory);
        made.map_err(io("create", directory))
    }

    /// Where it is remembered what groups of tasks share.
    pub fn groups(&self) -> PathBuf {
        self.tasks.with_file_name("groups")
    }

    /// The task's writable directory.
    pub fn sandbox(&self, uid: &str) -> PathBuf {
        self.tasks.join(uid).join("sandbox")
    }

    /// Every task that has an entry. What lies in a directory without a readable one: see
    /// [`Ledger::leftovers`].
    pub fn entries(&self) -> Result<Vec<Entry>, LedgerError> {
        let mut entries = Vec::new();
        let listing = fs::read_dir(&self.tasks).map_err(io("list", &self.tasks))?;
        for dir in listing {
            let dir = dir.map_err(io("list", &self.tasks))?;
            let path = dir.path().join(ENTRY_FILE);
            match read_entry(&path) {
                Ok(entry) if dir.file_name().to_str() == Some(&entry.uid) => entries.push(entry),
                Ok(entry) => {
                    tracing::warn!(path = %path.display(), uid = entry.uid, "misplaced entry");
                }
                // Half removed: see `leftovers`.
                Err(_) if !path.exists() => {}
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "ledger entry skipped");
                }
            }
        }
        Ok(entries)
    }

    /// Directories without a good entry: their removal was interrupted, their entry never came to
    /// be written, or both it and its copy are damaged. By name.
    pub fn leftovers(&self) -> Result<Vec<Uid>, LedgerError> {
        let listing = fs::read_dir(&self.tasks).map_err(io("list", &self.tasks))?;
        Ok(listing
            .filter_map(|dir| Some(dir.ok()?.file_name().to_str()?.to_owned()))
            .filter(|name| is_uid(name) && self.entry(name).is_none())
            .collect())
    }

    /// One task's entry, if it has one.
    pub fn entry(&self, uid: &str) -> Option<Entry> {
        if !is_uid(uid) {
            return None;
        }
        read_entry(&self.tasks.join(uid).join(ENTRY_FILE)).ok().filter(|entry| entry.uid == uid)
    }

    /// Writes an entry durably: after this the intent outlives a power cut.
    pub fn write(&self, entry: &Entry) -> Result<(), LedgerError> {
        let dir = self.tasks.join(&entry.uid);
        private_dir(&dir)?;
        let path = dir.join(ENTRY_FILE);
        let is_new = !path.exists();
        let temporary = dir.join(".entry.json.tmp");
        let json = serde_json::to_vec(entry)
            .map_err(|source| LedgerError::Parse { path: path.clone(), source })?;
        let json = sealed(json);
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(io("create", &temporary))?;
        file.write_all(&json).map_err(io("write", &temporary))?;
        // What replaces another must be whole before it does. A first one means nothing before all is flushed,
        // and then the flush of the file takes its directories along: those after it only make sure.
        let flush = || file.sync_all().map_err(io("flush", &temporary));
        if !is_new {
            flush()?;
        }
        reach("agent.ledger_tmp_written");
        fs::rename(&temporary, &path).map_err(io("rename", &temporary))?;
        reach("agent.ledger_renamed");
        // Not waited for: a power cut leaves the first, and what damages one file leaves the other.
        let copy = dir.join(COPY_FILE);
        fs::write(&copy, &json).map_err(io("write", &copy))?;
        if is_new {
            flush()?;
            sync_dir(&self.tasks)?;
        }
        sync_dir(&dir)
    }

    /// Makes the task's sandbox, empty.
    pub fn make_sandbox(&self, uid: &str) -> Result<(), LedgerError> {
        private_dir(&self.sandbox(uid))
    }

    /// Makes what was got ready the task's sandbox.
    pub fn take_sandbox(&self, uid: &str, ready: &Path) -> Result<(), LedgerError> {
        let sandbox = self.sandbox(uid);
        fs::rename(ready, &sandbox).map_err(io("rename to", &sandbox))
    }

    /// Writes content of Secrets and ConfigMaps, for the task's eyes: only root passes the directory above, and
    /// inside the container whoever the task runs as reads it. They are `owner`'s, if that is not root.
    pub fn write_files(
        &self,
        directory: &Path,
        files: &std::collections::BTreeMap<String, Vec<u8>>,
        owner: Option<u32>,
    ) -> Result<(), LedgerError> {
        let own = |path: &Path| match owner {
            Some(id) => chown(path, Some(id), Some(id)).map_err(io("give away", path)),
            None => Ok(()),
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .map_err(io("create", directory))?;
        for (name, content) in files {
            let path = directory.join(name);
            fs::write(&path, content).map_err(io("write", &path))?;
            own(&path)?;
        }
        own(directory)
    }

    /// Notes that a task has ended without an `exit.json`, for those who follow its log.
    pub fn mark_ended(&self, uid: &str) -> Result<(), LedgerError> {
        let path = self.tasks.join(uid).join(ENDED_FILE);
        File::create(&path).map(drop).map_err(io("create", &path))
    }

    /// Removes what an ended task has left on the disk, its sandbox and logs, and remembers since when and why. Its
    /// end is still known. Safe to repeat.
    ///
    /// The words come first: what is half removed is never taken for whole.
    pub fn collect(&self, uid: &str, why: &str) -> Result<(), LedgerError> {
        let dir = self.tasks.join(uid);
        let note = dir.join(COLLECTED_FILE);
        fs::write(&note, why).map_err(io("write", &note))?;
        let sandbox = self.sandbox(uid);
        match fs::remove_dir_all(&sandbox) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            removed => removed.map_err(io("remove", &sandbox))?,
        }
        for entry in fs::read_dir(&dir).map_err(io("list", &dir))?.flatten() {
            let name = entry.file_name();
            if ["stdout.log", "stderr.log"]
                .iter()
                .any(|log| name.as_bytes().starts_with(log.as_bytes()))
            {
                let path = entry.path();
                fs::remove_file(&path).map_err(io("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Since when and why a task's sandbox and logs are not there any more.
    pub fn collected(&self, uid: &str) -> Option<String> {
        fs::read_to_string(self.tasks.join(uid).join(COLLECTED_FILE)).ok()
    }

    /// Whether a task's output is complete: it has ended, or nothing is left of it.
    pub fn has_ended(&self, uid: &str) -> bool {
        let dir = self.state_dir(uid);
        dir.exit_json().exists()
            || dir.path().join(ENDED_FILE).exists()
            || !dir.path().join(ENTRY_FILE).exists()
    }

    /// Removes a task's directory with all that is in it: entry, logs, sandbox. Safe to repeat.
    ///
    /// The entry goes first and durably, so that a half-removed directory is never taken for a
    /// task whose container is lost.
    pub fn remove(&self, uid: &str) -> Result<(), LedgerError> {
        let dir = self.tasks.join(uid);
        let entry = dir.join(ENTRY_FILE);
        match fs::remove_file(&entry) {
            Ok(()) => {
                sync_dir(&dir)?;
                reach("agent.after_trim_of_entry");
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(io("remove", &entry)(source)),
        }
        match fs::remove_dir_all(&dir) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(io("remove", &dir)(source)),
        }
    }
}

/// Whether a text can be a uid, and so a file name of ours: it never leads out of the ledger.
pub fn is_uid(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && !text.starts_with('-')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn read_entry(path: &Path) -> Result<Entry, LedgerError> {
    let read = |path: &Path| read_sealed::<Entry>(path).map_err(io("read", path));
    let error = match read(path) {
        Err(error) => error,
        entry => return entry,
    };
    // Removed on purpose, and its copy just not yet.
    if !path.exists() {
        return Err(error);
    }
    let entry = read(&path.with_file_name(COPY_FILE)).map_err(|_| error)?;
    tracing::error!(path = %path.display(), "a ledger entry is damaged; its copy is good");
    Ok(entry)
}

fn private_dir(path: &Path) -> Result<(), LedgerError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io("create", path))
}

fn sync_dir(path: &Path) -> Result<(), LedgerError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(io("flush", path))
}

fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> LedgerError {
    let path = path.to_owned();
    move |source| LedgerError::Io { operation, path, source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry(uid: &str) -> Entry {
        Entry {
            uid: uid.to_owned(),
            namespace: "shop".to_owned(),
            name: "web-0".to_owned(),
            boot_id: "b".to_owned(),
            ..Entry::default()
        }
    }

    #[test]
    fn what_was_written_is_found_by_the_next_agent() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        let mut first = entry("0a-1");
        ledger.write(&first).unwrap();
        first.kill = Some(KillOrder {
            cause: KillCause::HealthCheckFailed("no answer".to_owned()),
            ordered_at: "2026-01-01T00:00:00.25Z".parse().unwrap(),
            signal: 15,
            grace_seconds: 30,
        });
        ledger.write(&first).unwrap();
        ledger.write(&entry("0a-2")).unwrap();

        let again = Ledger::open(dir.path()).unwrap();
        let mut found = again.entries().unwrap();
        found.sort_by(|a, b| a.uid.cmp(&b.uid));
        assert_eq!(found, [first.clone(), entry("0a-2")]);
        assert_eq!(again.entry("0a-1"), Some(first));

        again.remove("0a-1").unwrap();
        again.remove("0a-1").unwrap();
        assert_eq!(again.entries().unwrap(), [entry("0a-2")]);
    }

    #[test]
    fn a_broken_or_misplaced_entry_stops_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        ledger.write(&entry("good")).unwrap();
        let tasks = dir.path().join("agent/tasks");
        fs::create_dir(tasks.join("half")).unwrap();
        fs::write(tasks.join("half").join(ENTRY_FILE), "{\"uid\":").unwrap();
        fs::create_dir(tasks.join("empty")).unwrap();
        fs::create_dir(tasks.join("moved")).unwrap();
        fs::copy(tasks.join("good").join(ENTRY_FILE), tasks.join("moved").join(ENTRY_FILE))
            .unwrap();
        assert_eq!(ledger.entries().unwrap(), [entry("good")]);
        let mut left = ledger.leftovers().unwrap();
        left.sort();
        assert_eq!(left, ["empty", "half", "moved"]);
    }

    #[test]
    fn an_entry_that_a_disk_has_damaged_is_read_from_its_copy() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        ledger.write(&entry("t")).unwrap();
        let place = dir.path().join("agent/tasks/t");
        let flip = |name: &str| {
            let mut bytes = fs::read(place.join(name)).unwrap();
            bytes[7] ^= 1;
            fs::write(place.join(name), bytes).unwrap();
        };
        flip(ENTRY_FILE);
        assert_eq!(ledger.entry("t"), Some(entry("t")));
        flip(COPY_FILE);
        assert_eq!(ledger.entry("t"), None);
        assert_eq!(ledger.leftovers().unwrap(), ["t"]);
    }

    #[test]
    fn a_uid_never_leads_out_of_the_ledger() {
        assert!(is_uid("0c5b7a3e-8f13-4a52-9d54-1f0f6b7d2a11"));
        for bad in ["", "..", ".", "a/b", "../x", "a b", "-x", "a\0b"] {
            assert!(!is_uid(bad), "{bad:?}");
        }
    }
}
