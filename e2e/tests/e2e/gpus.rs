//! GPUs from the agent that has them to the task that gets them, over agents that pretend to have some.

use std::process::{Child, Command, Stdio};

use commonage_e2e::{Cluster, cmn_path, eventually};

/// `cmn simulate --idle`, until the end of the test.
struct Pretended(Child);

impl Pretended {
    /// Two agents, of which `sim-0` has so many GPUs.
    fn start(cluster: &Cluster, gpus: &str) -> Pretended {
        let child = Command::new(cmn_path())
            .args(["simulate", "--agents", "2", "--gpu-agents", "1", "--gpus", gpus, "--idle"])
            .args(["--agent-resources", "cpu=4,memory=8Gi"])
            .env("KUBECONFIG", cluster.kubeconfig())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pretended = Pretended(child);
        eventually("the agent with GPUs", || {
            let gpus = cluster.field("agent/sim-0", ".status.allocatable.gpu");
            let other = cluster.field("agent/sim-1", ".status.allocatable.cpu");
            if !gpus.is_empty() && other == "4" { Ok(()) } else { Err(gpus + &other) }
        });
        pretended
    }
}

impl Drop for Pretended {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

fn task(cluster: &Cluster, name: &str, gpus: u32) {
    let yaml = format!(
        "apiVersion: commonage.dev/v1\nkind: Task\nmetadata: {{name: {name}}}\nspec: {{resources: {{cpu: 100m, memory: \
         64Mi, gpu: {gpus}}}, container: {{command: [sleep, '100000']}}}}\n"
    );
    cluster.apply(&yaml).ok();
}

#[test]
fn whole_gpus_are_given_once_and_the_next_waits() {
    let cluster = Cluster::start();
    let _pretended = Pretended::start(&cluster, "2");
    task(&cluster, "one", 1);
    task(&cluster, "two", 1);
    cluster.wait_for_state("one", &["Running"]);
    cluster.wait_for_state("two", &["Running"]);
    let given = |name: &str| cluster.field(&format!("task/{name}"), ".status.gpus[*]");
    assert_eq!(cluster.field("task/one", ".status.agent"), "sim-0");
    let mut both = [given("one"), given("two")];
    both.sort();
    assert_eq!(both, ["GPU-sim-0-0", "GPU-sim-0-1"]);
    task(&cluster, "three", 1);
    let why = eventually("the third to say why it waits", || {
        let why =
            cluster.field("task/three", ".status.whyPending.excluded[?(@.by==\"gpu\")].agents");
        if why == "3" { Ok(why) } else { Err(why) }
    });
    assert_eq!(why, "3", "no agent of the three has a GPU left");
    assert_eq!(cluster.field("task/three", ".status.state"), "Pending");
    let agents = cluster.kubectl(&["get", "agents", "-o", "wide"]).ok();
    let header: Vec<&str> = agents.lines().next().unwrap().split_whitespace().collect();
    assert!(header.contains(&"GPU") && header.contains(&"USED-GPU"), "{agents}");
    let described = cluster.cmn(&["describe", "agent", "sim-0"]).ok();
    for words in ["GPU-sim-0-1", "GpusHealthy", "commonage.dev/gpu-model=Simulated"] {
        assert!(described.contains(words), "{words} is not in\n{described}");
    }
    let freed = given("one");
    cluster.cmn(&["delete", "--yes", "--grace-period", "0", "task/one"]).ok();
    cluster.wait_for_state("three", &["Running"]);
    assert_eq!(given("three"), freed);
}

#[test]
fn agents_with_gpus_are_offered_to_frameworks_that_know_them_only() {
    let cluster = Cluster::start();
    let _pretended = Pretended::start(&cluster, "1");
    let framework = |name: &str, capabilities: &str| {
        let yaml = format!(
            "apiVersion: commonage.dev/v1\nkind: Framework\nmetadata: {{name: {name}}}\nspec: {{placement: Offers, \
             queues: [{name}], capabilities: [{capabilities}], offers: {{timeoutSeconds: 3600}}}}\n"
        );
        cluster.apply(&yaml).ok();
    };
    let offered = |name: &str| {
        let path = format!("{{.items[?(@.spec.framework==\"{name}\")].spec.agent}}");
        let agents = cluster.kubectl(&["get", "offers", "-o", &format!("jsonpath={path}")]).ok();
        let mut agents: Vec<String> = agents.split_whitespace().map(str::to_owned).collect();
        agents.sort();
        agents
    };
    framework("plain", "");
    eventually("offers of the others", || {
        let agents = offered("plain");
        if agents.len() == 2 { Ok(()) } else { Err(format!("{agents:?}")) }
    });
    assert!(!offered("plain").contains(&"sim-0".to_owned()));
    framework("learner", "Gpu");
    eventually("an offer with the GPU", || {
        let agents = offered("learner");
        if agents == ["sim-0"] { Ok(()) } else { Err(format!("{agents:?}")) }
    });
    let path = "jsonpath={.items[?(@.spec.framework==\"learner\")].spec.resources.gpu}";
    assert_eq!(cluster.kubectl(&["get", "offers", "-o", path]).ok(), "1");
    assert!(!offered("plain").contains(&"sim-0".to_owned()));
}
