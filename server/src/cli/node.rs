//! `stoa node`: one process of a cluster.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use stoa_env::{
    Bounds, Clock, Credentials, OsEntropy, PeerIdentity, QuicOptions, QuicTransport, RealClock, RealDisk, Transport,
};
use stoa_raft::root::state::SPOKEN_VERSIONS;
use stoa_raft::wal::WalOptions;

use crate::certs::ensure_local;
use crate::config::{Config, TlsConfig};
use crate::node::{Node, NodeOptions, RootMember, World};

/// The clients that a local cluster's certificates are made for.
pub const LOCAL_PRINCIPALS: [&str; 2] = ["admin", "app"];

/// How long an orderly end may take before the process ends anyhow; everything acknowledged is durable.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// Runs a node until it is told to stop (SIGTERM, SIGINT) or cannot go on.
#[derive(Debug, Args)]
pub struct NodeCommand {
    /// The node's configuration.
    #[arg(long)]
    config: PathBuf,
    /// End at once when standard input ends: for a program that starts nodes and must not leave them behind, however it
    /// ends itself.
    #[arg(long, hide = true)]
    end_with_stdin: bool,
}

impl NodeCommand {
    /// Runs the node.
    pub fn run(self) -> anyhow::Result<u8> {
        self.run_over(|_, transport| Ok(transport))
    }

    /// Runs the node; what it sends goes through what `over` makes of its transport. Measurements put delays there.
    pub fn run_over<T: Transport>(
        self,
        over: impl FnOnce(&Config, QuicTransport) -> anyhow::Result<T>,
    ) -> anyhow::Result<u8> {
        let config = Config::load(&self.config)?;
        if self.end_with_stdin {
            std::thread::spawn(|| {
                // What comes is of no interest, and an error is an end too.
                let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
                std::process::exit(0);
            });
        }
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        if let Some(threads) = config.threads {
            builder.worker_threads(usize::from(threads));
        }
        builder.enable_all().build()?.block_on(run(config, over))
    }
}

async fn run<T: Transport>(
    config: Config,
    over: impl FnOnce(&Config, QuicTransport) -> anyhow::Result<T>,
) -> anyhow::Result<u8> {
    let credentials = credentials(&config)?;
    // The port first: a second process on the same data directory fails here, before it touches a file.
    let bounds = Bounds::default();
    let transport_options = QuicOptions { bounds: bounds.clone(), ..QuicOptions::default() };
    let transport = QuicTransport::bind(config.listen, credentials, transport_options).context("listen")?;
    let opening = || format!("opening the data directory {}", config.data_dir.display());
    std::fs::create_dir_all(&config.data_dir).with_context(opening)?;
    let disk = RealDisk::counted(&config.data_dir, bounds.clone()).with_context(opening)?;
    let sends = over(&config, transport.clone())?;
    let world = World { disk, transport: sends, clock: Arc::new(RealClock), entropy: Arc::new(OsEntropy), bounds };
    let node = Node::start(options(&config), world).await?;
    transport.serve(node.clone());
    tracing::info!(node = config.node.0, zone = config.zone, listen = %config.listen, "the node serves");
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let fatal = tokio::select! {
        biased;
        why = node.wait_fatal() => Some(why),
        _ = term.recv() => None,
        _ = tokio::signal::ctrl_c() => None,
    };
    if tokio::time::timeout(SHUTDOWN_LIMIT, node.shutdown()).await.is_err() {
        tracing::warn!("the node did not end in order within {SHUTDOWN_LIMIT:?}");
    }
    transport.close().await;
    match fatal {
        Some(why) => anyhow::bail!(why),
        None => Ok(0),
    }
}

/// This node's certificates, which must be this node's.
fn credentials(config: &Config) -> anyhow::Result<Credentials> {
    let now = RealClock.wall();
    let (ca, cert, key) = match &config.tls {
        TlsConfig::Dir { dir, create: true } => {
            let local = ensure_local(dir, Some(config.node.0), &LOCAL_PRINCIPALS, now)?;
            let files = local.node.context("a node's certificate was asked for")?;
            (local.ca, files.cert, files.key)
        }
        TlsConfig::Dir { dir, create: false } => {
            let file = |end: &str| dir.join(format!("node-{}.{end}", config.node));
            (dir.join("ca.pem"), file("pem"), file("key"))
        }
        TlsConfig::Files { ca, cert, key } => (ca.clone(), cert.clone(), key.clone()),
    };
    let credentials = Credentials::from_pem_files(&ca, &cert, &key, now).context("tls")?;
    anyhow::ensure!(
        *credentials.identity() == PeerIdentity::Node(config.node.0),
        "tls: {} is the certificate of {}, and the config says node {}; give this node its own",
        cert.display(),
        match credentials.identity() {
            PeerIdentity::Node(other) => format!("node {other}"),
            PeerIdentity::Client(principal) => format!("client {principal}"),
        },
        config.node
    );
    Ok(credentials)
}

fn options(config: &Config) -> NodeOptions {
    NodeOptions {
        cluster: config.cluster,
        node: config.node,
        zone: config.zone.clone(),
        advertise: config.advertise,
        root: config.root.iter().map(|m| RootMember { node: m.node, zone: m.zone.clone(), addr: m.addr }).collect(),
        partitions: config.bootstrap.partitions as u32,
        nodes_expected: config.bootstrap.nodes as u32,
        versions: (SPOKEN_VERSIONS.0, config.version_max),
        timing: config.raft.timing(),
        wal: WalOptions {
            segment_bytes: config.log.segment_mib << 20,
            max_live_bytes: config.log.live_mib_max << 20,
            ..WalOptions::default()
        },
        snapshot_log_bytes: SNAPSHOT_LOG_BYTES,
        replay_log_bytes: config.log.replay_mib_max << 20,
        partition_bytes_max: PARTITION_BYTES_MAX,
    }
}

/// One group's log after which a snapshot is taken: replaying it takes about a second.
const SNAPSHOT_LOG_BYTES: u64 = 32 << 20;

/// Logical bytes of one partition: 2^32 row numbers would be exhausted near it by the smallest rows.
const PARTITION_BYTES_MAX: u64 = 64 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &std::path::Path, tls: &str) -> Config {
        let path = dir.join("node.yaml");
        let text = format!(
            "cluster: {{name: demo, id: 00000000000000000000000000000017}}\nnode: 1\nzone: a\nlisten: 127.0.0.1:7001\n\
             data_dir: data\ntls: {tls}\nroot:\n- {{node: 1, zone: a, addr: 127.0.0.1:7001}}\n- {{node: 2, zone: b, addr: \
             127.0.0.1:7002}}\n- {{node: 3, zone: c, addr: 127.0.0.1:7003}}\n"
        );
        std::fs::write(&path, text).unwrap();
        Config::load(&path).unwrap()
    }

    #[test]
    fn certificates_that_are_not_there_or_anothers_are_named_with_what_would_be_right() {
        let dir = tempfile::tempdir().unwrap();
        let fault = |tls: &str| format!("{:#}", credentials(&config(dir.path(), tls)).unwrap_err());
        let missing = fault("{dir: certs}");
        assert!(missing.starts_with("tls: ") && missing.contains("certs/ca.pem: cannot be read"), "{missing}");
        assert!(!dir.path().join("certs").exists(), "nothing is made that was not asked for");
        assert!(credentials(&config(dir.path(), "{dir: certs, create: true}")).is_ok());
        ensure_local(&dir.path().join("certs"), Some(2), &[], RealClock.wall()).unwrap();
        let others = fault("{ca: certs/ca.pem, cert: certs/node-2.pem, key: certs/node-2.key}");
        assert!(others.contains("node-2.pem is the certificate of node 2, and the config says node 1"), "{others}");
        let clients = fault("{ca: certs/ca.pem, cert: certs/client-app.pem, key: certs/client-app.key}");
        assert!(clients.contains("of client app, and the config says node 1"), "{clients}");
    }
}
