//! Rows F-72 to F-76: a program that tries everything it knows (`examples/intruder`), in every kind of container.

use std::path::PathBuf;
use std::process::Command;

use commonage_shim::launch::{Mount, Network, User};

use crate::Test;
use crate::fixture::Task;
use crate::image::Image;

pub const TESTS: &[Test] = &[
    ("intruder::nothing_succeeds_at_the_hosts_root", nothing_succeeds_at_the_hosts_root),
    ("intruder::nothing_succeeds_in_an_image", nothing_succeeds_in_an_image),
];

/// Fewer than a fork bomb makes, more than anything else here needs.
const PIDS: u64 = 64;

/// Built beside the tests.
fn program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().unwrap().parent().unwrap().join("examples/intruder");
    assert!(program.exists(), "{}: `cargo build --workspace --examples`", program.display());
    program
}

fn nothing_succeeds_at_the_hosts_root() {
    for uid in [0, 1000] {
        for network in [Network::Host, Network::None] {
            let directory = program().parent().unwrap().to_owned();
            let task = Task::command(&["/intruder/intruder", "try", "host"]).with(|launch| {
                launch.mounts = vec![Mount {
                    source: directory,
                    target: "/intruder".into(),
                    read_only: true,
                    ..Mount::default()
                }];
                launch.network = network.clone();
            });
            nothing_succeeds(task, uid, "host");
        }
    }
}

fn nothing_succeeds_in_an_image() {
    let image = Image::new().layer(|layer| {
        for (from, to) in crate::image::with_libraries(&program(), "intruder") {
            let to = layer.join(to);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(from, to).unwrap();
        }
    });
    for uid in [0, 1000] {
        for network in [Network::Host, Network::None] {
            let task = image.task("exec /intruder try image");
            nothing_succeeds(task.with(|launch| launch.network = network), uid, "image");
        }
    }
}

/// Runs it, and compares what it says with what it knows: nothing is left out, and every hole is named.
fn nothing_succeeds(task: Task, uid: u32, root: &str) {
    let outside = tempfile::tempdir_in("/var/tmp").unwrap();
    let secret = outside.path().join("secret");
    std::fs::write(&secret, "the machine's").unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let task = task.with(|launch| {
        launch.user = User { uid, gid: uid, ..User::default() };
        launch.limits.pids = PIDS;
    });
    let socket = task.path().join("ctl.sock").display().to_string();
    let task = task.with(|launch| {
        launch.env.insert("INTRUDER_HOST_SECRET".to_owned(), secret.display().to_string());
        launch.env.insert("INTRUDER_HOST_PID".to_owned(), std::process::id().to_string());
        launch.env.insert("INTRUDER_HOST_SOCKET".to_owned(), socket);
    });
    let before = settings();
    let exit = task.run();
    let said = task.stdout();
    let known = Command::new(program()).args(["list", root]).output().unwrap().stdout;
    let known = String::from_utf8(known).unwrap();
    let holes: Vec<&str> = said.lines().filter(|line| line.starts_with("HOLE ")).collect();
    assert_eq!(holes, [""; 0], "as {uid} with {:?}", task.launch.network);
    let refused: Vec<&str> =
        said.lines().filter_map(|line| line.strip_prefix("refused ")?.split(' ').next()).collect();
    let known: Vec<&str> = known.lines().collect();
    assert!(known.len() > 150, "{}", known.len());
    assert_eq!(refused, known, "{exit:?} {}", task.stderr());
    assert!(said.ends_with("end\n"), "{said}");
    assert_eq!(settings(), before);
}

/// What an intruder might have changed of the machine.
fn settings() -> Vec<String> {
    [
        "kernel/core_pattern",
        "kernel/hostname",
        "kernel/panic",
        "kernel/modprobe",
        "net/ipv4/ip_forward",
        "fs/file-max",
    ]
    .iter()
    .map(|name| std::fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default())
    .collect()
}
