//! Rows that expire, in a calm cluster one of whose calendars is an hour ahead.

use std::time::Duration;

use stoa_sim::bugs::worlds::wrong_calendar;
use stoa_sim::plan::{Plan, Work};
use stoa_sim::run::{Planted, run};

#[test]
fn rows_live_as_long_as_their_group_says_whatever_one_calendar_says() {
    let planted = Planted { world: wrong_calendar, ..Planted::default() };
    let work = Work { aging: true, ..Work::default() };
    let plan = Plan { work, ..Plan::calm(1, 1, Duration::from_secs(25)) };
    let outcome = run(plan, None, &planted).expect("a run without a trace file needs nothing");
    assert_eq!(outcome.broken, []);
    let extra = outcome.counts.extra;
    assert!(extra.aging_rows > 50 && extra.aging_reads > 100 && extra.expired_reads > 10, "{extra}");
}
