//! Starting, output, signals, ending.

use std::path::Path;

use commonage_shim::launch::{FailureReason, LogLimits, Root, Stream, User};
use commonage_shim::{Observed, Phase, client};

use crate::Test;
use crate::fixture::{Task, eventually, until_gone, zygote};

pub const TESTS: &[Test] = &[
    ("exit_code_and_output_are_reported", exit_code_and_output_are_reported),
    ("a_task_knows_where_and_who_it_is", a_task_knows_where_and_who_it_is),
    ("another_user_owns_the_sandbox", another_user_owns_the_sandbox),
    ("a_missing_command_is_named", a_missing_command_is_named),
    ("a_missing_working_directory_is_named", a_missing_working_directory_is_named),
    ("an_impossible_order_is_refused", an_impossible_order_is_refused),
    ("binary_output_and_endless_lines_are_kept", binary_output_and_endless_lines_are_kept),
    ("the_log_is_rotated", the_log_is_rotated),
    ("term_ends_a_task_that_does_nothing_about_it", term_ends_a_task_that_does_nothing_about_it),
    ("a_task_that_ignores_term_is_killed", a_task_that_ignores_term_is_killed),
    ("signals_reach_the_command", signals_reach_the_command),
    ("subscribers_hear_of_the_end", subscribers_hear_of_the_end),
    ("many_at_once_all_end_well", many_at_once_all_end_well),
    ("a_prepared_root_is_used", a_prepared_root_is_used),
    ("nothing_is_left_behind", nothing_is_left_behind),
];

fn exit_code_and_output_are_reported() {
    let task = Task::sh("echo out; echo err >&2; exit 7");
    let exit = task.run();
    assert_eq!(
        (exit.exit_code, exit.signal, exit.error.clone()),
        (Some(7), None, None),
        "{exit:?}"
    );
    assert!(exit.started_at.unwrap() <= exit.finished_at);
    assert!(!exit.oom_killed);
    assert_eq!((task.stdout(), task.stderr()), ("out\n".to_owned(), "err\n".to_owned()));
}

fn a_task_knows_where_and_who_it_is() {
    let task = Task::sh(
        "echo $COMMONAGE_SANDBOX $(pwd) $(cat /proc/sys/kernel/hostname) $A $HOME; env | wc -l",
    )
    .with(|launch| {
        launch.hostname = Some("somewhere".to_owned());
        launch.env.insert("A".to_owned(), "b c".to_owned());
    });
    assert!(task.run().success(), "{}", task.stderr());
    // PATH, HOME, HOSTNAME, COMMONAGE_SANDBOX, A, and what the shell adds: PWD, perhaps SHLVL, _
    // and OLDPWD. Nothing of ours.
    let output = task.stdout();
    assert!(output.starts_with("/sandbox /sandbox somewhere b c /sandbox\n"), "{output}");
    let count: u32 = output.lines().last().unwrap().trim().parse().unwrap();
    assert!(count <= 9, "{output}");
}

fn another_user_owns_the_sandbox() {
    let task = Task::sh("id -u; id -g; id -G; grep CapEff /proc/self/status; touch /sandbox/x /tmp/y && echo fine > /dev/stdout")
        .with(|launch| launch.user = User { uid: 12345, gid: 54321, additional_gids: vec![77] });
    assert!(task.run().success(), "{}", task.stderr());
    assert_eq!(task.stdout(), "12345\n54321\n54321 77\nCapEff:\t0000000000000000\nfine\n");
}

fn a_missing_command_is_named() {
    let task = Task::command(&["no-such-program", "x"]);
    let error = task.run().error.unwrap();
    assert_eq!(error.reason, FailureReason::CommandNotFound);
    assert!(error.message.contains("no-such-program"), "{}", error.message);
    let hidden = tempfile::NamedTempFile::new().unwrap();
    let task = Task::command(&[hidden.path().to_str().unwrap()]);
    let message = task.run().error.unwrap().message;
    assert!(message.contains("hidden from tasks"), "{message}");
    let task = Task::command(&["/etc/passwd"]);
    let exit = task.run();
    assert_eq!(exit.error.unwrap().reason, FailureReason::CommandNotFound);
    assert_eq!((exit.started_at, exit.exit_code), (None, None));
}

fn a_missing_working_directory_is_named() {
    let task = Task::command(&["true"]).with(|l| l.working_dir = Some("/no/such/place".into()));
    let error = task.run().error.unwrap();
    assert_eq!(error.reason, FailureReason::InvalidWorkingDir);
    assert!(error.message.contains("/no/such/place"), "{}", error.message);
}

fn an_impossible_order_is_refused() {
    let task = Task::command(&["true"]).with(|launch| launch.limits.memory_bytes = Some(1000));
    assert_eq!(task.run().error.unwrap().reason, FailureReason::LimitsTooSmall);
    assert!(!task.path().join("ctl.sock").exists());
    let task = Task::command(&["true"]).with(|launch| launch.command.clear());
    assert_eq!(task.run().error.unwrap().reason, FailureReason::InvalidLaunch);
    // Not even looked at for cleaning up: this would be everybody's group.
    let task = Task::command(&["true"]).with(|launch| launch.cgroup = "/".to_owned());
    assert_eq!(task.run().error.unwrap().reason, FailureReason::InvalidLaunch);
    assert!(client::kill_by_cgroup(&task.launch).is_err());
}

fn binary_output_and_endless_lines_are_kept() {
    let task = Task::sh("head -c 3000000 /dev/zero; head -c 1000000 /dev/urandom >&2");
    assert!(task.run().success());
    let size = |stream| std::fs::metadata(task.state.log(stream)).unwrap().len();
    assert_eq!((size(Stream::Stdout), size(Stream::Stderr)), (3_000_000, 1_000_000));
}

fn the_log_is_rotated() {
    let task = Task::sh("i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done")
        .with(|launch| launch.log = LogLimits { max_file_bytes: 4096, max_files: 3 });
    let exit = task.run();
    assert!(exit.success());
    assert!(task.stdout().ends_with("line 2999\n"));
    let files = std::fs::read_dir(task.path()).unwrap();
    let logs = files.filter(|f| {
        let name = f.as_ref().unwrap().file_name();
        name.to_str().unwrap().starts_with("stdout.log")
    });
    let sizes: Vec<u64> = logs
        .filter(|log| log.as_ref().unwrap().file_name() != "stdout.log.gone")
        .map(|log| log.unwrap().metadata().unwrap().len())
        .collect();
    assert!((1..=3).contains(&sizes.len()));
    assert_eq!(exit.log_bytes_dropped, 0);
    let written: usize = (0..3000).map(|i| format!("line {i}\n").len()).sum();
    let kept: u64 = sizes.iter().sum();
    assert_eq!(exit.log_bytes_rotated_away, written as u64 - kept);
    assert_eq!(task.state.log_bytes_gone(Stream::Stdout), written as u64 - kept);
    assert_eq!(task.state.log_bytes_gone(Stream::Stderr), 0);
}

fn term_ends_a_task_that_does_nothing_about_it() {
    let task = Task::command(&["sleep", "1000"]);
    let shim = task.start();
    let mut connection = task.connect();
    eventually("it runs", || (connection.status().unwrap().phase == Phase::Running).then_some(()));
    connection.kill(15).unwrap();
    assert_eq!(task.end().signal, Some(15));
    until_gone(shim);
}

fn a_task_that_ignores_term_is_killed() {
    let task = Task::sh("trap '' TERM; echo ready; while :; do sleep 0.05; done");
    let shim = task.start();
    task.until_output("ready");
    let mut connection = task.connect();
    connection.kill(15).unwrap();
    assert_eq!(connection.status().unwrap().phase, Phase::Running);
    connection.kill(9).unwrap();
    let exit = task.end();
    assert_eq!((exit.signal, exit.oom_killed), (Some(9), false));
    assert!(connection.kill(99).is_err());
    until_gone(shim);
}

fn signals_reach_the_command() {
    let task =
        Task::sh("trap 'echo caught; exit 3' USR1; echo ready; while :; do sleep 0.01; done");
    task.start();
    task.until_output("ready");
    task.connect().kill(10).unwrap();
    assert_eq!(task.end().exit_code, Some(3));
    assert_eq!(task.stdout(), "ready\ncaught\n");
}

fn subscribers_hear_of_the_end() {
    let task = Task::sh("echo ready; while [ ! -e go ]; do sleep 0.01; done; exit 5");
    task.start();
    task.until_output("ready");
    let waiting = task.connect();
    let other = task.connect().subscribe().unwrap();
    std::fs::write(task.launch.sandbox.join("go"), "").unwrap();
    assert_eq!(waiting.wait().unwrap().exit_code, Some(5));
    other.set_nonblocking(false).unwrap();
    let mut words = String::new();
    std::io::Read::read_to_string(&mut &other, &mut words).unwrap();
    assert!(words.contains("\"exitCode\":5"), "{words}");
}

fn many_at_once_all_end_well() {
    let tasks: Vec<Task> =
        (0..40).map(|number| Task::sh(&format!("echo {number}; exit {number}"))).collect();
    let shims: Vec<i32> = tasks.iter().map(Task::start).collect();
    for (number, task) in (0..).zip(&tasks) {
        let exit = task.end();
        assert_eq!(exit.exit_code, Some(number), "{exit:?} {}", task.shim_log());
        assert_eq!(task.stdout(), format!("{number}\n"));
    }
    shims.into_iter().for_each(until_gone);
}

/// An image's root: one static program here.
fn a_prepared_root_is_used() {
    let program = Path::new("/usr/bin/busybox");
    if !program.exists() {
        eprintln!("!!! no busybox: a root of its own was not tried !!!");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("bin")).unwrap();
    std::fs::copy(program, root.path().join("bin/busybox")).unwrap();
    let script = "/bin/busybox ls /; /bin/busybox touch /written /sandbox/written";
    let task = Task::command(&["/bin/busybox", "sh", "-c", script])
        .with(|launch| launch.root = Root::Bundle(root.path().to_owned()));
    let exit = task.run();
    assert!(exit.success(), "{exit:?} {}", task.stderr());
    assert_eq!(task.stdout(), "bin\ndev\nproc\nsandbox\nsys\ntmp\n");
    assert!(root.path().join("written").exists() && task.launch.sandbox.join("written").exists());
}

fn nothing_is_left_behind() {
    let mounts = || std::fs::read_to_string("/proc/self/mounts").unwrap().lines().count();
    let before = mounts();
    let task = Task::sh("(sleep 1000 &) ; echo left one behind");
    assert!(task.run().success());
    assert_eq!(task.groups(), Vec::<std::path::PathBuf>::new());
    assert_eq!(mounts(), before);
    let mut names: Vec<String> = std::fs::read_dir(task.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "exit.json",
            "lock",
            "pid.json",
            "shim.log",
            "stderr.log",
            "stdout.log",
            "stdout.times",
            "task.json"
        ]
    );
    assert_eq!(task.shim_log(), "");
    assert!(matches!(client::scan(task.path()).unwrap(), Observed::Exited(_)));
    let zygote = zygote().pid().unwrap();
    eventually("the zygote has reaped every shim", || {
        let children = std::fs::read_to_string(format!("/proc/{zygote}/task/{zygote}/children"));
        children.unwrap_or_default().trim().is_empty().then_some(())
    });
}
