//! Capabilities beyond, and short of, the set that every task has.
//!
//! Three have a say: the task's queue (asked by the API server), the agent, and the system call filter, which is
//! the same for all tasks: a capability whose calls it refuses would be a promise that nobody keeps.

use std::str::FromStr;

use commonage_schemas::capabilities::{DEFAULT, EVERY, bare};
use commonage_schemas::task::Container;
use commonage_shim::launch::Capabilities;

use super::{Leave, Refusal, unsupported};

/// Those for whose calls the filter has no leave to give, or that are the machine's and no container's.
const FUTILE: [&str; 14] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "BPF",
    "CHECKPOINT_RESTORE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "PERFMON",
    "SYSLOG",
    "SYS_BOOT",
    "SYS_MODULE",
    "SYS_PACCT",
    "SYS_RAWIO",
    "SYS_TTY_CONFIG",
];

/// The capabilities beyond the default set that an agent gives to those whose queues allow them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Allowed {
    #[default]
    All,
    /// These; may be none.
    Only(Vec<&'static str>),
}

impl FromStr for Allowed {
    type Err = String;

    fn from_str(text: &str) -> Result<Allowed, String> {
        match text {
            "all" => Ok(Allowed::All),
            "none" => Ok(Allowed::Only(Vec::new())),
            list => {
                let names = list.split(',').map(|name| {
                    bare(name.trim()).ok_or_else(|| {
                        format!("{name:?} is neither all, none nor a capability such as NET_ADMIN")
                    })
                });
                names.collect::<Result<_, _>>().map(Allowed::Only)
            }
        }
    }
}

impl Allowed {
    fn allows(&self, name: &str) -> bool {
        match self {
            Allowed::All => true,
            Allowed::Only(names) => names.contains(&name),
        }
    }
}

/// What a container is to have more and less.
///
/// # Errors
/// The first name that is none, that this agent does not give, or that would be of no use.
pub(super) fn of(container: &Container, leave: &Leave) -> Result<Capabilities, Refusal> {
    let mut wanted: Vec<&str> = Vec::new();
    for (place, text) in container.capabilities.iter().enumerate() {
        let field = format!("spec.container.capabilities[{place}]");
        let refuse = |why: &str| Err(unsupported(format!("{field}: {text:?} {why}")));
        let Some(name) = bare(text) else {
            return refuse("is not the name of a capability");
        };
        let extra = !DEFAULT.contains(&name);
        if extra && FUTILE.contains(&name) {
            return refuse(
                "would be of no use: the system call filter that all tasks have refuses its calls",
            );
        }
        if extra && !leave.capabilities.allows(name) {
            return refuse("is not given by this agent (cmn agent --task-capabilities)");
        }
        wanted.push(name);
    }
    let drops = |name: &str| {
        let named = container.drop_capabilities.iter().any(|text| bare(text) == Some(name));
        let every = container.drop_capabilities.iter().any(|text| text == EVERY);
        named || (every && !wanted.contains(&name))
    };
    let full = |name: &str| format!("CAP_{name}");
    Ok(Capabilities {
        add: wanted.iter().copied().filter(|name| !drops(name)).map(full).collect(),
        drop: DEFAULT.into_iter().filter(|name| drops(name)).map(full).collect(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn container(add: &[&str], drop: &[&str]) -> Container {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Container {
            capabilities: owned(add),
            drop_capabilities: owned(drop),
            ..Container::default()
        }
    }

    #[test]
    fn the_default_set_is_the_shims() {
        let full = DEFAULT.map(|name| format!("CAP_{name}"));
        assert_eq!(full.each_ref().map(String::as_str).as_slice(), commonage_shim::CAPABILITIES);
    }

    #[test]
    fn what_is_added_and_dropped_is_the_difference_to_the_default() {
        let leave = Leave::default();
        let plain = of(&container(&["cap_net_admin"], &["KILL"]), &leave).unwrap();
        assert_eq!(
            (plain.add, plain.drop),
            (vec!["CAP_NET_ADMIN".to_owned()], vec!["CAP_KILL".to_owned()])
        );
        let few = of(&container(&["NET_BIND_SERVICE"], &["ALL"]), &leave).unwrap();
        assert_eq!(few.add, ["CAP_NET_BIND_SERVICE"]);
        assert_eq!(few.drop.len(), DEFAULT.len() - 1);
        assert!(!few.drop.contains(&"CAP_NET_BIND_SERVICE".to_owned()));
        let both = of(&container(&["KILL"], &["KILL"]), &leave).unwrap();
        assert!(both.add.is_empty(), "what is dropped by name is dropped");
    }

    #[test]
    fn refusals_say_whose_they_are() {
        let only =
            Leave { capabilities: "NET_ADMIN, sys_nice".parse().unwrap(), ..Leave::default() };
        assert!(of(&container(&["NET_ADMIN", "SYS_NICE", "CHOWN"], &[]), &only).is_ok());
        let said =
            |names: &[&str], leave: &Leave| of(&container(names, &[]), leave).unwrap_err().message;
        let agent = said(&["CHOWN", "SYS_TIME"], &only);
        assert_eq!(
            agent,
            "spec.container.capabilities[1]: \"SYS_TIME\" is not given by this agent (cmn agent --task-capabilities)"
        );
        assert!(said(&["SYS_MODULE"], &Leave::default()).contains("system call filter"));
        assert!(said(&["ALL"], &Leave::default()).contains("not the name"));
        assert_eq!("none".parse(), Ok(Allowed::Only(Vec::new())));
        assert!("everything".parse::<Allowed>().unwrap_err().contains("all, none"));
    }
}
