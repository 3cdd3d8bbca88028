//! Names that several parts must spell alike: namespaces, finalizers, labels, identities.

/// Where agents' liveness Leases live, one per agent and of the agent's name.
pub const AGENT_LEASE_NAMESPACE: &str = "commonage-agents";
/// Where the control plane keeps its own objects.
pub const SYSTEM_NAMESPACE: &str = "commonage-system";

/// Held by every Task until its agent says that the container is gone.
pub const TASK_FINALIZER: &str = "commonage.dev/task";
/// Held by every Offer until the allocator has accounted for its answer.
pub const OFFER_FINALIZER: &str = "commonage.dev/allocator";
/// Held by every Framework until its tasks are gone.
pub const FRAMEWORK_FINALIZER: &str = "commonage.dev/framework";

/// The framework that tasks belong to when they name none; it exists in every namespace.
pub const DEFAULT_FRAMEWORK: &str = "default";
/// The queue of a framework that names none.
pub const DEFAULT_QUEUE: &str = "default";

/// The user name of an agent is this and the agent's name.
pub const AGENT_USER_PREFIX: &str = "system:agent:";
pub const AGENTS_GROUP: &str = "system:agents";
pub const CONTROLLERS_USER: &str = "system:controllers";
pub const CONTROLLERS_GROUP: &str = "system:controllers";
pub const APISERVER_USER: &str = "system:apiserver";
pub const MASTERS_GROUP: &str = "system:masters";

/// The fault domain of an agent.
pub const REGION_LABEL: &str = "topology.kubernetes.io/region";
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
pub const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";

/// The header by which a leader's writes name its Lease and its term:
/// `NAMESPACE/NAME/UID/TRANSITIONS`.
pub const FENCE_HEADER: &str = "commonage-fence";
/// On the answer to a write whose term has ended (409 `Fenced`).
pub const FENCED_HEADER: &str = "commonage-fenced";
/// The header by which a client says what of objects it has no use for.
pub const OMIT_HEADER: &str = "commonage-omit";
/// All that can be left out: `metadata.managedFields`, of answers about one object and of watches.
pub const MANAGED_FIELDS: &str = "managedFields";
/// The Lease of the controllers' leader, in the system namespace.
pub const CONTROLLERS_LEASE: &str = "commonage-controllers";
