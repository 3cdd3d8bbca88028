#![allow(clippy::unwrap_used)]
use std::fs::{File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::*;

/// Writes a stream as a shim does, at times of one's own choice: seconds since 1970.
struct Task(tempfile::TempDir);

impl Task {
    fn new() -> Task {
        Task(tempfile::tempdir().unwrap())
    }

    fn log(&self, name: &str) -> PathBuf {
        self.0.path().join(format!("{name}.log"))
    }

    fn print(&self, name: &str, second: u64, text: &str) {
        let path = self.log(name);
        let mut log = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        let times = path.with_extension("times");
        let new = !times.exists();
        let mut times = OpenOptions::new().append(true).create(true).open(times).unwrap();
        let mut pair = |one: u64, two: u64| {
            times.write_all(&[one.to_le_bytes(), two.to_le_bytes()].concat()).unwrap();
        };
        if new {
            pair(log.metadata().unwrap().ino(), 0);
        }
        let size = log.metadata().unwrap().len();
        let begins_line = size == 0 || std::fs::read(&path).unwrap().ends_with(b"\n");
        let start = if begins_line { Some(0) } else { text.find('\n').map(|end| end + 1) };
        if let Some(start) = start.filter(|start| *start < text.len()) {
            pair(size + start as u64, second * 1_000_000_000 + 5);
        }
        log.write_all(text.as_bytes()).unwrap();
    }

    fn merged(&self, query: &str) -> Merged {
        let wanted = Wanted::parse(query, Timestamp::from_second(10).unwrap()).unwrap();
        let readers = wanted.outputs.iter().map(|output| {
            let name = format!("{output:?}").to_lowercase();
            let mut reader = Reader::new(self.log(&name), wanted.tail_lines);
            reader.begin().unwrap();
            reader
        });
        Merged::new(readers.collect(), &wanted, String::new())
    }

    fn read(&self, query: &str) -> String {
        all(&mut self.merged(query), true)
    }
}

fn all(merged: &mut Merged, complete: bool) -> String {
    let mut text = Vec::new();
    while let Some(piece) = merged.next(complete).unwrap() {
        text.extend_from_slice(&piece);
    }
    String::from_utf8(text).unwrap()
}

fn chatty() -> Task {
    let task = Task::new();
    task.print("stdout", 1, "a\nb\n");
    task.print("stderr", 2, "oh\n");
    task.print("stdout", 3, "c");
    task.print("stderr", 4, "no\n");
    task.print("stdout", 5, "c\nd\ne");
    task
}

#[test]
fn lines_come_in_their_order_and_whole() {
    assert_eq!(chatty().read(""), "a\nb\noh\ncc\nno\nd\ne");
    assert_eq!(chatty().read("stream=stdout"), "a\nb\ncc\nd\ne");
}

#[test]
fn each_line_can_have_its_time() {
    let expected = "\
1970-01-01T00:00:01.000000005Z a
1970-01-01T00:00:01.000000005Z b
1970-01-01T00:00:02.000000005Z oh
1970-01-01T00:00:03.000000005Z cc
1970-01-01T00:00:04.000000005Z no
1970-01-01T00:00:05.000000005Z d
1970-01-01T00:00:05.000000005Z e";
    assert_eq!(chatty().read("timestamps=true"), expected);
    let last = chatty().read("timestamps=true&stream=stderr&tailLines=1");
    assert_eq!(last, "1970-01-01T00:00:04.000000005Z no\n");
}

#[test]
fn a_part_of_it_can_be_had() {
    let task = chatty();
    for (query, want) in [
        ("tailLines=0", ""),
        ("tailLines=2", "d\ne"),
        ("tailLines=4", "cc\nno\nd\ne"),
        ("tailLines=99", "a\nb\noh\ncc\nno\nd\ne"),
        ("sinceSeconds=6", "no\nd\ne"),
        ("sinceTime=1970-01-01T00:00:05Z&stream=stdout", "d\ne"),
        ("tailLines=3&sinceSeconds=5", "d\ne"),
        ("limitBytes=5", "a\nb\no"),
        ("limitBytes=0", ""),
        ("limitBytes=3&stream=stdout", "a\nb"),
        ("limitBytes=34&timestamps=true", "1970-01-01T00:00:01.000000005Z a\n1"),
    ] {
        assert_eq!(task.read(query), want, "{query}");
    }
}

#[test]
fn what_comes_later_is_followed() {
    let task = Task::new();
    let mut merged = task.merged("");
    assert_eq!(all(&mut merged, false), "");
    task.print("stdout", 1, "one\ntw");
    assert_eq!(all(&mut merged, false), "one\n");
    task.print("stderr", 2, "oh\n");
    task.print("stdout", 3, "o\n");
    assert_eq!(all(&mut merged, false), "two\noh\n");
    task.print("stdout", 4, "half");
    assert_eq!(all(&mut merged, false), "");
    assert_eq!(all(&mut merged, true), "half");
}

#[test]
fn a_line_without_end_is_not_held() {
    let task = Task::new();
    let mut merged = task.merged("");
    task.print("stdout", 1, &"x".repeat(3 * LINE_BYTES_MAX));
    assert!(all(&mut merged, false).len() >= 2 * LINE_BYTES_MAX);
}

#[test]
fn a_log_without_times_is_one_all_the_same() {
    let task = Task::new();
    std::fs::write(task.log("stdout"), "a\nb\n").unwrap();
    let touched = task.read("timestamps=true");
    let file = File::open(task.log("stdout")).unwrap().metadata().unwrap();
    let written = Timestamp::new(file.mtime(), i32::try_from(file.mtime_nsec()).unwrap()).unwrap();
    assert_eq!(touched, format!("{written:.9} a\n{written:.9} b\n"));
    assert!(Path::new(&task.log("stdout")).exists());
}
