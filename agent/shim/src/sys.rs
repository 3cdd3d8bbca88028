//! The few system calls that neither std nor nix offers safely.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};

fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Closes every descriptor from `first` on, except those listed.
///
/// Only for a process that is about to use none of them: values that own such a descriptor must
/// not be used any more.
pub(crate) fn close_from(first: RawFd, keep: &[RawFd]) {
    let mut keep: Vec<RawFd> = keep.iter().copied().filter(|fd| *fd >= first).collect();
    keep.sort_unstable();
    let mut start = first;
    for fd in keep {
        if fd > start {
            close_range(start, fd - 1);
        }
        start = fd + 1;
    }
    close_range(start, RawFd::MAX);
}

fn close_range(first: RawFd, last: RawFd) {
    // SAFETY: touches no memory; which descriptors vanish is the caller's promise above. A kernel
    // without the call (before 5.9) would leave descriptors open that are close-on-exec anyway.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}

/// Forks. Refuses in a process with more than one thread: in the child only async-signal-safe
/// calls would be sound then, and everything here allocates.
///
/// # Errors
/// More than one thread, or no more processes.
pub(crate) fn fork() -> io::Result<Option<i32>> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!("refusing to fork with {threads} threads")));
    }
    fork_unchecked()
}

/// Forks without looking for threads, for where `/proc` is not the process's own view: a
/// container's init, which is a clone of a process that [`fork`] has made.
pub(crate) fn fork_unchecked() -> io::Result<Option<i32>> {
    // SAFETY: the process has one thread (checked, or descended from a checked one), so the child
    // is a complete copy and may do whatever the parent could.
    let pid = unsafe { libc::fork() };
    match check(pid.into())? {
        0 => Ok(None),
        _ => Ok(Some(pid)),
    }
}

/// `waitpid` with the raw status, which can also hold real-time signals.
pub(crate) fn wait_raw(pid: i32, flags: i32) -> io::Result<Option<(i32, i32)>> {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    let pid = unsafe { libc::waitpid(pid, &raw mut status, flags) };
    match check(pid.into())? {
        0 => Ok(None),
        _ => Ok(Some((pid, status))),
    }
}

/// Sends a signal by number; unlike nix's, real-time signals included.
pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: touches no memory.
    check(unsafe { libc::kill(pid, signal) }.into()).map(drop)
}

/// Default disposition for every signal, also for the two below `SIGRTMIN` that the C library
/// keeps to itself: a parent may have left them ignored.
pub(crate) fn default_signals() {
    const MASK_BYTES: usize = 8;
    const HIGHEST: i32 = 64;
    // The kernel's sigaction: handler, flags, restorer, mask. All zero means the default.
    let action = [0_u64; 4];
    for number in 1..=HIGHEST {
        // SAFETY: the array is as large as the kernel's structure and outlives the call; the
        // default action runs no code of ours. KILL and STOP refuse, which is as it must be.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                number,
                action.as_ptr(),
                std::ptr::null_mut::<u64>(),
                MASK_BYTES,
            )
        };
    }
}

/// Ends this process by SIGALRM unless called again with another number of seconds; 0 cancels.
pub(crate) fn alarm(seconds: u32) {
    // SAFETY: touches no memory.
    unsafe { libc::alarm(seconds) };
}

/// Replaces the process image; returns only the error.
pub(crate) fn execve(path: &CString, argv: &[CString], envp: &[CString]) -> nix::errno::Errno {
    match nix::unistd::execve(path, argv, envp) {
        Ok(never) => match never {},
        Err(errno) => errno,
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn mount_setattr(
    dir: RawFd,
    path: &CString,
    flags: i32,
    attributes: libc::mount_attr,
) -> io::Result<()> {
    // SAFETY: both pointers outlive the call and the size is that of the structure.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir,
            path.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    check(result).map(drop)
}

fn setting(attr_set: u64) -> libc::mount_attr {
    libc::mount_attr { attr_set, attr_clr: 0, propagation: 0, userns_fd: 0 }
}

/// Makes a mount and everything mounted below it read-only, without devices and set-user-id.
///
/// # Errors
/// Kernels before 5.12 do not have the call. There is no weaker way to fall back to.
pub(crate) fn seal_mounts(root: &Path) -> io::Result<()> {
    let set = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    mount_setattr(libc::AT_FDCWD, &c_path(root)?, libc::AT_RECURSIVE, setting(set))
}

/// A private copy of the mount at a path, attached nowhere.
fn open_tree(path: &Path, recursive: i32) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | recursive.cast_unsigned();
    // SAFETY: the path outlives the call.
    let fd =
        check(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Binds `host` to `target` with the owners of its files translated by a user namespace's map.
///
/// # Errors
/// A file system, or one mounted below it if `recursive`, does not have such mounts.
pub(crate) fn mount_mapped(
    host: &Path,
    target: &Path,
    user_namespace: &OwnedFd,
    recursive: bool,
) -> io::Result<()> {
    let recursive = if recursive { libc::AT_RECURSIVE } else { 0 };
    let tree = open_tree(host, recursive)?;
    let attributes = libc::mount_attr {
        userns_fd: u64::from(user_namespace.as_raw_fd().cast_unsigned()),
        ..setting(libc::MOUNT_ATTR_IDMAP)
    };
    let flags = libc::AT_EMPTY_PATH | recursive;
    mount_setattr(tree.as_raw_fd(), &CString::default(), flags, attributes)?;
    let (empty, target) = (CString::default(), c_path(target)?);
    // SAFETY: both paths outlive the call.
    let moved = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            empty.as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    check(moved).map(drop)
}

/// A descriptor for `file` through a private read-only mount: what is executed through it cannot
/// be opened for writing through `/proc/PID/exe`, by whatever ends up as that process.
///
/// # Errors
/// Not root, or a kernel before 5.12.
pub(crate) fn read_only_view(file: &Path) -> io::Result<OwnedFd> {
    let view = open_tree(file, 0)?;
    let read_only = setting(libc::MOUNT_ATTR_RDONLY);
    mount_setattr(view.as_raw_fd(), &CString::default(), libc::AT_EMPTY_PATH, read_only)?;
    Ok(view)
}

/// Points a standard descriptor at an open file.
pub(crate) fn redirect(file: &File, fd: RawFd) -> io::Result<()> {
    nix::unistd::dup2(file.as_raw_fd(), fd)?;
    Ok(())
}

/// Ends this process at once. No destructors and no exit handlers: in a forked copy those are the
/// original's business.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: touches no memory and does not return.
    unsafe { libc::_exit(code) }
}

/// Of those who start containers: they sleep, or somebody waits for them.
const HASTE: i32 = -10;

/// The niceness that this process would have; [`NOT_HASTENED`] if it has it.
static USUAL_NICENESS: AtomicI32 = AtomicI32::new(NOT_HASTENED);
const NOT_HASTENED: i32 = i32::MAX;

/// Has this process, and those that come of it, go before the long work of others. Best effort: it takes root.
pub(crate) fn hasten() {
    // SAFETY: touches no memory.
    let usual = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    // SAFETY: touches no memory.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, HASTE) } == 0 {
        USUAL_NICENESS.store(usual, Ordering::Relaxed);
    }
}

/// The same for the session that this process has begun: see "autogroup" in sched(7). Where the kernel groups sessions,
/// niceness means nothing between them.
pub(crate) fn hasten_session() {
    if USUAL_NICENESS.load(Ordering::Relaxed) != NOT_HASTENED {
        let _ = std::fs::write("/proc/self/autogroup", HASTE.to_string());
    }
}

/// Takes the haste back, for a task's own command.
pub(crate) fn do_not_hasten() {
    let usual = USUAL_NICENESS.load(Ordering::Relaxed);
    if usual != NOT_HASTENED {
        // SAFETY: touches no memory.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, usual) };
    }
}

/// Between two looks at something of the kernel's that nothing announces.
pub(crate) fn pause(duration: std::time::Duration) {
    #[allow(clippy::disallowed_methods)] // Only ever called in loops with a deadline.
    std::thread::sleep(duration);
}
