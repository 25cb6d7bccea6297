//! What damage in the log means for replicas: which of them must not start.
//!
//! Damage that the log can attribute makes its group suspect, and the log itself remembers that. Damage that it cannot may
//! have hit any group, also one that no other frame names: of that the log remembers nothing once the damaged segment has
//! gone. So the node does, in a file of its own: until the data directory is given up, no group starts that the log does
//! not know.

use std::collections::BTreeMap;
use std::path::Path;

use stoa_env::Disk;
use stoa_protocol::PartitionId;
use stoa_raft::wal::Recovered;

use super::NodeError;
use super::identity::write_whole;

/// The file that remembers damage without an owner: text, for people as well.
const FILE: &str = "damage";
const FILE_BYTES_MAX: usize = 4_096;

/// Why replicas must not start.
#[derive(Debug, Default)]
pub(crate) struct Damage {
    /// By group.
    pub groups: BTreeMap<PartitionId, String>,
    /// For every group that is not in the log.
    pub unknown: Option<String>,
}

impl Damage {
    /// What recovery found, and what was found at an earlier start. Durable when this returns.
    pub async fn find<D: Disk>(disk: &D, recovered: &Recovered) -> Result<Self, NodeError> {
        let groups = recovered.suspect.iter().map(|(group, suspicion)| {
            (PartitionId(*group), format!("its log is damaged ({suspicion}); replace this replica"))
        });
        let damage = Self { groups: groups.collect(), unknown: unknown(disk, recovered).await? };
        for (partition, why) in &damage.groups {
            tracing::error!(partition = partition.0, why, "damage in the log");
        }
        if let Some(why) = &damage.unknown {
            tracing::error!(why, "damage in the log; what the log does not know does not start");
        }
        Ok(damage)
    }
}

async fn unknown<D: Disk>(disk: &D, recovered: &Recovered) -> Result<Option<String>, NodeError> {
    let io = |doing: &str| {
        let doing = format!("{doing} the file {FILE}");
        move |source| NodeError::Io { doing, source }
    };
    match disk.read(Path::new(FILE), FILE_BYTES_MAX).await {
        Ok(bytes) => return Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(io("reading")(error)),
    }
    let Some(suspicion) = &recovered.unattributed else { return Ok(None) };
    let text = format!(
        "the log has damage that no group owns ({suspicion}), and this group is not in the log: it may have been in the \
         damaged part; replace this replica, or this node"
    );
    write_whole(disk, FILE, text.clone().into_bytes()).await.map_err(io("writing"))?;
    Ok(Some(text))
}
