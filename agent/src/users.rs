//! Users of containers that are not the machine's: who has such, and which numbers they get.

use std::collections::HashSet;
use std::path::Path;
use std::str::FromStr;

use commonage_schemas::Task;
use commonage_shim::launch::IdRange;

/// Numbers of one container: as many as any image uses.
const IDS: u32 = 65_536;
/// The first number that is given out. Below it are the machine's own and what usermod(8) gives to its users.
const FIRST: u32 = 0x2000_0000;
/// How many ranges there are, up to number 1,610,612,735: below what systemd takes for containers of its own.
const RANGES: u32 = 16_384;

/// Which tasks have users of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UserNamespaces {
    /// Those that ask for it.
    #[default]
    Off,
    /// Those that do not refuse it, as far as it is possible.
    On,
    /// All of them.
    Required,
}

impl FromStr for UserNamespaces {
    type Err = String;

    fn from_str(text: &str) -> Result<UserNamespaces, String> {
        match text {
            "off" => Ok(UserNamespaces::Off),
            "on" => Ok(UserNamespaces::On),
            "required" => Ok(UserNamespaces::Required),
            other => Err(format!("{other:?} is neither off, on nor required")),
        }
    }
}

/// Why this machine's kernel makes no user namespaces; `None`: it does.
pub fn impossible() -> Option<String> {
    if !Path::new("/proc/self/ns/user").exists() {
        return Some("the kernel has no user namespaces (CONFIG_USER_NS)".to_owned());
    }
    let most = std::fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    (most.trim() == "0").then(|| "user.max_user_namespaces is 0 (sysctl)".to_owned())
}

/// Whether a task gets users of its own.
///
/// # Errors
/// It must and cannot, or must not and has to; in words, with the field's name.
pub fn wanted(
    task: &Task,
    agent: UserNamespaces,
    impossible: Option<&str>,
) -> Result<bool, String> {
    const FIELD: &str = "spec.container.userNamespace";
    let asked = task.spec.container.user_namespace;
    let in_group = task.spec.group.as_ref().map(|_| {
        "the tasks of a group share namespaces that belong to the machine's users".to_owned()
    });
    let obstacle = in_group.or(impossible.map(str::to_owned));
    match (asked, agent, obstacle) {
        (Some(false), UserNamespaces::Required, _) => Err(format!(
            "{FIELD}: this agent runs no task without (cmn agent --user-namespaces required)"
        )),
        (Some(true), _, Some(why)) => Err(format!("{FIELD}: not possible: {why}")),
        (None, UserNamespaces::Required, Some(why)) => Err(format!(
            "{FIELD}: this agent runs no task without, and here it is not possible: {why}"
        )),
        (Some(asked), _, _) => Ok(asked),
        (None, UserNamespaces::Off, _) => Ok(false),
        (None, UserNamespaces::On | UserNamespaces::Required, obstacle) => Ok(obstacle.is_none()),
    }
}

/// A range that no other task of this agent has, and hardly one of another agent of the machine.
pub fn range_of(uid: &str, taken: &HashSet<u32>) -> IdRange {
    // FNV-1a, as good as any.
    let hash = uid
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let ranges = (0..RANGES).map(|step| FIRST + (hash % RANGES + step) % RANGES * IDS);
    let mut ranges = ranges.map(|first| IdRange { first, count: IDS });
    let own = ranges.clone().next().unwrap_or(IdRange { first: FIRST, count: IDS });
    ranges.find(|range| !taken.contains(&range.first)).unwrap_or(own)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn task(asked: Option<bool>, group: Option<&str>) -> Task {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "commonage.dev/v1", "kind": "Task", "metadata": {"name": "t"},
            "spec": {"group": group, "container": {"userNamespace": asked}},
        }))
        .unwrap()
    }

    #[test]
    fn the_task_the_agent_and_the_kernel_have_a_say() {
        use UserNamespaces::*;
        let none = Some("no such kernel");
        for (asked, agent, impossible, want) in [
            (None, Off, None, Some(false)),
            (None, On, None, Some(true)),
            (None, Required, None, Some(true)),
            (Some(true), Off, None, Some(true)),
            (Some(false), On, None, Some(false)),
            (Some(false), Required, None, None),
            (None, Off, none, Some(false)),
            (None, On, none, Some(false)),
            (None, Required, none, None),
            (Some(true), Off, none, None),
            (Some(false), On, none, Some(false)),
        ] {
            let got = wanted(&task(asked, None), agent, impossible);
            assert_eq!(got.clone().ok(), want, "{asked:?} {agent:?} {impossible:?}: {got:?}");
            assert!(got.is_ok() || got.unwrap_err().starts_with("spec.container.userNamespace: "));
        }
        assert!(wanted(&task(Some(true), Some("g")), On, None).unwrap_err().contains("group"));
        assert_eq!(wanted(&task(None, Some("g")), On, None), Ok(false));
        assert_eq!("on".parse(), Ok(On));
        assert!("yes".parse::<UserNamespaces>().is_err());
    }

    #[test]
    fn ranges_do_not_overlap() {
        let one = range_of("u-1", &HashSet::new());
        let next = range_of("u-1", &HashSet::from([one.first]));
        assert!(one.first.abs_diff(next.first) >= IDS);
        assert!((FIRST..0x6000_0000).contains(&one.first) && one.first.is_multiple_of(IDS));
        assert_eq!(FIRST + (RANGES - 1) * IDS + (IDS - 1), 1_610_612_735);
    }
}
