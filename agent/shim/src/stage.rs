//! A container whose users are not the machine's: its namespaces, and all that it sees, put where it can be reached.
//!
//! Who sets the container up is its own root, nobody to the machine, and may not even enter a task's directory. So
//! everything is shown once more below a tmpfs that only the shim and the container have mounted, files of the task
//! with their owners translated: on the disk they belong to the numbers that the container knows.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::CloneFlags;

use crate::cni;
use crate::idmap;
use crate::launch::{ExitError, FailureReason, IdRange, Launch, Network};
use crate::{run_dir, sys};

/// Where the tmpfs is mounted; on the machine an empty directory.
const PLACE: &str = "/run/commonage/stage";

/// The namespaces of such a container.
pub(crate) struct Users {
    range: IdRange,
    users: OwnedFd,
    /// Its own, if it has one: then it belongs to its users.
    network: Option<File>,
}

impl Users {
    /// For a launch that wants it. For a process with one thread.
    ///
    /// # Errors
    /// The kernel does not let us.
    pub(crate) fn of(launch: &Launch) -> Result<Option<Users>, ExitError> {
        let Some(range) = launch.user_namespace else { return Ok(None) };
        let (more, own) = match launch.network {
            Network::None | Network::Cni(_) => (CloneFlags::CLONE_NEWNET, true),
            Network::Host | Network::Shared(_) => (CloneFlags::empty(), false),
        };
        let map = format!("0 {} {}", range.first, range.count);
        let made = idmap::make(&map, more).map_err(|error| ExitError {
            reason: FailureReason::CreateFailed,
            message: format!("user namespace: {error}"),
        })?;
        let network = own.then_some(made.network);
        Ok(Some(Users { range, users: made.users.into(), network }))
    }

    /// Its network namespace, if it has one of its own.
    pub(crate) fn network(&self) -> io::Result<Option<File>> {
        self.network.as_ref().map(File::try_clone).transpose()
    }
}

/// Where what such a container sees is put together.
pub(crate) struct Stage {
    users: Users,
    shown: usize,
    /// Held while the directory is needed on the machine.
    _turn: Flock<File>,
}

/// The directory, for sure the one that others find there.
fn hold() -> io::Result<Flock<File>> {
    loop {
        let directory = run_dir::make_in(Path::new(PLACE), || File::open(PLACE))?;
        let turn = Flock::lock(directory, FlockArg::LockShared).map_err(|(_, errno)| errno)?;
        let place = |found: fs::Metadata| (found.dev(), found.ino());
        let same = fs::metadata(PLACE)
            .is_ok_and(|now| turn.metadata().is_ok_and(|had| place(had) == place(now)));
        if same {
            return Ok(turn);
        }
    }
}

/// Removes the directory, unless somebody is about to use it. What is mounted there for containers that run is not
/// needed any more: they have their own view of it.
pub(crate) fn leave() {
    // Our own, if this is a shim's namespace.
    let _ = umount2(PLACE, MntFlags::MNT_DETACH);
    let Ok(directory) = File::open(PLACE) else { return };
    if let Ok(_turn) = Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
        run_dir::sweep(Path::new(PLACE));
    }
}

impl Stage {
    /// In a mount namespace of our own.
    pub(crate) fn new(users: Users) -> io::Result<Stage> {
        let turn = hold()?;
        let flags = MsFlags::MS_NOSUID;
        mount(Some("commonage"), PLACE, Some("tmpfs"), flags, Some("mode=755,size=1m"))?;
        let none: Option<&str> = None;
        mount(none, PLACE, none, MsFlags::MS_PRIVATE, none)?;
        fs::create_dir(Self::root())?;
        let stage = Stage { users, shown: 0, _turn: turn };
        keep(&stage.users.users, &stage.user_namespace())?;
        if let Some(network) = &stage.users.network {
            keep(network, &stage.network_path())?;
        }
        Ok(stage)
    }

    /// Where its root is to be mounted.
    pub(crate) fn root() -> PathBuf {
        Path::new(PLACE).join("root")
    }

    /// By which others find its users.
    pub(crate) fn user_namespace(&self) -> PathBuf {
        Path::new(PLACE).join("user")
    }

    /// By which others find its network, if it has one of its own.
    pub(crate) fn network(&self) -> Option<PathBuf> {
        self.users.network.as_ref().map(|_| self.network_path())
    }

    fn network_path(&self) -> PathBuf {
        Path::new(PLACE).join("net")
    }

    /// Gives a file or directory to the container's root.
    pub(crate) fn own(&self, path: &Path) -> io::Result<()> {
        let first = Some(self.users.range.first);
        std::os::unix::fs::chown(path, first, first)
    }

    /// The machine's number of one of the container's.
    pub(crate) fn outside(&self, id: u32) -> u32 {
        self.users.range.first.saturating_add(id)
    }

    /// Shows a file or directory of the task's to it.
    ///
    /// # Errors
    /// Its file system cannot translate owners, or another of the kernel's.
    pub(crate) fn show(&mut self, source: &Path) -> io::Result<PathBuf> {
        let place = self.place_for(source)?;
        sys::mount_mapped(source, &place, &self.users.users, false).map_err(|error| {
            let what = format!("{} can't be shown to other users: {error}", source.display());
            io::Error::new(error.kind(), what)
        })?;
        Ok(place)
    }

    /// Shows what is not the task's, owners and all.
    pub(crate) fn show_foreign(&mut self, source: &Path) -> io::Result<PathBuf> {
        let place = self.place_for(source)?;
        let none: Option<&str> = None;
        mount(Some(source), &place, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
        Ok(place)
    }

    /// The machine's `/sys`, for a container in the machine's network: it may not mount one itself. What is mounted
    /// in there, control groups first of all, is left out.
    pub(crate) fn sys(&mut self) -> io::Result<Option<PathBuf>> {
        if self.users.network.is_some() {
            return Ok(None);
        }
        let source = Path::new("/sys");
        let place = self.place_for(source)?;
        let none: Option<&str> = None;
        mount(Some(source), &place, none, MsFlags::MS_BIND, none)?;
        Ok(Some(place))
    }

    fn place_for(&mut self, source: &Path) -> io::Result<PathBuf> {
        let place = Path::new(PLACE).join(self.shown.to_string());
        self.shown += 1;
        match source.is_dir() {
            true => fs::create_dir(&place)?,
            false => File::create(&place).map(drop)?,
        }
        Ok(place)
    }
}

/// A namespace under a name.
fn keep(namespace: &impl AsFd, name: &Path) -> io::Result<()> {
    let none: Option<&str> = None;
    File::create(name)?;
    let source = cni::path_of(namespace);
    mount(Some(&source), name, none, MsFlags::MS_BIND, none)?;
    Ok(())
}
