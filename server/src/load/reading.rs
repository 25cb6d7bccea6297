//! Reading beside the runtime: decoding a file blocks, and the runtime's threads carry the network.
//!
//! A thread that ends without saying so has panicked. That is a failure, never the end of the file.

use tokio::sync::{mpsc, oneshot};

use super::lanes::WAITING_BATCHES_MAX;
use super::{BadRow, LoadError, ReadyBatch};

/// What comes out of a file.
pub(super) enum Item {
    /// Rows that go to one partition.
    Batch(ReadyBatch),
    /// Rows were read.
    Rows { read: u64, bad: u64, first_bad: Vec<BadRow> },
    /// The file was read to its end.
    End,
    /// Nothing more comes.
    Failed(LoadError),
}

/// Why the reader ends before the file does.
pub(super) enum ReadEnd {
    /// Nobody wants more.
    Unwanted,
    /// The file cannot be read.
    Failed(LoadError),
}

impl From<LoadError> for ReadEnd {
    fn from(error: LoadError) -> Self {
        Self::Failed(error)
    }
}

/// The reader's end.
pub(super) struct Output(mpsc::Sender<Item>);

impl Output {
    pub fn batch(&mut self, batch: ReadyBatch) -> Result<(), ReadEnd> {
        self.send(Item::Batch(batch))
    }

    pub fn rows(&mut self, read: u64, bad: u64, first_bad: Vec<BadRow>) -> Result<(), ReadEnd> {
        self.send(Item::Rows { read, bad, first_bad })
    }

    fn send(&mut self, item: Item) -> Result<(), ReadEnd> {
        self.0.blocking_send(item).map_err(|_closed| ReadEnd::Unwanted)
    }
}

/// The other end. Dropped, it ends the reader.
pub(super) struct Input(mpsc::Receiver<Item>);

impl Input {
    /// The next item; [`Item::Failed`] if the reader is gone and has not said why.
    pub async fn next(&mut self) -> Item {
        self.0.recv().await.unwrap_or(Item::Failed(LoadError::Stopped { what: "read the file" }))
    }
}

/// Runs a reader on a thread of its own.
pub(super) fn read_on_a_thread(
    read: impl FnOnce(&mut Output) -> Result<(), ReadEnd> + Send + 'static,
) -> Result<Input, LoadError> {
    let (send, receive) = mpsc::channel(WAITING_BATCHES_MAX);
    on_thread("load: read", move || {
        let mut output = Output(send);
        let last = match read(&mut output) {
            Ok(()) => Item::End,
            Err(ReadEnd::Failed(error)) => Item::Failed(error),
            Err(ReadEnd::Unwanted) => return,
        };
        drop(output.send(last));
    })?;
    Ok(Input(receive))
}

/// Runs something that blocks on a thread of its own, and waits for it.
pub(super) async fn apart<R: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, LoadError> {
    let (send, receive) = oneshot::channel();
    on_thread("load: file", move || drop(send.send(work())))?;
    receive.await.map_err(|_panicked| LoadError::Stopped { what })
}

fn on_thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), LoadError> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    started.map(drop).map_err(|reason| LoadError::Thread { reason })
}
