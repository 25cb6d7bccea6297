//! openraft's type parameters, and the bytes of log entries, votes and memberships in our log.
//!
//! ```text
//! log id      u64 term, u64 index
//! vote        u8 format, u64 term, u64 voted for, u8 committed
//! entry       u8 format, u64 term, u8 payload: 0 blank | 1 command, bytes | 2 membership
//! membership  u32 configs, each u32 voters x u64; u32 members, each u64 replica, u64 node
//! stored      u8 has log id, log id, membership
//! ```
//!
//! The index of an entry stands in its frame of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use openraft::vote::RaftLeaderId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use stoa_protocol::codec::{DecodeError, Reader, Wire};
use stoa_protocol::{ErrorBody, LogIndex, NodeId};

use crate::runtime::StoaRuntime;
use crate::wal::Room;

openraft::declare_raft_types!(
    /// Stoa's parameters of openraft: opaque commands, replica ids as node ids, one leader per term.
    pub StoaTypes:
        D = Command,
        R = Reply,
        NodeId = u64,
        Node = Member,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = StoaRuntime,
);

/// A term and index.
pub type LogId = openraft::type_config::alias::LogIdOf<StoaTypes>;
/// A log entry in memory.
pub type Entry = openraft::type_config::alias::EntryOf<StoaTypes>;
/// A vote.
pub type Vote = openraft::type_config::alias::VoteOf<StoaTypes>;
/// A membership and where in the log it stands.
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<StoaTypes>;
/// A membership.
pub type Membership = openraft::Membership<u64, Member>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<StoaTypes>;

/// The bytes of a command; what they mean is the machine's to know.
#[derive(Debug, Clone, Default)]
pub struct Command {
    /// The bytes.
    pub bytes: Bytes,
    /// Its room in the node's log, while it is on its way there: given back when the entry is durable, or when Raft drops
    /// the entry. Entries of one append share theirs.
    room: Option<Arc<Room>>,
}

impl Command {
    /// A command that has no room yet.
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes, room: None }
    }

    /// Gives the command its room.
    pub(crate) fn give_room(&mut self, room: Arc<Room>) {
        self.room = Some(room);
    }

    /// Takes the room, to let it go once the entry is durable.
    pub(crate) fn take_room(&mut self) -> Option<Arc<Room>> {
        self.room.take()
    }
}

impl PartialEq for Command {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Command {}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes.len())
    }
}

impl Serialize for Command {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.bytes)
    }
}

impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Command;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the bytes of a command")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Command, E> {
                Ok(Command::new(Bytes::copy_from_slice(bytes)))
            }
            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Command, E> {
                Ok(Command::new(bytes.into()))
            }
        }
        deserializer.deserialize_byte_buf(Visitor)
    }
}

/// What a machine answers to a command: bytes that its proposer understands, or a deterministic refusal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reply {
    /// Where in the log the command stands.
    pub index: LogIndex,
    /// What became of it; `None` for entries without a command.
    pub outcome: Option<Result<Bytes, ErrorBody>>,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reply to {}", self.index)
    }
}

// openraft asks that answers can be serialised; ours never travel by serde.
impl Serialize for Reply {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for Reply {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("replies do not travel between nodes"))
    }
}

/// Where a replica lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Member {
    /// The node that hosts it.
    pub node: u64,
}

impl Member {
    /// The node that hosts it.
    pub fn node(self) -> NodeId {
        NodeId(self.node)
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.node)
    }
}

const FORMAT: u8 = 1;
const BLANK: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERSHIP: u8 = 2;

fn check_format(input: &mut Reader<'_>) -> Result<(), DecodeError> {
    match u8::get(input)? {
        FORMAT => Ok(()),
        other => Err(DecodeError::invalid("the format of a log record", other, FORMAT)),
    }
}

/// The bytes of a log id.
pub fn encode_log_id(id: &LogId) -> Bytes {
    let mut out = Vec::with_capacity(16);
    put_log_id(id, &mut out);
    out.into()
}

/// A log id from its bytes.
pub fn decode_log_id(bytes: &[u8]) -> Result<LogId, DecodeError> {
    let mut input = Reader::new(bytes);
    let id = get_log_id(&mut input)?;
    input.finish()?;
    Ok(id)
}

fn put_log_id(id: &LogId, out: &mut Vec<u8>) {
    id.leader_id.term.put(out);
    id.index.put(out);
}

fn get_log_id(input: &mut Reader<'_>) -> Result<LogId, DecodeError> {
    let term = u64::get(input)?;
    let index = u64::get(input)?;
    Ok(log_id(term, index))
}

/// A log id of a term and index.
pub fn log_id(term: u64, index: u64) -> LogId {
    let leader = openraft::impls::leader_id_std::LeaderId::<u64, u64>::new(term, 0);
    LogId { leader_id: leader.to_committed(), index }
}

/// The bytes of a vote.
pub fn encode_vote(vote: &Vote) -> Bytes {
    let mut out = vec![FORMAT];
    vote.leader_id.term.put(&mut out);
    vote.leader_id.voted_for.put(&mut out);
    vote.committed.put(&mut out);
    out.into()
}

/// A vote from its bytes.
pub fn decode_vote(bytes: &[u8]) -> Result<Vote, DecodeError> {
    let mut input = Reader::new(bytes);
    check_format(&mut input)?;
    let (term, voted_for) = (u64::get(&mut input)?, u64::get(&mut input)?);
    let committed = bool::get(&mut input)?;
    input.finish()?;
    Ok(if committed { Vote::new_committed(term, voted_for) } else { Vote::new(term, voted_for) })
}

/// The bytes of an entry, its index apart.
pub fn encode_entry(entry: &Entry) -> Bytes {
    let mut out = vec![FORMAT];
    entry.log_id.leader_id.term.put(&mut out);
    match &entry.payload {
        openraft::EntryPayload::Blank => out.push(BLANK),
        openraft::EntryPayload::Normal(command) => {
            out.push(COMMAND);
            out.extend_from_slice(&command.bytes);
        }
        openraft::EntryPayload::Membership(membership) => {
            out.push(MEMBERSHIP);
            put_membership(membership, &mut out);
        }
    }
    out.into()
}

/// An entry from its index and bytes; a command's bytes are shared, not copied.
pub fn decode_entry(index: u64, bytes: &Bytes) -> Result<Entry, DecodeError> {
    let mut input = Reader::new(bytes);
    check_format(&mut input)?;
    let term = u64::get(&mut input)?;
    let payload = match u8::get(&mut input)? {
        BLANK => openraft::EntryPayload::Blank,
        COMMAND => {
            let at = input.position();
            return Ok(Entry {
                log_id: log_id(term, index),
                payload: openraft::EntryPayload::Normal(Command::new(bytes.slice(at..))),
            });
        }
        MEMBERSHIP => openraft::EntryPayload::Membership(get_membership(&mut input)?),
        other => return Err(DecodeError::invalid("the payload of an entry", other, "0 to 2")),
    };
    input.finish()?;
    Ok(Entry { log_id: log_id(term, index), payload })
}

fn put_membership(membership: &Membership, out: &mut Vec<u8>) {
    let configs = membership.get_joint_config();
    (configs.len() as u32).put(out);
    for config in configs {
        (config.len() as u32).put(out);
        config.iter().for_each(|voter| voter.put(out));
    }
    let members: Vec<_> = membership.nodes().collect();
    (members.len() as u32).put(out);
    for (replica, member) in members {
        replica.put(out);
        member.node.put(out);
    }
}

fn get_membership(input: &mut Reader<'_>) -> Result<Membership, DecodeError> {
    let mut configs = Vec::new();
    for _ in 0..input.count(4, "configurations")? {
        let mut config = BTreeSet::new();
        for _ in 0..input.count(8, "voters")? {
            config.insert(u64::get(input)?);
        }
        configs.push(config);
    }
    let mut members = BTreeMap::new();
    for _ in 0..input.count(16, "members")? {
        members.insert(u64::get(input)?, Member { node: u64::get(input)? });
    }
    Membership::new(configs, members)
        .map_err(|error| DecodeError::invalid("a membership", error, "voters that are all members"))
}

/// The bytes of a snapshot's meta data: where it ends, and the membership there.
pub fn encode_snapshot_meta(meta: &SnapshotMeta) -> Vec<u8> {
    let mut out = vec![FORMAT];
    for id in [&meta.last_log_id, meta.last_membership.log_id()] {
        id.is_some().put(&mut out);
        put_log_id(id.as_ref().unwrap_or(&log_id(0, 0)), &mut out);
    }
    put_membership(meta.last_membership.membership(), &mut out);
    out
}

/// A snapshot's meta data from its bytes.
pub fn decode_snapshot_meta(bytes: &[u8]) -> Result<SnapshotMeta, DecodeError> {
    let mut input = Reader::new(bytes);
    check_format(&mut input)?;
    let mut id = || -> Result<Option<LogId>, DecodeError> {
        let present = bool::get(&mut input)?;
        let id = get_log_id(&mut input)?;
        Ok(present.then_some(id))
    };
    let last_log_id = id()?;
    let membership_id = id()?;
    let membership = get_membership(&mut input)?;
    input.finish()?;
    Ok(SnapshotMeta { last_log_id, last_membership: StoredMembership::new(membership_id, membership) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership() -> Membership {
        let members = (1..=3).map(|id| (id, Member { node: id * 10 })).collect::<BTreeMap<_, _>>();
        Membership::new(vec![[1, 2].into(), [2, 3].into()], members).unwrap()
    }

    #[test]
    fn entries_votes_and_metas_come_back_from_their_bytes() {
        let payloads = [
            openraft::EntryPayload::Blank,
            openraft::EntryPayload::Normal(Command::new(Bytes::from_static(b"put"))),
            openraft::EntryPayload::Normal(Command::new(Bytes::new())),
            openraft::EntryPayload::Membership(membership()),
        ];
        for payload in payloads {
            let entry = Entry { log_id: log_id(3, 9), payload };
            let bytes = encode_entry(&entry);
            assert_eq!(decode_entry(9, &bytes).unwrap(), entry);
            for cut in 0..bytes.len().min(10) {
                assert!(decode_entry(9, &bytes.slice(..cut)).is_err());
            }
        }
        for vote in [Vote::new(4, 2), Vote::new_committed(5, 1)] {
            assert_eq!(decode_vote(&encode_vote(&vote)).unwrap(), vote);
        }
        let meta = SnapshotMeta {
            last_log_id: Some(log_id(2, 7)),
            last_membership: StoredMembership::new(Some(log_id(1, 1)), membership()),
        };
        assert_eq!(decode_snapshot_meta(&encode_snapshot_meta(&meta)).unwrap(), meta);
        assert_eq!(decode_log_id(&encode_log_id(&log_id(2, 7))).unwrap(), log_id(2, 7));
    }
}
