//! The cluster's own certificate authority, and everything that is signed with it.
//!
//! Owns `DATA_DIR/pki`. The server calls it at start and when an agent is given an identity.
//! Opening it again finds what is there: an identity is issued anew only when it is missing,
//! damaged, soon to expire or meant for other names. A private key never leaves a 0600 file but
//! for the kubeconfig that it belongs in.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::auth::{AGENT_PREFIX, AGENTS, CONTROLLERS, MASTERS};

mod files;
mod kubeconfig;

pub use kubeconfig::{Kubeconfig, write_kubeconfig};

/// The API server's own name when it calls an agent; agents serve nobody else.
pub const APISERVER_NAME: &str = "system:apiserver";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// As kubeadm: long enough that nobody meets the end of a cluster's authority by surprise.
const CA_VALID: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// As kubeadm: leaves are cheap to renew, which every start does.
const LEAF_VALID: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Renew this long before the end: more than the longest time a server plausibly runs unattended
/// between two looks at it.
const RENEW_BEFORE: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// Clocks of machines differ: a certificate is valid from an hour ago.
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("cannot {operation} {}", path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot issue a certificate for {subject}")]
    Issue {
        subject: String,
        #[source]
        source: rcgen::Error,
    },
    #[error(
        "{} is damaged ({problem}); restore the folder from a backup, or remove it to make a new \
         authority (every kubeconfig and agent identity then has to be handed out again)",
        path.display()
    )]
    Authority { path: PathBuf, problem: String },
    #[error("{0:?} cannot be the name of an agent: it has to be a DNS name in lower case")]
    AgentName(String),
}

/// A certificate and its private key, both PEM.
#[derive(Clone)]
pub struct Identity {
    pub certificate_pem: String,
    pub key_pem: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(..)")
    }
}

impl Identity {
    /// The chain and the key in the form that rustls takes. `None` when either is not PEM.
    pub fn der(&self) -> Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let chain = CertificateDer::pem_slice_iter(self.certificate_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .ok()?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).ok()?;
        (!chain.is_empty()).then_some((chain, key))
    }
}

/// What a leaf certificate is to say.
struct Leaf {
    common_name: String,
    organization: Option<&'static str>,
    names: Vec<SanType>,
    usages: Vec<ExtendedKeyUsagePurpose>,
}

/// The authority. Cheap to keep; issuing takes well under a millisecond (ECDSA P-256).
pub struct Pki {
    dir: PathBuf,
    ca_pem: String,
    ca_der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    /// Opens the authority under `dir`, making it at the first start.
    pub fn open(dir: &Path) -> Result<Pki, PkiError> {
        files::make_dir(dir)?;
        let certificate = dir.join("ca.crt");
        let key = dir.join("ca.key");
        let damaged = |problem: String| PkiError::Authority { path: dir.to_owned(), problem };
        let (ca_pem, key_pem) = match (files::read(&certificate)?, files::read(&key)?) {
            (Some(certificate), Some(key)) => (certificate, key),
            (Some(_), None) => return Err(damaged("ca.key is missing".to_owned())),
            // A key alone is a first start that was interrupted: nothing was signed with it yet,
            // because the certificate is written last.
            (None, _) => {
                let made = new_authority()?;
                files::write_private(&key, &made.key_pem)?;
                files::write_public(&certificate, &made.certificate_pem)?;
                (made.certificate_pem, made.key_pem)
            }
        };
        let key = KeyPair::from_pem(&key_pem).map_err(|error| damaged(error.to_string()))?;
        let ca_der = CertificateDer::from_pem_slice(ca_pem.as_bytes())
            .map_err(|error| damaged(error.to_string()))?;
        if !key_matches(&ca_der, &key) {
            return Err(damaged("ca.key does not belong to ca.crt".to_owned()));
        }
        let issuer =
            Issuer::from_ca_cert_der(&ca_der, key).map_err(|error| damaged(error.to_string()))?;
        Ok(Pki { dir: dir.to_owned(), ca_pem, ca_der, issuer })
    }

    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    pub fn ca_der(&self) -> &CertificateDer<'static> {
        &self.ca_der
    }

    /// The certificate that the API server shows, for these DNS names and addresses.
    pub fn serving(&self, names: &[String]) -> Result<Identity, PkiError> {
        let names = names.iter().filter_map(|name| san(name)).collect();
        self.identity(
            "apiserver",
            Leaf {
                common_name: "commonage-apiserver".to_owned(),
                organization: None,
                names,
                usages: vec![ExtendedKeyUsagePurpose::ServerAuth],
            },
        )
    }

    /// CN=admin, O=system:masters.
    pub fn admin(&self) -> Result<Identity, PkiError> {
        self.client("admin", "admin", Some(MASTERS))
    }

    /// CN=system:controllers, O=system:controllers.
    pub fn controllers(&self) -> Result<Identity, PkiError> {
        self.client("controllers", "system:controllers", Some(CONTROLLERS))
    }

    /// What tokens of service accounts are signed with: a P-256 key, PKCS #8. Made at the first
    /// start; whoever removes it makes every token worthless.
    pub fn service_account_key(&self) -> Result<Vec<u8>, PkiError> {
        let path = self.dir.join("sa.key");
        let key = match files::read(&path)? {
            Some(pem) => KeyPair::from_pem(&pem).map_err(|error| PkiError::Authority {
                path: self.dir.clone(),
                problem: format!("sa.key: {error}"),
            })?,
            None => {
                let subject = "service account tokens".to_owned();
                let key =
                    KeyPair::generate().map_err(|source| PkiError::Issue { subject, source })?;
                files::write_private(&path, &key.serialize_pem())?;
                key
            }
        };
        Ok(key.serialize_der())
    }

    /// The identity that the API server shows to agents.
    pub fn apiserver_client(&self) -> Result<Identity, PkiError> {
        self.client("apiserver-client", APISERVER_NAME, None)
    }

    /// CN=system:agent:`name`, O=system:agents. The agent calls the API server with it and serves
    /// its own endpoint with it, so it is good for both and carries the name and the loopback
    /// address.
    pub fn issue_agent(&self, name: &str) -> Result<Identity, PkiError> {
        let valid = !name.is_empty()
            && name.len() <= 253
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
            && name
                .split('.')
                .all(|label| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-'));
        if !valid {
            return Err(PkiError::AgentName(name.to_owned()));
        }
        files::make_dir(&self.dir.join("agents"))?;
        let names = [name, "127.0.0.1", "localhost"];
        self.identity(
            &format!("agents/{name}"),
            Leaf {
                common_name: format!("{AGENT_PREFIX}{name}"),
                organization: Some(AGENTS),
                names: names.iter().filter_map(|name| san(name)).collect(),
                usages: vec![
                    ExtendedKeyUsagePurpose::ClientAuth,
                    ExtendedKeyUsagePurpose::ServerAuth,
                ],
            },
        )
    }

    fn client(
        &self,
        stem: &str,
        common_name: &str,
        organization: Option<&'static str>,
    ) -> Result<Identity, PkiError> {
        self.identity(
            stem,
            Leaf {
                common_name: common_name.to_owned(),
                organization,
                names: Vec::new(),
                usages: vec![ExtendedKeyUsagePurpose::ClientAuth],
            },
        )
    }

    /// What lies in `stem.crt` and `stem.key`, if it still serves; else issued and written there.
    fn identity(&self, stem: &str, leaf: Leaf) -> Result<Identity, PkiError> {
        let certificate = self.dir.join(format!("{stem}.crt"));
        let key = self.dir.join(format!("{stem}.key"));
        if let (Some(certificate_pem), Some(key_pem)) =
            (files::read(&certificate)?, files::read(&key)?)
        {
            let found = Identity { certificate_pem, key_pem };
            if self.still_serves(&found, &leaf) {
                return Ok(found);
            }
        }
        let made = self.issue(leaf)?;
        // The two files are not replaced at once; the check above finds a pair torn by a crash.
        files::write_private(&key, &made.key_pem)?;
        files::write_public(&certificate, &made.certificate_pem)?;
        Ok(made)
    }

    fn issue(&self, leaf: Leaf) -> Result<Identity, PkiError> {
        let subject = leaf.common_name.clone();
        let failed = |source| PkiError::Issue { subject, source };
        let mut params = CertificateParams::default();
        validity(&mut params, LEAF_VALID);
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(organization) = leaf.organization {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.distinguished_name.push(DnType::CommonName, leaf.common_name);
        params.subject_alt_names = leaf.names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = leaf.usages;
        params.use_authority_key_identifier_extension = true;
        let sign = || {
            let key = KeyPair::generate()?;
            let certificate = params.signed_by(&key, &self.issuer)?;
            Ok((certificate.pem(), key.serialize_pem()))
        };
        let (certificate_pem, key_pem) = sign().map_err(failed)?;
        Ok(Identity { certificate_pem, key_pem })
    }

    fn still_serves(&self, identity: &Identity, leaf: &Leaf) -> bool {
        let Some((chain, _)) = identity.der() else {
            return false;
        };
        let Ok(key) = KeyPair::from_pem(&identity.key_pem) else {
            return false;
        };
        let Ok((_, certificate)) = X509Certificate::from_der(&chain[0]) else {
            return false;
        };
        let Ok((_, authority)) = X509Certificate::from_der(&self.ca_der) else {
            return false;
        };
        let end = certificate.validity().not_after.timestamp();
        let renew_at = unix_seconds(SystemTime::now() + RENEW_BEFORE);
        key_matches(&chain[0], &key)
            && end > renew_at
            && certificate.verify_signature(Some(authority.public_key())).is_ok()
            && certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok())
                == Some(leaf.common_name.as_str())
            && names_of(&certificate) == leaf.names
    }
}

fn new_authority() -> Result<Identity, PkiError> {
    let mut params = CertificateParams::default();
    validity(&mut params, CA_VALID);
    params.distinguished_name = rcgen::DistinguishedName::new();
    // The time makes authorities of different clusters tell apart by name: with equal names
    // OpenSSL reports a bad signature where "unknown authority" is what happened.
    params
        .distinguished_name
        .push(DnType::CommonName, format!("commonage-ca@{}", unix_seconds(SystemTime::now())));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let sign = || {
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Ok((certificate.pem(), key.serialize_pem()))
    };
    let (certificate_pem, key_pem) = sign()
        .map_err(|source| PkiError::Issue { subject: "the authority itself".to_owned(), source })?;
    Ok(Identity { certificate_pem, key_pem })
}

fn validity(params: &mut CertificateParams, valid: Duration) {
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + valid + DAY).into();
}

fn unix_seconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

fn key_matches(certificate: &CertificateDer<'_>, key: &KeyPair) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, parsed)| {
        parsed.public_key().subject_public_key.data.as_ref() == key.public_key_raw()
    })
}

/// An address or a DNS name. A name that no certificate can carry is left out: the machine's own
/// host name may be anything.
fn san(name: &str) -> Option<SanType> {
    match name.parse::<IpAddr>() {
        Ok(address) => Some(SanType::IpAddress(address)),
        Err(_) => Some(SanType::DnsName(name.try_into().ok()?)),
    }
}

fn names_of(certificate: &X509Certificate<'_>) -> Vec<SanType> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = extension.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => san(name),
            GeneralName::IPAddress(octets) => match octets.len() {
                4 => <[u8; 4]>::try_from(*octets).ok().map(IpAddr::from),
                _ => <[u8; 16]>::try_from(*octets).ok().map(IpAddr::from),
            }
            .map(SanType::IpAddress),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests;
