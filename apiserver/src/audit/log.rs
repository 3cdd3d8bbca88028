//! The file that events are written to, by a thread of its own: nobody who serves requests waits
//! for a disk. When it falls behind by too much, events are dropped and counted.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use anyhow::Context;
use jiff::Timestamp;

/// Events that may wait to be written, as in kube-apiserver.
const QUEUE_MAX: usize = 10_000;
const MIB: u64 = 1024 * 1024;

/// Where events go, and when a file is full.
#[derive(Clone, Debug, Default)]
pub struct LogConfig {
    /// `-`: standard output.
    pub path: PathBuf,
    /// In MiB; 100 if zero.
    pub size_max_mib: u64,
    /// Full files that are kept; all if zero.
    pub backups_max: usize,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) events: AtomicU64,
    /// Dropped, or not written.
    pub(crate) errors: AtomicU64,
}

/// Drop it to have everything written.
pub(crate) struct Log {
    queue: Option<SyncSender<Vec<u8>>>,
    writer: Option<JoinHandle<()>>,
    pub(crate) counters: Arc<Counters>,
}

impl Log {
    /// # Errors
    /// The file can't be opened.
    pub(crate) fn open(config: LogConfig) -> anyhow::Result<Log> {
        let counters = Arc::new(Counters::default());
        let target = Target::open(config)?;
        let (queue, lines) = sync_channel(QUEUE_MAX);
        let counted = counters.clone();
        let writer = std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || write_all(target, &lines, &counted))?;
        Ok(Log { queue: Some(queue), writer: Some(writer), counters })
    }

    /// Never waits.
    pub(crate) fn write(&self, line: Vec<u8>) {
        self.counters.events.fetch_add(1, Relaxed);
        let queued = self.queue.as_ref().is_some_and(|queue| queue.try_send(line).is_ok());
        if !queued {
            self.counters.errors.fetch_add(1, Relaxed);
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn write_all(mut target: Target, lines: &Receiver<Vec<u8>>, counters: &Counters) {
    while let Ok(first) = lines.recv() {
        let mut next = Some(first);
        while let Some(line) = next {
            if let Err(error) = target.write(&line) {
                // Whoever looks at the counter finds the reason here.
                if counters.errors.fetch_add(1, Relaxed) == 0 {
                    tracing::error!(%error, "the audit log can't be written");
                }
            }
            next = lines.try_recv().ok();
        }
        if target.out.flush().is_err() {
            counters.errors.fetch_add(1, Relaxed);
        }
    }
}

struct Target {
    config: LogConfig,
    out: BufWriter<Box<dyn Write + Send>>,
    written_bytes: u64,
}

impl Target {
    fn open(mut config: LogConfig) -> anyhow::Result<Target> {
        if config.size_max_mib == 0 {
            config.size_max_mib = 100;
        }
        if config.path == Path::new("-") {
            let out = BufWriter::new(Box::new(std::io::stdout()) as Box<dyn Write + Send>);
            return Ok(Target { config, out, written_bytes: 0 });
        }
        let (file, written_bytes) = open(&config.path)
            .with_context(|| format!("cannot open the audit log {}", config.path.display()))?;
        Ok(Target { config, out: BufWriter::new(Box::new(file)), written_bytes })
    }

    fn write(&mut self, line: &[u8]) -> std::io::Result<()> {
        let line_bytes = line.len() as u64;
        let full = self.written_bytes + line_bytes > self.config.size_max_mib * MIB;
        if full && self.written_bytes > 0 && self.config.path != Path::new("-") {
            self.rotate()?;
        }
        self.out.write_all(line)?;
        self.written_bytes += line_bytes;
        Ok(())
    }

    /// `audit.log` becomes `audit-TIME.log`, and a new one is begun.
    fn rotate(&mut self) -> std::io::Result<()> {
        self.out.flush()?;
        let path = &self.config.path;
        let (stem, extension) = parts(path);
        let now = Timestamp::now().strftime("%Y-%m-%dT%H-%M-%S.%6f");
        std::fs::rename(path, path.with_file_name(format!("{stem}-{now}{extension}")))?;
        let (file, written_bytes) = open(path)?;
        self.out = BufWriter::new(Box::new(file));
        self.written_bytes = written_bytes;
        self.forget()
    }

    /// Removes what is more than is to be kept, oldest first: names sort by time.
    fn forget(&self) -> std::io::Result<()> {
        if self.config.backups_max == 0 {
            return Ok(());
        }
        let (stem, extension) = parts(&self.config.path);
        let folder = match self.config.path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let mut backups: Vec<PathBuf> = std::fs::read_dir(folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let time = name.strip_prefix(&format!("{stem}-"));
                let time = time.and_then(|rest| rest.strip_suffix(&extension));
                // Of the length of a time: another log's name may begin like ours.
                time.is_some_and(|time| time.len() == "2026-01-02T03-04-05.000000".len())
            })
            .collect();
        backups.sort();
        let surplus = backups.len().saturating_sub(self.config.backups_max);
        backups[..surplus].iter().try_for_each(std::fs::remove_file)
    }
}

/// Secrets may stand in it: for the owner alone.
fn open(path: &Path) -> std::io::Result<(File, u64)> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

fn parts(path: &Path) -> (String, String) {
    let text =
        |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let extension = text(path.extension());
    let extension = if extension.is_empty() { extension } else { format!(".{extension}") };
    (text(path.file_stem()), extension)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_full_file_makes_room_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let config = LogConfig { path: path.clone(), size_max_mib: 1, backups_max: 2 };
        let log = Log::open(config).unwrap();
        let line = [vec![b'x'; 600 * 1024], vec![b'\n']].concat();
        for _ in 0..6 {
            log.write(line.clone());
        }
        let counters = log.counters.clone();
        drop(log);
        assert_eq!((counters.events.load(Relaxed), counters.errors.load(Relaxed)), (6, 0));
        assert_eq!(std::fs::read(&path).unwrap(), line);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_log_is_appended_to_and_nobody_else_reads_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        for _ in 0..2 {
            let log = Log::open(LogConfig { path: path.clone(), ..LogConfig::default() }).unwrap();
            log.write(b"a\n".to_vec());
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"a\na\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let nowhere = LogConfig { path: dir.path().join("no/audit.log"), ..LogConfig::default() };
        assert!(Log::open(nowhere).is_err());
    }
}
