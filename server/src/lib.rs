//! The node and the command line of Stoa: it wires the other crates together, and owns sockets, files and clocks.
//!
//! Start reading at [`node`] (what a process of the cluster is).

pub mod certs;
pub mod node;
