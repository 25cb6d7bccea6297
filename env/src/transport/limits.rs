//! Every bound of the QUIC transport, with its reason, and the settings of quinn that follow from them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::{AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

use super::Channel;
use crate::{Bounds, Clock, Entropy, OsEntropy, RealClock};

/// Largest request or answer, in bytes. A snapshot chunk of some MiB fits with room; a frame that is held whole in
/// memory on both sides should not be larger.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

/// Flow-control window of one stream, in bytes: what a peer may send before it is read. One answer of 100 rows (20 KB)
/// fits ten times; a snapshot chunk runs at 256 MB/s at a round trip of 1 ms, and 16 of them go side by side.
pub const STREAM_WINDOW: u32 = 256 << 10;

/// Streams that a dialer may open before the server has verified it and knows the channel.
pub(super) const STREAMS_UNVERIFIED: u32 = 16;

/// A request up to this size is read as it comes. One that grows beyond must hold one of [`LARGE_REQUESTS_MAX`] places
/// of its connection, so that a connection costs `streams_max` x 64 KiB + 8 x 16 MiB while it sends, whatever it does; and
/// those of all clients together have [`QuicOptions::client_request_bytes_max`].
pub(super) const SMALL_REQUEST_BYTES: usize = 64 << 10;

/// Requests over [`SMALL_REQUEST_BYTES`] that are read at a time on one connection; others wait in order, held back by
/// flow control.
pub(super) const LARGE_REQUESTS_MAX: usize = 8;

/// Answers of one connection that wait for the peer to read them, in bytes. At the limit further answers are dropped
/// and their streams reset: the peer reads too slowly. Eight of the largest frames.
pub(super) const ANSWER_BYTES_MAX: usize = 8 * FRAME_BYTES_MAX;

/// Bytes that quinn may hold for sending on a connection, sent but unacknowledged ones included. At 10 Gbit/s and a
/// round trip of 2 ms 2.5 MB are under way.
const SEND_WINDOW: u64 = 4 << 20;

/// What may be sent on a fresh connection before the first acknowledgement. A dozen packets, QUIC's default for the
/// open internet, would cut the first answer of 20 KB in two; between data-centre machines 128 KiB are safe.
const INITIAL_CONGESTION_WINDOW: u64 = 128 << 10;

/// Round trip assumed until one is measured; three times this is the wait before a lost first packet is sent again.
/// The RFC's 333 ms would make one lost packet cost a second; data-centre round trips are below 5 ms.
const INITIAL_RTT: Duration = Duration::from_millis(20);

/// Longest wait of the peer with an acknowledgement. It is part of the time after which a lost last packet is sent
/// again, which 25 ms (the default) would put above the whole latency budget of a read.
const ACK_DELAY_MAX: Duration = Duration::from_millis(2);

/// Packets that are received without an acknowledgement: an answer of 20 KB then costs one or two, not seven.
const ACK_ELICITING_MAX: u32 = 10;

/// Handshakes in progress beyond which a dialer must first prove that it receives at its address (QUIC's Retry).
pub(super) const HANDSHAKES_UNPROVEN_MAX: usize = 64;

/// Handshakes in progress beyond which new ones are refused. Each costs about a millisecond of a core.
pub(super) const HANDSHAKES_MAX: usize = 512;

/// Bytes kept of one handshake that has not been looked at yet: a few packets of 1,200 bytes.
pub(super) const INCOMING_BYTES_MAX: u64 = 16 << 10;

/// Limits of one connection that depend on its channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChannelLimits {
    /// Calls in progress on one connection; more wait at the dialer.
    pub(super) streams_max: u32,
    /// The name under which those of a connection that is accepted are counted.
    pub(super) requests: &'static str,
}

impl ChannelLimits {
    pub(super) fn of(channel: Channel) -> Self {
        let (streams_max, requests) = match channel {
            // One ping and the votes of groups, all tiny.
            Channel::Liveness => (64, "transport: requests of a connection, liveness"),
            // Many groups append at once, each in a batch of its own.
            Channel::Append => (256, "transport: requests of a connection, append"),
            // Chunks are large, few at a time are enough.
            Channel::Snapshot => (16, "transport: requests of a connection, snapshot"),
            // Requests in flight from one client process.
            Channel::Client => (256, "transport: requests of a connection, client"),
        };
        Self { streams_max, requests }
    }

    /// The sum of all its streams' windows: no stream that is left unread can take the window of another.
    pub(super) fn receive_window(self) -> VarInt {
        VarInt::from_u32(self.streams_max * STREAM_WINDOW)
    }
}

/// What can be chosen about a [`QuicTransport`](super::quic::QuicTransport). The default is right for machines of one
/// region.
#[derive(Clone)]
pub struct QuicOptions {
    /// Time, for the back-off and for the validity of certificates.
    pub clock: Arc<dyn Clock>,
    /// Chance, for connection ids.
    pub entropy: Arc<dyn Entropy>,
    /// Where what the transport bounds is counted: that of the node, so that one table has all. One of its own by default.
    pub bounds: Bounds,
    /// Largest request or answer, in bytes; [`FRAME_BYTES_MAX`], and no more.
    pub frame_bytes_max: usize,
    /// Silence after which a connection counts as broken; 3 s. A dialer's [`keep_alive`](Self::keep_alive) keeps a
    /// quiet one alive.
    pub idle_max: Duration,
    /// Silence after which a dialer pings; 1 s, so that two lost pings break nothing.
    pub keep_alive: Duration,
    /// Time for one attempt to connect; 1 s. Callers wait for it no longer than their own limit.
    pub connect_within: Duration,
    /// After a failed attempt, time in which calls to the peer fail at once with the same error; 100 ms.
    pub reconnect_backoff: Duration,
    /// Time for an inbound handshake; 3 s.
    pub handshake_within: Duration,
    /// Time in which a request must arrive whole; 5 s. Its stream is reset then.
    pub request_within: Duration,
    /// Time for the handler; 60 s. It is dropped then and its stream reset.
    pub answer_within: Duration,
    /// Time in which the peer must take an answer; 10 s. Its stream is reset then.
    pub reply_within: Duration,
    /// Inbound connections, those of nodes and clients together; 4,096. More are refused.
    pub inbound_connections_max: usize,
    /// Inbound connections of clients; 3,584, so that clients cannot keep out nodes. More are closed.
    pub inbound_clients_max: usize,
    /// Bytes of requests of clients over 64 KiB that are being read, over all connections; 1 GiB, that of eight
    /// connections that use all of their places. Beyond, the stream of whoever sends more is reset.
    pub client_request_bytes_max: usize,
    /// Bytes of answers to clients that wait to be read, over all connections; 1 GiB, that of eight
    /// connections that read nothing. Further answers are dropped and their streams reset.
    pub client_answer_bytes_max: usize,
    /// Outbound connections; 4,096. Beyond, the one that was used least recently is closed.
    pub outbound_connections_max: usize,
    /// Bytes asked from the kernel for the socket's buffer, each way; 4 MiB: 200 answers of 20 KB that come at once.
    pub socket_buffer_bytes: usize,
    /// Largest UDP payload that is tried on a path, in bytes; 8,900: jumbo frames where the network has them.
    pub udp_payload_bytes_max: u16,
}

impl QuicOptions {
    /// The default with this clock and this source of chance.
    pub fn new(clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self {
            clock,
            entropy,
            bounds: Bounds::default(),
            frame_bytes_max: FRAME_BYTES_MAX,
            idle_max: Duration::from_secs(3),
            keep_alive: Duration::from_secs(1),
            connect_within: Duration::from_secs(1),
            reconnect_backoff: Duration::from_millis(100),
            handshake_within: Duration::from_secs(3),
            request_within: Duration::from_secs(5),
            answer_within: Duration::from_secs(60),
            reply_within: Duration::from_secs(10),
            inbound_connections_max: 4096,
            inbound_clients_max: 3584,
            client_request_bytes_max: 8 * LARGE_REQUESTS_MAX * FRAME_BYTES_MAX,
            client_answer_bytes_max: 8 * ANSWER_BYTES_MAX,
            outbound_connections_max: 4096,
            socket_buffer_bytes: 4 << 20,
            udp_payload_bytes_max: 8900,
        }
    }

    /// Asserts the relations between the options.
    pub(super) fn check(&self) {
        assert!((1..=FRAME_BYTES_MAX).contains(&self.frame_bytes_max), "a frame is 1 to {FRAME_BYTES_MAX} bytes");
        assert!(self.keep_alive * 2 < self.idle_max, "two pings must fit into the idle time");
        assert!(self.idle_max <= Duration::from_secs(600), "a dead peer must be noticed");
        assert!(self.inbound_clients_max <= self.inbound_connections_max, "clients are among the inbound connections");
        assert!(self.client_request_bytes_max >= self.frame_bytes_max, "the largest request must fit");
        assert!(self.client_answer_bytes_max >= self.frame_bytes_max, "the largest answer must fit");
        assert!(self.outbound_connections_max > 0, "a transport without connections sends nothing");
        assert!(self.udp_payload_bytes_max >= 1200, "QUIC needs payloads of 1,200 bytes");
    }

    /// quinn's settings for a dialer on `channel`.
    pub(super) fn dialer(&self, channel: Channel) -> Arc<TransportConfig> {
        let mut config = self.common();
        config
            .max_concurrent_bidi_streams(VarInt::from_u32(0)) // a server never opens one
            .receive_window(ChannelLimits::of(channel).receive_window())
            .keep_alive_interval(Some(self.keep_alive));
        Arc::new(config)
    }

    /// quinn's settings for an inbound connection until its channel is known.
    pub(super) fn acceptor(&self) -> Arc<TransportConfig> {
        let mut config = self.common();
        config
            .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_UNVERIFIED))
            .receive_window(VarInt::from_u32(STREAMS_UNVERIFIED * STREAM_WINDOW));
        Arc::new(config)
    }

    /// quinn's settings that the connections of all channels share, for whoever measures what QUIC itself costs with them.
    pub fn common(&self) -> TransportConfig {
        let mut cubic = CubicConfig::default();
        cubic.initial_window(INITIAL_CONGESTION_WINDOW);
        let mut acks = AckFrequencyConfig::default();
        acks.ack_eliciting_threshold(VarInt::from_u32(ACK_ELICITING_MAX)).max_ack_delay(Some(ACK_DELAY_MAX));
        let mut mtu = MtuDiscoveryConfig::default();
        mtu.upper_bound(self.udp_payload_bytes_max);
        let idle = IdleTimeout::try_from(self.idle_max).expect("`check` holds the idle time below 600 s");
        let mut config = TransportConfig::default();
        config
            .max_idle_timeout(Some(idle))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
            .send_window(SEND_WINDOW)
            // Answers leave in the order in which they were ready: sharing the line among them delays them all.
            .send_fairness(false)
            .initial_rtt(INITIAL_RTT)
            .mtu_discovery_config(Some(mtu))
            .ack_frequency_config(Some(acks))
            .congestion_controller_factory(Arc::new(cubic))
            .datagram_receive_buffer_size(None)
            .allow_spin(false);
        config
    }
}

impl Default for QuicOptions {
    /// With the real clock and the system's entropy.
    fn default() -> Self {
        Self::new(Arc::new(RealClock), Arc::new(OsEntropy))
    }
}

impl fmt::Debug for QuicOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicOptions").field("frame_bytes_max", &self.frame_bytes_max).finish_non_exhaustive()
    }
}
