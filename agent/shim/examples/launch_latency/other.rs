//! Another runtime with runc's command line, on the same root and the same specification.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::{Runtime, Times, now, printed};

pub(crate) struct Other<'a> {
    program: String,
    bundle: &'a Bundle,
    /// Where it keeps what it knows.
    root: PathBuf,
    specification: Value,
}

impl Other<'_> {
    pub(crate) fn new<'a>(
        program: &str,
        bundle: &'a Bundle,
        specification: &Value,
    ) -> io::Result<Other<'a>> {
        let root = bundle.place("other-root")?;
        let mut specification = specification.clone();
        // What ours has bound belongs to its task, and is gone with it.
        for mount in specification["mounts"].as_array_mut().into_iter().flatten() {
            if mount["type"] == "bind" {
                mount["source"] = json!(bundle.place("other-writable")?);
            }
        }
        Ok(Other { program: program.to_owned(), bundle, root, specification })
    }
}

impl Runtime for Other<'_> {
    fn name(&self) -> String {
        self.program.clone()
    }

    fn run(&self, number: usize) -> io::Result<Times> {
        let id = format!("latency-other-{}-{number}", std::process::id());
        let directory = self.bundle.place(&format!("other-{number}"))?;
        let mut specification = self.specification.clone();
        specification["process"]["args"] = json!(["/payload", "payload"]);
        specification["linux"]["cgroupsPath"] = format!("/commonage-latency/{id}").into();
        fs::write(directory.join("config.json"), specification.to_string())?;
        let start = now();
        let output = Command::new(&self.program)
            .arg("--root")
            .arg(&self.root)
            .args(["run", "--bundle"])
            .arg(&directory)
            .arg(&id)
            .stdin(Stdio::null())
            .output()?;
        let all_gone = now() - start;
        if !output.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        let first = printed(&String::from_utf8_lossy(&output.stdout))?;
        // It ends when everything is cleaned up.
        Ok(Times { first_instruction: first - start, end_reported: all_gone, all_gone })
    }

    fn processor_time(&self) -> io::Result<Duration> {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        Ok(Duration::from_micros(micros.unsigned_abs()))
    }
}
