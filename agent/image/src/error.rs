//! Why there is no image.

use std::io;

/// Why a pull failed. Its words name the field, the entry or the address at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The reference is not one.
    #[error("{0}")]
    Reference(String),
    /// The content is wrong: damaged, malformed, or made to do harm. A repeat brings the same.
    #[error("{0}")]
    Invalid(String),
    /// The registry does not have it, or not for this machine.
    #[error("{0}")]
    NotFound(String),
    /// The registry wants other credentials.
    #[error("{0}")]
    Denied(String),
    /// This agent does not go where it is sent: plain HTTP, or a redirect to somewhere private.
    #[error("{0}")]
    Forbidden(String),
    /// No answer, or one that asks for patience: worth another try.
    #[error("{0}")]
    Unavailable(String),
    /// There is no room for it.
    #[error("{0}")]
    DiskFull(String),
    /// This machine's own fault.
    #[error("{0}")]
    Local(String),
}

impl Error {
    /// Whether the same pull may succeed a moment later with nobody doing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Error::Unavailable(_) | Error::Local(_))
    }

    /// The same with a prefix that says where.
    pub(crate) fn at(self, place: &str) -> Error {
        let put = |text: String| format!("{place}: {text}");
        match self {
            Error::Reference(text) => Error::Reference(put(text)),
            Error::Invalid(text) => Error::Invalid(put(text)),
            Error::NotFound(text) => Error::NotFound(put(text)),
            Error::Denied(text) => Error::Denied(put(text)),
            Error::Forbidden(text) => Error::Forbidden(put(text)),
            Error::Unavailable(text) => Error::Unavailable(put(text)),
            Error::DiskFull(text) => Error::DiskFull(put(text)),
            Error::Local(text) => Error::Local(put(text)),
        }
    }
}

/// An error of the local disk, in words: `what` was being done.
pub(crate) fn local(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> Error {
    move |error| {
        let text = format!("{what}: {error}");
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::DiskFull(text),
            _ => Error::Local(text),
        }
    }
}
