//! What a program in a container needs of the machine's driver: device nodes, and libraries that must be those of
//! the very driver that runs.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use commonage_shim::Launch;
use commonage_shim::launch::{Device, Mount, Root};

/// Nodes that every program needs, whichever GPU it uses.
const CONTROL: &str = "nvidiactl";
/// The same, where the driver has them: unified memory and its tools.
const COMPANIONS: [&str; 3] = ["nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"];

/// Where images made for GPUs look, as in Mesos and in NVIDIA's own base images.
const LIBRARIES: &str = "/usr/local/nvidia/lib64";
const PROGRAMS: &str = "/usr/local/nvidia/bin";

/// The parts of the driver that live in a program's memory, by the beginning of their names: management,
/// computing, video. The list is that of NVIDIA's container toolkit.
const LIBRARY_NAMES: [&str; 17] = [
    "libnvidia-ml.so.",
    "libnvidia-cfg.so.",
    "libcuda.so.",
    "libcudadebugger.so.",
    "libnvidia-opencl.so.",
    "libnvidia-gpucomp.so.",
    "libnvidia-ptxjitcompiler.so.",
    "libnvidia-allocator.so.",
    "libnvidia-compiler.so.",
    "libnvidia-pkcs11.so.",
    "libnvidia-pkcs11-openssl3.so.",
    "libnvidia-nvvm.so.",
    "libnvidia-encode.so.",
    "libnvidia-opticalflow.so.",
    "libnvcuvid.so.",
    "libvdpau_nvidia.so.",
    "libnvidia-sandboxutils.so.",
];
const PROGRAM_NAMES: [&str; 2] = ["nvidia-smi", "nvidia-debugdump"];
const PROGRAM_PLACES: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/bin"];
const LDCONFIG: &str = "/sbin/ldconfig";

/// A file of the machine's and where containers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DriverFile {
    source: PathBuf,
    target: PathBuf,
}

/// The device nodes for GPUs with these minor numbers.
///
/// # Errors
/// One that is needed is not there, in words.
pub(super) fn devices(dev: &Path, minors: &[u32]) -> Result<Vec<Device>, String> {
    let own = minors.iter().map(|minor| format!("nvidia{minor}"));
    let needed: Vec<String> = own.chain([CONTROL.to_owned()]).collect();
    let mut devices = Vec::new();
    for name in &needed {
        devices.push(device(dev, name)?);
    }
    // Of these a driver without the module has none.
    devices.extend(COMPANIONS.iter().filter_map(|name| device(dev, name).ok()));
    Ok(devices)
}

fn device(dev: &Path, name: &str) -> Result<Device, String> {
    let path = dev.join(name);
    let found = std::fs::metadata(&path).map_err(|error| {
        format!("{}: {error}; `nvidia-modprobe -c 0 -u` makes what is missing", path.display())
    })?;
    if !found.file_type().is_char_device() {
        return Err(format!("{} is no device", path.display()));
    }
    let (major, minor) = (nix::sys::stat::major(found.rdev()), nix::sys::stat::minor(found.rdev()));
    Ok(Device { path: Path::new("/dev").join(name), major, minor })
}

/// What of the driver containers are to see.
pub(super) fn files() -> Vec<DriverFile> {
    let cache = Command::new(LDCONFIG).arg("-p").env_clear().output();
    let cache = cache.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let mut files = libraries(&cache.unwrap_or_default());
    for name in PROGRAM_NAMES {
        let source = PROGRAM_PLACES.iter().map(|place| Path::new(place).join(name));
        if let Some(source) = source.into_iter().find(|path| path.is_file()) {
            files.push(DriverFile { source, target: Path::new(PROGRAMS).join(name) });
        }
    }
    files.retain_mut(|file| match file.source.canonicalize() {
        Ok(real) => {
            file.source = real;
            true
        }
        Err(_) => false,
    });
    files
}

/// From what `ldconfig -p` prints: `libcuda.so.1 (libc6,x86-64) => /usr/lib/x86_64-linux-gnu/libcuda.so.1`. The
/// first of a name is the one that programs get.
fn libraries(cache: &str) -> Vec<DriverFile> {
    let mut files: Vec<DriverFile> = Vec::new();
    for line in cache.lines() {
        let Some((name, source)) = line.trim().split_once(" => ") else { continue };
        let Some((name, kind)) = name.split_once(' ') else { continue };
        let is_ours = LIBRARY_NAMES.iter().any(|ours| name.starts_with(ours));
        // A 32-bit library of the same name goes nowhere.
        let is_native = kind.contains("x86-64") || kind.contains("AArch64");
        let target = Path::new(LIBRARIES).join(name);
        if is_ours && is_native && files.iter().all(|file| file.target != target) {
            files.push(DriverFile { source: PathBuf::from(source), target });
        }
    }
    files
}

/// Shows the driver's files to a task with an image; without one it sees the machine's own.
pub(super) fn add_files(launch: &mut Launch, files: &[DriverFile]) {
    if !matches!(launch.root, Root::Image { .. }) || files.is_empty() {
        return;
    }
    launch.mounts.extend(files.iter().map(|file| Mount {
        source: file.source.clone(),
        target: file.target.clone(),
        read_only: true,
        foreign: true,
        tmpfs_bytes: None,
    }));
    let mut prepend = |name: &str, place: &str, default: &str| {
        let before = launch.env.get(name).map_or(default, String::as_str);
        let value = match before {
            "" => place.to_owned(),
            before if before.split(':').any(|part| part == place) => before.to_owned(),
            before => format!("{place}:{before}"),
        };
        launch.env.insert(name.to_owned(), value);
    };
    prepend("LD_LIBRARY_PATH", LIBRARIES, "");
    prepend("PATH", PROGRAMS, "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_drivers_own_libraries_are_found_and_no_others() {
        let cache = "1234 libs found in cache `/etc/ld.so.cache'\n\
            \tlibnvidia-ml.so.1 (libc6,x86-64) => /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1\n\
            \tlibcuda.so.1 (libc6,x86-64) => /usr/lib/x86_64-linux-gnu/libcuda.so.1\n\
            \tlibcuda.so.1 (libc6) => /usr/lib/i386-linux-gnu/libcuda.so.1\n\
            \tlibcuda.so.1 (libc6,x86-64) => /opt/old/libcuda.so.1\n\
            \tlibcudart.so.12 (libc6,x86-64) => /usr/local/cuda/lib64/libcudart.so.12\n\
            \tlibc.so.6 (libc6,x86-64) => /lib/x86_64-linux-gnu/libc.so.6\n";
        let found = libraries(cache);
        let found: Vec<(&str, &str)> = found
            .iter()
            .map(|file| (file.source.to_str().unwrap(), file.target.to_str().unwrap()))
            .collect();
        assert_eq!(
            found,
            [
                (
                    "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
                    "/usr/local/nvidia/lib64/libnvidia-ml.so.1"
                ),
                ("/usr/lib/x86_64-linux-gnu/libcuda.so.1", "/usr/local/nvidia/lib64/libcuda.so.1"),
            ]
        );
    }

    #[test]
    fn an_image_gets_the_drivers_files_and_the_paths_to_them() {
        let files =
            [DriverFile { source: "/a/libcuda.so.1".into(), target: "/l/libcuda.so.1".into() }];
        let mut launch = Launch::new("t", "/c/n/t", PathBuf::from("/s"));
        add_files(&mut launch, &files);
        assert!(launch.mounts.is_empty() && launch.env.is_empty(), "it sees the machine's own");
        launch.root = Root::Image { layers: Vec::new(), read_only: false };
        launch.env.insert("LD_LIBRARY_PATH".to_owned(), "/mine".to_owned());
        add_files(&mut launch, &files);
        assert_eq!(launch.env["LD_LIBRARY_PATH"], "/usr/local/nvidia/lib64:/mine");
        assert!(launch.env["PATH"].starts_with("/usr/local/nvidia/bin:/usr/local/sbin"));
        assert!(launch.mounts[0].read_only);
    }
}
