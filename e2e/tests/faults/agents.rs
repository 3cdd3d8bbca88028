//! Agents that die and come back, and machines that fail them: F-05, F-07 to F-11, F-14, F-63, F-78.

use std::path::Path;
use std::process::Command;

use commonage_e2e::faults::field::Seat;
use commonage_e2e::{eventually, run, soon};
use commonage_schemas::{Task, TaskState, reasons};
use kube::ResourceExt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::tasks::{
    ARGUMENTS, container, field_with, field_with_agent, has_ended, is, reason, sh, starts, states,
    waits,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f05_an_agent_dies_with_fifty_tasks_and_the_next_one_has_them_all() {
    let (field, mut seat) = field_with_agent().await;
    let names: Vec<String> = (0..50).map(|number| format!("t-{number}")).collect();
    let dir = field.dir().join("mark");
    std::fs::create_dir(&dir).unwrap();
    for name in &names {
        field.create(name, waits(&dir)).await.unwrap();
    }
    let mut containers = Vec::new();
    for name in &names {
        let task = field.until(name, "to run", |task| task.state() == TaskState::Running).await;
        containers.push(container(&task));
    }
    seat.kill();
    // Half of what they do, they do while nobody looks.
    std::fs::write(dir.join("go"), "").unwrap();
    seat.start(&ARGUMENTS, &[]).unwrap();
    for (name, before) in names.iter().zip(&containers) {
        let task = field.until(name, "to end", |task| task.state().is_terminal()).await;
        assert_eq!((task.state(), reason(&task)), (TaskState::Failed, "ExitCode".to_owned()));
        assert_eq!(container(&task), *before);
        let states = states(&task);
        assert!(states.windows(2).all(|two| two[0].can_become(two[1])), "{states:?}");
        assert_eq!(states.iter().filter(|state| **state == TaskState::Running).count(), 1);
    }
    assert_eq!(starts(&dir), 50);
    field.leaves_nothing(seat).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f07_a_shim_dies_and_its_container_goes_with_it() {
    let (field, seat) = field_with_agent().await;
    field.create("t", sh("sleep 1000 & sleep 1000")).await.unwrap();
    field.until("t", "to run", |task| task.state() == TaskState::Running).await;
    let [shim] = seat.shims()[..] else { panic!("shims: {:?}", seat.shims()) };
    kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
    let task = field.until("t", "to end", |task| task.state().is_terminal()).await;
    assert_eq!(
        (task.state(), reason(&task).as_str()),
        (TaskState::Failed, reasons::task::SHIM_LOST)
    );
    assert_eq!(seat.contained(), Vec::<i32>::new());
    field.leaves_nothing(seat).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f08_to_f10_and_f14_short_stubborn_greedy_and_broken_tasks_end_as_they_should() {
    let (field, seat) = field_with_agent().await;
    for number in 0..10 {
        field.create(&format!("short-{number}"), sh("exit 0")).await.unwrap();
    }
    let daemons = "trap '' TERM; (trap '' TERM; setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' &) ; echo up; while :; do sleep 1; done";
    field.create("stubborn", sh(daemons)).await.unwrap();
    field.create("greedy", sh("tail /dev/zero")).await.unwrap();
    let mut broken = sh("");
    broken["container"]["command"] = json!(["/no/such/program"]);
    field.create("broken", broken).await.unwrap();
    for number in 0..10 {
        let name = format!("short-{number}");
        let task = field.until(&name, "to end", |task| task.state().is_terminal()).await;
        let states = states(&task);
        assert_eq!(task.state(), TaskState::Finished);
        assert!(states.windows(2).all(|two| two[0].can_become(two[1])), "{states:?}");
    }
    let task = field.until("greedy", "to end", |task| task.state().is_terminal()).await;
    assert_eq!(
        (task.state(), reason(&task).as_str()),
        (TaskState::Failed, reasons::task::OOM_KILLED)
    );
    let task = field.until("broken", "to end", |task| task.state().is_terminal()).await;
    assert_eq!(reason(&task), "CommandNotFound");
    // A task runs once: whoever wants it again makes another, and how often is its framework's decision.
    assert_eq!(states(&task).iter().filter(|state| state.is_terminal()).count(), 1);
    field.until("stubborn", "to run", |task| task.state() == TaskState::Running).await;
    field.leaves_nothing(seat).await;
}

/// Ends everything of an agent as the end of its machine does.
fn crash(seat: &mut Seat) {
    seat.kill();
    seat.kill_tasks(true);
    eventually("everything to be dead", || match seat.contained() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
}

/// Writes into a file of the ledger what an earlier start of the machine would have written.
fn age(path: &Path) {
    let text = std::fs::read_to_string(path).unwrap();
    let mut entry: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    entry["bootId"] = "another-start-of-the-machine".into();
    let json = entry.to_string();
    let seal = json.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    std::fs::write(path, format!("{json}\n{seal:016x}\n")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f11_a_machine_is_started_anew_and_its_tasks_have_failed() {
    let (field, mut seat) = field_with_agent().await;
    let dir = field.dir().join("mark");
    std::fs::create_dir(&dir).unwrap();
    field.create("t", waits(&dir)).await.unwrap();
    field.until("t", "to run", |task| task.state() == TaskState::Running).await;
    eventually("its line", || if starts(&dir) == 1 { Ok(()) } else { Err("none".to_owned()) });
    let agent = field.agents().get(&seat.name).await.unwrap();
    crash(&mut seat);
    let [directory] = &seat.ledger()[..] else { panic!("{:?}", seat.ledger()) };
    age(&directory.join("entry.json"));
    age(&directory.join("entry.copy"));
    seat.start(&ARGUMENTS, &[]).unwrap();
    let task = field.until("t", "to end", |task| task.state().is_terminal()).await;
    assert_eq!(
        (task.state(), reason(&task).as_str()),
        (TaskState::Failed, reasons::task::AGENT_REBOOTED)
    );
    assert_eq!(starts(&dir), 1);
    // The same agent as before.
    assert_eq!(field.agents().get(&seat.name).await.unwrap().uid(), agent.uid());
    field.leaves_nothing(seat).await;
}

/// One way in which a disk can spoil what it keeps.
type Harm = fn(&Path);

fn cut(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(path, bytes).unwrap();
}

fn remove(path: &Path) {
    std::fs::remove_file(path).unwrap();
}

/// The files that are harmed, how, whether the container may have ended before, and how the task must end.
const HARMS: [(&str, &[&str], Harm, bool, &str); 9] = [
    // The copy is good.
    ("entry-cut", &["entry.json"], cut, false, "ExitCode"),
    ("entry-flipped", &["entry.json"], flip, false, "ExitCode"),
    ("copy-flipped", &["entry.copy"], flip, false, "ExitCode"),
    // Nobody knows whose it was or what it was to do.
    ("both-cut", &["entry.json", "entry.copy"], cut, false, "ShimLost"),
    ("entry-gone", &["entry.json"], remove, false, "ShimLost"),
    // Nobody needs it any more, while the shim lives.
    ("order-flipped", &["task.json"], flip, false, "ExitCode"),
    ("order-gone", &["task.json"], remove, false, "ExitCode"),
    // How it ended is not known.
    ("exit-cut", &["exit.json"], cut, true, "ShimLost"),
    ("exit-flipped", &["exit.json"], flip, true, "ShimLost"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f63_a_damaged_ledger_is_noticed_and_harms_nobody_else() {
    let (field, mut seat) = field_with_agent().await;
    let dir = |name: &str| field.dir().join(format!("mark-{name}"));
    let mut uids = Vec::new();
    for name in HARMS.iter().map(|harm| harm.0).chain(["whole"]) {
        std::fs::create_dir(dir(name)).unwrap();
        let task = field.create(name, waits(&dir(name))).await.unwrap();
        uids.push(task.uid().unwrap());
    }
    for name in HARMS.iter().map(|harm| harm.0).chain(["whole"]) {
        field.until(name, "to run", |task| task.state() == TaskState::Running).await;
        eventually(
            "its line",
            || if starts(&dir(name)) == 1 { Ok(()) } else { Err(name.to_owned()) },
        );
    }
    seat.kill();
    let ledger = seat.data_dir.join("agent/tasks");
    for ((name, files, harm, after_end, _), uid) in HARMS.iter().zip(&uids) {
        let place = ledger.join(uid);
        if *after_end {
            std::fs::write(dir(name).join("go"), "").unwrap();
            eventually("the shim to be done", || match place.join("ctl.sock").exists() {
                true => Err(name.to_string()),
                false => Ok(()),
            });
        }
        files.iter().for_each(|file| harm(&place.join(file)));
    }
    seat.start(&ARGUMENTS, &[]).unwrap();
    for (name, _, _, _, wanted) in
        HARMS.iter().chain([&("whole", &[][..], cut as Harm, false, "ExitCode")])
    {
        std::fs::write(dir(name).join("go"), "").unwrap();
        let task = field.until(name, "to end", |task| task.state().is_terminal()).await;
        assert_eq!((*name, reason(&task).as_str()), (*name, *wanted), "{}", seat.printed());
        assert_eq!((*name, starts(&dir(name))), (*name, 1));
    }
    field.leaves_nothing(seat).await;
}

/// A file that nobody can remove, as on a disk that has gone bad, as long as the value lives.
struct Stuck(std::path::PathBuf);

impl Stuck {
    fn new(path: std::path::PathBuf) -> Stuck {
        std::fs::write(&path, "").unwrap();
        run(Command::new("chattr").arg("+i").arg(&path)).ok();
        Stuck(path)
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        run(Command::new("chattr").arg("-i").arg(&self.0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f78_what_a_container_holds_is_given_to_nobody_before_it_is_gone() {
    // Room for one.
    let (field, mut seat) = field_with(&["--resources", "cpu=100m"]).await;
    let dir = field.dir().join("mark");
    std::fs::create_dir(&dir).unwrap();
    let mut first = waits(&dir);
    first["resources"]["cpu"] = "80m".into();
    let task = field.create("first", first).await.unwrap();
    field.until("first", "to run", is(TaskState::Running)).await;
    let state = seat.data_dir.join("agent/tasks").join(task.uid().unwrap());
    let stuck = Stuck::new(state.join("tmp/stuck"));
    std::fs::write(dir.join("go"), "").unwrap();
    // It is over, and so it is said, with what is left.
    let task = field.until("first", "to end", has_ended).await;
    assert_eq!((task.state(), reason(&task).as_str()), (TaskState::Failed, "ExitCode"));
    let pending = |task: &Task| task.status.as_ref()?.cleanup_pending.clone();
    let what = pending(&task).unwrap_or_default();
    assert!(
        what.contains("cannot be removed") && what.contains("not permitted"),
        "{:?}",
        task.status
    );
    let mut second = sh("exit 0");
    second["resources"]["cpu"] = "80m".into();
    field.create("second", second).await.unwrap();
    let why = |task: &Task| task.status.as_ref().is_some_and(|status| status.why_pending.is_some());
    let waiting = field.until("second", "to say why it waits", why).await;
    assert_eq!(waiting.state(), TaskState::Pending);
    // Neither deleting it nor another agent makes it free.
    field.delete("first").await.unwrap();
    seat.kill();
    seat.start(&[&ARGUMENTS[..], &["--resources", "cpu=100m"]].concat(), &[]).unwrap();
    field.until_ready(&seat).await;
    let left = field.tasks().get("first").await.unwrap();
    assert!(pending(&left).is_some() && left.metadata.deletion_timestamp.is_some());
    assert_eq!(field.tasks().get("second").await.unwrap().state(), TaskState::Pending);
    drop(stuck);
    let task = field.until("second", "to end", has_ended).await;
    assert_eq!(task.state(), TaskState::Finished, "{:?}", task.status);
    soon("the first to be gone", async || match field.tasks().get_opt("first").await {
        Ok(None) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    field.leaves_nothing(seat).await;
}
