//! Tasks with a standard input and a terminal of their own: kubectl and `cmn` attached to them.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

use commonage_e2e::screen::Screen;
use commonage_e2e::{Cluster, cmn_path, eventually};

fn task(cluster: &Cluster, name: &str, script: &str, stdio: &str) {
    let yaml = format!(
        "apiVersion: commonage.dev/v1\nkind: Task\nmetadata: {{name: {name}}}\nspec: {{resources: {{cpu: 100m, \
         memory: 32Mi}}, container: {{command: [sh, -c, {script:?}], {stdio}}}}}\n"
    );
    cluster.apply(&yaml).ok();
    cluster.wait_for_state(name, &["Running"]);
}

fn cmn(cluster: &Cluster, arguments: &[&str]) -> Command {
    let mut command = Command::new(cmn_path());
    command.args(arguments).env("KUBECONFIG", cluster.kubeconfig()).env("NO_COLOR", "1");
    command
}

fn kubectl(cluster: &Cluster, arguments: &[&str]) -> Command {
    let mut command = cluster.kubectl_command();
    command.args(arguments);
    command
}

fn piped(mut command: Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// Waits until the log has this.
#[track_caller]
fn until_logged(cluster: &Cluster, name: &str, text: &str) {
    eventually(&format!("{text:?} in the log"), || {
        let log = cluster.kubectl(&["logs", name]).stdout;
        if log.contains(text) { Ok(()) } else { Err(log) }
    });
}

const SHELL: &str = "trap 'echo size $(stty size)' WINCH; echo ready on $(tty); \
                     while :; do read line && eval $line; done";

#[test]
fn a_terminal_is_left_and_come_back_to_also_after_a_restart_of_the_agent() {
    let mut cluster = Cluster::start();
    task(&cluster, "shell", SHELL, "stdin: true, tty: true");
    assert_eq!(cluster.field("pod/shell", ".spec.containers[0].tty"), "true");
    assert_eq!(cluster.field("pod/shell", ".spec.containers[0].stdin"), "true");
    let attach = || Screen::start(&mut kubectl(&cluster, &["attach", "-it", "shell"]), 90, 30);
    let mut first = attach().unwrap();
    until_logged(&cluster, "shell", "size 30 90");
    first.press("echo one $((1 + 1))\r");
    first.until("one 2\r\n");
    first.resize(66, 22).unwrap();
    first.until("size 22 66\r\n");
    // Two at once, one of them `cmn`.
    let mut second =
        Screen::start(&mut cmn(&cluster, &["attach", "-it", "shell"]), 90, 30).unwrap();
    second.until("press");
    second.press("echo two $((1 + 1))\r");
    second.until("two 2\r\n");
    first.until("two 2\r\n");
    first.close();
    second.press("echo three $((1 + 2))\r");
    second.until("three 3\r\n");
    second.close();
    assert_eq!(cluster.field("task/shell", ".status.state"), "Running");

    cluster.kill();
    cluster.up().unwrap();
    let attach = || Screen::start(&mut kubectl(&cluster, &["attach", "-it", "shell"]), 80, 24);
    let mut third = attach().unwrap();
    until_logged(&cluster, "shell", "size 24 80");
    third.press("echo four $((2 + 2))\r");
    third.until("four 4\r\n");
    let mut fourth =
        Screen::start(&mut cmn(&cluster, &["attach", "-it", "shell"]), 81, 24).unwrap();
    until_logged(&cluster, "shell", "size 24 81");
    fourth.press("exit 5\r");
    assert_eq!(fourth.end(), 5, "with the task's exit code");
    assert_eq!(third.end(), 0, "as kubectl does");
    cluster.wait_for_state("shell", &["Failed"]);
}

/// The task has taken what came until then for all of it, and ends well.
#[test]
fn who_is_cut_off_from_a_task_that_reads_is_not_told_of_a_success() {
    let mut cluster = Cluster::start();
    let resources = ["--cpu", "0.1", "--memory", "32Mi"];
    let mut run = cmn(&cluster, &["run", "-i", "--name", "count"]);
    run.args(resources).args(["--", "wc", "-c"]).stderr(Stdio::piped());
    let mut run = piped(run);
    let mut input = run.stdin.take().unwrap();
    // More than lies on the way: some of it has come.
    input.write_all(&vec![b'x'; 1 << 20]).unwrap();
    cluster.kill();
    let ended = run.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("broke off") && said.contains("--leave-stdin-open"), "{said}");
    cluster.up().unwrap();
    cluster.wait_for_state("count", &["Finished"]);
    drop(input);
}

#[test]
fn a_terminal_is_left_with_two_keys_and_what_runs_there_goes_on() {
    let cluster = Cluster::start();
    let run = ["run", "-it", "--leave-stdin-open", "--rm", "--name", "shell", "--", "sh"];
    let mut first = Screen::start(&mut cmn(&cluster, &run), 80, 24).unwrap();
    first.press("echo one $((0 + 1))\r");
    first.until("one 1\r\n");
    first.press("\x10\x11");
    first.until("cmn attach -it shell");
    assert_eq!(first.end(), 0);
    assert_eq!(cluster.field("task/shell", ".status.state"), "Running");

    let attach = ["attach", "-it", "--detach-keys", "ctrl-a,d", "shell"];
    let mut second = Screen::start(&mut cmn(&cluster, &attach), 80, 24).unwrap();
    // Others than those are the task's.
    second.press("echo two\x10\x11 $((1 + 1))\r");
    second.until(" 2\r\n");
    second.press("\x01d");
    second.until("cmn attach -it shell");
    assert_eq!(second.end(), 0);
    let mut third = Screen::start(&mut cmn(&cluster, &["attach", "-it", "shell"]), 80, 24).unwrap();
    third.press("exit 6\r");
    assert_eq!(third.end(), 6);
}

#[test]
fn an_input_for_once_ends_with_the_first_who_was_attached() {
    let cluster = Cluster::start();
    task(&cluster, "count", "wc -c", "stdin: true, stdinOnce: true");
    let mut attach = piped(kubectl(&cluster, &["attach", "-i", "count"]));
    attach.stdin.take().unwrap().write_all(b"12345").unwrap();
    let mut printed = String::new();
    attach.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    assert!(attach.wait().unwrap().success());
    assert_eq!(printed.trim(), "5");
    cluster.wait_for_state("count", &["Finished"]);

    // Who is killed has left too.
    task(&cluster, "cut", "wc -c; sleep 600", "stdin: true, stdinOnce: true");
    let mut attach = piped(cmn(&cluster, &["attach", "-i", "cut"]));
    let mut input = attach.stdin.take().unwrap();
    input.write_all(b"123").unwrap();
    // Sent for sure when the way for the rest is full.
    input.write_all(&vec![b'x'; 1 << 20]).unwrap();
    attach.kill().unwrap();
    attach.wait().unwrap();
    eventually("the end of its input", || {
        let log = cluster.kubectl(&["logs", "cut"]).stdout;
        let count: u32 = log.trim().parse().unwrap_or_default();
        if count > 3 { Ok(()) } else { Err(log) }
    });
    let again = cluster.kubectl(&["attach", "-i", "cut"]).refused();
    assert!(again.contains("was closed when the first who was attached to it had gone"), "{again}");
    // Without an input it can be looked at still.
    let mut watch = piped(cmn(&cluster, &["attach", "cut"]));
    cluster.kubectl(&["delete", "task", "cut", "--timeout=60s"]).ok();
    watch.wait().unwrap();
}

#[test]
fn an_input_that_stays_open_takes_one_after_the_other() {
    let cluster = Cluster::start();
    task(&cluster, "lines", "while read line; do echo got $line; done", "stdin: true");
    for (number, name) in ["first", "second"].into_iter().enumerate() {
        let arguments = ["attach", "-i", "lines"];
        let command =
            if number == 0 { kubectl(&cluster, &arguments) } else { cmn(&cluster, &arguments) };
        let mut attach = piped(command);
        let mut input = attach.stdin.take().unwrap();
        input.write_all(format!("{name}\n").as_bytes()).unwrap();
        until_logged(&cluster, "lines", &format!("got {name}\n"));
        // The end of ours is not its.
        drop(input);
        attach.kill().unwrap();
        attach.wait().unwrap();
    }
    assert_eq!(cluster.field("task/lines", ".status.state"), "Running");
    let mut attach =
        Screen::start(&mut kubectl(&cluster, &["attach", "-it", "lines"]), 80, 24).unwrap();
    attach.until("Unable to use a TTY");
    attach.press("third\n");
    attach.until("got third");
    attach.close();
}

#[test]
fn what_has_no_input_says_so() {
    let cluster = Cluster::start();
    task(&cluster, "plain", "cat; echo ended; exec sleep 600", "env: []");
    until_logged(&cluster, "plain", "ended\n");
    for program in
        [kubectl(&cluster, &["attach", "-i", "plain"]), cmn(&cluster, &["attach", "-i", "plain"])]
    {
        let mut program = program;
        let refused = commonage_e2e::run(&mut program).refused();
        assert!(refused.contains("task \"plain\""), "{refused}");
        let words = " has no standard input: that takes spec.container.stdin";
        assert!(refused.contains(words), "{refused}");
    }
}

#[test]
fn a_shell_is_run_on_this_terminal() {
    let cluster = Cluster::start();
    let run = ["run", "-it", "--rm", "--name", "shell", "--", "sh", "-c"];
    let script = "echo on $(tty); read line; echo got $line; exit 4";
    let mut shell =
        Screen::start(&mut cmn(&cluster, &[&run[..], &[script]].concat()), 80, 24).unwrap();
    // Also what came before we were attached.
    shell.until("on /dev/pts/0\r\n");
    shell.press("hello\r");
    shell.until("got hello\r\n");
    let shown = shell.text();
    assert_eq!(shell.end(), 4, "{shown}");
    let gone = cluster.kubectl(&["get", "task", "shell"]).refused();
    assert!(gone.contains("not found"), "{gone}");

    let mut count = piped(cmn(&cluster, &["run", "-i", "--", "sh", "-c", "wc -c; exit 3"]));
    let sent = vec![b'x'; 300_000];
    count.stdin.take().unwrap().write_all(&sent).unwrap();
    let mut printed = String::new();
    count.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    assert_eq!((printed.trim(), count.wait().unwrap().code()), ("300000", Some(3)));
    // Too short to be attached to, or not: what it printed is shown once.
    let short = cluster.cmn(&["run", "-i", "--", "echo", "short"]);
    assert_eq!((short.code, short.stdout.as_str()), (0, "short\n"), "{short:?}");

    let detached = cluster.cmn(&["run", "-it", "--detach", "--name", "later", "--", "sh"]);
    assert!(detached.stderr.contains("cmn attach -it later"), "{detached:?}");
    cluster.wait_for_state("later", &["Running"]);
    let attach = || Screen::start(&mut cmn(&cluster, &["attach", "-it", "later"]), 80, 24);
    let mut later = attach().unwrap();
    later.press("exit 6\r");
    assert_eq!(later.end(), 6);
    // A terminal to write to, which nobody types at.
    let shown = cluster.cmn(&["run", "-t", "--", "sh", "-c", "test -t 1 && echo on one; exit 7"]);
    assert_eq!((shown.code, shown.stdout.as_str()), (7, "on one\r\n"), "{shown:?}");
}
