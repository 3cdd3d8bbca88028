//! Further commands in a running container.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread;

use commonage_shim::exec::{EXECS_MAX, Exec, ExecError, Message, Order, Streams, signal};
use commonage_shim::launch::{Network, User};
use commonage_shim::terminal;
use nix::sys::signal::Signal;

use crate::Test;
use crate::fixture::{PATIENCE, Task, eventually, is_alive};

pub const TESTS: &[Test] = &[
    ("a_further_command_is_run", a_further_command_is_run),
    ("its_input_arrives_and_ends", its_input_arrives_and_ends),
    ("it_is_what_the_task_is", it_is_what_the_task_is),
    ("it_is_as_confined_as_the_task", it_is_as_confined_as_the_task),
    ("a_terminal_is_one", a_terminal_is_one),
    ("what_cannot_be_started_is_said", what_cannot_be_started_is_said),
    ("signals_and_hanging_up_reach_it", signals_and_hanging_up_reach_it),
    ("many_run_at_once_and_no_more_than_that", many_run_at_once_and_no_more_than_that),
    ("what_nobody_waits_for_is_not_started", what_nobody_waits_for_is_not_started),
    ("it_ends_with_its_container", it_ends_with_its_container),
    ("a_slow_reader_gets_everything", a_slow_reader_gets_everything),
];

const WAITS: &str = "echo ready; until [ -e go ]; do sleep 0.01; done";

fn waiting() -> Task {
    started(Task::sh(WAITS))
}

fn started(task: Task) -> Task {
    task.start();
    task.until_output("ready");
    task
}

fn order(words: &[&str]) -> Order {
    Order { command: words.iter().map(|w| (*w).to_owned()).collect(), ..Order::default() }
}

fn sh(script: &str) -> Order {
    order(&["sh", "-c", script])
}

fn start(task: &Task, order: &Order) -> Exec {
    task.connect().exec(order).unwrap()
}

/// The end of a command: its code, the words about its failure, or nothing when cut off.
fn end(control: &UnixStream, order: &Order) -> Result<i32, String> {
    control.set_nonblocking(false).unwrap();
    control.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = [0; Message::BYTES];
    let mut control = control;
    loop {
        control.read_exact(&mut bytes).map_err(|_| "cut off".to_owned())?;
        return match Message::parse(&bytes).unwrap() {
            Message::Started => continue,
            Message::Ended(code) => Ok(code),
            Message::Failed(failure) => Err(failure.explain(&order.command)),
            Message::Terminal => panic!("a terminal"),
        };
    }
}

fn text(fd: OwnedFd) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // A terminal ends with an error.
        let _ = File::from(fd).read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn pipes(exec: Exec) -> (UnixStream, Option<OwnedFd>, OwnedFd, OwnedFd) {
    let Streams::Pipes { stdin, stdout, stderr } = exec.streams else { panic!("a terminal") };
    (exec.control, stdin, stdout, stderr)
}

/// Runs to the end: code, output, errors.
fn run(task: &Task, order: &Order) -> (Result<i32, String>, String, String) {
    let (control, _, stdout, stderr) = pipes(start(task, order));
    let (stdout, stderr) = (text(stdout), text(stderr));
    (end(&control, order), stdout.join().unwrap(), stderr.join().unwrap())
}

fn a_further_command_is_run() {
    let task = waiting();
    let seen = run(&task, &sh("echo out; echo err >&2; exit 3"));
    assert_eq!(seen, (Ok(3), "out\n".to_owned(), "err\n".to_owned()));
    assert_eq!(run(&task, &order(&["true"])).0, Ok(0));
    assert_eq!(run(&task, &sh("kill -9 $$")).0, Ok(137));
    let words = order(&["printf", "%s|", "a b", "", "c\"d"]);
    assert_eq!(run(&task, &words).1, "a b||c\"d|");
    // No input is an empty one.
    assert_eq!(run(&task, &order(&["cat"])).0, Ok(0));
    std::fs::write(task.launch.sandbox.join("go"), "").unwrap();
    assert!(task.end().success());
    assert_eq!(task.stdout(), "ready\n");
}

fn its_input_arrives_and_ends() {
    let task = waiting();
    let order = Order { stdin: true, ..order(&["cat"]) };
    let (control, stdin, stdout, _stderr) = pipes(start(&task, &order));
    let stdout = text(stdout);
    let mut stdin = File::from(stdin.unwrap());
    let much = vec![b'x'; 1 << 20];
    stdin.write_all(&much).unwrap();
    drop(stdin);
    assert_eq!(end(&control, &order), Ok(0));
    assert_eq!(stdout.join().unwrap().len(), much.len());
}

fn it_is_what_the_task_is() {
    let user = User { uid: 12345, gid: 54321, additional_gids: vec![77] };
    let task = started(Task::sh(WAITS).with(|launch| {
        launch.user = user;
        launch.network = Network::None;
        launch.env.insert("A".to_owned(), "b c".to_owned());
    }));
    let init = task.connect().status().unwrap().pid.unwrap();
    let script = "id -u; id -g; id -G; pwd; echo $A; echo $$ > /sandbox/pid; echo > /dev/stdout; \
                  for n in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$n; done";
    let (code, stdout, stderr) = run(&task, &sh(script));
    assert_eq!((code, stderr.as_str()), (Ok(0), ""));
    let mut lines = stdout.lines();
    let who: Vec<&str> = lines.by_ref().take(6).collect();
    assert_eq!(who, ["12345", "54321", "54321 77", "/sandbox", "b c", ""]);
    for (name, seen) in ["cgroup", "ipc", "mnt", "net", "pid", "uts"].iter().zip(lines) {
        let of_init = std::fs::read_link(format!("/proc/{init}/ns/{name}")).unwrap();
        assert_eq!(of_init.to_str().unwrap(), seen);
    }
    // In the task's control groups, all of them.
    let before = task.processes();
    let (control, ..) = pipes(start(&task, &order(&["sleep", "1000"])));
    let found = eventually("it is in the group", || {
        task.processes().into_iter().find(|pid| {
            let comm = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            !before.contains(pid) && comm.starts_with("sleep\u{0}1000")
        })
    });
    let of = |pid| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(of(found), of(init));
    drop(control);
}

fn it_is_as_confined_as_the_task() {
    let script = "grep -E '^(Seccomp|NoNewPrivs|Cap...|Sig...|ShdPnd):' /proc/self/status; \
                  ulimit -a; umask; ls -d /proc/[0-9]* 2>/dev/null | wc -l >&2; ls /proc/self/fd";
    let task = started(Task::sh(&format!("{script}; {WAITS}")));
    let (code, stdout, processes) = run(&task, &sh(script));
    assert_eq!(code, Ok(0));
    assert_eq!(format!("{stdout}ready\n"), task.stdout());
    assert!(stdout.contains("Seccomp:\t2\n") && stdout.ends_with("\n0\n1\n2\n3\n"), "{stdout}");
    assert!(processes.trim().parse::<u32>().unwrap() < 10, "{processes}");
    for forbidden in ["unshare -m true", "mount -t tmpfs none /tmp", "mknod /tmp/null c 1 3"] {
        let (code, ..) = run(&task, &sh(forbidden));
        assert!(!matches!(code, Ok(0)), "{forbidden}");
    }
}

fn a_terminal_is_one() {
    let task = waiting();
    let script = "tty; echo $TERM; read line; stty size; echo got $line; exit 5";
    let order = Order { tty: true, ..sh(script) };
    let Exec { control, streams: Streams::Terminal(master), .. } = start(&task, &order) else {
        panic!("no terminal");
    };
    terminal::resize(&master, 111, 33).unwrap();
    let mut keys = File::from(master.try_clone().unwrap());
    let screen = text(master);
    keys.write_all(b"hello\n").unwrap();
    assert_eq!(end(&control, &order), Ok(5));
    drop(keys);
    let screen = screen.join().unwrap();
    // The echo comes when it comes.
    let said: String = screen.replacen("hello\r\n", "", 1);
    assert_eq!(said, "/dev/pts/0\r\nxterm\r\n33 111\r\ngot hello\r\n");
    // Who closes the terminal hangs up.
    let order = Order { tty: true, ..order_that_notes_a_hang_up() };
    let Exec { control, streams: Streams::Terminal(master), .. } = start(&task, &order) else {
        panic!("no terminal");
    };
    eventually("the trap is set", || task.launch.sandbox.join("trapped").exists().then_some(()));
    drop(master);
    assert_eq!(end(&control, &order), Ok(8));
}

fn order_that_notes_a_hang_up() -> Order {
    sh("trap 'exit 8' HUP; touch /sandbox/trapped; while :; do sleep 0.01; done")
}

fn what_cannot_be_started_is_said() {
    let task = waiting();
    for (program, said) in [
        ("no-such", "exec: \"no-such\": executable file not found in $PATH"),
        ("/no/such", "exec: \"/no/such\": stat /no/such: no such file or directory"),
        ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
    ] {
        assert_eq!(run(&task, &order(&[program])).0, Err(said.to_owned()));
    }
    let refused = task.connect().exec(&order(&[]));
    assert!(matches!(refused, Err(ExecError::Start(_))), "{refused:?}");
    // The task is none the worse for it.
    assert_eq!(run(&task, &order(&["true"])).0, Ok(0));
    let none = Task::sh("true");
    none.run();
    assert!(commonage_shim::Shim::connect(none.path()).is_err());
}

fn signals_and_hanging_up_reach_it() {
    let task = waiting();
    let order = sh("trap 'exit 9' TERM; echo set; while :; do sleep 0.01; done");
    let (control, _, stdout, _stderr) = pipes(start(&task, &order));
    let mut said = [0; 4];
    let mut stdout = File::from(stdout);
    stdout.read_exact(&mut said).unwrap();
    signal(&control, 15).unwrap();
    assert_eq!(end(&control, &order), Ok(9));
    // An agent that is gone hears of nothing any more: its commands go too, with their children.
    let before = task.processes();
    let (control, ..) = pipes(start(&task, &sh("sleep 1000 & sleep 1000")));
    let more = |count| move |task: &Task| (task.processes().len() >= count).then_some(());
    eventually("three more run", || more(before.len() + 3)(&task));
    let all = task.processes();
    drop(control);
    // What waits in a loop of the task's own comes and goes.
    eventually("they are gone", || {
        let gone = |pid: &&i32| !is_alive(**pid);
        (all.iter().filter(gone).count() >= 3).then_some(())
    });
    assert_eq!(run(&task, &crate::exec::order(&["true"])).0, Ok(0));
}

fn many_run_at_once_and_no_more_than_that() {
    let task = waiting();
    let order = sh("until [ -e many ]; do sleep 0.02; done; exit 4");
    let all: Vec<_> = (0..EXECS_MAX).map(|_| pipes(start(&task, &order))).collect();
    let one_more = run(&task, &crate::exec::order(&["true"])).0;
    assert!(one_more.as_ref().unwrap_err().contains("32 commands"), "{one_more:?}");
    std::fs::write(task.launch.sandbox.join("many"), "").unwrap();
    for (control, ..) in &all {
        assert_eq!(end(control, &order), Ok(4));
    }
    assert_eq!(run(&task, &crate::exec::order(&["true"])).0, Ok(0));
}

/// In a task that takes no orders for a while, here because it is stopped.
fn what_nobody_waits_for_is_not_started() {
    let task = waiting();
    let init = task.connect().status().unwrap().pid.unwrap();
    let signal = |signal| nix::sys::signal::kill(nix::unistd::Pid::from_raw(init), signal).unwrap();
    signal(Signal::SIGSTOP);
    let exec = start(&task, &order(&["touch", "/sandbox/forgotten"]));
    assert!(exec.tells_start);
    drop(exec);
    let kept = order(&["touch", "/sandbox/kept"]);
    let (control, ..) = pipes(start(&task, &kept));
    signal(Signal::SIGCONT);
    assert_eq!(end(&control, &kept), Ok(0));
    let made = |name: &str| task.launch.sandbox.join(name).exists();
    // They are taken in their order.
    assert_eq!((made("forgotten"), made("kept")), (false, true));
}

fn it_ends_with_its_container() {
    let task = waiting();
    let order = order(&["sleep", "1000"]);
    let (control, ..) = pipes(start(&task, &order));
    let processes = eventually("it runs", || {
        let processes = task.processes();
        (processes.len() >= 3).then_some(processes)
    });
    std::fs::write(task.launch.sandbox.join("go"), "").unwrap();
    assert_eq!(end(&control, &order), Err("cut off".to_owned()));
    assert!(task.end().success());
    eventually("all are gone", || processes.iter().all(|pid| !is_alive(*pid)).then_some(()));
    eventually("the group is gone", || task.groups().is_empty().then_some(()));
}

/// The command waits; nobody's memory grows.
fn a_slow_reader_gets_everything() {
    let task = waiting();
    let order = sh("head -c 3000000 /dev/zero; echo done >&2");
    let (control, _, stdout, stderr) = pipes(start(&task, &order));
    let stderr = text(stderr);
    assert!(!stderr.is_finished());
    assert_eq!(text(stdout).join().unwrap().len(), 3_000_000);
    assert_eq!((end(&control, &order), stderr.join().unwrap()), (Ok(0), "done\n".to_owned()));
}
