//! Administrative calls.

use std::net::SocketAddr;
use std::time::Duration;

use stoa_env::{Peer, Transport};
use stoa_protocol::catalog::Definition;
use stoa_protocol::ids::ROOT_PARTITION;
use stoa_protocol::limits::DEADLINE_US_MAX;
use stoa_protocol::message::{
    AbortMove, ApplyAnswer, ApplyRequest, DigestAnswer, DigestRequest, Empty, Kind, NodeMemory, NodeStatus,
    PlacementAnswer, PlacementRequest, ReplaceNode, ReplaceReplica,
};
use stoa_protocol::{ClusterMap, ErrorClass, NodeId, PartitionId, Wire};

use crate::client::{Client, check_map};
use crate::error::{AdminError, CallError};
use crate::writer::search_leader;

impl<T: Transport> Client<T> {
    /// Has the catalog take definitions, all or none. Those that stand there already, the same, are left alone, so a
    /// lost answer is no harm: the call is repeated.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn apply(&self, definitions: Vec<Definition>, deadline: Duration) -> Result<ApplyAnswer, AdminError> {
        check_deadline(deadline)?;
        let shared = &*self.inner.shared;
        let started = shared.now();
        let request = ApplyRequest { definitions };
        let result = search_leader(shared, ROOT_PARTITION, Kind::Apply, &request, started.plus(deadline), true).await;
        let answer: ApplyAnswer = result.map_err(|failure| {
            let waited = shared.now().since(started);
            failed("the definition", failure.last, waited, failure.attempts)
        })?;
        // What the caller does next may need the map that goes with the definitions.
        shared.hear_of_map(answer.version);
        Ok(answer)
    }

    /// Has a replica of a partition replaced by a new one on a node of the same zone, or on its own node by one that is
    /// built anew. Answers once the root group has taken it; the move goes on by itself. The same call again changes
    /// nothing.
    ///
    /// # Errors
    /// [`AdminError`]: rejected if there is no such partition, replica or node, the zone is another one, or a move of the
    /// partition is under way.
    pub async fn replace_replica(
        &self,
        asked: ReplaceReplica,
        deadline: Duration,
    ) -> Result<PlacementAnswer, AdminError> {
        self.place("the replacement of a replica", PlacementRequest::Replica(asked), deadline).await
    }

    /// Gives up the data of a node: all its replicas are built anew by the next data directory that comes with its number.
    ///
    /// # Errors
    /// [`AdminError`]: rejected if there is no such node, if it has another data directory by now, or if what was lost with
    /// another node is not whole again.
    pub async fn replace_node(&self, asked: ReplaceNode, deadline: Duration) -> Result<PlacementAnswer, AdminError> {
        self.place("the replacement of a node's replicas", PlacementRequest::Node(asked), deadline).await
    }

    /// Gives up a move that has not begun to change voters.
    ///
    /// # Errors
    /// [`AdminError`]: rejected if there is no such move, or if it has come too far.
    pub async fn abort_move(&self, asked: AbortMove, deadline: Duration) -> Result<PlacementAnswer, AdminError> {
        self.place("the end of a move", PlacementRequest::Abort(asked), deadline).await
    }

    async fn place(
        &self,
        what: &'static str,
        request: PlacementRequest,
        deadline: Duration,
    ) -> Result<PlacementAnswer, AdminError> {
        check_deadline(deadline)?;
        let shared = &*self.inner.shared;
        let started = shared.now();
        let end = started.plus(deadline);
        let result = search_leader(shared, ROOT_PARTITION, Kind::Placement, &request, end, true).await;
        let answer: PlacementAnswer =
            result.map_err(|failure| failed(what, failure.last, shared.now().since(started), failure.attempts))?;
        shared.hear_of_map(answer.version);
        Ok(answer)
    }

    /// What a node of the map knows of itself.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn status(&self, node: NodeId, deadline: Duration) -> Result<NodeStatus, AdminError> {
        let to = self.peer(node)?;
        self.ask("the status", to, Kind::Status, &Empty, deadline).await
    }

    /// What the node at an address knows of itself, be it in the map or not.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn status_at(&self, addr: SocketAddr, deadline: Duration) -> Result<NodeStatus, AdminError> {
        self.ask("the status", Peer { addr, node: None }, Kind::Status, &Empty, deadline).await
    }

    /// What a node's memory is used for, by group.
    ///
    /// # Errors
    /// [`AdminError`]: rejected by a node of an earlier version, which does not know the question.
    pub async fn memory(&self, node: NodeId, deadline: Duration) -> Result<NodeMemory, AdminError> {
        let to = self.peer(node)?;
        self.ask("what memory is used for", to, Kind::Memory, &Empty, deadline).await
    }

    /// The logical digests of a node's replica of a partition.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn digest(
        &self,
        node: NodeId,
        partition: PartitionId,
        deadline: Duration,
    ) -> Result<DigestAnswer, AdminError> {
        let to = self.peer(node)?;
        self.ask("the digest", to, Kind::Digest, &DigestRequest { partition }, deadline).await
    }

    /// The map as a node has it now; the client goes by it from then on if it is newer.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn fetch_map(&self, node: NodeId, deadline: Duration) -> Result<ClusterMap, AdminError> {
        check_deadline(deadline)?;
        let to = self.peer(node)?;
        let shared = &*self.inner.shared;
        let body = shared.body(&Empty);
        let result = shared.call_node(node, to, Kind::Map, &body, deadline).await;
        let map = result
            .and_then(|body| check_map(to.addr, shared.routes().map().cluster, &body))
            .map_err(|error| failed("the map", error, deadline, 1))?;
        shared.take_map(map.clone());
        Ok(map)
    }

    fn peer(&self, node: NodeId) -> Result<Peer, AdminError> {
        let routes = self.inner.shared.routes();
        let known = || routes.map().nodes.iter().map(|info| info.id).collect();
        routes.peer(node).ok_or_else(|| AdminError::NoNode { node, known: known() })
    }

    async fn ask<R: Wire, A: Wire>(
        &self,
        what: &'static str,
        to: Peer,
        kind: Kind,
        request: &R,
        deadline: Duration,
    ) -> Result<A, AdminError> {
        check_deadline(deadline)?;
        let shared = &*self.inner.shared;
        let started = shared.now();
        let result = shared.call(to, kind, &shared.body(request), deadline).await;
        let answer = result.and_then(|(_, body)| {
            A::from_bytes(&body).map_err(|error| CallError::Unfit { from: to.addr, what: error.to_string() })
        });
        answer.map_err(|error| failed(what, error, shared.now().since(started), 1))
    }
}

fn check_deadline(given: Duration) -> Result<(), AdminError> {
    let fits = !given.is_zero() && given <= Duration::from_micros(DEADLINE_US_MAX);
    if fits { Ok(()) } else { Err(AdminError::Deadline { given }) }
}

fn failed(what: &'static str, error: CallError, waited: Duration, attempts: u32) -> AdminError {
    match error.class() {
        ErrorClass::Reject => AdminError::Rejected { what, error: error.into() },
        _ => AdminError::NotDone { what, waited, attempts, last: error.into() },
    }
}
