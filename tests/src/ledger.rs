//! What was asked for and what was promised: writers that keep a book, and the judgement of what is read afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, bail, ensure};
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

    /// Waits until what is read of all items that were ever sent, and of some that were not, is no older than what has been
    /// acknowledged by now. Nothing may be newer than what was sent, at any time.
    pub async fn check(&self, client: &Client<QuicTransport>, what: &str) -> anyhow::Result<()> {
        let promised = self.open().acknowledged.clone();
        let mut invented = None;
        until("what was acknowledged", async || {
            let found = self.read_all(client).await?;
            invented = self.invented(&found);
            if invented.is_some() {
                return Ok(());
            }
            older(&found, &promised).with_context(|| what.to_owned())
        })
        .await?;
        invented.map_or(Ok(()), |invented| bail!("{what}: {invented}"))
    }

    /// The first whole answer must already be right: for nodes that have all just started, and know that they lag.
    pub async fn check_first(&self, client: &Client<QuicTransport>, what: &str) -> anyhow::Result<()> {
        let promised = self.open().acknowledged.clone();
        let found = until("a whole answer", async || self.read_all(client).await).await?;
        older(&found, &promised).with_context(|| what.to_owned())?;
        self.invented(&found).map_or(Ok(()), |invented| bail!("{what}: {invented}"))
    }

    /// All items that were ever sent, and some that were not.
    pub async fn read_all(&self, client: &Client<QuicTransport>) -> anyhow::Result<BTreeMap<i64, i64>> {
        let sent: Vec<i64> = self.open().attempted.keys().copied().collect();
        let last = sent.last().copied().context("nothing was sent: there is nothing to judge")?;
        let items: Vec<i64> = sent.into_iter().chain(last + 1..=last + UNWRITTEN).collect();
        read(client, &items, None).await
    }

    /// An item that says more than was ever sent, if there is one.
    pub fn invented(&self, found: &BTreeMap<i64, i64>) -> Option<String> {
        let book = self.open();
        let sent = |item| book.attempted.get(item).copied().unwrap_or(0);
        let (item, found) = found.iter().find(|(item, found)| **found > sent(item))?;
        Some(format!("item {item} was sent {} times, and says {found}", sent(item)))
    }

    /// The whole judgement, after all writers have ended and all nodes are back: all nodes serve, all replicas are equal,
    /// what each zone reads is right, and no row is there that nobody sent.
    pub async fn judge(&self, cluster: &LocalCluster) -> anyhow::Result<()> {
        let mut clients = Vec::new();
        for zone in ZONES {
            clients.push(until("a client", async || cluster.client(zone).await).await?);
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
        // All replicas are equal, and each zone reads its own: no answer may lag any more.
        for (client, zone) in clients.iter().zip(ZONES) {
            self.check_first(client, &format!("zone {zone}, in the end")).await?;
        }
        Ok(())
    }
}

/// No item may be older than what was promised.
fn older(found: &BTreeMap<i64, i64>, promised: &BTreeMap<i64, i64>) -> anyhow::Result<()> {
    ensure!(!promised.is_empty(), "nothing was acknowledged: there is nothing to judge");
    for (item, promised) in promised {
        let found = found.get(item).copied().unwrap_or(0);
        ensure!(found >= *promised, "item {item} was acknowledged {promised} times, and says {found}");
    }
    Ok(())
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
