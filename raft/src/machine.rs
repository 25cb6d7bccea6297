//! What a Raft group replicates: a machine that applies commands in order and can be written to and read from chunks.
//! Two machines exist, a partition of the store and the root group's catalog.

use bytes::Bytes;
use stoa_protocol::{ErrorBody, LogIndex};

/// A deterministic machine: equal commands give equal state and equal replies on every replica.
///
/// `apply` cannot fail on what a user sent: it answers with a refusal, the same on every replica. A panic halts this
/// group on this node alone.
pub trait Machine: Send + Sync + 'static {
    /// Applies the command at `index`. Indices rise; entries without a command are [`Machine::skip`]ped.
    fn apply(&mut self, index: LogIndex, command: &Bytes) -> Result<Bytes, ErrorBody>;

    /// Notes that the entry at `index` had no command.
    fn skip(&mut self, index: LogIndex);

    /// The state at this moment as chunks, yielded one by one while commands go on being applied.
    fn snapshot(&self) -> Box<dyn Iterator<Item = Bytes> + Send>;

    /// Replaces the state by that of a snapshot. On an error the old state stays.
    fn restore(&mut self, chunks: &mut dyn Iterator<Item = std::io::Result<Bytes>>) -> std::io::Result<()>;
}
