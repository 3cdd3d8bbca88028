//! The rarer command lines of today's kubectl: what each prints for a kind of a user, for Kubernetes' own kinds
//! and where the server has nothing of the sort.

use commonage_e2e::{host, run};

use crate::cluster_with_parts;
use crate::kubectl::{BOLT, Kubectl, NUT, minor, with};

#[test]
fn todays_kubectl_does_the_rarer_things_too() {
    let path = host::kubectl();
    if minor(&path) < 32 {
        eprintln!("only an older kubectl is installed: nothing about newer ones is shown");
        return;
    }
    let cluster = cluster_with_parts();
    let kubectl = with(&cluster, path);
    remembers_what_was_applied(&kubectl);
    prunes_what_is_applied_no_more(&kubectl);
    says_why_not(&kubectl);
    scales_and_labels(&kubectl);
    holds_and_lets_go(&kubectl);
    prints_in_all_forms(&kubectl);
    describes_what_is_built_in(&kubectl);
    has_nothing_of_the_sort(&kubectl);
}

fn remembers_what_was_applied(kubectl: &Kubectl) {
    let bolt = kubectl.file("bolt.yaml", BOLT);
    let nut = kubectl.file("nut.yaml", &NUT.replace("m6", "m8"));
    kubectl.expect(
        &format!("apply -f {bolt} -f {nut}"),
        "part.workshop.example/bolt created\npart.workshop.example/nut created\n",
    );
    kubectl.expect(
        &format!("apply set-last-applied -f {bolt}"),
        "part.workshop.example/bolt configured\n",
    );
    let edited = run(kubectl
        .command("apply edit-last-applied part bolt")
        .env("KUBE_EDITOR", "sed -i s/long/short/"));
    assert_eq!(edited.ok(), "part.workshop.example/bolt edited\n");
    kubectl.expect(
        "apply view-last-applied part bolt",
        "apiVersion: workshop.example/v1\nkind: Part\nmetadata:\n  labels:\n    size: m8\n  name: bolt\n  \
         namespace: shop\nspec:\n  color: red\n  holes:\n  - depth: 3\n    name: a\n  note: short\n",
    );
    kubectl.shows(
        &format!("apply view-last-applied -f {nut} -o json"),
        &["\"name\": \"nut\",\n    \"namespace\": \"shop\"\n"],
    );
    kubectl.expect(
        &format!("replace --force -f {nut}"),
        "part.workshop.example \"nut\" deleted\npart.workshop.example/nut replaced\n",
    );
}

fn prunes_what_is_applied_no_more(kubectl: &Kubectl) {
    let bolt = kubectl.file("bolt.yaml", BOLT);
    let nut = kubectl.file("nut.yaml", &NUT.replace("m6", "m8"));
    kubectl.expect(&format!("apply -f {bolt} -f {nut}"), {
        // The nut was replaced, by somebody who remembers nothing.
        "Warning: resource parts/nut is missing the kubectl.kubernetes.io/last-applied-configuration annotation \
         which is required by kubectl apply. kubectl apply should only be used on resources created declaratively \
         by either kubectl create --save-config or kubectl apply. The missing annotation will be patched \
         automatically.\npart.workshop.example/bolt configured\npart.workshop.example/nut configured\n"
    });
    kubectl.expect(
        &format!("apply -f {bolt} --prune -l size=m8 --prune-allowlist=workshop.example/v1/Part"),
        "part.workshop.example/bolt unchanged\npart.workshop.example/nut pruned\n",
    );
    let set = |line: &str| {
        let printed = run(kubectl.command(line).env("KUBECTL_APPLYSET", "true"));
        printed.stderr.clone() + &printed.stdout
    };
    assert_eq!(
        set(&format!("apply -f {bolt} -f {nut} --prune --applyset=parts")),
        "part.workshop.example/bolt configured\npart.workshop.example/nut created\n"
    );
    assert_eq!(
        set(&format!("apply -f {bolt} --prune --applyset=parts")),
        "part.workshop.example/bolt unchanged\npart.workshop.example/nut pruned\n"
    );
    kubectl
        .expect(&format!("create -f {nut} --save-config"), "part.workshop.example/nut created\n");
}

fn says_why_not(kubectl: &Kubectl) {
    for (line, printed) in [
        (
            r#"patch part nut --type=merge -p '{"spec":{"color":"pink"}}'"#,
            "The Part \"nut\" is invalid: spec.color: Unsupported value: \"pink\": supported values: \"red\", \
             \"green\", \"blue\"\n",
        ),
        (
            r#"patch part nut --type=merge -p '{"spec":{"size":1}}'"#,
            "Warning: unknown field \"spec.size\"\npart.workshop.example/nut patched (no change)\n",
        ),
        (
            r#"patch part nut --type=merge -p '{"spec":{"replicas":"x"}}'"#,
            "The Part \"nut\" is invalid: \n* spec.replicas: Invalid value: \"string\": spec.replicas in body must be \
             of type integer: \"string\"\n* .spec.replicas: Invalid value: 0: .spec.replicas accessor error: x is of the \
             type string, expected int64\n",
        ),
        (
            r#"patch part nut --type=json -p '[{"op":"test","path":"/spec/color","value":"red"}]'"#,
            "The request is invalid: the server rejected our request due to an error in our request\n",
        ),
        ("delete namespace default", {
            "Warning: deleting cluster-scoped resources, not scoped to the provided namespace\nError from server (Forbidden): namespaces \"default\" is forbidden: this namespace may not be deleted\n"
        }),
        ("create namespace shop", {
            "Error from server (AlreadyExists): namespaces \"shop\" already exists\n"
        }),
        (
            "create token nobody",
            "error: failed to create token: serviceaccounts \"nobody\" not found\n",
        ),
        ("get parts --field-selector spec.note=x", {
            "Error from server (BadRequest): Unable to find \"workshop.example/v1, Resource=parts\" that match label \
             selector \"\", field selector \"spec.note=x\": field label not supported: spec.note\n"
        }),
    ] {
        kubectl.expect(line, printed);
    }
    let typo = kubectl.file("typo.yaml", &BOLT.replace("color", "colour"));
    kubectl.shows(
        &format!("create -f {typo} --dry-run=server"),
        &["Part in version \"v1\" cannot be handled as a Part: strict decoding error: unknown field \"spec.colour\"\n"],
    );
    kubectl.shows(
        &format!("apply --server-side -f {typo}"),
        &["Error from server: failed to create typed patch object (shop/bolt; workshop.example/v1, Kind=Part): \
           .spec.colour: field not declared in schema\n"],
    );
}

fn scales_and_labels(kubectl: &Kubectl) {
    for (line, printed) in [
        (
            "scale part nut --replicas=2 --current-replicas=9",
            "error: Expected replicas to be 9, was 5\n",
        ),
        ("scale part nut --replicas=2 --current-replicas=5", "part.workshop.example/nut scaled\n"),
        (
            "get part nut --subresource=scale -o jsonpath={.kind}{.spec.replicas}{.status.replicas}",
            "Scale20\n",
        ),
        (
            "label parts --all shelf=1",
            "part.workshop.example/bolt labeled\npart.workshop.example/nut labeled\n",
        ),
        (
            "label part nut shelf=2",
            "error: 'shelf' already has a value (1), and --overwrite is false\n",
        ),
        ("label part nut shelf-", "part.workshop.example/nut unlabeled\n"),
        ("annotate part nut made=here", "part.workshop.example/nut annotated\n"),
        ("annotate part nut made-", "part.workshop.example/nut annotated\n"),
    ] {
        kubectl.expect(line, printed);
    }
}

fn holds_and_lets_go(kubectl: &Kubectl) {
    for (line, printed) in [
        (
            "delete part nut --cascade=orphan --dry-run=server",
            "part.workshop.example \"nut\" deleted (server dry run)\n",
        ),
        (
            r#"patch part nut --type=merge -p '{"metadata":{"finalizers":["nodomain"]}}'"#,
            "Warning: metadata.finalizers: \"nodomain\": prefer a domain-qualified finalizer name to avoid \
             accidental conflicts with other finalizer writers\npart.workshop.example/nut patched\n",
        ),
        (
            "delete part nut --timeout=1s",
            "error: timed out waiting for the condition on parts/nut\npart.workshop.example \"nut\" deleted\n",
        ),
        (
            r#"patch part nut --type=json -p '[{"op":"remove","path":"/metadata/finalizers"}]'"#,
            "part.workshop.example/nut patched\n",
        ),
        (
            "get part nut",
            "Error from server (NotFound): parts.workshop.example \"nut\" not found\n",
        ),
        ("delete part nut --ignore-not-found", ""),
        ("wait part nut --for=delete --timeout=30s", ""),
        (
            "wait part nut --for=condition=Ready --timeout=1s",
            "Error from server (NotFound): parts.workshop.example \"nut\" not found\n",
        ),
    ] {
        kubectl.expect(line, printed);
    }
}

fn prints_in_all_forms(kubectl: &Kubectl) {
    let columns = kubectl.file("columns", "NAME COLOR\n.metadata.name .spec.color\n");
    for (line, printed) in [
        ("get part bolt -o go-template={{.spec.color}}", "red\n"),
        ("get parts -o jsonpath-as-json={.items[*].spec.color}", "[\n    \"red\"\n]\n"),
        (&format!("get part bolt -o custom-columns-file={columns}"), "NAME   COLOR\nbolt   red\n"),
        ("get parts -o custom-columns=N:.metadata.name,X:.spec.none", "N      X\nbolt   <none>\n"),
        ("get parts -l 'size in (m8,m9),color!=x' -o name", "part.workshop.example/bolt\n"),
        ("get parts -L shelf --no-headers", "bolt   red   1     AGE   1\n"),
        ("get parts --chunk-size=1 -L size --no-headers -o name", "part.workshop.example/bolt\n"),
        ("get parts none --ignore-not-found", ""),
        ("get nothing", "error: the server doesn't have a resource type \"nothing\"\n"),
        ("events --for part/bolt", "No events found in shop namespace.\n"),
        (
            "explain part.spec.none",
            "error: field \"none\" does not exist\nGROUP:      workshop.example\nKIND:       Part\nVERSION:    v1\n\n",
        ),
    ] {
        let printed_by_kubectl = kubectl.prints(line);
        // An age in the middle of a line.
        let shown: String = printed_by_kubectl
            .split(' ')
            .map(|word| match word.strip_suffix('s').is_some_and(|n| n.parse::<u32>().is_ok()) {
                true => "AGE",
                false => word,
            })
            .collect::<Vec<_>>()
            .join(" ");
        assert_eq!(without_padding(&shown), without_padding(printed), "kubectl {line}");
    }
    let kustomization = "resources: [bolt.yaml]\nnamePrefix: big-\n";
    kubectl.file("kustomization.yaml", kustomization);
    let bolt = kubectl.file("bolt.yaml", BOLT);
    let dir = bolt.trim_end_matches("/bolt.yaml");
    kubectl.expect(&format!("apply -k {dir}"), "part.workshop.example/big-bolt created\n");
    kubectl.expect(&format!("delete -k {dir}"), "part.workshop.example \"big-bolt\" deleted\n");
}

/// Columns are as wide as what is in them, ages too.
fn without_padding(printed: &str) -> String {
    printed.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

fn describes_what_is_built_in(kubectl: &Kubectl) {
    for line in [
        "create configmap settings --from-literal=a=b",
        "create serviceaccount robot",
        "create secret generic key --from-literal=p=q --type=workshop.example/key",
        "create role reader --verb=get --resource=parts.workshop.example --resource-name=bolt",
        "create rolebinding reading --role=reader --user=ann --group=all --serviceaccount=shop:robot",
    ] {
        kubectl.shows(line, &[" created\n"]);
    }
    kubectl.shows("describe configmap settings", &["Data\n====\na:\n----\nb\n"]);
    kubectl.shows("describe secret key", &["Type:  workshop.example/key\n", "p:  1 bytes\n"]);
    kubectl.shows("describe serviceaccount robot", &["Mountable secrets:   <none>\n"]);
    kubectl.shows(
        "describe role reader",
        &["  parts.workshop.example  []                 [bolt]          [get]\n"],
    );
    kubectl.shows(
        "describe rolebinding reading",
        &["  Kind:  Role\n  Name:  reader\n", "  ServiceAccount  robot  shop\n"],
    );
    kubectl.shows(
        "get rolebindings -o wide",
        &["reading   Role/reader", "ann     all      shop/robot\n"],
    );
    kubectl.shows("describe namespace shop", &["Status:       Active\n"]);
    kubectl.expect(
        "set subject rolebinding reading --user=bob",
        "rolebinding.rbac.authorization.k8s.io/reading subjects updated\n",
    );
    let role = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: shop}
rules: [{apiGroups: [''], resources: [configmaps], verbs: [list]}]
";
    let role = kubectl.file("role.yaml", role);
    kubectl.shows(
        &format!("auth reconcile -f {role}"),
        &["role.rbac.authorization.k8s.io/reader reconciled\n", "missing rules added:\n"],
    );
    kubectl.expect("auth can-i list configmaps --as=ann", "yes\n");
    kubectl.shows("auth can-i --list --as=ann", &["parts.workshop.example", "[bolt]"]);
    kubectl.expect(
        "delete role,rolebinding --all",
        "role.rbac.authorization.k8s.io \"reader\" deleted\n\
         rolebinding.rbac.authorization.k8s.io \"reading\" deleted\n",
    );
}

/// Commands for kinds that Kubernetes has and Commonage has not.
fn has_nothing_of_the_sort(kubectl: &Kubectl) {
    let unknown = "error: no kind \"Part\" is registered for version \"workshop.example/v1\" in scheme \"pkg/scheme/scheme.go:28\"\n";
    for line in [
        "rollout status part/bolt",
        "rollout restart part/bolt",
        "logs part/bolt",
        "exec part/bolt -- true",
        "set image part/bolt a=b",
        "expose part bolt --port=80",
    ] {
        kubectl.shows(line, &[unknown.split(" in scheme").next().unwrap()]);
    }
    let no_type =
        |name: &str| format!("error: the server doesn't have a resource type \"{name}\"\n");
    kubectl.expect("get deployments", &no_type("deployments"));
    kubectl.expect("rollout history deployment/x", &no_type("deployment"));
    kubectl.expect("certificate approve x", &no_type("certificatesigningrequests"));
    let not_found = |what: &str| {
        format!("error: failed to create {what}: the server could not find the requested resource")
    };
    // Nobody answers for a group that is not here, so it is kubectl that names the request.
    let named = |what: &str, plural: &str| format!("{} (post {plural})\n", not_found(what));
    kubectl.expect("create deployment web --image=nginx", &named("deployment", "deployments.apps"));
    kubectl.expect("create job once --image=nginx", &named("job", "jobs.batch"));
    kubectl.expect("create quota all --hard=cpu=1", &format!("{}\n", not_found("quota")));
    let not_allowed = "the server does not allow this method on the requested resource\n";
    kubectl.shows("run web --image=nginx", &[not_allowed]);
    kubectl.shows("create service clusterip web --tcp=80", &[not_allowed]);
    let none = "Error from server (NotFound): pods \"none\" not found\n";
    for line in ["attach none", "exec none -- true", "port-forward none 80", "cp none:/a /tmp/a"] {
        kubectl.expect(line, none);
    }
}
