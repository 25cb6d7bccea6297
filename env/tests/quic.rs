//! The QUIC transport over real sockets of the loopback interface: echo, identities, limits, and peers that die.
//! Conditions are polled for with a deadline; nothing here judges speed.

// clippy exempts `#[test]` functions alone; the helpers of a test file are tests as well.
#![allow(clippy::unwrap_used)]

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use stoa_env::transport::credentials::{ANY_NODE_NAME, CLIENT_NAME, node_name};
use stoa_env::{
    BindError, Channel, Clock, Credentials, CredentialsError, FRAME_BYTES_MAX, Handler, Peer, PeerIdentity,
    QuicOptions, QuicTransport, RealClock, Transport, TransportError, WallTime,
};
use tokio::sync::Notify;

/// Longer than anything here should take, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(30);

// ---- certificates ----

struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

#[derive(Clone)]
struct Leaf {
    names: Vec<String>,
    common_name: String,
    usages: Vec<ExtendedKeyUsagePurpose>,
    days: (i64, i64),
}

impl Leaf {
    fn node(id: u64) -> Self {
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        Self {
            names: vec![node_name(id), ANY_NODE_NAME.into()],
            common_name: format!("node {id}"),
            usages,
            days: (-1, 9),
        }
    }

    fn client(principal: &str) -> Self {
        let usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Self { names: vec![CLIENT_NAME.into()], common_name: principal.into(), usages, days: (-1, 9) }
    }
}

impl Ca {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, leaf: &Leaf) -> (String, String) {
        let mut params = CertificateParams::new(leaf.names.clone()).unwrap();
        params.distinguished_name.push(DnType::CommonName, leaf.common_name.as_str());
        params.extended_key_usages = leaf.usages.clone();
        let day = |days: i64| {
            let seconds = RealClock.wall().0 / 1_000_000 + days * 86_400;
            rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds as u64)
        };
        (params.not_before, params.not_after) = (day(leaf.days.0), day(leaf.days.1));
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn load(&self, leaf: &Leaf) -> Result<Credentials, CredentialsError> {
        let (cert, key) = self.issue(leaf);
        Credentials::from_pem(&self.pem, &cert, &key, RealClock.wall())
    }

    fn node(&self, id: u64) -> Credentials {
        self.load(&Leaf::node(id)).unwrap()
    }

    fn client(&self, principal: &str) -> Credentials {
        self.load(&Leaf::client(principal)).unwrap()
    }
}

// ---- processes ----

/// Answers by the request's first letter.
#[derive(Default)]
struct Scripted {
    handled: AtomicUsize,
    released: Notify,
}

impl Handler for Scripted {
    async fn handle(self: Arc<Self>, from: Arc<PeerIdentity>, channel: Channel, request: Bytes) -> Bytes {
        self.handled.fetch_add(1, Ordering::SeqCst);
        match request.first() {
            Some(b'e') => request,
            Some(b'w') => Bytes::from(format!("{from:?} on {channel:?}")),
            Some(b'p') => panic!("the handler was asked to panic"),
            Some(b'0') => Bytes::new(),
            Some(b'L') => Bytes::from(vec![7; FRAME_BYTES_MAX + 1]),
            Some(b'b') => Bytes::from(vec![7; 20_000]),
            Some(b'n') => {
                self.released.notified().await;
                request
            }
            other => panic!("no script for {other:?}"),
        }
    }
}

struct Node {
    transport: QuicTransport,
    handler: Arc<Scripted>,
    peer: Peer,
}

fn node_with(ca: &Ca, id: u64, listen: SocketAddr, options: QuicOptions) -> Result<Node, BindError> {
    let transport = QuicTransport::bind(listen, ca.node(id), options)?;
    let handler = Arc::new(Scripted::default());
    transport.serve(handler.clone());
    let peer = Peer { addr: transport.local_addr().unwrap(), node: Some(id) };
    Ok(Node { transport, handler, peer })
}

fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

fn node(ca: &Ca, id: u64) -> Node {
    node_with(ca, id, any_port(), QuicOptions::default()).unwrap()
}

fn client(credentials: Credentials) -> QuicTransport {
    QuicTransport::client_only(credentials, QuicOptions::default()).unwrap()
}

async fn ask(from: &QuicTransport, to: Peer, request: impl Into<Bytes>) -> Result<Bytes, TransportError> {
    from.call(to, Channel::Client, request.into(), PATIENCE).await
}

/// Polls until `condition` gives something.
async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut condition: impl FnMut() -> F) -> T {
    let deadline = RealClock.boot().plus(PATIENCE);
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(RealClock.boot() < deadline, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn assert_untrusted(outcome: Result<Bytes, TransportError>, words: &str) {
    match outcome {
        Err(TransportError::Untrusted { reason, .. }) if reason.starts_with(words) => {}
        other => panic!("expected Untrusted because {words:?}, got {other:?}"),
    }
}

// ---- messages ----

#[tokio::test(flavor = "multi_thread")]
async fn echoes_of_all_sizes_come_back_whole() {
    let ca = Ca::new("one");
    let (node, client) = (node(&ca, 1), client(ca.client("anna")));
    for bytes in [1, 20_000, 8 << 20, FRAME_BYTES_MAX] {
        let request: Bytes = (0..bytes).map(|i| if i == 0 { b'e' } else { ((i * 31) >> 3) as u8 }).collect();
        let answer = ask(&client, node.peer, request.clone()).await.unwrap();
        assert!(answer == request, "{bytes} bytes came back changed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_calls_at_once_share_one_connection() {
    let ca = Ca::new("one");
    let (node, client) = (node(&ca, 1), client(ca.client("anna")));
    let mut calls = stoa_env::JoinSet::new();
    for i in 0..1000 {
        let (client, peer) = (client.clone(), node.peer);
        calls.spawn(async move {
            let request = Bytes::from(format!("e{i}"));
            assert_eq!(ask(&client, peer, request.clone()).await, Ok(request));
        });
    }
    let mut done = 0;
    while let Some(call) = calls.join_next().await {
        call.unwrap();
        done += 1;
    }
    assert_eq!((done, node.handler.handled.load(Ordering::SeqCst)), (1000, 1000));
}

#[tokio::test]
async fn the_handler_sees_proven_identity_and_channel() {
    let ca = Ca::new("one");
    let node_1 = node(&ca, 1);
    let node_2 = node(&ca, 2);
    let anna = client(ca.client("anna"));
    assert_eq!(ask(&anna, node_1.peer, "w").await.unwrap(), r#"Client("anna") on Client"#);
    for channel in [Channel::Liveness, Channel::Append, Channel::Snapshot, Channel::Client] {
        let answer = node_2.transport.call(node_1.peer, channel, "w".into(), PATIENCE).await.unwrap();
        assert_eq!(answer, format!("Node(2) on {channel:?}"));
    }
    let seed = Peer { node: None, ..node_1.peer };
    assert_eq!(ask(&anna, seed, "e").await.unwrap(), "e", "a seed is any node of the cluster");
}

#[tokio::test]
async fn a_message_over_the_limit_is_a_typed_error_and_the_connection_lives() {
    let ca = Ca::new("one");
    let (node, anna) = (node(&ca, 1), client(ca.client("anna")));
    let too_large = |bytes| TransportError::TooLarge { addr: node.peer.addr, bytes, limit: FRAME_BYTES_MAX };
    let request = vec![b'e'; FRAME_BYTES_MAX + 1];
    assert_eq!(ask(&anna, node.peer, request).await, Err(too_large(FRAME_BYTES_MAX + 1)));
    assert_eq!(ask(&anna, node.peer, "L").await, Err(too_large(FRAME_BYTES_MAX + 1)));
    assert_eq!(ask(&anna, node.peer, "e").await.unwrap(), "e");
}

#[tokio::test]
async fn a_server_with_a_lower_limit_refuses_a_request_over_it() {
    let ca = Ca::new("one");
    let low = QuicOptions { frame_bytes_max: 1000, ..QuicOptions::default() };
    let node = node_with(&ca, 1, any_port(), low).unwrap();
    let anna = client(ca.client("anna"));
    let outcome = ask(&anna, node.peer, vec![b'e'; 300_000]).await;
    assert!(matches!(outcome, Err(TransportError::TooLarge { bytes: 300_000, .. })), "{outcome:?}");
    assert_eq!(node.handler.handled.load(Ordering::SeqCst), 0);
    assert_eq!(ask(&anna, node.peer, "e").await.unwrap(), "e");
}

#[tokio::test]
async fn a_panic_in_the_handler_breaks_its_call_alone() {
    let ca = Ca::new("one");
    let (node, anna) = (node(&ca, 1), client(ca.client("anna")));
    let waiting = tokio::join!(ask(&anna, node.peer, "n"), async {
        eventually("the waiting call is handled", async || {
            (node.handler.handled.load(Ordering::SeqCst) == 1).then_some(())
        })
        .await;
        let outcome = ask(&anna, node.peer, "p").await;
        assert!(matches!(outcome, Err(TransportError::Broken { .. })), "{outcome:?}");
        let outcome = ask(&anna, node.peer, "0").await;
        assert!(matches!(outcome, Err(TransportError::Broken { .. })), "{outcome:?}");
        node.handler.released.notify_one();
    });
    assert_eq!(waiting.0.unwrap(), "n", "a call beside the panic went on over the same connection");
}

#[tokio::test]
async fn calls_given_up_by_the_hundred_do_not_use_up_the_connection() {
    let ca = Ca::new("one");
    let (node, anna) = (node(&ca, 1), client(ca.client("anna")));
    assert_eq!(ask(&anna, node.peer, "e").await.unwrap(), "e");
    for _ in 0..1000 {
        // Never released by the handler before the end: each caller goes away after the request was sent.
        let outcome = anna.call(node.peer, Channel::Client, "e".into(), Duration::from_micros(1)).await;
        assert!(
            outcome.is_ok() || matches!(outcome, Err(TransportError::TimedOut { .. } | TransportError::NotSent { .. }))
        );
    }
    assert_eq!(ask(&anna, node.peer, "e").await.unwrap(), "e");
}

// ---- who is who ----

#[tokio::test]
async fn a_foreign_ca_is_refused_on_both_sides() {
    let (ours, theirs) = (Ca::new("ours"), Ca::new("theirs"));
    let node = node(&ours, 1);
    // The dialer refuses the node.
    let foreign = client(theirs.client("anna"));
    assert_untrusted(ask(&foreign, node.peer, "e").await, "the certificate is not signed by this cluster's CA");
    // The node refuses the dialer, which trusts it.
    let (cert, key) = theirs.issue(&Leaf::client("anna"));
    let both = format!("{}{}", ours.pem, theirs.pem);
    let trusting = Credentials::from_pem(&both, &cert, &key, RealClock.wall()).unwrap();
    let outcome = ask(&client(trusting), node.peer, "e").await;
    assert_untrusted(outcome, "it refused our certificate: the certificate is not signed by this cluster's CA");
    assert_eq!(node.handler.handled.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn another_node_than_the_expected_one_is_untrusted() {
    let ca = Ca::new("one");
    let (node, anna) = (node(&ca, 1), client(ca.client("anna")));
    let wrong = Peer { node: Some(2), ..node.peer };
    assert_untrusted(
        ask(&anna, wrong, "e").await,
        "the certificate names node-1.stoa.internal, node.stoa.internal, not node-2.stoa.internal",
    );
    assert_eq!(ask(&anna, node.peer, "e").await.unwrap(), "e");
}

#[tokio::test]
async fn a_clients_certificate_cannot_be_a_nodes() {
    let ca = Ca::new("one");
    let refused = QuicTransport::bind(any_port(), ca.client("anna"), QuicOptions::default());
    assert!(matches!(refused, Err(BindError::NotANode { principal, .. }) if principal == "anna"));
    // Past our own check, with the certificate as it would be used by somebody else's program.
    for node_of in [Some(1), None] {
        let (cert, key) = ca.issue(&Leaf::client("anna"));
        let addr = foreign_server(&ca, &cert, &key);
        let bert = client(ca.client("bert"));
        let outcome = ask(&bert, Peer { addr, node: node_of }, "e").await;
        assert!(matches!(outcome, Err(TransportError::Untrusted { .. })), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_certificate_that_may_serve_but_names_a_client_or_a_wildcard_is_no_nodes() {
    let ca = Ca::new("one");
    let bert = client(ca.client("bert"));
    let mut both = Leaf::node(1);
    both.names.push(CLIENT_NAME.into());
    let mut wildcard = Leaf::node(3);
    wildcard.names.push("*.stoa.internal".into());
    for leaf in [both, wildcard] {
        let (cert, key) = ca.issue(&leaf);
        let addr = foreign_server(&ca, &cert, &key);
        let outcome = ask(&bert, Peer { addr, node: Some(1) }, "e").await;
        assert!(matches!(outcome, Err(TransportError::Untrusted { .. })), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_client_may_not_use_the_channels_between_nodes() {
    let ca = Ca::new("one");
    let (node, anna) = (node(&ca, 1), client(ca.client("anna")));
    for channel in [Channel::Liveness, Channel::Append, Channel::Snapshot] {
        assert_untrusted(
            anna.call(node.peer, channel, "e".into(), PATIENCE).await,
            "it refused us: the channel is for nodes alone",
        );
    }
    assert_eq!(node.handler.handled.load(Ordering::SeqCst), 0);
}

#[test]
fn bad_credentials_name_the_file_and_the_fault() {
    let (ca, other) = (Ca::new("one"), Ca::new("other"));
    let now = RealClock.wall();
    let (cert, key) = ca.issue(&Leaf::node(1));
    let load =
        |ca: &str, cert: &str, key: &str| Credentials::from_pem(ca, cert, key, now).map(|c| c.identity().clone());
    assert_eq!(load(&ca.pem, &cert, &key), Ok(PeerIdentity::Node(1)));
    let fault = |outcome: Result<PeerIdentity, CredentialsError>| outcome.unwrap_err().to_string();

    let (_, other_key) = ca.issue(&Leaf::node(1));
    assert!(fault(load(&ca.pem, &cert, &other_key)).starts_with("the key: this private key does not match"));
    assert!(fault(load(&other.pem, &cert, &key)).contains("not signed by the CA in the CA"));
    assert!(fault(load(&ca.pem, "hello", &key)).starts_with("the certificate: holds no certificate"));
    assert!(fault(load(&ca.pem, &cert, &cert)).starts_with("the key: holds no private key"));
    assert!(fault(load(&ca.pem, &cert[..cert.len() / 2], &key)).starts_with("the certificate: "));

    let (ten_days, year) = (WallTime(now.0 + 10 * 86_400_000_000), WallTime(now.0 - 365 * 86_400_000_000));
    let at = |when| Credentials::from_pem(&ca.pem, &cert, &key, when).unwrap_err();
    assert!(matches!(at(ten_days), CredentialsError::Expired { .. }));
    assert!(matches!(at(year), CredentialsError::NotYetValid { .. }));

    let nobody = Leaf { names: vec!["example.org".into()], ..Leaf::node(1) };
    let serving_only = Leaf { usages: vec![ExtendedKeyUsagePurpose::ServerAuth], ..Leaf::node(1) };
    let nameless = Leaf { common_name: String::new(), ..Leaf::client("anna") };
    let two = Leaf { names: vec![node_name(1), node_name(2), ANY_NODE_NAME.into()], ..Leaf::node(1) };
    for leaf in [nobody, serving_only, nameless, two] {
        let error = ca.load(&leaf).unwrap_err();
        assert!(matches!(error, CredentialsError::NotAnIdentity { .. }), "{:?}: {error}", leaf.names);
    }

    let missing = std::path::Path::new("/nowhere/node-1.pem");
    let error = Credentials::from_pem_files(missing, missing, missing, now).unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/node-1.pem: cannot be read (No such file"), "{error}");
}

#[tokio::test]
async fn an_expired_certificate_is_refused_in_the_handshake() {
    let ca = Ca::new("one");
    let node = node(&ca, 1);
    let (cert, key) = ca.issue(&Leaf { days: (-9, -1), ..Leaf::client("anna") });
    let when_valid = WallTime(RealClock.wall().0 - 5 * 86_400_000_000);
    let stale = Credentials::from_pem(&ca.pem, &cert, &key, when_valid).unwrap();
    assert_untrusted(
        ask(&client(stale), node.peer, "e").await,
        "it refused our certificate: the certificate has expired",
    );
}

// ---- peers that die ----

/// A node in a runtime of its own, which can be stopped dead: no task of it runs on, nothing more is sent.
struct Doomed {
    runtime: tokio::runtime::Runtime,
    node: Node,
}

/// An idle time so long that within [`PATIENCE`] only the stateless reset of a restarted node ends the old connection.
/// The shorter idle time of both ends counts.
fn patient() -> QuicOptions {
    QuicOptions { idle_max: Duration::from_secs(500), ..QuicOptions::default() }
}

impl Doomed {
    fn start(credentials: Credentials, listen: SocketAddr) -> Option<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let bound = {
            let _inside = runtime.enter();
            QuicTransport::bind(listen, credentials, patient()).map(|transport| {
                let handler = Arc::new(Scripted::default());
                transport.serve(handler.clone());
                let peer = Peer { addr: transport.local_addr().unwrap(), node: Some(1) };
                Node { transport, handler, peer }
            })
        };
        match bound {
            Ok(node) => Some(Self { runtime, node }),
            Err(_port_in_use) => {
                runtime.shutdown_background();
                None
            }
        }
    }

    /// The runtime stops first, and wholly, so that the farewell of the transport finds nobody to send it.
    fn kill(self) {
        let Self { runtime, node } = self;
        // Stopping blocks, which a thread of another runtime may not do.
        std::thread::spawn(move || runtime.shutdown_timeout(PATIENCE)).join().unwrap();
        drop(node);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_to_a_killed_peer_ends_by_its_limit() {
    let ca = Ca::new("one");
    let anna = client(ca.client("anna"));
    let doomed = Doomed::start(ca.node(1), any_port()).unwrap();
    let peer = doomed.node.peer;
    assert_eq!(ask(&anna, peer, "e").await.unwrap(), "e");
    doomed.kill();
    let limit = Duration::from_millis(50);
    let began = RealClock.boot();
    let outcome = anna.call(peer, Channel::Client, "e".into(), limit).await;
    assert_eq!(outcome, Err(TransportError::TimedOut { addr: peer.addr, limit }));
    // A bound against hanging, not a judgement of speed: the idle time alone would be 3 s.
    assert!(RealClock.boot().since(began) < Duration::from_secs(2), "the call did not end by its limit");
    // In the end the connection is given up, and calls say that they were not sent.
    eventually("the dead connection is noticed", async || {
        matches!(anna.call(peer, Channel::Client, "e".into(), limit).await, Err(TransportError::NotSent { .. }))
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_restarts_at_its_port_is_reached_before_the_idle_time() {
    let ca = Ca::new("one");
    let credentials = ca.node(1);
    let anna = QuicTransport::client_only(ca.client("anna"), patient()).unwrap();
    let doomed = Doomed::start(credentials.clone(), any_port()).unwrap();
    let peer = doomed.node.peer;
    assert_eq!(ask(&anna, peer, "e").await.unwrap(), "e");
    doomed.kill();
    let restarted = eventually("the port is free again", async || Doomed::start(credentials.clone(), peer.addr)).await;
    let answer = eventually("the restarted node answers", async || {
        anna.call(peer, Channel::Client, vec![b'e'; 200].into(), Duration::from_millis(500)).await.ok()
    })
    .await;
    assert_eq!(answer.len(), 200);
    restarted.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_peer_fails_its_calls_and_is_dialled_anew() {
    let ca = Ca::new("one");
    let (node, anna) = (node(&ca, 1), client(ca.client("anna")));
    let forget = async {
        eventually("the call is handled", async || (node.handler.handled.load(Ordering::SeqCst) == 1).then_some(()))
            .await;
        anna.forget(node.peer.addr);
    };
    let (outcome, ()) = tokio::join!(ask(&anna, node.peer, "n"), forget);
    assert!(matches!(outcome, Err(TransportError::Broken { .. })), "{outcome:?}");
    assert_eq!(ask(&anna, node.peer, "e").await.unwrap(), "e");
}

#[tokio::test]
async fn nobody_listening_is_not_sent_by_the_limit_and_cached_no_longer_than_the_back_off() {
    let ca = Ca::new("one");
    let brief = QuicOptions { connect_within: Duration::from_millis(50), ..QuicOptions::default() };
    let anna = QuicTransport::client_only(ca.client("anna"), brief).unwrap();
    let addr = node(&ca, 1).peer.addr; // dropped at once
    let peer = Peer { addr, node: Some(1) };
    let outcome = anna.call(peer, Channel::Client, "e".into(), Duration::from_millis(20)).await;
    assert!(matches!(outcome, Err(TransportError::NotSent { .. })), "{outcome:?}");
    // The attempt itself fails, and is remembered for the back-off.
    let outcome = ask(&anna, peer, "e").await;
    assert!(
        matches!(&outcome, Err(TransportError::NotSent { reason, .. }) if reason.contains("handshake")),
        "{outcome:?}"
    );
    let revived =
        eventually("the port is free again", async || node_with(&ca, 1, addr, QuicOptions::default()).ok()).await;
    eventually("the revived node answers", async || ask(&anna, peer, "e").await.ok()).await;
    drop(revived);
}

#[tokio::test]
async fn a_closed_transport_answers_no_more_and_frees_its_port() {
    let ca = Ca::new("one");
    let (node, anna) = (node(&ca, 1), client(ca.client("anna")));
    assert_eq!(ask(&anna, node.peer, "e").await.unwrap(), "e");
    node.transport.close().await;
    let own = node.transport.call(node.peer, Channel::Client, "e".into(), PATIENCE).await;
    assert!(matches!(own, Err(TransportError::NotSent { .. })), "{own:?}");
    let addr = node.peer.addr;
    drop(node);
    eventually("the port is free again", async || node_with(&ca, 1, addr, QuicOptions::default()).ok()).await;
}

// ---- bounds ----

#[tokio::test]
async fn a_port_in_use_is_named() {
    let ca = Ca::new("one");
    let node = node(&ca, 1);
    let second = QuicTransport::bind(node.peer.addr, ca.node(2), QuicOptions::default()).unwrap_err();
    assert!(matches!(second, BindError::InUse { addr } if addr == node.peer.addr), "{second}");
    assert!(second.to_string().contains(&node.peer.addr.to_string()));
    let elsewhere = QuicTransport::bind("192.0.2.1:7400".parse().unwrap(), ca.node(2), QuicOptions::default());
    assert!(matches!(elsewhere, Err(BindError::NotLocal { .. })));
}

#[tokio::test]
async fn a_request_that_trickles_is_reset_while_other_calls_go_on() {
    let ca = Ca::new("one");
    let impatient = QuicOptions { request_within: Duration::from_millis(300), ..QuicOptions::default() };
    let node = node_with(&ca, 1, any_port(), impatient).unwrap();
    let (cert, key) = ca.issue(&Leaf::client("loris"));
    let (_endpoint, connection) = raw_connection(&ca, &cert, &key, node.peer.addr).await;
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(b"e").await.unwrap();
    let (mut other_send, mut other_recv) = connection.open_bi().await.unwrap();
    let reset = async {
        // A byte now and then, never the end, until the server has had enough.
        eventually("the stream is stopped", async || {
            tokio::time::timeout(Duration::from_millis(1), send.stopped()).await.ok().map(drop)
        })
        .await;
        assert!(matches!(recv.read_to_end(10).await, Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(_)))));
    };
    tokio::time::timeout(PATIENCE, reset).await.unwrap();
    other_send.write_all(b"e").await.unwrap();
    other_send.finish().unwrap();
    assert_eq!(other_recv.read_to_end(10).await.unwrap(), b"e", "the same connection goes on");
    assert_eq!(node.handler.handled.load(Ordering::SeqCst), 1, "a request that is not whole is never handled");
}

#[tokio::test]
async fn answers_that_nobody_reads_are_dropped_in_time() {
    let ca = Ca::new("one");
    let impatient = QuicOptions { reply_within: Duration::from_millis(300), ..QuicOptions::default() };
    let node = node_with(&ca, 1, any_port(), impatient).unwrap();
    let (cert, key) = ca.issue(&Leaf::client("deaf"));
    let (_endpoint, connection) = raw_connection(&ca, &cert, &key, node.peer.addr).await;
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&vec![b'e'; 8 << 20]).await.unwrap();
    send.finish().unwrap();
    let reset = tokio::time::timeout(PATIENCE, recv.received_reset()).await.unwrap();
    assert!(matches!(reset, Ok(Some(_))), "{reset:?}");
}

#[tokio::test]
async fn requests_that_one_client_sends_slowly_are_bounded_with_those_of_all_others() {
    let ca = Ca::new("one");
    let small = QuicOptions {
        frame_bytes_max: 1 << 20,
        client_request_bytes_max: 1 << 20,
        request_within: Duration::from_secs(1),
        ..QuicOptions::default()
    };
    let bounds = small.bounds.clone();
    let node = node_with(&ca, 1, any_port(), small).unwrap();
    let (cert, key) = ca.issue(&Leaf::client("loris"));
    let (_endpoint, connection) = raw_connection(&ca, &cert, &key, node.peer.addr).await;
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(&vec![b'e'; (1 << 20) - 1]).await.unwrap();
    let held = || bounds.table().iter().any(|b| b.name.ends_with("that are read") && b.high + 1 == b.bound);
    eventually("all of it is read", async || held().then_some(())).await;
    let anna = client(ca.client("anna"));
    let large = vec![b'e'; 100_000];
    let outcome = ask(&anna, node.peer, large.clone()).await;
    assert!(
        matches!(&outcome, Err(TransportError::NoRoom { reason, .. }) if reason.contains("as many bytes")),
        "{outcome:?}"
    );
    let peers = client(ca.node(2));
    assert_eq!(ask(&peers, node.peer, large.clone()).await.unwrap(), large, "another node's are not those of clients");
    assert_eq!(ask(&anna, node.peer, "e").await.unwrap(), "e", "a small one is read all the same");
    assert_eq!(node.handler.handled.load(Ordering::SeqCst), 2, "what was refused was not handled");
    eventually("there is room again", async || ask(&anna, node.peer, large.clone()).await.ok()).await;
}

#[tokio::test]
async fn answers_that_one_client_does_not_read_are_bounded_with_those_of_all_others() {
    let ca = Ca::new("one");
    let small = QuicOptions {
        frame_bytes_max: 8 << 20,
        client_answer_bytes_max: 8 << 20,
        reply_within: Duration::from_secs(1),
        ..QuicOptions::default()
    };
    let bounds = small.bounds.clone();
    let node = node_with(&ca, 1, any_port(), small).unwrap();
    let (cert, key) = ca.issue(&Leaf::client("deaf"));
    let (_endpoint, connection) = raw_connection(&ca, &cert, &key, node.peer.addr).await;
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(&vec![b'e'; 8 << 20]).await.unwrap();
    send.finish().unwrap();
    let held = || bounds.table().iter().any(|b| b.name.ends_with("that clients have not taken") && b.high == b.bound);
    eventually("the answer waits", async || held().then_some(())).await;
    let anna = client(ca.client("anna"));
    let outcome = ask(&anna, node.peer, "b").await;
    assert!(
        matches!(&outcome, Err(TransportError::AnswerDropped { reason, .. }) if reason.contains("not read fast enough")),
        "{outcome:?}"
    );
    ask(&client(ca.node(2)), node.peer, "b").await.expect("what other nodes get does not wait for clients");
    eventually("there is room again", async || ask(&anna, node.peer, "b").await.ok()).await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused_as_not_sent() {
    let ca = Ca::new("one");
    let small = QuicOptions { inbound_connections_max: 2, inbound_clients_max: 1, ..QuicOptions::default() };
    let bounds = small.bounds.clone();
    let node_1 = node_with(&ca, 1, any_port(), small).unwrap();
    let (anna, bert, node_2, node_3) =
        (client(ca.client("anna")), client(ca.client("bert")), node(&ca, 2), node(&ca, 3));
    assert_eq!(ask(&anna, node_1.peer, "e").await.unwrap(), "e");
    let outcome = ask(&bert, node_1.peer, "e").await;
    assert!(
        matches!(&outcome, Err(TransportError::NotSent { reason, .. }) if reason.contains("clients")),
        "{outcome:?}"
    );
    // A node still gets the place that clients may not take, once the refused connection is gone.
    eventually("a node is let in", async || ask(&node_2.transport, node_1.peer, "e").await.ok()).await;
    let outcome = ask(&node_3.transport, node_1.peer, "e").await;
    assert!(
        matches!(&outcome, Err(TransportError::NotSent { reason, .. }) if reason.contains("no more")),
        "{outcome:?}"
    );
    let table = bounds.table();
    let high = |name: &str| table.iter().find(|bounded| bounded.name == name).map(|bounded| bounded.high);
    assert_eq!(high("transport: inbound connections"), Some(2), "{table:?}");
    assert_eq!(high("transport: inbound connections of clients"), Some(1), "{table:?}");
    assert!(table.iter().all(|bounded| bounded.high <= bounded.bound), "{table:?}");
}

#[tokio::test]
async fn what_the_transport_bounds_is_counted_under_its_names() {
    let ca = Ca::new("one");
    let (served, dialled) = (QuicOptions::default(), QuicOptions::default());
    let (of_node, of_client) = (served.bounds.clone(), dialled.bounds.clone());
    let node = node_with(&ca, 1, any_port(), served).unwrap();
    let anna = QuicTransport::client_only(ca.client("anna"), dialled).unwrap();
    let large = vec![b'e'; 1 << 20];
    assert_eq!(ask(&anna, node.peer, large.clone()).await.unwrap(), large);
    let counted = |table: Vec<stoa_env::Bounded>| -> Vec<_> {
        table.into_iter().filter(|bounded| bounded.high > 0).map(|bounded| (bounded.name, bounded.high)).collect()
    };
    assert_eq!(counted(of_client.table()), [("transport: outbound connections", 1)]);
    let wanted = [
        ("transport: bytes of answers that a connection has not taken", 1 << 20),
        ("transport: bytes of answers that clients have not taken", 1 << 20),
        ("transport: bytes of large requests of clients that are read", 1 << 20),
        ("transport: handshakes", 1),
        ("transport: inbound connections", 1),
        ("transport: inbound connections of clients", 1),
        ("transport: large requests of a connection", 1),
        ("transport: requests of a connection, client", 1),
    ];
    assert_eq!(counted(of_node.table()), wanted);
}

// ---- the other end without our transport ----

fn der(pem: &str) -> Vec<rustls::pki_types::CertificateDer<'static>> {
    use rustls::pki_types::pem::PemObject;
    rustls::pki_types::CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap()
}

fn private(pem: &str) -> rustls::pki_types::PrivateKeyDer<'static> {
    use rustls::pki_types::pem::PemObject;
    rustls::pki_types::PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// Accepts QUIC connections with any certificate it is given; answers nothing.
fn foreign_server(_ca: &Ca, cert: &str, key: &str) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(der(cert), private(key))
        .unwrap();
    tls.alpn_protocols = vec![b"stoa/1/client".to_vec()];
    let tls = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    let endpoint = quinn::Endpoint::server(config, any_port()).unwrap();
    let addr = endpoint.local_addr().unwrap();
    stoa_env::spawn("foreign server", async move {
        while let Some(incoming) = endpoint.accept().await {
            let _outcome = incoming.await;
        }
    });
    addr
}

/// A client that does with its streams what our transport never would.
async fn raw_connection(ca: &Ca, cert: &str, key: &str, addr: SocketAddr) -> (quinn::Endpoint, quinn::Connection) {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(der(&ca.pem).remove(0)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(der(cert), private(key))
        .unwrap();
    tls.alpn_protocols = vec![b"stoa/1/client".to_vec()];
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let endpoint = quinn::Endpoint::client(any_port()).unwrap();
    let connecting = endpoint.connect_with(quinn::ClientConfig::new(Arc::new(tls)), addr, ANY_NODE_NAME).unwrap();
    let connection = connecting.await.unwrap();
    (endpoint, connection)
}
