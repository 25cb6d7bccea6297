//! Standard error without waiting for it: what the process has to say is put into a queue, and a thread of its own writes
//! it. Whoever should read may have stopped (a full pipe, a stopped terminal, a full disk under a log file), and a node
//! that waited for them would hang with its replicas.
//!
//! The queue is bounded. What does not fit is dropped and counted, and the count is said when there is room again.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// Bytes that may wait to be written: some thousand lines, more than a node says in an hour of health.
const BYTES_MAX: usize = 1 << 20;

/// Where lines wait for standard error. Clones share it.
#[derive(Clone)]
pub(crate) struct Log(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// There is something to write.
    wake: Condvar,
    /// All was written.
    idle: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Lines dropped since the last time that this was said.
    dropped: u64,
    /// The thread is writing what it took.
    writing: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Writes for ever. An error of the writer (nobody will ever read) loses the line and nothing else.
    fn drain(&self, mut out: impl Write) {
        loop {
            let (mut lines, dropped) = {
                let mut state = self.lock();
                state.writing = false;
                if state.waiting.is_empty() && state.dropped == 0 {
                    self.idle.notify_all();
                }
                let empty = |state: &mut State| state.waiting.is_empty() && state.dropped == 0;
                state = self.wake.wait_while(state, empty).unwrap_or_else(|e| e.into_inner());
                state.writing = true;
                state.bytes = 0;
                (std::mem::take(&mut state.waiting), std::mem::take(&mut state.dropped))
            };
            if dropped > 0 {
                let text = format!("{dropped} lines are missing here: standard error was not read\n");
                lines.push_back(text.into_bytes());
            }
            for line in lines {
                let _nobody_reads = out.write_all(&line);
            }
            let _nobody_reads = out.flush();
        }
    }
}

impl Log {
    /// Begins to write to standard error.
    pub(crate) fn start() -> Self {
        Self::to(std::io::stderr())
    }

    fn to(out: impl Write + Send + 'static) -> Self {
        let shared = Arc::new(Shared { state: Mutex::default(), wake: Condvar::default(), idle: Condvar::default() });
        let writer = shared.clone();
        std::thread::spawn(move || writer.drain(out));
        Self(shared)
    }

    /// Puts a line into the queue, or drops it. Never waits.
    pub(crate) fn put(&self, line: &[u8]) {
        let mut state = self.0.lock();
        if state.bytes + line.len() > BYTES_MAX {
            state.dropped += 1;
        } else {
            state.bytes += line.len();
            state.waiting.push_back(line.to_vec());
        }
        self.0.wake.notify_one();
    }

    /// Waits until all is written, but no longer than this.
    pub(crate) fn flush(&self, limit: Duration) {
        let state = self.0.lock();
        let open = |state: &mut State| state.writing || !state.waiting.is_empty() || state.dropped > 0;
        drop(self.0.idle.wait_timeout_while(state, limit, open));
    }
}

/// For `tracing`, which hands over one line at a time.
impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.put(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that reads only once it is told to.
    #[derive(Clone, Default)]
    struct Slow(Arc<Reader>);

    #[derive(Default)]
    struct Reader {
        /// Whether it reads, and what it has read.
        state: Mutex<(bool, Vec<u8>)>,
        told: Condvar,
    }

    impl Slow {
        fn read(&self) {
            self.0.state.lock().unwrap().0 = true;
            self.0.told.notify_all();
        }
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let state = self.0.state.lock().unwrap();
            let mut state = self.0.told.wait_while(state, |(reads, _)| !*reads).unwrap();
            state.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_a_reader_and_what_was_dropped_is_counted() {
        const LINES: usize = 5_000;
        let slow = Slow::default();
        let log = Log::to(slow.clone());
        let line = [[b'x'; 999].as_slice(), b"\n"].concat();
        (0..LINES).for_each(|_| log.put(&line));
        slow.read();
        log.flush(Duration::from_secs(60));
        log.put(b"read again\n");
        log.flush(Duration::from_secs(60));
        let text = String::from_utf8(slow.0.state.lock().unwrap().1.clone()).unwrap();
        let kept = text.lines().filter(|line| line.starts_with('x')).count();
        let dropped: Vec<usize> = text
            .lines()
            .filter_map(|line| line.strip_suffix(" lines are missing here: standard error was not read")?.parse().ok())
            .collect();
        assert!(kept * 1_000 <= 2 * BYTES_MAX, "{kept} lines were kept");
        assert_eq!(kept + dropped.iter().sum::<usize>(), LINES, "{dropped:?}");
        assert!(text.ends_with("read again\n"));
    }
}
