//! System calls that act on the machine, its namespaces, its devices, or on processes of others.

use std::ffi::{CStr, CString, c_long};
use std::io;
use std::ptr::null;

use libc::{EACCES, EAFNOSUPPORT, EINVAL, ENODEV, ENOENT, ENOSYS, ENXIO, EPERM, ESRCH};

use super::Attempt;

/// What the filters answer.
const FILTERED: &[i32] = &[EPERM, ENOSYS];

fn call(number: c_long, arguments: [usize; 6]) -> io::Result<()> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: pointers among the arguments are null or to texts and buffers that outlive the call.
    match unsafe { libc::syscall(number, a, b, c, d, e, f) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// One that is refused whatever its arguments are.
fn filtered(name: &str, number: c_long, arguments: [usize; 6]) -> Attempt {
    Attempt::new(name, FILTERED, move || call(number, arguments))
}

fn text(text: &'static CStr) -> usize {
    text.as_ptr() as usize
}

pub(super) fn attempts() -> Vec<Attempt> {
    let mut all = mounts();
    all.extend(namespaces());
    all.extend(machine());
    all.extend(surface());
    all.extend(of_this_architecture());
    all.extend(devices());
    all.extend(sockets());
    all.extend(processes());
    all
}

fn mounts() -> Vec<Attempt> {
    let mount = |name: &str,
                 source: &'static CStr,
                 target: &'static CStr,
                 kind: &'static CStr,
                 flags: u64| {
        let flags = usize::try_from(flags).unwrap();
        let arguments = [text(source), text(target), text(kind), flags, 0, 0];
        filtered(name, libc::SYS_mount, arguments)
    };
    vec![
        mount("mount-tmpfs", c"none", c"/sandbox", c"tmpfs", 0),
        mount("mount-proc", c"proc", c"/sandbox", c"proc", 0),
        mount("mount-sysfs", c"sysfs", c"/sandbox", c"sysfs", 0),
        mount("mount-cgroup", c"none", c"/sandbox", c"cgroup", 0),
        mount("mount-cgroup2", c"none", c"/sandbox", c"cgroup2", 0),
        mount("mount-devpts", c"none", c"/sandbox", c"devpts", 0),
        mount("mount-disk", c"/dev/vda", c"/sandbox", c"ext4", 0),
        mount("mount-bind", c"/proc/1/root", c"/sandbox", c"none", libc::MS_BIND),
        mount("mount-remount-root", c"none", c"/", c"none", libc::MS_REMOUNT | libc::MS_BIND),
        mount("mount-remount-sys", c"none", c"/sys", c"none", libc::MS_REMOUNT | libc::MS_BIND),
        mount("mount-propagate", c"none", c"/", c"none", libc::MS_SHARED | libc::MS_REC),
        filtered("umount-proc", libc::SYS_umount2, [text(c"/proc"), 2, 0, 0, 0, 0]),
        filtered("umount-masked", libc::SYS_umount2, [text(c"/proc/kcore"), 2, 0, 0, 0, 0]),
        filtered("pivot-root", libc::SYS_pivot_root, [text(c"/"), text(c"/sandbox"), 0, 0, 0, 0]),
        filtered("open-tree", libc::SYS_open_tree, [cwd(), text(c"/"), 1, 0, 0, 0]),
        filtered("move-mount", libc::SYS_move_mount, [cwd(), text(c"/"), cwd(), text(c"/"), 0, 0]),
        filtered("fsopen", libc::SYS_fsopen, [text(c"tmpfs"), 0, 0, 0, 0, 0]),
        filtered("fspick", libc::SYS_fspick, [cwd(), text(c"/"), 0, 0, 0, 0]),
        filtered("fsmount", libc::SYS_fsmount, [0; 6]),
        filtered("mount-setattr", libc::SYS_mount_setattr, [cwd(), text(c"/"), 0, 0, 0, 0]),
    ]
}

fn cwd() -> usize {
    libc::AT_FDCWD as usize
}

const NAMESPACES: [(&str, i32); 8] = [
    ("user", libc::CLONE_NEWUSER),
    ("mnt", libc::CLONE_NEWNS),
    ("pid", libc::CLONE_NEWPID),
    ("net", libc::CLONE_NEWNET),
    ("ipc", libc::CLONE_NEWIPC),
    ("uts", libc::CLONE_NEWUTS),
    ("cgroup", libc::CLONE_NEWCGROUP),
    // Only `unshare` takes it, `clone` reads the same bit as part of a signal.
    ("time", 0x80),
];

fn namespaces() -> Vec<Attempt> {
    let mut all = Vec::new();
    for (name, flag) in NAMESPACES {
        all.push(filtered(
            &format!("unshare-{name}"),
            libc::SYS_unshare,
            [flag as usize, 0, 0, 0, 0, 0],
        ));
        if name != "time" {
            let flags = flag | libc::SIGCHLD;
            all.push(Attempt::new(format!("clone-{name}"), FILTERED, move || clone(flags)));
        }
        let path = format!("/proc/self/ns/{name}");
        all.push(Attempt::new(format!("setns-{name}"), FILTERED, move || {
            let file = std::fs::File::open(&path)?;
            call(libc::SYS_setns, [std::os::fd::AsRawFd::as_raw_fd(&file) as usize, 0, 0, 0, 0, 0])
        }));
        let first = format!("/proc/1/ns/{name}");
        all.push(Attempt::new(format!("open-ns-of-init-{name}"), &[EACCES, EPERM], move || {
            std::fs::File::open(&first).map(drop)
        }));
    }
    // Its flags lie in memory, where no filter sees them.
    all.push(filtered("clone3", libc::SYS_clone3, [0; 6]));
    all
}

/// The child, should there be one, ends at once.
fn clone(flags: i32) -> io::Result<()> {
    // SAFETY: without a stack of its own it goes on here as a fork does.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: ends the process at once.
        0 => unsafe { libc::_exit(0) },
        _ => Ok(()),
    }
}

/// The machine as a whole: its clock, its names, its modules, its end.
fn machine() -> Vec<Attempt> {
    // "Ctrl-Alt-Del does nothing", which changes nothing that matters.
    let reboot = [0xfee1_dead, 672_274_793, 0, 0, 0, 0];
    vec![
        filtered("reboot", libc::SYS_reboot, reboot),
        filtered("kexec-load", libc::SYS_kexec_load, [0; 6]),
        filtered("init-module", libc::SYS_init_module, [text(c"x"), 1, text(c""), 0, 0, 0]),
        filtered("finit-module", libc::SYS_finit_module, [0, text(c""), 0, 0, 0, 0]),
        filtered("delete-module", libc::SYS_delete_module, [text(c"nothing"), 0, 0, 0, 0, 0]),
        filtered("swapon", libc::SYS_swapon, [text(c"/sandbox"), 0, 0, 0, 0, 0]),
        filtered("swapoff", libc::SYS_swapoff, [text(c"/sandbox"), 0, 0, 0, 0, 0]),
        filtered("acct", libc::SYS_acct, [text(c"/sandbox/acct"), 0, 0, 0, 0, 0]),
        filtered("syslog", libc::SYS_syslog, [10, 0, 0, 0, 0, 0]),
        filtered("quotactl", libc::SYS_quotactl, [0; 6]),
        filtered("sethostname", libc::SYS_sethostname, [text(c"other"), 5, 0, 0, 0, 0]),
        filtered("setdomainname", libc::SYS_setdomainname, [text(c"other"), 5, 0, 0, 0, 0]),
        filtered("vhangup", libc::SYS_vhangup, [0; 6]),
        Attempt::new("clock-settime", FILTERED, || {
            let now = now();
            let at = &raw const now;
            call(libc::SYS_clock_settime, [libc::CLOCK_REALTIME as usize, at as usize, 0, 0, 0, 0])
        }),
        Attempt::new("settimeofday", FILTERED, || {
            let now = now();
            let now = libc::timeval { tv_sec: now.tv_sec, tv_usec: now.tv_nsec / 1000 };
            call(libc::SYS_settimeofday, [&raw const now as usize, 0, 0, 0, 0, 0])
        }),
        Attempt::new("adjtimex", FILTERED, || {
            // SAFETY: all zeros are a valid value of it.
            let mut change: libc::timex = unsafe { std::mem::zeroed() };
            change.modes = libc::ADJ_OFFSET_SINGLESHOT;
            call(libc::SYS_adjtimex, [&raw mut change as usize, 0, 0, 0, 0, 0])
        }),
    ]
}

fn now() -> libc::timespec {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it is given room for one.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now) };
    now
}

/// Calls whose kernel code is large, or reaches past the container.
fn surface() -> Vec<Attempt> {
    let no_randomization = [0x004_0000, 0, 0, 0, 0, 0];
    vec![
        filtered("bpf", libc::SYS_bpf, [0; 6]),
        filtered("perf-event-open", libc::SYS_perf_event_open, [0; 6]),
        filtered("userfaultfd", libc::SYS_userfaultfd, [1, 0, 0, 0, 0, 0]),
        filtered("io-uring-setup", libc::SYS_io_uring_setup, [1, 0, 0, 0, 0, 0]),
        filtered("io-uring-enter", libc::SYS_io_uring_enter, [0; 6]),
        filtered("io-uring-register", libc::SYS_io_uring_register, [0; 6]),
        filtered("fanotify-init", libc::SYS_fanotify_init, [0; 6]),
        filtered("open-by-handle-at", libc::SYS_open_by_handle_at, [0; 6]),
        filtered("keyctl", libc::SYS_keyctl, [0; 6]),
        filtered("add-key", libc::SYS_add_key, [text(c"user"), text(c"k"), text(c"v"), 1, 0, 0]),
        filtered("request-key", libc::SYS_request_key, [text(c"user"), text(c"k"), 0, 0, 0, 0]),
        filtered("lookup-dcookie", libc::SYS_lookup_dcookie, [0; 6]),
        filtered("mbind", libc::SYS_mbind, [0; 6]),
        filtered("set-mempolicy", libc::SYS_set_mempolicy, [0; 6]),
        filtered("move-pages", libc::SYS_move_pages, [0; 6]),
        filtered("migrate-pages", libc::SYS_migrate_pages, [0; 6]),
        filtered("personality", libc::SYS_personality, no_randomization),
        filtered("a-call-of-tomorrow", 999, [0; 6]),
    ]
}

/// Those that only this architecture has.
#[cfg(target_arch = "x86_64")]
fn of_this_architecture() -> Vec<Attempt> {
    vec![
        filtered("kexec-file-load", libc::SYS_kexec_file_load, [0; 6]),
        filtered("iopl", libc::SYS_iopl, [3, 0, 0, 0, 0, 0]),
        filtered("ioperm", libc::SYS_ioperm, [0x80, 1, 1, 0, 0, 0]),
        filtered("modify-ldt", libc::SYS_modify_ldt, [0; 6]),
        filtered("uselib", libc::SYS_uselib, [text(c"/bin/sh"), 0, 0, 0, 0, 0]),
    ]
}

#[cfg(not(target_arch = "x86_64"))]
fn of_this_architecture() -> Vec<Attempt> {
    Vec::new()
}

fn devices() -> Vec<Attempt> {
    let node = |name: &str, path: &'static CStr, kind: u32, major: u32, minor: u32| {
        Attempt::new(format!("mknod-{name}"), FILTERED, move || {
            let device = libc::makedev(major, minor);
            call(
                libc::SYS_mknodat,
                [cwd(), text(path), (kind | 0o666) as usize, device as usize, 0, 0],
            )
        })
    };
    let mut all = vec![
        node("memory", c"/sandbox/mem", libc::S_IFCHR, 1, 1),
        node("disk", c"/sandbox/disk", libc::S_IFBLK, 254, 0),
        node("disk-in-dev", c"/dev/disk", libc::S_IFBLK, 254, 0),
        node("null", c"/sandbox/null", libc::S_IFCHR, 1, 3),
        // What overlayfs takes for a file that was removed below.
        node("whiteout", c"/sandbox/gone", libc::S_IFCHR, 0, 0),
    ];
    for path in [
        "mem",
        "kmem",
        "port",
        "kmsg",
        "kvm",
        "fuse",
        "net/tun",
        "loop-control",
        "vda",
        "sda",
        "console",
    ] {
        let at = format!("/dev/{path}");
        all.push(Attempt::new(
            format!("open-dev-{path}"),
            &[ENOENT, EPERM, EACCES, ENXIO, ENODEV],
            move || std::fs::File::open(&at).map(drop),
        ));
    }
    for (name, request) in [("tiocsti", 0x5412), ("tioclinux", 0x541c)] {
        all.push(filtered(name, libc::SYS_ioctl, [0, request, text(c"x"), 0, 0, 0]));
    }
    all
}

fn sockets() -> Vec<Attempt> {
    let socket = |name: &str, family: i32, kind: i32, protocol: i32| {
        Attempt::new(format!("socket-{name}"), &[EPERM, EACCES, EAFNOSUPPORT], move || {
            // SAFETY: no pointers.
            match unsafe { libc::socket(family, kind, protocol) } {
                -1 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            }
        })
    };
    let ioctl = |name: &str, request: libc::c_ulong| {
        Attempt::new(name, &[EPERM, EACCES], move || {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
            // SAFETY: all zeros are a valid value of it.
            let mut interface: libc::ifreq = unsafe { std::mem::zeroed() };
            interface.ifr_name[..2].copy_from_slice(&[b'l' as i8, b'o' as i8]);
            interface.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
            let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
            // SAFETY: it reads one interface's request.
            match unsafe { libc::ioctl(fd, request, &raw mut interface) } {
                -1 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            }
        })
    };
    vec![
        socket("raw", libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
        socket("raw-v6", libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6),
        socket("packet", libc::AF_PACKET, libc::SOCK_RAW, 0),
        socket("vsock", libc::AF_VSOCK, libc::SOCK_STREAM, 0),
        socket("alg", libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
        socket("bluetooth", libc::AF_BLUETOOTH, libc::SOCK_RAW, 0),
        socket("can", libc::AF_CAN, libc::SOCK_RAW, 1),
        socket("xdp", libc::AF_XDP, libc::SOCK_RAW, 0),
        socket("key", libc::AF_KEY, libc::SOCK_RAW, 2),
        ioctl("interface-flags", libc::SIOCSIFFLAGS),
    ]
}

/// Of others: the container's first process is one that is not ours, and the machine's are out of sight.
fn processes() -> Vec<Attempt> {
    let init = 1;
    vec![
        Attempt::new("ptrace-init", &[EPERM, EACCES], move || {
            call(libc::SYS_ptrace, [libc::PTRACE_SEIZE as usize, init, 0, 0, 0, 0])
        }),
        Attempt::new("read-memory-of-init", &[EPERM, EACCES], move || {
            let mut byte = 0_u8;
            let local = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
            let remote = libc::iovec { iov_base: 0x1000 as *mut libc::c_void, iov_len: 1 };
            call(
                libc::SYS_process_vm_readv,
                [init, &raw const local as usize, 1, &raw const remote as usize, 1, 0],
            )
        }),
        Attempt::new("take-descriptor-of-init", &[EPERM, EACCES], move || {
            // SAFETY: no pointers.
            let init = unsafe { libc::syscall(libc::SYS_pidfd_open, init, 0) };
            if init < 0 {
                return Err(io::Error::last_os_error());
            }
            call(libc::SYS_pidfd_getfd, [usize::try_from(init).unwrap(), 0, 0, 0, 0, 0])
        }),
        filtered("kcmp", libc::SYS_kcmp, [0; 6]),
        Attempt::new("signal-a-process-of-the-machine", &[ESRCH], || {
            let outside = std::env::var("INTRUDER_HOST_PID").unwrap_or_default();
            let pid: i32 = outside.parse().map_err(|_| io::Error::from_raw_os_error(EINVAL))?;
            // SAFETY: no pointers; 0 is no signal.
            match unsafe { libc::kill(pid, 0) } {
                -1 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            }
        }),
        Attempt::new("connect-to-the-shim", &[ENOENT, EACCES, EPERM], || {
            let path = std::env::var("INTRUDER_HOST_SOCKET").unwrap_or_default();
            std::os::unix::net::UnixStream::connect(path).map(drop)
        }),
        Attempt::new("execute-through-init", &[EACCES, EPERM, ENOENT], || {
            let path = CString::new("/proc/1/exe").unwrap();
            let arguments = [path.as_ptr(), null()];
            // SAFETY: both lists end with a null pointer.
            unsafe { libc::execv(path.as_ptr(), arguments.as_ptr()) };
            Err(io::Error::last_os_error())
        }),
    ]
}
