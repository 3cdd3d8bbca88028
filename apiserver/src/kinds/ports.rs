//! Host ports of a task: which are given, which are to be picked.

use commonage_schemas::resources::Ranges;
use serde_json::{Value, json};

/// The host ports of `spec.container.ports`, in order; 0 where one is to be picked.
pub(super) fn host_ports(task: &Value) -> Vec<u16> {
    let ports = task["spec"]["container"]["ports"].as_array();
    ports.into_iter().flatten().map(host_port).collect()
}

fn host_port(port: &Value) -> u16 {
    port["hostPort"].as_u64().and_then(|number| u16::try_from(number).ok()).unwrap_or(0)
}

/// Puts the picked numbers where the task left them open, in order. `Err` with the count of open
/// ones when that is another.
pub(super) fn fill(task: &mut Value, picked: &[u16]) -> Result<(), usize> {
    let open = host_ports(task).iter().filter(|number| **number == 0).count();
    if open != picked.len() {
        return Err(open);
    }
    // (Indexing mutably would put a null where there are no ports.)
    let ports = task.pointer_mut("/spec/container/ports").and_then(Value::as_array_mut);
    let open = ports.into_iter().flatten().filter(|port| host_port(port) == 0);
    for (port, number) in open.zip(picked) {
        port["hostPort"] = json!(number);
    }
    Ok(())
}

/// Keeps what was picked for the ports that an update leaves open: whoever applies the text of which
/// the task was made again has not changed it. (A Service keeps its node ports in the same way.)
pub(super) fn keep(old: &Value, new: &mut Value) {
    let picked = host_ports(old);
    let ports = new.pointer_mut("/spec/container/ports").and_then(Value::as_array_mut);
    for (port, number) in ports.into_iter().flatten().zip(picked) {
        if host_port(port) == 0 {
            port["hostPort"] = json!(number);
        }
    }
}

/// The lowest numbers for the open ports of a task: out of those that its own resources name, else
/// out of `free`, from which they are then taken. `None` when there are too few.
pub(super) fn pick(task: &Value, own: Option<&Ranges>, free: &mut Ranges) -> Option<Vec<u16>> {
    let given = host_ports(task);
    let open = given.iter().filter(|number| **number == 0).count();
    if open == 0 {
        return Some(Vec::new());
    }
    if let Some(own) = own.filter(|own| !own.is_empty()) {
        let used = Ranges::from_pairs(
            given.iter().filter(|number| **number != 0).map(|number| (*number, *number)),
        );
        return Some(own.subtract(&used).take(open)?.0);
    }
    let (picked, rest) = free.take(open)?;
    *free = rest;
    Some(picked)
}
