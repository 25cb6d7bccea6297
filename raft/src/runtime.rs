//! openraft's window to the world: its time is the node's [`Clock`], its chance the node's [`Entropy`].
//!
//! openraft asks a static `Instant::now()`, so the node's clock travels in a task-local, which every task that openraft
//! spawns inherits, and which [`NodeContext::run`] sets around every call into openraft. Verdicts (leases, election
//! timeouts) therefore follow boot time, which runs on while the machine is suspended. Sleeps rest on the monotonic clock: they
//! end late after a suspension, and early by as much as the two clocks drift apart; openraft asks `now` again after each.

use std::future::Future;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use openraft_rt::{AsyncRuntime, OptionalSend, instant};
use openraft_rt_tokio::{TokioMpsc, TokioMutex, TokioOneshot, TokioRuntime, TokioWatch};
use stoa_env::{BootTime, Bounds, Clock, Entropy};

/// What a node's tasks carry with them.
#[derive(Clone)]
pub struct NodeContext {
    /// The node's clocks.
    pub clock: Arc<dyn Clock>,
    /// The node's chance.
    pub entropy: Arc<dyn Entropy>,
    /// What the node bounds.
    pub bounds: Bounds,
}

tokio::task_local! {
    static CONTEXT: NodeContext;
}

impl NodeContext {
    /// Runs `future` as a part of this node. Every call into openraft goes through here.
    pub fn run<F: Future>(&self, future: F) -> impl Future<Output = F::Output> {
        CONTEXT.scope(self.clone(), future)
    }

    /// How long ago a moment of openraft's was; zero if it is to come.
    pub(crate) fn since(&self, moment: NodeInstant) -> Duration {
        NodeInstant(INSTANT_BASE + self.clock.boot().0) - moment
    }
}

/// openraft's runtime: tokio's tasks and channels, the node's clock and chance.
#[derive(Debug)]
pub struct StoaRuntime(TokioRuntime);

/// A moment of the node's boot clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeInstant(u64);

/// openraft subtracts timeouts from `now`: moments begin far enough from zero that no machine is too young for that.
const INSTANT_BASE: u64 = 1 << 60;

impl NodeInstant {
    /// The moment by the node's clock.
    pub(crate) fn boot(self) -> BootTime {
        BootTime(self.0.saturating_sub(INSTANT_BASE))
    }
}

impl instant::Instant for NodeInstant {
    fn now() -> Self {
        let boot = CONTEXT.with(|context| context.clock.boot());
        Self(INSTANT_BASE + boot.0)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for NodeInstant {
    type Output = Self;
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(nanos(by)))
    }
}

impl AddAssign<Duration> for NodeInstant {
    fn add_assign(&mut self, by: Duration) {
        *self = *self + by;
    }
}

impl Sub<Duration> for NodeInstant {
    type Output = Self;
    fn sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(by)))
    }
}

impl SubAssign<Duration> for NodeInstant {
    fn sub_assign(&mut self, by: Duration) {
        *self = *self - by;
    }
}

impl Sub<NodeInstant> for NodeInstant {
    type Output = Duration;
    fn sub(self, earlier: NodeInstant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The node's chance as openraft's generator.
pub struct NodeRng(Arc<dyn Entropy>);

impl rand::TryRng for NodeRng {
    type Error = std::convert::Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok((self.0.next_u64() >> 32) as u32)
    }
    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(self.0.next_u64())
    }
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        for chunk in out.chunks_mut(8) {
            let bytes = self.0.next_u64().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        Ok(())
    }
}

/// A task of openraft's. Dropping the handle leaves the task running, as openraft expects.
pub struct NodeJoinHandle<T>(tokio::task::JoinHandle<T>);

impl<T> Future for NodeJoinHandle<T> {
    type Output = Result<T, tokio::task::JoinError>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl AsyncRuntime for StoaRuntime {
    type JoinError = tokio::task::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = NodeJoinHandle<T>;
    type Sleep = stoa_env::timer::Sleep;
    type Instant = NodeInstant;
    type TimeoutError = stoa_env::Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = stoa_env::timer::Timeout<T>;
    type ThreadLocalRng = NodeRng;
    type Mpsc = TokioMpsc;
    type Watch = TokioWatch;
    type Oneshot = TokioOneshot;
    type Mutex<T: OptionalSend + 'static> = TokioMutex<T>;

    // openraft's own tasks: it keeps the handle, and a panic reaches our halt hook.
    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        let context = CONTEXT.with(NodeContext::clone);
        NodeJoinHandle(stoa_env::task::spawn_unwatched(async move { context.run(future).await }))
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        stoa_env::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        stoa_env::sleep(deadline - <NodeInstant as instant::Instant>::now())
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        stoa_env::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        stoa_env::timeout(deadline - <NodeInstant as instant::Instant>::now(), future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        join_error.is_panic()
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        NodeRng(CONTEXT.with(|context| context.entropy.clone()))
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        let context = NodeContext {
            clock: Arc::new(stoa_env::RealClock),
            entropy: Arc::new(stoa_env::OsEntropy),
            bounds: Bounds::default(),
        };
        self.0.block_on(context.run(future))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openrafts_own_runtime_suite_passes() {
        openraft_rt::testing::Suite::<StoaRuntime>::test_all();
    }

    struct Slow(std::sync::atomic::AtomicU64);
    impl Clock for Slow {
        fn boot(&self) -> stoa_env::BootTime {
            stoa_env::BootTime(self.0.fetch_add(7, std::sync::atomic::Ordering::SeqCst))
        }
        fn wall(&self) -> stoa_env::WallTime {
            stoa_env::WallTime(0)
        }
    }

    /// Counts tokio's time at a rate of its own, in millionths off it.
    struct Off(tokio::time::Instant, i64);
    impl Clock for Off {
        fn boot(&self) -> stoa_env::BootTime {
            let true_ns = self.0.elapsed().as_nanos() as i128;
            stoa_env::BootTime((true_ns + true_ns * i128::from(self.1) / 1_000_000) as u64)
        }
        fn wall(&self) -> stoa_env::WallTime {
            stoa_env::WallTime(0)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn openraft_counts_a_tenth_more_in_one_node_than_in_another_beside_it() {
        #[allow(clippy::disallowed_methods)] // paused time, which both clocks are off from
        let start = tokio::time::Instant::now();
        let counted = |rate_ppm| {
            let context = NodeContext {
                clock: Arc::new(Off(start, rate_ppm)),
                entropy: Arc::new(stoa_env::OsEntropy),
                bounds: Bounds::default(),
            };
            // The tasks run side by side on one thread, as nodes do in a simulation.
            let task = || {
                StoaRuntime::spawn(async {
                    let before = <NodeInstant as instant::Instant>::now();
                    let mut seen = Vec::new();
                    for _ in 0..10 {
                        StoaRuntime::sleep(Duration::from_secs(1)).await;
                        seen.push(<NodeInstant as instant::Instant>::now() - before);
                    }
                    seen
                })
            };
            async move { context.run(async move { task().await.expect("nothing panics there") }).await }
        };
        let (slow, fast) = tokio::join!(counted(-50_000), counted(50_000));
        let seconds = |rate_ms: u64| (1..=10).map(|n| Duration::from_millis(n * rate_ms)).collect::<Vec<_>>();
        assert_eq!((slow, fast), (seconds(950), seconds(1_050)));
    }

    #[test]
    fn openrafts_time_is_the_nodes_clock_in_every_task() {
        let context = NodeContext {
            clock: Arc::new(Slow(0.into())),
            entropy: Arc::new(stoa_env::OsEntropy),
            bounds: Bounds::default(),
        };
        let mut runtime = StoaRuntime::new(2);
        runtime.block_on(context.run(async {
            let first = <NodeInstant as instant::Instant>::now();
            let second = StoaRuntime::spawn(async { <NodeInstant as instant::Instant>::now() }).await.unwrap();
            assert_eq!(first, NodeInstant(INSTANT_BASE));
            assert_eq!(second - first, Duration::from_nanos(7), "the spawned task read another clock");
        }));
    }
}
