//! Tasks that mean harm, and tasks that are nonsense: F-71 to F-75, through the whole system. What the program of the
//! shim's tests tries (`agent/shim/examples/intruder`), it tries here as an ordinary task with an image.

use std::path::Path;
use std::process::Command;

use commonage_e2e::registry::{Registry, Rootfs};
use commonage_e2e::{cmn_path, run};
use commonage_schemas::TaskState;
use serde_json::{Value, json};

use crate::tasks::{field_with_agent, has_ended, reason, sh_in};

/// What is wrong with a task.
type Change<'a> = &'a dyn Fn(&mut Value);

/// The program that tries everything, built beside `cmn`.
fn intruder() -> std::path::PathBuf {
    let program = cmn_path().with_file_name("examples").join("intruder");
    assert!(program.exists(), "{}: `cargo build --workspace --examples`", program.display());
    program
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f72_to_f76_everything_that_an_intruder_tries_is_refused() {
    let (field, seat) = field_with_agent().await;
    let registry = Registry::open();
    registry.push("intruder:1", &Rootfs::busybox().with_program("intruder", &intruder()));
    let image = registry.image("intruder:1");
    let mark = field.dir().join("mark");
    std::fs::create_dir(&mark).unwrap();
    let secret = field.dir().join("secret");
    std::fs::write(&secret, "the machine's").unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let names = ["host", "alone", "somebody"];
    for name in names {
        // In a directory of its own, so that whoever it is may write there.
        let own = mark.join(name);
        std::fs::create_dir(&own).unwrap();
        std::fs::set_permissions(&own, std::os::unix::fs::PermissionsExt::from_mode(0o777))
            .unwrap();
        let mut spec = sh_in(&image, "exec /intruder try image > /mnt-mark/said 2>&1");
        // For as many processes as a task may have at most.
        spec["limits"]["memory"] = "1Gi".into();
        spec["container"]["mounts"] = json!([{"path": "/mnt-mark", "hostPath": own}]);
        spec["container"]["env"] = json!([
            {"name": "INTRUDER_HOST_SECRET", "value": secret},
            {"name": "INTRUDER_HOST_PID", "value": std::process::id().to_string()},
            {"name": "INTRUDER_HOST_SOCKET", "value": seat.data_dir.join("agent/agent.lock")},
        ]);
        match name {
            "alone" => spec["container"]["network"] = "None".into(),
            "somebody" => spec["container"]["user"] = "1000:1000".into(),
            _ => {}
        }
        field.create(name, spec).await.unwrap();
    }
    let known = run(Command::new(intruder()).args(["list", "image"])).ok();
    let known: Vec<&str> = known.lines().collect();
    for name in names {
        let task = field.until(name, "to end", has_ended).await;
        let said = std::fs::read_to_string(mark.join(name).join("said")).unwrap_or_default();
        let holes: Vec<&str> = said.lines().filter(|line| line.starts_with("HOLE ")).collect();
        assert_eq!(holes, [""; 0], "as {name}");
        let refused: Vec<&str> = said
            .lines()
            .filter_map(|line| line.strip_prefix("refused ")?.split(' ').next())
            .collect();
        assert_eq!(refused, known, "as {name}: {:?}", task.status);
        assert_eq!(task.state(), TaskState::Finished, "{said}");
    }
    field.until_ready(&seat).await;
    field.leaves_nothing(seat).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f71_an_image_with_links_in_place_of_directories_reaches_nothing() {
    let (field, seat) = field_with_agent().await;
    let registry = Registry::open();
    let rootfs = Rootfs::busybox();
    // Links where the runtime mounts, and where the agent writes.
    let outside = field.dir().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::create_dir_all(rootfs.path().join("etc")).unwrap();
    let link = |to: &Path, at: &str| {
        std::os::unix::fs::symlink(to, rootfs.path().join(at)).unwrap();
    };
    link(&outside, "sandbox");
    link(&outside, "tmp");
    link(&outside.join("passwd"), "etc/passwd");
    link(&outside.join("hosts"), "etc/hosts");
    registry.push("links:1", &rootfs);
    let script = "echo x > /sandbox/f; echo x > /tmp/f; id; cat /etc/hosts";
    field.create("links", sh_in(&registry.image("links:1"), script)).await.unwrap();
    // Refused or harmless; in no case anything outside.
    field.until("links", "to end", has_ended).await;
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    field.leaves_nothing(seat).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f75_bombs_and_hogs_are_limited_and_their_neighbours_are_not() {
    let (field, seat) = field_with_agent().await;
    let registry = Registry::open();
    registry.push("box:1", &Rootfs::busybox());
    let image = &registry.image("box:1");
    let mut bomb = sh_in(image, "f() { f | f & }; f; while :; do sleep 1; done");
    bomb["maxCompletionSeconds"] = 3.into();
    bomb["killPolicy"] = json!({"gracePeriodSeconds": 0});
    field.create("bomb", bomb).await.unwrap();
    let mut spins = sh_in(image, "while :; do :; done");
    spins["limits"]["cpu"] = "200m".into();
    field.create("spins", spins).await.unwrap();
    field.create("hog", sh_in(image, "tail /dev/zero")).await.unwrap();
    field.create("child", sh_in(image, "tail /dev/zero; exit 7")).await.unwrap();
    for name in ["hog", "child"] {
        let task = field.until(name, "to end", has_ended).await;
        assert_eq!((task.state(), reason(&task).as_str()), (TaskState::Failed, "OomKilled"));
    }
    // Beside all that, others run, and the machine is what it was.
    for number in 0..5 {
        let name = format!("beside-{number}");
        field.create(&name, sh_in(image, "exit 0")).await.unwrap();
        let task = field.until(&name, "to end", has_ended).await;
        assert_eq!(task.state(), TaskState::Finished, "{:?}", task.status);
    }
    field.until("bomb", "to end", has_ended).await;
    assert_eq!(field.tasks().get("spins").await.unwrap().state(), TaskState::Running);
    field.until_ready(&seat).await;
    field.leaves_nothing(seat).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f72_nonsense_is_refused_in_words_or_fails_with_a_reason() {
    let (field, seat) = field_with_agent().await;
    let registry = Registry::open();
    registry.push("box:1", &Rootfs::busybox());
    let image = &registry.image("box:1");
    // What the server refuses at once, naming the field.
    let nul =
        |spec: &mut Value| spec["container"]["env"] = json!([{"name": "A", "value": "a\u{0}b"}]);
    let large = |spec: &mut Value| {
        spec["container"]["env"] = json!([{"name": "A", "value": "x".repeat(10 << 20)}]);
    };
    // Less than a request may have, more than the kernel takes in one piece.
    let long = |spec: &mut Value| {
        spec["container"]["env"] = json!([{"name": "A", "value": "x".repeat(200 << 10)}]);
    };
    let nobody = |spec: &mut Value| spec["container"]["user"] = "4294967295".into();
    let refused: [(&str, Change<'_>, &str); 4] = [
        ("nul", &nul, "spec.container.env[0].value"),
        ("large", &large, "too large"),
        ("long", &long, "spec.container.env[0].value"),
        ("nobody", &nobody, "spec.container.user"),
    ];
    for (name, change, words) in refused {
        let mut spec = sh_in(image, "exit 0");
        change(&mut spec);
        let error = field.create(name, spec).await.unwrap_err();
        let said = format!("{error:#} {error:?}");
        assert!(said.contains(words), "{name}: {said}");
    }
    // What only the agent or the image can know.
    let directory = |spec: &mut Value| spec["container"]["workingDir"] = "/proc/self/fd/9".into();
    let named = |spec: &mut Value| spec["container"]["user"] = "ghost".into();
    let failing: [(&str, Change<'_>, &str); 2] =
        [("directory", &directory, "InvalidWorkingDir"), ("named", &named, "InvalidLaunch")];
    for (name, change, wanted) in failing {
        let mut spec = sh_in(image, "exit 0");
        change(&mut spec);
        field.create(name, spec).await.unwrap();
        let task = field.until(name, "to end", has_ended).await;
        assert_eq!((name, reason(&task).as_str()), (name, wanted), "{:?}", task.status);
    }
    // Empty arguments are arguments.
    let script = "test $# = 3 && test -z \"$1$2$3\"";
    let mut empty = sh_in(image, "");
    empty["container"]["command"] = json!(["sh", "-c", script, "sh", "", "", ""]);
    field.create("empty", empty).await.unwrap();
    let ended = field.until("empty", "to end", has_ended).await;
    assert_eq!(ended.state(), TaskState::Finished, "{:?}", ended.status);
    // Nothing of the machine is open: the three, and the one of the listing.
    let census = "test \"$(ls /proc/self/fd | tr '\\n' ' ')\" = '0 1 2 3 '";
    field.create("census", sh_in(image, census)).await.unwrap();
    let ended = field.until("census", "to end", has_ended).await;
    assert_eq!(ended.state(), TaskState::Finished, "{:?}", ended.status);
    field.leaves_nothing(seat).await;
}
