//! A whole cluster whose agents are there to be broken: an API server, controllers, and as many agents as a test
//! wants, each a process on a data directory of its own.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context;
use commonage_schemas::{Agent, Queue, Task};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::servers::Servers;
use crate::process::Role;
use crate::{eventually, host, run, soon};

/// The cluster without its agents.
pub struct Field {
    // Dropped in this order.
    controllers: Option<Role>,
    pub servers: Servers,
    pub client: Client,
    dir: TempDir,
    /// Ends the names of its agents: control groups are called after them, and several fields lie side by side on
    /// one machine.
    tag: String,
}

fn tag() -> String {
    static FIELDS: AtomicU32 = AtomicU32::new(0);
    format!("{:x}-{}", std::process::id(), FIELDS.fetch_add(1, Ordering::Relaxed))
}

fn named(name: &str, tag: &str) -> String {
    format!("{name}-{tag}")
}

impl Field {
    /// Starts API server and controllers, and lets tasks mount what lies below [`Field::dir`]. `agents`: all
    /// there will be, by what the test calls them.
    pub async fn start(agents: &[impl AsRef<str>], controllers: &[&str]) -> anyhow::Result<Field> {
        Field::start_at(Ipv4Addr::LOCALHOST.into(), agents, controllers).await
    }

    /// The same with an API server at another address of this machine.
    pub async fn start_at(
        host: IpAddr,
        agents: &[impl AsRef<str>],
        controllers: &[&str],
    ) -> anyhow::Result<Field> {
        let dir = tempfile::Builder::new().prefix("cmn-field-").tempdir()?;
        let tag = tag();
        let names: Vec<String> = agents.iter().map(|name| named(name.as_ref(), &tag)).collect();
        let mut arguments = vec!["--serve-pods=false"];
        arguments.extend(names.iter().flat_map(|name| ["--agent", name.as_str()]));
        let servers = Servers::start_at(host, &arguments).await?;
        let written =
            |name: &String| servers.data_dir(0).join(format!("agents/{name}.kubeconfig")).exists();
        eventually("the agents' kubeconfigs", || match names.iter().all(written) {
            true => Ok(()),
            false => Err(servers.printed(0)),
        });
        let kubeconfig = kube::config::Kubeconfig::read_from(servers.kubeconfig(0))?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
        let client = Client::try_from(config)?;
        let mut field = Field { controllers: None, servers, client, dir, tag };
        field.start_controllers(controllers)?;
        let sandbox = json!({"hostPaths": [field.dir()]});
        let queue = json!({
            "apiVersion": "commonage.dev/v1", "kind": "Queue", "metadata": {"name": "default"},
            "spec": {"sandbox": sandbox},
        });
        let queues: Api<Queue> = Api::all(field.client.clone());
        let apply = PatchParams::apply("e2e").force();
        queues.patch("default", &apply, &Patch::Apply(queue)).await.context("allow host paths")?;
        Ok(field)
    }

    /// Starts the controllers, in place of those that may be running.
    pub fn start_controllers(&mut self, arguments: &[&str]) -> anyhow::Result<()> {
        self.controllers = None;
        let kubeconfig = self.servers.data_dir(0).join("controllers.kubeconfig");
        let kubeconfig = kubeconfig.to_string_lossy();
        let mut all = vec!["controllers", "--kubeconfig", &kubeconfig];
        all.extend(arguments);
        self.controllers = Some(Role::start(&self.dir().join("controllers.log"), &all)?);
        Ok(())
    }

    /// Where files of the test go; tasks may mount what is in it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn tasks(&self) -> Api<Task> {
        Api::namespaced(self.client.clone(), "default")
    }

    pub fn agents(&self) -> Api<Agent> {
        Api::all(self.client.clone())
    }

    /// The whole name of an agent.
    pub fn name_of(&self, agent: &str) -> String {
        named(agent, &self.tag)
    }

    /// An agent that was never started.
    pub fn agent(&self, name: &str) -> Seat {
        let name = &self.name_of(name);
        let directory = self.dir().join(name);
        std::fs::create_dir_all(&directory).expect("make an agent's directory");
        Seat {
            name: name.to_owned(),
            kubeconfig: self.servers.data_dir(0).join(format!("agents/{name}.kubeconfig")),
            data_dir: directory.join("data"),
            directory,
            namespace: None,
            executable: None,
            starts: 0,
            role: None,
        }
    }

    /// Creates a task from its `spec`.
    pub async fn create(&self, name: &str, spec: Value) -> anyhow::Result<Task> {
        let task: Task = serde_json::from_value(json!({
            "apiVersion": "commonage.dev/v1", "kind": "Task", "metadata": {"name": name}, "spec": spec,
        }))?;
        Ok(self.tasks().create(&PostParams::default(), &task).await?)
    }

    pub async fn delete(&self, name: &str) -> anyhow::Result<()> {
        self.tasks().delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    pub async fn delete_all(&self) {
        let tasks = self.tasks().list(&Default::default()).await.expect("list the tasks");
        for task in tasks {
            self.delete(&task.name_any()).await.expect("delete a task of ours");
        }
    }

    /// Deletes all tasks, of which this agent has the last: see [`Seat::leaves_nothing`].
    pub async fn leaves_nothing(&self, seat: Seat) {
        self.delete_all().await;
        seat.leaves_nothing();
    }

    /// Waits until an agent has registered and is thought alive.
    pub async fn until_ready(&self, seat: &Seat) {
        let agents = self.agents();
        soon(&format!("agent {} to be ready", seat.name), async || {
            let agent = agents.get_opt(&seat.name).await.map_err(|error| error.to_string())?;
            let status = agent.and_then(|agent| agent.status).unwrap_or_default();
            let ready = status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
            if ready { Ok(()) } else { Err(format!("{status:?}\n{}", seat.printed())) }
        })
        .await;
    }

    /// Waits until a task is as it should be; returns it.
    pub async fn until(&self, name: &str, what: &str, is: impl Fn(&Task) -> bool) -> Task {
        let tasks = self.tasks();
        soon(&format!("task {name} {what}"), async || match tasks.get(name).await {
            Ok(task) if is(&task) => Ok(task),
            Ok(task) => Err(serde_json::to_string(&task.status).unwrap_or_default()),
            Err(error) => Err(error.to_string()),
        })
        .await
    }
}

/// One agent: what there is of it when it does not run, and the process when it does.
pub struct Seat {
    pub name: String,
    pub kubeconfig: PathBuf,
    pub data_dir: PathBuf,
    /// Path of the network namespace that it lives in, if not in this one.
    pub namespace: Option<String>,
    /// What it is started from, if not from this build.
    pub executable: Option<PathBuf>,
    directory: PathBuf,
    starts: u32,
    role: Option<Role>,
}

impl Seat {
    /// Starts it, again if it ran before; does not wait.
    pub fn start(&mut self, arguments: &[&str], variables: &[(&str, &str)]) -> anyhow::Result<()> {
        let (kubeconfig, data) =
            (self.kubeconfig.to_string_lossy(), self.data_dir.to_string_lossy());
        let mut all = vec!["agent", "--kubeconfig", &kubeconfig, "--data-dir", &data];
        all.extend(["--node-name", &self.name]);
        all.extend(arguments);
        self.starts += 1;
        let log = self.directory.join(format!("log-{}", self.starts));
        let executable = self.executable.clone().unwrap_or_else(crate::cmn_path);
        let namespace = self.namespace.as_deref();
        self.role = Some(Role::start_of(&executable, namespace, &log, &all, variables)?);
        Ok(())
    }

    pub fn pid(&self) -> Option<u32> {
        self.role.as_ref().map(Role::pid)
    }

    /// Whether it runs.
    pub fn runs(&mut self) -> bool {
        self.role.as_mut().is_some_and(|role| role.ended().is_none())
    }

    /// What it has printed since its first start.
    pub fn printed(&self) -> String {
        let logs = (1..=self.starts).map(|number| self.directory.join(format!("log-{number}")));
        logs.map(|log| std::fs::read_to_string(log).unwrap_or_default()).collect()
    }

    /// `kill -9`, if it runs.
    pub fn kill(&mut self) {
        if let Some(role) = self.role.take() {
            role.kill();
        }
    }

    /// As a service manager would.
    pub fn stop(&mut self) -> i32 {
        self.role.take().map_or(0, |mut role| role.stop())
    }

    /// What the path of its control group, and so of those of its tasks, has in it.
    fn inside(&self) -> String {
        format!("/{}.", self.name)
    }

    /// The processes of its tasks.
    pub fn contained(&self) -> Vec<i32> {
        host::contained(&self.inside())
    }

    /// Kills its shims, if there are to be none either, and all processes of its tasks, as the end of the machine
    /// does.
    pub fn kill_tasks(&self, shims: bool) {
        let shims = if shims { self.shims() } else { Vec::new() };
        for pid in shims.into_iter().chain(self.contained()) {
            // Some die of another's death.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    /// The directories of its ledger.
    pub fn ledger(&self) -> Vec<PathBuf> {
        let tasks = std::fs::read_dir(self.data_dir.join("agent/tasks"));
        tasks.into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    }

    /// Its shims, by process id: those who have files of its ledger open.
    pub fn shims(&self) -> Vec<i32> {
        host::users_of(&self.data_dir)
            .into_iter()
            .filter(|pid| host::name_of(*pid) == "cmn-shim")
            .collect()
    }

    /// All its tasks deleted by now, it forgets them, and stops; nothing is left of them.
    pub fn leaves_nothing(mut self) {
        eventually("the ledger to be empty", || match self.ledger() {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}\n{}", self.printed())),
        });
        assert_eq!(self.stop(), 0, "{}", self.printed());
        eventually("nothing to be left", || match self.left_over() {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:#?}")),
        });
    }

    /// Everything on the machine that is of its tasks, the ledger and what it has pulled left out.
    pub fn left_over(&self) -> Vec<String> {
        let data = self.data_dir.to_string_lossy();
        let groups = host::cgroups(&self.inside());
        let groups = groups.into_iter().map(|group| group.display().to_string());
        let users = host::users_of(&self.data_dir)
            .into_iter()
            .map(|pid| format!("process {pid} {}", host::name_of(pid)));
        groups.chain(host::mounts(&data)).chain(users).collect()
    }
}

/// What a test that failed has left goes with it.
impl Drop for Seat {
    fn drop(&mut self) {
        self.stop();
        if self.left_over().is_empty() {
            return;
        }
        self.kill_tasks(true);
        let data = self.data_dir.to_string_lossy().into_owned();
        for line in host::mounts(&data) {
            run(Command::new("umount").arg("-l").args(line.split(' ').nth(1)));
        }
        let mut groups = host::cgroups(&self.inside());
        // Those below others first; empty in a moment, or else the next test says so.
        groups.sort_by_key(|group| std::cmp::Reverse(group.components().count()));
        for group in groups {
            for _ in 0..100 {
                if std::fs::remove_dir(&group).is_ok() || !group.exists() {
                    break;
                }
                std::thread::park_timeout(std::time::Duration::from_millis(10));
            }
        }
    }
}
