//! Frames in, frames out: who may ask what, and which part of the node answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use stoa_env::{Bounds, Channel, Disk, Gauge, Handler, PeerIdentity, Taken, Transport};
use stoa_protocol::codec::Wire;
use stoa_protocol::frame::{FRAME_HEADER_BYTES, FrameError, FrameHeader, FramedBody, decode_frame, seal_frame};
use stoa_protocol::limits::FRAME_BYTES_MAX;
use stoa_protocol::message::{
    ANSWER, ApplyRequest, BarrierRequest, Caller, DigestRequest, Empty, GroupRequest, HelloRequest, JoinRequest,
    KIND_ERROR, Kind, MoveReport, NodeStatus, PlacementRequest, SessionRequest, SpareRequest, ViewRequest,
    WatchRequest, WitnessRequest, WriteRequest, decode_request,
};
use stoa_protocol::read::{ReadLevel, ReadRequest};
use stoa_protocol::{ClusterId, ErrorBody, ErrorCode, MapVersion, NodeId, ROOT_PARTITION};
use stoa_raft::root::RootCommand;
use stoa_raft::root::catalog::{find_group, find_view};
use stoa_raft::root::command::Definitions;
use stoa_raft::{NODE_BYTES_MAX, RaftAnswer, RaftCall, open_envelope, open_message, seal};

use super::Node;
use super::writes::check_json_defaults;

/// Requests of clients that this node answers at once, over all connections. A read that waits for nothing takes some
/// hundred microseconds, so that so many are there only if they wait: for other nodes, for a commit, for a device. Each
/// holds some KiB beside its bytes. More are refused with `Overloaded`.
const REQUESTS_MAX: u64 = 16_384;

/// Their bytes. A connection may bring 256 requests of 8 MiB, and there may be thousands of connections; twice what
/// proposals may hold is enough for every write that has a place among them and for as many bytes of reads.
const REQUEST_BYTES_MAX: u64 = 2 * NODE_BYTES_MAX as u64;

/// How long a caller that was refused should pause: some answers of those that wait.
const OVERLOADED_PAUSE_MS: u32 = 5;

/// Requests of clients that wait until this node's copy of the catalog is as new as what they have heard of. A client may
/// claim to have heard of anything; those that wait for what never comes must not take the places of reads and writes.
const BEHIND_MAX: u64 = 1_024;

/// What each may hold: it names a view or a group at the most.
const CATALOG_REQUEST_BYTES_MAX: usize = 64 << 10;

/// How long they wait. Copies of the catalog are milliseconds old; a version that has not come by then may not exist.
const BEHIND_LIMIT: Duration = Duration::from_secs(2);

const _: () = assert!(FRAME_BYTES_MAX as u64 <= REQUEST_BYTES_MAX, "the largest request must fit");

/// Counts the requests of clients that are being answered, and refuses those beyond the bounds.
#[derive(Debug)]
pub(crate) struct ClientRequests {
    answered: (Gauge, Gauge),
    behind: Gauge,
}

impl ClientRequests {
    pub(crate) fn new(bounds: &Bounds) -> Self {
        let gauge = |name, bound| bounds.node_gauge(name, bound);
        Self {
            answered: (
                gauge("requests of clients", REQUESTS_MAX),
                gauge("bytes of requests of clients", REQUEST_BYTES_MAX),
            ),
            behind: gauge("requests of clients that wait for the catalog", BEHIND_MAX),
        }
    }

    /// A place for a request of so many bytes until what is returned is dropped.
    fn take(&self, bytes: usize) -> Result<(Taken<'_>, Taken<'_>), ErrorBody> {
        let (count, sum) = &self.answered;
        let what = "requests of clients that it answers";
        Ok((
            count.take(1).ok_or_else(|| overloaded(&format!("{REQUESTS_MAX} {what}")))?,
            sum.take(bytes as u64).ok_or_else(|| overloaded(&format!("{REQUEST_BYTES_MAX} bytes of {what}")))?,
        ))
    }

    /// A place for one that waits for the catalog.
    fn take_behind(&self) -> Result<Taken<'_>, ErrorBody> {
        let full = || overloaded(&format!("{BEHIND_MAX} requests of clients that wait for its copy of the catalog"));
        self.behind.take(1).ok_or_else(full)
    }
}

fn overloaded(what: &str) -> ErrorBody {
    let message = format!("this node has {what}, which is as much as it takes at once; pause and ask again");
    ErrorBody { retry_after_ms: OVERLOADED_PAUSE_MS, ..ErrorBody::new(ErrorCode::Overloaded, message) }
}

impl<D: Disk, T: Transport> Handler for Node<D, T> {
    async fn handle(self: Arc<Self>, from: Arc<PeerIdentity>, _channel: Channel, request: Bytes) -> Bytes {
        self.handle_frame(&from, request).await
    }
}

impl<D: Disk, T: Transport> Node<D, T> {
    /// Answers one frame. Bytes that are no frame get no answer.
    pub async fn handle_frame(self: &Arc<Self>, from: &PeerIdentity, request: Bytes) -> Bytes {
        let (header, body) = match decode_frame(&request) {
            Ok(parts) => parts,
            Err(FrameError::NotAFrame | FrameError::Damaged(_)) => return Bytes::new(),
            Err(error) => {
                let code = match error {
                    FrameError::Version { .. } => ErrorCode::WrongVersion,
                    _ => ErrorCode::BadRequest,
                };
                return self.error_frame(0, ErrorBody::new(code, error.to_string()));
            }
        };
        match self.answer(from, &header, body).await {
            Ok(answer) if answer.len() + FRAME_HEADER_BYTES > FRAME_BYTES_MAX => {
                let message =
                    format!("the answer of {} bytes is over the limit of a frame; ask for less", answer.len());
                self.error_frame(header.request_id, ErrorBody::new(ErrorCode::TooLarge, message))
            }
            Ok(answer) => self.frame(header.kind | ANSWER, header.request_id, answer),
            Err(error) => self.error_frame(header.request_id, error),
        }
    }

    fn error_frame(&self, request_id: u64, error: ErrorBody) -> Bytes {
        let error = ErrorBody { map_version: self.map_version(), ..error };
        self.frame(KIND_ERROR, request_id, error.to_bytes()[..].into())
    }

    fn frame(&self, kind: u16, request_id: u64, body: FramedBody) -> Bytes {
        let header = FrameHeader {
            kind,
            request_id,
            cluster: self.options.cluster,
            map_version: self.map_version(),
            remaining_us: 0,
        };
        seal_frame(&header, body)
    }

    async fn answer(
        self: &Arc<Self>,
        from: &PeerIdentity,
        header: &FrameHeader,
        body: Bytes,
    ) -> Result<FramedBody, ErrorBody> {
        let Some(kind) = Kind::from_number(header.kind) else {
            return Err(ErrorBody::new(ErrorCode::BadRequest, format!("there is no request of kind {}", header.kind)));
        };
        let first_contact = header.cluster == ClusterId(0) && matches!(kind, Kind::Map | Kind::Ping);
        if header.cluster != self.options.cluster && !first_contact {
            let message =
                format!("the request is for cluster {}, and this is {}", header.cluster, self.options.cluster);
            return Err(ErrorBody::new(ErrorCode::WrongCluster, message));
        }
        let limit = Duration::from_micros(header.remaining_us);
        // Pings tell whether a node is there, and are answered at once; other nodes come by few connections, which bound
        // what they can cost, and nobody is served without them.
        let counted = matches!(from, PeerIdentity::Client(_)) && kind != Kind::Ping;
        if matches!(kind, Kind::Map | Kind::View | Kind::Group) && self.map_version() < header.map_version {
            if body.len() > CATALOG_REQUEST_BYTES_MAX {
                let message = format!(
                    "a request of {} bytes; one for the catalog has up to {CATALOG_REQUEST_BYTES_MAX}",
                    body.len()
                );
                return Err(ErrorBody::new(ErrorCode::TooLarge, message));
            }
            let _place = counted.then(|| self.requests.take_behind()).transpose()?;
            self.wait_version(header.map_version, limit.min(BEHIND_LIMIT)).await?;
        }
        let _place = counted.then(|| self.requests.take(body.len())).transpose()?;
        match kind {
            Kind::Raft
            | Kind::Join
            | Kind::Watch
            | Kind::Barrier
            | Kind::Hello
            | Kind::Move
            | Kind::Witness
            | Kind::Spare
            | Kind::Clock => {
                let PeerIdentity::Node(id) = from else {
                    return Err(ErrorBody::new(
                        ErrorCode::Forbidden,
                        format!("{kind:?} is for nodes of the cluster alone"),
                    ));
                };
                self.answer_node(*id, kind, body, limit).await.map(|body| body[..].into())
            }
            _ => self.answer_client(from, kind, body, limit).await,
        }
    }

    /// Waits until this node's copy of the catalog is as new as what the caller has heard of: what one node has accepted,
    /// another must not deny.
    async fn wait_version(&self, version: MapVersion, limit: Duration) -> Result<(), ErrorBody> {
        let mut watch = self.state.subscribe();
        let waited = stoa_env::timeout(limit, watch.wait_for(|state| state.map.version >= version)).await;
        match waited {
            Ok(Ok(_)) => Ok(()),
            _ => {
                let message = format!(
                    "node {} has version {} of the catalog, and the caller has heard of {version}",
                    self.info.id,
                    self.map_version()
                );
                Err(ErrorBody::new(ErrorCode::NotReady, message))
            }
        }
    }

    async fn answer_node(&self, from: u64, kind: Kind, body: Bytes, limit: Duration) -> Result<Vec<u8>, ErrorBody> {
        match kind {
            Kind::Raft => self.answer_raft(from, body).await,
            Kind::Join => {
                let (_, request) = decode_request::<JoinRequest>(&body)?;
                if request.node.id.0 != from {
                    let message = format!("node {from} cannot join as node {}", request.node.id);
                    return Err(ErrorBody::new(ErrorCode::Forbidden, message));
                }
                self.take_join(&request, limit).await.map(|bytes| bytes.to_vec())
            }
            Kind::Watch => {
                let (_, request) = decode_request::<WatchRequest>(&body)?;
                Ok(self.watch_state(request, limit).await.to_vec())
            }
            Kind::Barrier => {
                let (_, request) = decode_request::<BarrierRequest>(&body)?;
                self.check_known(request.by)?;
                Ok(self.barriers(&request, limit).await.to_bytes())
            }
            Kind::Move => {
                let (_, report) = decode_request::<MoveReport>(&body)?;
                self.take_report(&report).await.map(|bytes| bytes.to_vec())
            }
            Kind::Witness => {
                let (_, request) = decode_request::<WitnessRequest>(&body)?;
                Ok(self.bear_witness(NodeId(from), &request).to_bytes())
            }
            Kind::Clock => {
                let (_, Empty) = decode_request(&body)?;
                Ok(self.tell_clock().to_bytes())
            }
            Kind::Spare => {
                let (_, request) = decode_request::<SpareRequest>(&body)?;
                let Some(hosted) = self.hosted(request.partition) else {
                    let message = format!("node {} has no replica of partition {}", self.info.id, request.partition);
                    return Err(ErrorBody::new(ErrorCode::NotHere, message));
                };
                hosted.replica.can_spare(request.replica, limit).await.map(|()| Vec::new())
            }
            _ => {
                let (_, request) = decode_request::<HelloRequest>(&body)?;
                self.hello(&request).map(|answer| answer.to_bytes())
            }
        }
    }

    async fn answer_raft(&self, from: u64, body: Bytes) -> Result<Vec<u8>, ErrorBody> {
        let (envelope, message) = open_envelope(&body)?;
        let call: RaftCall = open_message(&message)?;
        let back = stoa_raft::Envelope { to: envelope.from, from: envelope.to, partition: envelope.partition };
        let refused = |why: String| {
            tracing::debug!(from, partition = envelope.partition.0, why, "a Raft message was refused");
            Ok(seal(&back, &RaftAnswer::Refused(why)))
        };
        if !self.is_vouched_by(NodeId(from)) {
            return refused(format!("node {from} has not vouched for the data directory of node {} yet", self.info.id));
        }
        // A message for another life of this replica must change nothing here.
        let answer = if envelope.partition == ROOT_PARTITION {
            match self.root_replica() {
                Some(root) if root.id() == envelope.to => root.handle(call).await,
                _ => return refused(format!("node {} has no root replica {}", self.info.id, envelope.to)),
            }
        } else {
            match self.hosted(envelope.partition) {
                Some(hosted) if hosted.replica.id() == envelope.to => {
                    let answer = hosted.replica.handle(call).await;
                    if answer.is_followed() {
                        hosted.followed.store(self.env.context.clock.boot().0, Ordering::Relaxed);
                    }
                    answer
                }
                _ => return refused(format!("node {} has no replica {} of it", self.info.id, envelope.to)),
            }
        };
        Ok(seal(&back, &answer))
    }

    async fn answer_client(
        self: &Arc<Self>,
        from: &PeerIdentity,
        kind: Kind,
        body: Bytes,
        limit: Duration,
    ) -> Result<FramedBody, ErrorBody> {
        let check = |caller: &Caller| check_caller(from, caller);
        let state = self.state();
        let answer = match kind {
            Kind::Read => {
                let (caller, request) = decode_request::<ReadRequest>(&body)?;
                check(&caller)?;
                if let ReadLevel::Linearizable { by } = request.level {
                    self.check_known(by)?;
                }
                return Ok(self.read(&request, limit).await);
            }
            Kind::Ping => Ok(Vec::new()),
            Kind::Map => {
                let (caller, Empty) = decode_request(&body)?;
                check(&caller)?;
                if state.map.sets.is_empty() {
                    let mut message =
                        "the cluster has not been formed yet: its first members have not all met, or fewer \
                                       nodes have joined than bootstrap.nodes says"
                            .to_owned();
                    if let Some(trouble) = self.neighbours.trouble() {
                        message += &format!("; and {trouble}");
                    }
                    return Err(ErrorBody { retry_after_ms: 100, ..ErrorBody::new(ErrorCode::NotFormed, message) });
                }
                Ok(state.map.to_bytes())
            }
            Kind::View => {
                let (caller, request) = decode_request::<ViewRequest>(&body)?;
                check(&caller)?;
                find_view(&state, &request.project, &request.name, request.version).map(|answer| answer.to_bytes())
            }
            Kind::Group => {
                let (caller, request) = decode_request::<GroupRequest>(&body)?;
                check(&caller)?;
                find_group(&state, &request.project, &request.name, request.version).map(Wire::to_bytes)
            }
            Kind::Write => {
                let (caller, request) = decode_request::<WriteRequest>(&body)?;
                check(&caller)?;
                self.write(request, limit).await.map(|answer| answer.to_bytes())
            }
            Kind::Session => {
                let (caller, request) = decode_request::<SessionRequest>(&body)?;
                check(&caller)?;
                self.session(request, limit).await.map(|answer| answer.to_bytes())
            }
            Kind::Apply => {
                let (caller, request) = decode_request::<ApplyRequest>(&body)?;
                check(&caller)?;
                self.define(request, limit).await
            }
            Kind::Status => {
                let (caller, Empty) = decode_request(&body)?;
                check(&caller)?;
                Ok(self.status().to_bytes())
            }
            Kind::Memory => {
                let (caller, Empty) = decode_request(&body)?;
                check(&caller)?;
                Ok(self.memory().to_bytes())
            }
            Kind::Placement => {
                let (caller, request) = decode_request::<PlacementRequest>(&body)?;
                check(&caller)?;
                self.place(request, limit).await.map(|bytes| bytes.to_vec())
            }
            Kind::Digest => {
                let (caller, request) = decode_request::<DigestRequest>(&body)?;
                check(&caller)?;
                match self.hosted(request.partition) {
                    Some(hosted) => Ok(hosted.view.digest().to_bytes()),
                    None => {
                        let message =
                            format!("node {} has no replica of partition {}", self.info.id, request.partition);
                        Err(ErrorBody::new(ErrorCode::NotHere, message))
                    }
                }
            }
            Kind::Raft
            | Kind::Join
            | Kind::Watch
            | Kind::Barrier
            | Kind::Hello
            | Kind::Move
            | Kind::Witness
            | Kind::Spare
            | Kind::Clock => {
                unreachable!("answered before, with the proof that a node asks")
            }
        };
        answer.map(|body| body[..].into())
    }

    /// Takes definitions into the catalog, and answers once this node's copy has them.
    async fn define(&self, request: ApplyRequest, limit: Duration) -> Result<Vec<u8>, ErrorBody> {
        check_json_defaults(&request.definitions)?;
        let command = RootCommand::Define(Definitions { definitions: request.definitions });
        let answer = self.propose_to_root(command, limit).await.map_err(|error| self.hint_root(error))?;
        Ok(answer.to_vec())
    }

    /// For how long a follower may be without a leader before that is worth a word: twice the time that an election takes.
    fn alone_max(&self) -> Duration {
        (self.options.timing.lease() + self.options.timing.election_max) * 2
    }

    /// What this node knows of itself.
    pub fn status(&self) -> NodeStatus {
        let state = self.state();
        let mut replicas = Vec::new();
        if let Some(root) = self.root_replica() {
            root.set_caught_up();
            replicas.push(root.status());
        }
        for hosted in self.all_hosted() {
            let reader = hosted.view.reader();
            let mut status = hosted.replica.status();
            status.rows = reader.rows();
            status.bytes = reader.memory().total;
            let alone = hosted.alone_for(self.env.context.clock.boot());
            let unheard = hosted.replica.quorum_acked().map(|at| self.env.context.clock.boot().since(at));
            if let Some(unheard) = unheard.filter(|unheard| status.trouble.is_empty() && *unheard > self.alone_max()) {
                status.trouble = format!(
                    "leads, and has heard from no quorum for {} s; it takes no writes, and what it serves may be that old",
                    unheard.as_secs()
                );
            }
            if status.trouble.is_empty() && alone > self.alone_max() {
                status.trouble = format!(
                    "has heard from no leader for {} s; it serves reads, and what it serves may be that old",
                    alone.as_secs()
                );
            }
            replicas.push(status);
        }
        if let Some(doubt) = self.neighbours.trouble() {
            // Whatever a replica says of itself, it is not of the cluster that its neighbours are of.
            replicas.iter_mut().for_each(|replica| replica.trouble.clone_from(&doubt));
        }
        for (partition, failure) in self.failures.lock().unwrap_or_else(|e| e.into_inner()).iter() {
            replicas.push(failed_status(*partition, failure.why.clone()));
        }
        if let Some(why) = self.refused.lock().unwrap_or_else(|e| e.into_inner()).clone() {
            replicas.push(failed_status(ROOT_PARTITION, why));
        }
        NodeStatus {
            node: self.info.clone(),
            build: env!("CARGO_PKG_VERSION").into(),
            map_version: state.map.version,
            cluster_version: state.cluster_version,
            replicas,
            moves: state.moves.clone(),
        }
    }
}

fn failed_status(partition: stoa_protocol::PartitionId, trouble: String) -> stoa_protocol::message::ReplicaStatus {
    let zero = stoa_protocol::LogIndex(0);
    stoa_protocol::message::ReplicaStatus {
        partition,
        leader: None,
        term: 0,
        last: zero,
        committed: zero,
        applied: zero,
        rows: 0,
        bytes: 0,
        trouble,
    }
}

/// A caller speaks for itself; nodes may speak for anybody.
fn check_caller(from: &PeerIdentity, caller: &Caller) -> Result<(), ErrorBody> {
    match from {
        PeerIdentity::Client(principal) if !caller.principal.is_empty() && caller.principal != *principal => {
            let message =
                format!("the certificate is {principal}'s, and the request says it is from {}", caller.principal);
            Err(ErrorBody::new(ErrorCode::Forbidden, message))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_clients_are_bounded_by_number_and_bytes() {
        let bounds = Bounds::default();
        let requests = ClientRequests::new(&bounds);
        let large = requests.take(REQUEST_BYTES_MAX as usize).unwrap();
        let refused = requests.take(1).unwrap_err();
        assert_eq!((refused.code, refused.retry_after_ms), (ErrorCode::Overloaded, OVERLOADED_PAUSE_MS));
        assert!(refused.message.contains("bytes"), "{refused}");
        drop(large);
        let all: Vec<_> = (0..REQUESTS_MAX).map(|_| requests.take(1).unwrap()).collect();
        let refused = requests.take(0).unwrap_err();
        assert!(refused.message.contains("16384 requests"), "{refused}");
        let behind: Vec<_> = (0..BEHIND_MAX).map(|_| requests.take_behind().unwrap()).collect();
        let refused = requests.take_behind().unwrap_err();
        assert!(refused.message.contains("1024 requests of clients that wait"), "{refused}");
        drop((all, behind));
        requests.take(1).unwrap();
        assert!(bounds.table().iter().all(|bounded| bounded.high == bounded.bound), "{:?}", bounds.table());
    }
}
