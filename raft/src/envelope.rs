//! Raft messages between nodes. The only file that names bincode: it encodes the calls; around them stands an envelope
//! of our own with a version, because bincode is positional and would misread another version's fields.
//!
//! ```text
//! u16 envelope version, u64 partition, u64 to replica, u64 from replica, then the call or answer
//! ```

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};
use stoa_protocol::codec::{DecodeError, Reader, Wire};
use stoa_protocol::limits::FRAME_BYTES_MAX;
use stoa_protocol::{PartitionId, ReplicaId};

use crate::snapshots::ChunkInfo;
use crate::types::{Command, StoaTypes, Vote};

/// Rises with every change of the calls, of openraft's types in them, or of the envelope.
pub const ENVELOPE_VERSION: u16 = 2;

/// Who means whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// The group.
    pub partition: PartitionId,
    /// The replica that is meant: another incarnation refuses the message.
    pub to: ReplicaId,
    /// The replica that sent it.
    pub from: ReplicaId,
}

/// A call from replica to replica.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum RaftCall {
    /// Log entries, or a heartbeat.
    Append(AppendEntriesRequest<StoaTypes>),
    /// Asks for a vote.
    Vote(VoteRequest<StoaTypes>),
    /// Asks whether a vote would be granted.
    PreVote(VoteRequest<StoaTypes>),
    /// Hands leadership over.
    Transfer(TransferLeaderRequest<StoaTypes>),
    /// Begins a snapshot, or goes on with it after an interruption; a transfer of another is dropped.
    SnapshotBegin {
        /// Names the transfer in the calls that follow.
        transfer: u64,
        /// The sender's vote.
        vote: Vote,
        /// The bytes of its meta data.
        meta: Vec<u8>,
        /// Its chunks.
        chunks: Vec<ChunkInfo>,
    },
    /// One chunk of a snapshot, in order.
    SnapshotChunk {
        /// The transfer.
        transfer: u64,
        /// Its place, from 0.
        number: u32,
        /// Its bytes.
        chunk: Command,
    },
    /// All chunks are there: install it.
    SnapshotEnd {
        /// The transfer.
        transfer: u64,
        /// The sender's vote.
        vote: Vote,
    },
}

/// The answer to a call.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum RaftAnswer {
    /// To [`RaftCall::Append`].
    Append(AppendEntriesResponse<StoaTypes>),
    /// To [`RaftCall::Vote`] and [`RaftCall::PreVote`].
    Vote(VoteResponse<StoaTypes>),
    /// To [`RaftCall::Transfer`].
    Transfer(TransferLeaderResponse<StoaTypes>),
    /// To [`RaftCall::SnapshotBegin`] and [`RaftCall::SnapshotChunk`].
    SnapshotGoOn {
        /// The chunk that is wanted next.
        next: u32,
    },
    /// To [`RaftCall::SnapshotEnd`], or earlier: the snapshot is applied, or the sender deposed.
    SnapshotInstalled(SnapshotResponse<StoaTypes>),
    /// The call was not carried out, and why.
    Refused(String),
    /// To [`RaftCall::Append`]: the node's log has no room at the moment, and why. Nothing was taken; ask again soon.
    NoRoom(String),
}

impl RaftAnswer {
    /// Whether it says that a leader was followed: entries were appended, or a heartbeat was taken.
    pub fn is_followed(&self) -> bool {
        matches!(self, Self::Append(AppendEntriesResponse::Success | AppendEntriesResponse::PartialSuccess(_)))
    }
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<FRAME_BYTES_MAX>()
}

/// The bytes of an envelope and what is in it.
pub fn seal<T: Serialize>(envelope: &Envelope, message: &T) -> Vec<u8> {
    let mut out = Vec::new();
    ENVELOPE_VERSION.put(&mut out);
    envelope.partition.put(&mut out);
    envelope.to.put(&mut out);
    envelope.from.put(&mut out);
    bincode::serde::encode_into_std_write(message, &mut out, config()).expect("writing to memory cannot fail");
    out
}

/// Who is meant, without reading the message.
pub fn open_envelope(bytes: &Bytes) -> Result<(Envelope, Bytes), DecodeError> {
    let mut input = Reader::new(bytes);
    let version = u16::get(&mut input)?;
    if version != ENVELOPE_VERSION {
        return Err(DecodeError::invalid("the version of a Raft message", version, ENVELOPE_VERSION));
    }
    let envelope =
        Envelope { partition: Wire::get(&mut input)?, to: Wire::get(&mut input)?, from: Wire::get(&mut input)? };
    Ok((envelope, bytes.slice(input.position()..)))
}

/// The message in an envelope.
pub fn open_message<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, DecodeError> {
    let bad = |why: String| DecodeError::invalid("a Raft message", why, "one of this version");
    let (message, read) = bincode::serde::decode_from_slice(bytes, config()).map_err(|error| bad(error.to_string()))?;
    if read != bytes.len() {
        return Err(DecodeError::Trailing { left: bytes.len() - read });
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Entry, log_id};

    #[test]
    fn calls_come_back_and_damage_is_an_error() {
        let envelope = Envelope { partition: PartitionId(7), to: ReplicaId(2), from: ReplicaId(1) };
        let entry = Entry {
            log_id: log_id(2, 5),
            payload: openraft::EntryPayload::Normal(Command::new(Bytes::from_static(b"rows"))),
        };
        let call = RaftCall::Append(AppendEntriesRequest {
            vote: Vote::new_committed(2, 1),
            prev_log_id: Some(log_id(1, 4)),
            entries: vec![entry],
            leader_commit: Some(log_id(1, 4)),
        });
        let bytes = Bytes::from(seal(&envelope, &call));
        let (back, message) = open_envelope(&bytes).unwrap();
        assert_eq!(back, envelope);
        let again: RaftCall = open_message(&message).unwrap();
        assert_eq!(format!("{again:?}"), format!("{call:?}"));
        for cut in 0..message.len() {
            assert!(open_message::<RaftCall>(&message[..cut]).is_err(), "cut at {cut}");
        }
        let mut other = bytes.to_vec();
        other[0] = 9;
        assert!(open_envelope(&other.into()).unwrap_err().to_string().contains("version"));
    }
}
