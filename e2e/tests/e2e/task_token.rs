//! A task speaks for itself: with the token in its container, and about itself alone.

use std::path::Path;

use commonage_e2e::{Cluster, eventually, host};

/// A task with a token of its own, and kubectl in it: it finds everything where it looks by itself.
fn start(cluster: &Cluster, name: &str, script: &str) {
    let yaml = format!(
        "apiVersion: commonage.dev/v1\nkind: Task\nmetadata: {{name: {name}}}\nspec: {{resources: {{cpu: 200m, memory: \
         256Mi}}, container: {{apiToken: true, command: [sh, -c, {script:?}], env: [{{name: KUBECTL, value: {:?}}}]}}}}\n",
        host::kubectl()
    );
    cluster.apply(&yaml).ok();
}

#[test]
fn a_task_reads_and_describes_itself_and_nothing_else() {
    let cluster = Cluster::start();
    start(&cluster, "other", "exec sleep 600");
    cluster.wait_for_state("other", &["Running"]);
    let script = "k() { \"$KUBECTL\" \"$@\" 2>&1; }
        k get task self -o 'jsonpath={.metadata.name} is {.spec.framework}{\"\\n\"}'
        for what in 'get task other' 'get tasks' 'get secrets' 'delete task self' 'exec self -- true' 'get agents'; do
            k $what | head -1
        done
        k auth can-i get tasks/self
        k auth can-i create tasks
        T=/var/run/secrets/kubernetes.io/serviceaccount
        call() { python3 - \"$1\" \"$2\" <<'PY'
import os, ssl, sys, urllib.request, urllib.error
at = '/var/run/secrets/kubernetes.io/serviceaccount/'
read = lambda name: open(at + name).read()
url = f'{os.environ[\"COMMONAGE_API\"]}/apis/commonage.dev/v1/namespaces/{read(\"namespace\")}/tasks/{sys.argv[1]}/status'
headers = {'Authorization': 'Bearer ' + read('token'), 'Content-Type': 'application/merge-patch+json'}
request = urllib.request.Request(url, sys.argv[2].encode(), headers, method='PATCH')
try: print(urllib.request.urlopen(request, context=ssl.create_default_context(cafile=at + 'ca.crt')).read().decode())
except urllib.error.HTTPError as error: print(error.read().decode())
PY
        }
        until call self '{\"status\": {\"message\": \"40 % done\", \"ready\": true}}' | grep '\"40 % done\"' >/dev/null; do sleep 0.1; done
        echo said
        call self '{\"status\": {\"state\": \"Finished\"}}' | grep -o 'status.state: a task may[^\"]*'
        call other '{\"status\": {\"message\": \"x\"}}' | grep -o 'cannot patch'
        touch $T/x 2>&1 | grep -o 'Read-only file system'
        cat $T/token > $COMMONAGE_SANDBOX/token
        echo done; exec sleep 600";
    start(&cluster, "self", script);
    let log = eventually("the task to be done", || {
        let log = cluster.cmn(&["logs", "self"]).stdout;
        if log.ends_with("done\n") { Ok(log) } else { Err(log) }
    });
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[0], "self is default", "{log}");
    for line in &lines[1..7] {
        assert!(
            line.contains("orbidden") && line.contains("system:task:default:self"),
            "{line:?}: {log}"
        );
    }
    assert_eq!(lines[7..9], ["yes", "no"], "{log}");
    let rest = [
        "said",
        "status.state: a task may report its status.message and status.ready only",
        "cannot patch",
        "Read-only file system",
        "done",
    ];
    assert_eq!(lines[9..], rest, "{log}");
    assert_eq!(cluster.field("task/self", ".status.message"), "40 % done");
    assert_eq!(cluster.field("task/self", ".status.ready"), "true");

    // Elsewhere it is as good, as long as the task runs.
    let token = cluster.cmn(&["exec", "self", "--", "cat", "/sandbox/token"]).ok();
    let server = "jsonpath={.clusters[0].cluster.server}";
    let server = cluster.kubectl(&["config", "view", "-o", server]).ok();
    let who = || {
        let with = [
            "--kubeconfig=/dev/null",
            "--insecure-skip-tls-verify",
            "--server",
            &server,
            "--token",
            &token,
        ];
        cluster.kubectl(&[&with[..], &["get", "task", "self", "-o", "name"]].concat())
    };
    assert_eq!(who().ok(), "task.commonage.dev/self\n");
    cluster.cmn(&["exec", "self", "--", "sh", "-c", "kill -9 -1"]);
    cluster.wait_for_state("self", &["Failed"]);
    eventually("the token to be worthless", || {
        let answer = who();
        let refused = ["Unauthorized", "logged in"].iter().any(|word| answer.stderr.contains(word));
        if refused { Ok(()) } else { Err(format!("{answer:?}")) }
    });
}

#[test]
fn a_token_is_replaced_while_its_task_runs() {
    let cluster = Cluster::start();
    start(&cluster, "self", "exec sleep 600");
    cluster.wait_for_state("self", &["Running"]);
    let inside = "/var/run/secrets/kubernetes.io/serviceaccount/token";
    let seen = || cluster.cmn(&["exec", "self", "--", "cat", inside]).ok();
    let first = seen();
    // Two thirds of an hour later, as far as the agent can tell.
    let uid = cluster.field("task/self", ".metadata.uid");
    let file = Path::new("/run/commonage/memory").join(uid).join("token/token");
    let past = std::time::SystemTime::now() - std::time::Duration::from_secs(41 * 60);
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(past).unwrap();
    let second = eventually("a new token in the container", || match seen() {
        token if token != first && !token.is_empty() => Ok(token),
        token => Err(format!("still {} bytes of the first", token.len())),
    });
    // Who has begun with the first may end with it; who looks again has the second. They mean the same.
    let kubectl = host::kubectl().display().to_string();
    for token in [&first, &second] {
        let script = format!("{kubectl} --token {token} get task self -o name");
        let got = cluster.cmn(&["exec", "self", "--", "sh", "-c", &script]).ok();
        assert_eq!(got, "task.commonage.dev/self\n");
    }
}
