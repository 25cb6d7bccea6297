//! Reading a view: the driver of [`MultiGet`] on a transport.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use stoa_env::{BootTime, Peer, Transport};
use stoa_protocol::limits::{DEADLINE_US_MAX, READ_DEADLINE_US_DEFAULT};
use stoa_protocol::message::Kind;
use stoa_protocol::read::{ConfirmBy, OnStale, ReadLevel};
use stoa_protocol::row_block::{SectionRows, parse_answer};
use stoa_protocol::{ClusterMap, ErrorBody, ErrorCode, MapVersion, Position, Wire};

use crate::answer::ViewAnswer;
use crate::client::Inner;
use crate::error::{CallError, ReadError};
use crate::multi_get::{Action, Hedging, MultiGet, RequestFailure};
use crate::plan::ViewPlan;
use crate::routes::Routes;
use crate::rows::Rows;
use crate::shared::{READS_MAX, Shared, peer_failure};
use crate::split::Split;

/// How a read is to be done.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// When the answer must be there, from the call: 50 ms by default, up to 60 s. What is missing then is
    /// `Unavailable`.
    pub deadline: Duration,
    /// Read nothing older than this: a position from a write or an earlier read.
    pub at_least: Option<Position>,
    /// How new the answer must be beyond that. By default a replica of the own zone answers with what it has, and says how
    /// old that may be ([`ViewAnswer::age`]).
    pub level: ReadLevel,
    /// Whether another replica is asked beside one that is slow: on, by default.
    pub hedging: Hedging,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            deadline: Duration::from_micros(READ_DEADLINE_US_DEFAULT),
            at_least: None,
            level: ReadLevel::default(),
            hedging: Hedging::default(),
        }
    }
}

impl ReadOptions {
    /// With this level.
    pub fn at_level(self, level: ReadLevel) -> Self {
        Self { level, ..self }
    }

    /// Local, and at most this far behind: a replica that is further behind refuses, and another one is asked. Where none
    /// is young enough by the deadline, values are `Unavailable`.
    pub fn at_most_behind(self, max_staleness: Duration) -> Self {
        self.at_level(ReadLevel::Local { max_staleness: Some(max_staleness), on_stale: OnStale::Refuse })
    }

    /// Linearizable, by read index: whatever was acknowledged before the read, or shown by an earlier one, is in it.
    pub fn linearizable(self) -> Self {
        self.at_level(ReadLevel::Linearizable { by: ConfirmBy::ReadIndex })
    }
}

/// A feature view, ready to be read. Cheap to clone.
pub struct View<T: Transport> {
    inner: Arc<Inner<T>>,
    plan: Arc<ViewPlan>,
}

impl<T: Transport> Clone for View<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), plan: self.plan.clone() }
    }
}

/// A request to one node.
struct Message {
    request: usize,
    to: Peer,
    body: Vec<u8>,
    /// Whether the node may have to wait before it can answer.
    may_wait: bool,
    sections: Vec<u32>,
}

type Outcome = (usize, Result<Vec<Result<SectionRows, ErrorBody>>, CallError>);

impl<T: Transport> View<T> {
    pub(crate) fn new(inner: Arc<Inner<T>>, plan: ViewPlan) -> Self {
        Self { inner, plan: Arc::new(plan) }
    }

    /// What the view needs and gives.
    pub fn plan(&self) -> &ViewPlan {
        &self.plan
    }

    /// Reads the features of these rows. The answer is there by the deadline; what no replica gave by then is
    /// `Unavailable` in it. Dropping the future gives the read up.
    ///
    /// # Errors
    /// [`ReadError`] if the rows do not fit the view, or if the cluster rejects the request as such.
    pub async fn get(&self, rows: &Rows, options: &ReadOptions) -> Result<ViewAnswer, ReadError> {
        let shared = &*self.inner.shared;
        let started = shared.now();
        if options.deadline.is_zero() || options.deadline > Duration::from_micros(DEADLINE_US_MAX) {
            return Err(ReadError::Deadline { given: options.deadline });
        }
        let _counted = shared.gauges.reads.take(1).ok_or(ReadError::Overloaded { under_way: READS_MAX })?;
        let mut maps = shared.watch_routes();
        let mut routes = maps.borrow_and_update().clone();
        if let Some(position) = &options.at_least {
            check_position(position, routes.map())?;
        }
        let split = Split::new(&self.plan, rows, routes.map(), options.at_least.as_ref())?;
        let sections = split.sections.iter().map(|section| (section.partition, section.weight));
        let deadline = started.plus(options.deadline);
        let mut machine = MultiGet::new(sections, deadline);
        machine.set_hedging(options.hedging);
        let may_wait = options.level != ReadLevel::default();
        if may_wait {
            machine.expect_waits();
        }
        if let ReadLevel::Linearizable { .. } = options.level {
            let leaders = shared.leaders();
            machine.prefer(|partition| leaders.get(&partition).copied());
        }
        let mut in_flight = FuturesUnordered::new();
        shared.step(&routes, |world| machine.start(shared.now(), world));
        loop {
            while let Some(action) = machine.poll_action() {
                match action {
                    Action::Send { request, node, .. } => {
                        let sections = machine.sections_of(request).to_vec();
                        let at_least = |at: &u32| split.sections[*at as usize].at_least.0 > 0;
                        let message = Message {
                            request,
                            to: routes.peer(node).expect("routes name nodes of their own map alone"),
                            body: self.body(options.level, &split, &sections),
                            may_wait: may_wait || sections.iter().any(at_least),
                            sections,
                        };
                        in_flight.push(self.send(message, &split, deadline));
                    }
                    Action::RefreshMap { newer_than } => shared.want_map(MapVersion(newer_than.0 + 1)),
                }
            }
            let now = shared.now();
            if machine.is_done(now) {
                break;
            }
            let wake = machine.poll_timeout(now, &mut shared.nodes().peers);
            tokio::select! {
                biased;
                Some((request, outcome)) = in_flight.next() => take(shared, &routes, &mut machine, request, outcome),
                Ok(()) = maps.changed() => {
                    routes = maps.borrow_and_update().clone();
                    shared.step(&routes, |world| machine.on_map(shared.now(), world));
                }
                () = stoa_env::sleep(wake.since(now)) => {
                    shared.step(&routes, |world| machine.on_timer(shared.now(), world));
                }
            }
        }
        drop(in_flight);
        shared.gauges.section_attempts.note(machine.attempts_worst().into());
        let now = shared.now();
        let finished = shared.step(&routes, |world| machine.finish(now, world));
        let (sections, mut stats) =
            finished.map_err(|error| ReadError::Rejected { view: self.plan.name.clone(), error })?;
        stats.elapsed = now.since(started);
        Ok(ViewAnswer::new(self.plan.clone(), split, sections, rows.len(), stats))
    }

    /// The bytes of a [`ReadRequest`](stoa_protocol::read::ReadRequest), behind who asks.
    fn body(&self, level: ReadLevel, split: &Split, sections: &[u32]) -> Vec<u8> {
        let bytes = sections.iter().map(|&at| split.sections[at as usize].weight.request_bytes).sum::<usize>();
        let mut body = Vec::with_capacity(bytes + 256);
        self.inner.shared.caller.put(&mut body);
        split.put_request(&self.plan, level, sections, &mut body);
        body
    }

    async fn send(&self, message: Message, split: &Split, deadline: BootTime) -> Outcome {
        let shared = &*self.inner.shared;
        let Message { request, to, body, may_wait, sections: asked } = message;
        let limit = deadline.since(shared.now());
        // A node waits for a position that it has not applied, or for a leader, with all sections of the request. Half of the
        // time is left to ask another one.
        let remaining = may_wait.then_some(limit / 2);
        let result = shared.call_for(to, Kind::Read, &body, limit, remaining).await;
        let results = result.and_then(|(_, body)| {
            let unfit = |what| CallError::Unfit { from: to.addr, what };
            let answer = parse_answer(body).map_err(|error| unfit(error.to_string()))?;
            if answer.len() != asked.len() {
                return Err(unfit(format!("it has {} sections of {}", answer.len(), asked.len())));
            }
            Ok(asked.iter().zip(answer).map(|(&at, result)| self.judge(split, at, result)).collect())
        });
        (request, results)
    }

    fn judge(&self, split: &Split, at: u32, result: Result<SectionRows, ErrorBody>) -> Result<SectionRows, ErrorBody> {
        let answer = result.inspect_err(|error| {
            if let Some(leader) = error.leader {
                self.inner.shared.set_leader(split.sections[at as usize].partition, leader);
            }
        })?;
        match split.fits(&self.plan, at as usize, &answer) {
            Ok(()) => Ok(answer),
            // Another replica may do better; this one is asked last for a while.
            Err(what) => Err(ErrorBody::new(ErrorCode::NotReady, format!("the answer does not fit: {what}"))),
        }
    }
}

fn take<T: Transport>(
    shared: &Shared<T>,
    routes: &Routes,
    machine: &mut MultiGet,
    request: usize,
    outcome: Result<Vec<Result<SectionRows, ErrorBody>>, CallError>,
) {
    let now = shared.now();
    shared.step(routes, |world| match outcome {
        Ok(results) => machine.on_answer(request, results, now, world),
        Err(error) => {
            let failure = match peer_failure(&error) {
                Some(failure) => RequestFailure::Peer(failure),
                None => RequestFailure::Refused(error.to_body()),
            };
            machine.on_failure(request, failure, now, world);
        }
    });
}

fn check_position(position: &Position, map: &ClusterMap) -> Result<(), ReadError> {
    for part in position.parts() {
        let Some(set) = map.set(part.set) else { continue };
        if set.incarnation != part.incarnation && set.partitions.iter().any(|p| p.id == part.partition) {
            return Err(ReadError::PositionLost {
                partition: part.partition,
                given: part.incarnation,
                current: set.incarnation,
            });
        }
    }
    Ok(())
}
