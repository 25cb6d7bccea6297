//! How a cluster comes to be, and how a node becomes part of it.
//!
//! Forming, once in a cluster's life:
//! 1. Every first member starts an empty root replica whose number is its own incarnation. It does nothing by itself.
//! 2. The first member with the lowest number asks the two others who they are. If one of them knows of a cluster that
//!    was formed without it, it stops: its data is gone.
//! 3. It forms the root group of the three incarnations; whoever is elected writes down who they are.
//! 4. When the expected nodes have joined, the root leader makes the default partition set.
//!
//! A crash at any point is safe: forming again with other incarnations is refused by Raft and by the root state.

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use stoa_env::{Channel, Disk, Transport};
use stoa_protocol::codec::{Reader, Wire};
use stoa_protocol::limits::FRAME_BYTES_MAX;
use stoa_protocol::map::{NodeInfo, ReplicaInfo};
use stoa_protocol::message::{Caller, HelloAnswer, HelloRequest, JoinRequest, Kind, WatchRequest, encode_request};
use stoa_protocol::{ClusterId, ErrorBody, ErrorCode, NodeId, ReplicaId};
use stoa_raft::CallError;
use stoa_raft::root::command::{CreateSet, Form};
use stoa_raft::root::state::SPOKEN_VERSIONS;
use stoa_raft::root::{RootCommand, RootState};

use super::identity::write_whole;
use super::{LOOP_PAUSE, NODE_CALL_LIMIT, Node, NodeError};

/// The file with the node's copy of the root state: what it works from when the root group is down.
const STATE_FILE: &str = "root-state";
const STATE_MAGIC: &[u8; 8] = b"STOARS01";

/// How long a watch waits at the root node for something new.
pub(crate) const WATCH_LIMIT: Duration = Duration::from_secs(1);

/// The name of the set that projects share unless they have one of their own.
pub const DEFAULT_SET: &str = "shared";

/// Reads the copy of the root state; a missing one is that of a cluster not formed yet. A damaged one is thrown away: it
/// is a copy.
pub(crate) async fn load_state<D: Disk>(disk: &D, cluster: ClusterId) -> Result<RootState, NodeError> {
    let bytes = match disk.read(Path::new(STATE_FILE), FRAME_BYTES_MAX * 8).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(RootState::new(cluster)),
        Err(source) => return Err(NodeError::Io { doing: format!("reading {STATE_FILE}"), source }),
    };
    let parse = || {
        let (body, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        let body = (crc32fast::hash(body).to_le_bytes() == crc).then_some(body)?;
        let mut input = Reader::new(body.strip_prefix(STATE_MAGIC)?);
        let state = RootState::get(&mut input).ok()?;
        (input.finish().is_ok() && state.map.cluster == cluster).then_some(state)
    };
    Ok(parse().unwrap_or_else(|| {
        tracing::warn!("the copy of the root state is damaged and is fetched again");
        RootState::new(cluster)
    }))
}

impl<D: Disk, T: Transport> Node<D, T> {
    /// Takes a newer root state: addresses first, then the copy on disk, then everybody who watches.
    pub(crate) async fn take_state(&self, state: Arc<RootState>) {
        if state.map.version <= self.map_version() {
            return;
        }
        state.map.nodes.iter().filter(|n| n.id != self.info.id).for_each(|n| self.env.peers.learn(n.id, n.addr));
        let mut bytes = STATE_MAGIC.to_vec();
        state.put(&mut bytes);
        crc32fast::hash(&bytes).put(&mut bytes);
        if let Err(error) = write_whole(&self.env.disk, STATE_FILE, bytes).await {
            // The copy is a convenience for the next start; the node goes on with what it has in memory.
            tracing::warn!(%error, "the copy of the root state could not be written");
        }
        self.state.send_if_modified(|known| {
            let newer = state.map.version > known.map.version;
            if newer {
                *known = state;
            }
            newer
        });
    }

    /// Puts a command to the root group: here if this node leads it, else at the node that does.
    pub(crate) async fn propose_to_root(&self, command: RootCommand, limit: Duration) -> Result<Bytes, ErrorBody> {
        let Some(root) = self.root_replica() else {
            return Err(ErrorBody::new(ErrorCode::NotLeader, "this node has no replica of the root group"));
        };
        let reply = root.propose(command.to_bytes().into(), limit).await?;
        reply.outcome.unwrap_or(Ok(Bytes::new()))
    }

    /// The nodes to ask about the root group: the known leader first, then this zone's, then the others.
    pub(crate) fn root_nodes(&self) -> Vec<NodeId> {
        let state = self.state();
        let mut nodes: Vec<NodeId> = match state.map.root.is_empty() {
            true => self.options.root.iter().map(|member| member.node).collect(),
            false => state.map.root.iter().map(|replica| replica.node).collect(),
        };
        let zone_of = |id: &NodeId| {
            let known = state.map.node(*id).map(|n| n.zone.clone());
            known.or_else(|| self.options.root.iter().find(|m| m.node == *id).map(|m| m.zone.clone()))
        };
        nodes.sort_by_key(|id| zone_of(id).as_deref() != Some(self.info.zone.as_str()));
        if let Some(leader) = self.root_replica().and_then(|root| root.leader()) {
            nodes.sort_by_key(|id| *id != leader);
        }
        nodes
    }

    /// Answers a greeting.
    pub(crate) fn hello(&self, _request: &HelloRequest) -> HelloAnswer {
        let state = self.state();
        let mut formed = state.map.root.clone();
        if formed.is_empty() {
            // Formed, but not written down yet.
            let voters = self.root_replica().map(|root| root.voters()).unwrap_or_default();
            formed = voters.into_iter().map(|(id, node)| ReplicaInfo { id, node }).collect();
        }
        HelloAnswer { node: self.info.clone(), formed }
    }

    async fn greet(&self, node: NodeId) -> Result<HelloAnswer, CallError> {
        let body = encode_request(&Caller::default(), &HelloRequest { node: self.info.clone() });
        let answer = self.env.peers.call(node, Channel::Liveness, Kind::Hello, &body, NODE_CALL_LIMIT).await?;
        HelloAnswer::from_bytes(&answer).map_err(|e| CallError::BadAnswer { node, why: e.to_string() })
    }
}

/// Forms the cluster, makes its default set. Runs on every first member; ends when the default set exists.
pub(crate) async fn form<D: Disk, T: Transport>(node: Weak<Node<D, T>>) {
    loop {
        let Some(strong) = node.upgrade() else { return };
        if !strong.state().map.sets.is_empty() {
            return;
        }
        if let Err(why) = form_step(&strong).await {
            tracing::debug!(why, "the cluster is not formed yet");
        }
        drop(strong);
        tokio::time::sleep(LOOP_PAUSE).await;
    }
}

async fn form_step<D: Disk, T: Transport>(node: &Arc<Node<D, T>>) -> Result<(), String> {
    let root = node.root_replica().ok_or("no root replica here")?;
    let first = node.options.root.iter().map(|m| m.node).min() == Some(node.info.id);
    let state = node.state();
    if first && !root.is_formed().await {
        let infos = node.greet_members().await?;
        let members: Vec<(ReplicaId, NodeId)> = infos.iter().map(|i| (ReplicaId(i.incarnation), i.id)).collect();
        return root.form(&members).await.map_err(|e| e.to_string());
    }
    if !root.leads() {
        return Ok(());
    }
    if state.map.root.is_empty() {
        // Whoever was elected first writes down who the members are: those of the group, and no others.
        let infos = node.greet_members().await?;
        let replicas: Vec<ReplicaInfo> =
            infos.iter().map(|info| ReplicaInfo { id: ReplicaId(info.incarnation), node: info.id }).collect();
        let voters = root.voters();
        if !replicas.iter().all(|replica| voters.contains(&(replica.id, replica.node))) {
            return Err("a member is not the one that the group was formed of".into());
        }
        let form = RootCommand::Form(Form { replicas, nodes: infos });
        node.propose_to_root(form, NODE_CALL_LIMIT).await.map_err(|e| e.to_string())?;
    }
    let enough = state.map.nodes.len() >= node.options.nodes_expected as usize && state.zones().len() >= 3;
    if enough && !state.map.root.is_empty() {
        let seed = node.env.context.entropy.next_u64();
        let create = CreateSet { name: DEFAULT_SET.into(), partitions: node.options.partitions, seed };
        node.propose_to_root(RootCommand::CreateSet(create), NODE_CALL_LIMIT).await.map_err(|e| e.to_string())?;
    }
    Ok(())
}

impl<D: Disk, T: Transport> Node<D, T> {
    /// Asks all first members who they are. Stops this node if one of them knows a cluster that was formed without it.
    async fn greet_members(&self) -> Result<Vec<NodeInfo>, String> {
        let mut infos = vec![self.info.clone()];
        for member in self.options.root.iter().filter(|m| m.node != self.info.id) {
            let answer = self.greet(member.node).await.map_err(|e| e.to_string())?;
            if !answer.formed.is_empty() && answer.formed.iter().all(|replica| replica.id.0 != self.info.incarnation) {
                let why = format!(
                    "node {} knows a cluster that was formed without this data directory: its data is gone, so it must \
                     not come back as node {}; give it a new number, or bring its data directory back",
                    member.node, self.info.id
                );
                self.fail(why.clone());
                return Err(why);
            }
            if answer.node.zone != member.zone || answer.node.id != member.node {
                let why = format!(
                    "{} says it is node {} in zone {}, and the config here says node {} in zone {}",
                    member.addr, answer.node.id, answer.node.zone, member.node, member.zone
                );
                self.fail(why.clone());
                return Err(why);
            }
            infos.push(answer.node);
        }
        Ok(infos)
    }

    fn join_request(&self) -> JoinRequest {
        JoinRequest { cluster: self.options.cluster, node: self.info.clone(), versions: SPOKEN_VERSIONS }
    }
}

/// Joins the cluster, and again whenever the map has this node at another address.
pub(crate) async fn join<D: Disk, T: Transport>(node: Weak<Node<D, T>>) {
    loop {
        let Some(strong) = node.upgrade() else { return };
        let state = strong.state();
        let known = state.map.node(strong.info.id) == Some(&strong.info);
        if !known && (!state.map.root.is_empty() || !strong.options.root.iter().any(|m| m.node == strong.info.id)) {
            join_step(&strong).await;
        }
        drop((strong, state));
        tokio::time::sleep(LOOP_PAUSE).await;
    }
}

async fn join_step<D: Disk, T: Transport>(node: &Arc<Node<D, T>>) {
    let body = encode_request(&Caller::default(), &node.join_request());
    let mut ask = node.root_nodes();
    let mut at = 0;
    // Each root node may point at one more; a bound against pointing in circles.
    while at < ask.len() && at < 8 {
        let to = ask[at];
        at += 1;
        let answer = match to == node.info.id {
            true => node.take_join(&node.join_request(), NODE_CALL_LIMIT).await.map(drop),
            false => match node.env.peers.call(to, Channel::Liveness, Kind::Join, &body, NODE_CALL_LIMIT).await {
                Ok(_) => Ok(()),
                Err(CallError::Refused(error)) => Err(error),
                Err(error) => Err(ErrorBody::new(ErrorCode::NoQuorum, error.to_string())),
            },
        };
        match answer {
            Ok(()) => return,
            Err(error) => match error.code {
                ErrorCode::WrongIdentity | ErrorCode::WrongVersion | ErrorCode::Conflict | ErrorCode::WrongCluster => {
                    return node.fail(error.message);
                }
                ErrorCode::NotLeader => ask.extend(error.leader),
                _ => tracing::debug!(to = to.0, %error, "joining"),
            },
        }
    }
}

impl<D: Disk, T: Transport> Node<D, T> {
    /// Takes a node into the cluster; only the root leader can.
    pub(crate) async fn take_join(&self, request: &JoinRequest, limit: Duration) -> Result<Bytes, ErrorBody> {
        if request.cluster != self.options.cluster {
            let message =
                format!("node {} is of cluster {}, not {}", request.node.id, request.cluster, self.options.cluster);
            return Err(ErrorBody::new(ErrorCode::WrongCluster, message));
        }
        self.env.peers.learn(request.node.id, request.node.addr);
        let join = stoa_raft::root::command::Join {
            node: request.node.clone(),
            version_min: request.versions.0,
            version_max: request.versions.1,
        };
        self.propose_to_root(RootCommand::Join(join), limit).await
    }

    /// Answers a watch: the state if it is newer than what the asker has, now or within [`WATCH_LIMIT`]; else nothing.
    pub(crate) async fn watch_state(&self, request: WatchRequest, limit: Duration) -> Bytes {
        let mut watch = self.state.subscribe();
        let newer = watch.wait_for(|state| state.map.version > request.known);
        match tokio::time::timeout(limit.min(WATCH_LIMIT), newer).await {
            Ok(Ok(state)) => state.to_bytes().into(),
            _ => Bytes::new(),
        }
    }
}

/// Follows the root state from a node that hosts the root group; a node that hosts it itself has nothing to do here.
pub(crate) async fn follow<D: Disk, T: Transport>(node: Weak<Node<D, T>>) {
    loop {
        let Some(strong) = node.upgrade() else { return };
        let mut asked = false;
        if strong.root_replica().is_none() {
            for to in strong.root_nodes() {
                let body = encode_request(&Caller::default(), &WatchRequest { known: strong.map_version() });
                let limit = WATCH_LIMIT + NODE_CALL_LIMIT / 2;
                let answer = strong.env.peers.call(to, Channel::Liveness, Kind::Watch, &body, limit).await;
                match answer {
                    Ok(bytes) if bytes.is_empty() => {}
                    Ok(bytes) => match RootState::from_bytes(&bytes) {
                        Ok(state) => strong.take_state(Arc::new(state)).await,
                        Err(error) => tracing::warn!(%error, from = to.0, "a root state that cannot be read"),
                    },
                    Err(_) => continue,
                }
                asked = true;
                break;
            }
        }
        drop(strong);
        if !asked {
            tokio::time::sleep(LOOP_PAUSE).await;
        }
    }
}
