//! How a cluster comes to be, and how a node becomes part of it.
//!
//! Forming, once in a cluster's life:
//! 1. Every first member starts an empty root replica whose number is its own incarnation. It does nothing by itself.
//! 2. Each asks the two others who they are. If one of them knows of a cluster that was formed without the asker, the asker
//!    forms none: its data is gone, and it waits until the cluster takes it with its new data directory.
//! 3. The one with the lowest number forms the root group of the three incarnations; whoever is elected writes down who they are.
//! 4. When the expected nodes have joined, the root leader makes the default partition set.
//!
//! A crash at any point is safe: forming again with other incarnations is refused by Raft and by the root state.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use stoa_env::{Channel, Disk, JoinSet, Transport, planted};
use stoa_protocol::codec::Wire;
use stoa_protocol::map::{NodeInfo, ReplicaInfo};
use stoa_protocol::message::{Caller, HelloAnswer, HelloRequest, JoinRequest, Kind, encode_request};
use stoa_protocol::{ErrorBody, ErrorCode, NodeId, ReplicaId};
use stoa_raft::CallError;
use stoa_raft::root::RootCommand;
use stoa_raft::root::command::{CreateSet, Form};

use super::upkeep::each;
use super::{HELD_CALLS, LOOP_PAUSE, NODE_CALL_LIMIT, Node, RootMember};

/// How long a node that was refused waits before it asks again: each time costs the root group an entry.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// The name of the set that projects share unless they have one of their own.
pub const DEFAULT_SET: &str = "shared";

impl<D: Disk, T: Transport> Node<D, T> {
    /// Puts a command to the root group: here if this node leads it, else at the node that does.
    pub(crate) async fn propose_to_root(&self, command: RootCommand, limit: Duration) -> Result<Bytes, ErrorBody> {
        let Some(root) = self.root_replica() else {
            return Err(ErrorBody::new(ErrorCode::NotLeader, "this node has no replica of the root group"));
        };
        if self.state().check_version(&command).is_err() && !planted!(ProposeUngated) {
            // This node's copy may be old, or not the leader's: what the group has committed decides.
            let applied = root.barrier(limit).await?;
            root.wait_applied(applied, limit).await?;
            let asked = command.clone();
            root.ask_machine(move |machine| machine.state().check_version(&asked)).await??;
        }
        let command = command.to_bytes();
        // A committed command that cannot be read halts every replica: what goes beyond a limit of its form stops here.
        RootCommand::from_bytes(&command)?;
        let reply = root.propose(command.into(), limit).await?;
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

    /// Answers a greeting. A node that cannot know whether a cluster was formed does not say that none was.
    pub(crate) fn hello(&self, _request: &HelloRequest) -> Result<HelloAnswer, ErrorBody> {
        let state = self.state();
        let mut formed = state.map.root.clone();
        if formed.is_empty() {
            let Some(root) = self.root_replica() else {
                let message =
                    format!("node {} has no replica of the root group, and no copy of its state", self.info.id);
                return Err(ErrorBody::new(ErrorCode::NotReady, message));
            };
            // Formed, but not written down yet.
            formed = root.voters().into_iter().map(|(id, node)| ReplicaInfo { id, node }).collect();
        }
        Ok(HelloAnswer { node: self.info.clone(), formed })
    }

    /// For who answers a request: what answers may ask, and what asks may be answered here, so that the type must end.
    fn greet_boxed(&self, node: NodeId) -> Pin<Box<dyn Future<Output = Result<HelloAnswer, CallError>> + Send + '_>> {
        Box::pin(self.greet(node))
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
        stoa_env::sleep(LOOP_PAUSE).await;
    }
}

async fn form_step<D: Disk, T: Transport>(node: &Arc<Node<D, T>>) -> Result<(), String> {
    let root = node.root_replica().ok_or("no root replica here")?;
    let first = node.options.root.iter().map(|m| m.node).min() == Some(node.info.id);
    let state = node.state();
    if state.map.root.is_empty() {
        // Every member asks, whatever its part: the one whose data is gone must hear of the cluster that it was in.
        let infos = node.greet_members().await?;
        if root.leads() {
            return node.write_down(infos, &root.voters()).await;
        }
        if !first || root.is_formed().await {
            return Ok(());
        }
        let members: Vec<(ReplicaId, NodeId)> = infos.iter().map(|i| (ReplicaId(i.incarnation), i.id)).collect();
        return root.form(&members).await.map_err(|e| e.to_string());
    }
    if !root.leads() {
        return Ok(());
    }
    let enough = state.map.nodes.len() >= node.options.nodes_expected as usize && state.zones().len() >= 3;
    if enough {
        let seed = node.env.context.entropy.next_u64();
        let create = CreateSet { name: DEFAULT_SET.into(), partitions: node.options.partitions, seed };
        node.propose_to_root(RootCommand::CreateSet(create), NODE_CALL_LIMIT).await.map_err(|e| e.to_string())?;
    }
    Ok(())
}

impl<D: Disk, T: Transport> Node<D, T> {
    /// Whoever was elected first writes down who the members are: those of the group, and no others.
    async fn write_down(&self, infos: Vec<NodeInfo>, voters: &[(ReplicaId, NodeId)]) -> Result<(), String> {
        let replicas: Vec<ReplicaInfo> =
            infos.iter().map(|info| ReplicaInfo { id: ReplicaId(info.incarnation), node: info.id }).collect();
        if !replicas.iter().all(|replica| voters.contains(&(replica.id, replica.node))) {
            return Err("a member is not the one that the group was formed of".into());
        }
        let form = RootCommand::Form(Form { replicas, nodes: infos });
        self.propose_to_root(form, NODE_CALL_LIMIT).await.map(drop).map_err(|e| e.to_string())
    }

    /// Asks all first members who they are, all at once: any of them may be the one that knows that this node must not go
    /// on, and the others may be silent. Gives them all, or says who is missing.
    async fn greet_members(self: &Arc<Self>) -> Result<Vec<NodeInfo>, String> {
        let others: Vec<_> = self.options.root.iter().filter(|m| m.node != self.info.id).cloned().collect();
        let mut asked = JoinSet::new();
        for member in others.clone() {
            let node = self.clone();
            asked.spawn(async move { (member.node, node.greet(member.node).await) });
        }
        let mut answers = BTreeMap::new();
        each(asked, |(member, answer)| drop(answers.insert(member, answer))).await;
        let mut infos = vec![self.info.clone()];
        let mut missing = None;
        for member in &others {
            match answers.remove(&member.node).ok_or("a greeting that was not sent")? {
                Ok(answer) => {
                    self.check_greeting(member, &answer)?;
                    self.neighbours.know(member.node);
                    infos.push(answer.node);
                }
                Err(error) => {
                    self.neighbours.failed(member.node, &error, self.env.context.clock.boot());
                    missing = Some(error.to_string());
                }
            }
        }
        missing.map_or(Ok(infos), Err)
    }

    /// Stops this node if a member knows a cluster that was formed without it, or is not who it should be. A node whose data
    /// is gone waits.
    fn check_greeting(&self, member: &RootMember, answer: &HelloAnswer) -> Result<(), String> {
        let (me, mine) = (self.info.id, ReplicaId(self.info.incarnation));
        let why = if !answer.formed.is_empty() && answer.formed.iter().all(|replica| replica.id != mine) {
            let members: Vec<String> = answer.formed.iter().map(|replica| replica.node.to_string()).collect();
            let members = members.join(", ");
            if answer.formed.iter().any(|replica| replica.node == me) {
                // It forms nothing, follows the others, and waits to be taken with this data directory.
                let why = format!("node {} knows a cluster that was formed without this data directory", member.node);
                self.refuse_data(why.clone());
                return Err(why);
            }
            format!(
                "node {} knows a cluster whose root group is on nodes {members}, and node {me} is not among them; name \
                 those under `root`, and this node will join",
                member.node
            )
        } else if answer.node.zone != member.zone || answer.node.id != member.node {
            format!(
                "{} says it is node {} in zone {}, and the config here says node {} in zone {}",
                member.addr, answer.node.id, answer.node.zone, member.node, member.zone
            )
        } else {
            return Ok(());
        };
        self.fail(why.clone());
        Err(why)
    }

    fn join_request(&self) -> JoinRequest {
        JoinRequest { cluster: self.options.cluster, node: self.info.clone(), versions: self.options.versions }
    }
}

/// Joins the cluster, and again whenever the root state has this node at another address or with other versions.
pub(crate) async fn join<D: Disk, T: Transport>(node: Weak<Node<D, T>>) {
    loop {
        let Some(strong) = node.upgrade() else { return };
        let state = strong.state();
        let known = state.map.node(strong.info.id) == Some(&strong.info)
            && state.spoken_by(strong.info.id) == Some(strong.options.versions);
        if !known && (!state.map.root.is_empty() || !strong.options.root.iter().any(|m| m.node == strong.info.id)) {
            join_step(&strong).await;
        }
        let refused = strong.refused.lock().unwrap_or_else(|e| e.into_inner()).is_some();
        drop((strong, state));
        stoa_env::sleep(if refused { REFUSED_PAUSE } else { LOOP_PAUSE }).await;
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
            false => match node.env.peers.call(to, HELD_CALLS, Kind::Join, &body, NODE_CALL_LIMIT).await {
                Ok(_) => Ok(()),
                Err(CallError::Refused(error)) if error.code != ErrorCode::WrongCluster => Err(error),
                Err(error) => {
                    node.neighbours.failed(to, &error, node.env.context.clock.boot());
                    Err(ErrorBody::new(ErrorCode::NoQuorum, error.to_string()))
                }
            },
        };
        match answer {
            Ok(()) => return node.neighbours.know(to),
            Err(error) => match error.code {
                ErrorCode::WrongIdentity => return node.refuse_data(error.message),
                ErrorCode::WrongVersion | ErrorCode::Conflict => {
                    return node.fail(format!("the cluster refuses this node: {}", error.message));
                }
                ErrorCode::NotLeader => ask.extend(error.leader),
                _ => tracing::debug!(to = to.0, %error, "joining"),
            },
        }
    }
}

impl<D: Disk, T: Transport> Node<D, T> {
    /// Takes a node into the cluster; only the root leader can. Its address counts once the root group has committed it,
    /// and not before: whoever is refused must not have changed the address of the node that it says it is.
    pub(crate) async fn take_join(&self, request: &JoinRequest, limit: Duration) -> Result<Bytes, ErrorBody> {
        if request.cluster != self.options.cluster {
            let message =
                format!("node {} is of cluster {}, not {}", request.node.id, request.cluster, self.options.cluster);
            return Err(ErrorBody::new(ErrorCode::WrongCluster, message));
        }
        let join = stoa_raft::root::command::Join {
            node: request.node.clone(),
            version_min: request.versions.0,
            version_max: request.versions.1,
        };
        let state = self.state();
        if state.has_other_data(&request.node)
            && state.spoken_by(request.node.id) != Some(request.versions)
            && let Some(known) = state.map.node(request.node.id)
            && let Ok(Ok(answer)) = stoa_env::timeout(limit, self.greet_boxed(known.id)).await
            && answer.node.incarnation == known.incarnation
        {
            let message = format!(
                "node {} runs at {} with the data directory that the cluster knows, {:016x}; this one is {:016x}",
                known.id, known.addr, known.incarnation, request.node.incarnation
            );
            return Err(ErrorBody::new(ErrorCode::WrongIdentity, message));
        }
        self.propose_to_root(RootCommand::Join(join), limit).await
    }
}
