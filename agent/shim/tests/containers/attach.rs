//! Being attached to a task: its input, its terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::thread;

use commonage_shim::attach::Attachment;
use commonage_shim::exec::Order;
use commonage_shim::launch::{IdRange, Network, Stdio, User};
use commonage_shim::terminal;

use crate::Test;
use crate::fixture::{PATIENCE, Task, eventually};

pub const TESTS: &[Test] = &[
    ("a_task_without_input_reads_nothing", a_task_without_input_reads_nothing),
    (
        "what_is_written_by_one_after_the_other_arrives",
        what_is_written_by_one_after_the_other_arrives,
    ),
    ("the_first_who_goes_ends_an_input_for_once", the_first_who_goes_ends_an_input_for_once),
    ("a_closed_input_is_the_commands_own", a_closed_input_is_the_commands_own),
    ("a_task_has_a_terminal", a_task_has_a_terminal),
    ("a_terminal_is_left_and_come_back_to", a_terminal_is_left_and_come_back_to),
    ("a_terminal_for_once_is_hung_up", a_terminal_for_once_is_hung_up),
    ("users_of_all_kinds_have_terminals", users_of_all_kinds_have_terminals),
    ("a_flood_in_a_terminal_is_logged_whole", a_flood_in_a_terminal_is_logged_whole),
    (
        "a_command_that_is_not_there_needs_no_terminal",
        a_command_that_is_not_there_needs_no_terminal,
    ),
];

const INPUT: Stdio = Stdio { stdin: true, stdin_once: false, tty: false };
const TERMINAL: Stdio = Stdio { stdin: true, stdin_once: false, tty: true };

fn sh(script: &str, stdio: Stdio) -> Task {
    let task = Task::sh(script).with(|launch| launch.stdio = stdio);
    task.start();
    task
}

/// As soon as its command runs.
fn attach(task: &Task) -> Attachment {
    task.connect().settle(PATIENCE).unwrap();
    task.connect().attach(true).unwrap()
}

fn write(attached: &Attachment, text: &str) {
    File::from(attached.input.try_clone().unwrap()).write_all(text.as_bytes()).unwrap();
}

/// Waits until the shim has hung up.
fn until_closed(attached: &Attachment) {
    let mut control = attached.control.try_clone().unwrap();
    control.set_nonblocking(false).unwrap();
    control.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(control.read(&mut [0]).unwrap(), 0, "hung up on, not spoken to");
}

fn a_task_without_input_reads_nothing() {
    let task = sh("readlink /proc/self/fd/0; cat; echo ended; sleep 1000", Stdio::default());
    task.until_output("/dev/null\nended\n");
    let refused = |stdin| task.connect().attach(stdin).unwrap_err().to_string();
    assert_eq!(refused(true), "the task has no standard input");
    assert_eq!(refused(false), "the task has no terminal");
    // Without `stdin` the other word means nothing, as in Kubernetes.
    let once = sh("cat; echo ended", Stdio { stdin_once: true, ..Stdio::default() });
    assert!(once.end().success());
}

fn what_is_written_by_one_after_the_other_arrives() {
    let task = sh("while read line; do echo got $line; done; echo over", INPUT);
    let first = attach(&task);
    write(&first, "one\n");
    task.until_output("got one\n");
    drop(first);
    // Nobody is there, and it waits.
    let (second, third) = (attach(&task), attach(&task));
    write(&third, "two\n");
    task.until_output("got two\n");
    drop(third);
    write(&second, "three\n");
    task.until_output("got three\n");
    assert!(!task.stdout().contains("over"));
    // Who is attached and reads would take nothing away; nor is there anything to see of the task's end before it.
    task.connect().kill(9).unwrap();
    assert_eq!(task.end().signal, Some(9));
    until_closed(&second);
}

fn the_first_who_goes_ends_an_input_for_once() {
    let once = Stdio { stdin_once: true, ..INPUT };
    let task = sh("echo $(cat | wc -c) bytes; until [ -e go ]; do sleep 0.01; done", once);
    let (first, guest) = (attach(&task), attach(&task));
    // The one after him is served when he has gone.
    drop(guest);
    let second = attach(&task);
    write(&second, "12345");
    write(&first, "678");
    drop(first);
    until_closed(&second);
    drop(second);
    task.until_output("8 bytes\n");
    let refused = task.connect().attach(true).unwrap_err().to_string();
    assert!(refused.contains("stdinOnce"), "{refused}");
    std::fs::write(task.launch.sandbox.join("go"), "").unwrap();
    assert!(task.end().success());
}

/// Nobody else holds the reading end.
fn a_closed_input_is_the_commands_own() {
    let task = sh("exec < /dev/null; echo closed; exec sleep 1000", INPUT);
    let attached = attach(&task);
    task.until_output("closed\n");
    let mut input = File::from(attached.input.try_clone().unwrap());
    eventually("a write fails", || {
        let error = input.write_all(b"x").err()?;
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
        Some(())
    });
}

fn a_task_has_a_terminal() {
    let script = "tty; test -t 0 && test -t 1 && test -t 2 && echo terminal $TERM; echo err >&2; \
                  echo there > /dev/tty; stty -echo; read line; stty size; echo got $line; exit 7";
    let task = sh(script, TERMINAL);
    let attached = attach(&task);
    terminal::resize(&attached.input, 101, 31).unwrap();
    task.until_output("there\r\n");
    write(&attached, "hello\n");
    let exit = task.end();
    assert_eq!(exit.exit_code, Some(7), "{exit:?}");
    let said = task.stdout();
    // The echo is on until it is off.
    let said: Vec<&str> = said.split("\r\n").filter(|line| *line != "hello").collect();
    let words = ["/dev/pts/0", "terminal xterm", "err", "there", "31 101", "got hello", ""];
    assert_eq!((said, task.stderr().as_str()), (words.to_vec(), ""));
}

fn a_terminal_is_left_and_come_back_to() {
    let script = "stty -echo; trap 'echo size $(stty size)' WINCH; echo ready; \
                  while :; do read line && echo got $line; done";
    let task = sh(script, TERMINAL);
    task.until_output("ready\r\n");
    let first = attach(&task);
    write(&first, "one\n");
    task.until_output("got one\r\n");
    drop(first);
    let (second, third) = (attach(&task), attach(&task));
    terminal::resize(&second.input, 70, 20).unwrap();
    task.until_output("size 20 70\r\n");
    write(&third, "two\n");
    task.until_output("got two\r\n");
    drop((second, third));
    // A further command has another terminal.
    let order = Order {
        command: ["sh", "-c", "tty > terminal"].map(str::to_owned).to_vec(),
        tty: true,
        ..Order::default()
    };
    let exec = task.connect().exec(&order).unwrap();
    eventually("the other terminal", || {
        let name = std::fs::read_to_string(task.launch.sandbox.join("terminal")).ok()?;
        (name == "/dev/pts/1\n").then_some(())
    });
    drop(exec);
    // Ctrl-C is the task's to deal with.
    write(&attach(&task), "\x03");
    let exit = task.end();
    assert!(exit.signal == Some(2) || exit.exit_code == Some(130), "{exit:?}");
}

fn a_terminal_for_once_is_hung_up() {
    let once = Stdio { stdin_once: true, ..TERMINAL };
    let task = sh("trap 'exit 9' HUP; echo ready; while :; do sleep 0.01; done", once);
    task.until_output("ready\r\n");
    let watching = task.connect().attach(false).unwrap();
    let first = attach(&task);
    drop(first);
    until_closed(&watching);
    drop(watching);
    assert_eq!(task.end().exit_code, Some(9));
}

fn users_of_all_kinds_have_terminals() {
    let user = |launch: &mut commonage_shim::Launch| {
        launch.user = User { uid: 1234, gid: 1234, additional_gids: Vec::new() };
    };
    let script =
        "echo there > /dev/tty; echo again > $(tty); read line; echo got $line > /dev/stdout";
    let own = Task::sh(script).with(user).with(|launch| {
        launch.network = Network::None;
        launch.user_namespace = Some(IdRange { first: 700_000, count: 65536 });
    });
    for task in [Task::sh(script).with(user), own] {
        let task = task.with(|launch| launch.stdio = TERMINAL);
        task.start();
        task.until_output("there\r\nagain\r\n");
        write(&attach(&task), "x\n");
        assert!(task.end().success(), "{} {}", task.stdout(), task.shim_log());
        assert!(task.stdout().contains("got x\r\n"), "{}", task.stdout());
    }
    // And may open its input once more.
    let task = Task::sh("read line < /dev/stdin; echo got $line").with(user);
    let task = task.with(|launch| launch.stdio = INPUT);
    task.start();
    write(&attach(&task), "y\n");
    assert!(task.end().success());
    assert_eq!(task.stdout(), "got y\n");
}

fn a_flood_in_a_terminal_is_logged_whole() {
    let task = sh("stty -echo; read line; seq 1 20000", TERMINAL);
    let attached = attach(&task);
    let keys = thread::spawn(move || {
        write(&attached, "go\n");
        attached
    });
    assert!(task.end().success());
    drop(keys.join().unwrap());
    let lines: Vec<String> = task.stdout().lines().map(str::to_owned).collect();
    // The echo of what was typed before it was off.
    let counted = lines.iter().skip_while(|line| *line != "1").count();
    assert_eq!((counted, lines.last().map(String::as_str)), (20_000, Some("20000")));
}

fn a_command_that_is_not_there_needs_no_terminal() {
    let task = Task::command(&["/no/such/program"]).with(|launch| launch.stdio = TERMINAL);
    let exit = task.run();
    assert_eq!(exit.error.unwrap().reason.as_str(), "CommandNotFound");
}
