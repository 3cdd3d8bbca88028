//! How the executable behaves where no cluster is needed: what the doctor finds, what goes where.
#![allow(clippy::unwrap_used)]

use std::{
    net::TcpListener,
    path::Path,
    process::{Command, Output, Stdio},
};

fn cmn(arguments: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_cmn"))
        .args(arguments)
        .env_remove("KUBECONFIG")
        .env_remove("NO_COLOR")
        .env("HOME", home.path())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Lines about something that is missing, without what differs between the two.
fn failures(output: &[u8]) -> Vec<String> {
    text(output).lines().filter(|line| line.starts_with("FAIL")).map(str::to_owned).collect()
}

#[test]
fn the_doctor_and_up_find_the_same() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (good, file) = (directory.path().join("data"), file.display().to_string());
    let good = good.display().to_string();
    let nobody = "etcd://127.0.0.1:1";
    for arguments in [
        ["--listen", &taken, "--data-dir", &good, "--store", "embedded"],
        ["--listen", "127.0.0.1:0", "--data-dir", &file, "--store", "embedded"],
        ["--listen", "127.0.0.1:0", "--data-dir", &good, "--store", nobody],
        ["--listen", &taken, "--data-dir", &file, "--store", nobody],
    ] {
        let doctor = cmn(&[["doctor"].as_slice(), &arguments].concat());
        let up = cmn(&[["up"].as_slice(), &arguments].concat());
        assert_eq!(doctor.status.code(), Some(4), "{doctor:?}");
        assert_eq!(up.status.code(), Some(4), "{up:?}");
        assert!(!failures(&doctor.stdout).is_empty(), "{doctor:?}");
        assert_eq!(failures(&doctor.stdout), failures(&up.stderr), "{arguments:?}");
    }
    assert!(!std::path::Path::new(&good).exists(), "a cluster that does not start makes nothing");
}

#[test]
fn words_go_to_stderr_and_data_to_stdout_without_colour() {
    let output = cmn(&["get", "tasks", "--kubeconfig", "/no/such/file"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(text(&output.stdout), "");
    let words = text(&output.stderr);
    assert!(words.starts_with("error: the kubeconfig /no/such/file cannot be used"), "{words}");
    assert!(words.contains("\nhint: "), "{words}");
    assert!(!words.contains('\x1b'), "{words:?}");

    let output = cmn(&["version", "--client"]);
    assert_eq!(text(&output.stdout), format!("client: {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn a_wrong_command_line_is_told_from_a_refusal() {
    assert_eq!(cmn(&["get"]).status.code(), Some(2));
    assert_eq!(cmn(&["tasks"]).status.code(), Some(2));
    assert_eq!(cmn(&["wait", "task/a", "--for=soon"]).status.code(), Some(2));
}

#[test]
fn what_was_mistyped_is_told_with_what_was_meant() {
    for (arguments, tip) in [
        (&["rnu"][..], "tip: did you mean `cmn run`?"),
        (&["edit", "task", "a"], "tip: kubectl does that on the same cluster: `kubectl edit`"),
        (&["run", "echo", "hi"], "tip: the command comes after `--`: `cmn run -- echo`"),
    ] {
        let words = text(&cmn(arguments).stderr);
        assert!(words.contains(tip) && words.matches("tip:").count() == 1, "{words}");
    }
}

#[test]
fn bash_finishes_words_where_the_script_is_sourced() {
    let path = Path::new(env!("CARGO_BIN_EXE_cmn")).parent().unwrap();
    let typed = "source <(cmn completion bash); COMP_WORDS=(cmn get tasks -o w); COMP_CWORD=4; _cmn; \
                 echo \"${COMPREPLY[@]}\"; complete -p cmn";
    let home = tempfile::tempdir().unwrap();
    let output = Command::new("bash")
        .args(["--norc", "-c", typed])
        .env("PATH", format!("{}:{}", path.display(), std::env::var("PATH").unwrap()))
        .env_remove("KUBECONFIG")
        .env("HOME", home.path())
        .output()
        .unwrap();
    let printed = text(&output.stdout);
    assert!(printed.starts_with("wide\ncomplete "), "{printed:?} {}", text(&output.stderr));
    for shell in ["zsh", "fish"] {
        let script = text(&cmn(&["completion", shell]).stdout);
        assert!(script.contains("cmn __complete -- "), "{script}");
    }
}

#[test]
fn every_verb_explains_itself_with_an_example() {
    let verbs =
        ["completion", "run", "get", "describe", "logs", "apply", "delete", "wait", "up", "agent"];
    for verb in verbs {
        let help = text(&cmn(&[verb, "--help"]).stdout);
        assert!(help.contains("Example"), "{verb}: {help}");
        assert!(help.contains(&format!("cmn {verb}")), "{verb}: {help}");
    }
}
