//! Writing: one batch to its partition's leader, found and found again within the deadline.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stoa_env::{BootTime, Peer, Transport, TransportError, planted};
use stoa_protocol::ids::ROOT_PARTITION;
use stoa_protocol::limits::DEADLINE_US_MAX;
use stoa_protocol::message::{Empty, Kind, SessionAnswer, SessionRequest, SessionStep, WriteAnswer, WriteRequest};
use stoa_protocol::{ErrorClass, ErrorCode, FeatureGroup, MapVersion, NodeId, PartitionId, RowBatch, Wire};

use crate::client::{Client, NODE_LIMIT};
use crate::error::{CallError, WriteError};
use crate::leaders::{LeaderSearch, Step};
use crate::retry::Backoff;
use crate::shared::{Shared, WRITES_MAX};

/// What to do when a request's answer is lost, so that it may have been carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnLostAnswer {
    /// Send it again if it is a step of a writer session, which is applied once; else report
    /// [`WriteError::OutcomeUnknown`].
    #[default]
    Report,
    /// Send it again in any case. Right for batches that nobody else's rows can come between: the second application
    /// finds its own event times and changes nothing.
    Resend,
}

/// How a batch is to be written.
#[derive(Debug, Clone, Copy)]
pub struct WriteOptions {
    /// When the result must be known: 5 s by default, up to 60 s.
    pub deadline: Duration,
    /// The batch's place in a writer session, if it is part of one.
    pub step: Option<SessionStep>,
    /// What to do when an answer is lost.
    pub on_lost_answer: OnLostAnswer,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(5), step: None, on_lost_answer: OnLostAnswer::Report }
    }
}

/// How a search for a leader ended without an answer.
pub(crate) struct LeaderFailure {
    pub(crate) last: CallError,
    pub(crate) attempts: u32,
    /// Whether some attempt may have been carried out.
    pub(crate) open: bool,
}

/// A feature group, opened for writing. Cheap to clone.
pub struct Group<T: Transport> {
    pub(crate) client: Client<T>,
    definition: Arc<FeatureGroup>,
}

impl<T: Transport> Clone for Group<T> {
    fn clone(&self) -> Self {
        Self { client: self.client.clone(), definition: self.definition.clone() }
    }
}

impl<T: Transport> Group<T> {
    pub(crate) fn new(client: Client<T>, definition: FeatureGroup) -> Self {
        Self { client, definition: Arc::new(definition) }
    }

    /// The group's definition.
    pub fn definition(&self) -> &FeatureGroup {
        &self.definition
    }
}

impl<T: Transport> Client<T> {
    /// Writes a batch, all of whose keys lie in `partition`; done when it is durable on a quorum and applied on the
    /// leader.
    ///
    /// # Errors
    /// [`WriteError`]; [`WriteError::may_have_happened`] says whether the batch may have been applied.
    pub async fn write(
        &self,
        partition: PartitionId,
        batch: &RowBatch,
        options: &WriteOptions,
    ) -> Result<WriteAnswer, WriteError> {
        let request = WriteRequest { partition, step: options.step, batch: batch.bytes().to_vec() };
        let resend = options.step.is_some() || options.on_lost_answer == OnLostAnswer::Resend;
        self.ask_leader(partition, Kind::Write, &request, options.deadline, resend).await
    }

    /// How far a writer session has come in a partition.
    ///
    /// # Errors
    /// [`WriteError`], never with an unknown outcome.
    pub async fn session(
        &self,
        partition: PartitionId,
        session: u128,
        deadline: Duration,
    ) -> Result<SessionAnswer, WriteError> {
        let request = SessionRequest { partition, session };
        let result = self.ask_leader(partition, Kind::Session, &request, deadline, true).await;
        result.map_err(|error| match error {
            WriteError::OutcomeUnknown { waited, last } => WriteError::NotTaken { waited, attempts: 0, last },
            other => other,
        })
    }

    async fn ask_leader<R: Wire, A: Wire>(
        &self,
        partition: PartitionId,
        kind: Kind,
        request: &R,
        deadline: Duration,
        resend: bool,
    ) -> Result<A, WriteError> {
        if deadline.is_zero() || deadline > Duration::from_micros(DEADLINE_US_MAX) {
            return Err(WriteError::Deadline { given: deadline });
        }
        let shared = &*self.inner.shared;
        let _counted = shared.gauges.writes.take(1).ok_or(WriteError::Overloaded { under_way: WRITES_MAX })?;
        let started = shared.now();
        if replicas(shared, partition).is_empty() {
            let map_version = shared.routes().map().version.0;
            return Err(WriteError::NoPartition { what: format!("no partition {partition}"), map_version });
        }
        let failure = match search_leader(shared, partition, kind, request, started.plus(deadline), resend).await {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        let waited = shared.now().since(started);
        let last = Box::new(failure.last);
        Err(match last.class() {
            _ if failure.open => WriteError::OutcomeUnknown { waited, last },
            ErrorClass::Reject => WriteError::Rejected(last),
            _ => WriteError::NotTaken { waited, attempts: failure.attempts, last },
        })
    }
}

/// Asks the leader of a partition, whoever it is, until the deadline. A request whose outcome is open is sent again only
/// if `resend` says that it may be; else there is nothing to gain by waiting for less than the deadline. A node that is
/// heard and does not answer in time is given twice as long the next time: a slow commit must not make the same batch come
/// again and again.
pub(crate) async fn search_leader<T: Transport, R: Wire, A: Wire>(
    shared: &Shared<T>,
    partition: PartitionId,
    kind: Kind,
    request: &R,
    deadline: BootTime,
    resend: bool,
) -> Result<A, LeaderFailure> {
    let body = shared.body(request);
    let mut search = LeaderSearch::new(shared.leaders().get(&partition).copied());
    let mut backoff = Backoff::default();
    let mut open = false;
    let mut retry_after = Duration::ZERO;
    let mut last = None;
    let mut patience = if resend { NODE_LIMIT } else { deadline.since(shared.now()) };
    while shared.now() < deadline && backoff.attempt() {
        shared.gauges.attempts.note(backoff.attempts().into());
        let step = {
            let known = replicas(shared, partition);
            let nodes = shared.nodes();
            search.next(&known, |node| nodes.peers.is_ejected(node))
        };
        let node = match step {
            Step::Ask(node) => node,
            Step::Pause => {
                let pause = backoff.pause(std::mem::take(&mut retry_after), shared.entropy.next_u64());
                stoa_env::sleep(pause.min(deadline.since(shared.now()))).await;
                continue;
            }
        };
        let routes = shared.routes();
        let Some(to) = routes.peer(node) else {
            // The hint knows a node that the map does not.
            shared.want_map(MapVersion(routes.map().version.0 + 1));
            continue;
        };
        let limit = patience.min(deadline.since(shared.now()));
        let (answer, alive) = call_watched(shared, node, to, kind, &body, limit).await;
        let answer = answer.and_then(|body| {
            A::from_bytes(&body).map_err(|error| CallError::Unfit { from: to.addr, what: error.to_string() })
        });
        let error = match answer {
            Ok(answer) => {
                shared.set_leader(partition, node);
                return Ok(answer);
            }
            Err(error) => error,
        };
        // One that has no room for the request leads all the same.
        if !matches!(error, CallError::Transport(TransportError::NoRoom { .. })) {
            shared.leaders().remove(&partition);
        }
        // A node that is heard is slow; one that is silent may be dead, and is not given more of an election's time.
        if matches!(error, CallError::Transport(TransportError::TimedOut { .. })) && alive {
            patience = patience.saturating_mul(2);
        }
        open |= error.leaves_outcome_open() && !planted!(UnknownIsFailed);
        if let Some(refusal) = error.refusal() {
            if let Some(leader) = refusal.leader {
                search.on_hint(leader);
            }
            if refusal.code == ErrorCode::NotHere {
                shared.want_map(MapVersion(routes.map().version.0 + 1));
            }
            retry_after = retry_after.max(Duration::from_millis(u64::from(refusal.retry_after_ms)));
        }
        let over = error.class() == ErrorClass::Reject || (open && !resend);
        last = Some(error);
        if over {
            break;
        }
    }
    let last = last.unwrap_or_else(|| no_leader(partition));
    Err(LeaderFailure { last, attempts: backoff.attempts(), open })
}

/// Calls a node, and pings it beside the call once half of the limit has gone by without an answer. Returns what came of
/// the call, and whether the node was heard at all: a leader that commits slowly answers pings, a dead one does not.
async fn call_watched<T: Transport>(
    shared: &Shared<T>,
    node: NodeId,
    to: Peer,
    kind: Kind,
    body: &[u8],
    limit: Duration,
) -> (Result<Bytes, CallError>, bool) {
    let mut call = pin!(shared.call_node(node, to, kind, body, limit));
    let mut ping = pin!(async {
        stoa_env::sleep(limit / 2).await;
        let alive = shared.call(to, Kind::Ping, &shared.body(&Empty), limit / 2).await.is_ok();
        if alive {
            let now = shared.now();
            shared.nodes().peers.on_heard(node, now);
        }
        alive
    });
    let mut alive = None;
    loop {
        tokio::select! {
            biased;
            answer = &mut call => return (answer, alive.unwrap_or(false)),
            heard = &mut ping, if alive.is_none() => alive = Some(heard),
        }
    }
}

/// What is said when no node could be asked at all.
fn no_leader(partition: PartitionId) -> CallError {
    let what = format!("no replica of partition {partition} could be asked within the deadline");
    let addr = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
    CallError::Unfit { from: addr, what }
}

/// The replicas of a partition in the order of the map, the preferred leader first.
fn replicas<T: Transport>(shared: &Shared<T>, partition: PartitionId) -> Vec<NodeId> {
    let routes = shared.routes();
    let map = routes.map();
    let of = if partition == ROOT_PARTITION {
        &map.root
    } else {
        let Some(info) = map.partition(partition) else { return Vec::new() };
        &info.replicas
    };
    of.iter().map(|replica| replica.node).filter(|node| map.node(*node).is_some()).collect()
}
