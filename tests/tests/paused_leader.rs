//! A node that leads partitions stands still for longer than its lease, as on a stolen processor or in a suspended machine,
//! with requests in its socket. Others take over, and writers go on. When it goes on, it believes itself the leader for an
//! instant: what it answers must be right all the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use stoa::local_cluster::ZONES;
use stoa_client::Client;
use stoa_env::{QuicTransport, TransportError};
use stoa_protocol::{FeatureGroup, PartitionId};
use stoa_tests::direct::{Direct, DirectError};
use stoa_tests::items::{GROUP, define, partition_of};
use stoa_tests::ledger::Ledger;
use stoa_tests::replicas::{leader, partitions, serves};
use stoa_tests::start;
use tokio::task::JoinSet;

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
    let mut answers = BTreeMap::new();
    for round in 0..ROUNDS {
        let partition = *partitions(&clients[0]).iter().nth(round as usize).context("there are more partitions")?;
        let paused = leader(&clients[0], partition).await?;
        let direct = Direct::to(&cluster, &clients[0], paused)?;
        direct.connect().await?;
        let items = items_of(&clients[0], &group, partition, round)?;

        cluster.pause(paused)?;
        let queued = queue(&direct, &group, partition, &items, &ledger);
        ledger.progress(&partitions(&clients[0]), BATCHES).await?;
        cluster.resume(paused)?;
        for (item, outcome) in settle(queued).await? {
            note(&ledger, item, &outcome);
            let kind = match outcome {
                Ok(()) => "acknowledged".to_owned(),
                Err(DirectError::Refused(error)) => format!("{:?}", error.code),
                Err(DirectError::Transport(TransportError::TimedOut { .. })) => "no answer in time".to_owned(),
                Err(other) => other.to_string().chars().filter(|c| !c.is_ascii_digit()).collect(),
            };
            *answers.entry(kind).or_insert(0) += 1;
        }
        serves(&cluster, &clients[0], paused).await?;
        ledger.progress(&partitions(&clients[0]), BATCHES).await?;
    }
    println!("what was queued at the paused leaders: {answers:?}");
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
    while items.len() < QUEUED as usize {
        if partition_of(client, group, item)? == partition {
            items.push(item);
        }
        item += 1;
    }
    Ok(items)
}

type Queued = JoinSet<(i64, Result<(), DirectError>)>;

/// Sends writes to a node that cannot answer.
fn queue(direct: &Direct, group: &FeatureGroup, partition: PartitionId, items: &[i64], ledger: &Ledger) -> Queued {
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

async fn settle(mut queued: Queued) -> anyhow::Result<BTreeMap<i64, Result<(), DirectError>>> {
    let mut out = BTreeMap::new();
    while let Some(ended) = queued.join_next().await {
        let (item, outcome) = ended?;
        out.insert(item, outcome);
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
