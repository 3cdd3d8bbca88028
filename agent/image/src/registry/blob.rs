//! Blobs: passed on while they arrive, and taken up again where they broke off.

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::sync::mpsc;

use super::{Session, range_from, transport};
use crate::error::Error;
use crate::manifest::Descriptor;

/// How one answer ended.
enum Piece {
    Complete,
    /// There should be more.
    Broken(String),
}

impl Session {
    /// Sends a blob's bytes into `sink`, and says after each how many there were so far. Never more than the
    /// descriptor says; whether they are the right ones is the receiver's to check.
    ///
    /// # Errors
    /// The registry's; [`Error::Local`] if nobody receives any more.
    pub(crate) async fn blob(
        &self,
        blob: &Descriptor,
        sink: &mpsc::Sender<Bytes>,
        progress: impl Fn(u64),
    ) -> Result<(), Error> {
        let path = format!("blobs/{}", blob.digest);
        let mut offset = 0;
        let mut failures = 0;
        loop {
            let before = offset;
            let response = self.get(&path, &range_from(offset)).await?;
            let piece = self.copy(response, blob, &mut offset, sink, &progress).await?;
            let what = match piece {
                Piece::Complete => return Ok(()),
                Piece::Broken(what) => what,
            };
            // As long as it brings something it may break off as often as it likes.
            failures = if offset > before { 1 } else { failures + 1 };
            if failures >= self.registry.pace.attempts {
                return Err(Error::Unavailable(format!(
                    "{}: blob {}: {what} after {offset} of {} bytes",
                    self.reference.endpoint(),
                    blob.digest,
                    blob.size
                )));
            }
            let pause = self.registry.pace.pause(failures - 1, None);
            tracing::debug!(blob = %blob.digest, offset, what, ?pause, "a blob broke off");
            tokio::time::sleep(pause).await;
        }
    }

    async fn copy(
        &self,
        response: Response<Incoming>,
        blob: &Descriptor,
        offset: &mut u64,
        sink: &mpsc::Sender<Bytes>,
        progress: &impl Fn(u64),
    ) -> Result<Piece, Error> {
        let mut skip = begin(&response, blob, *offset)?;
        let mut body = response.into_body();
        loop {
            let frame = tokio::time::timeout(self.registry.pace.stall, body.frame()).await;
            let mut data = match frame {
                Err(_) => return Ok(Piece::Broken("nothing more came".to_owned())),
                Ok(None) if *offset == blob.size => return Ok(Piece::Complete),
                Ok(None) => return Ok(Piece::Broken("it ended".to_owned())),
                Ok(Some(Err(error))) => {
                    return Ok(Piece::Broken(transport::describe(&error)));
                }
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => data,
                    Err(_trailers) => continue,
                },
            };
            let already = usize::try_from(skip).unwrap_or(usize::MAX).min(data.len());
            bytes::Buf::advance(&mut data, already);
            skip -= already as u64;
            if data.is_empty() {
                continue;
            }
            *offset += data.len() as u64;
            if *offset > blob.size {
                return Err(Error::Invalid(format!(
                    "size: the registry sends more than the {} bytes of the manifest",
                    blob.size
                )));
            }
            if sink.send(data).await.is_err() {
                return Err(Error::Local("nobody takes the layer any more".to_owned()));
            }
            progress(*offset);
            // Without waiting for a registry that keeps the connection open.
            if *offset == blob.size && body.is_end_stream() {
                return Ok(Piece::Complete);
            }
        }
    }
}

/// How many bytes of an answer are known already.
fn begin(response: &Response<Incoming>, blob: &Descriptor, offset: u64) -> Result<u64, Error> {
    let headers = response.headers();
    let wrong = |said: u64| {
        Err(Error::Invalid(format!(
            "size: the registry has {said} bytes, the manifest says {}",
            blob.size
        )))
    };
    if response.status() == StatusCode::PARTIAL_CONTENT {
        return match content_range(headers) {
            Some((_, Some(total))) if total != blob.size => wrong(total),
            Some((start, _)) if start <= offset => Ok(offset - start),
            _ => Err(Error::Unavailable("the registry answers another range".to_owned())),
        };
    }
    let length = headers.get(http::header::CONTENT_LENGTH);
    let length: Option<u64> = length.and_then(|value| value.to_str().ok()?.parse().ok());
    match length {
        Some(length) if length != blob.size => wrong(length),
        // A registry without ranges begins anew.
        _ => Ok(offset),
    }
}

/// `bytes 200-1023/1024`: where it begins, and how much there is in all.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(http::header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.parse().ok()?, total.parse().ok()))
}
