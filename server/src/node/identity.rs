//! Who a data directory is. Written once, when the directory is made, and compared at every start: a directory of another
//! cluster or node is refused before anything in it is touched.
//!
//! ```text
//! "STOAID01", u128 cluster, u64 node, u64 incarnation, string zone, u32 CRC-32 of all before
//! ```

use std::path::{Path, PathBuf};

use stoa_env::{Disk, DiskFile, Entropy};
use stoa_protocol::codec::{Reader, Wire};
use stoa_protocol::{ClusterId, NodeId};

const MAGIC: &[u8; 8] = b"STOAID01";
const FILE: &str = "identity";
const FILE_BYTES_MAX: usize = 4_096;

/// Who a data directory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// Its zone.
    pub zone: String,
    /// Drawn at random when the directory was made.
    pub incarnation: u64,
}

/// Why a data directory is refused.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It is of another cluster.
    #[error(
        "the data directory is of cluster {found}, and the config says {wanted}: point data_dir at another directory"
    )]
    OtherCluster {
        /// The directory's.
        found: ClusterId,
        /// The config's.
        wanted: ClusterId,
    },
    /// It is of another node.
    #[error("the data directory is that of node {found}, and the config says node {wanted}: point data_dir at its own")]
    OtherNode {
        /// The directory's.
        found: NodeId,
        /// The config's.
        wanted: NodeId,
    },
    /// It is of another zone.
    #[error(
        "the data directory was made in zone {found}, and the config says {wanted}: a node does not change its zone"
    )]
    OtherZone {
        /// The directory's.
        found: String,
        /// The config's.
        wanted: String,
    },
    /// The file is damaged.
    #[error("the file {FILE} of the data directory is damaged: {0}")]
    Damaged(String),
    /// The file cannot be read or written.
    #[error("the file {FILE} of the data directory: {0}")]
    Io(#[from] std::io::Error),
}

impl Identity {
    /// Reads the identity, or draws a new one if there is none; says which. A new one is not written yet.
    pub async fn load_or_create<D: Disk>(
        disk: &D,
        wanted: Identity,
        entropy: &dyn Entropy,
    ) -> Result<(Self, bool), IdentityError> {
        let bytes = match disk.read(Path::new(FILE), FILE_BYTES_MAX).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                // Zero and the small numbers are left out: zero means "none", small ones look like other ids.
                let incarnation = entropy.next_u64() | 1 << 63;
                return Ok((Self { incarnation, ..wanted }, false));
            }
            Err(error) => return Err(error.into()),
        };
        let found = Self::decode(&bytes).map_err(IdentityError::Damaged)?;
        if found.cluster != wanted.cluster {
            return Err(IdentityError::OtherCluster { found: found.cluster, wanted: wanted.cluster });
        }
        if found.node != wanted.node {
            return Err(IdentityError::OtherNode { found: found.node, wanted: wanted.node });
        }
        if found.zone != wanted.zone {
            return Err(IdentityError::OtherZone { found: found.zone, wanted: wanted.zone });
        }
        Ok((found, true))
    }

    /// Writes the identity durably: whole or not at all.
    pub async fn write<D: Disk>(&self, disk: &D) -> Result<(), IdentityError> {
        write_whole(disk, FILE, self.encode()).await?;
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        self.cluster.put(&mut out);
        self.node.put(&mut out);
        self.incarnation.put(&mut out);
        self.zone.put(&mut out);
        crc32fast::hash(&out).put(&mut out);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let split = bytes.len().checked_sub(4).ok_or("it is too short")?;
        let (body, crc) = bytes.split_at(split);
        if crc32fast::hash(body).to_le_bytes() != crc {
            return Err("its checksum does not fit".into());
        }
        let parse = || {
            let mut input = Reader::new(body);
            let magic = input.take(8, "magic")? == MAGIC;
            let (cluster, node) = (Wire::get(&mut input)?, Wire::get(&mut input)?);
            let identity = Self { cluster, node, incarnation: Wire::get(&mut input)?, zone: Wire::get(&mut input)? };
            input.finish()?;
            Ok::<_, stoa_protocol::DecodeError>((magic, identity))
        };
        match parse() {
            Ok((true, identity)) => Ok(identity),
            Ok((false, _)) => Err("it does not begin as an identity does".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Writes a small file durably, whole or not at all:
/// 1. under another name, synced;
/// 2. renamed;
/// 3. the directory synced.
pub(crate) async fn write_whole<D: Disk>(disk: &D, name: &str, bytes: Vec<u8>) -> std::io::Result<()> {
    let new = PathBuf::from(format!("{name}.new"));
    match disk.remove(&new).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = disk.create(&new).await?;
    file.append(bytes.into()).await?;
    file.sync().await?;
    drop(file);
    disk.rename(&new, Path::new(name)).await?;
    disk.sync_dir(Path::new("")).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use stoa_env::{OsEntropy, RealDisk};

    fn identity(cluster: u128, node: u64, zone: &str) -> Identity {
        Identity { cluster: ClusterId(cluster), node: NodeId(node), zone: zone.into(), incarnation: 0 }
    }

    #[tokio::test]
    async fn a_directory_of_another_cluster_node_or_zone_is_refused_with_both_names() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path()).unwrap();
        let (mine, existed) = Identity::load_or_create(&disk, identity(1, 2, "a"), &OsEntropy).await.unwrap();
        assert!(!existed);
        mine.write(&disk).await.unwrap();
        let again = Identity::load_or_create(&disk, identity(1, 2, "a"), &OsEntropy).await.unwrap();
        assert_eq!(again, (mine.clone(), true));
        for (wanted, words) in [
            (identity(9, 2, "a"), "00000000000000000000000000000009"),
            (identity(1, 3, "a"), "node 3"),
            (identity(1, 2, "b"), "zone a"),
        ] {
            let error = Identity::load_or_create(&disk, wanted, &OsEntropy).await.unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn every_flipped_bit_of_an_identity_is_noticed() {
        let bytes = identity(1, 2, "a").encode();
        for bit in 0..bytes.len() * 8 {
            let mut copy = bytes.clone();
            copy[bit / 8] ^= 1 << (bit % 8);
            assert!(Identity::decode(&copy).is_err(), "bit {bit}");
        }
    }
}
