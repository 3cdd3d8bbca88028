//! Networks that tasks may name: the configurations of a directory, as the Container Network Interface has them.
//!
//! They are read when a task names one, so that a new one needs no restart.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use commonage_shim::launch::CniNetwork;
use serde_json::Value;

/// Where every runtime looks for configurations.
pub const CONFIG_DIR: &str = "/etc/cni/net.d";
/// Where plugins are: the specification's own place, Debian's, and Fedora's.
pub const PLUGIN_DIRS: [&str; 3] = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];
/// Of configurations that name no version, which was the first.
const VERSION_DEFAULT: &str = "0.2.0";

/// Where networks and their plugins are.
#[derive(Clone, Debug)]
pub struct Networks {
    pub config_dir: PathBuf,
    pub plugin_dirs: Vec<PathBuf>,
}

impl Default for Networks {
    fn default() -> Networks {
        Networks {
            config_dir: CONFIG_DIR.into(),
            plugin_dirs: PLUGIN_DIRS.map(PathBuf::from).into(),
        }
    }
}

impl Networks {
    /// The network of this name.
    ///
    /// # Errors
    /// There is none, or it cannot be understood: in words, with what there is.
    pub(crate) fn find(&self, name: &str) -> Result<CniNetwork, String> {
        let mut all = self.all()?;
        let names: Vec<String> = all.keys().cloned().collect();
        match all.remove(name) {
            Some(found) => found,
            None if names.is_empty() => {
                let dir = self.config_dir.display();
                Err(format!("this agent has no network {name:?}: there are none in {dir}"))
            }
            None => {
                Err(format!("this agent has no network {name:?}, but has: {}", names.join(", ")))
            }
        }
    }

    /// By name; of several files with one name the first counts, in the order of their names.
    fn all(&self) -> Result<BTreeMap<String, Result<CniNetwork, String>>, String> {
        let listing = match fs::read_dir(&self.config_dir) {
            Ok(listing) => listing,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(BTreeMap::new());
            }
            Err(error) => return Err(format!("{}: {error}", self.config_dir.display())),
        };
        let mut paths: Vec<PathBuf> = listing.filter_map(|file| Some(file.ok()?.path())).collect();
        paths.retain(|path| {
            let kind = path.extension().and_then(|kind| kind.to_str());
            matches!(kind, Some("conflist" | "conf" | "json"))
        });
        paths.sort();
        let mut all = BTreeMap::new();
        for path in paths {
            let (name, network) = self.read(&path);
            all.entry(name).or_insert(network);
        }
        Ok(all)
    }

    /// A broken file is known by its own name: whoever means it is told what is wrong with it.
    fn read(&self, path: &Path) -> (String, Result<CniNetwork, String>) {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let wrong = |why: String| (stem.clone(), Err(format!("{}: {why}", path.display())));
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return wrong(error.to_string()),
        };
        let config: Value = match serde_json::from_str(&text) {
            Ok(config) => config,
            Err(error) => return wrong(error.to_string()),
        };
        let Some(name) = config["name"].as_str().filter(|name| !name.is_empty()) else {
            return wrong("has no name".to_owned());
        };
        let plugins = match &config["plugins"] {
            Value::Array(plugins) => plugins.clone(),
            // One plugin by itself.
            _ => vec![config.clone()],
        };
        if plugins.is_empty() || plugins.iter().any(|plugin| !plugin["type"].is_string()) {
            let why =
                format!("{}: every plugin has a type, and there is at least one", path.display());
            return (name.to_owned(), Err(why));
        }
        let network = CniNetwork {
            name: name.to_owned(),
            cni_version: config["cniVersion"].as_str().unwrap_or(VERSION_DEFAULT).to_owned(),
            plugins,
            plugin_dirs: self.plugin_dirs.clone(),
            ports: Vec::new(),
        };
        (name.to_owned(), Ok(network))
    }
}

/// Whether ports of the agent can lead to tasks in it.
pub(crate) fn maps_ports(network: &CniNetwork) -> bool {
    let has = |plugin: &Value| plugin["capabilities"]["portMappings"].as_bool() == Some(true);
    network.plugins.iter().any(has)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn networks_are_read_as_other_runtimes_read_them() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        let networks =
            Networks { config_dir: dir.path().to_owned(), plugin_dirs: vec!["/plugins".into()] };
        let none = networks.find("lan").unwrap_err();
        assert!(none.contains("there are none in"), "{none}");
        put(
            "10-lan.conflist",
            r#"{"cniVersion": "1.0.0", "name": "lan", "plugins": [{"type": "bridge"},
            {"type": "portmap", "capabilities": {"portMappings": true}}]}"#,
        );
        put("20-lan.conf", r#"{"name": "lan", "type": "macvlan"}"#);
        put("30-one.conf", r#"{"name": "one", "type": "macvlan", "master": "eth0"}"#);
        put("40-bad.conflist", "{");
        put("50-empty.conflist", r#"{"name": "empty", "plugins": []}"#);
        put("readme.txt", "no network");
        let lan = networks.find("lan").unwrap();
        assert_eq!((lan.plugins.len(), lan.cni_version.as_str()), (2, "1.0.0"));
        assert!(maps_ports(&lan));
        let one = networks.find("one").unwrap();
        assert_eq!((one.plugins[0]["master"].as_str(), maps_ports(&one)), (Some("eth0"), false));
        assert!(networks.find("empty").unwrap_err().contains("50-empty.conflist"));
        assert!(networks.find("40-bad").unwrap_err().contains("40-bad.conflist"));
        let missing = networks.find("wan").unwrap_err();
        assert_eq!(missing, "this agent has no network \"wan\", but has: 40-bad, empty, lan, one");
    }
}
