//! Files of a node's data directory are damaged while it is stopped: single bits flipped, ends cut off, emptied, removed.
//! It starts and has what it had, or it says by name which file is damaged and serves nothing from it; it never goes on
//! as if all were well with less than it had. The two others have every acknowledged row all the while.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use stoa::local_cluster::{LocalCluster, LocalClusterOptions, ZONES};
use stoa_client::Client;
use stoa_env::QuicTransport;
use stoa_protocol::NodeId;
use stoa_protocol::message::NodeStatus;
use stoa_tests::items::{define, position, read, rows, writer};
use stoa_tests::replicas::{Digests, equal_digests, equal_digests_of, files_in, partitions};
use stoa_tests::wait::{LIMIT, until};

const PARTITIONS: u64 = 2;
/// Small segments and a small log: so there are several segments, and snapshots, after some MiB.
const CONFIG: &str = "threads: 1\nlog: {segment_mib: 1, live_mib_max: 8}\n";
/// Items, written all at once: some 200 KiB each time.
const ITEMS: std::ops::Range<i64> = 0..2_000;
/// Segments of the log that there must be.
const SEGMENTS: usize = 3;
/// How often they are written at the most.
const UNITS_MAX: i64 = 500;
/// The node whose files are damaged.
const NODE: u64 = 3;
/// How long it may take to say how it is.
const STATUS_LIMIT: Duration = Duration::from_secs(5);

/// What a leader says of a replica that lacks what it has acknowledged.
const LACKS: &str = "which it has acknowledged";

/// What happens to a file.
#[derive(Debug, Clone, Copy)]
enum Damage {
    /// One bit, at so many thousandths of its length.
    Flip(usize),
    /// It keeps so many thousandths of its length.
    Cut(usize),
    Remove,
}

impl Damage {
    fn strike(self, path: &Path) -> anyhow::Result<()> {
        let mut bytes = std::fs::read(path)?;
        match self {
            Self::Flip(at) => {
                let at = (bytes.len() - 1) * at / 1_000;
                bytes[at] ^= 1 << (at % 8);
            }
            Self::Cut(at) => bytes.truncate(bytes.len() * at / 1_000),
            Self::Remove => return Ok(std::fs::remove_file(path)?),
        }
        Ok(std::fs::write(path, bytes)?)
    }
}

/// Looks at a node that catches up, after which what its leader has said of it counts: some seconds.
const CATCHING_UP_LOOKS: u32 = 60;

/// How a node came out of a start.
#[derive(Debug)]
enum Outcome {
    /// It serves all that it had.
    Whole,
    /// It ended, or some of its replicas are out; this is what it said.
    Refused(String),
    /// Some of its replicas lack what they have acknowledged, and their leader has said so.
    Behind,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_a_damaged_file_has_what_it_had_or_names_the_file() -> anyhow::Result<()> {
    let options = LocalClusterOptions {
        partitions: PARTITIONS,
        config: CONFIG.to_owned(),
        ..LocalClusterOptions::new("damaged_files", env!("CARGO_BIN_EXE_stoa-under-test"))
    };
    let mut cluster = LocalCluster::start(options, LIMIT).await?;
    let client = cluster.client(ZONES[0]).await?;
    define(&client).await?;
    let mut units = 0;
    let before = loop {
        units = write_enough(&cluster, &client, units).await?;
        let before = equal_digests(&client).await?;
        ensure!(cluster.terminate(NODE, LIMIT).await?.success(), "{}", cluster.last_words());
        // Segments whose entries are in snapshots go at any time, and the last one alone would be the whole log.
        if named(&cluster.data_dir(NODE), is_segment)?.len() > 1 {
            break before;
        }
        ensure!(units < UNITS_MAX, "written {units} times, and the log has one segment each time");
        cluster.start_node(NODE)?;
    };
    let (dir, kept) = (cluster.data_dir(NODE), cluster.dir().join("kept"));
    copy(&dir, &kept)?;

    let mut failures = Vec::new();
    for (what, file, damage) in cases(&dir)? {
        std::fs::remove_dir_all(&dir)?;
        copy(&kept, &dir)?;
        forget_sightings(&mut cluster, &client).await?;
        damage.strike(&dir.join(&file))?;
        let name = match damage {
            // What is missing in a log shows at another place of it, or only to the leader.
            Damage::Cut(_) | Damage::Remove if what.ends_with("segment") => "replace this replica".to_owned(),
            _ => file.file_name().and_then(|name| name.to_str()).context("the name is UTF-8")?.to_owned(),
        };
        match start(&mut cluster, &client, &before).await {
            // A snapshot that is damaged is named, whatever else is wrong.
            Ok(Outcome::Behind) if file.starts_with("snapshots") => {
                failures.push(format!("{what}, {damage:?}: {name} is not named, and a replica is behind"));
            }
            // The copy may be older than what the node has acknowledged in one of its lives since.
            Ok(outcome @ (Outcome::Whole | Outcome::Behind)) => println!("{what}, {damage:?}: {outcome:?}"),
            Ok(Outcome::Refused(said)) if said.contains(&name) => {
                println!("{what}, {damage:?}: {}", said.lines().next().unwrap_or_default());
            }
            Ok(Outcome::Refused(said)) => failures.push(format!("{what}, {damage:?}: {name} is not named in: {said}")),
            Err(error) => failures.push(format!("{what}, {damage:?}: {error:#}")),
        }
        others_have_all(&cluster, &client, &before, units).await.with_context(|| format!("{what}, {damage:?}"))?;
        cluster.kill(&[NODE]).await?;
    }
    ensure!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));

    std::fs::remove_dir_all(&dir)?;
    copy(&kept, &dir)?;
    let old = start(&mut cluster, &client, &before).await?;
    let said = "is an old copy of itself";
    ensure!(matches!(&old, Outcome::Refused(why) if why.contains(said)), "an old copy is taken: {old:?}");
    cluster.kill(&[NODE]).await?;

    std::fs::remove_dir_all(&dir)?;
    copy(&kept, &dir)?;
    forget_sightings(&mut cluster, &client).await?;
    match start(&mut cluster, &client, &before).await? {
        Outcome::Refused(said) => bail!("the whole files do not hold what they held: {said}"),
        Outcome::Whole | Outcome::Behind => Ok(()),
    }
}

/// The same copy of the data directory is started many times here, and the others remember how far its log has reached since,
/// in memory and in a file. They start anew without that.
async fn forget_sightings(cluster: &mut LocalCluster, client: &Client<QuicTransport>) -> anyhow::Result<()> {
    let others: Vec<u64> = cluster.nodes().into_iter().filter(|node| *node != NODE).collect();
    cluster.kill(&others).await?;
    for node in &others {
        match std::fs::remove_file(cluster.data_dir(*node).join("witness")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => cluster.start_node(*node)?,
        }
    }
    until("the others in health", async || {
        for node in &others {
            let trouble = trouble(&client.status(NodeId(*node), STATUS_LIMIT).await?);
            ensure!(trouble.is_empty(), "node {node}: {trouble:?}");
        }
        Ok(())
    })
    .await
}

/// Writes all items again and again, until there are snapshots, and several segments after them; how often in all.
async fn write_enough(cluster: &LocalCluster, client: &Client<QuicTransport>, before: i64) -> anyhow::Result<i64> {
    let writer = writer(client).await?;
    let mut units = before;
    until("snapshots and segments", async || {
        units += 1;
        position(client, &writer.write_rows(&rows(ITEMS, units)).await?)?;
        let dir = cluster.data_dir(NODE);
        let snapshots = named(&dir, |path| path.ends_with("/manifest"))?.len() as u64;
        let segments = named(&dir, is_segment)?.len();
        let enough = snapshots >= PARTITIONS && segments >= SEGMENTS;
        ensure!(enough, "written {units} times: {snapshots} snapshots, {segments} segments");
        Ok(())
    })
    .await?;
    Ok(units)
}

/// Files whose path below `dir` is as wanted.
fn named(dir: &Path, wanted: impl Fn(&str) -> bool) -> anyhow::Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    for path in files_in(dir)? {
        let below = path.strip_prefix(dir)?;
        if wanted(below.to_str().context("the path is UTF-8")?) {
            out.push(below.to_owned());
        }
    }
    Ok(out)
}

fn is_segment(path: &str) -> bool {
    path.starts_with("wal/") && path.ends_with(".wal")
}

fn cases(dir: &Path) -> anyhow::Result<Vec<(&'static str, PathBuf, Damage)>> {
    let first = |what: &str, files: Vec<PathBuf>| files.first().cloned().with_context(|| format!("there is no {what}"));
    let segments = named(dir, is_segment)?;
    let (oldest, newest) = (first("segment", segments.clone())?, segments.last().cloned().context("no segment")?);
    let manifest = first("manifest", named(dir, |path| path.ends_with("/manifest"))?)?;
    let chunk = first("chunk", named(dir, |path| path.ends_with(".chunk"))?)?;
    let mut cases = Vec::new();
    for (what, file, damages) in [
        ("identity", PathBuf::from("identity"), [Damage::Flip(500), Damage::Cut(500), Damage::Cut(0)].as_slice()),
        ("the oldest segment", oldest, &[Damage::Flip(500), Damage::Cut(500), Damage::Remove]),
        (
            "the newest segment",
            newest,
            &[
                Damage::Flip(0),
                Damage::Flip(500),
                Damage::Flip(1_000),
                Damage::Cut(990),
                Damage::Cut(500),
                Damage::Cut(0),
                Damage::Remove,
            ],
        ),
        ("a manifest", manifest, &[Damage::Flip(500), Damage::Cut(500), Damage::Remove]),
        ("a chunk", chunk, &[Damage::Flip(500), Damage::Cut(500), Damage::Remove]),
        ("the root state", PathBuf::from("root-state"), &[Damage::Flip(500), Damage::Cut(500)]),
    ] {
        cases.extend(damages.iter().map(|damage| (what, file.clone(), *damage)));
    }
    Ok(cases)
}

/// Starts the node and waits until it is clear what became of it.
async fn start(
    cluster: &mut LocalCluster,
    client: &Client<QuicTransport>,
    before: &Digests,
) -> anyhow::Result<Outcome> {
    let mut said_before = Vec::new();
    for node in cluster.nodes() {
        said_before.push((node, cluster.log(node)?.len()));
    }
    cluster.start_node(NODE)?;
    let addr = cluster.addr(NODE)?;
    let wanted = partitions(client).len() + 1;
    let mut looks = 0;
    let status = until("a node that serves, or has ended, or says what is wrong", async || {
        if !cluster.runs(NODE)? {
            return Ok(None);
        }
        let status = client.status_at(addr, STATUS_LIMIT).await?;
        ensure!(status.replicas.len() == wanted, "{} replicas of {wanted}", status.replicas.len());
        let passing: Vec<_> = status.replicas.iter().filter(|replica| replica.trouble == "catching up").collect();
        // Who has lost the end of its log, which looks like a crash in the middle of writing, cannot know. Its leader can,
        // and feeds it no more: it does not come to serve. A leader says so once in its term, maybe long ago, so that all
        // others are given time to catch up first.
        looks += 1;
        ensure!(passing.is_empty() || (looks > CATCHING_UP_LOOKS && !lacks(cluster)?.is_empty()), "{passing:?}");
        Ok(Some(status))
    })
    .await?;
    let said = said_since(cluster, &said_before)?;
    let Some(status) = status else {
        let status = cluster.ended(NODE, LIMIT).await?;
        ensure!(!status.success() && !said.contains("panicked"), "it ended with {status}: {said}");
        return Ok(Outcome::Refused(said));
    };
    let trouble = trouble(&status);
    if !trouble.is_empty() {
        let behind = status.replicas.iter().all(|replica| ["", "catching up"].contains(&replica.trouble.as_str()));
        return Ok(if behind { Outcome::Behind } else { Outcome::Refused(format!("{}\n{said}", trouble.join("\n"))) });
    }
    ensure!(equal_digests(client).await? == *before, "it serves something else than it had: {said}");
    Ok(Outcome::Whole)
}

/// What all nodes have said since then.
fn said_since(cluster: &LocalCluster, before: &[(u64, usize)]) -> anyhow::Result<String> {
    let mut said = String::new();
    for (node, before) in before {
        said += &cluster.log(*node)?.split_off(*before);
    }
    Ok(said)
}

/// What leaders have ever said of replicas that lack what they have acknowledged: they say it once a term, so that a case
/// may have it from an earlier one.
fn lacks(cluster: &LocalCluster) -> anyhow::Result<String> {
    let said = said_since(cluster, &cluster.nodes().into_iter().map(|node| (node, 0)).collect::<Vec<_>>())?;
    Ok(said.lines().filter(|line| line.contains(LACKS)).collect::<Vec<_>>().join("\n"))
}

fn trouble(status: &NodeStatus) -> Vec<String> {
    let out = status.replicas.iter().filter(|replica| !replica.trouble.is_empty());
    out.map(|replica| format!("{}: {}", replica.partition, replica.trouble)).collect()
}

/// Every acknowledged row is there, from every zone, whatever the damaged node does; the two others are as they were, and
/// in health.
async fn others_have_all(
    cluster: &LocalCluster,
    client: &Client<QuicTransport>,
    before: &Digests,
    units: i64,
) -> anyhow::Result<()> {
    let others: BTreeSet<NodeId> = cluster.nodes().into_iter().filter(|node| *node != NODE).map(NodeId).collect();
    ensure!(equal_digests_of(client, &others).await? == *before, "the others have changed");
    // Leaders that were lost with the damaged node are elected anew, and say so meanwhile; a halt stays.
    until("the others in health", async || {
        for node in &others {
            let trouble = trouble(&client.status(*node, STATUS_LIMIT).await?);
            ensure!(trouble.is_empty(), "node {node} has taken harm: {trouble:?}");
        }
        Ok(())
    })
    .await?;
    let items: Vec<i64> = ITEMS.collect();
    for zone in ZONES {
        let found = read(&cluster.client(zone).await?, &items, None).await?;
        if let Some((item, found)) = found.iter().find(|(_, found)| **found != units) {
            bail!("zone {zone}: item {item} was written {units} times, and says {found}");
        }
    }
    Ok(())
}

/// Copies a directory, but not the log's reserve, which holds nothing and is made anew.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    for path in files_in(from)? {
        let below = path.strip_prefix(from)?;
        if below == Path::new("wal/reserve") {
            continue;
        }
        let target = to.join(below);
        std::fs::create_dir_all(target.parent().context("a file lies in a directory")?)?;
        std::fs::copy(&path, target)?;
    }
    Ok(())
}
