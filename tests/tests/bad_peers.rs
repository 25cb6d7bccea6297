//! A node is sent garbage, and is held up by whoever can hold it up: datagrams that are nothing, frames that lie, requests
//! byte by byte, answers that nobody reads, requests without an end. It serves the others all the while, and its memory
//! stays within a bound.

use std::sync::Arc;

use anyhow::{Context, ensure};
use stoa::local_cluster::ZONES;
use stoa_env::TaskGroup;
use stoa_tests::attack::{Attacker, memory};
use stoa_tests::items::define;
use stoa_tests::ledger::Ledger;
use stoa_tests::replicas::{partitions, serves};
use stoa_tests::start;
use stoa_tests::wait::until;

const PARTITIONS: u64 = 4;
/// The node, and the zone whose clients it serves first.
const ATTACKED: (u64, &str) = (3, ZONES[2]);
/// Batches that every partition acknowledges in each stage.
const BATCHES: u64 = 10;
/// What every attacker must have done, so that the test says something.
const STRIKES: u64 = 16;
/// Memory that all attackers together may cost: a connection may hold 64 KiB and a window of 256 KiB for each of its
/// streams, a few large requests, and what the allocator keeps.
const MEMORY: u64 = 192 << 20;
/// How often the others are looked at while the attacks go on.
const LOOKS: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_peers_cost_a_node_a_bounded_memory_and_nobody_else_an_answer() -> anyhow::Result<()> {
    let cluster = start("bad_peers", env!("CARGO_BIN_EXE_stoa-under-test"), PARTITIONS).await?;
    let client = cluster.client(ATTACKED.1).await?;
    define(&client).await?;
    let all = partitions(&client);
    let ledger = Arc::new(Ledger::default());
    let writers = ledger.start_writers(std::slice::from_ref(&client));
    ledger.progress(&all, BATCHES).await?;
    let process = cluster.process_id(ATTACKED.0)?;
    let before = memory(process)?;

    let attacks = TaskGroup::new();
    let mut attackers = Vec::new();
    for (name, count) in [("datagrams", 2), ("frames", 4), ("byte by byte", 4), ("unread", 4), ("much", 1)] {
        for _ in 0..count {
            let attacker = Attacker::of(&cluster, client.map().cluster, ATTACKED.0)?;
            attackers.push((name, attacker.clone()));
            attacks.spawn(name, async move {
                // A connection that is closed under it is a success of the node's; it comes again.
                loop {
                    let attacker = attacker.clone();
                    let _closed = match name {
                        "datagrams" => attacker.datagrams().await,
                        "frames" => attacker.frames().await,
                        "byte by byte" => attacker.byte_by_byte().await,
                        "unread" => attacker.unread().await,
                        _ => attacker.much().await,
                    };
                    tokio::task::yield_now().await;
                }
            });
        }
    }
    let mut most = before;
    for _ in 0..LOOKS {
        ledger.progress(&all, BATCHES).await?;
        ledger.check(&client, "under attack").await?;
        most = most.max(memory(process)?);
    }
    until("attacks", async || {
        most = most.max(memory(process).context("the attacked node is gone")?);
        let idle: Vec<_> = attackers.iter().filter(|(_, attacker)| attacker.strikes() < STRIKES).collect();
        ensure!(
            idle.is_empty(),
            "attackers have not struck: {:?}",
            idle.iter().map(|(name, _)| name).collect::<Vec<_>>()
        );
        Ok(())
    })
    .await?;
    for (name, attacker) in &attackers {
        println!("{name}: {} strikes", attacker.strikes());
    }
    println!("memory: {} MiB before, {} MiB at the most", before >> 20, most >> 20);
    ensure!(most <= before + MEMORY, "{before} bytes before, {most} at the most");
    attacks.abort_all();

    serves(&cluster, &client, ATTACKED.0).await?;
    ledger.progress(&all, BATCHES).await?;
    writers.abort_all();
    let said = cluster.log(ATTACKED.0)?;
    ensure!(!said.contains("panicked"), "{said}");
    ledger.judge(&cluster).await
}
