//! The snapshots on a disk as docs/storage.md draws them, and what of them is damaged where it was durable. Written apart
//! from the product's own reader, as the one of logs is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::disk::SimDisk;

/// In a length of a manifest: the machine's chunk goes on in the next file.
const CONTINUED: u32 = 1 << 31;
/// Magic and partition of a manifest, and of a file `replica`.
const HEAD: usize = 16;

/// A file that is damaged, and that a replica cannot start without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rot {
    /// The group.
    pub group: u64,
    /// Whose file it is; none if that is what is damaged.
    pub replica: Option<u64>,
    /// The file.
    pub file: PathBuf,
}

/// What a disk has of one group.
#[derive(Default)]
struct Files {
    /// Whole snapshots by index, term and number.
    snapshots: BTreeMap<(u64, u64, u64), PathBuf>,
    /// The file `replica`.
    life: Option<PathBuf>,
}

/// Whose files these are.
enum Life {
    Lives(Option<u64>),
    /// One that is gone, or has yet to begin: nothing here is needed.
    Over,
    Damaged,
}

/// What is damaged of the newest snapshot of each group that lives here, or of the file that says whose it is.
///
/// A file that is missing, or that has bytes which no sync has covered, is another judge's matter.
pub fn damaged(disk: &SimDisk) -> Vec<Rot> {
    let mut groups: BTreeMap<u64, Files> = BTreeMap::new();
    for path in disk.paths().into_iter().filter(|path| path.starts_with("snapshots")) {
        let parts: Vec<&str> = path.iter().map(|part| part.to_str().unwrap_or_default()).collect();
        match parts[1..] {
            [group, "replica"] => {
                let Ok(group) = group.parse() else { continue };
                groups.entry(group).or_default().life = Some(path.clone());
            }
            [group, name, "manifest"] => {
                let Some((group, place)) = group.parse().ok().zip(place(name)) else { continue };
                let dir = path.parent().expect("it lies in a directory").to_owned();
                groups.entry(group).or_default().snapshots.insert(place, dir);
            }
            _ => {}
        }
    }
    groups.iter().filter_map(|(group, files)| files.rot(disk, *group)).collect()
}

/// Index, term and number of a whole snapshot. What is in the making, or on its way out, has a name that begins with a word.
fn place(name: &str) -> Option<(u64, u64, u64)> {
    let mut parts = name.split('-').map(|part| part.parse().ok());
    let place = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(place)
}

impl Files {
    fn rot(&self, disk: &SimDisk, group: u64) -> Option<Rot> {
        let replica = match self.life.as_ref().map_or(Life::Lives(None), |path| life(disk, path)) {
            Life::Lives(replica) => replica,
            Life::Over => return None,
            Life::Damaged => return Some(Rot { group, replica: None, file: self.life.clone()? }),
        };
        // Of two that reach as far any one will do.
        let (newest, _) = self.snapshots.last_key_value()?;
        let reach_as_far = self.snapshots.iter().filter(|(place, _)| (place.0, place.1) == (newest.0, newest.1));
        let rotten: Option<Vec<PathBuf>> = reach_as_far.map(|(_, dir)| rotten_file(disk, dir)).collect();
        Some(Rot { group, replica, file: rotten?.pop()? })
    }
}

/// The first damaged file of a snapshot, if there is one.
fn rotten_file(disk: &SimDisk, dir: &Path) -> Option<PathBuf> {
    let path = dir.join("manifest");
    let manifest = durable(disk, &path)?;
    let Some(chunks) = sealed(&manifest).and_then(chunks) else { return Some(path) };
    chunks.into_iter().enumerate().find_map(|(number, (length, crc))| {
        let path = dir.join(format!("{number:08}.chunk"));
        let bytes = durable(disk, &path)?;
        (bytes.len() != length as usize || crc32fast::hash(&bytes) != crc).then_some(path)
    })
}

/// Length and checksum of each chunk file that a manifest names.
fn chunks(manifest: &[u8]) -> Option<Vec<(u32, u32)>> {
    let meta = u32_at(manifest, HEAD)? as usize;
    let list = manifest.get(HEAD + 4 + meta..)?;
    let count = u32_at(list, 0)? as usize;
    (0..count).map(|at| Some((u32_at(list, 4 + 8 * at)? & !CONTINUED, u32_at(list, 8 + 8 * at)?))).collect()
}

fn life(disk: &SimDisk, path: &Path) -> Life {
    let Some(bytes) = durable(disk, path) else { return Life::Lives(None) };
    let Some(body) = sealed(&bytes) else { return Life::Damaged };
    let id = |at: usize| body.get(at..at + 8).map(|id| u64::from_le_bytes(id.try_into().expect("it is eight bytes")));
    match (body.get(..8), body.get(HEAD)) {
        (Some(b"STOARPL1"), _) => Life::Lives(id(HEAD)),
        (Some(b"STOARPL2"), Some(1)) => Life::Lives(id(HEAD + 1)),
        (Some(b"STOARPL2"), Some(2 | 3)) => Life::Over,
        _ => Life::Damaged,
    }
}

/// The bytes of a file that is there and durable as a whole.
fn durable(disk: &SimDisk, path: &Path) -> Option<Vec<u8>> {
    let bytes = disk.paths().iter().any(|known| known == path).then(|| disk.bytes(path))?;
    (disk.synced_bytes(path) == bytes.len()).then_some(bytes)
}

/// What stands before the checksum at the end of a file, if it fits.
fn sealed(bytes: &[u8]) -> Option<&[u8]> {
    let (body, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    (crc32fast::hash(body).to_le_bytes() == crc).then_some(body)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}
