//! The outside world of Stoa, in four small traits, each beside its real implementation: [`Transport`] (messages),
//! [`Disk`] (files), [`Clock`] (time) and [`Entropy`] (chance). No other crate opens a file of the node's data
//! directory, opens a socket, or asks the time; the simulator brings the other implementations.
//!
//! It must never know: Raft, the store, the layout of any message. Bytes go in and out.
//!
//! What nodes and clients sleep by is [`timer`]. What a node counts of its own bounds is here too ([`Bounds`]), since all
//! that are bounded can reach it.
//!
//! Start reading at [`Clock`], then `disk/mod.rs` and `transport/mod.rs`.

pub mod bounds;
pub mod clock;
pub mod disk;
pub mod entropy;
pub mod task;
pub mod timer;
pub mod transport;

pub use bounds::{Bounded, Bounds, Gauge, Hold, Taken};
pub use clock::{BootTime, Clock, RealClock, WallTime};
pub use disk::{Disk, DiskFile, RealDisk};
pub use entropy::{Entropy, OsEntropy};
pub use stoa_planted::planted;
pub use task::{JoinSet, Process, TaskGroup, spawn};
pub use timer::{Elapsed, sleep, timeout};
pub use transport::credentials::{Credentials, CredentialsError};
pub use transport::quic::{BindError, FRAME_BYTES_MAX, QuicOptions, QuicTransport};
pub use transport::{Channel, Handler, Peer, PeerIdentity, Transport, TransportError};
