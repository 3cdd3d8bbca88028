//! Images from a registry to a running task, and what is said when they do not come: F-67 to F-71, end to end.
//!
//! What each malformed image is refused with is tested beside the code (`agent/image/tests/pull`); here it is what
//! somebody reads who asks kubectl.

use std::process::Command;

use commonage_e2e::faults::field::{Field, Seat};
use commonage_e2e::faults::proxy::{Harm, Proxy};
use commonage_e2e::registry::{Registry, Rootfs};
use commonage_e2e::{eventually, host, run, soon};
use commonage_schemas::{Task, TaskState};
use kube::ResourceExt;
use serde_json::{Value, json};
use std::time::Duration;

const ARGUMENTS: [&str; 3] = ["--keep-deleted-logs", "0s", "-v"];

async fn field_with_agent() -> (Field, Seat) {
    let field = Field::start(&["node"], &[]).await.unwrap();
    let mut seat = field.agent("node");
    seat.start(&ARGUMENTS, &[]).unwrap();
    field.until_ready(&seat).await;
    (field, seat)
}

fn task(image: &str, script: &str) -> Value {
    json!({
        "resources": {"cpu": "1m", "memory": "16Mi"},
        "limits": {"cpu": "1", "memory": "16Mi"},
        "container": {"image": image, "command": ["sh", "-c", script]},
    })
}

fn has_ended(task: &Task) -> bool {
    task.state().is_terminal()
}

/// What somebody sees who asks why.
fn describe(field: &Field, name: &str) -> String {
    let kubeconfig = field.servers.kubeconfig(0);
    let cache = field.dir().join("kubectl");
    let mut kubectl = Command::new(host::kubectl());
    kubectl.arg("--kubeconfig").arg(kubeconfig).arg("--cache-dir").arg(cache);
    run(kubectl.args(["describe", "task", name])).ok()
}

async fn succeeds(field: &Field, name: &str) {
    let task = field.until(name, "to end", has_ended).await;
    assert_eq!(task.state(), TaskState::Finished, "{name}: {:?}", task.status);
}

/// Fails for this reason, with these words where people look.
async fn fails(field: &Field, name: &str, reason: &str, words: &[&str]) {
    let task = field.until(name, "to end", has_ended).await;
    let status = task.status.clone().unwrap_or_default();
    assert_eq!(status.reason.as_deref(), Some(reason), "{name}: {status:?}");
    let described = describe(field, name);
    for word in words.iter().chain([&reason]) {
        assert!(described.contains(word), "{word:?} is not in:\n{described}");
    }
}

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
async fn images_run_by_tag_and_digest_and_are_pulled_once() {
    let (field, seat) = field_with_agent().await;
    let registry = Registry::open();
    let digest = registry.push("team/box:1.0", &Rootfs::busybox().with("etc/motd", b"hello"));
    let script = "grep -q hello /etc/motd";
    // Two at once, before anything is there.
    let tag = registry.image("team/box:1.0");
    for name in ["by-tag", "beside"] {
        field.create(name, task(&tag, script)).await.unwrap();
    }
    succeeds(&field, "by-tag").await;
    succeeds(&field, "beside").await;
    assert_eq!(registry.blobs_served(), 2, "the configuration and one layer, once each");
    let by_digest = registry.image(&format!("team/box@{digest}"));
    field.create("by-digest", task(&by_digest, script)).await.unwrap();
    succeeds(&field, "by-digest").await;
    assert_eq!(registry.blobs_served(), 2, "what is kept is not fetched again");
    let wrong = registry.image(&format!("team/box@sha256:{}", "0".repeat(64)));
    field.create("wrong-digest", task(&wrong, script)).await.unwrap();
    fails(&field, "wrong-digest", "ImagePullFailed", &["MANIFEST_UNKNOWN"]).await;
    field.create("no-tag", task(&registry.image("team/box:2.0"), script)).await.unwrap();
    fails(&field, "no-tag", "ImagePullFailed", &["team/box:2.0", "MANIFEST_UNKNOWN"]).await;
    leaves_nothing(&field, seat).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_with_a_password_wants_the_right_one() {
    let (field, seat) = field_with_agent().await;
    let registry = Registry::closed();
    registry.push("box:1", &Rootfs::busybox());
    let image = registry.image("box:1");
    for (name, password) in [("right", "secret"), ("wrong", "guess")] {
        let mut kubectl = Command::new(host::kubectl());
        kubectl.arg("--kubeconfig").arg(field.servers.kubeconfig(0));
        kubectl.args(["create", "secret", "docker-registry", name, "--docker-username", "user"]);
        kubectl.args(["--docker-password", password]);
        kubectl.args(["--docker-server", &registry.address.to_string()]);
        run(&mut kubectl).ok();
        let mut spec = task(&image, "exit 0");
        spec["container"]["imagePullSecrets"] = json!([{"name": name}]);
        field.create(name, spec).await.unwrap();
    }
    field.create("none", task(&image, "exit 0")).await.unwrap();
    succeeds(&field, "right").await;
    fails(&field, "wrong", "ImagePullFailed", &["box:1"]).await;
    // It is on the machine by now, and still not for everybody.
    fails(&field, "none", "ImagePullFailed", &["wants credentials"]).await;
    leaves_nothing(&field, seat).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f67_to_f69_what_is_wrong_with_an_image_is_what_describe_says() {
    let (field, seat) = field_with_agent().await;
    let registry = Registry::open();
    // The registry's disk has changed a byte of the layer.
    let digest = registry.push("bytes:1", &Rootfs::busybox());
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(registry.blob(&digest)).unwrap()).unwrap();
    let layer = registry.blob(manifest["layers"][0]["digest"].as_str().unwrap());
    let mut bytes = std::fs::read(&layer).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&layer, bytes).unwrap();
    // Entries that lead out of the image, or to the machine's devices.
    registry
        .push_archive("climbs:1", &["-P", "--transform", "s,^./bin/busybox$,../../../climbed,"]);
    registry.push_archive("absolute:1", &["-P", "--transform", "s,^./bin/busybox$,/tmp/absolute,"]);
    let device = Rootfs::busybox();
    run(Command::new("mknod").arg(device.path().join("disk")).args(["b", "254", "0"])).ok();
    registry.push("device:1", &device);
    for name in ["bytes", "climbs", "absolute", "device"] {
        field.create(name, task(&registry.image(&format!("{name}:1")), "exit 0")).await.unwrap();
    }
    fails(&field, "bytes", "ImageInvalid", &["layers[0]", "digest"]).await;
    fails(&field, "climbs", "ImageInvalid", &["../../../climbed"]).await;
    fails(&field, "absolute", "ImageInvalid", &["/tmp/absolute"]).await;
    fails(&field, "device", "ImageInvalid", &["disk"]).await;
    assert!(!std::path::Path::new("/tmp/absolute").exists());
    let images = seat.data_dir.join("agent/images");
    for part in ["layers", "images", "tmp"] {
        let left = std::fs::read_dir(images.join(part)).unwrap().count();
        assert_eq!((part, left), (part, 0));
    }
    leaves_nothing(&field, seat).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f68_and_f70_a_slow_pull_tells_how_far_it_is_and_outlives_its_agent() {
    let (field, mut seat) = field_with_agent().await;
    let registry = Registry::open();
    // What does not become smaller by compression.
    let mut noise = vec![0; 6 << 20];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").unwrap(), &mut noise)
        .unwrap();
    registry.push("big:1", &Rootfs::busybox().with("noise", &noise));
    let slow = Proxy::start(registry.address).await.unwrap();
    slow.set(Harm::Delay(Duration::from_millis(60)));
    let image = format!("{}/big:1", slow.address());
    field.create("t", task(&image, "exit 0")).await.unwrap();
    let percent = |task: &Task| {
        let message = task.status.as_ref()?.message.as_ref()?;
        message.strip_prefix("Pulling ")?.strip_suffix(" %")?.parse::<u8>().ok()
    };
    let task = field.until("t", "to tell how far", |task| percent(task).is_some()).await;
    assert_eq!(task.state(), TaskState::Staging);
    soon("kubectl to tell it as well", async || match describe(&field, "t") {
        text if text.contains(" %") && text.contains("Pulling") => Ok(()),
        text => Err(text),
    })
    .await;
    // In the middle of it, with half a layer on the disk.
    seat.kill();
    slow.set(Harm::None);
    seat.start(&ARGUMENTS, &[]).unwrap();
    succeeds(&field, "t").await;
    let half = std::fs::read_dir(seat.data_dir.join("agent/images/tmp")).unwrap().count();
    assert_eq!(half, 0);
    leaves_nothing(&field, seat).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f71_to_f75_what_an_image_tries_against_the_machine_fails() {
    let (field, seat) = field_with_agent().await;
    let registry = Registry::open();
    let rootfs = Rootfs::busybox();
    // Links where the runtime mounts, and where the agent writes.
    let outside = field.dir().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::create_dir_all(rootfs.path().join("etc")).unwrap();
    let link = |to: &std::path::Path, at: &str| {
        std::os::unix::fs::symlink(to, rootfs.path().join(at)).unwrap();
    };
    link(&outside, "sandbox");
    link(&outside, "tmp");
    link(&outside.join("passwd"), "etc/passwd");
    link(&outside.join("hosts"), "etc/hosts");
    registry.push("links:1", &rootfs);
    registry.push("box:1", &Rootfs::busybox());
    let attempts = [
        "mount -t tmpfs none /tmp",
        "mount -t proc none /mnt",
        "mount -o remount,rw /sys",
        "umount /proc",
        "umount /sandbox",
        "mknod /tmp/whole c 1 1",
        "mknod /tmp/disk b 254 0",
        "busybox unshare -U true",
        "busybox unshare -m true",
        "busybox unshare -p true",
        "busybox nsenter -t 1 -m true",
        "busybox insmod /bin/busybox",
        "busybox swapoff -a",
        "busybox hostname other",
        "busybox pivot_root / /tmp",
        "busybox ping -c 1 127.0.0.1",
        "busybox losetup /dev/loop0 /bin/busybox",
        "busybox chroot /proc/1/root true",
        "busybox dmesg",
        "echo b > /proc/sysrq-trigger",
        "echo 1 > /proc/sys/kernel/panic",
        "echo x > /proc/sys/kernel/core_pattern",
        "echo 1 > /sys/kernel/mm/ksm/run",
        "head -c 1 /proc/kcore | grep .",
        "cat /proc/keys | grep .",
        "cat /dev/mem",
        "cat /dev/kmsg",
        "echo > /proc/1/exe",
        "cat /proc/1/environ | grep .",
        "ls /sys/fs/cgroup | grep .",
        "echo -1000 > /proc/self/oom_score_adj",
        "busybox renice -20 1",
        "busybox setpriv --inh-caps +sys_admin true",
    ];
    let script: String = attempts
        .iter()
        .map(|attempt| {
            format!("( {attempt} ) >/dev/null 2>&1 && echo '{attempt}' >> /mnt-mark/succeeded\n")
        })
        .collect();
    let mark = field.dir().join("mark");
    std::fs::create_dir(&mark).unwrap();
    let mounts = json!([{"path": "/mnt-mark", "hostPath": mark}]);
    let mut tries = task(&registry.image("box:1"), &format!("{script}echo all >> /mnt-mark/tried"));
    tries["container"]["mounts"] = mounts.clone();
    field.create("tries", tries).await.unwrap();
    let script =
        "echo x > /sandbox/f; echo x > /tmp/f; id; cat /etc/hosts; echo done > /mnt-mark/links";
    let mut links = task(&registry.image("links:1"), script);
    links["container"]["mounts"] = mounts;
    field.create("links", links).await.unwrap();
    let mut bomb = task(&registry.image("box:1"), "f() { f | f & }; f; while :; do sleep 1; done");
    bomb["maxCompletionSeconds"] = 3.into();
    bomb["killPolicy"] = json!({"gracePeriodSeconds": 0});
    field.create("bomb", bomb).await.unwrap();
    field.create("hog", task(&registry.image("box:1"), "tail /dev/zero")).await.unwrap();
    let mut files = task(&registry.image("box:1"), "exit 0");
    files["container"]["workingDir"] = "/proc/self/fd/9".into();
    field.create("cwd", files).await.unwrap();

    field.until("tries", "to end", has_ended).await;
    let succeeded = std::fs::read_to_string(mark.join("succeeded")).unwrap_or_default();
    assert_eq!(succeeded, "");
    assert!(mark.join("tried").exists());
    // Refused or harmless; in no case anything outside.
    field.until("links", "to end", has_ended).await;
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    fails(&field, "hog", "OomKilled", &[]).await;
    field.until("bomb", "to end", has_ended).await;
    let cwd = field.until("cwd", "to end", has_ended).await;
    assert_eq!(cwd.state(), TaskState::Failed, "{:?}", cwd.status);
    assert_eq!(seat.contained(), Vec::<i32>::new());
    field.until_ready(&seat).await;
    leaves_nothing(&field, seat).await;
}
