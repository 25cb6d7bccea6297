//! openraft's own conformance suite for storage, on our log and state machine over a real disk.

use std::path::PathBuf;
use std::sync::Arc;

use openraft::testing::log::{StoreBuilder, Suite};
use stoa_env::{OsEntropy, RealClock, RealDisk};
use stoa_protocol::{ClusterId, PartitionId};
use tempfile::TempDir;

use crate::log::GroupLog;
use crate::root::RootMachine;
use crate::runtime::{NodeContext, StoaRuntime};
use crate::snapshots::SnapshotStore;
use crate::state_machine::StateMachine;
use crate::types::StoaTypes;
use crate::wal::{Wal, WalIdentity, WalOptions};

struct Builder;

impl StoreBuilder<StoaTypes, GroupLog, StateMachine<RealDisk, RootMachine>, TempDir> for Builder {
    async fn build(
        &self,
    ) -> Result<(TempDir, GroupLog, StateMachine<RealDisk, RootMachine>), openraft::StorageError<StoaTypes>> {
        let dir = TempDir::new().unwrap();
        let disk = RealDisk::new(dir.path()).unwrap();
        let identity = WalIdentity { cluster: 1, node: 1 };
        let options = WalOptions { reserve_bytes: 0, ..WalOptions::default() };
        let (wal, _) =
            Wal::open(disk.clone(), PathBuf::from("wal"), identity, options, Arc::new(RealClock)).await.unwrap();
        let partition = PartitionId(1);
        let (snapshots, newest) =
            SnapshotStore::open(disk, &PathBuf::from("snapshots"), partition, &stoa_env::Bounds::default())
                .await
                .unwrap();
        let log = GroupLog::new(partition, wal, Default::default()).unwrap();
        let (machine, _) = RootMachine::new(ClusterId(1), 1);
        let machine = StateMachine::open(machine, snapshots, newest).await.unwrap();
        Ok((dir, log, machine))
    }
}

#[test]
fn openrafts_storage_suite_passes_on_our_log_and_machine() {
    let context =
        NodeContext { clock: Arc::new(RealClock), entropy: Arc::new(OsEntropy), bounds: stoa_env::Bounds::default() };
    let mut runtime = <StoaRuntime as openraft_rt::AsyncRuntime>::new(2);
    let run = context.run(Suite::test_all(Builder));
    openraft_rt::AsyncRuntime::block_on(&mut runtime, run).unwrap();
}
