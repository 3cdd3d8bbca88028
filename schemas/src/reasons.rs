//! The reasons that programs may rely on, in `Status` errors, in `status.reason` of tasks and in
//! conditions. Never spell one as a string elsewhere.

/// Why a task is in its state.
pub mod task {
    /// Not enough free resources, or nobody fits; `status.whyPending` has the numbers.
    pub const WAITING_FOR_RESOURCES: &str = "WaitingForResources";
    /// The framework that it names does not exist.
    pub const FRAMEWORK_NOT_FOUND: &str = "FrameworkNotFound";
    /// Its framework does not list the queue that it names.
    pub const QUEUE_NOT_OF_FRAMEWORK: &str = "QueueNotOfFramework";
    /// Its framework answers offers itself and has not launched it.
    pub const WAITING_FOR_FRAMEWORK: &str = "WaitingForFramework";
    /// The command ended with an exit code other than 0.
    pub const EXIT_CODE: &str = "ExitCode";
    /// A signal ended it that nobody of us had sent.
    pub const KILLED_BY_SIGNAL: &str = "KilledBySignal";
    /// It wanted more memory than its limit.
    pub const OOM_KILLED: &str = "OomKilled";
    /// The command does not exist or can't be executed.
    pub const COMMAND_NOT_FOUND: &str = "CommandNotFound";
    /// The spec asks for something that this agent can't do.
    pub const UNSUPPORTED: &str = "Unsupported";
    /// Images can't be run yet.
    pub const IMAGE_UNSUPPORTED: &str = "ImageUnsupported";
    /// The container could not be made.
    pub const CREATE_FAILED: &str = "CreateFailed";
    /// Its Task object was deleted.
    pub const DELETED: &str = "Deleted";
    /// It ran for longer than `maxCompletionSeconds`.
    pub const MAX_COMPLETION_TIME: &str = "MaxCompletionTimeExceeded";
    /// Its health check failed.
    pub const HEALTH_CHECK_FAILED: &str = "HealthCheckFailed";
    /// Its agent's machine was started anew.
    pub const AGENT_REBOOTED: &str = "AgentRebooted";
    /// Its shim died, so nobody knows how it ended.
    pub const SHIM_LOST: &str = "ShimLost";
    /// Its agent does not renew its lease.
    pub const AGENT_UNREACHABLE: &str = "AgentUnreachable";
    /// Its agent stayed away for too long.
    pub const AGENT_LOST: &str = "AgentLost";
    /// Its Agent object does not exist any more.
    pub const AGENT_REMOVED: &str = "AgentRemoved";
    /// Its framework stayed away for longer than its fail-over time-out, or was deleted.
    pub const FRAMEWORK_GONE: &str = "FrameworkGone";
    /// Everything was stopped on its agent.
    pub const AGENT_SHUTDOWN: &str = "AgentShutdown";
}

/// Reasons of `Status` errors that Kubernetes does not have.
pub mod status {
    /// The offer has been used, declined, rescinded or has expired.
    pub const OFFER_GONE: &str = "OfferGone";
    /// The task's state can't become that one.
    pub const ILLEGAL_TRANSITION: &str = "IllegalTransition";
    /// The task already has an agent.
    pub const ALREADY_BOUND: &str = "AlreadyBound";
}

/// Condition types of a Framework.
pub mod framework {
    pub const CONNECTED: &str = "Connected";
    pub const STARVED: &str = "Starved";
}
