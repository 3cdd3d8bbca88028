//! Leases of nodes: `kubectl describe node` shows the lease that a kubelet keeps beside its node.
//! The lease of the agent stands for it, as the node stands for the agent.

use commonage_schemas::names::AGENT_LEASE_NAMESPACE;
use serde_json::Value;

use super::chain::Call;
use super::resources::Target;

/// Where kubelets keep them.
const NODE_LEASES: &str = "kube-node-lease";

/// The lease that is looked for in the name of a node, if nodes are shown and it is of an agent.
pub(super) async fn of_node(
    call: &Call<'_>,
    target: &Target,
    version: Option<u64>,
) -> Option<Value> {
    let engine = &call.app.engine;
    let asked = target.def.group == "coordination.k8s.io"
        && target.def.plural == "leases"
        && target.namespace == NODE_LEASES
        && engine.scheme().by_kind("", "Node").is_some();
    if !asked {
        return None;
    }
    let lease = engine.get(&target.def, AGENT_LEASE_NAMESPACE, &target.name, version).await;
    let mut lease = lease.ok()?.to_value();
    lease["metadata"]["namespace"] = NODE_LEASES.into();
    Some(lease)
}
