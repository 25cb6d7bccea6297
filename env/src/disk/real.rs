//! Files of the operating system. Every call blocks somewhere in the kernel, so every call runs on a thread of ours:
//!
//! - **each open file has a thread of its own**, which gives its operations an order without a lock and keeps a sync of
//!   the log from waiting behind a snapshot chunk on its way to the same device. A node holds few files open at a time
//!   (the log's segment and the snapshots being written), and starting a thread costs microseconds where a sync costs
//!   milliseconds;
//! - **operations on names** (create, list, rename, read a whole file, ...) share [`NAME_THREADS`] threads.
//!
//! Neither is tokio's blocking pool: there a hundred slow reads would stand in front of one vote. A future that is
//! dropped leaves its operation to run to the end on its thread, in its turn.

#![allow(unsafe_code)] // the mapping, below, with its argument

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::{Disk, DiskFile};
use crate::{Bounds, Gauge};

/// Threads for operations on names. Four: a long read of one segment or chunk leaves room for the log's next create.
const NAME_THREADS: usize = 4;

/// Operations that wait for the name threads before callers wait instead. Each is a closure of some dozens of bytes.
const NAME_QUEUE_MAX: usize = 64;

/// Operations that wait for a file's thread. The owner issues one at a time; more come only of futures that were
/// dropped while theirs was in flight.
const FILE_QUEUE_MAX: usize = 4;

const _: () = assert!(NAME_THREADS >= 2 && NAME_QUEUE_MAX >= NAME_THREADS && FILE_QUEUE_MAX >= 2);

type Job = Box<dyn FnOnce() + Send>;
type FileJob = Box<dyn FnOnce(&mut fs::File) + Send>;

/// A directory of the operating system, as a [`Disk`]. Clones share the threads, which end with the last clone.
#[derive(Clone, Debug)]
pub struct RealDisk {
    root: Arc<PathBuf>,
    names: mpsc::Sender<Job>,
    names_queued: Gauge,
    /// Counts what waits for the thread of each file.
    bounds: Bounds,
}

impl RealDisk {
    /// The tree under `root`, which must be an existing directory.
    ///
    /// # Errors
    /// If `root` is no directory, or the threads cannot be started.
    pub fn new(root: &Path) -> io::Result<Self> {
        Self::counted(root, Bounds::default())
    }

    /// As [`new`](Self::new); what waits for its threads is counted in `bounds`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn counted(root: &Path, bounds: Bounds) -> io::Result<Self> {
        let root = root.canonicalize()?;
        if !root.is_dir() {
            let text = format!("the data root {} is not a directory", root.display());
            return Err(io::Error::new(io::ErrorKind::NotADirectory, text));
        }
        let (names, jobs) = mpsc::channel::<Job>(NAME_QUEUE_MAX);
        let jobs = Arc::new(Mutex::new(jobs));
        for n in 0..NAME_THREADS {
            let jobs = jobs.clone();
            std::thread::Builder::new().name(format!("disk-names-{n}")).spawn(move || {
                // The lock is held while waiting, so that one idle thread waits for work and the others for the lock.
                while let Some(job) = next_job(&jobs) {
                    job();
                }
            })?;
        }
        let names_queued = bounds.node_gauge("disk: operations on names in the queue", NAME_QUEUE_MAX as u64);
        Ok(Self { root: Arc::new(root), names, names_queued, bounds })
    }

    /// Runs `work` on `path`, checked and made absolute, on a name thread.
    async fn on<T, F>(&self, path: &Path, work: F) -> io::Result<T>
    where
        T: Send + 'static,
        F: FnOnce(PathBuf) -> io::Result<T> + Send + 'static,
    {
        let named = path.to_owned();
        let path = self.absolute(path)?;
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move || {
            // The system says what is wrong, and not with which file.
            let done = work(path).map_err(|error| match error.raw_os_error() {
                Some(_) => io::Error::new(error.kind(), format!("{}: {error}", named.display())),
                None => error,
            });
            let _nobody_waits = answer.send(done);
        });
        self.names.send(job).await.map_err(|_| thread_ended())?;
        self.names_queued.note_len(self.names.max_capacity() - self.names.capacity());
        answered.await.map_err(|_| thread_ended())?
    }

    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        let inside = path.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        if inside {
            return Ok(self.root.join(path));
        }
        let text = format!("the path {} leaves the data root; it must be relative and without `..`", path.display());
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    }
}

fn next_job(jobs: &Mutex<mpsc::Receiver<Job>>) -> Option<Job> {
    jobs.lock().unwrap_or_else(|e| e.into_inner()).blocking_recv()
}

fn thread_ended() -> io::Error {
    io::Error::other("the disk thread ended before it answered")
}

impl Disk for RealDisk {
    type File = RealFile;
    type Map = RealMap;

    async fn create(&self, path: &Path) -> io::Result<RealFile> {
        let bounds = self.bounds.clone();
        self.on(path, move |path| {
            RealFile::start(OpenOptions::new().append(true).create_new(true).open(path)?, &bounds)
        })
        .await
    }

    async fn open(&self, path: &Path) -> io::Result<RealFile> {
        let bounds = self.bounds.clone();
        self.on(path, move |path| RealFile::start(OpenOptions::new().append(true).open(path)?, &bounds)).await
    }

    async fn map(&self, path: &Path) -> io::Result<RealMap> {
        self.on(path, |path| RealMap::of(&fs::File::open(path)?)).await
    }

    async fn read(&self, path: &Path, limit: usize) -> io::Result<Bytes> {
        self.on(path, move |path| read_whole(&path, limit)).await
    }

    async fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.on(dir, |dir| {
            let mut names = fs::read_dir(dir)?
                .map(|entry| entry.map(|entry| PathBuf::from(entry.file_name())))
                .collect::<io::Result<Vec<_>>>()?;
            names.sort();
            Ok(names)
        })
        .await
    }

    async fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.on(dir, fs::create_dir_all).await
    }

    async fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let to = self.absolute(to)?;
        self.on(from, move |from| fs::hard_link(from, to)).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let to = self.absolute(to)?;
        self.on(from, move |from| fs::rename(from, to)).await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.on(path, |path| {
            if fs::symlink_metadata(&path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
        })
        .await
    }

    async fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.on(dir, |dir| fs::File::open(dir)?.sync_all()).await
    }
}

fn read_whole(path: &Path, limit: usize) -> io::Result<Bytes> {
    let file = fs::File::open(path)?;
    let len = file.metadata()?.len();
    let too_long = |len: u64| {
        let text = format!("{} holds {len} bytes, more than the {limit} allowed", path.display());
        io::Error::new(io::ErrorKind::InvalidData, text)
    };
    if len > limit as u64 {
        return Err(too_long(len));
    }
    let mut bytes = Vec::with_capacity(len as usize);
    // One byte over the limit, so that a file that grows meanwhile is noticed.
    file.take((limit as u64).saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(too_long(bytes.len() as u64));
    }
    Ok(bytes.into())
}

/// A file with its own thread; the file is closed, and the thread ends, when this is dropped and all is done.
#[derive(Debug)]
pub struct RealFile {
    jobs: mpsc::Sender<FileJob>,
    queued: Gauge,
}

impl RealFile {
    fn start(mut file: fs::File, bounds: &Bounds) -> io::Result<Self> {
        let (jobs, mut queue) = mpsc::channel::<FileJob>(FILE_QUEUE_MAX);
        std::thread::Builder::new().name("disk-file".into()).spawn(move || {
            while let Some(job) = queue.blocking_recv() {
                job(&mut file);
            }
        })?;
        Ok(Self { jobs, queued: bounds.gauge("disk: operations of a file in the queue", FILE_QUEUE_MAX as u64) })
    }

    async fn run<T, F>(&self, work: F) -> io::Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut fs::File) -> io::Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: FileJob = Box::new(move |file| {
            let _nobody_waits = answer.send(work(file));
        });
        self.jobs.send(job).await.map_err(|_| thread_ended())?;
        self.queued.note_len(self.jobs.max_capacity() - self.jobs.capacity());
        answered.await.map_err(|_| thread_ended())?
    }
}

impl DiskFile for RealFile {
    async fn append(&mut self, bytes: Bytes) -> io::Result<()> {
        self.run(move |file| file.write_all(&bytes)).await
    }

    async fn sync(&mut self) -> io::Result<()> {
        self.run(|file| file.sync_data()).await
    }

    async fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.run(move |file| file.set_len(len)).await
    }

    async fn len(&mut self) -> io::Result<u64> {
        self.run(|file| Ok(file.metadata()?.len())).await
    }
}

/// A mapped file.
#[derive(Debug)]
pub struct RealMap(Option<memmap2::Mmap>);

impl RealMap {
    fn of(file: &fs::File) -> io::Result<Self> {
        // An empty mapping is an error to the kernel and no bytes to us.
        if file.metadata()?.len() == 0 {
            return Ok(Self(None));
        }
        // SAFETY: a mapping is sound while nobody changes or cuts the file under it. The caller of `Disk::map` promises
        // the latter; the files that are mapped (sealed snapshot chunks) are never written again after their rename,
        // and the data directory belongs to this process alone.
        Ok(Self(Some(unsafe { memmap2::Mmap::map(file) }?)))
    }
}

impl AsRef<[u8]> for RealMap {
    fn as_ref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> (tempfile::TempDir, RealDisk) {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path()).unwrap();
        (dir, disk)
    }

    #[tokio::test]
    async fn appended_bytes_are_read_mapped_and_cut() {
        let (_dir, disk) = disk();
        disk.create_dir(Path::new("a/b")).await.unwrap();
        let mut file = disk.create(Path::new("a/b/log")).await.unwrap();
        file.append(Bytes::from_static(b"hello ")).await.unwrap();
        file.append(Bytes::from_static(b"world")).await.unwrap();
        file.sync().await.unwrap();
        disk.sync_dir(Path::new("a/b")).await.unwrap();
        assert_eq!(file.len().await.unwrap(), 11);
        assert_eq!(disk.map(Path::new("a/b/log")).await.unwrap().as_ref(), b"hello world");
        file.truncate(5).await.unwrap();
        drop(file);
        let mut file = disk.open(Path::new("a/b/log")).await.unwrap();
        file.append(Bytes::from_static(b"!")).await.unwrap();
        assert_eq!(disk.read(Path::new("a/b/log"), 6).await.unwrap(), "hello!");
        assert_eq!(disk.read(Path::new("a/b/log"), 5).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn names_are_created_once_listed_in_order_renamed_and_removed() {
        let (_dir, disk) = disk();
        for name in ["b", "a", "c"] {
            disk.create(Path::new(name)).await.unwrap();
        }
        let again = disk.create(Path::new("a")).await.unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        disk.rename(Path::new("c"), Path::new("a")).await.unwrap();
        disk.create_dir(Path::new("d/e")).await.unwrap();
        assert_eq!(disk.list(Path::new("")).await.unwrap(), ["a", "b", "d"].map(PathBuf::from));
        disk.remove(Path::new("d")).await.unwrap();
        disk.link(Path::new("a"), Path::new("second")).await.unwrap();
        let taken = disk.link(Path::new("a"), Path::new("b")).await.unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        disk.open(Path::new("a")).await.unwrap().append(Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(disk.read(Path::new("second"), 1).await.unwrap(), "x");
        disk.remove(Path::new("second")).await.unwrap();
        disk.remove(Path::new("a")).await.unwrap();
        assert_eq!(disk.list(Path::new("")).await.unwrap(), [PathBuf::from("b")]);
        let missing = disk.open(Path::new("a")).await.unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert!(missing.to_string().starts_with("a: No such file"), "{missing}");
        assert!(disk.map(Path::new("b")).await.unwrap().as_ref().is_empty());
    }

    #[tokio::test]
    async fn a_path_that_leaves_the_root_is_refused() {
        let (_dir, disk) = disk();
        for path in ["../x", "/etc/passwd", "a/../../x"] {
            assert_eq!(disk.open(Path::new(path)).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
            let target = disk.rename(Path::new("a"), Path::new(path)).await.unwrap_err();
            assert_eq!(target.kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[tokio::test]
    async fn an_append_whose_future_is_dropped_still_happens_and_in_its_turn() {
        let (_dir, disk) = disk();
        let mut file = disk.create(Path::new("log")).await.unwrap();
        {
            let mut dropped = Box::pin(file.append(Bytes::from_static(b"first ")));
            std::future::poll_fn(|cx| {
                let _in_flight = dropped.as_mut().poll(cx);
                std::task::Poll::Ready(())
            })
            .await;
        }
        file.append(Bytes::from_static(b"second")).await.unwrap();
        assert_eq!(disk.read(Path::new("log"), 64).await.unwrap(), "first second");
    }
}
