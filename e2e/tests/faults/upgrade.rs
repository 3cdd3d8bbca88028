//! An executable takes the place of another while tasks run: the shims of before go on as what they were.

use commonage_e2e::cmn_path;
use commonage_e2e::faults::field::Field;
use commonage_schemas::TaskState;

use crate::tasks::{ARGUMENTS, has_ended, is, reason, starts, waits};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_of_a_new_executable_takes_over_what_one_of_an_old_one_runs() {
    let field = Field::start(&["node"], &[]).await.unwrap();
    let mut seat = field.agent("node");
    // As a package manager has it: the old file goes, under the feet of those who run it.
    let old = field.dir().join("cmn-of-before");
    std::fs::copy(cmn_path(), &old).unwrap();
    seat.executable = Some(old.clone());
    seat.start(&ARGUMENTS, &[]).unwrap();
    field.until_ready(&seat).await;
    let mut dirs = Vec::new();
    for name in ["first", "second"] {
        let dir = field.dir().join(name);
        std::fs::create_dir(&dir).unwrap();
        field.create(name, waits(&dir)).await.unwrap();
        let before = field.until(name, "to run", is(TaskState::Running)).await;
        dirs.push((name, dir, before.status.unwrap().container_id));
    }
    let shims = seat.shims();
    assert_eq!(seat.stop(), 0);
    std::fs::remove_file(&old).unwrap();
    // One ends while there is no agent at all.
    std::fs::write(dirs[0].1.join("go"), "").unwrap();
    seat.executable = None;
    seat.start(&ARGUMENTS, &[]).unwrap();
    field.until_ready(&seat).await;
    let first = field.until("first", "to end", has_ended).await;
    assert_eq!(reason(&first), "ExitCode", "{:?}", first.status);
    let second = field.tasks().get("second").await.unwrap();
    assert_eq!(second.state(), TaskState::Running, "{:?}", second.status);
    assert_eq!(second.status.unwrap().container_id, dirs[1].2);
    assert!(seat.shims().iter().all(|shim| shims.contains(shim)), "no shim but those of before");
    // The new one tells the old shim to end its task, and hears how it went.
    field.delete("second").await.unwrap();
    assert_eq!(dirs.iter().map(|(_, dir, _)| starts(dir)).collect::<Vec<_>>(), [1, 1]);
    field.create("third", crate::tasks::sh("exit 0")).await.unwrap();
    field.until("third", "to end", is(TaskState::Finished)).await;
    field.leaves_nothing(seat).await;
}
