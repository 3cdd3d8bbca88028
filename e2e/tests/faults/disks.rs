//! Disks that are full, and what is kept on them: F-63, F-65, and the garbage collection of images.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use commonage_e2e::faults::field::{Field, Seat};
use commonage_e2e::faults::servers::Servers;
use commonage_e2e::registry::{Registry, Rootfs};
use commonage_e2e::{eventually, run};
use commonage_schemas::{Task, TaskState, reasons};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use kube::config::Kubeconfig;
use kube::{Api, Client};

use crate::tasks::{ARGUMENTS, has_ended, is, message, reason, sh, sh_in, starts, waits};

/// Of agents that are sent tasks though their disk is full.
const NEVER_PRESSED: [&str; 5] =
    ["--keep-deleted-logs", "0s", "-v", "--disk-pressure-threshold", "100"];

/// A small file system in memory on a directory, for as long as the value lives.
struct SmallDisk<'a>(&'a Path);

impl SmallDisk<'_> {
    /// `options`: how small.
    fn mount<'a>(path: &'a Path, options: &str) -> SmallDisk<'a> {
        std::fs::create_dir_all(path).unwrap();
        let options = format!("mode=700,{options}");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path)).ok();
        SmallDisk(path)
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // A test that failed may have left somebody who uses it.
        run(Command::new("umount").arg("-l").arg(self.0));
    }
}

/// A server whose disk fills refuses what is new and goes on; when nothing at all can be written any more it ends,
/// and a new one has all that was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_refuses_what_its_disk_has_no_room_for_and_ends_when_there_is_none_at_all() {
    let mut servers = Servers::prepare(1, &["--event-ttl", "0s"]).unwrap();
    let dir = servers.data_dir(0);
    let disk = SmallDisk::mount(&dir, "size=512m");
    let others = dir.join("others");
    run(Command::new("fallocate").args(["-l", "236M"]).arg(&others)).ok();
    servers.up(0).unwrap();
    servers.ready(0).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client(&servers).await, "default");
    let create = async |number: usize| {
        let data = [("k".to_owned(), "x".repeat(200_000))].into();
        let name = Some(format!("map-{number}"));
        let metadata = ObjectMeta { name, ..ObjectMeta::default() };
        let map = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
        maps.create(&PostParams::default(), &map).await
    };
    let mut made = 0;
    let refused = loop {
        match create(made).await {
            Ok(_) => made += 1,
            Err(kube::Error::Api(refused)) => break refused,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!((refused.code, refused.reason.as_str()), (507, "StoreFull"), "{refused:?}");
    assert!(refused.message.contains(&*dir.to_string_lossy()), "{refused:?}");
    // It serves, and deletes.
    servers.ready(0).await.unwrap();
    maps.delete("map-0", &DeleteParams::default()).await.unwrap();
    assert_eq!(create(made).await.unwrap_err().to_string(), kube::Error::Api(refused).to_string());
    std::fs::remove_file(&others).unwrap();
    create(made).await.unwrap();
    // Others fill it to the last byte.
    let filler = dir.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 1 << 20]).is_ok() {}
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    for number in 1..made {
        if maps.delete(&format!("map-{number}"), &DeleteParams::default()).await.is_err() {
            break;
        }
    }
    eventually("the server's end", || match servers.ended(0) {
        Some(code) if code != 0 => Ok(()),
        other => Err(format!("{other:?}: {}", servers.printed(0))),
    });
    assert!(servers.printed(0).contains("the store has failed"), "{}", servers.printed(0));
    std::fs::remove_file(&filler).unwrap();
    servers.up(0).unwrap();
    servers.ready(0).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client(&servers).await, "default");
    maps.get(&format!("map-{made}")).await.unwrap();
    assert!(maps.get_opt("map-0").await.unwrap().is_none());
    drop(servers);
    drop(disk);
}

async fn client(servers: &Servers) -> Client {
    let kubeconfig = Kubeconfig::read_from(servers.kubeconfig(0)).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await;
    Client::try_from(config.unwrap()).unwrap()
}

/// All tasks go, then the agent, then its disk.
async fn clear(field: &Field, mut seat: Seat, disk: SmallDisk<'_>) {
    field.delete_all().await;
    eventually("the ledger to be empty", || match seat.ledger() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}\n{}", seat.printed())),
    });
    assert_eq!(seat.stop(), 0);
    drop(disk);
    assert_eq!(seat.left_over(), Vec::<String>::new());
}

/// A directory for a task that waits, and the task.
async fn one_that_waits(field: &Field, name: &str) -> PathBuf {
    let dir = field.dir().join(format!("mark-{name}"));
    std::fs::create_dir(&dir).unwrap();
    field.create(name, waits(&dir)).await.unwrap();
    field.until(name, "to run", is(TaskState::Running)).await;
    eventually("its line", || if starts(&dir) == 1 { Ok(()) } else { Err("none".to_owned()) });
    dir
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f63_a_full_disk_refuses_what_is_new_and_spares_what_runs() {
    let field = Field::start(&["node"], &[]).await.unwrap();
    let mut seat = field.agent("node");
    let data_dir = seat.data_dir.clone();
    let disk = SmallDisk::mount(&data_dir, "size=4m");
    seat.start(&NEVER_PRESSED, &[]).unwrap();
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
    seat.start(&NEVER_PRESSED, &[]).unwrap();
    field.until_ready(&seat).await;
    std::fs::remove_file(&filler).unwrap();
    field.create("after", sh("exit 0")).await.unwrap();
    let task = field.until("after", "to end", |task| task.state().is_terminal()).await;
    assert_eq!(task.state(), TaskState::Finished, "{:?}", task.status);
    std::fs::write(dir.join("go"), "").unwrap();
    let task = field.until("before", "to end", |task| task.state().is_terminal()).await;
    assert_eq!(reason(&task), "ExitCode");
    assert_eq!(starts(&dir), 1);
    clear(&field, seat, disk).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f65_a_disk_without_inodes_refuses_what_is_new_and_spares_what_runs() {
    let field = Field::start(&["node"], &[]).await.unwrap();
    let mut seat = field.agent("node");
    let data_dir = seat.data_dir.clone();
    let disk = SmallDisk::mount(&data_dir, "size=64m,nr_inodes=400");
    seat.start(&ARGUMENTS, &[]).unwrap();
    field.until_ready(&seat).await;
    let dir = one_that_waits(&field, "before").await;
    let filler = data_dir.join("filler");
    std::fs::create_dir(&filler).unwrap();
    let made = (0..).take_while(|n| std::fs::File::create(filler.join(n.to_string())).is_ok());
    assert!(made.count() > 10);
    field.create("during", sh("exit 0")).await.unwrap();
    let task = field.until("during", "to be refused", has_ended).await;
    assert_eq!(reason(&task), reasons::task::DISK_FULL, "{:?}", task.status);
    assert!(!message(&task).is_empty());
    assert_eq!(field.tasks().get("before").await.unwrap().state(), TaskState::Running);
    std::fs::remove_dir_all(&filler).unwrap();
    field.create("after", sh("exit 0")).await.unwrap();
    let task = field.until("after", "to end", has_ended).await;
    assert_eq!(task.state(), TaskState::Finished, "{:?}", task.status);
    std::fs::write(dir.join("go"), "").unwrap();
    let task = field.until("before", "to end", has_ended).await;
    assert_eq!((reason(&task).as_str(), starts(&dir)), ("ExitCode", 1));
    clear(&field, seat, disk).await;
}

/// Does not become smaller by compression.
fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").unwrap(), &mut noise)
        .unwrap();
    noise
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_that_nobody_runs_make_room_and_are_pulled_again() {
    let field = Field::start(&["node"], &[]).await.unwrap();
    let mut seat = field.agent("node");
    let data_dir = seat.data_dir.clone();
    let disk = SmallDisk::mount(&data_dir, "size=96m");
    // The two images are more than the lower mark; what one of them takes alone is, too.
    let marks = ["--image-gc-high-threshold", "10", "--image-gc-low-threshold", "5"];
    let keep = ["--minimum-image-ttl-duration", "0s"];
    seat.start(&[&ARGUMENTS[..], &marks, &keep].concat(), &[]).unwrap();
    field.until_ready(&seat).await;
    let registry = Registry::open();
    for name in ["used", "unused"] {
        registry.push(&format!("{name}:1"), &Rootfs::busybox().with("noise", &noise(8 << 20)));
    }
    let images = data_dir.join("agent/images/images");
    let kept = || std::fs::read_dir(&images).map_or(0, |entries| entries.count());
    let dir = field.dir().join("mark-used");
    std::fs::create_dir(&dir).unwrap();
    // In the end it reads of its image what it has never read before.
    let mut used = waits(&dir);
    used["container"]["image"] = registry.image("used:1").into();
    used["container"]["command"][2] =
        "echo x >> /mnt-mark/starts; until [ -e /mnt-mark/go ]; do sleep 0.1; done; \
                                       test $(wc -c < /noise) = 8388608"
            .into();
    field.create("used", used).await.unwrap();
    field.until("used", "to run", is(TaskState::Running)).await;
    field.create("unused", sh_in(&registry.image("unused:1"), "exit 0")).await.unwrap();
    let task = field.until("unused", "to end", has_ended).await;
    assert_eq!(task.state(), TaskState::Finished, "{:?}", task.status);
    let pulled = registry.blobs_served();
    assert_eq!(pulled, 4, "a configuration and a layer of each");
    eventually("the image that nobody runs to go", || match kept() {
        1 => Ok(()),
        other => Err(format!("{other} images are kept")),
    });
    // The line is printed after the image went.
    eventually("the agent to say so", || match seat.printed() {
        printed if printed.contains("images removed") => Ok(()),
        printed => Err(printed),
    });
    field.create("again", sh_in(&registry.image("unused:1"), "test -s /noise")).await.unwrap();
    let task = field.until("again", "to end", has_ended).await;
    assert_eq!(task.state(), TaskState::Finished, "{:?}", task.status);
    assert_eq!(registry.blobs_served(), pulled + 2, "what is gone is fetched again");
    std::fs::write(dir.join("go"), "").unwrap();
    let task = field.until("used", "to end", has_ended).await;
    assert_eq!(task.state(), TaskState::Finished, "{:?}", task.status);
    clear(&field, seat, disk).await;
}

/// What ended is removed before anything is refused; what runs runs on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_nearly_full_loses_what_has_ended_and_then_takes_nothing_new() {
    let field = Field::start(&["node"], &[]).await.unwrap();
    let mut seat = field.agent("node");
    let data_dir = seat.data_dir.clone();
    let disk = SmallDisk::mount(&data_dir, "size=64m");
    let pressed = ["--disk-pressure-threshold", "50"];
    seat.start(&[&ARGUMENTS[..], &pressed].concat(), &[]).unwrap();
    field.until_ready(&seat).await;
    let dir = one_that_waits(&field, "runs").await;
    field.create("ended", sh("echo bye; head -c 12582912 /dev/zero > much; exit 7")).await.unwrap();
    let ended = field.until("ended", "to end", has_ended).await;
    let place = data_dir.join("agent/tasks").join(ended.metadata.uid.as_ref().unwrap());
    assert_eq!(std::fs::metadata(place.join("sandbox/much")).unwrap().len(), 12 << 20);
    // Together with what ended it is over the mark, alone it is not.
    let fill = |name: &str, mib: usize| {
        std::fs::write(data_dir.join(name), vec![1; mib << 20]).unwrap();
    };
    fill("filler", 26);
    eventually("its sandbox and its log to go", || {
        let left = ["sandbox", "stdout.log"].map(|name| place.join(name).exists());
        if left == [false, false] { Ok(()) } else { Err(format!("{left:?}\n{}", seat.printed())) }
    });
    let why = std::fs::read_to_string(place.join("collected")).unwrap();
    assert!(why.contains("% of the agent's disk"), "{why}");
    let still = field.tasks().get("ended").await.unwrap();
    assert_eq!(reason(&still), reason(&ended), "its end is known as before");
    field.create("fits", sh("exit 0")).await.unwrap();
    field.until("fits", "to end, there is room", is(TaskState::Finished)).await;
    fill("more", 16);
    let agent = field.name_of("node");
    let disk_pressure = async |wanted: &str| {
        commonage_e2e::soon("DiskPressure", async || {
            let found = field.agents().get(&agent).await.map_err(|error| error.to_string())?;
            let conditions = found.status.unwrap_or_default().conditions;
            let said = conditions.into_iter().find(|c| c.type_ == "DiskPressure").map(|c| c.status);
            if said.as_deref() == Some(wanted) { Ok(()) } else { Err(format!("{said:?}")) }
        })
        .await;
    };
    disk_pressure("True").await;
    field.create("new", sh("exit 0")).await.unwrap();
    let waits = |task: &Task| message(task).contains("disk is nearly full");
    field.until("new", "to wait and say why", waits).await;
    assert_eq!(field.tasks().get("runs").await.unwrap().state(), TaskState::Running);
    std::fs::remove_file(data_dir.join("more")).unwrap();
    disk_pressure("False").await;
    field.until("new", "to run, there is room again", is(TaskState::Finished)).await;
    std::fs::write(dir.join("go"), "").unwrap();
    let task = field.until("runs", "to end", has_ended).await;
    assert_eq!((reason(&task).as_str(), starts(&dir)), ("ExitCode", 1));
    clear(&field, seat, disk).await;
}
