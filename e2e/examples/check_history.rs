//! Checks a history that a test kept: `cargo run -p commonage-e2e --example check_history FILE`.

use std::fs::File;
use std::io::BufReader;
use std::process::ExitCode;

use anyhow::Context;
use commonage_e2e::history;

fn main() -> anyhow::Result<ExitCode> {
    let path = std::env::args().nth(1).context("which file?")?;
    let records = history::read(BufReader::new(File::open(&path).context(path)?))?;
    let found = history::check(&records);
    println!("{} records, {} violations", records.len(), found.len());
    found.iter().for_each(|violation| println!("{violation}"));
    Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
