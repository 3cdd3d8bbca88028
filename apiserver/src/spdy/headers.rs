//! Header blocks: names and values, compressed by one zlib stream per direction of a connection.

use bytes::{Buf, BufMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::dictionary::DICTIONARY;
use super::frame::Malformed;

/// A header block's names and values; a name is in lower case, and there once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Headers(Vec<(String, String)>);

/// Inflated; ours are some dozen bytes.
const BLOCK_BYTES_MAX: usize = 64 * 1024;
/// Grows by so much.
const STEP_BYTES: usize = 4 * 1024;

impl Headers {
    #[cfg(test)]
    pub(crate) fn of(pairs: &[(&str, &str)]) -> Headers {
        Headers(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    /// `name` in lower case. Of several values, the first.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(key, _)| key == name)?;
        value.split('\0').next()
    }

    fn encode(&self) -> Vec<u8> {
        let mut block = Vec::new();
        block.put_u32(self.0.len() as u32);
        for (name, value) in &self.0 {
            for text in [name, value] {
                block.put_u32(text.len() as u32);
                block.put_slice(text.as_bytes());
            }
        }
        block
    }

    fn decode(mut block: &[u8]) -> Result<Headers, Malformed> {
        let count = number(&mut block)?;
        // Each takes eight bytes at least: a count that lies does not make us reserve memory.
        if count > block.len() / 8 {
            return Err(Malformed("a header block is shorter than it says"));
        }
        let mut headers = Vec::with_capacity(count);
        for _ in 0..count {
            let name = text(&mut block)?.to_ascii_lowercase();
            headers.push((name, text(&mut block)?));
        }
        Ok(Headers(headers))
    }
}

fn number(block: &mut &[u8]) -> Result<usize, Malformed> {
    if block.len() < 4 {
        return Err(Malformed("a header block ends early"));
    }
    Ok(block.get_u32() as usize)
}

fn text(block: &mut &[u8]) -> Result<String, Malformed> {
    let length = number(block)?;
    if block.len() < length {
        return Err(Malformed("a header block ends early"));
    }
    let (text, rest) = block.split_at(length);
    *block = rest;
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// The direction that we send.
pub(super) struct Deflater(Compress);

impl Deflater {
    pub(super) fn new() -> Deflater {
        let mut compress = Compress::new(Compression::default(), true);
        compress.set_dictionary(&DICTIONARY).expect("nothing has been compressed yet");
        Deflater(compress)
    }

    pub(super) fn block(&mut self, headers: &Headers) -> Vec<u8> {
        let plain = headers.encode();
        let mut block = Vec::with_capacity(plain.len() + 64);
        let begin = self.0.total_in();
        loop {
            let done = (self.0.total_in() - begin) as usize;
            let status = self.0.compress_vec(&plain[done..], &mut block, FlushCompress::Sync);
            let done = (self.0.total_in() - begin) as usize;
            // Room left over means that the flush is complete.
            if status.is_err() || (done == plain.len() && block.len() < block.capacity()) {
                return block;
            }
            block.reserve(STEP_BYTES);
        }
    }
}

/// The direction that we receive.
pub(super) struct Inflater(Decompress);

impl Inflater {
    pub(super) fn new() -> Inflater {
        Inflater(Decompress::new(true))
    }

    pub(super) fn headers(&mut self, block: &[u8]) -> Result<Headers, Malformed> {
        Headers::decode(&self.inflate(block)?)
    }

    fn inflate(&mut self, mut input: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut plain = Vec::with_capacity(STEP_BYTES);
        loop {
            let before = (self.0.total_in(), self.0.total_out());
            let inflated = self.0.decompress_vec(input, &mut plain, FlushDecompress::Sync);
            input = &input[(self.0.total_in() - before.0) as usize..];
            match inflated {
                Ok(Status::Ok | Status::BufError) => {}
                Ok(Status::StreamEnd) => return Err(Malformed("the header stream ends")),
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0
                        .set_dictionary(&DICTIONARY)
                        .map_err(|_| Malformed("the header stream has another dictionary"))?;
                    continue;
                }
                Err(_) => return Err(Malformed("a header block is not zlib")),
            }
            let stuck = before == (self.0.total_in(), self.0.total_out());
            if plain.len() < plain.capacity() {
                match input.is_empty() {
                    true => return Ok(plain),
                    false if stuck => return Err(Malformed("a header block does not inflate")),
                    false => {}
                }
            } else if plain.len() >= BLOCK_BYTES_MAX {
                return Err(Malformed("a header block is too large"));
            } else {
                plain.reserve(STEP_BYTES);
            }
        }
    }
}
