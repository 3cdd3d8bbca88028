//! The agent's hands over real shims and real containers: what was begun is found again. Needs
//! root and control groups; without them every test says so loudly and passes.
//!
//! Its own `main`, because the zygote is this executable once more, and so is the agent that one
//! of the tests kills. Speaks as much of libtest's command line as cargo's runners need.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod caller;
mod fixture;
mod life;
mod recovery;
mod session;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

type Test = (&'static str, fn());

fn main() -> ExitCode {
    commonage_shim::dispatch();
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [command, data_dir, script] = &args[..]
        && command == recovery::STAND_IN
    {
        return recovery::stand_in(data_dir.as_ref(), script);
    }
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let tests: Vec<Test> = [life::TESTS, recovery::TESTS, session::TESTS].concat();
    if has("--list") {
        for (name, _) in tests.iter().filter(|_| !has("--ignored")) {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    if let Some(reason) = fixture::cannot_run() {
        eprintln!("\n!!! NO CONTAINER WAS TESTED: {reason} !!!\n");
        return ExitCode::SUCCESS;
    }
    let names: Vec<&String> = args.iter().filter(|arg| !arg.starts_with("--")).collect();
    let wanted = |name: &str| match has("--exact") {
        _ if names.is_empty() => true,
        true => names.iter().any(|wanted| name == wanted.as_str()),
        false => names.iter().any(|wanted| name.contains(wanted.as_str())),
    };
    let mut failed = 0;
    for (name, test) in tests.into_iter().filter(|(name, _)| wanted(name)) {
        let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += u32::from(!passed);
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
