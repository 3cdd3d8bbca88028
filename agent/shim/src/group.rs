//! What the tasks of a group have in common: a network, and memory and queues to talk through.
//!
//! No process holds it. Namespaces are kept by mounts of them, as `ip netns` does it, in a directory below `/run`,
//! which no task sees and which goes with a restart of the machine, as they do. Beside the ledger lies what it takes
//! to let go of the network again. Whoever makes or removes a group twice has done it once.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

use crate::launch::{ExitError, FailureReason, Launch, Network, SharedIpc, SharedNetwork};
use crate::state_dir::{StateDir, read_sealed, sealed, write_atomically};
use crate::{cni, network, run_dir};

/// Where groups are mounted.
pub const PLACE: &str = "/run/commonage/groups";
/// Memory that the tasks of a group share, as each alone has it.
const MEMORY: &str = "mode=1777,size=64m";

/// One group's places.
#[derive(Clone, Debug)]
pub struct Group {
    /// What is remembered of it.
    state: StateDir,
    /// Where it is mounted.
    place: PathBuf,
}

/// What its tasks are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// The group's own, or the machine's.
    pub network: Network,
    /// The group's own.
    pub ipc: SharedIpc,
}

/// `ready.json`: the group is whole.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ready {
    boot_id: String,
}

impl Group {
    /// Names a group; nothing is touched. `id`: letters, digits and `-`, unique on the machine. `memory`: the
    /// directory of all groups' state directories.
    #[must_use]
    pub fn new(memory: &Path, id: &str) -> Self {
        Self { state: StateDir::new(memory.join(id)), place: Path::new(PLACE).join(id) }
    }

    /// Makes it, unless it is there. Blocks, for as long as plugins take.
    ///
    /// # Errors
    /// `NetworkFailed` or `CreateFailed`, with words. Nothing is left then.
    pub fn make(&self, id: &str, network: &Network) -> Result<Shared, ExitError> {
        if let Some(shared) = self.find() {
            return Ok(shared);
        }
        let made = self.remove().map_err(failed).and_then(|()| {
            let launch = Launch {
                network: network.clone(),
                ..Launch::new(id, "/none/none", PathBuf::from("/"))
            };
            self.make_anew(&launch)
        });
        made.inspect_err(|_| {
            if let Err(error) = self.remove() {
                eprintln!("group {id}: {error}");
            }
        })
    }

    fn make_anew(&self, launch: &Launch) -> Result<Shared, ExitError> {
        self.state.prepare(launch).map_err(failed)?;
        run_dir::make_in(Path::new(PLACE), || fs::create_dir_all(&self.place)).map_err(failed)?;
        // A thread of its own: it changes its namespaces and ends with them.
        let made = thread::scope(|scope| {
            let maker = thread::Builder::new().name("group".to_owned());
            let maker = maker.spawn_scoped(scope, || self.make_namespaces(launch));
            maker.map_err(failed)?.join().unwrap_or_else(|_| {
                Err(failed(io::Error::other("the thread that makes namespaces died")))
            })
        });
        made?;
        let none: Option<&str> = None;
        let memory = self.memory();
        fs::create_dir_all(&memory).map_err(failed)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("commonage"), &memory, Some("tmpfs"), flags, Some(MEMORY))
            .and_then(|()| mount(none, &memory, none, MsFlags::MS_PRIVATE, none))
            .map_err(|errno| failed(errno.into()))?;
        let ready = Ready { boot_id: boot_id().map_err(failed)? };
        let json = serde_json::to_vec(&ready).map_err(|error| failed(error.into()))?;
        write_atomically(&self.ready(), &sealed(json)).map_err(failed)?;
        self.find().ok_or_else(|| failed(io::Error::other("it is not there after it was made")))
    }

    fn make_namespaces(&self, launch: &Launch) -> Result<(), ExitError> {
        let keep = |namespace: &Path, name: &Path| -> io::Result<()> {
            let none: Option<&str> = None;
            File::create(name)?;
            mount(Some(namespace), name, none, MsFlags::MS_BIND, none)?;
            Ok(())
        };
        unshare(CloneFlags::CLONE_NEWIPC).map_err(|errno| failed(errno.into()))?;
        keep(Path::new("/proc/thread-self/ns/ipc"), &self.ipc()).map_err(failed)?;
        match &launch.network {
            Network::Host | Network::Shared(_) => Ok(()),
            Network::None => {
                let made = network::make().map_err(failed)?;
                keep(&cni::path_of(&made), &self.network()).map_err(failed)
            }
            Network::Cni(_) => match cni::attach(&self.state, launch, None)? {
                None => Ok(()),
                Some(attached) => keep(&attached.path(), &self.network()).map_err(failed),
            },
        }
    }

    /// What its tasks are to be told, if it is there and whole.
    fn find(&self) -> Option<Shared> {
        let ready: Ready = read_sealed(&self.ready()).ok()?;
        let launch = self.state.launch().ok()?;
        let network = match launch.network {
            Network::None | Network::Cni(_) => Network::Shared(SharedNetwork {
                namespace: self.network(),
                addresses: cni::addresses_of(&self.state),
            }),
            other => other,
        };
        let ipc = SharedIpc { namespace: self.ipc(), memory: self.memory() };
        let is_there = ready.boot_id == boot_id().ok()? && is_mounted(&ipc.memory);
        is_there.then_some(Shared { network, ipc })
    }

    /// Lets go of its network and removes all that is left of it.
    ///
    /// # Errors
    /// A plugin does not let go, or something is still mounted: to be tried again.
    pub fn remove(&self) -> io::Result<()> {
        if let Ok(launch) = self.state.launch() {
            let namespace = is_mounted(&self.network()).then(|| File::open(self.network()));
            let namespace = namespace.transpose()?;
            cni::detach(&self.state, &launch, namespace.as_ref());
            if self.state.network_json().exists() {
                return Err(io::Error::other("its network has not let go of it"));
            }
        }
        for place in [self.network(), self.ipc(), self.memory()] {
            unmount(&place)?;
        }
        // Not recursive: what is still mounted there must not be emptied.
        for file in [self.network(), self.ipc()] {
            absent(fs::remove_file(file))?;
        }
        absent(fs::remove_dir(self.memory()))?;
        absent(fs::remove_dir(&self.place))?;
        run_dir::sweep(Path::new(PLACE));
        absent(fs::remove_dir_all(self.state.path()))?;
        Ok(())
    }

    fn network(&self) -> PathBuf {
        self.place.join("net")
    }

    fn ipc(&self) -> PathBuf {
        self.place.join("ipc")
    }

    fn memory(&self) -> PathBuf {
        self.place.join("shm")
    }

    fn ready(&self) -> PathBuf {
        self.state.path().join("ready.json")
    }
}

/// The groups that are remembered in a directory, by id.
///
/// # Errors
/// It can't be read. That it is not there is no error.
pub fn remembered(memory: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(memory) {
        Ok(entries) => {
            Ok(entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Until nothing is mounted there any more.
pub(crate) fn unmount(place: &Path) -> io::Result<()> {
    loop {
        match umount2(place, MntFlags::MNT_DETACH) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Whether another file system begins there.
fn is_mounted(place: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev());
    match (device(place), place.parent().map(device)) {
        (Ok(here), Some(Ok(above))) => here != above,
        _ => false,
    }
}

pub(crate) fn absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

fn failed(error: io::Error) -> ExitError {
    let message = format!("what the group shares can't be made: {error}");
    ExitError { reason: FailureReason::CreateFailed, message }
}
