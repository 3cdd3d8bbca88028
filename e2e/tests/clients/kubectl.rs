//! kubectl, the one on the path (1.32 or newer) and the oldest, Debian's 1.20: command lines and all that
//! they print. Ages and versions of objects are written as `AGE` and `VERSION`, the rest is exact.

use std::{
    io::{BufRead, BufReader},
    process::Command,
};

use commonage_e2e::{Cluster, host, repository, run};

use crate::{Running, cluster_with_parts, text};

pub(crate) const BOLT: &str = "
apiVersion: workshop.example/v1
kind: Part
metadata: {name: bolt, labels: {size: m8}}
spec: {color: red, note: long, holes: [{name: a, depth: 3}]}
";
pub(crate) const NUT: &str = "
apiVersion: workshop.example/v1
kind: Part
metadata: {name: nut, labels: {size: m6}}
spec: {color: blue, replicas: 5}
";

/// One kubectl in one namespace of a cluster.
pub(crate) struct Kubectl<'a> {
    cluster: &'a Cluster,
    path: std::path::PathBuf,
}

impl Kubectl<'_> {
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(&self.path);
        command
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .env("HOME", self.cluster.data_dir())
            .args(["--namespace", "shop"])
            .args(words(line));
        command
    }

    /// What a command line prints, first its errors, with what differs from run to run replaced.
    pub(crate) fn prints(&self, line: &str) -> String {
        let output = run(&mut self.command(line));
        steady(&(output.stderr + &output.stdout))
    }

    #[track_caller]
    pub(crate) fn expect(&self, line: &str, printed: &str) {
        assert_eq!(self.prints(line), printed, "kubectl {line}");
    }

    /// Prints lines of which these are some.
    #[track_caller]
    pub(crate) fn shows(&self, line: &str, parts: &[&str]) {
        let printed = self.prints(line);
        for part in parts {
            assert!(printed.contains(part), "kubectl {line}: no {part:?} in\n{printed}");
        }
    }

    pub(crate) fn file(&self, name: &str, content: &str) -> String {
        text(&self.cluster.file(name, content)).to_owned()
    }
}

/// The words of a command line; quotes hold words together.
fn words(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, part) in line.split('\'').enumerate() {
        if at % 2 == 1 {
            found.push(part.to_owned());
        } else {
            found.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    found
}

/// Replaces what is not the same twice: ages at the ends of lines, uids, versions and times.
fn steady(printed: &str) -> String {
    let mut lines = String::new();
    for line in printed.lines() {
        let (head, last) = line.rsplit_once(' ').unwrap_or(("", line));
        let age = last.strip_suffix('s').is_some_and(|n| n.parse::<u32>().is_ok());
        let replaced = ["resourceVersion: ", "uid: ", "creationTimestamp: "]
            .iter()
            .find_map(|field| line.find(field).map(|at| &line[..at + field.len()]));
        match replaced {
            Some(head) => lines.push_str(&format!("{head}VERSION")),
            None if age => lines.push_str(&format!("{head} AGE")),
            None => lines.push_str(line),
        }
        lines.push('\n');
    }
    lines
}

pub(crate) fn with<'a>(cluster: &'a Cluster, path: std::path::PathBuf) -> Kubectl<'a> {
    let kubectl = Kubectl { cluster, path };
    kubectl.expect("create namespace shop", "namespace/shop created\n");
    kubectl
}

pub(crate) fn minor(path: &std::path::Path) -> u32 {
    let printed = run(Command::new(path).args(["version", "--client", "-o", "json"])).ok();
    let version: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let version = version["clientVersion"]["gitVersion"].as_str().unwrap().to_owned();
    version.split('.').nth(1).unwrap().parse().unwrap()
}

#[test]
fn todays_kubectl_reads_writes_and_waits() {
    let path = host::kubectl();
    let minor = minor(&path);
    if minor < 32 {
        eprintln!("only kubectl 1.{minor} is installed: nothing about newer ones is shown");
        return;
    }
    let cluster = cluster_with_parts();
    let kubectl = with(&cluster, path);
    writes(&kubectl);
    reads(&kubectl);
    shows_objects_without_their_managers(&kubectl);
    changes(&kubectl);
    applies_on_the_server(&kubectl);
    waits_and_watches(&kubectl);
    knows_the_server(&kubectl);
    makes_what_is_built_in(&kubectl);
    deletes(&kubectl);
}

#[test]
fn debians_kubectl_reads_and_writes() {
    let cluster = cluster_with_parts();
    let kubectl = with(&cluster, repository().join("target/tools/bin/kubectl-1.20"));
    writes(&kubectl);
    reads(&kubectl);
    changes(&kubectl);
    kubectl.shows("version --short", &["Server Version: v1."]);
    kubectl.shows("explain part.spec.color", &["FIELD:    color <string>", "painted in"]);
    kubectl.expect("delete parts --all", "part.workshop.example \"bolt\" deleted\n");
    kubectl.expect("get parts", "No resources found in shop namespace.\n");
    kubectl.shows("delete namespace shop --timeout=50s", &["namespace \"shop\" deleted\n"]);
}

fn writes(kubectl: &Kubectl) {
    let bolt = kubectl.file("bolt.yaml", BOLT);
    kubectl.expect(&format!("create -f {bolt}"), "part.workshop.example/bolt created\n");
    let printed = kubectl.prints(&format!("create -f {bolt}"));
    let exists = "parts.workshop.example \"bolt\" already exists\n";
    assert!(printed.ends_with(exists), "{printed}");
    let nut = kubectl.file("nut.yaml", NUT);
    kubectl.expect(
        &format!("apply -f {nut} --dry-run=server"),
        "part.workshop.example/nut created (server dry run)\n",
    );
    kubectl.expect(&format!("apply -f {nut}"), "part.workshop.example/nut created\n");
    kubectl.expect(&format!("apply -f {nut}"), "part.workshop.example/nut unchanged\n");
    let more = kubectl.file("nut.yaml", &NUT.replace('5', "6"));
    let difference = kubectl.prints(&format!("diff -f {more}"));
    assert!(difference.contains("-  replicas: 5\n+  replicas: 6\n"), "{difference}");
    kubectl.expect(&format!("apply -f {more}"), "part.workshop.example/nut configured\n");
    let pink = kubectl.file("pink.yaml", &NUT.replace("blue", "pink").replace("nut", "pink"));
    kubectl.shows(
        &format!("create -f {pink}"),
        &[r#"The Part "pink" is invalid: spec.color: Unsupported value: "pink": supported values: "red", "green", "blue""#],
    );
}

fn reads(kubectl: &Kubectl) {
    kubectl.expect(
        "get parts",
        "NAME   COLOR   REPLICAS   AGE\nbolt   red     1          AGE\nnut    blue    6          AGE\n",
    );
    kubectl.expect(
        "get pt -o wide",
        "NAME   COLOR   REPLICAS   NOTE   AGE\n\
         bolt   red     1          long   AGE\n\
         nut    blue    6                 AGE\n",
    );
    kubectl.expect(
        "get parts --all-namespaces --no-headers",
        "shop   bolt   red    1     AGE\nshop   nut    blue   6     AGE\n",
    );
    kubectl.expect("get parts -l size=m8 -o name", "part.workshop.example/bolt\n");
    kubectl.expect(
        "get parts --field-selector spec.color=blue -o name",
        "part.workshop.example/nut\n",
    );
    kubectl.expect(
        "get parts --sort-by {.spec.color}",
        "NAME   COLOR   REPLICAS   AGE\nnut    blue    6          AGE\nbolt   red     1          AGE\n",
    );
    kubectl.expect("get part bolt -o jsonpath={.spec.holes[0].depth}", "3\n");
    let json = run(&mut kubectl.command("get parts -o json")).ok();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["kind"], "List");
    assert_eq!(json["items"][1]["spec"]["replicas"], 6);
    kubectl.expect(
        "get part none",
        "Error from server (NotFound): parts.workshop.example \"none\" not found\n",
    );
    kubectl.shows(
        "describe part bolt",
        &[
            "Name:         bolt\nNamespace:    shop\nLabels:       size=m8\n",
            "  Replicas:  1\nEvents:      <none>\n",
        ],
    );
}

/// Before 1.21 kubectl did not leave `managedFields` out.
fn shows_objects_without_their_managers(kubectl: &Kubectl) {
    kubectl.expect(
        "get part bolt -o yaml",
        "apiVersion: workshop.example/v1\nkind: Part\nmetadata:\n  creationTimestamp: VERSION\n  \
         generation: 1\n  labels:\n    size: m8\n  name: bolt\n  namespace: shop\n  \
         resourceVersion: VERSION\n  uid: VERSION\nspec:\n  color: red\n  holes:\n  - depth: 3\n    \
         name: a\n  note: long\n  replicas: 1\n",
    );
}

fn changes(kubectl: &Kubectl) {
    let patched = "part.workshop.example/bolt patched\n";
    kubectl.expect(r#"patch part bolt --type=merge -p '{"spec":{"note":"one"}}'"#, patched);
    kubectl.expect(
        r#"patch part bolt --type=json -p '[{"op":"add","path":"/spec/holes/-","value":{"name":"b"}}]'"#,
        patched,
    );
    kubectl.shows(
        r#"patch part bolt --type=strategic -p '{"spec":{"note":"two"}}'"#,
        &["accepted media types include: application/json-patch+json, application/merge-patch+json"],
    );
    kubectl.expect(
        r#"patch part bolt --type=merge -p '{"spec":{"note":"one"}}'"#,
        "part.workshop.example/bolt patched (no change)\n",
    );
    kubectl.expect("label part bolt thread=coarse", "part.workshop.example/bolt labeled\n");
    kubectl.expect("annotate part bolt made=here", "part.workshop.example/bolt annotated\n");
    kubectl.expect("get part bolt -o jsonpath={.metadata.labels.thread}{.metadata.annotations.made}{.spec.holes[*].name}", "coarseherea b\n");
    kubectl.expect("scale part bolt --replicas=3", "part.workshop.example/bolt scaled\n");
    kubectl.expect("get part bolt -o jsonpath={.spec.replicas}", "3\n");
    let bolt = kubectl.file("bolt.yaml", &BOLT.replace("long", "new"));
    kubectl.expect(&format!("replace -f {bolt}"), "part.workshop.example/bolt replaced\n");

    let edit = run(kubectl.command("edit part bolt").env("KUBE_EDITOR", "sed -i s/red/green/"));
    assert_eq!(edit.ok(), "part.workshop.example/bolt edited\n");
    kubectl.expect("get part bolt -o jsonpath={.spec.color}", "green\n");
    kubectl.expect("delete part nut", "part.workshop.example \"nut\" deleted\n");
}

fn applies_on_the_server(kubectl: &Kubectl) {
    let nut = kubectl.file("nut.yaml", NUT);
    kubectl.expect(
        &format!("apply --server-side -f {nut}"),
        "part.workshop.example/nut serverside-applied\n",
    );
    let green = kubectl.file("green.yaml", &NUT.replace("blue", "green"));
    kubectl.shows(
        &format!("apply --server-side --field-manager=other -f {green}"),
        &["Apply failed with 1 conflict: conflict with \"kubectl\": .spec.color"],
    );
    kubectl.expect(
        &format!("apply --server-side --field-manager=other --force-conflicts -f {green}"),
        "part.workshop.example/nut serverside-applied\n",
    );
    kubectl.expect("get part nut -o jsonpath={.spec.color}", "green\n");
    kubectl.expect("delete part nut", "part.workshop.example \"nut\" deleted\n");
}

fn waits_and_watches(kubectl: &Kubectl) {
    let watching = |line: &str| {
        let mut child = Running::start(&mut kubectl.command(line));
        let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        (child, move || lines.next().unwrap().unwrap())
    };
    let (_watch, mut next) = watching(r#"get part bolt -w -o jsonpath={.spec.note}{"\n"}"#);
    assert_eq!(next(), "new");
    let (_only, mut only_next) = watching("get part bolt --watch-only -o name");
    let ready = r#"{"status":{"conditions":[{"type":"Ready","status":"True"}]}}"#;
    kubectl.expect(
        &format!("patch part bolt --subresource=status --type=merge -p '{ready}'"),
        "part.workshop.example/bolt patched\n",
    );
    let met = "part.workshop.example/bolt condition met\n";
    kubectl.expect("wait part bolt --for=condition=Ready --timeout=30s", met);
    kubectl.expect("wait part bolt --for=jsonpath={.spec.color}=green --timeout=30s", met);
    assert_eq!(next(), "new", "the change of the status is seen");
    kubectl.expect(
        r#"patch part bolt --type=merge -p '{"spec":{"note":"seen"}}'"#,
        "part.workshop.example/bolt patched\n",
    );
    assert_eq!(next(), "seen");
    assert_eq!(only_next(), "part.workshop.example/bolt");
    let mut waiting =
        Running::start(&mut kubectl.command("wait part bolt --for=delete --timeout=30s"));
    kubectl.expect(
        "delete part bolt --cascade=foreground",
        "part.workshop.example \"bolt\" deleted\n",
    );
    assert!(waiting.0.wait().unwrap().success());
}

fn knows_the_server(kubectl: &Kubectl) {
    kubectl.shows("version", &["Server Version: v1."]);
    kubectl.shows("api-versions", &["commonage.dev/v1\n", "workshop.example/v1\n", "\nv1\n"]);
    kubectl.expect(
        "api-resources --api-group=workshop.example",
        "NAME    SHORTNAMES   APIVERSION            NAMESPACED   KIND\n\
         parts   pt           workshop.example/v1   true         Part\n",
    );
    kubectl.shows("get crd parts.workshop.example", &["NAME                     CREATED AT\n"]);
    kubectl.shows(
        "explain part.spec.holes",
        &[
            "KIND:       Part\n",
            "FIELD: holes <[]Object>\n",
            "Where to drill.\n",
            "  name\t<string> -required-\n",
        ],
    );
    kubectl.expect("auth can-i create parts", "yes\n");
    kubectl.shows("auth whoami", &["ATTRIBUTE", "system:masters"]);
    kubectl.expect("auth can-i delete parts --as=nobody", "no\n");
}

fn makes_what_is_built_in(kubectl: &Kubectl) {
    for (line, printed) in [
        ("create configmap settings --from-literal=a=1", "configmap/settings created\n"),
        ("create secret generic key --from-literal=a=1", "secret/key created\n"),
        ("create serviceaccount robot", "serviceaccount/robot created\n"),
        (
            "create role reader --verb=get,list --resource=parts.workshop.example",
            "role.rbac.authorization.k8s.io/reader created\n",
        ),
        (
            "create rolebinding robot --role=reader --serviceaccount=shop:robot",
            "rolebinding.rbac.authorization.k8s.io/robot created\n",
        ),
        ("auth can-i list parts --as=system:serviceaccount:shop:robot", "yes\n"),
        ("auth can-i delete parts --as=system:serviceaccount:shop:robot", "no\n"),
        ("label configmap settings a=b", "configmap/settings labeled\n"),
        ("patch configmap settings -p '{\"data\":{\"b\":\"2\"}}'", "configmap/settings patched\n"),
        ("get configmap settings -o jsonpath={.data}", "{\"a\":\"1\",\"b\":\"2\"}\n"),
        ("get secret key -o jsonpath={.data.a}", "MQ==\n"),
    ] {
        kubectl.expect(line, printed);
    }
    let token = run(&mut kubectl.command("create token robot")).ok();
    assert_eq!(token.split('.').count(), 3, "{token}");
    let mut as_robot = Command::new(&kubectl.path);
    as_robot
        .env("KUBECONFIG", kubectl.cluster.file("empty", ""))
        .args(["--server", &server(kubectl), "--insecure-skip-tls-verify", "--token", token.trim()])
        .args(["--namespace", "shop", "get", "parts"]);
    assert_eq!(run(&mut as_robot).stderr, "No resources found in shop namespace.\n");
}

fn server(kubectl: &Kubectl) -> String {
    run(&mut kubectl.command("config view -o jsonpath={.clusters[0].cluster.server}")).ok()
}

fn deletes(kubectl: &Kubectl) {
    let both = kubectl.file("both.yaml", &format!("{BOLT}---{NUT}"));
    kubectl.expect(
        &format!("create -f {both}"),
        "part.workshop.example/bolt created\npart.workshop.example/nut created\n",
    );
    kubectl.expect(
        "delete parts --all",
        "part.workshop.example \"bolt\" deleted\npart.workshop.example \"nut\" deleted\n",
    );
    kubectl.expect("get parts", "No resources found in shop namespace.\n");
    // Everything in it goes with it.
    kubectl.shows("delete namespace shop --timeout=50s", &["namespace \"shop\" deleted\n"]);
    kubectl.expect(
        "get namespace shop",
        "Error from server (NotFound): namespaces \"shop\" not found\n",
    );
    kubectl.expect(
        "get configmap settings",
        "Error from server (NotFound): namespaces \"shop\" not found\n",
    );
}
