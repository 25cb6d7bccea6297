//! Every limit of the protocol, with its reason. A limit is part of the protocol: both ends check it.

/// Bytes of a whole frame. One frame is one message; 8 MiB carries a row batch at its limit and 1,000 rows of a wide
/// view with room to spare, and bounds what a peer can make us hold.
pub const FRAME_BYTES_MAX: usize = 8 << 20;

/// Bytes of a row batch, hence of a log entry: a quarter of a frame, so that an append of several entries fits one.
pub const BATCH_BYTES_MAX: usize = 2 << 20;

/// Rows of a row batch: bounds the time one apply takes (about 10 ms).
pub const BATCH_ROWS_MAX: usize = 16_384;

/// Rows of one multi-get. Ranking asks for hundreds; beyond this a caller pages.
pub const READ_ROWS_MAX: usize = 4_096;

/// Sections (one partition and feature group each) of one request to one node.
pub const READ_SECTIONS_MAX: usize = 4_096;

/// Key columns of an entity.
pub const KEY_COLUMNS_MAX: usize = 8;

/// Bytes of one String or Binary key column.
pub const KEY_COLUMN_BYTES_MAX: usize = 1_024;

/// Canonical bytes of a whole key.
pub const KEY_BYTES_MAX: usize = 4_096;

/// Features of one group.
pub const GROUP_FEATURES_MAX: usize = 1_024;

/// Names of a feature beside its first one: enough to rename it every year.
pub const FEATURE_ALIASES_MAX: usize = 16;

/// Bytes of the defaults of all features of a group: as many as a row of fixed values has, for zeros of several embeddings.
pub const DEFAULTS_BYTES_MAX: usize = ROW_FIXED_BYTES_MAX;

/// Features of one view.
pub const VIEW_FEATURES_MAX: usize = 2_048;

/// Bytes of one String, Binary, Json or Array value.
pub const VALUE_BYTES_MAX: usize = 64 << 10;

/// Items of a FixedArray: the largest embeddings in use have 4,096.
pub const FIXED_ARRAY_ITEMS_MAX: usize = 4_096;

/// Bytes of all fixed-width values of one row, validity and event time apart.
pub const ROW_FIXED_BYTES_MAX: usize = 64 << 10;

/// Bytes of a name of a project, group, view, feature or zone.
pub const NAME_BYTES_MAX: usize = 64;

/// Bytes of a description.
pub const DESCRIPTION_BYTES_MAX: usize = 1_024;

/// Bytes of the message of an error.
pub const ERROR_MESSAGE_BYTES_MAX: usize = 2_048;

/// Partitions of one partition set.
pub const SET_PARTITIONS_MAX: usize = 4_096;

/// Nodes that a cluster has at the most.
pub const NODES_MAX: usize = 1_024;

/// Writer sessions that one partition remembers; the one unused longest is forgotten first.
pub const WRITER_SESSIONS_MAX: usize = 1_024;

/// How far an event time may lie ahead of the leader's clock, in microseconds: 5 minutes. An event from 2099 would
/// block its key for ever.
pub const EVENT_FUTURE_US_MAX: i64 = 5 * 60 * 1_000_000;

/// How long a delete keeps older events out unless the group says otherwise, in microseconds: 7 days.
pub const LATE_HORIZON_US_DEFAULT: i64 = 7 * 24 * 3_600 * 1_000_000;

/// The shortest time to live of a group's rows, in microseconds: 1 second. Replicas come to know the time of their partition
/// with its log, so that a shorter one would say little.
pub const TTL_US_MIN: i64 = 1_000_000;

/// The longest time to live of a group's rows, in microseconds: 3,650 days. Whoever wants them for longer wants them for
/// ever, which is what a group without a time to live says.
pub const TTL_US_MAX: i64 = 3_650 * 24 * 3_600 * 1_000_000;

/// Rows and tombstones that one command of a partition's log removes: bounds the time that its apply takes, as
/// [`BATCH_ROWS_MAX`] does that of a batch.
pub const SWEEP_ROWS_MAX: u32 = 16_384;

/// Time a read may take unless the caller says otherwise, in microseconds.
pub const READ_DEADLINE_US_DEFAULT: u64 = 50_000;

/// Longest time that any request may ask for, in microseconds.
pub const DEADLINE_US_MAX: u64 = 60_000_000;

const _: () = {
    assert!(BATCH_BYTES_MAX * 4 <= FRAME_BYTES_MAX, "an append of several entries must fit a frame");
    assert!(KEY_COLUMN_BYTES_MAX < KEY_BYTES_MAX, "a key at its column limit must fit a key");
    assert!(KEY_BYTES_MAX + VALUE_BYTES_MAX < BATCH_BYTES_MAX, "one row must fit a batch");
    assert!(ROW_FIXED_BYTES_MAX >= FIXED_ARRAY_ITEMS_MAX * 4, "one embedding must fit a row");
    assert!(GROUP_FEATURES_MAX <= u16::MAX as usize, "a feature is named by a u16");
    assert!(VALUE_BYTES_MAX < 1 << 24, "the arena's references carry 24 bits of length");
    assert!(TTL_US_MIN > 0 && TTL_US_MIN <= TTL_US_MAX);
    assert!(READ_DEADLINE_US_DEFAULT <= DEADLINE_US_MAX);
};
