//! A driver's library that says what it is told to: for tests, and for agents that only pretend.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{CriticalError, Description, Fault, Library};

/// Answers as NVML would on a machine with such GPUs.
#[derive(Default)]
pub struct Scripted {
    pub driver_version: String,
    /// By number.
    pub gpus: Mutex<Vec<Result<Description, Fault>>>,
    /// Told one after the other; then there are none.
    pub errors: Mutex<Vec<CriticalError>>,
}

impl Scripted {
    /// So many alike, named after `machine`.
    pub fn alike(machine: &str, count: usize) -> Scripted {
        let gpu = |number: usize| {
            Ok(Description {
                uuid: format!("GPU-{machine}-{number}"),
                minor: u32::try_from(number).unwrap_or(u32::MAX),
                model: "Simulated".to_owned(),
                memory_bytes: 80 << 30,
                divided: false,
            })
        };
        Scripted {
            driver_version: "0.0".to_owned(),
            gpus: Mutex::new((0..count).map(gpu).collect()),
            errors: Mutex::default(),
        }
    }
}

impl Library for Scripted {
    fn driver_version(&self) -> Result<String, Fault> {
        Ok(self.driver_version.clone())
    }

    fn count(&self) -> Result<u32, Fault> {
        let count = self.gpus.lock().unwrap_or_else(PoisonError::into_inner).len();
        u32::try_from(count).map_err(|_| Fault("too many".to_owned()))
    }

    fn describe(&self, index: u32) -> Result<Description, Fault> {
        let gpus = self.gpus.lock().unwrap_or_else(PoisonError::into_inner);
        let found = usize::try_from(index).ok().and_then(|index| gpus.get(index).cloned());
        found.unwrap_or_else(|| Err(Fault(format!("there is no GPU {index}"))))
    }

    fn next_error(&self, _patience: Duration) -> Result<Option<CriticalError>, Fault> {
        Ok(self.errors.lock().unwrap_or_else(PoisonError::into_inner).pop())
    }
}
