//! TLS of the transport: version 1.3 alone, both ends verified against the cluster's CA, no resumption and no early
//! data (a resumed session would skip the check of the certificate's end; early data can be replayed).
//!
//! The channel of a connection is its ALPN protocol, `stoa/1/<channel>`: it is settled within the handshake, so that no
//! request can ever arrive on a connection whose channel is not known.

use std::fmt;
use std::sync::Arc;

use quinn::crypto::HmacKey;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::crypto::tls13::OkmBlock;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    SupportedCipherSuite, client::WebPkiServerVerifier,
};

use super::credentials::{ANY_NODE_NAME, Credentials, identity_of, node_name, unix};
use super::{Channel, PeerIdentity};
use crate::Clock;

/// All channels, in the order of their numbers.
pub(super) const CHANNELS: [Channel; 4] = [Channel::Liveness, Channel::Append, Channel::Snapshot, Channel::Client];

/// The ALPN protocol of a channel.
pub(super) fn alpn(channel: Channel) -> &'static [u8] {
    match channel {
        Channel::Liveness => b"stoa/1/liveness",
        Channel::Append => b"stoa/1/append",
        Channel::Snapshot => b"stoa/1/snapshot",
        Channel::Client => b"stoa/1/client",
    }
}

/// The channel of an ALPN protocol.
pub(super) fn channel_of(protocol: &[u8]) -> Option<Channel> {
    CHANNELS.into_iter().find(|channel| alpn(*channel) == protocol)
}

/// The server name that a dialer asks for and verifies.
pub(super) fn server_name(node: Option<u64>) -> String {
    node.map_or_else(|| ANY_NODE_NAME.to_owned(), node_name)
}

/// ring's algorithms; AES-128 first, which is the cheapest with the processor's AES instructions.
pub fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..default_provider()
    }
}

/// Verifies certificates against the cluster's CA, in both directions.
pub(super) struct Trust {
    servers: Arc<WebPkiServerVerifier>,
    clients: Arc<dyn ClientCertVerifier>,
}

impl Trust {
    pub(super) fn new(authorities: Vec<CertificateDer<'static>>) -> Result<Self, String> {
        let provider = Arc::new(provider());
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority).map_err(|error| format!("is no certificate of a CA ({error})"))?;
        }
        let roots = Arc::new(roots);
        let servers = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| error.to_string())?;
        let clients =
            WebPkiClientVerifier::builder_with_provider(roots, provider).build().map_err(|error| error.to_string())?;
        Ok(Self { servers, clients })
    }

    /// Verifies this process' own certificate in each role that its identity plays.
    pub(super) fn check_own(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        identity: &PeerIdentity,
        now: UnixTime,
    ) -> Result<(), Error> {
        self.clients.verify_client_cert(leaf, intermediates, now)?;
        if let PeerIdentity::Node(id) = identity {
            let name = ServerName::try_from(node_name(*id)).expect("a node's name is a DNS name");
            self.servers.verify_server_cert(leaf, intermediates, &name, &[], now)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trust")
    }
}

/// TLS of a node that accepts connections.
pub(super) fn server_config(credentials: &Credentials, clock: &Arc<dyn Clock>) -> QuicServerConfig {
    let verifier = Arc::new(DialerVerifier { trust: credentials.trust.clone() });
    let mut config = rustls::ServerConfig::builder_with_details(Arc::new(provider()), calendar(clock))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has suites of TLS 1.3")
        .with_client_cert_verifier(verifier)
        .with_single_cert(credentials.chain.clone(), credentials.key.clone_key())
        .expect("the key was checked against the certificate when the credentials were loaded");
    config.alpn_protocols = CHANNELS.iter().map(|channel| alpn(*channel).to_vec()).collect();
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    QuicServerConfig::try_from(config).expect("the provider has QUIC's initial suite, AES-128-GCM")
}

/// TLS of a dialer on one channel.
pub(super) fn client_config(credentials: &Credentials, clock: &Arc<dyn Clock>, channel: Channel) -> QuicClientConfig {
    let verifier = Arc::new(NodeVerifier { trust: credentials.trust.clone() });
    let mut config = rustls::ClientConfig::builder_with_details(Arc::new(provider()), calendar(clock))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has suites of TLS 1.3")
        .dangerous() // stricter than the default, not laxer: see `NodeVerifier`
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(credentials.chain.clone(), credentials.key.clone_key())
        .expect("the key was checked against the certificate when the credentials were loaded");
    config.alpn_protocols = vec![alpn(channel).to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_early_data = false;
    QuicClientConfig::try_from(config).expect("the provider has QUIC's initial suite, AES-128-GCM")
}

/// The key of stateless resets, derived from the private key: a restarted node can then tell its peers at their first
/// packet that their old connections are gone, instead of leaving them to the idle time.
pub(super) fn reset_key(credentials: &Credentials) -> Arc<dyn HmacKey> {
    let secret = Sha256Key(OkmBlock::new(b"stoa: key of stateless resets, 1"));
    Arc::new(Sha256Key(OkmBlock::new(secret.tag(credentials.key.secret_der()).as_ref())))
}

/// HMAC-SHA256 with the provider's implementation.
struct Sha256Key(OkmBlock);

impl Sha256Key {
    fn tag(&self, data: &[u8]) -> rustls::crypto::hmac::Tag {
        // The pattern is irrefutable unless some crate of the build switches TLS 1.2 on in rustls.
        #[allow(irrefutable_let_patterns)]
        let SupportedCipherSuite::Tls13(suite) = cipher_suite::TLS13_AES_128_GCM_SHA256 else {
            unreachable!("the suite's name says TLS 1.3")
        };
        suite.hkdf_provider.hmac_sign(&self.0, data)
    }
}

impl HmacKey for Sha256Key {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(self.tag(data).as_ref());
    }

    fn signature_len(&self) -> usize {
        32
    }

    /// Nothing that is signed with this key ever comes back to be verified, so a plain comparison would do; it fails
    /// on any difference all the same.
    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), quinn::crypto::CryptoError> {
        if self.tag(data).as_ref() == signature { Ok(()) } else { Err(quinn::crypto::CryptoError) }
    }
}

/// The calendar of `clock`, for TLS.
fn calendar(clock: &Arc<dyn Clock>) -> Arc<dyn TimeProvider> {
    Arc::new(Calendar(clock.clone()))
}

struct Calendar(Arc<dyn Clock>);

impl TimeProvider for Calendar {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix(self.0.wall()))
    }
}

impl fmt::Debug for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Calendar")
    }
}

/// What the dialer demands of the other end: the CA's signature, the use as a server, the expected name, and that the
/// certificate names one node and no client.
#[derive(Debug)]
struct NodeVerifier {
    trust: Arc<Trust>,
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.trust
            .servers
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .map_err(readable)?;
        match identity_of(end_entity) {
            // Again by the identity: a wildcard among the names would satisfy the check above for every node.
            Ok(PeerIdentity::Node(id)) if [ANY_NODE_NAME, &node_name(id)].contains(&&*server_name.to_str()) => {
                Ok(ServerCertVerified::assertion())
            }
            Ok(PeerIdentity::Node(id)) => {
                Err(Error::General(format!("the certificate is that of node {id}, not of {}", server_name.to_str())))
            }
            Ok(PeerIdentity::Client(principal)) => {
                Err(Error::General(format!("the certificate is that of client {principal:?}, not of a node")))
            }
            Err(reason) => Err(Error::General(format!("the certificate proves no identity: {reason}"))),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

/// What a node demands of a dialer: the CA's signature, the use as a client, and an identity.
#[derive(Debug)]
struct DialerVerifier {
    trust: Arc<Trust>,
}

impl ClientCertVerifier for DialerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.trust.clients.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.trust.clients.verify_client_cert(end_entity, intermediates, now).map_err(readable)?;
        identity_of(end_entity)
            .map_err(|reason| Error::General(format!("the certificate proves no identity: {reason}")))?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    default_provider().signature_verification_algorithms
}

/// Rewrites a refusal in words that an operator can act upon. Both ends see them: the text travels in the close frame.
fn readable(error: Error) -> Error {
    let Error::InvalidCertificate(reason) = error else { return error };
    use CertificateError as C;
    Error::General(match reason {
        C::UnknownIssuer | C::BadSignature => "the certificate is not signed by this cluster's CA".to_owned(),
        C::Expired | C::ExpiredContext { .. } => "the certificate has expired".to_owned(),
        C::NotValidYet | C::NotValidYetContext { .. } => "the certificate is not valid yet".to_owned(),
        C::InvalidPurpose | C::InvalidPurposeContext { .. } => {
            "the certificate may not be used in this role (a client's for a node, or the other way round)".to_owned()
        }
        C::NotValidForNameContext { expected, presented } => {
            let presented = presented.join(", ").replace("DnsName(\"", "").replace("\")", "");
            format!("the certificate names {presented}, not {}", expected.to_str())
        }
        other => format!("the certificate is refused: {other}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_channel_has_a_protocol_of_its_own() {
        for channel in CHANNELS {
            assert_eq!(channel_of(alpn(channel)), Some(channel));
        }
        assert_eq!(channel_of(b"stoa/1"), None);
        assert_eq!(channel_of(b"h3"), None);
    }
}
