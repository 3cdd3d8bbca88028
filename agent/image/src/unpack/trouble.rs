//! What can be wrong with one entry, and how that is told.

use std::io;

use rustix::io::Errno;

use crate::error::Error;
use crate::tar::TarError;

/// What went wrong with one entry.
pub(super) enum Trouble {
    Refused(String),
    Disk(&'static str, Errno),
    Read(io::Error),
}

impl Trouble {
    pub(super) fn explain(self, entry: &str) -> Error {
        match self {
            Trouble::Refused(what) => Error::Invalid(format!("{entry}: {what}")),
            // The kernel's word for a path that would lead out.
            Trouble::Disk(_, Errno::XDEV) => {
                Error::Invalid(format!("{entry}: leads out of the image through a link"))
            }
            Trouble::Disk(_, errno @ (Errno::LOOP | Errno::NOTDIR | Errno::NAMETOOLONG)) => {
                Error::Invalid(format!("{entry}: {errno}"))
            }
            Trouble::Disk(what, errno) => {
                crate::error::local(format!("{entry}: {what}"))(errno.into())
            }
            Trouble::Read(source) => read_error(entry, source),
        }
    }
}

pub(super) fn disk(what: &'static str) -> impl FnOnce(Errno) -> Trouble {
    move |errno| Trouble::Disk(what, errno)
}

pub(super) fn refuse<T>(what: impl Into<String>) -> Result<T, Trouble> {
    Err(Trouble::Refused(what.into()))
}

pub(super) fn refusal(error: TarError) -> Error {
    match error {
        TarError::Malformed { entry, what } => Error::Invalid(format!("{entry}: {what}")),
        TarError::Read { entry, source } => read_error(&entry, source),
    }
}

/// Errors of the decompressor are the layer's fault, and so wrapped as such by whoever feeds it.
fn read_error(entry: &str, source: io::Error) -> Error {
    match source.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(error) => error.clone().at(entry),
        None => Error::Invalid(format!("{entry}: {source}")),
    }
}
