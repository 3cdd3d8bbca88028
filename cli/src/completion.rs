//! `cmn completion`: what a shell has to know to finish what is typed, and what it is then told.

mod line;
mod live;

use std::process::ExitCode;

use clap::{Args as ClapArgs, CommandFactory, ValueEnum};

use crate::{args::Cli, errors::Result, output};

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  source <(cmn completion bash)       for this shell; in ~/.bashrc for all of them
  source <(cmn completion zsh)        in ~/.zshrc
  cmn completion fish | source        in ~/.config/fish/config.fish

Names of objects are asked of the cluster; one that does not answer within 300 ms offers none.")]
pub(crate) struct Args {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let script = match args.shell {
        Shell::Bash => include_str!("completion/cmn.bash"),
        Shell::Zsh => include_str!("completion/cmn.zsh"),
        Shell::Fish => include_str!("completion/cmn.fish"),
    };
    output::data(script.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// What those scripts ask with: the words after `cmn` up to the cursor; the last one is being typed.
#[derive(Debug, ClapArgs)]
pub(crate) struct Words {
    #[arg(last = true)]
    words: Vec<String>,
}

/// Prints what can stand there, one a line, with what it means after a tab.
pub(crate) fn complete(asked: &Words) -> Result<ExitCode> {
    let mut command = Cli::command();
    command.build();
    let Some((typed, before)) = asked.words.split_last() else { return Ok(ExitCode::SUCCESS) };
    let line = line::Line::read(&command, before);
    for candidate in line.candidates(typed, live::ask) {
        output::line(&candidate)?;
    }
    Ok(ExitCode::SUCCESS)
}
