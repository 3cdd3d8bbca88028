#![allow(clippy::unwrap_used)]
use super::*;

/// A header of our own making, with a right checksum.
fn header(name: &str, kind: u8, size: u64) -> Vec<u8> {
    let mut block = [0_u8; BLOCK];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(b"0000644");
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[136..147].copy_from_slice(b"14371573725");
    block[156] = kind;
    block[257..263].copy_from_slice(b"ustar\0");
    seal(&mut block);
    block.to_vec()
}

fn seal(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

fn padded(body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len().next_multiple_of(BLOCK), 0);
    body
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut body = String::new();
    for (key, value) in records {
        let rest = format!(" {key}={value}\n");
        let length =
            (1..5).map(|d| rest.len() + d).find(|l| l.to_string().len() + rest.len() == *l);
        body.push_str(&format!("{}{rest}", length.unwrap()));
    }
    [header("pax", b'x', body.len() as u64), padded(body.as_bytes())].concat()
}

fn all(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, String> {
    let mut archive = Archive::new(bytes);
    let mut found = Vec::new();
    loop {
        match archive.next() {
            Ok(None) => return Ok(found),
            Ok(Some(entry)) => {
                let mut body = Vec::new();
                archive.read_to_end(&mut body).unwrap();
                found.push((entry, body));
            }
            Err(TarError::Malformed { entry, what }) => return Err(format!("{entry}: {what}")),
            Err(TarError::Read { entry, source }) => return Err(format!("{entry}: {source}")),
        }
    }
}

#[test]
fn what_the_tar_crate_writes_is_read() {
    let mut builder = ::tar::Builder::new(Vec::new());
    let long = format!("{}/file", "d".repeat(200));
    for (path, body) in [("a", &b"one"[..]), (&long, &[7; 1000])] {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(body.len() as u64);
        header.set_mode(0o755);
        header.set_uid(1000);
        header.set_mtime(1_700_000_000);
        builder.append_data(&mut header, path, body).unwrap();
    }
    let mut header = ::tar::Header::new_gnu();
    header.set_entry_type(::tar::EntryType::Symlink);
    header.set_size(0);
    let target = "t".repeat(150);
    builder.append_link(&mut header, "link", &target).unwrap();
    let found = all(&builder.into_inner().unwrap()).unwrap();
    assert_eq!(found.len(), 3);
    assert_eq!((found[0].0.path.as_slice(), found[0].1.as_slice()), (&b"a"[..], &b"one"[..]));
    assert_eq!((found[0].0.mode, found[0].0.uid, found[0].0.mtime), (0o755, 1000, 1_700_000_000));
    assert_eq!((found[1].0.path.as_slice(), found[1].1.len()), (long.as_bytes(), 1000));
    assert_eq!((found[2].0.kind, found[2].0.link.as_slice()), (Kind::Symlink, target.as_bytes()));
}

#[test]
fn pax_says_what_the_header_cannot() {
    let large = OCTAL_SIZE_MAX + 1;
    let archive = [
        pax(&[("path", "ü/long"), ("mtime", "-3.5"), ("uid", "3000000"), ("SCHILY.xattr.a", "b")]),
        header("short", b'0', 3),
        padded(b"abc"),
        pax(&[("size", &large.to_string())]),
        header("large", b'0', 0),
    ]
    .concat();
    let mut archive = Archive::new(&archive[..]);
    let first = archive.next().unwrap().unwrap();
    assert_eq!(
        (first.path.as_slice(), first.uid, first.mtime),
        ("ü/long".as_bytes(), 3_000_000, -3)
    );
    assert_eq!(archive.next().unwrap().unwrap().size, large);
}

#[test]
fn an_archive_may_end_without_an_end() {
    // As umoci's insert writes it.
    let archive = [header("f", b'0', 5), b"hello".to_vec()].concat();
    let found = all(&archive).unwrap();
    assert_eq!((found.len(), found[0].1.as_slice()), (1, &b"hello"[..]));
}

#[test]
fn two_readers_never_see_two_archives() {
    // CVE-2025-62518: whoever goes by the first header takes the body for further entries.
    let hidden = [header("hidden", b'0', 0)].concat();
    for (size, pax_size) in [(0, "512"), (512, "0"), (3, "512")] {
        let archive = [
            header("before", b'0', 0),
            pax(&[("size", pax_size)]),
            header("victim", b'0', size),
            hidden.clone(),
        ]
        .concat();
        let error = all(&archive).unwrap_err();
        assert!(error.contains("\"victim\"") && error.contains("disagree"), "{error}");
    }
}

#[test]
fn malformed_archives_are_refused_with_their_entry() {
    let good = header("good", b'0', 0);
    let mut bad_sum = header("x", b'0', 0);
    bad_sum[0] = b'y';
    let mut bad_size = header("x", b'0', 0);
    bad_size[124..128].copy_from_slice(b"9zzz");
    seal(&mut bad_size);
    let mut gap = vec![0; BLOCK];
    gap.extend(header("after", b'0', 0));
    for (archive, entry, what) in [
        (bad_sum, "good", "checksum"),
        (bad_size, "good", "size"),
        (gap, "good", "empty block"),
        (header("cut", b'0', 700), "cut", "ends within"),
        (header("s", b'S', 0), "\"s\"", "sparse"),
        (header("q", b'!', 0), "\"q\"", "unknown type"),
        (header("l", b'2', 512), "\"l\"", "content"),
        ([pax(&[("GNU.sparse.size", "1")]), header("p", b'0', 0)].concat(), "good", "sparse"),
        (header("pax", b'x', 1 << 32), "good", "bytes"),
        (header("long", b'L', 5000), "good", "5000"),
        ([header("g", b'g', 20), padded(b"12 path=evil\n")].concat(), "good", "malformed"),
        ([header("g", b'g', 13), padded(b"13 path=evil\n")].concat(), "good", "all entries"),
        ([header("x", b'x', 4), padded(b"9 a=")].concat(), "good", "malformed"),
        (good[..100].to_vec(), "good", "ends within"),
        ([pax(&[("path", "a\0b")]), header("z", b'0', 0)].concat(), "a\\0b", "zero byte"),
    ] {
        let error = all(&[good.clone(), archive].concat()).unwrap_err();
        assert!(error.contains(entry) && error.contains(what), "{entry} {what}: {error}");
    }
}

#[test]
fn noise_is_survived() {
    // A cheap fuzz: every single-byte change of a small archive is read or refused, and ends.
    let archive = [pax(&[("path", "some/path")]), header("f", b'0', 5), padded(b"hello")].concat();
    for place in 0..archive.len() {
        for value in [0, 0x20, 0x37, 0x80, 0xff] {
            let mut changed = archive.clone();
            changed[place] = value;
            let _ = all(&changed);
        }
    }
}
