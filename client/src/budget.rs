//! How many extra requests a client may send. Hedges double the load of a slow cluster just when it is slow; a budget
//! keeps them a small share of all requests (Dean and Barroso, "The Tail at Scale", 2013, give 5 %).

use stoa_env::planted;

/// Share of requests that may be hedges, in thousandths: 5 %. A node sized for the loss of a zone (50 % more load)
/// does not notice it.
pub const HEDGE_PER_MILLE: u64 = 50;

/// Hedges that may follow one another at once. A client of some hundred reads a second sends about this many in the time
/// until a silent peer is ejected, so that the first reads after the loss of a zone are all hedged.
pub const HEDGE_BURST: u64 = 20;

/// What one hedge costs.
const TOKEN: u64 = 1_000;

/// A token bucket that requests fill and hedges empty. It needs no clock: its rate is a share of the traffic.
#[derive(Debug, Clone)]
pub struct HedgeBudget {
    tokens: u64,
    /// What was sent ahead of the share of the traffic, in the same unit. Counted by itself, so that it tells whether the
    /// tokens hold it back.
    ahead: u64,
}

impl Default for HedgeBudget {
    fn default() -> Self {
        Self { tokens: HEDGE_BURST * TOKEN, ahead: 0 }
    }
}

impl HedgeBudget {
    /// Counts a request that is no hedge.
    pub fn earn(&mut self) {
        self.tokens = (self.tokens + HEDGE_PER_MILLE).min(HEDGE_BURST * TOKEN);
        self.ahead = self.ahead.saturating_sub(HEDGE_PER_MILLE);
    }

    /// Takes the price of one extra request; false if the budget is used up.
    #[must_use]
    pub fn spend(&mut self) -> bool {
        if self.tokens < TOKEN && !planted!(HedgeWithoutBudget) {
            return false;
        }
        self.tokens = self.tokens.saturating_sub(TOKEN);
        self.ahead += TOKEN;
        true
    }

    /// Hedges that were sent ahead of the share of the traffic, begun ones among them.
    pub fn spent(&self) -> u64 {
        self.ahead.div_ceil(TOKEN)
    }

    /// States the invariant: never more than the burst.
    pub fn check(&self) {
        assert!(self.tokens <= HEDGE_BURST * TOKEN, "the budget holds {} thousandths of a hedge", self.tokens);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_and_then_one_in_twenty() {
        let mut budget = HedgeBudget::default();
        let burst = (0..100).filter(|_| budget.spend()).count() as u64;
        assert_eq!(burst, HEDGE_BURST);
        assert_eq!(budget.spent(), HEDGE_BURST, "as many as may be, and no more");
        let mut hedges = 0;
        for _ in 0..10_000 {
            budget.earn();
            hedges += u64::from(budget.spend());
            budget.check();
            assert!(budget.spent() <= HEDGE_BURST);
        }
        assert_eq!(hedges, 10_000 * HEDGE_PER_MILLE / 1_000);
    }

    #[test]
    fn a_quiet_year_saves_no_more_than_the_burst() {
        let mut budget = HedgeBudget::default();
        (0..1_000_000).for_each(|_| budget.earn());
        budget.check();
        assert_eq!((0..100).filter(|_| budget.spend()).count() as u64, HEDGE_BURST);
    }
}
