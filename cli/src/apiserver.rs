//! Being composed.

use std::process::ExitCode;

use clap::Args as ClapArgs;

use crate::errors::{Failure, Result};

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> Result<ExitCode> {
    Err(Failure::new("not yet"))
}
