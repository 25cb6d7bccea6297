//! A partition of the store as a [`Machine`], and the view of it that readers on other threads hold.

use std::io;
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use stoa_env::planted;
use stoa_protocol::codec::Wire;
use stoa_protocol::message::{DigestAnswer, SessionAnswer, WriteAnswer};
use stoa_protocol::{FeatureGroup, FeatureGroupId, LogIndex};
use stoa_store::{Command, Outcome, Partition, PartitionReader, RestoreError, SnapshotBase, StoreOptions};

use crate::machine::{ApplyError, Machine, SnapshotEnds, SnapshotPart};

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
    const CHECKS_CHUNKS: bool = true;

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
            Outcome::Damaged(error) => Err(ApplyError::Damaged(damage(&error).to_string())),
        }
    }

    fn skip(&mut self, index: LogIndex) {
        // Entry 0 is the group's first membership: a partition begins at index 0.
        if index > LogIndex(0) {
            self.partition.apply(index, &Command::Noop);
        }
    }

    fn snapshot(&self, base: Option<&SnapshotEnds>) -> Box<dyn Iterator<Item = io::Result<SnapshotPart>> + Send> {
        let base = base.and_then(|ends| SnapshotBase::read(&ends.first, &ends.last));
        Box::new(self.partition.snapshot_over(base.as_ref()).map(|part| part.map_err(|error| damage(&error))))
    }

    fn restore(&mut self, chunks: Vec<Bytes>) -> io::Result<()> {
        let restored = Partition::restore(self.options.clone(), chunks);
        let (partition, reader) = restored.map_err(|error| damage(&error))?;
        self.partition = partition;
        self.view.shared.write().unwrap_or_else(|e| e.into_inner()).reader = reader;
        self.publish_definitions();
        Ok(())
    }

    fn tidy(&mut self, rows: usize) -> io::Result<bool> {
        match self.partition.thaw(rows) {
            Err(_) if planted!(BelieveRottenSnapshot) => Ok(false),
            thawed => thawed.map_err(|error| damage(&error)),
        }
    }
}

/// Bytes of a snapshot that are not what was written.
fn damage(error: &RestoreError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the snapshot of this replica: {error}"))
}
