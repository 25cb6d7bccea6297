//! Files in memory: a [`Disk`] on which everything succeeds at once and everything is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use stoa_env::{Disk, DiskFile};

type Content = Arc<Mutex<Vec<u8>>>;

/// A directory tree in memory; clones share it.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    files: Arc<Mutex<BTreeMap<PathBuf, Content>>>,
}

/// An open file of it.
pub struct MemoryFile(Content);

impl MemoryDisk {
    /// A tree with these files.
    pub fn with(files: impl IntoIterator<Item = (PathBuf, Vec<u8>)>) -> Self {
        let files = files.into_iter().map(|(path, bytes)| (path, Arc::new(Mutex::new(bytes))));
        Self { files: Arc::new(Mutex::new(files.collect())) }
    }

    /// What all files hold.
    pub fn content(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        lock(&self.files).iter().map(|(path, content)| (path.clone(), lock(content).clone())).collect()
    }

    fn find(&self, path: &Path) -> io::Result<Content> {
        lock(&self.files).get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("nobody panics while holding it")
}

impl Disk for MemoryDisk {
    type File = MemoryFile;
    type Map = Bytes;

    async fn create(&self, path: &Path) -> io::Result<MemoryFile> {
        let mut files = lock(&self.files);
        if files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let content = Content::default();
        files.insert(path.to_owned(), content.clone());
        Ok(MemoryFile(content))
    }

    async fn open(&self, path: &Path) -> io::Result<MemoryFile> {
        self.find(path).map(MemoryFile)
    }

    async fn map(&self, path: &Path) -> io::Result<Bytes> {
        self.read(path, usize::MAX).await
    }

    async fn read(&self, path: &Path, limit: usize) -> io::Result<Bytes> {
        let content = self.find(path)?;
        let bytes = lock(&content);
        if bytes.len() > limit {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Bytes::copy_from_slice(&bytes))
    }

    async fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let files = lock(&self.files);
        let below = files.keys().filter_map(|path| path.strip_prefix(dir).ok());
        let names: BTreeSet<_> = below.filter_map(|path| path.iter().next().map(PathBuf::from)).collect();
        Ok(names.into_iter().collect())
    }

    async fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    async fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = lock(&self.files);
        let content = files.get(from).cloned().ok_or(io::ErrorKind::NotFound)?;
        match files.contains_key(to) {
            true => Err(io::ErrorKind::AlreadyExists.into()),
            false => {
                files.insert(to.to_owned(), content);
                Ok(())
            }
        }
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = lock(&self.files);
        let content = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), content);
        Ok(())
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        lock(&self.files).retain(|name, _| !name.starts_with(path));
        Ok(())
    }

    async fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for MemoryFile {
    async fn append(&mut self, bytes: Bytes) -> io::Result<()> {
        lock(&self.0).extend_from_slice(&bytes);
        Ok(())
    }

    async fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    async fn truncate(&mut self, len: u64) -> io::Result<()> {
        lock(&self.0).truncate(usize::try_from(len).expect("it is no longer than the file"));
        Ok(())
    }

    async fn len(&mut self) -> io::Result<u64> {
        Ok(lock(&self.0).len() as u64)
    }
}
