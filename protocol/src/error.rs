//! Error codes on the wire. A code's class tells a client what to do without knowing the code: a code from a newer
//! version still has its class in its number.

use std::fmt;

use crate::codec::{DecodeError, Reader, Wire};
use crate::ids::{MapVersion, NodeId};
use crate::limits::ERROR_MESSAGE_BYTES_MAX;

/// What the caller should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// Ask again, here or elsewhere, after a pause.
    Retry,
    /// Ask another node; the answer may say which.
    Redirect,
    /// The request is wrong and will stay wrong.
    Reject,
    /// The node cannot go on; ask another, tell the operator.
    Stop,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal),* $(,)?) => {
        /// What went wrong. The thousands are the class: 1 retry, 2 redirect, 3 reject, 4 stop.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
            /// A code of a newer version.
            Unknown(u16),
        }

        impl ErrorCode {
            /// Every code that this version knows.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$name),*];

            /// The number on the wire.
            pub fn number(self) -> u16 {
                match self { $(Self::$name => $number,)* Self::Unknown(number) => number }
            }

            /// The code of a number.
            pub fn from_number(number: u16) -> Self {
                match number { $($number => Self::$name,)* other => Self::Unknown(other) }
            }
        }
    };
}

codes! {
    /// The node is busy; pause as long as the answer says.
    Overloaded = 1001,
    /// The time that the caller gave is used up.
    DeadlineExceeded = 1002,
    /// The partition has no leader, or it cannot reach a quorum, at the moment.
    NoQuorum = 1003,
    /// The replica has not replayed its log yet, or has not caught up since its start.
    NotReady = 1004,
    /// The partition has not learnt this group or schema version yet.
    SchemaNotReady = 1005,
    /// The log's disk is full; reads go on.
    DiskFull = 1006,
    /// The outcome of a write is not known: it may have happened or may yet happen.
    OutcomeUnknown = 1007,
    /// The replica has not applied the position asked for within the time given.
    NotCaughtUp = 1008,
    /// The cluster has not been formed yet: its root group has no leader or no partitions.
    NotFormed = 1009,
    /// This node does not lead the partition.
    NotLeader = 2001,
    /// This node has no replica of the partition: the caller's map is old.
    NotHere = 2002,
    /// The replica is, or may be, further behind than the read allows; another one may not be.
    Stale = 2003,
    /// The request is not of the form it should have.
    BadRequest = 3001,
    /// The request is of another cluster.
    WrongCluster = 3002,
    /// The protocol version is not spoken here.
    WrongVersion = 3003,
    /// There is no such project, entity, group, feature, view, key column, node, partition, replica or move.
    NotFound = 3004,
    /// A key is of the wrong type, empty or too long.
    BadKey = 3005,
    /// A value is not of its feature's type.
    BadValue = 3006,
    /// More than a limit allows.
    TooLarge = 3007,
    /// The batch names another schema version than the partition's.
    SchemaMismatch = 3008,
    /// An event time lies too far in the future.
    EventInFuture = 3009,
    /// The caller has not the right.
    Forbidden = 3010,
    /// A definition contradicts one that exists.
    Conflict = 3011,
    /// A batch of a writer session comes out of order.
    SessionGap = 3012,
    /// The node's identity is not the one the cluster knows.
    WrongIdentity = 3013,
    /// A batch of a writer session has the number of another one that was applied.
    SessionConflict = 3014,
    /// A replica can be replaced by one in its own zone alone: a voter in each of three zones.
    WrongZone = 3015,
    /// A replica of the partition is being replaced; one at a time.
    MoveUnderWay = 3016,
    /// The replica halted after a fault that must not be passed over.
    Halted = 4001,
    /// The node's log has failed; the node must be restarted.
    LogFailed = 4002,
    /// The replica is out on this node: it did not start, or it halted before the request came, which was not carried out.
    ReplicaOut = 4003,
}

impl ErrorCode {
    /// What the caller should do. An unknown class is treated as a rejection.
    pub fn class(self) -> ErrorClass {
        match self.number() / 1000 {
            1 => ErrorClass::Retry,
            2 => ErrorClass::Redirect,
            4 => ErrorClass::Stop,
            _ => ErrorClass::Reject,
        }
    }
}

impl Wire for ErrorCode {
    fn put(&self, out: &mut Vec<u8>) {
        self.number().put(out);
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self::from_number(u16::get(input)?))
    }
}

/// An answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ErrorBody {
    /// What went wrong.
    pub code: ErrorCode,
    /// What was wrong, where, and what would be right; for people.
    pub message: String,
    /// How long to wait before asking again, in milliseconds; 0 if the node cannot say.
    pub retry_after_ms: u32,
    /// Who leads, if the node knows.
    pub leader: Option<NodeId>,
    /// The version of the map that this node has.
    pub map_version: MapVersion,
}
crate::wire_struct!(ErrorBody { code, message, retry_after_ms, leader, map_version });

impl ErrorBody {
    /// An error with a message, which is cut at [`ERROR_MESSAGE_BYTES_MAX`].
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > ERROR_MESSAGE_BYTES_MAX {
            let cut = (0..=ERROR_MESSAGE_BYTES_MAX).rev().find(|&at| message.is_char_boundary(at)).unwrap_or(0);
            message.truncate(cut);
        }
        Self { code, message, retry_after_ms: 0, leader: None, map_version: MapVersion(0) }
    }
}

impl fmt::Display for ErrorBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?} {})", self.message, self.code, self.code.number())
    }
}

impl From<DecodeError> for ErrorBody {
    fn from(error: DecodeError) -> Self {
        Self::new(ErrorCode::BadRequest, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_back_from_their_numbers_and_unknown_ones_keep_their_class() {
        for &code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_number(code.number()), code);
        }
        assert_eq!(ErrorCode::from_number(1999).class(), ErrorClass::Retry);
        assert_eq!(ErrorCode::from_number(9000).class(), ErrorClass::Reject);
        assert_eq!(ErrorCode::NotLeader.class(), ErrorClass::Redirect);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let body = ErrorBody::new(ErrorCode::BadKey, "é".repeat(ERROR_MESSAGE_BYTES_MAX));
        assert!(body.message.len() <= ERROR_MESSAGE_BYTES_MAX);
        assert_eq!(ErrorBody::from_bytes(&body.to_bytes()).unwrap(), body);
    }
}
