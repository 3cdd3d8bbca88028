//! Why those wait that do, for people.

use commonage_allocator::{WaitingFor, Why};
use commonage_schemas::{
    Task,
    names::{DEFAULT_FRAMEWORK, DEFAULT_QUEUE},
    reasons,
    task::{Excluded, WhyPending},
};
use serde_json::{Value, json};

/// Why a task waits: the reason, and words.
pub(super) fn in_words(task: &Task, why: &Why) -> (&'static str, String) {
    match why.waiting_for {
        WaitingFor::Framework => (reasons::task::FRAMEWORK_NOT_FOUND, "its framework does not exist in this namespace".to_owned()),
        WaitingFor::Queue => (
            reasons::task::QUEUE_NOT_OF_FRAMEWORK,
            format!(
                "its framework {} does not list queue {}",
                task.spec.framework.as_deref().unwrap_or(DEFAULT_FRAMEWORK),
                task.spec.queue.as_deref().unwrap_or(DEFAULT_QUEUE),
            ),
        ),
        WaitingFor::ActiveFramework => (reasons::task::WAITING_FOR_FRAMEWORK, "its framework's scheduler is away".to_owned()),
        WaitingFor::Launch => (
            reasons::task::WAITING_FOR_FRAMEWORK,
            "its framework answers offers itself: launch the task on an offer, or set the framework's placement to Tasks".to_owned(),
        ),
        WaitingFor::Gang => (reasons::task::WAITING_FOR_RESOURCES, "its gang is not complete".to_owned()),
        WaitingFor::Resources => (reasons::task::WAITING_FOR_RESOURCES, exclusions(why)),
    }
}

pub(super) fn explanation(task: &Task, why: &Why) -> Value {
    let (reason, message) = in_words(task, why);
    let excluded =
        why.excluded.iter().map(|e| Excluded { by: e.by.clone(), agents: e.agents as i64 });
    let pending = WhyPending { agents: why.agents as i64, excluded: excluded.collect() };
    json!({"reason": reason, "message": message, "whyPending": pending})
}

/// `3 agents: 2 without enough memory, 1 unschedulable`.
pub(super) fn exclusions(why: &Why) -> String {
    if why.agents == 0 {
        return "there are no agents: start one with `cmn agent`".to_owned();
    }
    let each: Vec<String> = why
        .excluded
        .iter()
        .map(|e| {
            let n = e.agents;
            match e.by.as_str() {
                "notReady" => format!("{n} not ready"),
                "unschedulable" => format!("{n} unschedulable"),
                "diskPressure" => format!("{n} whose disk is nearly full"),
                "draining" => format!("{n} draining"),
                "constraints" => format!("{n} excluded by constraints"),
                "antiAffinity" => format!("{n} excluded by anti-affinity"),
                "offered" => format!("{n} with resources that are offered to others now"),
                "queueLimit" => format!("{n} beyond the queue's limit"),
                "headroom" => format!("{n} kept free for what other queues are guaranteed"),
                "gang" => format!("{n} without room for the whole gang"),
                "group" => format!("{n} without room for the whole group"),
                "ports" => format!("{n} without the ports that it asks for"),
                resource => format!("{n} without enough {resource}"),
            }
        })
        .collect();
    let agents =
        if why.agents == 1 { "1 agent".to_owned() } else { format!("{} agents", why.agents) };
    let mut words = format!("{agents}: {}", each.join(", "));
    if let Some(ports) = &why.no_such_ports {
        let what = if ports.asked.len() == 1 { "port" } else { "ports" };
        words.push_str(&format!(
            "; {what} {} will never be free: agents have {} (hostPort 0 takes any of them)",
            ports.asked, ports.there_are
        ));
    }
    words
}
