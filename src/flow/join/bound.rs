//! How long do rows matter where a join bounds the distance of their times?
//!
//! Let `f` be the frontier: rows still to come of the left have times of at least `f - dl`, those of the right `f - dr`, and
//! rows meet if `least <= r - l <= greatest`. A change of a left row `l`, or of a pair with it, comes with
//!
//! * a left row to come: `l >= f - dl`, or
//! * a right row to come that it meets: `l >= r - greatest >= f - dr - greatest`.
//!
//! So `l` matters while it is not more than `max(dl, dr + greatest)` behind the frontier, and, turned round, `r` while it is
//! not more than `max(dr, dl - least)` behind it. That is how long the times of the output stay bounded, and for inner joins how
//! long rows are kept.
//!
//! Where a join must know whether a left row has a match, the right rows it met must be there as long as it matters, even when
//! no left row to come can meet them: `r >= l + least`, so while `r` is not more than `max(dl, dr + greatest) - least` behind.

use datafusion::common::JoinType;

use crate::time::Micros;

/// `least <= right.time - left.time <= greatest`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    pub least: Option<Micros>,
    pub greatest: Option<Micros>,
}

impl Bound {
    /// Both bounds hold.
    #[must_use]
    pub fn and(self, other: Bound) -> Bound {
        let both = |a: Option<Micros>, b: Option<Micros>, choose: fn(Micros, Micros) -> Micros| match (a, b) {
            (Some(a), Some(b)) => Some(choose(a, b)),
            (a, b) => a.or(b),
        };
        Bound { least: both(self.least, other.least, Micros::max), greatest: both(self.greatest, other.greatest, Micros::min) }
    }

    /// How far behind the frontier rows of the left and of the right matter; `None`: for ever. `delays`: how far behind it rows
    /// of each side may come.
    pub fn reach(&self, [left, right]: [Micros; 2]) -> [Option<Micros>; 2] {
        [
            self.greatest.map(|greatest| left.max(right.saturating_add(greatest))),
            self.least.map(|least| right.max(left.saturating_sub(least))),
        ]
    }

    /// How far behind the frontier rows of the left and of the right must be kept.
    pub fn keep(&self, delays: [Micros; 2], join_type: JoinType) -> [Option<Micros>; 2] {
        let [left, right] = self.reach(delays);
        let (watches_left, watches_right) = watches(join_type);
        let longer = |own: Option<Micros>, other: Option<Micros>, by: Option<Micros>| {
            let (own, other, by) = (own?, other?, by?);
            Some(own.max(other.saturating_add(by)))
        };
        [
            if watches_right { longer(left, right, self.greatest) } else { left },
            if watches_left { longer(right, left, self.least.map(|least| -least)) } else { right },
        ]
    }
}

/// Of which sides the output says whether a row has a match.
fn watches(join_type: JoinType) -> (bool, bool) {
    match join_type {
        JoinType::Inner => (false, false),
        JoinType::Full => (true, true),
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => (true, false),
        JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => (false, true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    // The right within an hour after the left: the left is kept an hour, the right not at all unless the left must know.
    #[case(Some(0), Some(60), [0, 0], JoinType::Inner, [Some(60), Some(0)])]
    #[case(Some(0), Some(60), [0, 0], JoinType::Left, [Some(60), Some(60)])]
    #[case(Some(0), Some(60), [0, 0], JoinType::Right, [Some(60), Some(0)])]
    #[case(Some(-5), Some(60), [1, 2], JoinType::Inner, [Some(62), Some(6)])]
    #[case(Some(0), Some(0), [7, 9], JoinType::Full, [Some(9), Some(9)])]
    #[case(None, Some(60), [0, 0], JoinType::Inner, [Some(60), None])]
    #[case(None, Some(60), [0, 0], JoinType::Right, [None, None])]
    fn rows_are_kept_while_they_matter(
        #[case] least: Option<Micros>,
        #[case] greatest: Option<Micros>,
        #[case] delays: [Micros; 2],
        #[case] join_type: JoinType,
        #[case] kept: [Option<Micros>; 2],
    ) {
        assert_eq!(Bound { least, greatest }.keep(delays, join_type), kept);
    }
}
