//! What the times of a join's sides, and a bound on their distance, let us know and forget.
//!
//! Only times that are hard count ([`TimeColumn::hard`]): rows behind the frontier do not come. The reasoning is in
//! [`crate::flow::join::Bound`]; here it is applied to the columns of the sides. The frontier of a join is the least of both
//! sides' watermarks, so that a column's delay says how far behind *that* rows may come.

use datafusion::common::JoinType;

use crate::flow::join::Bound;
use crate::flow::{Edge, TimeColumn, WINDOW_TIME, WindowColumns};
use crate::sql::plan::time_bound::TimeBound;
use crate::sql::window::show_duration;
use crate::time::Micros;

pub(super) const LEFT: usize = 0;
pub(super) const RIGHT: usize = 1;

/// What is known of a join in time.
#[derive(Default)]
pub(super) struct Timing {
    /// The bound that rows are looked up by, between these columns of the left and the right.
    pub bound: Option<Bound>,
    pub columns: Option<[usize; 2]>,
    /// How far behind the frontier rows of each side are kept; `None`: for ever.
    pub kept: [Option<Micros>; 2],
    /// Columns of each side that the frontier bounds in the output too, as long as rows of that side have no NULLs there.
    times: [Vec<TimeColumn>; 2],
    /// By side: the windows that close in the output, and how long after the frontier.
    closes: [Option<Micros>; 2],
}

impl Timing {
    pub fn new(edges: [&Edge; 2], bounds: &[TimeBound], join_type: JoinType) -> Timing {
        let mut timing = Timing::default();
        for (left, right, bound) in bounds {
            let hard = |side: usize, column: usize| {
                edges[side].times.iter().find(|time| time.column == column && time.hard).map(|time| time.delay)
            };
            let columns = [*left, *right];
            let Some(delays) = hard(LEFT, *left).zip(hard(RIGHT, *right)) else {
                // Looked up by all the same, if nothing better comes.
                if timing.bound.is_none() && bound.least.is_some() && bound.greatest.is_some() {
                    (timing.bound, timing.columns) = (Some(*bound), Some(columns));
                }
                continue;
            };
            let delays = [delays.0, delays.1];
            let kept = bound.keep(delays, join_type);
            let worth = |kept: &[Option<Micros>; 2]| kept.iter().flatten().count();
            if timing.bound.is_none() || worth(&kept) > worth(&timing.kept) {
                (timing.bound, timing.columns, timing.kept) = (Some(*bound), Some(columns), kept);
            }
            let windows = [LEFT, RIGHT].map(|side| before_end(edges[side], columns[side]).is_some());
            for (side, reach) in bound.reach(delays).into_iter().enumerate() {
                if let Some(reach) = reach {
                    timing.note(side, edges[side], columns[side], reach, windows == [true, true]);
                }
            }
        }
        timing
    }

    /// Rows of a side matter while this column is not more than `reach` behind the frontier; so do columns at a fixed distance.
    fn note(&mut self, side: usize, edge: &Edge, column: usize, reach: Micros, between_windows: bool) {
        let own = before_end(edge, column);
        for time in edge.times.iter().filter(|time| time.hard) {
            let distance = match (own, before_end(edge, time.column)) {
                _ if time.column == column => 0,
                (Some(own), Some(other)) => own - other,
                _ => continue,
            };
            let delay = reach.saturating_sub(distance);
            match self.times[side].iter_mut().find(|known| known.column == time.column) {
                Some(known) => known.delay = known.delay.min(delay),
                None => self.times[side].push(TimeColumn { delay, ..*time }),
            }
        }
        if let Some(before_end) = own {
            // Bounds of windows are strictly after the frontier's, other times may be at it.
            let delay = reach.saturating_sub(before_end).saturating_add(Micros::from(!between_windows));
            self.closes[side] = Some(self.closes[side].map_or(delay, |known| known.min(delay)));
        }
    }

    /// Times and window of the output. The columns of a side that an outer join pads with NULLs are no times any more.
    pub fn output(&self, edges: [&Edge; 2], left_width: usize, join_type: JoinType) -> (Vec<TimeColumn>, Option<WindowColumns>) {
        let shown: &[(usize, usize)] = match join_type {
            JoinType::Inner => &[(LEFT, 0), (RIGHT, left_width)],
            JoinType::Right => &[(RIGHT, left_width)],
            JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => &[(LEFT, 0)],
            JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => &[(RIGHT, 0)],
            JoinType::Full => &[],
        };
        let moved = |(side, by): &(usize, usize)| {
            let by = *by;
            self.times[*side].iter().map(move |time| TimeColumn { column: time.column + by, ..*time })
        };
        let window = |(side, by): &(usize, usize)| {
            let window = edges[*side].window?;
            let moved = |column: Option<usize>| column.map(|column| column + by);
            let (start, end, time) = (moved(window.start), moved(window.end), moved(window.time));
            Some(WindowColumns { start, end, time, delay: self.closes[*side], ..window })
        };
        let windows: Vec<WindowColumns> = shown.iter().filter_map(window).collect();
        let closing = windows.iter().find(|window| window.delay.is_some()).or(windows.first());
        (shown.iter().flat_map(moved).collect(), closing.copied())
    }

    /// For EXPLAIN.
    pub fn keeps(&self, edges: [&Edge; 2]) -> String {
        let until = |side: usize, name: &str| {
            let column = self.columns.map(|columns| edges[side].schema.field(columns[side]).name().clone());
            match (self.kept[side], column) {
                (Some(0), Some(column)) => format!("{name} rows until the watermark passes {column}"),
                (Some(kept), Some(column)) => {
                    format!("{name} rows until the watermark passes {column} by {}", show_duration(kept))
                }
                _ => format!("{name} rows for ever"),
            }
        };
        match self.kept {
            [None, None] => "all rows of both sides, for ever: it grows with the input".into(),
            [Some(_), Some(_)] => format!("{}, {}", until(LEFT, "left"), until(RIGHT, "right")),
            _ => format!("{}, {}: it grows with the input", until(LEFT, "left"), until(RIGHT, "right")),
        }
    }
}

/// How far before the end of its window a column always is, if it is a bound of the edge's window.
fn before_end(edge: &Edge, column: usize) -> Option<Micros> {
    let window = edge.window?;
    match Some(column) {
        at if at == window.end => Some(0),
        at if at == window.start => window.windows.length(),
        at if at == window.time => Some(WINDOW_TIME),
        _ => None,
    }
}
