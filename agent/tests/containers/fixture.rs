//! One agent's hands on a data directory of their own, and the removal of what they made.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use commonage_agent::detect::{boot_id, remove_empty_group};
use commonage_agent::ledger::{Entry, Ledger};
use commonage_agent::prepare::Prepared;
use commonage_agent::runtime::Shims;
use commonage_agent::task::outcome::End;
use commonage_agent::task::spec::{self, Site};
use commonage_schemas::Task;
use commonage_shim::launch::Stream;
use commonage_shim::{Launch, ZygoteHandle, client, zygote};
use serde_json::json;

/// Far more than anything here takes; a hang is a failure with words, not a stuck build.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn cannot_run() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root");
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let writable = mounts.lines().any(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        fields[2].starts_with("cgroup") && fields[3].split(',').any(|option| option == "rw")
    });
    if writable { None } else { Some("no writable control groups") }
}

pub struct Hands {
    pub shims: Shims,
    pub ledger: Ledger,
    pub launch: Launch,
    pub entry: Entry,
}

impl Hands {
    /// Hands for one task that runs a shell script.
    pub fn new(data_dir: &Path, script: &str) -> Hands {
        Self::with_zygote(data_dir, script, zygote::start().unwrap())
    }

    fn with_zygote(data_dir: &Path, script: &str, zygote: ZygoteHandle) -> Hands {
        let ledger = Ledger::open(data_dir).unwrap();
        let boot_id = boot_id().unwrap();
        // The same uid for whoever opens this directory: the next agent looks for the same task.
        let uid = data_dir.file_name().unwrap().to_str().unwrap().replace('.', "");
        let task: Task = serde_json::from_value(json!({
            "apiVersion": "commonage.dev/v1",
            "kind": "Task",
            "metadata": {"name": "t", "namespace": "test", "uid": uid},
            "spec": {"container": {"command": ["sh", "-c", script]}},
        }))
        .unwrap();
        let site = Site {
            agent: format!("agent-{uid}"),
            host: "127.0.0.1".to_owned(),
            data_dir: data_dir.to_owned(),
            group: format!("/commonage-agent-test/agent-{uid}"),
            server: "https://127.0.0.1:6443".to_owned(),
            leave: Default::default(),
        };
        Hands {
            shims: Shims::new(Arc::new(zygote), ledger.clone(), &boot_id, &site.group),
            launch: spec::launch(&task, &site, ledger.sandbox(&uid), &Prepared::default()).unwrap(),
            entry: Entry {
                uid,
                namespace: "test".to_owned(),
                name: "t".to_owned(),
                boot_id,
                ..Entry::default()
            },
            ledger,
        }
    }

    pub fn uid(&self) -> &str {
        &self.entry.uid
    }

    /// Waits for the end, as the driver does.
    pub fn end(&self) -> End {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ended = self.shims.clone().ended(self.uid().to_owned());
        runtime
            .block_on(async { tokio::time::timeout(PATIENCE, ended).await })
            .expect("the task should have ended by now")
    }

    /// Lets a script go on that waits for a file `go` in its sandbox.
    pub fn go(&self) {
        std::fs::write(self.ledger.sandbox(self.uid()).join("go"), "").unwrap();
    }

    pub fn stdout(&self) -> String {
        let path = self.ledger.state_dir(self.uid()).log(Stream::Stdout);
        std::fs::read_to_string(path).unwrap_or_default()
    }
}

impl Drop for Hands {
    fn drop(&mut self) {
        let dir = self.ledger.state_dir(&self.entry.uid);
        if dir.task_json().exists() {
            let _ = client::kill_by_cgroup(&self.launch);
            self.shims.wait_until_clean(std::slice::from_ref(&self.entry.uid));
            let _ = self.shims.remove(&self.entry.uid);
        }
        let (agent, _) = self.launch.cgroup.rsplit_once('/').unwrap();
        remove_empty_group(agent);
    }
}

/// A directory under the build's own: `/tmp` is private to each task.
pub fn directory() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("agent-")
        .rand_bytes(12)
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .unwrap()
}

pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "never seen: {what}");
        // Between two looks at a condition.
        #[allow(clippy::disallowed_methods)]
        std::thread::sleep(Duration::from_millis(5));
    }
}
