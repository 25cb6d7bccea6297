//! What became of a command.

use stoa_protocol::ErrorBody;
use stoa_protocol::message::WriteAnswer;

use crate::RestoreError;

/// What became of a command: the same on every replica, but for damage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was to do.
    Noop,
    /// The group stands as defined.
    Defined,
    /// The batch was applied, now or before.
    Wrote(WriteAnswer),
    /// So many rows and tombstones were removed.
    Swept(u32),
    /// The command changed nothing but the partition's time. The reason follows from the log alone, so it may be
    /// answered.
    Refused(ErrorBody),
    /// Rows that the command touches still lie in the snapshot that the partition was restored from, and are damaged. Nothing was
    /// applied. This is true of this replica alone: it must stop, and be replaced.
    Damaged(RestoreError),
}
