//! When is which event due?

use crate::time::Micros;

/// Events come at least this far apart in time, several at once if need be: a commit per event would be a flush per event.
const TICK: Micros = 10_000;

/// Spreads events evenly over time, from the first question on.
pub struct Pace {
    /// Events per second; 0: all are due at once.
    rate: u64,
    /// The first event, and when it was due.
    first: u64,
    start: Option<Micros>,
}

impl Pace {
    pub fn new(rate: u64, first: u64) -> Pace {
        Pace { rate, first, start: None }
    }

    /// Events with numbers below this are due.
    pub fn due(&mut self, now: Micros) -> u64 {
        if self.rate == 0 {
            return u64::MAX;
        }
        let since = now.saturating_sub(*self.start.get_or_insert(now)).max(0);
        // One more than have fully passed: the first is due at the start.
        let events = since as u128 * u128::from(self.rate) / 1_000_000 + 1;
        self.first.saturating_add(u64::try_from(events).unwrap_or(u64::MAX))
    }

    /// When to ask again for an event that is not due yet.
    pub fn when(&self, event: u64, now: Micros) -> Micros {
        now.saturating_add(TICK).max(self.time(event).unwrap_or(now))
    }

    /// When an event is or was due; `None` if there is no pace, or nobody has asked yet.
    pub fn time(&self, event: u64) -> Option<Micros> {
        let start = self.start.filter(|_| self.rate != 0)?;
        let after = (u128::from(event.saturating_sub(self.first)) * 1_000_000).div_ceil(u128::from(self.rate));
        Some(start.saturating_add(i64::try_from(after).unwrap_or(i64::MAX)))
    }
}
