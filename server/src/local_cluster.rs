//! A cluster of real processes on this machine, with sockets, certificates and files of their own: what the demo shows
//! and what tests and measurements run against. No node outlives the process that started it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use stoa_client::Client;
use stoa_env::{Clock, Credentials, Entropy, OsEntropy, QuicTransport, RealClock};
use stoa_protocol::ClusterId;
use stoa_raft::wal::WalOptions;
use tokio::process::{Child, ChildStdin, Command};

/// Three zones, which is what a cluster needs.
pub const ZONES: [&str; 3] = ["a", "b", "c"];
/// The root group begins with one node in each of so many zones.
const ROOT_MEMBERS: usize = 3;
/// Lines of each node's log that [`LocalCluster::last_words`] shows.
const LAST_LINES: usize = 5;
/// Ports of nodes lie below those that Linux hands out by itself (32,768 and up): while a node is down, no client's
/// socket may take its port.
const PORTS: std::ops::Range<u16> = 10_000..32_000;
/// Ports tried for one node.
const PORT_ATTEMPTS: usize = 100;

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct LocalClusterOptions {
    /// The cluster's name, of the form of all names; its directory carries it too.
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
    /// Where the nodes of a zone run, if not in the network of this process and on its loopback address.
    pub places: BTreeMap<String, Place>,
}

/// Where nodes run, and how they are started there.
#[derive(Debug, Clone)]
pub struct Place {
    /// The address on which they listen.
    pub ip: IpAddr,
    /// A command that runs what follows it in its own place, such as `ip netns exec NAME`. It must become that program
    /// rather than start it beside itself: signals are meant for the node.
    pub launch: Vec<String>,
}

impl Default for Place {
    fn default() -> Self {
        Self { ip: Ipv4Addr::LOCALHOST.into(), launch: Vec::new() }
    }
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
            places: BTreeMap::new(),
        }
    }

    fn place(&self, zone: &str) -> Place {
        self.places.get(zone).cloned().unwrap_or_default()
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
    /// The other end of the process's standard input. Kept apart from it, since waiting for a process closes its input.
    lifeline: Option<ChildStdin>,
}

/// The processes and their directory.
pub struct LocalCluster {
    options: LocalClusterOptions,
    dir: tempfile::TempDir,
    members: Vec<Member>,
    node_args: Vec<OsString>,
}

impl LocalCluster {
    /// Starts all nodes and waits until a client finds the partitions.
    pub async fn start(options: LocalClusterOptions, limit: Duration) -> anyhow::Result<Self> {
        let mut cluster = Self::prepare(options)?;
        cluster.start_all(limit).await?;
        Ok(cluster)
    }

    /// Everything but the processes: the directory, addresses and configurations.
    pub fn prepare(options: LocalClusterOptions) -> anyhow::Result<Self> {
        let mut dir = tempfile::Builder::new().prefix(&format!("stoa-{}-", options.name)).tempdir()?;
        if options.files == Files::Keep {
            dir.disable_cleanup(true);
            eprintln!("the cluster's files are in {}", dir.path().display());
        }
        let cluster = Self { members: members(dir.path(), &options)?, dir, options, node_args: Vec::new() };
        cluster.write_configs(ClusterId(OsEntropy.next_u128()))?;
        Ok(cluster)
    }

    /// Further arguments behind `node` for processes that start from now on, for a program that takes more than `stoa` does.
    pub fn set_node_args(&mut self, args: impl IntoIterator<Item = OsString>) {
        self.node_args = args.into_iter().collect();
    }

    /// Starts all nodes of a cluster that was prepared, and waits until a client finds the partitions.
    pub async fn start_all(&mut self, limit: Duration) -> anyhow::Result<()> {
        for at in 0..self.members.len() {
            self.spawn(at)?;
        }
        let start = RealClock.boot();
        loop {
            let error = match self.client(&self.options.zones[0]).await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            self.check_running()?;
            if RealClock.boot().since(start) > limit {
                let context = format!("the cluster was not formed within {limit:?}");
                return Err(error.context(format!("{context}{}\n{}", self.lack_of_room(), self.last_words())));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What there is to say of the device: a node takes no writes without its reserve, and so forms nothing.
    fn lack_of_room(&self) -> String {
        let free = rustix::fs::statvfs(self.dir.path()).map_or(u64::MAX, |found| found.f_bavail * found.f_frsize);
        let reserve = WalOptions::default().reserve_bytes * self.members.len() as u64;
        match free < reserve {
            true => format!(
                ": the device of {} has {} MiB free, and {} nodes hold back {} MiB; make room, or set TMPDIR to another \
                 device",
                self.dir.path().display(),
                free >> 20,
                self.members.len(),
                reserve >> 20
            ),
            false => String::new(),
        }
    }

    /// A node that ends at its start has said why, and no waiting will help.
    fn check_running(&mut self) -> anyhow::Result<()> {
        for at in 0..self.members.len() {
            let Some(process) = &mut self.members[at].process else { continue };
            if let Some(status) = process.try_wait()? {
                bail!("node {} ended with {status}\n{}", self.members[at].node, self.last_words());
            }
        }
        Ok(())
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
        // Standard input is a pipe that nobody writes to: it ends with this process.
        let mut line = self.options.place(&member.zone).launch;
        line.push(self.options.program.to_str().context("the program's path is UTF-8")?.to_owned());
        let mut process = Command::new(&line[0])
            .args(&line[1..])
            .args(["node", "--end-with-stdin", "--config"])
            .arg(&member.config)
            .args(&self.node_args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting node {}", member.node))?;
        member.lifeline = process.stdin.take();
        member.process = Some(process);
        Ok(())
    }

    /// A client in a zone.
    pub async fn client(&self, zone: &str) -> anyhow::Result<Client<QuicTransport>> {
        Ok(Client::connect(self.seeds(), zone, &self.options.project, self.client_credentials()?).await?)
    }

    /// Who clients of this cluster are.
    pub fn client_credentials(&self) -> anyhow::Result<Credentials> {
        let file = |name: &str| self.certs().join(name);
        let (ca, cert, key) = (file("ca.pem"), file("client-app.pem"), file("client-app.key"));
        Ok(Credentials::from_pem_files(&ca, &cert, &key, RealClock.wall())?)
    }

    /// What the cluster was made of.
    pub fn options(&self) -> &LocalClusterOptions {
        &self.options
    }

    /// The directory with everything.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The directory with the certificates.
    pub fn certs(&self) -> PathBuf {
        self.dir().join("certs")
    }

    /// The addresses of all nodes.
    pub fn seeds(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|member| member.addr).collect()
    }

    /// The numbers of all nodes, ascending.
    pub fn nodes(&self) -> Vec<u64> {
        self.members.iter().map(|member| member.node).collect()
    }

    /// Where a node listens.
    pub fn addr(&self, node: u64) -> anyhow::Result<SocketAddr> {
        Ok(self.members[self.at(node)?].addr)
    }

    /// The zone of a node.
    pub fn zone(&self, node: u64) -> anyhow::Result<&str> {
        Ok(&self.members[self.at(node)?].zone)
    }

    /// A node's configuration.
    pub fn config(&self, node: u64) -> anyhow::Result<&Path> {
        Ok(&self.members[self.at(node)?].config)
    }

    /// A node's data directory.
    pub fn data_dir(&self, node: u64) -> PathBuf {
        self.dir().join(format!("node-{node}"))
    }

    /// What a node has said on standard error, in all its lives.
    pub fn log(&self, node: u64) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(&self.members[self.at(node)?].log)?)
    }

    fn at(&self, node: u64) -> anyhow::Result<usize> {
        let at = self.members.iter().position(|member| member.node == node);
        at.with_context(|| format!("the cluster has no node {node}; it has {:?}", self.nodes()))
    }

    /// Kills nodes with signal 9, all at once.
    pub async fn kill(&mut self, nodes: &[u64]) -> anyhow::Result<()> {
        // All signals first, then the waiting: they go together.
        for &node in nodes {
            let at = self.at(node)?;
            if let Some(process) = &mut self.members[at].process {
                process.start_kill()?;
            }
        }
        for &node in nodes {
            let at = self.at(node)?;
            if let Some(mut process) = self.members[at].process.take() {
                process.wait().await?;
            }
        }
        Ok(())
    }

    /// Starts a node again that was killed or has ended.
    pub fn start_node(&mut self, node: u64) -> anyhow::Result<()> {
        let at = self.at(node)?;
        self.spawn(at)
    }

    /// Asks a node to end (SIGTERM) and waits until it has.
    pub async fn terminate(&mut self, node: u64, limit: Duration) -> anyhow::Result<ExitStatus> {
        self.signal(node, Signal::TERM)?;
        self.ended(node, limit).await
    }

    /// Stops a node's process in the middle of whatever it does (SIGSTOP); its sockets go on taking what comes.
    pub fn pause(&self, node: u64) -> anyhow::Result<()> {
        self.signal(node, Signal::STOP)
    }

    /// Lets a node that was paused go on (SIGCONT).
    pub fn resume(&self, node: u64) -> anyhow::Result<()> {
        self.signal(node, Signal::CONT)
    }

    /// The number of a node's process.
    pub fn process_id(&self, node: u64) -> anyhow::Result<u32> {
        let id = self.members[self.at(node)?].process.as_ref().and_then(Child::id);
        id.with_context(|| format!("node {node} does not run"))
    }

    fn signal(&self, node: u64, signal: Signal) -> anyhow::Result<()> {
        let id = Pid::from_raw(self.process_id(node)? as i32).context("a process number is positive")?;
        Ok(kill_process(id, signal)?)
    }

    /// Whether a node's process runs.
    pub fn runs(&mut self, node: u64) -> anyhow::Result<bool> {
        let at = self.at(node)?;
        let Some(process) = &mut self.members[at].process else { return Ok(false) };
        Ok(process.try_wait()?.is_none())
    }

    /// Waits until a node has ended by itself.
    pub async fn ended(&mut self, node: u64, limit: Duration) -> anyhow::Result<ExitStatus> {
        let at = self.at(node)?;
        let Some(process) = &mut self.members[at].process else { bail!("node {node} does not run") };
        let status = tokio::time::timeout(limit, process.wait()).await;
        let status = status.with_context(|| format!("node {node} did not end within {limit:?}"))??;
        self.members[at].process = None;
        Ok(status)
    }

    /// Kills all processes of a zone with signal 9.
    pub async fn kill_zone(&mut self, zone: &str) -> anyhow::Result<()> {
        self.kill(&self.nodes_in(zone)).await
    }

    /// Starts the processes of a zone again.
    pub fn start_zone(&mut self, zone: &str) -> anyhow::Result<()> {
        self.nodes_in(zone).into_iter().try_for_each(|node| self.start_node(node))
    }

    fn nodes_in(&self, zone: &str) -> Vec<u64> {
        self.members.iter().filter(|member| member.zone == zone).map(|member| member.node).collect()
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
                // There is nothing left to say good-bye for; whatever cannot be killed is gone already.
                let _ = process.kill().await;
            }
        }
    }
}

fn members(dir: &Path, options: &LocalClusterOptions) -> anyhow::Result<Vec<Member>> {
    // All sockets are held until all have a port, so that no port is given twice.
    let count = options.zones.len() * options.nodes_per_zone;
    let sockets: Vec<UdpSocket> = (0..count).map(|_| free_port()).collect::<anyhow::Result<_>>()?;
    let member = |(at, socket): (usize, &UdpSocket)| {
        let node = at as u64 + 1;
        let zone = &options.zones[at % options.zones.len()];
        Ok(Member {
            node,
            zone: zone.clone(),
            addr: SocketAddr::new(options.place(zone).ip, socket.local_addr()?.port()),
            config: dir.join(format!("node-{node}.yaml")),
            log: dir.join(format!("node-{node}.log")),
            process: None,
            lifeline: None,
        })
    };
    sockets.iter().enumerate().map(member).collect()
}

fn free_port() -> anyhow::Result<UdpSocket> {
    let mut last = None;
    for _ in 0..PORT_ATTEMPTS {
        let port = PORTS.start + (OsEntropy.next_u64() % PORTS.len() as u64) as u16;
        match UdpSocket::bind(("127.0.0.1", port)) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = Some(error),
        }
    }
    let last = last.map_or_else(String::new, |error| format!("; the last said: {error}"));
    bail!("none of {PORT_ATTEMPTS} ports in {PORTS:?} is free{last}")
}
