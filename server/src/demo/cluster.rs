//! A cluster of real processes on this machine: three zones, two nodes each.

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use stoa_client::Client;
use stoa_env::{Clock, Credentials, Entropy, OsEntropy, QuicTransport, RealClock};
use stoa_protocol::ClusterId;
use tokio::process::{Child, Command};

use super::LOST_ZONE;

/// The zones.
pub const ZONES: [&str; 3] = ["a", "b", "c"];
/// Nodes of each zone. Nothing counts on this number.
const NODES_PER_ZONE: usize = 2;

struct Member {
    node: u64,
    zone: &'static str,
    addr: SocketAddr,
    config: PathBuf,
    log: PathBuf,
    process: Option<Child>,
}

/// The processes and their directory.
pub struct LocalCluster {
    dir: tempfile::TempDir,
    members: Vec<Member>,
}

impl LocalCluster {
    /// Starts all nodes and waits until a client finds the partitions.
    pub async fn start(partitions: u64, limit: Duration, keep: bool) -> anyhow::Result<Self> {
        let mut dir = tempfile::Builder::new().prefix("stoa-demo-").tempdir()?;
        dir.disable_cleanup(keep);
        if keep {
            eprintln!("the cluster's files are in {}", dir.path().display());
        }
        let mut cluster = Self { members: members(dir.path())?, dir };
        cluster.write_configs(ClusterId(OsEntropy.next_u128()), partitions)?;
        for at in 0..cluster.members.len() {
            cluster.spawn(at)?;
        }
        let start = RealClock.boot();
        loop {
            match cluster.client(LOST_ZONE).await {
                Ok(_) => return Ok(cluster),
                Err(error) if RealClock.boot().since(start) > limit => {
                    return Err(
                        error.context(format!("the cluster was not formed within {limit:?}\n{}", cluster.last_words()))
                    );
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    fn write_configs(&self, cluster: ClusterId, partitions: u64) -> anyhow::Result<()> {
        let root = self.members.iter().take(ZONES.len());
        let root: String =
            root.map(|m| format!("  - {{node: {}, zone: {}, addr: \"{}\"}}\n", m.node, m.zone, m.addr)).collect();
        for member in &self.members {
            let text = format!(
                "cluster: {{name: demo, id: \"{cluster}\"}}\nnode: {}\nzone: {}\nlisten: \"{}\"\ndata_dir: node-{}\n\
                 tls: {{dir: certs, create: true}}\nthreads: 1\nroot:\n{root}bootstrap: {{partitions: {partitions}, nodes: {}}}\n",
                member.node,
                member.zone,
                member.addr,
                member.node,
                self.members.len()
            );
            std::fs::write(&member.config, text)?;
        }
        Ok(())
    }

    fn spawn(&mut self, at: usize) -> anyhow::Result<()> {
        let member = &mut self.members[at];
        let log = std::fs::File::options().create(true).append(true).open(&member.log)?;
        let process = Command::new(std::env::current_exe()?)
            .arg("node")
            .arg("--config")
            .arg(&member.config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting node {}", member.node))?;
        member.process = Some(process);
        Ok(())
    }

    /// A client in a zone.
    pub async fn client(&self, zone: &str) -> anyhow::Result<Client<QuicTransport>> {
        let file = |name: &str| self.dir.path().join("certs").join(name);
        let credentials = Credentials::from_pem_files(
            &file("ca.pem"),
            &file("client-app.pem"),
            &file("client-app.key"),
            RealClock.wall(),
        )?;
        let seeds = self.members.iter().map(|member| member.addr).collect();
        Ok(Client::connect(seeds, zone, "shop", credentials).await?)
    }

    /// Kills all processes of a zone with signal 9.
    pub async fn kill_zone(&mut self, zone: &str) -> anyhow::Result<()> {
        // All signals first, then the waiting: a zone goes at once.
        for member in self.members.iter_mut().filter(|m| m.zone == zone) {
            if let Some(process) = &mut member.process {
                process.start_kill()?;
            }
        }
        for member in self.members.iter_mut().filter(|m| m.zone == zone) {
            if let Some(mut process) = member.process.take() {
                process.wait().await?;
            }
        }
        Ok(())
    }

    /// Starts the processes of a zone again.
    pub fn start_zone(&mut self, zone: &str) -> anyhow::Result<()> {
        for at in 0..self.members.len() {
            if self.members[at].zone == zone {
                self.spawn(at)?;
            }
        }
        Ok(())
    }

    /// The ends of the nodes' logs.
    pub fn last_words(&self) -> String {
        let mut out = String::new();
        for member in &self.members {
            let text = std::fs::read_to_string(&member.log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().rev().take(5).collect();
            out += &format!("--- node {} in zone {}\n", member.node, member.zone);
            lines.iter().rev().for_each(|line| out += &format!("{line}\n"));
        }
        out
    }

    /// Ends all processes.
    pub async fn stop(&mut self) {
        for member in &mut self.members {
            if let Some(mut process) = member.process.take() {
                // The end of a demo needs no good-bye; whatever cannot be killed is gone already.
                let _ = process.kill().await;
            }
        }
    }
}

fn members(dir: &Path) -> anyhow::Result<Vec<Member>> {
    // All sockets are held until all have a port, so that no port is given twice.
    let sockets: Vec<UdpSocket> = (0..ZONES.len() * NODES_PER_ZONE)
        .map(|_| UdpSocket::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()
        .context("finding free ports")?;
    let member = |(at, socket): (usize, &UdpSocket)| {
        let node = at as u64 + 1;
        Ok(Member {
            node,
            zone: ZONES[at % ZONES.len()],
            addr: socket.local_addr()?,
            config: dir.join(format!("node-{node}.yaml")),
            log: dir.join(format!("node-{node}.log")),
            process: None,
        })
    };
    sockets.iter().enumerate().map(member).collect()
}
