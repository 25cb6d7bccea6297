//! A node that leads partitions stands still for longer than its lease, as on a stolen processor or in a suspended machine,
//! with requests in its socket. Others take over, and writers go on. When it goes on, it believes itself the leader for an
//! instant: what it answers must be right all the same, linearizable reads above all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use stoa::local_cluster::ZONES;
use stoa_client::{Client, ConfirmBy, ReadLevel};
use stoa_env::{JoinSet, QuicTransport, TransportError};
use stoa_protocol::{FeatureGroup, PartitionId};
use stoa_tests::direct::{Direct, DirectError};
use stoa_tests::items::{GROUP, define, partition_of, rows, writer};
use stoa_tests::ledger::Ledger;
use stoa_tests::replicas::{leader, partitions, serves};
use stoa_tests::start;

const PARTITIONS: u64 = 4;
const ROUNDS: i64 = 3;
/// Batches that every partition acknowledges while its leader stands still: more than one, so that the new leader works.
const BATCHES: u64 = 3;
/// Requests that wait in the paused node's socket. One packet each, and far less than a socket's buffer.
const QUEUED: i64 = 24;
/// Items of the requests that are queued begin here; those of the writers lie below.
const FIRST_QUEUED: i64 = 1_000;
/// How long a queued request waits for its answer.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stood_still_for_longer_than_its_lease_answers_nothing_wrong() -> anyhow::Result<()> {
    let cluster = start("paused_leader", env!("CARGO_BIN_EXE_stoa-under-test"), PARTITIONS).await?;
    let mut clients = Vec::new();
    for zone in ZONES {
        clients.push(cluster.client(zone).await?);
    }
    define(&clients[0]).await?;
    let group = clients[0].group(GROUP).await?.definition().clone();
    let ledger = Arc::new(Ledger::default());
    let writers = ledger.start_writers(&clients);
    ledger.progress(&partitions(&clients[0]), BATCHES).await?;
    let (mut answers, mut reads) = (BTreeMap::new(), BTreeMap::new());
    for round in 0..ROUNDS {
        let partition = *partitions(&clients[0]).iter().nth(round as usize).context("there are more partitions")?;
        let paused = leader(&clients[0], partition).await?;
        let direct = Direct::to(&cluster, &clients[0], paused)?;
        direct.connect().await?;
        let mut items = items_of(&clients[0], &group, partition, round)?;
        let read = items.pop().context("there are items")?;
        write(&clients[0], &ledger, read, 1).await?;

        cluster.pause(paused)?;
        let queued = queue(&direct, &group, partition, &items, &ledger);
        ledger.progress(&partitions(&clients[0]), BATCHES).await?;
        write(&clients[0], &ledger, read, 2).await?;
        // Whoever asks from now on must see what has just been acknowledged, elsewhere.
        let asked = ask(&direct, &group, partition, read);
        cluster.resume(paused)?;
        for (level, outcome) in settle(asked).await? {
            if let Ok(units) = outcome {
                ensure!(units >= 2, "a read by {level:?} is stale: item {read} was written twice, and says {units}");
            }
            *reads.entry(what(&outcome.map(drop))).or_insert(0) += 1;
        }
        for (item, outcome) in settle(queued).await? {
            note(&ledger, item, &outcome);
            *answers.entry(what(&outcome)).or_insert(0) += 1;
        }
        serves(&cluster, &clients[0], paused).await?;
        ledger.progress(&partitions(&clients[0]), BATCHES).await?;
    }
    println!("writes that waited at the paused leaders: {answers:?}; linearizable reads: {reads:?}");
    writers.abort_all();
    ledger.judge(&cluster).await
}

/// New items of a partition.
fn items_of(
    client: &Client<QuicTransport>,
    group: &FeatureGroup,
    partition: PartitionId,
    round: i64,
) -> anyhow::Result<Vec<i64>> {
    let mut items = Vec::new();
    let mut item = FIRST_QUEUED * (round + 1);
    while items.len() <= QUEUED as usize {
        if partition_of(client, group, item)? == partition {
            items.push(item);
        }
        item += 1;
    }
    Ok(items)
}

/// What became of an answer, for people.
fn what(outcome: &Result<(), DirectError>) -> String {
    match outcome {
        Ok(()) => "answered".to_owned(),
        Err(DirectError::Refused(error)) => format!("{:?}", error.code),
        Err(DirectError::Transport(TransportError::TimedOut { .. })) => "no answer in time".to_owned(),
        Err(DirectError::Transport(_)) => "no connection".to_owned(),
        Err(other) => other.to_string(),
    }
}

/// Writes an item by the client's ways, until it is acknowledged.
async fn write(client: &Client<QuicTransport>, ledger: &Ledger, item: i64, units: i64) -> anyhow::Result<()> {
    ledger.attempt(item, units);
    for batch in writer(client).await?.write_rows(&rows([item], units)).await? {
        batch.result?;
    }
    ledger.acknowledge(item, units);
    Ok(())
}

type Queued<K, A> = JoinSet<(K, Result<A, DirectError>)>;

/// Sends linearizable reads to a node that cannot answer.
fn ask(direct: &Direct, group: &FeatureGroup, partition: PartitionId, item: i64) -> Queued<(ConfirmBy, i64), i64> {
    let mut asked = JoinSet::new();
    for number in 0..QUEUED {
        let by = [ConfirmBy::Lease, ConfirmBy::ReadIndex, ConfirmBy::Heartbeat][number as usize % 3];
        let (direct, group) = (direct.clone(), group.clone());
        asked.spawn(async move {
            let level = ReadLevel::Linearizable { by };
            ((by, number), direct.read(&group, partition, item, level, PATIENCE).await)
        });
    }
    asked
}

/// Sends writes to a node that cannot answer.
fn queue(
    direct: &Direct,
    group: &FeatureGroup,
    partition: PartitionId,
    items: &[i64],
    ledger: &Ledger,
) -> Queued<i64, ()> {
    let mut queued = JoinSet::new();
    for &item in items {
        ledger.attempt(item, 1);
        let (direct, group) = (direct.clone(), group.clone());
        queued.spawn(async move {
            let written = direct.write(&group, partition, item, 1, PATIENCE).await;
            (item, written.map(drop))
        });
    }
    queued
}

async fn settle<K: Ord + Send + 'static, A: Send + 'static>(
    mut queued: Queued<K, A>,
) -> anyhow::Result<BTreeMap<K, Result<A, DirectError>>> {
    let mut out = BTreeMap::new();
    while let Some(ended) = queued.join_next().await {
        let (asked, outcome) = ended?;
        out.insert(asked, outcome);
    }
    Ok(out)
}

/// What was acknowledged must be there in the end, and what was refused for sure must not.
fn note(ledger: &Ledger, item: i64, outcome: &Result<(), DirectError>) {
    match outcome {
        Ok(()) => ledger.acknowledge(item, 1),
        Err(error) if error.excludes_it() => ledger.exclude(item),
        Err(_) => {}
    }
}
