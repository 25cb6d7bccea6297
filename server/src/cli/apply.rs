//! `stoa apply`: definitions from a file into the catalog.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Connect, say};
use crate::definitions::load_definitions;

const APPLY_DEADLINE: Duration = Duration::from_secs(10);

/// Takes all definitions of a file, or none. Those that stand already are left as they are.
#[derive(Debug, Args)]
pub struct ApplyCommand {
    /// The YAML file, documents divided by `---`.
    #[arg(short = 'f', long = "file")]
    file: PathBuf,
    #[command(flatten)]
    connect: Connect,
}

impl ApplyCommand {
    /// Runs the command.
    pub async fn run(self) -> anyhow::Result<u8> {
        let definitions = load_definitions(&self.file)?;
        let client = self.connect.client().await?;
        let answer = client.apply(definitions, APPLY_DEADLINE).await?;
        let (created, unchanged, version) = (answer.created, answer.unchanged, answer.version);
        say(&format!("{created} defined, {unchanged} unchanged; catalog version {version}"))?;
        Ok(0)
    }
}
