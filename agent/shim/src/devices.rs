//! Which devices a control group of version 2 may use. There is no list to write to as in version 1: a small BPF
//! program, attached to the group, is asked by the kernel at each open and each mknod. Made and loaded here, by bpf(2),
//! because it takes no more than a dozen kinds of instruction (see the kernel's `bpf/instruction-set` and
//! `struct bpf_cgroup_dev_ctx` in linux/bpf.h).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use crate::launch::Device;

/// A character device; all of its major number if no minor is given. Reading, writing and making it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) major: u64,
    pub(crate) minor: Option<u64>,
}

/// What every task has: null, zero, full, random, urandom, tty, ptmx and the terminals of devpts.
const USUAL: [Rule; 8] = [
    Rule { major: 1, minor: Some(3) },
    Rule { major: 1, minor: Some(5) },
    Rule { major: 1, minor: Some(7) },
    Rule { major: 1, minor: Some(8) },
    Rule { major: 1, minor: Some(9) },
    Rule { major: 5, minor: Some(0) },
    Rule { major: 5, minor: Some(2) },
    Rule { major: 136, minor: None },
];

/// What a task may use: the usual ones, and those that it was given.
pub(crate) fn rules(given: &[Device]) -> Vec<Rule> {
    let given = given.iter().map(|device| Rule { major: device.major, minor: Some(device.minor) });
    USUAL.into_iter().chain(given).collect()
}

/// One instruction as the kernel takes it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u8,
    /// The destination in the lower half, the source in the upper one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x57;
const MOVE: u8 = 0xb7;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

/// Registers: the answer, the question, and what is taken out of it.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// `BPF_DEVCG_DEV_CHAR`, in the lower half of the first word; what is to be done with it is in the upper one.
const CHARACTER: i32 = 2;
const KIND_MASK: i32 = 0xffff;

fn load(to: u8, offset: i16) -> Instruction {
    Instruction { code: LOAD_WORD, registers: to | CONTEXT << 4, offset, immediate: 0 }
}

fn with(code: u8, register: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: register, offset: 0, immediate }
}

/// Over so many of those that follow.
fn unless_equal(register: u8, immediate: i32, skip: i16) -> Instruction {
    Instruction { code: JUMP_UNLESS_EQUAL, registers: register, offset: skip, immediate }
}

/// The program: 1 for what a rule allows, 0 for all else.
fn program(rules: &[Rule]) -> io::Result<Vec<Instruction>> {
    let number = |number: u64| {
        i32::try_from(number).map_err(|_| io::Error::other(format!("device number {number}")))
    };
    let mut all = vec![load(KIND, 0), with(AND, KIND, KIND_MASK), load(MAJOR, 4), load(MINOR, 8)];
    for rule in rules {
        let minor = rule.minor.map(number).transpose()?;
        // The answer and the exit, and the comparison of the minor number if there is one.
        let rest = if minor.is_some() { 3 } else { 2 };
        all.push(unless_equal(KIND, CHARACTER, rest + 1));
        all.push(unless_equal(MAJOR, number(rule.major)?, rest));
        all.extend(minor.map(|minor| unless_equal(MINOR, minor, 2)));
        all.extend([with(MOVE, ANSWER, 1), with(EXIT, 0, 0)]);
    }
    all.extend([with(MOVE, ANSWER, 0), with(EXIT, 0, 0)]);
    Ok(all)
}

/// Lets the processes of a group use these devices and no others.
///
/// # Errors
/// The kernel's: it has no such programs (CONFIG_CGROUP_BPF), or we may not load any.
pub(crate) fn allow_only(group: &Path, rules: &[Rule]) -> io::Result<()> {
    let loaded = load_program(&program(rules)?)?;
    attach(&File::open(group)?, &loaded)
}

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_as: u32,
}

/// The same for `BPF_PROG_ATTACH`.
#[repr(C)]
#[derive(Default)]
struct Attach {
    target: u32,
    program: u32,
    attach_as: u32,
    flags: u32,
}

/// `BPF_PROG_TYPE_CGROUP_DEVICE` and `BPF_CGROUP_DEVICE`.
const KIND_OF_PROGRAM: u32 = 15;
const ATTACH_AS: u32 = 6;
/// `BPF_F_ALLOW_MULTI`: what is attached above and below is asked too, and all have to agree.
const ALL_HAVE_TO_AGREE: u32 = 2;
const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;

fn load_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    // It calls none of the functions that want another one.
    let licence = c"Apache-2.0";
    let request = Load {
        kind: KIND_OF_PROGRAM,
        count: u32::try_from(program.len()).map_err(io::Error::other)?,
        instructions: program.as_ptr() as u64,
        licence: licence.as_ptr() as u64,
        attach_as: ATTACH_AS,
        ..Load::default()
    };
    let fd = bpf(PROG_LOAD, &request)?;
    // SAFETY: the kernel has just made it and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd).map_err(io::Error::other)?) })
}

fn attach(group: &File, program: &OwnedFd) -> io::Result<()> {
    let request = Attach {
        target: group.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        attach_as: ATTACH_AS,
        flags: ALL_HAVE_TO_AGREE,
    };
    bpf(PROG_ATTACH, &request).map(drop)
}

fn bpf<T>(command: libc::c_int, request: &T) -> io::Result<i64> {
    // SAFETY: the kernel reads the request, whose size it is told, and what the request points to, which the caller
    // keeps alive; it writes to neither.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(request), size_of::<T>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashMap;
    use std::fs;
    use std::io::Write;
    use std::path::PathBuf;
    use std::process::{Command, Stdio};

    use super::*;

    /// Runs a program as the kernel would.
    fn answer(program: &[Instruction], kind: u64, major: u64, minor: u64) -> i32 {
        // Asked for reading and writing.
        let context = HashMap::from([(0, 6 << 16 | kind), (4, major), (8, minor)]);
        let mut registers = [0_u64; 11];
        let mut next = 0;
        loop {
            let Instruction { code, registers: both, offset, immediate } = program[next];
            let register = usize::from(both & 0xf);
            next += 1;
            match code {
                LOAD_WORD => registers[register] = context[&offset],
                AND => registers[register] &= immediate as u64,
                MOVE => registers[register] = immediate as u64,
                JUMP_UNLESS_EQUAL if registers[register] != immediate as u64 => {
                    next = next.strict_add_signed(isize::from(offset));
                }
                JUMP_UNLESS_EQUAL => {}
                EXIT => return i32::try_from(registers[0]).unwrap(),
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn the_program_allows_what_the_rules_name_and_nothing_else() {
        const BLOCK: u64 = 1;
        const CHARACTER: u64 = 2;
        let given = Device { path: "/dev/nvidia0".into(), major: 195, minor: 0 };
        let program = program(&rules(std::slice::from_ref(&given))).unwrap();
        for (kind, major, minor, allowed) in [
            (CHARACTER, 1, 3, 1),
            (CHARACTER, 1, 9, 1),
            (CHARACTER, 1, 1, 0),
            (CHARACTER, 1, 11, 0),
            (CHARACTER, 5, 2, 1),
            (CHARACTER, 5, 1, 0),
            (CHARACTER, 136, 0, 1),
            (CHARACTER, 136, 77, 1),
            (CHARACTER, 195, 0, 1),
            (CHARACTER, 195, 1, 0),
            (CHARACTER, 10, 200, 0),
            (BLOCK, 1, 3, 0),
            (BLOCK, 253, 0, 0),
        ] {
            assert_eq!(answer(&program, kind, major, minor), allowed, "{kind} {major}:{minor}");
        }
        let none = super::program(&[]).unwrap();
        assert_eq!(answer(&none, CHARACTER, 1, 3), 0);
        let huge = Rule { major: u64::MAX, minor: None };
        assert!(super::program(&[huge]).is_err());
    }

    /// A group of version 2 of the test's own, with a process in it.
    struct Place(PathBuf);

    impl Drop for Place {
        fn drop(&mut self) {
            fs::remove_dir(&self.0).unwrap();
        }
    }

    #[test]
    fn the_kernel_keeps_a_group_of_version_2_from_other_devices() {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let tree = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
        let Some(tree) = tree.filter(|_| nix::unistd::geteuid().is_root()) else {
            return eprintln!("skipped: not root, or no control groups of version 2");
        };
        let name = format!("commonage-devices-{}", std::process::id());
        let place = Place(Path::new(tree.split(' ').nth(1).unwrap()).join(name));
        fs::create_dir(&place.0).unwrap();
        match allow_only(&place.0, &rules(&[])) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                return eprintln!("skipped: no BPF here: {error}");
            }
            loaded => loaded.unwrap(),
        }
        let script = "read go; true </dev/null && true </dev/zero || exit 1; if true </dev/kmsg; then exit 2; fi";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        fs::write(place.0.join("cgroup.procs"), child.id().to_string()).unwrap();
        writeln!(child.stdin.take().unwrap()).unwrap();
        let output = child.wait_with_output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{words}");
        assert!(words.contains("Operation not permitted"), "{words}");
    }
}
