//! The identity in a client certificate: CN is the user's name, every O a group.

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::UserInfo;

/// `None` when the certificate names nobody. The handshake has already verified its chain.
pub fn user_of(certificate: &CertificateDer<'_>) -> Option<UserInfo> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    if name.is_empty() {
        return None;
    }
    let groups: Vec<&str> =
        subject.iter_organization().filter_map(|group| group.as_str().ok()).collect();
    Some(UserInfo::authenticated(name, &groups))
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
        let user = |identity: crate::pki::Identity| user_of(&identity.der().unwrap().0[0]).unwrap();
        assert_eq!(user(pki.admin().unwrap()), UserInfo::admin());
        assert_eq!(user(pki.controllers().unwrap()), UserInfo::controllers());
        let agent = user(pki.issue_agent("n1").unwrap());
        assert_eq!(agent, UserInfo::agent("n1"));
        assert_eq!(agent.agent_name(), Some("n1"));
    }
}
