//! Requests that cannot be right: each is refused with the name of the thing, what is wrong with it and what would be
//! right, and changes nothing in any replica, catalog or data directory.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use stoa::certs::ensure_local;
use stoa::local_cluster::{LocalCluster, ZONES};
use stoa_client::Client;
use stoa_env::{Clock, QuicTransport, RealClock};
use stoa_tests::command::{finish, run};
use stoa_tests::items::{define, rows, writer};
use stoa_tests::replicas::{Digests, equal_digests, files, raised};
use stoa_tests::{repository, start};

const PARTITIONS: u64 = 4;

/// A command and what its message must say.
struct Case {
    args: Vec<String>,
    says: &'static [&'static str],
}

fn case(args: &[&str], says: &'static [&'static str]) -> Case {
    Case { args: args.iter().map(|arg| (*arg).to_owned()).collect(), says }
}

/// All that must stay as it is.
#[derive(Debug, PartialEq)]
struct State {
    digests: Digests,
    catalog: String,
    files: BTreeSet<PathBuf>,
}

impl State {
    async fn of(cluster: &LocalCluster, client: &Client<QuicTransport>) -> anyhow::Result<Self> {
        let digests = equal_digests(client).await?;
        // The version rises with every definition; the map's own changes are over once the cluster is formed.
        let catalog = run(cluster, &["status", "--json"]).await?.json()?["map_version"].to_string();
        Ok(Self { digests, catalog, files: files(cluster)? })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_are_refused_by_name_and_change_nothing() -> anyhow::Result<()> {
    let cluster = start("bad_requests", env!("CARGO_BIN_EXE_stoa-under-test"), PARTITIONS).await?;
    let client = cluster.client(ZONES[0]).await?;
    define(&client).await?;
    for batch in writer(&client).await?.write_rows(&rows(0..100, 1)).await? {
        batch.result?;
    }
    let dir = cluster.dir().join("bad");
    std::fs::create_dir(&dir)?;
    raised(&client).await?;
    let before = State::of(&cluster, &client).await?;
    let mut failures = Vec::new();
    for Case { args, says } in [gets(), loads(&dir)?, applies(&dir)?, connections(&dir)?].into_iter().flatten() {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let finished = run(&cluster, &args).await?;
        let named = format!("stoa {:.200}", args.join(" "));
        if finished.code.is_none_or(|code| code == 0) || finished.err.contains("panicked") {
            failures.push(format!("{named}: ended with {:?}: {}", finished.code, finished.err));
        }
        let missing: Vec<_> = says.iter().filter(|part| !finished.err.contains(**part)).collect();
        if !missing.is_empty() {
            failures.push(format!("{named}: {missing:?} is missing in: {}", finished.err));
        }
        let after = State::of(&cluster, &client).await?;
        if after != before {
            let new: Vec<_> = after.files.symmetric_difference(&before.files).collect();
            let (catalogs, same) = ((&before.catalog, &after.catalog), before.digests == after.digests);
            failures.push(format!("{named}: changed: catalog {catalogs:?}, digests equal: {same}, files {new:?}"));
        }
    }
    ensure!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    // A project that stood before a mistake, in the same file: it was not taken either.
    let half = dir.join("half.yaml");
    std::fs::write(&half, "kind: project\nname: half\n")?;
    let applied = run(&cluster, &["apply", "-f", half.to_str().context("the path is UTF-8")?]).await?.succeeded()?;
    let told = format!("{}{}", applied.out, applied.err);
    ensure!(told.contains("1 defined, 0 unchanged"), "the project half was there already: {told}");
    Ok(())
}

fn gets() -> Vec<Case> {
    let long = format!("email={}", "x".repeat(1_025));
    vec![
        case(&["get", "shop/nothing@1", "item_id=1"], &["shop/nothing@1", "shop/item@1"]),
        case(&["get", "shop/item@7", "item_id=1"], &["shop/item@7", "shop/item@1"]),
        case(&["get", "nowhere/item@1", "item_id=1"], &["nowhere/item@1", "shop/item@1"]),
        case(&["get", "item", "item_id=1"], &["item", "project/name@version"]),
        case(&["get", "shop/item@1", "item=1"], &["shop/item@1", "no key column item", "item_id"]),
        case(&["get", "shop/item@1", "item_id"], &["\"item_id\" is not NAME=VALUE"]),
        case(&["get", "shop/item@1", "item_id=seven"], &["item_id", "Int64", "\"seven\""]),
        case(&["get", "shop/item@1", "item_id="], &["item_id", "Int64", "\"\""]),
        case(&["get", "shop/item@1", "item_id=9223372036854775808"], &["item_id", "Int64", "9223372036854775808"]),
        case(&["get", "shop/item@1", "item_id=1", "item_id=2"], &["item_id", "twice", "once"]),
        case(&["get", "shop/person@1", "email="], &["email", "empty", "at least one byte"]),
        case(&["get", "shop/person@1", &long], &["email", "1025 bytes", "up to 1024"]),
        case(&["get", "shop/place@1", "street=Main"], &["no column number", "street String, number Int32"]),
        case(&["get", "shop/place@1", "street=Main", "number=3000000000"], &["number", "Int32", "3000000000"]),
        case(&["get", "shop/place@1", "street=a,b,c", "number=1,2"], &["number", "2 values", "3"]),
        case(&["get", "shop/item@1", "item_id=1", "--deadline-ms", "0"], &["deadline", "60 s"]),
    ]
}

fn loads(dir: &Path) -> anyhow::Result<Vec<Case>> {
    let file = |name: &str, bytes: &[u8]| -> anyhow::Result<String> {
        let path = dir.join(name);
        std::fs::write(&path, bytes)?;
        Ok(path.display().to_string())
    };
    let demo = |name: &str| repository("demo/data").join(name).display().to_string();
    let (households, profiles) = (demo("household_activity.parquet"), demo("household_profile.parquet"));
    let whole = std::fs::read(&households)?;
    let cut = file("cut.parquet", &whole[..whole.len() / 2])?;
    let mut rotten = whole.clone();
    // In the pages of the first column, which every load reads: the key.
    rotten[100..1_100].fill(0xa5);
    let rotten = file("rotten.parquet", &rotten)?;
    let good = file("good.csv", b"item_id,event_time,units\n1,2023-11-14T22:13:20Z,1\n")?;
    let colour = file("colour.csv", b"item_id,event_time,units,colour\n1,2023-11-14T22:13:20Z,1,red\n")?;
    let keyless = file("keyless.csv", b"id,event_time,units\n1,2023-11-14T22:13:20Z,1\n")?;
    let timeless = file("timeless.csv", b"item_id,units\n1,1\n")?;
    let featureless = file("featureless.csv", b"item_id,event_time\n1,2023-11-14T22:13:20Z\n")?;
    let twice = file("twice.csv", b"item_id,event_time,units,units\n1,2023-11-14T22:13:20Z,1,2\n")?;
    let keys = file(
        "keys.csv",
        format!("email,event_time,visits\n{},2023-11-14T22:13:20Z,1\n", "x".repeat(1_025)).as_bytes(),
    )?;
    let empty = file("empty.csv", b"")?;
    let latin = file("latin.csv", b"item_id,event_time,unit\xe9s\n")?;
    let extension = file("items.txt", b"item_id,event_time,units\n")?;
    Ok(vec![
        case(&["load", "shop/nothing@1", &good], &["shop/nothing@1", "shop/item_stock@1"]),
        case(&["load", "item_stock", &good], &["item_stock", "project/name@version"]),
        case(&["load", "shop/item_stock@1", &colour], &["colour.csv", "colour", "units, note"]),
        case(&["load", "shop/item_stock@1", &keyless], &["keyless.csv", "key column item_id", "id, event_time, units"]),
        case(&["load", "shop/item_stock@1", &timeless], &["timeless.csv", "event_time", "item_id, units"]),
        case(&["load", "shop/item_stock@1", &featureless], &["featureless.csv", "no feature", "units, note"]),
        case(&["load", "shop/item_stock@1", &twice], &["twice.csv", "units", "twice"]),
        case(&["load", "shop/person_visits@1", &keys], &["1 of 1 rows cannot be written", "nothing was"]),
        case(&["load", "shop/item_stock@1", &empty], &["empty.csv", "empty"]),
        case(&["load", "shop/item_stock@1", &latin], &["latin.csv", "UTF-8"]),
        case(&["load", "shop/item_stock@1", &extension], &["items.txt", "\"txt\"", ".parquet or .csv"]),
        case(&["load", "shop/item_stock@1", "nowhere.csv"], &["nowhere.csv", "cannot be read"]),
        case(
            &["load", "shop/item_stock@1", &households],
            &["household_activity.parquet", "key column item_id", "household_id"],
        ),
        case(
            &["load", "shop/household_numbers@1", &profiles, "--ignore-unknown"],
            &["household_profile.parquet", "column age is", "Int64 is wanted", "it may be"],
        ),
        case(
            &["load", "shop/household_spend@1", &cut, "--ignore-unknown"],
            &["cut.parquet", "not a whole Parquet file"],
        ),
        case(
            &["load", "shop/household_spend@1", &rotten, "--ignore-unknown"],
            &["rotten.parquet", "not a whole Parquet file"],
        ),
    ])
}

fn applies(dir: &Path) -> anyhow::Result<Vec<Case>> {
    let file = |name: &str, text: &str| -> anyhow::Result<String> {
        let path = dir.join(name);
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let view = |name: &str, feature: &str| {
        let text = format!(
            "kind: project\nname: half\n---\nkind: feature_view\nproject: shop\nname: v\nversion: 1\nentities: [item]\n\
             features:\n  - {feature}\n"
        );
        file(name, &text)
    };
    let group = view("group.yaml", "{group: shop/nothing@1, feature: units}")?;
    let feature = view("feature.yaml", "{group: shop/item_stock@1, feature: colour}")?;
    let entity = file(
        "entity.yaml",
        "kind: feature_group\nproject: shop\nname: g\nversion: 1\nentity: nobody\nevent_time: none\nfeatures: [{name: a, type: Bool}]\n",
    )?;
    let changed = file("changed.yaml", "kind: entity\nname: item\nkeys: [{name: item_id, type: Int32}]\n")?;
    let ty = file("type.yaml", "kind: entity\nname: e\nkeys: [{name: k, type: Int46}]\n")?;
    let kind = file("kind.yaml", "kind: table\nname: t\n")?;
    let field = file("field.yaml", "kind: project\nname: p\nowner: me\n")?;
    let yaml = file("yaml.yaml", "kind: [project\n")?;
    Ok(vec![
        case(&["apply", "-f", &group], &["shop/nothing@1", "shop/item_stock@1"]),
        case(&["apply", "-f", &feature], &["shop/item_stock@1", "no feature colour", "units, note"]),
        case(&["apply", "-f", &entity], &["no entity nobody", "item"]),
        case(&["apply", "-f", &changed], &["entity item", "stands already", "new version or name"]),
        case(&["apply", "-f", &ty], &["type.yaml:3", "Int46", "Int64"]),
        case(&["apply", "-f", &kind], &["kind.yaml:1", "table", "feature_group"]),
        case(&["apply", "-f", &field], &["field.yaml:3", "owner"]),
        case(&["apply", "-f", &yaml], &["yaml.yaml"]),
        case(&["apply", "-f", "nowhere.yaml"], &["nowhere.yaml"]),
    ])
}

/// Whoever is not of the cluster.
fn connections(dir: &Path) -> anyhow::Result<Vec<Case>> {
    let foreign = dir.join("foreign");
    ensure_local(&foreign, None, &["admin"], RealClock.wall())?;
    let foreign = foreign.display().to_string();
    Ok(vec![
        case(&["status", "--principal", "nobody"], &["client-nobody.pem", "--principal"]),
        case(&["status", "--certs", "nowhere"], &["nowhere/ca.pem", "--certs"]),
        case(&["status", "--certs", &foreign], &["certificate", "--seeds"]),
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_not_there_is_named() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let certs = dir.path().join("certs");
    ensure_local(&certs, None, &["admin"], RealClock.wall())?;
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_stoa-under-test"));
    command.args(["status", "--seeds", "127.0.0.1:9", "--certs"]).arg(&certs).kill_on_drop(true);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let finished = finish(command).await.context("stoa status")?;
    ensure!(finished.code == Some(1), "{finished:?}");
    ensure!(finished.err.contains("127.0.0.1:9") && finished.err.contains("--seeds"), "{finished:?}");
    Ok(())
}
