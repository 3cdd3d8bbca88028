//! Who holds a Lease: a name that tells, on the same machine, whether its process still runs.
//!
//! A leader that was killed without a chance to let go is replaced when its Lease has run out, and
//! sooner by one that can see that it is dead. To be wrong here costs a change of leaders, nothing
//! else: the fence keeps out whoever was taken for dead.

use std::fs;

/// `HOST_MACHINE.BOOT.NAMESPACE.PID.START`: the host's name, and what makes a process unique.
pub fn identity() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let here = Here::new();
    let pid = std::process::id();
    let start = start_of(pid).unwrap_or_default();
    format!("{}_{}.{}.{}.{pid}.{start}", host.trim(), here.machine, here.boot, here.namespace)
}

/// Whether the holder certainly runs no more: it ran on this machine.
pub(super) fn is_dead(holder: &str) -> bool {
    is_dead_here(holder, &Here::new(), start_of)
}

/// What a process of this machine says about where it runs. Empty where that cannot be found out.
struct Here {
    machine: String,
    boot: String,
    namespace: String,
}

impl Here {
    fn new() -> Here {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let machine = read("/etc/machine-id");
        let boot = read("/proc/sys/kernel/random/boot_id");
        // `pid:[4026531836]`
        let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect();
        Here {
            machine: machine.trim().chars().take(12).collect(),
            boot: boot.trim().chars().filter(char::is_ascii_hexdigit).take(12).collect(),
            namespace: digits(&namespace.to_string_lossy()),
        }
    }
}

fn is_dead_here(holder: &str, here: &Here, start_of: impl Fn(u32) -> Option<u64>) -> bool {
    let Some((_, process)) = holder.rsplit_once('_') else { return false };
    let parts: Vec<&str> = process.split('.').collect();
    let &[machine, boot, namespace, pid, start] = parts.as_slice() else { return false };
    if boot.is_empty() || here.boot.is_empty() {
        return false;
    }
    if boot != here.boot {
        // Another machine, or this one before it was started again.
        return !machine.is_empty() && machine == here.machine;
    }
    let (Ok(pid), Ok(start)) = (pid.parse(), start.parse::<u64>()) else { return false };
    !namespace.is_empty() && namespace == here.namespace && start_of(pid) != Some(start)
}

/// When a process started, in ticks since the machine did; `None` if there is none.
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything. State is the first field behind it, the start
    // the twentieth.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_alive_and_nobody_else_is_known_to_be_dead() {
        assert!(!is_dead(&identity()), "{}", identity());
        for stranger in ["", "host", "host_uuid", "host_a.b.c.d.e", "node-1_9f.8e.1.7.5"] {
            assert!(!is_dead(stranger), "{stranger}");
        }
    }

    #[test]
    fn the_dead_of_this_machine_are_known() {
        let here = Here { machine: "m".into(), boot: "b".into(), namespace: "1".into() };
        let running = |pid| (pid == 7).then_some(100);
        let is_dead = |holder| is_dead_here(holder, &here, running);
        assert!(!is_dead("host_m.b.1.7.100"), "it runs");
        assert!(is_dead("host_m.b.1.7.99"), "another process has its number");
        assert!(is_dead("my_host_m.b.1.8.100"), "no process has its number");
        assert!(is_dead("host_m.a.1.7.100"), "the machine was started again");
        assert!(!is_dead("host_n.a.1.7.100"), "another machine");
        assert!(!is_dead("host_.a.1.7.100"), "a machine without a name");
        assert!(!is_dead("host_m.b.2.8.100"), "another namespace of processes");
    }
}
