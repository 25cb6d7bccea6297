//! The command line against a real cluster: what a user does by hand, and what a load promises.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::Value;
use stoa::load::{LoadOptions, SourceFile};
use stoa::local_cluster::{LocalCluster, ZONES};
use stoa_client::Client;
use stoa_env::QuicTransport;
use stoa_tests::command::{command, run};
use stoa_tests::items::{self, GROUP, define, note};
use stoa_tests::replicas::{self, equal_digests, of_rows};
use stoa_tests::wait::until;
use stoa_tests::{repository, start};

const PARTITIONS: u64 = 4;
const PROGRAM: &str = env!("CARGO_BIN_EXE_stoa-under-test");
const HOUSEHOLDS: &str = "shop/household_activity@1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_is_applied_files_are_loaded_and_features_read() -> anyhow::Result<()> {
    let cluster = start("command_line", PROGRAM, PARTITIONS).await?;
    apply_twice(&cluster).await?;
    let rows = load_parquet(&cluster).await?;
    load_products(&cluster).await?;
    // A read takes what its zone has; so it waits until all have the same.
    equal_digests(&cluster.client(ZONES[0]).await?).await?;
    read_as_json(&cluster).await?;
    read_as_table(&cluster).await?;
    show_status(&cluster, rows + 2).await
}

async fn apply_twice(cluster: &LocalCluster) -> anyhow::Result<()> {
    let catalog = repository("demo/shop.yaml");
    let apply = ["apply", "-f", text(&catalog)];
    let first = run(cluster, &apply).await?.succeeded()?;
    // How many were new is told of the last attempt alone, and a slow answer makes the client ask again.
    ensure!(first.out.contains(" unchanged; catalog version "), "{}", first.out);
    let second = run(cluster, &apply).await?.succeeded()?;
    ensure!(second.out.starts_with("0 defined, "), "{}", second.out);
    Ok(())
}

/// Loads a file of the demo; the number of its rows.
async fn load_parquet(cluster: &LocalCluster) -> anyhow::Result<u64> {
    let file = repository("demo/data/household_activity.parquet");
    let loaded = run(cluster, &["load", HOUSEHOLDS, text(&file), "--json"]).await?.succeeded()?.json()?;
    let rows = loaded["rows_acknowledged"].as_u64().context("rows are counted")?;
    ensure!(rows > 1_000 && loaded["rows_read"] == rows && loaded["rows_bad"] == 0, "{loaded}");
    Ok(rows)
}

/// Two products, with a quoted text, a comma in it, and a value that is missing.
async fn load_products(cluster: &LocalCluster) -> anyhow::Result<()> {
    let lines = "product_id,department,brand\n1001,\"MEAT, \"\"FRESH\"\"\",National\n1002,GROCERY,\n";
    let file = write(cluster, "products.csv", lines)?;
    let loaded = run(cluster, &["load", "shop/product_catalog@1", text(&file)]).await?.succeeded()?;
    ensure!(
        loaded.out.starts_with("2 rows read, 2 acknowledged (0 before this run), 0 bad, 0 older"),
        "{}",
        loaded.out
    );
    Ok(())
}

async fn read_as_json(cluster: &LocalCluster) -> anyhow::Result<()> {
    let keys = ["household_id=1", "product_id=1001,1002,1003", "store_id=367"];
    for zone in ZONES {
        let get = [&["get", "shop/rank_products@1"][..], &keys, &["--json", "--deadline-ms", "20000"]].concat();
        let get = command(cluster, zone, &get);
        let answer = stoa_tests::command::finish(get).await?.succeeded()?.json()?;
        ensure!(answer["complete"] == true, "{answer}");
        let rows = answer["rows"].as_array().context("rows are a list")?;
        ensure!(rows.len() == 3 && rows[1]["keys"]["product_id"] == 1002, "{answer}");
        let says = |row: usize, feature: &str, status: &str, value: Value| {
            let found = &rows[row]["features"][feature];
            ensure!(found["status"] == status && found["value"] == value, "row {row}, {feature}: {found}");
            Ok(())
        };
        says(0, "department", "Present", "MEAT, \"FRESH\"".into())?;
        says(1, "department", "Present", "GROCERY".into())?;
        says(0, "brand", "Present", "National".into())?;
        says(1, "brand", "Null", Value::Null)?;
        says(0, "manufacturer_id", "Null", Value::Null)?;
        says(2, "department", "NotFound", Value::Null)?;
        says(0, "product_units_7d", "NotFound", Value::Null)?;
        for (feature, value) in household_one(cluster).await? {
            says(2, &format!("household_{feature}"), if value.is_null() { "Null" } else { "Present" }, value)?;
        }
    }
    Ok(())
}

/// What the file says of household 1: its integers and texts.
async fn household_one(cluster: &LocalCluster) -> anyhow::Result<Vec<(String, Value)>> {
    let client = cluster.client(ZONES[0]).await?;
    let group = client.group(HOUSEHOLDS).await?;
    let file = repository("demo/data/household_activity.parquet");
    let source = SourceFile::open(file, group.definition(), LoadOptions::new(items::FIRST_EVENT_US))?;
    let places = source.features();
    let mut key = Vec::new();
    stoa_protocol::key::encode_key(&group.definition().entity.key_types(), &[1_i64.into()], &mut key)?;
    for chunk in source.chunks(4_096)? {
        let Some(row) = chunk?.rows.into_iter().find(|row| row.key == key) else { continue };
        let values = places.iter().zip(row.values).filter_map(|(place, value)| {
            let name = group.definition().features[usize::from(*place)].name.clone();
            let value = match value {
                stoa_protocol::Value::Null => Value::Null,
                stoa_protocol::Value::Int(value) => value.into(),
                stoa_protocol::Value::String(value) => value.into(),
                _ => return None,
            };
            Some((name, value))
        });
        let values: Vec<_> = values.collect();
        ensure!(values.iter().filter(|(_, value)| !value.is_null()).count() > 5, "{values:?}");
        return Ok(values);
    }
    anyhow::bail!("the file has no household 1")
}

async fn read_as_table(cluster: &LocalCluster) -> anyhow::Result<()> {
    let get = ["get", "shop/rank_products@1", "household_id=1", "product_id=1001", "store_id=367"];
    let table = run(cluster, &[&get[..], &["--deadline-ms", "20000"]].concat()).await?.succeeded()?.out;
    let line = |feature: &str| table.lines().find(|line| line.contains(&format!(" {feature} "))).unwrap_or_default();
    for (feature, shown) in [
        ("feature", "1 / 1001 / 367"),
        ("department", "MEAT, \"FRESH\""),
        ("manufacturer_id", "(Null)"),
        ("product_units_7d", "(NotFound)"),
    ] {
        ensure!(line(feature).contains(shown), "the line of {feature} should show {shown:?}:\n{table}");
    }
    Ok(())
}

async fn show_status(cluster: &LocalCluster, rows: u64) -> anyhow::Result<()> {
    until("a status without trouble", async || {
        let status = run(cluster, &["status", "--json"]).await?.succeeded()?.json()?;
        let nodes = status["nodes"].as_array().context("nodes are a list")?;
        ensure!(nodes.len() == ZONES.len(), "{status}");
        for (node, zone) in nodes.iter().zip(ZONES) {
            let replicas = node["replicas"].as_array().context("replicas are a list")?;
            ensure!(node["zone"] == zone && replicas.len() == PARTITIONS as usize + 1, "{node}");
            ensure!(replicas.iter().all(|replica| !replica["leader"].is_null() && replica["trouble"] == ""), "{node}");
            let sum: u64 = replicas.iter().filter_map(|replica| replica["rows"].as_u64()).sum();
            ensure!(sum == rows, "node {node} should have {rows} rows");
        }
        Ok(())
    })
    .await?;
    let shown = run(cluster, &["status"]).await?.succeeded()?.out;
    ensure!(shown.contains(&format!(" {PARTITIONS} partitions")) && shown.matches(" serves ").count() == 3, "{shown}");
    let status = run(cluster, &["status", "--memory", "--json"]).await?.succeeded()?.json()?;
    for node in status["nodes"].as_array().context("nodes are a list")? {
        let memory = &node["memory"];
        let partitions = memory["partitions"].as_array().context("partitions are a list")?;
        ensure!(memory["all"]["rows"] == rows && partitions.len() == PARTITIONS as usize, "{node}");
        let sum: u64 = partitions.iter().filter_map(|partition| partition["total"].as_u64()).sum();
        ensure!(sum > 0 && memory["all"]["total"] == sum, "{node}");
    }
    let shown = run(cluster, &["status", "--memory"]).await?.succeeded()?.out;
    ensure!(shown.matches(HOUSEHOLDS).count() == 3 && shown.matches("shared by groups").count() == 3, "{shown}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_load_goes_on_and_a_repeated_one_changes_nothing() -> anyhow::Result<()> {
    const ROWS: i64 = 40_000;
    let cluster = start("load_resumed", PROGRAM, PARTITIONS).await?;
    let client = cluster.client(ZONES[0]).await?;
    define(&client).await?;
    let mut lines = String::from("item_id,event_time,units,note\n");
    for item in 0..ROWS {
        writeln!(lines, "{item},2023-11-14T22:13:20Z,1,{}", note(item, 1))?;
    }
    let file = write(&cluster, "items.csv", &lines)?;
    let load = ["load", GROUP, text(&file), "--rows-per-batch", "20", "--json"];

    let mut process = command(&cluster, "b", &load).spawn()?;
    until("rows of the load", async || {
        ensure!(process.try_wait()?.is_none(), "the load ended before it could be killed: make the file longer");
        ensure!(rows_now(&client).await? > 1_000, "too few");
        Ok(())
    })
    .await?;
    process.kill().await?;
    let part = replicas::rows(&equal_digests(&client).await?);
    ensure!(part < ROWS as u64, "all {part} rows were there before the kill");

    let resumed = run(&cluster, &load).await?.succeeded()?.json()?;
    ensure!(resumed["rows_acknowledged"] == ROWS && resumed["rows_older"] == 0, "{resumed}");
    let before = batches(&resumed, "batches_before");
    ensure!(0 < before && before < batches(&resumed, "batches"), "it did not go on where it was: {resumed}");
    let whole = equal_digests(&client).await?;
    ensure!(replicas::rows(&whole) == ROWS as u64, "{whole:?}");
    let all: Vec<i64> = (0..ROWS).collect();
    let found = items::read(&client, &all, None).await?;
    ensure!(found.values().all(|units| *units == 1), "rows are missing");

    let repeated = run(&cluster, &load).await?.succeeded()?.json()?;
    ensure!(batches(&repeated, "batches_before") == batches(&repeated, "batches"), "{repeated}");
    ensure!(equal_digests(&client).await? == whole, "the same load has changed something");
    let renamed = ["load", GROUP, text(&file), "--name", "again", "--json"];
    let renamed = run(&cluster, &renamed).await?.succeeded()?.json()?;
    ensure!(batches(&renamed, "batches_before") == 0 && renamed["rows_acknowledged"] == ROWS, "{renamed}");
    let renamed = equal_digests(&client).await?;
    ensure!(of_rows(&renamed) == of_rows(&whole), "the same rows under another name have changed a row");
    Ok(())
}

/// Rows that the first node has in all its replicas.
async fn rows_now(client: &Client<QuicTransport>) -> anyhow::Result<u64> {
    let node = client.map().nodes[0].id;
    Ok(client.status(node, stoa_tests::wait::LIMIT).await?.replicas.iter().map(|replica| replica.rows).sum())
}

fn batches(report: &Value, what: &str) -> u64 {
    let parts = report["acknowledged"].as_object().into_iter().flatten();
    parts.filter_map(|(_, part)| part[what].as_u64()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_rows_abort_a_load_or_are_skipped() -> anyhow::Result<()> {
    let cluster = start("bad_rows", PROGRAM, PARTITIONS).await?;
    let client = cluster.client(ZONES[0]).await?;
    define(&client).await?;
    let time = "2023-11-14T22:13:20Z";
    let good = |item: i64| format!("{item},{time},1,{}", note(item, 1));
    let lines = [
        "item_id,event_time,units,note".to_owned(),
        good(1),
        format!("2,{time},many,{}", note(2, 1)),
        good(3),
        format!(",{time},1,nobody"),
        format!("5,yesterday,1,{}", note(5, 1)),
        format!("6,2999-01-01T00:00:00Z,1,{}", note(6, 1)),
        good(7),
    ];
    let file = write(&cluster, "rows.csv", &(lines.join("\n") + "\n"))?;
    let before = equal_digests(&client).await?;
    let reasons = [
        "line 3: column units: \"many\" is not a value of type Int64",
        "line 5: key column item_id: the key is null",
        "line 6: column event_time: \"yesterday\" is not an event time",
        "line 7: the event time 32472144000000000 us is more than 5 minutes after the time of the load",
    ];

    for args in [&["load", GROUP, text(&file)][..], &["load", GROUP, text(&file), "--on-bad", "abort"]] {
        let aborted = run(&cluster, args).await?;
        ensure!(aborted.code == Some(1), "{aborted:?}");
        ensure!(aborted.err.contains("4 of 7 rows cannot be written, so nothing was"), "{}", aborted.err);
        for reason in reasons {
            ensure!(aborted.out.contains(reason), "{reason:?} is missing:\n{}", aborted.out);
        }
        ensure!(equal_digests(&client).await? == before, "a load that aborted has written");
    }

    let skipped = run(&cluster, &["load", GROUP, text(&file), "--on-bad", "skip"]).await?.succeeded()?;
    ensure!(skipped.out.contains("7 rows read, 3 acknowledged (0 before this run), 4 bad, 0 older"), "{}", skipped.out);
    for reason in reasons {
        ensure!(skipped.out.contains(reason), "{reason:?} is missing:\n{}", skipped.out);
    }
    // A read takes what its zone has; so it waits until all have the same.
    ensure!(replicas::rows(&equal_digests(&client).await?) == 3, "other rows than the good ones are there");
    let found = items::read(&client, &[1, 2, 3, 5, 6, 7], None).await?;
    let right = found.values().eq(&[1, 0, 1, 0, 0, 1]);
    ensure!(right, "other rows than the good ones are there: {found:?}");
    Ok(())
}

fn write(cluster: &LocalCluster, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let path = cluster.dir().join(name);
    std::fs::write(&path, text)?;
    Ok(path)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the paths of the tests are UTF-8")
}
