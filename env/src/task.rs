//! Tasks whose end is seen. A bare `tokio::spawn` loses a panic silently; these log it with the task's name, and a
//! [`TaskGroup`] ends all its tasks when it is dropped.

use std::future::Future;
use std::sync::Mutex;

use tokio::task::{AbortHandle, JoinHandle};

/// Spawns `future`; if it panics, the panic is logged under `name` with level error.
#[allow(clippy::disallowed_methods)] // the one place that may: it sees the panic
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<Option<F::Output>>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let inner = tokio::spawn(future);
    let abort = AbortOnDrop(inner.abort_handle());
    tokio::spawn(async move {
        let _abort = abort; // an aborted watcher takes its task along
        match inner.await {
            Ok(output) => Some(output),
            Err(error) if error.is_panic() => {
                tracing::error!(task = name, %error, "a task panicked");
                None
            }
            Err(_cancelled) => None,
        }
    })
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tasks that live as long as their owner: dropping the group aborts them.
#[derive(Debug, Default)]
pub struct TaskGroup {
    handles: Mutex<Vec<AbortHandle>>,
}

impl TaskGroup {
    /// An empty group.
    pub fn new() -> Self {
        Self::default()
    }

    /// Spawns `future` as a member of the group. Finished members are forgotten as new ones come.
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let handle = spawn(name, future);
        let mut handles = self.handles.lock().unwrap_or_else(|e| e.into_inner());
        handles.retain(|h| !h.is_finished());
        handles.push(handle.abort_handle());
    }

    /// Aborts all members; later members may still be added.
    pub fn abort_all(&self) {
        for handle in self.handles.lock().unwrap_or_else(|e| e.into_inner()).drain(..) {
            handle.abort();
        }
    }
}

impl Drop for TaskGroup {
    fn drop(&mut self) {
        self.abort_all();
    }
}
