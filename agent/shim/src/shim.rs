//! The shim: makes one container, watches it to its end, and writes down how that was.
//!
//! Everything happens in one thread. It gets no orders but through `ctl.sock`, ignores signals,
//! and needs nobody: not the agent, not the zygote.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::rc::Rc;

use commonage_failpoint::reach;
use jiff::Timestamp;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{Gid, Uid, chown, pipe2, setsid};
use serde::{Deserialize, Serialize};

use crate::cgroup::Hierarchies;
use crate::cni::{self, Attached};
use crate::control::Control;
use crate::init::{Init, Plan, PlanPipes};
use crate::launch::{Exit, ExitError, FailureReason, Launch, Network, Root, Stdio, Stream};
use crate::lock::Lock;
use crate::network;
use crate::output::Output;
use crate::rootfs;
use crate::seccomp::Filters;
use crate::spec::{self, Host, Seen};
use crate::stage::{self, Stage, Users};
use crate::state_dir::{StateDir, sealed, write_atomically};
use crate::supervise::Supervisor;
use crate::sys;

/// libcontainer waits for its children without a time-out. Should one hang, the shim dies of
/// SIGALRM after this long, and the agent finds the task lost. Creating takes milliseconds.
const CREATE_TIMEOUT_SECONDS: u32 = 60;

/// `pid.json`: for people, and for finding what a lost shim was about.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pids {
    shim: u32,
    init: i32,
    boot_id: String,
}

/// Runs in a process forked for it, which ends with the returned code.
pub(crate) fn run(state: &StateDir, filters: &Filters) -> i32 {
    match try_run(state, filters) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("shim of {}: {error}", state.path().display());
            1
        }
    }
}

fn try_run(state: &StateDir, filters: &Filters) -> io::Result<()> {
    detach(state)?;
    let Some(_lock) = Lock::take(state)? else {
        return Ok(());
    };
    reach("shim.after_lock");
    // From here on every end is an `exit.json`, except the shim's own sudden death.
    let control = Control::bind(state)?;
    let signals = block_signals()?;
    let launch = match read_launch(state) {
        Ok(launch) => launch,
        // Nothing was made, and nothing in a bad order is to be trusted for cleaning up either.
        Err(error) => {
            finish(state, control, &failed(error))?;
            remove_socket(state)?;
            return flush(state);
        }
    };
    let users = Users::of(&launch);
    let own_network = match &users {
        Ok(Some(users)) => users.network()?,
        _ => None,
    };
    let attached = cni::attach(state, &launch, own_network);
    let created = attached.as_ref().map_err(ExitError::clone);
    let created = users.and_then(|users| {
        created.and_then(|network| create(state, &launch, network.as_ref(), users, filters))
    });
    let (exit, control) = match created {
        Ok(created) => Supervisor::new(launch.clone(), created).run(control, &signals)?,
        Err(error) => (failed(error), control),
    };
    reach("shim.after_exit_before_report");
    finish(state, control, &exit)?;
    reach("shim.after_report_before_cleanup");
    let namespace = attached.ok().flatten().map(|network| network.namespace);
    clean_up(state, &launch, namespace)?;
    flush(state)
}

fn read_launch(state: &StateDir) -> Result<Launch, ExitError> {
    let mut launch = state.launch().map_err(|error| ExitError {
        reason: FailureReason::InvalidLaunch,
        message: format!("task.json: {error}"),
    })?;
    spec::check(&launch)?;
    launch.hidden.extend(rootfs::clusters());
    Ok(launch)
}

/// Leaves the caller's session and standard streams. Descriptors were closed by whoever forked.
fn detach(state: &StateDir) -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(state.shim_log())?;
    sys::redirect(&null, 0)?;
    sys::redirect(&null, 1)?;
    sys::redirect(&log, 2)?;
    std::env::set_current_dir("/")?;
    // Fails only if it leads a session already.
    let _ = setsid();
    sys::hasten_session();
    nix::sys::prctl::set_child_subreaper(true)?;
    nix::sys::prctl::set_name(c"cmn-shim")?;
    Ok(())
}

/// All but the alarm above, and those that mean a bug in this process.
fn block_signals() -> io::Result<nix::sys::signalfd::SignalFd> {
    let mut set = SigSet::all();
    for signal in [
        Signal::SIGALRM,
        Signal::SIGSEGV,
        Signal::SIGBUS,
        Signal::SIGILL,
        Signal::SIGFPE,
        Signal::SIGABRT,
        Signal::SIGTRAP,
        Signal::SIGSYS,
    ] {
        set.remove(signal);
    }
    set.thread_block()?;
    let flags =
        nix::sys::signalfd::SfdFlags::SFD_CLOEXEC | nix::sys::signalfd::SfdFlags::SFD_NONBLOCK;
    Ok(nix::sys::signalfd::SignalFd::with_flags(&set, flags)?)
}

/// A container whose command has been told to start.
pub(crate) struct Created {
    pub(crate) init: i32,
    pub(crate) outputs: [Output; 2],
    /// Where what it reads is written, unless that is a terminal.
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) exec_pipe: File,
    pub(crate) status_pipe: File,
    pub(crate) go_pipe: File,
    pub(crate) exec_socket: OwnedFd,
    pub(crate) hierarchies: Hierarchies,
}

fn create(
    state: &StateDir,
    launch: &Launch,
    network: Option<&Attached>,
    users: Option<Users>,
    filters: &Filters,
) -> Result<Created, ExitError> {
    let other = |error: io::Error| ExitError {
        reason: FailureReason::CreateFailed,
        message: error.to_string(),
    };
    let hierarchies = Hierarchies::find().map_err(other)?;
    rootfs::leave_host_mounts().map_err(other)?;
    let mut stage = users.map(Stage::new).transpose().map_err(other)?;
    let root = rootfs::assemble(launch, state, stage.as_mut()).map_err(other)?;
    let launch = &completed(launch, state, network, &root)?;
    prepare_files(state, launch).map_err(other)?;
    let seen = match &mut stage {
        None => Seen { network: network.map(Attached::path), ..Seen::plain(state) },
        Some(stage) => show(launch, state, stage).map_err(other)?,
    };
    write_spec(state, &seen.in_place(launch), &seen, &root, &hierarchies).map_err(other)?;
    let outside = |id| stage.as_ref().map_or(id, |stage| stage.outside(id));
    let owner = (outside(launch.user.uid), outside(launch.user.gid));
    let pipes = Pipes::new(owner, &launch.stdio).map_err(other)?;
    let (stdin, to_stdin) = pipes.stdin.unzip();
    let plan_pipes = PlanPipes {
        exec_pipe: pipes.exec.1.as_raw_fd(),
        status_pipe: pipes.status.1.as_raw_fd(),
        go_pipe: pipes.go.0.as_raw_fd(),
        exec_socket: pipes.exec_socket.1.as_raw_fd(),
    };
    let plan = Plan::new(launch, filters.clone(), plan_pipes);
    sys::alarm(CREATE_TIMEOUT_SECONDS);
    let init = start(state, launch, plan, stdin, [pipes.stdout.1, pipes.stderr.1]);
    sys::alarm(0);
    // These ends are the container's now.
    drop((pipes.exec.1, pipes.status.1, pipes.go.0, pipes.exec_socket.1));
    let init = init.inspect_err(|_| {
        let _ = remove_group(launch);
    })?;
    let outputs = || -> io::Result<[Output; 2]> {
        for pipe in [&pipes.exec.0, &pipes.status.0].into_iter().chain(&to_stdin) {
            fcntl(pipe.as_raw_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok([
            Output::new(pipes.stdout.0, state.log(Stream::Stdout), &launch.log)?,
            Output::new(pipes.stderr.0, state.log(Stream::Stderr), &launch.log)?,
        ])
    };
    let outputs = outputs().map_err(|error| {
        let _ = remove_group(launch);
        other(error)
    })?;
    Ok(Created {
        init,
        outputs,
        stdin: to_stdin,
        exec_pipe: pipes.exec.0.into(),
        status_pipe: pipes.status.0.into(),
        go_pipe: pipes.go.1.into(),
        exec_socket: pipes.exec_socket.0,
        hierarchies,
    })
}

/// The order with what only the image and the network can say.
fn completed(
    launch: &Launch,
    state: &StateDir,
    network: Option<&Attached>,
    root: &Path,
) -> Result<Launch, ExitError> {
    let mut launch = launch.clone();
    let addresses = match (&launch.network, network) {
        (Network::Shared(shared), _) => shared.addresses.as_slice(),
        (_, Some(own)) => own.addresses.as_slice(),
        (_, None) => &[],
    };
    if let Some(address) = addresses.first() {
        launch.env.entry("COMMONAGE_IP".to_owned()).or_insert(address.to_string());
    }
    crate::image::complete(&mut launch, state, root)?;
    Ok(launch)
}

fn prepare_files(state: &StateDir, launch: &Launch) -> io::Result<()> {
    fs::create_dir_all(state.tmp())?;
    fs::set_permissions(state.tmp(), fs::Permissions::from_mode(0o1777))?;
    let user = (Uid::from_raw(launch.user.uid), Gid::from_raw(launch.user.gid));
    chown(&launch.sandbox, Some(user.0), Some(user.1))?;
    if launch.own_sandbox {
        give_away(&launch.sandbox, &launch.user)?;
    }
    Ok(())
}

/// Shows all that a task with users of its own is to see where its root can reach it.
fn show(launch: &Launch, state: &StateDir, stage: &mut Stage) -> io::Result<Seen> {
    let mut mounts = Vec::new();
    for mount in &launch.mounts {
        mounts.push(match (mount.tmpfs_bytes, mount.foreign) {
            (Some(_), _) => mount.source.clone(),
            (None, true) => stage.show_foreign(&mount.source)?,
            (None, false) => stage.show(&mount.source)?,
        });
    }
    Ok(Seen {
        network: stage.network(),
        users: Some(stage.user_namespace()),
        sys: stage.sys()?,
        tmp: stage.show(&state.tmp())?,
        sandbox: Some(stage.show(&launch.sandbox)?),
        mounts: Some(mounts),
    })
}

fn write_spec(
    state: &StateDir,
    launch: &Launch,
    seen: &Seen,
    root: &Path,
    hierarchies: &Hierarchies,
) -> io::Result<()> {
    let host = Host {
        limits_swap: hierarchies.limits_swap(),
        max_open_files: getrlimit(Resource::RLIMIT_NOFILE)?.1,
    };
    fs::create_dir_all(state.bundle())?;
    fs::create_dir_all(state.runtime_root())?;
    let spec = spec::build(launch, state, root, seen, host);
    write_atomically(&state.bundle().join("config.json"), &serde_json::to_vec(&spec)?)
}

/// All that is in a directory; links themselves, never what they lead to.
fn give_away(directory: &Path, user: &crate::launch::User) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        std::os::unix::fs::lchown(entry.path(), Some(user.uid), Some(user.gid))?;
        if entry.file_type()?.is_dir() {
            give_away(&entry.path(), user)?;
        }
    }
    Ok(())
}

type Pipe = (OwnedFd, OwnedFd);

struct Pipes {
    /// If it is to read from one.
    stdin: Option<Pipe>,
    stdout: Pipe,
    stderr: Pipe,
    exec: Pipe,
    status: Pipe,
    go: Pipe,
    /// Of packets: an order of `exec` each.
    exec_socket: Pipe,
}

impl Pipes {
    /// For a user and a group, as the machine counts them.
    fn new((user, group): (u32, u32), stdio: &Stdio) -> io::Result<Self> {
        let pipe = || pipe2(OFlag::O_CLOEXEC);
        let (packets, flags) = (SockType::SeqPacket, SockFlag::SOCK_CLOEXEC);
        let pipes = Self {
            stdin: (stdio.stdin && !stdio.tty).then(pipe).transpose()?,
            stdout: pipe()?,
            stderr: pipe()?,
            exec: pipe()?,
            status: pipe()?,
            go: pipe()?,
            exec_socket: socketpair(AddressFamily::Unix, packets, None, flags)?,
        };
        // So that the task may open /dev/stdout and its like, which is a new open of the pipe.
        let stdin = pipes.stdin.iter().map(|stdin| &stdin.0);
        for end in [&pipes.stdout.1, &pipes.stderr.1].into_iter().chain(stdin) {
            nix::unistd::fchown(
                end.as_raw_fd(),
                Some(Uid::from_raw(user)),
                Some(Gid::from_raw(group)),
            )?;
        }
        Ok(pipes)
    }
}

/// The only place that calls libcontainer. Returns init's process id on the host.
fn start(
    state: &StateDir,
    launch: &Launch,
    plan: Plan,
    stdin: Option<OwnedFd>,
    [stdout, stderr]: [OwnedFd; 2],
) -> Result<i32, ExitError> {
    let failed = |what: &str, error: &dyn std::error::Error| ExitError {
        reason: FailureReason::CreateFailed,
        message: format!("{what}: {}", chain(error)),
    };
    let stdin = match stdin {
        Some(stdin) => stdin,
        None => File::open("/dev/null").map_err(|e| failed("/dev/null", &e))?.into(),
    };
    let builder = ContainerBuilder::new(launch.id.clone(), SyscallType::default())
        .with_root_path(state.runtime_root())
        .and_then(ContainerBuilder::validate_id)
        .map_err(|e| failed("container", &e))?
        .with_stdin(stdin)
        .with_stdout(stdout)
        .with_stderr(stderr)
        .with_executor(Init(Rc::new(plan)))
        .as_init(state.bundle())
        .with_systemd(false)
        .with_detach(true);
    reach("shim.before_cgroup");
    let mut container = builder.build().map_err(|e| failed("creating the container", &e))?;
    reach("shim.after_cgroup");
    let init = container.pid().map(nix::unistd::Pid::as_raw).unwrap_or_default();
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let pids = Pids { shim: std::process::id(), init, boot_id: boot_id.trim().to_owned() };
    let json = serde_json::to_vec(&pids).map_err(|e| failed("pid.json", &e))?;
    write_atomically(&state.pid_json(), &json).map_err(|e| failed("pid.json", &e))?;
    reach("shim.after_create_before_start");
    container.start().map_err(|e| failed("starting the container", &e))?;
    reach("shim.after_start");
    Ok(init)
}

/// An error with its sources, which libcontainer leaves out of the first line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let source_text = source.to_string();
        if !text.ends_with(&source_text) {
            text = format!("{text}: {source_text}");
        }
        next = source.source();
    }
    text
}

fn failed(error: ExitError) -> Exit {
    Exit {
        exit_code: None,
        signal: None,
        oom_killed: false,
        oom_kills: 0,
        started_at: None,
        finished_at: Timestamp::now(),
        error: Some(error),
        log_bytes_dropped: 0,
        log_bytes_rotated_away: 0,
    }
}

/// First written, then told: whoever hears of the end can read it.
fn finish(state: &StateDir, control: Control, exit: &Exit) -> io::Result<()> {
    write_atomically(&state.exit_json(), &sealed(serde_json::to_vec(exit)?))?;
    control.announce(exit);
    Ok(())
}

/// Makes the end outlive a power cut, when nobody waits any more. A power cut before it leaves none, or one whose seal
/// is broken: then the task ended with its machine, unless the cluster has been told otherwise already, and that stands.
fn flush(state: &StateDir) -> io::Result<()> {
    for path in [state.exit_json().as_path(), state.path()] {
        match File::open(path).and_then(|file| file.sync_all()) {
            // The agent had read it and removed it all.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            flushed => flushed?,
        }
    }
    Ok(())
}

fn remove_group(launch: &Launch) -> io::Result<()> {
    let hierarchies = Hierarchies::find()?;
    let group = hierarchies.group(&launch.cgroup)?;
    group.kill()?;
    group.remove()
}

/// Everything a container leaves but its words: control group, mounts, libcontainer's files, the
/// private `/tmp`. Also what an agent does for a shim that could not.
///
/// `network` is the task's, if it is at hand; if not, it may be found as long as something of the task lives.
pub(crate) fn clean_up(state: &StateDir, launch: &Launch, network: Option<File>) -> io::Result<()> {
    let network = network.or_else(|| find_network(launch));
    remove_group(launch)?;
    reach("shim.after_cgroup_removed");
    cni::detach(state, launch, network.as_ref());
    if !matches!(launch.root, Root::Bundle(_)) {
        rootfs::dismantle(state);
    }
    if launch.user_namespace.is_some() {
        stage::leave();
    }
    let all = [state.runtime_root(), state.bundle(), state.tmp(), state.upper(), state.work()];
    for directory in all.into_iter().chain([state.etc()]) {
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    remove_socket(state)
}

fn find_network(launch: &Launch) -> Option<File> {
    if !matches!(launch.network, Network::Cni(_)) {
        return None;
    }
    let hierarchies = Hierarchies::find().ok()?;
    network::of_any(hierarchies.group(&launch.cgroup).ok()?.processes().ok()?)
}

/// The last thing that goes: an agent takes its absence for the end of the shim.
fn remove_socket(state: &StateDir) -> io::Result<()> {
    match fs::remove_file(state.path().join(crate::control::SOCKET)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
