//! What processes cost: the CPU time, user and system, that the kernel has counted for them.

use std::time::Duration;

use anyhow::Context;
use rustix::time::{ClockId, clock_gettime};

/// Of a process and all its threads, those that have ended among them. The kernel counts in ticks of 10 ms: over some seconds
/// that is nothing.
///
/// # Errors
/// If there is no such process.
pub fn of_process(id: u32) -> anyhow::Result<Duration> {
    let text =
        std::fs::read_to_string(format!("/proc/{id}/stat")).with_context(|| format!("process {id} has ended"))?;
    let ticks = ticks_of(&text).with_context(|| format!("/proc/{id}/stat is not as it should be: {text}"))?;
    Ok(Duration::from_secs(ticks) / rustix::param::clock_ticks_per_second() as u32)
}

/// Of this process.
pub fn of_this_process() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// User and system time of a line of `/proc/PID/stat`: fields 14 and 15, the second of which is in parentheses and may hold
/// anything.
fn ticks_of(stat: &str) -> Option<u64> {
    const UTIME_BEHIND_NAME: usize = 11;
    let fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let times: Vec<u64> =
        fields.skip(UTIME_BEHIND_NAME).take(2).map(|field| field.parse().ok()).collect::<Option<_>>()?;
    (times.len() == 2).then(|| times.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_name_with_parentheses_and_spaces() {
        let stat = "7 (a ) (b) S 1 7 7 0 -1 4194560 1 2 3 4 150 25 6 7 20 0 1 0 5 6 7";
        assert_eq!(ticks_of(stat), Some(175));
        assert_eq!(ticks_of("7 (a"), None);
        assert_eq!(ticks_of("7 (a) S 1 2"), None);
    }

    #[test]
    fn what_the_kernel_counts_of_this_process_is_the_same_in_both_ways() {
        let (before, mine) = (of_this_process(), of_process(std::process::id()).unwrap());
        let mut sum = 0_u64;
        // Other tests may run beside this one, and cost, too.
        while of_this_process() - before < Duration::from_millis(300) {
            sum = std::hint::black_box(sum + 1);
        }
        let (cost, counted) = (of_this_process() - before, of_process(std::process::id()).unwrap() - mine);
        assert!(cost.abs_diff(counted) < Duration::from_millis(100), "{cost:?} and {counted:?}");
    }
}
