//! What is printed of a run.

use stoa_sim::run::Outcome;

use super::options::Overrides;

/// What came of a run, in a line.
pub fn summary(outcome: &Outcome) -> String {
    let Outcome { counts, net, compared, strikes, judged, .. } = outcome;
    let alive = match outcome.alive {
        Some((writable, equal)) => format!("healed: writable after {writable:?}, equal after {equal:?}"),
        None => "never healed".into(),
    };
    format!(
        "{:?} simulated; {} writes of {} rows acknowledged, {} reads of {} rows ({}), {} unavailable; {}; {} messages, {} lost, {} cut, {} doubled; {compared} \
         comparisons of replicas; {judged:?}; {:?}; faults {strikes:?}; {alive}; trace {} lines, hash {:032x}",
        outcome.simulated,
        counts.writes,
        counts.acknowledged,
        counts.reads,
        counts.rows_read,
        counts.levels,
        counts.unavailable,
        counts.extra,
        net.sent,
        net.lost,
        net.cut,
        net.doubled,
        outcome.moves,
        outcome.trace.0,
        outcome.trace.1
    )
}

/// Prints what was broken, and the one command that replays it.
pub fn tell_broken(outcome: &Outcome, overrides: &Overrides) {
    const SHOWN: usize = 5;
    for broken in outcome.broken.iter().take(SHOWN) {
        println!("BROKEN, {}: {}", broken.judge, broken.what);
    }
    if outcome.broken.len() > SHOWN {
        println!("and {} more", outcome.broken.len() - SHOWN);
    }
    if !outcome.broken.is_empty() {
        println!("{}", replay(outcome.plan.seed, overrides));
    }
}

/// The command that replays a run.
pub fn replay(seed: u64, overrides: &Overrides) -> String {
    format!("replay: cargo run --release -p stoa-sim -- run {seed}{} --trace trace.txt", overrides.words())
}
