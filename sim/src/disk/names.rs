//! Changes of names that may be lost: in which directory each lies, what it does, and what it means where the rename of a
//! directory before it never happened.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone)]
pub(super) enum NameChange {
    Set {
        path: PathBuf,
        file: u64,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
        file: u64,
    },
    /// A directory, with all it holds.
    RenameDir {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    /// A directory, with all that is left in it.
    RemoveDir {
        path: PathBuf,
    },
}

/// `path` with the directory `from`, if it lies in it, exchanged for `to`.
pub(super) fn moved(path: &Path, from: &Path, to: &Path) -> Option<PathBuf> {
    let rest = path.strip_prefix(from).ok()?;
    Some(if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) })
}

impl NameChange {
    pub(super) fn is_in(&self, dir: &Path) -> bool {
        let path = match self {
            Self::Set { path, .. } | Self::Remove { path } | Self::RemoveDir { path } => path,
            Self::Rename { to, .. } | Self::RenameDir { to, .. } => to,
        };
        path.parent() == Some(dir)
    }

    pub(super) fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Set { path, file } => drop(names.insert(path.clone(), *file)),
            Self::Remove { path } => drop(names.remove(path)),
            Self::RemoveDir { path } => names.retain(|name, _| !name.starts_with(path)),
            Self::Rename { from, to, file } => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
            Self::RenameDir { from, to } => {
                let all = std::mem::take(names).into_iter();
                *names = all.map(|(path, file)| (moved(&path, from, to).unwrap_or(path), file)).collect();
            }
        }
    }

    /// The change as it is where the directory rename `lost` never happened: what was done in the directory under its new
    /// name was done to the same directory under its old one.
    pub(super) fn without(self, lost: &NameChange) -> NameChange {
        let Self::RenameDir { from: old, to: new } = lost else { return self };
        let back = |path: PathBuf| moved(&path, new, old).unwrap_or(path);
        match self {
            Self::Set { path, file } => Self::Set { path: back(path), file },
            Self::Remove { path } => Self::Remove { path: back(path) },
            Self::RemoveDir { path } => Self::RemoveDir { path: back(path) },
            Self::Rename { from, to, file } => Self::Rename { from: back(from), to: back(to), file },
            Self::RenameDir { from, to } => Self::RenameDir { from: back(from), to: back(to) },
        }
    }

    /// Whether it gives a file a name.
    pub(super) fn names(&self, id: u64) -> bool {
        matches!(self, Self::Set { file, .. } | Self::Rename { file, .. } if *file == id)
    }
}
