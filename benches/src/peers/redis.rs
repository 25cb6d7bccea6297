//! Redis: Debian's `redis-server` in processes of its own, and a client that does what a good one must and no more. Commands go
//! out as they come, many behind one another on each connection, answers are judged in place, in the order of the commands.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use stoa_env::JoinSet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};

use super::resp::{consent, end_of, number, put_command, told};

/// How long a server may take to answer for the first time, and a replica to come up to its primary.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long the answers to one request may take: of a peer that hangs the run must end, and say so.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// Requests that may wait for one connection, to be sent and once more to be answered.
const WAITING_MAX: usize = 4_096;
/// Read at a time.
const READ_BYTES: usize = 256 << 10;

/// The version of the program, if it is there.
pub fn version() -> Option<String> {
    let out = std::process::Command::new(Redis::find().ok()?).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.split_ascii_whitespace().find_map(|word| word.strip_prefix("v=")).map(str::to_owned)
}

/// What a primary promises before it answers a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: rows are in memory.
    Memory,
    /// `appendfsync always`, and as many replicas, for which a writer waits with `WAIT`.
    Replicated(usize),
}

/// The servers, the primary first. They end with this.
pub struct Redis {
    servers: Vec<Server>,
}

struct Server {
    process: Child,
    addr: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Redis {
    /// The program.
    ///
    /// # Errors
    /// If it is not in the path; the text says what to install.
    pub fn find() -> anyhow::Result<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).map(|dir| dir.join("redis-server")).find(|file| file.is_file());
        found.context("there is no redis-server in the path (Debian: apt-get install redis-server)")
    }

    /// Starts the servers on the core that this thread is on, and waits until they answer and the replicas have come up.
    pub async fn start(durability: Durability) -> anyhow::Result<Self> {
        let program = Self::find()?;
        let mut redis = Self { servers: Vec::new() };
        let replicas = if let Durability::Replicated(replicas) = durability { replicas } else { 0 };
        for _ in 0..=replicas {
            let server = Server::start(&program, durability, redis.servers.first().map(|primary| primary.addr))?;
            redis.servers.push(server);
            let started = redis.servers.last().expect("it has just been pushed").first_answer().await;
            started.context("redis-server does not answer")?;
        }
        if replicas > 0 {
            redis.replicas_come_up(replicas).await?;
        }
        Ok(redis)
    }

    /// Where the primary listens.
    pub fn addr(&self) -> SocketAddr {
        self.servers[0].addr
    }

    /// The numbers of the servers' processes, the primary's first.
    pub fn process_ids(&self) -> anyhow::Result<Vec<u32>> {
        self.servers.iter().map(|server| server.process.id().context("redis-server has ended")).collect()
    }

    async fn replicas_come_up(&self, replicas: usize) -> anyhow::Result<()> {
        let pipe = Pipe::open(self.addr()).await?;
        let come_up = async {
            loop {
                // A write is needed for WAIT to have something to wait for.
                let set: [&[u8]; 3] = [b"SET", b"up", b"1"];
                pipe.ask(1, |out| put_command(out, set.into_iter()), consent).await?;
                let wait: [&[u8]; 3] = [b"WAIT", b"2", b"1000"];
                if pipe.ask(1, |out| put_command(out, wait.into_iter()), number).await? >= replicas as i64 {
                    return anyhow::Ok(());
                }
            }
        };
        let limited = tokio::time::timeout(START_LIMIT, come_up).await;
        limited.with_context(|| format!("{replicas} replicas have not come up within {START_LIMIT:?}"))?
    }
}

impl Server {
    fn start(program: &PathBuf, durability: Durability, primary: Option<SocketAddr>) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("stoa-bench-redis-").tempdir()?;
        let addr = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let port = addr.port().to_string();
        let mut command = Command::new(program);
        command
            .args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--daemonize", "no", "--dir"])
            .arg(dir.path());
        match durability {
            Durability::Memory => command.args(["--appendonly", "no"]),
            // A rewrite of the file in the middle of a run would be measured with it.
            Durability::Replicated(_) => {
                command.args(["--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0"])
            }
        };
        if let Some(primary) = primary {
            command.args(["--replicaof", "127.0.0.1", &primary.port().to_string()]);
        }
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn()?;
        Ok(Self { process, addr, _dir: dir })
    }

    async fn first_answer(&self) -> anyhow::Result<()> {
        let answers = async {
            loop {
                if let Ok(pipe) = Pipe::open(self.addr).await {
                    let ping: [&[u8]; 1] = [b"PING"];
                    return pipe.ask(1, |out| put_command(out, ping.into_iter()), consent).await;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(START_LIMIT, answers).await?
    }
}

/// Judges the answers to one request, all of them in one piece, and keeps what it wants of them.
type Judge = Box<dyn FnOnce(anyhow::Result<&[u8]>) + Send>;

struct Ask {
    commands: Vec<u8>,
    answers: usize,
    judge: Judge,
}

/// A connection with many requests under way. With the last handle it closes.
pub struct Pipe {
    asks: mpsc::Sender<Ask>,
    /// Requests that have no answer yet.
    under_way: AtomicUsize,
    _driver: JoinSet<()>,
}

impl Pipe {
    /// Connects.
    pub async fn open(addr: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let (asks, asked) = mpsc::channel(WAITING_MAX);
        let mut driver = JoinSet::new();
        driver.spawn(drive(stream, asked));
        Ok(Self { asks, under_way: AtomicUsize::new(0), _driver: driver })
    }

    /// Sends the commands that `put` writes, and gives all of their `answers` to `judge`, whose result is the result.
    ///
    /// # Errors
    /// What `judge` says, or that the connection has ended.
    pub async fn ask<R: Send + 'static>(
        &self,
        answers: usize,
        put: impl FnOnce(&mut Vec<u8>),
        judge: impl FnOnce(&[u8]) -> anyhow::Result<R> + Send + 'static,
    ) -> anyhow::Result<R> {
        let _counted = UnderWay::of(&self.under_way);
        let (tell, told) = oneshot::channel();
        let judge: Judge = Box::new(move |answer| drop(tell.send(answer.and_then(judge))));
        let mut commands = Vec::new();
        put(&mut commands);
        let ask = Ask { commands, answers, judge };
        if self.asks.send(ask).await.is_err() {
            bail!("the connection to Redis has ended");
        }
        let told = tokio::time::timeout(ANSWER_LIMIT, told).await;
        told.with_context(|| format!("Redis has not answered within {ANSWER_LIMIT:?}"))?
            .context("the connection to Redis has ended")?
    }
}

/// One request, counted while this lives.
struct UnderWay<'a>(&'a AtomicUsize);

impl<'a> UnderWay<'a> {
    fn of(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Several connections.
pub struct Pipes {
    pipes: Vec<Pipe>,
}

impl Pipes {
    /// Opens `count` to the primary.
    pub async fn open(redis: &Redis, count: usize) -> anyhow::Result<Self> {
        let mut pipes = Vec::new();
        for _ in 0..count {
            pipes.push(Pipe::open(redis.addr()).await?);
        }
        Ok(Self { pipes })
    }

    /// The one that has the fewest requests under way: what waits there would wait behind them.
    pub fn pick(&self) -> &Pipe {
        let under_way = |pipe: &&Pipe| pipe.under_way.load(Ordering::Relaxed);
        self.pipes.iter().min_by_key(under_way).expect("there is one connection at the least")
    }
}

/// Writes what is asked and gives answers to whom they are for, until nobody asks any more or the connection ends.
async fn drive(mut stream: TcpStream, mut asked: mpsc::Receiver<Ask>) {
    let mut waiting: VecDeque<Ask> = VecDeque::new();
    if let Err(error) = exchange(&mut stream, &mut asked, &mut waiting).await {
        let why = format!("{error:#}");
        asked.close();
        while let Ok(ask) = asked.try_recv() {
            waiting.push_back(ask);
        }
        waiting
            .into_iter()
            .for_each(|ask| (ask.judge)(Err(anyhow::anyhow!("the connection to Redis has ended: {why}"))));
    }
}

async fn exchange(
    stream: &mut TcpStream,
    asked: &mut mpsc::Receiver<Ask>,
    waiting: &mut VecDeque<Ask>,
) -> anyhow::Result<()> {
    let (mut input, mut out) = (Input::default(), Vec::new());
    let (mut from, mut to) = stream.split();
    loop {
        tokio::select! {
            biased;
            count = from.read(input.room()) => input.take(count?, waiting)?,
            ask = asked.recv(), if waiting.len() < WAITING_MAX => {
                let Some(ask) = ask else { return Ok(()) };
                let mut next = Some(ask);
                // What has come together goes together.
                while let Some(ask) = next {
                    out.extend_from_slice(&ask.commands);
                    waiting.push_back(ask);
                    next = if waiting.len() < WAITING_MAX { asked.try_recv().ok() } else { None };
                }
                to.write_all(&out).await?;
                out.clear();
            }
        }
    }
}

/// What has come and belongs to no answer that is whole.
#[derive(Default)]
struct Input {
    bytes: Vec<u8>,
    /// So many of them have come.
    filled: usize,
}

impl Input {
    fn room(&mut self) -> &mut [u8] {
        if self.bytes.len() < self.filled + READ_BYTES {
            self.bytes.resize(self.filled + READ_BYTES, 0);
        }
        &mut self.bytes[self.filled..]
    }

    /// So many bytes more have come.
    fn take(&mut self, count: usize, waiting: &mut VecDeque<Ask>) -> anyhow::Result<()> {
        ensure!(count > 0, "the server has closed it");
        self.filled += count;
        let mut done = 0;
        while let Some(ask) = waiting.front() {
            let whole = &self.bytes[..self.filled];
            let mut end = done;
            for _ in 0..ask.answers {
                let Some(next) = end_of(whole, end)? else {
                    self.drop_before(done);
                    return Ok(());
                };
                end = next;
            }
            let ask = waiting.pop_front().expect("it is the first");
            (ask.judge)(Ok(&whole[done..end]));
            done = end;
        }
        ensure!(done == self.filled, "Redis answers what nobody asked: {}", told(&self.bytes[done..self.filled]));
        self.drop_before(done);
        Ok(())
    }

    fn drop_before(&mut self, done: usize) {
        self.bytes.copy_within(done..self.filled, 0);
        self.filled -= done;
    }
}
