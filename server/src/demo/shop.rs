//! The shop whose features the demo serves: its catalog, its files, its view.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use stoa_client::Client;
use stoa_env::{Clock, RealClock, Transport};

use crate::definitions::load_definitions;
use crate::load::{LoadRequest, OnBad, Silent, UnknownColumns, load};

/// The groups and their files, in the order in which they are loaded.
pub const GROUPS: [(&str, &str); 5] = [
    ("customers/household_profile@1", "household_profile.parquet"),
    ("shop/household_activity@1", "household_activity.parquet"),
    ("shop/product_catalog@1", "product_catalog.parquet"),
    ("shop/product_activity@1", "product_activity.parquet"),
    ("shop/product_store_promo@1", "product_store_promo.parquet"),
];
/// The view of a ranking service: one household's features beside those of products, in one store.
pub const VIEW: &str = "shop/rank_products@1";
/// The columns of its keys.
pub const VIEW_KEYS: [&str; 3] = ["household_id", "product_id", "store_id"];
/// How long taking the definitions may take.
const APPLY_LIMIT: Duration = Duration::from_secs(10);

/// Takes the definitions into the catalog and loads all files; gives the number of rows that were acknowledged.
pub async fn load_shop<T: Transport>(client: &Client<T>, data: &Path) -> anyhow::Result<u64> {
    client.apply(load_definitions(&data.join("shop.yaml"))?, APPLY_LIMIT).await?;
    let mut rows = 0;
    for (group, file) in GROUPS {
        let request = LoadRequest {
            group: group.into(),
            file: data.join("data").join(file),
            name: "demo".into(),
            on_bad: OnBad::Abort,
            unknown_columns: UnknownColumns::Refuse,
            rows_per_batch: 1_000,
            at_us: RealClock.wall().0,
        };
        let loaded = load(client, &request, Arc::new(Silent)).await.with_context(|| format!("loading {file}"))?;
        rows += loaded.rows_acknowledged;
    }
    Ok(rows)
}

/// The demo's directory: as given, in the current directory, or beside the build directory that the program lies in.
pub fn find_data(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    let mut places: Vec<PathBuf> = Vec::new();
    match given {
        Some(dir) => places.push(dir.to_owned()),
        None => {
            places.push("demo".into());
            if let Ok(exe) = std::env::current_exe() {
                places.extend(exe.ancestors().skip(1).take(4).map(|dir| dir.join("demo")));
            }
        }
    }
    match places.iter().find(|dir| dir.join("shop.yaml").is_file()) {
        Some(dir) => Ok(dir.clone()),
        None => bail!("shop.yaml is in none of {places:?}; name the demo's directory with --data"),
    }
}
