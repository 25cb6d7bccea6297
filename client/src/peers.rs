//! What the client knows of each node: how fast it answers, whether it answers at all, which replicas were not ready.
//!
//! A dead zone is silent: nobody sends a reset. So a peer is ejected when it owes answers and nothing at all has been
//! heard from it for a bounded time. Ejection rests on silence, not on slowness: a slow peer answers, and hedges cover
//! it; ejecting it would send its load to others that may then be slow too.
//!
//! An ejected peer is asked only if nothing else is left, is pinged, and returns after several good pings in a row.

use std::collections::BTreeMap;
use std::time::Duration;

use stoa_env::BootTime;
use stoa_protocol::{NodeId, PartitionId};

use crate::latency::LatencyDigest;

/// Silence after which a peer that owes answers is ejected. Twenty times a good answer; until then hedges keep reads
/// within 10 ms out of their burst, which must outlast the silence, so it cannot be much longer.
pub const SILENCE_MIN: Duration = Duration::from_millis(20);

/// A peer whose 95th percentile is high is given three times that, up to this: half of the default deadline is lost by
/// then.
pub const SILENCE_MAX: Duration = Duration::from_millis(100);

/// Requests unanswered in a row after which silence counts though no single request waited that long (a hedge answered
/// each of them first). One or two may be a slow answer that nobody waited for.
pub const UNANSWERED_MIN: u32 = 3;

/// Time between the pings of an ejected peer.
pub const PING_EVERY: Duration = Duration::from_millis(200);

/// Good pings in a row that bring a peer back: a restarting node answers some before it serves.
pub const PINGS_TO_RETURN: u32 = 3;

/// How long a replica that said it was not ready is asked last. One read in many tries it again, and pays a round trip
/// of the own zone.
pub const UNREADY_FOR: Duration = Duration::from_millis(500);

/// Bounds of the time after which a read is hedged. Below 1 ms timers and scheduling are noise; above 5 ms a read could
/// not be within 10 ms any more. Without observations: the upper bound.
pub const HEDGE_DELAY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(5));

const _: () = {
    assert!(SILENCE_MIN.as_nanos() > HEDGE_DELAY.1.as_nanos(), "a hedge comes before an ejection");
    assert!(SILENCE_MAX.as_nanos() > SILENCE_MIN.as_nanos());
};

/// All nodes that the client has talked to. Bounded by the nodes of the map: see [`Peers::retain`].
#[derive(Debug, Clone, Default)]
pub struct Peers {
    peers: BTreeMap<NodeId, PeerState>,
    unready: BTreeMap<(NodeId, PartitionId), BootTime>,
}

#[derive(Debug, Clone)]
struct PeerState {
    latency: LatencyDigest,
    last_heard: BootTime,
    /// When the first of the unanswered requests was sent.
    silent_since: Option<BootTime>,
    unanswered: u32,
    ejected: Option<Ejection>,
}

#[derive(Debug, Clone, Copy)]
struct Ejection {
    good_pings: u32,
    next_ping: BootTime,
}

/// Why a request to a peer gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerFailure {
    /// No connection, or it broke: whatever listens there, it does not serve.
    Connection,
    /// Nothing came within the request's time.
    Silent,
    /// It answered something that is no answer.
    Garbled,
}

impl Peers {
    /// A request goes out.
    pub fn on_sent(&mut self, node: NodeId, now: BootTime) {
        let peer = self.peer(node, now);
        peer.silent_since.get_or_insert(now);
        peer.unanswered = peer.unanswered.saturating_add(1);
    }

    /// An answer came, whatever it says.
    pub fn on_answer(&mut self, node: NodeId, latency: Duration, now: BootTime) {
        let peer = self.peer(node, now);
        peer.latency.record(latency, now);
        peer.heard(now);
    }

    /// An answer came to a request that does not tell how fast reads are: a write, a ping of a peer in use.
    pub fn on_heard(&mut self, node: NodeId, now: BootTime) {
        self.peer(node, now).heard(now);
    }

    /// Somebody else answered first, after `waited`; this peer's answer is not awaited any more.
    pub fn on_overtaken(&mut self, node: NodeId, waited: Duration, now: BootTime) {
        // Without this, the slow answers of a peer would never be counted, and its percentile would look good.
        self.peer(node, now).latency.record(waited, now);
    }

    /// A request that was sent at `sent` failed.
    pub fn on_failure(&mut self, node: NodeId, sent: BootTime, failure: PeerFailure, now: BootTime) {
        match failure {
            PeerFailure::Connection => self.eject(node, now),
            PeerFailure::Silent if self.peer(node, now).last_heard <= sent => self.eject(node, now),
            PeerFailure::Silent => {}
            PeerFailure::Garbled => self.peer(node, now).heard(now),
        }
    }

    /// When a request sent at `sent` makes its peer silent, if nothing is heard until then.
    pub fn silent_at(&mut self, node: NodeId, sent: BootTime, now: BootTime) -> BootTime {
        let limit = self.silence_limit(node, now);
        let peer = self.peer(node, now);
        sent.max(peer.last_heard).plus(limit)
    }

    /// Ejects the peer if it owes too much for too long; `sent` is when a request went out that still waits. Returns
    /// whether it is ejected.
    pub fn judge(&mut self, node: NodeId, sent: Option<BootTime>, now: BootTime) -> bool {
        let limit = self.silence_limit(node, now);
        let peer = self.peer(node, now);
        let one_waits = sent.is_some_and(|sent| now >= sent.max(peer.last_heard).plus(limit));
        let many_went = peer.unanswered >= UNANSWERED_MIN
            && peer.silent_since.is_some_and(|since| now >= since.max(peer.last_heard).plus(limit));
        if peer.ejected.is_none() && (one_waits || many_went) {
            self.eject(node, now);
        }
        self.is_ejected(node)
    }

    /// Takes a peer out of use until pings bring it back.
    pub fn eject(&mut self, node: NodeId, now: BootTime) {
        let peer = self.peer(node, now);
        if peer.ejected.is_none() {
            tracing::debug!(%node, unanswered = peer.unanswered, "a peer is ejected");
        }
        // A failure while ejected starts the count of good pings anew.
        let next_ping = peer.ejected.map_or(now.plus(PING_EVERY), |old| old.next_ping);
        peer.ejected = Some(Ejection { good_pings: 0, next_ping });
    }

    /// Whether the peer is out of use.
    pub fn is_ejected(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.ejected.is_some())
    }

    /// Whether no node is ejected and no replica is known to be unready.
    pub fn all_are_well(&self) -> bool {
        self.unready.is_empty() && self.peers.values().all(|peer| peer.ejected.is_none())
    }

    /// A replica said that it cannot serve yet, or halted.
    pub fn on_unready(&mut self, node: NodeId, partition: PartitionId, now: BootTime) {
        self.unready.retain(|_, until| *until > now);
        self.unready.insert((node, partition), now.plus(UNREADY_FOR));
    }

    /// Whether the replica said so within [`UNREADY_FOR`].
    pub fn is_unready(&self, node: NodeId, partition: PartitionId, now: BootTime) -> bool {
        self.unready.get(&(node, partition)).is_some_and(|until| *until > now)
    }

    /// How many nodes are known.
    pub fn known(&self) -> usize {
        self.peers.len()
    }

    /// How many replicas are noted as not ready, some of them perhaps for longer than it counts.
    pub fn unready(&self) -> usize {
        self.unready.len()
    }

    /// How long to wait for this peer before another is asked beside it.
    pub fn hedge_delay(&mut self, node: NodeId, now: BootTime) -> Duration {
        let observed = self.peer(node, now).latency.p95(now);
        observed.map_or(HEDGE_DELAY.1, |p95| p95.clamp(HEDGE_DELAY.0, HEDGE_DELAY.1))
    }

    /// The ejected peers whose ping is due; each is due again after [`PING_EVERY`].
    pub fn pings_due(&mut self, now: BootTime) -> Vec<NodeId> {
        let mut due = Vec::new();
        for (node, peer) in &mut self.peers {
            if let Some(ejection) = peer.ejected.as_mut().filter(|ejection| ejection.next_ping <= now) {
                ejection.next_ping = now.plus(PING_EVERY);
                due.push(*node);
            }
        }
        due
    }

    /// The result of a ping. Returns whether the peer is in use again.
    pub fn on_ping(&mut self, node: NodeId, good: bool, now: BootTime) -> bool {
        let peer = self.peer(node, now);
        let Some(ejection) = &mut peer.ejected else { return true };
        ejection.good_pings = if good { ejection.good_pings + 1 } else { 0 };
        if ejection.good_pings < PINGS_TO_RETURN {
            return false;
        }
        tracing::debug!(%node, "an ejected peer is back");
        peer.ejected = None;
        peer.heard(now);
        true
    }

    /// Forgets nodes that are not in the map any more.
    pub fn retain(&mut self, known: impl Fn(NodeId) -> bool) {
        self.peers.retain(|node, _| known(*node));
        self.unready.retain(|(node, _), _| known(*node));
    }

    /// States the invariants.
    pub fn check(&self) {
        for (node, peer) in &self.peers {
            assert_eq!(peer.silent_since.is_some(), peer.unanswered > 0, "node {node} owes answers since some time");
            assert!(peer.ejected.is_none_or(|e| e.good_pings < PINGS_TO_RETURN), "node {node} should be back");
        }
    }

    fn silence_limit(&mut self, node: NodeId, now: BootTime) -> Duration {
        let p95 = self.peer(node, now).latency.p95(now).unwrap_or_default();
        (p95 * 3).clamp(SILENCE_MIN, SILENCE_MAX)
    }

    fn peer(&mut self, node: NodeId, now: BootTime) -> &mut PeerState {
        self.peers.entry(node).or_insert_with(|| PeerState {
            latency: LatencyDigest::new(now),
            last_heard: BootTime(0),
            silent_since: None,
            unanswered: 0,
            ejected: None,
        })
    }
}

impl PeerState {
    fn heard(&mut self, now: BootTime) {
        self.last_heard = now;
        self.silent_since = None;
        self.unanswered = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(1);

    fn at(ms: u64) -> BootTime {
        BootTime(1_000_000_000 + ms * 1_000_000)
    }

    #[test]
    fn a_peer_that_answers_nothing_is_ejected_and_returns_after_good_pings() {
        let mut peers = Peers::default();
        peers.on_sent(NODE, at(0));
        assert!(!peers.judge(NODE, Some(at(0)), at(19)));
        assert!(peers.judge(NODE, Some(at(0)), at(20)));
        assert_eq!(peers.pings_due(at(100)), []);
        let mut now = 220;
        for good in [true, true, false, true, true] {
            assert_eq!(peers.pings_due(at(now)), [NODE]);
            assert!(!peers.on_ping(NODE, good, at(now)), "a bad ping starts the count anew");
            peers.check();
            now += 200;
        }
        assert_eq!(peers.pings_due(at(now)), [NODE]);
        assert!(peers.on_ping(NODE, true, at(now)));
        assert!(!peers.judge(NODE, None, at(now + 1_000)), "old debts are forgiven");
        peers.check();
    }

    #[test]
    fn requests_that_others_answered_first_count_as_silence_together() {
        let mut peers = Peers::default();
        for ms in [0, 14] {
            peers.on_sent(NODE, at(ms));
            peers.on_overtaken(NODE, Duration::from_millis(6), at(ms + 6));
        }
        assert!(!peers.judge(NODE, None, at(27)), "two slow answers are no silence");
        peers.on_sent(NODE, at(28));
        assert!(peers.judge(NODE, None, at(28)), "three in 28 ms are");
    }

    #[test]
    fn a_slow_peer_that_answers_is_not_ejected() {
        let mut peers = Peers::default();
        for n in 0..50 {
            peers.on_sent(NODE, at(n * 15));
            assert!(!peers.judge(NODE, Some(at(n * 15)), at(n * 15 + 15)));
            peers.on_answer(NODE, Duration::from_millis(15), at(n * 15 + 15));
        }
        assert_eq!(peers.hedge_delay(NODE, at(800)), HEDGE_DELAY.1);
        peers.on_sent(NODE, at(1_000));
        assert!(!peers.judge(NODE, Some(at(1_000)), at(1_040)), "it is given three times its percentile");
        assert!(peers.judge(NODE, Some(at(1_000)), at(1_000 + 100)));
    }

    #[test]
    fn no_connection_ejects_at_once_and_an_old_silence_does_not() {
        let mut peers = Peers::default();
        peers.on_sent(NODE, at(0));
        peers.on_answer(NODE, Duration::from_millis(1), at(10));
        peers.on_failure(NODE, at(0), PeerFailure::Silent, at(50));
        assert!(!peers.is_ejected(NODE), "it has been heard since");
        peers.on_failure(NODE, at(40), PeerFailure::Connection, at(51));
        assert!(peers.is_ejected(NODE));
    }

    #[test]
    fn a_replica_that_was_not_ready_is_tried_again_later() {
        let mut peers = Peers::default();
        peers.on_unready(NODE, PartitionId(2), at(0));
        assert!(peers.is_unready(NODE, PartitionId(2), at(499)));
        assert!(!peers.is_unready(NODE, PartitionId(3), at(1)));
        assert!(!peers.is_unready(NODE, PartitionId(2), at(500)));
    }
}
