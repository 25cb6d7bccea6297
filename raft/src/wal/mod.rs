//! The write-ahead log of a node: one for all its Raft groups, so that one sync acknowledges many groups.
//!
//! It knows groups by number and their entries, votes and positions as bytes. It must never know openraft, the store,
//! or what an entry says.
//!
//! What it promises:
//! - What was acknowledged is there after any crash. What was written and never synced is either made durable before
//!   [`Wal::open`] returns, or gone for good: nobody acts on bytes that a second crash may take away.
//! - Damage below a position that anything later attests as durable is never mistaken for the end of the log. The groups
//!   it may have hit are reported as [`Recovered::suspect`]; all others open.
//! - Entries that were admitted ([`Wal::admit`]) are not refused any more; what refuses them for want of room does so before
//!   anybody counts on them.
//! - The log's files come down again, whatever its groups do: what a quiet group still needs of an old segment is written
//!   again into the newest one, and the old one goes.
//! - A failed append or sync ends the log. After a failed sync nobody knows what the device holds, and asking again
//!   would get an answer that means nothing.
//!
//! How it does so, in the order of reading: `frame.rs` (bytes that say whose they are, where they stand, and what was
//! durable before them), `segment.rs` (files; a name that proves a durable beginning), `hard_state.rs` (what lets old
//! segments go), `queue.rs` and `writer.rs` (group commit), `writer/clean.rs` (old segments go), `replay.rs` and `recovery.rs` (back from bytes), and
//! [`Wal`] itself in `log.rs`. The bytes are drawn in docs/storage.md.
//!
//! What it does not do: repair anything from another copy (Raft does), compress, encrypt, or find rot in bytes that it
//! does not read between two starts. The frames of the last sync before a crash are attested by nothing later; damage
//! to them looks like a torn tail. [`Wal::close`] writes a mark to close that gap for orderly stops.

mod error;
mod frame;
mod hard_state;
mod in_time;
mod log;
mod options;
mod queue;
mod recovery;
mod replay;
mod room;
mod segment;
mod stats;
mod writer;

pub(crate) use error::is_full;
pub use error::{WalError, WalErrorClass};
pub use hard_state::{Suspicion, SuspicionCause};
pub use log::{Recovered, RecoveredGroup, Wal};
pub use options::{
    GROUPS_MAX, PAYLOAD_BYTES_MAX, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SMALL_BYTES_MAX, WalIdentity, WalOptions,
};
pub use room::Room;
pub use stats::WalStats;
