//! A leader that has just been elected may have entries in its log that its predecessor acknowledged, and not know yet that
//! they are committed. A strong read must wait until it has committed an entry of its own.
//!
//! The leader dies at the moment at which it has acknowledged a write, before its followers hear of the commit. Whoever is
//! elected is read at once.

use std::time::Duration;

use stoa_raft::RaftTiming;

use super::stage::{BY_LEASE, BY_READ_INDEX, GRAIN, play as play_on};
use crate::judges::Broken;
use crate::machine::Crash;
use crate::world::now;

/// Deaths in one play.
const TIMES: usize = 4;

/// Plays it.
pub fn play(seed: u64) -> Vec<Broken> {
    play_on(
        seed,
        RaftTiming::default(),
        |_| {},
        async |stage| {
            for time in 0..TIMES {
                let cast = stage.cast(None).await?;
                stage.write_at_last(cast.leader).await?;
                stage.world.machines[cast.leader].crash(Crash::Process);
                let end = now() + Duration::from_secs(10);
                let elected = loop {
                    if let Some(place) = stage.leader() {
                        break place;
                    }
                    if now() > end {
                        return Err("nobody is elected".into());
                    }
                    tokio::time::sleep(GRAIN).await;
                };
                // The client of its zone asks it, as it knows no other leader that lives.
                let level = if time % 2 == 0 { BY_READ_INDEX } else { BY_LEASE };
                stage.read(elected, level, Duration::from_secs(2)).await;
                stage.world.machines[cast.leader].start();
                stage.world.pass(Duration::from_secs(3)).await;
            }
            Ok(())
        },
    )
}
