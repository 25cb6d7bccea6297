//! The load generator.
//!
//! | file | duty |
//! |---|---|
//! | `schedule.rs` | when each request is due; it knows nothing of answers |
//! | `recorder.rs` | what became of the requests, and how long each took from when it was due |
//! | `slots.rs` | the same by the time at which requests were due, for time lines |
//! | `driver.rs` | the thin edge: waits for the schedule, calls the service, feeds the recorder |
//!
//! The open loop never waits for answers: a service that stalls is asked on, and every request that the stall kept
//! waiting has its wait recorded. The closed loop waits for each answer before it asks again, so it finds the peak rate;
//! its latencies hide stalls, and are never printed as those of a service.

mod driver;
mod recorder;
mod schedule;
mod slots;

pub use driver::{Pace, Service, closed_loop, open_loop, open_loop_until, open_loop_watched};
#[cfg(test)]
pub use recorder::Recorder;
pub use recorder::{Outcome, Summary, histogram, median_and_spread, wrong_values};
pub use schedule::Schedule;
pub use slots::{GOOD, Slots};
