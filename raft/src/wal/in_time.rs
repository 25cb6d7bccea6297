//! A disk whose every operation ends: with what the device answers, or with an error when it is silent for too long.
//!
//! A device that hangs must not take the log with it in silence. The log ends with the error, and with the log the node;
//! its groups go on elsewhere.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use stoa_env::{Disk, DiskFile};

/// How long one operation may take. A device that is silent for so long will hardly answer, and a node that waits for it
/// leads groups which it can serve no more.
const DEVICE_SILENCE_MAX: Duration = Duration::from_secs(30);

/// A disk, or a file of one, in time.
#[derive(Clone)]
pub(super) struct InTime<D>(pub D);

impl<D: Disk> Disk for InTime<D> {
    type File = InTime<D::File>;
    type Map = D::Map;

    async fn create(&self, path: &Path) -> io::Result<Self::File> {
        in_time(self.0.create(path)).await.map(InTime)
    }
    async fn open(&self, path: &Path) -> io::Result<Self::File> {
        in_time(self.0.open(path)).await.map(InTime)
    }
    async fn map(&self, path: &Path) -> io::Result<Self::Map> {
        in_time(self.0.map(path)).await
    }
    async fn read(&self, path: &Path, limit: usize) -> io::Result<Bytes> {
        in_time(self.0.read(path, limit)).await
    }
    async fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        in_time(self.0.list(dir)).await
    }
    async fn create_dir(&self, dir: &Path) -> io::Result<()> {
        in_time(self.0.create_dir(dir)).await
    }
    async fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        in_time(self.0.link(from, to)).await
    }
    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        in_time(self.0.rename(from, to)).await
    }
    async fn remove(&self, path: &Path) -> io::Result<()> {
        in_time(self.0.remove(path)).await
    }
    async fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        in_time(self.0.sync_dir(dir)).await
    }
}

impl<F: DiskFile> DiskFile for InTime<F> {
    async fn append(&mut self, bytes: Bytes) -> io::Result<()> {
        in_time(self.0.append(bytes)).await
    }
    async fn sync(&mut self) -> io::Result<()> {
        in_time(self.0.sync()).await
    }
    async fn truncate(&mut self, len: u64) -> io::Result<()> {
        in_time(self.0.truncate(len)).await
    }
    async fn len(&mut self) -> io::Result<u64> {
        in_time(self.0.len()).await
    }
}

async fn in_time<T>(answer: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let silent = |_| {
        let text = format!("the device did not answer within {DEVICE_SILENCE_MAX:?}");
        io::Error::new(io::ErrorKind::TimedOut, text)
    };
    stoa_env::timeout(DEVICE_SILENCE_MAX, answer).await.map_err(silent)?
}
