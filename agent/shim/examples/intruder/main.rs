//! A program that tries to get out of its container, or at the machine: rows F-72 to F-76.
//!
//! Tests run it inside of containers: `intruder try ROOT` does everything it knows and says of each attempt whether
//! the kernel refused it, `refused mount-tmpfs EPERM`, or did not, `HOLE mount-tmpfs`. `intruder list ROOT` only
//! tells the names. `ROOT` is `host` or `image`: where its root file system comes from.
//!
//! What it asks for is harmless where it is granted (a clock is set to what it says), and each attempt is made by a
//! process of its own, so that one that succeeds does not help the next.
#![allow(unsafe_code, clippy::unwrap_used)]

use std::io;

mod calls;
mod files;
mod own;

/// One thing to try.
struct Attempt {
    name: String,
    try_it: Box<dyn Fn() -> io::Result<()>>,
    /// What the kernel says when it refuses. Anything else was let through too far.
    refusals: Vec<i32>,
}

impl Attempt {
    fn new(
        name: impl Into<String>,
        refusals: &[i32],
        try_it: impl Fn() -> io::Result<()> + 'static,
    ) -> Attempt {
        Attempt { name: name.into(), try_it: Box::new(try_it), refusals: refusals.to_vec() }
    }

    /// Forks for it; returns the error's number, 0 if it succeeded.
    fn outcome(&self) -> i32 {
        // SAFETY: this program has one thread.
        match unsafe { libc::fork() } {
            -1 => panic!("fork: {}", io::Error::last_os_error()),
            0 => {
                let code = match (self.try_it)() {
                    Ok(()) => 0,
                    Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
                };
                // SAFETY: ends the process at once.
                unsafe { libc::_exit(code) }
            }
            child => {
                let mut status = 0;
                // SAFETY: waits for the child that was just made.
                unsafe { libc::waitpid(child, &raw mut status, 0) };
                match libc::WIFEXITED(status) {
                    true => libc::WEXITSTATUS(status),
                    // Killed for trying.
                    false => libc::EPERM,
                }
            }
        }
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (what, root) = (words[0].as_str(), words[1].as_str());
    let mut attempts = calls::attempts();
    attempts.extend(files::attempts());
    attempts.extend(own::attempts());
    if root == "host" {
        attempts.extend(files::attempts_at_the_hosts_root());
    }
    for attempt in attempts {
        if what == "list" {
            println!("{}", attempt.name);
            continue;
        }
        let errno = attempt.outcome();
        let said = nix::errno::Errno::from_raw(errno);
        match attempt.refusals.contains(&errno) {
            true => println!("refused {} {said:?}", attempt.name),
            false if errno == 0 => println!("HOLE {}", attempt.name),
            false => println!("HOLE {}: got as far as {said:?}", attempt.name),
        }
    }
    if what == "try" {
        println!("end");
    }
}
