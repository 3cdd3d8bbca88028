//! `cmn allocator`: what the allocator would decide, without a cluster or on one.

mod plan;

use std::{fs, path::PathBuf, process::ExitCode};

use clap::{Args as ClapArgs, Subcommand};
use commonage_controllers::replay::{Outcome, replay};

use crate::{
    args::Global,
    errors::{Failure, Result, exit},
    output,
};

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Play scenario files, and say what came otherwise than they expect, or what was decided
    #[command(after_help = "Example:
  cmn allocator replay scenarios.json

A file that expects nothing has the plan of each of its steps printed. The exit code is 1 if
anything came otherwise than expected.")]
    Replay {
        /// Scenario files (JSON)
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Say where tasks would go on the running cluster, and why not elsewhere, changing nothing
    #[command(after_help = "Example:
  cmn allocator plan -f tasks.yaml

The exit code is 1 if a task would have to wait.")]
    Plan(plan::Args),
}

#[derive(Default)]
struct Count {
    passed: usize,
    failed: usize,
    skipped: usize,
    told: usize,
}

pub(crate) fn run(args: &Args, global: &Global) -> Result<ExitCode> {
    match &args.verb {
        Verb::Replay { files } => play(files),
        Verb::Plan(args) => {
            crate::as_client(global, async |cluster| plan::run(args, cluster).await)
        }
    }
}

fn play(files: &[PathBuf]) -> Result<ExitCode> {
    let mut count = Count::default();
    for file in files {
        let shown = file.display();
        let text = fs::read_to_string(file)
            .map_err(|error| Failure::new(format!("cannot read {shown}: {error}")))?;
        let reports = replay(&text)
            .map_err(|wrong| Failure::new(format!("cannot replay {shown}: {wrong}")))?;
        for report in reports {
            count.print(&report.name, &report.outcome)?;
        }
    }
    count.print_sum()
}

impl Count {
    fn print(&mut self, name: &str, outcome: &Outcome) -> Result<()> {
        match outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed(wrong) => {
                self.failed += 1;
                output::line(&format!("FAILED {name}"))?;
                for line in wrong {
                    output::line(&format!("  {line}"))?;
                }
            }
            Outcome::Skipped(why) => {
                self.skipped += 1;
                output::line(&format!("skipped {name}: {why}"))?;
            }
            Outcome::Told(plan) => {
                self.told += 1;
                output::line(name)?;
                for line in plan {
                    output::line(&format!("  {line}"))?;
                }
            }
        }
        Ok(())
    }

    fn print_sum(&self) -> Result<ExitCode> {
        if self.told > 0 && self.passed + self.failed == 0 {
            return Ok(ExitCode::SUCCESS);
        }
        if self.skipped > 0 {
            output::line(&format!("{} skipped", self.skipped))?;
        }
        output::line(&format!("{} passed, {} failed", self.passed, self.failed))?;
        Ok(if self.failed > 0 { ExitCode::from(exit::REFUSED) } else { ExitCode::SUCCESS })
    }
}
