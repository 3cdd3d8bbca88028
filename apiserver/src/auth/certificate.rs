//! The identity in a client certificate: CN is the user's name, every O a group, and the digest of
//! it all its id.

use std::fmt::Write as _;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{CREDENTIAL_ID, UserInfo};

/// `None` when the certificate names nobody. The handshake has already verified its chain.
pub fn user_of(der: &CertificateDer<'_>) -> Option<UserInfo> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    if name.is_empty() {
        return None;
    }
    let groups: Vec<&str> =
        subject.iter_organization().filter_map(|group| group.as_str().ok()).collect();
    let mut user = UserInfo::authenticated(name, &groups);
    user.extra.insert(CREDENTIAL_ID.to_owned(), vec![credential_id(der)]);
    Some(user)
}

/// How long a certificate is good for from now on; zero for one that is not any more.
pub(crate) fn remaining(der: &CertificateDer<'_>) -> Option<Duration> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let left = certificate.validity().time_to_expiration();
    Some(left.map_or(Duration::ZERO, |left| left.unsigned_abs()))
}

fn credential_id(der: &[u8]) -> String {
    let mut id = "X509SHA256=".to_owned();
    for byte in Sha256::digest(der) {
        let _ = write!(id, "{byte:02x}");
    }
    id
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::pki::Pki;

    #[test]
    fn names_and_groups_come_from_the_subject() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path()).unwrap();
        let user = |identity: crate::pki::Identity| {
            let mut user = user_of(&identity.der().unwrap().0[0]).unwrap();
            assert!(user.extra.remove(CREDENTIAL_ID).is_some() && user.extra.is_empty());
            user
        };
        assert_eq!(user(pki.admin().unwrap()), UserInfo::admin());
        assert_eq!(user(pki.controllers().unwrap()), UserInfo::controllers());
        let agent = user(pki.issue_agent("n1").unwrap());
        assert_eq!(agent, UserInfo::agent("n1"));
        assert_eq!(agent.agent_name(), Some("n1"));
    }

    #[test]
    fn a_certificates_id_is_its_digest_in_hexadecimal() {
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(credential_id(b"abc"), format!("X509SHA256={digest}"));
    }
}
