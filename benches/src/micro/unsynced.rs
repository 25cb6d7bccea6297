//! A real disk whose sync does nothing.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use stoa_env::{Disk, DiskFile};

/// All of another disk but its sync.
#[derive(Clone)]
pub struct Unsynced<D>(pub D);

/// A file of it.
pub struct UnsyncedFile<F>(F);

impl<D: Disk> Disk for Unsynced<D> {
    type File = UnsyncedFile<D::File>;
    type Map = D::Map;

    async fn create(&self, path: &Path) -> io::Result<Self::File> {
        self.0.create(path).await.map(UnsyncedFile)
    }

    async fn open(&self, path: &Path) -> io::Result<Self::File> {
        self.0.open(path).await.map(UnsyncedFile)
    }

    async fn map(&self, path: &Path) -> io::Result<Self::Map> {
        self.0.map(path).await
    }

    async fn read(&self, path: &Path, limit: usize) -> io::Result<Bytes> {
        self.0.read(path, limit).await
    }

    async fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.0.list(dir).await
    }

    async fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir(dir).await
    }

    async fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.link(from, to).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to).await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path).await
    }

    async fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl<F: DiskFile> DiskFile for UnsyncedFile<F> {
    async fn append(&mut self, bytes: Bytes) -> io::Result<()> {
        self.0.append(bytes).await
    }

    async fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    async fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.truncate(len).await
    }

    async fn len(&mut self) -> io::Result<u64> {
        self.0.len().await
    }
}
