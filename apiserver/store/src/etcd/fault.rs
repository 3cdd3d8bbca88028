//! What etcd's errors mean. The one question that matters for a write: was it surely not done?

use std::error::Error as _;
use std::time::Duration;

use etcd_client::Error;

use crate::StoreError;

/// gRPC status codes, from its specification.
mod code {
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const PERMISSION_DENIED: i32 = 7;
    pub(super) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const OUT_OF_RANGE: i32 = 11;
    pub(super) const UNIMPLEMENTED: i32 = 12;
    pub(super) const UNAUTHENTICATED: i32 = 16;
}

fn status(error: &Error) -> Option<(i32, &str)> {
    match error {
        Error::GRpcStatus(status) => Some((i32::from(status.code()), status.message())),
        _ => None,
    }
}

/// etcd has one code for a revision that is too old and one that is too new.
pub(super) fn is_compacted(error: &Error) -> bool {
    status(error)
        .is_some_and(|(code, message)| code == code::OUT_OF_RANGE && message.contains("compacted"))
}

/// A read that failed did nothing; only its words differ.
pub(super) fn of_read(error: &Error) -> StoreError {
    StoreError::Unavailable(format!("etcd: {error}"))
}

pub(super) fn no_answer(after: Duration) -> StoreError {
    StoreError::Unavailable(format!("etcd did not answer within {after:?}"))
}

/// A transaction that failed: refused, surely not done, or unknown when in doubt.
pub(super) fn of_write(error: &Error) -> StoreError {
    match status(error) {
        Some((code::INVALID_ARGUMENT, message)) => {
            StoreError::Refused(format!("etcd refuses the transaction: {message}"))
        }
        // Refused before it was proposed: no room, no right, too many requests.
        Some((
            code::PERMISSION_DENIED
            | code::RESOURCE_EXHAUSTED
            | code::FAILED_PRECONDITION
            | code::UNIMPLEMENTED
            | code::UNAUTHENTICATED,
            message,
        )) => StoreError::Unavailable(format!("etcd: {message}")),
        _ if never_connected(error) => StoreError::Unavailable(format!("no way to etcd: {error}")),
        _ => StoreError::UnknownOutcome(format!("etcd: {error}")),
    }
}

/// Whether the connection itself was refused, so that nothing can have been sent.
fn never_connected(error: &Error) -> bool {
    use std::io::ErrorKind;
    let Error::GRpcStatus(status) = error else {
        return false;
    };
    let mut cause = status.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && matches!(
                error.kind(),
                ErrorKind::ConnectionRefused
                    | ErrorKind::HostUnreachable
                    | ErrorKind::NetworkUnreachable
            )
        {
            return true;
        }
        cause = error.source();
    }
    false
}
