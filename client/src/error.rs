//! What can go wrong, one enum per family of calls. Each has a class that says what the caller should do, and a message
//! that says what was wrong, where, and what would be right.

use std::net::SocketAddr;
use std::time::Duration;

use stoa_env::TransportError;
use stoa_protocol::frame::FrameError;
use stoa_protocol::limits::{DEADLINE_US_MAX, READ_ROWS_MAX};
use stoa_protocol::{
    ClusterId, DecodeError, ErrorBody, ErrorClass, ErrorCode, KeyType, NodeId, PartitionId, StorageError,
};

/// One request that gave no usable answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The transport gave no answer.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The node refused.
    #[error("{from} refused: {error}")]
    Refused {
        /// Where the node listens.
        from: SocketAddr,
        /// What it says.
        error: ErrorBody,
    },
    /// The node is of another cluster.
    #[error("{from} belongs to cluster {found}, and this client is of cluster {wanted}: give it this cluster's seeds")]
    WrongCluster {
        /// Where the node listens.
        from: SocketAddr,
        /// The cluster of this client.
        wanted: ClusterId,
        /// The cluster of the node.
        found: ClusterId,
    },
    /// The bytes of the answer are no frame of this protocol.
    #[error("the answer of {from} is no frame of ours: {error}")]
    Frame {
        /// Where the node listens.
        from: SocketAddr,
        /// What is wrong.
        error: FrameError,
    },
    /// The answer is not one to the request.
    #[error("the answer of {from} does not fit the request: {what}")]
    Unfit {
        /// Where the node listens.
        from: SocketAddr,
        /// What is wrong.
        what: String,
    },
    /// The request is larger than a frame.
    #[error("the request has {bytes} bytes, over the limit of {limit}: ask for less at once")]
    TooLarge {
        /// Bytes of its body.
        bytes: usize,
        /// The largest allowed body.
        limit: usize,
    },
}

impl CallError {
    /// What the caller should do.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Transport(TransportError::TooLarge { .. }) | Self::TooLarge { .. } => ErrorClass::Reject,
            // Another node may be who it should be.
            Self::Transport(_) => ErrorClass::Retry,
            Self::Refused { error, .. } => error.code.class(),
            Self::WrongCluster { .. } => ErrorClass::Reject,
            Self::Frame { .. } | Self::Unfit { .. } => ErrorClass::Redirect,
        }
    }

    /// The error as a node would say it.
    pub fn to_body(&self) -> ErrorBody {
        let code = match self {
            Self::Refused { error, .. } => return error.clone(),
            Self::WrongCluster { .. } => ErrorCode::WrongCluster,
            Self::TooLarge { .. } | Self::Transport(TransportError::TooLarge { .. }) => ErrorCode::TooLarge,
            Self::Transport(TransportError::NoRoom { .. } | TransportError::AnswerDropped { .. }) => {
                ErrorCode::Overloaded
            }
            Self::Transport(_) | Self::Frame { .. } | Self::Unfit { .. } => ErrorCode::NoQuorum,
        };
        ErrorBody::new(code, self.to_string())
    }

    /// Whether the node may have acted on the request all the same.
    pub fn leaves_outcome_open(&self) -> bool {
        match self {
            Self::Transport(
                TransportError::NotSent { .. } | TransportError::Untrusted { .. } | TransportError::NoRoom { .. },
            ) => false,
            // Of what was too large: it may have been the answer.
            Self::Transport(
                TransportError::Broken { .. }
                | TransportError::TimedOut { .. }
                | TransportError::AnswerDropped { .. }
                | TransportError::TooLarge { .. },
            ) => true,
            Self::Frame { .. } | Self::Unfit { .. } => true,
            Self::Refused { error, .. } => crate::retry::leaves_outcome_open(error.code),
            Self::WrongCluster { .. } | Self::TooLarge { .. } => false,
        }
    }

    /// The node's own words, if it refused.
    pub fn refusal(&self) -> Option<&ErrorBody> {
        match self {
            Self::Refused { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// Why there is no connection to a cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// No address was given.
    #[error("no seed was given; name the address of at least one node of the cluster, IP:PORT")]
    NoSeeds,
    /// No seed answered in time.
    #[error("none of {seeds:?} answered with a map within {waited:?}; the last said: {last}")]
    NotReached {
        /// The seeds tried.
        seeds: Vec<SocketAddr>,
        /// How long.
        waited: Duration,
        /// What the last attempt met.
        last: CallError,
    },
    /// A seed refused for good.
    #[error("the cluster refuses this client: {0}")]
    Refused(CallError),
    /// This client's own certificate or socket is not usable.
    #[error("the client's end of the connection cannot be set up: {reason}")]
    Local {
        /// What is wrong.
        reason: String,
    },
}

impl ConnectError {
    /// What the caller should do.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NotReached { .. } => ErrorClass::Retry,
            Self::NoSeeds | Self::Refused(_) | Self::Local { .. } => ErrorClass::Reject,
        }
    }
}

/// Why rows cannot be asked for or written: the caller's mistake, named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowsError {
    /// A row has another number of values than there are columns.
    #[error("row {row} has {given} values, and the columns are {}: give one value for each", columns.join(", "))]
    Count {
        /// The row.
        row: usize,
        /// Values given.
        given: usize,
        /// The columns.
        columns: Vec<String>,
    },
    /// More rows than one call may have.
    #[error("{rows} rows are over the limit of {READ_ROWS_MAX} a call: ask for them in several calls")]
    TooMany {
        /// Rows given.
        rows: usize,
    },
    /// A key column is missing.
    #[error("the rows have no column {column}; {of} needs the key columns {}", wanted.join(", "))]
    Missing {
        /// The column.
        column: String,
        /// The view or group.
        of: String,
        /// All columns it needs.
        wanted: Vec<String>,
    },
    /// A column is not a key column of the view.
    #[error("{of} has no key column {column}; its key columns are {}", wanted.join(", "))]
    Unknown {
        /// The column.
        column: String,
        /// The view or group.
        of: String,
        /// All columns it has.
        wanted: Vec<String>,
    },
    /// A column is given twice.
    #[error("column {column} is given twice; give each key column once")]
    Twice {
        /// The column.
        column: String,
    },
    /// A value does not fit its column.
    #[error("row {row}, key column {column} ({ty}): {why}")]
    Key {
        /// The row.
        row: usize,
        /// The column.
        column: String,
        /// The column's type.
        ty: KeyType,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// A key's columns are too long together.
    #[error("row {row}: the key ({}) has {bytes} bytes, over the limit of {limit}", columns.join(", "))]
    KeyTooLong {
        /// The row.
        row: usize,
        /// The columns of the key.
        columns: Vec<String>,
        /// Canonical bytes.
        bytes: usize,
        /// The largest number of bytes.
        limit: usize,
    },
    /// A value cannot be kept in its feature's storage.
    #[error("row {row}, feature {feature}: {why}")]
    Storage {
        /// The row.
        row: usize,
        /// The feature.
        feature: String,
        /// What is wrong, and what would be right.
        why: StorageError,
    },
    /// A value is not of its feature's type.
    #[error("row {row}, feature {feature}: {why}")]
    Value {
        /// The row.
        row: usize,
        /// The feature.
        feature: String,
        /// What is wrong, and what would be right.
        why: String,
    },
}

/// Why a read gave no answer at all. Single values that could not be read do not fail a read; they are `Unavailable`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The rows do not fit the view.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// The deadline is not one that a read may have.
    #[error("a deadline of {given:?}; it may be up to {} s, and longer than nothing", DEADLINE_US_MAX / 1_000_000)]
    Deadline {
        /// The deadline given.
        given: Duration,
    },
    /// So many reads of this client are under way; nothing was asked.
    #[error("about {under_way} reads of this client are under way, which is as many as may be; pause and ask again")]
    Overloaded {
        /// How many may be.
        under_way: u64,
    },
    /// The name is not one of a view.
    #[error(transparent)]
    Name(#[from] DecodeError),
    /// The view's definition contradicts itself or the map; a newer one may not.
    #[error("view {view}: {what}")]
    View {
        /// The view.
        view: String,
        /// What is wrong.
        what: String,
    },
    /// The position is of another life of the partition set, from before a restore: it can never be reached.
    #[error(
        "the position asks for partition {partition} of incarnation {given}, and the cluster is at {current}: \
         the data was restored since; read without it"
    )]
    PositionLost {
        /// The partition.
        partition: PartitionId,
        /// Incarnation in the position.
        given: u32,
        /// Incarnation in the map.
        current: u32,
    },
    /// A node rejects the request, and every other would.
    #[error("reading {view}: {error}")]
    Rejected {
        /// The view.
        view: String,
        /// What the node said.
        error: ErrorBody,
    },
    /// The view's definition could not be fetched in time.
    #[error("the definition of {view} could not be fetched within {waited:?}; the last attempt: {last}")]
    Unreachable {
        /// The view.
        view: String,
        /// How long.
        waited: Duration,
        /// What the last attempt met.
        last: Box<CallError>,
    },
}

impl ReadError {
    /// What the caller should do.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Unreachable { .. } | Self::Overloaded { .. } => ErrorClass::Retry,
            Self::Rejected { error, .. } => error.code.class(),
            _ => ErrorClass::Reject,
        }
    }
}

/// Why a batch was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The rows do not fit the group.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// The deadline is not one that a call may have.
    #[error("a deadline of {given:?}; it may be up to {} s, and longer than nothing", DEADLINE_US_MAX / 1_000_000)]
    Deadline {
        /// The deadline given.
        given: Duration,
    },
    /// So many writes of this client are under way; nothing was sent.
    #[error(
        "about {under_way} writes of this client are under way, which is as many as may be; pause and send it again"
    )]
    Overloaded {
        /// How many may be.
        under_way: u64,
    },
    /// The name is not one of a group.
    #[error(transparent)]
    Name(#[from] DecodeError),
    /// The map has no such partition, or none at all for the group.
    #[error("{what}; the map is version {map_version}: ask again when the partition set is formed")]
    NoPartition {
        /// What is missing.
        what: String,
        /// The version of the map.
        map_version: u64,
    },
    /// An earlier batch of the same partition failed, so this one was not sent.
    #[error("the batch was not sent, because the one before it for partition {partition} failed")]
    Skipped {
        /// The partition.
        partition: PartitionId,
    },
    /// Other calls of the same writer were writing to the partition all the time, so the batch was not sent.
    #[error("other calls of this writer have kept partition {partition} for {waited:?}, so the batch was not sent")]
    Busy {
        /// The partition.
        partition: PartitionId,
        /// How long.
        waited: Duration,
    },
    /// The group cannot be opened.
    #[error("opening {group}: {error}")]
    Group {
        /// The group.
        group: String,
        /// What the node said.
        error: ErrorBody,
    },
    /// The batch was refused for good and not carried out.
    #[error("the write was refused: {0}")]
    Rejected(Box<CallError>),
    /// The batch was not carried out within the deadline, and will not be.
    #[error("the write was not taken within {waited:?} and {attempts} attempts; the last: {last}")]
    NotTaken {
        /// How long.
        waited: Duration,
        /// Attempts made.
        attempts: u32,
        /// What the last attempt met.
        last: Box<CallError>,
    },
    /// The batch may have been carried out, or may yet be.
    #[error(
        "whether the write happened is not known after {waited:?}: {last}; with a writer session it may be sent again \
         and is applied once"
    )]
    OutcomeUnknown {
        /// How long.
        waited: Duration,
        /// What the last attempt met.
        last: Box<CallError>,
    },
}

impl WriteError {
    /// What the caller should do.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NoPartition { .. } | Self::Skipped { .. } | Self::Busy { .. } => ErrorClass::Retry,
            Self::NotTaken { .. } | Self::OutcomeUnknown { .. } | Self::Overloaded { .. } => ErrorClass::Retry,
            Self::Rejected(error) => error.class(),
            Self::Group { error, .. } => error.code.class(),
            Self::Rows(_) | Self::Deadline { .. } | Self::Name(_) => ErrorClass::Reject,
        }
    }

    /// Whether the batch may have been, or may yet be, applied.
    pub fn may_have_happened(&self) -> bool {
        matches!(self, Self::OutcomeUnknown { .. })
    }
}

/// Why an administrative call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// The deadline is not one that a call may have.
    #[error("a deadline of {given:?}; it may be up to {} s, and longer than nothing", DEADLINE_US_MAX / 1_000_000)]
    Deadline {
        /// The deadline given.
        given: Duration,
    },
    /// The map has no such node.
    #[error("the cluster has no node {node}; it has {}", known.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    NoNode {
        /// The node.
        node: NodeId,
        /// The nodes of the map.
        known: Vec<NodeId>,
    },
    /// The call was refused for good.
    #[error("{what} was refused: {error}")]
    Rejected {
        /// The call.
        what: &'static str,
        /// What the node said.
        error: Box<CallError>,
    },
    /// No node carried it out in time. Definitions may be applied again: what stands there already is left alone.
    #[error("{what} was not done within {waited:?} and {attempts} attempts; the last: {last}")]
    NotDone {
        /// The call.
        what: &'static str,
        /// How long.
        waited: Duration,
        /// Attempts made.
        attempts: u32,
        /// What the last attempt met.
        last: Box<CallError>,
    },
}

impl AdminError {
    /// What the caller should do.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NotDone { .. } => ErrorClass::Retry,
            Self::Rejected { error, .. } => error.class(),
            Self::Deadline { .. } | Self::NoNode { .. } => ErrorClass::Reject,
        }
    }
}
