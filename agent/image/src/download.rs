//! Plain files by HTTP, with the care that images get; and archives of any of the kinds that layers have.

use std::fs::File;
use std::io::{BufReader, Read, Seek, Write};
use std::path::Path;

use http::{HeaderMap, StatusCode, Uri};
use http_body_util::BodyExt;

use crate::digest::{Digest, Hasher};
use crate::error::{Error, local};
use crate::images::{Images, blocking};
use crate::limits::Limits;
use crate::unpack::{Budget, unpack};

/// What decompresses may still be so large in memory, as a power of two.
const ZSTD_WINDOW_LOG: u32 = 27;

impl Images {
    /// Writes what lies at an `http` or `https` address into a new file, and says its digest. Goes where images
    /// may come from; an address of the machine's metadata service is refused.
    ///
    /// # Errors
    /// See [`Error`]; the file may be there in part.
    pub async fn download(&self, url: &str, to: &Path, most: u64) -> Result<Digest, Error> {
        let registry = &self.0.registry;
        let mut failures = 0;
        loop {
            let error = match self.try_download(url, to, most).await {
                Ok(digest) => return Ok(digest),
                Err(error @ Error::Unavailable(_)) => error,
                Err(error) => return Err(error),
            };
            failures += 1;
            if failures >= registry.pace.attempts {
                return Err(error);
            }
            tokio::time::sleep(registry.pace.pause(failures - 1, None)).await;
        }
    }

    async fn try_download(&self, url: &str, to: &Path, most: u64) -> Result<Digest, Error> {
        let target: Uri = url.parse().map_err(|e| Error::Reference(format!("{url:?}: {e}")))?;
        let registry = &self.0.registry;
        let response = registry.open(&target, &HeaderMap::new()).await?;
        let status = response.status();
        match status.as_u16() {
            200 => {}
            401 | 403 => return Err(Error::Denied(format!("{url} answered {status}"))),
            404 | 410 => return Err(Error::NotFound(format!("{url} answered {status}"))),
            408 | 429 | 500..=599 => {
                return Err(Error::Unavailable(format!("{url} answered {status}")));
            }
            _ => return Err(Error::Forbidden(format!("{url} answered {status}"))),
        }
        debug_assert_eq!(status, StatusCode::OK);
        let mut file = File::create(to).map_err(local(to.display()))?;
        let mut hasher = Hasher::new();
        let mut length: u64 = 0;
        let mut body = response.into_body();
        loop {
            let frame = tokio::time::timeout(registry.pace.stall, body.frame()).await;
            let data = match frame {
                Err(_) => return Err(Error::Unavailable(format!("{url}: nothing more came"))),
                Ok(None) => break,
                Ok(Some(Err(error))) => return Err(Error::Unavailable(format!("{url}: {error}"))),
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            };
            length += data.len() as u64;
            if length > most {
                return Err(Error::Invalid(format!("{url}: is larger than {most} bytes")));
            }
            hasher.update(&data);
            let (sent, place) = (file, to.to_owned());
            file = blocking(move || {
                let mut file = sent;
                file.write_all(&data).map_err(local(place.display()))?;
                Ok(file)
            })
            .await?;
        }
        Ok(hasher.finish())
    }
}

/// The digest of a file. Blocks.
///
/// # Errors
/// The disk's.
pub fn digest_of(path: &Path) -> Result<Digest, Error> {
    let mut file = File::open(path).map_err(local(path.display()))?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer).map_err(local(path.display()))? {
            0 => return Ok(hasher.finish()),
            length => hasher.update(&buffer[..length]),
        }
    }
}

/// Unpacks a tar archive, plain or compressed with gzip or zstd, into an empty directory, as safely as a layer.
/// Blocks.
///
/// # Errors
/// [`Error::Invalid`] with the entry at fault, or the disk's.
pub fn extract(archive: &Path, directory: &Path, limits: &Limits) -> Result<(), Error> {
    let mut file = File::open(archive).map_err(local(archive.display()))?;
    let mut magic = [0; 4];
    let length = file.read(&mut magic).map_err(local(archive.display()))?;
    file.rewind().map_err(local(archive.display()))?;
    let file = BufReader::with_capacity(256 << 10, file);
    let budget = Budget::new(limits);
    match &magic[..length] {
        [0x1f, 0x8b, ..] => unpack(flate2::bufread::MultiGzDecoder::new(file), directory, &budget),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            let mut decoder = zstd::Decoder::with_buffer(file).map_err(local(archive.display()))?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(local(archive.display()))?;
            unpack(decoder, directory, &budget)
        }
        _ => unpack(file, directory, &budget),
    }
    .map(drop)
}
