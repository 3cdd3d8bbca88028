//! @kubernetes/client-node: the program is `e2e/clients/node/client.mjs`.

use std::process::Command;

use crate::{cluster_with_parts, program, says_ok};

#[test]
fn client_node_watches_informs_and_applies() {
    let cluster = cluster_with_parts();
    says_ok(
        Command::new("node")
            .arg(program("node/client.mjs"))
            .env("KUBECONFIG", cluster.kubeconfig()),
    );
}
