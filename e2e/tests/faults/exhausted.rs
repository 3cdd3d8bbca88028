//! A machine that has no more descriptors or processes to give: F-65.

use std::path::PathBuf;
use std::process::Command;

use commonage_e2e::faults::field::Seat;
use commonage_e2e::{eventually, host, run};
use commonage_schemas::{TaskState, reasons};

use crate::tasks::{ENDLESS, field_with_agent, has_ended, is, message, reason, sh};

/// How many files the agent has open.
fn open_files(seat: &Seat) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", seat.pid().unwrap()))
        .map_or(0, |entries| entries.count())
}

/// From outside, as an operator may who was too thrifty.
fn limit_files(seat: &Seat, limit: &str) {
    let pid = seat.pid().unwrap().to_string();
    run(Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={limit}")])).ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f65_an_agent_without_descriptors_says_so_and_goes_on_when_it_has_some() {
    let (field, seat) = field_with_agent().await;
    field.create("before", sh(ENDLESS)).await.unwrap();
    let before = field.until("before", "to run", is(TaskState::Running)).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", seat.pid().unwrap())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let files: Vec<&str> = files.split_whitespace().collect();
    assert_eq!(files[3], files[4], "it takes what it may have by itself");
    // Those that are open stay open, the next one is refused.
    limit_files(&seat, &format!("{}:", open_files(&seat)));
    field.create("during", sh("exit 0")).await.unwrap();
    let task = field.until("during", "to be refused", has_ended).await;
    assert_eq!(
        (task.state(), reason(&task).as_str()),
        (TaskState::Failed, reasons::task::CREATE_FAILED)
    );
    assert!(message(&task).contains("Too many open files"), "{:?}", task.status);
    assert_eq!(field.tasks().get("before").await.unwrap().state(), TaskState::Running);
    limit_files(&seat, &format!("{}:", files[4]));
    field.create("after", sh("exit 0")).await.unwrap();
    let task = field.until("after", "to end", has_ended).await;
    assert_eq!(task.state(), TaskState::Finished, "{:?}", task.status);
    let still = field.tasks().get("before").await.unwrap();
    assert_eq!(still.status.unwrap().container_id, before.status.unwrap().container_id);
    field.leaves_nothing(seat).await;
}

/// A control group that bounds the processes of what is in it.
struct Bound(PathBuf);

impl Bound {
    fn new(seat: &Seat) -> Bound {
        let version_1 = PathBuf::from("/sys/fs/cgroup/pids");
        let root = if version_1.is_dir() { version_1 } else { PathBuf::from("/sys/fs/cgroup") };
        let group = root.join(format!("cmn-bound-{}", seat.name));
        std::fs::create_dir(&group).unwrap();
        let bound = Bound(group);
        let agent = i32::try_from(seat.pid().unwrap()).unwrap();
        let zygote =
            host::children(agent).into_iter().find(|pid| host::name_of(*pid) == "cmn-zygote");
        for pid in [agent, zygote.expect("an agent has a zygote")] {
            std::fs::write(bound.0.join("cgroup.procs"), pid.to_string()).unwrap();
        }
        bound
    }

    /// Not one more than there are, or as many as they like.
    fn set(&self, bounded: bool) {
        let now = std::fs::read_to_string(self.0.join("pids.current")).unwrap();
        std::fs::write(self.0.join("pids.max"), if bounded { &now } else { "max" }).unwrap();
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Whatever still is in it, a shim in its last moments, leaves soon.
        let _ = (0..200).find(|_| {
            std::thread::park_timeout(std::time::Duration::from_millis(10));
            std::fs::remove_dir(&self.0).is_ok()
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f65_an_agent_without_processes_says_so_and_goes_on_when_it_has_some() {
    let (field, seat) = field_with_agent().await;
    field.create("before", sh(ENDLESS)).await.unwrap();
    field.until("before", "to run", is(TaskState::Running)).await;
    let bound = Bound::new(&seat);
    bound.set(true);
    field.create("during", sh("exit 0")).await.unwrap();
    let task = field.until("during", "to be refused", has_ended).await;
    assert_eq!(
        (task.state(), reason(&task).as_str()),
        (TaskState::Failed, reasons::task::CREATE_FAILED)
    );
    assert!(message(&task).contains("start a shim"), "{:?}", task.status);
    assert_eq!(field.tasks().get("before").await.unwrap().state(), TaskState::Running);
    field.until_ready(&seat).await;
    bound.set(false);
    field.create("after", sh("exit 0")).await.unwrap();
    let task = field.until("after", "to end", has_ended).await;
    assert_eq!(task.state(), TaskState::Finished, "{:?}", task.status);
    field.leaves_nothing(seat).await;
    eventually("the bound to be lifted", || {
        match std::fs::read_to_string(bound.0.join("cgroup.procs")) {
            Ok(text) if text.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}
