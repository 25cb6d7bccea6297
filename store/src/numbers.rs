//! Which numbers of rows, of slots of one size in the arena, or of units of an index, are given out; and how the highest
//! come to be in use no more, so that their memory can go back.
//!
//! 1. Many numbers are free: [`Numbers::begin`] draws a border, with room below it for all that is in use and some more.
//!    From here on only numbers below are given out; free ones beyond wait apart.
//! 2. Whoever owns the numbers moves what lies beyond the border to numbers below. What it leaves comes back, once no
//!    reader can be looking at it, by [`Numbers::give_back`] as ever.
//! 3. All numbers beyond the border have come back: [`Numbers::drained`]. From here on they are in no list.
//! 4. [`Numbers::release`] takes them out of existence from the highest down, so many at a time.
//!
//! If there is no number left below the border meanwhile, those beyond it are given out again: growth goes before.

use std::ops::Range;

use crate::memory::vec_bytes;

/// Numbers below a border that are free when it is drawn, at the least, if so many are in use.
const ROOM_MIN: u32 = 64;

/// Numbers, given out from 0 on.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    next: u32,
    free: Vec<u32>,
    /// Numbers below this one stay where they are.
    kept: u32,
    leaving: Leaving,
}

#[derive(Debug, Default)]
enum Leaving {
    #[default]
    No,
    /// Numbers from the border on are to come back; those that have are here.
    Moving { border: u32, back: Vec<u32> },
    /// All numbers from the border on are free, and in no list.
    Drained { border: u32 },
}

impl Numbers {
    /// The number after the highest that there is.
    pub fn end(&self) -> u32 {
        self.next
    }

    /// A number that is free, below the border if there is one.
    pub fn take(&mut self) -> Option<u32> {
        if self.free.is_empty() {
            match std::mem::take(&mut self.leaving) {
                Leaving::No => {}
                Leaving::Moving { back, .. } => self.free = back,
                Leaving::Drained { border } => {
                    if border + 1 < self.next {
                        self.leaving = Leaving::Drained { border: border + 1 };
                    }
                    return Some(border);
                }
            }
        }
        self.free.pop()
    }

    /// The next number, of which the memory has to be seen to.
    pub fn grow(&mut self, what: &str) -> u32 {
        let number = self.next;
        // The last one is none: it stands for no row.
        assert!(number < u32::MAX, "2^32 {what} do not fit a machine");
        self.next += 1;
        number
    }

    /// So many numbers in a row, the next ones, of which the memory has to be seen to. They lie beyond any border, so there is
    /// none from now on.
    pub fn grow_by(&mut self, count: u32, what: &str) -> Range<u32> {
        match std::mem::take(&mut self.leaving) {
            Leaving::No => {}
            Leaving::Moving { back, .. } => self.free.extend(back),
            Leaving::Drained { border } => self.free.extend(border..self.next),
        }
        let first = self.next;
        for _ in 0..count {
            self.grow(what);
        }
        first..self.next
    }

    /// What lies below this number is not to be moved: the next border is not drawn below it.
    pub fn keep_below(&mut self, end: u32) {
        self.kept = end;
    }

    /// Takes a number back that nobody uses any more.
    pub fn give_back(&mut self, number: u32) {
        match &mut self.leaving {
            Leaving::Moving { border, back } if number >= *border => back.push(number),
            _ => self.free.push(number),
        }
    }

    /// How many are free.
    pub fn free(&self) -> u32 {
        let beyond = match &self.leaving {
            Leaving::No => 0,
            Leaving::Moving { back, .. } => back.len() as u32,
            Leaving::Drained { border } => self.next - border,
        };
        self.free.len() as u32 + beyond
    }

    /// Bytes of the lists.
    pub fn list_bytes(&self) -> usize {
        let back = match &self.leaving {
            Leaving::Moving { back, .. } => vec_bytes(back),
            Leaving::No | Leaving::Drained { .. } => 0,
        };
        vec_bytes(&self.free) + back
    }

    /// Whether so many are free, of things of so many bytes, that the highest should go: more than a quarter, and so many
    /// bytes at the least; and that more than an eighth of all would.
    pub fn is_worth(&self, bytes_each: usize, bytes_min: usize) -> bool {
        let free = self.free.len();
        let many = free * 4 > self.next as usize && free * bytes_each >= bytes_min;
        many && matches!(self.leaving, Leaving::No) && self.border() + self.next / 8 < self.next
    }

    /// Where the border would be: an eighth above what is in use, for what is written meanwhile, and above what stays.
    fn border(&self) -> u32 {
        let used = self.next - self.free.len() as u32;
        (used + (used / 8).max(used.min(ROOM_MIN))).max(self.kept).min(self.next)
    }

    /// Draws the border, which is worth it. Goes through the free ones once.
    pub fn begin(&mut self) {
        let border = self.border();
        assert!(
            matches!(self.leaving, Leaving::No) && border < self.next,
            "one border at a time, with something beyond"
        );
        let back = self.free.iter().copied().filter(|number| *number >= border).collect();
        self.free.retain(|number| *number < border);
        self.free.shrink_to_fit();
        self.leaving = Leaving::Moving { border, back };
    }

    /// Whether what has this number is to be moved.
    #[inline]
    pub fn leaves(&self, number: u32) -> bool {
        matches!(self.leaving, Leaving::Moving { border, .. } if number >= border)
    }

    /// Whether there is a border, and something beyond it has not come back.
    pub fn is_moving(&self) -> bool {
        matches!(self.leaving, Leaving::Moving { .. })
    }

    /// Notes it if all beyond the border have come back; says whether there is something to release.
    pub fn drained(&mut self) -> bool {
        if let Leaving::Moving { border, back } = &self.leaving
            && back.len() as u32 == self.next - border
        {
            self.leaving = Leaving::Drained { border: *border };
        }
        matches!(self.leaving, Leaving::Drained { .. })
    }

    /// The highest numbers beyond the border, so many at the most, which exist no more from now on; none if nothing is
    /// drained.
    pub fn release(&mut self, count_max: u32) -> Range<u32> {
        let Leaving::Drained { border } = self.leaving else {
            return self.next..self.next;
        };
        let end = self.next;
        self.next = border.max(end.saturating_sub(count_max));
        if self.next == border {
            self.leaving = Leaving::No;
        }
        self.next..end
    }

    /// Asserts that every number is in use once or free once.
    pub fn check(&self, what: &str, mut used: Vec<u32>) {
        used.extend(&self.free);
        match &self.leaving {
            Leaving::No => {}
            Leaving::Moving { border, back } => {
                assert!(self.free.iter().all(|number| number < border) && back.iter().all(|number| number >= border));
                used.extend(back);
            }
            Leaving::Drained { border } => used.extend(*border..self.next),
        }
        used.sort_unstable();
        assert!(used.iter().copied().eq(0..self.next), "every {what} is in use once, free once or waiting once");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(given: u32, free: impl Fn(u32) -> bool) -> Numbers {
        let mut numbers = Numbers::default();
        for _ in 0..given {
            numbers.grow("rows");
        }
        (0..given).filter(|number| free(*number)).for_each(|number| numbers.give_back(number));
        numbers
    }

    #[test]
    fn what_lies_beyond_the_border_moves_below_it_and_the_highest_numbers_go() {
        let mut used: Vec<u32> = (0..10_000).filter(|number| number % 4 == 0).collect();
        let mut numbers = numbers(10_000, |number| number % 4 != 0);
        assert!(!numbers.is_worth(8, 1 << 18) && numbers.is_worth(100, 1 << 18));
        numbers.begin();
        assert!(!numbers.is_worth(100, 1) && !numbers.drained() && numbers.is_moving());
        for number in &mut used {
            if numbers.leaves(*number) {
                let new = numbers.take().unwrap();
                assert!(!numbers.leaves(new));
                assert!(!numbers.drained());
                numbers.give_back(std::mem::replace(number, new));
            }
        }
        numbers.check("row", used.clone());
        assert!(numbers.drained() && !numbers.is_moving());
        numbers.check("row", used.clone());
        assert_eq!(numbers.release(1_000), 9_000..10_000);
        numbers.check("row", used.clone());
        assert_eq!(numbers.release(u32::MAX), 2_812..9_000);
        assert_eq!((numbers.end(), numbers.free()), (2_812, 312));
        assert_eq!(numbers.release(u32::MAX), 2_812..2_812);
        numbers.check("row", used);
    }

    #[test]
    fn growth_goes_before_and_takes_what_was_to_go() {
        let mut moving = numbers(10_000, |number| number > 1_000);
        moving.begin();
        let given: Vec<_> = (0..8_999).map(|_| moving.take().unwrap()).collect();
        assert!(!moving.is_moving() && moving.take().is_none());
        moving.check("row", (0..=1_000).chain(given).collect());
        let mut drained = numbers(10_000, |number| number > 1_000);
        drained.begin();
        assert!(drained.drained());
        let given: Vec<_> = (0..8_000).map(|_| drained.take().unwrap()).collect();
        drained.check("row", (0..=1_000).chain(given.clone()).collect());
        assert_eq!(drained.release(400), 9_600..10_000);
        let rest: Vec<_> = std::iter::from_fn(|| drained.take()).collect();
        assert_eq!(rest.len(), 599);
        drained.check("row", (0..=1_000).chain(given).chain(rest).collect());
    }

    #[test]
    fn numbers_in_a_row_end_a_border_and_what_is_to_stay_lies_below_the_next() {
        for drained in [false, true] {
            let mut numbers = numbers(10_000, |number| number > 1_000 && number != 9_000);
            if drained {
                numbers.give_back(9_000);
            }
            numbers.begin();
            assert_eq!(numbers.drained(), drained);
            let row: Vec<u32> = numbers.grow_by(8, "units").collect();
            assert_eq!(row, (10_000..10_008).collect::<Vec<_>>());
            assert!(!numbers.is_moving() && !numbers.drained());
            let used = (0..=1_000).chain((!drained).then_some(9_000));
            numbers.check("unit", used.clone().chain(row.iter().copied()).collect());
            numbers.keep_below(10_008);
            assert!(!numbers.is_worth(100, 1), "nothing lies beyond what stays");
            row.into_iter().for_each(|number| numbers.give_back(number));
            numbers.keep_below(5_000);
            assert!(numbers.is_worth(100, 1));
            numbers.begin();
            assert!(numbers.leaves(5_000) && !numbers.leaves(4_999));
            numbers.check("unit", used.collect());
        }
    }
}
