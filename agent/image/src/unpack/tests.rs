#![allow(clippy::unwrap_used)]
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;

use ::tar::{Builder, EntryType, Header};

use super::*;
use crate::limits::Limits;

/// A layer in the making: entries as the `tar` crate would refuse to write them, too.
struct Made(Builder<Vec<u8>>);

impl Made {
    fn new() -> Made {
        Made(Builder::new(Vec::new()))
    }

    fn entry(mut self, kind: EntryType, path: &str, mode: u32, link: &str, body: &[u8]) -> Made {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(body.len() as u64);
        // Past the crate's own checks of names.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, body).unwrap();
        self
    }

    fn file(self, path: &str, body: &str) -> Made {
        self.entry(EntryType::Regular, path, 0o644, "", body.as_bytes())
    }

    fn dir(self, path: &str, mode: u32) -> Made {
        self.entry(EntryType::Directory, path, mode, "", b"")
    }

    fn symlink(self, path: &str, target: &str) -> Made {
        self.entry(EntryType::Symlink, path, 0o777, target, b"")
    }

    fn link(self, path: &str, target: &str) -> Made {
        self.entry(EntryType::Link, path, 0o644, target, b"")
    }

    fn end(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }

    fn unpack(self) -> (tempfile::TempDir, Result<Unpacked, Error>) {
        within(&self.end(), Limits::default())
    }
}

/// Unpacks into a directory with a neighbour that must stay as it is.
fn within(archive: &[u8], limits: Limits) -> (tempfile::TempDir, Result<Unpacked, Error>) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("t")).unwrap();
    fs::write(dir.path().join("secret"), "untouched").unwrap();
    let result = unpack(archive, &dir.path().join("t"), &Budget::new(&limits));
    assert_eq!(fs::read_to_string(dir.path().join("secret")).unwrap(), "untouched");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "something beside the tree");
    (dir, result)
}

fn tree(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("t")
}

#[test]
fn a_layer_becomes_a_tree() {
    let (dir, result) = Made::new()
        .dir("./", 0o755)
        .dir("etc/", 0o2750)
        .file("etc/motd", "hello")
        .symlink("lib", "usr/lib")
        .dir("usr/lib", 0o755)
        .file("lib/x.so", "through a link that stays inside")
        .link("etc/again", "etc/motd")
        .entry(EntryType::Regular, "su", 0o4755, "", b"#!")
        .entry(EntryType::Fifo, "pipe", 0o600, "", b"")
        .file("twice", "first")
        .file("twice", "second")
        .unpack();
    let done = result.unwrap();
    let tree = tree(&dir);
    assert_eq!(fs::read_to_string(tree.join("etc/again")).unwrap(), "hello");
    assert_eq!(fs::metadata(tree.join("etc/motd")).unwrap().nlink(), 2);
    assert_eq!(fs::metadata(tree.join("etc/motd")).unwrap().mtime(), 1_700_000_000);
    assert_eq!(fs::metadata(tree.join("etc")).unwrap().mtime(), 1_700_000_000);
    assert_eq!(fs::metadata(tree.join("etc")).unwrap().mode() & 0o7777, 0o2750);
    assert!(tree.join("usr/lib/x.so").exists());
    assert_eq!(fs::metadata(tree.join("su")).unwrap().mode() & 0o7777, 0o755, "set-user-id went");
    assert!(fs::metadata(tree.join("pipe")).unwrap().file_type().is_fifo());
    assert_eq!(fs::read_to_string(tree.join("twice")).unwrap(), "second");
    assert_eq!(done.implied, ["usr"]);
    assert_eq!(done.inodes, 12);
}

#[test]
fn whiteouts_take_overlayfs_form() {
    let (dir, result) = Made::new()
        .dir("a", 0o755)
        .file("a/.wh.gone", "")
        .dir("b", 0o755)
        .file("b/.wh..wh..opq", "")
        .file("b/new", "x")
        .file("b/.wh..wh.plnk", "")
        .file(".wh.c", "")
        .dir("c", 0o755)
        .dir("d", 0o755)
        .file(".wh.d", "")
        .unpack();
    result.unwrap();
    let tree = tree(&dir);
    let gone = fs::symlink_metadata(tree.join("a/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    for opaque in ["b", "c", "d"] {
        let mut value = [0; 4];
        let length = rustix::fs::getxattr(tree.join(opaque), "trusted.overlay.opaque", &mut value);
        assert_eq!(&value[..length.unwrap()], b"y", "{opaque}");
    }
    assert!(!tree.join("b/.wh..wh.plnk").exists());
}

#[test]
fn nothing_leads_out_and_the_entry_is_named() {
    let cases = [
        (Made::new().file("../secret", "x"), "../secret", ".."),
        (Made::new().file("a/../../secret", "x"), "a/../../secret", ".."),
        (Made::new().file("/etc/passwd", "x"), "/etc/passwd", "absolute"),
        (Made::new().symlink("out", "..").file("out/secret", "x"), "out/secret", "leads out"),
        (Made::new().symlink("abs", "/etc").file("abs/hostname", "x"), "abs/hostname", "leads out"),
        (Made::new().symlink("p", "/proc/self/root").file("p/tmp/x", "x"), "p/tmp/x", "leads out"),
        (Made::new().link("h", "../secret"), "\"h\"", "hard link"),
        (Made::new().link("h", "/etc/shadow"), "\"h\"", "hard link"),
        (Made::new().symlink("out", "..").link("h", "out/secret"), "\"h\"", "leads out"),
        (Made::new().link("h", "nowhere"), "\"h\"", "lacks"),
        (Made::new().dir("d", 0o755).link("h", "d"), "\"h\"", "no file"),
        (Made::new().entry(EntryType::Char, "dev/mem", 0o666, "", b""), "dev/mem", "device node"),
        (Made::new().entry(EntryType::Block, "dev/sda", 0o666, "", b""), "dev/sda", "device node"),
        (Made::new().file(".wh..wh..opq", ""), ".wh..wh..opq", "everything below"),
        (Made::new().file(".wh.", ""), "\".wh.\"", "delete"),
        (Made::new().file("a/.wh..", ""), "a/.wh..", "delete"),
        (Made::new().file("a/.wh...", ""), "a/.wh...", "delete"),
        (Made::new().file(".", "x"), "\".\"", "top directory"),
        (Made::new().symlink("/", "/etc"), "\"/\"", "top directory"),
        (Made::new().file("f", "").file("f/x", ""), "f/x", "directory"),
        (Made::new().file("d/x", "").file("d", ""), "\"d\"", "not empty"),
        (Made::new().symlink("l", ""), "\"l\"", "link to nothing"),
        (Made::new().symlink("l", "l").file("l/x", ""), "l/x", "symbolic links"),
    ];
    for (made, entry, why) in cases {
        let (_dir, result) = made.unpack();
        let error = result.unwrap_err();
        assert!(
            matches!(&error, Error::Invalid(text) if text.contains(entry) && text.contains(why)),
            "{entry} {why}: {error}"
        );
    }
}

#[test]
fn replacing_a_directory_by_a_link_leads_nowhere() {
    // The directory is known, then becomes a link: what follows must not go through a kept descriptor's name.
    let (dir, result) =
        Made::new().dir("d", 0o755).symlink("d", "..").file("d/secret", "x").unpack();
    assert!(result.unwrap_err().to_string().contains("d/secret"));
    assert!(fs::symlink_metadata(tree(&dir).join("d")).unwrap().is_symlink());
}

#[test]
fn bombs_are_refused_with_the_entry_that_is_too_much() {
    let limits = Limits { unpacked_bytes: 10_000, inodes: 50, ..Limits::default() };
    let mut terabyte = Header::new_ustar();
    terabyte.set_path("huge").unwrap();
    terabyte.set_size(1 << 40);
    terabyte.set_entry_type(EntryType::Regular);
    terabyte.as_gnu_mut();
    terabyte.set_cksum();
    let (_dir, result) = within(terabyte.as_bytes(), limits.clone());
    let error = result.unwrap_err().to_string();
    assert!(error.contains("\"huge\"") && error.contains("10000 bytes"), "{error}");
    let mut many = Made::new();
    for number in 0..60 {
        many = many.file(&format!("f{number}"), "");
    }
    let (_dir, result) = within(&many.end(), limits.clone());
    let error = result.unwrap_err().to_string();
    assert!(error.contains("\"f50\"") && error.contains("50 files"), "{error}");
    // Directories on the way count as well.
    let deep = Made::new().file(&"d/".repeat(45).trim_end_matches('/').replace("d/d", "d/e"), "");
    let deeper = deep.file(&"x/".repeat(45), "");
    let (_dir, result) = within(&deeper.end(), limits);
    assert!(result.unwrap_err().to_string().contains("50 files"));
}

#[test]
fn owners_beyond_all_numbers_are_refused() {
    let mut header = Header::new_gnu();
    header.set_path("f").unwrap();
    header.set_size(0);
    header.set_uid(u64::from(u32::MAX));
    header.set_cksum();
    let (_dir, result) = within(header.as_bytes(), Limits::default());
    assert!(result.unwrap_err().to_string().contains("user 4294967295"));
}

#[test]
fn modes_do_not_stop_root() {
    let (dir, result) =
        Made::new().dir("closed", 0o000).file("closed/in", "x").file("none", "y").unpack();
    result.unwrap();
    let mode = fs::metadata(tree(&dir).join("closed")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0);
    assert!(tree(&dir).join("closed/in").exists());
}
