//! A leader whose voter answers late: nearly a heartbeat lies between when it asks for an acknowledgement and when that comes.
//! The voter's lease runs from when it was asked, and the leader's must, too.
//!
//! As with the clocks that are apart, the heir campaigns all the time, and is elected as soon as the voter's lease has run
//! out. An election comes within the time of a late answer or after it: the script is played several times.

use std::time::Duration;

use stoa_raft::RaftTiming;

use super::stage::{BY_LEASE, play as play_on};
use crate::judges::Broken;
use crate::links::Links;

/// How late answers are.
const LATE: Duration = Duration::from_millis(450);
/// How often the script is played under one seed.
const ROUNDS: u32 = 4;

/// A lease of 2 s, and heartbeats that may be answered late.
fn timing() -> RaftTiming {
    RaftTiming {
        heartbeat: Duration::from_millis(600),
        election_min: Duration::from_millis(1_800),
        election_max: Duration::from_secs(2),
        clock_drift_ppm: 0,
        ..RaftTiming::default()
    }
}

/// Plays it.
pub fn play(seed: u64) -> Vec<Broken> {
    let timing = timing();
    play_on(
        seed,
        timing,
        |_| {},
        async |stage| {
            for _ in 0..ROUNDS {
                let cast = stage.cast(None).await?;
                stage.write_at_last(cast.leader).await?;
                stage.cut(cast.leader, cast.heir);
                stage.delay(cast.voter, cast.leader, LATE);
                stage.world.pass(timing.lease() * 2 + timing.election_max).await;
                if !stage.leads(cast.leader) {
                    return Err("the leader was deposed before the script came to it".into());
                }
                stage.cut(cast.leader, cast.voter);
                stage.until_one_leads(&[cast.heir, cast.voter], timing.lease() * 10).await?;
                stage.write_at_last(cast.heir).await?;
                for _ in 0..5 {
                    stage.read(cast.leader, BY_LEASE, Duration::from_millis(500)).await;
                }
                stage.world.net.links(Links::heal);
                stage.world.pass(Duration::from_secs(5)).await;
            }
            Ok(())
        },
    )
}
