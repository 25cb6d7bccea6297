//! One multi-get as a state machine: sections in, answers out, in between one request per node, hedges, other replicas
//! after failures, a bounded number of attempts, and the deadline.
//!
//! It sends nothing and asks no clock. Whoever drives it carries out what [`MultiGet::poll_action`] says, reports what
//! came of it, and calls [`MultiGet::on_timer`] at [`MultiGet::poll_timeout`], until [`MultiGet::is_done`].
//!
//! A section is asked from the best replica: own zone before others, the leader before those where the read needs it, ready
//! before unready, in use before ejected, not failed in this round before failed. What happens then:
//!
//! | event | reaction |
//! |---|---|
//! | the request waits longer than its peer's usual | its sections are also asked elsewhere, if the hedge budget allows |
//! | the peer is silent and ejected | its sections are also asked elsewhere, outside the budget |
//! | a section or request fails | asked elsewhere at once; after all replicas failed, again after a pause |
//! | the node is overloaded | asked elsewhere within the hedge budget, else after a pause |
//! | the replica has moved | asked elsewhere, and a newer map is asked for |
//! | the request is rejected | the whole read ends with that error |
//! | the deadline | the read ends with what there is |
//!
//! The first good answer of a section wins; later ones are dropped, so rows of one section are never mixed.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use stoa_env::BootTime;
use stoa_protocol::limits::{DEADLINE_US_MAX, FRAME_BYTES_MAX, READ_SECTIONS_MAX};
use stoa_protocol::row_block::SectionRows;
use stoa_protocol::{ErrorBody, ErrorClass, ErrorCode, MapVersion, NodeId, PartitionId};

use crate::budget::HedgeBudget;
use crate::peers::{PeerFailure, Peers};
use crate::retry::jittered;
use crate::routes::{Route, Routes};
use crate::split::SectionWeight;

/// Requests that may carry one section. With the pauses between rounds, three replicas are asked so often in the 60 s
/// that the longest deadline gives: a read ends at its deadline and not before, since a partition without a leader, or
/// one that has yet to learn a schema, comes back within most deadlines.
pub const SECTION_ATTEMPTS_MAX: u8 = 200;

/// The pause after all replicas of a section have failed once; doubled each time, up to [`ROUND_PAUSE_MAX`].
pub const ROUND_PAUSE: Duration = Duration::from_millis(2);

/// The longest pause between two rounds: a partition that is down costs each of its readers three requests a second, and up
/// to nine more in its last one.
pub const ROUND_PAUSE_MAX: Duration = Duration::from_secs(1);

/// With less time than this before the deadline no pause is cut short: so little may be slept through, and short reads of a
/// busy cluster must not make it busier.
const LAST_ROUNDS: Duration = Duration::from_millis(32);

const _: () = assert!(
    // Each round but the first ten, and a few before the deadline, lasts half of the longest pause at the least.
    (SECTION_ATTEMPTS_MAX as u64 / 3 - 10) * (ROUND_PAUSE_MAX.as_micros() as u64 / 2) > DEADLINE_US_MAX / 3,
    "a read must not run out of attempts long before its deadline"
);

/// When a request that may have to wait for a leader is asked elsewhere too: twice the two round trips between zones that
/// a leader's confirmation takes through another replica.
pub const WAITING_HEDGE_DELAY: Duration = Duration::from_millis(20);

/// Bytes of sections in one request and, estimated, in its answer: half a frame, as the estimate may be off by two.
const REQUEST_BYTES_MAX: usize = FRAME_BYTES_MAX / 2;

/// What the machine reads and changes beside itself, of the client as a whole.
pub struct World<'a> {
    /// Where everything is.
    pub routes: &'a Routes,
    /// What is known of the nodes.
    pub peers: &'a mut Peers,
    /// What may be sent beyond the first requests.
    pub budget: &'a mut HedgeBudget,
    /// 64 random bits, for jitter.
    pub random: u64,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send the sections of a request ([`MultiGet::sections_of`]) to a node.
    Send {
        /// The request's number in this read.
        request: usize,
        /// Where to.
        node: NodeId,
        /// Why.
        reason: Reason,
    },
    /// Fetch a map newer than this version, and report it with [`MultiGet::on_map`].
    RefreshMap {
        /// The version that is too old.
        newer_than: MapVersion,
    },
}

/// Why a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The first time.
    First,
    /// Another replica failed.
    Retry,
    /// Another replica is slow; paid from the hedge budget.
    Hedge,
    /// Another replica's node was ejected for its silence.
    Ejected,
}

/// Why a request as a whole gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestFailure {
    /// No answer that could be understood.
    Peer(PeerFailure),
    /// The node refused it.
    Refused(ErrorBody),
}

/// Whether another replica is asked beside one that is slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hedging {
    /// Yes, within the budget.
    #[default]
    On,
    /// No. One that fails, or whose node was ejected for its silence, is replaced all the same.
    Off,
}

/// What a read took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadStats {
    /// Requests sent, of all reasons.
    pub requests: u32,
    /// Hedges among them.
    pub hedges: u32,
    /// Requests sent because another had failed.
    pub retries: u32,
    /// Requests sent because a peer was ejected.
    pub ejected: u32,
    /// From the call to its answer.
    pub elapsed: Duration,
}

/// One multi-get.
pub struct MultiGet {
    sections: Vec<Section>,
    requests: Vec<Request>,
    actions: VecDeque<Action>,
    assigned: BTreeMap<(NodeId, Reason), Vec<u32>>,
    open: usize,
    deadline: BootTime,
    /// Whether nodes may have to wait before they can answer: then their silence says nothing for a while.
    may_wait: bool,
    hedging: Hedging,
    rejection: Option<ErrorBody>,
    map_wanted: Option<MapVersion>,
    stats: ReadStats,
}

struct Section {
    partition: PartitionId,
    weight: SectionWeight,
    /// The node to ask first, if it is in use: the partition's leader, where only that one can answer by itself.
    first: Option<NodeId>,
    state: State,
    /// Numbers of the requests that carry it and have not ended.
    asked: Vec<u32>,
    /// Nodes that failed in this round.
    failed: Vec<NodeId>,
    attempts: u8,
    rounds: u8,
    /// When to ask again, after a pause.
    resume: Option<BootTime>,
    last_error: Option<ErrorBody>,
}

enum State {
    Open,
    Answered(SectionRows),
    /// Attempts are used up.
    GivenUp,
}

struct Request {
    node: NodeId,
    sent: BootTime,
    sections: Vec<u32>,
    /// Sections that nobody has answered yet.
    open: usize,
    ended: bool,
    /// Its node was ejected while it waited; an answer is still welcome.
    lost: bool,
    hedge_at: Option<BootTime>,
    /// Until then its silence says nothing of its node.
    patient_until: BootTime,
}

impl MultiGet {
    /// A read of these sections, each a partition and a weight, until `deadline`.
    pub fn new(sections: impl Iterator<Item = (PartitionId, SectionWeight)>, deadline: BootTime) -> Self {
        let section = |(partition, weight)| Section {
            partition,
            weight,
            first: None,
            state: State::Open,
            asked: Vec::new(),
            failed: Vec::new(),
            attempts: 0,
            rounds: 0,
            resume: None,
            last_error: None,
        };
        let sections: Vec<Section> = sections.map(section).collect();
        Self {
            open: sections.len(),
            sections,
            requests: Vec::new(),
            actions: VecDeque::new(),
            assigned: BTreeMap::new(),
            deadline,
            may_wait: false,
            hedging: Hedging::On,
            rejection: None,
            map_wanted: None,
            stats: ReadStats::default(),
        }
    }

    /// Tells that nodes may have to wait before they can answer, for no longer than half of the time they are given. To be
    /// called before [`MultiGet::start`].
    pub fn expect_waits(&mut self) {
        self.may_wait = true;
    }

    /// Sets whether a slow replica has another asked beside it; by default it has.
    pub fn set_hedging(&mut self, hedging: Hedging) {
        self.hedging = hedging;
    }

    /// Has sections asked first at these nodes, before nearer ones: for reads that need the leader of their partition. To
    /// be called before [`MultiGet::start`].
    pub fn prefer(&mut self, first: impl Fn(PartitionId) -> Option<NodeId>) {
        self.sections.iter_mut().for_each(|section| section.first = first(section.partition));
    }

    /// Asks for all sections. Called once, first.
    pub fn start(&mut self, now: BootTime, world: &mut World<'_>) {
        for at in 0..self.sections.len() {
            self.ask(at, Reason::First, now, world);
        }
        self.flush(now, world);
    }

    /// The results of a request came, one for each of its sections, in order.
    pub fn on_answer(
        &mut self,
        request: usize,
        results: Vec<Result<SectionRows, ErrorBody>>,
        now: BootTime,
        world: &mut World<'_>,
    ) {
        let Some(sections) = self.end(request) else { return };
        assert_eq!(results.len(), sections.len(), "the driver checks that an answer fits its request");
        let (node, sent) = (self.requests[request].node, self.requests[request].sent);
        match self.may_wait {
            true => world.peers.on_heard(node, now), // how long it waited is not how slow it is
            false => world.peers.on_answer(node, now.since(sent), now),
        }
        let mut paid = None;
        for (at, result) in sections.into_iter().zip(results) {
            match result {
                Ok(answer) => self.answered(at as usize, answer, now, world),
                Err(error) => self.failed(at as usize, node, error, &mut paid, now, world),
            }
        }
        self.flush(now, world);
    }

    /// A request gave no results.
    pub fn on_failure(&mut self, request: usize, failure: RequestFailure, now: BootTime, world: &mut World<'_>) {
        let Some(sections) = self.end(request) else { return };
        let (node, sent) = (self.requests[request].node, self.requests[request].sent);
        let error = match failure {
            RequestFailure::Peer(failure) => {
                world.peers.on_failure(node, sent, failure, now);
                ErrorBody::new(ErrorCode::NoQuorum, format!("node {node} did not answer"))
            }
            RequestFailure::Refused(error) => {
                world.peers.on_answer(node, now.since(sent), now);
                error
            }
        };
        let mut paid = None;
        for at in sections {
            self.failed(at as usize, node, error.clone(), &mut paid, now, world);
        }
        self.flush(now, world);
    }

    /// Time has passed: hedges, ejections, pauses that end.
    pub fn on_timer(&mut self, now: BootTime, world: &mut World<'_>) {
        if now >= self.deadline {
            return;
        }
        for at in 0..self.requests.len() {
            let request = &self.requests[at];
            if request.ended || request.lost {
                continue;
            }
            if now >= request.patient_until && world.peers.judge(request.node, Some(request.sent), now) {
                self.lose(at, now, world);
            } else if request.hedge_at.is_some_and(|hedge_at| hedge_at <= now) {
                self.requests[at].hedge_at = None;
                if self.may_wait {
                    world.peers.on_sent(self.requests[at].node, now); // from here on it owes an answer
                }
                self.hedge(at, now, world);
            }
        }
        for at in 0..self.sections.len() {
            if self.sections[at].resume.is_some_and(|resume| resume <= now) {
                self.sections[at].resume = None;
                self.ask(at, Reason::Retry, now, world);
            }
        }
        self.flush(now, world);
    }

    /// There is a newer map in `world`: sections that wait need not wait on.
    pub fn on_map(&mut self, now: BootTime, world: &mut World<'_>) {
        self.map_wanted = None;
        for at in 0..self.sections.len() {
            if self.sections[at].resume.take().is_some() {
                self.sections[at].failed.clear();
                self.ask(at, Reason::Retry, now, world);
            }
        }
        self.flush(now, world);
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`MultiGet::on_timer`] at the latest; never after the deadline.
    pub fn poll_timeout(&self, now: BootTime, peers: &mut Peers) -> BootTime {
        let waiting = self.requests.iter().filter(|request| !request.ended && !request.lost);
        let requests = waiting.map(|request| {
            let silent_at = peers.silent_at(request.node, request.sent, now).max(request.patient_until);
            request.hedge_at.map_or(silent_at, |hedge_at| hedge_at.min(silent_at))
        });
        let next = requests.min().unwrap_or(self.deadline);
        let pauses = self.sections.iter().filter_map(|section| section.resume);
        pauses.min().unwrap_or(next).min(next).min(self.deadline)
    }

    /// Whether there is nothing left to wait for.
    pub fn is_done(&self, now: BootTime) -> bool {
        self.open == 0 || self.rejection.is_some() || now >= self.deadline
    }

    /// The sections that a request carries, in its order.
    pub fn sections_of(&self, request: usize) -> &[u32] {
        &self.requests[request].sections
    }

    /// The most attempts that were made at a section.
    pub fn attempts_worst(&self) -> u8 {
        self.sections.iter().map(|section| section.attempts).max().unwrap_or(0)
    }

    /// Ends the read: the answer of each section, or `None`; what it took; or the error that every node would give.
    pub fn finish(
        mut self,
        now: BootTime,
        world: &mut World<'_>,
    ) -> Result<(Vec<Option<SectionRows>>, ReadStats), ErrorBody> {
        self.abandon(now, world.peers);
        if let Some(error) = self.rejection.take() {
            return Err(error);
        }
        let answer = |section: Section| match section.state {
            State::Answered(answer) => Some(answer),
            State::Open | State::GivenUp => None,
        };
        Ok((self.sections.into_iter().map(answer).collect(), self.stats))
    }

    /// The last error of each section that has no answer.
    pub fn last_errors(&self) -> impl Iterator<Item = &ErrorBody> {
        let open = self.sections.iter().filter(|section| !matches!(section.state, State::Answered(_)));
        open.filter_map(|section| section.last_error.as_ref())
    }

    /// States the invariants.
    pub fn check(&self) {
        let open = self.sections.iter().filter(|section| matches!(section.state, State::Open)).count();
        assert_eq!(self.open, open, "sections without an answer are counted once");
        for (at, section) in self.sections.iter().enumerate() {
            assert!(section.attempts <= SECTION_ATTEMPTS_MAX, "section {at} was asked too often");
            assert!(section.asked.iter().all(|&r| !self.requests[r as usize].ended), "section {at} waits for nothing");
            let waits = !section.asked.is_empty() || section.resume.is_some() || self.rejection.is_some();
            assert!(
                waits || !matches!(section.state, State::Open) || self.requests.is_empty(),
                "section {at} is stuck"
            );
        }
        for request in &self.requests {
            let open = |at: &&u32| matches!(self.sections[**at as usize].state, State::Open);
            assert!(request.ended || request.open == request.sections.iter().filter(open).count());
        }
    }

    fn end(&mut self, request: usize) -> Option<Vec<u32>> {
        let ended = &mut self.requests[request];
        if std::mem::replace(&mut ended.ended, true) {
            return None;
        }
        let sections = std::mem::take(&mut ended.sections);
        for &at in &sections {
            self.sections[at as usize].asked.retain(|&r| r as usize != request);
        }
        Some(sections)
    }

    fn answered(&mut self, at: usize, answer: SectionRows, now: BootTime, world: &mut World<'_>) {
        let section = &mut self.sections[at];
        match section.state {
            State::Answered(_) => return,
            State::Open => self.open -= 1,
            State::GivenUp => {}
        }
        section.state = State::Answered(answer);
        section.resume = None;
        for &other in &section.asked {
            let other = &mut self.requests[other as usize];
            other.open -= 1;
            if other.open == 0 {
                if !self.may_wait {
                    world.peers.on_overtaken(other.node, now.since(other.sent), now);
                }
                other.lost = true; // nothing of it is awaited
            }
        }
    }

    fn failed(
        &mut self,
        at: usize,
        node: NodeId,
        error: ErrorBody,
        paid: &mut Option<bool>,
        now: BootTime,
        world: &mut World<'_>,
    ) {
        let section = &mut self.sections[at];
        if !matches!(section.state, State::Open) {
            return;
        }
        section.failed.push(node);
        let (code, map_version) = (error.code, error.map_version);
        let retry_after = Duration::from_millis(u64::from(error.retry_after_ms));
        if code.class() == ErrorClass::Reject {
            self.rejection = Some(error);
            return;
        }
        section.last_error = Some(error);
        match code {
            ErrorCode::NotReady
            | ErrorCode::SchemaNotReady
            | ErrorCode::Halted
            | ErrorCode::ReplicaOut
            | ErrorCode::LogFailed => {
                world.peers.on_unready(node, section.partition, now);
            }
            ErrorCode::NotHere => {
                let seen = world.routes.map().version;
                self.want_map(MapVersion(seen.0.max(map_version.0.saturating_sub(1))));
            }
            // Retries of a busy cluster make it busier: one answer is asked again elsewhere for one token.
            ErrorCode::Overloaded if !*paid.get_or_insert_with(|| world.budget.spend()) => {
                let pause = jittered(ROUND_PAUSE * 4, world.random).max(retry_after);
                self.sections[at].resume = Some(now.plus(pause));
                return;
            }
            _ => {}
        }
        if self.sections[at].asked.iter().all(|&r| self.requests[r as usize].lost) {
            self.ask(at, Reason::Retry, now, world);
        }
    }

    /// Assigns a section to its best replica, or to a pause, or gives it up.
    fn ask(&mut self, at: usize, reason: Reason, now: BootTime, world: &mut World<'_>) {
        let section = &self.sections[at];
        if !matches!(section.state, State::Open) {
            return;
        }
        if section.attempts == SECTION_ATTEMPTS_MAX {
            if section.asked.is_empty() {
                self.sections[at].state = State::GivenUp;
                self.open -= 1;
            }
            return;
        }
        match self.choose(at, now, world) {
            Some((route, fresh)) if fresh => self.assign(at, route.node, reason),
            _ if section.asked.iter().any(|&r| !self.requests[r as usize].lost) => {} // somebody is asked still
            choice => {
                if choice.is_none() {
                    self.want_map(world.routes.map().version);
                }
                let section = &mut self.sections[at];
                section.failed.clear();
                let pause = ROUND_PAUSE.saturating_mul(1 << section.rounds.min(16)).min(ROUND_PAUSE_MAX);
                let pause = jittered(pause, world.random);
                // One that would sleep through the deadline is cut short, while an answer may still come: a partition that
                // has a leader again is asked once more.
                let left = self.deadline.since(now);
                let cut = left / 4 * 3 + jittered(left / 8, world.random);
                let pause = if pause >= left && left >= LAST_ROUNDS { cut } else { pause };
                section.rounds = section.rounds.saturating_add(1);
                section.resume = Some(now.plus(pause));
            }
        }
    }

    /// The best replica that is not being asked, and whether it has not failed in this round.
    fn choose(&self, at: usize, now: BootTime, world: &World<'_>) -> Option<(Route, bool)> {
        let section = &self.sections[at];
        let busy = |node| section.asked.iter().any(|&r| self.requests[r as usize].node == node);
        let worth = |route: &Route| {
            let failed = section.failed.contains(&route.node);
            let ejected = world.peers.is_ejected(route.node);
            let unready = world.peers.is_unready(route.node, section.partition, now);
            (failed, ejected, unready, section.first.is_some_and(|first| first != route.node))
        };
        // `min_by_key` keeps the first of equals: the nearest.
        let routes = world.routes.of(section.partition);
        if section.first.is_none()
            && section.asked.is_empty()
            && section.failed.is_empty()
            && world.peers.all_are_well()
        {
            return routes.first().map(|route| (*route, true)); // nearly always
        }
        let best = routes.iter().filter(|route| !busy(route.node)).min_by_key(|r| worth(r));
        best.map(|route| (*route, !section.failed.contains(&route.node)))
    }

    fn assign(&mut self, at: usize, node: NodeId, reason: Reason) {
        self.sections[at].attempts += 1;
        self.assigned.entry((node, reason)).or_default().push(at as u32);
    }

    /// A request's peer was ejected: what it still owes is asked elsewhere, outside the budget.
    fn lose(&mut self, request: usize, now: BootTime, world: &mut World<'_>) {
        self.requests[request].lost = true;
        let node = self.requests[request].node;
        for at in self.sections_without_other(request) {
            self.sections[at].failed.push(node);
            self.ask(at, Reason::Ejected, now, world);
        }
    }

    /// A request is slow: what it still owes is asked elsewhere too, for one token a node.
    fn hedge(&mut self, request: usize, now: BootTime, world: &mut World<'_>) {
        if self.hedging == Hedging::Off {
            return;
        }
        let mut by_node: BTreeMap<NodeId, Vec<usize>> = BTreeMap::new();
        for at in self.sections_without_other(request) {
            let usable = |(route, fresh): &(Route, bool)| *fresh && !world.peers.is_ejected(route.node);
            let attempts_left = self.sections[at].attempts < SECTION_ATTEMPTS_MAX;
            if let Some((route, _)) = self.choose(at, now, world).filter(usable).filter(|_| attempts_left) {
                by_node.entry(route.node).or_default().push(at);
            }
        }
        for (node, sections) in by_node {
            if !world.budget.spend() {
                return; // ejection, or the slow answer itself, must do
            }
            sections.into_iter().for_each(|at| self.assign(at, node, Reason::Hedge));
        }
    }

    /// Open sections of a request that no other request, still hopeful, carries.
    fn sections_without_other(&self, request: usize) -> Vec<usize> {
        let alone = |at: &usize| {
            let section = &self.sections[*at];
            let hopeful = |&&r: &&u32| r as usize != request && !self.requests[r as usize].lost;
            matches!(section.state, State::Open) && section.asked.iter().find(hopeful).is_none()
        };
        self.requests[request].sections.iter().map(|&at| at as usize).filter(alone).collect()
    }

    fn want_map(&mut self, newer_than: MapVersion) {
        if self.map_wanted.is_none_or(|wanted| wanted < newer_than) {
            self.map_wanted = Some(newer_than);
            self.actions.push_back(Action::RefreshMap { newer_than });
        }
    }

    /// Makes requests of what was assigned: one for each node and reason, more only where one would be too large.
    fn flush(&mut self, now: BootTime, world: &mut World<'_>) {
        while let Some(((node, reason), sections)) = self.assigned.pop_first() {
            let mut rest = &sections[..];
            while !rest.is_empty() {
                let (head, tail) = rest.split_at(self.fitting(rest));
                self.send(node, reason, head.to_vec(), now, world);
                rest = tail;
            }
        }
    }

    /// How many of the sections one request can carry; at least one.
    fn fitting(&self, sections: &[u32]) -> usize {
        let (mut request, mut answer) = (0, 0);
        let fits = |at: &&u32| {
            let weight = self.sections[**at as usize].weight;
            request += weight.request_bytes;
            answer += weight.answer_bytes;
            request <= REQUEST_BYTES_MAX && answer <= REQUEST_BYTES_MAX
        };
        sections.iter().take(READ_SECTIONS_MAX).take_while(fits).count().max(1)
    }

    fn send(&mut self, node: NodeId, reason: Reason, sections: Vec<u32>, now: BootTime, world: &mut World<'_>) {
        let request = self.requests.len();
        for &at in &sections {
            self.sections[at as usize].asked.push(request as u32);
        }
        self.stats.requests += 1;
        match reason {
            Reason::First => world.budget.earn(),
            Reason::Retry => self.stats.retries += 1,
            Reason::Hedge => self.stats.hedges += 1,
            Reason::Ejected => self.stats.ejected += 1,
        }
        let (hedge_at, patient_until) = match self.may_wait {
            true => (now.plus(WAITING_HEDGE_DELAY), now.plus(self.deadline.since(now) / 2)),
            false => (now.plus(world.peers.hedge_delay(node, now)), now),
        };
        if !self.may_wait {
            world.peers.on_sent(node, now);
        }
        self.requests.push(Request {
            node,
            sent: now,
            open: sections.len(),
            sections,
            ended: false,
            lost: false,
            hedge_at: Some(hedge_at),
            patient_until,
        });
        self.actions.push_back(Action::Send { request, node, reason });
    }

    fn abandon(&mut self, now: BootTime, peers: &mut Peers) {
        for request in self.requests.iter_mut().filter(|request| !request.ended && !request.lost) {
            request.ended = true;
            if !self.may_wait {
                peers.on_overtaken(request.node, now.since(request.sent), now);
            }
        }
    }
}

#[cfg(test)]
mod tests;
