//! How long a task takes from the request to its first instruction, to its reported end, and until
//! nothing is left of it. As root: `cargo run -p commonage-shim --example launch_latency [count]`.
//!
//! The task is this program once more: it prints the time, and ends.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use commonage_shim::launch::{Limits, LogLimits, Network, Root, Stream, User};
use commonage_shim::{Launch, Observed, StateDir, ZygoteHandle, client, zygote};

fn main() -> io::Result<ExitCode> {
    commonage_shim::dispatch();
    let argument = std::env::args().nth(1).unwrap_or_default();
    if argument == "payload" {
        println!("{}", now().as_nanos());
        return Ok(ExitCode::SUCCESS);
    }
    let count: u32 = argument.parse().unwrap_or(100);
    let zygote = zygote::start()?;
    let directory = tempfile::tempdir()?;
    let mut first = Vec::new();
    let mut ended = Vec::new();
    let mut gone = Vec::new();
    for number in 0..count + 5 {
        let [f, e, g] = once(&zygote, directory.path(), number)?;
        // The first few warm the caches up.
        if number >= 5 {
            first.push(f);
            ended.push(e);
            gone.push(g);
        }
    }
    for (what, mut times) in
        [("first instruction", first), ("end reported", ended), ("all cleaned up", gone)]
    {
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
        println!("{what:>18}: p50 {:6.2} ms, p90 {:6.2} ms, p99 {:6.2} ms", at(50), at(90), at(99));
    }
    Ok(ExitCode::SUCCESS)
}

fn once(zygote: &ZygoteHandle, directory: &Path, number: u32) -> io::Result<[Duration; 3]> {
    let id = format!("latency-{}-{number}", std::process::id());
    let sandbox = directory.join(format!("sandbox-{number}"));
    std::fs::create_dir(&sandbox)?;
    let launch = Launch {
        cgroup: format!("/commonage-latency/{id}"),
        id,
        command: vec![std::env::current_exe()?.display().to_string(), "payload".to_owned()],
        args: Vec::new(),
        env: Default::default(),
        working_dir: None,
        user: User::default(),
        user_name: None,
        own_sandbox: false,
        hostname: None,
        limits: Limits {
            cpu_millis: Some(500),
            cpu_quota_millis: Some(2000),
            memory_bytes: Some(128 << 20),
            ..Limits::default()
        },
        root: Root::HostReadOnly,
        sandbox,
        hidden: Vec::new(),
        network: Network::Host,
        mounts: Vec::new(),
        log: LogLimits::default(),
    };
    let state = StateDir::new(directory.join(format!("state-{number}")));
    state.prepare(&launch)?;
    let start = now();
    let shim = zygote.launch(state.path())?;
    let exit = loop {
        match client::scan(state.path())? {
            Observed::Exited(exit) => break exit,
            Observed::Lost => return Err(io::Error::other("shim lost")),
            _ => pause(),
        }
    };
    let ended = now();
    while Path::new(&format!("/proc/{shim}/exe")).exists() {
        pause();
    }
    let gone = now();
    let printed = std::fs::read_to_string(state.log(Stream::Stdout))?;
    let nanos = printed.trim().parse().map_err(|_| io::Error::other(format!("{exit:?}")))?;
    Ok([Duration::from_nanos(nanos) - start, ended - start, gone - start])
}

fn now() -> Duration {
    Duration::from_nanos(jiff::Timestamp::now().as_nanosecond().unsigned_abs() as u64)
}

/// Often enough to be exact, seldom enough to leave the cores to what is measured.
#[allow(clippy::disallowed_methods)]
fn pause() {
    std::thread::sleep(Duration::from_micros(200));
}
