//! The rows of P1 to P11, from what was measured. No measurement: figures come in as arguments.

use std::time::Duration;

use super::apart::{Apart, WAY};
use super::big::{Big, WRITES};
use super::depth::Depth;
use super::kills::{How, Kills, LED_MIN};
use super::parts::{Bar, part, ratio, row, side, void_if};
use super::peers::{BUSY_MIN, Peers};
use super::quiet::Quiet;
use super::restart::FAST_LIMIT;
use crate::load::{GOOD, Summary};
use crate::measure::Repetitions;
use crate::report::model::{Part, Row};
use crate::store::FEATURES;

/// The client must have its core free for a tenth of the time, or it may be what bounds a rate.
const CLIENT_BUSY_MAX: f64 = 0.90;
/// Bytes of the values of a row, and what P3 allows besides.
const VALUE_BYTES: f64 = (FEATURES * 4) as f64;
const BYTES_FACTOR: f64 = 1.15;
const BYTES_MORE: f64 = 48.0;
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
    let of_echo = |name: &str, echo: &anyhow::Result<Repetitions>, bar| match echo {
        Ok(echo) => void_if(ratio(name, ours_cpu.clone(), cpu("echo", echo), bar), big.reads.void().or(echo.void())),
        Err(_) => void_if(part(name, f64::NAN, "x", bar), missing(echo)),
    };
    let of_redis = |name: &str, redis: Option<&Repetitions>, why: Option<String>, bar| match redis {
        Some(redis) => {
            let void =
                big.reads.void().or(redis.void()).or(client_was_the_limit(&big.reads)).or(server_was_idle(redis));
            void_if(ratio(name, ours_rate.clone(), rate(name, redis), bar), void)
        }
        None => void_if(part(name, f64::NAN, "x", bar), why),
    };
    let parts = vec![
        of_echo("server CPU beside a quinn echo", &peers.quic, (Bar::AtMost, 1.5, "x a quinn echo of the same bytes")),
        of_redis(
            "Redis MGET",
            peers.mget.as_ref().ok().map(|(all, _)| all),
            missing(&peers.mget),
            (Bar::AtLeast, 3.0, "x Redis MGET of packed rows"),
        ),
        of_redis(
            "Redis HMGET",
            peers.hmget.as_ref().ok(),
            missing(&peers.hmget),
            (Bar::AtLeast, 25.0, "x Redis HMGET"),
        ),
    ];
    let mut row = row("P1", "100 rows x 48 Float32, uniform keys, one node on one core", &repeat("P1"), parts);
    row.notes = vec![
        format!(
            "A request has {} bytes and its answer {}; the node had its core for {:.0} % of the time, the client its own for {:.0} %.",
            big.bytes.up,
            big.bytes.down,
            big.reads.median(|one| one.server) * 100.0,
            big.reads.median(|one| one.client) * 100.0
        ),
        "Redis' hashes are a tenth of the rows: each takes 921 bytes there.".to_owned(),
    ];
    if let Ok(tls) = &peers.tls {
        let us = tls.median(|one| one.server_us());
        row.notes.push(format!("An echo of the same bytes over TLS and TCP costs its server {us:.1} us."));
    }
    bounded(row, &big.reads_profile)
}

/// The row, with a profile if it does not hold.
fn bounded(row: Row, profile: &[String]) -> Row {
    let bound_by = if row.holds == Some(true) { Vec::new() } else { profile.to_vec() };
    Row { bound_by, ..row }
}

/// The loss of a zone.
pub fn p2(apart: &Apart) -> Row {
    let (run, at) = (&apart.loss.run, apart.loss.at);
    let whole = run.late_between(Duration::ZERO, Duration::MAX);
    let window = run.late_between(at, at + LOSS_WINDOW);
    let share = |(all, late): (u64, u64)| 100.0 * (1.0 - late as f64 / all as f64);
    let above = (calm_p99_us(run, at) - WAY.0.as_secs_f64() * 2e6) / 1e3;
    // That nothing was answered is a figure, too.
    let void = run.void.clone().filter(|_| run.wrong > 0);
    let parts = vec![
        void_if(
            part(
                "calm p99 above the emulated way",
                above.max(0.0),
                "ms",
                (Bar::AtMost, ABOVE_WAY_MS, "ms above the delay"),
            ),
            void.clone(),
        ),
        void_if(
            part("complete within 10 ms, whole run", share(whole), "%", (Bar::AtLeast, 99.9, "% within 10 ms")),
            void,
        ),
    ];
    let mut row = row("P2", "open loop, three zones apart, one goes silent half way", &repeat("P2"), parts);
    row.notes = vec![
        format!(
            "{} requests/s from clients of all three zones (peak {:.0}); zones are {:.1} ms apart, one way.",
            apart.loss.rate,
            apart.peak,
            WAY.0.as_secs_f64() * 1e3
        ),
        format!(
            "At {} requests/s, half of the peak, for {:.0} s: calm p99 {:.2} ms, {:.3} % complete within {} ms, and {:.2} % in the {} s \
             after the loss.",
            apart.half.rate,
            apart.half.time.as_secs_f64(),
            calm_p99_us(&apart.half.run, apart.half.at) / 1e3,
            share(apart.half.run.late_between(Duration::ZERO, Duration::MAX)),
            GOOD.as_millis(),
            share(apart.half.run.late_between(apart.half.at, apart.half.at + LOSS_WINDOW)),
            LOSS_WINDOW.as_secs()
        ),
        format!(
            "In the {} s after the loss {:.2} % of {} calls were complete within {} ms; {} calls of the whole run failed.",
            LOSS_WINDOW.as_secs(),
            share(window),
            window.0,
            GOOD.as_millis(),
            run.failed + run.dropped
        ),
        "A read is answered in its client's own zone, so a calm latency has no emulated way in it; the bar's allowance is taken \
         from it all the same: p99 less a round trip, and no less than 0."
            .to_owned(),
    ];
    row
}

/// The median over the calm slots of their 99th percentile.
fn calm_p99_us(run: &Summary, until: Duration) -> f64 {
    let mut calm: Vec<f64> =
        run.slots.iter().filter(|slot| slot.at_s < until.as_secs_f64()).map(|s| s.p99_us).collect();
    calm.sort_by(f64::total_cmp);
    calm.get(calm.len() / 2).copied().unwrap_or(f64::NAN)
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
    let mut parts = Vec::new();
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
                let void = ours.void().or(peer.void());
                void_if(ratio(&name, rows("Stoa", ours), rows("Redis SET", peer), bar), void)
            }
            Err(_) => void_if(part(&name, f64::NAN, "x", bar), missing(&peers.writes)),
        });
    }
    let mut row = row("P4", "rows of 48 features a second, durable", &repeat("P4"), parts);
    row.notes = vec![
        "Three nodes, and three Redis servers, on one core, one client core. Stoa answers when two of three nodes have synced a \
         row; Redis when its primary has synced it and a replica has it in memory."
            .to_owned(),
        "A write of Stoa is rows of one partition, the partitions in turn.".to_owned(),
        format!("The load before, on all cores, took {:.0} rows/s.", big.load_rate),
    ];
    bounded(row, &big.writes_profile)
}

/// Reads beside writes.
pub fn p5(depth: Option<&Depth>, big: Option<&Big>) -> Row {
    let bar = (Bar::AtMost, 2.0, "x without writes");
    let of_nodes = big.map_or_else(
        || void_if(part("end to end", f64::NAN, "x", bar), Some("the cluster was not measured".into())),
        |big| {
            let (alone, beside) = &big.beside;
            let p99 = |name: &str, of: &Summary| side(name, of.p99.as_secs_f64() * 1e6, "us");
            let failed = alone.failed + beside.failed + alone.dropped + beside.dropped;
            let void = alone.void.clone().or(beside.void.clone()).or(big.beside_writes.void.clone());
            let void = void.or((failed > 0).then(|| format!("{failed} reads failed")));
            void_if(ratio("end to end", p99("beside writes", beside), p99("alone", alone), bar), void)
        },
    );
    let in_process = depth.map_or_else(
        || void_if(part("in process", f64::NAN, "x", bar), Some("the store was not measured".into())),
        |depth| {
            let (beside, alone) = (depth.p99_writes_us, depth.p99_alone_us);
            ratio("in process", side("beside writes", beside, "us"), side("alone", alone, "us"), bar)
        },
    );
    let mut row = row("P5", "p99 of reads of 100 rows beside writes", &repeat("P5"), vec![in_process, of_nodes]);
    if let Some(big) = big {
        row.notes.push(format!(
            "End to end: {:.0} reads/s beside {:.0} rows/s, a quarter of the peaks of each.",
            big.beside.1.rate,
            big.beside_writes.rate * 1_000.0
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
    row
}

/// The return of a node.
pub fn p7(big: &Big) -> Row {
    let bar = (Bar::AtMost, 2.0, "s until 1,000 keys are right");
    let mut notes = Vec::new();
    let mut one = |at: usize, name: &str| -> Part {
        match &big.restarts[at] {
            Ok(found) => {
                let late = || format!("not within {} s more", FAST_LIMIT.as_secs());
                let fast = found.fast.map_or_else(late, |fast| format!("{:.1} s", fast.as_secs_f64()));
                notes.push(format!(
                    "{name}: right after {:.1} s; p99 within twice that before ({:.2} ms) after: {fast}.",
                    found.right.as_secs_f64(),
                    found.p99_before.as_secs_f64() * 1e3
                ));
                part(name, found.right.as_secs_f64(), "s", bar)
            }
            Err(error) => void_if(part(name, f64::NAN, "s", bar), Some(format!("{error:#}"))),
        }
    };
    let warm = one(0, "warm page cache");
    // The bar is for a warm page cache; the other is told.
    let _told = one(1, "dropped page cache");
    let mut row = row(
        "P7",
        "kill -9 under load; until 1,000 random keys are right and no older than 1 s",
        &repeat("P7"),
        vec![warm],
    );
    if let Some(Err(error)) = big.restarts.get(1) {
        notes.push(format!("dropped page cache: {error:#}"));
    }
    row.notes = notes;
    row
}

/// Quiet partitions.
pub fn p8(quiet: &Quiet) -> Row {
    let parts = vec![
        part("CPU of a node", quiet.core * 100.0, "%", (Bar::AtMost, 5.0, "% of a core")),
        part("memory of a partition", quiet.bytes / 1024.0, "KiB", (Bar::AtMost, 100.0, "KiB")),
        part(
            "first write to a quiet one, p99",
            quiet.first_write_p99.as_secs_f64() * 1e3,
            "ms",
            (Bar::AtMost, 20.0, "ms"),
        ),
        part(
            "all writable after a node's death",
            quiet.writable.map_or(f64::NAN, |took| took.as_secs_f64()),
            "s",
            (Bar::AtMost, 3.0, "s"),
        ),
    ];
    row("P8", &format!("{} quiet partitions in one process", quiet.partitions), &repeat("P8"), parts)
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
            side("prefetched copy", copy, "ns a row"),
            (Bar::AtMost, 2.0, "x a prefetched copy of the same rows"),
        ),
    ];
    row("P9", "cost of a key read at 20 M rows", &repeat("P9"), parts)
}

/// How soon a write is read everywhere.
pub fn p10(apart: &Apart) -> Row {
    let at = |quantile| apart.visible.value_at_quantile(quantile) as f64 / 1e6;
    let parts = vec![part("p99", at(0.99), "ms", (Bar::AtMost, 20.0, "ms"))];
    let mut row = row("P10", "an acknowledged write is read in all zones", &repeat("P10"), parts);
    row.notes = vec![format!(
        "{} writes, one after the other, zones {:.1} ms apart one way; p50 {:.1} ms, the longest {:.1} ms.",
        apart.visible.len(),
        WAY.0.as_secs_f64() * 1e3,
        at(0.5),
        at(1.0)
    )];
    row
}

/// A rolling restart and the loss of a zone.
pub fn p11(apart: &Apart) -> Row {
    let run = &apart.rolling;
    let (failed, all) = (run.failed + run.dropped, run.failed + run.dropped + run.answered);
    let share = 100.0 * (1.0 - failed as f64 / all as f64);
    let parts = vec![void_if(
        part("calls complete", share, "%", (Bar::AtLeast, 99.999, "% complete")),
        run.void.clone().filter(|_| run.wrong > 0),
    )];
    let mut row = row("P11", "a rolling restart and the loss of a zone", &repeat("P11"), parts);
    row.notes = vec![format!(
        "{failed} of {all} calls, {} a second, were not complete within the default deadline of 50 ms.",
        apart.rolling_rate
    )];
    row.notes.extend(run.first_failure.as_ref().map(|why| format!("The first that failed: {why}")));
    row
}
