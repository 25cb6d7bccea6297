//! A partition of the store as a [`Machine`], and the view of it that readers on other threads hold.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use stoa_env::{BootTime, Clock};
use stoa_protocol::codec::{DecodeError, Wire};
use stoa_protocol::message::{DigestAnswer, SessionAnswer, WriteAnswer};
use stoa_protocol::{Feature, FeatureGroup, FeatureGroupId, LogIndex};
use stoa_store::{Command, Outcome, Partition, PartitionReader, RestoreError, SnapshotBase, StoreOptions};

use crate::machine::{ApplyError, Machine, SnapshotChunk, SnapshotEnds, SnapshotPart};
use crate::partition_time::PartitionTime;
use crate::root::state::{EVOLUTION_VERSION, EXPIRY_VERSION, FIRST_VERSION, STORAGE_VERSION};

/// Rows that are looked at in one go while it is quiet: commands that come meanwhile wait for a millisecond or two.
const TIDY_ROWS: usize = 8_192;

/// A partition under replication.
pub struct PartitionMachine {
    partition: Partition,
    options: StoreOptions,
    /// The highest cluster version that this node speaks.
    speaks: u32,
    /// Tells when a stamp was applied. Nothing of the partition's state follows from that.
    clock: Arc<dyn Clock>,
    view: PartitionView,
    /// The files of the snapshot that rows still lie in, by chunk.
    files: Vec<PathBuf>,
}

/// The cluster version from which on a command may be proposed: an earlier program cannot read it.
fn version_of(command: &Command) -> u32 {
    match command {
        Command::Stamp { .. } | Command::Sweep(_) => EXPIRY_VERSION,
        Command::Define(group) if group.features.iter().any(|feature| feature.storage.is_some()) => STORAGE_VERSION,
        Command::Define(group) if group.features.iter().any(Feature::has_more) => EVOLUTION_VERSION,
        Command::Define(group) if group.ttl.is_some() => EXPIRY_VERSION,
        Command::Noop | Command::Define(_) | Command::Write { .. } => FIRST_VERSION,
    }
}

/// What the rest of the node sees of a partition; clones share it. A snapshot that is installed replaces the partition
/// behind it: the lock below is taken for the copying of a handle, never while rows are read or applied.
#[derive(Clone)]
pub struct PartitionView {
    shared: Arc<RwLock<Shared>>,
    time: Arc<PartitionTime>,
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

    /// Whether any group of the partition has a time to live.
    pub fn expires(&self) -> bool {
        self.time.expires()
    }

    /// The partition's time as this replica knows it: the newest stamp in its log, and what has passed since by its own
    /// clock; microseconds since 1970-01-01T00:00:00Z, `i64::MIN` before the first. It never goes back.
    pub fn time_us(&self, now: BootTime) -> i64 {
        self.time.tell(now)
    }

    /// The logical digests at one place of the log.
    pub fn digest(&self) -> DigestAnswer {
        self.reader().digest()
    }
}

impl PartitionMachine {
    /// An empty partition and the view of it. What belongs to a cluster version above `speaks` it does not understand.
    pub fn new(options: StoreOptions, speaks: u32, clock: Arc<dyn Clock>) -> (Self, PartitionView) {
        let (partition, reader) = Partition::new(options.clone());
        let shared = Shared { reader, definitions: Arc::default() };
        let view = PartitionView { shared: Arc::new(RwLock::new(shared)), time: Arc::default() };
        (Self { partition, options, speaks, clock, view: view.clone(), files: Vec::new() }, view)
    }

    /// How far a writer session has come.
    pub fn session(&self, session: u128) -> SessionAnswer {
        self.partition.session(session)
    }

    fn publish_definitions(&self) {
        let definitions = Arc::new(self.partition.groups().cloned().collect::<Vec<_>>());
        self.view.time.set_expires(definitions.iter().any(|group| group.ttl.is_some()));
        self.view.shared.write().unwrap_or_else(|e| e.into_inner()).definitions = definitions;
    }
}

impl Machine for PartitionMachine {
    const CHECKS_CHUNKS: bool = true;

    fn apply(&mut self, index: LogIndex, command: &Bytes) -> Result<Bytes, ApplyError> {
        let command = Command::decode(command).map_err(ApplyError::Unreadable)?;
        let version = version_of(&command);
        if version > self.speaks {
            let error = DecodeError::invalid("a command's cluster version", version, format!("up to {}", self.speaks));
            return Err(ApplyError::Unreadable(error));
        }
        if matches!(&command, Command::Define(group) if group.ttl.is_some()) {
            // Before readers find the definition: from then on they need the time.
            self.view.time.set_expires(true);
        }
        let before = self.partition.time_us();
        let outcome = self.partition.apply(index, &command);
        if self.partition.time_us() != before {
            self.view.time.note(self.partition.time_us(), self.clock.boot());
        }
        match outcome {
            Outcome::Noop => Ok(Bytes::new()),
            Outcome::Defined => {
                self.publish_definitions();
                Ok(Bytes::new())
            }
            Outcome::Swept(removed) => Ok(removed.to_bytes().into()),
            Outcome::Wrote(answer) => Ok(WriteAnswer::to_bytes(&answer).into()),
            Outcome::Refused(error) => Err(error.into()),
            Outcome::Damaged(error) => Err(ApplyError::Damaged(damage(&self.files, &error).to_string())),
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
        let files = self.files.clone();
        let parts = self.partition.snapshot_over(base.as_ref());
        Box::new(parts.map(move |part| part.map_err(|error| damage(&files, &error))))
    }

    fn restore(&mut self, chunks: Vec<SnapshotChunk>) -> io::Result<()> {
        let (bytes, files) = chunks.into_iter().map(|chunk| (chunk.bytes, chunk.file)).unzip::<_, _, Vec<_>, Vec<_>>();
        let restored = Partition::restore(self.options.clone(), bytes);
        let (partition, reader) = restored.map_err(|error| damage(&files, &error))?;
        self.files = files;
        self.partition = partition;
        if self.partition.time_us() != i64::MIN {
            self.view.time.note(self.partition.time_us(), self.clock.boot());
        }
        if self.partition.groups().any(|group| group.ttl.is_some()) {
            self.view.time.set_expires(true);
        }
        self.view.shared.write().unwrap_or_else(|e| e.into_inner()).reader = reader;
        self.publish_definitions();
        Ok(())
    }

    fn tidy(&mut self) -> bool {
        self.partition.tidy(TIDY_ROWS)
    }

    fn thaw(&mut self, rows: usize) -> io::Result<bool> {
        match self.partition.thaw(rows) {
            Ok(false) => {
                self.files = Vec::new();
                Ok(false)
            }
            thawed => thawed.map_err(|error| damage(&self.files, &error)),
        }
    }
}

/// Bytes of a snapshot that are not what was written, in one of these files.
fn damage(files: &[PathBuf], error: &RestoreError) -> io::Error {
    let file = error.chunk().and_then(|chunk| files.get(chunk as usize));
    let place = file.map_or_else(String::new, |file| format!(" ({})", file.display()));
    io::Error::new(io::ErrorKind::InvalidData, format!("the snapshot of this replica: {error}{place}"))
}

#[cfg(test)]
mod tests {
    use stoa_env::RealClock;
    use stoa_protocol::{FeatureType, KeyType, OnExpired, Storage, Ttl};
    use stoa_store::Sweep;

    use super::*;

    #[test]
    fn what_belongs_to_a_later_cluster_version_is_not_understood() {
        let clock = Arc::new(RealClock);
        let plain = FeatureGroup::simple(1, "g", &[("id", KeyType::Int64)], &[("x", FeatureType::Int64)]);
        let ttl = Some(Ttl { after_us: 1_000_000, on_expired: OnExpired::Expire });
        let (group, sweep) = (plain.id, |group| Sweep { stamp_us: 1, group, first_hash: 0, last_hash: 1, rows_max: 1 });
        let later = [
            Command::Stamp { stamp_us: 1 },
            Command::Sweep(sweep(group)),
            Command::Define(FeatureGroup { ttl, ..plain.clone() }),
        ];
        for command in later {
            let bytes = command.encode();
            let (mut old, view) = PartitionMachine::new(StoreOptions::default(), EXPIRY_VERSION - 1, clock.clone());
            assert!(!old.apply(LogIndex(1), &bytes).unwrap_err().is_deterministic(), "{command:?}");
            assert_eq!(view.reader().applied(), LogIndex(0), "it halts there");
            assert!(old.apply(LogIndex(1), &Command::Define(plain.clone()).encode()).is_ok());
            let (mut new, _) = PartitionMachine::new(StoreOptions::default(), EXPIRY_VERSION, clock.clone());
            assert!(new.apply(LogIndex(1), &bytes).is_ok(), "{command:?}");
        }
        let mut narrow = FeatureGroup::simple(1, "g", &[("id", KeyType::Int64)], &[("x", FeatureType::Float32)]);
        narrow.features[0].storage = Some(Storage::Float16);
        for (speaks, understood) in [(STORAGE_VERSION - 1, false), (STORAGE_VERSION, true)] {
            let (mut machine, _) = PartitionMachine::new(StoreOptions::default(), speaks, clock.clone());
            assert_eq!(machine.apply(LogIndex(1), &Command::Define(narrow.clone()).encode()).is_ok(), understood);
        }
    }

    #[test]
    fn readers_know_the_time_from_the_moment_at_which_something_expires() {
        let (mut machine, view) = PartitionMachine::new(StoreOptions::default(), EXPIRY_VERSION, Arc::new(RealClock));
        let plain = FeatureGroup::simple(1, "g", &[("id", KeyType::Int64)], &[("x", FeatureType::Int64)]);
        let ttl = Some(Ttl { after_us: 1_000_000, on_expired: OnExpired::Expire });
        machine.apply(LogIndex(1), &Command::Define(plain.clone()).encode()).unwrap();
        assert_eq!((view.expires(), view.time_us(BootTime(0))), (false, i64::MIN));
        machine.apply(LogIndex(2), &Command::Stamp { stamp_us: 1 << 50 }.encode()).unwrap();
        machine
            .apply(LogIndex(3), &Command::Define(FeatureGroup { ttl, schema_version: 2, ..plain.clone() }).encode())
            .unwrap();
        let told = view.time_us(RealClock.boot());
        assert!(view.expires() && told >= 1 << 50);
        machine.apply(LogIndex(4), &Command::Stamp { stamp_us: 5 }.encode()).unwrap();
        assert!(view.time_us(RealClock.boot()) >= told);

        let parts = machine.snapshot(None).map(|part| part.unwrap().into_chunk().unwrap());
        let chunks: Vec<_> = parts.collect();
        let (mut other, view) = PartitionMachine::new(StoreOptions::default(), EXPIRY_VERSION, Arc::new(RealClock));
        let chunk = |bytes| SnapshotChunk { bytes, file: PathBuf::from("chunk") };
        other.restore(chunks.into_iter().map(chunk).collect()).unwrap();
        assert!(view.expires() && view.time_us(RealClock.boot()) >= 1 << 50, "a snapshot brings both");
        other.apply(LogIndex(5), &Command::Define(FeatureGroup { schema_version: 3, ..plain }).encode()).unwrap();
        assert!(!view.expires(), "nothing expires any more");
    }
}
