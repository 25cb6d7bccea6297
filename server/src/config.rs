//! The configuration of one node: a YAML file, read once at start. What holds for the whole cluster (definitions,
//! placement, limits) is not here: the root group has it.
//!
//! Relations between values are checked in [`Config::load`], before anything is opened; each refusal names both values
//! ([`ConfigProblem`]). The times of replication are those of [`RaftTiming`], whose defaults are the defaults here. Their
//! relations, and why each must hold:
//!
//! ```text
//! heartbeat x 3 <= election_min          one lost heartbeat, and one late one, must not start an election
//! heartbeat > 2 x zone_delay + fsync     a heartbeat is answered before the next one is due, else they pile up
//! election_max >= election_min + 100 ms  candidates of one group must spread, or they split their votes for ever;
//!              >= election_min + 4 x zone_delay   two round trips between zones at the least
//! drift <= 100,000 ppm                   a tenth: more would eat the lease
//! ```
//!
//! The lease of a leader is `election_max`: a follower that has heard its leader votes for nobody for that long. What is
//! left of it when two clocks drift apart as far as is declared outlives the round that renews it, a heartbeat and its
//! answer; that follows from the relations above, and is asserted.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use stoa_protocol::codec::{DecodeError, check_name};
use stoa_protocol::limits::SET_PARTITIONS_MAX;
use stoa_protocol::{ClusterId, NodeId};
use stoa_raft::root::state::SPOKEN_VERSIONS;
use stoa_raft::{RaftTiming, TimingError};

/// Bytes of a configuration file: a hundred times what one needs.
const CONFIG_BYTES_MAX: usize = 256 << 10;

/// Members of the root group at its start, each in a zone of its own.
const ROOT_MEMBERS: usize = 3;

/// How far apart the shortest and the longest election timeout lie at least, in milliseconds: some round trips between
/// zones, so that two candidates seldom start within one.
const ELECTION_SPREAD_MS_MIN: u64 = 100;

/// The longest time of replication that may be given, in milliseconds: ten minutes without a leader are an outage, and far
/// below what arithmetic on times can hold.
const RAFT_MS_MAX: u64 = 600_000;

/// The largest drift of a clock that may be declared, in microseconds a second.
const DRIFT_PPM_MAX: u64 = 100_000;

/// The configuration of one node; every path in it is absolute or relative to the process, never to the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The cluster's name, for people.
    pub cluster_name: String,
    /// The cluster's id, which every frame carries.
    pub cluster: ClusterId,
    /// The highest cluster version that this node says it speaks; the highest that its program does unless given. Held below
    /// that, the cluster stays at it, and an upgrade can be taken back.
    pub version_max: u32,
    /// This node, 1 and up.
    pub node: NodeId,
    /// The zone that this node is in.
    pub zone: String,
    /// Where this node listens.
    pub listen: SocketAddr,
    /// Where others reach this node; `listen` unless given.
    pub advertise: SocketAddr,
    /// Where this node keeps its log, its snapshots and its identity.
    pub data_dir: PathBuf,
    /// Where the certificates are.
    pub tls: TlsConfig,
    /// The first members of the root group: three nodes in three zones.
    pub root: Vec<RootMember>,
    /// How the default partition set is made.
    pub bootstrap: BootstrapConfig,
    /// Times of replication.
    pub raft: RaftConfig,
    /// Sizes of the log.
    pub log: LogConfig,
    /// Threads of the runtime; the number of cores unless given.
    pub threads: Option<u16>,
}

/// Where the certificates are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsConfig {
    /// A directory with the files of a cluster that makes its own authority.
    Dir {
        /// The directory.
        dir: PathBuf,
        /// Whether files that are missing are made, for a local cluster; `false` unless given.
        create: bool,
    },
    /// PEM files from elsewhere.
    Files {
        /// The certificate of the cluster's authority.
        ca: PathBuf,
        /// This node's certificate.
        cert: PathBuf,
        /// This node's key.
        key: PathBuf,
    },
}

/// One of the first members of the root group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootMember {
    /// The node.
    pub node: NodeId,
    /// Its zone.
    pub zone: String,
    /// Where others reach it.
    pub addr: SocketAddr,
}

/// How the default partition set is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BootstrapConfig {
    /// Its partitions, 1 to [`SET_PARTITIONS_MAX`]; 64 unless given.
    pub partitions: usize,
    /// How many nodes must have joined before the partitions are placed, 3 and up; 3 unless given.
    pub nodes: usize,
}

impl Default for BootstrapConfig {
    fn default() -> Self {
        Self { partitions: 64, nodes: ROOT_MEMBERS }
    }
}

/// Times of replication; the relations between them are at the top of this file, the defaults those of [`RaftTiming`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RaftConfig {
    /// Time between two heartbeats of a leader, in milliseconds.
    pub heartbeat_ms: u64,
    /// Shortest wait of a follower before it stands for election, after the leader's lease has run out, in milliseconds.
    pub election_ms_min: u64,
    /// Longest such wait, and the leader's lease, in milliseconds.
    pub election_ms_max: u64,
    /// Longest delay of a message between two zones, one way, in milliseconds.
    pub zone_delay_ms_max: u64,
    /// Longest time that a sync of the log is expected to take, in milliseconds.
    pub fsync_ms_max: u64,
    /// How much faster or slower than true time a clock may run, in microseconds a second.
    pub clock_drift_ppm_max: u64,
}

impl Default for RaftConfig {
    fn default() -> Self {
        let timing = RaftTiming::default();
        let ms = |time: Duration| u64::try_from(time.as_millis()).expect("defaults are far below this");
        Self {
            heartbeat_ms: ms(timing.heartbeat),
            election_ms_min: ms(timing.election_min),
            election_ms_max: ms(timing.election_max),
            zone_delay_ms_max: ms(timing.zone_delay_max),
            fsync_ms_max: ms(timing.fsync_max),
            clock_drift_ppm_max: timing.clock_drift_ppm.into(),
        }
    }
}

impl RaftConfig {
    /// The times as replication takes them.
    pub fn timing(&self) -> RaftTiming {
        RaftTiming {
            heartbeat: Duration::from_millis(self.heartbeat_ms),
            election_min: Duration::from_millis(self.election_ms_min),
            election_max: Duration::from_millis(self.election_ms_max),
            zone_delay_max: Duration::from_millis(self.zone_delay_ms_max),
            fsync_max: Duration::from_millis(self.fsync_ms_max),
            clock_drift_ppm: u32::try_from(self.clock_drift_ppm_max).unwrap_or(u32::MAX),
        }
    }

    /// Checks the relations at the top of this file.
    pub fn check(&self) -> Result<(), ConfigProblem> {
        let Self { heartbeat_ms, election_ms_min, election_ms_max, zone_delay_ms_max, fsync_ms_max, .. } = *self;
        check_range("raft.heartbeat_ms", heartbeat_ms, 1, RAFT_MS_MAX)?;
        check_range("raft.election_ms_min", election_ms_min, 1, RAFT_MS_MAX)?;
        check_range("raft.election_ms_max", election_ms_max, 1, RAFT_MS_MAX)?;
        check_range("raft.zone_delay_ms_max", zone_delay_ms_max, 0, RAFT_MS_MAX)?;
        check_range("raft.fsync_ms_max", fsync_ms_max, 0, RAFT_MS_MAX)?;
        check_range("raft.clock_drift_ppm_max", self.clock_drift_ppm_max, 0, DRIFT_PPM_MAX)?;
        if heartbeat_ms * 3 > election_ms_min {
            return Err(ConfigProblem::HeartbeatSlow { heartbeat_ms, election_ms_min });
        }
        let round_ms = 2 * zone_delay_ms_max + fsync_ms_max;
        if heartbeat_ms <= round_ms {
            return Err(ConfigProblem::HeartbeatFast { heartbeat_ms, zone_delay_ms_max, fsync_ms_max, round_ms });
        }
        let spread_ms = ELECTION_SPREAD_MS_MIN.max(4 * zone_delay_ms_max);
        if election_ms_max < election_ms_min + spread_ms {
            return Err(ConfigProblem::ElectionNarrow { election_ms_min, election_ms_max, spread_ms });
        }
        let timing = self.timing();
        timing.check()?;
        let renewal = timing.heartbeat + Duration::from_millis(round_ms);
        assert!(timing.lease_read_age_max() > renewal, "a lease ends before it can be renewed: {timing:?}");
        Ok(())
    }
}

/// Sizes of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Size of one segment, in MiB; 64 unless given.
    pub segment_mib: u64,
    /// Size of all live segments beyond which snapshots are forced, in MiB; 1,024 unless given.
    pub live_mib_max: u64,
    /// Size of all that a start would have to apply, beyond which snapshots are taken, in MiB; 128 unless given. A start
    /// serves sooner with less, which costs more writing, as each snapshot writes again what has changed.
    pub replay_mib_max: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { segment_mib: 64, live_mib_max: 1_024, replay_mib_max: 128 }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: the configuration cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The file is not a configuration: no YAML, an unknown or missing field, a value of another type.
    #[error("{path}: {message}")]
    Yaml {
        /// The file.
        path: PathBuf,
        /// What is wrong, and at which line.
        message: String,
    },
    /// A value is out of its range, or contradicts another one.
    #[error("{path}: {problem}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: ConfigProblem,
    },
}

/// A value that is out of its range, or contradicts another one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigProblem {
    /// A name is not of the protocol's form.
    #[error(transparent)]
    Name(#[from] DecodeError),
    /// The cluster id is not 32 hexadecimal digits.
    #[error("cluster.id is {given:?}; give 32 hexadecimal digits")]
    ClusterId {
        /// The text given.
        given: String,
    },
    /// A node number is 0.
    #[error("{field} is 0; nodes are numbered from 1")]
    NodeZero {
        /// Which field.
        field: &'static str,
    },
    /// Others cannot reach the address.
    #[error("{field} is {addr}, which others cannot reach; give `advertise` an address of this node and a port")]
    NotReachable {
        /// Which field.
        field: &'static str,
        /// The address.
        addr: SocketAddr,
    },
    /// The certificates are named twice or not wholly.
    #[error("tls has {given}; give either `dir` (and `create`) or all of `ca`, `cert` and `key`")]
    Tls {
        /// The fields given.
        given: String,
    },
    /// The root group does not begin with three members.
    #[error("root has {given} nodes; it begins with exactly {ROOT_MEMBERS}, in three zones")]
    RootCount {
        /// How many there are.
        given: usize,
    },
    /// Two members of the root group share what must be their own.
    #[error("root has node {first} and node {second} both with {what}; each must have its own")]
    RootShared {
        /// One member.
        first: NodeId,
        /// The other member.
        second: NodeId,
        /// What they share.
        what: String,
    },
    /// This node is described differently here and under `root`.
    #[error("this node {node} has {field} {here}, and {there} under root; they must agree")]
    RootDisagrees {
        /// This node.
        node: NodeId,
        /// Which field.
        field: &'static str,
        /// Its value for this node.
        here: String,
        /// Its value under `root`.
        there: String,
    },
    /// A number is out of its range.
    #[error("{field} is {given}; it may be {low} to {high}")]
    Range {
        /// Which field.
        field: &'static str,
        /// The value given.
        given: u64,
        /// Smallest value.
        low: u64,
        /// Largest value.
        high: u64,
    },
    /// A lost heartbeat would start an election.
    #[error(
        "raft.heartbeat_ms is {heartbeat_ms} and raft.election_ms_min {election_ms_min}; three heartbeats must fit in \
         the shortest election timeout"
    )]
    HeartbeatSlow {
        /// Time between heartbeats.
        heartbeat_ms: u64,
        /// Shortest election timeout.
        election_ms_min: u64,
    },
    /// Heartbeats would pile up.
    #[error(
        "raft.heartbeat_ms is {heartbeat_ms}, and one round takes up to {round_ms} ms (2 x raft.zone_delay_ms_max \
         {zone_delay_ms_max} + raft.fsync_ms_max {fsync_ms_max}); a heartbeat must be answered before the next one"
    )]
    HeartbeatFast {
        /// Time between heartbeats.
        heartbeat_ms: u64,
        /// Delay between zones, one way.
        zone_delay_ms_max: u64,
        /// Time of a sync.
        fsync_ms_max: u64,
        /// Time of a round.
        round_ms: u64,
    },
    /// Candidates would split their votes.
    #[error(
        "raft.election_ms_min is {election_ms_min} and raft.election_ms_max {election_ms_max}; they must lie at least \
         {spread_ms} ms apart: {ELECTION_SPREAD_MS_MIN} ms, and 4 x raft.zone_delay_ms_max"
    )]
    ElectionNarrow {
        /// Shortest election timeout.
        election_ms_min: u64,
        /// Longest election timeout.
        election_ms_max: u64,
        /// How far apart they must lie.
        spread_ms: u64,
    },
    /// Replication refuses its times.
    #[error("raft: {0}")]
    Timing(#[from] TimingError),
    /// The log could not free a segment before it is full.
    #[error(
        "log.segment_mib is {segment_mib} and log.live_mib_max {live_mib_max}; the live log must hold at least two \
         segments"
    )]
    LogSmall {
        /// Size of a segment.
        segment_mib: u64,
        /// Size of the live log.
        live_mib_max: u64,
    },
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(CONFIG_BYTES_MAX as u64 + 1).read_to_string(&mut text))
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        if text.len() > CONFIG_BYTES_MAX {
            let message = format!("the configuration is over the limit of {CONFIG_BYTES_MAX} bytes");
            return Err(ConfigError::Yaml { path: path.to_owned(), message });
        }
        let base = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, base, path)
    }

    fn parse(text: &str, base: &Path, path: &Path) -> Result<Self, ConfigError> {
        let options = serde_saphyr::options! { with_snippet: false };
        let file: ConfigFile = serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| ConfigError::Yaml { path: path.to_owned(), message: error.to_string() })?;
        let invalid = |problem| ConfigError::Invalid { path: path.to_owned(), problem };
        let config = file.resolve(base).map_err(invalid)?;
        config.check().map_err(invalid)?;
        Ok(config)
    }

    /// Checks every relation between the values.
    pub fn check(&self) -> Result<(), ConfigProblem> {
        check_name("cluster.name", &self.cluster_name)?;
        let (low, high) = SPOKEN_VERSIONS;
        check_range("cluster.version_max", self.version_max.into(), low.into(), high.into())?;
        check_name("zone", &self.zone)?;
        if self.node.0 == 0 {
            return Err(ConfigProblem::NodeZero { field: "node" });
        }
        check_reachable("advertise", self.advertise)?;
        self.check_root()?;
        check_range("bootstrap.partitions", self.bootstrap.partitions as u64, 1, SET_PARTITIONS_MAX as u64)?;
        check_range("bootstrap.nodes", self.bootstrap.nodes as u64, ROOT_MEMBERS as u64, 100_000)?;
        self.raft.check()?;
        check_range("log.segment_mib", self.log.segment_mib, 1, 4_096)?;
        check_range("log.live_mib_max", self.log.live_mib_max, 1, 1 << 30)?;
        check_range("log.replay_mib_max", self.log.replay_mib_max, 1, 1 << 30)?;
        if self.log.live_mib_max < 2 * self.log.segment_mib {
            let LogConfig { segment_mib, live_mib_max, .. } = self.log;
            return Err(ConfigProblem::LogSmall { segment_mib, live_mib_max });
        }
        if let Some(threads) = self.threads {
            check_range("threads", threads.into(), 1, 1_024)?;
        }
        Ok(())
    }

    fn check_root(&self) -> Result<(), ConfigProblem> {
        if self.root.len() != ROOT_MEMBERS {
            return Err(ConfigProblem::RootCount { given: self.root.len() });
        }
        for (at, member) in self.root.iter().enumerate() {
            check_name("the zone of a root member", &member.zone)?;
            if member.node.0 == 0 {
                return Err(ConfigProblem::NodeZero { field: "a node under root" });
            }
            check_reachable("an address under root", member.addr)?;
            for other in &self.root[..at] {
                let what = if member.node == other.node {
                    format!("the number {}", member.node)
                } else if member.zone == other.zone {
                    format!("the zone {}", member.zone)
                } else if member.addr == other.addr {
                    format!("the address {}", member.addr)
                } else {
                    continue;
                };
                return Err(ConfigProblem::RootShared { first: other.node, second: member.node, what });
            }
        }
        let disagrees = |field, here: String, there: String| {
            Err(ConfigProblem::RootDisagrees { node: self.node, field, here, there })
        };
        match self.root.iter().find(|member| member.node == self.node || member.addr == self.advertise) {
            Some(same) if same.node != self.node => disagrees("node", self.node.to_string(), same.node.to_string()),
            Some(same) if same.zone != self.zone => disagrees("zone", self.zone.clone(), same.zone.clone()),
            Some(same) if same.addr != self.advertise => {
                disagrees("advertise", self.advertise.to_string(), same.addr.to_string())
            }
            _ => Ok(()),
        }
    }

    /// Whether this node is one of the first members of the root group.
    pub fn is_root_member(&self) -> bool {
        self.root.iter().any(|member| member.node == self.node)
    }
}

fn check_range(field: &'static str, given: u64, low: u64, high: u64) -> Result<(), ConfigProblem> {
    if (low..=high).contains(&given) { Ok(()) } else { Err(ConfigProblem::Range { field, given, low, high }) }
}

fn check_reachable(field: &'static str, addr: SocketAddr) -> Result<(), ConfigProblem> {
    if addr.ip().is_unspecified() || addr.port() == 0 {
        return Err(ConfigProblem::NotReachable { field, addr });
    }
    Ok(())
}

// The file as it is written; `resolve` makes a `Config` of it.

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    cluster: ClusterFile,
    node: u64,
    zone: String,
    listen: Address,
    advertise: Option<Address>,
    data_dir: PathBuf,
    tls: TlsFile,
    root: Vec<RootFile>,
    #[serde(default)]
    bootstrap: BootstrapConfig,
    #[serde(default)]
    raft: RaftConfig,
    #[serde(default)]
    log: LogConfig,
    threads: Option<u16>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClusterFile {
    name: String,
    id: String,
    version_max: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsFile {
    dir: Option<PathBuf>,
    create: Option<bool>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RootFile {
    node: u64,
    zone: String,
    addr: Address,
}

/// An address whose refusal says what would be right.
#[derive(Deserialize, Clone, Copy)]
#[serde(try_from = "String")]
struct Address(SocketAddr);

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = |_| format!("{text:?} is no address; give IP:PORT, such as 10.0.0.1:7001");
        text.parse().map(Self).map_err(wrong)
    }
}

impl ConfigFile {
    fn resolve(self, base: &Path) -> Result<Config, ConfigProblem> {
        let cluster = ClusterId::parse(&self.cluster.id)
            .filter(|_| self.cluster.id.bytes().all(|b| b.is_ascii_hexdigit()))
            .ok_or(ConfigProblem::ClusterId { given: self.cluster.id })?;
        let member =
            |member: RootFile| RootMember { node: NodeId(member.node), zone: member.zone, addr: member.addr.0 };
        Ok(Config {
            cluster_name: self.cluster.name,
            cluster,
            version_max: self.cluster.version_max.unwrap_or(SPOKEN_VERSIONS.1),
            node: NodeId(self.node),
            zone: self.zone,
            listen: self.listen.0,
            advertise: self.advertise.unwrap_or(self.listen).0,
            data_dir: base.join(self.data_dir),
            tls: self.tls.resolve(base)?,
            root: self.root.into_iter().map(member).collect(),
            bootstrap: self.bootstrap,
            raft: self.raft,
            log: self.log,
            threads: self.threads,
        })
    }
}

impl TlsFile {
    fn resolve(self, base: &Path) -> Result<TlsConfig, ConfigProblem> {
        match (self.dir, self.create, self.ca, self.cert, self.key) {
            (Some(dir), create, None, None, None) => {
                Ok(TlsConfig::Dir { dir: base.join(dir), create: create.unwrap_or(false) })
            }
            (None, None, Some(ca), Some(cert), Some(key)) => {
                Ok(TlsConfig::Files { ca: base.join(ca), cert: base.join(cert), key: base.join(key) })
            }
            (dir, create, ca, cert, key) => {
                let given = [
                    ("dir", dir.is_some()),
                    ("create", create.is_some()),
                    ("ca", ca.is_some()),
                    ("cert", cert.is_some()),
                    ("key", key.is_some()),
                ];
                let given: Vec<_> = given.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
                let given = if given.is_empty() { "nothing".into() } else { given.join(", ") };
                Err(ConfigProblem::Tls { given })
            }
        }
    }
}

#[cfg(test)]
mod tests;
