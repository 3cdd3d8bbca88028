//! One or two output streams as one text: their lines in the order in which they came, from some
//! time on, with the time before each, up to so many bytes. Blocks on the disk.

use std::collections::VecDeque;
use std::io::{self, Write};

use bytes::Bytes;
use jiff::Timestamp;

use super::reader::Reader;
use super::wanted::Wanted;

/// Given out at once, more or less.
const PIECE_BYTES: usize = 64 * 1024;
/// A line that grows beyond this is passed on in parts, so that it need not be held.
const LINE_BYTES_MAX: usize = 256 * 1024;

/// Whole lines of one stream that came at one time.
struct Run {
    at_ns: u64,
    lines: Bytes,
}

/// One stream, taken apart.
struct Lines {
    reader: Reader,
    runs: VecDeque<Run>,
    /// The beginning of a line, and when it came.
    partial: Vec<u8>,
    partial_ns: u64,
    /// When what is read now came.
    at_ns: u64,
}

/// All streams that were asked for.
#[derive(Default)]
pub(super) struct Merged {
    streams: Vec<Lines>,
    /// To be said first.
    notice: String,
    raw: bool,
    timestamps: bool,
    since_ns: Option<u64>,
    /// Of each stream enough lines are read to have the last ones of all, which may be too many.
    skip_lines: u64,
    bytes_left: Option<u64>,
}

impl Merged {
    pub(super) fn new(readers: Vec<Reader>, wanted: &Wanted, notice: String) -> Merged {
        let found: u64 = readers.iter().map(Reader::tail_found).sum();
        let skip_lines = wanted.tail_lines.map_or(0, |lines| found.saturating_sub(lines));
        Merged {
            streams: readers.into_iter().map(Lines::new).collect(),
            notice,
            raw: wanted.is_raw(),
            timestamps: wanted.timestamps,
            since_ns: wanted.since_ns,
            skip_lines,
            bytes_left: wanted.limit_bytes,
        }
    }

    /// Whether all bytes that were asked for have been given.
    pub(super) fn is_over(&self) -> bool {
        self.bytes_left == Some(0)
    }

    /// The next piece; `None` when there is none for now. `complete`: nothing more will come, so
    /// that what is not a whole line goes out as well.
    pub(super) fn next(&mut self, complete: bool) -> io::Result<Option<Bytes>> {
        if self.is_over() {
            return Ok(None);
        }
        let piece = match self.streams.as_mut_slice() {
            [only] if self.raw && self.notice.is_empty() => only.reader.read()?,
            _ => self.next_lines(complete)?,
        };
        Ok(piece.map(|piece| self.limit(piece)))
    }

    fn next_lines(&mut self, complete: bool) -> io::Result<Option<Bytes>> {
        let mut out = Vec::new();
        if self.raw || !self.timestamps {
            out.extend(std::mem::take(&mut self.notice).into_bytes());
        }
        while out.len() < PIECE_BYTES && !self.raw {
            for stream in &mut self.streams {
                stream.fill(complete)?;
            }
            // Each was asked after the others' heads were there, and a line is written before a
            // later one is: so none that came earlier can still be missing.
            let heads = self.streams.iter_mut().filter(|stream| !stream.runs.is_empty());
            let next = heads.min_by_key(|stream| stream.runs[0].at_ns);
            let Some(run) = next.and_then(|stream| stream.runs.pop_front()) else { break };
            self.put(&run, &mut out)?;
        }
        Ok((!out.is_empty()).then(|| out.into()))
    }

    fn put(&mut self, run: &Run, out: &mut Vec<u8>) -> io::Result<()> {
        let mut lines = &run.lines[..];
        while self.skip_lines > 0 && !lines.is_empty() {
            let end = lines.iter().position(|byte| *byte == b'\n').map_or(lines.len(), |n| n + 1);
            lines = &lines[end..];
            self.skip_lines -= 1;
        }
        if lines.is_empty() || self.since_ns.is_some_and(|since| run.at_ns < since) {
            return Ok(());
        }
        if !self.timestamps {
            out.extend_from_slice(lines);
            return Ok(());
        }
        let time = Timestamp::from_nanosecond(run.at_ns.into()).map_err(io::Error::other)?;
        // Always nine digits, as a node of Kubernetes writes it.
        let time = format!("{time:.9} ");
        let notice = std::mem::take(&mut self.notice);
        for line in notice.as_bytes().split_inclusive(|byte| *byte == b'\n') {
            out.write_all(time.as_bytes())?;
            out.write_all(line)?;
        }
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            out.extend_from_slice(time.as_bytes());
            out.extend_from_slice(line);
        }
        Ok(())
    }

    fn limit(&mut self, mut piece: Bytes) -> Bytes {
        if let Some(left) = &mut self.bytes_left {
            piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= piece.len() as u64;
        }
        piece
    }
}

impl Lines {
    fn new(reader: Reader) -> Lines {
        let (runs, partial) = (VecDeque::new(), Vec::new());
        Lines { reader, runs, partial, partial_ns: 0, at_ns: 0 }
    }

    /// Reads until there is a run, or nothing to read.
    fn fill(&mut self, complete: bool) -> io::Result<()> {
        while self.runs.is_empty() {
            let Some((piece, marks)) = self.reader.read_marked()? else {
                if complete {
                    self.flush();
                }
                return Ok(());
            };
            if self.at_ns == 0 && marks.first().is_none_or(|mark| mark.offset > 0) {
                self.at_ns = self.reader.written_ns();
            }
            let mut start = 0;
            for mark in marks {
                let end = usize::try_from(mark.offset).unwrap_or(usize::MAX).min(piece.len());
                self.take(piece.slice(start..end));
                start = end;
                self.at_ns = mark.at_ns;
            }
            self.take(piece.slice(start..));
        }
        Ok(())
    }

    /// Takes bytes that came at `at_ns`.
    fn take(&mut self, mut bytes: Bytes) {
        if !self.partial.is_empty() {
            let end = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |n| n + 1);
            self.partial.extend_from_slice(&bytes.split_to(end));
            if self.partial.ends_with(b"\n") || self.partial.len() > LINE_BYTES_MAX {
                self.flush();
            }
        }
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines = bytes.split_to(whole);
        if !lines.is_empty() {
            self.runs.push_back(Run { at_ns: self.at_ns, lines });
        }
        if !bytes.is_empty() {
            self.partial = bytes.to_vec();
            self.partial_ns = self.at_ns;
        }
    }

    fn flush(&mut self) {
        if !self.partial.is_empty() {
            let lines = std::mem::take(&mut self.partial).into();
            self.runs.push_back(Run { at_ns: self.partial_ns, lines });
        }
    }
}

#[cfg(test)]
mod tests;
