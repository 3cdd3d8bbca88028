//! Debian's docker-registry on the loopback, filled by umoci and skopeo with images that the tests make.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::faults::free_port;
use crate::{eventually, run};

/// `user:secret` as htpasswd keeps it.
const HTPASSWD: &str = "user:$2b$04$tN3OA74EFTw2Wo/6Nj1lhuCm9/p/4vClYS9onciz/zrJWwaTex5T6\n";
/// Programs that images have by the names of busybox.
const APPLETS: [&str; 20] = [
    "sh", "cat", "cp", "dd", "echo", "grep", "head", "id", "ln", "ls", "mkdir", "mknod", "mount",
    "rm", "sleep", "tail", "touch", "true", "umount", "wc",
];

/// A registry that ends with the value.
#[derive(Debug)]
pub struct Registry {
    process: Child,
    pub address: SocketAddr,
    dir: TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Registry {
    /// One that everybody may pull from.
    pub fn open() -> Registry {
        Registry::start("")
    }

    /// One that wants `user` and `secret`.
    pub fn closed() -> Registry {
        Registry::start("auth:\n  htpasswd:\n    realm: test\n    path: DIR/htpasswd\n")
    }

    fn start(auth: &str) -> Registry {
        let dir = tempfile::Builder::new().prefix("cmn-registry-").tempdir().expect("a directory");
        let root = dir.path().display().to_string();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port().expect("a free port")));
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {root}/data}}}}\n\
             http: {{addr: \"{address}\"}}\n{}",
            auth.replace("DIR", &root)
        );
        fs::write(dir.path().join("config.yml"), config).expect("write the configuration");
        fs::write(dir.path().join("htpasswd"), HTPASSWD).expect("write the password");
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.path().join("config.yml"))
            .stdin(Stdio::null())
            .stdout(fs::File::create(dir.path().join("access")).expect("a log"))
            .stderr(fs::File::create(dir.path().join("log")).expect("a log"))
            .spawn()
            .expect("Debian's docker-registry is installed (see hack/setup.sh)");
        let registry = Registry { process, address, dir };
        eventually("the registry to listen", || match TcpStream::connect(address) {
            Ok(_) => Ok(()),
            Err(error) => {
                let log = fs::read_to_string(registry.dir.path().join("log"));
                Err(format!("{error}: {log:?}"))
            }
        });
        registry
    }

    /// The name of one of its images, as a task has it.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Where it keeps the bytes of a blob or manifest.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        self.dir
            .path()
            .join(format!("data/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    }

    /// How many configurations and layers it has been asked for since it was filled.
    pub fn blobs_served(&self) -> usize {
        let access = fs::read_to_string(self.dir.path().join("access")).unwrap_or_default();
        access
            .lines()
            .filter(|line| line.contains("\"GET /v2/") && line.contains("/blobs/"))
            .count()
    }

    /// Pushes an image and returns the digest of its manifest.
    pub fn push(&self, name: &str, rootfs: &Rootfs) -> String {
        self.push_packed(name, rootfs, &[])
    }

    /// Pushes an image whose archive `tar` was told to make in its own way.
    pub fn push_archive(&self, name: &str, options: &[&str]) -> String {
        self.push_packed(name, &Rootfs::busybox(), options)
    }

    fn push_packed(&self, name: &str, rootfs: &Rootfs, options: &[&str]) -> String {
        let layout = tempfile::tempdir_in(self.dir.path()).expect("a directory");
        let oci = layout.path().join("oci").display().to_string();
        let tagged = format!("{oci}:1");
        let tar = layout.path().join("layer.tar").display().to_string();
        let tree = rootfs.0.path().display().to_string();
        let mut arguments = options.to_vec();
        arguments.extend(["-C", &tree, "--numeric-owner", "--owner=0", "--group=0"]);
        arguments.extend(["-cf", &tar, "."]);
        tool("tar", &arguments);
        tool("umoci", &["init", "--layout", &oci]);
        tool("umoci", &["new", "--image", &tagged]);
        tool("umoci", &["raw", "add-layer", "--image", &tagged, &tar]);
        tool("umoci", &["config", "--image", &tagged, "--config.cmd", "/bin/sh"]);
        let digest_file = layout.path().join("digest").display().to_string();
        tool(
            "skopeo",
            &[
                "copy",
                "-q",
                "--insecure-policy",
                "--dest-tls-verify=false",
                "--dest-creds",
                "user:secret",
                "--digestfile",
                &digest_file,
                &format!("oci:{tagged}"),
                &format!("docker://{}", self.image(name)),
            ],
        );
        fs::read_to_string(digest_file).expect("skopeo says the digest").trim().to_owned()
    }
}

#[track_caller]
fn tool(program: &str, arguments: &[&str]) {
    run(Command::new(program).args(arguments)).ok();
}

/// The files of an image in the making.
#[derive(Debug)]
pub struct Rootfs(TempDir);

impl Rootfs {
    /// busybox and nothing else.
    pub fn busybox() -> Rootfs {
        let root = tempfile::Builder::new().prefix("cmn-rootfs-").tempdir().expect("a directory");
        let bin = root.path().join("bin");
        fs::create_dir(&bin).expect("make /bin");
        fs::copy("/usr/bin/busybox", bin.join("busybox"))
            .or_else(|_| fs::copy("/bin/busybox", bin.join("busybox")))
            .expect("Debian's busybox-static is installed (see hack/setup.sh)");
        for name in APPLETS {
            std::os::unix::fs::symlink("busybox", bin.join(name)).expect("link a program");
        }
        // The temporary directory itself is its owner's only.
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(root.path(), mode).expect("open the root");
        Rootfs(root)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// With a program of this machine, and the libraries that it is linked with.
    pub fn with_program(self, path: &str, program: &Path) -> Rootfs {
        let listed = run(Command::new("ldd").arg(program)).ok();
        let libraries = listed.split_whitespace().filter(|word| word.starts_with('/'));
        let copies = libraries.map(|at| (Path::new(at), &at[1..])).chain([(program, path)]);
        for (from, to) in copies {
            let to = self.0.path().join(to);
            fs::create_dir_all(to.parent().expect("below the root")).expect("make directories");
            fs::copy(from, to).expect("copy a file of this machine");
        }
        self
    }

    /// With one more file.
    pub fn with(self, path: &str, content: &[u8]) -> Rootfs {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("make directories");
        fs::write(&path, content).expect("write a file");
        self
    }
}
