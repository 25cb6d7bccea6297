//! Nodes are each other's witnesses: each remembers how far the logs of the others have reached, and says so when they start.
//!
//! A data directory that has come back as an old image of itself, from a backup or by a snapshot of its device, has
//! forgotten votes and entries that the node answered for, and nothing in it says so. But its log rises with every promise
//! ([`Wal::height`](stoa_raft::wal::Wal::height)), and others have heard of that:
//! 1. A node tells those that it shares groups with how far its log reaches, whenever that has risen, every [`TELL_PAUSE`].
//!    They remember the greatest height of each data directory, and write it down every [`WRITE_PAUSE`].
//! 2. A node that has started tells them how far its log reached **when it was opened**, and each answers with the greatest
//!    height that it has heard of. If that is no greater, it vouches: from now on Raft speaks with it
//!    ([`Vouched`](stoa_raft::Vouched)), and not before.
//! 3. If it is greater, the directory is old. That is written into it, and the node ends ([`NodeError::OldDisk`]): the next
//!    start has raised the log, perhaps beyond what anybody has seen, and must not be asked again.
//!
//! Nobody is asked who is not needed anyway: a replica can do nothing without another of its group, and that one's node is
//! its witness. Witnesses answer out of memory and file before anybody vouches for them, so that a cluster whose nodes all
//! lost power comes back by itself; the root group takes no part. A node that has promised nothing since an image of it was
//! taken has not forgotten anything by it, and is not refused.
//!
//! What it cannot see: promises of the last [`TELL_PAUSE`] before a node died, if the one that they were given to has died
//! as well; those of the last [`WRITE_PAUSE`] more, if all witnesses have restarted since; and anything, if the directories of
//! all that answer are old images too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, Weak};
use std::time::Duration;

use stoa_env::{Bounds, Channel, Disk, Gauge, JoinSet, Transport, planted};
use stoa_protocol::codec::{DecodeError, Reader, Wire, get_list, put_list};
use stoa_protocol::limits::NODES_MAX;
use stoa_protocol::message::{Caller, Kind, LogHeight, WitnessAnswer, WitnessRequest, encode_request};
use stoa_protocol::{ErrorCode, NodeId};
use stoa_raft::CallError;

use super::identity::write_whole;
use super::upkeep::each;
use super::{LOOP_PAUSE, Node, NodeError};

/// How often others are told of a log that has risen.
const TELL_PAUSE: Duration = Duration::from_millis(250);
/// How often what others told is written down, if it has changed.
const WRITE_PAUSE: Duration = Duration::from_secs(1);
/// The pause after a write is so many times as long as the write, at the least.
const WRITE_SHARE: u32 = 10;
/// How long a witness may take to answer; one that is silent holds up the next round for as long.
const WITNESS_LIMIT: Duration = Duration::from_millis(500);
/// Data directories of one node that are remembered: the one that the cluster knows, and one that may take its place.
const DIRECTORIES_MAX: usize = 2;

/// The file with the heights that others told.
const FILE: &str = "witness";
const MAGIC: &[u8; 8] = b"STOAWIT1";
/// The file that says that the directory was found to be old, and by whom.
const OLD_FILE: &str = "old-image";
const OLD_FILE_BYTES_MAX: usize = 4 << 10;
/// All nodes, and both directories of each.
const FILE_BYTES_MAX: usize = 64 + NODES_MAX * (12 + DIRECTORIES_MAX * 24);

/// A data directory, and how far its log was heard to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sighting {
    incarnation: u64,
    height: LogHeight,
}
stoa_protocol::wire_struct!(Sighting { incarnation, height });

/// What is remembered of one node, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sightings {
    node: NodeId,
    of: Vec<Sighting>,
}

impl Wire for Sightings {
    fn put(&self, out: &mut Vec<u8>) {
        self.node.put(out);
        put_list(&self.of, out);
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { node: Wire::get(input)?, of: get_list(input, "data directories")? })
    }
}

/// What this node has seen of others, and what others know of it.
#[derive(Debug)]
pub(crate) struct Witness {
    known: Mutex<Known>,
    counted: Counted,
}

/// Counts what is remembered of others.
#[derive(Debug)]
struct Counted {
    nodes: Gauge,
    directories: Gauge,
    unknown: Gauge,
}

#[derive(Debug, Default)]
struct Known {
    seen: BTreeMap<NodeId, Vec<Sighting>>,
    /// Whether that is not on disk yet.
    changed: bool,
    /// The last height that each witness has answered to.
    told: BTreeMap<NodeId, LogHeight>,
    /// What is wrong with this data directory, if a witness has seen more of it.
    old: Option<String>,
    /// Nodes that have sent messages of Raft without having vouched.
    unknown: BTreeSet<NodeId>,
}

impl Witness {
    /// What was written down before the last end. A file that is missing or damaged says nothing: those who run say it
    /// again.
    pub async fn load<D: Disk>(disk: &D, bounds: &Bounds) -> Result<Self, NodeError> {
        let bytes = match disk.read(Path::new(FILE), FILE_BYTES_MAX).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::new(BTreeMap::new(), bounds));
            }
            Err(source) => return Err(NodeError::Io { doing: format!("reading the file {FILE}"), source }),
        };
        let seen = decode(&bytes).unwrap_or_else(|| {
            tracing::warn!("the file {FILE} is damaged; how far other logs had reached is forgotten");
            BTreeMap::new()
        });
        Ok(Self::new(seen, bounds))
    }

    fn new(seen: BTreeMap<NodeId, Vec<Sighting>>, bounds: &Bounds) -> Self {
        let counted = Counted {
            nodes: bounds.node_gauge("witness: nodes that are remembered", NODES_MAX as u64),
            directories: bounds
                .gauge("witness: data directories of a node that are remembered", DIRECTORIES_MAX as u64),
            unknown: bounds.node_gauge("witness: nodes to be asked to vouch", NODES_MAX as u64),
        };
        counted.nodes.note_len(seen.len());
        Self { known: Mutex::new(Known { seen, ..Known::default() }), counted }
    }

    /// Refuses a data directory that was found to be an old image of itself at an earlier start.
    pub async fn check<D: Disk>(disk: &D) -> Result<(), NodeError> {
        match disk.read(Path::new(OLD_FILE), OLD_FILE_BYTES_MAX).await {
            Ok(why) => Err(NodeError::FoundOld { why: String::from_utf8_lossy(&why).into_owned() }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(NodeError::Io { doing: format!("reading the file {OLD_FILE}"), source }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// A node says how far its log reaches: the greatest height heard of for this directory of it. `current` is the
    /// directory that the cluster knows it with, if it knows it; that one is not forgotten for another.
    fn hear(&self, from: NodeId, told: &WitnessRequest, current: Option<u64>) -> LogHeight {
        let mut known = self.lock();
        if !known.seen.contains_key(&from) && known.seen.len() >= NODES_MAX {
            return told.height;
        }
        let of = known.seen.entry(from).or_default();
        let before = of.iter().find(|sighting| sighting.incarnation == told.incarnation).copied();
        let seen = before.map_or(told.height, |before| before.height.max(told.height));
        if before.is_some_and(|before| before.height == seen) {
            return seen;
        }
        // It may have started anew, and have forgotten what it was not given time to write down.
        let restarted = before.is_none_or(|before| before.height.segment != seen.segment);
        of.retain(|sighting| sighting.incarnation != told.incarnation);
        if of.len() >= DIRECTORIES_MAX {
            let least = of.iter().position(|sighting| Some(sighting.incarnation) != current).unwrap_or(0);
            of.remove(least);
        }
        of.push(Sighting { incarnation: told.incarnation, height: seen });
        self.counted.directories.note_len(of.len());
        self.counted.nodes.note_len(known.seen.len());
        known.changed = true;
        if restarted {
            known.told.remove(&from);
        }
        seen
    }

    /// A node that has not vouched sends messages of Raft: it shall be asked.
    fn miss(&self, node: NodeId) {
        let mut known = self.lock();
        if known.unknown.len() < NODES_MAX {
            known.unknown.insert(node);
            self.counted.unknown.note_len(known.unknown.len());
        }
    }
}

fn encode(seen: &BTreeMap<NodeId, Vec<Sighting>>) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    let list: Vec<Sightings> = seen.iter().map(|(node, of)| Sightings { node: *node, of: of.clone() }).collect();
    put_list(&list, &mut out);
    crc32fast::hash(&out).put(&mut out);
    out
}

fn decode(bytes: &[u8]) -> Option<BTreeMap<NodeId, Vec<Sighting>>> {
    let (body, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    let body = (crc32fast::hash(body).to_le_bytes() == crc).then_some(body)?;
    let mut input = Reader::new(body.strip_prefix(MAGIC)?);
    let list: Vec<Sightings> = get_list(&mut input, "nodes").ok()?;
    input.finish().ok()?;
    Some(list.into_iter().map(|node| (node.node, node.of)).collect())
}

impl<D: Disk, T: Transport> Node<D, T> {
    /// Answers as a witness.
    pub(crate) fn bear_witness(&self, from: NodeId, told: &WitnessRequest) -> WitnessAnswer {
        let current = self.state().map.node(from).map(|node| node.incarnation);
        WitnessAnswer { seen: self.witness.hear(from, told, current) }
    }

    /// Whether a node has vouched for this one's data directory; if not, it will be asked.
    pub(crate) fn is_vouched_by(&self, node: NodeId) -> bool {
        let vouched = self.env.vouched.by(node);
        if !vouched {
            self.witness.miss(node);
        }
        vouched
    }

    /// The nodes that this one shares groups with, or will.
    fn witnesses(&self) -> BTreeSet<NodeId> {
        let me = self.info.id;
        let state = self.state();
        let mut nodes = std::mem::take(&mut self.witness.lock().unknown);
        for partition in state.map.sets.iter().flat_map(|set| &set.partitions) {
            let coming = state.move_of(partition.id).map(|moved| moved.to);
            let placed: BTreeSet<NodeId> =
                partition.replicas.iter().chain(&coming).map(|replica| replica.node).collect();
            if placed.contains(&me) {
                nodes.extend(placed);
            }
        }
        let root: Vec<NodeId> = match state.map.root.is_empty() {
            true => self.options.root.iter().map(|member| member.node).collect(),
            false => state.map.root.iter().map(|replica| replica.node).collect(),
        };
        if root.contains(&me) || self.root_replica().is_some() {
            nodes.extend(root);
        }
        // Groups may be ahead of this copy of the root state.
        let hosted = self.all_hosted().into_iter().map(|hosted| hosted.replica.members());
        for members in hosted.chain(self.root_replica().map(|root| root.members())) {
            let all = members.voters.into_iter().flatten().chain(members.learners);
            nodes.extend(all.map(|(_, node)| node));
        }
        nodes.remove(&me);
        nodes
    }

    /// Tells the witnesses that have not heard how far the log reaches; says whether all of them vouch.
    async fn tell_witnesses(&self) -> bool {
        let witnesses = self.witnesses();
        let mut asked = JoinSet::new();
        for to in witnesses.iter().copied() {
            // Until it has vouched, what counts is what was found: the start itself has raised the log.
            let vouched = self.env.vouched.by(to);
            let height = if vouched { self.env.wal.height() } else { self.env.wal.found_height() };
            if vouched && self.witness.lock().told.get(&to) == Some(&height) {
                continue;
            }
            let (peers, incarnation) = (self.env.peers.clone(), self.info.incarnation);
            asked.spawn(async move {
                let body = encode_request(&Caller::default(), &WitnessRequest { incarnation, height });
                (to, height, peers.call(to, Channel::Liveness, Kind::Witness, &body, WITNESS_LIMIT).await)
            });
        }
        each(asked, |(to, height, answer)| self.take_witness(to, height, answer)).await;
        let old = self.witness.lock().old.clone();
        if let Some(why) = old {
            if let Err(error) = write_whole(&self.env.disk, OLD_FILE, why.clone().into_bytes()).await {
                tracing::error!(%error, "that this data directory is old could not be written into it");
            }
            self.fail(why);
        }
        witnesses.iter().all(|node| self.env.vouched.by(*node))
    }

    /// What a witness said to the height that it was told.
    fn take_witness(&self, by: NodeId, told: LogHeight, answer: Result<bytes::Bytes, CallError>) {
        let seen = match answer.map(|bytes| WitnessAnswer::from_bytes(&bytes)) {
            Ok(Ok(answer)) => answer.seen,
            // One of an earlier version has seen nothing, and vouches for all, as it did before.
            Err(CallError::Refused(error)) if error.code == ErrorCode::BadRequest => LogHeight::default(),
            Ok(Err(error)) => return tracing::debug!(by = by.0, %error, "a witness"),
            Err(error) => return tracing::debug!(by = by.0, %error, "a witness"),
        };
        if seen > told && !planted!(BelieveOldDisk) {
            let error = NodeError::OldDisk { node: self.info.id, by, seen, found: self.env.wal.found_height() };
            self.env.vouched.withdraw();
            self.witness.lock().old = Some(error.to_string());
            return;
        }
        if self.witness.lock().old.is_some() {
            return;
        }
        self.witness.lock().told.insert(by, told);
        if self.env.vouched.add(by) {
            tracing::debug!(by = by.0, "another node vouches for this data directory");
        }
    }

    /// Writes down what others told, if it has changed.
    async fn write_sightings(&self) {
        let bytes = {
            let mut known = self.witness.lock();
            if !std::mem::take(&mut known.changed) {
                return;
            }
            encode(&known.seen)
        };
        if let Err(error) = write_whole(&self.env.disk, FILE, bytes).await {
            // A device that is full or fails ends the log, or has its writes refused; this is written once it can be.
            tracing::warn!(%error, "how far other logs reach could not be written");
            self.witness.lock().changed = true;
        }
    }
}

/// Tells witnesses how far this node's log reaches: at once after the start, and whenever it has risen.
pub(super) async fn tell<D: Disk, T: Transport>(node: Weak<Node<D, T>>) {
    loop {
        let Some(strong) = node.upgrade() else { return };
        let all_vouch = strong.tell_witnesses().await;
        drop(strong);
        stoa_env::sleep(if all_vouch { TELL_PAUSE } else { LOOP_PAUSE }).await;
    }
}

/// Writes down what others told.
pub(super) async fn write_down<D: Disk, T: Transport>(node: Weak<Node<D, T>>) {
    loop {
        let Some(strong) = node.upgrade() else { return };
        let began = strong.now();
        strong.write_sightings().await;
        let took = strong.now().since(began);
        drop(strong);
        // The log comes first where the device is slow.
        stoa_env::sleep(WRITE_PAUSE.max(took * WRITE_SHARE)).await;
    }
}

#[cfg(test)]
mod tests {
    use stoa_env::RealDisk;

    use super::*;

    fn told(incarnation: u64, segment: u64, offset: u64) -> WitnessRequest {
        WitnessRequest { incarnation, height: LogHeight { segment, offset } }
    }

    #[test]
    fn the_greatest_height_of_each_directory_is_remembered_and_the_known_one_is_not_pushed_out() {
        let witness = Witness::new(BTreeMap::new(), &Bounds::default());
        let hear = |request: WitnessRequest| witness.hear(NodeId(3), &request, Some(7));
        assert_eq!(hear(told(7, 2, 100)), LogHeight { segment: 2, offset: 100 });
        assert_eq!(hear(told(7, 1, 900)), LogHeight { segment: 2, offset: 100 }, "an old image of it");
        assert_eq!(hear(told(7, 3, 0)), LogHeight { segment: 3, offset: 0 });
        for other in 8..20 {
            assert_eq!(hear(told(other, 1, 1)), LogHeight { segment: 1, offset: 1 });
        }
        assert_eq!(hear(told(7, 2, 100)), LogHeight { segment: 3, offset: 0 }, "it is the one that the cluster knows");
        assert_eq!(witness.lock().seen[&NodeId(3)].len(), DIRECTORIES_MAX);
    }

    #[tokio::test]
    async fn a_directory_that_was_found_to_be_old_stays_refused() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path()).unwrap();
        assert!(Witness::check(&disk).await.is_ok());
        write_whole(&disk, OLD_FILE, b"it is old".to_vec()).await.unwrap();
        let refused = Witness::check(&disk).await.unwrap_err().to_string();
        assert!(refused.contains("it is old") && refused.contains(OLD_FILE), "{refused}");
    }

    #[test]
    fn a_node_that_has_started_anew_is_told_again() {
        let witness = Witness::new(BTreeMap::new(), &Bounds::default());
        let tell = || witness.lock().told.insert(NodeId(3), LogHeight::default());
        witness.hear(NodeId(3), &told(7, 2, 100), None);
        tell();
        witness.hear(NodeId(3), &told(7, 2, 200), None);
        assert!(witness.lock().told.contains_key(&NodeId(3)));
        witness.hear(NodeId(3), &told(7, 3, 0), None);
        assert!(!witness.lock().told.contains_key(&NodeId(3)), "every start begins a segment");
    }

    #[tokio::test]
    async fn what_was_written_down_is_found_again_and_no_flipped_bit_passes() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path()).unwrap();
        let witness = Witness::new(BTreeMap::new(), &Bounds::default());
        for node in 1..=NODES_MAX as u64 + 1 {
            witness.hear(NodeId(node), &told(7, 2, 100), None);
            witness.hear(NodeId(node), &told(8, 2, 100), None);
        }
        let seen = witness.lock().seen.clone();
        assert_eq!(seen.len(), NODES_MAX, "no more than there are nodes");
        let bytes = encode(&seen);
        write_whole(&disk, FILE, bytes.clone()).await.unwrap();
        assert_eq!(Witness::load(&disk, &Bounds::default()).await.unwrap().lock().seen, seen);
        let small = encode(&seen.into_iter().take(1).collect());
        for bit in 0..small.len() * 8 {
            let mut copy = small.clone();
            copy[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&copy), None, "bit {bit}");
        }
    }
}
