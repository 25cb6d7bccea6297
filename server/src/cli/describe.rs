//! `stoa describe`: what the catalog says of a feature group.

use clap::Args;
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use stoa_protocol::{FeatureGroup, OnExpired, Storage};

use super::{Connect, say};

/// Shows a version of a feature group: its entity, how long its rows live, its features.
#[derive(Debug, Args)]
pub struct DescribeCommand {
    /// The group, PROJECT/NAME@VERSION.
    group: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

impl DescribeCommand {
    /// Runs the command.
    pub async fn run(self) -> anyhow::Result<u8> {
        let client = self.connect.client().await?;
        let group = client.group(&self.group).await?;
        match self.json {
            true => say(&json(group.definition()).to_string())?,
            false => say(&text(group.definition()))?,
        }
        Ok(0)
    }
}

fn text(group: &FeatureGroup) -> String {
    let keys: Vec<String> = group.entity.keys.iter().map(|key| format!("{} {}", key.name, key.ty)).collect();
    let event_time = group.event_time.as_deref().unwrap_or("none: the time of the load");
    let lives = match group.ttl {
        None => "for ever".to_owned(),
        Some(ttl) => format!("{} after their event time, then {}", duration(ttl.after_us), on_expired(ttl.on_expired)),
    };
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(["feature", "type", "storage", "description"]);
    for feature in &group.features {
        let storage = feature.storage.map_or_else(String::new, |storage| storage.to_string());
        table.add_row([&feature.name, &feature.ty.to_string(), &storage, &feature.description]);
    }
    let is_there = |storage: &Storage| group.features.iter().any(|feature| feature.storage == Some(*storage));
    let there = [Storage::Float16, Storage::Int8Scaled].into_iter().filter(is_there);
    let errors: String = there.map(|storage| format!("\n{storage}: {}", storage.error())).collect();
    format!(
        "{} schema {}: {}\nentity       {} ({})\nevent time   {event_time}\nrows live    {lives}\nlate horizon {}\n{table}{errors}",
        group.full_name(),
        group.schema_version,
        group.description,
        group.entity.name,
        keys.join(", "),
        duration(group.late_horizon_us),
    )
}

fn on_expired(policy: OnExpired) -> &'static str {
    match policy {
        OnExpired::Expire => "expire",
        OnExpired::ServeLast => "serve_last",
    }
}

/// As definitions have it, if it is of whole seconds.
fn duration(us: i64) -> String {
    let seconds = us / 1_000_000;
    let unit = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let whole = unit.into_iter().find(|(_, unit)| seconds % unit == 0 && us % 1_000_000 == 0);
    whole.map_or_else(|| format!("{us} us"), |(name, unit)| format!("{}{name}", seconds / unit))
}

fn json(group: &FeatureGroup) -> serde_json::Value {
    let features = group.features.iter().map(|feature| {
        serde_json::json!({
            "name": feature.name,
            "type": feature.ty.to_string(),
            "storage": feature.storage.map(|storage| storage.to_string()),
            "storage_error": feature.storage.map(Storage::error),
            "description": feature.description,
        })
    });
    let keys = group.entity.keys.iter().map(|key| serde_json::json!({"name": key.name, "type": key.ty.to_string()}));
    serde_json::json!({
        "group": group.full_name(),
        "schema_version": group.schema_version,
        "description": group.description,
        "entity": group.entity.name,
        "keys": keys.collect::<Vec<_>>(),
        "event_time": group.event_time,
        "ttl_us": group.ttl.map(|ttl| ttl.after_us),
        "on_expired": group.ttl.map(|ttl| on_expired(ttl.on_expired)),
        "late_horizon_us": group.late_horizon_us,
        "features": features.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use stoa_protocol::{Feature, FeatureType, KeyType, Ttl};

    use super::*;

    #[test]
    fn a_group_is_described_with_how_long_its_rows_live() {
        let mut group = FeatureGroup::simple(1, "sales", &[("id", KeyType::Int64)], &[("units", FeatureType::Int32)]);
        assert!(text(&group).contains("rows live    for ever\nlate horizon 7d"), "{}", text(&group));
        assert_eq!(json(&group)["ttl_us"], serde_json::Value::Null);
        group.ttl = Some(Ttl { after_us: 5_400_000_000, on_expired: OnExpired::ServeLast });
        assert!(text(&group).contains("rows live    90m after their event time, then serve_last"), "{}", text(&group));
        assert_eq!(
            (&json(&group)["ttl_us"], &json(&group)["on_expired"]),
            (&5_400_000_000_i64.into(), &"serve_last".into())
        );
        let taste = Feature::new("taste", FeatureType::FixedArray { items: 8 });
        group.features.push(Feature { storage: Some(Storage::Int8Scaled), ..taste });
        let shown = text(&group);
        assert!(shown.contains("\nint8_scaled: within half a scale") && !shown.contains("float16"), "{shown}");
        let feature = |at: usize| json(&group)["features"][at]["storage"].clone();
        assert_eq!((feature(0), feature(1)), (serde_json::Value::Null, "int8_scaled".into()));
        assert_eq!([0, 1, 1_000_000, 86_400_000_000].map(duration), ["0d", "1 us", "1s", "1d"]);
    }
}
