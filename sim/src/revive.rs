//! Liveness: when all is healed, within a short time every partition has a leader, serves strong reads, takes a write
//! and serves reads from every zone, and all replicas are equal, those of the root group and the copies of its state
//! among them.
//!
//! The strong reads come first, and are an audit: what is written afterwards is newer, and would hide what was lost.

use std::time::Duration;

use stoa_client::{ConfirmBy, ReadLevel};
use tokio::time::Instant;

use crate::history::Demand;
use crate::run::{AUDIT_ROWS, POLL};
use crate::workload::{CALL_LIMIT, Shared, Worker};
use crate::world::{SimClient, World, ZONES, now};

/// All of it must be so within this time after all is healed.
pub const LIVENESS_LIMIT: Duration = Duration::from_secs(10);

/// Waits until all is well, and says how long that took from `healed` on: until every partition had taken a write, and until
/// everything was so; or what was not, in time.
pub(crate) async fn revive(
    world: &mut World,
    shared: &Shared,
    clients: &[SimClient],
    healed: Instant,
) -> Result<(Duration, Duration), String> {
    let mut prober = Worker::open(clients.len(), &clients[0], shared, &world.plan).await?;
    audit(world, shared, &mut prober, healed).await?;
    let keys: Vec<i64> = (0..world.plan.keys).collect();
    // All keys lie in all partitions together; a call fails if one of them takes no write, or gives no row.
    while !world.pass_while(prober.write_keys(&keys)).await {
        in_time(healed, || format!("not every partition takes writes: {}", world.leadership()))?;
        world.pass(POLL).await;
    }
    let writable = now() - healed;
    for (number, (zone, client)) in ZONES.iter().zip(clients).enumerate() {
        let mut reader = Worker::open(clients.len() + 1, client, shared, &world.plan).await?;
        // A client whose zone does not answer asks the others, and would hide it.
        let alone = world.keep_in_zone(number);
        while !world.pass_while(reader.read_at(&keys, Demand::Any, ReadLevel::default(), CALL_LIMIT)).await {
            in_time(healed, || format!("not every partition serves reads from zone {zone}"))?;
            world.pass(POLL).await;
        }
        world.take_away(alone);
    }
    while let Some(why) =
        world.moving().or_else(|| world.behind()).or_else(|| world.leaderless()).or_else(|| world.unequal())
    {
        in_time(healed, || format!("replicas are not equal: {why}; {}", world.leadership()))?;
        world.pass(POLL).await;
    }
    world.compare();
    in_time(healed, || "all is well, and too late".into())?;
    Ok((writable, now() - healed))
}

/// Reads every key that was ever written, loads' among them, by strong reads: no replica has to be equal to another yet
/// for that.
async fn audit(world: &mut World, shared: &Shared, prober: &mut Worker, healed: Instant) -> Result<(), String> {
    let level = ReadLevel::Linearizable { by: ConfirmBy::ReadIndex };
    for some in shared.keys_written().chunks(AUDIT_ROWS) {
        while !world.pass_while(prober.read_at(some, Demand::All, level, CALL_LIMIT)).await {
            in_time(healed, || format!("not every partition serves strong reads: {}", world.leadership()))?;
            world.pass(POLL).await;
        }
    }
    Ok(())
}

fn in_time(healed: Instant, what: impl FnOnce() -> String) -> Result<(), String> {
    match now() - healed > LIVENESS_LIMIT {
        true => Err(format!("{LIVENESS_LIMIT:?} after all was healed, {}", what())),
        false => Ok(()),
    }
}
