//! Whoever has a right certificate and means no good, and whoever has none: connections past the client's manners.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, SendStream, TransportConfig, VarInt};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use stoa::local_cluster::LocalCluster;
use stoa_env::transport::credentials::ANY_NODE_NAME;
use stoa_env::{Entropy, JoinSet, OsEntropy};
use stoa_protocol::frame::{FRAME_HEADER_BYTES, FrameHeader, encode_frame};
use stoa_protocol::message::Kind;
use stoa_protocol::{ClusterId, MapVersion};

/// The ALPN protocol of clients.
const CLIENT_PROTOCOL: &[u8] = b"stoa/1/client";
/// The name of a client's certificate.
const PRINCIPAL: &str = "app";
/// Streams that one connection of a client may have.
const STREAMS: usize = 256;
/// Bytes of a request that is much too large.
const MUCH: usize = 20 << 20;
/// Bytes of a request that must have one of the few places for large ones.
const LARGE: usize = 1 << 20;
/// Large requests at a time.
const LARGE_STREAMS: usize = 200;
/// Between two small steps of an attacker, so that the processor is not what is attacked.
const PAUSE: Duration = Duration::from_millis(2);
/// Between two large ones.
const LONG_PAUSE: Duration = Duration::from_millis(100);

/// An attacker of one node.
#[derive(Clone)]
pub struct Attacker {
    endpoint: Endpoint,
    target: SocketAddr,
    cluster: ClusterId,
    strikes: Arc<AtomicU64>,
}

impl Attacker {
    /// With the certificate of the cluster's application.
    pub fn of(cluster: &LocalCluster, id: ClusterId, node: u64) -> anyhow::Result<Self> {
        let file = |name: &str| cluster.certs().join(name);
        let mut roots = rustls::RootCertStore::empty();
        for authority in CertificateDer::pem_file_iter(file("ca.pem"))? {
            roots.add(authority?)?;
        }
        let chain =
            CertificateDer::pem_file_iter(file(&format!("client-{PRINCIPAL}.pem")))?.collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_file(file(&format!("client-{PRINCIPAL}.key")))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        tls.alpn_protocols = vec![CLIENT_PROTOCOL.to_vec()];
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        let mut transport = TransportConfig::default();
        // It takes almost nothing of an answer unless it reads.
        transport.stream_receive_window(VarInt::from_u32(64));
        transport.keep_alive_interval(Some(Duration::from_secs(1)));
        config.transport_config(Arc::new(transport));
        let mut endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
        endpoint.set_default_client_config(config);
        Ok(Self { endpoint, target: cluster.addr(node)?, cluster: id, strikes: Arc::default() })
    }

    /// How often it has struck.
    pub fn strikes(&self) -> u64 {
        self.strikes.load(Ordering::Relaxed)
    }

    fn struck(&self) {
        self.strikes.fetch_add(1, Ordering::Relaxed);
    }

    async fn connect(&self) -> anyhow::Result<Connection> {
        Ok(self.endpoint.connect(self.target, ANY_NODE_NAME)?.await?)
    }

    /// Datagrams that are nothing, and datagrams that look like the beginning of a connection.
    pub async fn datagrams(self) -> anyhow::Result<()> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        loop {
            let mut bytes = random(1 + below(1_500));
            if below(2) == 0 {
                // QUIC's long header of an Initial packet, version 1, connection ids of 8 bytes.
                bytes.resize(1_200, 0);
                bytes[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]);
                bytes[14] = 8;
            }
            // A full buffer loses it, which is as good.
            let _lost = socket.send_to(&bytes, self.target);
            self.struck();
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whole requests that are not what they say.
    pub async fn frames(self) -> anyhow::Result<()> {
        loop {
            let connection = self.connect().await?;
            while connection.close_reason().is_none() {
                let (mut send, mut recv) = connection.open_bi().await?;
                // What becomes of it is the node's affair; that there is an end to it is what counts.
                if send.write_all(&self.frame()).await.is_ok() && send.finish().is_ok() {
                    let _answer_or_none = recv.read_to_end(MUCH).await;
                }
                self.struck();
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    fn frame(&self) -> Vec<u8> {
        // Among the bodies are lists of 2^32 - 1 items.
        let mut body = random(below(600));
        if below(2) == 0 {
            body.splice(..0, [0xff; 12]);
        }
        let header = FrameHeader {
            kind: (0..64).filter(|kind| Kind::from_number(*kind).is_some()).nth(below(15)).unwrap_or(1),
            request_id: 1,
            cluster: self.cluster,
            map_version: MapVersion(if below(8) == 0 { u64::MAX } else { 0 }),
            remaining_us: 100_000,
        };
        let mut frame = encode_frame(&header, &body).to_vec();
        match below(4) {
            0 => random(below(2_000)),
            // The length says 2^32 - 1, and the header's checksum agrees.
            1 => {
                frame[8..12].copy_from_slice(&[0xff; 4]);
                let crc = crc32fast::hash(&frame[..FRAME_HEADER_BYTES - 4]);
                frame[FRAME_HEADER_BYTES - 4..FRAME_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
                frame
            }
            2 => {
                frame.truncate(below(frame.len()));
                frame
            }
            _ => frame,
        }
    }

    /// As many requests as a connection may have, each byte by byte, none ever whole.
    pub async fn byte_by_byte(self) -> anyhow::Result<()> {
        loop {
            let connection = self.connect().await?;
            let mut streams: Vec<(SendStream, _)> = Vec::new();
            while connection.close_reason().is_none() {
                while streams.len() < STREAMS {
                    match tokio::time::timeout(PAUSE, connection.open_bi()).await {
                        Ok(stream) => streams.push(stream?),
                        Err(_) => break,
                    }
                }
                let mut kept = Vec::new();
                for (mut send, recv) in streams {
                    if send.write_all(b"S").await.is_ok() {
                        kept.push((send, recv));
                    }
                    self.struck();
                }
                streams = kept;
                tokio::time::sleep(LONG_PAUSE).await;
            }
        }
    }

    /// As many requests as a connection may have, whose answers it never reads.
    pub async fn unread(self) -> anyhow::Result<()> {
        let header = FrameHeader {
            kind: Kind::Map as u16,
            request_id: 1,
            cluster: self.cluster,
            map_version: MapVersion(0),
            remaining_us: 1_000_000,
        };
        // Nobody's project, nobody's principal.
        let frame = encode_frame(&header, &[0; 16]);
        loop {
            let connection = self.connect().await?;
            let mut held = Vec::new();
            while connection.close_reason().is_none() && held.len() < 4 * STREAMS {
                let Ok(stream) = tokio::time::timeout(Duration::from_secs(20), connection.open_bi()).await else {
                    break;
                };
                let (mut send, recv) = stream?;
                if send.write_all(&frame).await.is_ok() {
                    let _already_reset = send.finish();
                }
                held.push((send, recv));
                self.struck();
            }
        }
    }

    /// Large requests, as many as there may be streams, and one far over the limit; none is ever whole.
    pub async fn much(self) -> anyhow::Result<()> {
        let piece = random(64 << 10);
        loop {
            let connection = self.connect().await?;
            let mut streams = JoinSet::new();
            for number in 0..LARGE_STREAMS {
                let (mut send, mut recv) = connection.open_bi().await?;
                let (piece, bytes) = (piece.clone(), if number == 0 { MUCH } else { LARGE });
                streams.spawn(async move {
                    let mut sent = 0;
                    while sent < bytes && send.write_all(&piece).await.is_ok() {
                        sent += piece.len();
                    }
                    // Held, until the node has had enough of it.
                    let _reset = recv.read_to_end(MUCH).await;
                });
            }
            while streams.join_next().await.is_some() {
                self.struck();
            }
            tokio::time::sleep(LONG_PAUSE).await;
        }
    }
}

fn below(bound: usize) -> usize {
    (OsEntropy.next_u64() % bound as u64) as usize
}

fn random(bytes: usize) -> Vec<u8> {
    let mut out: Vec<u8> = (0..bytes.div_ceil(8)).flat_map(|_| OsEntropy.next_u64().to_le_bytes()).collect();
    out.truncate(bytes);
    out
}

/// The memory that a process has, in bytes.
pub fn memory(process: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("/proc tells no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib << 10)
}
