//! What a container costs at the shim, side by side with another runtime on the same bundle. As root:
//! `cargo run --release -p commonage-shim --example launch_latency [COUNT [RUNTIME]]`, `RUNTIME` being a program that
//! takes runc's command line, such as `runc` or `crun`.
//!
//! The task is this program once more: it prints the time, and ends. One after the other, in turns, so that both see
//! the same machine; then eight at once; then what is ours alone: further commands, and the memory of a shim.
#![allow(clippy::unwrap_used)]

mod bundle;
mod other;
mod ours;

use std::collections::VecDeque;
use std::io;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bundle::Bundle;

/// Workers of the second part.
const AT_ONCE: usize = 8;
/// The first few warm the caches up.
const WARM_UP: usize = 5;
/// Shims whose memory is looked at.
const IDLE: usize = 20;

/// Since a container was asked for.
#[derive(Clone, Copy)]
struct Times {
    first_instruction: Duration,
    end_reported: Duration,
    all_gone: Duration,
}

/// Something that runs containers.
trait Runtime: Sync {
    fn name(&self) -> String;
    fn run(&self, number: usize) -> io::Result<Times>;
    /// Processor time of all it has started and that has ended.
    fn processor_time(&self) -> io::Result<Duration>;
}

fn main() -> io::Result<ExitCode> {
    commonage_shim::dispatch();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |place: usize| arguments.get(place).map(String::as_str);
    match argument(0) {
        Some("payload") => {
            println!("{}", now().as_nanos());
            return Ok(ExitCode::SUCCESS);
        }
        Some("wait") => loop {
            println!("waiting");
            std::thread::park();
        },
        _ => {}
    }
    let count = argument(0).and_then(|count| count.parse().ok()).unwrap_or(100);
    let bundle = Bundle::make()?;
    let ours = ours::Ours::start(&bundle)?;
    let other = match argument(1) {
        Some(program) => Some(other::Other::new(program, &bundle, &ours.specification()?)?),
        None => None,
    };
    let mut runtimes: Vec<&dyn Runtime> = vec![&ours];
    runtimes.extend(other.as_ref().map(|other| other as &dyn Runtime));
    in_turns(&runtimes, count)?;
    for runtime in &runtimes {
        at_once(*runtime, count)?;
    }
    ours.further_commands(count)?;
    ours.memory(IDLE)?;
    Ok(ExitCode::SUCCESS)
}

/// One of each, again and again.
fn in_turns(runtimes: &[&dyn Runtime], count: usize) -> io::Result<()> {
    let mut times: Vec<Vec<Times>> = runtimes.iter().map(|_| Vec::new()).collect();
    let processor_times = || -> io::Result<Vec<Duration>> {
        runtimes.iter().map(|runtime| runtime.processor_time()).collect()
    };
    let before = processor_times()?;
    for number in 0..count + WARM_UP {
        for (place, runtime) in runtimes.iter().enumerate() {
            let once = runtime.run(number)?;
            if number >= WARM_UP {
                times[place].push(once);
            }
        }
    }
    // Of all of them: a single one's is counted only when it has been waited for, a moment later.
    let after = processor_times()?;
    let spent = before.iter().zip(&after).map(|(before, after)| after.saturating_sub(*before));
    for ((runtime, times), spent) in runtimes.iter().zip(&times).zip(spent) {
        println!("{}, {count} one after the other:", runtime.name());
        print_times("first instruction", times.iter().map(|t| t.first_instruction));
        print_times("end reported", times.iter().map(|t| t.end_reported));
        print_times("all cleaned up", times.iter().map(|t| t.all_gone));
        println!("{:>20}: {:6.2} ms each", "processor time", ms(spent) / (count + WARM_UP) as f64);
    }
    Ok(())
}

/// As many as there are workers, all the time.
fn at_once(runtime: &dyn Runtime, count: usize) -> io::Result<()> {
    // Numbers that were not used before.
    let left: Mutex<VecDeque<usize>> = Mutex::new((count + WARM_UP..2 * count + WARM_UP).collect());
    let times: Mutex<Vec<Times>> = Mutex::default();
    let (began, before) = (Instant::now(), runtime.processor_time()?);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                scope.spawn(|| -> io::Result<()> {
                    loop {
                        let Some(number) = left.lock().unwrap().pop_front() else { return Ok(()) };
                        let once = runtime.run(number)?;
                        times.lock().unwrap().push(once);
                    }
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap())
    })?;
    let took = began.elapsed();
    println!("{}, {count} by {AT_ONCE} at once:", runtime.name());
    print_times("first instruction", times.lock().unwrap().iter().map(|t| t.first_instruction));
    println!("{:>20}: {:6.1} a second", "containers", count as f64 / took.as_secs_f64());
    let spent = runtime.processor_time()?.saturating_sub(before);
    println!("{:>20}: {:6.2} ms each", "processor time", ms(spent) / count as f64);
    Ok(())
}

fn print_times(what: &str, times: impl Iterator<Item = Duration>) {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    let at = |percent: usize| ms(times[(times.len() - 1) * percent / 100]);
    println!("{what:>20}: p50 {:6.2} ms, p90 {:6.2} ms, p99 {:6.2} ms", at(50), at(90), at(99));
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// By the machine's clock, which is the same inside.
fn now() -> Duration {
    Duration::from_nanos(jiff::Timestamp::now().as_nanosecond().unsigned_abs() as u64)
}

/// What the payload has printed.
fn printed(text: &str) -> io::Result<Duration> {
    let nanos = text.trim().parse().map_err(|_| io::Error::other(format!("printed {text:?}")))?;
    Ok(Duration::from_nanos(nanos))
}

/// Often enough to be exact, seldom enough to leave the cores to what is measured.
#[allow(clippy::disallowed_methods)]
fn pause() {
    std::thread::sleep(Duration::from_micros(200));
}
