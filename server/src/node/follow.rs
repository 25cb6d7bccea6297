//! A node's copy of the root state: in memory, and on disk for the day when the root group is down. A node with a replica
//! of the root group copies from that; every other one watches all nodes that have one, since any of them may be cut off
//! and know nothing new.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use stoa_env::{Disk, JoinSet, Transport};
use stoa_protocol::codec::{Reader, Wire};
use stoa_protocol::limits::FRAME_BYTES_MAX;
use stoa_protocol::message::{Caller, Kind, WatchRequest, encode_request};
use stoa_protocol::{ClusterId, MapVersion, NodeId};
use stoa_raft::Peers;
use stoa_raft::root::RootState;
use tokio::sync::watch;

use super::identity::write_whole;
use super::{HELD_CALLS, LOOP_PAUSE, Node, NodeError};

/// The file with the node's copy of the root state: what it works from when the root group is down.
const STATE_FILE: &str = "root-state";
const STATE_MAGIC: &[u8; 8] = b"STOARS01";

/// How long a watch waits at the root node for something new.
const WATCH_LIMIT: Duration = Duration::from_secs(1);

/// How long the asker of a watch waits: the watch's own time, and as much for the way.
const WATCH_CALL_LIMIT: Duration = Duration::from_secs(2);

/// Reads the copy of the root state; a missing one is that of a cluster not formed yet. A damaged one is thrown away: it
/// is a copy.
pub(super) async fn load_state<D: Disk>(disk: &D, cluster: ClusterId) -> Result<RootState, NodeError> {
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
    /// Takes a newer root state: addresses first, then the copy on disk, then everybody who watches. Nothing else changes
    /// the address of a node: what a root state says has been committed.
    pub(crate) async fn take_state(&self, state: Arc<RootState>) {
        if state.map.version <= self.map_version() {
            return;
        }
        if let Some(why) = self.cannot_speak(&state) {
            return self.fail(why);
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

    /// Answers a watch: the state if it is newer than what the asker has, now or within [`WATCH_LIMIT`]; else nothing.
    pub(crate) async fn watch_state(&self, request: WatchRequest, limit: Duration) -> Bytes {
        let mut watch = self.state.subscribe();
        let newer = watch.wait_for(|state| state.map.version > request.known);
        match stoa_env::timeout(limit.min(WATCH_LIMIT), newer).await {
            Ok(Ok(state)) => state.to_bytes().into(),
            _ => Bytes::new(),
        }
    }
}

/// Copies what this node's replica of the root group applies.
pub(super) async fn copy<D: Disk, T: Transport>(node: Weak<Node<D, T>>, mut applied: watch::Receiver<Arc<RootState>>) {
    loop {
        let state = applied.borrow_and_update().clone();
        let Some(strong) = node.upgrade() else { return };
        strong.take_state(state).await;
        drop(strong);
        if applied.changed().await.is_err() {
            return;
        }
    }
}

/// The pause after a root state that cannot be read: it is of a newer version, which an upgrade of this node cures.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(1);

/// Follows the root state at all nodes that host the root group, while this node has no replica of it that works. One
/// watch is held at each; the first that brings something newer ends the others, which then ask anew.
pub(super) async fn follow<D: Disk, T: Transport>(node: Weak<Node<D, T>>) {
    let mut watches: JoinSet<(NodeId, Option<Bytes>)> = JoinSet::new();
    let mut asked: BTreeSet<NodeId> = BTreeSet::new();
    loop {
        let Some(strong) = node.upgrade() else { return };
        if !strong.has_root() {
            for to in strong.root_nodes().into_iter().filter(|id| *id != strong.info.id) {
                if asked.insert(to) {
                    watches.spawn(watch_one(strong.env.peers.clone(), to, strong.map_version()));
                    strong.gauges.watches.note_len(watches.len());
                }
            }
        }
        drop(strong);
        let ended = tokio::select! {
            biased;
            Some(ended) = watches.join_next(), if !watches.is_empty() => ended,
            () = stoa_env::sleep(LOOP_PAUSE) => continue,
        };
        let (from, answer) = ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        asked.remove(&from);
        let Some(bytes) = answer else { continue };
        let Some(strong) = node.upgrade() else { return };
        match RootState::from_bytes(&bytes) {
            Ok(state) => strong.take_state(Arc::new(state)).await,
            Err(error) => {
                // It would come again at once, as long as it is newer than what is here.
                tracing::warn!(%error, from = from.0, "a root state that cannot be read");
                drop(strong);
                stoa_env::sleep(UNREADABLE_PAUSE).await;
            }
        }
        // Dropping the set ends what is in it, so that no task of it is ever seen to have been cancelled.
        watches = JoinSet::new();
        asked.clear();
    }
}

/// What a root node has that is newer than `known`, if it has, after a while at the latest.
async fn watch_one<T: Transport>(peers: Peers<T>, to: NodeId, known: MapVersion) -> (NodeId, Option<Bytes>) {
    let body = encode_request(&Caller::default(), &WatchRequest { known });
    match peers.call(to, HELD_CALLS, Kind::Watch, &body, WATCH_CALL_LIMIT).await {
        Ok(bytes) => (to, Some(bytes).filter(|bytes| !bytes.is_empty())),
        Err(error) => {
            tracing::debug!(to = to.0, %error, "watching the root state");
            stoa_env::sleep(LOOP_PAUSE).await;
            (to, None)
        }
    }
}
