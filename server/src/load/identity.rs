//! Which load a batch belongs to, so that a second run of the same load continues the first.

use std::fs::File;
use std::io::Read;

use stoa_protocol::FeatureGroup;
use stoa_protocol::codec::Wire;
use stoa_protocol::map::PartitionSet;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};

/// Everything that decides what the batches of a load are. Two runs that agree in it make the same batches.
#[derive(Debug, Clone, Copy)]
pub struct LoadIdentity<'a> {
    /// The load's name, which its user may choose; a new one makes a load that has run run again.
    pub name: &'a str,
    /// The digest of the file, [`super::SourceFile::digest`].
    pub file_digest: u128,
    /// The group.
    pub group: &'a FeatureGroup,
    /// The group's partitions.
    pub set: &'a PartitionSet,
    /// As given to [`super::Batcher::new`].
    pub rows_per_batch: usize,
    /// As in [`super::LoadOptions`]. It decides which event times lie too far in the future, and the event time of rows
    /// that have none, so another time makes other batches: a run that is to be resumed must keep it.
    pub load_time_us: i64,
}

/// The writer session of a load: XXH3-128 over its identity.
///
/// The partitions' ranges are part of it. Were they to change between two runs, the second one would number other
/// batches with the same numbers, and partitions would pass over rows that they do not have.
pub fn load_session_id(identity: &LoadIdentity<'_>) -> u128 {
    let mut bytes = Vec::new();
    // The version of what batches are made of and how; raised when the batcher cuts batches differently.
    1u32.put(&mut bytes);
    identity.name.to_owned().put(&mut bytes);
    identity.file_digest.put(&mut bytes);
    identity.group.full_name().put(&mut bytes);
    identity.group.id.put(&mut bytes);
    identity.group.schema_version.put(&mut bytes);
    (identity.rows_per_batch as u64).put(&mut bytes);
    identity.load_time_us.put(&mut bytes);
    identity.set.id.put(&mut bytes);
    identity.set.incarnation.put(&mut bytes);
    for partition in &identity.set.partitions {
        partition.id.put(&mut bytes);
        partition.first_hash.put(&mut bytes);
    }
    xxh3_128(&bytes)
}

/// XXH3-128 over the bytes of a file from its present place to its end.
pub(super) fn digest_of(file: &mut File) -> std::io::Result<u128> {
    let mut hash = Xxh3Default::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hash.digest128()),
            Ok(bytes) => hash.update(&buffer[..bytes]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stoa_protocol::{FeatureType, KeyType, PartitionSetId};

    #[test]
    fn each_part_of_the_identity_makes_another_session() {
        let group = FeatureGroup::simple(7, "g", &[("id", KeyType::Int64)], &[("a", FeatureType::Int32)]);
        let newer = FeatureGroup { schema_version: 2, ..group.clone() };
        let other_name = FeatureGroup { version: 2, ..group.clone() };
        let set = PartitionSet { id: PartitionSetId(1), name: "s".into(), incarnation: 0, partitions: vec![] };
        let restored = PartitionSet { incarnation: 1, ..set.clone() };
        let base = LoadIdentity {
            name: "daily",
            file_digest: 1,
            group: &group,
            set: &set,
            rows_per_batch: 1_000,
            load_time_us: 5,
        };
        let all = [
            base,
            LoadIdentity { name: "dail", ..base },
            LoadIdentity { file_digest: 2, ..base },
            LoadIdentity { group: &newer, ..base },
            LoadIdentity { group: &other_name, ..base },
            LoadIdentity { set: &restored, ..base },
            LoadIdentity { rows_per_batch: 1_001, ..base },
            LoadIdentity { load_time_us: 6, ..base },
        ];
        let mut ids: Vec<u128> = all.iter().map(load_session_id).collect();
        assert_eq!(ids[0], load_session_id(&base.clone()));
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all.len());
    }
}
