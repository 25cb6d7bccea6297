//! What this program owes to whoever started it: it ends what it started, and a reader who has seen enough is no fault.

use std::io::Write;
use std::sync::OnceLock;

use anyhow::bail;
use stoa_env::{BootTime, Clock, RealClock};
use tokio::signal::unix::{SignalKind, signal};

/// Runs `work`, and ends it when the process is told to end: what it has started ends with it.
///
/// # Errors
/// Those of `work`, and that it was interrupted.
pub async fn interruptible<R>(work: impl Future<Output = anyhow::Result<R>>) -> anyhow::Result<R> {
    let (mut term, mut hang_up) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    tokio::select! {
        biased;
        done = work => done,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        _ = term.recv() => bail!("told to end"),
        _ = hang_up.recv() => bail!("the terminal has gone"),
    }
}

/// Tells how far a long run is, with the seconds since it began.
pub fn step(what: &str) {
    static BEGAN: OnceLock<BootTime> = OnceLock::new();
    let began = *BEGAN.get_or_init(|| RealClock.boot());
    let _nobody_reads = writeln!(std::io::stderr(), "{:>6.0} s  {what}", RealClock.boot().since(began).as_secs_f64());
}

/// Prints a result. Nobody reading on is no fault.
pub fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _nobody_reads = writeln!(out, "{text}").and_then(|()| out.flush());
}
