//! Networks by plugins of the Container Network Interface (specification 1.0, github.com/containernetworking/cni):
//! a task is attached before its container is made, and detached when it is over, whoever sees to that.
//!
//! The network namespace is made here and held open by the shim: no name of it lies anywhere, so none can be left
//! behind. That a task was attached is written down before the first plugin is called; so it is detached also when
//! the shim, the agent or both were killed meanwhile. Plugins are called with what their specification says, one
//! after the other, and none for longer than [`PLUGIN_TIMEOUT`].

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::launch::{CniNetwork, ExitError, FailureReason, Launch, Network};
use crate::network;
use crate::state_dir::{StateDir, write_atomically};

/// A plugin takes some ten milliseconds; one that asks a server may take some more.
const PLUGIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two looks whether a plugin has ended.
const PLUGIN_POLL: Duration = Duration::from_millis(1);
/// What a pipe takes without a reader: a configuration is written before its plugin reads.
const CONFIG_BYTES_MAX: usize = 60 * 1024;
/// As every runtime calls the first network device of a container.
const DEVICE: &str = "eth0";
/// Plugins call iptables and the like.
const PLUGIN_PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";

/// `network.json`: there as long as plugins may hold something for the task.
#[derive(Default, Serialize, Deserialize)]
struct Record {
    /// What the last plugin answered; nothing while they are being called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
}

/// A task's network while its shim lives.
pub(crate) struct Attached {
    pub(crate) namespace: File,
    pub(crate) addresses: Vec<IpAddr>,
}

impl Attached {
    /// By which others find the namespace, as long as this is held.
    pub(crate) fn path(&self) -> PathBuf {
        path_of(&self.namespace)
    }
}

pub(crate) fn path_of(namespace: &impl AsFd) -> PathBuf {
    let number = namespace.as_fd().as_raw_fd();
    PathBuf::from(format!("/proc/{}/fd/{number}", std::process::id()))
}

/// Makes the task's network, if it is to have one by plugins; `made`: in this namespace, which is there.
///
/// # Errors
/// `NetworkFailed` with the network, the plugin and its words. Nothing is left attached then.
pub(crate) fn attach(
    state: &StateDir,
    launch: &Launch,
    made: Option<File>,
) -> Result<Option<Attached>, ExitError> {
    let Network::Cni(network) = &launch.network else { return Ok(None) };
    let failed = |why: String| ExitError {
        reason: FailureReason::NetworkFailed,
        message: format!("network {:?}: {why}", network.name),
    };
    let namespace = match made {
        Some(made) => network::switch_loopback_on(&made).map(|()| made),
        None => network::make(),
    };
    let namespace = namespace.map_err(|error| failed(format!("namespace: {error}")))?;
    let mut attached = Attached { namespace, addresses: Vec::new() };
    write(state, &Record::default()).map_err(|error| failed(error.to_string()))?;
    let mut result = None;
    for plugin in &network.plugins {
        let call = Call { network, launch, plugin, namespace: attached.path() };
        match call.make("ADD", result.as_ref()) {
            Ok(answer) => result = answer,
            Err(why) => {
                detach(state, launch, Some(&attached.namespace));
                return Err(failed(why));
            }
        }
    }
    attached.addresses = result.as_ref().map(addresses).unwrap_or_default();
    write(state, &Record { result }).map_err(|error| {
        detach(state, launch, Some(&attached.namespace));
        failed(error.to_string())
    })?;
    Ok(Some(attached))
}

/// Has the plugins let go of a task, in the opposite order, if they may hold anything. What fails is said in the
/// log and done again by whoever cleans up next: the record stays.
pub(crate) fn detach(state: &StateDir, launch: &Launch, namespace: Option<&File>) {
    let Network::Cni(network) = &launch.network else { return };
    let Some(record) = read(state) else { return };
    let namespace = namespace.map(path_of).unwrap_or_default();
    let mut complete = true;
    for plugin in network.plugins.iter().rev() {
        let call = Call { network, launch, plugin, namespace: namespace.clone() };
        if let Err(why) = call.make("DEL", record.result.as_ref()) {
            eprintln!("network {:?} of {}: {why}", network.name, launch.id);
            // A plugin that is not there can't be asked again either.
            complete &= call.program().is_err();
        }
    }
    if complete {
        let _ = fs::remove_file(state.network_json());
    }
}

/// The addresses that a task was given; none if its network is not its own.
pub(crate) fn addresses_of(state: &StateDir) -> Vec<IpAddr> {
    read(state).and_then(|record| record.result).as_ref().map(addresses).unwrap_or_default()
}

/// `ips[].address` is `10.1.2.3/24`.
fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().into_iter().flatten();
    let texts = ips.filter_map(|ip| ip["address"].as_str());
    texts.filter_map(|text| text.split('/').next()?.parse().ok()).collect()
}

fn read(state: &StateDir) -> Option<Record> {
    let bytes = fs::read(state.network_json()).ok()?;
    // Half of a record is still one: something may be held.
    Some(serde_json::from_slice(&bytes).unwrap_or_default())
}

fn write(state: &StateDir, record: &Record) -> io::Result<()> {
    write_atomically(&state.network_json(), &serde_json::to_vec(record)?)
}

/// One call of one plugin.
struct Call<'a> {
    network: &'a CniNetwork,
    launch: &'a Launch,
    plugin: &'a Value,
    /// Empty when there is none any more.
    namespace: PathBuf,
}

impl Call<'_> {
    fn kind(&self) -> &str {
        self.plugin["type"].as_str().unwrap_or_default()
    }

    fn program(&self) -> Result<PathBuf, String> {
        find(self.kind(), &self.network.plugin_dirs)
    }

    /// The plugin's answer, or its words about what is wrong.
    fn make(&self, command: &str, previous: Option<&Value>) -> Result<Option<Value>, String> {
        let told = |why: String| format!("plugin {}: {why}", self.kind());
        let program = self.program().map_err(told)?;
        let config = self.config(previous).to_string();
        if config.len() > CONFIG_BYTES_MAX {
            return Err(told(format!("its configuration is longer than {CONFIG_BYTES_MAX} bytes")));
        }
        let (answer, succeeded) =
            self.run(command, &program, &config).map_err(|error| told(error.to_string()))?;
        let parsed: Option<Value> = serde_json::from_slice(&answer).ok();
        if succeeded {
            return Ok(parsed);
        }
        let said = parsed.as_ref().and_then(|error| error["msg"].as_str()).map(str::to_owned);
        let details = parsed.as_ref().and_then(|error| error["details"].as_str()).unwrap_or("");
        let said = said.unwrap_or_else(|| String::from_utf8_lossy(&answer).trim().to_owned());
        Err(told(match (said.is_empty(), details) {
            (true, _) => format!("{command} failed without a word"),
            (false, "") => said,
            (false, details) => format!("{said}: {details}"),
        }))
    }

    fn config(&self, previous: Option<&Value>) -> Value {
        let mut config = self.plugin.clone();
        config["cniVersion"] = self.network.cni_version.as_str().into();
        config["name"] = self.network.name.as_str().into();
        if maps_ports(self.plugin) && !self.network.ports.is_empty() {
            let ports = self.network.ports.iter().map(|port| {
                json!({"hostPort": port.host, "containerPort": port.container, "protocol": "tcp"})
            });
            config["runtimeConfig"]["portMappings"] = ports.collect();
        }
        if let Some(config) = config.as_object_mut() {
            config.remove("capabilities");
        }
        if let Some(previous) = previous {
            config["prevResult"] = previous.clone();
        }
        config
    }

    fn run(&self, command: &str, program: &Path, config: &str) -> io::Result<(Vec<u8>, bool)> {
        let dirs: Vec<_> = self.network.plugin_dirs.iter().map(|d| d.to_string_lossy()).collect();
        let mut child = Command::new(program)
            .env_clear()
            .env("PATH", PLUGIN_PATH)
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &self.launch.id)
            .env("CNI_NETNS", &self.namespace)
            .env("CNI_IFNAME", DEVICE)
            .env("CNI_PATH", dirs.join(":"))
            .env("CNI_ARGS", "IgnoreUnknown=1")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let written =
            child.stdin.take().map_or(Ok(()), |mut pipe| pipe.write_all(config.as_bytes()));
        let deadline = Instant::now() + PLUGIN_TIMEOUT;
        let status = loop {
            match child.try_wait()? {
                Some(status) => break status,
                None if Instant::now() > deadline => {
                    child.kill()?;
                    child.wait()?;
                    let message = format!("{command} took longer than {PLUGIN_TIMEOUT:?}");
                    return Err(io::Error::new(io::ErrorKind::TimedOut, message));
                }
                // This process has one thread, and nothing to do before the plugin is done.
                #[allow(clippy::disallowed_methods)]
                None => std::thread::sleep(PLUGIN_POLL),
            }
        };
        let mut answer = Vec::new();
        if let Some(mut pipe) = child.stdout.take() {
            pipe.read_to_end(&mut answer)?;
        }
        // A plugin that ended well did not need the rest.
        if !status.success() && answer.is_empty() {
            written?;
        }
        Ok((answer, status.success()))
    }
}

/// Whether a plugin says that it leads ports of the host to those of containers.
fn maps_ports(plugin: &Value) -> bool {
    plugin["capabilities"]["portMappings"].as_bool() == Some(true)
}

fn find(kind: &str, dirs: &[PathBuf]) -> Result<PathBuf, String> {
    // A name with a slash would lead anywhere.
    if kind.is_empty() || kind.contains('/') {
        return Err("its type is no name of a plugin".to_owned());
    }
    let mut candidates = dirs.iter().map(|dir| dir.join(kind));
    candidates.find(|path| path.is_file()).ok_or_else(|| {
        let dirs: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        format!("there is none in {}", dirs.join(", "))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::launch::PortMapping;

    /// A task in a network of plugins that are shell scripts.
    fn launch(dir: &Path, plugins: &[(&str, &str)]) -> Launch {
        let mut configs = Vec::new();
        for (name, script) in plugins {
            let path = dir.join(name);
            fs::write(&path, format!("#!/bin/sh\necho \"$CNI_COMMAND {name} $CNI_CONTAINERID $CNI_IFNAME\" >> {}/calls\ncat > {}/{name}.$CNI_COMMAND\n{script}\n", dir.display(), dir.display())).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            configs
                .push(json!({"type": name, "capabilities": {"portMappings": *name == "second"}}));
        }
        let network = CniNetwork {
            name: "lan".to_owned(),
            cni_version: "1.0.0".to_owned(),
            plugins: configs,
            plugin_dirs: vec![dir.to_owned()],
            ports: vec![PortMapping { host: 31000, container: 80 }],
        };
        serde_json::from_value(json!({
            "id": "t-1", "cgroup": "/commonage/n/t-1", "command": ["true"], "sandbox": dir,
            "network": Network::Cni(network),
        }))
        .unwrap()
    }

    fn attached(state: &StateDir, launch: &Launch) -> Result<Vec<Value>, String> {
        // Without the namespace, which only root can make.
        let Network::Cni(network) = &launch.network else { unreachable!() };
        write(state, &Record::default()).unwrap();
        let mut result = None;
        for plugin in &network.plugins {
            let call = Call { network, launch, plugin, namespace: PathBuf::from("/ns") };
            result = call.make("ADD", result.as_ref())?;
        }
        write(state, &Record { result: result.clone() }).unwrap();
        Ok(result.into_iter().collect())
    }

    const ANSWER: &str = r#"echo '{"ips": [{"address": "10.9.8.7/24"}]}'"#;

    #[test]
    fn plugins_are_called_in_order_and_let_go_in_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        let launch = launch(dir.path(), &[("first", ANSWER), ("second", ANSWER)]);
        attached(&state, &launch).unwrap();
        assert_eq!(addresses_of(&state), ["10.9.8.7".parse::<IpAddr>().unwrap()]);
        detach(&state, &launch, None);
        assert!(!state.network_json().exists());
        // Once it is done, nothing is done again.
        detach(&state, &launch, None);
        let calls = fs::read_to_string(dir.path().join("calls")).unwrap();
        let expected =
            "ADD first t-1 eth0\nADD second t-1 eth0\nDEL second t-1 eth0\nDEL first t-1 eth0\n";
        assert_eq!(calls, expected);
        let given = |name: &str| -> Value {
            serde_json::from_slice(&fs::read(dir.path().join(name)).unwrap()).unwrap()
        };
        assert!(given("first.ADD").get("prevResult").is_none());
        let second = given("second.ADD");
        assert_eq!(second["prevResult"]["ips"][0]["address"], "10.9.8.7/24");
        assert_eq!(second["runtimeConfig"]["portMappings"][0]["hostPort"], 31000);
        assert_eq!((&second["name"], &second["cniVersion"]), (&json!("lan"), &json!("1.0.0")));
        assert!(
            second.get("capabilities").is_none()
                && given("first.ADD").get("runtimeConfig").is_none()
        );
        assert!(given("first.DEL")["prevResult"]["ips"].is_array());
    }

    #[test]
    fn what_is_wrong_is_told_in_the_plugins_words() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        let refuses =
            r#"echo '{"code": 11, "msg": "no address left", "details": "10.9.8.0/24"}'; exit 1"#;
        let said = attached(&state, &launch(dir.path(), &[("full", refuses)])).unwrap_err();
        assert_eq!(said, "plugin full: no address left: 10.9.8.0/24");
        let said = attached(&state, &launch(dir.path(), &[("mute", "exit 3")])).unwrap_err();
        assert_eq!(said, "plugin mute: ADD failed without a word");
        let mut missing = launch(dir.path(), &[]);
        if let Network::Cni(network) = &mut missing.network {
            network.plugins.push(json!({"type": "../sh"}));
        }
        assert!(attached(&state, &missing).unwrap_err().contains("no name of a plugin"));
    }

    #[test]
    fn what_could_not_be_let_go_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        let flag = dir.path().join("better");
        let script =
            format!("[ $CNI_COMMAND = ADD ] && {ANSWER} && exit; [ -e {} ]", flag.display());
        let launch = launch(dir.path(), &[("stuck", &script)]);
        attached(&state, &launch).unwrap();
        detach(&state, &launch, None);
        assert!(state.network_json().exists());
        fs::write(&flag, "").unwrap();
        detach(&state, &launch, None);
        assert!(!state.network_json().exists());
    }
}
