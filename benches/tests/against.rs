//! `stoa-bench against`, as an operator uses it: a cluster that lives, a view of its own, keys on the command line.

#![allow(clippy::unwrap_used)] // a test says by panicking what went wrong

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use stoa::demo::shop::load_shop;
use stoa::local_cluster::{LocalCluster, LocalClusterOptions};

/// How long forming the cluster may take.
const FORM_LIMIT: Duration = Duration::from_secs(60);

async fn cluster() -> LocalCluster {
    let options = LocalClusterOptions::new("against", env!("CARGO_BIN_EXE_stoa-bench"));
    let mut cluster = LocalCluster::prepare(options).unwrap();
    let zones = cluster.dir().join("zones.json");
    std::fs::write(&zones, r#"{"one_way_us": 0, "jitter_us": 0, "zones": {}}"#).unwrap();
    cluster.set_node_args(["--zones".into(), zones.into_os_string()]);
    cluster.start_all(FORM_LIMIT).await.unwrap();
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../demo");
    load_shop(&cluster.client("a").await.unwrap(), &data).await.unwrap();
    cluster
}

fn against(cluster: &LocalCluster, args: &[&str]) -> Output {
    let seeds: Vec<String> = cluster.seeds().iter().map(ToString::to_string).collect();
    let mut command = Command::new(env!("CARGO_BIN_EXE_stoa-bench"));
    command.arg("against").arg(seeds.join(",")).arg("--certs").arg(cluster.certs());
    command.args(["--principal", "app", "--project", "shop", "--zone", "a", "--view", "shop/rank_products@1"]);
    command.args(args).output().unwrap()
}

fn report(file: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_loaded_with_keys_of_the_command_line_and_the_picture_is_written() {
    let mut cluster = cluster().await;
    let (json, html) = (cluster.dir().join("run.json"), cluster.dir().join("run.html"));
    let keys = ["--key", "household_id=1..2500", "--key", "product_id=26540,1029743", "--key", "store_id=300..450"];
    let run = ["--one", "household_id,store_id", "--rows", "20", "--rate", "20,40", "--seconds", "2"];
    let files = ["--json", json.to_str().unwrap(), "--html", html.to_str().unwrap()];
    let out = against(&cluster, &[&keys[..], &run, &files, &["--deadline-ms", "5000"]].concat());
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{text}");
    assert!(text.contains("due/s") && text.contains("40 requests/s"), "{text}");
    let found = report(&json);
    for (at, due) in [(0, 40), (1, 80)] {
        let run = &found["runs"][at];
        assert_eq!((run["answered"].as_u64(), run["failed"].as_u64()), (Some(due), Some(0)), "{run}");
        assert!(run["more"]["rows_found_percent"].as_f64().unwrap() > 50.0, "{run}");
    }
    assert_eq!(found["curves"][0]["points"].as_array().unwrap().len(), 2);
    let due: u64 =
        found["timelines"][0]["slots"].as_array().unwrap().iter().map(|s| s["answered"].as_u64().unwrap()).sum();
    assert!(due >= 120, "the warm-up is in the time line, too: {due}");
    let page = std::fs::read_to_string(&html).unwrap();
    assert!(page.contains("<svg") && page.contains("rank_products"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_do_not_fit_the_view_are_refused_before_anything_is_sent() {
    let mut cluster = cluster().await;
    for (keys, wanted) in [
        (&["--key", "household_id=1..2500"][..], "the view needs its key column product_id"),
        (&["--key", "buyer=1"], "its key columns are household_id, product_id, store_id"),
        (&["--keys", "/nowhere.csv"], "/nowhere.csv"),
    ] {
        let out = against(&cluster, keys);
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && text.contains(wanted), "{keys:?}: {text}");
    }
    let out = Command::new(env!("CARGO_BIN_EXE_stoa-bench"))
        .args(["against", "127.0.0.1:1", "--view", "shop/rank_products@1", "--certs"])
        .arg(cluster.certs())
        .output()
        .unwrap();
    assert!(!out.status.success());
    assert!(String::from_utf8_lossy(&out.stderr).contains("127.0.0.1:1"));
    cluster.stop().await;
}
