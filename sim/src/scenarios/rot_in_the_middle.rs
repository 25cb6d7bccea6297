//! A bit flips in the middle of a voter's log, in entries that were acknowledged. The voter must not cut its log there and go
//! on: with a second voter that never had them it would be a quorum that knows nothing of them.
//!
//! 1. The voter is cut off from both others. The leader and the heir take writes, which are acknowledged.
//! 2. The heir dies, a bit of these writes flips on its disk, and it starts again.
//! 3. The leader dies, and the voter is reached again. If the heir goes on, the two are a quorum. They are read.
//! 4. The leader comes back: now there is a quorum that has it all, if nothing was cut.

use std::path::PathBuf;
use std::time::Duration;

use stoa_raft::RaftTiming;

use super::stage::{BY_READ_INDEX, Stage, play as play_on};
use crate::judges::Broken;
use crate::links::Links;
use crate::machine::Crash;

/// Writes that the voter never has.
const WRITES: usize = 6;
/// How far before the end of the log the bit flips: within these writes, and before the last of them, which attests that
/// what is before it is durable.
const BEFORE_END: usize = 5_000;

/// Plays it.
pub fn play(seed: u64) -> Vec<Broken> {
    play_on(
        seed,
        RaftTiming::default(),
        |_| {},
        async |stage| {
            let cast = stage.cast(None).await?;
            stage.write_at_last(cast.leader).await?;
            stage.cut(cast.voter, cast.leader);
            stage.cut(cast.voter, cast.heir);
            for _ in 0..WRITES {
                stage.write_at_last(cast.leader).await?;
            }
            stage.world.machines[cast.heir].crash(Crash::Process);
            flip(stage, cast.heir)?;
            stage.world.machines[cast.heir].start();
            stage.world.machines[cast.leader].crash(Crash::Process);
            stage.world.net.links(Links::heal);
            stage.world.pass(Duration::from_secs(4)).await;
            for client in [cast.heir, cast.voter] {
                stage.read(client, BY_READ_INDEX, Duration::from_secs(2)).await;
            }
            stage.world.machines[cast.leader].start();
            stage.world.pass(Duration::from_secs(4)).await;
            stage.read(cast.leader, BY_READ_INDEX, Duration::from_secs(2)).await;
            Ok(())
        },
    )
}

fn flip(stage: &Stage, place: usize) -> Result<(), String> {
    let disk = &stage.world.machines[place].disk;
    let segments = disk.paths().into_iter().filter(|path| path.starts_with("wal"));
    let segments: Vec<(PathBuf, usize)> = segments.map(|path| (path.clone(), disk.bytes(&path).len())).collect();
    // The last one that is long enough; names are in the order of segments.
    let last = segments.into_iter().rev().find(|(_, len)| *len > 2 * BEFORE_END);
    let (path, len) = last.ok_or("no segment is long enough")?;
    disk.flip(&path, len - BEFORE_END, 3);
    Ok(())
}
