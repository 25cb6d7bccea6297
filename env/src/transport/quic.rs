//! The real [`Transport`]: QUIC (quinn) with TLS 1.3, both ends verified by the cluster's CA.
//!
//! | file | duty |
//! |---|---|
//! | `quic.rs` | the transport as its users see it; one call |
//! | `pool.rs` | outbound connections |
//! | `accept.rs` | inbound connections and their requests |
//! | `complaints.rs` | how often the log hears of handshakes that failed |
//! | `stream.rs` | one message on one stream, reset codes |
//! | `outcome.rs` | what quinn's errors mean to a caller |
//! | `credentials.rs`, `tls.rs` | who may talk to whom |
//! | `limits.rs`, `socket.rs` | bounds, settings of quinn, the UDP socket |
//!
//! On the wire: a connection has one channel, settled as its ALPN protocol. A call is one bidirectional stream that the
//! dialer opens: the request and FIN, then the answer and FIN. A side that gives up resets its half with a code of
//! `stream.rs`.
//!
//! Not done: credentials are not reloaded while the transport lives; a connection outlives the end of the
//! certificates that it was made with; one client's connections are not counted apart from another's.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quinn::{
    Connection, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, ReadError, RecvStream, SendStream,
    ServerConfig, TokioRuntime, WriteError,
};

pub use super::credentials::{Credentials, CredentialsError};
pub use super::limits::{FRAME_BYTES_MAX, QuicOptions, STREAM_WINDOW};
pub use super::socket::BindError;
pub use super::tls::provider;

use super::accept::accept;
use super::limits::{HANDSHAKES_MAX, INCOMING_BYTES_MAX};
use super::outcome::{CloseCode, lost, not_connected, reset};
use super::pool::Pool;
use super::socket::{bind_any, bind_udp};
use super::stream::{ResetCode, WholeError, read_whole};
use super::tls::{reset_key, server_config};
use super::{Channel, Handler, Peer, PeerIdentity, Transport, TransportError};
use crate::{Entropy, TaskGroup};

/// Messages over QUIC. A clone is another handle of the same socket and connections; with the last handle all ends.
///
/// ```no_run
/// # use std::{path::Path, time::Duration};
/// # use stoa_env::{Channel, Clock, Credentials, Peer, QuicOptions, QuicTransport, RealClock, Transport};
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let file = |name: &str| Path::new("certs").join(name);
/// let now = RealClock.wall();
/// let me = Credentials::from_pem_files(&file("ca.pem"), &file("client-anna.pem"), &file("client-anna.key"), now)?;
/// let transport = QuicTransport::client_only(me, QuicOptions::default())?;
/// let node = Peer { addr: "127.0.0.1:7400".parse()?, node: None };
/// let answer = transport.call(node, Channel::Client, "request".into(), Duration::from_millis(10)).await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct QuicTransport {
    shared: Arc<Shared>,
}

struct Shared {
    endpoint: Endpoint,
    pool: Arc<Pool>,
    tasks: TaskGroup,
    credentials: Credentials,
    options: QuicOptions,
    serving: AtomicBool,
}

impl QuicTransport {
    /// A node's transport on `listen` (port 0 takes a free one). Connections are taken from [`serve`](Self::serve) on.
    /// Needs a tokio runtime around it.
    ///
    /// # Errors
    /// [`BindError`] if the address cannot be had, or if the credentials are a client's.
    pub fn bind(listen: SocketAddr, credentials: Credentials, options: QuicOptions) -> Result<Self, BindError> {
        options.check();
        if let PeerIdentity::Client(principal) = credentials.identity() {
            return Err(BindError::NotANode { addr: listen, principal: principal.clone() });
        }
        let socket = bind_udp(listen, options.socket_buffer_bytes)?;
        Self::on(socket, credentials, options).map_err(|source| BindError::System { addr: listen, source })
    }

    /// A client's transport on a free port, for peers with IPv4 and IPv6 addresses. Needs a tokio runtime around it.
    ///
    /// # Errors
    /// [`BindError`] if the system gives no socket.
    pub fn client_only(credentials: Credentials, options: QuicOptions) -> Result<Self, BindError> {
        options.check();
        let socket = bind_any(options.socket_buffer_bytes)?;
        let addr = SocketAddr::from(([0, 0, 0, 0], 0));
        Self::on(socket, credentials, options).map_err(|source| BindError::System { addr, source })
    }

    fn on(socket: UdpSocket, credentials: Credentials, options: QuicOptions) -> std::io::Result<Self> {
        let mut config = EndpointConfig::new(reset_key(&credentials));
        let entropy = options.entropy.clone();
        config
            .max_udp_payload_size(options.udp_payload_bytes_max)
            .expect("`QuicOptions::check` holds the payload above 1,200 bytes")
            .cid_generator(move || Box::new(RandomIds(entropy.clone())))
            // Each is smaller than the packet it answers; a restarted node owes one to every old connection at once.
            .min_reset_interval(Duration::from_millis(1));
        let endpoint = Endpoint::new(config, None, socket, Arc::new(TokioRuntime))?;
        let pool = Arc::new(Pool::new(endpoint.clone(), &credentials, options.clone()));
        let (tasks, serving) = (TaskGroup::new(), AtomicBool::new(false));
        Ok(Self { shared: Arc::new(Shared { endpoint, pool, tasks, credentials, options, serving }) })
    }

    /// Takes connections and answers their requests with `handler`, in tasks that end with the last handle of the
    /// transport or with [`close`](Self::close) (which is needed if the handler itself holds a handle). A
    /// client's certificate is let onto [`Channel::Client`] alone. A handler that has begun runs on even if its caller
    /// has gone; a panic in it resets its stream and nothing else.
    ///
    /// # Panics
    /// If called twice, or on a transport of [`client_only`](Self::client_only) with a client's credentials.
    pub fn serve<H: Handler>(&self, handler: Arc<H>) {
        let shared = &self.shared;
        assert!(matches!(shared.credentials.identity(), PeerIdentity::Node(_)), "only a node serves");
        assert!(!shared.serving.swap(true, Ordering::Relaxed), "a transport serves one handler");
        let mut config = ServerConfig::with_crypto(Arc::new(server_config(&shared.credentials, &shared.options.clock)));
        config
            .transport_config(shared.options.acceptor())
            .max_incoming(HANDSHAKES_MAX)
            .incoming_buffer_size(INCOMING_BYTES_MAX)
            .incoming_buffer_size_total(INCOMING_BYTES_MAX * HANDSHAKES_MAX as u64)
            // Machines keep their addresses, and an address that changes under a connection is not one of ours.
            .migration(false);
        shared.endpoint.set_server_config(Some(config));
        shared.tasks.spawn("accept", accept(shared.endpoint.clone(), handler, shared.options.clone()));
    }

    /// The socket's address, with the port that the system chose.
    ///
    /// # Errors
    /// That of the system.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.shared.endpoint.local_addr()
    }

    /// Who this transport proves to be.
    pub fn identity(&self) -> &PeerIdentity {
        self.shared.credentials.identity()
    }

    /// Closes all connections to `peer` and ends attempts to reach it; its calls in progress fail. The next call
    /// connects anew, without back-off. For failure detection.
    pub fn forget(&self, peer: SocketAddr) {
        self.shared.pool.forget(peer);
    }

    /// Closes all connections in both directions, ends all tasks, and waits a moment for the peers to be told. Later
    /// calls fail. The port is free once the last handle is dropped.
    pub async fn close(&self) {
        /// Time for the peers to acknowledge: a few round trips. One that is dead is not waited for.
        const FAREWELL: Duration = Duration::from_millis(200);
        self.shared.end();
        let _peers_that_did_not_answer = tokio::time::timeout(FAREWELL, self.shared.endpoint.wait_idle()).await;
    }
}

impl Shared {
    fn end(&self) {
        self.endpoint.close(CloseCode::Shutdown.code(), b"the process shuts down");
        self.tasks.abort_all();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.end();
    }
}

impl std::fmt::Debug for QuicTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuicTransport").field("identity", self.identity()).finish_non_exhaustive()
    }
}

impl Transport for QuicTransport {
    async fn call(&self, to: Peer, channel: Channel, request: Bytes, limit: Duration) -> Result<Bytes, TransportError> {
        let (addr, bytes) = (to.addr, request.len());
        let frame_bytes_max = self.shared.options.frame_bytes_max;
        if bytes > frame_bytes_max {
            return Err(TransportError::TooLarge { addr, bytes, limit: frame_bytes_max });
        }
        let mut stage = Stage::Connecting;
        let exchange = self.exchange(to, channel, request, &mut stage);
        match tokio::time::timeout(limit, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(stage.timed_out(addr, limit)),
        }
    }
}

/// How far a call has come, for the meaning of its time limit.
#[derive(Clone, Copy)]
enum Stage {
    Connecting,
    Opening,
    Sent,
}

impl Stage {
    fn timed_out(self, addr: SocketAddr, limit: Duration) -> TransportError {
        match self {
            Self::Connecting => TransportError::NotSent { addr, reason: format!("not connected within {limit:?}") },
            Self::Opening => TransportError::NotSent {
                addr,
                reason: format!("no place for another call on the connection within {limit:?}"),
            },
            Self::Sent => TransportError::TimedOut { addr, limit },
        }
    }
}

impl QuicTransport {
    async fn exchange(
        &self,
        to: Peer,
        channel: Channel,
        request: Bytes,
        stage: &mut Stage,
    ) -> Result<Bytes, TransportError> {
        let (addr, sent, limit) = (to.addr, request.len(), self.shared.options.frame_bytes_max);
        let mut call = self.open(to, channel, stage).await?;
        *stage = Stage::Sent;
        call.send.write_chunk(request).await.map_err(|error| match error {
            WriteError::Stopped(code) => reset(addr, code, sent, limit),
            WriteError::ConnectionLost(error) => lost(addr, &error),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => unreachable!("the stream is ours and not 0-RTT"),
        })?;
        let _already_stopped = call.send.finish(); // reading says why
        let answer = match read_whole(&mut call.recv, limit, None).await {
            Ok(answer) => answer,
            Err(WholeError::TooLarge(bytes)) => return Err(TransportError::TooLarge { addr, bytes, limit }),
            Err(WholeError::TooMany) => unreachable!("answers are not counted together"),
            Err(WholeError::Read(ReadError::Reset(code))) => return Err(reset(addr, code, sent, limit)),
            Err(WholeError::Read(ReadError::ConnectionLost(error))) => return Err(lost(addr, &error)),
            Err(WholeError::Read(error)) => unreachable!("the stream is ours, read in order and not 0-RTT: {error}"),
        };
        call.open = false;
        if answer.is_empty() {
            return Err(TransportError::Broken { addr, reason: ResetCode::NoAnswer.reason() });
        }
        Ok(answer)
    }

    /// Opens a stream. A pooled connection may turn out dead before anything was sent on it; then a second, fresh one
    /// is tried.
    async fn open(&self, to: Peer, channel: Channel, stage: &mut Stage) -> Result<Call, TransportError> {
        const ATTEMPTS_MAX: usize = 2;
        let mut failure = None;
        for _ in 0..ATTEMPTS_MAX {
            *stage = Stage::Connecting;
            let connection: Connection = self.shared.pool.connection(&self.shared.tasks, to, channel).await?;
            *stage = Stage::Opening;
            match connection.open_bi().await {
                Ok((send, recv)) => return Ok(Call { send, recv, open: true }),
                Err(error) => failure = Some(not_connected(to.addr, &error)),
            }
        }
        Err(failure.expect("each attempt that came here has failed"))
    }
}

/// A call in progress. Dropped before its end it resets both halves of its stream, so that the peer stops sending.
struct Call {
    send: SendStream,
    recv: RecvStream,
    open: bool,
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.open {
            // Errors say that the peer has ended that half already.
            let _request = self.send.reset(ResetCode::Cancelled.encode());
            let _answer = self.recv.stop(ResetCode::Cancelled.encode());
        }
    }
}

/// Connection ids of eight random bytes. quinn's own kind refuses ids that a former process made, but exactly those
/// must be answered with a stateless reset after a restart.
struct RandomIds(Arc<dyn Entropy>);

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.0.next_u64().to_le_bytes())
    }

    fn cid_len(&self) -> usize {
        size_of::<u64>()
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
