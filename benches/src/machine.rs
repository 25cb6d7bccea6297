//! The machine that figures were measured on, and who runs on which of its cores.

use std::path::Path;
use std::process::Command;

use anyhow::Context;
use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};
use serde_json::{Value, json};

/// Where a server may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On the first core.
    First,
    /// On all: while rows are loaded nothing is measured.
    All,
}

/// Cores for the servers and for the load.
#[derive(Debug, Clone)]
pub struct Cores {
    all: Vec<usize>,
}

impl Cores {
    /// Those that this process may use.
    pub fn of_this_process() -> anyhow::Result<Self> {
        let allowed = sched_getaffinity(None)?;
        Ok(Self { all: (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect() })
    }

    /// Moves this thread to the first core: processes and threads that it starts from now on stay there. With a single
    /// core nothing is moved.
    pub fn go_to_servers(&self) -> anyhow::Result<()> {
        self.go_to(&self.all[..1])
    }

    /// Moves this thread to the second core.
    pub fn go_to_load(&self) -> anyhow::Result<()> {
        self.go_to(self.all.get(1..2).unwrap_or(&[]))
    }

    fn go_to(&self, cores: &[usize]) -> anyhow::Result<()> {
        if self.are_apart() {
            let mut set = CpuSet::new();
            cores.iter().for_each(|core| set.set(*core));
            sched_setaffinity(None, &set)?;
        }
        Ok(())
    }

    /// Moves a process and all its threads.
    pub fn place(&self, process: u32, to: Place) -> anyhow::Result<()> {
        let cores = if to == Place::First { &self.all[..1] } else { &self.all[..] };
        let mut set = CpuSet::new();
        cores.iter().for_each(|core| set.set(*core));
        for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
            let id = thread?.file_name().to_string_lossy().parse()?;
            // A thread that has just ended need not be moved.
            let _ended = sched_setaffinity(Some(Pid::from_raw(id).context("a thread's number is positive")?), &set);
        }
        Ok(())
    }

    /// Whether there are two cores, so that servers and load do not take time from each other.
    pub fn are_apart(&self) -> bool {
        self.all.len() >= 2
    }
}

/// The machine, its kernel and the commit, for the head of a report.
pub fn describe(cores: &Cores) -> Value {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    json!({
        "cores": cores.all.len(),
        "pinned_apart": cores.are_apart(),
        "cpu": model.map_or("unknown", |(_, name)| name),
        "kernel": kernel.trim(),
        "memory_gib": memory_gib(),
        "temporary_files": if temporary_files_are_in_memory() { "in memory" } else { "on a device" },
        "redis": crate::peers::redis::version().unwrap_or_else(|| "none".to_owned()),
        "commit": commit().unwrap_or_else(|| "unknown".to_owned()),
    })
}

fn memory_gib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_ascii_whitespace().next());
    total.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) >> 20
}

/// Whether the directory of temporary files, where clusters and Redis keep theirs, is in memory: a sync costs nothing there.
pub fn temporary_files_are_in_memory() -> bool {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    rustix::fs::statfs(std::env::temp_dir()).is_ok_and(|found| found.f_type == TMPFS_MAGIC)
}

/// The commit of the source, as it is checked out where this program was built; with a `+` if files differ from it.
fn commit() -> Option<String> {
    let git = |args: &[&str]| {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR"));
        let out = Command::new("git").arg("-C").arg(dir).args(args).output().ok()?;
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|changes| !changes.is_empty());
    Some(if changed { commit + "+" } else { commit })
}

/// The day, by the machine's clock, as `2026-11-27`.
pub fn today() -> String {
    let seconds = stoa_env::Clock::wall(&stoa_env::RealClock).0 / 1_000_000;
    let day = time::OffsetDateTime::from_unix_timestamp(seconds).map(time::OffsetDateTime::date);
    day.map_or_else(|_| "unknown".to_owned(), |day| day.to_string())
}
