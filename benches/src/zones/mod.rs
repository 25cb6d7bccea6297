//! Zones that are apart, on a machine whose kernel cannot delay packets: a delay around [`Transport`](stoa_env::Transport), in the
//! client and in every node, which run the same code as ever beneath it.
//!
//! | file | duty |
//! |---|---|
//! | `plan.rs` | which address is in which zone, and how far zones are apart |
//! | `line.rs` | waits to some microseconds, which the runtime's timer cannot |
//! | `delayed.rs` | a transport whose messages to other zones are delayed, each way |
//! | `node.rs` | `stoa-bench node`: a node over such a transport |
//!
//! A delay does not share the line: messages do not wait for each other, and none is lost. What a node costs while it delays,
//! some microseconds a message, is its own cost in no other run.

mod delayed;
mod line;
mod node;
mod plan;

pub use delayed::Delayed;
pub use node::BenchNode;
pub use plan::ZonePlan;
