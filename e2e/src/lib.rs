//! Starts real clusters for the tests beside this crate: the executable `cmn` as a user would start
//! it, real kubectl, real containers.
//!
//! A [`Cluster`] has a data directory and a port of its own and leaves nothing behind: dropping it
//! stops the process and waits for its end.

pub mod echo;
pub mod etcd;
pub mod faults;
pub mod history;
pub mod host;
pub mod process;
pub mod recorder;
pub mod registry;
pub mod screen;

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tempfile::TempDir;

/// How long anything may take that a test waits for. Tests run side by side on two cores.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const GLANCE: Duration = Duration::from_millis(25);

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Standard output, of a command that must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "the command failed:\n{}\n{}", self.stdout, self.stderr);
        self.stdout
    }

    /// Both outputs, of a command that must have failed.
    #[track_caller]
    pub fn refused(self) -> String {
        assert_ne!(self.code, 0, "the command should have failed:\n{}", self.stdout);
        self.stdout + &self.stderr
    }
}

/// Looks until `condition` gives something; fails with the last thing seen after [`PATIENCE`].
#[track_caller]
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match condition() {
            Ok(found) => return found,
            Err(seen) if started.elapsed() > PATIENCE => {
                panic!("waited {} s for {what}; last seen: {seen}", PATIENCE.as_secs())
            }
            Err(_) => std::thread::park_timeout(GLANCE),
        }
    }
}

/// As [`eventually`], of what takes its time to find out.
pub async fn soon<T>(what: &str, mut condition: impl AsyncFnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match condition().await {
            Ok(found) => return found,
            Err(seen) if started.elapsed() > PATIENCE => {
                panic!("waited {} s for {what}; last seen: {seen}", PATIENCE.as_secs())
            }
            Err(_) => tokio::time::sleep(GLANCE).await,
        }
    }
}

/// A cluster in one process: `cmn up`.
#[derive(Debug)]
pub struct Cluster {
    process: Option<Child>,
    /// It was killed, and what it ran may be running still.
    killed: bool,
    dir: TempDir,
    arguments: Vec<String>,
}

impl Cluster {
    /// Starts one with the embedded store and waits until its agent is ready.
    pub fn start() -> Cluster {
        Cluster::start_with(&[])
    }

    /// The same with more arguments for `cmn up`.
    pub fn start_with(arguments: &[&str]) -> Cluster {
        let dir =
            tempfile::Builder::new().prefix("cmn-e2e-").tempdir().expect("make a data directory");
        let mut cluster = Cluster {
            process: None,
            killed: false,
            dir,
            arguments: arguments.iter().map(|a| (*a).to_owned()).collect(),
        };
        cluster.up().expect("start the cluster");
        cluster
    }

    /// Starts `cmn up` on the data directory, again if it ran before, and waits until it is ready.
    pub fn up(&mut self) -> anyhow::Result<()> {
        let log = fs::File::options().create(true).append(true).open(self.log_path())?;
        let child = Command::new(cmn_path())
            .arg("up")
            .args(["--data-dir".as_ref(), self.data_dir().as_os_str()])
            .args(["--listen", "127.0.0.1:0"])
            .args(&self.arguments)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start cmn")?;
        self.process = Some(child);
        self.killed = false;
        let started = Instant::now();
        loop {
            if let Some(status) = self.process.as_mut().and_then(|p| p.try_wait().ok().flatten()) {
                bail!("cmn up ended with {status}:\n{}", self.log());
            }
            let agents = self.kubectl(&["get", "agents", "--no-headers", "--request-timeout=2s"]);
            if agents.code == 0 && agents.stdout.contains("True") {
                return Ok(());
            }
            if started.elapsed() > PATIENCE {
                bail!("cmn up is not ready: {agents:?}\n{}", self.log());
            }
            std::thread::park_timeout(GLANCE);
        }
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir().join("kubeconfig")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("up.log")
    }

    /// What `cmn up` has printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().map_or(0, Child::id)
    }

    /// A file for the cluster's tests, in a directory that goes with the cluster.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, content).expect("write a file for the test");
        path
    }

    pub fn cmn(&self, arguments: &[&str]) -> Output {
        run(Command::new(cmn_path())
            .args(arguments)
            .env("KUBECONFIG", self.kubeconfig())
            .env("NO_COLOR", "1"))
    }

    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        run(self.kubectl_command().args(arguments))
    }

    /// kubectl with the admin's kubeconfig and a cache of its own.
    pub fn kubectl_command(&self) -> Command {
        let mut command = Command::new(host::kubectl());
        command
            .arg("--cache-dir")
            .arg(self.dir.path().join("kubectl-cache"))
            .env("KUBECONFIG", self.kubeconfig());
        command
    }

    /// `kubectl apply` of a text.
    pub fn apply(&self, yaml: &str) -> Output {
        let path = self.file(&format!("apply-{}.yaml", fastrand()), yaml);
        self.kubectl(&["apply", "-f", &path.to_string_lossy()])
    }

    /// One field of an object, by kubectl's JSON path without braces.
    pub fn field(&self, object: &str, path: &str) -> String {
        let found = self.kubectl(&["get", object, "-o", &format!("jsonpath={{{path}}}")]);
        if found.code == 0 { found.stdout } else { found.stderr }
    }

    /// Waits until the task is in one of these states; returns the one it is in.
    #[track_caller]
    pub fn wait_for_state(&self, task: &str, states: &[&str]) -> String {
        eventually(&format!("task {task} to be {states:?}"), || {
            let state = self.field(&format!("task/{task}"), ".status.state");
            if states.contains(&state.as_str()) { Ok(state) } else { Err(state) }
        })
    }

    pub async fn client(&self) -> anyhow::Result<kube::Client> {
        let kubeconfig = kube::config::Kubeconfig::read_from(self.kubeconfig())?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
        Ok(kube::Client::try_from(config)?)
    }

    /// `kill -9` of the whole process, without any chance to clean up.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("kill cmn up");
            process.wait().expect("reap cmn up");
            self.killed = true;
        }
    }

    /// The same, and nobody asks how it ended: the process keeps its number and its name for as long as the caller
    /// keeps what is returned and does not wait for it.
    pub fn kill_and_leave(&mut self) -> Option<Child> {
        let mut process = self.process.take()?;
        process.kill().expect("kill cmn up");
        self.killed = true;
        Some(process)
    }

    /// What Ctrl-C does; returns the exit code.
    pub fn stop(&mut self) -> i32 {
        let Some(mut process) = self.process.take() else {
            return 0;
        };
        let pid = nix::unistd::Pid::from_raw(i32::try_from(process.id()).expect("a pid fits"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("signal cmn up");
        eventually("cmn up to stop", || match process.try_wait() {
            Ok(Some(status)) => Ok(status.code().unwrap_or(-1)),
            other => Err(format!("{other:?}")),
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("cmn up printed:\n{}", self.log());
        }
        // What a killed cluster left running belongs to the test and goes with it.
        if self.killed && self.up().is_err() {
            return;
        }
        self.stop();
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Output {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The `cmn` of this build: beside the tests' own executables.
pub fn cmn_path() -> PathBuf {
    if let Some(path) = std::env::var_os("CMN") {
        return path.into();
    }
    let mut directory = std::env::current_exe().expect("know where the test is");
    directory.pop();
    if directory.ends_with("deps") {
        directory.pop();
    }
    let path = directory.join("cmn");
    assert!(path.exists(), "{} is not there: run `cargo build -p commonage` first", path.display());
    path
}

/// The repository's root.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository")
}

/// A number that differs from call to call.
fn fastrand() -> u64 {
    let mut bytes = [0; 8];
    fs::File::open("/dev/urandom")
        .and_then(|mut f| f.read_exact(&mut bytes))
        .expect("read random bytes");
    u64::from_le_bytes(bytes)
}
