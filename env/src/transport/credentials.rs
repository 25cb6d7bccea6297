//! What a process shows to prove who it is: its certificate and key, and the certificate authority (CA) of its cluster.
//!
//! | certificate of | subject alternative names (DNS) | common name | may act as TLS |
//! |---|---|---|---|
//! | node 7 | `node-7.stoa.internal`, `node.stoa.internal` | free | server and client |
//! | client | `client.stoa.internal` | the principal | client |
//!
//! A certificate that carries names of both kinds, or of two nodes, proves nothing and is refused.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::PeerIdentity;
use super::tls::{Trust, provider};
use crate::WallTime;

/// The name that every node's certificate carries beside its own.
pub const ANY_NODE_NAME: &str = "node.stoa.internal";
/// The name that every client's certificate carries.
pub const CLIENT_NAME: &str = "client.stoa.internal";
/// Longest principal that a certificate may name, in bytes: it is copied into every request's context and into logs.
pub const PRINCIPAL_BYTES_MAX: usize = 64;

/// The name that the certificate of node `id` carries.
pub fn node_name(id: u64) -> String {
    format!("node-{id}.stoa.internal")
}

/// Why credentials cannot be used. Each message names the file, what is wrong with it, and what would be right.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum CredentialsError {
    /// The file cannot be read.
    #[error("{file}: cannot be read ({reason}); it should be a readable PEM file with {expected}")]
    Unreadable {
        /// The file, or what it stands for.
        file: String,
        /// The system's answer.
        reason: String,
        /// What the file should hold.
        expected: &'static str,
    },
    /// The file is not PEM, or holds something else.
    #[error("{file}: {reason}; it should be a PEM file with {expected}")]
    NotPem {
        /// The file, or what it stands for.
        file: String,
        /// What is wrong with the bytes.
        reason: String,
        /// What the file should hold.
        expected: &'static str,
    },
    /// The private key belongs to another certificate.
    #[error("{key}: this private key does not match the certificate in {cert}; take the key issued with it")]
    KeyMismatch {
        /// File of the key.
        key: String,
        /// File of the certificate.
        cert: String,
    },
    /// The certificate's time is over.
    #[error("{file}: the certificate expired {ago:?} ago by this machine's calendar; issue a new one")]
    Expired {
        /// File of the certificate.
        file: String,
        /// Time since its end.
        ago: Duration,
    },
    /// The certificate's time has not begun.
    #[error("{file}: the certificate becomes valid only in {ahead:?} by this machine's calendar; check the calendar")]
    NotYetValid {
        /// File of the certificate.
        file: String,
        /// Time until its begin.
        ahead: Duration,
    },
    /// Another CA signed the certificate.
    #[error("{cert}: the certificate is not signed by the CA in {ca}; use a certificate that this CA issued")]
    NotSignedByCa {
        /// File of the certificate.
        cert: String,
        /// File of the CA's certificate.
        ca: String,
    },
    /// The certificate is sound, but names neither a node nor a client of Stoa, or may not be used as one.
    #[error(
        "{file}: {reason}; a node's certificate names node-<id>.stoa.internal and node.stoa.internal, \
         a client's names client.stoa.internal and has its principal as common name"
    )]
    NotAnIdentity {
        /// File of the certificate.
        file: String,
        /// What is missing or contradictory.
        reason: String,
    },
}

/// A proven identity and the CA that others must be signed by. Cheap to clone; the private key is never printed.
#[derive(Clone)]
pub struct Credentials {
    pub(super) trust: Arc<Trust>,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: Arc<PrivateKeyDer<'static>>,
    identity: PeerIdentity,
}

/// PEM text and the name by which errors speak of it.
#[derive(Clone, Copy)]
struct Source<'a> {
    name: &'a str,
    pem: &'a [u8],
}

impl Credentials {
    /// Reads the CA's certificate, this process' certificate and its private key from PEM files, and checks them
    /// against each other and against `now`.
    ///
    /// # Errors
    /// [`CredentialsError`], which names the file at fault.
    pub fn from_pem_files(ca: &Path, cert: &Path, key: &Path, now: WallTime) -> Result<Self, CredentialsError> {
        let (ca_pem, cert_pem, key_pem) = (read(ca, A_CERTIFICATE)?, read(cert, A_CERTIFICATE)?, read(key, A_KEY)?);
        let (ca, cert, key) = (ca.display().to_string(), cert.display().to_string(), key.display().to_string());
        Self::load(
            Source { name: &ca, pem: &ca_pem },
            Source { name: &cert, pem: &cert_pem },
            Source { name: &key, pem: &key_pem },
            now,
        )
    }

    /// As [`Credentials::from_pem_files`], from PEM text. Errors speak of "the CA", "the certificate" and "the key".
    pub fn from_pem(ca: &str, cert: &str, key: &str, now: WallTime) -> Result<Self, CredentialsError> {
        Self::load(
            Source { name: "the CA", pem: ca.as_bytes() },
            Source { name: "the certificate", pem: cert.as_bytes() },
            Source { name: "the key", pem: key.as_bytes() },
            now,
        )
    }

    /// Who these credentials prove their holder to be.
    pub fn identity(&self) -> &PeerIdentity {
        &self.identity
    }

    fn load(ca: Source<'_>, cert: Source<'_>, key: Source<'_>, now: WallTime) -> Result<Self, CredentialsError> {
        let authorities = certificates(ca)?;
        for authority in &authorities {
            check_validity(ca, authority, now)?;
        }
        let chain = certificates(cert)?;
        let leaf = &chain[0]; // `certificates` gives one at least
        check_validity(cert, leaf, now)?;
        let private = private_key(key)?;
        check_key(cert, key, &chain, &private)?;
        let identity = identity_of(leaf)
            .map_err(|reason| CredentialsError::NotAnIdentity { file: cert.name.to_owned(), reason })?;
        let trust = Trust::new(authorities).map_err(|reason| CredentialsError::NotPem {
            file: ca.name.to_owned(),
            reason,
            expected: A_CERTIFICATE,
        })?;
        trust.check_own(leaf, &chain[1..], &identity, unix(now)).map_err(|error| match error {
            rustls::Error::InvalidCertificate(
                rustls::CertificateError::InvalidPurpose | rustls::CertificateError::InvalidPurposeContext { .. },
            ) => CredentialsError::NotAnIdentity {
                file: cert.name.to_owned(),
                reason: "its extended key usage forbids the use as what it names".to_owned(),
            },
            _ => CredentialsError::NotSignedByCa { cert: cert.name.to_owned(), ca: ca.name.to_owned() },
        })?;
        Ok(Self { trust: Arc::new(trust), chain, key: Arc::new(private), identity })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("identity", &self.identity).finish_non_exhaustive()
    }
}

const A_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
const A_KEY: &str = "-----BEGIN PRIVATE KEY-----";

/// The identity that a certificate proves once its signature is verified. The error says why it proves none.
pub(super) fn identity_of(leaf: &CertificateDer<'_>) -> Result<PeerIdentity, String> {
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| "it is not an X.509 certificate".to_owned())?;
    let names = certificate.subject_alternative_name().map_err(|_| "it repeats its alternative names".to_owned())?;
    let names: Vec<&str> = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| if let GeneralName::DNSName(name) = name { Some(*name) } else { None })
        .collect();
    let nodes: Vec<u64> = names.iter().filter_map(|name| parse_node_name(name)).collect();
    let is_node = names.contains(&ANY_NODE_NAME);
    match (names.contains(&CLIENT_NAME), is_node, nodes.as_slice()) {
        (false, true, [id]) => Ok(PeerIdentity::Node(*id)),
        (true, false, []) => principal_of(&certificate).map(PeerIdentity::Client),
        (true, ..) => Err("it names a client and a node at once".to_owned()),
        (false, _, [_, _, ..]) => Err("it names several nodes".to_owned()),
        (false, true, []) => Err("it names no particular node".to_owned()),
        (false, false, [id]) => Err(format!("it names node {id} without {ANY_NODE_NAME}")),
        (false, false, []) => Err(format!("it names neither a node nor a client, only {names:?}")),
    }
}

fn parse_node_name(name: &str) -> Option<u64> {
    let id: u64 = name.strip_prefix("node-")?.strip_suffix(".stoa.internal")?.parse().ok()?;
    // One spelling for each node: "+7" and "007" parse as well, and would be names that nobody verifies.
    (node_name(id) == name).then_some(id)
}

fn principal_of(certificate: &X509Certificate<'_>) -> Result<String, String> {
    let mut names = certificate.subject().iter_common_name();
    let (Some(name), None) = (names.next(), names.next()) else {
        return Err("it needs exactly one common name, the principal".to_owned());
    };
    let principal = name.as_str().map_err(|_| "its common name is not text".to_owned())?;
    if principal.is_empty() || principal.len() > PRINCIPAL_BYTES_MAX || principal.chars().any(char::is_control) {
        return Err(format!("its common name must be 1 to {PRINCIPAL_BYTES_MAX} bytes without control characters"));
    }
    Ok(principal.to_owned())
}

fn read(file: &Path, expected: &'static str) -> Result<Vec<u8>, CredentialsError> {
    std::fs::read(file).map_err(|error| CredentialsError::Unreadable {
        file: file.display().to_string(),
        reason: error.to_string(),
        expected,
    })
}

fn certificates(source: Source<'_>) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let not_pem =
        |reason: String| CredentialsError::NotPem { file: source.name.to_owned(), reason, expected: A_CERTIFICATE };
    let all = CertificateDer::pem_slice_iter(source.pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| not_pem(format!("is damaged ({error})")))?;
    if all.is_empty() {
        return Err(not_pem("holds no certificate".to_owned()));
    }
    for one in &all {
        X509Certificate::from_der(one).map_err(|error| not_pem(format!("holds no X.509 certificate ({error})")))?;
    }
    Ok(all)
}

fn private_key(source: Source<'_>) -> Result<PrivateKeyDer<'static>, CredentialsError> {
    PrivateKeyDer::from_pem_slice(source.pem).map_err(|error| CredentialsError::NotPem {
        file: source.name.to_owned(),
        reason: format!("holds no private key ({error})"),
        expected: A_KEY,
    })
}

fn check_key(
    cert: Source<'_>,
    key: Source<'_>,
    chain: &[CertificateDer<'static>],
    private: &PrivateKeyDer<'static>,
) -> Result<(), CredentialsError> {
    match CertifiedKey::from_der(chain.to_vec(), private.clone_key(), &provider()) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(CredentialsError::KeyMismatch { key: key.name.to_owned(), cert: cert.name.to_owned() })
        }
        Err(error) => Err(CredentialsError::NotPem {
            file: key.name.to_owned(),
            reason: format!("holds a private key of no use ({error})"),
            expected: A_KEY,
        }),
    }
}

fn check_validity(source: Source<'_>, certificate: &CertificateDer<'_>, now: WallTime) -> Result<(), CredentialsError> {
    // `certificates` has parsed it already; were it damaged, the chain check that follows would refuse it.
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Ok(()) };
    let now = now.0.div_euclid(1_000_000);
    let validity = certificate.validity();
    let (begin, end) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    if now < begin {
        let ahead = Duration::from_secs(begin.abs_diff(now));
        return Err(CredentialsError::NotYetValid { file: source.name.to_owned(), ahead });
    }
    if now > end {
        return Err(CredentialsError::Expired {
            file: source.name.to_owned(),
            ago: Duration::from_secs(now.abs_diff(end)),
        });
    }
    Ok(())
}

/// Wall time as TLS wants it; times before 1970 count as 1970, where no certificate is valid.
pub(super) fn unix(now: WallTime) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_micros(u64::try_from(now.0).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_one_spelling() {
        assert_eq!(parse_node_name("node-7.stoa.internal"), Some(7));
        for other in ["node-07.stoa.internal", "node-+7.stoa.internal", "node-.stoa.internal", "node.stoa.internal"] {
            assert_eq!(parse_node_name(other), None, "{other}");
        }
        assert_eq!(parse_node_name(&node_name(u64::MAX)), Some(u64::MAX));
    }
}
