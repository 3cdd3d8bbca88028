//! Secrets as they lie in a real etcd: what somebody finds who reads its disk.

use std::path::{Path, PathBuf};
use std::process::Command;

use commonage_e2e::{Output, etcd::Etcd, eventually, host, process::Role, run};

/// What is looked for, and how it stands in a Secret's `data`.
const CANARY: &str = "canary-of-the-mine";
const CANARY_ENCODED: &str = "Y2FuYXJ5LW9mLXRoZS1taW5l";

const CONFIGURATION: &str = "\
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - secretbox: {keys: [{name: one, secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=}]}
  - identity: {}
";

struct Server {
    _role: Role,
    directory: PathBuf,
}

impl Server {
    fn start(directory: &Path, etcd: &Etcd, more: &[&str]) -> Server {
        std::fs::create_dir_all(directory).unwrap();
        let path = |name: &str| directory.join(name).to_string_lossy().into_owned();
        let (data, store) = (path("data"), format!("etcd://{}", etcd.address()));
        let mut arguments =
            vec!["apiserver", "--listen", "127.0.0.1:0", "--data-dir", &data, "--store", &store];
        arguments.extend(more);
        let role = Role::start(Path::new(&path("log")), &arguments).unwrap();
        let server = Server { _role: role, directory: directory.to_owned() };
        eventually("the API server", || {
            let ready = server.kubectl(&["get", "--raw", "/readyz"]);
            if ready.code == 0 { Ok(()) } else { Err(ready.stderr) }
        });
        server
    }

    fn kubectl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(host::kubectl());
        command.arg("--cache-dir").arg(self.directory.join("cache"));
        command.arg("--kubeconfig").arg(self.directory.join("data/kubeconfig"));
        run(command.args(arguments))
    }

    fn make_secret(&self) {
        let literal = format!("--from-literal=k={CANARY}");
        self.kubectl(&["create", "secret", "generic", "s", &literal]).ok();
        self.kubectl(&["create", "configmap", "c", "--from-literal=k=plain-as-the-day"]).ok();
    }

    fn secret(&self) -> String {
        self.kubectl(&["get", "secret", "s", "-o", "jsonpath={.data.k}"]).ok()
    }
}

#[test]
fn nobody_reads_a_secret_on_etcds_disk() {
    let directory = tempfile::Builder::new().prefix("cmn-secrets-").tempdir().unwrap();
    let configuration = directory.path().join("encryption.yaml");
    std::fs::write(&configuration, CONFIGURATION).unwrap();
    let flag = ["--encryption-provider-config", &configuration.to_string_lossy()];

    // The same without encryption: the search finds what is there.
    let plain = Etcd::start().unwrap();
    let server = Server::start(&directory.path().join("plain"), &plain, &[]);
    server.make_secret();
    assert!(plain.has_written(CANARY_ENCODED.as_bytes()));
    drop(server);

    let etcd = Etcd::start().unwrap();
    let place = directory.path().join("encrypted");
    let server = Server::start(&place, &etcd, &flag);
    server.make_secret();
    assert!(etcd.has_written(b"plain-as-the-day"), "what is not a Secret is as it was");
    assert!(etcd.has_written(b"k8s:enc:secretbox:v1:one:"));
    for form in [CANARY, CANARY_ENCODED] {
        assert!(!etcd.has_written(form.as_bytes()), "{form}");
    }
    assert_eq!(server.secret(), CANARY_ENCODED);
    drop(server);
    let again = Server::start(&place, &etcd, &flag);
    assert_eq!(again.secret(), CANARY_ENCODED);
}
