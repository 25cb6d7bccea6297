//! One part under callgrind: this program starts itself under valgrind, which counts while one function runs.
//!
//! 1. `micro once NAME` prepares the part, runs it once uncounted, so that what grows has grown, and prepares it again.
//! 2. It calls [`stoa_micro_counted`]. Callgrind begins to count when that function is entered and stops when it is left
//!    (`--toggle-collect`), so neither start nor preparation is in the count.
//! 3. The total stands at the end of callgrind's file.
//!
//! A process for each part, with the same environment: what one part leaves in the allocator does not change another's count.

use std::hint::black_box;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};
use clap::Args;
use tempfile::TempDir;

use super::subject::{Subject, Work, named};

/// The function that is counted, by a name that any mangling leaves readable.
const COUNTED: &str = "*stoa_micro_counted*";
/// This program, in the directory in which it is counted.
const PROGRAM: &str = "./stoa-bench";
/// The file that callgrind writes there.
const OUT: &str = "callgrind.out";
/// What the program that is counted knows of its environment: what valgrind needs. More would move its stack, and copies
/// choose by alignment.
const ENVIRONMENT: [&str; 2] = ["PATH", "VALGRIND_LIB"];

/// The version of the valgrind that is installed, such as `valgrind-3.19.0`; `None` if none is.
pub fn valgrind_version() -> anyhow::Result<Option<String>> {
    match Command::new("valgrind").arg("--version").output() {
        Ok(output) if output.status.success() => Ok(Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())),
        Ok(output) => bail!("valgrind --version: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("starting valgrind"),
    }
}

/// A directory in which this program counts itself.
pub struct Callgrind {
    dir: TempDir,
}

impl Callgrind {
    /// Without counts yet.
    pub fn new() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir().context("making a directory for callgrind's files")?;
        let program = std::env::current_exe().context("finding this program")?;
        // Under the same short name wherever it was built: its arguments lie in the memory whose use is counted.
        std::os::unix::fs::symlink(program, dir.path().join(PROGRAM)).context("linking to this program")?;
        Ok(Self { dir })
    }

    /// Instructions of all operations of a part together.
    pub fn count(&self, subject: &Subject) -> anyhow::Result<u64> {
        let kept = ENVIRONMENT.iter().filter_map(|name| std::env::var_os(name).map(|value| (name, value)));
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--vgdb=no", "--read-inline-info=no"])
            .arg(format!("--toggle-collect={COUNTED}"))
            .arg(format!("--callgrind-out-file={OUT}"))
            .args([PROGRAM, "micro", "once", subject.name])
            .env_clear()
            .envs(kept)
            .current_dir(self.dir.path())
            .output()
            .context("starting valgrind")?;
        let said = || String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{} under callgrind: {}\n{}", subject.name, output.status, said());
        let text = std::fs::read_to_string(self.dir.path().join(OUT));
        let text = text.with_context(|| format!("reading what callgrind wrote\n{}", said()))?;
        let total = total(&text).with_context(|| format!("what callgrind wrote of {}", subject.name))?;
        ensure!(total > 0, "callgrind did not see the function {COUNTED} in {}: nothing was counted", subject.name);
        Ok(total)
    }
}

/// The instructions in callgrind's file: of its events, `Ir` is the one.
fn total(text: &str) -> anyhow::Result<u64> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let events = field("events").context("no line says which events were counted")?;
    let at = events.split_ascii_whitespace().position(|event| event == "Ir").context("Ir is not among the events")?;
    let totals = field("totals").context("no totals: callgrind was stopped before its end")?;
    let total = totals.split_ascii_whitespace().nth(at).context("fewer totals than events")?;
    total.parse().with_context(|| format!("a total of {total:?}"))
}

/// One part, as often as it is counted.
#[derive(Debug, Args)]
pub struct Once {
    /// The part.
    name: String,
}

impl Once {
    /// Runs it, in a thread of its own: the C library gives it an arena of its own, so that its allocations do not depend on
    /// what reading the command line has left in the heap. Whether a vector grows in place is 3 % of some parts.
    pub fn run(&self) -> anyhow::Result<()> {
        let subject = named(&self.name).with_context(|| format!("there is no part {:?}", self.name))?;
        let count = subject.counted.with_context(|| format!("{} is timed, not counted", self.name))?;
        let part = move || {
            let mut work = (subject.make)(Path::new("."));
            work.prepare(count);
            work.run(count);
            work.prepare(count);
            stoa_micro_counted(&mut *work, count);
        };
        std::thread::spawn(part).join().map_err(|_| anyhow::anyhow!("{} panicked", self.name))
    }
}

/// What callgrind counts.
#[inline(never)]
fn stoa_micro_counted(work: &mut dyn Work, count: u64) {
    work.run(count);
    // Something after the call, or it would become a jump and this function would be left before its work is done.
    black_box(work);
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# callgrind format\nversion: 1\ncreator: callgrind-3.19.0\npid: 4711\ncmd:  stoa-bench\npart: 1\n\n\n\
        desc: I1 cache: \ndesc: Trigger: Program termination\n\npositions: line\nevents: Ir\nsummary: 1234567\n\n\n\
        ob=(1) /stoa-bench\nfl=(1) x.rs\nfn=(1) stoa_micro_counted\n10 5\ncfn=(2) y\ncalls=1 20\n11 1234562\n\n\
        totals: 1234567\n";

    #[test]
    fn the_total_stands_at_the_end() {
        assert_eq!(total(FILE).unwrap(), 1_234_567);
    }

    #[test]
    fn instructions_are_found_among_other_events() {
        let text = FILE.replace("events: Ir", "events: Bc Ir Dr").replace("totals: 1234567", "totals: 7 8 9");
        assert_eq!(total(&text).unwrap(), 8);
    }

    #[test]
    fn a_file_that_ends_early_or_counts_something_else_is_refused() {
        let cut = FILE.split("totals").next().unwrap();
        assert!(total(cut).unwrap_err().to_string().contains("before its end"));
        assert!(total(&FILE.replace("events: Ir", "events: Dr")).is_err());
        assert!(total(&FILE.replace("totals: 1234567", "totals:")).is_err());
        assert!(total(&FILE.replace("totals: 1234567", "totals: many")).is_err());
        assert!(total("").is_err());
    }
}
