//! One module for each target.

pub mod answers;
pub mod commands;
pub mod frames;
pub mod group_logs;
pub mod keys;
pub mod positions;
pub mod raft_messages;
pub mod read_answers;
pub mod reads;
pub mod requests;
pub mod root_states;
pub mod row_batches;
pub mod schemas;
pub mod snapshots;
pub mod texts;
pub mod values;
pub mod wal;

/// An input to begin with: the name of its file, and its bytes.
pub type Seed = (&'static str, Vec<u8>);

/// A target.
pub struct Target {
    /// Its name: that of its program, and of its directory of seeds.
    pub name: &'static str,
    /// Takes an input; panics if what must hold does not.
    pub run: fn(&[u8]),
    /// What to begin with.
    pub seeds: fn() -> Vec<Seed>,
}

macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        /// All targets.
        pub const TARGETS: &[Target] =
            &[$(Target { name: stringify!($name), run: $name::run, seeds: $name::seeds }),*];
    };
}
targets!(
    answers,
    commands,
    frames,
    group_logs,
    keys,
    positions,
    raft_messages,
    read_answers,
    reads,
    requests,
    root_states,
    row_batches,
    schemas,
    snapshots,
    texts,
    values,
    wal,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_passes_its_target() {
        for target in TARGETS {
            (target.run)(&[]);
            for (_, seed) in (target.seeds)() {
                (target.run)(&seed);
            }
        }
    }

    #[test]
    fn the_seeds_on_disk_are_those_that_are_made() {
        for target in TARGETS {
            for (name, seed) in (target.seeds)() {
                let path = format!("{}/corpus/{}/{name}", env!("CARGO_MANIFEST_DIR"), target.name);
                assert!(std::fs::read(&path).is_ok_and(|found| found == seed), "{path}: make the seeds again");
            }
        }
    }
}
