//! What was asked for and what was promised: writers that keep a book, and the judgement of what is read afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::ensure;
use stoa::local_cluster::{LocalCluster, ZONES};
use stoa_client::Client;
use stoa_env::{QuicTransport, TaskGroup};
use stoa_protocol::PartitionId;

use crate::items::{read, rows, writer};
use crate::replicas::{self, equal_digests, serves};
use crate::wait::until;

/// Items that each writer writes again and again, all in one call.
pub const ITEMS_PER_WRITER: i64 = 16;
/// Items after the written ones that a judgement reads too: nobody may have invented them.
const UNWRITTEN: i64 = 50;

/// The book. For each item: how often it was sent, and the highest number that was acknowledged.
#[derive(Default)]
pub struct Ledger(Mutex<Book>);

#[derive(Default)]
struct Book {
    attempted: BTreeMap<i64, i64>,
    acknowledged: BTreeMap<i64, i64>,
    /// Acknowledged batches of each partition.
    batches: BTreeMap<PartitionId, u64>,
    /// The last batch that was not acknowledged, and why.
    last_failure: String,
}

impl Ledger {
    fn open(&self) -> MutexGuard<'_, Book> {
        self.0.lock().expect("nobody panics while holding the book")
    }

    /// One writer for each client; each has items of its own, the same at every call. They write until their group is
    /// dropped or aborted.
    pub fn start_writers(self: &Arc<Self>, clients: &[Client<QuicTransport>]) -> TaskGroup {
        let tasks = TaskGroup::new();
        for (number, client) in clients.iter().enumerate() {
            tasks.spawn("writer", write(client.clone(), number as i64, self.clone()));
        }
        tasks
    }

    /// An item is sent for the `units`-th time.
    pub fn attempt(&self, item: i64, units: i64) {
        let mut book = self.open();
        let attempted = book.attempted.entry(item).or_default();
        *attempted = units.max(*attempted);
    }

    /// It was acknowledged.
    pub fn acknowledge(&self, item: i64, units: i64) {
        let mut book = self.open();
        let acknowledged = book.acknowledged.entry(item).or_default();
        *acknowledged = units.max(*acknowledged);
    }

    /// It was refused for good: it must never show.
    pub fn exclude(&self, item: i64) {
        self.open().attempted.insert(item, 0);
    }

    /// Acknowledged batches of all partitions.
    pub fn batches(&self) -> u64 {
        self.open().batches.values().sum()
    }

    /// Waits until every partition has acknowledged so many batches more.
    pub async fn progress(&self, partitions: &BTreeSet<PartitionId>, more: u64) -> anyhow::Result<()> {
        let before = self.open().batches.clone();
        until("acknowledged batches in every partition", async || {
            let book = self.open();
            let of = |batches: &BTreeMap<_, _>, partition| batches.get(partition).copied().unwrap_or(0);
            let behind: Vec<_> = partitions
                .iter()
                .map(|partition| (partition, of(&book.batches, partition) - of(&before, partition)))
                .filter(|(_, done)| *done < more)
                .collect();
            ensure!(behind.is_empty(), "{behind:?} of {more}; the last failure: {}", book.last_failure);
            Ok(())
        })
        .await
    }

    /// What is read of all items that were ever sent, and of some that were not, must be no older than what was
    /// acknowledged and no newer than what was sent.
    pub async fn check(&self, client: &Client<QuicTransport>, what: &str) -> anyhow::Result<()> {
        let (attempted, acknowledged) = {
            let book = self.open();
            (book.attempted.clone(), book.acknowledged.clone())
        };
        ensure!(!acknowledged.is_empty(), "nothing was acknowledged: there is nothing to judge");
        let last = attempted.last_key_value().map_or(0, |(item, _)| *item);
        let items: Vec<i64> = attempted.keys().copied().chain(last + 1..=last + UNWRITTEN).collect();
        let found = until("a whole answer", async || read(client, &items, None).await).await?;
        for (item, found) in found {
            let promised = acknowledged.get(&item).copied().unwrap_or(0);
            let asked = attempted.get(&item).copied().unwrap_or(0);
            ensure!(
                (promised..=asked).contains(&found),
                "{what}: item {item} was acknowledged {promised} times and sent {asked} times, and says {found}"
            );
        }
        Ok(())
    }

    /// The whole judgement, after all writers have ended and all nodes are back: in every zone the first whole answer is
    /// right, all nodes serve, all replicas are equal, and no row is there that nobody sent.
    pub async fn judge(&self, cluster: &LocalCluster) -> anyhow::Result<()> {
        let mut clients = Vec::new();
        for zone in ZONES {
            clients.push(until("a client", async || cluster.client(zone).await).await?);
        }
        for (client, zone) in clients.iter().zip(ZONES) {
            self.check(client, &format!("zone {zone}")).await?;
        }
        for node in cluster.nodes() {
            serves(cluster, &clients[0], node).await?;
        }
        let rows = replicas::rows(&equal_digests(&clients[0]).await?);
        let (acknowledged, attempted) = {
            let book = self.open();
            let possible = book.attempted.values().filter(|units| **units > 0).count();
            (book.acknowledged.len() as u64, possible as u64)
        };
        ensure!((acknowledged..=attempted).contains(&rows), "{rows} rows, and {acknowledged} to {attempted} are right");
        // Once more, now that all replicas are known to be equal: each zone reads its own.
        for (client, zone) in clients.iter().zip(ZONES) {
            self.check(client, &format!("zone {zone}, in the end")).await?;
        }
        Ok(())
    }
}

async fn write(client: Client<QuicTransport>, number: i64, ledger: Arc<Ledger>) -> anyhow::Result<()> {
    let items: Vec<i64> = (number * ITEMS_PER_WRITER..(number + 1) * ITEMS_PER_WRITER).collect();
    let writer = writer(&client).await?;
    loop {
        let units = {
            let mut book = ledger.open();
            let units = book.attempted.get(&items[0]).copied().unwrap_or(0) + 1;
            book.attempted.extend(items.iter().map(|item| (*item, units)));
            units
        };
        let results = writer.write_rows(&rows(items.iter().copied(), units)).await?;
        let mut book = ledger.open();
        for batch in results {
            match batch.result {
                Ok(_) => {
                    *book.batches.entry(batch.partition).or_default() += 1;
                    book.acknowledged.extend(batch.rows.iter().map(|at| (items[*at as usize], units)));
                }
                Err(error) => book.last_failure = error.to_string(),
            }
        }
    }
}
