//! What a task runs, and in what surroundings: command, variables, ports, mounts, checks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What to run, and in what surroundings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// The image. Absent: the agent's own root file system, read-only, plus the task's sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Secrets of type `kubernetes.io/dockerconfigjson` with the credentials for the image's registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalReference>,
    /// The program and its first arguments. Default: the image's entrypoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// More arguments. Default: the image's, if `command` is its too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Variables of its environment, beside those that every task gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Where the command starts. Default: what the image says, without one the sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// `uid` or `uid:gid`, numbers; with an image also names of its users and groups. Default: what the image
    /// says, without one 0 inside the container's own limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Whether even the sandbox's surroundings can't be written. Without an image the root is
    /// always read-only.
    #[serde(default, skip_serializing_if = "crate::is_false")]
    pub read_only_root_filesystem: bool,
    /// Linux capabilities beyond the default set, such as `NET_ADMIN`; each needs a policy of the queue.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Linux capabilities of the default set that it does without; `ALL`: every one that `capabilities` does not
    /// name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drop_capabilities: Vec<String>,
    /// Whether its users are others than the machine's: root in the container is nobody outside. Default: what its
    /// agent does (`cmn agent --user-namespaces`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_namespace: Option<bool>,
    /// `Host`, `None`, or the name of a CNI network. Default: `Host`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Ports that it listens on, or asks of its agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ContainerPort>,
    /// What is mounted into it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// A token with which the task may read its own Task and report its `status.message` and `status.ready`. It and
    /// the authority of the API server are where Kubernetes' clients look for them,
    /// `/var/run/secrets/kubernetes.io/serviceaccount`; it is renewed while the task runs, and worthless after.
    #[serde(default, skip_serializing_if = "crate::is_false")]
    pub api_token: bool,
    /// Whether it has a standard input, fed by those who are attached to it (`kubectl attach -i`, `cmn attach -i`);
    /// until somebody is, what reads from it waits. Otherwise it is empty.
    #[serde(default, skip_serializing_if = "crate::is_false")]
    pub stdin: bool,
    /// Whether its standard input ends when the first who was attached to it has gone, and stays closed; a `tty` is
    /// hung up then. Of no effect without `stdin`. Otherwise people may come and go, and it never ends.
    #[serde(default, skip_serializing_if = "crate::is_false")]
    pub stdin_once: bool,
    /// Whether it runs in a terminal of its own, which has one output. To type into it takes `stdin` too.
    #[serde(default, skip_serializing_if = "crate::is_false")]
    pub tty: bool,
}

/// One environment variable.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// Its name; not empty, and without `=`.
    pub name: String,
    /// Its value; nothing in it is expanded.
    #[serde(default)]
    pub value: String,
    /// Instead of `value`: where it is read when the task starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<EnvSource>,
}

/// Where the value of a variable comes from; exactly one of them is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvSource {
    /// A key of a Secret in the task's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeyReference>,
    /// A key of a ConfigMap in the task's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyReference>,
}

/// One key of a Secret or a ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyReference {
    /// The object, by name, in the namespace of the task.
    pub name: String,
    /// The key of its `data`.
    pub key: String,
}

/// Another object of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalReference {
    /// The Secret, by name, in the namespace of the task.
    pub name: String,
}

/// One port of a task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPort {
    /// Found in the task as environment variable `PORT_<NAME>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The port inside the task's own network. Default: the host port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub container_port: Option<i32>,
    /// The port on the agent; 0: one is picked out of the allocation.
    #[serde(default)]
    #[schemars(range(min = 0, max = 65535))]
    pub host_port: i32,
}

/// Something mounted into a task; exactly one source is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Where it appears, an absolute path.
    pub path: String,
    /// Whether the task may only read it.
    #[serde(default, skip_serializing_if = "crate::is_false")]
    pub read_only: bool,
    /// A Volume, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// A Secret, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// A ConfigMap, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<String>,
    /// A path of the agent; needs a policy of the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_path: Option<String>,
    /// Memory, of this size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tmpfs: Option<Tmpfs>,
}

/// A file system in memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tmpfs {
    /// A quantity, such as `64Mi`.
    pub size: String,
}

/// One file to bring into the sandbox.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fetch {
    /// Where it is: `http`, `https`, or `file` for a file of the agent.
    pub uri: String,
    /// The SHA-256 digest that it must have, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Whether it is an archive to be unpacked.
    #[serde(default, skip_serializing_if = "crate::is_false")]
    pub extract: bool,
    /// Whether it may be executed.
    #[serde(default, skip_serializing_if = "crate::is_false")]
    pub executable: bool,
    /// Whether the agent keeps it for other tasks.
    #[serde(default, skip_serializing_if = "crate::is_false")]
    pub cache: bool,
}

/// A check that is repeated while the task runs; exactly one of `http`, `tcp`, `exec` is set.
/// The defaults are Mesos'.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// GET answers with a status of 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// A connection can be opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheck>,
    /// A command in the container exits with 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecCheck>,
    /// Before the first check, in seconds. Default 15.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub initial_delay_seconds: Option<f64>,
    /// Between checks, in seconds. Default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub period_seconds: Option<f64>,
    /// How long one check may take, in seconds. Default 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub timeout_seconds: Option<f64>,
    /// Failures in a row after which the task counts as failed. Default 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub failure_threshold: Option<i32>,
    /// Failures this soon after the start do not count, in seconds. Default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub grace_period_seconds: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpCheck {
    /// Default `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Name of one of the container's ports. Default: its first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpCheck {
    /// Name of one of the container's ports. Default: its first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecCheck {
    /// The program and its arguments; an exit code of 0 is a success.
    pub command: Vec<String>,
}
