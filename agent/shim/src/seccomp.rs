//! The system calls a task may make.
//!
//! Two filters, because one filter has one answer for what it refuses:
//!
//! * the *allow list*: whatever is not on it does not exist (`ENOSYS`). That is what programs
//!   are written to cope with, so a call invented after this list is met by its fallback, and
//!   `clone3`, whose flags lie in memory that a filter cannot read, becomes `clone`;
//! * the *deny list*, installed last, so that its answer (`EPERM`) wins where both refuse: calls
//!   that act on the whole machine, and dangerous arguments of calls that are otherwise allowed.
//!
//! A foreign architecture (32-bit on x86-64) kills the process.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

/// Both filters, compiled.
#[derive(Clone)]
pub(crate) struct Filters {
    allow: BpfProgram,
    deny: BpfProgram,
}

/// A filter that could not be built or installed.
#[derive(Debug, thiserror::Error)]
#[error("seccomp filter: {0}")]
pub(crate) struct SeccompError(String);

impl Filters {
    /// Compiles them, in a fraction of a millisecond; the zygote does it once for all shims.
    pub(crate) fn compile() -> Result<Self, SeccompError> {
        let allow = allowed().into_iter().map(|number| (number, Vec::new())).collect();
        Ok(Self {
            allow: program(allow, SeccompAction::Errno(libc::ENOSYS as u32), SeccompAction::Allow)?,
            deny: program(
                denied()?,
                SeccompAction::Allow,
                SeccompAction::Errno(libc::EPERM as u32),
            )?,
        })
    }

    /// Binds this process and its descendants, for good. It must have `no_new_privs`.
    pub(crate) fn apply(&self) -> Result<(), SeccompError> {
        for program in [&self.allow, &self.deny] {
            seccompiler::apply_filter(program).map_err(|e| SeccompError(e.to_string()))?;
        }
        Ok(())
    }
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn program(
    rules: Rules,
    other: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, SeccompError> {
    let arch =
        TargetArch::try_from(std::env::consts::ARCH).map_err(|e| SeccompError(e.to_string()))?;
    let filter = SeccompFilter::new(rules, other, matched, arch);
    filter.and_then(BpfProgram::try_from).map_err(|e| SeccompError(e.to_string()))
}

fn rule(conditions: &[(u8, Op, u64)]) -> Result<SeccompRule, SeccompError> {
    let conditions: Result<Vec<_>, _> = conditions
        .iter()
        .map(|(argument, op, value)| {
            SeccompCondition::new(*argument, Len::Dword, op.clone(), *value)
        })
        .collect();
    conditions.and_then(SeccompRule::new).map_err(|e| SeccompError(e.to_string()))
}

fn denied() -> Result<Rules, SeccompError> {
    let mut rules: Rules = MACHINE.iter().map(|number| (*number, Vec::new())).collect();
    let bit = |flag: i32| rule(&[(0, Op::MaskedEq(flag as u64), flag as u64)]);
    let namespaces = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ];
    rules.insert(libc::SYS_clone, namespaces.into_iter().map(bit).collect::<Result<_, _>>()?);
    // Unix, IPv4, IPv6 and netlink remain. The others are rarely used kernel code that loads
    // itself on demand, raw packets, or (vsock) a way to the hypervisor past the network.
    let families = vec![
        rule(&[(0, Op::Ge, 3), (0, Op::Le, 9)])?,
        rule(&[(0, Op::Ge, 11), (0, Op::Le, 15)])?,
        rule(&[(0, Op::Gt, libc::AF_NETLINK as u64)])?,
    ];
    rules.insert(libc::SYS_socket, families);
    // What a debugger and a 32-bit build need; the rest of it weakens address randomization.
    let personalities = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff].map(|value| (0, Op::Ne, value));
    rules.insert(libc::SYS_personality, vec![rule(&personalities)?]);
    // Typing into somebody else's terminal.
    let ioctls = [0x5412, 0x541c].map(|request| rule(&[(1, Op::Eq, request)]));
    rules.insert(libc::SYS_ioctl, ioctls.into_iter().collect::<Result<_, _>>()?);
    // Device nodes, whatever the capabilities say.
    let devices = |argument: u8| {
        [libc::S_IFCHR, libc::S_IFBLK]
            .map(|kind| rule(&[(argument, Op::MaskedEq(u64::from(libc::S_IFMT)), u64::from(kind))]))
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
    };
    rules.insert(libc::SYS_mknodat, devices(2)?);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_mknod, devices(1)?);
    Ok(rules)
}

/// Calls on behalf of the whole machine: they would fail for want of capabilities, mostly, but
/// their kernel code need not be reachable to find that out.
#[rustfmt::skip]
const MACHINE: &[c_long] = &[
    // Namespaces and mounts.
    libc::SYS_unshare, libc::SYS_setns, libc::SYS_mount, libc::SYS_umount2,
    libc::SYS_pivot_root, libc::SYS_move_mount, libc::SYS_open_tree, libc::SYS_fsopen,
    libc::SYS_fsmount, libc::SYS_fsconfig, libc::SYS_fspick, libc::SYS_mount_setattr,
    libc::SYS_quotactl, libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_open_by_handle_at,
    // Keys are not namespaced.
    libc::SYS_keyctl, libc::SYS_add_key, libc::SYS_request_key,
    // Large attack surface.
    libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter, libc::SYS_io_uring_register, libc::SYS_userfaultfd,
    libc::SYS_fanotify_init, libc::SYS_lookup_dcookie, libc::SYS_kcmp,
    // The machine itself.
    libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module,
    libc::SYS_kexec_load, libc::SYS_reboot, libc::SYS_acct, libc::SYS_syslog,
    libc::SYS_settimeofday, libc::SYS_clock_settime, libc::SYS_sethostname,
    libc::SYS_setdomainname, libc::SYS_vhangup,
    // Memory placement is the machine's business.
    libc::SYS_mbind, libc::SYS_set_mempolicy, libc::SYS_migrate_pages, libc::SYS_move_pages,
    #[cfg(target_arch = "x86_64")] libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")] libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")] libc::SYS_kexec_file_load,
    #[cfg(target_arch = "x86_64")] libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")] libc::SYS_modify_ldt,
];

fn allowed() -> Vec<i64> {
    let mut all: Vec<i64> = [FILES, MEMORY, PROCESSES, SIGNALS_AND_TIME, NETWORK, SYSTEM].concat();
    #[cfg(target_arch = "x86_64")]
    all.extend_from_slice(X86_64);
    all
}

#[rustfmt::skip]
const FILES: &[c_long] = &[
    libc::SYS_read, libc::SYS_write, libc::SYS_readv, libc::SYS_writev, libc::SYS_pread64,
    libc::SYS_pwrite64, libc::SYS_preadv, libc::SYS_pwritev, libc::SYS_preadv2,
    libc::SYS_pwritev2, libc::SYS_openat, libc::SYS_openat2, libc::SYS_close,
    libc::SYS_close_range, libc::SYS_lseek, libc::SYS_dup, libc::SYS_dup3, libc::SYS_fcntl,
    libc::SYS_flock, libc::SYS_ioctl, libc::SYS_pipe2, libc::SYS_fstat, libc::SYS_newfstatat,
    libc::SYS_statx, libc::SYS_statfs, libc::SYS_fstatfs, libc::SYS_faccessat,
    libc::SYS_faccessat2, libc::SYS_getcwd, libc::SYS_chdir, libc::SYS_fchdir, libc::SYS_chroot,
    libc::SYS_getdents64, libc::SYS_mkdirat, libc::SYS_mknodat, libc::SYS_unlinkat,
    libc::SYS_renameat, libc::SYS_renameat2, libc::SYS_linkat, libc::SYS_symlinkat,
    libc::SYS_readlinkat, libc::SYS_fchmod, libc::SYS_fchmodat, libc::SYS_fchmodat2,
    libc::SYS_fchown, libc::SYS_fchownat, libc::SYS_umask, libc::SYS_utimensat,
    libc::SYS_truncate, libc::SYS_ftruncate, libc::SYS_fallocate, libc::SYS_fadvise64,
    libc::SYS_readahead, libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_sync, libc::SYS_syncfs,
    libc::SYS_sync_file_range, libc::SYS_sendfile, libc::SYS_splice, libc::SYS_tee,
    libc::SYS_vmsplice, libc::SYS_copy_file_range, libc::SYS_getxattr, libc::SYS_lgetxattr,
    libc::SYS_fgetxattr, libc::SYS_setxattr, libc::SYS_lsetxattr, libc::SYS_fsetxattr,
    libc::SYS_listxattr, libc::SYS_llistxattr, libc::SYS_flistxattr, libc::SYS_removexattr,
    libc::SYS_lremovexattr, libc::SYS_fremovexattr, libc::SYS_name_to_handle_at,
    libc::SYS_inotify_init1, libc::SYS_inotify_add_watch, libc::SYS_inotify_rm_watch,
    libc::SYS_fanotify_mark, libc::SYS_epoll_create1, libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2, libc::SYS_ppoll, libc::SYS_pselect6,
    libc::SYS_eventfd2, libc::SYS_io_setup, libc::SYS_io_submit, libc::SYS_io_cancel,
    libc::SYS_io_getevents, libc::SYS_io_destroy, libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_add_rule, libc::SYS_landlock_restrict_self,
];

#[rustfmt::skip]
const MEMORY: &[c_long] = &[
    libc::SYS_brk, libc::SYS_mmap, libc::SYS_munmap, libc::SYS_mremap, libc::SYS_mprotect,
    libc::SYS_madvise, libc::SYS_mincore, libc::SYS_msync, libc::SYS_mlock, libc::SYS_mlock2,
    libc::SYS_mlockall, libc::SYS_munlock, libc::SYS_munlockall, libc::SYS_memfd_create,
    libc::SYS_memfd_secret, libc::SYS_membarrier, libc::SYS_pkey_alloc, libc::SYS_pkey_free,
    libc::SYS_pkey_mprotect, libc::SYS_remap_file_pages, libc::SYS_get_mempolicy,
    libc::SYS_process_mrelease,
];

#[rustfmt::skip]
const PROCESSES: &[c_long] = &[
    libc::SYS_clone, libc::SYS_execve, libc::SYS_execveat, libc::SYS_exit, libc::SYS_exit_group,
    libc::SYS_wait4, libc::SYS_waitid, libc::SYS_getpid, libc::SYS_getppid, libc::SYS_gettid,
    libc::SYS_getpgid, libc::SYS_setpgid, libc::SYS_getsid, libc::SYS_setsid, libc::SYS_getuid,
    libc::SYS_geteuid, libc::SYS_getgid, libc::SYS_getegid, libc::SYS_setuid, libc::SYS_setgid,
    libc::SYS_setreuid, libc::SYS_setregid, libc::SYS_setresuid, libc::SYS_setresgid,
    libc::SYS_getresuid, libc::SYS_getresgid, libc::SYS_setfsuid, libc::SYS_setfsgid,
    libc::SYS_getgroups, libc::SYS_setgroups, libc::SYS_capget, libc::SYS_capset,
    libc::SYS_prctl, libc::SYS_seccomp, libc::SYS_ptrace, libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev, libc::SYS_personality, libc::SYS_set_tid_address,
    libc::SYS_set_robust_list, libc::SYS_get_robust_list, libc::SYS_rseq, libc::SYS_futex,
    libc::SYS_futex_waitv, libc::SYS_getrlimit, libc::SYS_setrlimit, libc::SYS_prlimit64,
    libc::SYS_getrusage, libc::SYS_getpriority, libc::SYS_setpriority, libc::SYS_ioprio_get,
    libc::SYS_ioprio_set, libc::SYS_sched_yield, libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity, libc::SYS_sched_getparam, libc::SYS_sched_setparam,
    libc::SYS_sched_getscheduler, libc::SYS_sched_setscheduler, libc::SYS_sched_getattr,
    libc::SYS_sched_setattr, libc::SYS_sched_get_priority_max, libc::SYS_sched_get_priority_min,
    libc::SYS_sched_rr_get_interval, libc::SYS_pidfd_open, libc::SYS_pidfd_send_signal,
    libc::SYS_pidfd_getfd, libc::SYS_getcpu,
];

#[rustfmt::skip]
const SIGNALS_AND_TIME: &[c_long] = &[
    libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigpending, libc::SYS_rt_sigsuspend, libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo, libc::SYS_sigaltstack,
    libc::SYS_kill, libc::SYS_tkill, libc::SYS_tgkill, libc::SYS_signalfd4,
    libc::SYS_restart_syscall, libc::SYS_nanosleep, libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime, libc::SYS_clock_getres, libc::SYS_clock_adjtime,
    libc::SYS_adjtimex, libc::SYS_gettimeofday, libc::SYS_times, libc::SYS_getitimer,
    libc::SYS_setitimer, libc::SYS_timer_create, libc::SYS_timer_settime,
    libc::SYS_timer_gettime, libc::SYS_timer_getoverrun, libc::SYS_timer_delete,
    libc::SYS_timerfd_create, libc::SYS_timerfd_settime, libc::SYS_timerfd_gettime,
];

#[rustfmt::skip]
const NETWORK: &[c_long] = &[
    libc::SYS_socket, libc::SYS_socketpair, libc::SYS_bind, libc::SYS_listen, libc::SYS_accept,
    libc::SYS_accept4, libc::SYS_connect, libc::SYS_shutdown, libc::SYS_getsockname,
    libc::SYS_getpeername, libc::SYS_getsockopt, libc::SYS_setsockopt, libc::SYS_sendto,
    libc::SYS_recvfrom, libc::SYS_sendmsg, libc::SYS_recvmsg, libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
];

/// System V and POSIX queues, of the task's own ipc namespace, and what says who we are.
#[rustfmt::skip]
const SYSTEM: &[c_long] = &[
    libc::SYS_shmget, libc::SYS_shmat, libc::SYS_shmdt, libc::SYS_shmctl, libc::SYS_semget,
    libc::SYS_semop, libc::SYS_semtimedop, libc::SYS_semctl, libc::SYS_msgget, libc::SYS_msgsnd,
    libc::SYS_msgrcv, libc::SYS_msgctl, libc::SYS_mq_open, libc::SYS_mq_unlink,
    libc::SYS_mq_timedsend, libc::SYS_mq_timedreceive, libc::SYS_mq_notify,
    libc::SYS_mq_getsetattr, libc::SYS_uname, libc::SYS_sysinfo, libc::SYS_getrandom,
];

/// Older spellings that newer architectures never had.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const X86_64: &[c_long] = &[
    libc::SYS_open, libc::SYS_creat, libc::SYS_stat, libc::SYS_lstat, libc::SYS_access,
    libc::SYS_mkdir, libc::SYS_rmdir, libc::SYS_mknod, libc::SYS_unlink, libc::SYS_rename,
    libc::SYS_link, libc::SYS_symlink, libc::SYS_readlink, libc::SYS_chmod, libc::SYS_chown,
    libc::SYS_lchown, libc::SYS_getdents, libc::SYS_utime, libc::SYS_utimes,
    libc::SYS_futimesat, libc::SYS_dup2, libc::SYS_pipe, libc::SYS_poll, libc::SYS_select,
    libc::SYS_epoll_create, libc::SYS_epoll_wait, libc::SYS_epoll_ctl_old,
    libc::SYS_epoll_wait_old, libc::SYS_eventfd, libc::SYS_signalfd, libc::SYS_inotify_init,
    libc::SYS_fork, libc::SYS_vfork, libc::SYS_getpgrp, libc::SYS_pause, libc::SYS_alarm,
    libc::SYS_time, libc::SYS_arch_prctl, libc::SYS_set_thread_area, libc::SYS_get_thread_area,
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_lists_do_not_contradict_each_other() {
        let allowed = allowed();
        for number in MACHINE {
            assert!(!allowed.contains(number), "{number} is both allowed and denied");
        }
        assert!(!allowed.contains(&libc::SYS_clone3));
        let unique: std::collections::BTreeSet<_> = allowed.iter().collect();
        assert_eq!(unique.len(), allowed.len());
    }

    #[test]
    fn the_filters_fit_into_the_kernel() {
        let filters = Filters::compile().unwrap();
        assert!(filters.allow.len() < 4096 && filters.deny.len() < 4096);
        // Nothing conditional on the allow list: the kernel then caches the verdict per call.
        assert!(!filters.allow.is_empty());
    }
}
