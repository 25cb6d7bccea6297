//! The accepting side: inbound connections, and on each of them one task a request.
//!
//! What a peer can cost is bounded at each step: handshakes in progress, connections, calls on a connection, the time
//! and size of a request, the time of the handler, the time and the bytes of unread answers. A handler that has
//! begun is run to its end even if nobody waits for its answer any more, because it may be half-way through an effect;
//! it still counts against its connection, and its connection against the node.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinError;

use super::complaints::Complaints;
use super::credentials::identity_of;
use super::limits::{
    ANSWER_BYTES_MAX, ChannelLimits, HANDSHAKES_MAX, HANDSHAKES_UNPROVEN_MAX, LARGE_REQUESTS_MAX, QuicOptions,
};
use super::outcome::CloseCode;
use super::stream::{LargeRequests, Places, ResetCode, WholeError, read_whole};
use super::tls::channel_of;
use super::{Channel, Handler, PeerIdentity};
use crate::task::JoinSet;
use crate::{Gauge, Hold};

/// Accepts connections until the endpoint is closed. Dropping the future ends all that came from it.
pub(super) async fn accept<H: Handler>(endpoint: Endpoint, handler: Arc<H>, options: QuicOptions) {
    let gauge = |name, bound| options.bounds.node_gauge(name, bound as u64);
    let node = Arc::new(Acceptor {
        handler,
        counted: Counted {
            connections: gauge("transport: inbound connections", options.inbound_connections_max),
            clients: gauge("transport: inbound connections of clients", options.inbound_clients_max),
            handshakes: gauge("transport: handshakes", HANDSHAKES_MAX),
            client_requests: gauge(
                "transport: bytes of large requests of clients that are read",
                options.client_request_bytes_max,
            ),
            client_answers: gauge(
                "transport: bytes of answers that clients have not taken",
                options.client_answer_bytes_max,
            ),
        },
        connections: Arc::new(Semaphore::new(options.inbound_connections_max)),
        clients: Arc::new(Semaphore::new(options.inbound_clients_max)),
        handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
        failures: Complaints::default(),
        options,
    });
    // A `JoinSet` sees panics as `stoa_env::spawn` does, without a second task for each first one.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(ended) = connections.join_next(), if !connections.is_empty() => report("connection", ended),
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => node.admit(incoming, &mut connections),
                None => return,
            },
        }
    }
}

struct Acceptor<H> {
    handler: Arc<H>,
    connections: Arc<Semaphore>,
    clients: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    counted: Counted,
    failures: Complaints,
    options: QuicOptions,
}

/// How many there are of what [`Acceptor`] has permits for, and of what has none.
struct Counted {
    connections: Gauge,
    clients: Gauge,
    handshakes: Gauge,
    client_requests: Gauge,
    client_answers: Gauge,
}

/// A permit and what is counted with it. The count falls first, so that no other thread counts itself in beside this one.
type Permit = (Hold, OwnedSemaphorePermit);

/// What an inbound connection occupies, released when its last handler has ended.
struct Place {
    _connection: Permit,
    _client: Option<Permit>,
}

impl<H: Handler> Acceptor<H> {
    /// Refuses the connection, asks it to prove its address, or starts its task.
    fn admit(self: &Arc<Self>, incoming: Incoming, connections: &mut JoinSet<()>) {
        let under_load = self.handshakes.available_permits() < HANDSHAKES_MAX - HANDSHAKES_UNPROVEN_MAX;
        if under_load && !incoming.remote_address_validated() {
            // An error means that it cannot be asked again; the connection is dropped then, and the dialer tries anew.
            let _asked = incoming.retry();
            return;
        }
        let (Ok(connection), Ok(handshake)) =
            (self.connections.clone().try_acquire_owned(), self.handshakes.clone().try_acquire_owned())
        else {
            tracing::warn!(from = %incoming.remote_address(), "refused a connection: too many are open");
            incoming.refuse();
            return;
        };
        let connection = (self.counted.connections.hold(1), connection);
        let handshake = (self.counted.handshakes.hold(1), handshake);
        connections.spawn(self.clone().connection(incoming, connection, handshake));
    }

    async fn connection(self: Arc<Self>, incoming: Incoming, connection_place: Permit, handshake: Permit) {
        let addr = incoming.remote_address();
        let connecting = match incoming.accept() {
            Ok(connecting) => connecting,
            Err(error) => return tracing::debug!(from = %addr, %error, "an inbound handshake failed"),
        };
        let connection = match tokio::time::timeout(self.options.handshake_within, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return self.complain(addr, &error.to_string()),
            Err(_) => return self.complain(addr, "it took too long"),
        };
        drop(handshake);
        let Some((from, channel)) = proven(&connection) else {
            // TLS has let it through, so our own two checks disagree.
            tracing::error!(from = %addr, "a connection without identity or channel passed the handshake");
            return connection.close(CloseCode::NotAllowed.code(), b"no identity or channel");
        };
        let client_place = match (&from, channel) {
            (PeerIdentity::Node(_), _) => None,
            (PeerIdentity::Client(principal), Channel::Client) => {
                let Ok(place) = self.clients.clone().try_acquire_owned() else {
                    tracing::warn!(from = %addr, principal, "closed a client's connection: too many are open");
                    return connection.close(CloseCode::Busy.code(), b"too many connections of clients");
                };
                Some((self.counted.clients.hold(1), place))
            }
            (PeerIdentity::Client(principal), channel) => {
                tracing::warn!(from = %addr, principal, ?channel, "a client tried a channel between nodes");
                return connection.close(CloseCode::NotAllowed.code(), b"the channel is for nodes alone");
            }
        };
        let place = Place { _connection: connection_place, _client: client_place };
        self.requests(connection, Arc::new(from), channel, place).await;
    }

    /// Says that a handshake failed. Anybody can make one fail, so it is not said of each.
    fn complain(&self, from: SocketAddr, why: &str) {
        match self.failures.due(self.options.clock.boot()) {
            Some(held_back) => tracing::warn!(%from, why, not_logged_before = held_back, "an inbound handshake failed"),
            None => tracing::debug!(%from, why, "an inbound handshake failed"),
        }
    }

    /// Serves the requests of one connection until it ends and its last handler is done.
    async fn requests(
        self: Arc<Self>,
        connection: Connection,
        from: Arc<PeerIdentity>,
        channel: Channel,
        _place: Place,
    ) {
        let limits = ChannelLimits::of(channel);
        connection.set_max_concurrent_bi_streams(VarInt::from_u32(limits.streams_max));
        connection.set_receive_window(limits.receive_window());
        let line = Arc::new(Line {
            from,
            channel,
            large_requests: Places::new(
                &self.options.bounds,
                "transport: large requests of a connection",
                LARGE_REQUESTS_MAX,
            ),
            answer_bytes: Places::new(
                &self.options.bounds,
                "transport: bytes of answers that a connection has not taken",
                ANSWER_BYTES_MAX,
            ),
        });
        let counted = self.options.bounds.gauge(limits.requests, u64::from(limits.streams_max));
        let mut requests = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                Some(ended) = requests.join_next(), if !requests.is_empty() => report("handler", ended),
                // A stream that its caller has given up frees its place at quinn, but its handler may still run.
                stream = connection.accept_bi(), if requests.len() < limits.streams_max as usize => match stream {
                    Ok((send, recv)) => {
                        requests.spawn(self.clone().request(line.clone(), Reply { send, open: true }, recv));
                        counted.note_len(requests.len());
                    }
                    Err(error) => {
                        tracing::debug!(from = ?line.from, ?channel, %error, "an inbound connection ended");
                        break;
                    }
                },
            }
        }
        drop(connection);
        while let Some(ended) = requests.join_next().await {
            report("handler", ended);
        }
    }

    async fn request(self: Arc<Self>, line: Arc<Line>, mut reply: Reply, mut recv: RecvStream) {
        let limit = self.options.frame_bytes_max;
        let counted = Some(&self.counted.client_requests).filter(|_| line.is_clients());
        let large = LargeRequests { places: &line.large_requests, bytes: counted };
        let read = read_whole(&mut recv, limit, Some(large));
        let request = match tokio::time::timeout(self.options.request_within, read).await {
            Ok(Ok(request)) => request,
            Ok(Err(WholeError::Read(_))) => return, // the caller or its connection is gone
            Ok(Err(WholeError::TooLarge(_))) => return reply.refuse(&mut recv, ResetCode::RequestTooLarge),
            Ok(Err(WholeError::TooMany)) => {
                tracing::warn!(from = ?line.from, "refused a request: too many bytes of requests are being read");
                return reply.refuse(&mut recv, ResetCode::RequestsTooMany);
            }
            Err(_) => return reply.refuse(&mut recv, ResetCode::RequestTooSlow),
        };
        drop(recv);
        let handling = self.handler.clone().handle(line.from.clone(), line.channel, request);
        let Ok(answer) = tokio::time::timeout(self.options.answer_within, handling).await else {
            tracing::error!(from = ?line.from, channel = ?line.channel, "a handler took too long and was dropped");
            return reply.reset(ResetCode::HandlerTooSlow);
        };
        if answer.is_empty() {
            return reply.reset(ResetCode::NoAnswer);
        }
        if answer.len() > limit {
            tracing::error!(bytes = answer.len(), limit, channel = ?line.channel, "an answer is too large");
            return reply.reset(ResetCode::AnswerTooLarge(answer.len()));
        }
        let bytes = u32::try_from(answer.len()).expect("a frame is 16 MiB at the most");
        let Some(_bytes) = line.answer_bytes.try_take(bytes) else {
            tracing::warn!(from = ?line.from, channel = ?line.channel, "dropped an answer: the peer reads too slowly");
            return reply.reset(ResetCode::ReaderTooSlow);
        };
        // What nodes tell each other is bounded by their connections, which are few, and must not wait for clients, on the
        // channel that they share no more than on others.
        let _bytes_of_all = match line.is_clients() {
            true => match self.counted.client_answers.take(u64::from(bytes)) {
                None => {
                    tracing::warn!(from = ?line.from, "dropped an answer: clients read too slowly, all together");
                    return reply.reset(ResetCode::ReaderTooSlow);
                }
                taken => taken,
            },
            false => None,
        };
        if tokio::time::timeout(self.options.reply_within, reply.send(answer)).await.is_err() {
            tracing::warn!(from = ?line.from, channel = ?line.channel, "dropped an answer: nobody took it in time");
            reply.reset(ResetCode::ReaderTooSlow);
        }
    }
}

/// What the requests of one connection share.
struct Line {
    from: Arc<PeerIdentity>,
    channel: Channel,
    large_requests: Places,
    answer_bytes: Places,
}

impl Line {
    fn is_clients(&self) -> bool {
        matches!(*self.from, PeerIdentity::Client(_))
    }
}

/// The answering half of a stream. quinn finishes a stream that is dropped, which would look like a whole, empty
/// answer; this resets it instead, so that a panic or an abort is seen for what it is.
struct Reply {
    send: SendStream,
    open: bool,
}

impl Reply {
    /// Sends the whole answer. An error means that nobody wants it.
    async fn send(&mut self, answer: Bytes) {
        if self.send.write_chunk(answer).await.is_ok() {
            self.open = false;
            let _already_stopped = self.send.finish();
        }
    }

    fn reset(&mut self, code: ResetCode) {
        self.open = false;
        let _already_stopped = self.send.reset(code.encode());
    }

    fn refuse(&mut self, recv: &mut RecvStream, code: ResetCode) {
        let _already_reset = recv.stop(code.encode());
        self.reset(code);
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.open {
            self.reset(ResetCode::NoAnswer);
        }
    }
}

/// Identity and channel of a connection whose handshake is done.
fn proven(connection: &Connection) -> Option<(PeerIdentity, Channel)> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    let identity = identity_of(chain.first()?).ok()?;
    let handshake = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
    Some((identity, channel_of(handshake.protocol.as_deref()?)?))
}

fn report(what: &'static str, ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(task = what, %error, "a task panicked");
    }
}
