//! The only place that writes to the terminal: data to stdout, words for people to stderr.
//!
//! Colours carry a meaning ([`Tone`]), never stand alone, and are left out off a terminal, with
//! `NO_COLOR` or with `TERM=dumb`; `CLICOLOR_FORCE` brings them back.

use std::{
    env,
    io::{self, IsTerminal, Write},
    sync::OnceLock,
};

use crate::errors::{Failure, Result};

/// What a piece of text means; how that looks is decided in [`paint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Busy,
    Bad,
    Hint,
    Faint,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

fn colour(stream: Stream) -> bool {
    static COLOUR: OnceLock<[bool; 2]> = OnceLock::new();
    let decide = |is_terminal: bool| {
        let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0");
        if env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
            return false;
        }
        set("CLICOLOR_FORCE")
            || (is_terminal && env::var_os("TERM").is_none_or(|term| term != "dumb"))
    };
    COLOUR.get_or_init(|| [decide(io::stdout().is_terminal()), decide(io::stderr().is_terminal())])
        [stream as usize]
}

/// The text, coloured if that stream shows colours.
pub(crate) fn paint(stream: Stream, tone: Tone, text: &str) -> String {
    let code = match tone {
        Tone::Plain => return text.to_owned(),
        Tone::Good => "32",
        Tone::Busy => "33",
        Tone::Bad => "1;31",
        Tone::Hint => "1;36",
        Tone::Faint => "2",
    };
    match colour(stream) {
        true => format!("\x1b[{code}m{text}\x1b[0m"),
        false => text.to_owned(),
    }
}

/// The text, in a colour that differs from that of the numbers before and after: for what is told apart by name
/// anyway, and with colours at a glance.
pub(crate) fn tell_apart(stream: Stream, number: usize, text: &str) -> String {
    /// Without red and green, which mean something, and without black and white, which may not be seen.
    const COLOURS: [&str; 6] = ["36", "35", "34", "33", "96", "95"];
    match colour(stream) {
        true => format!("\x1b[{}m{text}\x1b[0m", COLOURS[number % COLOURS.len()]),
        false => text.to_owned(),
    }
}

/// The meaning of a state word, for tables and progress lines.
pub(crate) fn tone_of_state(state: &str) -> Tone {
    match state {
        "Running" | "Finished" | "Active" | "Ready" | "Bound" | "True" | "Accepted" => Tone::Good,
        "Pending" | "Staging" | "Starting" | "Killing" | "Inactive" | "Draining" => Tone::Busy,
        "Failed" | "Error" | "Lost" | "Gone" | "Unreachable" | "Dropped" | "False" => Tone::Bad,
        "Killed" | "Completed" => Tone::Faint,
        _ => Tone::Plain,
    }
}

/// Data: whole bytes to stdout, at once visible.
pub(crate) fn data(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| Failure::stdout(&error))
}

/// Data: one line to stdout.
pub(crate) fn line(text: &str) -> Result<()> {
    data(format!("{text}\n").as_bytes())
}

/// Words for people, one line to stderr. That nobody listens there is no reason to stop.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A labelled line for people: the label carries the tone.
pub(crate) fn message(tone: Tone, label: &str, text: &str) {
    note(format!("{} {text}", paint(Stream::Stderr, tone, label)).trim_end());
}

/// A finished step: `✓` on a terminal, a plain bullet elsewhere.
pub(crate) fn step(text: &str) {
    match io::stderr().is_terminal() {
        true => message(Tone::Good, " ✓", text),
        false => note(&format!(" - {text}")),
    }
}

/// Bytes that a task wrote to its stderr: they are its words, not its data.
pub(crate) fn passed_on(bytes: &[u8]) {
    let mut err = io::stderr().lock();
    let _ = err.write_all(bytes).and_then(|()| err.flush());
}

/// Whether a question can be asked.
pub(crate) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks on stderr, reads one line from stdin.
pub(crate) fn ask(question: &str) -> Result<String> {
    let mut err = io::stderr().lock();
    let _ = write!(err, "{question} ").and_then(|()| err.flush());
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::new(format!("cannot read your answer: {error}")))?;
    Ok(answer.trim().to_owned())
}

/// How old something is, in kubectl's short form: `45s`, `3m`, `5h`, `2d`.
pub(crate) fn age(since: jiff::Timestamp, now: jiff::Timestamp) -> String {
    let seconds = now.duration_since(since).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ages_read_like_kubectls() {
        let start: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let after = |seconds| start + jiff::SignedDuration::from_secs(seconds);
        assert_eq!(age(start, after(45)), "45s");
        assert_eq!(age(start, after(200)), "3m");
        assert_eq!(age(start, after(3 * 3_600)), "3h");
        assert_eq!(age(start, after(9 * 86_400)), "9d");
        assert_eq!(age(after(5), start), "0s", "clocks differ; an age is never negative");
    }
}
