//! What a Raft group replicates: a machine that applies commands in order and can be written to and read from chunks.
//! Two machines exist, a partition of the store and the root group's catalog.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use stoa_protocol::codec::DecodeError;
use stoa_protocol::{ErrorBody, LogIndex};
pub use stoa_store::SnapshotPart;

/// The first and the last chunk of a snapshot on disk.
#[derive(Debug, Clone)]
pub struct SnapshotEnds {
    /// The first.
    pub first: Bytes,
    /// The last.
    pub last: Bytes,
}

/// A chunk of a snapshot that a machine is restored from.
#[derive(Debug, Clone)]
pub struct SnapshotChunk {
    /// What the machine made, read or mapped.
    pub bytes: Bytes,
    /// Where it lies, or where it begins if it lies in several files: for people.
    pub file: PathBuf,
}

/// Why a committed command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApplyError {
    /// The machine refuses it, as every replica does: the proposer's answer. The replica goes on.
    Refused(ErrorBody),
    /// This replica's own copy of the state is damaged where the command touches it: nothing was applied, and the replica halts.
    Damaged(String),
    /// Its bytes mean nothing to this build: written by a newer one, or damaged beyond their checksums. Other replicas
    /// may be able to read them, so that going on without it would make this one differ: the replica halts.
    Unreadable(DecodeError),
}

impl ApplyError {
    /// Whether every replica comes to the same, whatever its version and its disk.
    pub fn is_deterministic(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

impl std::fmt::Display for ApplyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(f),
            Self::Damaged(what) => f.write_str(what),
            Self::Unreadable(error) => write!(f, "the command cannot be read: {error}"),
        }
    }
}

impl std::error::Error for ApplyError {}

impl From<ErrorBody> for ApplyError {
    fn from(error: ErrorBody) -> Self {
        Self::Refused(error)
    }
}

/// A deterministic machine: equal commands give equal state and equal replies on every replica.
///
/// `apply` cannot fail on what a user sent: it answers with a refusal, the same on every replica. A panic, or a command
/// that this build cannot read, halts this group on this node alone.
pub trait Machine: Send + Sync + 'static {
    /// Whether the machine finds damage in the chunks of a snapshot by itself, before it believes them. Then it is given them mapped
    /// and unread; else they are read, and compared with their checksums, before it is given them.
    const CHECKS_CHUNKS: bool = false;

    /// Applies the command at `index`. Indices rise; entries without a command are [`Machine::skip`]ped.
    fn apply(&mut self, index: LogIndex, command: &Bytes) -> Result<Bytes, ApplyError>;

    /// Notes that the entry at `index` had no command.
    fn skip(&mut self, index: LogIndex);

    /// The state at this moment as chunks, yielded one by one while commands go on being applied. Chunks of `base`, an earlier
    /// snapshot of this machine, may be named instead of made. After an error nothing comes, and there is no snapshot.
    fn snapshot(&self, base: Option<&SnapshotEnds>) -> Box<dyn Iterator<Item = io::Result<SnapshotPart>> + Send>;

    /// Replaces the state by that of a snapshot. On an error the old state stays. The machine may go on using the chunks, which
    /// nobody changes, and need not have looked at all of them yet.
    fn restore(&mut self, chunks: Vec<SnapshotChunk>) -> io::Result<()>;

    /// Takes in some of what the last restoring has left where it lies, about `rows` rows of it, and says whether more is left. An
    /// error is this replica's own, and halts it.
    fn thaw(&mut self, rows: usize) -> io::Result<bool> {
        let _nothing_is_left = rows;
        Ok(false)
    }

    /// Does some of what commands leave for quiet times, such as to give memory back; nothing that a command or a reader
    /// could see. Says whether there is more to do. A panic is as bad as one in `apply`.
    fn tidy(&mut self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use stoa_protocol::ClusterId;
    use stoa_protocol::codec::Wire;
    use stoa_store::StoreOptions;

    use super::*;
    use crate::partition::PartitionMachine;
    use crate::root::{RootCommand, RootMachine};

    #[test]
    fn what_cannot_be_read_is_told_from_what_every_replica_refuses() {
        let newer = Bytes::from_static(&[0xff; 24]);
        let (mut partition, view) =
            PartitionMachine::new(StoreOptions::default(), 1, std::sync::Arc::new(stoa_env::RealClock));
        let (mut root, state) = RootMachine::new(ClusterId(1), 1);
        let before = (view.digest(), state.borrow().clone());
        for error in [partition.apply(LogIndex(1), &newer), root.apply(LogIndex(1), &newer)].map(Result::unwrap_err) {
            assert!(!error.is_deterministic(), "{error}");
        }
        assert_eq!((view.digest(), state.borrow().clone()), before, "nothing was applied");
        let refused = root.apply(LogIndex(1), &RootCommand::RaiseVersion(0).to_bytes().into());
        assert!(refused.unwrap_err().is_deterministic());
    }
}
