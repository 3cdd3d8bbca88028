//! Real clients against a whole cluster: one module per client, each with a cluster of its own. What
//! works with which version is in `docs/clients.md`.
//!
//! The requests themselves are held by the conformance suite; here it is that programs which know
//! nothing of Commonage do their work on it.
#![allow(clippy::unwrap_used)]

mod client_node;
mod helm;
mod kube_rs;
mod kubectl;
mod kubectl_more;
mod python;

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use commonage_e2e::{Cluster, repository, run};

/// A file of the clients' programs.
fn program(name: &str) -> PathBuf {
    repository().join("e2e/clients").join(name)
}

/// A cluster in which a user has defined the kind `Part`.
fn cluster_with_parts() -> Cluster {
    let cluster = Cluster::start();
    let definition = program("part.yaml");
    cluster.kubectl(&["apply", "-f", &definition.to_string_lossy()]).ok();
    let established = "--for=condition=Established";
    cluster.kubectl(&["wait", established, "crd/parts.workshop.example"]).ok();
    cluster
}

/// Python of the virtual environment that `make setup` makes, on this cluster.
fn python(cluster: &Cluster) -> Command {
    let mut command = Command::new(repository().join(".venv/bin/python"));
    command.env("KUBECONFIG", cluster.kubeconfig()).env("PYTHONDONTWRITEBYTECODE", "1");
    // Helm keeps files in the user's home directory otherwise.
    for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(name, cluster.data_dir().join("helm"));
    }
    command
}

/// Runs a program that must say `ok`.
#[track_caller]
fn says_ok(command: &mut Command) {
    assert_eq!(run(command).ok(), "ok\n");
}

/// A path as an argument.
fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A program that runs until it goes out of scope, also when a test fails.
struct Running(Child);

impl Running {
    /// Starts it; only its standard output is kept.
    fn start(command: &mut Command) -> Running {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        Running(command.spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
