//! What tasks and machines use, and the logs of many tasks as one.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use commonage_e2e::{Cluster, cmn_path, eventually};

fn start(cluster: &Cluster, name: &str, script: &str) {
    let task = ["run", "--detach", "--name", name, "--cpu", "0.2", "--memory", "64Mi", "--"];
    cluster.cmn(&[&task[..], &["sh", "-c", script]].concat()).ok();
    cluster.wait_for_state(name, &["Running"]);
}

/// The cells of a row, of a table with a line of column names.
fn row(table: &str, name: &str) -> Option<Vec<String>> {
    let line = table.lines().skip(1).find(|line| line.split_whitespace().next() == Some(name))?;
    Some(line.split_whitespace().map(str::to_owned).collect())
}

fn number(cell: &str) -> u64 {
    cell.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

#[test]
fn what_tasks_and_machines_use_is_told() {
    let cluster = Cluster::start();
    assert_eq!(cluster.cmn(&["top"]).ok(), "", "nothing runs yet");
    start(&cluster, "burner", "while :; do :; done");
    // tail keeps what has no end of line in memory.
    start(&cluster, "holder", "(head -c 20000000 /dev/zero; sleep 600) | tail");
    let seen = eventually("the use of both tasks", || {
        let table = cluster.cmn(&["top", "tasks"]).ok();
        let cells = |name: &str| row(&table, name).map(|c| (number(&c[1]), number(&c[3])));
        match (cells("burner"), cells("holder")) {
            // How much cpu it gets hangs on who else wants some; without any it gets none.
            (Some(burner), Some(holder)) if burner.0 > 10 && holder.1 >= 19 => Ok(table),
            _ => Err(table),
        }
    });
    let burner = row(&seen, "burner").unwrap();
    assert!(number(&burner[1]) <= 260, "it may have 200m: {seen}");
    let sorted = cluster.cmn(&["stats", "tasks", "--sort", "memory", "--no-headers"]).ok();
    assert!(sorted.starts_with("holder"), "{sorted}");
    let both = cluster.cmn(&["top", "frameworks"]).ok();
    assert_eq!(row(&both, "default").unwrap()[1], "2", "{both}");
    let agents = cluster.cmn(&["top", "agents"]).ok();
    assert!(
        agents.lines().count() == 2
            && number(agents.lines().nth(1).unwrap().split_whitespace().nth(3).unwrap()) > 0,
        "{agents}"
    );
    let refused = cluster.cmn(&["top", "tasks", "nobody"]).refused();
    assert!(refused.contains("cmn describe task nobody"), "{refused}");

    let pods = cluster.kubectl(&["top", "pods"]).ok();
    assert!(row(&pods, "burner").is_some() && row(&pods, "holder").is_some(), "{pods}");
    let nodes = cluster.kubectl(&["top", "nodes"]).ok();
    assert_eq!(nodes.lines().count(), 2, "{nodes}");
    let missing = cluster.kubectl(&["top", "pod", "nobody"]).refused();
    assert!(missing.contains("not found"), "{missing}");
}

#[test]
fn a_port_that_no_agent_has_is_said_with_those_that_there_are() {
    let cluster = Cluster::start_with(&["--resources", "ports=31900-31909"]);
    let task = |name: &str, port: u16| {
        format!(
            "apiVersion: commonage.dev/v1\nkind: Task\nmetadata: {{name: {name}}}\nspec: {{resources: {{cpu: 10m, memory: \
             16Mi}}, container: {{command: [sleep, '600'], ports: [{{hostPort: {port}}}]}}}}\n"
        )
    };
    cluster.apply(&task("low", 80)).ok();
    let message = eventually("the reason", || {
        let message = cluster.field("task/low", ".status.message");
        if message.contains("port") { Ok(message) } else { Err(message) }
    });
    let words =
        "port 80 will never be free: agents have 31900-31909 (hostPort 0 takes any of them)";
    assert!(message.ends_with(words), "{message}");
    cluster.apply(&task("high", 31905)).ok();
    cluster.wait_for_state("high", &["Running"]);
    let wide = cluster.kubectl(&["get", "tasks", "-o", "wide"]).ok();
    assert!(wide.lines().next().unwrap().contains("PORTS") && wide.contains("[31905]"), "{wide}");
}

#[test]
fn a_frameworks_log_is_that_of_all_its_tasks_as_they_come_and_go() {
    let cluster = Cluster::start();
    start(&cluster, "first", "echo one; sleep 600");
    let mut follow = Command::new(cmn_path());
    follow.args(["logs", "-f", "framework/default"]).env("KUBECONFIG", cluster.kubeconfig());
    let mut follow = follow.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let mut lines = lines.map(|line| line.unwrap());
    // Not a terminal: nothing but the text.
    assert_eq!(lines.next().unwrap(), "first | one");
    cluster
        .cmn(&[
            "run", "--name", "brief", "--cpu", "0.1", "--memory", "32Mi", "--", "printf", "a\\nb",
        ])
        .ok();
    assert_eq!(lines.next().unwrap(), "brief | a");
    assert_eq!(lines.next().unwrap(), "brief | b");
    start(&cluster, "last", "echo two >&2; sleep 600");
    assert_eq!(lines.next().unwrap(), "last | two");
    follow.kill().unwrap();
    follow.wait().unwrap();

    let coloured = Command::new(cmn_path())
        .args(["logs", "framework/default"])
        .env("KUBECONFIG", cluster.kubeconfig())
        .env("CLICOLOR_FORCE", "1")
        .env_remove("NO_COLOR")
        .output()
        .unwrap();
    let text = String::from_utf8(coloured.stdout).unwrap();
    let colours: std::collections::BTreeSet<&str> =
        text.lines().filter_map(|line| line.split_once('m').map(|(colour, _)| colour)).collect();
    assert_eq!((text.lines().count(), colours.len()), (4, 3), "a colour for each task: {text:?}");
    let stamped = cluster.cmn(&["logs", "-t", "--since", "1h", "last"]).ok();
    let (time, line) = stamped.trim_end().split_once(' ').unwrap();
    assert!(time.starts_with("20") && time.ends_with('Z') && line == "two", "{stamped}");
}
