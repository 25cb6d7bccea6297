//! Replication: the node's write-ahead log, replicas of groups over it, and the root group's state. It is the only crate
//! that names openraft, and none of openraft's types cross its border.
//!
//! It must never know: sockets, TLS, clients, the command line. Bytes reach other nodes through
//! [`Transport`](stoa_env::Transport), files through [`Disk`](stoa_env::Disk), time through [`Clock`](stoa_env::Clock).
//!
//! Start reading at [`replica`] (what openraft is wrapped in, and why), then [`wal`] (what is believed after a crash),
//! then [`root`] (what the cluster knows of itself).

mod budget;
mod cuts;
mod envelope;
mod life;
mod log;
mod machine;
mod network;
mod options;
mod partition;
mod partition_time;
mod peers;
mod promise;
mod reconfigure;
mod replica;
pub mod root;
mod runtime;
mod seam;
mod snapshots;
mod standing;
mod state_machine;
#[cfg(test)]
mod storage_suite;
mod transfer;
mod types;
mod vouched;
pub mod wal;

pub use budget::{NODE_BYTES_MAX, NodeBudget, PROPOSALS_MAX};
pub use cuts::CutBounds;
pub use envelope::{Envelope, RaftAnswer, RaftCall, open_envelope, open_message, seal};
pub use life::Life;
pub use log::{GroupLog, LogSize};
pub use machine::{ApplyError, Machine, SnapshotChunk, SnapshotEnds, SnapshotPart};
pub use options::{RaftTiming, TimingError};
pub use partition::{PartitionMachine, PartitionView};
pub use peers::{CallError, Peers};
pub use promise::Promise;
pub use reconfigure::Members;
pub use replica::{Replica, ReplicaEnvironment};
pub use runtime::NodeContext;
pub use standing::{LogPlace, Standing};
pub use types::Reply;
pub use vouched::Vouched;
