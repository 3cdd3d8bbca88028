//! What a machine and its tasks use right now: an agent's answer to the API server, which shows it as
//! `metrics.k8s.io`. No kind of ours: nothing of it is stored.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

/// One look at an agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentStats {
    /// When it was looked.
    pub time: Time,
    /// Over how many milliseconds before that the use of cpu is an average.
    pub window_millis: u64,
    pub machine: Usage,
    pub tasks: Vec<TaskStats>,
}

/// What one running task uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskStats {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub usage: Usage,
    /// Processes and threads.
    pub processes: u64,
    /// How long it had to wait because of its limit of cpu, in milliseconds, ever since it runs.
    pub throttled_millis: u64,
    /// How often the kernel killed in it for want of memory.
    pub oom_kills: u64,
}

/// Amounts in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Of a cpu, in billionths.
    pub cpu_nanos: u64,
    /// What the kernel could not take back at once: the working set.
    pub memory_bytes: u64,
    /// Read from block devices: by a task ever since it runs, by a machine since its start.
    pub io_read_bytes: u64,
    /// The same, written.
    pub io_written_bytes: u64,
}
