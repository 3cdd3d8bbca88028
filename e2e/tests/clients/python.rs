//! The official Python client and kopf: the programs are in `e2e/clients/python`.

use commonage_e2e::{Cluster, eventually};

use crate::{Running, cluster_with_parts, program, python, says_ok};

#[test]
fn the_python_client_does_its_work() {
    let cluster = cluster_with_parts();
    says_ok(python(&cluster).arg(program("python/client.py")));
}

const FRAMEWORK: &str = "
apiVersion: commonage.dev/v1
kind: Queue
metadata: {name: kopf}
spec: {}
---
apiVersion: commonage.dev/v1
kind: Framework
metadata: {name: kopf, namespace: kopf, labels: {app: kopf}}
spec: {queues: [kopf]}
";

#[test]
fn a_kopf_operator_answers_offers_and_handles_finalizers() {
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "namespace", "kopf"]).ok();
    let mut operator = Running::start(
        python(&cluster)
            .args(["-m", "kopf", "run", "--quiet", "--namespace", "kopf"])
            .arg(program("python/kopf_operator.py")),
    );
    cluster.apply(FRAMEWORK).ok();
    let within = |arguments: &[&str]| cluster.kubectl(&[&["-n", "kopf"], arguments].concat());
    eventually("the operator's task to end", || {
        let state = within(&["get", "task/from-kopf", "-o", "jsonpath={.status.state}"]).stdout;
        if state == "Finished" { Ok(()) } else { Err(state) }
    });
    let finalizers = within(&["get", "fw/kopf", "-o", "jsonpath={.metadata.finalizers}"]).ok();
    assert!(finalizers.contains("workshop.example/operator"), "{finalizers}");
    let events = within(&["get", "events", "--field-selector=reason=Registered"]).ok();
    assert!(events.contains("framework kopf has an operator"), "{events}");

    // It goes only once the operator has seen it go.
    within(&["delete", "fw/kopf", "--timeout=30s"]).ok();
    within(&["get", "configmap/kopf-left"]).ok();

    let pid = nix::unistd::Pid::from_raw(i32::try_from(operator.0.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert!(operator.0.wait().unwrap().success());
}
