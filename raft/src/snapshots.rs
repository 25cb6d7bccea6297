//! Snapshots of one group on disk: a directory of chunk files under a manifest.
//!
//! ```text
//! snapshots/<partition>/<index>-<term>-<n>/      n counts up, so that a name is never used twice
//!     00000000.chunk …                           the machine's chunks, each with its own checksum
//!     manifest
//! manifest: "STOASNP1", u64 partition, bytes meta, u32 chunks, each u32 length, u32 CRC-32; u32 CRC-32 of all before
//! ```
//!
//! How one comes to be, and why a crash between any two steps leaves the old or the new one whole:
//! 1. The directory is made under a name that begins with `new-`; start-up removes such directories.
//! 2. Each chunk is written and synced, then the manifest, then the directory.
//! 3. The directory is renamed to its name, and its parent synced: from here on it is the newest.
//! 4. Older ones are removed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use stoa_env::{Disk, DiskFile};
use stoa_protocol::PartitionId;
use stoa_protocol::codec::{Reader, Wire, put_bytes};
use stoa_protocol::limits::FRAME_BYTES_MAX;

use crate::types::{SnapshotMeta, decode_snapshot_meta, encode_snapshot_meta};

const MAGIC: &[u8; 8] = b"STOASNP1";

/// Most bytes of one chunk: it travels in one frame.
pub const CHUNK_BYTES_MAX: usize = FRAME_BYTES_MAX / 2;
/// Most chunks of a snapshot: 4 MiB each make 4 TiB, far beyond a partition.
pub const CHUNKS_MAX: usize = 1 << 20;
const MANIFEST_BYTES_MAX: usize = 64 + (1 << 20) + CHUNKS_MAX * 8;

/// Length and checksum of one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ChunkInfo {
    /// Its bytes.
    pub bytes: u32,
    /// CRC-32 of them.
    pub crc: u32,
}

/// A whole snapshot on disk.
#[derive(Clone)]
pub struct SnapshotHandle<D> {
    home: SnapshotStore<D>,
    dir: PathBuf,
    /// What it covers.
    pub meta: SnapshotMeta,
    /// Its chunks.
    pub chunks: Arc<Vec<ChunkInfo>>,
}

/// All snapshots of one group.
#[derive(Clone)]
pub struct SnapshotStore<D> {
    disk: D,
    partition: PartitionId,
    dir: PathBuf,
    next: Arc<AtomicU64>,
}

/// A snapshot being written.
pub struct SnapshotWriter<D> {
    store: SnapshotStore<D>,
    dir: PathBuf,
    number: u64,
    meta: SnapshotMeta,
    chunks: Vec<ChunkInfo>,
}

impl<D: Disk> SnapshotStore<D> {
    /// The snapshots of a group below `dir`, and the newest whole one. What an interrupted write left is removed; a
    /// snapshot whose manifest is damaged is an error: the bytes below its index may be in no log any more.
    pub async fn open(disk: D, dir: &Path, partition: PartitionId) -> io::Result<(Self, Option<SnapshotHandle<D>>)> {
        let dir = dir.join(partition.to_string());
        disk.create_dir(&dir).await?;
        let store = Self { disk, partition, dir, next: Arc::new(AtomicU64::new(1)) };
        let mut newest: Option<(u64, SnapshotHandle<D>)> = None;
        let mut old = Vec::new();
        for name in store.disk.list(&store.dir).await? {
            let text = name.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let path = store.dir.join(&text);
            let Some(number) = text.rsplit('-').next().and_then(|n| n.parse::<u64>().ok()) else {
                store.disk.remove(&path).await?;
                continue;
            };
            store.next.fetch_max(number + 1, Ordering::Relaxed);
            if text.starts_with("new-") {
                store.disk.remove(&path).await?;
                continue;
            }
            let handle = store.read_manifest(&path).await?;
            match &newest {
                Some((best, _)) if *best > number => old.push(path),
                _ => {
                    if let Some((_, replaced)) = newest.replace((number, handle)) {
                        old.push(replaced.dir);
                    }
                }
            }
        }
        for path in old {
            store.disk.remove(&path).await?;
        }
        store.disk.sync_dir(&store.dir.clone()).await?;
        Ok((store, newest.map(|(_, handle)| handle)))
    }

    async fn read_manifest(&self, dir: &Path) -> io::Result<SnapshotHandle<D>> {
        let path = dir.join("manifest");
        let bytes = self.disk.read(&path, MANIFEST_BYTES_MAX).await?;
        let bad = |why: &dyn std::fmt::Display| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the snapshot manifest {} is damaged: {why}", path.display()),
            )
        };
        let split = bytes.len().checked_sub(4).ok_or_else(|| bad(&"it is too short"))?;
        let (body, crc) = bytes.split_at(split);
        if crc32fast::hash(body).to_le_bytes() != crc {
            return Err(bad(&"its checksum does not fit"));
        }
        let parse = || {
            let mut input = Reader::new(body);
            let magic_fits = input.take(8, "magic")? == MAGIC;
            let partition = PartitionId::get(&mut input)?;
            let meta = decode_snapshot_meta(&Vec::<u8>::get(&mut input)?)?;
            let count = input.count(8, "chunks")?;
            let mut chunks = Vec::with_capacity(count);
            for _ in 0..count {
                chunks.push(ChunkInfo { bytes: u32::get(&mut input)?, crc: u32::get(&mut input)? });
            }
            input.finish()?;
            Ok::<_, stoa_protocol::DecodeError>((magic_fits && partition == self.partition, meta, chunks))
        };
        let (ours, meta, chunks) = parse().map_err(|e| bad(&e))?;
        if !ours {
            return Err(bad(&format!("it is not one of partition {}", self.partition)));
        }
        Ok(SnapshotHandle { home: self.clone(), dir: dir.to_owned(), meta, chunks: Arc::new(chunks) })
    }

    /// Begins a new snapshot.
    pub async fn create(&self, meta: SnapshotMeta) -> io::Result<SnapshotWriter<D>> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let dir = self.dir.join(format!("new-{number}"));
        self.disk.create_dir(&dir).await?;
        Ok(SnapshotWriter { store: self.clone(), dir, number, meta, chunks: Vec::new() })
    }

    /// The same snapshot in this store: itself if it is here already, else a copy of it.
    pub async fn adopt(&self, handle: SnapshotHandle<D>) -> io::Result<SnapshotHandle<D>> {
        if Arc::ptr_eq(&handle.home.next, &self.next) {
            return Ok(handle);
        }
        let mut writer = self.create(handle.meta.clone()).await?;
        for number in 0..handle.chunks.len() {
            writer.write(handle.read_chunk(number).await?).await?;
        }
        writer.finish().await
    }

    async fn remove_others(&self, keep: &Path) -> io::Result<()> {
        for name in self.disk.list(&self.dir).await? {
            let Some(file) = name.file_name() else { continue };
            let path = self.dir.join(file);
            if path != keep && !file.to_string_lossy().starts_with("new-") {
                self.disk.remove(&path).await?;
            }
        }
        self.disk.sync_dir(&self.dir).await
    }
}

impl<D: Disk> SnapshotHandle<D> {
    /// Reads one chunk and checks it.
    pub async fn read_chunk(&self, number: usize) -> io::Result<Bytes> {
        let info = self.chunks[number];
        let path = chunk_path(&self.dir, number);
        let bytes = self.home.disk.read(&path, CHUNK_BYTES_MAX).await?;
        if bytes.len() != info.bytes as usize || crc32fast::hash(&bytes) != info.crc {
            let message = format!("the snapshot chunk {} is damaged", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(bytes)
    }
}

impl<D: Disk> SnapshotWriter<D> {
    /// Adds a chunk, durably.
    pub async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        if bytes.len() > CHUNK_BYTES_MAX || self.chunks.len() >= CHUNKS_MAX {
            return Err(io::Error::other(format!("a chunk of {} bytes is over the limit", bytes.len())));
        }
        let info = ChunkInfo { bytes: bytes.len() as u32, crc: crc32fast::hash(&bytes) };
        let mut file = self.store.disk.create(&chunk_path(&self.dir, self.chunks.len())).await?;
        file.append(bytes).await?;
        file.sync().await?;
        self.chunks.push(info);
        Ok(())
    }

    /// Chunks written so far.
    pub fn chunks(&self) -> &[ChunkInfo] {
        &self.chunks
    }

    /// Writes the manifest, gives the snapshot its name, removes older ones.
    pub async fn finish(self) -> io::Result<SnapshotHandle<D>> {
        let mut out = MAGIC.to_vec();
        self.store.partition.put(&mut out);
        put_bytes(&encode_snapshot_meta(&self.meta), &mut out);
        (self.chunks.len() as u32).put(&mut out);
        for chunk in &self.chunks {
            chunk.bytes.put(&mut out);
            chunk.crc.put(&mut out);
        }
        crc32fast::hash(&out).put(&mut out);
        let disk = &self.store.disk;
        let mut file = disk.create(&self.dir.join("manifest")).await?;
        file.append(out.into()).await?;
        file.sync().await?;
        disk.sync_dir(&self.dir).await?;
        let (index, term) = self.meta.last_log_id.as_ref().map_or((0, 0), |id| (id.index, id.leader_id.term));
        let dir = self.store.dir.join(format!("{index}-{term}-{}", self.number));
        disk.rename(&self.dir, &dir).await?;
        disk.sync_dir(&self.store.dir).await?;
        self.store.remove_others(&dir).await?;
        Ok(SnapshotHandle { home: self.store, dir, meta: self.meta, chunks: Arc::new(self.chunks) })
    }

    /// Removes what was written.
    pub async fn abandon(self) -> io::Result<()> {
        self.store.disk.remove(&self.dir).await
    }
}

fn chunk_path(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("{number:08}.chunk"))
}
