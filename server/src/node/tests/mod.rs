//! A node's assembly under test: whole nodes in one process, with real files and a network in memory.

mod cluster;
mod cuts;
mod expiry;
mod forming;
mod hosting;
mod lane_orders;
mod reads;
mod root;
mod schemas;
mod versions;
