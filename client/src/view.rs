//! Reading a view: the driver of [`MultiGet`] on a transport.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use stoa_env::{BootTime, Transport};
use stoa_protocol::limits::{DEADLINE_US_MAX, READ_DEADLINE_US_DEFAULT};
use stoa_protocol::message::Kind;
use stoa_protocol::{ClusterMap, ErrorBody, ErrorCode, MapVersion, Position, Wire};

use crate::answer::ViewAnswer;
use crate::client::Inner;
use crate::error::{CallError, ReadError};
use crate::multi_get::{Action, MultiGet, RequestFailure};
use crate::plan::ViewPlan;
use crate::routes::Routes;
use crate::rows::Rows;
use crate::section_rows::{SectionRows, parse_answer};
use crate::shared::{Shared, peer_failure};
use crate::split::Split;

/// How a read is to be done.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// When the answer must be there, from the call: 50 ms by default, up to 60 s. What is missing then is
    /// `Unavailable`.
    pub deadline: Duration,
    /// Read nothing older than this: a position from a write or an earlier read.
    pub at_least: Option<Position>,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { deadline: Duration::from_micros(READ_DEADLINE_US_DEFAULT), at_least: None }
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
        let mut maps = shared.watch_routes();
        let mut routes = maps.borrow_and_update().clone();
        if let Some(position) = &options.at_least {
            check_position(position, routes.map())?;
        }
        let split = Split::new(&self.plan, rows, routes.map(), options.at_least.as_ref())?;
        let sections = split.sections.iter().map(|section| (section.partition, section.weight));
        let deadline = started.plus(options.deadline);
        let mut machine = MultiGet::new(sections, deadline);
        let mut in_flight = FuturesUnordered::new();
        shared.step(&routes, |world| machine.start(shared.now(), world));
        loop {
            while let Some(action) = machine.poll_action() {
                match action {
                    Action::Send { request, node, .. } => {
                        let body = self.body(&split, machine.sections_of(request));
                        let asked = machine.sections_of(request).to_vec();
                        in_flight.push(self.send(request, &split, asked, routes.peer(node), body, deadline));
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
                () = tokio::time::sleep(wake.since(now)) => {
                    shared.step(&routes, |world| machine.on_timer(shared.now(), world));
                }
            }
        }
        drop(in_flight);
        let now = shared.now();
        let finished = shared.step(&routes, |world| machine.finish(now, world));
        let (sections, mut stats) =
            finished.map_err(|error| ReadError::Rejected { view: self.plan.name.clone(), error })?;
        stats.elapsed = now.since(started);
        Ok(ViewAnswer::new(self.plan.clone(), split, sections, rows.len(), stats))
    }

    /// The bytes of a [`ReadRequest`](stoa_protocol::message::ReadRequest), without copying its sections first.
    fn body(&self, split: &Split, sections: &[u32]) -> Vec<u8> {
        let bytes = sections.iter().map(|&at| split.sections[at as usize].weight.request_bytes).sum::<usize>();
        let mut body = Vec::with_capacity(bytes + 256);
        self.inner.shared.caller.put(&mut body);
        (sections.len() as u32).put(&mut body);
        sections.iter().for_each(|&at| split.put_section(&self.plan, at as usize, &mut body));
        body
    }

    async fn send(
        &self,
        request: usize,
        split: &Split,
        asked: Vec<u32>,
        to: Option<stoa_env::Peer>,
        body: Vec<u8>,
        deadline: BootTime,
    ) -> Outcome {
        let shared = &*self.inner.shared;
        let to = to.expect("routes name nodes of their own map alone");
        let limit = deadline.since(shared.now());
        // A node that has not applied a position waits for it, with all sections of the request. Half of the time is left
        // to ask another one.
        let waits = asked.iter().any(|&at| split.sections[at as usize].at_least.0 > 0);
        let remaining = waits.then_some(limit / 2);
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
        let answer = result?;
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
