//! Polling.

use std::time::Duration;

use stoa_env::{Clock, RealClock};

/// How long anything may take that has to happen at some time. A busy machine needs a tenth of it.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks again until it succeeds; the last failure, if it has not within [`LIMIT`].
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let start = RealClock.boot();
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(error) if RealClock.boot().since(start) > LIMIT => {
                return Err(error.context(format!("{what}: not within {LIMIT:?}")));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
