//! Real containers, started the way an agent does. Needs root and control groups; without them
//! every test says so loudly and passes.
//!
//! Its own `main`, because the zygote is this executable once more. Speaks as much of libtest's
//! command line as `cargo test` and `cargo nextest` need.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod attach;
mod exec;
mod fixture;
mod image;
mod intruder;
mod isolation;
mod life;
mod limits;
mod network;
mod recovery;
mod users;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

type Test = (&'static str, fn());

fn main() -> ExitCode {
    commonage_shim::dispatch();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let tests: Vec<Test> = [
        life::TESTS,
        limits::TESTS,
        isolation::TESTS,
        recovery::TESTS,
        attach::TESTS,
        exec::TESTS,
        image::TESTS,
        intruder::TESTS,
        network::TESTS,
        users::TESTS,
    ]
    .concat();
    if has("--list") {
        for (name, _) in tests.iter().filter(|_| !has("--ignored")) {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = args.iter().filter(|arg| !arg.starts_with("--")).collect();
    let wanted = |name: &str| {
        filters.is_empty()
            || filters.iter().any(|f| {
                if has("--exact") { name == f.as_str() } else { name.contains(f.as_str()) }
            })
    };
    if let Some(reason) = fixture::cannot_run() {
        eprintln!("\n!!! NO CONTAINER WAS TESTED: {reason} !!!\n");
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    for (name, test) in tests.into_iter().filter(|(name, _)| wanted(name)) {
        let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += u32::from(!passed);
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
