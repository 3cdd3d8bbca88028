//! Whole clusters: everything replaced in turn, controllers cut off, a name used again. F-13, F-27,
//! F-31; the store is taken back under controllers and agents that run on.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use commonage_e2e::etcd::Etcd;
use commonage_e2e::faults::members::{ask, encoded};
use commonage_e2e::faults::proxy::{Harm, Proxy};
use commonage_e2e::faults::servers::Servers;
use commonage_e2e::process::Role;
use commonage_e2e::{Output, cmn_path, eventually, host, run};
use serde_json::json;

/// Two API servers over etcd behind one address, controllers and an agent, each a process.
struct Whole {
    // Dropped in this order: the agent takes its tasks with it while there is somebody to tell.
    agent: Option<Role>,
    controllers: Option<Role>,
    /// What everybody takes for the API server.
    front: Proxy,
    servers: Servers,
    etcd: Etcd,
    dir: tempfile::TempDir,
}

impl Whole {
    async fn start() -> Whole {
        let etcd = Etcd::start().unwrap();
        let store = format!("etcd://{}", etcd.address());
        let servers = Servers::start(2, &["--store", &store, "--agent", "node-1"]).await.unwrap();
        let front = Proxy::start(servers.address(0)).await.unwrap();
        let dir = tempfile::Builder::new().prefix("cmn-whole-").tempdir().unwrap();
        let mut whole = Whole { agent: None, controllers: None, front, servers, etcd, dir };
        let own = format!("127.0.0.1:{}", whole.servers.address(0).port());
        for name in ["kubeconfig", "controllers.kubeconfig", "agents/node-1.kubeconfig"] {
            let text = std::fs::read_to_string(whole.servers.data_dir(0).join(name)).unwrap();
            let text = text.replace(&own, &whole.front.address().to_string());
            std::fs::write(whole.path(&name.replace('/', "-")), text).unwrap();
        }
        whole.start_controllers();
        whole.start_agent();
        whole
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_string_lossy().into_owned()
    }

    fn role(&self, name: &str, arguments: &[&str]) -> Role {
        Role::start(Path::new(&self.path(&format!("{name}.log"))), arguments).unwrap()
    }

    fn start_controllers(&mut self) {
        let kubeconfig = self.path("controllers.kubeconfig");
        let arguments = ["controllers", "--kubeconfig", &kubeconfig];
        self.controllers = Some(self.role("controllers", &arguments));
    }

    fn start_agent(&mut self) {
        let (kubeconfig, data) = (self.path("agents-node-1.kubeconfig"), self.path("agent"));
        let arguments =
            ["agent", "--kubeconfig", &kubeconfig, "--data-dir", &data, "--node-name", "node-1"];
        self.agent = Some(self.role("agent", &arguments));
        eventually("the agent to be ready", || {
            let agents = self.kubectl(&["get", "agent", "node-1", "--no-headers"]);
            if agents.stdout.contains("True") { Ok(()) } else { Err(format!("{agents:?}")) }
        });
    }

    fn kubectl(&self, arguments: &[&str]) -> Output {
        let kubeconfig = self.path("kubeconfig");
        let mut command = Command::new(host::kubectl());
        command.args(["--cache-dir", &self.path("cache"), "--kubeconfig", &kubeconfig]);
        run(command.args(["--request-timeout", "10s"]).args(arguments))
    }

    fn task(&self, name: &str, script: &str) {
        self.task_where(name, script, "{}");
    }

    fn task_where(&self, name: &str, script: &str, constraints: &str) {
        let manifest = format!(
            "apiVersion: commonage.dev/v1\nkind: Task\nmetadata: {{name: {name}}}\nspec:\n  \
             constraints: {constraints}\n  \
             resources: {{cpu: '0.1', memory: 32Mi}}\n  killPolicy: {{gracePeriodSeconds: 1}}\n  \
             container: {{command: [sh, -c, '{script}']}}\n"
        );
        let file = self.path(&format!("{name}.yaml"));
        std::fs::write(&file, manifest).unwrap();
        self.kubectl(&["create", "-f", &file]).ok();
    }

    fn field(&self, name: &str, path: &str) -> String {
        let path = format!("jsonpath={{{path}}}");
        let found = self.kubectl(&["get", "task", name, "-o", &path]);
        if found.code == 0 { found.stdout } else { found.stderr }
    }

    fn wait_for(&self, name: &str, state: &str) {
        eventually(&format!("{name} to be {state}"), || {
            let found = self.field(name, ".status.state");
            let why = || self.field(name, ".status");
            if found == state { Ok(()) } else { Err(format!("{found}: {}", why())) }
        });
    }

    fn front_to(&self, number: usize) {
        let address: SocketAddr = self.servers.address(number);
        self.front.redirect(address);
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        if self.agent.is_none() {
            self.start_agent();
        }
        // Containers outlive their agent: they have to go before it does.
        self.kubectl(&["delete", "tasks", "--all", "--timeout=30s"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f13_everything_is_replaced_in_turn_and_no_task_notices() {
    let mut whole = Whole::start().await;
    let names: Vec<String> = (0..3).map(|number| format!("steady-{number}")).collect();
    for name in &names {
        whole.task(name, "while :; do sleep 0.1; done");
    }
    names.iter().for_each(|name| whole.wait_for(name, "Running"));
    let containers: Vec<String> =
        names.iter().map(|name| whole.field(name, ".status.containerId")).collect();
    for number in 0..2 {
        whole.front_to(1 - number);
        assert_eq!(whole.servers.stop(number), 0);
        whole.kubectl(&["get", "tasks"]).ok();
        whole.servers.up(number).unwrap();
        whole.servers.ready(number).await.unwrap();
    }
    assert_eq!(whole.controllers.take().unwrap().stop(), 0);
    whole.start_controllers();
    assert_eq!(whole.agent.take().unwrap().stop(), 0);
    whole.start_agent();
    // What is new is placed, what is old was never touched.
    whole.task("new", "exit 3");
    whole.wait_for("new", "Failed");
    for (name, container) in names.iter().zip(&containers) {
        whole.wait_for(name, "Running");
        assert_eq!(whole.field(name, ".status.containerId"), *container);
        let states = whole.field(name, ".status.history[*].state");
        assert!(!states.contains("Lost") && !states.contains("Failed"), "{name}: {states}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f31_controllers_are_cut_off_from_the_api_server_and_reach_nothing_else() {
    let whole = Whole::start().await;
    whole.task("before", "while :; do sleep 0.1; done");
    whole.wait_for("before", "Running");
    let store: SocketAddr = whole.etcd.address().parse().unwrap();
    let pids = [&whole.controllers, &whole.agent].map(|role| role.as_ref().unwrap().pid());
    // The API server does talk to etcd; the others have not even a connection.
    assert!(!connections(whole.servers.pid(0), store.port()).is_empty());
    for pid in pids {
        assert_eq!(connections(pid, store.port()), Vec::<String>::new());
    }
    whole.front.set(Harm::Hold);
    // By its own address, past the front: the API works, nobody decides.
    let direct = whole.servers.kubeconfig(0).to_string_lossy().into_owned();
    let file = whole.path("before.yaml");
    let manifest = std::fs::read_to_string(&file).unwrap().replace("before", "during");
    std::fs::write(whole.path("during.yaml"), manifest).unwrap();
    let kubectl = |arguments: &[&str]| {
        run(Command::new(host::kubectl()).args(["--kubeconfig", &direct]).args(arguments))
    };
    kubectl(&["create", "-f", &whole.path("during.yaml")]).ok();
    let state = kubectl(&["get", "task", "during", "-o", "jsonpath={.status.state}"]).ok();
    assert_eq!(state, "Pending");
    whole.front.set(Harm::None);
    whole.wait_for("during", "Running");
    whole.wait_for("before", "Running");
}

/// Sockets of a process that are connected to this port.
fn connections(pid: u32, port: u16) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let wanted = format!(":{port:04X}");
    let lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let inodes: Vec<String> = lines
        .filter(|line| line.len() > 9 && line[2].ends_with(&wanted) && line[3] == "01")
        .map(|line| format!("socket:[{}]", line[9]))
        .collect();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    open.filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .map(|link| link.to_string_lossy().into_owned())
        .filter(|link| inodes.contains(link))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f27_a_name_is_used_again_while_the_old_task_still_runs() {
    let mut whole = Whole::start().await;
    whole.task("again", "trap \"\" TERM; while :; do sleep 0.1; done");
    whole.wait_for("again", "Running");
    let old = (whole.field("again", ".metadata.uid"), whole.field("again", ".status.containerId"));
    // The agent is away while the task is deleted: its container runs on.
    whole.agent.take().unwrap().kill();
    whole.kubectl(&["delete", "task", "again", "--wait=false"]).ok();
    let refused = whole.kubectl(&["create", "-f", &whole.path("again.yaml")]).refused();
    assert!(refused.contains("already exists"), "{refused}");
    whole.start_agent();
    eventually("the old one to be gone", || {
        let made = whole.kubectl(&["create", "-f", &whole.path("again.yaml")]);
        if made.code == 0 { Ok(()) } else { Err(made.stderr) }
    });
    whole.wait_for("again", "Running");
    let new = (whole.field("again", ".metadata.uid"), whole.field("again", ".status.containerId"));
    assert!(new.0 != old.0 && new.1 != old.1, "{new:?} after {old:?}");
    eventually("the old container to be gone", || match host::cgroups(&old.1) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
    // What somebody still has to say about the old one is not said about the new one.
    let patch =
        format!("{{\"metadata\":{{\"uid\":\"{}\"}},\"status\":{{\"message\":\"x\"}}}}", old.0);
    let stale = whole.kubectl(&[
        "patch",
        "task",
        "again",
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ]);
    let refused = stale.refused();
    assert!(refused.contains("Conflict") || refused.contains("UID"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_taken_back_while_controllers_and_agents_run_on() {
    let mut whole = Whole::start().await;
    let forever = "while :; do sleep 0.1; done";
    let running = |whole: &Whole, name: &str| {
        whole.wait_for(name, "Running");
        whole.field(name, ".status.containerId")
    };
    whole.task("kept", forever);
    whole.task_where("waits", forever, "{required: {matchLabels: {disk: ssd}}}");
    let kept = running(&whole, "kept");
    whole.wait_for("waits", "Pending");
    let store = format!("etcd://{}", whole.etcd.address());
    let file = whole.path("a.backup");
    let cmn = |arguments: &[&str]| run(Command::new(cmn_path()).args(arguments));
    cmn(&["backup", "--store", &store, &file]).ok();

    // After the backup: one more, and one that waited is placed.
    whole.kubectl(&["label", "agent", "node-1", "disk=ssd"]).ok();
    whole.task("unknown", forever);
    let (placed, unknown) = (running(&whole, "waits"), running(&whole, "unknown"));

    for number in 0..2 {
        whole.servers.kill(number);
    }
    let all = json!({"key": encoded(b"/commonage/"), "range_end": encoded(b"/commonage0")});
    ask(whole.etcd.address(), "/v3/kv/deleterange", &all).unwrap();
    cmn(&["restore", &file, "--store", &store]).ok();
    for number in 0..2 {
        whole.servers.up(number).unwrap();
        whole.servers.ready(number).await.unwrap();
    }

    eventually("what the backup does not know to be gone", || {
        let left = host::cgroups(&unknown);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    assert!(whole.kubectl(&["get", "task", "unknown"]).refused().contains("not found"));
    // The agent lost its label with the rest.
    whole.kubectl(&["label", "agent", "node-1", "disk=ssd", "--overwrite"]).ok();
    eventually("what waits again to be placed again", || {
        // Its container goes on if it is placed before the agent looks, else it was killed.
        let (state, container) =
            (whole.field("waits", ".status.state"), whole.field("waits", ".status.containerId"));
        match (state.as_str(), container == placed) {
            ("Running" | "Killed", true) => Ok(()),
            _ => Err(format!("{state} in {container}, was in {placed}")),
        }
    });
    assert_eq!(running(&whole, "kept"), kept);
    whole.task("after", "exit 3");
    whole.wait_for("after", "Failed");
}
