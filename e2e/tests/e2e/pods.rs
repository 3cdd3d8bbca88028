//! What kubectl does with pods, done to tasks.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use commonage_e2e::{Cluster, echo, eventually};

fn run(cluster: &Cluster, name: &str, script: &str) {
    let yaml = format!(
        "apiVersion: commonage.dev/v1\nkind: Task\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\n\
         spec: {{resources: {{cpu: 100m, memory: 32Mi}}, container: {{command: [sh, -c, {script:?}]}}}}\n"
    );
    cluster.apply(&yaml).ok();
}

#[test]
fn tasks_are_looked_at_as_pods() {
    let cluster = Cluster::start();
    run(&cluster, "web", "echo hello; exec sleep 600");
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/web", "--timeout=30s"]).ok();
    let table = cluster.kubectl(&["get", "pods", "-o", "wide"]).ok();
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..4], ["web", "1/1", "Running", "0"], "{table}");
    let node = cluster.kubectl(&["get", "nodes", "--no-headers"]).ok();
    assert!(node.contains(" Ready "), "{node}");
    let described = cluster.kubectl(&["describe", "pod", "web"]).ok();
    assert!(described.contains("Controlled By:  Task/web"), "{described}");
    for asked in [&["logs", "web"][..], &["logs", "-l", "app=web"], &["logs", "web", "--tail=1"]] {
        assert_eq!(cluster.kubectl(asked).ok(), "hello\n", "{asked:?}");
    }
    assert_eq!(cluster.kubectl(&["logs", "web", "--limit-bytes=3"]).ok(), "hel");
    let previous = cluster.kubectl(&["logs", "-p", "web"]).refused();
    assert!(previous.contains("previous terminated container"), "{previous}");

    cluster.kubectl(&["delete", "pod", "web", "--timeout=30s"]).ok();
    cluster.kubectl(&["get", "task", "web"]).refused();
    run(&cluster, "three", "exit 3");
    eventually("the pod to have failed", || {
        let table = cluster.kubectl(&["get", "pod", "three", "--no-headers"]).ok();
        if table.contains(" Error ") { Ok(()) } else { Err(table) }
    });
    let code = ".status.containerStatuses[0].state.terminated.exitCode";
    assert_eq!(cluster.field("pod/three", code), "3");
}

#[test]
fn commands_run_in_tasks() {
    let cluster = Cluster::start();
    run(&cluster, "web", "exec sleep 600");
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/web", "--timeout=30s"]).ok();
    let exec =
        cluster.kubectl(&["exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((exec.code, exec.stdout.as_str()), (3, "out\n"), "{exec:?}");
    assert!(exec.stderr.starts_with("err\n"), "{exec:?}");

    let mut cat = cluster.kubectl_command();
    cat.args(["exec", "-i", "web", "--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut cat = cat.spawn().unwrap();
    let sent = vec![b'x'; 300_000];
    let mut input = cat.stdin.take().unwrap();
    let mut output = cat.stdout.take().unwrap();
    let writer = std::thread::spawn({
        let sent = sent.clone();
        move || input.write_all(&sent).unwrap()
    });
    let mut got = Vec::new();
    output.read_to_end(&mut got).unwrap();
    writer.join().unwrap();
    assert!(cat.wait().unwrap().success());
    assert!(got == sent, "{} bytes came back", got.len());

    let file = cluster.file("sent", "there and back\n");
    let back = file.with_extension("back");
    let (file, back) = (file.to_string_lossy(), back.to_string_lossy());
    cluster.kubectl(&["cp", &file, "web:sent"]).ok();
    cluster.kubectl(&["cp", "web:sent", &back]).ok();
    assert_eq!(std::fs::read_to_string(&*back).unwrap(), "there and back\n");
}

/// kubectl, and the port on which it listens.
fn forward(mut kubectl: Command) -> (Child, BufReader<ChildStdout>, u16) {
    let mut forward = kubectl.stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(forward.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let port = line.split_whitespace().find_map(|word| word.strip_prefix("127.0.0.1:"));
    let port = port.unwrap_or_else(|| panic!("{line:?}")).parse().unwrap();
    (forward, output, port)
}

#[test]
fn ports_of_tasks_are_forwarded() {
    let cluster = Cluster::start();
    let yaml = format!(
        "apiVersion: commonage.dev/v1\nkind: Task\nmetadata: {{name: echo}}\nspec: {{resources: {{cpu: 100m, \
         memory: 32Mi}}, container: {{command: [sh, -c, {:?}], ports: [{{name: ECHO, hostPort: 0}}]}}}}\n",
        echo::SERVER
    );
    cluster.apply(&yaml).ok();
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/echo", "--timeout=30s"]).ok();
    let inside = cluster.field("task/echo", ".status.hostPorts[0]");
    let mut kubectl = cluster.kubectl_command();
    kubectl.args(["port-forward", "pod/echo", &format!(":{inside}")]);
    let (mut kubectl, _output, port) = forward(kubectl);
    echo::is_behind(port);
    kubectl.kill().unwrap();
    kubectl.wait().unwrap();
}
