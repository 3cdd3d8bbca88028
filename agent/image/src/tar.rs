//! Reads tar archives: ustar, GNU's long names, PAX.
//!
//! Written for archives that somebody made to do harm. Nothing that an archive says makes it allocate more
//! than [`NAME_MAX`] or [`PAX_MAX`]; where its headers contradict each other, so that two readers could see two
//! archives (CVE-2025-62518), it is refused instead of interpreted. Knows nothing of file systems.

use std::io::{self, Read};

const BLOCK: usize = 512;
/// The kernel's bound on paths.
const NAME_MAX: u64 = 4096;
/// Of one PAX header.
const PAX_MAX: u64 = 1 << 20;
/// The largest size that a header's eleven octal digits can say.
const OCTAL_SIZE_MAX: u64 = 0o777_7777_7777;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    Directory,
    Fifo,
    Device,
}

/// One entry, as its headers have it. Paths are whatever bytes they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: i64,
    pub(crate) size: u64,
}

/// What is wrong, and at which entry: the one that was being read, else the one before.
#[derive(Debug)]
pub(crate) enum TarError {
    Malformed { entry: String, what: String },
    Read { entry: String, source: io::Error },
}

/// What headers before an entry said about it.
#[derive(Default)]
struct Overrides {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<i64>,
}

/// An archive being read. As a reader, it is the body of the entry that [`Archive::next`] gave last.
pub(crate) struct Archive<R> {
    reader: R,
    /// Bytes of the body that were not read yet, and of the padding after it.
    remaining: u64,
    padding: u64,
    /// For messages.
    last: String,
}

impl<R: Read> Archive<R> {
    pub(crate) fn new(reader: R) -> Archive<R> {
        Archive { reader, remaining: 0, padding: 0, last: "at the beginning".to_owned() }
    }

    /// The next entry; what is left of the last one's body is skipped.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut said = Overrides::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let size = self.number(&header[124..136], "size")?;
            match header[156] {
                b'x' => self.pax(size, &mut said)?,
                b'g' => self.global(size)?,
                b'L' => said.path = Some(self.long_name(size)?),
                b'K' => said.link = Some(self.long_name(size)?),
                _ => return self.entry(&header, size, said).map(Some),
            }
        }
    }

    fn skip(&mut self) -> Result<(), TarError> {
        let (remaining, padding) = (self.remaining, self.padding);
        (self.remaining, self.padding) = (0, 0);
        let left = remaining.saturating_add(padding);
        let copied = io::copy(&mut (&mut self.reader).take(left), &mut io::sink());
        let copied = copied.map_err(|source| self.broken(source))?;
        // Some writers (umoci) leave out what fills the last block up, and the end.
        if copied < remaining {
            return Err(self.malformed("the archive ends within it"));
        }
        Ok(())
    }

    /// A header that is one; `None` at the end: two blocks of zeros, or nothing more.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut zeros = 0;
        loop {
            let mut block = [0; BLOCK];
            let length = fill(&mut self.reader, &mut block).map_err(|e| self.broken(e))?;
            match length {
                0 => return Ok(None),
                BLOCK => {}
                _ => return Err(self.malformed("the archive ends within a header after it")),
            }
            if block == [0; BLOCK] {
                zeros += 1;
                if zeros == 2 {
                    return Ok(None);
                }
                continue;
            }
            if zeros > 0 {
                return Err(self.malformed("an empty block after it, and then more"));
            }
            let said = self.number(&block[148..156], "checksum")?;
            let sum = |byte: fn(u8) -> i64| -> i64 {
                let around = block[..148].iter().chain(&block[156..]);
                around.map(|b| byte(*b)).sum::<i64>() + 8 * i64::from(b' ')
            };
            // Some old programs added the bytes up as signed ones.
            let sums = [sum(i64::from), sum(|b| i64::from(b.cast_signed()))];
            if !sums.iter().any(|sum| u64::try_from(*sum) == Ok(said)) {
                return Err(self.malformed("the header after it has a wrong checksum"));
            }
            return Ok(Some(block));
        }
    }

    fn entry(
        &mut self,
        header: &[u8; BLOCK],
        size: u64,
        said: Overrides,
    ) -> Result<Entry, TarError> {
        let path = said.path.unwrap_or_else(|| name_of(header));
        self.last = lossy(&path);
        let link = said.link.unwrap_or_else(|| text(&header[157..257]).to_vec());
        let kind = match header[156] {
            b'0' | 0 | b'7' if path.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' | b'4' => Kind::Device,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'S' => return Err(self.malformed("is a sparse file")),
            other => {
                return Err(
                    self.malformed(&format!("is of an unknown type, {:?}", char::from(other)))
                );
            }
        };
        let size = match said.size {
            // The second header is there for what the first cannot say, and for nothing else.
            Some(pax) if pax != size && (pax <= OCTAL_SIZE_MAX || size != 0) => {
                return Err(self.malformed(&format!(
                    "its headers disagree about its size, {size} and {pax} bytes"
                )));
            }
            Some(pax) => pax,
            None => size,
        };
        if kind != Kind::File && size != 0 {
            return Err(self.malformed("has content, which only files can have"));
        }
        if path.is_empty() || path.contains(&0) || link.contains(&0) {
            return Err(self.malformed("its name is empty or has a zero byte"));
        }
        if path.len() as u64 > NAME_MAX || link.len() as u64 > NAME_MAX {
            return Err(self.malformed("its name is too long"));
        }
        let entry = Entry {
            mode: u32::try_from(self.number(&header[100..108], "mode")? & 0o7777).unwrap_or(0),
            uid: said.uid.map_or_else(|| self.number(&header[108..116], "uid"), Ok)?,
            gid: said.gid.map_or_else(|| self.number(&header[116..124], "gid"), Ok)?,
            mtime: said.mtime.map_or_else(|| Ok(time(&header[136..148])), Ok)?,
            path,
            link,
            kind,
            size,
        };
        self.begin_body(size);
        Ok(entry)
    }

    fn begin_body(&mut self, size: u64) {
        self.remaining = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    /// The body of a header that describes another one.
    fn small_body(&mut self, size: u64, max: u64) -> Result<Vec<u8>, TarError> {
        if size > max {
            return Err(self.malformed(&format!("a header after it of {size} bytes")));
        }
        self.begin_body(size);
        let mut body = Vec::new();
        self.read_to_end(&mut body).map_err(|source| self.broken(source))?;
        if self.remaining > 0 {
            return Err(self.malformed("the archive ends within a header after it"));
        }
        Ok(body)
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        let body = self.small_body(size, NAME_MAX + 1)?;
        Ok(text(&body).to_vec())
    }

    /// Comments are common (git writes one); what changes every entry after it nobody writes.
    fn global(&mut self, size: u64) -> Result<(), TarError> {
        let body = self.small_body(size, PAX_MAX)?;
        let mut said = Overrides::default();
        self.records(&body, &mut said)?;
        match said {
            Overrides { path: None, link: None, size: None, .. } => Ok(()),
            _ => Err(self.malformed("a header for all entries after it names a path or a size")),
        }
    }

    fn pax(&mut self, size: u64, said: &mut Overrides) -> Result<(), TarError> {
        let body = self.small_body(size, PAX_MAX)?;
        self.records(&body, said)
    }

    /// `LENGTH KEY=VALUE\n`, where the length counts itself.
    fn records(&self, mut body: &[u8], said: &mut Overrides) -> Result<(), TarError> {
        let bad = || self.malformed("a malformed PAX header after it");
        while !body.is_empty() {
            let space = body.iter().take(20).position(|b| *b == b' ').ok_or_else(bad)?;
            let digits = std::str::from_utf8(&body[..space]).map_err(|_| bad())?;
            let length: usize = digits.parse().map_err(|_| bad())?;
            if length <= space + 1 || length > body.len() || body[length - 1] != b'\n' {
                return Err(bad());
            }
            let record = &body[space + 1..length - 1];
            body = &body[length..];
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(bad)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            let number = || -> Option<u64> { std::str::from_utf8(value).ok()?.parse().ok() };
            match key {
                b"path" => said.path = Some(value.to_vec()),
                b"linkpath" => said.link = Some(value.to_vec()),
                b"size" => said.size = Some(number().ok_or_else(bad)?),
                b"uid" => said.uid = Some(number().ok_or_else(bad)?),
                b"gid" => said.gid = Some(number().ok_or_else(bad)?),
                b"mtime" => said.mtime = Some(seconds(value).ok_or_else(bad)?),
                key if key.starts_with(b"GNU.sparse.") => {
                    return Err(self.malformed("a sparse file after it"));
                }
                // Extended attributes and comments: nothing that a container gets.
                _ => {}
            }
        }
        Ok(())
    }

    /// Octal digits, or GNU's binary form.
    fn number(&self, field: &[u8], name: &str) -> Result<u64, TarError> {
        let bad = || self.malformed(&format!("the header after it has no {name}"));
        if field[0] & 0x80 != 0 {
            // The highest bit says which form it is, the next one the sign.
            let bytes = std::iter::once(field[0] & 0x7f).chain(field[1..].iter().copied());
            let mut sum: u64 = 0;
            for byte in bytes {
                sum = sum.checked_mul(256).map(|sum| sum | u64::from(byte)).ok_or_else(bad)?;
            }
            return if field[0] & 0x40 == 0 { Ok(sum) } else { Err(bad()) };
        }
        let digits = field.iter().skip_while(|b| **b == b' ');
        let mut sum: u64 = 0;
        for byte in digits.take_while(|b| !matches!(b, b' ' | 0)) {
            if !(b'0'..=b'7').contains(byte) {
                return Err(bad());
            }
            sum = sum << 3 | u64::from(byte - b'0');
        }
        Ok(sum)
    }

    fn malformed(&self, what: &str) -> TarError {
        TarError::Malformed { entry: self.last.clone(), what: what.to_owned() }
    }

    fn broken(&self, source: io::Error) -> TarError {
        TarError::Read { entry: self.last.clone(), source }
    }
}

impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.reader.read(&mut buffer[..most])?;
        self.remaining -= length as u64;
        Ok(length)
    }
}

/// Reads until the buffer is full or there is no more.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn name_of(header: &[u8; BLOCK]) -> Vec<u8> {
    let name = text(&header[..100]);
    let prefix = text(&header[345..500]);
    // GNU keeps other things where POSIX has the prefix.
    match &header[257..263] {
        b"ustar\0" if !prefix.is_empty() => [prefix, b"/", name].concat(),
        _ => name.to_vec(),
    }
}

fn text(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or_default()
}

/// A time that is not one is no reason to refuse a file.
fn time(field: &[u8]) -> i64 {
    let digits = std::str::from_utf8(text(field)).unwrap_or_default().trim();
    i64::from_str_radix(digits, 8).unwrap_or(0)
}

/// `1700000000.123`, also before 1970.
fn seconds(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    text.split('.').next()?.parse().ok()
}

/// For people: what is no text is shown as such.
pub(crate) fn lossy(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    let short: String = text.chars().take(200).flat_map(char::escape_debug).collect();
    format!("entry \"{short}\"")
}

#[cfg(test)]
mod tests;
