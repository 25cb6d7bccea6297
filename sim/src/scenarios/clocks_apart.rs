//! A leader whose clock is as slow as is declared, and voters whose clocks are as fast: by the leader's clock its lease
//! lasts longer than by theirs. The margin of lease reads must cover that.
//!
//! As with the restarted voter, the heir campaigns all the time, so that it may be elected as soon as the voter's lease has run
//! out by the voter's clock. The leader's has not, by its own.

use std::time::Duration;

use super::stage::{BY_LEASE, long_lease, play as play_on};
use crate::judges::Broken;
use crate::world::World;

/// The most that can be declared, and nearly all of it drawn upon: the clocks are a fifth apart.
const DECLARED_PPM: u32 = 100_000;
const RATE_PPM: i64 = 99_000;

/// Plays it.
pub fn play(seed: u64) -> Vec<Broken> {
    let timing = long_lease(DECLARED_PPM);
    play_on(seed, timing, set_clocks, async |stage| {
        let cast = stage.cast(Some(slow(seed))).await?;
        stage.write_at_last(cast.leader).await?;
        stage.world.pass(Duration::from_millis(500)).await;
        stage.cut(cast.leader, cast.heir);
        stage.world.pass(timing.lease() * 2 + timing.election_max).await;
        if !stage.leads(cast.leader) {
            return Err("the leader was deposed before the script came to it".into());
        }
        stage.cut(cast.leader, cast.voter);
        stage.until_one_leads(&[cast.heir, cast.voter], timing.lease() * 10).await?;
        stage.write_at_last(cast.heir).await?;
        for _ in 0..5 {
            stage.read(cast.leader, BY_LEASE, Duration::from_secs(2)).await;
        }
        Ok(())
    })
}

/// The machine with the slow clock. The first one is the heir.
fn slow(seed: u64) -> usize {
    1 + (seed % 2) as usize
}

fn set_clocks(world: &mut World) {
    let slow = slow(world.plan.seed);
    for (place, machine) in world.machines.iter_mut().enumerate() {
        machine.set_clock_rate(if place == slow { -RATE_PPM } else { RATE_PPM });
    }
}

#[cfg(test)]
mod tests {
    use stoa_env::Clock;

    use super::*;
    use crate::plan::Plan;
    use crate::trace::Trace;
    use crate::world::now;

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn the_clocks_of_two_machines_are_a_fifth_apart() {
        let plan = Plan { timing: long_lease(DECLARED_PPM), ..Plan::calm(1, 1, Duration::ZERO) };
        let mut world = World::new(plan, Trace::new(now(), None).expect("no file"), now());
        set_clocks(&mut world);
        let boot = |place: usize| world.machines[place].clock().boot();
        let (fast, slow) = (boot(0), boot(slow(1)));
        tokio::time::sleep(Duration::from_secs(10)).await;
        let counted = [boot(0).since(fast), boot(super::slow(1)).since(slow)];
        assert_eq!(counted, [Duration::from_millis(10_990), Duration::from_millis(9_010)]);
    }
}
