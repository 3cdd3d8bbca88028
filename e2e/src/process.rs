//! One role of `cmn` as a process of its own, stopped when the value goes.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::{cmn_path, eventually};

#[derive(Debug)]
pub struct Role {
    process: Child,
    log: std::path::PathBuf,
}

impl Role {
    /// Starts `cmn ARGUMENTS`; what it prints goes to `log`.
    pub fn start(log: &Path, arguments: &[&str]) -> anyhow::Result<Role> {
        Role::start_with(log, arguments, &[])
    }

    /// The same with variables in its environment.
    pub fn start_with(
        log: &Path,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> anyhow::Result<Role> {
        Role::start_in(None, log, arguments, variables)
    }

    /// The same in a network namespace. `ip netns exec` would hide the control groups.
    pub fn start_in(
        namespace: Option<&str>,
        log: &Path,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> anyhow::Result<Role> {
        Role::start_of(&cmn_path(), namespace, log, arguments, variables)
    }

    /// The same from an executable that may be of another build.
    pub fn start_of(
        executable: &Path,
        namespace: Option<&str>,
        log: &Path,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> anyhow::Result<Role> {
        let output = fs::File::create(log)?;
        let mut command = match namespace {
            None => Command::new(executable),
            Some(path) => {
                // Which becomes what it starts.
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={path}")).arg(executable);
                command
            }
        };
        let process = command
            .args(arguments)
            .envs(variables.iter().copied())
            .env("NO_COLOR", "1")
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        Ok(Role { process, log: log.to_owned() })
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What it has printed.
    pub fn printed(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its exit code, if it has ended by itself.
    pub fn ended(&mut self) -> Option<i32> {
        let status = self.process.try_wait().expect("ask for a process of ours");
        status.map(|status| status.code().unwrap_or(-1))
    }

    /// `kill -9`, and the end of it.
    pub fn kill(mut self) {
        self.process.kill().and_then(|()| self.process.wait()).expect("kill a process of ours");
    }

    /// Asks it to stop, as a service manager would, and waits; returns its exit code.
    pub fn stop(&mut self) -> i32 {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.process.id()).expect("a pid fits"));
        if !matches!(self.process.try_wait(), Ok(Some(_))) {
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)
                .and_then(|()| nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT))
                .expect("signal a process of ours");
        }
        eventually("a role to stop", || match self.process.try_wait() {
            Ok(Some(status)) => Ok(status.code().unwrap_or(-1)),
            other => Err(format!("{other:?}")),
        })
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} printed:\n{}", self.log.display(), self.printed());
        }
        self.stop();
    }
}
