//! Which cluster a verb talks to, and as whom.
//!
//! In this order: `--kubeconfig`, `$KUBECONFIG`, the `cmn up` that runs on this machine,
//! `~/.kube/config`. What `cmn up` writes for that lives in [`Beacon`].

use std::{
    env,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use commonage_shim::run_dir;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use nix::fcntl::{Flock, FlockArg};

use crate::{
    args::Global,
    errors::{Failure, Result, chain, exit, first_line},
    output,
};

/// A cluster that can be talked to.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    /// The namespace of namespaced verbs: `-n`, else the kubeconfig's, else `default`.
    pub(crate) namespace: String,
    pub(crate) url: String,
    /// The authority that vouches for the API server, if the kubeconfig names one.
    pub(crate) ca_pem: Option<String>,
    /// Where the kubeconfig came from.
    pub(crate) source: PathBuf,
    /// Whether its user may be asked something.
    pub(crate) may_ask: bool,
}

impl Cluster {
    pub(crate) async fn connect(global: &Global) -> Result<Self> {
        let (config, source) = Self::config(global).await?;
        let namespace =
            global.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let url = config.cluster_url.to_string();
        let ca_pem = config.root_cert.as_deref().map(pem);
        let client = Client::try_from(config).map_err(|error| broken(&source, &chain(&error)))?;
        let may_ask = !global.no_input && output::can_ask();
        Ok(Self { client, namespace, url, ca_pem, source, may_ask })
    }

    /// How to talk to it, and where that is written.
    pub(crate) async fn config(global: &Global) -> Result<(Config, PathBuf)> {
        let source = find(global)?;
        let broken = |why: String| broken(&source, &why);
        let kubeconfig = read(&source).map_err(broken)?;
        has_context(&kubeconfig, global, &source)?;
        let options = KubeConfigOptions { context: global.context.clone(), ..Default::default() };
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .map_err(|error| broken(chain(&error)))?;
        // A watch is quiet for as long as nothing changes.
        config.read_timeout = None;
        Ok((config, source))
    }
}

/// With paths in it relative to where it lies.
fn read(path: &Path) -> Result<Kubeconfig, String> {
    Kubeconfig::read_from(path).map_err(|error| match error {
        KubeconfigError::ReadConfig(error, _) => error.to_string(),
        other => chain(&other),
    })
}

/// Whether there is the context that was asked for, or the current one.
fn has_context(kubeconfig: &Kubeconfig, global: &Global, source: &Path) -> Result<()> {
    let asked = global.context.as_ref().or(kubeconfig.current_context.as_ref());
    let asked = asked.map_or("", String::as_str);
    let names: Vec<&str> = kubeconfig.contexts.iter().map(|c| c.name.as_str()).collect();
    if names.contains(&asked) {
        return Ok(());
    }
    let hint = match names.is_empty() {
        true => "there is none in it: name another one with --kubeconfig FILE".to_owned(),
        false => format!("choose one with --context NAME; there are: {}", names.join(", ")),
    };
    let source = source.display();
    let words = match asked {
        "" => format!("the kubeconfig {source} has no current context"),
        _ => format!("the kubeconfig {source} has no context \"{asked}\""),
    };
    Err(Failure::new(words).hint(hint).exit(exit::UNREACHABLE))
}

fn broken(source: &Path, why: &str) -> Failure {
    let why = first_line(&why);
    Failure::new(format!("the kubeconfig {} cannot be used: {why}", source.display()))
        .hint("`cmn up` writes a good one and prints where; name it with --kubeconfig FILE")
        .exit(exit::UNREACHABLE)
}

/// Certificates as text, in lines of 64 characters.
fn pem(certificates: &[Vec<u8>]) -> String {
    let mut text = String::new();
    for certificate in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let mut rest = STANDARD.encode(certificate);
        while !rest.is_empty() {
            let tail = rest.split_off(rest.len().min(64));
            text.push_str(&rest);
            text.push('\n');
            rest = tail;
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

/// Where it is.
pub(crate) fn find(global: &Global) -> Result<PathBuf> {
    if let Some(path) = &global.kubeconfig {
        return Ok(path.clone());
    }
    if let Some(list) = env::var_os("KUBECONFIG").filter(|list| !list.is_empty()) {
        // Several files are merged by kubectl; the first that exists is the one it writes to.
        let paths: Vec<PathBuf> =
            env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect();
        let found = paths.iter().find(|path| path.exists()).or(paths.first());
        if let Some(path) = found {
            return Ok(path.clone());
        }
    }
    if let Some(data_dir) = Beacon::running() {
        return Ok(data_dir.join("kubeconfig"));
    }
    let home = env::home_dir().map(|home| home.join(".kube/config"));
    home.filter(|path| path.exists()).ok_or_else(|| {
        Failure::new(
            "no cluster: no --kubeconfig, no $KUBECONFIG, no running `cmn up`, no ~/.kube/config",
        )
        .hint("start a cluster of your own: `cmn up`")
        .exit(exit::UNREACHABLE)
    })
}

/// Where `cmn up` keeps its data unless told otherwise.
pub(crate) fn default_data_dir() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/var/lib/commonage");
    }
    let base = env::var_os("XDG_DATA_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = base.or_else(|| env::home_dir().map(|home| home.join(".local/share")));
    base.unwrap_or_else(env::temp_dir).join("commonage")
}

/// A cluster that was killed is gone by then, or its disk does not answer.
const ENDING_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two looks.
const ENDING_LOOK: Duration = Duration::from_millis(20);

/// A running `cmn up` lets itself be found: it holds `DATA_DIR/lock`, and a file named by its
/// process id, in a directory that every reboot empties, says where DATA_DIR is.
pub(crate) struct Beacon {
    sign: PathBuf,
    _lock: Flock<File>,
}

impl Beacon {
    /// Claims a data directory, which must exist, for as long as the value lives.
    pub(crate) fn light(data_dir: &Path) -> Result<Self> {
        let lock = Self::lock_only(data_dir)?;
        let _swept = Self::all_running();
        let signs = signs_dir();
        let sign = signs.join(std::process::id().to_string());
        // Only a convenience of the client verbs: without it, they ask for --kubeconfig.
        let path = data_dir.as_os_str().as_encoded_bytes();
        let written = run_dir::make_in(&signs, || fs::write(&sign, path));
        if let Err(error) = written {
            let path = sign.display();
            tracing::warn!(%error, %path, "other cmn commands will not find this cluster");
        }
        Ok(Self { sign, _lock: lock })
    }

    /// Claims a data directory of a role that is no cluster.
    pub(crate) fn lock_only(data_dir: &Path) -> Result<Flock<File>> {
        lock(data_dir).map_err(|error| match error {
            nix::Error::EWOULDBLOCK => {
                Failure::new(format!("another cmn works in {}", data_dir.display())).hint(
                    "stop that one, or give this one its own: --data-dir DIR --listen 127.0.0.1:0",
                )
            }
            other => {
                let path = data_dir.join("lock");
                Failure::new(format!("cannot lock {}: {}", path.display(), other.desc()))
                    .hint("choose a directory that you may write to: --data-dir DIR")
            }
        })
    }

    /// The data directory of the cluster that somebody means who names none: the only one that
    /// runs here; of several, the usual one, or else, after a word about it, the newest.
    fn running() -> Option<PathBuf> {
        let mut running = Self::all_running();
        let newest = running.pop()?;
        let usual = default_data_dir();
        if running.is_empty() || newest == usual {
            return Some(newest);
        }
        if running.contains(&usual) {
            return Some(usual);
        }
        let number = running.len() + 1;
        output::note(&format!(
            "cluster: {}, the newest of {number} that run here",
            newest.display()
        ));
        Some(newest)
    }

    /// Data directories of clusters that run, oldest first.
    pub(crate) fn all_running() -> Vec<PathBuf> {
        let signs = fs::read_dir(signs_dir()).into_iter().flatten().flatten();
        let mut running: Vec<_> = signs.filter_map(|sign| Self::read(&sign.path())).collect();
        running.sort();
        running.into_iter().map(|(_, data_dir)| data_dir).collect()
    }

    /// When a cluster was started and where, if it still runs.
    fn read(sign: &Path) -> Option<(SystemTime, PathBuf)> {
        // Asked by process and not by lock: a probe that locks could be in the way of a start.
        match Life::of(&Path::new("/proc").join(sign.file_name()?)) {
            Life::Running => {
                let since = fs::metadata(sign).and_then(|metadata| metadata.modified()).ok()?;
                Some((since, fs::read_to_string(sign).ok()?.into()))
            }
            Life::Ending => None,
            Life::Over => {
                // Left by one that was killed. Whoever comes by sweeps.
                let _ = fs::remove_file(sign);
                None
            }
        }
    }

    /// Waits until clusters that were killed have let go of their ports and directories; not for ever.
    pub(crate) fn until_killed_are_gone() {
        let began = Instant::now();
        let is_ending = |sign: &fs::DirEntry| {
            Life::of(&Path::new("/proc").join(sign.file_name())) == Life::Ending
        };
        let any_is_ending =
            || fs::read_dir(signs_dir()).into_iter().flatten().flatten().any(|s| is_ending(&s));
        while any_is_ending() && began.elapsed() < ENDING_TIMEOUT {
            std::thread::park_timeout(ENDING_LOOK);
        }
    }
}

impl Drop for Beacon {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.sign);
        run_dir::sweep(&signs_dir());
    }
}

/// Whether a `cmn` lives. A process that was killed has a name and a number until its parent has asked how it ended,
/// which may be never, and its files until the last of its threads is done with the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Running,
    Ending,
    Over,
}

impl Life {
    /// Of the process with this directory in `/proc`. See proc(5).
    fn of(process: &Path) -> Life {
        let read = |file: &str| fs::read_to_string(process.join(file)).unwrap_or_default();
        if read("comm").trim_end() != "cmn" {
            return Life::Over;
        }
        let threads = fs::read_dir(process.join("task")).into_iter().flatten().count();
        Life::judge(&read("stat"), &read("status"), threads)
    }

    fn judge(stat: &str, status: &str, threads: usize) -> Life {
        /// `PF_EXITING` of the ninth field of `stat`.
        const EXITING: u64 = 0x4;
        /// Of the mask of signals that are to come.
        const SIGKILL: u64 = 1 << 8;
        // The second field is a name in parentheses, with anything in it.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
        let state = fields.get(1).copied().unwrap_or_default();
        let flags = fields.get(7).and_then(|flags| flags.parse::<u64>().ok()).unwrap_or(0);
        let pending = status.lines().find_map(|line| line.strip_prefix("SigPnd:"));
        let pending = pending.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        match state {
            "" => Life::Over,
            "Z" | "X" if threads <= 1 => Life::Over,
            "Z" | "X" => Life::Ending,
            _ if flags & EXITING != 0 => Life::Ending,
            _ if pending.is_some_and(|mask| mask & SIGKILL != 0) => Life::Ending,
            _ => Life::Running,
        }
    }
}

fn signs_dir() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/run/commonage/up");
    }
    let run = env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty()).map(PathBuf::from);
    run.unwrap_or_else(default_data_dir).join("commonage/up")
}

fn lock(data_dir: &Path) -> Result<Flock<File>, nix::Error> {
    let path = data_dir.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(
        |error: io::Error| error.raw_os_error().map_or(nix::Error::EIO, nix::Error::from_raw),
    )?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_was_killed_does_not_live_whatever_is_left_of_it() {
        let stat = |state: &str, flags: u64| format!("7 (c) m n) {state} 1 7 7 0 -1 {flags} 0 0");
        let status = |mask: &str| format!("Name:\tcmn\nSigPnd:\t{mask}\nShdPnd:\t0\n");
        let none = status("0000000000000000");
        assert_eq!(Life::judge(&stat("S", 0x40_0100), &none, 9), Life::Running);
        assert_eq!(
            Life::judge(&stat("D", 0x40_0100), &status("0000000000000100"), 9),
            Life::Ending
        );
        assert_eq!(Life::judge(&stat("R", 0x40_0104), &none, 9), Life::Ending);
        assert_eq!(Life::judge(&stat("Z", 0x40_0104), &none, 2), Life::Ending);
        assert_eq!(Life::judge(&stat("Z", 0x40_0104), &none, 1), Life::Over);
        assert_eq!(Life::judge("", "", 0), Life::Over);
    }

    #[test]
    fn a_certificate_is_written_in_short_lines() {
        let text = pem(&[vec![0; 60], b"hi".to_vec()]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "-----BEGIN CERTIFICATE-----");
        assert_eq!((lines[1].len(), lines[2].len()), (64, 16));
        assert_eq!(lines[3], "-----END CERTIFICATE-----");
        assert_eq!(lines[5], "aGk=");
    }
}
