//! GPUs by a scripted library: which are given, to whom, and which are not fit for use.

#![allow(clippy::unwrap_used)]
use super::scripted::Scripted;
use super::*;

fn machine() -> Scripted {
    let gpu = |number: u32| {
        Ok(Description {
            uuid: format!("GPU-{number:08}"),
            minor: number,
            model: "NVIDIA A100-SXM4-80GB".to_owned(),
            memory_bytes: 85_899_345_920,
            divided: false,
        })
    };
    Scripted {
        driver_version: "550.54.15".to_owned(),
        gpus: Mutex::new((0..4).map(gpu).collect()),
        errors: Mutex::default(),
    }
}

fn gpus(library: Scripted) -> Gpus {
    Gpus::with(library, &Choice::Auto, Path::new(DEV)).unwrap().unwrap()
}

fn uuids(picked: &[Gpu]) -> Vec<&str> {
    picked.iter().map(|gpu| gpu.description.uuid.as_str()).collect()
}

#[test]
fn a_choice_is_read_or_refused_with_words() {
    assert_eq!("auto".parse(), Ok(Choice::Auto));
    assert_eq!("none".parse(), Ok(Choice::None));
    let listed = Choice::Listed(vec!["0".to_owned(), "GPU-a".to_owned()]);
    assert_eq!("0, GPU-a".parse(), Ok(listed));
    for bad in ["", "all", "0,", "-1", "nvidia0"] {
        assert!(bad.parse::<Choice>().unwrap_err().contains("auto, none"), "{bad}");
    }
}

#[test]
fn what_the_library_says_is_told() {
    let gpus = gpus(machine());
    assert_eq!(gpus.counts(), (4, 4));
    let told = gpus.told();
    assert_eq!(told[1].uuid, "GPU-00000001");
    assert_eq!(told[1].model.as_deref(), Some("NVIDIA A100-SXM4-80GB"));
    assert_eq!(told[1].memory_bytes, Some(80 << 30));
    let labels = gpus.labels();
    let labels: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(
        labels,
        [
            ("commonage.dev/gpu-model", "NVIDIA-A100-SXM4-80GB"),
            ("commonage.dev/gpu-memory-mib", "81920"),
            ("commonage.dev/gpu-driver", "550.54.15"),
        ]
    );
}

#[test]
fn listed_gpus_are_the_only_ones_and_must_be_there() {
    let listed = |names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Gpus::with(machine(), &Choice::Listed(names), Path::new(DEV))
    };
    let two = listed(&["GPU-00000003", "1"]).unwrap().unwrap();
    assert_eq!(uuids(&two.pick(2, &HashSet::new()).unwrap()), ["GPU-00000001", "GPU-00000003"]);
    let Err(missing) = listed(&["7"]) else { panic!("there is no GPU 7") };
    assert!(
        missing.to_string().starts_with("--gpus 7: this machine has GPUs 0 (GPU-"),
        "{missing}"
    );
    assert!(Gpus::with(Scripted::default(), &Choice::Auto, Path::new(DEV)).unwrap().is_none());
}

#[test]
fn none_is_given_twice_and_a_lack_is_explained() {
    let gpus = gpus(machine());
    let first = gpus.pick(3, &HashSet::new()).unwrap();
    let held: HashSet<&str> = uuids(&first).into_iter().collect();
    assert_eq!(uuids(&gpus.pick(1, &held).unwrap()), ["GPU-00000003"]);
    let lack = gpus.pick(2, &held).unwrap_err();
    assert_eq!(lack, "it was promised 2 GPUs, and of the agent's 4 only 1 are healthy and free");
}

#[test]
fn a_gpu_with_a_critical_error_is_taken_out_for_good() {
    let library = machine();
    let error = |uuid: Option<&str>, xid| CriticalError { uuid: uuid.map(str::to_owned), xid };
    *library.errors.lock().unwrap() = vec![
        error(Some("GPU-00000000"), Some(79)),
        // A program's own fault.
        error(Some("GPU-00000001"), Some(31)),
    ];
    let gpus = gpus(library);
    assert_eq!(gpus.look(), (false, true), "an application's error changes nothing");
    assert_eq!(gpus.look(), (true, true));
    assert_eq!(gpus.counts(), (4, 3));
    let told = gpus.told();
    assert_eq!(told[0].message.as_deref(), Some("critical error: XID 79"));
    assert!(!told[0].healthy && told[1].healthy);
    assert_eq!(uuids(&gpus.pick(1, &HashSet::new()).unwrap()), ["GPU-00000001"]);
    assert_eq!(gpus.look(), (false, true), "that it answers does not cure it");
    let lack = gpus.pick(4, &HashSet::new()).unwrap_err();
    assert!(lack.ends_with("; GPU-00000000: critical error: XID 79"), "{lack}");
    gpus.take_note(&error(None, None));
    assert_eq!(gpus.counts(), (4, 0), "an error that names no GPU may be any's");
}

#[test]
fn a_gpu_that_does_not_answer_is_taken_out_until_it_does() {
    let library = machine();
    let whole = library.gpus.lock().unwrap()[2].clone();
    library.gpus.lock().unwrap()[2] = Err(Fault("device fell off the bus".to_owned()));
    let library = Arc::new(library);
    struct Of(Arc<Scripted>);
    impl Library for Of {
        fn driver_version(&self) -> Result<String, Fault> {
            self.0.driver_version()
        }
        fn count(&self) -> Result<u32, Fault> {
            self.0.count()
        }
        fn describe(&self, index: u32) -> Result<Description, Fault> {
            self.0.describe(index)
        }
        fn next_error(&self, patience: Duration) -> Result<Option<CriticalError>, Fault> {
            self.0.next_error(patience)
        }
    }
    let gpus = Gpus::with(Of(library.clone()), &Choice::Auto, Path::new(DEV)).unwrap().unwrap();
    assert_eq!(gpus.counts(), (4, 3));
    assert_eq!(gpus.told()[2].message.as_deref(), Some("device fell off the bus"));
    library.gpus.lock().unwrap()[2] = whole;
    assert_eq!(gpus.look(), (true, true));
    assert_eq!(gpus.counts(), (4, 4));
    if let Ok(gpu) = &mut library.gpus.lock().unwrap()[3] {
        gpu.divided = true;
    }
    gpus.look();
    assert!(gpus.told()[3].message.as_deref().unwrap().contains("MIG"));
    if let Ok(gpu) = &mut library.gpus.lock().unwrap()[0] {
        gpu.uuid = "GPU-other".to_owned();
    }
    gpus.look();
    assert!(gpus.told()[0].message.as_deref().unwrap().contains("another GPU now"));
}

#[test]
fn a_task_gets_the_nodes_of_its_gpus_and_their_names() {
    let dev = tempfile::tempdir().unwrap();
    let gpus = Gpus::with(machine(), &Choice::Auto, dev.path()).unwrap().unwrap();
    let given = gpus.pick(2, &HashSet::new()).unwrap();
    let mut launch = Launch::new("t", "/c/n/t", PathBuf::from("/s"));
    launch.env.insert("NVIDIA_VISIBLE_DEVICES".to_owned(), "all".to_owned());
    let missing = gpus.equip(&mut launch, &given).unwrap_err();
    assert!(missing.contains("nvidia0") && missing.contains("nvidia-modprobe"), "{missing}");
    // Any device has two numbers.
    for name in ["nvidia0", "nvidia1", "nvidia2", "nvidiactl", "nvidia-uvm"] {
        std::os::unix::fs::symlink("/dev/null", dev.path().join(name)).unwrap();
    }
    gpus.equip(&mut launch, &given).unwrap();
    let paths: Vec<&str> = launch.devices.iter().map(|d| d.path.to_str().unwrap()).collect();
    assert_eq!(paths, ["/dev/nvidia0", "/dev/nvidia1", "/dev/nvidiactl", "/dev/nvidia-uvm"]);
    assert_eq!((launch.devices[0].major, launch.devices[0].minor), (1, 3));
    assert_eq!(launch.env["NVIDIA_VISIBLE_DEVICES"], "GPU-00000000,GPU-00000001");
    assert_eq!(launch.env["CUDA_VISIBLE_DEVICES"], "GPU-00000000,GPU-00000001");
}
