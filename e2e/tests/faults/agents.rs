//! Agents that die and come back, and machines that fail them: F-05, F-07 to F-11, F-14, F-63, F-66.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use commonage_e2e::faults::field::{Field, Seat};
use commonage_e2e::{eventually, run};
use commonage_schemas::{Task, TaskState, reasons};
use kube::ResourceExt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// A field with one agent, which runs.
async fn field_with_agent() -> (Field, Seat) {
    let field = Field::start(&["node"], &[]).await.unwrap();
    let mut seat = field.agent("node");
    seat.start(&ARGUMENTS, &[]).unwrap();
    field.until_ready(&seat).await;
    (field, seat)
}

const ARGUMENTS: [&str; 3] = ["--keep-deleted-logs", "0s", "-v"];

fn sh(script: &str) -> Value {
    json!({
        "resources": {"cpu": "1m", "memory": "16Mi"},
        "limits": {"cpu": "1", "memory": "16Mi"},
        "killPolicy": {"gracePeriodSeconds": 1},
        "container": {"command": ["sh", "-c", script]},
    })
}

/// Runs until somebody makes the file `go` in `dir`, and says that it has begun by a line in `starts`.
fn waits(dir: &Path) -> Value {
    let mut spec =
        sh("echo x >> /mnt-mark/starts; until [ -e /mnt-mark/go ]; do sleep 0.1; done; exit 3");
    spec["container"]["mounts"] = json!([{"path": "/mnt-mark", "hostPath": dir}]);
    spec
}

fn starts(dir: &Path) -> usize {
    std::fs::read_to_string(dir.join("starts")).unwrap_or_default().lines().count()
}

fn states(task: &Task) -> Vec<TaskState> {
    task.status.iter().flat_map(|status| &status.history).map(|change| change.state).collect()
}

fn reason(task: &Task) -> String {
    task.status.as_ref().and_then(|status| status.reason.clone()).unwrap_or_default()
}

fn container(task: &Task) -> Option<String> {
    task.status.as_ref()?.container_id.clone()
}

/// Deletes all tasks, waits until the agent has forgotten them, stops it, and finds nothing.
async fn leaves_nothing(field: &Field, mut seat: Seat) {
    for task in field.tasks().list(&Default::default()).await.unwrap() {
        field.delete(&task.name_any()).await.unwrap();
    }
    eventually("the ledger to be empty", || match seat.ledger() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}\n{}", seat.printed())),
    });
    assert_eq!(seat.stop(), 0);
    eventually("nothing to be left", || match seat.left_over() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:#?}")),
    });
}

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
    leaves_nothing(&field, seat).await;
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
    leaves_nothing(&field, seat).await;
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
    leaves_nothing(&field, seat).await;
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
    leaves_nothing(&field, seat).await;
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
    leaves_nothing(&field, seat).await;
}

/// A small file system in memory on a directory, for as long as the value lives.
struct SmallDisk<'a>(&'a Path);

impl SmallDisk<'_> {
    fn mount(path: &Path) -> SmallDisk<'_> {
        std::fs::create_dir_all(path).unwrap();
        let mount = ["-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs"];
        run(Command::new("mount").args(mount).arg(path)).ok();
        SmallDisk(path)
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        run(Command::new("umount").arg(self.0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f63_a_full_disk_refuses_what_is_new_and_spares_what_runs() {
    let field = Field::start(&["node"], &[]).await.unwrap();
    let mut seat = field.agent("node");
    let data_dir = seat.data_dir.clone();
    let disk = SmallDisk::mount(&data_dir);
    seat.start(&ARGUMENTS, &[]).unwrap();
    field.until_ready(&seat).await;
    let dir = field.dir().join("mark");
    std::fs::create_dir(&dir).unwrap();
    field.create("before", waits(&dir)).await.unwrap();
    field.until("before", "to run", |task| task.state() == TaskState::Running).await;
    eventually("its line", || if starts(&dir) == 1 { Ok(()) } else { Err("none".to_owned()) });
    let filler = data_dir.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    field.create("during", sh("exit 0")).await.unwrap();
    let task = field.until("during", "to be refused", |task| task.state().is_terminal()).await;
    assert_eq!(reason(&task), reasons::task::DISK_FULL, "{:?}", task.status);
    assert_eq!(field.tasks().get("before").await.unwrap().state(), TaskState::Running);
    // A new agent gets along with it as well.
    seat.kill();
    seat.start(&ARGUMENTS, &[]).unwrap();
    field.until_ready(&seat).await;
    std::fs::remove_file(&filler).unwrap();
    field.create("after", sh("exit 0")).await.unwrap();
    let task = field.until("after", "to end", |task| task.state().is_terminal()).await;
    assert_eq!(task.state(), TaskState::Finished, "{:?}", task.status);
    std::fs::write(dir.join("go"), "").unwrap();
    let task = field.until("before", "to end", |task| task.state().is_terminal()).await;
    assert_eq!(reason(&task), "ExitCode");
    assert_eq!(starts(&dir), 1);
    for task in field.tasks().list(&Default::default()).await.unwrap() {
        field.delete(&task.name_any()).await.unwrap();
    }
    eventually("the ledger to be empty", || match seat.ledger() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
    assert_eq!(seat.stop(), 0);
    drop(disk);
    assert_eq!(seat.left_over(), Vec::<String>::new());
}
