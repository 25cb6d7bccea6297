//! Files in memory that forget as real ones may. What was synced survives [`SimDisk::crash`]; of the rest a seeded
//! choice keeps any part: a prefix torn at any byte, sectors out of order, any subset of the names that no `sync_dir`
//! has covered.
//!
//! Faults are switches of the test: a sync that fails, a device that is full, bits that flip, bytes that land elsewhere,
//! a device that lies about syncs. Each counts how often it struck, so that a test can say that it did.

mod content;
mod names;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use stoa_env::{Disk, DiskFile};
use tokio::sync::Notify;
use xxhash_rust::xxh3::xxh3_64;

use content::Content;
use names::{NameChange, moved};

/// How often each fault struck, and what was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strikes {
    /// Syncs of files asked for.
    pub syncs: u64,
    /// Syncs that failed, of files and of directories.
    pub failed_syncs: u64,
    /// Syncs that were answered and not done.
    pub lies: u64,
    /// Appends that found the device full.
    pub full: u64,
    /// Bits flipped and bytes overwritten.
    pub rotten: u64,
    /// Crashes.
    pub crashes: u64,
    /// Operations of any kind.
    pub operations: u64,
}

/// Sees every operation before it is done, and says how long it takes.
pub trait DiskWatch: Send + Sync {
    /// An operation on a path (or on an open file, by its number) with so many bytes.
    fn begin(&self, operation: &'static str, on: &(dyn std::fmt::Display + Sync), bytes: usize) -> Duration;
}

/// Is called when what was durable may be about to go.
type Parting = Box<dyn Fn() + Send>;

/// An in-memory [`Disk`]. Clones are the same device.
#[derive(Clone, Default)]
pub struct SimDisk {
    device: Arc<Mutex<Device>>,
    /// Wakes operations that hang.
    unhung: Arc<Notify>,
    watch: Option<Arc<dyn DiskWatch>>,
    parting: Arc<Mutex<Option<Parting>>>,
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimDisk").field("device", &self.device).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Device {
    files: BTreeMap<u64, Content>,
    next_file: u64,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    dirs: BTreeSet<PathBuf>,
    /// Changes of names that no `sync_dir` has covered yet, in order.
    pending: Vec<NameChange>,
    /// Raised by a crash: files opened before are dead.
    epoch: u64,
    fail_sync_in: Option<u64>,
    capacity: Option<u64>,
    halt_in: Option<u64>,
    lie: bool,
    delay: Duration,
    hung: bool,
    strikes: Strikes,
    /// Raised with every change of what a power loss would leave.
    durable_changes: u64,
}

impl SimDisk {
    /// An empty device.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty device whose operations are watched.
    pub fn watched(watch: Arc<dyn DiskWatch>) -> Self {
        Self { watch: Some(watch), ..Self::default() }
    }

    /// The process dies and the machine lives: files opened before are dead, and nothing is lost yet. What was not
    /// synced is still not.
    pub fn kill(&self) {
        let mut device = self.lock();
        device.epoch += 1;
        device.halt_in = None;
    }

    /// Loses power: of what was not synced, `choose(n)` (a number below `n`) decides what is kept. Open files are dead;
    /// all fault switches are off.
    pub fn crash(&self, choose: &mut dyn FnMut(u64) -> u64) {
        self.show();
        let mut device = self.lock();
        device.strikes.crashes += 1;
        device.epoch += 1;
        device.durable_changes += 1;
        (device.fail_sync_in, device.halt_in, device.lie) = (None, None, false);
        let mut lost: Vec<NameChange> = Vec::new();
        for change in std::mem::take(&mut device.pending) {
            let change = lost.iter().rev().fold(change, NameChange::without);
            match choose(2) {
                1 => change.apply(&mut device.durable_names),
                _ => lost.push(change),
            }
        }
        for change in lost.iter().rev() {
            if let NameChange::RenameDir { from, to } = change {
                let dirs = std::mem::take(&mut device.dirs).into_iter();
                device.dirs = dirs.map(|dir| moved(&dir, to, from).unwrap_or(dir)).collect();
            }
        }
        device.names = device.durable_names.clone();
        // A removed directory that still holds something is there after all.
        let parents: Vec<PathBuf> =
            device.names.keys().flat_map(|path| path.ancestors().skip(1)).map(PathBuf::from).collect();
        device.dirs.extend(parents.into_iter().filter(|dir| !dir.as_os_str().is_empty()));
        let used: BTreeSet<u64> = device.names.values().copied().collect();
        device.files.retain(|file, _| used.contains(file));
        device.files.values_mut().for_each(|content| content.crash(choose));
    }

    /// Makes the `n`-th sync from now, of a file or a directory, fail with an input/output error; 1 is the next. What a failed
    /// sync of a directory did not cover, a later one may.
    pub fn fail_sync(&self, n: u64) {
        self.lock().fail_sync_in = Some(n);
    }

    /// Makes every operation after `n` more fail, as for a process that died there; until the next crash.
    pub fn halt_after(&self, n: u64) {
        self.lock().halt_in = Some(n);
    }

    /// Sets how many bytes all files may hold, `None` for no bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    /// Makes syncs answer without doing anything, or honest again.
    pub fn set_lying(&self, lie: bool) {
        self.lock().lie = lie;
    }

    /// Sets how long every operation takes, in tokio's time.
    pub fn set_delay(&self, delay: Duration) {
        self.lock().delay = delay;
    }

    /// Makes operations hang, or those that hang go on.
    pub fn set_hung(&self, hung: bool) {
        self.lock().hung = hung;
        if !hung {
            self.unhung.notify_waiters();
        }
    }

    /// No sync fails any more.
    pub fn heal_syncs(&self) {
        self.lock().fail_sync_in = None;
    }

    /// No sync fails any more, there is room, and no operation is slow.
    pub fn heal(&self) {
        {
            let mut device = self.lock();
            (device.fail_sync_in, device.capacity, device.delay) = (None, None, Duration::ZERO);
        }
        self.set_hung(false);
    }

    /// Puts another content in the place of this one, as an old image of the device; all of it durable.
    pub fn become_copy_of(&self, other: &SimDisk) {
        let copy = std::mem::take(&mut *other.copy().lock());
        let mut device = self.lock();
        device.epoch += 1;
        device.durable_changes += 1;
        device.pending.clear();
        device.files = copy.files;
        // Files that are open in nobody's hands any more keep their numbers to themselves.
        device.next_file = device.next_file.max(copy.next_file);
        (device.names, device.durable_names, device.dirs) = (copy.names, copy.durable_names, copy.dirs);
    }

    /// Bytes of a file that are durable.
    pub fn synced_bytes(&self, path: &Path) -> usize {
        let mut device = self.lock();
        device.content(path).map(|content| content.synced.len()).unwrap_or_default()
    }

    /// Flips one bit (0 to 7) of a byte, in what is synced too.
    pub fn flip(&self, path: &Path, offset: usize, bit: u8) {
        let byte = self.bytes(path)[offset] ^ (1 << bit);
        self.overwrite(path, offset, &[byte]);
    }

    /// Puts bytes over others, as a misdirected write would.
    pub fn overwrite(&self, path: &Path, offset: usize, bytes: &[u8]) {
        let mut device = self.lock();
        device.strikes.rotten += 1;
        device.durable_changes += 1;
        let content = device.content(path).expect("the test names a file that is there");
        for part in [&mut content.now, &mut content.synced] {
            for (place, byte) in part.iter_mut().skip(offset).zip(bytes) {
                *place = *byte;
            }
        }
    }

    /// Cuts a file, in what is synced too.
    pub fn cut(&self, path: &Path, len: usize) {
        let mut device = self.lock();
        let content = device.content(path).expect("the test names a file that is there");
        content.now.truncate(len);
        content.synced.truncate(len);
    }

    /// What a file holds now.
    pub fn bytes(&self, path: &Path) -> Vec<u8> {
        self.lock().content(path).expect("the test names a file that is there").now.clone()
    }

    /// All files, by name.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.lock().names.keys().cloned().collect()
    }

    /// Bytes in all files.
    pub fn used(&self) -> u64 {
        self.lock().used()
    }

    /// What struck so far.
    pub fn strikes(&self) -> Strikes {
        self.lock().strikes.clone()
    }

    /// Another device with the same content, all of it durable.
    pub fn copy(&self) -> SimDisk {
        let device = self.lock();
        let durable =
            |content: &Content| Content { now: content.now.clone(), synced: content.now.clone(), ..Content::default() };
        let copy = Device {
            files: device.files.iter().map(|(file, content)| (*file, durable(content))).collect(),
            next_file: device.next_file,
            names: device.names.clone(),
            durable_names: device.names.clone(),
            dirs: device.dirs.clone(),
            capacity: device.capacity,
            ..Device::default()
        };
        SimDisk { device: Arc::new(Mutex::new(copy)), ..SimDisk::default() }
    }

    /// Another device with what a loss of power would leave of this one at the least; nothing happens to this one.
    pub fn after_power_loss(&self) -> SimDisk {
        let device = self.lock();
        let kept = |content: &Content| Content {
            now: content.synced.clone(),
            synced: content.synced.clone(),
            ..Content::default()
        };
        let named = |file: &u64| device.durable_names.values().any(|named| named == file);
        let left = Device {
            files: device
                .files
                .iter()
                .filter(|(file, _)| named(file))
                .map(|(file, held)| (*file, kept(held)))
                .collect(),
            next_file: device.next_file,
            names: device.durable_names.clone(),
            durable_names: device.durable_names.clone(),
            dirs: device.dirs.clone(),
            capacity: device.capacity,
            ..Device::default()
        };
        SimDisk { device: Arc::new(Mutex::new(left)), ..SimDisk::default() }
    }

    /// Calls `look` whenever what was durable may be about to go: before a loss of power, and before changes of names other
    /// than new ones become durable. So a judge misses nothing that comes and goes. It is called outside of any lock of the
    /// device, and takes the place of an earlier one.
    pub fn before_removals(&self, look: impl Fn() + Send + 'static) {
        *self.parting.lock().unwrap_or_else(|e| e.into_inner()) = Some(Box::new(look));
    }

    /// Shows what would be left if power were lost now and the device kept nothing but what was synced. For judges: it
    /// is no operation, and no process sees it.
    pub fn durable<V>(&self, look: impl FnOnce(Durable<'_>) -> V) -> V {
        look(Durable(&self.lock()))
    }

    fn show(&self) {
        if let Some(look) = &*self.parting.lock().unwrap_or_else(|e| e.into_inner()) {
            look();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Device> {
        self.device.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Begins an operation: takes its time, and fails if the process is dead.
    async fn begin(
        &self,
        operation: &'static str,
        on: &(dyn std::fmt::Display + Sync),
        bytes: usize,
    ) -> io::Result<()> {
        let watched = self.watch.as_ref().map_or(Duration::ZERO, |watch| watch.begin(operation, on, bytes));
        let delay = self.lock().delay + watched;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        loop {
            let unhung = self.unhung.notified();
            if !self.lock().hung {
                break;
            }
            unhung.await;
        }
        let mut device = self.lock();
        device.strikes.operations += 1;
        match device.halt_in {
            Some(0) => Err(io::Error::other("simulated halt")),
            Some(n) => {
                device.halt_in = Some(n - 1);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn opened(&self, device: &Device, file: u64) -> SimFile {
        SimFile { disk: self.clone(), file, epoch: device.epoch }
    }
}

/// What a device would keep at the least; see [`SimDisk::durable`].
#[derive(Clone, Copy)]
pub struct Durable<'a>(&'a Device);

impl<'a> Durable<'a> {
    /// A number that rises with every change.
    pub fn changes(self) -> u64 {
        self.0.durable_changes
    }

    /// A number that rises with every end of a process: files may be others afterwards.
    pub fn epoch(self) -> u64 {
        self.0.epoch
    }

    /// All files below a directory, in the order of their names: name, number, bytes.
    pub fn below(self, dir: &'a Path) -> impl Iterator<Item = (&'a Path, u64, &'a [u8])> {
        let named = self.0.durable_names.range(dir.to_path_buf()..).take_while(move |(path, _)| path.starts_with(dir));
        named.map(move |(path, file)| {
            let content = self.0.files.get(file).map_or(&[][..], |content| &content.synced);
            (path.as_path(), *file, content)
        })
    }
}

impl Device {
    fn used(&self) -> u64 {
        self.files.values().map(|content| content.now.len() as u64).sum()
    }

    /// A sync is asked for: an error if it is the one that fails.
    fn meet_sync(&mut self) -> io::Result<()> {
        match self.fail_sync_in.take() {
            Some(0 | 1) => {
                self.strikes.failed_syncs += 1;
                Err(rustix::io::Errno::IO.into())
            }
            left => {
                self.fail_sync_in = left.map(|n| n - 1);
                Ok(())
            }
        }
    }

    fn file(&self, path: &Path) -> io::Result<u64> {
        self.names.get(path).copied().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such file"))
    }

    fn content(&mut self, path: &Path) -> io::Result<&mut Content> {
        let file = self.file(path)?;
        Ok(self.files.get_mut(&file).expect("a name leads to a file"))
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending.push(change);
        // A file without a name gives its space back, unless a crash may bring the name back.
        let used: BTreeSet<u64> = self.names.values().chain(self.durable_names.values()).copied().collect();
        for (file, content) in &mut self.files {
            if !self.names.values().any(|named| named == file) {
                content.cut = true;
                content.now.clear();
                content.now.shrink_to_fit();
            }
        }
        let pending = &self.pending;
        self.files.retain(|file, _| used.contains(file) || pending.iter().any(|change| change.names(*file)));
    }
}

fn inside(path: &Path) -> io::Result<PathBuf> {
    if path.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Ok(path.components().filter(|c| matches!(c, Component::Normal(_))).collect());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "the path leaves the root"))
}

impl Disk for SimDisk {
    type File = SimFile;
    type Map = Bytes;

    async fn create(&self, path: &Path) -> io::Result<SimFile> {
        self.begin("create", &path.display(), 0).await?;
        let path = inside(path)?;
        let mut device = self.lock();
        if device.names.contains_key(&path) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the name is taken"));
        }
        let file = device.next_file;
        device.next_file += 1;
        device.files.insert(file, Content::default());
        device.change(NameChange::Set { path, file });
        Ok(self.opened(&device, file))
    }

    async fn open(&self, path: &Path) -> io::Result<SimFile> {
        self.begin("open", &path.display(), 0).await?;
        let device = self.lock();
        let file = device.file(&inside(path)?)?;
        Ok(self.opened(&device, file))
    }

    async fn map(&self, path: &Path) -> io::Result<Bytes> {
        self.begin("map", &path.display(), 0).await?;
        Ok(self.lock().content(&inside(path)?)?.now.clone().into())
    }

    async fn read(&self, path: &Path, limit: usize) -> io::Result<Bytes> {
        let bytes = self.map(path).await?;
        if bytes.len() > limit {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is longer than the limit"));
        }
        Ok(bytes)
    }

    async fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.begin("list", &dir.display(), 0).await?;
        let dir = inside(dir)?;
        let device = self.lock();
        let all = device.names.keys().chain(&device.dirs).filter(|path| path.parent() == Some(&dir));
        let names: BTreeSet<PathBuf> = all.filter_map(|path| path.file_name()).map(PathBuf::from).collect();
        Ok(names.into_iter().collect())
    }

    async fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.begin("create_dir", &dir.display(), 0).await?;
        self.lock().dirs.insert(inside(dir)?);
        Ok(())
    }

    async fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.begin("link", &to.display(), 0).await?;
        let (from, to) = (inside(from)?, inside(to)?);
        let mut device = self.lock();
        if device.names.contains_key(&to) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the name is taken"));
        }
        let file = device.file(&from)?;
        device.change(NameChange::Set { path: to, file });
        Ok(())
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.begin("rename", &to.display(), 0).await?;
        let (from, to) = (inside(from)?, inside(to)?);
        let mut device = self.lock();
        if device.dirs.contains(&from) {
            if device.dirs.contains(&to) {
                return Err(io::Error::new(io::ErrorKind::DirectoryNotEmpty, "the name is a directory's"));
            }
            let dirs = std::mem::take(&mut device.dirs).into_iter();
            device.dirs = dirs.map(|dir| moved(&dir, &from, &to).unwrap_or(dir)).collect();
            device.change(NameChange::RenameDir { from, to });
            return Ok(());
        }
        let file = device.file(&from)?;
        device.change(NameChange::Rename { from, to, file });
        Ok(())
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.begin("remove", &path.display(), 0).await?;
        let path = inside(path)?;
        let mut device = self.lock();
        let mut gone: Vec<PathBuf> = device.names.keys().filter(|name| name.starts_with(&path)).cloned().collect();
        if gone.is_empty() && !device.dirs.contains(&path) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no such file"));
        }
        let is_dir = device.dirs.contains(&path);
        device.dirs.retain(|dir| !dir.starts_with(&path));
        for path in gone.drain(..) {
            device.change(NameChange::Remove { path });
        }
        if is_dir {
            device.change(NameChange::RemoveDir { path });
        }
        Ok(())
    }

    async fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.begin("sync_dir", &dir.display(), 0).await?;
        let dir = inside(dir)?;
        self.lock().meet_sync()?;
        let takes = |change: &NameChange| !matches!(change, NameChange::Set { .. }) && change.is_in(&dir);
        let takes = self.lock().pending.iter().any(takes);
        if takes {
            self.show();
        }
        let mut device = self.lock();
        // What is not covered stays undone: a covered change in a directory whose rename is not, is one to the directory
        // under its old name.
        let (mut rest, mut renames): (Vec<NameChange>, Vec<NameChange>) = (Vec::new(), Vec::new());
        for change in std::mem::take(&mut device.pending) {
            if change.is_in(&dir) {
                // A directory that is gone for good has nothing in it that could still be removed: another one may get
                // its name.
                if let NameChange::RemoveDir { path } = &change {
                    rest.retain(
                        |earlier| !matches!(earlier, NameChange::Remove { path: file } if file.starts_with(path)),
                    );
                }
                renames.iter().rev().fold(change, NameChange::without).apply(&mut device.durable_names);
                continue;
            }
            if matches!(change, NameChange::RenameDir { .. }) {
                renames.push(change.clone());
            }
            rest.push(change);
        }
        device.pending = rest;
        device.durable_changes += 1;
        Ok(())
    }
}

/// An open file of a [`SimDisk`].
#[derive(Debug)]
pub struct SimFile {
    disk: SimDisk,
    file: u64,
    epoch: u64,
}

impl SimFile {
    async fn with<T>(
        &self,
        operation: &'static str,
        bytes: usize,
        work: impl FnOnce(&mut Device, u64) -> io::Result<T>,
    ) -> io::Result<T> {
        self.with_named(operation, &self.file, bytes, work).await
    }

    async fn with_named<T>(
        &self,
        operation: &'static str,
        on: &(dyn std::fmt::Display + Sync),
        bytes: usize,
        work: impl FnOnce(&mut Device, u64) -> io::Result<T>,
    ) -> io::Result<T> {
        self.disk.begin(operation, on, bytes).await?;
        let mut device = self.disk.lock();
        if device.epoch != self.epoch || !device.files.contains_key(&self.file) {
            return Err(io::Error::other("the file was opened before a crash"));
        }
        work(&mut device, self.file)
    }
}

impl DiskFile for SimFile {
    async fn append(&mut self, bytes: Bytes) -> io::Result<()> {
        // Two runs of a seed must write the same bytes, not only as many.
        let on = format!("{} {:016x}", self.file, xxh3_64(&bytes));
        self.with_named("append", &on, bytes.len(), |device, file| {
            let room = device.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(device.used()));
            let fits = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            let content = device.files.get_mut(&file).expect("looked up before");
            content.now.extend_from_slice(&bytes[..fits]);
            if fits < bytes.len() {
                device.strikes.full += 1;
                return Err(io::Error::new(io::ErrorKind::StorageFull, "the simulated device is full"));
            }
            Ok(())
        })
        .await
    }

    async fn sync(&mut self) -> io::Result<()> {
        self.with("sync", 0, |device, file| {
            device.strikes.syncs += 1;
            device.meet_sync().inspect_err(|_| {
                device.files.get_mut(&file).expect("looked up before").give_up();
            })?;
            if device.lie {
                device.strikes.lies += 1;
                return Ok(());
            }
            device.durable_changes += 1;
            device.files.get_mut(&file).expect("looked up before").sync();
            Ok(())
        })
        .await
    }

    async fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.with("truncate", 0, |device, file| {
            let content = device.files.get_mut(&file).expect("looked up before");
            content.cut = true;
            content.now.resize(usize::try_from(len).expect("files in memory are small"), 0);
            Ok(())
        })
        .await
    }

    async fn len(&mut self) -> io::Result<u64> {
        self.with("len", 0, |device, file| Ok(device.files[&file].now.len() as u64)).await
    }
}
