//! The tasks that fault tests run, and what is asked of them.

use std::path::Path;

use commonage_e2e::faults::field::{Field, Seat};
use commonage_schemas::{Task, TaskState};
use serde_json::{Value, json};

/// Of agents whose ledger is looked at: what is over is forgotten at once.
pub(crate) const ARGUMENTS: [&str; 3] = ["--keep-deleted-logs", "0s", "-v"];

/// A field with one agent, which runs.
pub(crate) async fn field_with_agent() -> (Field, Seat) {
    field_with(&[]).await
}

/// The same with more arguments for the agent.
pub(crate) async fn field_with(arguments: &[&str]) -> (Field, Seat) {
    let field = Field::start(&["node"], &[]).await.unwrap();
    let mut seat = field.agent("node");
    seat.start(&[&ARGUMENTS[..], arguments].concat(), &[]).unwrap();
    field.until_ready(&seat).await;
    (field, seat)
}

/// Of little, so that many fit.
pub(crate) fn sh(script: &str) -> Value {
    json!({
        "resources": {"cpu": "1m", "memory": "16Mi"},
        "limits": {"cpu": "1", "memory": "16Mi"},
        "killPolicy": {"gracePeriodSeconds": 1},
        "container": {"command": ["sh", "-c", script]},
    })
}

/// The same in an image.
pub(crate) fn sh_in(image: &str, script: &str) -> Value {
    let mut spec = sh(script);
    spec["container"]["image"] = image.into();
    spec
}

/// Runs until it is told to end, and then ends at once.
pub(crate) const ENDLESS: &str = "while :; do sleep 0.2; done";

/// One that runs on, on an agent by what the test calls it.
pub(crate) fn endless(field: &Field, agent: &str) -> Value {
    let mut spec = sh(ENDLESS);
    spec["agent"] = field.name_of(agent).into();
    spec
}

/// Runs until somebody makes the file `go` in `dir`, and says that it has begun by a line in `starts`.
pub(crate) fn waits(dir: &Path) -> Value {
    let mut spec =
        sh("echo x >> /mnt-mark/starts; until [ -e /mnt-mark/go ]; do sleep 0.1; done; exit 3");
    spec["container"]["mounts"] = json!([{"path": "/mnt-mark", "hostPath": dir}]);
    spec
}

/// How often the command of one that waits was started.
pub(crate) fn starts(dir: &Path) -> usize {
    std::fs::read_to_string(dir.join("starts")).unwrap_or_default().lines().count()
}

pub(crate) fn states(task: &Task) -> Vec<TaskState> {
    task.status.iter().flat_map(|status| &status.history).map(|change| change.state).collect()
}

pub(crate) fn reason(task: &Task) -> String {
    task.status.as_ref().and_then(|status| status.reason.clone()).unwrap_or_default()
}

pub(crate) fn message(task: &Task) -> String {
    task.status.as_ref().and_then(|status| status.message.clone()).unwrap_or_default()
}

pub(crate) fn container(task: &Task) -> Option<String> {
    task.status.as_ref()?.container_id.clone()
}

pub(crate) fn is(state: TaskState) -> impl Fn(&Task) -> bool {
    move |task| task.state() == state
}

pub(crate) fn has_ended(task: &Task) -> bool {
    task.state().is_terminal()
}
