//! The whole cluster in one thread under a seed: the node's assembly, Raft, store and client as they are shipped, on
//! simulated time, network, disks and clocks. It must never be known to the product: nothing depends on it, and no code
//! of the product asks whether it is simulated.
//!
//! Start reading at [`run`]; docs/simulation.md tells how to run, replay and read a trace.

pub mod bugs;
pub mod chance;
pub mod clock;
pub mod disk;
pub mod faults;
pub mod history;
pub mod judges;
pub mod links;
pub mod log;
pub mod machine;
pub mod net;
pub mod observe;
pub mod panics;
pub mod plan;
pub mod revive;
pub mod rows;
pub mod run;
pub mod scenarios;
pub mod trace;
pub mod workload;
pub mod world;
