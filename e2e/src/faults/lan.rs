//! Several machines on one: network namespaces behind a bridge. Needs root, `ip` and `iptables`.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::run;

/// What a machine's cable does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    None,
    /// It is pulled.
    Cut,
    /// What is sent to the machine does not arrive; what it sends does.
    Deaf,
    /// What the machine sends does not arrive; what is sent to it does.
    Mute,
}

/// A bridge with one namespace per machine behind it. Removed with all of them when dropped.
#[derive(Debug)]
pub struct Lan {
    /// Of all names; as many letters as an interface may have with a number behind them.
    tag: String,
    /// The second and third numbers of the addresses.
    net: (u8, u8),
    count: usize,
}

impl Lan {
    pub fn make(count: usize) -> anyhow::Result<Lan> {
        // Several of one process, and of processes side by side.
        static MADE: AtomicU8 = AtomicU8::new(0);
        let turn = MADE.fetch_add(1, Ordering::Relaxed) % 10;
        let own = std::process::id();
        let net = (213 + turn, u8::try_from(own % 200 + 20)?);
        let lan = Lan { tag: format!("cmf{:x}{turn}", own % 0xfffff), net, count };
        let Lan { tag, .. } = &lan;
        ip(&format!("link add {tag} type bridge"))?;
        ip(&format!("addr add {}/24 dev {tag}", lan.host()))?;
        ip(&format!("link set {tag} up"))?;
        for number in 0..count {
            let space = lan.namespace(number);
            ip(&format!("netns add {space}"))?;
            ip(&format!("link add {tag}-{number} type veth peer name eth0 netns {space}"))?;
            ip(&format!("link set {tag}-{number} master {tag} up"))?;
            let address = lan.address(number);
            ip(&format!("-n {space} addr add {address}/24 dev eth0"))?;
            ip(&format!("-n {space} link set eth0 up"))?;
            ip(&format!("-n {space} link set lo up"))?;
        }
        Ok(lan)
    }

    /// This machine, as the others see it.
    pub fn host(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.net.0, self.net.1, 254)
    }

    pub fn address(&self, number: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, self.net.0, self.net.1, u8::try_from(number + 1).expect("a few"))
    }

    /// For `ip netns exec`, which hides the control groups, or by [`Lan::path`].
    pub fn namespace(&self, number: usize) -> String {
        format!("{}-{number}", self.tag)
    }

    /// For `nsenter --net=`.
    pub fn path(&self, number: usize) -> String {
        format!("/run/netns/{}", self.namespace(number))
    }

    /// From now on, for connections that are open as well.
    pub fn harm(&self, number: usize, harm: Harm) {
        let state = if harm == Harm::Cut { "down" } else { "up" };
        ip(&format!("link set {}-{number} {state}", self.tag)).expect("set a link of ours");
        for (chain, dropping) in [("INPUT", Harm::Deaf), ("OUTPUT", Harm::Mute)] {
            self.iptables(number, &format!("-F {chain}"));
            if harm == dropping {
                self.iptables(number, &format!("-A {chain} -j DROP"));
            }
        }
    }

    fn iptables(&self, number: usize, words: &str) {
        let space = self.namespace(number);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &space, "iptables", "-w"]).args(words.split(' '));
        run(&mut command).ok();
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for number in 0..self.count {
            if let Err(error) = ip(&format!("netns del {}", self.namespace(number))) {
                eprintln!("{error}");
            }
        }
        if let Err(error) = ip(&format!("link del {}", self.tag)) {
            eprintln!("{error}");
        }
    }
}

fn ip(words: &str) -> anyhow::Result<()> {
    let output = run(Command::new("ip").args(words.split(' ')));
    anyhow::ensure!(output.code == 0, "ip {words}: {}", output.stderr);
    Ok(())
}
