//! Clients that end in the middle of whatever they do, and others that come in their place: with new connections, new
//! writer sessions, and no memory of what was under way. That may have happened, or may happen yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{Shared, Worker};
use crate::chance::Chance;
use crate::plan::Plan;
use crate::world::Door;

/// How long a client lives, at the least and at the most.
const LIFE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(8));
/// Between two attempts of a new client to find the cluster and its group.
const PAUSE: Duration = Duration::from_millis(50);
/// The clients of the second, third … life of one have its number and so many more for each: what one has had
/// acknowledged its heir does not know, and its reads need not show.
pub(super) const LIFE_STRIDE: usize = 1_000;

/// Works as client `number` until told to stop, in one life after the other; the first is that of `worker`. The last
/// one, if one lives.
pub async fn work_in_lives(
    door: Door,
    number: usize,
    worker: Worker,
    shared: Shared,
    plan: Plan,
    stop: Arc<AtomicBool>,
) -> Option<Worker> {
    let chance = Chance::new(plan.seed, &format!("lives of {number}"));
    let mut id = number;
    let mut worker = Some((None, worker));
    while !stop.load(Ordering::Relaxed) {
        let Some((client, living)) = worker.take() else {
            let Ok(client) = door.client(number, id / LIFE_STRIDE).await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            match Worker::open(id, &client, &shared, &plan).await {
                Ok(living) => worker = Some((Some(client), living)),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
            continue;
        };
        // Dropping the future is its death: nothing of it runs after.
        let life = chance.between(LIFE.0, LIFE.1);
        if let Ok(worker) = tokio::time::timeout(life, living.work(stop.clone())).await {
            return Some(worker);
        }
        drop(client);
        shared.note_death(id);
        id += LIFE_STRIDE;
    }
    None
}
