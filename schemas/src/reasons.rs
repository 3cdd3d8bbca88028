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
    /// A volume that it mounts does not exist, is not there yet, or is in use.
    pub const WAITING_FOR_VOLUME: &str = "WaitingForVolume";
    /// A task of a higher priority, or a queue below its guarantee, needed its resources.
    pub const PREEMPTED: &str = "Preempted";
    /// Reason of an Event: another task is killed for it.
    pub const PREEMPTING: &str = "Preempting";
    /// Another task of its group has ended, or was told to end.
    pub const GROUP_ENDED: &str = "GroupEnded";
    /// Somebody asked for it, at `tasks/NAME/kill`.
    pub const KILL_REQUESTED: &str = "KillRequested";
    /// Its agent is being emptied.
    pub const AGENT_DRAINED: &str = "AgentDrained";
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
    /// Its image is being fetched; the message says how far that is.
    pub const PULLING: &str = "Pulling";
    /// Its image can't be had: no such image, no leave, no answer.
    pub const IMAGE_PULL_FAILED: &str = "ImagePullFailed";
    /// Its image is damaged, malformed, or made to do harm.
    pub const IMAGE_INVALID: &str = "ImageInvalid";
    /// There is no room on its agent for what it needs.
    pub const DISK_FULL: &str = "DiskFull";
    /// A Secret, ConfigMap or Volume that it names is not there, or not usable.
    pub const MOUNT_FAILED: &str = "MountFailed";
    /// A file of `spec.fetch` can't be had, or is not what its checksum says.
    pub const FETCH_FAILED: &str = "FetchFailed";
    /// It could not be attached to the network that it names.
    pub const NETWORK_FAILED: &str = "NetworkFailed";
    /// Its agent has fewer healthy GPUs to give than it was promised.
    pub const GPU_UNAVAILABLE: &str = "GpuUnavailable";
    /// Some of its group never came to its agent.
    pub const GROUP_INCOMPLETE: &str = "GroupIncomplete";
    /// It has written more than its `disk`.
    pub const DISK_LIMIT: &str = "DiskLimitExceeded";
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
    /// A task of that name was launched on that offer before, and it was another one.
    pub const TASK_ID_REUSED: &str = "TaskIdReused";
    /// The agent that a task claims has no room for it.
    pub const DOES_NOT_FIT: &str = "DoesNotFit";
    /// Something still uses what is to be deleted.
    pub const IN_USE: &str = "InUse";
    /// The task asks for something that its queue's policy does not allow.
    pub const SANDBOX_DENIED: &str = "SandboxDenied";
    /// The task already has an agent.
    pub const ALREADY_BOUND: &str = "AlreadyBound";
}

/// Condition types of a Framework.
pub mod framework {
    pub const CONNECTED: &str = "Connected";
    pub const STARVED: &str = "Starved";
    /// Reason of an Event: an agent where it holds something is going to be maintained.
    pub const INVERSE_OFFER: &str = "InverseOffer";
}
