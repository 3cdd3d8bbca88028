//! One task in a directory of its own, and its removal whatever happens.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use commonage_shim::launch::Stream;
use commonage_shim::{Exit, Launch, Observed, Shim, StateDir, ZygoteHandle, client, zygote};

/// Far more than anything here takes; a hang is a failure with words, not a stuck build.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn cannot_run() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root");
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let writable = mounts.lines().any(|l| {
        let fields: Vec<&str> = l.split(' ').collect();
        fields[2].starts_with("cgroup") && fields[3].split(',').any(|o| o == "rw")
    });
    if writable { None } else { Some("no writable control groups") }
}

/// One zygote for all tests of this process.
pub fn zygote() -> &'static ZygoteHandle {
    static ZYGOTE: OnceLock<ZygoteHandle> = OnceLock::new();
    ZYGOTE.get_or_init(|| zygote::start().unwrap())
}

pub struct Task {
    pub launch: Launch,
    pub state: StateDir,
    parent: String,
    _directory: tempfile::TempDir,
}

impl Task {
    /// A task that runs a shell script.
    pub fn sh(script: &str) -> Self {
        Self::command(&["sh", "-c", script])
    }

    pub fn command(command: &[&str]) -> Self {
        // Not in the default place: /tmp is private to each task, and these tests are also about
        // what a task sees of the directories around its own.
        Self::command_in(Path::new(env!("CARGO_TARGET_TMPDIR")), command)
    }

    pub fn command_in(place: &Path, command: &[&str]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = tempfile::tempdir_in(place).unwrap();
        let sandbox = directory.path().join("sandbox");
        std::fs::create_dir(&sandbox).unwrap();
        let parent = format!("commonage-test-{}", std::process::id());
        let id = format!("t{}-{number}", std::process::id());
        // Named by the id, as in an agent's ledger.
        let state = StateDir::new(directory.path().join(&id));
        let launch = Launch {
            command: command.iter().map(|s| (*s).to_owned()).collect(),
            hidden: vec![directory.path().to_owned()],
            ..Launch::new(&id, &format!("/{parent}/{id}"), sandbox)
        };
        Self { launch, state, parent, _directory: directory }
    }

    pub fn with(mut self, change: impl FnOnce(&mut Launch)) -> Self {
        change(&mut self.launch);
        self
    }

    pub fn path(&self) -> &Path {
        self.state.path()
    }

    pub fn start(&self) -> i32 {
        self.state.prepare(&self.launch).unwrap();
        zygote().launch(self.path()).unwrap()
    }

    pub fn connect(&self) -> Shim {
        eventually("the shim listens", || Shim::connect(self.path()).ok())
    }

    /// Waits until the command has printed a line.
    pub fn until_output(&self, text: &str) {
        eventually(&format!("{text:?} is printed"), || {
            if let Observed::Exited(exit) = client::scan(self.path()).unwrap() {
                assert!(self.stdout().contains(text), "ended first: {exit:?} {}", self.stderr());
            }
            self.stdout().contains(text).then_some(())
        });
    }

    /// How it ended.
    pub fn end(&self) -> Exit {
        eventually("the task ends", || match client::scan(self.path()).unwrap() {
            Observed::Exited(exit) => Some(exit),
            Observed::Lost => panic!("the shim is lost; its log: {}", self.shim_log()),
            _ => None,
        })
    }

    /// Starts it, waits for its end, and for the shim to be gone as well.
    pub fn run(&self) -> Exit {
        let shim = self.start();
        let exit = self.end();
        until_gone(shim);
        exit
    }

    pub fn stdout(&self) -> String {
        self.log(Stream::Stdout)
    }

    pub fn stderr(&self) -> String {
        self.log(Stream::Stderr)
    }

    fn log(&self, stream: Stream) -> String {
        let bytes = std::fs::read(self.state.log(stream)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub fn shim_log(&self) -> String {
        std::fs::read_to_string(self.path().join("shim.log")).unwrap_or_default()
    }

    /// The directories of the task's control group that exist.
    pub fn groups(&self) -> Vec<PathBuf> {
        hierarchies().map(|h| h.join(&self.launch.cgroup[1..])).filter(|p| p.exists()).collect()
    }

    /// Host process ids of everything in the container.
    pub fn processes(&self) -> Vec<i32> {
        let read = |group: PathBuf| std::fs::read_to_string(group.join("cgroup.procs"));
        let texts = self.groups().into_iter().filter_map(|group| read(group).ok());
        let mut pids: Vec<i32> =
            texts.flat_map(|t| t.lines().map(|l| l.parse().unwrap()).collect::<Vec<_>>()).collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Ok(Observed::Alive(Some(status))) = client::scan(self.path()) {
            // The shim holds its lock, so the process id is still its own.
            let pid = nix::unistd::Pid::from_raw(status.shim_pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            until_gone(status.shim_pid);
        }
        let _ = client::cleanup(self.path(), &self.launch);
        for hierarchy in hierarchies() {
            // Refused while other tasks of this process are in it.
            let _ = std::fs::remove_dir(hierarchy.join(&self.parent));
        }
    }
}

fn hierarchies() -> impl Iterator<Item = PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let points: Vec<PathBuf> = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|fields| fields[2].starts_with("cgroup"))
        .map(|fields| PathBuf::from(fields[1]))
        .collect();
    points.into_iter()
}

/// Waits for a condition and says which if it never comes.
#[allow(clippy::disallowed_methods)] // The one place that waits between looks.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub fn until_gone(pid: i32) {
    eventually(&format!("process {pid} is gone"), || (!is_alive(pid)).then_some(()));
}

pub fn is_alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}
