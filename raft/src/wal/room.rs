//! Room in the log for entries that are on their way to it.

use std::sync::Arc;

use super::WalError;
use super::queue::Queue;

/// Bytes that were admitted to the log; dropping it gives them back. It travels with the entries until they are durable.
pub struct Room {
    queue: Arc<Queue>,
    bytes: u64,
}

impl Room {
    pub(super) fn take(queue: &Arc<Queue>, bytes: u64) -> Result<Self, WalError> {
        queue.admit(bytes)?;
        Ok(Self { queue: queue.clone(), bytes })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.queue.leave(self.bytes);
    }
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Room").field(&self.bytes).finish()
    }
}
