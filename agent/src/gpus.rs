//! The GPUs of this machine: which there are, which are fit for use, and what a task needs of them.
//!
//! The control plane gives out whole GPUs by number; which ones a task gets is decided here, when its
//! container is about to be made, and written into the ledger first: so none is ever given twice, whatever
//! dies. What the driver's library says comes through [`Library`], of which [`nvml`] is the real one.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use commonage_schemas::agent::AgentGpu;
use commonage_shim::Launch;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

mod driver;
pub mod nvml;
pub mod scripted;

/// Where the driver's device nodes are.
pub const DEV: &str = "/dev";
/// How long one wait for the driver's news may take; also how long a lost GPU may go unnoticed.
const NEWS_PATIENCE: Duration = Duration::from_secs(5);
/// Errors that a program causes, and that say nothing of its GPU. The list of NVIDIA's own device plugin for
/// Kubernetes: 13, 31, 43, 45, 68 and 109; see "XID Errors" in NVIDIA's documentation.
const APPLICATION_ERRORS: [u64; 6] = [13, 31, 43, 45, 68, 109];

/// Which of its GPUs an agent gives to tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// All there are; none, if there is no driver.
    #[default]
    Auto,
    None,
    /// These, by number or by UUID. It is an error if one is not there.
    Listed(Vec<String>),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Choice, String> {
        match text {
            "auto" => Ok(Choice::Auto),
            "none" => Ok(Choice::None),
            list => {
                let names: Vec<String> =
                    list.split(',').map(|name| name.trim().to_owned()).collect();
                let is_name =
                    |name: &String| name.starts_with("GPU-") || name.parse::<u32>().is_ok();
                match names.iter().find(|name| !is_name(name)) {
                    Some(name) => Err(format!(
                        "{name:?} is neither auto, none, the number of a GPU nor its UUID (GPU-…)"
                    )),
                    None => Ok(Choice::Listed(names)),
                }
            }
        }
    }
}

/// What the driver's library can be asked. Every call may block for some milliseconds.
pub trait Library: Send + Sync {
    /// Such as `550.54.15`.
    fn driver_version(&self) -> Result<String, Fault>;
    /// GPUs have the numbers below this.
    fn count(&self) -> Result<u32, Fault>;
    fn describe(&self, index: u32) -> Result<Description, Fault>;
    /// Waits for the next critical error of any GPU. `None`: there was none in time. A fault: errors are not
    /// told, and have to be looked for by [`Library::describe`].
    fn next_error(&self, patience: Duration) -> Result<Option<CriticalError>, Fault>;
}

/// Why the library does not answer, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub String);

/// One GPU, as the library has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    pub uuid: String,
    /// Of its device node, `/dev/nvidia<minor>`.
    pub minor: u32,
    pub model: String,
    pub memory_bytes: u64,
    /// It is cut into instances (MIG): there is no whole one to give.
    pub divided: bool,
}

/// An error after which a GPU is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CriticalError {
    /// Of which GPU; `None`: the driver can't say.
    pub uuid: Option<String>,
    /// NVIDIA's number of it.
    pub xid: Option<u64>,
}

/// The machine's GPUs could not be found out.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    #[error("--gpus {name}: this machine has {there}")]
    NotThere { name: String, there: String },
    #[error("GPUs can't be looked for: the driver's library {what}")]
    Library { what: String },
}

/// One GPU that is given to tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    pub index: u32,
    pub description: Description,
    trouble: Option<Trouble>,
}

/// Why a GPU is not given out.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Trouble {
    /// It does not answer; it may come back.
    Silent(String),
    /// It made an error that only a reset cures, after which the agent is started anew.
    Broken(String),
}

impl Gpu {
    /// Why it can't be given out, if so.
    fn trouble(&self) -> Option<String> {
        match &self.trouble {
            Some(Trouble::Silent(why) | Trouble::Broken(why)) => Some(why.clone()),
            None if self.description.divided => {
                Some("it is cut into instances (MIG), and only whole GPUs are given out".to_owned())
            }
            None => None,
        }
    }

    fn is_healthy(&self) -> bool {
        self.trouble().is_none()
    }
}

/// The GPUs of an agent. Cheap to clone.
#[derive(Clone)]
pub struct Gpus(Arc<Shared>);

struct Shared {
    library: Box<dyn Library>,
    driver_version: String,
    known: Mutex<Vec<Gpu>>,
    /// Where the device nodes are.
    dev: PathBuf,
    /// What programs in containers need of the driver.
    files: Vec<driver::DriverFile>,
}

impl Gpus {
    /// Looks for the machine's GPUs. `None`: it has none to give. Blocks.
    ///
    /// # Errors
    /// One that is listed is not there, or the library of a driver that is there does not work.
    pub fn detect(choice: &Choice) -> Result<Option<Gpus>, GpuError> {
        if *choice == Choice::None {
            return Ok(None);
        }
        let library = match nvml::Nvml::load() {
            Ok(library) => library,
            Err(Fault(what)) => {
                return match choice {
                    Choice::Listed(_) => Err(GpuError::Library { what }),
                    Choice::Auto | Choice::None => {
                        tracing::debug!(what, "no GPUs: the driver's library can't be used");
                        Ok(None)
                    }
                };
            }
        };
        Gpus::open(Box::new(library), choice, Path::new(DEV), driver::files())
    }

    /// The same with a library and a directory of device nodes of the caller's.
    ///
    /// # Errors
    /// As [`Gpus::detect`].
    pub fn with(
        library: impl Library + 'static,
        choice: &Choice,
        dev: &Path,
    ) -> Result<Option<Gpus>, GpuError> {
        Gpus::open(Box::new(library), choice, dev, Vec::new())
    }

    fn open(
        library: Box<dyn Library>,
        choice: &Choice,
        dev: &Path,
        files: Vec<driver::DriverFile>,
    ) -> Result<Option<Gpus>, GpuError> {
        let told = |Fault(what): Fault| GpuError::Library { what };
        let driver_version = library.driver_version().map_err(told)?;
        let count = library.count().map_err(told)?;
        let mut known: Vec<Gpu> = (0..count).map(|index| first_look(&*library, index)).collect();
        if let Choice::Listed(names) = choice {
            for name in names {
                if !known.iter().any(|gpu| is_named(gpu, name)) {
                    let there: Vec<String> = known
                        .iter()
                        .map(|gpu| format!("{} ({})", gpu.index, gpu.description.uuid))
                        .collect();
                    let there = match there.is_empty() {
                        true => "no GPUs".to_owned(),
                        false => format!("GPUs {}", there.join(", ")),
                    };
                    return Err(GpuError::NotThere { name: name.clone(), there });
                }
            }
            known.retain(|gpu| names.iter().any(|name| is_named(gpu, name)));
        }
        let dev = dev.to_owned();
        let known = Mutex::new(known);
        let gpus = Gpus(Arc::new(Shared { library, driver_version, known, dev, files }));
        Ok(Some(gpus).filter(|gpus| !gpus.known().is_empty()))
    }

    fn known(&self) -> MutexGuard<'_, Vec<Gpu>> {
        // Nothing that holds it can panic half way.
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are, and how many of them can be given to tasks.
    pub fn counts(&self) -> (usize, usize) {
        let known = self.known();
        (known.len(), known.iter().filter(|gpu| gpu.is_healthy()).count())
    }

    /// For the status of the Agent.
    pub fn told(&self) -> Vec<AgentGpu> {
        let known = self.known();
        let told = known.iter().map(|gpu| AgentGpu {
            uuid: gpu.description.uuid.clone(),
            index: i64::from(gpu.index),
            model: Some(gpu.description.model.clone()).filter(|model| !model.is_empty()),
            memory_bytes: i64::try_from(gpu.description.memory_bytes)
                .ok()
                .filter(|bytes| *bytes > 0),
            healthy: gpu.is_healthy(),
            message: gpu.trouble(),
        });
        told.collect()
    }

    /// For the Agent's labels, by which tasks choose: model, memory and driver, as far as all GPUs agree.
    pub fn labels(&self) -> Vec<(String, String)> {
        let known = self.known();
        let same = |of: fn(&Description) -> String| {
            let mut all = known.iter().map(|gpu| of(&gpu.description));
            let first = all.next()?;
            all.all(|other| other == first).then_some(first)
        };
        let model = same(|gpu| label_value(&gpu.model));
        let memory = same(|gpu| (gpu.memory_bytes >> 20).to_string());
        [
            ("commonage.dev/gpu-model", model),
            ("commonage.dev/gpu-memory-mib", memory),
            ("commonage.dev/gpu-driver", Some(label_value(&self.0.driver_version))),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value.filter(|v| !v.is_empty())?)))
        .collect()
    }

    /// Chooses so many that are healthy and not held, the lowest numbers first.
    ///
    /// # Errors
    /// There are not so many, in words.
    pub fn pick(&self, wanted: usize, held: &HashSet<&str>) -> Result<Vec<Gpu>, String> {
        let known = self.known();
        let free = known
            .iter()
            .filter(|gpu| gpu.is_healthy() && !held.contains(gpu.description.uuid.as_str()));
        let picked: Vec<Gpu> = free.take(wanted).cloned().collect();
        if picked.len() == wanted {
            return Ok(picked);
        }
        let troubles: Vec<String> = known
            .iter()
            .filter_map(|gpu| Some(format!("; {}: {}", gpu.description.uuid, gpu.trouble()?)))
            .collect();
        Err(format!(
            "it was promised {wanted} GPUs, and of the agent's {} only {} are healthy and free{}",
            known.len(),
            picked.len(),
            troubles.concat()
        ))
    }

    /// Puts into an order what its task needs to use these GPUs, and no others.
    ///
    /// # Errors
    /// The driver's device nodes are not there, in words.
    pub(crate) fn equip(&self, launch: &mut Launch, given: &[Gpu]) -> Result<(), String> {
        let minors: Vec<u32> = given.iter().map(|gpu| gpu.description.minor).collect();
        launch.devices = driver::devices(&self.0.dev, &minors)?;
        let uuids: Vec<&str> = given.iter().map(|gpu| gpu.description.uuid.as_str()).collect();
        let uuids = uuids.join(",");
        // An image's `all` is for runtimes that would obey it.
        launch.env.insert("NVIDIA_VISIBLE_DEVICES".to_owned(), uuids.clone());
        launch.env.entry("CUDA_VISIBLE_DEVICES".to_owned()).or_insert(uuids);
        driver::add_files(launch, &self.0.files);
        Ok(())
    }

    /// Looks after their health until `shutdown`; rings when it has changed.
    pub(crate) async fn watch(self, changed: Arc<Notify>, shutdown: CancellationToken) {
        loop {
            let gpus = self.clone();
            let look = tokio::task::spawn_blocking(move || gpus.look());
            let (different, tells) = tokio::select! {
                () = shutdown.cancelled() => return,
                look = look => look.unwrap_or((false, false)),
            };
            if different {
                changed.notify_one();
            }
            if !tells {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(NEWS_PATIENCE) => {}
                }
            }
        }
    }

    /// Waits for news for a while, then asks every GPU. Whether their health has changed, and whether the
    /// library tells news at all.
    fn look(&self) -> (bool, bool) {
        let before = self.told();
        let news = self.0.library.next_error(NEWS_PATIENCE);
        let tells = news.is_ok();
        if let Ok(Some(error)) = news {
            self.take_note(&error);
        }
        self.ask_all();
        (self.told() != before, tells)
    }

    /// A critical error: its GPU is not given out any more.
    fn take_note(&self, error: &CriticalError) {
        if error.xid.is_some_and(|xid| APPLICATION_ERRORS.contains(&xid)) {
            return;
        }
        let why = match error.xid {
            Some(xid) => format!("critical error: XID {xid}"),
            None => "critical error: uncorrectable memory".to_owned(),
        };
        for gpu in self.known().iter_mut() {
            // One that the driver does not name may be any of them.
            if error.uuid.as_ref().is_none_or(|uuid| *uuid == gpu.description.uuid) {
                tracing::error!(
                    uuid = gpu.description.uuid,
                    why,
                    "a GPU is not given out any more"
                );
                gpu.trouble = Some(Trouble::Broken(why.clone()));
            }
        }
    }

    fn ask_all(&self) {
        let indices: Vec<u32> = self.known().iter().map(|gpu| gpu.index).collect();
        for index in indices {
            let answer = self.0.library.describe(index);
            let mut known = self.known();
            let Some(gpu) = known.iter_mut().find(|gpu| gpu.index == index) else { continue };
            match (answer, &gpu.trouble) {
                (_, Some(Trouble::Broken(_))) => {}
                (Ok(now), _)
                    if now.uuid == gpu.description.uuid || gpu.description.uuid.is_empty() =>
                {
                    gpu.description = now;
                    gpu.trouble = None;
                }
                (Ok(now), _) => {
                    let why = format!("number {index} is another GPU now, {}", now.uuid);
                    gpu.trouble = Some(Trouble::Broken(format!("{why}: start the agent again")));
                }
                (Err(Fault(why)), _) => gpu.trouble = Some(Trouble::Silent(why)),
            }
        }
    }
}

fn first_look(library: &dyn Library, index: u32) -> Gpu {
    match library.describe(index) {
        Ok(description) => Gpu { index, description, trouble: None },
        Err(Fault(why)) => {
            let description = Description {
                uuid: String::new(),
                minor: index,
                model: String::new(),
                memory_bytes: 0,
                divided: false,
            };
            Gpu { index, description, trouble: Some(Trouble::Silent(why)) }
        }
    }
}

fn is_named(gpu: &Gpu, name: &str) -> bool {
    gpu.description.uuid == name || name.parse() == Ok(gpu.index)
}

/// What a label can hold: letters, digits, `-`, `_`, `.`, at most 63.
fn label_value(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let text: String = text.trim().chars().map(plain).take(63).collect();
    text.trim_matches(['-', '_', '.']).to_owned()
}

#[cfg(test)]
mod tests;
