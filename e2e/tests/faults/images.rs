//! Images from a registry to a running task, and what is said when they do not come: F-67 to F-70, end to end.
//!
//! What each malformed image is refused with is tested beside the code (`agent/image/tests/pull`); here it is what
//! somebody reads who asks kubectl.

use std::process::Command;

use commonage_e2e::faults::field::Field;
use commonage_e2e::faults::proxy::{Harm, Proxy};
use commonage_e2e::registry::{Registry, Rootfs};
use commonage_e2e::{host, run, soon};
use commonage_schemas::{Task, TaskState};
use serde_json::{Value, json};
use std::time::Duration;

use crate::tasks::{ARGUMENTS, field_with_agent, has_ended, sh_in};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_run_by_tag_and_digest_and_are_pulled_once() {
    let (field, seat) = field_with_agent().await;
    let registry = Registry::open();
    let digest = registry.push("team/box:1.0", &Rootfs::busybox().with("etc/motd", b"hello"));
    let script = "grep -q hello /etc/motd";
    // Two at once, before anything is there.
    let tag = registry.image("team/box:1.0");
    for name in ["by-tag", "beside"] {
        field.create(name, sh_in(&tag, script)).await.unwrap();
    }
    succeeds(&field, "by-tag").await;
    succeeds(&field, "beside").await;
    assert_eq!(registry.blobs_served(), 2, "the configuration and one layer, once each");
    let by_digest = registry.image(&format!("team/box@{digest}"));
    field.create("by-digest", sh_in(&by_digest, script)).await.unwrap();
    succeeds(&field, "by-digest").await;
    assert_eq!(registry.blobs_served(), 2, "what is kept is not fetched again");
    let wrong = registry.image(&format!("team/box@sha256:{}", "0".repeat(64)));
    field.create("wrong-digest", sh_in(&wrong, script)).await.unwrap();
    fails(&field, "wrong-digest", "ImagePullFailed", &["MANIFEST_UNKNOWN"]).await;
    field.create("no-tag", sh_in(&registry.image("team/box:2.0"), script)).await.unwrap();
    fails(&field, "no-tag", "ImagePullFailed", &["team/box:2.0", "MANIFEST_UNKNOWN"]).await;
    field.leaves_nothing(seat).await;
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
        let mut spec = sh_in(&image, "exit 0");
        spec["container"]["imagePullSecrets"] = json!([{"name": name}]);
        field.create(name, spec).await.unwrap();
    }
    field.create("none", sh_in(&image, "exit 0")).await.unwrap();
    succeeds(&field, "right").await;
    fails(&field, "wrong", "ImagePullFailed", &["box:1"]).await;
    // It is on the machine by now, and still not for everybody.
    fails(&field, "none", "ImagePullFailed", &["wants credentials"]).await;
    field.leaves_nothing(seat).await;
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
        field.create(name, sh_in(&registry.image(&format!("{name}:1")), "exit 0")).await.unwrap();
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
    field.leaves_nothing(seat).await;
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
    field.create("t", sh_in(&image, "exit 0")).await.unwrap();
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
    field.leaves_nothing(seat).await;
}
