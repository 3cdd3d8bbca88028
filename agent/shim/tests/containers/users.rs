//! Containers whose users are not the machine's: root inside is nobody outside.

use std::fs;
use std::os::unix::fs::MetadataExt;

use commonage_shim::launch::{IdRange, Mount, Network, User};

use crate::Test;
use crate::fixture::Task;
use crate::image::Image;

pub const TESTS: &[Test] = &[
    ("users::root_inside_is_nobody_outside", root_inside_is_nobody_outside),
    ("users::an_image_is_its_roots_own", an_image_is_its_roots_own),
    ("users::mounts_and_networks_work_as_ever", mounts_and_networks_work_as_ever),
];

const FIRST: u32 = 0x2345_0000;
const IDS: Option<IdRange> = Some(IdRange { first: FIRST, count: 65_536 });

fn root_inside_is_nobody_outside() {
    let script = "id -u; cat /proc/self/uid_map | tr -s ' '; echo mine > /sandbox/f && echo t > /tmp/f && chown 33 \
                  /sandbox/f && stat -c '%u %g' /sandbox/f; touch /etc/x 2>/dev/null && echo wrote; mknod /tmp/n c 1 3 \
                  2>/dev/null && echo made; grep -q root /etc/shadow && echo read; ls /sys/fs/cgroup | wc -l; echo \
                  ready; read x < /sandbox/pipe";
    let task = Task::sh(script).with(|launch| launch.user_namespace = IDS);
    fs::write(task.launch.sandbox.join("f"), "").unwrap();
    nix::unistd::mkfifo(&task.launch.sandbox.join("pipe"), nix::sys::stat::Mode::all()).unwrap();
    task.start();
    task.until_output("ready");
    let lines = task.stdout();
    let lines: Vec<&str> = lines.lines().map(str::trim).collect();
    assert_eq!(
        lines,
        ["0", &format!("0 {FIRST} 65536"), "33 0", "0", "ready"],
        "{}",
        task.stderr()
    );
    // Outside all of it is what the range says, and the files are as if there were none.
    let processes = task.processes();
    assert!(processes.len() >= 2, "{processes:?}");
    for pid in processes {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field =
            |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap().to_owned();
        assert!(field("Uid:").split_whitespace().all(|id| id == FIRST.to_string()), "{status}");
        assert_eq!(field("Seccomp:").trim(), "2");
    }
    assert_eq!(fs::metadata(task.launch.sandbox.join("f")).unwrap().uid(), 33);
    fs::write(task.launch.sandbox.join("pipe"), "go\n").unwrap();
    assert!(task.end().success());
}

fn an_image_is_its_roots_own() {
    let image = Image::new().layer(|layer| fs::write(layer.join("owned"), "layer").unwrap());
    let script = "stat -c %u /owned; echo changed > /owned; cat /owned; echo new > /new; stat -c %u /new; cat \
                  /etc/hostname; id -u";
    let task = image.task(script).with(|launch| launch.user_namespace = IDS);
    let exit = task.run();
    assert!(exit.success(), "{exit:?} {} {}", task.stderr(), task.shim_log());
    let out = task.stdout();
    assert_eq!(out, format!("0\nchanged\n0\n{}\n0\n", task.launch.id), "{}", task.stderr());
    assert_eq!(fs::read_to_string(image.layers[0].join("owned")).unwrap(), "layer");
    let app = image
        .task("id -u; touch /new 2>/dev/null || echo refused; touch /sandbox/mine && echo own")
        .with(|l| {
            l.user_namespace = IDS;
            l.user_name = Some("app".to_owned());
        });
    app.run();
    assert_eq!(app.stdout(), "1000\nrefused\nown\n", "{}", app.stderr());
    assert_eq!(fs::metadata(app.launch.sandbox.join("mine")).unwrap().uid(), 1000);
}

fn mounts_and_networks_work_as_ever() {
    let outside = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (own, foreign) = (outside.path().join("own"), outside.path().join("foreign"));
    for directory in [&own, &foreign] {
        fs::create_dir(directory).unwrap();
        fs::write(directory.join("f"), "x\n").unwrap();
    }
    let script = "stat -c '%u %n' /data/own/f /data/foreign/f; touch /data/own/new && echo own; touch /data/foreign/new \
                  2>/dev/null && echo foreign; df -k /data/memory | tail -1 | tr -s ' ' | cut -d' ' -f2; ls \
                  /sys/class/net; bash -c 'exec 3<>/dev/tcp/127.0.0.1/1' 2>&1 | grep -o refused | head -1";
    let task = Task::sh(script).with(|launch| {
        launch.user_namespace = IDS;
        launch.network = Network::None;
        let mount = |source: &std::path::Path, target: &str, foreign| Mount {
            source: source.to_owned(),
            target: target.into(),
            foreign,
            ..Mount::default()
        };
        let memory =
            Mount { tmpfs_bytes: Some(1 << 20), ..mount("/".as_ref(), "/data/memory", false) };
        launch.mounts =
            vec![mount(&own, "/data/own", false), mount(&foreign, "/data/foreign", true), memory];
    });
    let exit = task.run();
    let expected = "0 /data/own/f\n65534 /data/foreign/f\nown\n1024\nlo\nrefused\n";
    assert_eq!(task.stdout(), expected, "{exit:?} {} {}", task.stderr(), task.shim_log());
    assert_eq!(fs::metadata(own.join("new")).unwrap().uid(), 0);
    let user = Task::sh("id -u; cat /proc/self/status | grep CapEff; echo to > /dev/stdout").with(
        |launch| {
            launch.user_namespace = IDS;
            launch.user = User { uid: 7, gid: 8, ..User::default() };
        },
    );
    user.run();
    assert_eq!(user.stdout(), "7\nCapEff:\t0000000000000000\nto\n", "{}", user.stderr());
}
