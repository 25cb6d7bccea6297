//! Tasks whose end is seen. A bare `tokio::spawn` loses a panic silently; these log it with the task's name, and a
//! [`TaskGroup`] ends all its tasks when it is dropped, and a [`Process`] can be killed as a whole.

mod process;
mod set;

use std::future::Future;
use std::sync::Mutex;

pub use process::Process;
pub use set::JoinSet;

use tokio::task::{AbortHandle, JoinHandle};

/// Spawns `future`; if it panics, the panic is logged under `name` with level error. The task is of the same
/// [`Process`] as the one that spawns it.
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<Option<F::Output>>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    watched(name, future, |_logged_already| {})
}

/// Spawns `future` for a caller that looks after its end itself. The task is of the same [`Process`] as the one that
/// spawns it.
#[allow(clippy::disallowed_methods)] // the one place that may
pub fn spawn_unwatched<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    match Process::current() {
        Some(process) => process.adopt(future),
        None => tokio::spawn(future),
    }
}

fn watched<F>(
    name: &'static str,
    future: F,
    on_panic: impl FnOnce(String) + Send + 'static,
) -> JoinHandle<Option<F::Output>>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let inner = spawn_unwatched(future);
    let abort = AbortOnDrop(inner.abort_handle());
    spawn_unwatched(async move {
        let _abort = abort; // an aborted watcher takes its task along
        match inner.await {
            Ok(output) => Some(output),
            Err(error) if error.is_panic() => {
                tracing::error!(task = name, %error, "a task panicked");
                on_panic(format!("the task \"{name}\" panicked: {error}"));
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
        self.keep(spawn(name, future).abort_handle());
    }

    /// As [`spawn`](Self::spawn), for a task that its owner cannot do without: a panic in it is handed to `on_panic` in
    /// words that name the task, so that the owner does not go on half alive.
    pub fn spawn_vital<F>(&self, name: &'static str, future: F, on_panic: impl FnOnce(String) + Send + 'static)
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.keep(watched(name, future, on_panic).abort_handle());
    }

    fn keep(&self, handle: AbortHandle) {
        let mut handles = self.handles.lock().unwrap_or_else(|e| e.into_inner());
        handles.retain(|h| !h.is_finished());
        handles.push(handle);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_in_a_vital_task_reaches_its_owner_with_the_tasks_name() {
        let (tell, told) = tokio::sync::oneshot::channel();
        let group = TaskGroup::new();
        let owner = move |why| drop(tell.send(why));
        group.spawn_vital("count sheep", async { panic!("the wolf") }, owner);
        let why = told.await.expect("the owner is told");
        assert!(why.contains("count sheep") && why.contains("the wolf"), "{why}");
    }

    #[tokio::test]
    async fn the_orderly_end_of_a_vital_task_is_no_panic() {
        let (tell, told) = tokio::sync::oneshot::channel::<String>();
        let group = TaskGroup::new();
        group.spawn_vital("end", async {}, move |why| drop(tell.send(why)));
        assert!(told.await.is_err(), "the owner was told of a panic");
    }
}
