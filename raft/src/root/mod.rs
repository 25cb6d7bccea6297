//! What the cluster knows of itself: nodes, zones, partition sets, replicas, the catalog, the cluster version. One Raft
//! group, the root group, keeps it; nodes and clients work from copies, and from the last copy when the group is down.
//!
//! - [`state`]: the state and its bytes.
//! - [`command`]: what may change it.
//! - [`moves`]: replicas that give their place to others.
//! - [`catalog`]: definitions by names become definitions by numbers.
//! - [`RootMachine`]: the state under replication, with a watch for those who copy it.

pub mod catalog;
pub mod command;
pub mod moves;
pub mod state;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use stoa_protocol::codec::{DecodeError, Wire};
use stoa_protocol::{ClusterId, ErrorBody, ErrorCode, LogIndex};
use tokio::sync::watch;

pub use command::RootCommand;
pub use state::RootState;

use crate::machine::{ApplyError, Machine, SnapshotChunk, SnapshotEnds, SnapshotPart};
use crate::snapshots::CHUNK_BYTES_MAX;

/// The root group's state under replication.
pub struct RootMachine {
    state: RootState,
    /// The highest cluster version that this node speaks.
    speaks: u32,
    publish: watch::Sender<Arc<RootState>>,
}

impl RootMachine {
    /// The state of a cluster that has not been formed, and a watch of what it becomes. What belongs to a cluster version
    /// above `speaks` it does not understand.
    pub fn new(cluster: ClusterId, speaks: u32) -> (Self, watch::Receiver<Arc<RootState>>) {
        let state = RootState::new(cluster);
        let (publish, watch) = watch::channel(Arc::new(state.clone()));
        (Self { state, speaks, publish }, watch)
    }

    /// The state as it was applied.
    pub fn state(&self) -> &RootState {
        &self.state
    }

    fn understands(&self, version: u32) -> Result<(), DecodeError> {
        match version <= self.speaks {
            true => Ok(()),
            false => Err(DecodeError::invalid("the cluster version", version, format_args!("up to {}", self.speaks))),
        }
    }

    fn publish(&self) {
        self.publish.send_replace(Arc::new(self.state.clone()));
    }
}

impl Machine for RootMachine {
    fn apply(&mut self, _index: LogIndex, command: &Bytes) -> Result<Bytes, ApplyError> {
        let command = RootCommand::from_bytes(command).map_err(ApplyError::Unreadable)?;
        self.understands(command.version()).map_err(ApplyError::Unreadable)?;
        // Commands are taken whole or not at all: they change a copy.
        let mut next = self.state.clone();
        let answer = next.apply(&command)?;
        self.understands(next.cluster_version).map_err(ApplyError::Unreadable)?;
        if next != self.state {
            next.raise_version();
            next.check();
            self.state = next;
            self.publish();
        }
        Ok(answer.into())
    }

    fn skip(&mut self, _index: LogIndex) {}

    fn snapshot(&self, _base: Option<&SnapshotEnds>) -> Box<dyn Iterator<Item = io::Result<SnapshotPart>> + Send> {
        let bytes = Bytes::from(self.state.to_bytes());
        let starts = (0..bytes.len()).step_by(CHUNK_BYTES_MAX);
        Box::new(starts.map(move |at| {
            let chunk = bytes.slice(at..bytes.len().min(at + CHUNK_BYTES_MAX));
            Ok(SnapshotPart::Chunk(chunk))
        }))
    }

    fn restore(&mut self, chunks: Vec<SnapshotChunk>) -> io::Result<()> {
        let all = chunks.iter().map(|chunk| &chunk.bytes[..]).collect::<Vec<_>>().concat();
        let bad =
            |why: String| std::io::Error::new(std::io::ErrorKind::InvalidData, format!("the root snapshot: {why}"));
        let state = RootState::from_bytes(&all).map_err(|error| bad(error.to_string()))?;
        if state.map.cluster != self.state.map.cluster {
            return Err(bad(format!("it is of cluster {}, not {}", state.map.cluster, self.state.map.cluster)));
        }
        self.understands(state.cluster_version).map_err(|error| bad(error.to_string()))?;
        self.state = state;
        self.publish();
        Ok(())
    }
}

pub(crate) fn refuse<T>(code: ErrorCode, message: impl Into<String>) -> Result<T, ErrorBody> {
    Err(ErrorBody::new(code, message))
}
