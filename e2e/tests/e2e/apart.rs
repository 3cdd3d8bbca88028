//! API server, controllers and agent as processes of their own, over HTTPS, each with its own
//! credentials; and what those credentials do not allow.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use commonage_e2e::{Output, cmn_path, eventually, host, process::Role, run};

struct Apart {
    // Stopped in this order: the agent takes its tasks with it while there is somebody to tell.
    agent: Option<Role>,
    controllers: Option<Role>,
    apiserver: Option<Role>,
    directory: tempfile::TempDir,
}

impl Apart {
    fn start() -> Apart {
        let directory = tempfile::Builder::new().prefix("cmn-apart-").tempdir().unwrap();
        let tokens = directory.path().join("tokens.csv");
        std::fs::write(&tokens, "letmein,alice,1,\"system:masters\"\nnobody,bob,2,\"staff\"\n")
            .unwrap();
        let mut apart = Apart { agent: None, controllers: None, apiserver: None, directory };
        let data = apart.path("server");
        apart.apiserver = Some(apart.role(
            "apiserver",
            &[
                "apiserver",
                "--listen",
                "127.0.0.1:0",
                "--data-dir",
                &data,
                "--agent",
                "node-1",
                "--token-auth-file",
                &tokens.to_string_lossy(),
            ],
        ));
        eventually("the API server", || {
            let ready = apart.kubectl("kubeconfig", &["get", "--raw", "/readyz"]);
            if ready.code == 0 { Ok(()) } else { Err(ready.stderr) }
        });
        // It answers before it has written what the others are started with.
        for name in ["controllers.kubeconfig", "agents/node-1.kubeconfig"] {
            let path = apart.kubeconfig(name);
            eventually(&path, || {
                let written = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
                if written.contains("client-key-data") { Ok(()) } else { Err(written) }
            });
        }
        apart.start_controllers();
        apart.start_agent();
        apart
    }

    fn start_controllers(&mut self) {
        let kubeconfig = self.kubeconfig("controllers.kubeconfig");
        self.controllers =
            Some(self.role("controllers", &["controllers", "--kubeconfig", &kubeconfig]));
    }

    fn start_agent(&mut self) {
        let (kubeconfig, data) = (self.kubeconfig("agents/node-1.kubeconfig"), self.path("agent"));
        let arguments = [
            "agent",
            "--kubeconfig",
            &kubeconfig,
            "--data-dir",
            &data,
            "--node-name",
            "node-1",
            "--kill-tasks",
        ];
        self.agent = Some(self.role("agent", &arguments));
        eventually("the agent to be ready", || {
            let agents = self.kubectl("kubeconfig", &["get", "agent", "node-1", "--no-headers"]);
            if agents.stdout.contains("True") { Ok(()) } else { Err(format!("{agents:?}")) }
        });
    }

    fn role(&self, name: &str, arguments: &[&str]) -> Role {
        Role::start(Path::new(&self.path(&format!("{name}.log"))), arguments).unwrap()
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_string_lossy().into_owned()
    }

    fn kubeconfig(&self, name: &str) -> String {
        PathBuf::from(self.path("server")).join(name).to_string_lossy().into_owned()
    }

    fn kubectl(&self, kubeconfig: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(host::kubectl());
        command.args([
            "--cache-dir",
            &self.path("cache"),
            "--kubeconfig",
            &self.kubeconfig(kubeconfig),
        ]);
        run(command.args(arguments))
    }

    fn cmn(&self, arguments: &[&str]) -> Output {
        let kubeconfig = self.kubeconfig("kubeconfig");
        run(Command::new(cmn_path()).args(["--kubeconfig", &kubeconfig]).args(arguments))
    }

    /// kubectl without the admin's certificate: with a token, or with nothing.
    fn with_token(&self, token: Option<&str>, arguments: &[&str]) -> Output {
        let server = self
            .kubectl(
                "kubeconfig",
                &["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"],
            )
            .ok();
        let mut command = Command::new(host::kubectl());
        command.args(["--cache-dir", &self.path("cache-token"), "--kubeconfig", "/dev/null"]);
        command.args(["--insecure-skip-tls-verify", "--server", &server]);
        // (kubectl asks for a user name on standard input when it has no credentials at all.)
        command.args(token.map_or(["--token", "wrong"], |token| ["--token", token]));
        run(command.args(arguments))
    }
}

const TASK: [&str; 6] = ["--cpu", "0.1", "--memory", "32Mi", "--", "echo"];

#[test]
fn the_roles_work_together_over_https() {
    let apart = Apart::start();
    let mut arguments = vec!["run", "--name", "hello"];
    arguments.extend(TASK);
    arguments.push("from node-1");
    assert!(apart.cmn(&arguments).ok().contains("from node-1"));
    let agent =
        apart.kubectl("kubeconfig", &["get", "task", "hello", "-o", "jsonpath={.spec.agent}"]).ok();
    assert_eq!(agent, "node-1");
}

#[test]
fn each_role_can_die_and_come_back_while_a_task_runs() {
    let mut apart = Apart::start();
    let gate = tempfile::tempdir_in("/var/tmp").unwrap();
    // Tasks see what every user may see.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(gate.path(), open).unwrap();
    let script =
        format!("until [ -e {}/open ]; do sleep 0.05; done; exit 7", gate.path().display());
    apart
        .cmn(&[
            "run", "--name", "long", "--cpu", "0.1", "--memory", "32Mi", "--detach", "--", "sh",
            "-c", &script,
        ])
        .ok();
    let field = |apart: &Apart, path: &str| {
        apart
            .kubectl("kubeconfig", &["get", "task", "long", "-o", &format!("jsonpath={{{path}}}")])
            .stdout
    };
    eventually("the task to run", || {
        let state = field(&apart, ".status.state");
        if state == "Running" { Ok(()) } else { Err(state) }
    });

    apart.controllers.take().unwrap().kill();
    apart.agent.take().unwrap().kill();
    apart.start_controllers();
    apart.start_agent();
    std::fs::write(gate.path().join("open"), "").unwrap();
    eventually("the task's end", || {
        let state = field(&apart, ".status.state");
        if state == "Failed" { Ok(()) } else { Err(state) }
    });
    assert_eq!(field(&apart, ".status.exitCode"), "7");
    assert_eq!(
        field(&apart, ".status.history[*].state").split(' ').filter(|s| *s == "Running").count(),
        1
    );
}

#[test]
fn a_followed_log_goes_on_where_its_agent_left_it() {
    const LAST: usize = 400;
    let mut apart = Apart::start();
    let script = format!("i=0; while [ $i -lt {LAST} ]; do i=$((i+1)); echo $i; sleep 0.02; done");
    let task = ["run", "--detach", "--name", "counter", "--cpu", "0.5", "--memory", "32Mi", "--"];
    apart.cmn(&[&task[..], &["sh", "-c", &script]].concat()).ok();
    let kubeconfig = apart.kubeconfig("kubeconfig");
    let mut follow = Command::new(cmn_path())
        .args(["--kubeconfig", &kubeconfig, "logs", "-f", "counter"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(follow.stdout.take().unwrap()));
    let mut lines = lines.map(|line| line.unwrap());
    let mut seen: Vec<String> = lines.by_ref().take(20).collect();
    apart.agent.take().unwrap().kill();
    apart.start_agent();
    seen.extend(lines);
    let all: Vec<String> = (1..=LAST).map(|number| number.to_string()).collect();
    assert_eq!(seen, all, "each line once, none missing");
    assert!(follow.wait().unwrap().success());
}

#[test]
fn credentials_reach_what_is_theirs_and_nothing_else() {
    let apart = Apart::start();
    // A token of the token file, with the administrators' group, and one without.
    apart.with_token(Some("letmein"), &["get", "tasks"]).ok();
    let refused = apart.with_token(Some("nobody"), &["get", "tasks"]).refused();
    assert!(
        refused.contains(r#"User "bob" cannot list resource "tasks" in API group "commonage.dev""#),
        "{refused}"
    );
    let refused = apart.with_token(None, &["get", "tasks"]).refused();
    assert!(refused.contains("logged in") || refused.contains("Unauthorized"), "{refused}");

    // An agent may report on itself, but not change another's object or read secrets.
    let agent = "agents/node-1.kubeconfig";
    apart.kubectl(agent, &["get", "agent", "node-1"]).ok();
    for forbidden in [
        &["get", "secrets"][..],
        &["create", "configmap", "x"],
        &["delete", "agent", "other"],
        &["create", "namespace", "mine"],
    ] {
        let refused = apart.kubectl(agent, forbidden).refused();
        assert!(
            refused.contains("forbidden") || refused.contains("Forbidden"),
            "{forbidden:?}: {refused}"
        );
    }
}

#[test]
fn a_bad_token_file_is_named_with_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let tokens = directory.path().join("tokens.csv");
    std::fs::write(&tokens, "good,user,1\nbad\n").unwrap();
    let printed = run(Command::new(cmn_path())
        .args(["apiserver", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(directory.path().join("data"))
        .arg("--token-auth-file")
        .arg(&tokens));
    let message = printed.refused();
    assert!(message.contains(&*tokens.to_string_lossy()) && message.contains('2'), "{message}");
}
