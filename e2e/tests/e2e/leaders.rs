//! Two processes of controllers: one decides, and when it is gone, or only slept, the other does.

use std::{path::Path, process::Command};

use commonage_e2e::{Output, eventually, host, process::Role, run};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// That a test can wait for.
const SHORT: [&str; 2] = ["4s", "3s"];
/// That no test can wait for.
const LONG: [&str; 2] = ["600s", "500s"];

/// An API server, and as many controllers as a test wants.
struct Plane {
    apiserver: Option<Role>,
    directory: tempfile::TempDir,
}

impl Plane {
    fn start() -> Plane {
        let directory = tempfile::Builder::new().prefix("cmn-leaders-").tempdir().unwrap();
        let mut plane = Plane { apiserver: None, directory };
        let (data, audit) = (plane.path("server"), plane.path("audit"));
        plane.apiserver = Some(plane.role(
            "apiserver",
            &[
                "apiserver",
                "--listen",
                "127.0.0.1:0",
                "--data-dir",
                &data,
                "--audit-log-path",
                &audit,
            ],
        ));
        eventually("the API server", || {
            let ready = plane.kubectl(&["get", "--raw", "/readyz"]);
            if ready.code == 0 { Ok(()) } else { Err(ready.stderr) }
        });
        plane
    }

    /// Whose Lease has so long to run, and is given up by themselves after so long without a renewal.
    fn controllers(&self, name: &str, [lease, renew]: [&str; 2]) -> Role {
        let kubeconfig = format!("{}/controllers.kubeconfig", self.path("server"));
        self.role(
            name,
            &[
                "controllers",
                "--kubeconfig",
                &kubeconfig,
                "--leader-elect-lease-duration",
                lease,
                "--leader-elect-renew-deadline",
                renew,
                "--leader-elect-retry-period",
                "0.5s",
                "-v",
            ],
        )
    }

    fn role(&self, name: &str, arguments: &[&str]) -> Role {
        Role::start(Path::new(&self.path(&format!("{name}.log"))), arguments).unwrap()
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_string_lossy().into_owned()
    }

    fn kubectl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(host::kubectl());
        command.args(["--cache-dir", &self.path("cache")]);
        command.args(["--kubeconfig", &format!("{}/kubeconfig", self.path("server"))]);
        run(command.args(arguments))
    }

    /// A field of the Lease's spec.
    fn lease(&self, field: &str) -> String {
        let path = format!("jsonpath={{.spec.{field}}}");
        let lease =
            ["get", "lease", "-n", "commonage-system", "commonage-controllers", "-o", &path];
        self.kubectl(&lease).stdout
    }

    fn leads(&self, role: &Role) -> bool {
        self.lease("holderIdentity").contains(&format!(".{}.", role.pid()))
    }

    /// What a namespace comes with is guarded by the controllers: their finalizer is their decision.
    fn decides(&self, namespace: &str) {
        self.kubectl(&["create", "namespace", namespace]).ok();
        let guards = "jsonpath={.metadata.finalizers[0]}";
        eventually("a leader to decide", || {
            let found =
                self.kubectl(&["get", "framework", "default", "-n", namespace, "-o", guards]);
            if found.stdout.is_empty() { Err(found.stderr) } else { Ok(()) }
        });
    }

    fn await_lead(&self, role: &Role) {
        eventually("a leader", || {
            if self.leads(role) { Ok(()) } else { Err(self.lease("holderIdentity")) }
        });
    }
}

fn signal(role: &Role, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(role.pid()).unwrap()), signal).unwrap();
}

#[test]
fn one_decides_and_another_takes_over() {
    let plane = Plane::start();
    let mut first = plane.controllers("first", LONG);
    plane.await_lead(&first);
    let second = plane.controllers("second", LONG);
    plane.decides("one");
    assert!(plane.leads(&first));
    assert_eq!(plane.lease("leaseTransitions"), "0");

    // Stopped: it lets go.
    assert_eq!(first.stop(), 0);
    plane.decides("two");
    assert!(plane.leads(&second));
    assert_eq!(plane.lease("leaseTransitions"), "1");

    // Killed: its lease has minutes to run, but on the same machine it is seen to be dead.
    let third = plane.controllers("third", LONG);
    second.kill();
    plane.decides("three");
    assert!(plane.leads(&third));
}

#[test]
fn a_leader_that_slept_writes_nothing_and_ends() {
    let plane = Plane::start();
    let mut first = plane.controllers("first", SHORT);
    plane.await_lead(&first);
    let second = plane.controllers("second", SHORT);
    plane.decides("before");
    signal(&first, Signal::SIGSTOP);
    // What it will find to do when it wakes; by then the other one has done it.
    plane.decides("asleep");
    plane.await_lead(&second);
    plane.kubectl(&["create", "namespace", "later"]).ok();
    let versions = |kind: &str| {
        let rows = "jsonpath={range .items[*]}{.metadata.uid} {.metadata.namespace}/{.metadata.name}{\"\\n\"}{end}";
        plane.kubectl(&["get", kind, "-A", "-o", rows]).ok()
    };
    eventually("the second to have decided everything", || {
        let all = versions("frameworks");
        if all.contains("later/default") { Ok(()) } else { Err(all) }
    });
    let before = versions("frameworks");
    signal(&first, Signal::SIGCONT);
    let code = eventually("the first to end by itself", || match first.ended() {
        Some(code) => Ok(code),
        None => Err(first.printed()),
    });
    assert_ne!(code, 0, "{}", first.printed());
    assert!(first.printed().contains("another process leads"), "{}", first.printed());
    assert_eq!(versions("frameworks"), before);
    assert!(plane.leads(&second));
    plane.decides("after");
}
