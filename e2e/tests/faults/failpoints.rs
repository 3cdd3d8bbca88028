//! A task's life with a death at every step of it: F-05 to F-08, F-70, F-77.
//!
//! Each case is one failpoint on an agent of its own. Its task has an effect that the machine remembers: a line in
//! a file, for each time that its command was started. When the failpoint is reached its process dies; or it stands
//! still, and agent, shim and container are all killed together; or it only takes its time. What died is started
//! again, and then: the command was never started twice, the task's states are a path to the right end, and
//! nothing of it is left on the machine.

use std::path::PathBuf;

use commonage_e2e::faults::field::{Field, Seat};
use commonage_e2e::registry::{Registry, Rootfs};
use commonage_e2e::{eventually, soon};
use commonage_failpoint::{ALL, VARIABLE};
use commonage_schemas::{Task, TaskState, reasons};
use futures::StreamExt;
use kube::api::PostParams;
use serde_json::json;

/// Cases at once: the processors of a small machine are busy with a few.
const AT_ONCE: usize = 6;
const EXIT_CODE: i32 = 3;

/// What happens at a failpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    /// Of the process that gets there.
    Own,
    /// Of agent, shim and container together.
    Everybody,
    /// Nobody's: it goes on, late.
    Nobody,
}

/// How the task is brought to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finale {
    /// It returns by itself.
    Returns,
    /// It is told to end.
    Killed,
}

#[derive(Clone, Debug)]
struct Case {
    point: &'static str,
    turn: u32,
    death: Death,
    finale: Finale,
}

impl Case {
    /// All there are: every failpoint with either death; those that a life passes twice, also at the second time.
    fn all() -> Vec<Case> {
        let mut all = Vec::new();
        for point in ALL {
            for death in [Death::Own, Death::Everybody, Death::Nobody] {
                all.push(Case { point, turn: 1, death, finale: Finale::Returns });
            }
        }
        let again = [
            ("agent.ledger_tmp_written", Finale::Killed),
            ("agent.ledger_renamed", Finale::Killed),
            ("agent.after_status_persist_before_send", Finale::Returns),
            ("agent.after_send_before_ack", Finale::Returns),
        ];
        for (point, finale) in again {
            all.push(Case { point, turn: 2, death: Death::Own, finale });
        }
        all
    }

    fn name(&self) -> String {
        let death = match self.death {
            Death::Own => "",
            Death::Everybody => "-all",
            Death::Nobody => "-late",
        };
        format!("{}-{}{death}", self.point.replace(['.', '_'], "-"), self.turn)
    }

    fn armed(&self) -> String {
        let action = match self.death {
            Death::Own => "",
            Death::Everybody => ":stop",
            Death::Nobody => ":pause",
        };
        format!("{}{action}@{}", self.point, self.turn)
    }

    /// Whether the failpoint is reached while the command runs: then it has to go on until that has happened.
    fn is_while_it_runs(&self) -> bool {
        let reports = [
            "agent.after_shim_before_report",
            "agent.after_status_persist_before_send",
            "agent.after_send_before_ack",
        ];
        self.turn == 1 && reports.contains(&self.point)
    }

    /// How often the command may have been started, and how the task ends.
    fn expected(&self) -> (std::ops::RangeInclusive<usize>, &'static [&'static str]) {
        let own = match self.finale {
            Finale::Returns => &[reasons::task::EXIT_CODE][..],
            Finale::Killed => &["Wanted"],
        };
        let everybody = self.death == Death::Everybody;
        match self.point {
            _ if self.death == Death::Nobody => (1..=1, own),
            // Nobody but the shim knows of the command's end.
            "shim.after_exit_before_report" => (1..=1, &[reasons::task::SHIM_LOST]),
            "shim.after_report_before_cleanup" | "shim.after_cgroup_removed" => (1..=1, own),
            point if point.starts_with("shim.") => (0..=0, &[reasons::task::SHIM_LOST]),
            // The container is there already and dies with everybody, perhaps before its first line.
            _ if everybody && self.is_while_it_runs() => (0..=1, &[reasons::task::SHIM_LOST]),
            _ => (1..=1, own),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f06_whatever_dies_at_any_step_no_task_runs_twice_and_nothing_is_left() {
    let wanted = std::env::var("CMN_FAILPOINT").unwrap_or_default();
    let cases: Vec<Case> =
        Case::all().into_iter().filter(|case| case.name().contains(&wanted)).collect();
    let names: Vec<String> = cases.iter().map(Case::name).collect();
    let field = &Field::start(&names, &[]).await.unwrap();
    let registry = Registry::open();
    registry.push("box:1", &Rootfs::busybox());
    let image = &registry.image("box:1");
    // Side by side in one task: they wait for processes most of the time.
    let lives = cases.iter().map(|case| async move {
        let wrong = Life::new(field, case).live(image).await;
        wrong.map(|wrong| format!("{}: {wrong}", case.name()))
    });
    let ended: Vec<Option<String>> =
        futures::stream::iter(lives).buffer_unordered(AT_ONCE).collect().await;
    let wrong: Vec<String> = ended.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// One case, from the creation of its task until nothing is left.
struct Life<'a> {
    field: &'a Field,
    case: &'a Case,
    seat: Seat,
    /// Where the command's effects are.
    mark: PathBuf,
    died: bool,
    /// The task as it was last seen.
    last: Option<Task>,
    deleted: bool,
}

impl<'a> Life<'a> {
    fn new(field: &'a Field, case: &'a Case) -> Life<'a> {
        let mark = field.dir().join(format!("mark-{}", case.name()));
        std::fs::create_dir(&mark).unwrap();
        let seat = field.agent(&case.name());
        Life { field, case, seat, mark, died: false, last: None, deleted: false }
    }

    /// Returns what is wrong, if anything.
    async fn live(mut self, image: &str) -> Option<String> {
        let name = self.case.name();
        self.start(&[(VARIABLE, &self.case.armed())]);
        self.field.until_ready(&self.seat).await;
        let script = format!(
            "echo started >> /mnt-mark/starts; until [ -e /mnt-mark/go ]; do sleep 0.05; done; exit {EXIT_CODE}"
        );
        let mut container = json!({
            "command": ["sh", "-c", script],
            "mounts": [{"path": "/mnt-mark", "hostPath": self.mark}],
        });
        if self.case.point.starts_with("image.") {
            container["image"] = image.into();
        }
        let spec = json!({
            "agent": self.seat.name,
            "resources": {"cpu": "1m", "memory": "16Mi"},
        "limits": {"cpu": "1", "memory": "16Mi"},
            "killPolicy": {"gracePeriodSeconds": 0},
            "container": container,
        });
        self.field.create(&name, spec).await.unwrap();
        soon(&format!("the end of {name}"), async || self.step().await).await;
        self.seat.stop();
        let wrong = self.judge();
        (!wrong.is_empty()).then(|| format!("{}\n{}", wrong.join("\n"), self.seat.printed()))
    }

    fn start(&mut self, variables: &[(&str, &str)]) {
        let arguments = ["--keep-deleted-logs", "0s", "-v"];
        self.seat.start(&arguments, variables).unwrap();
    }

    /// Brings the task one step further; done when nothing is left to do.
    async fn step(&mut self) -> Result<(), String> {
        if !self.died && self.has_reached() {
            self.died = true;
            if self.case.death != Death::Nobody {
                self.die();
                self.start(&[]);
            }
        }
        let starts = self.starts();
        let name = self.case.name();
        let task = self.field.tasks().get_opt(&name).await.map_err(|error| error.to_string())?;
        match &task {
            // With the task goes its shim's log, which may say that it died there.
            Some(_) if !self.died && self.has_reached() => {}
            Some(task) if task.state().is_terminal() && !self.deleted => {
                self.field.delete(&name).await.map_err(|error| error.to_string())?;
                self.deleted = true;
            }
            Some(_) if starts > 0 && (self.died || !self.case.is_while_it_runs()) => {
                self.end().await;
            }
            _ => {}
        }
        if task.is_some() {
            self.last = task;
            return Err(format!("{:?}", self.last.as_ref().map(|task| &task.status)));
        }
        match self.seat.ledger() {
            left if !left.is_empty() => Err(format!("in the ledger: {left:?}")),
            // One that dies at the very end of its work is seen to have died a moment later.
            _ if !self.died => Err("the failpoint was not reached".to_owned()),
            _ => Ok(()),
        }
    }

    fn starts(&self) -> usize {
        let text = std::fs::read_to_string(self.mark.join("starts")).unwrap_or_default();
        text.lines().count()
    }

    /// Lets the running command end, or has it ended.
    async fn end(&self) {
        if self.case.finale == Finale::Returns {
            return std::fs::write(self.mark.join("go"), "").unwrap();
        }
        let running = self.last.as_ref().is_some_and(|task| task.state() == TaskState::Running);
        if running {
            let kill = json!({
                "apiVersion": "commonage.dev/v1", "kind": "TaskKill",
                "reason": "Wanted", "message": "by the test", "gracePeriodSeconds": 0,
            });
            // A second order changes nothing, and a task that has ended takes none.
            let _ = self
                .field
                .tasks()
                .create_subresource::<_, Task>(
                    "kill",
                    &self.case.name(),
                    &PostParams::default(),
                    &kill,
                )
                .await;
        }
    }

    /// Whether some process has said that it is at the failpoint.
    fn has_reached(&self) -> bool {
        let word = format!("failpoint {}\n", self.case.point);
        let shims = self.seat.ledger().into_iter().map(|dir| dir.join("shim.log"));
        let mut logs = shims.map(|log| std::fs::read_to_string(log).unwrap_or_default());
        self.seat.printed().contains(&word) || logs.any(|log| log.contains(&word))
    }

    /// What is to die dies.
    fn die(&mut self) {
        if self.case.death == Death::Own && self.case.point.starts_with("shim.") {
            // The shim has died, or else the agent that did the same in its place.
            return self.seat.kill();
        }
        if self.case.death == Death::Own {
            eventually("the agent to be dead", || match self.seat.runs() {
                false => Ok(()),
                true => Err(self.seat.printed()),
            });
            return;
        }
        self.seat.kill();
        self.seat.kill_tasks(true);
    }

    /// All that is wrong with how it went.
    fn judge(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let (starts, reasons) = self.case.expected();
        if !starts.contains(&self.starts()) {
            wrong.push(format!("the command was started {} times", self.starts()));
        }
        let Some(task) = &self.last else { return vec!["the task was never seen".to_owned()] };
        let status = task.status.clone().unwrap_or_default();
        if !reasons.contains(&status.reason.as_deref().unwrap_or_default()) {
            wrong.push(format!("it ended otherwise than by {reasons:?}: {status:?}"));
        }
        let states: Vec<TaskState> = status.history.iter().map(|change| change.state).collect();
        let is_path = states.windows(2).all(|two| two[0] != two[1] && two[0].can_become(two[1]));
        let ends = states.iter().filter(|state| state.is_terminal()).count();
        let silent =
            states.iter().any(|state| matches!(state, TaskState::Unreachable | TaskState::Lost));
        if !is_path || ends != 1 || silent || states.last() != Some(&task.state()) {
            wrong.push(format!("its states were {states:?}"));
        }
        let left = self.seat.left_over();
        if !left.is_empty() {
            wrong.push(format!("left over: {left:#?}"));
        }
        let half = std::fs::read_dir(self.seat.data_dir.join("agent/images/tmp"));
        let half = half.into_iter().flatten().flatten().count();
        if half != 0 {
            wrong.push(format!("{half} half-made layers are left"));
        }
        wrong
    }
}
