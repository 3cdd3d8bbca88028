//! One task's log as the server streams it, through every interruption.

use std::time::Duration;

use commonage_schemas::Task;
use futures::AsyncReadExt;
use kube::{Api, Client};

use super::Stream;
use crate::{
    errors::{Failure, Result},
    kinds::{encode, request},
    output,
};

/// Before a broken log stream is opened again.
const RETRY: Duration = Duration::from_millis(500);
/// Without a byte between them; then we give up. 40 times 500 ms, enough for a restart.
const RETRIES_MAX: u32 = 40;
/// How often, and how far apart, we look whether a task has ended whose log has.
const STATE_LOOKS: u32 = 20;
const STATE_PAUSE: Duration = Duration::from_millis(50);
const BUFFER_BYTES: usize = 64 * 1024;
/// How an agent begins the line that says what rotation has taken.
const GONE: &[u8] = b"[commonage: the first ";

/// Which log, and how much of it.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) client: &'a Client,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) follow: bool,
    pub(super) timestamps: bool,
    pub(super) since_seconds: Option<u64>,
    pub(super) tail: Option<u64>,
    pub(super) stream: Option<Stream>,
}

/// How far we are.
#[derive(Debug, Default)]
struct Progress {
    /// Bytes passed on.
    passed: u64,
    /// What the task had written up to there, what is gone by now included.
    position: u64,
    /// Something was passed on before: what comes now is to follow it.
    resumed: bool,
}

/// How a request for a log came to its end.
enum Stop {
    End,
    Broken(kube::Error),
}

impl Source<'_> {
    fn path(&self, progress: &Progress) -> String {
        let Self { client: _, namespace, name, follow, timestamps, since_seconds, tail, stream } =
            self;
        let mut query = vec![format!("follow={follow}")];
        if *timestamps {
            query.push("timestamps=true".to_owned());
        }
        // Where we cannot tell what was passed on already, only what is new.
        let from_now = progress.resumed && !self.counts_bytes();
        let tail = if from_now { Some(0) } else { *tail };
        query.extend(tail.map(|lines| format!("tailLines={lines}")));
        let since = since_seconds.filter(|_| !from_now);
        query.extend(since.map(|seconds| format!("sinceSeconds={seconds}")));
        query.extend(stream.map(|stream| format!("stream={stream:?}").to_lowercase()));
        let (namespace, name) = (encode(namespace), encode(name));
        format!(
            "/apis/commonage.dev/v1/namespaces/{namespace}/tasks/{name}/log?{}",
            query.join("&")
        )
    }

    /// Whether every answer has the same bytes in the same places, but for those that are gone.
    fn counts_bytes(&self) -> bool {
        self.tail.is_none() && self.since_seconds.is_none() && !self.timestamps
    }

    /// Passes the log on. A stream that breaks off, or ends while the task lives (an agent or a
    /// server restarts, say), is opened again, and what had been passed on already is skipped.
    pub(super) async fn copy(&self, mut sink: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut progress = Progress::default();
        let mut failures = 0;
        loop {
            let before = progress.passed;
            match self.copy_once(&mut progress, &mut sink).await? {
                Stop::End if !self.follow || self.has_ended_soon().await => return Ok(()),
                Stop::End => {}
                Stop::Broken(error) if !self.follow || failures >= RETRIES_MAX => {
                    return Err(Failure::api(
                        format!("the log of task \"{}\" broke off", self.name),
                        &error,
                    ));
                }
                Stop::Broken(error) => tracing::debug!(%error, "log"),
            }
            if !self.counts_bytes() && !progress.resumed && progress.passed > 0 {
                output::note(&format!(
                    "the log of task \"{}\" broke off; lines may be missing here",
                    self.name
                ));
            }
            progress.resumed = progress.passed > 0;
            failures = if progress.passed > before { 0 } else { failures + 1 };
            tokio::time::sleep(RETRY).await;
        }
    }

    /// One request to its end.
    async fn copy_once(
        &self,
        progress: &mut Progress,
        sink: &mut impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Stop> {
        let request = request("GET", &self.path(progress), Vec::new());
        let mut reader = match self.client.request_stream(request).await {
            Ok(reader) => Box::pin(reader),
            // Asking again helps when somebody is away for a moment, and not when we are refused.
            Err(kube::Error::Api(status)) if !matches!(status.code, 500..=599) => {
                let tried = format!("no log of task \"{}\"", self.name);
                return Err(Failure::status(tried, &status));
            }
            Err(error) => return Ok(Stop::Broken(error)),
        };
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut head = Some(Vec::new());
        let mut skip = 0;
        loop {
            let (read, at_end) = match reader.read(&mut buffer).await {
                Ok(read) => (read, read == 0),
                Err(error) => return Ok(Stop::Broken(kube::Error::ReadEvents(error))),
            };
            let mut bytes = &buffer[..read];
            let begun;
            if let Some(mut first) = head.take() {
                first.extend_from_slice(bytes);
                if !at_end && is_incomplete(&first) {
                    head = Some(first);
                    continue;
                }
                begun = first;
                bytes = &begun;
                skip = self.begin(&mut bytes, progress, sink)?;
            }
            let already = usize::try_from(skip).unwrap_or(usize::MAX).min(bytes.len());
            skip -= already as u64;
            let new = &bytes[already..];
            progress.passed += new.len() as u64;
            progress.position += new.len() as u64;
            if !new.is_empty() {
                sink(new)?;
            }
            if at_end {
                return Ok(Stop::End);
            }
        }
    }

    /// Reads off what is gone, and returns how much of the rest was passed on already.
    fn begin(
        &self,
        bytes: &mut &[u8],
        progress: &mut Progress,
        sink: &mut impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<u64> {
        if !self.counts_bytes() {
            return Ok(0);
        }
        let (notice, gone) = notices(bytes);
        let said = &bytes[..notice];
        *bytes = &bytes[notice..];
        if progress.passed == 0 {
            progress.position = gone;
            if !said.is_empty() {
                sink(said)?;
            }
            return Ok(0);
        }
        if let Some(lost) = gone.checked_sub(progress.position).filter(|lost| *lost > 0) {
            output::note(&format!(
                "{lost} bytes of the log of task \"{}\" are missing here: it was rotated meanwhile",
                self.name
            ));
            progress.position = gone;
        }
        Ok(progress.position - gone)
    }

    /// Whether the task has ended. Its log ends a moment before its state says so.
    async fn has_ended_soon(&self) -> bool {
        let api: Api<Task> = Api::namespaced(self.client.clone(), self.namespace);
        for _ in 0..STATE_LOOKS {
            match api.get_opt(self.name).await {
                Ok(task) if task.as_ref().is_none_or(|task| task.state().is_terminal()) => {
                    return true;
                }
                // Not known, so not ended; the next request will tell.
                _ => tokio::time::sleep(STATE_PAUSE).await,
            }
        }
        false
    }
}

/// Whether a line about what is gone has only begun to come.
fn is_incomplete(bytes: &[u8]) -> bool {
    let (notice, _) = notices(bytes);
    let rest = &bytes[notice..];
    let same = rest.len().min(GONE.len());
    rest[..same] == GONE[..same] && !rest.contains(&b'\n')
}

/// The lines about what is gone that a log begins with: their length, and how many bytes are gone. A task may
/// write such lines too; it only fools those who read its own log.
fn notices(bytes: &[u8]) -> (usize, u64) {
    let (mut length, mut gone) = (0, 0);
    while let Some(end) = bytes[length..].iter().position(|byte| *byte == b'\n') {
        let line = &bytes[length..length + end];
        let number = line.strip_prefix(GONE).and_then(|rest| {
            let digits = rest.split(|byte| *byte == b' ').next()?;
            std::str::from_utf8(digits).ok()?.parse::<u64>().ok()
        });
        let Some(number) = number else { break };
        length += end + 1;
        gone += number;
    }
    (length, gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_read_off_the_beginning() {
        let log = b"[commonage: the first 10 bytes of stdout are gone (kept: 5 files of 10 MiB)]\n\
                    [commonage: the first 32 bytes of stderr are gone (kept: 5 files of 10 MiB)]\nline\n";
        let (length, gone) = notices(log);
        assert_eq!((&log[length..], gone), (&b"line\n"[..], 42));
        assert_eq!(notices(b"line\n[commonage: the first 1 bytes\n"), (0, 0));
        for part in [0, 1, 5, 60, 100, 120] {
            assert!(is_incomplete(&log[..part]), "{part}");
        }
        assert!(!is_incomplete(log) && !is_incomplete(b"l") && !is_incomplete(b"\n"));
    }
}
