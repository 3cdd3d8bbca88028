//! Somebody dies: the agent, the zygote, the shim.

use commonage_shim::{Observed, Phase, Shim, client, orphans, zygote};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Test;
use crate::fixture::{Task, eventually, is_alive, until_gone};

pub const TESTS: &[Test] = &[
    ("a_task_outlives_its_zygote_and_agent", a_task_outlives_its_zygote_and_agent),
    ("the_executable_is_seen_read_only", the_executable_is_seen_read_only),
    ("a_dead_zygote_is_replaced", a_dead_zygote_is_replaced),
    ("a_lost_shim_is_noticed_and_cleaned_up_after", a_lost_shim_is_noticed_and_cleaned_up_after),
    ("a_group_is_emptied_whatever_is_in_it", a_group_is_emptied_whatever_is_in_it),
    ("a_task_whose_directory_is_deleted_is_ended", a_task_whose_directory_is_deleted_is_ended),
    ("a_task_runs_only_once", a_task_runs_only_once),
    ("a_directory_without_a_shim_is_not_started", a_directory_without_a_shim_is_not_started),
];

fn a_task_outlives_its_zygote_and_agent() {
    let task = Task::sh("echo ready; while [ ! -e go ]; do sleep 0.01; done; echo after; exit 6");
    task.state.prepare(&task.launch).unwrap();
    // Dropping the handle is what an agent's death does: the socket closes, the zygote goes.
    let zygote = zygote::start().unwrap();
    let zygote_pid = zygote.pid().unwrap().cast_signed();
    let shim = zygote.launch(task.path()).unwrap();
    task.until_output("ready");
    drop(zygote);
    until_gone(zygote_pid);
    assert!(is_alive(shim));
    let Observed::Alive(Some(status)) = client::scan(task.path()).unwrap() else {
        panic!("not found again");
    };
    assert_eq!((status.phase, status.shim_pid), (Phase::Running, shim));
    std::fs::write(task.launch.sandbox.join("go"), "").unwrap();
    assert_eq!(task.end().exit_code, Some(6));
    assert_eq!(task.stdout(), "ready\nafter\n");
    until_gone(shim);
}

/// Who gets hold of `/proc/PID/exe` of a zygote, a shim or a container's init, as in CVE-2019-5736,
/// gets it through a mount on which nothing can be opened for writing.
fn the_executable_is_seen_read_only() {
    use nix::sys::statvfs::{FsFlags, statvfs};
    let handle = zygote::start().unwrap();
    let view = format!("/proc/{}/exe", handle.pid().unwrap());
    assert!(statvfs(view.as_str()).unwrap().flags().contains(FsFlags::ST_RDONLY));
}

fn a_dead_zygote_is_replaced() {
    let handle = zygote::start().unwrap();
    let first = handle.pid().unwrap();
    kill(Pid::from_raw(first.cast_signed()), Signal::SIGKILL).unwrap();
    let task = Task::command(&["true"]);
    task.state.prepare(&task.launch).unwrap();
    let shim = handle.launch(task.path()).unwrap();
    assert_ne!(handle.pid().unwrap(), first);
    assert!(task.end().success());
    until_gone(shim);
}

fn a_lost_shim_is_noticed_and_cleaned_up_after() {
    let task = Task::sh("echo ready; sleep 1000 & sleep 1000; true");
    let shim = task.start();
    task.until_output("ready");
    let connection = Shim::connect(task.path()).unwrap();
    let inside = eventually("init, the shell and two more are there", || {
        Some(task.processes()).filter(|processes| processes.len() == 4)
    });
    kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
    assert_eq!(connection.wait().unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    eventually("it counts as lost", || {
        (client::scan(task.path()).unwrap() == Observed::Lost).then_some(())
    });
    client::cleanup(task.path(), &task.launch).unwrap();
    for pid in inside {
        until_gone(pid);
    }
    assert!(task.groups().is_empty());
    // Again, as an agent would that died in the middle of it.
    client::cleanup(task.path(), &task.launch).unwrap();
    assert_eq!(client::scan(task.path()).unwrap(), Observed::Lost);
}

fn a_group_is_emptied_whatever_is_in_it() {
    // Init dies with its shim, so what remains of a lost task is made by hand here: a process
    // that nobody supervises, in a group below the task's.
    let task = Task::command(&["true"]);
    let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let point = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|f| f[2] == "cgroup" && f[3].split(',').any(|o| o == "pids") || f[2] == "cgroup2")
        .map(|fields| fields[1].to_owned())
        .unwrap();
    let group = format!("{point}{}/below", task.launch.cgroup);
    std::fs::create_dir_all(&group).unwrap();
    std::fs::write(format!("{group}/cgroup.procs"), child.id().to_string()).unwrap();
    // It stays a zombie until waited for, and a zombie is in no group any more.
    client::kill_by_cgroup(&task.launch).unwrap();
    assert!(!child.wait().unwrap().success());
    client::cleanup(task.path(), &task.launch).unwrap();
    assert!(task.groups().is_empty());
}

fn a_task_whose_directory_is_deleted_is_ended() {
    let orphan = Task::sh("echo ready; sleep 1000 & sleep 1000");
    let other = Task::sh("echo ready; sleep 1000");
    let shims = [&orphan, &other].map(|task| task.start());
    for task in [&orphan, &other] {
        task.until_output("ready");
    }
    let (parent, _) = orphan.launch.cgroup.rsplit_once('/').unwrap();
    assert!(orphans::end(parent).unwrap().is_empty());

    std::fs::remove_dir_all(orphan.path()).unwrap();
    // Its id is the last part of its group; a ledger names its directories likewise.
    assert_eq!(orphans::end(parent).unwrap(), std::slice::from_ref(&orphan.launch.id));
    until_gone(shims[0]);
    assert!(orphan.groups().is_empty());
    assert!(is_alive(shims[1]));
    assert_eq!(other.processes().len(), 3);
}

fn a_task_runs_only_once() {
    let task = Task::sh("echo once");
    assert!(task.run().success());
    let again = task.start();
    until_gone(again);
    assert_eq!(task.stdout(), "once\n");
    // Nor after it was lost.
    let task = Task::sh("echo ready; sleep 1000");
    let shim = task.start();
    task.until_output("ready");
    kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
    until_gone(shim);
    until_gone(task.start());
    assert_eq!(client::scan(task.path()).unwrap(), Observed::Lost);
    assert_eq!(task.stdout(), "ready\n");
}

fn a_directory_without_a_shim_is_not_started() {
    let task = Task::command(&["true"]);
    assert_eq!(client::scan(task.path()).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    task.state.prepare(&task.launch).unwrap();
    assert_eq!(client::scan(task.path()).unwrap(), Observed::NotStarted);
    assert_eq!(task.state.launch().unwrap(), task.launch);
}
