//! Tasks in networks of their own, by plugins of the Container Network Interface.

use std::process::Command;

use commonage_e2e::{Cluster, eventually};

use crate::lan::Lan;

fn apply(cluster: &Cluster, name: &str, network: &str, more: &str, script: &str) {
    let yaml = format!(
        "apiVersion: commonage.dev/v1\nkind: Task\nmetadata: {{name: {name}}}\nspec: {{resources: {{cpu: 100m, memory: \
         64Mi}}, container: {{network: {network}, command: [sh, -c, {script:?}]{more}}}\n"
    );
    cluster.apply(&yaml).ok();
}

/// Answers every request with its own address.
const SERVER: &str = "exec perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Listen => 5, LocalPort => 8080); while ($c = \
                      $s->accept) { <$c>; print $c \"HTTP/1.0 200 OK\\r\\n\\r\\n$ENV{COMMONAGE_IP}\\n\"; close $c }'";

#[test]
fn a_task_has_an_address_of_its_own_and_gives_it_back() {
    let lan = Lan::new(1);
    let mut cluster = lan.cluster();
    let ports = ", ports: [{name: web, containerPort: 8080, hostPort: 0}]}, readinessCheck: {http: {}, \
                 initialDelaySeconds: 0, periodSeconds: 0.1}";
    apply(&cluster, "server", "lan", ports, SERVER);
    cluster.wait_for_state("server", &["Running"]);
    let ip = cluster.field("task/server", ".status.ip");
    assert!(ip.starts_with("10.252.1."), "{ip}");
    eventually("the check to reach it", || {
        let ready = cluster.field("task/server", ".status.ready");
        if ready == "true" { Ok(()) } else { Err(ready) }
    });
    let pods = cluster.kubectl(&["get", "pods", "-o", "wide"]).ok();
    assert!(pods.contains(&ip), "{pods}");
    let fetch = |at: &str| {
        let script = format!("exec 3<>/dev/tcp/{at}; echo GET / >&3; tail -1 <&3");
        let output = Command::new("bash").args(["-c", &script]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let port = cluster.field("task/server", ".status.hostPorts[0]");
    assert_eq!(fetch(&format!("{ip}/8080")), ip);
    assert_eq!(fetch(&format!("10.252.1.1/{port}")), ip, "by the port of the agent");
    // Another task reaches it, and sees no device of the machine.
    let script = format!(
        "bash -c 'exec 3<>/dev/tcp/{ip}/8080; echo GET / >&3; tail -1 <&3'; ls /sys/class/net | tr '\\n' ' '"
    );
    apply(&cluster, "client", "lan", "}", &script);
    cluster.wait_for_state("client", &["Finished"]);
    assert_eq!(cluster.cmn(&["logs", "client"]).ok().trim(), format!("{ip}\neth0 lo"));
    eventually("the client's address to be free", || {
        let taken = lan.taken();
        if taken == [ip.clone()] { Ok(()) } else { Err(format!("{taken:?}")) }
    });
    // Whoever sees to its end, the address is given back.
    cluster.kill();
    cluster.up().unwrap();
    assert_eq!(cluster.field("task/server", ".status.ip"), ip);
    cluster.cmn(&["delete", "--yes", "--grace-period", "0", "task/server"]).ok();
    eventually("all addresses to be free", || {
        let taken = lan.taken();
        if taken.is_empty() { Ok(()) } else { Err(format!("{taken:?}")) }
    });
}

#[test]
fn a_network_that_is_not_there_is_said_with_those_that_are() {
    let lan = Lan::new(2);
    let cluster = lan.cluster();
    apply(&cluster, "lost", "wan", "}", "true");
    cluster.wait_for_state("lost", &["Error", "Failed"]);
    assert_eq!(cluster.field("task/lost", ".status.reason"), "NetworkFailed");
    let message = cluster.field("task/lost", ".status.message");
    assert!(
        message.contains("spec.container.network: this agent has no network \"wan\", but has: lan"),
        "{message}"
    );
}
