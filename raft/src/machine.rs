//! What a Raft group replicates: a machine that applies commands in order and can be written to and read from chunks.
//! Two machines exist, a partition of the store and the root group's catalog.

use bytes::Bytes;
use stoa_protocol::codec::DecodeError;
use stoa_protocol::{ErrorBody, LogIndex};

/// Why a committed command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApplyError {
    /// The machine refuses it, as every replica does: the proposer's answer. The replica goes on.
    Refused(ErrorBody),
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
    /// Applies the command at `index`. Indices rise; entries without a command are [`Machine::skip`]ped.
    fn apply(&mut self, index: LogIndex, command: &Bytes) -> Result<Bytes, ApplyError>;

    /// Notes that the entry at `index` had no command.
    fn skip(&mut self, index: LogIndex);

    /// The state at this moment as chunks, yielded one by one while commands go on being applied.
    fn snapshot(&self) -> Box<dyn Iterator<Item = Bytes> + Send>;

    /// Replaces the state by that of a snapshot. On an error the old state stays.
    fn restore(&mut self, chunks: &mut dyn Iterator<Item = std::io::Result<Bytes>>) -> std::io::Result<()>;
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
