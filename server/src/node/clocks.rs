//! The stamps that a leader gives its commands, and the clocks of other nodes that bound them.
//!
//! Stamps are partition time, and that never goes back: one from a calendar that is a year ahead would expire every row of
//! the partition at once, and for a year. So a node asks others what time it is, and holds its own stamps below what they
//! say:
//!
//! 1. Every [`ASK_PAUSE`] a node asks those that it shares partitions with for their calendars ([`Kind::Clock`]); of many, those
//!    that lead.
//! 2. What one said goes on with this node's boot clock, for [`BELIEVED`] at the most.
//! 3. A stamp is this node's calendar, or the partition's time as its replica knows it if that is later, so that time goes
//!    on where the last leader left it; and it is at most [`STAMP_AHEAD_US_MAX`] ahead of the upper middle one of the
//!    others. Of two others that is the one that is further ahead: a calendar ahead of all others is held. With more of
//!    them, so is one of a minority.
//! 4. While no other has said anything, as in the first moments after a start, time stands as the log has it and goes on
//!    with the boot clock. The first stamp of a partition waits for others for [`FIRST_STAMP_PATIENCE`], and takes the
//!    calendar as it is then.
//!
//! A calendar that is behind is not pushed forward by others: it harms nothing, since the partition's time goes on without
//! it, and two that are wrong could push one that is right. What this cannot find is a majority that is ahead.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, Weak};
use std::time::Duration;

use stoa_env::{BootTime, Bounds, Channel, Disk, Gauge, JoinSet, Transport};
use stoa_protocol::NodeId;
use stoa_protocol::codec::Wire;
use stoa_protocol::limits::EVENT_FUTURE_US_MAX;
use stoa_protocol::message::{Caller, ClockAnswer, Empty, Kind, encode_request};

use super::upkeep::each;
use super::{Hosted, LOOP_PAUSE, Node};

/// How far a stamp may be ahead of what other nodes' calendars say, in microseconds: calendars that are kept by a time
/// service are nearer to each other by two orders, and a second more or less of life harms no row.
pub(super) const STAMP_AHEAD_US_MAX: i64 = 1_000_000;

/// How often others are asked.
const ASK_PAUSE: Duration = Duration::from_secs(1);

/// How long what another said is believed: some questions may be lost, and a calendar that was wrong and has been put right
/// shall not speak for long.
const BELIEVED: Duration = Duration::from_secs(5);

/// Nodes that are asked at the most: more say no more, and messages are to stay few in a large cluster.
const ASKED_MAX: usize = 8;

/// How long the first stamp of a partition waits for other nodes' calendars.
const FIRST_STAMP_PATIENCE: Duration = Duration::from_secs(1);

/// Between two looks for what other nodes' calendars say.
pub(super) const CLOCKS_PAUSE: Duration = Duration::from_millis(10);

/// How long an answer may take. The time that it took counts as time that has passed.
const ASK_LIMIT: Duration = Duration::from_millis(500);

/// What another node's calendar said.
#[derive(Debug, Clone, Copy)]
struct Heard {
    wall_us: i64,
    /// When it was asked, by this node's clock.
    asked: BootTime,
}

impl Heard {
    fn is_lately(&self, now: BootTime) -> bool {
        now.since(self.asked) <= BELIEVED
    }

    /// What the calendar says now, if it goes as this node's clock does.
    fn wall_us_at(&self, now: BootTime) -> i64 {
        self.wall_us.saturating_add(now.since(self.asked).as_micros() as i64)
    }
}

/// What other nodes' calendars said.
#[derive(Debug)]
pub(crate) struct Clocks {
    heard: Mutex<BTreeMap<NodeId, Heard>>,
    counted: Gauge,
}

impl Clocks {
    pub(super) fn new(bounds: &Bounds) -> Self {
        let counted = bounds.node_gauge("clocks of other nodes that are remembered", ASKED_MAX as u64);
        Self { heard: Mutex::default(), counted }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Heard>> {
        self.heard.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Notes what a node said; the one that was heard longest ago makes room.
    fn note(&self, node: NodeId, wall_us: i64, asked: BootTime) {
        let mut heard = self.lock();
        if !heard.contains_key(&node) && heard.len() >= ASKED_MAX {
            let oldest = heard.iter().min_by_key(|(_, heard)| heard.asked).map(|(node, _)| *node);
            oldest.map(|node| heard.remove(&node));
        }
        heard.insert(node, Heard { wall_us, asked });
        self.counted.note_len(heard.len());
    }

    /// What a leader elsewhere stamps now, as far as can be known: its calendar, or what the others allow of it that it hears, among
    /// them this node, whose calendar says `own_us`. `None` if it has not said anything lately. While nobody else has, its calendar
    /// stands: this node's alone may be the one that is behind.
    pub(super) fn of_leader(&self, leader: NodeId, own_us: i64, now: BootTime) -> Option<i64> {
        let mut said = self.said_lately(now);
        let calendar_us = said.remove(&leader)?;
        if said.is_empty() {
            return Some(calendar_us);
        }
        latest(said.into_values().chain([own_us])).map(|latest_us| calendar_us.min(latest_us))
    }

    /// The latest time that others allow; `None` if none has said anything lately.
    fn latest(&self, now: BootTime) -> Option<i64> {
        latest(self.said_lately(now).into_values())
    }

    fn said_lately(&self, now: BootTime) -> BTreeMap<NodeId, i64> {
        let heard = self.lock();
        let lately = heard.iter().filter(|(_, heard)| heard.is_lately(now));
        lately.map(|(node, heard)| (*node, heard.wall_us_at(now))).collect()
    }
}

/// The latest time that these calendars allow.
fn latest(calendars_us: impl Iterator<Item = i64>) -> Option<i64> {
    let mut said: Vec<i64> = calendars_us.collect();
    said.sort_unstable();
    said.get(said.len() / 2).map(|middle| middle.saturating_add(STAMP_AHEAD_US_MAX))
}

/// Whose calendars are asked for: leaders' first, since replicas that have just started wait to know what these say.
fn asked(partners: BTreeSet<NodeId>, leaders: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    let (leading, others): (Vec<_>, Vec<_>) = partners.into_iter().partition(|node| leaders.contains(node));
    leading.into_iter().chain(others).take(ASKED_MAX).collect()
}

/// What a leader says the time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// For the command.
    pub us: i64,
    /// Whether other nodes' calendars were heard, and allow it.
    pub is_bounded: bool,
    /// Events up to this time are taken.
    pub events_until_us: i64,
}

impl Stamp {
    fn new(us: i64, is_bounded: bool) -> Self {
        Self { us, is_bounded, events_until_us: us.saturating_add(EVENT_FUTURE_US_MAX) }
    }
}

impl<D: Disk, T: Transport> Node<D, T> {
    /// The stamp of a command for a partition that is proposed now.
    pub(crate) fn stamp(&self, hosted: &Hosted<D>) -> Stamp {
        let (own_us, now) = (self.env.context.clock.wall().0, self.now());
        let known_us = hosted.view.time_us(now);
        match self.clocks.latest(now) {
            Some(latest_us) => Stamp::new(own_us.max(known_us).min(latest_us), true),
            None if known_us == i64::MIN => Stamp::new(own_us, false),
            // The calendar alone says whether an event is one of the future: the log may have stood still for long.
            None => Stamp { us: own_us.min(known_us), ..Stamp::new(own_us, false) },
        }
    }

    /// As [`stamp`](Self::stamp), of a write: what is the first stamp of its partition waits a moment for other nodes, since
    /// it is bounded by nothing else.
    pub(crate) async fn first_stamp(&self, hosted: &Hosted<D>, limit: Duration) -> Stamp {
        let end = self.now().plus(FIRST_STAMP_PATIENCE.min(limit / 4));
        loop {
            let stamp = self.stamp(hosted);
            if stamp.is_bounded || hosted.view.time_us(self.now()) != i64::MIN || self.now() >= end {
                return stamp;
            }
            stoa_env::sleep(CLOCKS_PAUSE).await;
        }
    }

    /// What this node's calendar says, for another one.
    pub(crate) fn tell_clock(&self) -> ClockAnswer {
        ClockAnswer { wall_us: self.env.context.clock.wall().0 }
    }

    /// Nodes that this one shares partitions with.
    fn partners(&self) -> BTreeSet<NodeId> {
        let state = self.state();
        let mut nodes = BTreeSet::new();
        for partition in state.map.sets.iter().flat_map(|set| &set.partitions) {
            let placed = || partition.replicas.iter().map(|replica| replica.node);
            if placed().any(|node| node == self.info.id) {
                nodes.extend(placed());
            }
        }
        nodes.remove(&self.info.id);
        nodes
    }

    /// Asks others for their calendars; says whether anybody answered.
    async fn ask_clocks(&self) -> bool {
        let mut answers = JoinSet::new();
        let leaders = self.all_hosted().iter().filter_map(|hosted| hosted.replica.leader()).collect();
        for to in asked(self.partners(), &leaders) {
            let (peers, at) = (self.env.peers.clone(), self.now());
            answers.spawn(async move {
                let body = encode_request(&Caller::default(), &Empty);
                let answer = peers.call(to, Channel::Liveness, Kind::Clock, &body, ASK_LIMIT).await;
                (to, at, answer.ok().and_then(|bytes| ClockAnswer::from_bytes(&bytes).ok()))
            });
        }
        let mut any = false;
        each(answers, |(node, at, answer)| {
            if let Some(ClockAnswer { wall_us }) = answer {
                self.clocks.note(node, wall_us, at);
                any = true;
            }
        })
        .await;
        any
    }
}

/// Keeps what others' calendars say.
pub(super) async fn ask<D: Disk, T: Transport>(node: Weak<Node<D, T>>) {
    loop {
        let Some(strong) = node.upgrade() else { return };
        let answered = strong.ask_clocks().await;
        drop(strong);
        stoa_env::sleep(if answered { ASK_PAUSE } else { LOOP_PAUSE }).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;
    const HOUR: i64 = 3_600 * SECOND;
    const NOON: i64 = 1_800_000_000 * SECOND;

    fn at(seconds: u64) -> BootTime {
        BootTime(seconds * 1_000_000_000)
    }

    fn heard(walls: &[i64]) -> Clocks {
        let clocks = Clocks::new(&Bounds::default());
        (1..).zip(walls).for_each(|(node, wall)| clocks.note(NodeId(node), NOON + wall, at(100)));
        clocks
    }

    fn latest(walls: &[i64]) -> Option<i64> {
        heard(walls).latest(at(100)).map(|us| us - NOON)
    }

    #[test]
    fn a_clock_ahead_of_all_others_is_held_a_second_ahead_of_them_and_no_single_other_holds_one_that_is_right() {
        assert_eq!(latest(&[]), None, "nobody has said anything");
        assert_eq!(latest(&[0]), Some(SECOND));
        assert_eq!(latest(&[0, 3 * SECOND]), Some(4 * SECOND), "of two, the one ahead");
        assert_eq!(latest(&[0, -HOUR]), Some(SECOND), "one that is behind holds nobody who is right");
        assert_eq!(latest(&[0, SECOND, HOUR]), Some(2 * SECOND), "of three, the middle one");
        assert_eq!(latest(&[-HOUR, 0, SECOND]), Some(SECOND));
        assert_eq!(latest(&[HOUR, 0, HOUR, SECOND, 0]), Some(2 * SECOND), "a minority is not believed");
    }

    #[test]
    fn a_leader_stamps_its_calendar_or_what_others_allow_of_it() {
        let of_leader =
            |walls: &[i64], own: i64| heard(walls).of_leader(NodeId(1), NOON + own, at(100)).map(|us| us - NOON);
        assert_eq!(of_leader(&[], 0), None, "it has not said anything");
        assert_eq!(of_leader(&[SECOND, 0], 0), Some(SECOND));
        assert_eq!(of_leader(&[-HOUR, 0], 0), Some(-HOUR), "one that is behind is behind");
        assert_eq!(of_leader(&[HOUR, 0], 0), Some(SECOND), "one that is ahead is held");
        assert_eq!(of_leader(&[HOUR, 0], -HOUR), Some(SECOND));
        assert_eq!(of_leader(&[HOUR, -HOUR], 0), Some(SECOND));
        assert_eq!(of_leader(&[2 * HOUR, 0], HOUR), Some(HOUR + SECOND), "of two others, the one ahead");
        assert_eq!(
            of_leader(&[2 * HOUR, 0, HOUR], 0),
            Some(SECOND),
            "of three, the middle one: it is none of them itself"
        );
        assert_eq!(of_leader(&[HOUR], 0), Some(HOUR), "of the two nobody knows which is right");
        assert_eq!(heard(&[0]).of_leader(NodeId(2), NOON, at(100)), None);
        assert_eq!(heard(&[0, 0]).of_leader(NodeId(1), NOON, at(106)), None, "it is long ago");
    }

    #[test]
    fn leaders_are_asked_first_where_not_all_are_asked() {
        let nodes = |nodes: &[u64]| nodes.iter().map(|node| NodeId(*node)).collect::<BTreeSet<_>>();
        assert_eq!(asked(nodes(&[2, 3]), &nodes(&[1, 3])), nodes(&[2, 3]));
        let many: Vec<u64> = (2..=20).collect();
        assert_eq!(asked(nodes(&many), &nodes(&[19, 20, 1])), nodes(&[2, 3, 4, 5, 6, 7, 19, 20]));
        assert_eq!(asked(nodes(&many), &nodes(&many)).len(), ASKED_MAX);
    }

    #[test]
    fn what_was_heard_goes_on_with_the_own_clock_and_is_forgotten_soon() {
        let clocks = heard(&[0]);
        let latest = |seconds| clocks.latest(at(seconds)).map(|us| us - NOON);
        assert_eq!(latest(103), Some(4 * SECOND));
        assert_eq!(latest(105), Some(6 * SECOND));
        assert_eq!(latest(106), None);
        for node in 0..100 {
            clocks.note(NodeId(node), NOON, at(200 + node));
        }
        assert_eq!(clocks.counted.bound_and_high(), (ASKED_MAX as u64, ASKED_MAX as u64));
        assert_eq!(clocks.lock().keys().next(), Some(&NodeId(92)), "the oldest have made room");
    }
}
