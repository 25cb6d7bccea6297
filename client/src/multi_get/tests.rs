//! Scripts: a read over partitions 2, 3, … of three nodes, one in each zone; the client sits in zone a with node 1.

use stoa_protocol::LogIndex;
use stoa_protocol::read::{SectionHead, SectionResult};
use stoa_protocol::row_block::{AnswerWriter, BlockLayout, parse_answer};

use super::*;
use crate::budget::HEDGE_BURST;
use crate::peers::{HEDGE_DELAY, SILENCE_MIN};
use crate::split::tests::map_of;

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);

struct Script {
    routes: Routes,
    peers: Peers,
    budget: HedgeBudget,
    read: MultiGet,
    now: BootTime,
    sent: Vec<(usize, NodeId, Reason)>,
    maps_wanted: Vec<MapVersion>,
}

fn answer_of(index: u64) -> SectionRows {
    let (layout, mut writer) = (BlockLayout::packed(std::iter::empty()), AnswerWriter::default());
    let (block, rows) = writer.block(&layout, 1);
    rows.finish();
    let (schema_version, applied, incarnation) = (1, LogIndex(index), 0);
    let head =
        SectionHead { schema_version, applied, incarnation, age: None, stale: false, block, first_row: 0, rows: 1 };
    parse_answer(writer.finish(&[SectionResult::Rows(head)]).into_body().into()).unwrap().remove(0).unwrap()
}

impl Script {
    fn new(sections: u64) -> Self {
        let mut script = Self {
            routes: Routes::new(map_of(8), "a", 0),
            peers: Peers::default(),
            budget: HedgeBudget::default(),
            read: MultiGet::new(std::iter::empty(), BootTime(0)),
            now: BootTime(1_000_000_000),
            sent: Vec::new(),
            maps_wanted: Vec::new(),
        };
        script.begin(sections);
        script
    }

    /// A new read of the same client, 50 ms long.
    fn begin(&mut self, sections: u64) {
        self.begin_for(sections, Duration::from_millis(50));
    }

    fn begin_for(&mut self, sections: u64, deadline: Duration) {
        let sections = (0..sections).map(|at| (PartitionId(2 + at), SectionWeight::default()));
        self.read = MultiGet::new(sections, self.now.plus(deadline));
        self.sent.clear();
        self.step(|read, now, world| read.start(now, world));
    }

    fn step<R>(&mut self, step: impl FnOnce(&mut MultiGet, BootTime, &mut World<'_>) -> R) -> R {
        let Self { routes, peers, budget, read, now, .. } = self;
        let result = step(read, *now, &mut World { routes, peers, budget, random: 7 });
        while let Some(action) = self.read.poll_action() {
            match action {
                Action::Send { request, node, reason } => self.sent.push((request, node, reason)),
                Action::RefreshMap { newer_than } => self.maps_wanted.push(newer_than),
            }
        }
        self.read.check();
        self.peers.check();
        self.budget.check();
        result
    }

    /// Lets time pass, with a timer call at every moment asked for.
    fn pass(&mut self, ms: f64) {
        let end = self.now.plus(Duration::from_secs_f64(ms / 1_000.0));
        loop {
            let wake = self.read.poll_timeout(self.now, &mut self.peers);
            if wake > end || self.read.is_done(self.now) {
                break;
            }
            assert!(wake > self.now, "a timer that is due at once would spin");
            self.now = wake;
            self.step(|read, now, world| read.on_timer(now, world));
        }
        self.now = end;
    }

    fn answer(&mut self, request: usize, index: u64) {
        let results = self.read.sections_of(request).iter().map(|_| Ok(answer_of(index))).collect();
        self.step(|read, now, world| read.on_answer(request, results, now, world));
    }

    fn refuse(&mut self, request: usize, code: ErrorCode) {
        let error = ErrorBody::new(code, "as the script says");
        let results = self.read.sections_of(request).iter().map(|_| Err(error.clone())).collect();
        self.step(|read, now, world| read.on_answer(request, results, now, world));
    }

    fn fail(&mut self, request: usize, failure: PeerFailure) {
        let failure = RequestFailure::Peer(failure);
        self.step(|read, now, world| read.on_failure(request, failure, now, world));
    }

    fn finish(&mut self) -> (Vec<Option<u64>>, ReadStats) {
        let read = std::mem::replace(&mut self.read, MultiGet::new(std::iter::empty(), BootTime(0)));
        let Self { routes, peers, budget, now, .. } = self;
        let (answers, stats) = read.finish(*now, &mut World { routes, peers, budget, random: 7 }).unwrap();
        self.peers.check();
        (answers.into_iter().map(|answer| answer.map(|answer| answer.head.applied.0)).collect(), stats)
    }

    fn done(&self) -> bool {
        self.read.is_done(self.now)
    }

    /// Whether a node gets all sections of a new read.
    fn first_choice(&mut self) -> NodeId {
        self.begin(4);
        assert_eq!(self.sent.len(), 1);
        let node = self.sent[0].1;
        self.answer(0, 1);
        node
    }
}

#[test]
fn one_request_to_the_own_zone_carries_all_sections() {
    let mut script = Script::new(6);
    assert_eq!(script.sent, [(0, A, Reason::First)]);
    assert_eq!(script.read.sections_of(0), [0, 1, 2, 3, 4, 5]);
    script.pass(0.5);
    script.answer(0, 9);
    assert!(script.done());
    let (answers, stats) = script.finish();
    assert_eq!(answers, [Some(9); 6]);
    assert_eq!((stats.requests, stats.hedges), (1, 0));
}

#[test]
fn nothing_asked_is_done_at_once() {
    let script = Script::new(0);
    assert!(script.done());
    assert!(script.sent.is_empty());
}

#[test]
fn requests_that_would_be_too_large_are_several() {
    let mut script = Script::new(0);
    let weight = SectionWeight { request_bytes: 64, answer_bytes: 1 << 20 };
    script.read =
        MultiGet::new((0..8).map(|at| (PartitionId(2 + at), weight)), script.now.plus(Duration::from_secs(1)));
    script.step(|read, now, world| read.start(now, world));
    assert_eq!(script.sent.len(), 2);
    assert!(script.sent.iter().all(|(_, node, _)| *node == A));
}

#[test]
fn a_slow_replica_is_hedged_in_another_zone_and_the_first_answer_wins() {
    let mut script = Script::new(3);
    script.pass(HEDGE_DELAY.1.as_secs_f64() * 1_000.0 - 0.1);
    assert_eq!(script.sent.len(), 1);
    script.pass(0.2);
    assert_eq!(script.sent[1..], [(1, B, Reason::Hedge)]);
    script.answer(1, 20);
    assert!(script.done());
    script.answer(0, 10);
    let (answers, stats) = script.finish();
    assert_eq!(answers, [Some(20); 3], "a later answer changes nothing");
    assert_eq!((stats.requests, stats.hedges), (2, 1));
}

#[test]
fn with_hedging_off_a_slow_replica_is_waited_for_until_its_node_is_ejected() {
    let mut script = Script::new(3);
    script.read.set_hedging(Hedging::Off);
    script.pass(19.9);
    assert_eq!(script.sent.len(), 1, "the budget is full, and not used");
    script.pass(0.2);
    assert_eq!(script.sent[1..], [(1, B, Reason::Ejected)]);
}

#[test]
fn only_what_is_still_missing_is_hedged() {
    let mut script = Script::new(3);
    // Node A answers one section and fails two, which go to B; B is slow then.
    let error = || Err(ErrorBody::new(ErrorCode::NotReady, "replaying"));
    let results = vec![error(), Ok(answer_of(1)), error()];
    script.step(|read, now, world| read.on_answer(0, results, now, world));
    assert_eq!(script.sent[1..], [(1, B, Reason::Retry)]);
    assert_eq!(script.read.sections_of(1), [0, 2]);
    script.pass(6.0);
    assert_eq!(script.sent[2..], [(2, C, Reason::Hedge)]);
    assert_eq!(script.read.sections_of(2), [0, 2]);
    script.answer(1, 2);
    assert_eq!(script.finish().0, [Some(2), Some(1), Some(2)]);
}

#[test]
fn without_budget_nothing_is_hedged_until_the_silent_peer_is_ejected() {
    let mut script = Script::new(2);
    while script.budget.spend() {}
    script.pass(19.9);
    assert_eq!(script.sent.len(), 1, "the budget is used up");
    script.pass(0.2);
    assert_eq!(script.sent[1..], [(1, B, Reason::Ejected)], "re-sends of ejected peers are outside the budget");
    script.answer(1, 5);
    let (answers, stats) = script.finish();
    assert_eq!(answers, [Some(5), Some(5)]);
    assert_eq!((stats.hedges, stats.ejected), (0, 1));
}

#[test]
fn a_dead_zone_costs_three_hedges_and_then_nothing() {
    let mut script = Script::new(0);
    for _ in 0..200 {
        script.begin(4);
        script.pass(0.6);
        script.answer(0, 1);
        script.finish();
        script.pass(14.0);
    }
    // Zone a falls silent. Reads come every 14 ms; the other zones answer within 1 ms.
    let mut late = 0;
    let mut hedges = 0;
    for _ in 0..350 {
        script.begin(4);
        let started = script.now;
        while !script.done() {
            script.pass(1.0);
            let others: Vec<usize> = script.sent.iter().filter(|(_, node, _)| *node != A).map(|sent| sent.0).collect();
            others.into_iter().for_each(|request| script.answer(request, 1));
        }
        late += u32::from(script.now.since(started) > Duration::from_millis(10));
        let (answers, stats) = script.finish();
        assert!(answers.iter().all(Option::is_some));
        hedges += stats.hedges;
        let rest = Duration::from_millis(14).saturating_sub(script.now.since(started));
        script.pass(rest.as_secs_f64() * 1_000.0);
    }
    assert_eq!(late, 0, "of 350 reads in the 5 s after the loss");
    assert!((1..=3).contains(&hedges), "{hedges} hedges, of a burst of {HEDGE_BURST}");
    assert!(script.peers.is_ejected(A));
}

#[test]
fn an_ejected_peer_is_asked_last_and_returns_after_good_pings() {
    let mut script = Script::new(1);
    script.fail(0, PeerFailure::Connection);
    assert_eq!(script.sent[1..], [(1, B, Reason::Retry)]);
    script.answer(1, 1);
    assert_eq!(script.first_choice(), B);
    for _ in 0..3 {
        script.pass(200.0);
        let now = script.now;
        assert_eq!(script.peers.pings_due(now), [A]);
        script.peers.on_ping(A, true, now);
    }
    assert_eq!(script.first_choice(), A);
    for node in [A, B, C] {
        script.peers.eject(node, script.now);
    }
    assert_eq!(script.first_choice(), A, "nothing else is left");
}

#[test]
fn a_replica_that_is_not_ready_is_left_out_for_a_while() {
    let mut script = Script::new(4);
    script.refuse(0, ErrorCode::NotReady);
    assert_eq!(script.sent[1..], [(1, B, Reason::Retry)]);
    script.answer(1, 1);
    assert_eq!(script.first_choice(), B);
    script.pass(600.0);
    assert_eq!(script.first_choice(), A);
}

#[test]
fn a_read_that_all_replicas_refuse_asks_ever_more_rarely_until_its_deadline() {
    let mut script = Script::new(2);
    let start = script.now;
    let mut refused = 0;
    while !script.done() {
        while refused < script.sent.len() {
            script.refuse(script.sent[refused].0, ErrorCode::NoQuorum);
            refused += 1;
        }
        script.pass(0.5);
    }
    assert!(script.now.since(start) >= Duration::from_millis(50), "it gave up after {:?}", script.now.since(start));
    assert!((10..=18).contains(&refused), "{refused} requests in 50 ms");
    let nodes: Vec<_> = script.sent.iter().map(|sent| sent.1).collect();
    assert_eq!(nodes[..6], [A, B, C, A, B, C]);
    assert_eq!(script.read.last_errors().count(), 2);
    assert_eq!(script.finish().0, [None, None]);
}

#[test]
fn a_partition_that_comes_back_before_the_deadline_is_asked_once_more() {
    for back_ms in [2, 15, 500, 1_000, 1_500, 1_900] {
        let mut script = Script::new(2);
        script.begin_for(2, Duration::from_secs(2));
        let start = script.now;
        let mut answered = 0;
        while !script.done() {
            for request in std::mem::replace(&mut answered, script.sent.len())..script.sent.len() {
                match script.now.since(start) < Duration::from_millis(back_ms) {
                    true => script.refuse(script.sent[request].0, ErrorCode::NoQuorum),
                    false => script.answer(script.sent[request].0, 1),
                }
            }
            script.pass(0.5);
        }
        assert_eq!(script.finish().0, [Some(1), Some(1)], "back after {back_ms} ms of 2,000");
    }
}

#[test]
fn an_overloaded_cluster_is_not_asked_more_than_the_budget_allows() {
    let mut script = Script::new(4);
    script.refuse(0, ErrorCode::Overloaded);
    assert_eq!(script.sent[1..], [(1, B, Reason::Retry)], "four sections for one token");
    while script.budget.spend() {}
    script.refuse(1, ErrorCode::Overloaded);
    assert_eq!(script.sent.len(), 2);
    script.pass(10.0);
    assert_eq!(script.sent.len(), 3, "after a pause");
}

#[test]
fn a_stale_map_is_asked_for_anew_and_the_new_one_is_followed() {
    let mut script = Script::new(1);
    for request in 0..3 {
        script.refuse(request, ErrorCode::NotHere);
    }
    assert_eq!(script.maps_wanted, [MapVersion(5)], "once");
    assert_eq!(script.sent.len(), 3);
    let mut map = map_of(8);
    map.version = MapVersion(6);
    map.nodes.push(stoa_protocol::map::NodeInfo {
        id: NodeId(4),
        zone: "a".into(),
        addr: map.nodes[0].addr,
        incarnation: 4,
    });
    map.sets[0].partitions[0].replicas[0].node = NodeId(4);
    script.routes = Routes::new(map, "a", 0);
    script.step(|read, now, world| read.on_map(now, world));
    assert_eq!(script.sent[3..], [(3, NodeId(4), Reason::Retry)]);
    script.answer(3, 8);
    assert_eq!(script.finish().0, [Some(8)]);
}

#[test]
fn a_partition_that_the_map_lacks_waits_for_a_newer_map() {
    let mut script = Script::new(9); // the ninth has no replicas
    assert_eq!(script.maps_wanted, [MapVersion(5)]);
    script.answer(0, 1);
    assert!(!script.done());
    script.pass(50.0);
    assert!(script.done());
    let (answers, _) = script.finish();
    assert_eq!(answers.iter().filter(|answer| answer.is_none()).count(), 1);
}

#[test]
fn the_deadline_brings_a_partial_answer() {
    let mut script = Script::new(2);
    let results = vec![Ok(answer_of(3)), Err(ErrorBody::new(ErrorCode::NotCaughtUp, "behind"))];
    script.step(|read, now, world| read.on_answer(0, results, now, world));
    script.pass(49.9);
    assert!(!script.done());
    script.pass(0.2);
    assert!(script.done());
    assert_eq!(script.finish().0, [Some(3), None]);
}

#[test]
fn a_rejection_ends_the_read_with_the_nodes_words() {
    let mut script = Script::new(2);
    script.refuse(0, ErrorCode::Forbidden);
    assert!(script.done());
    let Script { routes, mut peers, mut budget, now, read, .. } = script;
    let mut world = World { routes: &routes, peers: &mut peers, budget: &mut budget, random: 7 };
    let error = read.finish(now, &mut world).unwrap_err();
    assert_eq!(error.code, ErrorCode::Forbidden);
}

#[test]
fn two_dead_zones_leave_the_third() {
    let mut script = Script::new(2);
    assert!(SILENCE_MIN * 2 < Duration::from_millis(50));
    script.pass(6.0);
    assert_eq!(script.sent[1], (1, B, Reason::Hedge));
    script.pass(30.0);
    assert_eq!(script.sent.last().map(|sent| sent.1), Some(C));
    script.answer(2, 4);
    assert_eq!(script.finish().0, [Some(4), Some(4)]);
}

#[test]
fn a_read_that_needs_leaders_asks_them_first_and_takes_their_waiting_for_no_silence() {
    let mut script = Script::new(0);
    let sections = (0..2).map(|at| (PartitionId(2 + at), SectionWeight::default()));
    script.read = MultiGet::new(sections, script.now.plus(Duration::from_millis(200)));
    script.read.expect_waits();
    script.read.prefer(|partition| (partition == PartitionId(2)).then_some(C));
    while script.budget.spend() {}
    script.step(|read, now, world| read.start(now, world));
    assert_eq!(
        script.sent,
        [(0, A, Reason::First), (1, C, Reason::First)],
        "the nearest, where the leader is not known"
    );
    script.answer(0, 1);
    script.pass(99.0);
    assert!(!script.peers.is_ejected(C), "it may be waiting for its quorum");
    assert_eq!(script.sent.len(), 2);
    script.pass(2.0);
    assert!(script.peers.is_ejected(C), "by half of the time it must have answered");
    assert_eq!(script.sent[2..], [(2, A, Reason::Ejected)]);
    script.answer(2, 7);
    assert_eq!(script.finish().0, [Some(7), Some(1)]);
}

#[test]
fn a_replica_that_is_too_old_is_left_for_another_one() {
    let mut script = Script::new(2);
    script.refuse(0, ErrorCode::Stale);
    assert_eq!(script.sent[1..], [(1, B, Reason::Retry)]);
    script.refuse(1, ErrorCode::Stale);
    assert_eq!(script.sent[2..], [(2, C, Reason::Retry)]);
    script.answer(2, 3);
    assert_eq!(script.finish().0, [Some(3), Some(3)]);
}
