//! Tasks of a group: one network, one memory, one fate.

use commonage_e2e::{Cluster, eventually};

use crate::lan::Lan;

/// One object of a list to apply at once.
fn task(name: &str, group: &str, container: &str, script: &str) -> String {
    format!(
        "---\napiVersion: commonage.dev/v1\nkind: Task\nmetadata: {{name: {name}}}\nspec: {{{group}resources: {{cpu: \
         100m, memory: 64Mi}}, killPolicy: {{gracePeriodSeconds: 0}}, container: {{{container}command: [bash, -c, \
         {script:?}]}}}}\n"
    )
}

/// In one step, by an offer: so all of a group are there at once.
fn gang(name: &str) -> String {
    format!("group: {name}, gang: {{name: {name}, size: 2}}, ")
}

fn mounts() -> usize {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    mounts.lines().filter(|line| line.contains("/run/commonage/groups/")).count()
}

fn groups(cluster: &Cluster) -> usize {
    let groups = std::fs::read_dir(cluster.data_dir().join("agent/groups"));
    groups.map_or(0, Iterator::count)
}

const SERVER: &str = "ipcmk -M 4096 -p 0666 >/dev/null; echo from-the-server > /dev/shm/note; exec perl \
                      -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Listen => 5, LocalAddr => \"127.0.0.1\", \
                      LocalPort => 8080); while ($c = $s->accept) { print $c \"hello\\n\"; close $c }'";
const CLIENT: &str = "for i in $(seq 600); do exec 3<>/dev/tcp/127.0.0.1/8080 && break; sleep 0.1; done \
                      2>/dev/null; cat <&3; cat /dev/shm/note; ipcs -m | grep -c 4096; hostname -I";

#[test]
fn a_group_shares_network_and_memory_and_others_do_not() {
    let lan = Lan::new(3);
    let mut cluster = lan.cluster();
    let network = "network: lan, ";
    let pair = task("server", &gang("pod"), network, SERVER)
        + &task("client", &gang("pod"), network, CLIENT);
    cluster.apply(&pair).ok();
    cluster.wait_for_state("server", &["Running"]);
    cluster.wait_for_state("client", &["Finished"]);
    let ip = cluster.field("task/server", ".status.ip");
    let printed = cluster.cmn(&["logs", "client"]).ok();
    let lines: Vec<&str> = printed.split_whitespace().collect();
    assert_eq!(lines, ["hello", "from-the-server", "1", &ip], "{printed}");
    assert_eq!(lan.taken(), std::slice::from_ref(&ip), "one address for both");
    // One that ends well does not end the others; one that comes from elsewhere sees nothing of them.
    let outside = "exec 3<>/dev/tcp/127.0.0.1/8080 || echo refused; ls /dev/shm | wc -l; ipcs -m | grep -c 4096";
    cluster.apply(&task("stranger", "", network, outside)).ok();
    cluster.wait_for_state("stranger", &["Finished", "Failed"]);
    let printed = cluster.cmn(&["logs", "stranger"]).ok();
    let heard: Vec<&str> =
        printed.lines().filter(|line| matches!(*line, "refused" | "0")).collect();
    assert_eq!(heard, ["refused", "0", "0"], "{printed}");
    assert_eq!(cluster.field("task/server", ".status.state"), "Running");
    // What they share outlives the agent, and one who comes later finds it.
    cluster.kill();
    cluster.up().unwrap();
    cluster.apply(&task("late", "group: pod, ", network, CLIENT)).ok();
    cluster.wait_for_state("late", &["Finished"]);
    assert!(cluster.cmn(&["logs", "late"]).ok().contains("from-the-server"));
    cluster.cmn(&["delete", "--yes", "task/server"]).ok();
    eventually("nothing to be left", || {
        let left = (lan.taken(), groups(&cluster));
        if left == (Vec::new(), 0) { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

#[test]
fn the_failure_of_one_ends_all_of_its_group() {
    let mut cluster = Cluster::start();
    let wait = "trap '' TERM; sleep 100000 & wait";
    let told = "until [ -e /sandbox/go ]; do sleep 0.1; done; exit 3";
    let pair = task("fails", &gang("pod"), "", told) + &task("stays", &gang("pod"), "", wait);
    cluster.apply(&pair).ok();
    cluster.wait_for_state("fails", &["Running"]);
    cluster.wait_for_state("stays", &["Running"]);
    assert_eq!(cluster.field("task/stays", ".status.groupSize"), "2");
    // The task may end, and this command with it, before the command's own end is told.
    let _ = cluster.cmn(&["exec", "fails", "--", "touch", "/sandbox/go"]);
    cluster.wait_for_state("fails", &["Failed"]);
    cluster.wait_for_state("stays", &["Killed"]);
    assert_eq!(cluster.field("task/stays", ".status.reason"), "GroupEnded");
    let message = cluster.field("task/stays", ".status.message");
    assert_eq!(message, "task fails of its group is Failed (ExitCode)");
    // The name may be used again at once.
    let again = task("again", &gang("pod"), "", wait) + &task("too", &gang("pod"), "", wait);
    cluster.apply(&again).ok();
    cluster.wait_for_state("again", &["Running"]);
    cluster.wait_for_state("too", &["Running"]);
    let before = mounts();
    assert!(before >= 2, "{before}");
    cluster.cmn(&["delete", "--yes", "task/too"]).ok();
    cluster.wait_for_state("again", &["Killed"]);
    assert_eq!(cluster.field("task/again", ".status.reason"), "GroupEnded");
    eventually("the group to be gone", || match groups(&cluster) {
        0 => Ok(()),
        left => Err(left.to_string()),
    });
    cluster.stop();
    let text =
        std::fs::read_dir(cluster.data_dir().join("agent/groups")).map_or(0, Iterator::count);
    assert_eq!(text, 0);
}

#[test]
fn none_starts_if_one_cannot() {
    let cluster = Cluster::start();
    let bad = task("bad", &gang("pod"), "image: 'no such image', ", "true");
    let pair = bad + &task("good", &gang("pod"), "", "echo started");
    cluster.apply(&pair).ok();
    cluster.wait_for_state("bad", &["Error", "Failed"]);
    cluster.wait_for_state("good", &["Killed"]);
    assert_eq!(cluster.field("task/good", ".status.reason"), "GroupEnded");
    assert_eq!(cluster.field("task/good", ".status.startedAt"), "");
}
