//! The node and the command line of Stoa: it wires the other crates together, and owns sockets, files and clocks.
//!
//! Start reading at [`node`] (what a process of the cluster is), then [`cli`] (what a person types).

pub mod certs;
pub mod cli;
pub mod config;
pub mod definitions;
pub mod demo;
pub mod load;
pub mod local_cluster;
pub mod node;
