//! Tasks with an image: what overlayfs makes of layers, and images made to do harm (row F-71).

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use commonage_shim::launch::{FailureReason, Root};

use crate::Test;
use crate::fixture::Task;

pub const TESTS: &[Test] = &[
    (
        "image::layers_are_stacked_and_what_is_written_goes",
        layers_are_stacked_and_what_is_written_goes,
    ),
    ("image::users_and_directories_are_the_images", users_and_directories_are_the_images),
    ("image::a_read_only_root_is_one", a_read_only_root_is_one),
    (
        "image::links_in_the_place_of_system_files_lead_nowhere",
        links_in_the_place_of_system_files_lead_nowhere,
    ),
    ("image::set_user_id_programs_do_nothing", set_user_id_programs_do_nothing),
];

/// An image's layers, uppermost first, below a directory of their own.
pub struct Image {
    dir: tempfile::TempDir,
    pub layers: Vec<PathBuf>,
}

impl Image {
    /// One layer, with a shell.
    pub fn new() -> Image {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let base = dir.path().join("a/t");
        fs::create_dir_all(base.join("bin")).unwrap();
        fs::create_dir_all(base.join("etc")).unwrap();
        fs::copy("/bin/busybox", base.join("bin/busybox")).unwrap();
        for applet in ["sh", "cat", "ls", "id", "touch", "mount", "stat"] {
            symlink("busybox", base.join("bin").join(applet)).unwrap();
        }
        fs::write(base.join("etc/passwd"), "app:x:1000:1001::/srv/app:/bin/sh\n").unwrap();
        fs::write(base.join("etc/group"), "app:x:1001:\naudio:x:29:app\n").unwrap();
        Image { dir, layers: vec![base] }
    }

    pub fn layer(mut self, fill: impl FnOnce(&Path)) -> Image {
        let layer = self.dir.path().join(format!("{}/t", self.layers.len()));
        fs::create_dir_all(&layer).unwrap();
        fill(&layer);
        self.layers.insert(0, layer);
        self
    }

    pub fn task(&self, script: &str) -> Task {
        let layers = self.layers.clone();
        Task::command(&["/bin/sh", "-c", script])
            .with(|launch| launch.root = Root::Image { layers, read_only: false })
    }
}

/// A program and what it is linked with: where each file is, and where it belongs in an image.
pub fn with_libraries(program: &Path, name: &str) -> Vec<(PathBuf, PathBuf)> {
    let listed = std::process::Command::new("ldd").arg(program).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/'));
    let libraries = libraries.map(|at| (PathBuf::from(at), PathBuf::from(&at[1..])));
    std::iter::once((program.to_owned(), PathBuf::from(name))).chain(libraries).collect()
}

fn layers_are_stacked_and_what_is_written_goes() {
    let image = Image::new()
        .layer(|layer| {
            fs::write(layer.join("one"), "1").unwrap();
            fs::write(layer.join("gone"), "1").unwrap();
        })
        .layer(|layer| {
            fs::write(layer.join("one"), "2").unwrap();
            let none = nix::sys::stat::Mode::empty();
            nix::sys::stat::mknod(&layer.join("gone"), nix::sys::stat::SFlag::S_IFCHR, none, 0)
                .unwrap();
        });
    let before = fs::metadata(image.layers[0].join("one")).unwrap();
    let task = image.task(
        "cat /one; ls /gone 2>&1; echo changed > /one; echo new > /new; cat /etc/hostname; pwd; \
         echo home $HOME; ls /host 2>&1; touch /sandbox/kept; ls /tmp 2>&1; cat /proc/self/cgroup >/dev/null",
    );
    let exit = task.run();
    assert!(exit.success(), "{exit:?} {}", task.stderr());
    let out = task.stdout();
    assert!(out.starts_with("2"), "{out}");
    assert!(out.contains("/gone: No such file"), "{out}");
    assert!(out.contains(&format!("{}\n/\nhome /\n", task.launch.id)), "{out}");
    assert!(out.contains("/tmp: No such file"), "the image has none: {out}");
    assert!(task.launch.sandbox.join("kept").exists());
    let after = fs::metadata(image.layers[0].join("one")).unwrap();
    assert_eq!((before.mtime_nsec(), before.len()), (after.mtime_nsec(), after.len()));
    for left in ["upper", "work", "rootfs", "etc"] {
        assert!(!task.path().join(left).exists(), "{left} is left");
    }
}

fn users_and_directories_are_the_images() {
    let image = Image::new();
    let task = image.task("id -u; id -g; id -G; pwd; echo $HOME").with(|launch| {
        launch.user_name = Some("app".to_owned());
        launch.working_dir = Some("/srv/made/by/nobody".into());
    });
    assert!(task.run().success(), "{}", task.stderr());
    assert_eq!(task.stdout(), "1000\n1001\n1001 29\n/srv/made/by/nobody\n/srv/app\n");
    let task = image.task("true").with(|launch| launch.user_name = Some("ghost".to_owned()));
    let error = task.run().error.unwrap();
    assert_eq!(error.reason, FailureReason::InvalidLaunch);
    assert!(error.message.contains("spec.container.user") && error.message.contains("ghost"));
}

fn a_read_only_root_is_one() {
    let image = Image::new();
    let layers = image.layers.clone();
    let task = image
        .task("touch /x 2>&1; touch /etc/x 2>&1; touch /tmp/x && touch /sandbox/x && echo fine")
        .with(|launch| launch.root = Root::Image { layers, read_only: true });
    assert!(task.run().success(), "{}", task.stderr());
    assert_eq!(task.stdout().matches("Read-only file system").count(), 2, "{}", task.stdout());
    assert!(task.stdout().ends_with("fine\n"));
}

/// Whatever such an image does, the host's files stay as they are and are not seen.
fn links_in_the_place_of_system_files_lead_nowhere() {
    let canary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::set_permissions(canary.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let secret = canary.path().join("secret");
    fs::write(&secret, "the host's").unwrap();
    let outside = canary.path().to_owned();
    let cases: [(&str, &str); 9] = [
        ("dev", "@"),
        ("proc", "@"),
        ("sys", "@"),
        ("sandbox", "@"),
        ("etc/passwd", "@/secret"),
        ("etc/hosts", "@/secret"),
        ("etc/resolv.conf", "../../../../../../@/secret"),
        ("dev/null", "@/secret"),
        ("dev/pts/ptmx", "@/secret"),
    ];
    for (path, target) in cases {
        let target = target.replace('@', &outside.display().to_string());
        let image = Image::new().layer(|layer| {
            let link = layer.join(path);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(&target, link).unwrap();
        });
        let task = image.task(&format!(
            "cat {0} 2>&1; echo x > {0} 2>&1; cat /etc/passwd /etc/hosts /dev/pts/ptmx >/dev/null 2>&1 & \
             echo end > /dev/null; cat /proc/kcore 2>&1; ls {1} 2>&1; true",
            secret.display(),
            outside.display(),
        ));
        let exit = task.run();
        // Refused or harmless.
        assert!(exit.success() || exit.error.is_some(), "{path}: {exit:?} {}", task.stderr());
        assert!(!task.stdout().contains("the host's"), "{path}: {}", task.stdout());
        assert_eq!(fs::read_to_string(&secret).unwrap(), "the host's", "{path}");
        assert_eq!(fs::read_dir(canary.path()).unwrap().count(), 1, "{path}");
    }
}

fn set_user_id_programs_do_nothing() {
    let image = Image::new().layer(|layer| {
        fs::create_dir(layer.join("su")).unwrap();
        let program = layer.join("su/busybox");
        fs::copy("/bin/busybox", &program).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    });
    let task = image.task("/su/busybox id -u").with(|launch| {
        launch.user.uid = 1000;
        launch.user.gid = 1000;
    });
    assert!(task.run().success(), "{}", task.stderr());
    assert_eq!(task.stdout(), "1000\n");
}
