//! `exec`, `attach` and `portforward`, from the API server's side of the wire.

use std::time::Instant;

use commonage_agent::health::Commands;
use commonage_agent::runtime::Seen as State;
use commonage_shim::Shim;
use commonage_shim::launch::{Network, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::Test;
use crate::caller::{Caller, sh};
use crate::fixture::{Hands, PATIENCE, directory, eventually};

pub const TESTS: &[Test] = &[
    ("a_command_runs_and_its_code_is_told", a_command_runs_and_its_code_is_told),
    ("input_goes_in_and_ends", input_goes_in_and_ends),
    ("a_terminal_has_a_size", a_terminal_has_a_size),
    ("what_does_not_run_is_explained", what_does_not_run_is_explained),
    ("a_task_that_uses_all_it_has_says_so", a_task_that_uses_all_it_has_says_so),
    ("a_slow_client_holds_the_command_up", a_slow_client_holds_the_command_up),
    ("many_clients_are_served_at_once", many_clients_are_served_at_once),
    ("a_client_that_leaves_takes_the_streams_along", a_client_that_leaves_takes_the_streams_along),
    ("an_agent_that_stops_kills_its_commands", an_agent_that_stops_kills_its_commands),
    ("attach_shows_what_comes", attach_shows_what_comes),
    ("a_port_is_forwarded", a_port_is_forwarded),
    ("a_port_in_a_network_of_its_own_is_forwarded", a_port_in_a_network_of_its_own_is_forwarded),
    ("logs_tell_when_lines_came", logs_tell_when_lines_came),
    ("a_check_runs_a_command", a_check_runs_a_command),
    ("exec_is_fast", exec_is_fast),
];

const WAITS: &str = "echo ready; until [ -e go ]; do sleep 0.01; done; echo out; echo err >&2";

fn started(script: &str, change: impl FnOnce(&mut Hands)) -> (tempfile::TempDir, Hands) {
    let dir = directory();
    let mut hands = Hands::new(dir.path(), script);
    change(&mut hands);
    let seen = hands.shims.start(&hands.entry, &hands.launch, &Default::default());
    assert!(matches!(seen, State::Running { .. }), "{seen:?}");
    (dir, hands)
}

fn waiting() -> (tempfile::TempDir, Hands, Caller) {
    let (dir, hands) = started(WAITS, |_| {});
    let caller = Caller::new(&hands);
    (dir, hands, caller)
}

/// How many processes with these words in their command line the container has.
fn processes(hands: &Hands, words: &str) -> usize {
    let group = format!("/sys/fs/cgroup/pids{}/cgroup.procs", hands.launch.cgroup);
    let pids = std::fs::read_to_string(group).unwrap_or_default();
    let line = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
    let lines = pids.lines().filter_map(|pid| line(pid).ok());
    lines.filter(|line| line.replace('\0', " ").contains(words)).count()
}

fn a_command_runs_and_its_code_is_told() {
    let (_dir, _hands, caller) = waiting();
    let seen = caller.sh("echo $COMMONAGE_TASK; echo oh >&2; exit 3");
    assert_eq!((seen.stdout(), seen.stderr(), seen.code()), ("t\n", "oh\n", 3));
    let expected = serde_json::json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": "command terminated with non-zero exit code: exit status 3",
        "details": {"causes": [{"reason": "ExitCode", "message": "3"}]},
    });
    assert_eq!(seen.status, expected);
    let seen = caller.sh("echo fine");
    assert_eq!(seen.status, serde_json::json!({"metadata": {}, "status": "Success"}));
    // Only what is asked for comes.
    let only_errors = sh("echo x; echo y >&2").replace("stdout=true", "stdout=false");
    let seen = caller.run("exec", &only_errors, b"");
    assert_eq!((seen.stdout(), seen.stderr()), ("", "y\n"));
    // What it leaves in the background is not waited for longer than it must be.
    assert_eq!(caller.sh("sleep 1000 >/dev/null 2>&1 & echo on").stdout(), "on\n");
}

fn input_goes_in_and_ends() {
    let (_dir, _hands, caller) = waiting();
    let text = "line\n".repeat(100_000);
    let seen = caller.run("exec", "command=wc&command=-l&stdin=true&stdout=true", text.as_bytes());
    assert_eq!((seen.stdout().trim(), seen.code()), ("100000", 0));
    // An echo, while it goes on, and a ping in between.
    let seen = caller.runtime.block_on(async {
        let mut socket = caller.open("exec", "command=cat&stdin=1&stdout=1").await.unwrap();
        socket.say(0, b"").await;
        socket.say(0, b"one").await;
        assert_eq!(socket.until("one").await, "one");
        socket.ping().await;
        socket.say(0, b"two").await;
        socket.say(255, &[0]).await;
        socket.rest().await
    });
    assert_eq!((seen.stdout(), seen.code()), ("two", 0));
}

fn a_terminal_has_a_size() {
    let (_dir, _hands, caller) = waiting();
    let seen = caller.runtime.block_on(async {
        let query = "command=sh&stdin=true&stdout=true&stderr=true&tty=true";
        let mut socket = caller.open("exec", query).await.unwrap();
        socket.say(4, b"{\"Width\":132,\"Height\":43}\n").await;
        // In two, so that its echo is not taken for its answer.
        socket.say(0, b"stty size; echo a''b\n").await;
        assert!(socket.until("ab\r\n").await.contains("43 132\r\n"));
        // `exec`: a shell that is just about to fork swallows an interrupt.
        socket.say(0, b"sh -c 'echo c''d; exec sleep 1000'\n").await;
        socket.until("cd\r\n").await;
        socket.say(0, b"\x03").await;
        socket.say(0, b"exit 6\n").await;
        socket.rest().await
    });
    assert_eq!(seen.code(), 6, "{seen:?}");
}

fn what_does_not_run_is_explained() {
    let (_dir, hands, caller) = waiting();
    let seen = caller.run("exec", "command=no-such&stdout=true", b"");
    assert_eq!((seen.code(), seen.stdout(), seen.stderr()), (127, "", ""));
    let both = |program: &str| {
        let query = format!("command={program}&stdout=true&stderr=true");
        let seen = caller.run("exec", &query, b"");
        (seen.code(), seen.stderr().to_owned())
    };
    let missing = "exec: \"no-such\": executable file not found in $PATH\n";
    assert_eq!(both("no-such"), (127, missing.to_owned()));
    assert_eq!(both("/etc/passwd").0, 126);
    let seen = caller.run("exec", "command=no-such&stdout=true&tty=true", b"");
    assert_eq!((seen.code(), seen.stdout()), (127, missing.replace('\n', "\r\n").as_str()));
    let refused = |verb: &str, query: &str| {
        let (code, status) = caller.runtime.block_on(caller.open(verb, query)).err().unwrap();
        (code, status["message"].as_str().unwrap().to_owned())
    };
    let (code, message) = refused("exec", "command=true");
    assert_eq!(
        (code, message.as_str()),
        (400, "you must specify at least 1 of stdin, stdout, stderr")
    );
    assert_eq!(refused("exec", "stdout=true").0, 400);
    hands.go();
    hands.end();
    for (verb, query) in [("exec", "command=true&stdout=1"), ("attach", "stdout=1")] {
        assert_eq!(refused(verb, query), (400, "task \"t\" has ended".to_owned()));
    }
    let (code, message) = caller.runtime.block_on(caller.forward(80)).unwrap_err();
    assert_eq!((code, message.as_str()), (400, "task \"t\" has ended"));
}

/// Row F-75: every process of a fork bomb forks, and takes what there is of processors and processes.
fn a_task_that_uses_all_it_has_says_so() {
    let bomb = "echo ready; exec perl -e 'while (1) { fork }'";
    let (_dir, hands) = started(bomb, |hands| {
        hands.launch.limits.pids = 256;
        hands.launch.limits.cpu_quota_millis = Some(200);
    });
    let caller = Caller::new(&hands);
    eventually("it is at its limit", || {
        let used = commonage_shim::client::usage(&hands.launch).ok()?;
        (used.pids >= 256).then_some(())
    });
    // With a terminal and without, by several at once: each is told which limit it is.
    let queries = ["command=true&stdout=true&stderr=true", "command=true&stdout=true&tty=true"];
    for query in queries.repeat(3) {
        let seen = caller.run("exec", query, b"");
        let message = seen.status["message"].as_str().unwrap();
        assert!(message.contains("256"), "{:?}", seen.status);
    }
    let began = Instant::now();
    hands.shims.signal(hands.uid(), 9).unwrap();
    hands.end();
    assert!(began.elapsed() < PATIENCE);
}

/// What is under way is what a few buffers hold; the command waits, and then all of it comes.
fn a_slow_client_holds_the_command_up() {
    const BYTES: usize = 64 << 20;
    let (_dir, hands, caller) = waiting();
    let script = format!("head -c {BYTES} /dev/zero; touch done");
    let done = hands.ledger.sandbox(hands.uid()).join("done");
    let seen = caller.runtime.block_on(async {
        let mut socket = caller.open("exec", &sh(&script)).await.unwrap();
        socket.ping().await;
        assert!(!done.exists());
        socket.rest().await
    });
    assert!(done.exists());
    // The ping took some messages along.
    assert!(seen.stdout.len() > BYTES / 2 && seen.code() == 0, "{}", seen.stdout.len());
}

fn many_clients_are_served_at_once() {
    let (_dir, _hands, caller) = waiting();
    caller.runtime.block_on(async {
        let mut sockets = Vec::new();
        for number in 0..20 {
            let query = sh(&format!("read line < /dev/stdin; echo $line {number}; exit {number}"));
            sockets.push(caller.open("exec", &format!("{query}&stdin=true")).await.unwrap());
        }
        for (number, mut socket) in (0..).zip(sockets) {
            socket.say(0, b"hello\n").await;
            let seen = socket.rest().await;
            assert_eq!((seen.stdout(), seen.code()), (&*format!("hello {number}\n"), number));
        }
    });
}

fn a_client_that_leaves_takes_the_streams_along() {
    let (_dir, hands, caller) = waiting();
    let begin = |query: String, words: &str| {
        let socket = caller.runtime.block_on(caller.open("exec", &query)).unwrap();
        eventually("it runs", || (processes(&hands, words) > 0).then_some(()));
        drop(socket);
    };
    // Hung up on, at its end of input, and unable to write: each ends by itself.
    begin("command=sleep&command=1001&stdin=1&stdout=1&tty=1".to_owned(), "sleep 1001");
    begin(format!("{}&stdin=1", sh("cat; echo 1002 >&2")), "1002");
    begin(sh("while echo 1003; do sleep 0.01; done"), "1003");
    // Nobody tells this one.
    begin(sh("until [ -e go ]; do sleep 0.01; done; touch 1004; :"), "1004");
    for words in ["sleep 1001", "1002", "1003"] {
        eventually(words, || (processes(&hands, words) == 0).then_some(()));
    }
    assert_eq!(processes(&hands, "1004"), 1);
}

fn an_agent_that_stops_kills_its_commands() {
    let (_dir, hands, caller) = waiting();
    let open = |query| caller.runtime.block_on(caller.open("exec", query)).unwrap();
    let one = open("command=sleep&command=1005&stdout=1");
    let two = open("command=sleep&command=1005&stdout=1");
    eventually("they run", || (processes(&hands, "sleep 1005") == 2).then_some(()));
    // Also the one whose client had left it alone.
    drop(one);
    caller.stop();
    eventually("they are gone", || (processes(&hands, "sleep 1005") == 0).then_some(()));
    drop(two);
    let status = Shim::connect(hands.ledger.state_dir(hands.uid()).path()).unwrap().status();
    assert!(status.unwrap().started_at.is_some());
}

fn attach_shows_what_comes() {
    let (_dir, hands, caller) = waiting();
    eventually("it is ready", || hands.stdout().contains("ready").then_some(()));
    let seen = caller.runtime.block_on(async {
        let Err((code, said)) = caller.open("attach", "stdin=true&stdout=true").await else {
            panic!("it has no input");
        };
        let words = "task \"t\" has no standard input: that takes spec.container.stdin";
        assert!(code == 400 && said["message"].as_str().unwrap().starts_with(words), "{said}");
        let mut socket = caller.open("attach", "stdout=true&stderr=true").await.unwrap();
        socket.say(0, b"not wanted").await;
        socket.say(4, b"{\"Width\":132,\"Height\":43}").await;
        socket.ping().await;
        hands.go();
        socket.rest().await
    });
    assert_eq!((seen.stdout(), seen.stderr(), seen.code()), ("out\n", "err\n", 0));
}

const ECHO: &str = "\
import socket, sys
server = socket.create_server(('127.0.0.1', int(sys.argv[1])))
print('port', server.getsockname()[1], flush=True)
while True:
    peer, _ = server.accept()
    said = b''
    while chunk := peer.recv(65536):
        said += chunk
    peer.sendall(b'you said ' + said)
    peer.close()
";

fn a_port_is_forwarded() {
    forwarding(Network::Host);
}

fn a_port_in_a_network_of_its_own_is_forwarded() {
    forwarding(Network::None);
}

fn forwarding(network: Network) {
    let (_dir, hands) = started("", |hands| {
        hands.launch.network = network;
        hands.launch.command = ["/usr/bin/python3", "-c", ECHO, "0"].map(str::to_owned).to_vec();
    });
    let port: u16 = eventually("it listens", || {
        let stdout = hands.stdout();
        stdout.strip_prefix("port ")?.strip_suffix('\n')?.parse().ok()
    });
    let caller = Caller::new(&hands);
    caller.runtime.block_on(async {
        for text in ["hello".to_owned(), "x".repeat(1 << 20)] {
            let mut stream = caller.forward(port).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
            // It answers only when it has heard the end.
            stream.shutdown().await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer == format!("you said {text}"), "{} bytes", answer.len());
        }
        let (code, message) = caller.forward(1).await.unwrap_err();
        assert_eq!(code, 500);
        assert!(message.starts_with("failed to connect to localhost:1: "), "{message}");
        assert!(message.contains("refused"), "{message}");
    });
}

fn logs_tell_when_lines_came() {
    let script = "for n in 1 2 3; do echo out $n; until [ -e go$n ]; do sleep 0.01; done; \
                  echo err $n >&2; until [ -s /sandbox/go$n ]; do sleep 0.01; done; done";
    let before = jiff::Timestamp::now();
    let (_dir, hands) = started(script, |_| {});
    let stderr = hands.ledger.state_dir(hands.uid()).log(Stream::Stderr);
    for number in 1..=3 {
        let go = hands.ledger.sandbox(hands.uid()).join(format!("go{number}"));
        let printed = format!("out {number}");
        eventually("its output is there", || hands.stdout().contains(&printed).then_some(()));
        std::fs::write(&go, "").unwrap();
        let printed = format!("err {number}");
        let seen = || std::fs::read_to_string(&stderr).unwrap_or_default();
        eventually("its error is there", || seen().contains(&printed).then_some(()));
        std::fs::write(&go, "x").unwrap();
    }
    let caller = Caller::new(&hands);
    assert_eq!(caller.log("follow=true"), "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n");
    let stamped = caller.log("timestamps=true&tailLines=3");
    let lines: Vec<(&str, &str)> = stamped.lines().map(|l| l.split_once(' ').unwrap()).collect();
    let text: Vec<&str> = lines.iter().map(|(_, text)| *text).collect();
    assert_eq!(text, ["err 2", "out 3", "err 3"]);
    let times: Vec<jiff::Timestamp> = lines.iter().map(|(time, _)| time.parse().unwrap()).collect();
    assert!(times.is_sorted() && times[0] > before, "{times:?}");
    assert!(lines.iter().all(|(time, _)| time.len() == "2026-01-01T00:00:00.123456789Z".len()));
    let since = format!("sinceTime={}&stream=Stdout", lines[1].0);
    assert_eq!(caller.log(&since), "out 3\n");
}

fn a_check_runs_a_command() {
    let (_dir, hands, caller) = waiting();
    let uid = hands.uid().to_owned();
    let run = |script: &str| {
        let command = ["sh", "-c", script].map(str::to_owned);
        let ran = async { hands.shims.run(&uid, &command).await };
        caller.runtime.block_on(async { tokio::time::timeout(PATIENCE, ran).await.unwrap() })
    };
    assert_eq!(run("test -d /sandbox"), Ok(()));
    assert_eq!(run("echo one; echo two >&2; exit 2"), Err("exit code 2: one\ntwo".to_owned()));
    assert_eq!(run("exit 1"), Err("exit code 1".to_owned()));
    // Not waited for, though it holds the output.
    assert_eq!(run("sleep 1006 &"), Ok(()));
    let no_such = ["no-such".to_owned()];
    let no_such = caller.runtime.block_on(hands.shims.run(&uid, &no_such));
    assert!(no_such.unwrap_err().contains("not found in $PATH"));
    // Whose time is over is killed.
    let command = ["sleep", "1007"].map(str::to_owned);
    caller.runtime.block_on(async {
        let short = std::time::Duration::from_millis(50);
        tokio::time::timeout(short, hands.shims.run(&uid, &command)).await.unwrap_err();
    });
    eventually("it is killed", || (processes(&hands, "sleep 1007") == 0).then_some(()));
}

/// From the request to the Status, TLS included. Far above what is seen, far below what annoys.
fn exec_is_fast() {
    const BUDGET_MS: u128 = 250;
    let (_dir, _hands, caller) = waiting();
    let mut times: Vec<u128> = (0..50)
        .map(|_| {
            let begin = Instant::now();
            assert_eq!(caller.run("exec", "command=true&stdout=true", b"").code(), 0);
            begin.elapsed().as_micros()
        })
        .collect();
    times.sort_unstable();
    println!("exec of true: p50 {} us, p99 {} us", times[25], times[49]);
    assert!(times[25] < BUDGET_MS * 1000, "p50 {} us", times[25]);
}
