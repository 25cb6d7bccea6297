//! A node whose log has failed stops: it must not go on leading groups whose writes it can only refuse.

#![allow(clippy::unwrap_used)] // a test ends where something is not as it should be

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stoa::node::{Node, NodeOptions, RootMember, World};
use stoa_env::{BootTime, Channel, Clock, OsEntropy, Peer, Transport, TransportError, WallTime};
use stoa_protocol::{ClusterId, NodeId};
use stoa_raft::RaftTiming;
use stoa_raft::root::state::SPOKEN_VERSIONS;
use stoa_raft::wal::{Wal, WalIdentity, WalOptions};
use stoa_sim::disk::SimDisk;

/// Nobody is there.
#[derive(Clone)]
struct Alone;

impl Transport for Alone {
    async fn call(&self, to: Peer, _: Channel, _: Bytes, limit: Duration) -> Result<Bytes, TransportError> {
        tokio::time::sleep(limit).await;
        Err(TransportError::TimedOut { addr: to.addr, limit })
    }
}

struct PausedClock;

impl Clock for PausedClock {
    #[allow(clippy::disallowed_methods)] // the simulation's time is tokio's
    fn boot(&self) -> BootTime {
        static BASE: std::sync::OnceLock<tokio::time::Instant> = std::sync::OnceLock::new();
        let now = tokio::time::Instant::now();
        BootTime(1 << 50).plus(now.saturating_duration_since(*BASE.get_or_init(|| now)))
    }
    fn wall(&self) -> WallTime {
        WallTime(0)
    }
}

fn options() -> NodeOptions {
    let addr = SocketAddr::from(([127, 0, 0, 1], 1));
    let zone = "a".to_string();
    NodeOptions {
        cluster: ClusterId(0xc1),
        node: NodeId(1),
        zone: zone.clone(),
        advertise: addr,
        root: vec![RootMember { node: NodeId(1), zone, addr }],
        partitions: 1,
        nodes_expected: 1,
        versions: SPOKEN_VERSIONS,
        timing: RaftTiming::default(),
        wal: WalOptions { reserve_bytes: 0, ..WalOptions::default() },
        snapshot_log_bytes: 1 << 20,
        replay_log_bytes: 1 << 20,
        partition_bytes_max: 1 << 30,
    }
}

async fn start(disk: &SimDisk) -> Arc<Node<SimDisk, Alone>> {
    let clock = Arc::new(PausedClock);
    let world = World {
        disk: disk.clone(),
        transport: Alone,
        clock,
        entropy: Arc::new(OsEntropy),
        bounds: stoa_env::Bounds::default(),
    };
    let node = Node::start(options(), world).await.unwrap();
    let root = node.root_replica().unwrap();
    root.form(&[(root.id(), NodeId(1))]).await.unwrap();
    for _ in 0..1_000 {
        if root.barrier(Duration::from_secs(1)).await.is_ok() {
            return node;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the root group has no leader");
}

fn why_it_ended(fault: impl FnOnce(&SimDisk)) -> String {
    let disk = SimDisk::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let node = start(&disk).await;
        fault(&disk);
        // Whatever is written next finds out.
        let root = node.root_replica().unwrap();
        let written =
            stoa_env::spawn("write", async move { root.propose(Bytes::new(), Duration::from_secs(60)).await });
        let why = tokio::time::timeout(Duration::from_secs(60), node.wait_fatal()).await.expect("the node must end");
        assert!(!matches!(written.await, Ok(Some(Ok(_)))), "nothing is acknowledged that is not durable");
        why
    })
}

#[test]
fn a_node_ends_when_a_sync_of_its_log_fails() {
    let why = why_it_ended(|disk| disk.fail_sync(1));
    assert!(why.contains("syncing a segment") && why.contains("restart the node"), "{why}");
}

#[test]
fn a_node_ends_when_its_device_does_not_answer_any_more() {
    let why = why_it_ended(|disk| disk.set_delay(Duration::from_secs(3_600)));
    assert!(why.contains("did not answer within 30s"), "{why}");
}

#[test]
fn a_node_whose_device_does_not_answer_at_its_start_does_not_wait_for_ever() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let disk = SimDisk::new();
        let open = || {
            let (identity, options) = (WalIdentity { cluster: 1, node: 1 }, options().wal);
            let open = Wal::open(disk.clone(), "wal".into(), identity, options, Arc::new(PausedClock));
            tokio::time::timeout(Duration::from_secs(3_000), open)
        };
        let (wal, _) = open().await.unwrap().unwrap();
        wal.close().await.unwrap();
        disk.set_delay(Duration::from_secs(3_600));
        let Err(error) = open().await.expect("it must end") else { panic!("nothing can be read") };
        assert!(error.to_string().contains("did not answer within 30s"), "{error}");
    });
}
