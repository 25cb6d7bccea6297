//! A cluster of real processes on this machine, with sockets, certificates and files of their own: what the demo shows
//! and what tests and measurements run against.

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use stoa_client::Client;
use stoa_env::{Clock, Credentials, Entropy, OsEntropy, QuicTransport, RealClock};
use stoa_protocol::ClusterId;
use tokio::process::{Child, Command};

/// Three zones, which is what a cluster needs.
pub const ZONES: [&str; 3] = ["a", "b", "c"];
/// The root group begins with one node in each of so many zones.
const ROOT_MEMBERS: usize = 3;
/// Lines of each node's log that [`LocalCluster::last_words`] shows.
const LAST_LINES: usize = 5;

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct LocalClusterOptions {
    /// The cluster's name; its directory carries it too.
    pub name: String,
    /// The program that has the subcommand `node`.
    pub program: PathBuf,
    /// The zones, three or more.
    pub zones: Vec<String>,
    /// Nodes of each zone.
    pub nodes_per_zone: usize,
    /// Partitions of the default set.
    pub partitions: u64,
    /// Further lines of each node's configuration.
    pub config: String,
    /// The project that clients ask for.
    pub project: String,
    /// What becomes of the files at the end.
    pub files: Files,
}

impl LocalClusterOptions {
    /// One node in each of [`ZONES`], each with one thread, 8 partitions, files removed.
    pub fn new(name: &str, program: impl Into<PathBuf>) -> Self {
        Self {
            name: name.to_owned(),
            program: program.into(),
            zones: ZONES.map(str::to_owned).to_vec(),
            nodes_per_zone: 1,
            partitions: 8,
            config: "threads: 1\n".to_owned(),
            project: "shop".to_owned(),
            files: Files::Remove,
        }
    }
}

/// What becomes of a cluster's files when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// They go.
    Remove,
    /// They stay, and standard error says where.
    Keep,
}

struct Member {
    node: u64,
    zone: String,
    addr: SocketAddr,
    config: PathBuf,
    log: PathBuf,
    process: Option<Child>,
}

/// The processes and their directory.
pub struct LocalCluster {
    options: LocalClusterOptions,
    dir: tempfile::TempDir,
    members: Vec<Member>,
}

impl LocalCluster {
    /// Starts all nodes and waits until a client finds the partitions.
    pub async fn start(options: LocalClusterOptions, limit: Duration) -> anyhow::Result<Self> {
        let mut dir = tempfile::Builder::new().prefix(&format!("stoa-{}-", options.name)).tempdir()?;
        if options.files == Files::Keep {
            dir.disable_cleanup(true);
            eprintln!("the cluster's files are in {}", dir.path().display());
        }
        let mut cluster = Self { members: members(dir.path(), &options)?, dir, options };
        cluster.write_configs(ClusterId(OsEntropy.next_u128()))?;
        for at in 0..cluster.members.len() {
            cluster.spawn(at)?;
        }
        let start = RealClock.boot();
        loop {
            match cluster.client(&cluster.options.zones[0]).await {
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

    fn write_configs(&self, cluster: ClusterId) -> anyhow::Result<()> {
        let LocalClusterOptions { name, partitions, config, .. } = &self.options;
        let root = self.members.iter().take(ROOT_MEMBERS);
        let root: String =
            root.map(|m| format!("  - {{node: {}, zone: {}, addr: \"{}\"}}\n", m.node, m.zone, m.addr)).collect();
        for Member { node, zone, addr, config: file, .. } in &self.members {
            let text = format!(
                "cluster: {{name: {name}, id: \"{cluster}\"}}\nnode: {node}\nzone: {zone}\nlisten: \"{addr}\"\n\
                 data_dir: node-{node}\ntls: {{dir: certs, create: true}}\nroot:\n{root}\
                 bootstrap: {{partitions: {partitions}, nodes: {}}}\n{config}",
                self.members.len()
            );
            std::fs::write(file, text)?;
        }
        Ok(())
    }

    fn spawn(&mut self, at: usize) -> anyhow::Result<()> {
        let member = &mut self.members[at];
        let log = std::fs::File::options().create(true).append(true).open(&member.log)?;
        let process = Command::new(&self.options.program)
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
        Ok(Client::connect(seeds, zone, &self.options.project, credentials).await?)
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
            let lines: Vec<&str> = text.lines().rev().take(LAST_LINES).collect();
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

fn members(dir: &Path, options: &LocalClusterOptions) -> anyhow::Result<Vec<Member>> {
    // All sockets are held until all have a port, so that no port is given twice.
    let sockets: Vec<UdpSocket> = (0..options.zones.len() * options.nodes_per_zone)
        .map(|_| UdpSocket::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()
        .context("finding free ports")?;
    let member = |(at, socket): (usize, &UdpSocket)| {
        let node = at as u64 + 1;
        Ok(Member {
            node,
            zone: options.zones[at % options.zones.len()].clone(),
            addr: socket.local_addr()?,
            config: dir.join(format!("node-{node}.yaml")),
            log: dir.join(format!("node-{node}.log")),
            process: None,
        })
    };
    sockets.iter().enumerate().map(member).collect()
}
