//! `cmn exec`, `attach`, `cp` and `port-forward`: into a running task, and back out.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use commonage_e2e::{Cluster, cmn_path, echo};

fn task(cluster: &Cluster, name: &str, script: &str, rest: &str) {
    let yaml = format!(
        "apiVersion: commonage.dev/v1\nkind: Task\nmetadata: {{name: {name}}}\nspec: {{resources: {{cpu: 100m, \
         memory: 32Mi}}, container: {{command: [sh, -c, {script:?}]{rest}}}}}\n"
    );
    cluster.apply(&yaml).ok();
    cluster.wait_for_state(name, &["Running"]);
}

fn cmn(cluster: &Cluster, arguments: &[&str]) -> Command {
    let mut command = Command::new(cmn_path());
    command.args(arguments).arg("--kubeconfig").arg(cluster.kubeconfig()).env("NO_COLOR", "1");
    command
}

#[test]
fn commands_run_in_tasks_and_files_are_copied() {
    let cluster = Cluster::start();
    task(&cluster, "web", "exec sleep 600", "");
    let ended = cluster.cmn(&["exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (3, "out\n"), "{ended:?}");
    assert!(ended.stderr.ends_with("err\n"), "{ended:?}");
    cluster.cmn(&["exec", "task/web", "true"]).ok();

    let mut cat = Command::new(cmn_path());
    cat.arg("--kubeconfig").arg(cluster.kubeconfig()).args(["exec", "-i", "web", "--", "cat"]);
    let mut cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let sent = vec![b'x'; 3_000_000];
    let mut input = cat.stdin.take().unwrap();
    let writer = std::thread::spawn({
        let sent = sent.clone();
        move || input.write_all(&sent).unwrap()
    });
    let mut got = Vec::new();
    cat.stdout.take().unwrap().read_to_end(&mut got).unwrap();
    writer.join().unwrap();
    assert!(cat.wait().unwrap().success());
    assert!(got == sent, "{} bytes came back", got.len());

    // Without a terminal here there is none there.
    let tty = cluster.cmn(&["exec", "-t", "web", "--", "sh", "-c", "test -t 0 || echo none"]);
    assert_eq!(tty.stdout, "none\n", "{tty:?}");
    let missing = cluster.cmn(&["exec", "nothing", "--", "true"]).refused();
    assert!(missing.contains("tasks.commonage.dev \"nothing\" not found"), "{missing}");
    let unknown = cluster.cmn(&["exec", "web", "--", "/no/such/program"]);
    assert_ne!(unknown.code, 0, "{unknown:?}");

    let file = cluster.file("sent", "there and back\n");
    let back = file.with_file_name("came back");
    let (file, back) = (file.to_string_lossy(), back.to_string_lossy());
    cluster.cmn(&["cp", &file, "web:arrived.txt"]).ok();
    let there = cluster.cmn(&["exec", "web", "--", "cat", "arrived.txt"]).ok();
    assert_eq!(there, "there and back\n");
    cluster.cmn(&["cp", "web:arrived.txt", &back]).ok();
    assert_eq!(std::fs::read_to_string(&*back).unwrap(), "there and back\n");
    let missing = cluster.cmn(&["cp", "web:nothing", &back]).refused();
    assert!(missing.contains("cannot copy nothing out of task \"web\""), "{missing}");

    // Into directories under the old names.
    cluster.cmn(&["exec", "web", "--", "mkdir", "into"]).ok();
    cluster.cmn(&["cp", &file, "web:into"]).ok();
    cluster.cmn(&["cp", &file, "web:into/"]).ok();
    assert_eq!(cluster.cmn(&["exec", "web", "--", "ls", "into"]).ok(), "sent\n");
    let here = tempfile::tempdir().unwrap();
    let place = here.path().to_string_lossy();
    cluster.cmn(&["cp", "web:into/sent", &place]).ok();
    assert_eq!(std::fs::read_to_string(here.path().join("sent")).unwrap(), "there and back\n");
    let nowhere = cluster.cmn(&["cp", "web:into/sent", &format!("{place}/nowhere/")]).refused();
    assert!(nowhere.contains("there is no directory"), "{nowhere}");
}

#[test]
fn what_does_not_run_says_what_to_look_at_instead() {
    let cluster = Cluster::start();
    cluster.cmn(&["run", "--name", "over", "--", "true"]).ok();
    cluster.cmn(&["run", "--name", "big", "--memory", "900Ti", "--detach", "--", "true"]).ok();
    let (into, out) = (["exec", "over", "--", "true"], ["cp", "over:a", "b"]);
    let forward = ["port-forward", "big", ":80"];
    for (arguments, why, instead) in [
        (&into[..], "task \"over\": it has ended", "hint: cmn logs over"),
        (&out, "task \"over\": it has ended", "hint: cmn logs over"),
        (&["attach", "over"], "task \"over\": it has ended", "hint: cmn logs over"),
        (&forward, "task \"big\": it has not been placed", "hint: cmn describe task big"),
    ] {
        let refused = cluster.cmn(arguments).refused();
        assert!(refused.contains(why) && refused.contains(instead), "{arguments:?}: {refused}");
        assert!(!refused.contains("tar:"), "{refused}");
    }
}

#[test]
fn what_runs_is_attached_to() {
    let cluster = Cluster::start();
    task(&cluster, "clock", "while :; do echo tick; sleep 0.2; done", "");
    let mut attach = cmn(&cluster, &["attach", "clock"]);
    let mut attach = attach.stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(attach.stdout.take().unwrap());
    for _ in 0..2 {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "tick\n");
    }
    attach.kill().unwrap();
    attach.wait().unwrap();
}

#[test]
fn ports_lead_to_tasks() {
    let cluster = Cluster::start();
    task(&cluster, "echo", echo::SERVER, ", ports: [{name: ECHO, hostPort: 0}]");
    let inside = cluster.field("task/echo", ".status.hostPorts[0]");
    for there in [inside.as_str(), "echo"] {
        let mut forward = cmn(&cluster, &["port-forward", "echo", &format!(":{there}")]);
        let mut forward = forward.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(forward.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let port = line.split_whitespace().find_map(|word| word.strip_prefix("127.0.0.1:"));
        let port: u16 = port.unwrap_or_else(|| panic!("{line:?}")).parse().unwrap();
        echo::is_behind(port);
        forward.kill().unwrap();
        forward.wait().unwrap();
    }
    let refused = cluster.cmn(&["port-forward", "echo", "web"]).refused();
    assert!(refused.contains("no port called \"web\", but ECHO"), "{refused}");
    let refused = cluster.cmn(&["port-forward", "nothing", "80"]).refused();
    assert!(refused.contains("not found"), "{refused}");
}
