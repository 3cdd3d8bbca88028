//! A network that tasks can be in, by plugins of the Container Network Interface.

use std::process::Command;

use commonage_e2e::Cluster;

/// A bridge of the test's own; it goes with it.
pub(crate) struct Lan {
    bridge: String,
    directory: tempfile::TempDir,
}

impl Lan {
    /// `number`: one of its own for each test, of its name and its addresses.
    pub(crate) fn new(number: u8) -> Lan {
        let directory = tempfile::tempdir().unwrap();
        let bridge = format!("cmne{}-{number}", std::process::id() % 100_000);
        let config = format!(
            r#"{{"cniVersion": "1.0.0", "name": "lan", "plugins": [
                {{"type": "bridge", "bridge": "{bridge}", "isGateway": true, "ipam": {{"type": "host-local",
                  "dataDir": "{}", "ranges": [[{{"subnet": "10.252.{number}.0/24"}}]]}}}},
                {{"type": "portmap", "capabilities": {{"portMappings": true}}}}]}}"#,
            directory.path().join("taken").display()
        );
        std::fs::write(directory.path().join("10-lan.conflist"), config).unwrap();
        Lan { bridge, directory }
    }

    pub(crate) fn cluster(&self) -> Cluster {
        Cluster::start_with(&["--cni-config-dir", &self.directory.path().to_string_lossy()])
    }

    /// Addresses that tasks have.
    pub(crate) fn taken(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.directory.path().join("taken/lan"));
        let names = files.into_iter().flatten().map(|file| file.unwrap().file_name());
        let names = names.map(|name| name.into_string().unwrap());
        names.filter(|name| name.starts_with("10.")).collect()
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "delete", &self.bridge]).output();
    }
}
