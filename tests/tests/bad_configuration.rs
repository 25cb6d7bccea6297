//! Nodes whose configuration cannot be right: each ends by itself, names the thing, says what would be right, and changes
//! neither the cluster nor the data directory that it was pointed at.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use stoa::certs::ensure_local;
use stoa::local_cluster::{LocalCluster, ZONES};
use stoa_env::{Clock, RealClock};
use stoa_protocol::NodeId;
use stoa_tests::command::run;
use stoa_tests::items::{define, rows, writer};
use stoa_tests::replicas::{equal_digests, equal_digests_of, files, files_in};
use stoa_tests::start;
use stoa_tests::wait::LIMIT;

const PARTITIONS: u64 = 4;
/// The node that is stopped, and whose configuration is then spoilt in many ways.
const STOPPED: u64 = 3;

/// A change of a good configuration, and what the node must say.
struct Case {
    changes: Vec<(String, String)>,
    says: Vec<String>,
}

fn case(changes: &[(&str, &str)], says: &[&str]) -> Case {
    let changes = changes.iter().map(|(old, new)| ((*old).to_owned(), (*new).to_owned())).collect();
    Case { changes, says: says.iter().map(|part| (*part).to_owned()).collect() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_a_bad_configuration_ends_by_itself_and_changes_nothing() -> anyhow::Result<()> {
    let mut cluster = start("bad_configuration", env!("CARGO_BIN_EXE_stoa-under-test"), PARTITIONS).await?;
    let client = cluster.client(ZONES[0]).await?;
    define(&client).await?;
    for batch in writer(&client).await?.write_rows(&rows(0..100, 1)).await? {
        batch.result?;
    }
    let before = equal_digests(&client).await?;
    ensure!(cluster.terminate(STOPPED, LIMIT).await?.success(), "{}", cluster.last_words());
    let others = cluster.nodes().into_iter().filter(|node| *node != STOPPED).map(NodeId).collect();
    let (names, bytes) = (files(&cluster)?, contents(&cluster.data_dir(STOPPED))?);

    let good = std::fs::read_to_string(cluster.config(STOPPED)?)?;
    let mut failures = Vec::new();
    for (at, Case { changes, says }) in cases(&cluster, &good)?.into_iter().enumerate() {
        let mut text = good.clone();
        for (old, new) in &changes {
            ensure!(text.contains(old), "{old:?} is not in the configuration:\n{good}");
            text = text.replace(old, new);
        }
        let path = cluster.dir().join(format!("bad-{at}.yaml"));
        std::fs::write(&path, text)?;
        let path = path.to_str().context("the path is UTF-8")?;
        let named = format!("{changes:?}");
        let finished = match run(&cluster, &["node", "--config", path]).await {
            Ok(finished) => finished,
            Err(error) => {
                failures.push(format!("{named}: {error:#}"));
                continue;
            }
        };
        if finished.code.is_none_or(|code| code == 0) || finished.err.contains("panicked") {
            failures.push(format!("{named}: ended with {:?}: {}", finished.code, finished.err));
        }
        let missing: Vec<_> = says.iter().filter(|part| !finished.err.contains(*part)).collect();
        if !missing.is_empty() {
            failures.push(format!("{named}: {missing:?} is missing in: {}", finished.err));
        }
        if files(&cluster)? != names || contents(&cluster.data_dir(STOPPED))? != bytes {
            failures.push(format!("{named}: files have changed"));
        }
        if equal_digests_of(&client, &others).await? != before {
            failures.push(format!("{named}: rows have changed"));
        }
    }
    ensure!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));

    cluster.start_node(STOPPED)?;
    ensure!(equal_digests(&client).await? == before, "node {STOPPED} came back with something else");
    Ok(())
}

fn cases(cluster: &LocalCluster, good: &str) -> anyhow::Result<Vec<Case>> {
    let (addr, taken) = (cluster.addr(STOPPED)?.to_string(), cluster.addr(1)?.to_string());
    let foreign = cluster.dir().join("foreign");
    ensure_local(&foreign, Some(STOPPED), &[], RealClock.wall())?;
    // The line of the cluster's name and id.
    let line = good.lines().next().context("the configuration has a first line")?;
    let id = line.split('"').nth(1).context("the id stands in quotes")?;
    let other = "0123456789abcdef0123456789abcdef";
    let member = format!("{{node: 3, zone: c, addr: \"{addr}\"}}");
    let listen = format!("listen: \"{addr}\"");
    let tls = "tls: {dir: certs, create: true}";
    let spare = [("node: 3\n", "node: 4\n"), ("data_dir: node-3", "data_dir: node-4")];
    let spare_at = |listen_at: &str| {
        let mut changes = spare.to_vec();
        let new = format!("listen: \"{listen_at}\"\nadvertise: \"127.0.0.1:9\"");
        changes.push((&listen, &new));
        case(&changes, &[listen_at, "is in use", "another port"])
    };
    let certs_of =
        |ca: &str, of: &str| format!("tls: {{ca: {ca}/ca.pem, cert: {of}/node-3.pem, key: {of}/node-3.key}}");
    Ok(vec![
        case(&[("zone: c\nlisten", "zone: b\nlisten")], &["node 3", "zone b", "c under root", "agree"]),
        case(
            &[("zone: c\nlisten", "zone: d\nlisten"), (&member, &member.replace("zone: c", "zone: d"))],
            &["made in zone c", "says d", "does not change its zone"],
        ),
        case(&[(&member, &member.replace("zone: c", "zone: b"))], &["zone b", "its own"]),
        case(&[("zone: c\nlisten", "zone: \"\"\nlisten")], &["zone"]),
        spare_at(&taken),
        case(&[(tls, "tls: {dir: nowhere}")], &["nowhere/ca.pem", "PEM"]),
        case(
            &[("node: 3\n", "node: 5\n"), (&listen, "listen: \"127.0.0.1:9\""), (tls, "tls: {dir: certs}")],
            &["node-5.pem"],
        ),
        case(
            &[(tls, &certs_of("certs", "foreign"))],
            &["foreign/node-3.pem", "not signed by the CA in", "certs/ca.pem"],
        ),
        case(&[(tls, "tls: {ca: certs/ca.pem}")], &["tls", "cert", "key"]),
        case(&[(id, other)], &[id, other, "data directory"]),
        case(&[(id, "17")], &["cluster.id", "\"17\"", "32 hexadecimal digits"]),
        case(&[("data_dir: node-3", "data_dir: node-2")], &["that of node 2", "says node 3", "its own"]),
        case(&[("data_dir: node-3", "data_dir: node-3.yaml")], &["data directory", "node-3.yaml"]),
        case(&[("threads: 1", "threads: 0")], &["threads is 0", "1 to 1024"]),
        case(&[("threads: 1", "thread: 1")], &["thread", "threads"]),
        case(&[("threads: 1", "raft: {heartbeat_ms: 500}")], &["heartbeat_ms is 500", "election_ms_min 400"]),
        case(&[("threads: 1", "log: {segment_mib: 64, live_mib_max: 64}")], &["segment_mib is 64", "two segments"]),
        case(&[(&listen, "listen: here")], &["line 4", "\"here\"", "IP:PORT"]),
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_of_a_node_ends_before_it_touches_a_file() -> anyhow::Result<()> {
    let cluster = start("second_process", env!("CARGO_BIN_EXE_stoa-under-test"), 1).await?;
    let client = cluster.client(ZONES[0]).await?;
    let (before, names) = (equal_digests(&client).await?, files(&cluster)?);
    let config = cluster.config(1)?.to_str().context("the path is UTF-8")?;
    let finished = run(&cluster, &["node", "--config", config]).await?;
    let addr = cluster.addr(1)?.to_string();
    ensure!(finished.code == Some(1), "{finished:?}");
    ensure!(finished.err.contains(&format!("{addr} is in use")), "{finished:?}");
    ensure!(equal_digests(&client).await? == before && files(&cluster)? == names, "something has changed");
    let finished = run(&cluster, &["node", "--config", "nowhere.yaml"]).await?;
    ensure!(finished.code == Some(1) && finished.err.contains("nowhere.yaml"), "{finished:?}");
    Ok(())
}

fn contents(dir: &Path) -> anyhow::Result<BTreeMap<PathBuf, Vec<u8>>> {
    files_in(dir)?.into_iter().map(|path| Ok((path.clone(), std::fs::read(path)?))).collect()
}
