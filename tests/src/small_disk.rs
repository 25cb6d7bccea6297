//! Small disks: a file system in memory, mounted where a node has its data, which a test can fill and empty.
//!
//! Needs root.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

/// What fills a disk.
const FILLER: &str = "filler";
/// Bytes of the filler that are written at once.
const PIECE: usize = 4 << 10;

/// A mounted disk; it goes with this value.
pub struct SmallDisk {
    dir: PathBuf,
}

/// Why no disk can be mounted here, if so.
pub fn impossible() -> Option<String> {
    let probe = tempfile::tempdir().ok()?;
    SmallDisk::mount(probe.path(), 1).err().map(|error| format!("no file system can be mounted: {error:#}"))
}

impl SmallDisk {
    /// Mounts one.
    pub fn mount(dir: &Path, mib: u32) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let size = format!("size={mib}m");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "stoa-test"]).arg(dir).output();
        let output = output.context("running mount; it is in the package mount")?;
        ensure!(output.status.success(), "mount: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(Self { dir: dir.to_owned() })
    }

    /// Takes all that is free.
    pub fn fill(&self) -> anyhow::Result<()> {
        let mut file = std::fs::File::options().create(true).append(true).open(self.dir.join(FILLER))?;
        let piece = [b'x'; PIECE];
        loop {
            match file.write_all(&piece) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => bail!(error),
            }
        }
    }

    /// Gives back what was taken.
    pub fn empty(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.dir.join(FILLER))?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process may still have files open here, and ends with the test.
        let done = Command::new("umount").arg("--lazy").arg(&self.dir).output();
        if !done.is_ok_and(|output| output.status.success()) {
            eprintln!("{} could not be unmounted", self.dir.display());
        }
    }
}
