//! Which replica the files of a group on this node are of, and how one gives way to the next. A replica's number is never
//! used again, and its files must never be taken for another's, nor be thought of as never having been: whoever starts
//! empty under a number that has voted can vote twice.
//!
//! The file `replica` beside the group's snapshots says it, through every crash:
//!
//! | file | meaning |
//! |---|---|
//! | none | nobody has ever spoken here |
//! | lives N | the log and the snapshots are of replica N |
//! | begins N | N shall live here; what an earlier one left is being erased, and N has not spoken |
//! | gone N | N was here and never will be again; what it left is being erased |
//!
//! Erasing, in an order that a crash may interrupt anywhere, since it begins with the file and is done again:
//! 1. The file says `begins` or `gone`, durably. From here on nobody starts the earlier replica, not even a node that
//!    comes back with an old copy of the root state.
//! 2. The log forgets the group: votes, entries, suspicion.
//! 3. The snapshots go.
//!
//! Then, for `begins`, the replica starts as one that is new (`seam.rs`): first vote, then `lives`.

use std::fmt;
use std::io;
use std::path::Path;

use stoa_env::{Disk, DiskFile, Transport};
use stoa_protocol::codec::{Reader, Wire};
use stoa_protocol::{PartitionId, ReplicaId};

use crate::replica::ReplicaEnvironment;

/// As it was written before replicas could give way: always of one that lives.
const MAGIC_LIVES: &[u8; 8] = b"STOARPL1";
const MAGIC: &[u8; 8] = b"STOARPL2";
const FILE: &str = "replica";
const DRAFT: &str = "replica.new";
const FILE_BYTES_MAX: usize = 256;

/// Which replica the files of a group are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// This one's.
    Lives(ReplicaId),
    /// This one's, once what an earlier one left has been erased. It has not spoken.
    Begins(ReplicaId),
    /// Nobody's any more.
    Gone(ReplicaId),
}
stoa_protocol::wire_enum!(Life { 1 => Lives(id), 2 => Begins(id), 3 => Gone(id) });

impl Life {
    /// The replica.
    pub fn id(self) -> ReplicaId {
        match self {
            Self::Lives(id) | Self::Begins(id) | Self::Gone(id) => id,
        }
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lives(id) => write!(f, "replica {id}"),
            Self::Begins(id) => write!(f, "replica {id}, which has not begun"),
            Self::Gone(id) => write!(f, "replica {id}, which is gone"),
        }
    }
}

impl<D: Disk, T: Transport> ReplicaEnvironment<D, T> {
    /// Which replica the files of a group are of, if of any.
    pub async fn life_of(&self, partition: PartitionId) -> io::Result<Option<Life>> {
        read_life(&self.disk, &self.snapshot_dir.join(partition.to_string()), partition).await
    }

    /// Makes room for a replica: what an earlier one left of the group is erased. The caller knows that the earlier one is
    /// never started again, and that no task of it runs.
    pub async fn begin_life(&self, partition: PartitionId, id: ReplicaId) -> io::Result<()> {
        self.erase(partition, Life::Begins(id)).await
    }

    /// Erases what a replica left that has gone for good. No task of it runs any more.
    pub async fn end_life(&self, partition: PartitionId, id: ReplicaId) -> io::Result<()> {
        self.erase(partition, Life::Gone(id)).await
    }

    async fn erase(&self, partition: PartitionId, life: Life) -> io::Result<()> {
        let dir = self.snapshot_dir.join(partition.to_string());
        self.disk.create_dir(&dir).await?;
        for parent in dir.ancestors().skip(1).take(2) {
            self.disk.sync_dir(parent).await?;
        }
        write_life(&self.disk, &dir, partition, life).await?;
        self.wal.forget(partition.0).await.map_err(io::Error::other)?;
        // Under names that a start knows as worth nothing, before anything in them is removed: a crash must not leave half a
        // snapshot under a good name.
        let mut leaving = Vec::new();
        for name in self.disk.list(&dir).await? {
            let Some(name) = name.file_name().and_then(|name| name.to_str()).filter(|name| *name != FILE) else {
                continue;
            };
            if name.starts_with("new-") || name.starts_with("old-") || name == DRAFT {
                leaving.push(dir.join(name));
                continue;
            }
            let old = dir.join(format!("old-{name}"));
            self.disk.rename(&dir.join(name), &old).await?;
            leaving.push(old);
        }
        self.disk.sync_dir(&dir).await?;
        for path in leaving {
            self.disk.remove(&path).await?;
        }
        self.disk.sync_dir(&dir).await
    }
}

pub(crate) async fn read_life<D: Disk>(disk: &D, dir: &Path, partition: PartitionId) -> io::Result<Option<Life>> {
    let path = dir.join(FILE);
    let bytes = match disk.read(&path, FILE_BYTES_MAX).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let parse = || {
        let (body, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        let mut input = Reader::new(body);
        let magic = input.take(8, "magic").ok()?;
        let of = PartitionId::get(&mut input).ok()?;
        let life = match magic {
            magic if magic == MAGIC => Life::get(&mut input).ok()?,
            magic if magic == MAGIC_LIVES => Life::Lives(ReplicaId::get(&mut input).ok()?),
            _ => return None,
        };
        input.finish().ok()?;
        (of == partition && crc32fast::hash(body).to_le_bytes() == crc).then_some(life)
    };
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, format!("the file {} is damaged", path.display()));
    parse().map(Some).ok_or_else(damaged)
}

pub(crate) async fn write_life<D: Disk>(disk: &D, dir: &Path, partition: PartitionId, life: Life) -> io::Result<()> {
    let mut out = MAGIC.to_vec();
    partition.put(&mut out);
    life.put(&mut out);
    crc32fast::hash(&out).put(&mut out);
    let draft = dir.join(DRAFT);
    match disk.remove(&draft).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = disk.create(&draft).await?;
    file.append(out.into()).await?;
    file.sync().await?;
    disk.rename(&draft, &dir.join(FILE)).await?;
    disk.sync_dir(dir).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use stoa_env::RealDisk;

    const PARTITION: PartitionId = PartitionId(7);

    #[tokio::test]
    async fn the_file_says_what_it_was_told_an_old_one_too_and_no_flipped_bit_passes() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path()).unwrap();
        let here = Path::new("");
        assert_eq!(read_life(&disk, here, PARTITION).await.unwrap(), None);
        for life in [Life::Lives(ReplicaId(3)), Life::Begins(ReplicaId(4)), Life::Gone(ReplicaId(u64::MAX))] {
            write_life(&disk, here, PARTITION, life).await.unwrap();
            assert_eq!(read_life(&disk, here, PARTITION).await.unwrap(), Some(life));
            assert!(read_life(&disk, here, PartitionId(8)).await.is_err(), "the file of another partition");
        }
        let mut old = MAGIC_LIVES.to_vec();
        PARTITION.put(&mut old);
        ReplicaId(3).put(&mut old);
        crc32fast::hash(&old).put(&mut old);
        std::fs::write(dir.path().join(FILE), &old).unwrap();
        assert_eq!(read_life(&disk, here, PARTITION).await.unwrap(), Some(Life::Lives(ReplicaId(3))));
        for bit in 0..old.len() * 8 {
            let mut bytes = old.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(dir.path().join(FILE), &bytes).unwrap();
            assert!(read_life(&disk, here, PARTITION).await.is_err(), "bit {bit}");
        }
    }
}
