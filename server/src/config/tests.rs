use super::*;

const GOOD: &str = "
cluster: {name: demo, id: 00000000000000000000000000000017}
node: 1
zone: a
listen: 127.0.0.1:7001
data_dir: data
tls: {dir: certs, create: true}
root:
  - {node: 1, zone: a, addr: 127.0.0.1:7001}
  - {node: 2, zone: b, addr: 127.0.0.1:7002}
  - {node: 3, zone: c, addr: 127.0.0.1:7003}
";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/stoa"), Path::new("/etc/stoa/node.yaml"))
}

#[test]
fn a_short_file_has_every_default_and_paths_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.yaml");
    std::fs::write(&path, GOOD).unwrap();
    let config = Config::load(&path).unwrap();
    assert_eq!(config.cluster, ClusterId(0x17));
    assert_eq!(config.advertise, config.listen);
    assert_eq!(config.data_dir, dir.path().join("data"));
    assert_eq!(config.tls, TlsConfig::Dir { dir: dir.path().join("certs"), create: true });
    assert_eq!(config.bootstrap, BootstrapConfig { partitions: 64, nodes: 3 });
    assert_eq!(config.raft.timing(), RaftTiming::default());
    assert_eq!(config.log, LogConfig { segment_mib: 64, live_mib_max: 1_024, replay_mib_max: 128 });
    assert!(config.is_root_member());
}

#[test]
fn a_full_file_keeps_what_it_says() {
    let text = GOOD.replace("tls: {dir: certs, create: true}", "tls: {ca: ca.pem, cert: /x/n.pem, key: n.key}")
        + "advertise: 127.0.0.1:7001\nbootstrap: {partitions: 8, nodes: 6}\nraft: {heartbeat_ms: 200, election_ms_min: \
           900, election_ms_max: 1500, zone_delay_ms_max: 2, fsync_ms_max: 20, clock_drift_ppm_max: 500}\nlog: {segment_mib: 8, live_mib_max: 64}\nthreads: 2\n";
    let config = parse(&text).unwrap();
    let ca = PathBuf::from("/etc/stoa/ca.pem");
    assert_eq!(config.tls, TlsConfig::Files { ca, cert: "/x/n.pem".into(), key: "/etc/stoa/n.key".into() });
    let ms = Duration::from_millis;
    let timing = RaftTiming {
        heartbeat: ms(200),
        election_min: ms(900),
        election_max: ms(1500),
        zone_delay_max: ms(2),
        fsync_max: ms(20),
        clock_drift_ppm: 500,
    };
    assert_eq!(config.raft.timing(), timing);
    assert_eq!(timing.lease(), ms(1500), "the lease is the longest election timeout, and nothing of its own");
    assert_eq!((config.threads, config.bootstrap.nodes), (Some(2), 6));
}

#[test]
fn a_node_outside_the_root_group_is_fine() {
    let text = GOOD.replace("node: 1\nzone: a\nlisten: 127.0.0.1:7001", "node: 4\nzone: a\nlisten: 127.0.0.1:7004");
    assert!(!parse(&text).unwrap().is_root_member());
}

#[test]
fn each_refusal_names_the_values_and_what_would_be_right() {
    let more = |text: &str| format!("{GOOD}{text}\n");
    let cases = [
        (GOOD.replace("name: demo", "name: Demo"), "cluster.name is \"Demo\", and may be 1 to 64"),
        (GOOD.replace("00000017", "0000001"), "cluster.id is \"0000000000000000000000000000001\"; give 32"),
        (GOOD.replace("id: 0000", "id: +000"), "give 32 hexadecimal digits"),
        (GOOD.replace("zone: a\n", "zone: A\n"), "zone is \"A\", and may be"),
        (GOOD.replace("node: 1\n", "node: 0\n"), "node is 0; nodes are numbered from 1"),
        (GOOD.replace("node: 2,", "node: 0,"), "a node under root is 0"),
        (GOOD.replace("listen: 127.0.0.1:7001", "listen: 0.0.0.0:7001"), "advertise is 0.0.0.0:7001, which others"),
        (GOOD.replace("127.0.0.1:7003", "127.0.0.1:0"), "an address under root is 127.0.0.1:0"),
        (GOOD.replace("dir: certs, create: true", "dir: certs, ca: x"), "tls has dir, ca; give either"),
        (GOOD.replace("dir: certs, create: true", ""), "tls has nothing"),
        (
            GOOD.replace("  - {node: 3, zone: c, addr: 127.0.0.1:7003}\n", ""),
            "root has 2 nodes; it begins with exactly 3",
        ),
        (GOOD.replace("zone: c", "zone: b"), "node 2 and node 3 both with the zone b"),
        (GOOD.replace("node: 3", "node: 2"), "node 2 and node 2 both with the number 2"),
        (GOOD.replace("7003", "7002"), "both with the address 127.0.0.1:7002"),
        (GOOD.replace("zone: a\n", "zone: b\n"), "this node 1 has zone b, and a under root"),
        (GOOD.replace("node: 1\n", "node: 9\n"), "this node 9 has node 9, and 1 under root"),
        (more("advertise: 127.0.0.1:9"), "this node 1 has advertise 127.0.0.1:9, and 127.0.0.1:7001 under root"),
        (more("bootstrap: {partitions: 0}"), "bootstrap.partitions is 0; it may be 1 to 4096"),
        (more("bootstrap: {partitions: 4097}"), "bootstrap.partitions is 4097; it may be 1 to 4096"),
        (more("bootstrap: {nodes: 2}"), "bootstrap.nodes is 2; it may be 3 to"),
        (more("raft: {heartbeat_ms: 134}"), "raft.heartbeat_ms is 134 and raft.election_ms_min 400; three heartbeats"),
        (
            more("raft: {heartbeat_ms: 60}"),
            "raft.heartbeat_ms is 60, and one round takes up to 60 ms (2 x raft.zone_delay_ms_max 5 + raft.fsync_ms_max 50)",
        ),
        (more("raft: {zone_delay_ms_max: 25}"), "takes up to 100 ms (2 x raft.zone_delay_ms_max 25"),
        (more("raft: {fsync_ms_max: 90}"), "takes up to 100 ms (2 x raft.zone_delay_ms_max 5 + raft.fsync_ms_max 90)"),
        (
            more("raft: {election_ms_max: 499}"),
            "raft.election_ms_min is 400 and raft.election_ms_max 499; they must lie",
        ),
        (
            more("raft: {election_ms_min: 501}"),
            "raft.election_ms_min is 501 and raft.election_ms_max 600; they must lie",
        ),
        (
            more("raft: {heartbeat_ms: 130, zone_delay_ms_max: 35, election_ms_max: 539}"),
            "at least 140 ms apart: 100 ms, and 4 x raft.zone_delay_ms_max",
        ),
        (more("raft: {clock_drift_ppm_max: 100001}"), "raft.clock_drift_ppm_max is 100001; it may be 0 to 100000"),
        (more("raft: {heartbeat_ms: 0}"), "raft.heartbeat_ms is 0; it may be 1 to 600000"),
        (more("raft: {election_ms_max: 18446744073709551615}"), "raft.election_ms_max is 18446744073709551615; it may"),
        (more("raft: {lease_ms: 300}"), "lease_ms"),
        (GOOD.replace("name: demo", "name: demo, version_max: 9"), "cluster.version_max is 9; it may be 1 to 4"),
        (more("log: {segment_mib: 0}"), "log.segment_mib is 0; it may be 1 to 4096"),
        (more("log: {replay_mib_max: 0}"), "log.replay_mib_max is 0; it may be 1 to 1073741824"),
        (more("log: {segment_mib: 64, live_mib_max: 127}"), "log.segment_mib is 64 and log.live_mib_max 127"),
        (more("threads: 0"), "threads is 0; it may be 1 to 1024"),
        (more("trheads: 1"), "trheads"),
        (more("raft: {heartbeat: 1}"), "heartbeat"),
        (GOOD.replace("data_dir: data\n", ""), "data_dir"),
        (GOOD.replace("listen: 127.0.0.1:7001", "listen: localhost"), "give IP:PORT"),
        ("cluster: [".into(), "line 1"),
    ];
    for (text, wanted) in cases {
        let message = parse(&text).expect_err(&text).to_string();
        assert!(message.starts_with("/etc/stoa/node.yaml: "), "{message}");
        assert!(message.contains(wanted), "{message}\nshould have\n{wanted}");
    }
}

#[test]
fn times_at_the_edge_of_every_relation_are_taken() {
    for raft in [
        "{heartbeat_ms: 133}",
        "{heartbeat_ms: 61}",
        "{zone_delay_ms_max: 24}",
        "{fsync_ms_max: 89}",
        "{election_ms_max: 500}",
        "{election_ms_min: 500}",
        "{heartbeat_ms: 130, zone_delay_ms_max: 35, election_ms_max: 540}",
        "{clock_drift_ppm_max: 100000}",
        "{heartbeat_ms: 199966, election_ms_min: 599900, election_ms_max: 600000, clock_drift_ppm_max: 100000}",
    ] {
        let config = parse(&format!("{GOOD}raft: {raft}\n"));
        assert!(config.is_ok(), "{raft}: {config:?}");
    }
}

#[test]
fn a_missing_or_huge_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.yaml");
    assert!(Config::load(&path).unwrap_err().to_string().contains("node.yaml: the configuration cannot be read"));
    std::fs::write(&path, " ".repeat(CONFIG_BYTES_MAX + 1)).unwrap();
    assert!(Config::load(&path).unwrap_err().to_string().contains("over the limit"));
}
