//! Rows live as long as their group says: a row is shown as present while it lives, as expired when it does not, and as gone
//! only when it has been deleted, or expired for the late horizon; of two events the newer one stands, of two of one time the
//! one with the higher sequence, and no older event comes back while the newer one is remembered.
//!
//! One key has one writer, who waits for each answer. So its rows are known as the store must know them, but for the time
//! that it goes by: that is true time, give or take what calendars and replicas may be off by ([`Terms`]).

use stoa_client::ValueStatus;
use stoa_protocol::{OnExpired, Value};

/// What a group says of its rows, and how far a partition's time may be from true time; microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// The time to live.
    pub ttl_us: i64,
    /// The late horizon.
    pub horizon_us: i64,
    /// What an expired row shows.
    pub on_expired: OnExpired,
    /// How far a partition's time may be ahead of true time.
    pub ahead_us: i64,
    /// How far the time that a leader stamps into a command may be behind true time.
    pub stamp_behind_us: i64,
    /// How far it may be behind, on a replica that has what was committed when it was asked; `None`: any distance.
    pub behind_us: Option<i64>,
}

/// An event: its time, then the source's sequence.
pub type Event = (i64, u64);

/// One row of one write, and when, by true time, it was sent and answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Put {
    /// Its event.
    pub event: Event,
    /// What it gives.
    pub gives: Gives,
    /// When it was sent, and answered.
    pub between_us: (i64, i64),
}

/// What a write gives its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gives {
    /// Both features.
    Both(i64),
    /// The first one alone.
    First(i64),
    /// Nothing: it deletes.
    Nothing,
}

/// A row as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// What became of the first feature, which every row has.
    pub status: ValueStatus,
    /// The row's event time, if there is a row.
    pub event_time: Option<i64>,
    /// The values of both features.
    pub values: [Value; 2],
    /// When it was asked for, and answered.
    pub between_us: (i64, i64),
    /// How far the replica may have been behind what was committed when it was asked; `None` if nobody knows.
    pub age_us: Option<i64>,
}

/// What stands of a key.
#[derive(Debug, Clone, PartialEq)]
struct Standing {
    put: Put,
    /// What the second feature may be: it depends on whether the row before had expired.
    second: Vec<Value>,
}

/// What is known of one key.
#[derive(Debug, Clone, Default)]
pub struct Lifetime {
    stands: Option<Standing>,
}

impl Lifetime {
    /// The newest event that was applied.
    pub fn event(&self) -> Option<Event> {
        self.stands.as_ref().map(|stands| stands.put.event)
    }

    /// Takes what the answer to a write says; what is wrong with that, if anything is.
    pub fn answered(&mut self, terms: &Terms, put: Put, older: bool) -> Option<String> {
        let (_, ended) = put.between_us;
        let Some(stands) = &self.stands else {
            let wrong = older.then(|| format!("{put:?} was called older, and there is nothing newer"));
            self.apply(terms, put, older);
            return wrong;
        };
        let beaten = put.event < stands.put.event;
        // The latest time at which what stands is certainly remembered.
        let remembered_us = match stands.put.gives {
            Gives::Nothing => stands.put.between_us.0 - terms.stamp_behind_us + terms.horizon_us - terms.ahead_us,
            _ => stands.put.event.0 + terms.ttl_us + terms.horizon_us - terms.ahead_us,
        };
        let wrong = match (older, beaten) {
            (true, false) => Some(format!("{put:?} was called older than {stands:?}")),
            (false, true) if ended <= remembered_us => Some(format!("{put:?} was applied over {stands:?}")),
            _ => None,
        };
        self.apply(terms, put, older);
        wrong
    }

    fn apply(&mut self, terms: &Terms, put: Put, older: bool) {
        if older {
            return;
        }
        let second = match put.gives {
            Gives::Both(value) => vec![Value::Int(value)],
            Gives::Nothing => vec![Value::Null],
            Gives::First(_) => self.inherited(terms, put),
        };
        self.stands = Some(Standing { put, second });
    }

    /// What a write that does not give the second feature leaves it: what it was, unless the row had expired or gone.
    fn inherited(&self, terms: &Terms, put: Put) -> Vec<Value> {
        let Some(stands) = self.stands.as_ref().filter(|stands| stands.put.gives != Gives::Nothing) else {
            return vec![Value::Null];
        };
        let expires_us = stands.put.event.0 + terms.ttl_us;
        let (earliest, latest) = (put.between_us.0 - terms.stamp_behind_us, put.between_us.1 + terms.ahead_us);
        match (latest < expires_us, expires_us <= earliest) {
            (true, _) => stands.second.clone(),
            (_, true) => vec![Value::Null],
            _ => stands.second.iter().cloned().chain([Value::Null]).collect(),
        }
    }

    /// What is wrong with what a read has shown that covers all of the above.
    pub fn shown(&self, terms: &Terms, shown: &Shown) -> Option<String> {
        let row = self.stands.as_ref().filter(|stands| stands.put.gives != Gives::Nothing);
        let Some(stands) = row else {
            return (shown.status != ValueStatus::NotFound).then(|| format!("{shown:?}, and {:?} stands", self.stands));
        };
        let (asked, ended) = shown.between_us;
        let (event_time, _) = stands.put.event;
        let expires_us = event_time + terms.ttl_us;
        let latest_us = ended + terms.ahead_us;
        let earliest_us = terms.behind_us.zip(shown.age_us).map(|(behind, age)| asked - age - behind);
        let wrong = |why: &str| Some(format!("{why}: {shown:?}, of {stands:?}"));
        match shown.status {
            ValueStatus::NotFound if latest_us < expires_us + terms.horizon_us => return wrong("it is gone too early"),
            ValueStatus::NotFound => return None,
            ValueStatus::Expired if latest_us < expires_us => return wrong("it has expired too early"),
            ValueStatus::Present if earliest_us.is_some_and(|earliest| expires_us <= earliest) => {
                return wrong("it is present, and has expired");
            }
            ValueStatus::Expired | ValueStatus::Present => {}
            _ => return wrong("its first feature was given"),
        }
        if shown.event_time != Some(event_time) {
            return wrong("the event time is another one");
        }
        let (Gives::Both(first) | Gives::First(first)) = stands.put.gives else { unreachable!("it is a row") };
        let first_fits = shown.values[0] == Value::Int(first);
        let fits = first_fits && stands.second.contains(&shown.values[1]);
        let is_empty = shown.values == [Value::Null, Value::Null];
        match (shown.status, terms.on_expired) {
            (ValueStatus::Expired, OnExpired::Expire) if !is_empty => wrong("its values are handed over"),
            (ValueStatus::Expired, OnExpired::Expire) => None,
            _ if !fits => wrong("the values are other ones"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn terms(on_expired: OnExpired) -> Terms {
        Terms {
            ttl_us: 10 * SECOND,
            horizon_us: 10 * SECOND,
            on_expired,
            ahead_us: SECOND,
            stamp_behind_us: SECOND,
            behind_us: Some(SECOND),
        }
    }

    fn put(second: i64, sequence: u64, gives: Gives, at: i64) -> Put {
        Put { event: (second * SECOND, sequence), gives, between_us: (at * SECOND, at * SECOND + 1) }
    }

    fn shown(status: ValueStatus, event: Option<i64>, values: [Value; 2], at: i64) -> Shown {
        let between_us = (at * SECOND, at * SECOND + 1);
        Shown { status, event_time: event.map(|s| s * SECOND), values, between_us, age_us: Some(0) }
    }

    fn int(a: i64, b: i64) -> [Value; 2] {
        [Value::Int(a), Value::Int(b)]
    }

    fn nulls() -> [Value; 2] {
        [Value::Null, Value::Null]
    }

    #[test]
    fn a_row_is_present_then_expired_then_gone_and_at_no_other_time() {
        use ValueStatus::{Expired, NotFound, Null, Present};
        let terms = terms(OnExpired::Expire);
        let mut key = Lifetime::default();
        assert_eq!(key.answered(&terms, put(0, 1, Gives::Both(7), 0), false), None);
        let good = |status, values, at| {
            let event = (status != NotFound).then_some(0);
            key.shown(&terms, &shown(status, event, values, at))
        };
        for (status, values, from, until) in
            [(Present, int(7, 7), 0, 10), (Expired, nulls(), 9, 99), (NotFound, nulls(), 19, 99)]
        {
            for at in 0..99 {
                let told = good(status, values.clone(), at);
                assert_eq!(told.is_none(), (from..=until).contains(&at), "{status:?} at {at}: {told:?}");
            }
        }
        assert!(good(Expired, int(7, 7), 15).is_some(), "its values are not handed over");
        assert!(good(Present, int(7, 8), 5).is_some() && good(Null, nulls(), 5).is_some());
        let unknown = Shown { age_us: None, ..shown(Present, Some(0), int(7, 7), 50) };
        assert_eq!(key.shown(&terms, &unknown), None, "nobody knows how old that replica is");
    }

    #[test]
    fn last_values_are_handed_over_where_the_group_says_so() {
        let terms = terms(OnExpired::ServeLast);
        let mut key = Lifetime::default();
        key.answered(&terms, put(0, 1, Gives::Both(7), 0), false);
        assert_eq!(key.shown(&terms, &shown(ValueStatus::Expired, Some(0), int(7, 7), 15)), None);
        assert!(key.shown(&terms, &shown(ValueStatus::Expired, Some(0), nulls(), 15)).is_some());
        assert!(key.shown(&terms, &shown(ValueStatus::Expired, Some(1), int(7, 7), 15)).is_some());
    }

    #[test]
    fn ties_go_by_sequence_and_nothing_older_comes_back_while_the_newer_is_remembered() {
        let terms = terms(OnExpired::Expire);
        let mut key = Lifetime::default();
        assert!(key.answered(&terms, put(5, 5, Gives::Both(1), 5), true).is_some(), "there is nothing newer");
        key.answered(&terms, put(5, 5, Gives::Both(1), 5), false);
        assert!(key.clone().answered(&terms, put(5, 4, Gives::Both(2), 6), false).is_some(), "a lower sequence");
        assert_eq!(key.clone().answered(&terms, put(5, 4, Gives::Both(2), 6), true), None);
        assert_eq!(key.clone().answered(&terms, put(5, 6, Gives::Both(2), 6), false), None);
        assert!(key.clone().answered(&terms, put(5, 6, Gives::Both(2), 6), true).is_some());
        key.answered(&terms, put(6, 1, Gives::Nothing, 6), false);
        assert!(key.clone().answered(&terms, put(5, 9, Gives::Both(3), 13), false).is_some(), "the deletion stands");
        assert_eq!(key.clone().answered(&terms, put(5, 9, Gives::Both(3), 17), false), None, "it may be forgotten");
        assert_eq!(key.shown(&terms, &shown(ValueStatus::NotFound, None, nulls(), 7)), None);
        assert!(key.shown(&terms, &shown(ValueStatus::Present, Some(5), int(1, 1), 7)).is_some());
    }

    #[test]
    fn what_has_expired_does_not_come_back_as_part_of_a_newer_row() {
        let terms = terms(OnExpired::Expire);
        let mut key = Lifetime::default();
        key.answered(&terms, put(0, 1, Gives::Both(7), 0), false);
        let second = |at: i64| {
            let mut later = key.clone();
            later.answered(&terms, put(at, 2, Gives::First(8), at), false);
            [Value::Int(7), Value::Null].map(|second| {
                let values = [Value::Int(8), second];
                later.shown(&terms, &shown(ValueStatus::Present, Some(at), values, at)).is_none()
            })
        };
        assert_eq!([5, 10, 15].map(second), [[true, false], [true, true], [false, true]]);
    }
}
