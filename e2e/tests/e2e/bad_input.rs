//! Every bad input gets a clear message, and nothing is lost or left over.

use std::process::Command;

use commonage_e2e::{Cluster, cmn_path, eventually, run};

fn task(name: &str, spec: &str) -> String {
    format!("apiVersion: commonage.dev/v1\nkind: Task\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

#[test]
fn a_bad_task_is_refused_with_the_field_and_what_would_be_right() {
    let cluster = Cluster::start();
    let cases = [
        (
            "negative",
            "{resources: {cpu: '-1'}, container: {command: ['true']}}",
            "spec.resources.cpu",
        ),
        (
            "unparsable",
            "{resources: {memory: 12Quux}, container: {command: ['true']}}",
            "spec.resources.memory",
        ),
        ("wordless", "{resources: {cpu: '0.1'}}", "spec.container.command"),
        (
            "badport",
            "{resources: {ports: '31000'}, container: {command: ['true'], ports: [{hostPort: 31005}]}}",
            "hostPort",
        ),
        (
            "unknown",
            "{resources: {cpu: '0.1'}, container: {command: ['true']}, colour: red}",
            "spec.colour",
        ),
        (
            "mistyped",
            "{resources: {cpu: '0.1'}, container: {command: 'true'}}",
            "spec.container.command",
        ),
        ("bound", "{agent: somewhere, container: {command: ['true']}}", "spec.agent"),
    ];
    for (name, spec, field) in cases {
        let message = cluster.apply(&task(name, spec)).refused();
        assert!(message.contains(field), "{name}: no {field:?} in {message}");
    }
    assert_eq!(cluster.kubectl(&["get", "tasks", "-o", "name"]).ok(), "");
}

#[test]
fn a_name_is_given_once() {
    let cluster = Cluster::start();
    let text = task("twin", "{resources: {cpu: '0.1'}, container: {command: ['true']}}");
    let path = cluster.file("twin.yaml", &text);
    cluster.kubectl(&["create", "-f", &path.to_string_lossy()]).ok();
    let message = cluster.kubectl(&["create", "-f", &path.to_string_lossy()]).refused();
    assert!(message.contains(r#"tasks.commonage.dev "twin" already exists"#), "{message}");
    let message = cluster.cmn(&["run", "--name", "twin", "--", "true"]).refused();
    assert!(message.contains("already exists") && message.contains("hint"), "{message}");
}

#[test]
fn a_finished_task_stays_finished() {
    let cluster = Cluster::start();
    cluster.cmn(&["run", "--name", "done", "--cpu", "0.1", "--memory", "32Mi", "--", "true"]).ok();
    let patch = r#"{"status":{"state":"Running"}}"#;
    let message = cluster
        .kubectl(&["patch", "task", "done", "--subresource=status", "--type=merge", "-p", patch])
        .refused();
    assert!(message.contains("Finished") && message.contains("Running"), "{message}");
    assert_eq!(cluster.field("task/done", ".status.state"), "Finished");
}

#[test]
fn a_command_that_does_not_exist_fails_with_its_reason() {
    let cluster = Cluster::start();
    let printed = cluster.cmn(&[
        "run",
        "--name",
        "nosuch",
        "--cpu",
        "0.1",
        "--memory",
        "32Mi",
        "--",
        "/no/such/command",
    ]);
    assert_ne!(printed.code, 0, "{printed:?}");
    assert_eq!(cluster.field("task/nosuch", ".status.reason"), "CommandNotFound");
    let message = cluster.field("task/nosuch", ".status.message");
    assert!(message.contains("/no/such/command"), "{message}");
    eventually("the event", || {
        let described = cluster.kubectl(&["describe", "task", "nosuch"]).ok();
        let events = described.split("Events:").nth(1).unwrap_or_default().to_owned();
        if events.contains("CommandNotFound") { Ok(()) } else { Err(events) }
    });
}

#[test]
fn what_fits_nowhere_waits_and_says_why() {
    let cluster = Cluster::start();
    cluster
        .apply(&task(
            "huge",
            "{resources: {cpu: '0.1', memory: 900Ti}, container: {command: ['true']}}",
        ))
        .ok();
    eventually("the explanation", || {
        let why =
            cluster.field("task/huge", ".status.whyPending.excluded[?(@.by==\"memory\")].agents");
        if why == "1" { Ok(()) } else { Err(why) }
    });
    assert_eq!(cluster.field("task/huge", ".status.state"), "Pending");
    let described = cluster.kubectl(&["describe", "task", "huge"]).ok();
    assert!(described.contains("without enough memory"), "{described}");
    cluster.kubectl(&["delete", "task", "huge", "--timeout=20s"]).ok();
}

#[test]
fn a_misspelled_field_is_an_error_for_apply() {
    let cluster = Cluster::start();
    let text =
        "apiVersion: commonage.dev/v1\nkind: Queue\nmetadata: {name: q}\nspec: {wieght: 2}\n";
    let path = cluster.file("queue.yaml", text);
    let message = cluster.cmn(&["apply", "-f", &path.to_string_lossy()]).refused();
    assert!(message.contains(r#"unknown field "spec.wieght""#), "{message}");
    assert!(message.contains("`kubectl explain queue.spec`"), "{message}");
    let message = cluster.cmn(&["logs", "framework/nosuch"]).refused();
    assert!(message.contains("nosuch") && message.contains("hint"), "{message}");
}

#[test]
fn a_task_of_a_framework_that_does_not_exist_says_so() {
    let cluster = Cluster::start();
    cluster.apply(&task("orphan", "{framework: nosuch, container: {command: ['true']}}")).ok();
    eventually("the reason", || {
        let reason = cluster.field("task/orphan", ".status.reason");
        if reason == "FrameworkNotFound" { Ok(()) } else { Err(reason) }
    });
    let described = cluster.cmn(&["describe", "task", "orphan"]).ok();
    assert!(
        described.contains("Why:         Pending: waits: its framework does not exist"),
        "{described}"
    );
}

#[test]
fn what_is_never_so_is_not_waited_for() {
    let cluster = Cluster::start();
    let message = cluster.cmn(&["wait", "agents", "--all", "--for=state=Ready"]).refused();
    assert!(message.contains("no agent is ever Ready: the kind has no states"), "{message}");
    let state = ["wait", "task/some", "--for=state=Runing"];
    let message = cluster.cmn(&state).refused();
    assert!(message.contains("its states: Pending, Staging, Starting, Running"), "{message}");
    let now = ["wait", "task/some", "--for=state=running", "--timeout=0"];
    assert_eq!(cluster.cmn(&now).code, 124);
}

#[test]
fn what_is_in_the_way_of_an_image_is_said_while_it_is() {
    let cluster = Cluster::start();
    let mut run = Command::new(cmn_path());
    run.arg("--kubeconfig").arg(cluster.kubeconfig()).args(["run", "--name", "away"]);
    // Its own command, which nobody knows yet.
    run.args(["--image", "127.0.0.1:1/nothing:1"]).stderr(std::process::Stdio::piped());
    let mut run = run.spawn().unwrap();
    let mut said = String::new();
    let words = std::io::BufReader::new(run.stderr.take().unwrap());
    for line in std::io::BufRead::lines(words) {
        said += &(line.unwrap() + "\n");
        if said.contains("127.0.0.1:1/nothing:1: ") {
            break;
        }
    }
    cluster.cmn(&["delete", "task", "away"]).ok();
    assert_eq!(run.wait().unwrap().code(), Some(125), "{said}");
    assert!(said.contains("tried again in"), "{said}");
}

#[test]
fn a_context_that_is_not_there_is_told_with_those_that_are() {
    let cluster = Cluster::start();
    let message = cluster.cmn(&["--context", "other", "get", "tasks"]).refused();
    assert!(message.contains("has no context \"other\""), "{message}");
    assert!(message.contains("there are: admin@commonage"), "{message}");
}

#[test]
fn names_are_finished_from_what_the_cluster_has() {
    let cluster = Cluster::start();
    cluster.cmn(&["run", "--name", "finished", "--", "true"]).ok();
    for (typed, found) in [
        (&["get", "tasks", "fin"][..], "finished\n"),
        (&["describe", "task/"], "task/finished\n"),
        (&["get", "que"], "queues\n"),
        (&["exec", "-n", "other", ""], ""),
    ] {
        // A machine that has much to do may take longer than the time for an answer.
        eventually("the words", || {
            let mut complete = Command::new(cmn_path());
            complete.args(["__complete", "--"]).args(typed).env("KUBECONFIG", cluster.kubeconfig());
            let words = run(&mut complete).ok();
            if words == found { Ok(()) } else { Err(words) }
        });
    }
}

#[test]
fn certificates_of_another_cluster_are_told_as_that() {
    let (one, other) = (Cluster::start(), Cluster::start());
    let read = |cluster: &Cluster| std::fs::read_to_string(cluster.kubeconfig()).unwrap();
    let url = |text: &str| {
        let line = text.lines().find(|line| line.trim().starts_with("server: ")).unwrap();
        line.to_owned()
    };
    let (one, other) = (read(&one), read(&other));
    let mixed = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(mixed.path(), one.replace(&url(&one), &url(&other))).unwrap();
    let mut get = Command::new(cmn_path());
    get.args(["get", "tasks"]).env("KUBECONFIG", mixed.path());
    let refused = run(&mut get).refused();
    assert!(refused.contains("certificate is none that the kubeconfig trusts"), "{refused}");
    assert!(refused.contains("hint: the kubeconfig is of another cluster"), "{refused}");
}

#[test]
fn a_broken_kubeconfig_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broken");
    std::fs::write(&path, "clusters: [{").unwrap();
    let message =
        run(Command::new(cmn_path()).args(["get", "tasks"]).env("KUBECONFIG", &path)).refused();
    assert!(message.contains(&*path.to_string_lossy()) && message.contains("hint"), "{message}");
    let missing = directory.path().join("missing");
    let message =
        run(Command::new(cmn_path()).args(["get", "tasks"]).env("KUBECONFIG", &missing)).refused();
    assert!(message.contains(&*missing.to_string_lossy()), "{message}");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let printed = run(Command::new(cmn_path())
        .args(["up", "--listen", &address, "--data-dir"])
        .arg(directory.path().join("data")));
    let message = printed.refused();
    assert!(message.contains(&address) && message.contains("hint"), "{message}");
}

#[test]
fn without_root_the_reason_is_said() {
    let directory = tempfile::tempdir().unwrap();
    // Somebody who may execute the program and write to its data directory, but is not root.
    let copy = directory.path().join("cmn");
    std::fs::copy(cmn_path(), &copy).unwrap();
    std::os::unix::fs::chown(directory.path(), Some(65534), Some(65534)).unwrap();
    let mut command = Command::new(&copy);
    command
        .args(["up", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(directory.path().join("data"));
    std::os::unix::process::CommandExt::uid(&mut command, 65534);
    std::os::unix::process::CommandExt::gid(&mut command, 65534);
    let message = run(&mut command).refused();
    assert!(message.contains("root"), "{message}");
}

#[test]
fn a_body_of_100_mb_is_refused_and_the_server_goes_on() {
    let cluster = Cluster::start();
    let filler = "x".repeat(100 << 20);
    let text = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: huge}}\ndata: {{filler: {filler}}}\n"
    );
    let path = cluster.file("huge.yaml", &text);
    let message =
        cluster.kubectl(&["create", "--validate=false", "-f", &path.to_string_lossy()]).refused();
    let said =
        ["too large", "Too Large", "limit is 3145728"].iter().any(|text| message.contains(text));
    assert!(said, "{}", &message[..message.len().min(1000)]);
    cluster.kubectl(&["get", "tasks"]).ok();
}
