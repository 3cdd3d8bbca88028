//! Our shim, asked for as an agent does.

use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use commonage_shim::exec::{Message, Order};
use commonage_shim::launch::{Exit, Limits, Root, Stream};
use commonage_shim::{Launch, Observed, Shim, StateDir, ZygoteHandle, client, zygote};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::bundle::Bundle;
use crate::{Runtime, Times, now, pause, print_times, printed};

pub(crate) struct Ours<'a> {
    zygote: ZygoteHandle,
    bundle: &'a Bundle,
}

impl Ours<'_> {
    pub(crate) fn start(bundle: &Bundle) -> io::Result<Ours<'_>> {
        Ok(Ours { zygote: zygote::start()?, bundle })
    }

    /// What is to run, and where it is kept.
    fn prepare(&self, name: &str, word: &str) -> io::Result<(Launch, StateDir)> {
        let id = format!("latency-{}-{name}", std::process::id());
        let sandbox = self.bundle.place(&format!("sandbox-{name}"))?;
        let mut launch = Launch::new(&id, &format!("/commonage-latency/{id}"), sandbox);
        launch.command = vec!["/payload".to_owned(), word.to_owned()];
        launch.root = Root::Bundle(self.bundle.rootfs());
        launch.limits = Limits {
            cpu_millis: Some(500),
            cpu_quota_millis: Some(2000),
            memory_bytes: Some(128 << 20),
            ..Limits::default()
        };
        let state = StateDir::new(self.bundle.place(&format!("state-{name}"))?);
        state.prepare(&launch)?;
        Ok((launch, state))
    }

    /// One that waits until it is dropped.
    fn waiting(&self, name: &str) -> io::Result<Waiting> {
        let (_, state) = self.prepare(name, "wait")?;
        self.zygote.launch(state.path())?;
        while !fs::read_to_string(state.log(Stream::Stdout)).is_ok_and(|text| !text.is_empty()) {
            pause();
        }
        Ok(Waiting(state))
    }

    /// The specification by which libcontainer makes one, for others.
    pub(crate) fn specification(&self) -> io::Result<serde_json::Value> {
        let waiting = self.waiting("specification")?;
        let text = fs::read(waiting.0.path().join("bundle/config.json"))?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// From the order to the exit code.
    pub(crate) fn further_commands(&self, count: usize) -> io::Result<()> {
        let waiting = self.waiting("exec")?;
        let mut times = Vec::new();
        for _ in 0..count {
            let began = Instant::now();
            let command = vec!["/payload".to_owned(), "payload".to_owned()];
            let order = Order { command, ..Order::default() };
            let mut exec =
                Shim::connect(waiting.0.path())?.exec(&order).map_err(io::Error::other)?;
            exec.control.set_nonblocking(false)?;
            let mut message = [0; Message::BYTES];
            exec.control.read_exact(&mut message)?;
            if Message::parse(&message) == Some(Message::Started) {
                exec.control.read_exact(&mut message)?;
            }
            if Message::parse(&message) != Some(Message::Ended(0)) {
                return Err(io::Error::other(format!("{message:?}")));
            }
            times.push(began.elapsed());
        }
        println!("ours, {count} further commands in a container:");
        print_times("exit code", times.into_iter());
        Ok(())
    }

    /// What nobody else has of a shim's memory while its task sleeps.
    pub(crate) fn memory(&self, count: usize) -> io::Result<()> {
        let idle: Vec<Waiting> =
            (0..count).map(|n| self.waiting(&format!("idle-{n}"))).collect::<io::Result<_>>()?;
        let mut private = Vec::new();
        for one in &idle {
            let pid = Shim::connect(one.0.path())?.status()?.shim_pid;
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            let kib = |name: &str| -> u64 {
                let line = rollup.lines().find_map(|line| line.strip_prefix(name));
                line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
            };
            private.push((kib("Private_Dirty:"), kib("Pss:")));
        }
        private.sort_unstable();
        let (dirty, shared) = private[count / 2];
        println!(
            "ours, memory of a shim, median of {count}: {dirty} KiB private, {shared} KiB in proportion"
        );
        Ok(())
    }
}

/// Killed, and waited for, when dropped.
struct Waiting(StateDir);

impl Drop for Waiting {
    fn drop(&mut self) {
        let Ok(shim) = Shim::connect(self.0.path()).and_then(|mut shim| {
            let pid = shim.status()?.shim_pid;
            shim.kill(9).map(|()| pid)
        }) else {
            return;
        };
        let _ = until_gone(shim);
    }
}

/// Waits as an agent does: only a shim too young to listen is asked again.
fn ended(state: &StateDir) -> io::Result<Exit> {
    loop {
        if let Ok(shim) = Shim::connect(state.path()) {
            return shim.wait();
        }
        match client::scan(state.path())? {
            Observed::Exited(exit) => return Ok(exit),
            Observed::Lost => return Err(io::Error::other("shim lost")),
            _ => pause(),
        }
    }
}

/// A process that is no child of ours tells its end to who has opened it.
fn until_gone(pid: i32) -> io::Result<()> {
    let Some(pid) = Pid::from_raw(pid) else { return Ok(()) };
    let Ok(opened) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
    poll(&mut [PollFd::new(opened.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
    Ok(())
}

impl Runtime for Ours<'_> {
    fn name(&self) -> String {
        "ours".to_owned()
    }

    fn run(&self, number: usize) -> io::Result<Times> {
        let (_, state) = self.prepare(&number.to_string(), "payload")?;
        let start = now();
        self.zygote.launch(state.path())?;
        let exit = ended(&state)?;
        let end_reported = now() - start;
        // The last thing that a shim removes; what it flushes then is nobody's business any more.
        while state.path().join("ctl.sock").exists() {
            pause();
        }
        let all_gone = now() - start;
        if !exit.success() {
            return Err(io::Error::other(format!("{exit:?}")));
        }
        let first = printed(&fs::read_to_string(state.log(Stream::Stdout))?)?;
        Ok(Times { first_instruction: first - start, end_reported, all_gone })
    }

    /// The zygote reaps the shims, and they their containers.
    fn processor_time(&self) -> io::Result<Duration> {
        let pid = self.zygote.pid().unwrap_or_default();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields: Vec<&str> =
            stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        // utime, stime, cutime, cstime of proc(5), in hundredths of a second.
        let ticks: u64 = fields[11..15].iter().filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * 10))
    }
}
