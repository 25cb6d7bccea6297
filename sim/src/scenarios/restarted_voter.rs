//! A voter that restarts has forgotten the lease that it granted. Were it to vote at once, a second leader could be elected
//! while the first one believes in its lease, and the first one's lease reads would be stale.
//!
//! 1. The heir is cut from the leader until the heir's own lease has run out. It campaigns, in vain: the voter honours the
//!    leader's lease. The heir's log is complete.
//! 2. The voter is cut from the leader, and restarts. The heir's next campaign reaches it.
//! 3. Once one of the two leads, it takes a write. Then the old leader is read by its lease.

use std::time::Duration;

use super::stage::{BY_LEASE, long_lease, play as play_on};
use crate::judges::Broken;
use crate::machine::Crash;

/// Plays it.
pub fn play(seed: u64) -> Vec<Broken> {
    let timing = long_lease(10_000);
    play_on(
        seed,
        timing,
        |_| {},
        async |stage| {
            let cast = stage.cast(None).await?;
            // The reader has the old leader in its zone, and knows that it leads. The writer knows no leader.
            stage.write_at_last(cast.leader).await?;
            stage.world.pass(Duration::from_millis(500)).await;
            stage.cut(cast.leader, cast.heir);
            stage.world.pass(timing.lease() * 2 + timing.election_max).await;
            if !stage.leads(cast.leader) {
                return Err("the leader was deposed before the script came to it".into());
            }
            stage.cut(cast.leader, cast.voter);
            stage.world.machines[cast.voter].crash(Crash::Process);
            stage.world.machines[cast.voter].start();
            stage.until_one_leads(&[cast.heir, cast.voter], timing.lease() * 10).await?;
            stage.write_at_last(cast.heir).await?;
            for _ in 0..5 {
                stage.read(cast.leader, BY_LEASE, Duration::from_secs(2)).await;
            }
            Ok(())
        },
    )
}
