//! The arithmetic of time windows: which sale counts for "the last 28 days", and when a week began.
//!
//! The source's timestamps are UTC, but its shops keep the time of New York: its weeks turn at 05:00 UTC in winter
//! and at 04:00 in summer. All days here are *store days* of 24 hours that begin at 05:00 UTC. That is exact for the
//! winter, in which all windows of 7 and 28 days lie; a window of 84 days begins at the hour that winter's midnight
//! has in UTC, although the shops' clocks were one hour ahead on that October day.

/// Microseconds since 1970 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Micros(pub i64);

/// Length of a day in microseconds.
const DAY: i64 = 24 * 3600 * 1_000_000;

/// Midnight in the shops, as time since midnight in UTC.
const STORE_MIDNIGHT: i64 = 5 * 3600 * 1_000_000;

impl Micros {
    /// The first instant of the store day this instant lies in.
    pub fn store_day_start(self) -> Self {
        Self((self.0 - STORE_MIDNIGHT).div_euclid(DAY) * DAY + STORE_MIDNIGHT)
    }

    /// The start of the store day of a calendar date, which the source writes as that date's midnight without a zone.
    pub fn of_store_date(date: Self) -> Self {
        Self(date.0 + STORE_MIDNIGHT)
    }
}

/// The instant all features describe: the end of the last sale's store day. Windows end here, this instant excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsOf(pub Micros);

impl AsOf {
    /// The end of the store day in which the last sale was made.
    pub fn after(last_sale: Micros) -> Self {
        Self(Micros(last_sale.store_day_start().0 + DAY))
    }

    /// The first instant of the window of the last `days` days.
    pub fn days_before(self, days: i64) -> Micros {
        Micros(self.0.0 - days * DAY)
    }

    /// Whether an instant lies in the window of the last `days` days: its start belongs to it, its end does not.
    pub fn within(self, days: i64, at: Micros) -> bool {
        self.days_before(days) <= at && at < self.0
    }

    /// Full days between an earlier instant and this one.
    pub fn whole_days_since(self, at: Micros) -> i64 {
        assert!(at <= self.0, "nothing in the source is later than its last day");
        (self.0.0 - at.0) / DAY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600 * 1_000_000;
    /// 2018-01-01 00:00:00 UTC.
    const NEW_YEAR: i64 = 1_514_764_800_000_000;

    #[test]
    fn a_sale_shortly_before_store_midnight_closes_that_day() {
        // 04:01 UTC on the 1st is 23:01 of the 31st in the shops.
        assert_eq!(AsOf::after(Micros(NEW_YEAR + 4 * HOUR)), AsOf(Micros(NEW_YEAR + 5 * HOUR)));
    }

    #[test]
    fn a_sale_at_store_midnight_opens_a_day() {
        let midnight = Micros(NEW_YEAR + 5 * HOUR);
        assert_eq!(midnight.store_day_start(), midnight);
        assert_eq!(AsOf::after(midnight), AsOf(Micros(midnight.0 + DAY)));
    }

    #[test]
    fn a_store_day_before_1970_begins_before_it() {
        assert_eq!(Micros(0).store_day_start(), Micros(STORE_MIDNIGHT - DAY));
    }

    #[test]
    fn a_window_holds_its_start_and_not_its_end() {
        let as_of = AsOf(Micros(NEW_YEAR + 5 * HOUR));
        let start = as_of.days_before(7);
        assert!(as_of.within(7, start));
        assert!(!as_of.within(7, Micros(start.0 - 1)));
        assert!(as_of.within(7, Micros(as_of.0.0 - 1)));
        assert!(!as_of.within(7, as_of.0));
    }

    #[test]
    fn days_since_count_full_days_only() {
        let as_of = AsOf(Micros(NEW_YEAR));
        assert_eq!(as_of.whole_days_since(Micros(NEW_YEAR)), 0);
        assert_eq!(as_of.whole_days_since(Micros(NEW_YEAR - DAY + 1)), 0);
        assert_eq!(as_of.whole_days_since(Micros(NEW_YEAR - DAY)), 1);
    }

    #[test]
    fn a_date_begins_with_the_store_day() {
        let day = Micros::of_store_date(Micros(NEW_YEAR));
        assert_eq!(day.store_day_start(), day);
    }
}
