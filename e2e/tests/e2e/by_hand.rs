//! What a new user types, in the order of the README, with what they must see.

use commonage_e2e::{Cluster, eventually, repository};

#[test]
fn a_task_is_run_watched_explained_and_deleted() {
    let cluster = Cluster::start();

    let run = [
        "run",
        "--name",
        "hello",
        "--cpu",
        "0.1",
        "--memory",
        "32Mi",
        "--",
        "sh",
        "-c",
        "echo hello; echo oops >&2",
    ];
    let printed = cluster.cmn(&run);
    assert_eq!(printed.code, 0, "{printed:?}");
    assert!(printed.stdout.contains("hello"), "{printed:?}");

    let table = cluster.kubectl(&["get", "tasks"]).ok();
    let mut lines = table.lines();
    let header = lines.next().unwrap();
    for column in ["NAME", "STATE", "FRAMEWORK", "AGENT", "CPU", "MEMORY", "AGE"] {
        assert!(header.contains(column), "{header}");
    }
    let row = lines.next().unwrap();
    assert!(row.starts_with("hello") && row.contains("Finished"), "{row}");

    let described = cluster.kubectl(&["describe", "task", "hello"]).ok();
    for part in ["Kind:         Task", "Exit Code:", "State:", "Finished", "History:"] {
        assert!(described.contains(part), "no {part:?} in:\n{described}");
    }

    let explained = cluster.kubectl(&["explain", "task.spec.container"]).ok();
    assert!(explained.contains("The program and its first arguments"), "{explained}");

    assert!(cluster.cmn(&["logs", "hello"]).ok().contains("hello"));
    assert!(cluster.cmn(&["get", "agents"]).ok().contains("True"));

    cluster.kubectl(&["delete", "task", "hello", "--timeout=30s"]).ok();
    let gone = cluster.kubectl(&["get", "task", "hello"]).refused();
    assert!(gone.contains(r#"tasks.commonage.dev "hello" not found"#), "{gone}");
}

#[test]
fn the_exit_code_of_a_run_is_that_of_its_task() {
    let cluster = Cluster::start();
    let run = |name: &str, script: &str| {
        cluster
            .cmn(&[
                "run", "--name", name, "--cpu", "0.1", "--memory", "32Mi", "--", "sh", "-c", script,
            ])
            .code
    };
    assert_eq!(run("three", "exit 3"), 3);
    assert_eq!(run("signalled", "kill -KILL $$"), 128 + 9);
    assert_eq!(cluster.field("task/three", ".status.state"), "Failed");
    assert_eq!(cluster.field("task/three", ".status.reason"), "ExitCode");
    assert_eq!(cluster.field("task/signalled", ".status.signal"), "9");
}

#[test]
fn nginx_serves_on_the_port_that_it_was_given_until_it_is_deleted() {
    let cluster = Cluster::start();
    let manifest = repository().join("examples/nginx.yaml");
    cluster.kubectl(&["apply", "-f", &manifest.to_string_lossy()]).ok();
    cluster.wait_for_state("nginx", &["Running"]);
    let port = eventually("nginx to be healthy", || {
        let healthy = cluster.field("task/nginx", ".status.healthy");
        if healthy == "true" {
            Ok(cluster.field("task/nginx", ".status.hostPorts[0]"))
        } else {
            Err(healthy)
        }
    });
    let answer = get(&port);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    // Applying the same again changes nothing, though the port was picked meanwhile.
    let version = cluster.field("task/nginx", ".metadata.generation");
    cluster.kubectl(&["apply", "-f", &manifest.to_string_lossy()]).ok();
    assert_eq!(cluster.field("task/nginx", ".metadata.generation"), version);
    assert_eq!(cluster.field("task/nginx", ".status.hostPorts[0]"), port);

    cluster.kubectl(&["delete", "task", "nginx", "--timeout=40s"]).ok();
    assert!(
        std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_err(),
        "nginx still listens on {port}"
    );
}

#[test]
fn a_log_is_followed_to_the_end_of_its_task() {
    let cluster = Cluster::start();
    let script = "for i in 1 2 3; do echo line $i; sleep 0.3; done";
    let run = [
        "run", "--name", "talker", "--cpu", "0.1", "--memory", "32Mi", "--detach", "--", "sh",
        "-c", script,
    ];
    cluster.cmn(&run).ok();
    let log = cluster.cmn(&["logs", "-f", "talker"]).ok();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines, ["line 1", "line 2", "line 3"]);
}

#[test]
fn kubectl_watches_a_task_through_its_states() {
    let cluster = Cluster::start();
    let run = |name| {
        cluster.cmn(&["run", "--name", name, "--cpu", "0.1", "--memory", "32Mi", "--", "true"]).ok()
    };
    run("before");
    let states = "jsonpath={.metadata.name} {.status.state}{\"\\n\"}";
    let mut watch = cluster
        .kubectl_command()
        .args(["get", "tasks", "-w", "-o", states])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(watch.stdout.take().unwrap()));
    // The first line says that the watch has begun.
    assert_eq!(lines.next().unwrap().unwrap(), "before Finished");
    run("seen");
    let mut seen = Vec::new();
    while seen.last().is_none_or(|line| line != "seen Finished") {
        seen.push(lines.next().unwrap().unwrap());
    }
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert_eq!(seen[..2], ["seen Pending", "seen Staging"], "{seen:?}");
}

/// One plain HTTP request, read to its end.
fn get(port: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
