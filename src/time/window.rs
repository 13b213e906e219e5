//! Windows of fixed size: which windows does an instant fall into?
//!
//! A window is half open, `[start, end)`, and aligned to the epoch plus an offset. TUMBLE is HOP with slide = size. A size
//! that is no multiple of the slide is legal: then rows fall into `floor(size/slide)` or one more windows.

use super::Micros;

/// A family of windows of equal size, a slide apart. All in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Windows {
    /// Length of a window; > 0.
    pub size: Micros,
    /// Distance of two window starts; 0 < slide <= size.
    pub slide: Micros,
    /// A window starts at `offset` (modulo slide).
    pub offset: Micros,
}

impl Windows {
    pub fn tumble(size: Micros, offset: Micros) -> Windows {
        Windows { size, slide: size, offset }
    }

    pub fn is_tumbling(&self) -> bool {
        self.slide == self.size
    }

    /// Start of the last window that contains `at`. Saturates at the ends of time.
    pub fn last_start(&self, at: Micros) -> Micros {
        let shifted = i128::from(at) - i128::from(self.offset);
        let start = shifted.div_euclid(i128::from(self.slide)) * i128::from(self.slide) + i128::from(self.offset);
        start.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
    }

    /// Starts of all windows that contain `at`, from the last to the first.
    pub fn starts(&self, at: Micros) -> impl Iterator<Item = Micros> + use<> {
        let (size, slide) = (self.size, self.slide);
        let mut start = Some(self.last_start(at));
        std::iter::from_fn(move || {
            let this = start.filter(|s| i128::from(at) - i128::from(*s) < i128::from(size))?;
            start = this.checked_sub(slide);
            Some(this)
        })
    }

    /// At most this many windows contain one instant.
    pub fn per_row(&self) -> i64 {
        self.size.div_euclid(self.slide) + i64::from(self.size.rem_euclid(self.slide) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case::tumble(Windows::tumble(10, 0), 19, &[10])]
    #[case::boundary_belongs_to_the_later(Windows::tumble(10, 0), 20, &[20])]
    #[case::before_the_epoch(Windows::tumble(10, 0), -1, &[-10])]
    #[case::offset(Windows::tumble(10, 3), 12, &[3])]
    #[case::negative_offset(Windows::tumble(10, -3), 12, &[7])]
    #[case::hop(Windows { size: 10, slide: 5, offset: 0 }, 12, &[10, 5])]
    #[case::no_multiple_two(Windows { size: 10, slide: 4, offset: 0 }, 11, &[8, 4])]
    #[case::no_multiple_three(Windows { size: 10, slide: 4, offset: 0 }, 8, &[8, 4, 0])]
    fn starts(#[case] windows: Windows, #[case] at: Micros, #[case] expected: &[Micros]) {
        assert_eq!(windows.starts(at).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_ends_of_time_do_not_overflow() {
        let windows = Windows { size: 10, slide: 3, offset: 1 };
        for at in [i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX] {
            assert!(windows.starts(at).count() <= windows.per_row() as usize);
        }
    }
}
