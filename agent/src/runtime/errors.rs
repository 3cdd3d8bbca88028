//! Why a shim could not be had, or does not answer.

use commonage_shim::launch::ExitError;

use crate::ledger::LedgerError;

/// A shim could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("write the ledger")]
    Ledger {
        #[from]
        source: LedgerError,
    },
    #[error("write the order to the shim")]
    Prepare { source: std::io::Error },
    #[error("make room in memory for what the task is given to read")]
    Memory { source: std::io::Error },
    #[error("limit what the task may have of the disk")]
    Quota { source: std::io::Error },
    #[error("start a shim")]
    Shim { source: std::io::Error },
    #[error("{}", .0.message)]
    Group(ExitError),
}

pub(super) fn is_gone(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::*;
    matches!(
        error.kind(),
        NotFound | ConnectionRefused | ConnectionReset | BrokenPipe | UnexpectedEof
    )
}

/// Whether what stands behind an error is a disk that takes no more.
pub(super) fn is_disk_full(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let full = |error: &std::io::Error| {
        matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
    };
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref().is_some_and(full) {
            return true;
        }
        next = error.source();
    }
    false
}

/// An error with all its causes on one line.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
