//! What etcd's errors mean. The one question that matters for a write: was it surely not done?

use std::error::Error as _;
use std::time::Duration;

use etcd_client::Error;

use crate::StoreError;

/// gRPC status codes, from its specification.
mod code {
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const NOT_FOUND: i32 = 5;
    pub(super) const PERMISSION_DENIED: i32 = 7;
    pub(super) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const OUT_OF_RANGE: i32 = 11;
    pub(super) const UNIMPLEMENTED: i32 = 12;
    pub(super) const UNAVAILABLE: i32 = 14;
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

/// Whether another member might answer better.
pub(super) fn is_of_member(error: &Error) -> bool {
    !matches!(
        status(error),
        Some((
            code::INVALID_ARGUMENT
                | code::PERMISSION_DENIED
                | code::RESOURCE_EXHAUSTED
                | code::FAILED_PRECONDITION
                | code::OUT_OF_RANGE
                | code::UNIMPLEMENTED
                | code::UNAUTHENTICATED,
            _
        ))
    )
}

/// Whether a transaction certainly did not get to etcd's log, because this member could not put it
/// there: another one may be asked.
pub(super) fn surely_not_sent(error: &Error) -> bool {
    // Said before the request is looked at, when we asked for a member that knows a leader.
    let leaderless = status(error).is_some_and(|(code, message)| {
        code == code::UNAVAILABLE && message == "etcdserver: no leader"
    });
    leaderless || never_connected(error)
}

/// Its quota is used up (alarm NOSPACE): refused before it is proposed, and again before it is done.
pub(super) fn is_full(error: &Error) -> bool {
    status(error).is_some_and(|(code, message)| {
        code == code::RESOURCE_EXHAUSTED && message.contains("space exceeded")
    })
}

fn message_of(error: &Error) -> &str {
    status(error).map_or("", |(_, message)| message.trim_start_matches("etcdserver: "))
}

/// A read that failed did nothing; only its words differ.
pub(super) fn of_read(error: &Error) -> StoreError {
    StoreError::Unavailable(format!("etcd: {error}"))
}

/// A lease that was not granted, or that nobody knows of: no key hangs on it.
pub(super) fn of_lease(error: &Error) -> StoreError {
    match is_full(error) {
        true => StoreError::Full(format!("etcd: {}", message_of(error))),
        false => StoreError::Unavailable(format!("etcd grants no lease: {error}")),
    }
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
        _ if is_full(error) => StoreError::Full(format!("etcd: {}", message_of(error))),
        // Its expiring keys hang on a lease that somebody revoked: looked at before anything is done.
        Some((code::NOT_FOUND, message)) if message.contains("lease") => {
            StoreError::Unavailable(format!("etcd: {message}"))
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
        _ if surely_not_sent(error) => StoreError::Unavailable(format!("no way to etcd: {error}")),
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
