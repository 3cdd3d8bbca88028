//! `cmn doctor`: what this machine lacks to run a cluster, one line each, with the fix beside it.
//!
//! `cmn up` makes the same checks with the same arguments first, so that the doctor ends with an
//! error exactly when `up` would.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Args as ClapArgs;
use nix::{
    sys::statvfs::statvfs,
    unistd::{AccessFlags, access},
};

use crate::{
    errors::{Failure, Result, count, exit},
    kubeconfig::{Beacon, default_data_dir},
    output::{self, Stream, Tone, paint},
    server::Store,
};

mod features;

/// Below this the store could not even begin; a small etcd needs as much.
const DISK_FREE_MIN_BYTES: u64 = 64 << 20;
/// Below this a day of logs or an image fills the disk.
const DISK_FREE_GOOD_BYTES: u64 = 2 << 30;
/// An etcd that needs longer to take a connection is no use as a store.
const ETCD_TIMEOUT: Duration = Duration::from_secs(2);
/// Without these a task's limits would not be limits.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
const NAMESPACES: [&str; 5] = ["mnt", "pid", "ipc", "uts", "cgroup"];

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// As for `cmn up`
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// As for `cmn up`
    #[arg(long, value_name = "IP:PORT", default_value = crate::server::LISTEN_DEFAULT)]
    listen: SocketAddr,
    /// As for `cmn up`
    #[arg(long, value_name = "STORE", default_value = "embedded")]
    store: Store,
}

/// What a cluster on this machine is going to use.
pub(crate) struct Needs<'a> {
    pub(crate) data_dir: &'a Path,
    pub(crate) listen: SocketAddr,
    pub(crate) store: &'a Store,
}

/// One thing looked at.
pub(crate) struct Check {
    name: &'static str,
    found: String,
    /// What to do about it, where there is something to do.
    fix: Option<String>,
    verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    /// A cluster runs without it, worse.
    Worse,
    /// No cluster runs without it.
    Missing,
}

impl Check {
    fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, found: found.into(), fix: None, verdict: Verdict::Good }
    }

    fn worse(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, found: found.into(), fix: Some(fix.into()), verdict: Verdict::Worse }
    }

    fn missing(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, found: found.into(), fix: Some(fix.into()), verdict: Verdict::Missing }
    }

    /// Something to gain.
    fn tip(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    fn line(&self, stream: Stream) -> String {
        let (mark, tone) = match self.verdict {
            Verdict::Good => ("ok", Tone::Good),
            Verdict::Worse => ("warn", Tone::Busy),
            Verdict::Missing => ("FAIL", Tone::Bad),
        };
        let fix = match &self.fix {
            Some(fix) if self.verdict == Verdict::Good => format!("\n{:19}tip: {fix}", ""),
            Some(fix) => format!("\n{:19}fix: {fix}", ""),
            None => String::new(),
        };
        format!(
            "{}  {:<11}{}{fix}",
            paint(stream, tone, &format!("{mark:>4}")),
            self.name,
            self.found
        )
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let Args { data_dir, listen, store } = args;
    let data_dir = data_dir.clone().unwrap_or_else(default_data_dir);
    let checks = checks(&Needs { data_dir: &data_dir, listen: *listen, store });
    for check in &checks {
        output::line(&check.line(Stream::Stdout))?;
    }
    match failed(&checks) {
        0 => {
            output::message(Tone::Hint, "next:", "cmn up");
            Ok(ExitCode::SUCCESS)
        }
        n => Err(Failure::new(format!(
            "this machine lacks {} that `cmn up` needs",
            count(n, "thing")
        ))
        .exit(exit::HOST)),
    }
}

/// For `cmn up`: says only what is wrong, and stops it if that is serious.
pub(crate) fn insist(needs: &Needs<'_>) -> Result<()> {
    let checks = checks(needs);
    let failed = failed(&checks);
    for check in checks.iter().filter(|check| check.verdict == Verdict::Missing) {
        output::note(&check.line(Stream::Stderr));
    }
    if failed > 0 {
        return Err(Failure::new(format!(
            "a cluster cannot start here: {} to fix",
            count(failed, "thing")
        ))
        .hint("`cmn doctor` looks again")
        .exit(exit::HOST));
    }
    let system = checks
        .iter()
        .find(|check| check.name == "cgroups")
        .map_or("", |check| check.found.as_str());
    output::step(&format!("this machine will do: {system}"));
    Ok(())
}

fn failed(checks: &[Check]) -> usize {
    checks.iter().filter(|check| check.verdict == Verdict::Missing).count()
}

fn checks(needs: &Needs<'_>) -> Vec<Check> {
    // One that was killed just now still has its port and its directory, for a moment.
    Beacon::until_killed_are_gone();
    let running = Beacon::all_running();
    let mut checks = vec![root(), cgroups(), namespaces(), mounts(), seccomp(), overlay()];
    checks.push(data_dir(needs.data_dir, &running));
    checks.push(disk(needs.data_dir));
    checks.push(port(needs.listen, &running));
    checks.extend(features::all(needs.data_dir));
    if let Store::Etcd(members) = needs.store {
        let members: Vec<Check> = members.iter().map(|member| etcd(member)).collect();
        // A cluster of etcd serves while most of its members do; whether they do, it says itself.
        let some_answer = members.iter().any(|member| member.verdict != Verdict::Missing);
        let told = |member: &Check| !some_answer || member.verdict != Verdict::Missing;
        checks.extend(members.into_iter().filter(told));
    }
    checks
}

fn root() -> Check {
    match nix::unistd::geteuid().is_root() {
        true => Check::good("user", "root"),
        false => Check::missing("user", "not root; containers need it", "sudo cmn up"),
    }
}

fn cgroups() -> Check {
    const NAME: &str = "cgroups";
    let unified = Path::new("/sys/fs/cgroup");
    let (version, present): (&str, Vec<String>) =
        match fs::read_to_string(unified.join("cgroup.controllers")) {
            Ok(text) => ("v2", text.split_whitespace().map(str::to_owned).collect()),
            Err(_) => {
                ("v1", v1_controllers(&fs::read_to_string("/proc/self/mounts").unwrap_or_default()))
            }
        };
    let lacking: Vec<&str> =
        CONTROLLERS.into_iter().filter(|name| !present.iter().any(|p| p == name)).collect();
    if !lacking.is_empty() {
        let fix = match version {
            "v2" => {
                "boot without cgroup_disable=, and delegate them to this unit (systemd: Delegate=yes)"
            }
            _ => {
                "mount them: apt-get install cgroupfs-mount, or boot with systemd.unified_cgroup_hierarchy=1"
            }
        };
        return Check::missing(NAME, format!("{version}, without {}", lacking.join(", ")), fix);
    }
    let directory = if version == "v2" { unified.to_owned() } else { unified.join("memory") };
    if access(&directory, AccessFlags::W_OK).is_err() {
        let found = format!("{version}, but {} cannot be written to", directory.display());
        return Check::missing(
            NAME,
            found,
            "run as root, and outside of a container that has it read-only",
        );
    }
    let mode = features::mode(&fs::read_to_string("/proc/self/mounts").unwrap_or_default());
    let version = if mode == "hybrid" { "hybrid: v1" } else { version };
    Check::good(NAME, format!("{version} with {}", CONTROLLERS.join(", ")))
}

/// Controllers of the mounted v1 hierarchies: they are options of the mounts.
fn v1_controllers(mounts: &str) -> Vec<String> {
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields
        .filter(|fields| fields.get(2) == Some(&"cgroup"))
        .flat_map(|fields| {
            fields.get(3).map(|options| options.split(',').map(str::to_owned).collect::<Vec<_>>())
        })
        .flatten()
        .collect()
}

fn namespaces() -> Check {
    let lacking: Vec<&str> = NAMESPACES
        .into_iter()
        .filter(|name| !Path::new("/proc/self/ns").join(name).exists())
        .collect();
    match lacking.is_empty() {
        true => Check::good("namespaces", NAMESPACES.join(", ")),
        false => Check::missing(
            "namespaces",
            format!("the kernel has no {}", lacking.join(", ")),
            "a kernel with CONFIG_NAMESPACES (every Debian kernel has it)",
        ),
    }
}

/// In a chroot the kernel cannot keep a container's mounts apart from the machine's.
fn mounts() -> Check {
    // The fifth field of a line is where it is mounted: proc(5).
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    match mounts.lines().any(|line| line.split(' ').nth(4) == Some("/")) {
        true => Check::good("mounts", "/ is one"),
        false => Check::missing(
            "mounts",
            "/ is not a mount: this is a chroot",
            "leave it, or enter it as a container does (unshare --mount, then pivot_root)",
        ),
    }
}

fn seccomp() -> Check {
    let actions = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    match actions.contains("errno") {
        true => Check::good("seccomp", "filters"),
        false => Check::missing(
            "seccomp",
            "the kernel has no filters",
            "a kernel with CONFIG_SECCOMP_FILTER (every Debian kernel has it)",
        ),
    }
}

/// Only images need it, so that its absence stops nobody.
fn overlay() -> Check {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let loaded = known.lines().any(|line| line.ends_with("\toverlay"));
    let loadable = || {
        let release = nix::sys::utsname::uname().ok()?.release().to_str()?.to_owned();
        let modules = fs::read_to_string(format!("/lib/modules/{release}/modules.dep")).ok()?;
        modules.contains("/overlay.ko").then_some(())
    };
    match loaded || loadable().is_some() {
        true => Check::good("overlayfs", "there"),
        false => Check::worse(
            "overlayfs",
            "not there; images need it, tasks without one do not",
            "modprobe overlay",
        ),
    }
}

fn data_dir(path: &Path, running: &[PathBuf]) -> Check {
    const NAME: &str = "data";
    if running.iter().any(|data_dir| data_dir == path) {
        return Check::missing(
            NAME,
            format!("{}: a cluster runs there already", path.display()),
            "use that one (`cmn get agents`), or start a second: --data-dir DIR --listen 127.0.0.1:0",
        );
    }
    let Some(existing) = path.ancestors().find(|path| path.exists()) else {
        return Check::missing(
            NAME,
            format!("{} is nowhere", path.display()),
            "an absolute path: --data-dir DIR",
        );
    };
    if !existing.is_dir() {
        return Check::missing(
            NAME,
            format!("{} is not a directory", existing.display()),
            "--data-dir DIR",
        );
    }
    match access(existing, AccessFlags::W_OK | AccessFlags::X_OK) {
        Ok(()) => Check::good(NAME, path.display().to_string()),
        Err(_) => Check::missing(
            NAME,
            format!("{}: {} may not be written to", path.display(), existing.display()),
            "--data-dir DIR that you may write to",
        ),
    }
}

fn disk(path: &Path) -> Check {
    const NAME: &str = "disk";
    let found = path.ancestors().find_map(|path| statvfs(path).ok());
    let Some(free) = found.map(|stat| stat.blocks_available() * stat.fragment_size()) else {
        return Check::worse(
            NAME,
            "cannot tell how much is free",
            "--data-dir DIR on a local disk",
        );
    };
    let found = format!("{:.1} GiB free", free as f64 / f64::from(1 << 30));
    match free {
        DISK_FREE_GOOD_BYTES.. => Check::good(NAME, found),
        DISK_FREE_MIN_BYTES.. => {
            Check::worse(NAME, found, "--data-dir DIR on a disk with some GiB")
        }
        _ => Check::missing(NAME, found, "make room, or --data-dir DIR on another disk"),
    }
}

fn port(listen: SocketAddr, running: &[PathBuf]) -> Check {
    const NAME: &str = "port";
    let another = "--listen 127.0.0.1:0 picks a free one, --listen IP:PORT another";
    match TcpListener::bind(listen) {
        Ok(_) if listen.port() == 0 => Check::good(NAME, format!("a free one at {}", listen.ip())),
        Ok(_) => Check::good(NAME, format!("{listen} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let by = running.iter().find(|data_dir| serves_at(data_dir, listen));
            let by = by.map_or("another program".to_owned(), |data_dir| {
                format!("the cluster in {}", data_dir.display())
            });
            Check::missing(NAME, format!("{listen} is taken by {by}"), another)
        }
        Err(error) => Check::missing(NAME, format!("cannot listen on {listen}: {error}"), another),
    }
}

/// Whether the kubeconfig of a running cluster says that it serves at this address.
fn serves_at(data_dir: &Path, listen: SocketAddr) -> bool {
    let text = fs::read_to_string(data_dir.join("kubeconfig")).unwrap_or_default();
    let mut words = text.split(|c: char| c.is_whitespace() || c == '"');
    words.any(|word| word.trim_end_matches('/') == format!("https://{listen}"))
}

fn etcd(address: &str) -> Check {
    let host_port = match address.contains(':') {
        true => address.to_owned(),
        false => format!("{address}:2379"),
    };
    let reached = host_port.to_socket_addrs().and_then(|mut addresses| {
        let address = addresses.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
        TcpStream::connect_timeout(&address, ETCD_TIMEOUT)
    });
    match reached {
        Ok(_) => Check::good("etcd", format!("answers at {host_port}")),
        Err(error) => Check::missing(
            "etcd",
            format!("no answer at {host_port}: {error}"),
            "start it, or leave --store out: the embedded one needs nothing",
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn controllers_of_v1_are_mount_options() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu cgroup rw,nosuid,cpu,cpuacct 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let found = v1_controllers(mounts);
        assert!(found.iter().any(|name| name == "cpu"));
        assert!(!found.iter().any(|name| name == "memory"));
    }

    #[test]
    fn a_taken_port_is_found_and_a_free_one_is_not() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(port(address, &[]).verdict, Verdict::Missing);
        assert!(port(address, &[]).found.contains("another program"));
        assert!(port(address, &[]).fix.unwrap().contains("--listen"));
        drop(taken);
        assert_eq!(port(address, &[]).verdict, Verdict::Good);
    }

    #[test]
    fn a_cluster_of_ours_is_called_so() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let kubeconfig = format!("clusters:\n- cluster:\n    server: https://{address}\n");
        fs::write(dir.path().join("kubeconfig"), kubeconfig).unwrap();
        let running = [dir.path().to_owned()];
        let port = port(address, &running).found;
        assert!(port.ends_with(&format!("the cluster in {}", dir.path().display())), "{port}");
        let data = data_dir(dir.path(), &running);
        assert_eq!(data.verdict, Verdict::Missing);
        assert!(data.found.contains("runs there already"), "{}", data.found);
    }

    #[test]
    fn a_file_is_no_data_directory() {
        assert_eq!(data_dir(Path::new("/proc/version/x"), &[]).verdict, Verdict::Missing);
    }
}
