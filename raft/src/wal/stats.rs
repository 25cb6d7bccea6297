//! What the log says about itself.

use std::time::Duration;

use stoa_protocol::message::LogHeight;

/// Figures of the log since it was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WalStats {
    /// Bytes in segment files.
    pub live_bytes: u64,
    /// The most there ever were.
    pub live_bytes_worst: u64,
    /// Segment files.
    pub segments: u64,
    /// Groups that need the oldest segment, the first few: a snapshot and a purge of these frees space.
    pub pinning: Vec<u64>,
    /// Syncs done.
    pub syncs: u64,
    /// Frames they made durable; divided by `syncs`, how well the group commit works.
    pub frames_synced: u64,
    /// The longest a sync took.
    pub sync_worst: Duration,
    /// Bytes waiting in the queue now, or being written.
    pub queue_bytes: u64,
    /// The most there ever were.
    pub queue_bytes_worst: u64,
    /// Bytes that were admitted and are not durable yet.
    pub admitted_bytes: u64,
    /// The most there ever were.
    pub admitted_bytes_worst: u64,
    /// The most groups that there ever were.
    pub groups_worst: u64,
    /// Segments whose live entries were written again so that they could go.
    pub segments_cleaned: u64,
    /// Whether the device is full and entries are refused.
    pub full: bool,
    /// How far the log reaches durably.
    pub height: LogHeight,
}
