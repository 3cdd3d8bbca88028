//! `cmn cp`: files into and out of a running task, as a tar archive through `exec`. Both sides need
//! `tar`.

use std::{
    io::Write,
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
};

use clap::Args as ClapArgs;

use crate::{
    errors::{Failure, Result},
    kinds::encode,
    kubeconfig::Cluster,
    output,
    session::{self, Door, End, Inputs, Stream},
};

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cmn cp notes.txt web:/tmp/notes.txt    a file into the task `web`
  cmn cp notes.txt web:/tmp              into a directory, under its own name
  cmn cp web:results ./results           a file or directory out of it")]
pub(crate) struct Args {
    /// A path here, or `TASK:PATH`
    #[arg(value_name = "FROM")]
    from: String,
    /// A path here, or `TASK:PATH`: a directory that is there, or the new name of what is copied
    #[arg(value_name = "TO")]
    to: String,
}

pub(crate) async fn run(args: Args, cluster: &Cluster) -> Result<ExitCode> {
    match (in_task(&args.from), in_task(&args.to)) {
        (None, Some((task, path))) => into_task(cluster, &args.from, task, path).await,
        (Some((task, path)), None) => out_of_task(cluster, task, path, &args.to).await,
        _ => Err(Failure::new("one of both must be in a task, and the other one here")
            .hint("cmn cp FILE TASK:PATH")),
    }
}

/// Task and path of `TASK:PATH`. A path that begins with `.` or `/` is one here.
fn in_task(text: &str) -> Option<(&str, &str)> {
    let (task, path) = text.split_once(':')?;
    (!task.is_empty() && !task.contains('/') && !task.starts_with('.') && !path.is_empty())
        .then_some((task, path))
}

/// Directory and name of what a path names.
fn parted(path: &str) -> Result<(&str, &str)> {
    let trimmed = path.trim_end_matches('/');
    let (directory, name) = match trimmed.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some(parts) => parts,
        None => (".", trimmed),
    };
    match name {
        "" | "." | ".." => Err(Failure::new(format!("{path} has no name to copy it under"))),
        _ => Ok((directory, name)),
    }
}

/// Renames what is unpacked: an expression of `sed`, with a separator that names rarely have.
fn renamed(from: &str, to: &str) -> Result<String> {
    let quoted = |text: &str| {
        text.chars()
            .flat_map(|c| ["\\", ""][usize::from(c.is_alphanumeric())].chars().chain([c]))
            .collect::<String>()
    };
    if [from, to].iter().any(|name| name.contains(['|', '\n', '\\', '&'])) {
        return Err(Failure::new(format!("{from} cannot be copied to {to}: rename it first")));
    }
    Ok(format!("--transform=s|^{}|{to}|", quoted(from)))
}

async fn into_task(cluster: &Cluster, from: &str, task: &str, to: &str) -> Result<ExitCode> {
    let tried = format!("cannot copy {from} into task \"{task}\"");
    if !Path::new(from).exists() {
        return Err(Failure::new(format!("{tried}: there is no such file here")));
    }
    let (directory, name) = parted(from)?;
    // As with cp(1): into a directory under the old name.
    let is_directory = async || {
        let test = ["test", "-d", to];
        let tested = exec(cluster, task, &test, &tried, Inputs::default(), |_| Ok(())).await;
        matches!(tested, Ok(0))
    };
    let (target, new_name) = match to.ends_with('/') || is_directory().await {
        true => (to, name),
        false => parted(to)?,
    };
    let transform = renamed(name, new_name)?;
    let mut tar =
        tar(&["-C", directory, &transform, "-cf", "-", "--", name], Stdio::null(), Stdio::piped())?;
    let archive = tar.stdout.take().expect("it was asked for");
    let inputs = Inputs { stdin: Some(session::pieces(archive)), ..Inputs::default() };
    let command = ["tar", "-xmf", "-", "-C", target];
    let code = exec(cluster, task, &command, &tried, inputs, |_| Ok(())).await;
    finished(&mut tar, code, &tried)
}

async fn out_of_task(cluster: &Cluster, task: &str, from: &str, to: &str) -> Result<ExitCode> {
    let tried = format!("cannot copy {from} out of task \"{task}\"");
    let (directory, name) = parted(from)?;
    let (target, new_name) = match Path::new(to).is_dir() {
        true => (to, name),
        false if to.ends_with('/') => {
            return Err(Failure::new(format!("{tried}: there is no directory {to} here"))
                .hint(format!("mkdir -p {to}")));
        }
        false => parted(to)?,
    };
    let transform = renamed(name, new_name)?;
    // Names that lead elsewhere are not unpacked: the task is not trusted with our files.
    let arguments = ["-C", target, &transform, "-xf", "-", "--no-same-owner"];
    let mut tar = tar(&arguments, Stdio::piped(), Stdio::null())?;
    let mut archive = tar.stdin.take().expect("it was asked for");
    let command = ["tar", "-C", directory, "-cf", "-", "--", name];
    let code = exec(cluster, task, &command, &tried, Inputs::default(), |data| {
        archive.write_all(data).map_err(|error| Failure::new(format!("{tried}: tar: {error}")))
    })
    .await;
    if code.is_err() {
        // Without an archive it only has words about that.
        let _ = tar.kill();
    }
    drop(archive);
    finished(&mut tar, code, &tried)
}

fn tar(arguments: &[&str], stdin: Stdio, stdout: Stdio) -> Result<Child> {
    Command::new("tar")
        .args(arguments)
        .stdin(stdin)
        .stdout(stdout)
        .spawn()
        .map_err(|error| Failure::new(format!("cannot start tar: {error}")))
}

async fn exec(
    cluster: &Cluster,
    task: &str,
    command: &[&str],
    tried: &str,
    inputs: Inputs,
    mut output: impl FnMut(&[u8]) -> Result<()>,
) -> Result<u8> {
    let mut query: Vec<String> =
        command.iter().map(|word| format!("command={}", encode(word))).collect();
    query.extend(["stdout=true".into(), "stderr=true".into()]);
    query.extend(inputs.stdin.is_some().then(|| "stdin=true".into()));
    let query = query.join("&");
    let door = Door { cluster, task, subresource: "exec", query: &query, tried };
    let on_output = |stream, data: &[u8]| match stream {
        Stream::Stdout => output(data),
        Stream::Stderr => {
            output::passed_on(data);
            Ok(())
        }
    };
    match session::run(door, inputs, on_output).await? {
        End::Exit(code) => Ok(code),
        End::Detached => unreachable!("nobody types"),
    }
}

fn finished(tar: &mut Child, code: Result<u8>, tried: &str) -> Result<ExitCode> {
    let here = tar.wait().map_err(|error| Failure::new(format!("{tried}: {error}")));
    let (code, here) = (code?, here?);
    if code != 0 {
        return Err(Failure::new(format!("{tried}: tar ended with {code} in the task")));
    }
    if !here.success() {
        return Err(Failure::new(format!("{tried}: tar ended with {here} here")));
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_place_is_here_or_in_a_task() {
        assert_eq!(in_task("web:/tmp/a"), Some(("web", "/tmp/a")));
        assert_eq!(in_task("web:a:b"), Some(("web", "a:b")));
        assert_eq!(in_task("./web:a"), None);
        assert_eq!(in_task("/web:a"), None);
        assert_eq!(in_task("web"), None);
    }

    #[test]
    fn a_path_has_a_directory_and_a_name() {
        assert_eq!(parted("/tmp/a").unwrap(), ("/tmp", "a"));
        assert_eq!(parted("a/").unwrap(), (".", "a"));
        assert_eq!(parted("/a").unwrap(), ("/", "a"));
        assert!(parted("/").is_err());
        assert!(parted("a/..").is_err());
    }

    #[test]
    fn names_are_taken_as_they_are() {
        assert_eq!(renamed("a.b", "c").unwrap(), "--transform=s|^a\\.b|c|");
        assert!(renamed("a|b", "c").is_err());
    }
}
