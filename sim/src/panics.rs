//! Panics of the product, wherever they end: a task may swallow one, and openraft's core does. A run is one thread, so
//! what panics on it is the run's.

use std::cell::RefCell;
use std::sync::Once;

/// Panics kept of one run; more say nothing new.
const KEPT_MAX: usize = 16;

thread_local! {
    static SEEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Begins to note the panics of this thread.
pub fn watch() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            SEEN.with_borrow_mut(|seen| {
                if seen.len() < KEPT_MAX {
                    seen.push(info.to_string());
                }
            });
            before(info);
        }));
    });
    take();
}

/// What has panicked on this thread since.
pub fn take() -> Vec<String> {
    SEEN.take()
}
