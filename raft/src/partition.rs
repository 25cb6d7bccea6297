//! A partition of the store as a [`Machine`], and the view of it that readers on other threads hold.

use std::sync::{Arc, RwLock};

use bytes::Bytes;
use stoa_protocol::codec::Wire;
use stoa_protocol::message::{DigestAnswer, SessionAnswer, WriteAnswer};
use stoa_protocol::{FeatureGroup, FeatureGroupId, LogIndex};
use stoa_store::{Command, Outcome, Partition, PartitionReader, StoreOptions};

use crate::machine::{ApplyError, Machine};

/// Rows that are looked at in one go while it is quiet: commands that come meanwhile wait for a millisecond or two.
const TIDY_ROWS: usize = 8_192;

/// A partition under replication.
pub struct PartitionMachine {
    partition: Partition,
    options: StoreOptions,
    view: PartitionView,
}

/// What the rest of the node sees of a partition; clones share it. A snapshot that is installed replaces the partition
/// behind it: the lock below is taken for the copying of a handle, never while rows are read or applied.
#[derive(Clone)]
pub struct PartitionView {
    shared: Arc<RwLock<Shared>>,
}

struct Shared {
    reader: PartitionReader,
    definitions: Arc<Vec<FeatureGroup>>,
}

impl PartitionView {
    /// The reader of the partition as it is now.
    pub fn reader(&self) -> PartitionReader {
        self.shared.read().unwrap_or_else(|e| e.into_inner()).reader.clone()
    }

    /// The groups that the partition's log has defined.
    pub fn definitions(&self) -> Arc<Vec<FeatureGroup>> {
        self.shared.read().unwrap_or_else(|e| e.into_inner()).definitions.clone()
    }

    /// One group's definition.
    pub fn definition(&self, id: FeatureGroupId) -> Option<FeatureGroup> {
        self.definitions().iter().find(|group| group.id == id).cloned()
    }

    /// The logical digests at one place of the log.
    pub fn digest(&self) -> DigestAnswer {
        self.reader().digest()
    }
}

impl PartitionMachine {
    /// An empty partition and the view of it.
    pub fn new(options: StoreOptions) -> (Self, PartitionView) {
        let (partition, reader) = Partition::new(options.clone());
        let view = PartitionView { shared: Arc::new(RwLock::new(Shared { reader, definitions: Arc::default() })) };
        (Self { partition, options, view: view.clone() }, view)
    }

    /// How far a writer session has come.
    pub fn session(&self, session: u128) -> SessionAnswer {
        self.partition.session(session)
    }

    fn publish_definitions(&self) {
        let definitions = Arc::new(self.partition.groups().cloned().collect::<Vec<_>>());
        self.view.shared.write().unwrap_or_else(|e| e.into_inner()).definitions = definitions;
    }
}

impl Machine for PartitionMachine {
    fn apply(&mut self, index: LogIndex, command: &Bytes) -> Result<Bytes, ApplyError> {
        let command = Command::decode(command).map_err(ApplyError::Unreadable)?;
        match self.partition.apply(index, &command) {
            Outcome::Noop => Ok(Bytes::new()),
            Outcome::Defined => {
                self.publish_definitions();
                Ok(Bytes::new())
            }
            Outcome::Wrote(answer) => Ok(WriteAnswer::to_bytes(&answer).into()),
            Outcome::Refused(error) => Err(error.into()),
        }
    }

    fn skip(&mut self, index: LogIndex) {
        // Entry 0 is the group's first membership: a partition begins at index 0.
        if index > LogIndex(0) {
            self.partition.apply(index, &Command::Noop);
        }
    }

    fn snapshot(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        Box::new(self.partition.snapshot())
    }

    fn tidy(&mut self) -> bool {
        self.partition.tidy(TIDY_ROWS)
    }

    fn restore(&mut self, chunks: &mut dyn Iterator<Item = std::io::Result<Bytes>>) -> std::io::Result<()> {
        let chunks: Vec<Bytes> = chunks.collect::<Result<_, _>>()?;
        let (partition, reader) = Partition::restore(self.options.clone(), chunks)
            .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error.to_string()))?;
        self.partition = partition;
        self.view.shared.write().unwrap_or_else(|e| e.into_inner()).reader = reader;
        self.publish_definitions();
        Ok(())
    }
}
