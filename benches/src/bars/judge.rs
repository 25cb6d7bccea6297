//! The rows of P1 to P11, from what was measured. No measurement: figures come in as arguments.

use std::time::Duration;

use super::apart::{Apart, SilentZone, WAY};
use super::big::{Big, PARTITIONS, WRITES};
use super::depth::Depth;
use super::kills::{How, Kills, LED_MIN};
use super::parts::{Bar, part, ratio, row, side, void_if, void_row};
use super::peers::{BUSY_MIN, Peers};
use super::quiet::Quiet;
use super::restart::{FAST_LIMIT, GIVE_UP, Restart};
use crate::load::{GOOD, Summary};
use crate::measure::Repetitions;
use crate::report::model::{Part, Row};
use crate::store::FEATURES;

/// Calls without which a share of 99.999 % cannot be told.
const CALLS_MIN: u64 = 100_000;
/// The client must have its core free for a tenth of the time, or it may be what bounds a rate.
const CLIENT_BUSY_MAX: f64 = 0.90;
/// Bytes of the values of a row, and what P3 allows besides.
const VALUE_BYTES: f64 = (FEATURES * 4) as f64;
const BYTES_FACTOR: f64 = 1.15;
const BYTES_MORE: f64 = 48.0;
/// Writes that reads are measured beside go at this share of what they should, or the figure is void.
const FULL_RATE: f64 = 0.5;
/// How long P2's calm latency may be above the emulated way, and how long the window after a loss is that is told by itself.
const ABOVE_WAY_MS: f64 = 1.0;
const LOSS_WINDOW: Duration = Duration::from_secs(5);

/// What repeats one bar.
fn repeat(id: &str) -> String {
    format!("cargo run --release -p stoa-bench -- bars --only {id} --json {}.json", id.to_lowercase())
}

fn missing<T>(of: &anyhow::Result<T>) -> Option<String> {
    of.as_ref().err().map(|error| format!("{error:#}"))
}

fn client_was_the_limit(all: &Repetitions) -> Option<String> {
    let busy = all.median(|one| one.client);
    (busy > CLIENT_BUSY_MAX).then(|| format!("the client had its core for {:.0} % of the time", busy * 100.0))
}

fn server_was_idle(all: &Repetitions) -> Option<String> {
    let busy = all.median(|one| one.server);
    (busy < BUSY_MIN).then(|| format!("Redis had its core for {:.0} % of the time", busy * 100.0))
}

/// Reads: CPU beside an echo, and rates beside Redis.
pub fn p1(big: &Big, peers: &Peers) -> Row {
    let rate = |name: &str, all: &Repetitions| all.side(name, "req/s", |one| one.summary.rate);
    let cpu = |name: &str, all: &Repetitions| all.side(name, "us", |one| one.server_us());
    let (ours_rate, ours_cpu) = (rate("Stoa", &big.reads), cpu("Stoa", &big.reads));
    // Of our own side only what is wrong voids it, or a client that was too slow; what fails or is slow is a figure.
    let ours = || big.reads.wrong().or(client_was_the_limit(&big.reads));
    let cpu_bar = (Bar::AtMost, 1.5, "x a quinn echo of the same bytes");
    let mut parts = vec![match &peers.quic {
        Ok(echo) => void_if(ratio(CPU, ours_cpu, cpu("echo", echo), cpu_bar), ours().or(echo.void())),
        Err(_) => void_if(part(CPU, f64::NAN, "x", cpu_bar), missing(&peers.quic)),
    }];
    let mget = peers.mget.as_ref().map(|(all, _)| all);
    for (name, redis, bar) in [
        ("Redis MGET", mget, (Bar::AtLeast, 3.0, "x Redis MGET of packed rows")),
        ("Redis HMGET", peers.hmget.as_ref(), (Bar::AtLeast, 25.0, "x Redis HMGET")),
    ] {
        parts.push(match redis {
            Ok(redis) => {
                let void = ours().or(redis.void()).or(server_was_idle(redis));
                void_if(ratio(name, ours_rate.clone(), rate(name, redis), bar), void)
            }
            Err(error) => void_if(part(name, f64::NAN, "x", bar), Some(format!("{error:#}"))),
        });
    }
    let mut row = row("P1", "100 rows x 48 Float32, uniform keys, one node on one core", &repeat("P1"), parts);
    row.notes = vec![
        format!(
            "A request has {} bytes and its answer {}, {:.2} calls a read. {}; the other two nodes, which nobody asked, took {:.0} % of \
             the same core.",
            big.bytes.up,
            big.bytes.down,
            big.calls_per_read,
            shares("The node", &big.reads),
            big.others * 100.0
        ),
        format!(
            "{PARTITIONS} partitions, as by default: a request has some 50 sections. Redis' hashes are a tenth of the rows."
        ),
    ];
    row.notes.extend(big.reads.failures().map(|(count, why)| format!("{count} reads failed: {why}")));
    for (name, echo) in [("quinn", &peers.quic), ("TLS and TCP", &peers.tls)] {
        if let Ok(echo) = echo {
            let (us, rate) = (echo.median(|one| one.server_us()), echo.median(|one| one.summary.rate));
            let times = big.reads.median(|one| one.server_us()) / us;
            row.notes.push(format!(
                "Echo over {name}: {us:.1} us a call, {rate:.0} calls/s; Stoa costs {times:.1} x as much. {}.",
                shares("Its server", echo)
            ));
        }
    }
    bounded(row, &big.reads_profile)
}

/// What P1 measures beside an echo.
const CPU: &str = "server CPU beside a quinn echo";

/// How busy both sides were.
fn shares(server: &str, all: &Repetitions) -> String {
    let (server_share, client) = (all.median(|one| one.server) * 100.0, all.median(|one| one.client) * 100.0);
    format!("{server} had its core for {server_share:.0} % of the time, the client its own for {client:.0} %")
}

/// The row, with a profile if it does not hold.
fn bounded(row: Row, profile: &[String]) -> Row {
    let bound_by = if row.holds == Some(true) { Vec::new() } else { profile.to_vec() };
    Row { bound_by, ..row }
}

/// The loss of a zone.
pub fn p2(apart: &Apart) -> Row {
    let (run, at) = (&apart.loss.run, apart.loss.at);
    // That nothing was answered is a figure, too.
    let void = run.void.clone().filter(|_| run.wrong > 0);
    let calm = apart.loss.calm_p99.as_secs_f64() * 1e3;
    let parts = vec![
        void_if(part("calm p99", calm, "ms", (Bar::Below, ABOVE_WAY_MS, "ms above the delay")), void.clone()),
        void_if(
            part(
                "complete within 10 ms, whole run",
                whole_share(&apart.loss),
                "%",
                (Bar::AtLeast, 99.9, "% within 10 ms"),
            ),
            void,
        ),
    ];
    let mut row = row("P2", "open loop, three zones apart, one goes silent half way", &repeat("P2"), parts);
    let told = |what: &str, zone: &SilentZone| {
        format!(
            "{what}, {} requests/s for {:.0} s: calm p99 {:.2} ms; {:.3} % of {} calls were complete within {} ms, {:.2} % of those \
             in the {} s after the loss; {} failed; 99 % were sent within {:.2} ms of their time.",
            zone.rate,
            zone.time.as_secs_f64(),
            zone.calm_p99.as_secs_f64() * 1e3,
            whole_share(zone),
            zone.run.answered + zone.run.failed + zone.run.dropped,
            GOOD.as_millis(),
            share(zone.run.late_between(zone.at, zone.at + LOSS_WINDOW)),
            LOSS_WINDOW.as_secs(),
            zone.run.failed + zone.run.dropped,
            zone.run.sent_late_p99.as_secs_f64() * 1e3
        )
    };
    row.notes = vec![
        told("The bar's run", &apart.loss),
        told("At half of the peak, silent", &apart.half),
        told("At half of the peak, killed", &apart.killed),
        format!(
            "The peak of all zones together is {:.0} requests/s (three nodes on one core). Zones are {:.1} ms apart, one way; at {} s the \
             node of a zone stands still. A read is answered in its client's own zone, so nothing is taken off for the way.",
            apart.peak,
            WAY.0.as_secs_f64() * 1e3,
            at.as_secs()
        ),
    ];
    bounded(row, &apart.profile)
}

fn share((all, late): (u64, u64)) -> f64 {
    100.0 * (1.0 - late as f64 / all as f64)
}

/// Calls that were complete within 10 ms, of a hundred; those that were never sent are among the others.
fn whole_share(zone: &SilentZone) -> f64 {
    share(zone.run.late_between(Duration::ZERO, Duration::MAX))
}

/// Bytes of a row.
pub fn p3(depth: &Depth, node_bytes: Option<f64>) -> Row {
    let (rows, worst) = depth.bytes.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((0, f64::NAN));
    let limit = BYTES_FACTOR * VALUE_BYTES + BYTES_MORE;
    let parts = vec![part("bytes of a row", worst, "bytes", (Bar::AtMost, limit, "bytes: 1.15 x the values + 48"))];
    let mut row =
        row("P3", "bytes a row, 48 Float32 with an Int64 key, under writes with a snapshot", &repeat("P3"), parts);
    let each = |of: &[(u64, f64)]| {
        of.iter().map(|(rows, bytes)| format!("{:.1} M: {bytes:.0}", *rows as f64 / 1e6)).collect::<Vec<_>>().join(", ")
    };
    row.notes = vec![
        format!(
            "The worst is at {:.1} M rows. Resident memory of a process with one partition: {}.",
            rows as f64 / 1e6,
            each(&depth.bytes)
        ),
        format!("As the store accounts for it, without the snapshot: {}.", each(&depth.accounted)),
    ];
    if let Some(bytes) = node_bytes {
        row.notes
            .push(format!("A whole node after its load has {bytes:.0} bytes a row resident, log buffers and all."));
    }
    row
}

/// Durable writes.
pub fn p4(big: &Big, peers: &Peers) -> Row {
    let (mut parts, mut notes) = (Vec::new(), Vec::new());
    for (batch, writers) in WRITES {
        let bar = if batch == 1_000 { 1.5 } else { 1.0 };
        let (name, bar) = (
            format!("{batch} rows a write, {writers} at once"),
            (Bar::AtLeast, bar, "x Redis SET, appendfsync always, WAIT 1"),
        );
        let rows = |whose: &str, all: &Repetitions| all.side(whose, "rows/s", |one| one.summary.rate * batch as f64);
        let ours = &big.writes[&batch];
        parts.push(match &peers.writes {
            Ok(all) => {
                let peer = &all[&batch];
                notes.push(format!("{name}: {}; {}.", shares("Stoa's nodes", ours), shares("Redis' servers", peer)));
                // Redis must have been the limit, or the disk: not its client.
                let void = ours.wrong().or(peer.void()).or(client_was_the_limit(peer));
                void_if(ratio(&name, rows("Stoa", ours), rows("Redis SET", peer), bar), void)
            }
            Err(_) => void_if(part(&name, f64::NAN, "x", bar), missing(&peers.writes)),
        });
    }
    let mut row = row("P4", "rows of 48 features a second, durable", &repeat("P4"), parts);
    row.notes = vec![
        "Three nodes, and three Redis servers, on one core, one client core. Stoa answers when two of three nodes have synced a row. \
         Redis' servers have `appendfsync always`, replicas too; what WAIT promises is a replica that has taken it."
            .to_owned(),
        "A write of Stoa is rows of one partition, the partitions in turn, over all rows; Redis writes over a tenth of them.".to_owned(),
        format!("The load before, on all cores, took {:.0} rows/s.", big.load_rate),
    ];
    row.notes.extend(notes);
    for (batch, writes) in &big.writes {
        row.notes.extend(writes.failures().map(|(count, why)| format!("{count} writes of {batch} rows failed: {why}")));
    }
    bounded(row, &big.writes_profile)
}

/// Reads beside writes. Where one half was not measured, `why` says the reason.
pub fn p5(depth: Option<&Depth>, big: Option<&Big>, why: &str) -> Row {
    let bar = (Bar::AtMost, 2.0, "x without writes");
    let absent = |name: &str| void_if(part(name, f64::NAN, "x", bar), Some(why.to_owned()));
    let in_process = depth.map_or_else(
        || absent("in process"),
        |depth| {
            let (beside, alone) = (depth.p99_writes_us, depth.p99_alone_us);
            let slow = depth.applied_beside_reads < depth.apply_rows_per_s * FULL_RATE;
            let void = slow.then(|| format!("only {:.0} rows/s were applied meanwhile", depth.applied_beside_reads));
            void_if(ratio("in process", side("beside writes", beside, "us"), side("alone", alone, "us"), bar), void)
        },
    );
    let end_to_end = big.map_or_else(
        || absent("end to end"),
        |big| {
            let ((alone, beside), (writes, due)) = (&big.beside, &big.beside_writes);
            let p99 = |name: &str, of: &Summary| side(name, of.p99.as_secs_f64() * 1e6, "us");
            let wrong = [alone, beside, writes].iter().find_map(|of| of.void.clone().filter(|_| of.wrong > 0));
            let few = writes.rate < f64::from(*due) * FULL_RATE;
            let void = wrong.or(few.then(|| format!("{:.0} of {due} writes a second were made", writes.rate)));
            void_if(ratio("end to end", p99("beside writes", beside), p99("alone", alone), bar), void)
        },
    );
    let mut row = row("P5", "p99 of reads of 100 rows beside writes", &repeat("P5"), vec![in_process, end_to_end]);
    if let Some(depth) = depth {
        row.notes.push(format!("In process: {:.0} rows/s were applied beside the reads.", depth.applied_beside_reads));
    }
    if let Some(big) = big {
        let ((alone, beside), (writes, _)) = (&big.beside, &big.beside_writes);
        row.notes.push(format!(
            "End to end: {:.0} reads/s of one node beside {:.0} rows/s, a quarter of the peaks of each, from one client process; {} and {} \
             reads failed, and {} writes.",
            beside.rate,
            writes.rate * 1_000.0,
            alone.failed + alone.dropped,
            beside.failed + beside.dropped,
            writes.failed + writes.dropped
        ));
    }
    row
}

/// Kills of leaders.
pub fn p6(kills: &Kills) -> Row {
    let most = |how: How| {
        let of = kills.losses.iter().filter(|loss| loss.how == how).map(|loss| loss.writable.as_secs_f64());
        of.fold(f64::NAN, f64::max)
    };
    let bar = (Bar::AtMost, 1.5, "s until every partition takes writes");
    let parts = vec![
        part("by kill -9, the longest", most(How::Kill), "s", bar),
        part("by silence, the longest", most(How::Silence), "s", bar),
        part("local reads that failed", kills.reads_failed as f64, "reads", (Bar::AtMost, 0.0, "failed")),
    ];
    let mut row = row("P6", "20 losses of a node that leads many partitions", &repeat("P6"), parts);
    let mut all: Vec<f64> = kills.losses.iter().map(|loss| loss.writable.as_secs_f64()).collect();
    all.sort_by(f64::total_cmp);
    let led = kills.losses.iter().map(|loss| loss.led).min().unwrap_or(0);
    row.notes = vec![
        format!(
            "{} losses of a node that led {led} partitions or more (at least {LED_MIN}); median {:.2} s.",
            all.len(),
            all.get(all.len() / 2).copied().unwrap_or_default()
        ),
        format!(
            "{} local reads in the other zones; the largest age was {:.0} ms.",
            kills.reads,
            kills.age_max.as_secs_f64() * 1e3
        ),
    ];
    row.notes.extend(kills.first_failure.as_ref().map(|why| format!("The first read that failed: {why}")));
    bounded(row, &kills.profile)
}

/// The return of a node.
pub fn p7(big: &Big) -> Row {
    let bar = (Bar::AtMost, 2.0, "s until 1,000 keys are right");
    let (mut notes, mut bound_by) = (Vec::new(), None);
    let mut one = |restart: &anyhow::Result<Restart>, name: &str| -> Part {
        let found = match restart {
            Ok(found) => found,
            Err(error) => return void_if(part(name, f64::NAN, "s", bar), Some(format!("{error:#}"))),
        };
        bound_by.get_or_insert_with(|| found.profile.clone());
        let right = match &found.right {
            Ok(right) => right.as_secs_f64(),
            Err(last) => {
                notes.push(format!("{name}: not right within {} s; at last: {last}.", GIVE_UP.as_secs()));
                GIVE_UP.as_secs_f64()
            }
        };
        let late = || format!("not within {} s more", FAST_LIMIT.as_secs());
        let fast = found.fast.map_or_else(late, |fast| format!("{:.1} s", fast.as_secs_f64()));
        let (before, ms) = (&found.before, |time: Duration| time.as_secs_f64() * 1e3);
        notes.push(format!(
            "{name}: right after {right:.1} s; p99 within twice that before after: {fast}. Before, under the same writes: p50 \
             {:.2} ms, p99 {:.2} ms, {} of {} reads not answered whole in time.",
            ms(before.p50),
            ms(before.p99),
            before.failed + before.dropped,
            before.answered + before.failed + before.dropped
        ));
        part(name, right, "s", bar)
    };
    let warm = one(&big.restarts[0], "warm page cache");
    // The bar is for a warm page cache; the other is told.
    let _told = one(&big.restarts[1], "dropped page cache");
    let what = "kill -9 under load; until 1,000 random keys are right and no older than 1 s";
    let mut row = row("P7", what, &repeat("P7"), vec![warm]);
    if let Err(error) = &big.restarts[1] {
        notes.push(format!("dropped page cache: {error:#}"));
    }
    row.notes = notes;
    bounded(row, &bound_by.unwrap_or_default())
}

/// Quiet partitions.
pub fn p8(quiet: &Quiet) -> Row {
    let (many, few) = quiet.bytes;
    let each = (many as f64 - few as f64) / (quiet.partitions - quiet.few) as f64 / 1024.0;
    let first = quiet.first_write_p99.as_secs_f64() * 1e3;
    let parts = vec![
        part("CPU of a node", quiet.core * 100.0, "%", (Bar::AtMost, 5.0, "% of a core")),
        part("memory of a partition", each, "KiB", (Bar::AtMost, 100.0, "KiB")),
        part("first write to a quiet one, p99", first, "ms", (Bar::AtMost, 20.0, "ms")),
        part("all writable after a node's death", quiet.writable.as_secs_f64(), "s", (Bar::AtMost, 3.0, "s")),
    ];
    let mut row = row("P8", &format!("{} quiet partitions in one process", quiet.partitions), &repeat("P8"), parts);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    row.notes = vec![format!(
        "A node with {} partitions has {:.0} MiB resident, one with {} {:.0} MiB, both without rows. Quiet groups do not hibernate yet.",
        quiet.partitions,
        mib(many),
        quiet.few,
        mib(few)
    )];
    bounded(row, &quiet.profile)
}

/// The cost of a read by the size of the table.
pub fn p9(depth: &Depth) -> Row {
    let ((small_rows, small, _), (rows, large, copy)) = (depth.small, depth.large);
    let millions = |rows: u64| format!("{:.1} M rows", rows as f64 / 1e6);
    let ours = || side(&millions(rows), large, "ns a row");
    let parts = vec![
        ratio(
            "beside a small table",
            ours(),
            side(&millions(small_rows), small, "ns a row"),
            (Bar::AtMost, 2.5, "x that at 1 M rows"),
        ),
        ratio(
            "beside a copy",
            ours(),
            side(&format!("touched copy (asked for: {:.1} ns)", depth.large_copy_asked), copy, "ns a row"),
            (Bar::AtMost, 2.0, "x a copy of the same rows, each touched before"),
        ),
    ];
    bounded(row("P9", "cost of a key read at 20 M rows", &repeat("P9"), parts), &depth.reads_profile)
}

/// How soon a write is read everywhere.
pub fn p10(apart: &Apart) -> Row {
    let title = "an acknowledged write is read in all zones";
    let visible = match &apart.visible {
        Ok(visible) => visible,
        Err(error) => return void_row("P10", title, &format!("the measurement came to no end: {error:#}")),
    };
    let at = |quantile| visible.value_at_quantile(quantile) as f64 / 1e6;
    let parts = vec![part("p99", at(0.99), "ms", (Bar::AtMost, 20.0, "ms"))];
    let mut row = row("P10", title, &repeat("P10"), parts);
    row.notes = vec![format!(
        "{} writes, one after the other, zones {:.1} ms apart one way; p50 {:.1} ms, the longest {:.1} ms.",
        visible.len(),
        WAY.0.as_secs_f64() * 1e3,
        at(0.5),
        at(1.0)
    )];
    row
}

/// A rolling restart and the loss of a zone.
pub fn p11(apart: &Apart) -> Row {
    let bar = (Bar::AtLeast, 99.999, "% complete");
    let title = "a rolling restart and the loss of a zone";
    let run = match &apart.rolling {
        Ok(run) => run,
        // A cluster that does not become whole has not completed its calls.
        Err(error) => {
            let mut row = row("P11", title, &repeat("P11"), vec![part("calls complete", 0.0, "%", bar)]);
            row.notes = vec![format!("The run came to no end: {error:#}")];
            return row;
        }
    };
    let (failed, all) = (run.failed + run.dropped, run.failed + run.dropped + run.answered);
    let complete = 100.0 * (1.0 - failed as f64 / all as f64);
    let few = failed == 0 && all < CALLS_MIN;
    let void = run.void.clone().filter(|_| run.wrong > 0);
    let void = void.or(few.then(|| format!("no call failed, and {all} are too few to tell {} %", bar.1)));
    let mut row = row("P11", title, &repeat("P11"), vec![void_if(part("calls complete", complete, "%", bar), void)]);
    row.notes = vec![format!(
        "{failed} of {all} calls, {} a second, were not complete within the default deadline of 50 ms.",
        apart.rolling_rate
    )];
    row.notes.extend(run.first_failure.as_ref().map(|why| format!("The first that failed: {why}")));
    bounded(row, &apart.profile)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::counted::CallBytes;
    use crate::measure::tests::measured;
    use crate::report::model::Curve;

    /// 3 repetitions: the middle one has these figures, the others are far off on either side.
    fn repetitions(rate: f64, us: f64, server: f64, client: f64) -> Repetitions {
        let of = |by: f64| measured(rate * by, us * by, server, client);
        Repetitions(vec![of(0.5), of(1.0), of(7.0)])
    }

    fn summary(p99_us: u64) -> Summary {
        let mut summary = measured(100.0, 1.0, 1.0, 0.5).summary;
        summary.p99 = Duration::from_micros(p99_us);
        summary
    }

    fn big(client: f64) -> Big {
        let writes = WRITES.map(|(batch, _)| (batch, repetitions(100.0, 1.0, 0.9, 0.5)));
        let restart = |right| {
            let (before, profile) = (summary(1_000), vec!["50 % replay".to_owned()]);
            Ok(Restart { right, fast: None, before, profile })
        };
        Big {
            load_rate: 1.0,
            node_bytes_per_row: 300.0,
            reads: repetitions(30_000.0, 30.0, 0.99, client),
            bytes: CallBytes { up: 1_000, down: 20_000, calls: 3 },
            calls_per_read: 1.0,
            others: 0.1,
            reads_profile: vec!["90 % gather".to_owned()],
            writes: BTreeMap::from(writes),
            writes_profile: Vec::new(),
            beside: (summary(100), summary(250)),
            beside_writes: (summary(0), 100),
            curve: Curve::default(),
            restarts: vec![restart(Ok(Duration::from_secs(3))), restart(Err("not there".to_owned()))],
        }
    }

    fn peers() -> Peers {
        Peers {
            quic: Ok(repetitions(40_000.0, 25.0, 0.9, 1.0)),
            tls: Ok(repetitions(80_000.0, 12.0, 0.9, 1.0)),
            mget: Ok((repetitions(8_000.0, 120.0, 0.99, 0.5), Curve::default())),
            hmget: Ok(repetitions(800.0, 1_200.0, 0.99, 0.5)),
            writes: Ok(WRITES.map(|(batch, _)| (batch, repetitions(80.0, 1.0, 0.99, 0.5))).into()),
        }
    }

    fn values(row: &Row) -> Vec<(f64, Option<bool>)> {
        row.parts.iter().map(|part| ((part.value * 1e3).round() / 1e3, part.holds)).collect()
    }

    #[test]
    fn reads_are_judged_by_medians_cpu_from_above_and_rates_from_below() {
        let row = p1(&big(0.5), &peers());
        assert_eq!(values(&row), [(1.2, Some(true)), (3.75, Some(true)), (37.5, Some(true))]);
        assert_eq!((row.holds, row.bound_by.len()), (Some(true), 0));
        let mut slow = peers();
        slow.mget = Ok((repetitions(20_000.0, 120.0, 0.99, 0.5), Curve::default()));
        let row = p1(&big(0.5), &slow);
        assert_eq!((row.holds, row.value), (Some(false), Some(1.5)));
        assert_eq!(row.bound_by, ["90 % gather"]);
    }

    #[test]
    fn rates_are_void_beside_a_client_that_was_the_limit_and_a_redis_that_was_idle() {
        let row = p1(&big(0.97), &peers());
        assert!(row.holds.is_none() && row.void.is_some_and(|why| why.contains("the client had its core for 97 %")));
        let mut idle = peers();
        idle.mget = Ok((repetitions(8_000.0, 120.0, 0.6, 0.5), Curve::default()));
        let row = p1(&big(0.5), &idle);
        assert_eq!((row.parts[1].holds, row.parts[2].holds), (None, Some(true)));
        let mut absent = peers();
        absent.hmget = Err(anyhow::anyhow!("there is no redis-server"));
        let row = p1(&big(0.5), &absent);
        assert!(row.void.is_some_and(|why| why.contains("no redis-server")));
    }

    #[test]
    fn writes_have_a_higher_bar_at_1000_rows_than_below() {
        let row = p4(&big(0.5), &peers());
        assert_eq!(values(&row), [(1.25, Some(true)), (1.25, Some(true)), (1.25, Some(false))]);
        assert_eq!(row.parts[2].ours.as_ref().map(|ours| ours.value), Some(100_000.0));
    }

    #[test]
    fn reads_beside_writes_are_void_without_the_writes() {
        let row = p5(None, Some(&big(0.5)), "it failed");
        assert_eq!(row.parts[0].void.as_deref(), Some("it failed"));
        assert_eq!((row.parts[1].value, row.parts[1].holds), (2.5, Some(false)));
        let mut few = big(0.5);
        few.beside_writes.1 = 1_000;
        assert!(p5(None, Some(&few), "").parts[1].void.is_some());
    }

    #[test]
    fn a_node_that_does_not_come_back_fails_its_bar_and_voids_nothing() {
        let mut big = big(0.5);
        assert_eq!(values(&p7(&big)), [(3.0, Some(false))]);
        big.restarts.swap(0, 1);
        let row = p7(&big);
        assert_eq!((row.value, row.holds, row.void), (Some(GIVE_UP.as_secs_f64()), Some(false), None));
        assert_eq!(row.bound_by, ["50 % replay"]);
    }
}
