//! What became of a command.

use stoa_protocol::ErrorBody;
use stoa_protocol::message::WriteAnswer;

/// What became of a command: the same on every replica.
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
}
