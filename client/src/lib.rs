//! The thin client of Stoa: it knows keys, the partition map and the deadline.
//!
//! It must never know: how rows are stored, Raft, or what a value means. What it decides (which replica is asked, when
//! another is asked beside it, when a node is left out) is decided by state machines without a clock; the thin async
//! edge around them sends frames.
//!
//! | file | duty |
//! |---|---|
//! | `plan.rs`, `rows.rs`, `split.rs`, `distinct.rs` | a view's needs; rows become sections, each entity once |
//! | `multi_get.rs` | one read as a state machine: replicas, hedges, failures, the deadline |
//! | `peers.rs`, `latency.rs`, `budget.rs` | how nodes do: percentiles, ejection, the budget of hedges |
//! | `routes.rs`, `leaders.rs`, `retry.rs` | nearest replicas; the search for a leader; pauses |
//! | `exchange.rs`, `shared.rs`, `housekeeper.rs` | one frame and its answer; the client's state; pings and maps |
//! | `client.rs`, `connect.rs` | first contact, over any transport; over QUIC |
//! | `view.rs`, `answer.rs` | reads; their columns |
//! | `writer.rs`, `group_writer.rs`, `admin.rs` | batches, many rows, administration |
//!
//! Start reading at [`Client`] and [`multi_get`].
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use stoa_client::{Client, ReadOptions, Rows, ValueStatus};
//! # use stoa_env::{OsEntropy, RealClock, Transport};
//! # use stoa_protocol::message::Caller;
//! # async fn example<T: Transport>(transport: T) -> Result<(), Box<dyn std::error::Error>> {
//! let caller = Caller { project: "shop".into(), principal: String::new() };
//! let seeds = vec!["10.0.0.1:7400".parse()?, "10.0.0.2:7400".parse()?];
//! let client = Client::with(transport, seeds, "zone-a", caller, Arc::new(RealClock), Arc::new(OsEntropy)).await?;
//!
//! let view = client.view("shop/rank_products@1").await?;
//! let mut rows = Rows::new(&["household_id", "product_id", "store_id"]);
//! for product in [1001, 1002, 1003] {
//!     rows.push(&[7.into(), product.into(), 3.into()])?;
//! }
//! let answer = view.get(&rows, &ReadOptions::default()).await?;
//! for column in answer.columns() {
//!     for row in 0..answer.rows() {
//!         match column.status(row) {
//!             ValueStatus::Present => println!("{} {row}: {}", column.name(), column.to_value(row)),
//!             other => println!("{} {row}: {other:?}", column.name()),
//!         }
//!     }
//! }
//! # Ok(()) }
//! ```

mod admin;
pub mod answer;
pub mod budget;
pub mod client;
mod connect;
mod distinct;
pub mod error;
mod exchange;
pub mod group_writer;
mod housekeeper;
pub mod latency;
pub mod leaders;
pub mod multi_get;
pub mod peers;
pub mod plan;
pub mod retry;
pub mod routes;
pub mod rows;
mod session_place;
mod shared;
pub mod split;
pub mod view;
pub mod writer;

pub use answer::{Column, ValueStatus, ViewAnswer};
pub use client::Client;
pub use error::{AdminError, CallError, ConnectError, ReadError, RowsError, WriteError};
pub use group_writer::{BatchResult, GroupWriter, WriteRow, WriterOptions};
pub use multi_get::{Hedging, ReadStats};
pub use rows::Rows;
pub use shared::{READS_MAX, WRITES_MAX};
pub use stoa_protocol::read::{ConfirmBy, OnStale, ReadLevel};
pub use view::{ReadOptions, View};
pub use writer::{Group, OnLostAnswer, WriteOptions};
