//! Why there was no answer: what the libraries on the way say, in words for people.

use std::{error::Error, fmt, io};

use super::{Failure, chain, exit};

/// Where the reader of a refused certificate should look.
const OTHER_CLUSTER: &str = "the kubeconfig is of another cluster, or older than this one: use the one that `cmn up` printed";
const OTHER_PLACE: &str =
    "where it is stands in the kubeconfig: name another one with --kubeconfig FILE";

/// A request that the API server has not answered.
pub(super) fn failure(tried: impl fmt::Display, error: &kube::Error) -> Failure {
    let (why, hint) = match io_kind(error) {
        Some(io::ErrorKind::ConnectionRefused) => (
            "no API server answers there (connection refused)".to_owned(),
            "start one with `cmn up`, or name another kubeconfig with --kubeconfig FILE",
        ),
        _ => reason(&chain(error)),
    };
    Failure::new(format!("{tried}: {why}")).hint(hint).exit(exit::UNREACHABLE)
}

/// What to say instead of such a chain of errors, and what to do.
fn reason(chain: &str) -> (String, &'static str) {
    let after = |mark: &str| chain.split_once(mark).map(|(_, rest)| rest.trim().to_owned());
    if let Some(why) = after("invalid peer certificate: ") {
        let words =
            format!("the API server's certificate is none that the kubeconfig trusts ({why})");
        return (words, OTHER_CLUSTER);
    }
    if let Some(why) = after("received fatal alert: ") {
        return (
            format!("the API server refuses the kubeconfig's certificate ({why})"),
            OTHER_CLUSTER,
        );
    }
    if let Some(why) = after("dns error: ") {
        return (format!("the API server's host name leads nowhere ({why})"), OTHER_PLACE);
    }
    if chain.contains("invalid HTTP version") {
        let words = "what answers there speaks no HTTP: is it https and the kubeconfig says http?";
        return (words.to_owned(), OTHER_PLACE);
    }
    // What the libraries call their layers tells a person nothing.
    let mut words = chain;
    for layer in ["ServiceError: ", "client error (Connect): ", "client error (SendRequest): "] {
        words = words.strip_prefix(layer).unwrap_or(words);
    }
    (words.to_owned(), "see whether the API server is up: `cmn version`")
}

fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>().filter(|io| io.get_ref().is_none()) {
            return Some(io.kind());
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_connection_is_told_in_words() {
        for (chain, words, hint) in [
            (
                "ServiceError: client error (Connect): invalid peer certificate: UnknownIssuer",
                "trusts (UnknownIssuer)",
                OTHER_CLUSTER,
            ),
            (
                "ServiceError: client error (SendRequest): connection error: received fatal alert: UnknownCA",
                "refuses the kubeconfig's certificate (UnknownCA)",
                OTHER_CLUSTER,
            ),
            (
                "ServiceError: client error (Connect): dns error: no such host",
                "(no such host)",
                OTHER_PLACE,
            ),
        ] {
            let (said, next) = reason(chain);
            assert!(said.contains(words) && !said.contains("client error"), "{said}");
            assert_eq!(next, hint);
        }
        assert_eq!(
            reason("ServiceError: client error (Connect): tcp open error").0,
            "tcp open error"
        );
    }
}
