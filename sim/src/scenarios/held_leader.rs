//! A leader stands still, as under SIGSTOP, for half of its lease, for all of it, and for five times as long. Strong reads
//! come to it meanwhile and wait in it. When it goes on, others may have elected a leader and taken writes, and it must
//! find out before it answers: by its lease, whose time ran on, and by asking a quorum.

use std::time::Duration;

use stoa_raft::RaftTiming;
use tokio::time::Instant;

use super::stage::{BY_HEARTBEAT, BY_LEASE, BY_READ_INDEX, play as play_on};
use crate::judges::Broken;
use crate::links::Links;
use crate::world::now;

/// How long the leader is held, in halves of its lease.
const HALF_LEASES: [u32; 3] = [1, 2, 10];

/// Plays it.
pub fn play(seed: u64) -> Vec<Broken> {
    let timing = RaftTiming::default();
    play_on(
        seed,
        timing,
        |_| {},
        async |stage| {
            for level in [BY_LEASE, BY_READ_INDEX, BY_HEARTBEAT] {
                for halves in HALF_LEASES {
                    let cast = stage.cast(None).await?;
                    let others = [cast.heir, cast.voter];
                    // The reader reaches the leader alone, so that it waits for it; the writer does not know who leads.
                    stage.write_at_last(cast.leader).await?;
                    others.iter().for_each(|other| stage.cut_client(cast.leader, *other));
                    let end: Instant = now() + timing.lease() / 2 * halves;
                    stage.world.machines[cast.leader].hold();
                    if halves > 4 {
                        // Time enough for others to elect a leader, and for a write that the reads after it must show.
                        stage.write_at_last(cast.heir).await?;
                    }
                    // It waits in the leader until that goes on.
                    let machine = &stage.world.machines[cast.leader];
                    let go_on = machine.go_on_at(end);
                    stage.read(cast.leader, level, Duration::from_secs(20)).await;
                    go_on.await.map_err(|error| error.to_string())?;
                    stage.world.net.links(Links::heal);
                    stage.world.machines[cast.leader].go_on();
                    stage.world.pass(Duration::from_secs(3)).await;
                }
            }
            Ok(())
        },
    )
}
