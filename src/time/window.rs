//! Windows by the clock: which windows does an instant fall into?
//!
//! A window is half open, `[start, end)`, and aligned to the epoch plus an offset.
//!
//! ```text
//!   TUMBLE   |---------|---------|      HOP with slide = size
//!   HOP      |---------|                one every slide, each of one size; rows fall into several. A size that is no multiple
//!               |---------|             of the slide is legal: then into floor(size/slide) of them or one more
//!   CUMULATE |--|                       all that start together grow by a step up to the size, then the next begin
//!            |-----|
//!            |---------|
//! ```
//!
//! With a time zone, size, slide and offset are lengths on the zone's clock: a day has 23 or 25 hours where the clock is put
//! forward or back. A bound that the clock skips is the instant of the skip; one that it shows twice is the first of the two.
//!
//! Every family has [slices](Windows::slices), pieces of time that no bound of a window cuts: what is known of a slice can be
//! put together to what is known of each of its windows. A window is known by its end.

use chrono::{DateTime, MappedLocalTime, NaiveDateTime, Offset, TimeZone};
use chrono_tz::Tz;

use super::Micros;

/// A day, where days have one length.
pub const DAY: Micros = 86_400_000_000;

/// How the windows of a family lie to one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Of equal size, a slide apart.
    Hop,
    /// Beginning together every size, of one step, two steps … up to the size. The slide is the step, and divides the size.
    Cumulate,
}

/// A family of windows. Lengths in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Windows {
    pub family: Family,
    /// Length of a window, of CUMULATE the greatest; > 0.
    pub size: Micros,
    /// Distance of two window starts, of CUMULATE the step; 0 < slide <= size.
    pub slide: Micros,
    /// A window starts at `offset` (modulo slide, of CUMULATE modulo size).
    pub offset: Micros,
    /// The clock; `None`: UTC.
    pub zone: Option<Tz>,
}

/// A point on a zone's clock, in microseconds. Wider than an instant, so that bounds beyond the ends of time do not overflow.
type Local = i128;

impl Windows {
    pub fn tumble(size: Micros, offset: Micros) -> Windows {
        Windows::hop(size, size, offset)
    }

    pub fn hop(size: Micros, slide: Micros, offset: Micros) -> Windows {
        Windows { family: Family::Hop, size, slide, offset, zone: None }
    }

    pub fn cumulate(size: Micros, step: Micros, offset: Micros) -> Windows {
        Windows { family: Family::Cumulate, size, slide: step, offset, zone: None }
    }

    /// Every instant lies in one window.
    pub fn is_tumbling(&self) -> bool {
        self.slide == self.size
    }

    /// All windows that contain `at`, as start and end, from the last to the first. Bounds saturate at the ends of time.
    pub fn bounds(&self, at: Micros) -> impl Iterator<Item = (Micros, Micros)> + use<> {
        let windows = *self;
        let local = windows.local(at);
        let (mut start, mut end) = match windows.family {
            // One more than by the clock alone, in case that it was put back just now.
            Family::Hop => {
                let ahead = if windows.zone.is_some() { windows.slide } else { 0 };
                let start = windows.floor(local, windows.slide) + Local::from(ahead);
                (start, start + Local::from(windows.size))
            }
            Family::Cumulate => {
                let start = windows.floor(local, windows.size);
                (start, start + Local::from(windows.size))
            }
        };
        std::iter::from_fn(move || {
            loop {
                let (from, to) = (windows.instant(start), windows.instant(end));
                if to <= Local::from(at) {
                    return None;
                }
                end -= Local::from(windows.slide);
                if windows.family == Family::Hop {
                    start -= Local::from(windows.slide);
                }
                if from <= Local::from(at) && !windows.is_skipped(to, end) {
                    return Some((saturate(from), saturate(to)));
                }
            }
        })
    }

    /// A day that the clock skips ends no window: of those that would end together the one that began first counts.
    fn is_skipped(&self, end: Local, former: Local) -> bool {
        self.zone.is_some() && self.instant(former) == end
    }

    /// The window that contains `at` and ends last.
    pub fn last(&self, at: Micros) -> (Micros, Micros) {
        self.bounds(at).next().unwrap_or((at, at))
    }

    /// The start of the window that ends there.
    pub fn start_of(&self, end: Micros) -> Micros {
        let local = self.local(end);
        let start = match self.family {
            // On the clock the end may have been skipped, so it is looked for where ends are.
            Family::Hop => {
                let (slide, size) = (Local::from(self.slide), Local::from(self.size));
                let mut start = self.floor(local - size, self.slide);
                while self.is_skipped(Local::from(end), start + size - slide) {
                    start -= slide;
                }
                start
            }
            Family::Cumulate => self.floor(self.local(end.saturating_sub(1)), self.size),
        };
        saturate(self.instant(start))
    }

    /// The end of the window that starts there; `None` where several may.
    pub fn end_of(&self, start: Micros) -> Option<Micros> {
        if !self.is_tumbling() && (self.family == Family::Cumulate || self.zone.is_some()) {
            return None;
        }
        let begins = self.floor(self.local(start), self.slide);
        Some(saturate(self.instant(begins + Local::from(self.size))))
    }

    /// A window's end says the same start in both families.
    pub fn agrees_with(&self, other: &Windows) -> bool {
        self == other || self.length().is_some_and(|length| other.length() == Some(length))
    }

    /// How long every window is; `None` if they differ.
    pub fn length(&self) -> Option<Micros> {
        (self.zone.is_none() && (self.family == Family::Hop || self.is_tumbling())).then_some(self.size)
    }

    /// The pieces of time that no bound of these windows cuts, as long as they can be: tumbling windows.
    pub fn slices(&self) -> Windows {
        let (mut a, mut b) = (self.size, self.slide);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        Windows { zone: self.zone, ..Windows::tumble(a, self.offset) }
    }

    /// At most this many windows contain one instant.
    pub fn per_row(&self) -> i64 {
        self.size.div_euclid(self.slide) + i64::from(self.size.rem_euclid(self.slide) != 0)
    }

    /// The greatest point on the clock, not after `at`, at which windows a `step` apart start.
    fn floor(&self, at: Local, step: Micros) -> Local {
        let (offset, step) = (Local::from(self.offset), Local::from(step));
        (at - offset).div_euclid(step) * step + offset
    }

    /// What the clock shows at an instant.
    fn local(&self, at: Micros) -> Local {
        Local::from(at) + self.zone.map_or(0, |zone| Local::from(ahead_of_utc(zone, at)))
    }

    /// When the clock shows this.
    fn instant(&self, local: Local) -> Local {
        let Some(zone) = self.zone else { return local };
        let Some(naive) = i64::try_from(local).ok().and_then(naive) else { return local };
        match zone.from_local_datetime(&naive) {
            MappedLocalTime::Single(at) | MappedLocalTime::Ambiguous(at, _) => Local::from(at.timestamp_micros()),
            MappedLocalTime::None => Local::from(skip(zone, saturate(local))),
        }
    }
}

fn saturate(at: Local) -> Micros {
    at.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

fn naive(at: Micros) -> Option<NaiveDateTime> {
    DateTime::from_timestamp_micros(at).map(|at| at.naive_utc())
}

/// By how much the zone's clock is ahead of UTC.
fn ahead_of_utc(zone: Tz, at: Micros) -> Micros {
    let seconds = |at| zone.offset_from_utc_datetime(&at).fix().local_minus_utc();
    naive(at).map_or(0, |at| i64::from(seconds(at)) * 1_000_000)
}

/// The instant at which the zone's clock skips what it would show: `local` is among it.
fn skip(zone: Tz, local: Micros) -> Micros {
    let shows = |at: Micros| at.saturating_add(ahead_of_utc(zone, at));
    // No zone is further than a day from UTC. The clock shows less than `local` before the skip and more after it.
    let (mut before, mut after) = (local.saturating_sub(DAY), local.saturating_add(DAY));
    while before.checked_add(1).is_some_and(|next| next < after) {
        let middle = before + (after - before) / 2;
        if shows(middle) < local { before = middle } else { after = middle }
    }
    after
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Micros = DAY / 24;

    #[rstest::rstest]
    #[case::tumble(Windows::tumble(10, 0), 19, &[(10, 20)])]
    #[case::boundary_belongs_to_the_later(Windows::tumble(10, 0), 20, &[(20, 30)])]
    #[case::before_the_epoch(Windows::tumble(10, 0), -1, &[(-10, 0)])]
    #[case::offset(Windows::tumble(10, 3), 12, &[(3, 13)])]
    #[case::negative_offset(Windows::tumble(10, -3), 12, &[(7, 17)])]
    #[case::hop(Windows::hop(10, 5, 0), 12, &[(10, 20), (5, 15)])]
    #[case::no_multiple_two(Windows::hop(10, 4, 0), 11, &[(8, 18), (4, 14)])]
    #[case::no_multiple_three(Windows::hop(10, 4, 0), 8, &[(8, 18), (4, 14), (0, 10)])]
    #[case::cumulate(Windows::cumulate(10, 5, 0), 12, &[(10, 20), (10, 15)])]
    #[case::cumulate_at_the_end(Windows::cumulate(10, 5, 0), 19, &[(10, 20)])]
    #[case::cumulate_offset(Windows::cumulate(9, 3, 2), 4, &[(2, 11), (2, 8), (2, 5)])]
    fn bounds(#[case] windows: Windows, #[case] at: Micros, #[case] expected: &[(Micros, Micros)]) {
        assert_eq!(windows.bounds(at).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_ends_of_time_do_not_overflow() {
        for windows in [Windows::hop(10, 3, 1), Windows::cumulate(12, 3, 1)] {
            for zone in [None, Some(Tz::America__Havana)] {
                let windows = Windows { zone, ..windows };
                for at in [i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX] {
                    assert!(windows.bounds(at).count() <= windows.per_row() as usize);
                    windows.start_of(at);
                    windows.end_of(at);
                }
            }
        }
    }

    fn families() -> Vec<Windows> {
        let days = |w: Windows, zone| Windows { zone: Some(zone), ..w };
        vec![
            Windows::tumble(7, 3),
            Windows::hop(10, 4, 1),
            Windows::hop(12, 4, -1),
            Windows::cumulate(12, 3, 5),
            days(Windows::tumble(DAY, 0), Tz::Europe__Berlin),
            days(Windows::hop(3 * DAY, 2 * DAY, HOUR), Tz::America__Sao_Paulo),
            days(Windows::hop(2 * DAY, DAY, 0), Tz::Pacific__Apia),
            days(Windows::cumulate(DAY, 6 * HOUR, 0), Tz::America__Havana),
            days(Windows::tumble(7 * DAY, 4 * DAY), Tz::Asia__Beirut),
        ]
    }

    /// Instants that matter to a family: about its bounds, over some years where it is one of days.
    fn instants(windows: Windows) -> impl Iterator<Item = Micros> {
        let (from, to, step) = match windows.zone {
            None => (-50, 50, 1),
            Some(_) => (1_260_000_000_000_000, 1_330_000_000_000_000, 29 * HOUR / 10),
        };
        (from..to).step_by(step as usize)
    }

    #[test]
    fn a_window_is_known_by_its_end() {
        for windows in families() {
            for at in instants(windows) {
                for (start, end) in windows.bounds(at) {
                    assert!(start <= at && at < end, "{windows:?} {at}: {start} {end}");
                    assert_eq!(windows.start_of(end), start, "{windows:?} {at}: ends {end}");
                    assert!(windows.end_of(start).is_none_or(|other| other == end), "{windows:?} {at}");
                }
            }
        }
    }

    #[test]
    fn windows_consist_of_slices() {
        for windows in families() {
            let slices = windows.slices();
            assert!(slices.is_tumbling());
            for at in instants(windows) {
                let (first, _) = slices.last(at);
                let of_slice: Vec<_> = windows.bounds(first).collect();
                assert_eq!(windows.bounds(at).collect::<Vec<_>>(), of_slice, "{windows:?} {at}");
            }
        }
    }

    #[test]
    fn tumbling_windows_of_days_leave_no_gap() {
        for windows in families().into_iter().filter(|w| w.is_tumbling()) {
            let mut former: Option<(Micros, Micros)> = None;
            for at in instants(windows) {
                let found: Vec<_> = windows.bounds(at).collect();
                assert_eq!(found.len(), 1, "{windows:?} {at}");
                if let Some(former) = former.filter(|former| *former != found[0]) {
                    assert_eq!(former.1, found[0].0, "{windows:?} {at}");
                }
                former = Some(found[0]);
            }
        }
    }

    #[rstest::rstest]
    #[case::winter("2025-01-15T12:00:00Z", "2025-01-14T23:00:00Z", 24)]
    #[case::forward("2025-03-30T12:00:00Z", "2025-03-29T23:00:00Z", 23)]
    #[case::summer("2025-07-01T21:59:59Z", "2025-06-30T22:00:00Z", 24)]
    #[case::back("2025-10-26T12:00:00Z", "2025-10-25T22:00:00Z", 25)]
    fn days_of_berlin(#[case] at: &str, #[case] start: &str, #[case] hours: i64) {
        let instant = |text: &str| text.parse::<DateTime<chrono::Utc>>().unwrap().timestamp_micros();
        let windows = Windows { zone: Some(Tz::Europe__Berlin), ..Windows::tumble(DAY, 0) };
        let (from, to) = windows.last(instant(at));
        assert_eq!((from, to - from), (instant(start), hours * HOUR));
    }
}
