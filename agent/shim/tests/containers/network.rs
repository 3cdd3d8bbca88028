//! Networks by plugins, with Debian's own plugins: bridge, host-local and portmap.

use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use commonage_shim::client;
use commonage_shim::launch::{CniNetwork, FailureReason, Network, PortMapping};
use serde_json::json;

use crate::fixture::{Task, eventually};

const PLUGIN_DIRS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

pub const TESTS: &[crate::Test] = &[
    ("tasks_reach_each_other_and_are_let_go", tasks_reach_each_other_and_are_let_go),
    ("a_lost_shims_task_is_let_go", a_lost_shims_task_is_let_go),
    ("ports_of_the_host_lead_to_it", ports_of_the_host_lead_to_it),
    ("what_a_plugin_refuses_is_said", what_a_plugin_refuses_is_said),
];

/// A bridge of the test's own, with addresses that nobody else has.
struct Bridge {
    name: String,
    data: tempfile::TempDir,
    net: u8,
}

impl Bridge {
    fn new(net: u8) -> Bridge {
        let name = format!("cmnt{}-{net}", std::process::id() % 100_000);
        Bridge { name, data: tempfile::tempdir().unwrap(), net }
    }

    fn network(&self, ports: Vec<PortMapping>) -> Network {
        let bridge = json!({
            "type": "bridge", "bridge": self.name, "isGateway": true,
            "ipam": {
                "type": "host-local", "dataDir": self.data.path(),
                "ranges": [[{"subnet": format!("10.251.{}.0/24", self.net)}]],
            },
        });
        let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
        let mut plugins = vec![bridge];
        plugins.extend((!ports.is_empty()).then_some(portmap));
        Network::Cni(CniNetwork {
            name: self.name.clone(),
            cni_version: "1.0.0".to_owned(),
            plugins,
            plugin_dirs: PLUGIN_DIRS.map(PathBuf::from).into(),
            ports,
        })
    }

    /// Addresses that somebody has.
    fn taken(&self) -> usize {
        let files = std::fs::read_dir(self.data.path().join(&self.name)).into_iter().flatten();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.parse::<IpAddr>().is_ok()).count()
    }

    /// Devices of tasks on the bridge.
    fn devices(&self) -> usize {
        let ports = std::fs::read_dir(format!("/sys/class/net/{}/brif", self.name));
        ports.into_iter().flatten().count()
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "delete", &self.name]).output();
    }
}

/// Answers every connection with the same line.
const SERVER: &str = "exec perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Listen => 5, LocalPort => 8080); print \"up\\n\"; \
                      $| = 1; print \"\\n\"; while ($c = $s->accept) { print $c \"hello from $ENV{COMMONAGE_IP}\\n\"; close $c }'";

fn in_network(script: &str, network: Network) -> Task {
    let task = Task::sh(script).with(|launch| launch.network = network);
    task.start();
    task
}

fn address(task: &Task) -> IpAddr {
    eventually("it has an address", || task.state.addresses().into_iter().next())
}

fn ask(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text).filter(|text| !text.is_empty())
}

fn tasks_reach_each_other_and_are_let_go() {
    let bridge = Bridge::new(1);
    let server = in_network(SERVER, bridge.network(Vec::new()));
    let ip = address(&server);
    let text = eventually("the host reaches it", || ask(SocketAddr::new(ip, 8080)));
    assert_eq!(text, format!("hello from {ip}\n"));
    let script = format!("exec 3<>/dev/tcp/{ip}/8080 && cat <&3; cat /proc/net/dev | grep -c :");
    let mut client = Task::command(&["bash", "-c", &script]);
    client = client.with(|launch| launch.network = bridge.network(Vec::new()));
    let exit = client.run();
    assert!(exit.success(), "{exit:?}");
    // Its own two devices and no other: lo and eth0.
    assert_eq!(client.stdout(), format!("hello from {ip}\n2\n"));
    eventually("the client's address is free", || (bridge.taken() == 1).then_some(()));
    server.connect().kill(9).unwrap();
    eventually("all is free", || (bridge.taken() == 0 && bridge.devices() == 0).then_some(()));
    eventually("nothing is remembered", || {
        (!server.state.path().join("network.json").exists()).then_some(())
    });
}

fn a_lost_shims_task_is_let_go() {
    let bridge = Bridge::new(2);
    let task = in_network(SERVER, bridge.network(Vec::new()));
    let ip = address(&task);
    eventually("the host reaches it", || ask(SocketAddr::new(ip, 8080)));
    let shim = task.connect().status().unwrap().shim_pid;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    eventually("the shim is gone", || {
        (client::scan(task.state.path()).unwrap() == commonage_shim::Observed::Lost).then_some(())
    });
    // The device goes with the last process, when the kernel comes to it; the address does not.
    assert_eq!(bridge.taken(), 1, "until somebody cleans up");
    client::cleanup(task.state.path(), &task.launch).unwrap();
    client::cleanup(task.state.path(), &task.launch).unwrap();
    assert_eq!(bridge.taken(), 0);
    eventually("its device is gone", || (bridge.devices() == 0).then_some(()));
}

fn ports_of_the_host_lead_to_it() {
    let bridge = Bridge::new(3);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = free.local_addr().unwrap().port();
    drop(free);
    let task = in_network(SERVER, bridge.network(vec![PortMapping { host, container: 8080 }]));
    let ip = address(&task);
    let gateway: IpAddr = format!("10.251.{}.1", bridge.net).parse().unwrap();
    let text = eventually("its port of the host answers", || ask(SocketAddr::new(gateway, host)));
    assert_eq!(text, format!("hello from {ip}\n"));
    let rules = || {
        let listed = Command::new("iptables-save").output().unwrap();
        String::from_utf8_lossy(&listed.stdout).matches(&format!("--dports {host}")).count()
    };
    assert!(rules() > 0);
    task.connect().kill(9).unwrap();
    eventually("the rules are gone", || (rules() == 0 && bridge.taken() == 0).then_some(()));
}

fn what_a_plugin_refuses_is_said() {
    let bridge = Bridge::new(4);
    let mut network = bridge.network(Vec::new());
    if let Network::Cni(network) = &mut network {
        network.plugins[0]["ipam"]["ranges"] = json!([[{"subnet": "nonsense"}]]);
    }
    let task = Task::sh("true").with(|launch| launch.network = network);
    let error = task.run().error.unwrap();
    assert_eq!(error.reason, FailureReason::NetworkFailed);
    assert!(
        error.message.contains("plugin bridge: ") && error.message.contains("nonsense"),
        "{error:?}"
    );
    let missing = Network::Cni(CniNetwork {
        name: "lan".to_owned(),
        cni_version: "1.0.0".to_owned(),
        plugins: vec![json!({"type": "no-such-plugin"})],
        plugin_dirs: vec![Path::new("/nowhere").to_owned()],
        ports: Vec::new(),
    });
    let task = Task::sh("true").with(|launch| launch.network = missing);
    let error = task.run().error.unwrap();
    assert_eq!(error.message, "network \"lan\": plugin no-such-plugin: there is none in /nowhere");
    assert!(!task.state.path().join("network.json").exists(), "nothing holds anything");
}
