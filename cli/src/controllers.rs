//! Being composed.

use std::process::ExitCode;

use clap::Args as ClapArgs;

use crate::{
    args::Global,
    errors::{Failure, Result},
};

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args, _global: &Global) -> Result<ExitCode> {
    Err(Failure::new("not yet"))
}
