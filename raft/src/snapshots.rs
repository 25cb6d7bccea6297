//! Snapshots of one group on disk: a directory of chunk files under a manifest.
//!
//! ```text
//! snapshots/<partition>/<index>-<term>-<n>/      n counts up, so that a name is never used twice
//!     00000000.chunk …                           the machine's chunks, cut where they are longer than a file may be
//!     manifest
//! manifest: "STOASNP1", u64 partition, bytes meta, u32 chunks, each u32 length, u32 CRC-32; u32 CRC-32 of all before
//!           the highest bit of a length: the machine's chunk goes on in the next file
//! ```
//!
//! The newest snapshot is the one that covers most of the log, by its manifest; when it was written says nothing. How one
//! comes to be, and why a crash between any two steps leaves the old or the new one whole:
//! 1. The directory is made under a name that begins with `new-`; start-up removes such directories.
//! 2. Each chunk is written and synced, or is a second name of one in the last snapshot that has not changed; then the
//!    manifest, then the directory.
//! 3. If one that covers as much has come meanwhile (an install beside a build), this one is removed, and that is all.
//! 4. The directory is renamed to its name, and its parent synced: from here on it is the newest.
//! 5. The one before goes as soon as nobody reads it any more: it is renamed to a name that begins with `old-`, which
//!    start-up removes, the parent is synced, and only then are its files removed. Without the rename a crash could leave
//!    half a snapshot under a good name.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use stoa_env::{Bounds, Disk, DiskFile, Gauge};
use stoa_protocol::PartitionId;
use stoa_protocol::codec::{Reader, Wire, put_bytes};
use stoa_protocol::limits::FRAME_BYTES_MAX;
use tokio::sync::Mutex;

use crate::machine::{SnapshotChunk, SnapshotEnds};
use crate::types::{LogId, SnapshotMeta, decode_snapshot_meta, encode_snapshot_meta};

const MAGIC: &[u8; 8] = b"STOASNP1";
/// In a length of the manifest: the machine's chunk goes on in the next file.
const CONTINUED: u32 = 1 << 31;

/// Most bytes of one chunk file: it travels in one frame. A chunk of the machine that is longer (one row may be) is cut.
pub const CHUNK_BYTES_MAX: usize = FRAME_BYTES_MAX / 2;
/// Most chunk files of a snapshot: at half a MiB each, which is the least that the store aims at, 128 GiB, twice the largest partition.
/// Their lengths and checksums travel in one frame.
pub const CHUNKS_MAX: usize = 1 << 18;
/// Snapshots of a group that newer ones have replaced and that are still read, each of them the size of the partition on
/// the device. A transfer to each of six other replicas reads one, all of them different ones only if each began after
/// another build; a build and an install may end at once. Beyond, no snapshot is begun until one has been read.
const LEAVING_MAX: usize = 8;
/// Of the snapshots that keep a file, each so many reads it again.
const KEPT_CHECKED_EVERY: u64 = 8;
/// Files of snapshots that a process has mapped at once; a quarter of what Linux allows a process by default (65,530), since the
/// memory of rows is mapped as well. Beyond it they are read: the partition starts with its bytes in memory.
pub const MAPPED_MAX: usize = 16_384;
/// Bytes that a transfer's first message takes for each chunk at the most.
const CHUNK_INFO_WIRE_BYTES: usize = 12;
const META_BYTES_MAX: usize = 1 << 20;
const MANIFEST_BYTES_MAX: usize = 64 + META_BYTES_MAX + CHUNKS_MAX * 8;

const _: () = assert!(CHUNK_BYTES_MAX < CONTINUED as usize, "the highest bit of a length is free");
const _: () =
    assert!(CHUNKS_MAX * CHUNK_INFO_WIRE_BYTES + META_BYTES_MAX < FRAME_BYTES_MAX, "a list of chunks fits a frame");

/// Length and checksum of one chunk file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ChunkInfo {
    /// Its bytes.
    pub bytes: u32,
    /// CRC-32 of them.
    pub crc: u32,
    /// Whether the machine's chunk goes on in the next file.
    pub continued: bool,
}

/// A whole snapshot on disk. While a handle lives, its files stay.
#[derive(Clone)]
pub struct SnapshotHandle<D> {
    disk: D,
    /// Tells the store it lies in.
    home: Arc<AtomicU64>,
    dir: PathBuf,
    in_use: Arc<()>,
    /// Whether a chunk was found damaged: nothing is kept of it.
    rotten: Arc<AtomicBool>,
    /// What it covers.
    pub meta: SnapshotMeta,
    /// Its chunks.
    pub chunks: Arc<Vec<ChunkInfo>>,
}

/// All snapshots of one group; clones share them.
#[derive(Clone)]
pub struct SnapshotStore<D> {
    disk: D,
    partition: PartitionId,
    dir: PathBuf,
    next: Arc<AtomicU64>,
    shelf: Arc<Mutex<Shelf<D>>>,
}

/// The whole snapshots there are. Whoever changes names holds its lock.
struct Shelf<D> {
    newest: Option<SnapshotHandle<D>>,
    /// Those that a newer one has replaced, until nobody reads them.
    leaving: Vec<SnapshotHandle<D>>,
    /// The replica has ended: nothing gets a name any more.
    closed: bool,
    /// Counts those that are leaving.
    counted: Gauge,
}

/// A snapshot being written.
pub struct SnapshotWriter<D> {
    store: SnapshotStore<D>,
    dir: PathBuf,
    number: u64,
    meta: SnapshotMeta,
    chunks: Vec<ChunkInfo>,
}

/// How many there are in this process.
static MAPPED: AtomicUsize = AtomicUsize::new(0);

/// Room for one mapped file.
struct MappedRoom;

impl MappedRoom {
    fn take() -> Option<Self> {
        let room = |count: usize| (count < MAPPED_MAX).then_some(count + 1);
        MAPPED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok().map(|_| Self)
    }
}

impl Drop for MappedRoom {
    fn drop(&mut self) {
        MAPPED.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A mapped file, and its room.
struct Mapped<M> {
    map: M,
    _room: MappedRoom,
}

impl<M: AsRef<[u8]>> AsRef<[u8]> for Mapped<M> {
    fn as_ref(&self) -> &[u8] {
        self.map.as_ref()
    }
}

/// Which of two places in the log of one group is the later; both are committed.
pub fn reach(covered: Option<&LogId>) -> Option<(u64, u64)> {
    covered.map(|id| (id.index, id.leader_id.term))
}

impl<D: Disk> SnapshotStore<D> {
    /// The snapshots of a group below `dir`, and the newest whole one. What an interrupted write or removal left is
    /// removed; a snapshot whose manifest is damaged is an error unless a whole one covers as much: the bytes below its
    /// index may be in no log any more.
    pub async fn open(
        disk: D,
        dir: &Path,
        partition: PartitionId,
        bounds: &Bounds,
    ) -> io::Result<(Self, Option<SnapshotHandle<D>>)> {
        let dir = dir.join(partition.to_string());
        disk.create_dir(&dir).await?;
        // The directory and the one it lies in may be new: what is made durable below must have a durable way to it.
        for parent in dir.ancestors().skip(1).take(2) {
            disk.sync_dir(parent).await?;
        }
        let counted = bounds.gauge("replaced snapshots of a group that are still read", LEAVING_MAX as u64);
        let shelf = Arc::new(Mutex::new(Shelf { newest: None, leaving: Vec::new(), closed: false, counted }));
        let store = Self { disk, partition, dir, next: Arc::new(AtomicU64::new(1)), shelf };
        let mut whole: Vec<SnapshotHandle<D>> = Vec::new();
        let mut damaged: Vec<(u64, PathBuf, io::Error)> = Vec::new();
        for name in store.disk.list(&store.dir).await? {
            let text = name.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let path = store.dir.join(&text);
            match parse_name(&text) {
                Name::Snapshot { index, number } => {
                    store.next.fetch_max(number + 1, Ordering::Relaxed);
                    match store.read_manifest(&path).await {
                        Ok(handle) => whole.push(handle),
                        Err(error) => damaged.push((index, path, error)),
                    }
                }
                Name::Remains { number } => {
                    store.next.fetch_max(number + 1, Ordering::Relaxed);
                    store.disk.remove(&path).await?;
                }
                Name::Other => {}
            }
        }
        whole.sort_by_key(|handle| reach(handle.meta.last_log_id.as_ref()));
        let newest = whole.pop();
        let reached = newest.as_ref().and_then(|handle| handle.meta.last_log_id).map(|id| id.index);
        for (index, path, error) in damaged {
            if reached.is_none_or(|reached| index > reached) {
                return Err(error);
            }
            store.retire(&mut path.clone()).await?;
        }
        for mut handle in whole {
            store.retire(&mut handle.dir).await?;
        }
        store.disk.sync_dir(&store.dir).await?;
        store.shelf.lock().await.newest = newest.clone();
        Ok((store, newest))
    }

    /// The directory of the group.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Ends all writing: a build or an install that is under way names nothing afterwards, whenever it comes to its end.
    /// Whoever erases the directory must have called this.
    pub async fn close(&self) {
        self.shelf.lock().await.closed = true;
    }

    /// Removes snapshots that a newer one has replaced, once nobody reads them.
    pub async fn tidy(&self) {
        self.sweep(&mut *self.shelf.lock().await).await;
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
                let (length, crc) = (u32::get(&mut input)?, u32::get(&mut input)?);
                let (bytes, continued) = (length & !CONTINUED, length & CONTINUED != 0);
                chunks.push(ChunkInfo { bytes, crc, continued });
            }
            input.finish()?;
            Ok::<_, stoa_protocol::DecodeError>((magic_fits && partition == self.partition, meta, chunks))
        };
        let (ours, meta, chunks) = parse().map_err(|e| bad(&e))?;
        if !ours {
            return Err(bad(&format!("it is not one of partition {}", self.partition)));
        }
        Ok(self.handle(dir.to_owned(), meta, chunks))
    }

    fn handle(&self, dir: PathBuf, meta: SnapshotMeta, chunks: Vec<ChunkInfo>) -> SnapshotHandle<D> {
        let (disk, home) = (self.disk.clone(), self.next.clone());
        SnapshotHandle { disk, home, dir, in_use: Arc::new(()), rotten: Arc::default(), meta, chunks: Arc::new(chunks) }
    }

    /// A snapshot that covers nothing, where a call must have one and there is none.
    pub fn nothing(&self) -> SnapshotHandle<D> {
        self.handle(self.dir.join("none"), SnapshotMeta::default(), Vec::new())
    }

    /// Begins a new snapshot; an error of kind `ResourceBusy` if too many are still read that were replaced before.
    pub async fn create(&self, meta: SnapshotMeta) -> io::Result<SnapshotWriter<D>> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let dir = self.dir.join(format!("new-{number}"));
        let mut shelf = self.shelf.lock().await;
        shelf.check_open()?;
        if !shelf.has_room() {
            self.sweep(&mut shelf).await;
        }
        if !shelf.has_room() {
            let message = format!(
                "{} snapshots of partition {} that were replaced are still read or cannot be removed; another one is taken when \
                 one is gone",
                shelf.leaving.len(),
                self.partition
            );
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, message));
        }
        self.disk.create_dir(&dir).await?;
        drop(shelf);
        Ok(SnapshotWriter { store: self.clone(), dir, number, meta, chunks: Vec::new() })
    }

    /// The same snapshot in this store, or one that covers more: itself if it is here already, else a copy of it.
    pub async fn adopt(&self, handle: SnapshotHandle<D>) -> io::Result<SnapshotHandle<D>> {
        if Arc::ptr_eq(&handle.home, &self.next) {
            return Ok(handle);
        }
        let mut writer = self.create(handle.meta.clone()).await?;
        for (number, chunk) in handle.chunks.iter().enumerate() {
            writer.write_file(handle.read_chunk(number).await?, chunk.continued).await?;
        }
        writer.finish().await
    }

    /// Removes a snapshot that a newer one has replaced; step 5. If that fails, `dir` is where it lies then, and the same call
    /// goes on from there.
    async fn retire(&self, dir: &mut PathBuf) -> io::Result<()> {
        let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if !matches!(parse_name(&name), Name::Remains { .. }) {
            let old = self.dir.join(format!("old-{name}"));
            self.disk.rename(dir, &old).await?;
            *dir = old;
        }
        self.disk.sync_dir(&self.dir).await?;
        self.disk.remove(dir).await
    }

    /// Removes those that nobody reads any more. What cannot be removed now stays, and goes later, when there must be room for
    /// another one or at a start: the new snapshot is no worse for it.
    async fn sweep(&self, shelf: &mut Shelf<D>) {
        for mut handle in std::mem::take(&mut shelf.leaving) {
            if Arc::strong_count(&handle.in_use) > 1 {
                shelf.leaving.push(handle);
            } else if let Err(error) = self.retire(&mut handle.dir).await
                // One that is gone is removed, whatever the call that did it said.
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(dir = %handle.dir.display(), %error, "an old snapshot could not be removed");
                shelf.leaving.push(handle);
            }
        }
    }
}

impl<D> Shelf<D> {
    /// Whether one more may be begun: it may end together with another, and each then replaces one that is read.
    fn has_room(&self) -> bool {
        self.leaving.len() + 2 <= LEAVING_MAX
    }

    fn check_open(&self) -> io::Result<()> {
        match self.closed {
            true => Err(io::Error::other("the replica has ended")),
            false => Ok(()),
        }
    }
}

enum Name {
    /// A snapshot up to `index`.
    Snapshot { index: u64, number: u64 },
    /// What an interrupted write or removal left.
    Remains { number: u64 },
    /// Not ours to remove.
    Other,
}

fn parse_name(text: &str) -> Name {
    let number = || text.rsplit('-').next().and_then(|n| n.parse::<u64>().ok());
    if text.starts_with("new-") || text.starts_with("old-") {
        return Name::Remains { number: number().unwrap_or(0) };
    }
    let parts: Vec<Option<u64>> = text.split('-').map(|part| part.parse().ok()).collect();
    match parts[..] {
        [Some(index), Some(_term), Some(number)] => Name::Snapshot { index, number },
        _ => Name::Other,
    }
}

impl<D> SnapshotHandle<D> {
    /// Bytes of all its chunks.
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum()
    }
}

impl<D: Disk> SnapshotHandle<D> {
    /// Reads one chunk file and checks it.
    pub async fn read_chunk(&self, number: usize) -> io::Result<Bytes> {
        let info = self.chunks[number];
        let path = chunk_path(&self.dir, number);
        let bytes = self.disk.read(&path, CHUNK_BYTES_MAX).await?;
        if bytes.len() != info.bytes as usize || crc32fast::hash(&bytes) != info.crc {
            self.rotten.store(true, Ordering::Relaxed);
            let message = format!("the snapshot chunk {} is damaged", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(bytes)
    }

    /// All chunks that the machine made, read and checked.
    pub async fn read_all(&self) -> io::Result<Vec<SnapshotChunk>> {
        let mut chunks = Vec::new();
        for files in self.files()? {
            let file = chunk_path(&self.dir, files.start);
            chunks.push(SnapshotChunk { bytes: self.read_files(files).await?, file });
        }
        Ok(chunks)
    }

    /// All chunks that the machine made, mapped: nothing of them is read or checked here, but for those that lie in several files,
    /// and for what the process has no room for among its mappings ([`MAPPED_MAX`]). They stay readable when the snapshot is
    /// removed.
    pub async fn map_all(&self) -> io::Result<Vec<SnapshotChunk>> {
        let mut chunks = Vec::new();
        for files in self.files()? {
            let room = if files.len() == 1 { MappedRoom::take() } else { None };
            let file = chunk_path(&self.dir, files.start);
            let bytes = match room {
                Some(room) => self.map_file(files.start, room).await?,
                None => self.read_files(files).await?,
            };
            chunks.push(SnapshotChunk { bytes, file });
        }
        Ok(chunks)
    }

    /// The first and the last chunk that the machine made, read and checked; `None` if there is none.
    pub async fn ends(&self) -> io::Result<Option<SnapshotEnds>> {
        let files = self.files()?;
        let (Some(first), Some(last)) = (files.first(), files.last()) else { return Ok(None) };
        let ends =
            SnapshotEnds { first: self.read_files(first.clone()).await?, last: self.read_files(last.clone()).await? };
        Ok(Some(ends))
    }

    /// Whether a chunk of it was found damaged.
    pub fn is_rotten(&self) -> bool {
        self.rotten.load(Ordering::Relaxed)
    }

    /// The chunk files of each chunk of the machine.
    pub fn files(&self) -> io::Result<Vec<Range<usize>>> {
        let (mut files, mut begins) = (Vec::new(), 0);
        for (number, info) in self.chunks.iter().enumerate() {
            if !info.continued {
                files.push(begins..number + 1);
                begins = number + 1;
            }
        }
        match begins == self.chunks.len() {
            true => Ok(files),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, "the last chunk of a snapshot is not its end")),
        }
    }

    async fn map_file(&self, number: usize, room: MappedRoom) -> io::Result<Bytes> {
        let path = chunk_path(&self.dir, number);
        let bytes = Bytes::from_owner(Mapped { map: self.disk.map(&path).await?, _room: room });
        if bytes.len() != self.chunks[number].bytes as usize {
            let message = format!("the snapshot chunk {} is damaged: its length is another", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(bytes)
    }

    async fn read_files(&self, files: Range<usize>) -> io::Result<Bytes> {
        if files.len() == 1 {
            return self.read_chunk(files.start).await;
        }
        let mut all = Vec::new();
        for number in files {
            all.extend_from_slice(&self.read_chunk(number).await?);
        }
        Ok(all.into())
    }
}

impl<D: Disk> SnapshotWriter<D> {
    /// Adds a chunk of the machine, durably, in as many files as it needs.
    pub async fn write(&mut self, chunk: Bytes) -> io::Result<()> {
        let mut rest = chunk;
        loop {
            let file = rest.split_to(rest.len().min(CHUNK_BYTES_MAX));
            let continued = !rest.is_empty();
            self.write_file(file, continued).await?;
            if !continued {
                return Ok(());
            }
        }
    }

    /// Adds files of another snapshot of this store, which get a second name here; they are copied where there is none to be had.
    /// Each eighth snapshot reads a file again before it keeps it: what has rotted on the device is found, and written anew from
    /// memory, before it is needed.
    pub async fn keep(&mut self, of: &SnapshotHandle<D>, files: Range<usize>) -> io::Result<()> {
        for number in files {
            if self.chunks.len() >= CHUNKS_MAX {
                return Err(io::Error::other(format!("a snapshot of over {CHUNKS_MAX} chunk files")));
            }
            if (number as u64).wrapping_add(self.number).is_multiple_of(KEPT_CHECKED_EVERY) {
                of.read_chunk(number).await?;
            }
            let (from, to) = (chunk_path(&of.dir, number), chunk_path(&self.dir, self.chunks.len()));
            match self.store.disk.link(&from, &to).await {
                Ok(()) => self.chunks.push(of.chunks[number]),
                Err(_no_second_name) => {
                    self.write_file(of.read_chunk(number).await?, of.chunks[number].continued).await?;
                }
            }
        }
        Ok(())
    }

    /// Adds a chunk file, durably.
    pub async fn write_file(&mut self, bytes: Bytes, continued: bool) -> io::Result<()> {
        if bytes.len() > CHUNK_BYTES_MAX || self.chunks.len() >= CHUNKS_MAX {
            return Err(io::Error::other(format!("a chunk of {} bytes is over the limit", bytes.len())));
        }
        let info = ChunkInfo { bytes: bytes.len() as u32, crc: crc32fast::hash(&bytes), continued };
        let mut file = self.store.disk.create(&chunk_path(&self.dir, self.chunks.len())).await?;
        file.append(bytes).await?;
        file.sync().await?;
        self.chunks.push(info);
        Ok(())
    }

    /// Chunk files written so far.
    pub fn chunks(&self) -> &[ChunkInfo] {
        &self.chunks
    }

    /// What it will cover.
    pub fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    /// Writes the manifest and gives the snapshot its name. If one that covers as much is there, this one is removed, and
    /// the answer is that one.
    pub async fn finish(self) -> io::Result<SnapshotHandle<D>> {
        if let Err(error) = self.write_manifest().await {
            self.abandon().await?;
            return Err(error);
        }
        let store = self.store;
        let mut shelf = store.shelf.lock().await;
        shelf.check_open()?;
        let covered = reach(self.meta.last_log_id.as_ref());
        if let Some(newest) = shelf.newest.as_ref().filter(|n| reach(n.meta.last_log_id.as_ref()) >= covered) {
            let newest = newest.clone();
            store.disk.remove(&self.dir).await?;
            return Ok(newest);
        }
        let (index, term) = covered.unwrap_or((0, 0));
        let dir = store.dir.join(format!("{index}-{term}-{}", self.number));
        store.disk.rename(&self.dir, &dir).await?;
        let synced = store.disk.sync_dir(&store.dir).await;
        let handle = store.handle(dir, self.meta, self.chunks);
        if let Err(error) = synced {
            // Nobody may count on it, and nobody would remove it before the next start.
            shelf.leaving.push(handle);
            store.sweep(&mut shelf).await;
            shelf.counted.note_len(shelf.leaving.len());
            return Err(error);
        }
        if let Some(replaced) = shelf.newest.replace(handle.clone()) {
            shelf.leaving.push(replaced);
        }
        store.sweep(&mut shelf).await;
        shelf.counted.note_len(shelf.leaving.len());
        Ok(handle)
    }

    async fn write_manifest(&self) -> io::Result<()> {
        let mut out = MAGIC.to_vec();
        self.store.partition.put(&mut out);
        put_bytes(&encode_snapshot_meta(&self.meta), &mut out);
        (self.chunks.len() as u32).put(&mut out);
        for chunk in &self.chunks {
            let mark = if chunk.continued { CONTINUED } else { 0 };
            (chunk.bytes | mark).put(&mut out);
            chunk.crc.put(&mut out);
        }
        crc32fast::hash(&out).put(&mut out);
        let disk = &self.store.disk;
        let mut file = disk.create(&self.dir.join("manifest")).await?;
        file.append(out.into()).await?;
        file.sync().await?;
        disk.sync_dir(&self.dir).await
    }

    /// Removes what was written.
    pub async fn abandon(self) -> io::Result<()> {
        self.store.disk.remove(&self.dir).await
    }
}

fn chunk_path(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("{number:08}.chunk"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::log_id;
    use stoa_env::RealDisk;

    fn meta(term: u64, index: u64) -> SnapshotMeta {
        SnapshotMeta { last_log_id: Some(log_id(term, index)), ..SnapshotMeta::default() }
    }

    fn bytes(chunks: io::Result<Vec<SnapshotChunk>>) -> Vec<Bytes> {
        chunks.unwrap().into_iter().map(|chunk| chunk.bytes).collect()
    }

    async fn open(dir: &tempfile::TempDir) -> (SnapshotStore<RealDisk>, Option<SnapshotHandle<RealDisk>>) {
        let disk = RealDisk::new(dir.path()).unwrap();
        SnapshotStore::open(disk, Path::new("snapshots"), PartitionId(3), &Bounds::default()).await.unwrap()
    }

    async fn write(store: &SnapshotStore<RealDisk>, term: u64, index: u64) -> SnapshotWriter<RealDisk> {
        let mut writer = store.create(meta(term, index)).await.unwrap();
        writer.write(Bytes::from(format!("state at {index}"))).await.unwrap();
        writer
    }

    fn names(dir: &tempfile::TempDir) -> Vec<String> {
        let names = std::fs::read_dir(dir.path().join("snapshots/3")).unwrap();
        let mut names: Vec<_> = names.map(|name| name.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_build_that_ends_after_a_newer_install_is_discarded_and_a_newer_one_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(&dir).await;
        let (built, installed) = (write(&store, 1, 10).await, write(&store, 2, 20).await);
        let installed = installed.finish().await.unwrap();
        let found = built.finish().await.unwrap();
        assert_eq!(found.meta, installed.meta, "the answer is the newer one");
        assert_eq!(names(&dir), ["20-2-2"]);
        drop((installed, found));
        let (store, newest) = open(&dir).await;
        assert_eq!(bytes(newest.unwrap().map_all().await), ["state at 20"]);
        write(&store, 2, 30).await.finish().await.unwrap();
        assert_eq!(names(&dir), ["30-2-3"]);
    }

    #[tokio::test]
    async fn the_newest_is_what_covers_most_whatever_was_written_last() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(&dir).await;
        write(&store, 2, 20).await.finish().await.unwrap();
        let lagging = write(&store, 1, 10).await;
        // As a version that went by numbers would have left it.
        lagging.write_manifest().await.unwrap();
        store.disk.rename(&lagging.dir, &store.dir.join("10-1-2")).await.unwrap();
        let (_, newest) = open(&dir).await;
        assert_eq!(newest.unwrap().meta, meta(2, 20));
        assert_eq!(names(&dir), ["20-2-1"]);
    }

    #[tokio::test]
    async fn a_snapshot_stays_while_it_is_read_and_goes_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(&dir).await;
        let sent = write(&store, 1, 10).await.finish().await.unwrap();
        write(&store, 1, 20).await.finish().await.unwrap();
        assert_eq!(sent.read_chunk(0).await.unwrap(), "state at 10");
        drop(sent);
        store.tidy().await;
        assert_eq!(names(&dir), ["20-1-2"]);
    }

    #[tokio::test]
    async fn one_that_cannot_be_removed_is_tried_again_and_one_that_is_gone_takes_no_room() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(&dir).await;
        let place = dir.path().join("snapshots/3");
        write(&store, 1, 10).await.finish().await.unwrap();
        std::fs::create_dir_all(place.join("old-10-1-1/in-the-way")).unwrap();
        write(&store, 1, 20).await.finish().await.unwrap();
        assert_eq!(names(&dir), ["10-1-1", "20-1-2", "old-10-1-1"]);
        std::fs::remove_dir_all(place.join("old-10-1-1")).unwrap();
        store.tidy().await;
        assert_eq!(names(&dir), ["20-1-2"]);
        for index in 30..30 + 2 * LEAVING_MAX as u64 {
            let read = store.shelf.lock().await.newest.clone().unwrap();
            write(&store, 1, index).await.finish().await.unwrap();
            std::fs::remove_dir_all(dir.path().join(&read.dir)).unwrap();
        }
    }

    #[tokio::test]
    async fn none_is_begun_while_too_many_that_were_replaced_are_still_read() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, bounds) = (RealDisk::new(dir.path()).unwrap(), Bounds::default());
        let opened = SnapshotStore::open(disk, Path::new("snapshots"), PartitionId(3), &bounds).await;
        let (store, _) = opened.unwrap();
        let mut read = Vec::new();
        for index in 1..LEAVING_MAX as u64 {
            read.push(write(&store, 1, index).await.finish().await.unwrap());
        }
        let (one, other) = (write(&store, 1, 20).await, write(&store, 1, 21).await);
        read.extend([one.finish().await.unwrap(), other.finish().await.unwrap()]);
        let refused = store.create(meta(1, 30)).await.err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy, "{refused}");
        assert_eq!(bounds.table()[0].high, LEAVING_MAX as u64, "two that were begun at once fill it");
        read.drain(..3);
        write(&store, 1, 30).await.finish().await.unwrap();
    }

    #[tokio::test]
    async fn what_an_interrupted_write_or_removal_left_goes_and_other_files_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(&dir).await;
        write(&store, 1, 10).await.finish().await.unwrap();
        for name in ["new-7", "old-5-1-6", "replica"] {
            std::fs::create_dir(dir.path().join("snapshots/3").join(name)).unwrap();
        }
        let (store, newest) = open(&dir).await;
        assert_eq!(newest.unwrap().meta, meta(1, 10));
        assert_eq!(names(&dir), ["10-1-1", "replica"]);
        write(&store, 1, 11).await.finish().await.unwrap();
        assert_eq!(names(&dir), ["11-1-8", "replica"], "no number is used twice");
    }

    #[tokio::test]
    async fn a_damaged_manifest_is_an_error_unless_a_whole_snapshot_covers_as_much() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(&dir).await;
        write(&store, 1, 10).await.finish().await.unwrap();
        let place = dir.path().join("snapshots/3");
        std::fs::create_dir(place.join("9-1-5")).unwrap();
        assert_eq!(open(&dir).await.1.unwrap().meta, meta(1, 10));
        std::fs::create_dir(place.join("11-1-6")).unwrap();
        let disk = RealDisk::new(dir.path()).unwrap();
        assert!(SnapshotStore::open(disk, Path::new("snapshots"), PartitionId(3), &Bounds::default()).await.is_err());
    }

    #[tokio::test]
    async fn chunks_that_are_kept_outlive_the_snapshot_they_come_from() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(&dir).await;
        let long = Bytes::from(vec![7; CHUNK_BYTES_MAX + 9]);
        let mut first = write(&store, 1, 10).await;
        first.write(long.clone()).await.unwrap();
        let base = first.finish().await.unwrap();
        let mut second = store.create(meta(1, 20)).await.unwrap();
        let files = base.files().unwrap();
        assert_eq!(files, [0..1, 1..3]);
        second.keep(&base, files[1].clone()).await.unwrap();
        second.write(Bytes::from_static(b"new")).await.unwrap();
        second.keep(&base, files[0].clone()).await.unwrap();
        let second = second.finish().await.unwrap();
        drop(base);
        store.tidy().await;
        assert_eq!(names(&dir), ["20-1-2"]);
        let wanted = [long, Bytes::from_static(b"new"), Bytes::from_static(b"state at 10")];
        assert_eq!(bytes(second.map_all().await), wanted);
        assert_eq!(bytes(second.read_all().await), wanted);
        let ends = second.ends().await.unwrap().unwrap();
        assert_eq!([ends.first, ends.last], [wanted[0].clone(), wanted[2].clone()]);
        drop(second);
        let (_, newest) = open(&dir).await;
        assert_eq!(bytes(newest.unwrap().map_all().await), wanted);
    }

    #[tokio::test]
    async fn a_chunk_that_rots_is_found_by_one_of_the_snapshots_that_keep_it_and_kept_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(&dir).await;
        let mut base = write(&store, 1, 10).await.finish().await.unwrap();
        std::fs::write(dir.path().join("snapshots/3/10-1-1/00000000.chunk"), "state at 11").unwrap();
        for round in 1..=KEPT_CHECKED_EVERY {
            assert!(round < KEPT_CHECKED_EVERY || base.is_rotten(), "none of so many has looked");
            let mut next = store.create(meta(1, 10 + round)).await.unwrap();
            if let Err(error) = next.keep(&base, 0..1).await {
                assert_eq!(error.kind(), io::ErrorKind::InvalidData);
                assert!(base.is_rotten());
                return;
            }
            base = next.finish().await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_chunk_longer_than_a_file_comes_back_in_one_piece() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(&dir).await;
        let chunks = [
            Bytes::from_static(b"small"),
            Bytes::from(vec![1; 2 * CHUNK_BYTES_MAX + 1]),
            Bytes::from(vec![2; CHUNK_BYTES_MAX]),
            Bytes::new(),
        ];
        let mut writer = store.create(meta(1, 1)).await.unwrap();
        for chunk in &chunks {
            writer.write(chunk.clone()).await.unwrap();
        }
        assert_eq!(writer.finish().await.unwrap().chunks.len(), 6);
        let (_, newest) = open(&dir).await;
        assert_eq!(bytes(newest.unwrap().map_all().await), chunks);
    }
}
