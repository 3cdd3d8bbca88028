//! NVIDIA's management library, which comes with the driver and is loaded when an agent starts: there is nothing
//! of it in the executable, and a machine without GPUs does not need it.

use std::ffi::OsStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nvml_wrapper::Nvml as Loaded;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, EventSet};

use super::{CriticalError, Description, Fault, Library};

/// What the driver installs. The name without a number belongs to packages for developers.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// The library of this machine's driver.
pub struct Nvml {
    /// Loaded once and never let go: what it gives out lives as long as it does.
    library: &'static Loaded,
    /// Of all GPUs; `None` where the driver does not tell. One waits at a time.
    events: Mutex<Option<EventSet<'static>>>,
}

impl Nvml {
    /// Loads the library.
    ///
    /// # Errors
    /// There is none, or it finds no driver.
    pub fn load() -> Result<Nvml, Fault> {
        Nvml::load_from(OsStr::new(LIBRARY))
    }

    fn load_from(library: &OsStr) -> Result<Nvml, Fault> {
        let loaded = Loaded::builder().lib_path(library).init().map_err(told)?;
        let library: &'static Loaded = Box::leak(Box::new(loaded));
        Ok(Nvml { library, events: Mutex::new(subscribe(library)) })
    }

    fn device(&self, index: u32) -> Result<Device<'static>, Fault> {
        self.library.device_by_index(index).map_err(told)
    }
}

/// To what makes a GPU unfit. One that can't tell costs the set that it was to be added to; then its health is
/// only asked for.
fn subscribe(library: &'static Loaded) -> Option<EventSet<'static>> {
    let wanted = EventTypes::CRITICAL_XID_ERROR | EventTypes::DOUBLE_BIT_ECC_ERROR;
    let mut set = library.create_event_set().ok()?;
    for index in 0..library.device_count().ok()? {
        // A GPU that is lost already is known by that.
        let Ok(device) = library.device_by_index(index) else { continue };
        let told = device.supported_event_types().unwrap_or(EventTypes::empty()) & wanted;
        if !told.is_empty() {
            set = device.register_events(told, set).ok()?;
        }
    }
    Some(set)
}

impl Library for Nvml {
    fn driver_version(&self) -> Result<String, Fault> {
        self.library.sys_driver_version().map_err(told)
    }

    fn count(&self) -> Result<u32, Fault> {
        self.library.device_count().map_err(told)
    }

    fn describe(&self, index: u32) -> Result<Description, Fault> {
        let device = self.device(index)?;
        Ok(Description {
            uuid: device.uuid().map_err(told)?,
            minor: device.minor_number().map_err(told)?,
            model: device.name().map_err(told)?,
            memory_bytes: device.memory_info().map_err(told)?.total,
            // Most GPUs have no such mode.
            divided: device.mig_mode().is_ok_and(|mode| mode.current != 0),
        })
    }

    fn next_error(&self, patience: Duration) -> Result<Option<CriticalError>, Fault> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(events) = events.as_ref() else {
            return Err(Fault("the driver does not tell errors".to_owned()));
        };
        match events.wait(u32::try_from(patience.as_millis()).unwrap_or(u32::MAX)) {
            Ok(event) => Ok(Some(CriticalError {
                uuid: event.device.uuid().ok(),
                xid: match event.event_data {
                    Some(XidError::Value(xid)) => Some(xid),
                    Some(XidError::Unknown) | None => None,
                },
            })),
            Err(NvmlError::Timeout) => Ok(None),
            Err(error) => Err(told(error)),
        }
    }
}

fn told(error: NvmlError) -> Fault {
    Fault(error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::Command;

    use super::*;
    use crate::gpus::{Choice, Gpus};

    /// A library of two GPUs, the second of which is lost; the first makes an error of number 79 after a while.
    const STAND_IN: &str = r#"
#include <string.h>
typedef struct { void *device; unsigned long long type, data; unsigned gpu, compute; } event;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory;
static char first, waits;
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *s, unsigned n) { strncpy(s, "550.54.15", n); return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d) { *d = &first; return i ? 15 : 0; }
int nvmlDeviceGetUUID(void *d, char *s, unsigned n) { strncpy(s, "GPU-8f5c1d2e", n); return 0; }
int nvmlDeviceGetMinorNumber(void *d, unsigned *n) { *n = 3; return 0; }
int nvmlDeviceGetName(void *d, char *s, unsigned n) { strncpy(s, "NVIDIA H200", n); return 0; }
int nvmlDeviceGetMemoryInfo_v2(void *d, memory *m) { m->total = 150754820096ULL; return 0; }
int nvmlDeviceGetMigMode(void *d, unsigned *a, unsigned *b) { return 3; }
int nvmlEventSetCreate(void **s) { *s = &waits; return 0; }
int nvmlEventSetFree(void *s) { return 0; }
int nvmlDeviceGetSupportedEventTypes(void *d, unsigned long long *t) { *t = 8 | 2 | 16; return 0; }
int nvmlDeviceRegisterEvents(void *d, unsigned long long t, void *s) { return t == (8 | 2) ? 0 : 2; }
int nvmlEventSetWait_v2(void *s, event *e, unsigned ms) {
    if (waits++ == 0) return 10;
    e->device = &first; e->type = 8; e->data = 79; return 0;
}
"#;

    #[test]
    fn the_library_is_spoken_to_as_nvidia_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let (source, library) = (dir.path().join("nvml.c"), dir.path().join("libnvidia-ml.so.1"));
        std::fs::write(&source, STAND_IN).unwrap();
        let mut built = Command::new("cc");
        built.args(["-shared", "-fPIC", "-w", "-o"]);
        let built = built.arg(&library).arg(&source).status();
        assert!(built.expect("cc, by which this very test was linked").success());
        let nvml = Nvml::load_from(library.as_os_str()).unwrap();
        assert_eq!(nvml.driver_version().unwrap(), "550.54.15");
        let first = nvml.describe(0).unwrap();
        assert_eq!((first.uuid.as_str(), first.minor), ("GPU-8f5c1d2e", 3));
        assert_eq!((first.model.as_str(), first.memory_bytes), ("NVIDIA H200", 150_754_820_096));
        assert!(nvml.describe(1).unwrap_err().0.contains("fell off the bus"));
        assert_eq!(nvml.next_error(Duration::ZERO), Ok(None));
        let error = CriticalError { uuid: Some(first.uuid), xid: Some(79) };
        assert_eq!(nvml.next_error(Duration::ZERO), Ok(Some(error)));
        let gpus = Gpus::with(nvml, &Choice::Auto, dir.path()).unwrap().unwrap();
        assert_eq!(gpus.counts(), (2, 1));
        let absent = Nvml::load_from(OsStr::new("libnvidia-ml-of-nobody.so"));
        assert!(absent.is_err());
    }
}
