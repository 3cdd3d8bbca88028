//! What a process may want for itself: rights, priority, and more of everything than it was given.

use std::fs::File;
use std::io;

use libc::{EACCES, EAGAIN, EINVAL, EMFILE, ENFILE, ENOMEM, ENOSPC, EPERM};

use super::Attempt;

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

pub(super) fn attempts() -> Vec<Attempt> {
    let mut all = rights();
    all.extend(priority());
    all.extend(exhaustion());
    all
}

/// `capset` and its kin.
fn rights() -> Vec<Attempt> {
    const CAP_SYS_ADMIN: u32 = 21;
    const CAP_NET_RAW: u32 = 13;
    const CAP_SETUID: u32 = 7;
    let raise = |name: &str, capability: u32| {
        Attempt::new(format!("capset-{name}"), &[EPERM], move || {
            #[repr(C)]
            struct Header(u32, i32);
            let header = Header(0x2008_0522, 0);
            let bits = 1_u32 << capability;
            let data = [[bits, bits, 0], [0, 0, 0]];
            // SAFETY: a header and two parts of three words each, as version 3 has them.
            match unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) } {
                -1 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            }
        })
    };
    vec![
        raise("sys-admin", CAP_SYS_ADMIN),
        raise("net-raw", CAP_NET_RAW),
        Attempt::new("ambient-capability", &[EPERM], || {
            // SAFETY: no pointers.
            check(unsafe {
                libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, CAP_SETUID, 0, 0)
            })
        }),
        Attempt::new("take-back-no-new-privileges", &[EINVAL, EPERM], || {
            // SAFETY: no pointers.
            check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0) })
        }),
        Attempt::new("take-back-seccomp", &[EINVAL, EPERM], || {
            // SAFETY: no pointers.
            check(unsafe { libc::prctl(libc::PR_SET_SECCOMP, 0, 0, 0, 0) })
        }),
        Attempt::new("raise-limit-of-cores", &[EPERM], || limit(libc::RLIMIT_CORE)),
        Attempt::new("raise-limit-of-files", &[EPERM], || limit(libc::RLIMIT_NOFILE)),
    ]
}

fn limit(resource: libc::__rlimit_resource_t) -> io::Result<()> {
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: room for one.
    check(unsafe { libc::getrlimit(resource, &raw mut now) })?;
    now.rlim_max += 1;
    // SAFETY: one that was just read.
    check(unsafe { libc::setrlimit(resource, &raw const now) })
}

/// Before everybody else on the machine.
fn priority() -> Vec<Attempt> {
    vec![
        Attempt::new("nice", &[EACCES, EPERM], || {
            // SAFETY: no pointers.
            check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) })
        }),
        Attempt::new("real-time", &[EPERM, EINVAL], || {
            // SAFETY: all zeros are a valid value of it.
            let mut parameter: libc::sched_param = unsafe { std::mem::zeroed() };
            parameter.sched_priority = 99;
            // SAFETY: one parameter.
            check(unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameter) })
        }),
        Attempt::new("real-time-io", &[EPERM], || {
            // For this process, class 1.
            // SAFETY: no pointers.
            match unsafe { libc::syscall(libc::SYS_ioprio_set, 1, 0, 1 << 13) } {
                -1 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            }
        }),
        Attempt::new("never-killed-for-memory", &[EACCES, EPERM], || {
            std::fs::write("/proc/self/oom_score_adj", "-1000")
        }),
    ]
}

/// Until the limit, which must come: of processes by control group, of files by number.
fn exhaustion() -> Vec<Attempt> {
    vec![
        Attempt::new("processes-without-end", &[EAGAIN], || {
            let mut children = Vec::new();
            let result = loop {
                // SAFETY: this program has one thread.
                match unsafe { libc::fork() } {
                    -1 => break Err(io::Error::last_os_error()),
                    // SAFETY: waits until it is killed.
                    0 => unsafe {
                        libc::pause();
                        libc::_exit(0)
                    },
                    child => children.push(child),
                }
                if children.len() > 100_000 {
                    break Ok(());
                }
            };
            for child in children {
                // SAFETY: a child of ours that was not waited for.
                unsafe {
                    libc::kill(child, libc::SIGKILL);
                    libc::waitpid(child, std::ptr::null_mut(), 0);
                }
            }
            result
        }),
        Attempt::new("files-without-end", &[EMFILE, ENFILE, ENOMEM], || {
            let mut open = Vec::new();
            while open.len() < 2_000_000 {
                open.push(File::open("/dev/null")?);
            }
            Ok(())
        }),
        Attempt::new("memory-of-dev-without-end", &[ENOSPC, EPERM, EACCES], || {
            let mut file = File::create("/dev/filler")?;
            for _ in 0..1024 {
                io::Write::write_all(&mut file, &[1; 4096])?;
            }
            Ok(())
        }),
    ]
}
