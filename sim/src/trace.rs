//! What happened, in order: every message, every operation on a disk, every fault, every call of a client and its
//! result. Each is a line of text that goes into a hash and, on request, into a file, there with what the processes log
//! ([`crate::log`]). Two runs of a seed are the same if their lines are.

use std::fmt::Arguments;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3;

/// The trace of a run. Clones write to the same.
#[derive(Clone)]
pub struct Trace {
    start: Instant,
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    hash: Xxh3,
    lines: u64,
    text: String,
    file: Option<BufWriter<File>>,
}

impl Trace {
    /// An empty trace whose time begins at `start`.
    pub fn new(start: Instant, file: Option<&Path>) -> std::io::Result<Self> {
        let file = file.map(File::create).transpose()?.map(BufWriter::new);
        let inner = Inner { hash: Xxh3::new(), lines: 0, text: String::new(), file };
        Ok(Self { start, inner: Arc::new(Mutex::new(inner)) })
    }

    /// Notes an event at the present simulated time (microseconds).
    pub fn note(&self, event: Arguments<'_>) {
        use std::fmt::Write as _;
        let now_us = self.start.elapsed().as_micros();
        let mut inner = self.inner.lock().unwrap_or_else(|e| e.into_inner());
        let Inner { hash, lines, text, file } = &mut *inner;
        text.clear();
        writeln!(text, "{now_us} {event}").expect("a string takes what it is given");
        hash.update(text.as_bytes());
        *lines += 1;
        if let Some(file) = file {
            file.write_all(text.as_bytes()).expect("the trace file takes the next line");
        }
    }

    /// Writes a line to the file, if there is one, and to nothing else: what is noted only where somebody reads it.
    pub fn note_beside(&self, event: Arguments<'_>) {
        let now_us = self.start.elapsed().as_micros();
        let mut inner = self.inner.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(file) = &mut inner.file {
            writeln!(file, "{now_us} {event}").expect("the trace file takes the next line");
        }
    }

    /// Lines so far and the hash of all of them, without those that are in the file alone.
    pub fn digest(&self) -> (u64, u128) {
        let inner = self.inner.lock().unwrap_or_else(|e| e.into_inner());
        (inner.lines, inner.hash.digest128())
    }

    /// Brings the file up to date.
    pub fn flush(&self) -> std::io::Result<()> {
        let mut inner = self.inner.lock().unwrap_or_else(|e| e.into_inner());
        inner.file.as_mut().map_or(Ok(()), Write::flush)
    }
}
