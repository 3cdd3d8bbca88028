//! Layers that nobody has thought of: whatever they hold, nothing outside of the tree is touched, no more is written
//! than the limits allow, and the answer is a tree or a reason.
#![allow(clippy::unwrap_used)]
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use ::tar::{Builder, EntryType, Header};
use proptest::prelude::*;

use super::*;
use crate::limits::Limits;

const BYTES_MAX: u64 = 4096;
const INODES_MAX: u64 = 12;

/// One entry of an archive, as wrong as it may be.
#[derive(Clone, Debug)]
struct Made {
    kind: u8,
    path: String,
    link: String,
    mode: u32,
    body: Vec<u8>,
}

/// Few names, so that entries meet each other; and all that leads elsewhere.
fn path() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec![
        "a",
        "b",
        "etc",
        "secret",
        "t",
        "..",
        ".",
        "",
        ".wh.a",
        ".wh.b",
        ".wh..wh..opq",
        ".wh.",
        "\u{fc}",
        "a b",
    ]);
    (prop::bool::weighted(0.2), prop::collection::vec(part, 0..4)).prop_map(|(absolute, parts)| {
        ["", "/"][usize::from(absolute)].to_owned() + &parts.join("/")
    })
}

fn entry() -> impl Strategy<Value = Made> {
    // Regular, link, symlink, devices, directory, fifo, contiguous, PAX, GNU long names and sparse files, unknown.
    let kind = prop::sample::select(b"0012223455567xxgLKSVZ\0".to_vec());
    // What PAX records look like, and what they do not.
    let records = prop::sample::select(vec![
        "13 path=a/b\n",
        "16 path=../../t\n",
        "19 linkpath=/secret\n",
        "12 size=9999999999\n",
        "11 size=-1\n",
        "9 path=\n",
        "30 GNU.sparse.realsize=999999999\n",
        "25 SCHILY.xattr.user.a=b\n",
        "99999999999 path=a\n",
        "x",
        "0 \n",
    ]);
    let body = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..1500),
        prop::collection::vec(records, 1..4).prop_map(|all| all.concat().into_bytes()),
    ];
    (kind, path(), path(), any::<u32>(), body).prop_map(|(kind, path, link, mode, body)| Made {
        kind,
        path,
        link,
        mode,
        body,
    })
}

fn archive(entries: &[Made]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for made in entries {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::new(made.kind));
        header.set_mode(made.mode & 0o7777);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(made.body.len() as u64);
        header.as_old_mut().name[..made.path.len()].copy_from_slice(made.path.as_bytes());
        header.as_old_mut().linkname[..made.link.len()].copy_from_slice(made.link.as_bytes());
        header.set_cksum();
        builder.append(&header, made.body.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Everything below a directory: how many there are, and their bytes together.
fn weigh(directory: &Path) -> (u64, u64) {
    let (mut count, mut bytes) = (0, 0);
    for found in fs::read_dir(directory).unwrap() {
        let path = found.unwrap().path();
        let seen = fs::symlink_metadata(&path).unwrap();
        let kind = seen.file_type();
        // Overlayfs' mark for what is deleted is the only device, and one that no driver has.
        let is_whiteout = kind.is_char_device() && seen.rdev() == 0;
        assert!(
            kind.is_dir() || kind.is_file() || kind.is_symlink() || is_whiteout,
            "{path:?} {kind:?}"
        );
        assert_eq!(seen.mode() & 0o6000, 0, "{path:?} is set-user-id");
        count += 1;
        if kind.is_file() {
            bytes += seen.len();
        }
        if kind.is_dir() {
            let below = weigh(&path);
            count += below.0;
            bytes += below.1;
        }
    }
    (count, bytes)
}

fn try_out(archive: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("t")).unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, "untouched").unwrap();
    let before = fs::metadata(&secret).unwrap();
    let limits = Limits { unpacked_bytes: BYTES_MAX, inodes: INODES_MAX, ..Limits::default() };
    let result = unpack(archive, &dir.path().join("t"), &Budget::new(&limits));
    if let Err(error) = &result {
        assert!(matches!(error, Error::Invalid(_) | Error::Unavailable(_)), "{error:?}");
    }
    assert_eq!(fs::read_to_string(&secret).unwrap(), "untouched");
    let after = fs::metadata(&secret).unwrap();
    let told = |seen: &fs::Metadata| (seen.nlink(), seen.mode(), seen.mtime(), seen.uid());
    assert_eq!(told(&before), told(&after), "its links, mode, time and owner");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "something beside the tree");
    let (count, bytes) = weigh(&dir.path().join("t"));
    // Directories that an entry's path implies, up to three each, come beside it.
    assert!(count <= INODES_MAX * 5 && bytes <= BYTES_MAX, "{count} entries, {bytes} bytes");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_archive_reaches_what_is_outside(entries in prop::collection::vec(entry(), 0..16)) {
        try_out(&archive(&entries));
    }

    #[test]
    fn nor_does_a_damaged_one(
        entries in prop::collection::vec(entry(), 1..6),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = archive(&entries);
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        try_out(&bytes);
    }

    #[test]
    fn noise_is_no_archive(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        try_out(&bytes);
    }
}
