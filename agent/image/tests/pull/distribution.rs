//! Debian's docker-registry, filled by skopeo with images that lie here as OCI layouts.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use commonage_image::{Credentials, Digest, Error, Request};
use serde_json::json;

use crate::made::{Content, INDEX, Layer, MANIFEST, Packed, descriptor, files};
use crate::server::{Place, find_file};

/// `user:secret` as htpasswd keeps it.
const HTPASSWD: &str = "user:$2b$04$tN3OA74EFTw2Wo/6Nj1lhuCm9/p/4vClYS9onciz/zrJWwaTex5T6\n";
const PATIENCE: Duration = Duration::from_secs(60);

/// A registry of its own, ended with the value.
struct Distribution {
    child: Child,
    address: SocketAddr,
    dir: tempfile::TempDir,
}

impl Drop for Distribution {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Distribution {
    fn start(closed: bool) -> Distribution {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display();
        let mut auth = String::new();
        if closed {
            fs::write(dir.path().join("htpasswd"), HTPASSWD).unwrap();
            auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {root}/htpasswd\n");
        }
        // Found free, and may be taken by somebody else before it is used: then another one.
        for _ in 0..5 {
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let config = format!(
                "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: \
                 {root}/data\nhttp:\n  addr: {address}\n{auth}"
            );
            fs::write(dir.path().join("config.yml"), config).unwrap();
            let log = File::create(dir.path().join("log")).unwrap();
            let mut child = Command::new("docker-registry")
                .arg("serve")
                .arg(dir.path().join("config.yml"))
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .expect("Debian's docker-registry is installed (see hack/setup.sh)");
            let deadline = Instant::now() + PATIENCE;
            while Instant::now() < deadline && child.try_wait().unwrap().is_none() {
                if TcpStream::connect(address).is_ok() {
                    return Distribution { child, address, dir };
                }
                std::thread::yield_now();
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("docker-registry: {}", fs::read_to_string(dir.path().join("log")).unwrap());
    }

    fn push(&self, content: &Content, name: &str) {
        let layout = self.dir.path().join("layout");
        lay_out(content, &layout);
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["copy", "-q", "--insecure-policy", "--dest-tls-verify=false"]);
        skopeo.args(["--dest-creds", "user:secret"]);
        skopeo.arg(format!("oci:{}:1", layout.display()));
        skopeo.arg(format!("docker://{}/{name}", self.address));
        let output = skopeo.output().expect("skopeo is installed (see hack/setup.sh)");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn request(&self, name: &str) -> Request {
        Request {
            reference: format!("{}/{name}", self.address).parse().unwrap(),
            credentials: None,
        }
    }
}

/// The directory form of an image, with the tag `1`.
fn lay_out(content: &Content, path: &Path) {
    let blobs = path.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let manifest = &content.manifests["1"].1;
    for bytes in content.blobs.values().chain([manifest]) {
        fs::write(blobs.join(Digest::of(bytes).hex()), bytes).unwrap();
    }
    let mut entry = descriptor(MANIFEST, manifest);
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": "1"});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});
    fs::write(path.join("index.json"), index.to_string()).unwrap();
}

fn app() -> Content {
    Content::image(&[
        Layer::new(&files(&[("bin/", b""), ("bin/app", b"#!/bin/sh\n")]), Packed::Zstd),
        Layer::new(&files(&[("etc/", b""), ("etc/motd", b"hello")]), Packed::Plain),
    ])
}

#[tokio::test]
async fn images_come_from_a_real_registry_by_tag_and_by_digest() {
    let registry = Distribution::start(false);
    registry.push(&app(), "team/app:1.0");
    let place = Place::new();
    let image = place.pull(&registry.request("team/app:1.0")).await.unwrap();
    let motd = find_file(&image, "etc/motd").unwrap();
    assert_eq!(fs::read_to_string(motd).unwrap(), "hello");
    let by_digest = registry.request(&format!("team/app@{}", image.digest));
    assert_eq!(Place::new().pull(&by_digest).await.unwrap().digest, image.digest);
    let error = place.pull(&registry.request("team/app:2.0")).await.unwrap_err();
    assert!(
        matches!(&error, Error::NotFound(text) if text.contains("MANIFEST_UNKNOWN")),
        "{error}"
    );
}

#[tokio::test]
async fn a_real_registry_wants_a_password() {
    let registry = Distribution::start(true);
    registry.push(&app(), "app:1");
    let anonymous = registry.request("app:1");
    let with = |password: &str| Request {
        credentials: Some(Credentials { username: "user".into(), password: password.into() }),
        ..anonymous.clone()
    };
    let place = Place::new();
    for request in [anonymous.clone(), with("wrong")] {
        let error = place.pull(&request).await.unwrap_err();
        assert!(matches!(&error, Error::Denied(_)), "{error:?}");
    }
    place.pull(&with("secret")).await.unwrap();
    // It is on the machine now, and still not for everybody.
    assert!(matches!(place.pull(&anonymous).await.unwrap_err(), Error::Denied(_)));
}
