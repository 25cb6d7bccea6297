//! Echoes: servers that answer a request with as many bytes as Stoa would and do nothing else. What they cost is what the
//! transport costs; what Stoa costs beyond it is Stoa.
//!
//! Over QUIC the settings are those of Stoa's own transport, over TLS each caller has a connection of its own and a message is
//! its length in four bytes and itself. An answer begins with the first eight bytes of its request, by which callers know it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, EndpointConfig, ServerConfig, TokioRuntime, TransportConfig, VarInt};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::TLS13;
use stoa_env::transport::quic::{STREAM_WINDOW, provider};
use stoa_env::{JoinSet, QuicOptions};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::load::{Outcome, Service};

/// The name in the certificate.
const NAME: &str = "localhost";
/// The largest message.
const BYTES_MAX: usize = 16 << 20;
/// Messages begin with this much of their request.
const HEAD: usize = 8;
/// Streams of a connection at a time, as Stoa has them for clients.
const STREAMS_MAX: u32 = 256;
/// How long a server may take to start, and an answer to come.
const LIMIT: Duration = Duration::from_secs(10);

/// What messages go over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Over {
    /// QUIC, by quinn.
    Quic,
    /// TLS 1.3 over TCP.
    Tls,
}

/// Runs an echo server until its standard input ends; its address is its first line of output.
#[derive(Debug, Args)]
pub struct EchoServer {
    /// What messages go over.
    #[arg(long, value_enum)]
    over: Over,
    /// Bytes of an answer.
    #[arg(long, value_parser = clap::value_parser!(u64).range(HEAD as u64..=BYTES_MAX as u64))]
    down: u64,
    /// The directory with `cert.pem` and `key.pem`.
    #[arg(long)]
    certs: PathBuf,
}

impl EchoServer {
    /// Serves.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        std::thread::spawn(|| {
            // What comes is of no interest, and an error is an end too.
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            std::process::exit(0);
        });
        // One thread for the work, as each node of a measurement has.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        runtime.block_on(self.serve())?;
        Ok(ExitCode::SUCCESS)
    }

    async fn serve(self) -> anyhow::Result<()> {
        let chain = vec![certificate(&self.certs)?];
        let key = PrivateKeyDer::from_pem_file(self.certs.join("key.pem"))?;
        let provider = Arc::new(provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13])?;
        let tls = tls.with_no_client_auth().with_single_cert(chain, key)?;
        let tail = Bytes::from(vec![7_u8; self.down as usize - HEAD]);
        match self.over {
            Over::Quic => serve_quic(tls, tail).await,
            Over::Tls => serve_tls(tls, tail).await,
        }
    }
}

fn tell(addr: SocketAddr) {
    use std::io::Write;
    let _nobody_reads = writeln!(std::io::stdout(), "{addr}").and_then(|()| std::io::stdout().flush());
}

fn certificate(dir: &Path) -> anyhow::Result<CertificateDer<'static>> {
    CertificateDer::from_pem_file(dir.join("cert.pem")).with_context(|| format!("cert.pem in {}", dir.display()))
}

async fn serve_quic(tls: rustls::ServerConfig, tail: Bytes) -> anyhow::Result<()> {
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(transport());
    let endpoint = endpoint(Some(config))?;
    tell(endpoint.local_addr()?);
    let mut connections = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        let tail = tail.clone();
        connections.spawn(async move {
            let Ok(connection) = incoming.await else { return };
            let mut streams = JoinSet::new();
            while let Ok((mut send, mut recv)) = connection.accept_bi().await {
                let tail = tail.clone();
                streams.spawn(async move {
                    let request = recv.read_to_end(BYTES_MAX).await?;
                    let head = Bytes::copy_from_slice(request.get(..HEAD).context("a request is too short")?);
                    send.write_all_chunks(&mut [head, tail]).await?;
                    send.finish()?;
                    anyhow::Ok(())
                });
                while streams.try_join_next().is_some() {}
            }
        });
    }
    Ok(())
}

async fn serve_tls(tls: rustls::ServerConfig, tail: Bytes) -> anyhow::Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    tell(listener.local_addr()?);
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (acceptor, tail) = (acceptor.clone(), tail.clone());
        connections.spawn(async move {
            let mut stream = acceptor.accept(stream).await?;
            let (mut request, mut answer) = (Vec::new(), Vec::new());
            loop {
                read_message(&mut stream, &mut request).await?;
                answer.clear();
                answer.extend_from_slice(&((HEAD + tail.len()) as u32).to_le_bytes());
                answer.extend_from_slice(request.get(..HEAD).context("a request is too short")?);
                answer.extend_from_slice(&tail);
                stream.write_all(&answer).await?;
                stream.flush().await?;
            }
            #[allow(unreachable_code)] // it says what the task's type is
            anyhow::Ok(())
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn read_message(from: &mut (impl AsyncReadExt + Unpin), into: &mut Vec<u8>) -> anyhow::Result<()> {
    let mut length = [0; 4];
    from.read_exact(&mut length).await?;
    let length = u32::from_le_bytes(length) as usize;
    ensure!(length <= BYTES_MAX, "a message of {length} bytes is over {BYTES_MAX}");
    into.resize(length, 0);
    from.read_exact(into).await?;
    Ok(())
}

/// The settings of Stoa's own transport, with as many streams as a client of it has.
fn transport() -> Arc<TransportConfig> {
    let options = QuicOptions::default();
    let mut config = options.common();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .receive_window(VarInt::from_u32(STREAMS_MAX * STREAM_WINDOW))
        .keep_alive_interval(Some(options.keep_alive));
    Arc::new(config)
}

fn endpoint(config: Option<ServerConfig>) -> anyhow::Result<Endpoint> {
    let (options, socket) = (QuicOptions::default(), std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
    for set in [rustix::net::sockopt::set_socket_recv_buffer_size, rustix::net::sockopt::set_socket_send_buffer_size] {
        // The system may give less than is asked for, as it may to a node.
        let _less = set(&socket, options.socket_buffer_bytes);
    }
    let mut endpoint = EndpointConfig::default();
    endpoint.max_udp_payload_size(options.udp_payload_bytes_max)?;
    Ok(Endpoint::new(endpoint, config, socket, Arc::new(TokioRuntime))?)
}

/// A server in a process of its own. It ends with this.
pub struct Echo {
    process: Child,
    addr: SocketAddr,
    over: Over,
    down: usize,
    certs: tempfile::TempDir,
}

impl Echo {
    /// Starts one on the core that this thread is on, which answers with `down` bytes.
    pub async fn start(over: Over, down: usize) -> anyhow::Result<Self> {
        let certs = tempfile::Builder::new().prefix("stoa-bench-echo-").tempdir()?;
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        std::fs::write(certs.path().join("cert.pem"), made.cert.pem())?;
        std::fs::write(certs.path().join("key.pem"), made.signing_key.serialize_pem())?;
        let name = over.to_possible_value().context("every kind has a name")?;
        let mut process = Command::new(std::env::current_exe()?)
            .args(["echo", "--over", name.get_name(), "--down", &down.max(HEAD).to_string(), "--certs"])
            .arg(certs.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let out = process.stdout.take().context("its output is a pipe")?;
        let line = tokio::time::timeout(LIMIT, BufReader::new(out).lines().next_line()).await;
        let line = line.context("the echo server does not start")??.context("the echo server has ended")?;
        Ok(Self { process, addr: line.parse()?, over, down: down.max(HEAD), certs })
    }

    /// The number of its process.
    pub fn process_id(&self) -> anyhow::Result<u32> {
        self.process.id().context("the echo server has ended")
    }

    /// Calls of `up` bytes; over TLS by as many connections as there are callers.
    pub async fn calls(&self, up: usize, callers: usize) -> anyhow::Result<EchoCalls> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate(self.certs.path())?)?;
        let provider = Arc::new(provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13])?;
        let tls = tls.with_root_certificates(roots).with_no_client_auth();
        let line = match self.over {
            Over::Quic => {
                let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
                config.transport_config(transport());
                let endpoint = endpoint(None)?;
                let connection = endpoint.connect_with(config, self.addr, NAME)?.await?;
                Line::Quic(endpoint, connection)
            }
            Over::Tls => {
                let connector = TlsConnector::from(Arc::new(tls));
                let mut streams = Vec::new();
                for _ in 0..callers {
                    let stream = TcpStream::connect(self.addr).await?;
                    stream.set_nodelay(true)?;
                    streams.push(Mutex::new(connector.connect(ServerName::try_from(NAME)?, stream).await?));
                }
                Line::Tls(streams)
            }
        };
        Ok(EchoCalls { line, up: up.max(HEAD), down: self.down })
    }
}

enum Line {
    /// The endpoint lives as long as its connection.
    Quic(#[allow(dead_code)] Endpoint, Connection),
    Tls(Vec<Mutex<TlsStream<TcpStream>>>),
}

/// Calls to an echo.
pub struct EchoCalls {
    line: Line,
    up: usize,
    down: usize,
}

impl EchoCalls {
    async fn exchange(&self, n: u64) -> anyhow::Result<Outcome> {
        let mut request = vec![3_u8; self.up];
        request[..HEAD].copy_from_slice(&n.to_le_bytes());
        let answer = match &self.line {
            Line::Quic(_, connection) => {
                let (mut send, mut recv) = connection.open_bi().await?;
                send.write_chunk(request.into()).await?;
                send.finish()?;
                recv.read_to_end(BYTES_MAX).await?
            }
            Line::Tls(streams) => {
                let free = streams.iter().find_map(|stream| stream.try_lock().ok());
                let mut stream = match free {
                    Some(stream) => stream,
                    // More callers than connections.
                    None => streams[n as usize % streams.len()].lock().await,
                };
                let mut message = Vec::with_capacity(4 + self.up);
                message.extend_from_slice(&(self.up as u32).to_le_bytes());
                message.extend_from_slice(&request);
                stream.write_all(&message).await?;
                stream.flush().await?;
                let mut answer = Vec::new();
                read_message(&mut *stream, &mut answer).await?;
                answer
            }
        };
        if answer.len() != self.down || answer[..HEAD] != n.to_le_bytes() {
            return Ok(Outcome::Wrong(format!("call {n}: an answer of {} bytes, or another's", answer.len())));
        }
        Ok(Outcome::Answered { checked: true })
    }
}

impl Service for EchoCalls {
    async fn call(&self, n: u64) -> Outcome {
        let ended = tokio::time::timeout(LIMIT, self.exchange(n)).await;
        let ended = ended.unwrap_or_else(|_| bail_late());
        ended.unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")))
    }
}

fn bail_late() -> anyhow::Result<Outcome> {
    bail!("no answer from the echo within {LIMIT:?}")
}
