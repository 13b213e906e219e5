//! One attempt: the preferred match that starts at a row.
//!
//! The machine of [`Program`](super::program) with a stack of the choices that are left. Where the rest of the pattern asks of
//! rows only what the rows themselves say, a way that failed once fails again, from whichever choice it is reached; such places
//! are remembered. So patterns whose conditions do not compare with former rows of the match take time in proportion to rows
//! times steps. For all others there is a bound on the work, and an error that says what to change.

use super::Spec;
use super::program::Instruction;
use super::values::{Mapped, Rows, Totals, fits_match};
use crate::error::{Error, Result};
use crate::limits;

/// Rows of a match, from the row where it starts on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    pub variables: Vec<u8>,
    pub shown: Vec<bool>,
}

/// What came of an attempt.
pub struct Attempt {
    pub found: Option<Match>,
    /// Rows before this one were looked at.
    pub examined: usize,
    /// It would have looked further than the rows go.
    pub at_end: bool,
}

/// What attempts over the same rows share.
pub struct Search {
    /// Of each instruction: it is a choice, the n-th, whose outcome depends on the row alone.
    remembered: Vec<Option<usize>>,
    choices: usize,
    /// A bit for each row and remembered choice that led to no match.
    failed: Vec<u64>,
    /// Rows depend on where the match began.
    forgets: bool,
    totals: Totals,
    steps: u64,
}

/// A choice that is left.
struct Frame {
    at: usize,
    depth: usize,
    trail: usize,
    registers: Vec<usize>,
}

impl Search {
    pub fn new(spec: &Spec) -> Search {
        let program = &spec.program;
        let asks = |instruction: &Instruction| match instruction {
            Instruction::Row { variable, .. } => spec.defines[usize::from(*variable)].of_match.is_some(),
            Instruction::Enter { .. } | Instruction::Leave { .. } => true,
            _ => false,
        };
        let free = program.never_reaches(asks);
        let mut choices = 0;
        let mut number = |(at, instruction): (usize, &Instruction)| {
            let counts = free[at] && matches!(instruction, Instruction::Split { .. });
            choices += usize::from(counts);
            counts.then(|| choices - 1)
        };
        let remembered = program.instructions.iter().enumerate().map(&mut number).collect();
        Search { remembered, choices, failed: Vec::new(), forgets: spec.within.is_some(), totals: Totals::new(), steps: 0 }
    }

    /// The rows are others now.
    pub fn forget(&mut self) {
        self.failed.clear();
        self.totals = Totals::new();
    }

    /// The preferred match that starts at this row.
    pub fn attempt(&mut self, spec: &Spec, rows: &Rows, start: usize) -> Result<Attempt> {
        if self.forgets {
            self.failed.clear();
        }
        let machine = Machine {
            spec,
            rows,
            start,
            found: Match::default(),
            registers: vec![0; spec.program.registers],
            left: Vec::new(),
            trail: Vec::new(),
            examined: start,
            at_end: false,
            search: self,
        };
        machine.run()
    }

    /// Whether a choice at this row failed before; from now on it counts as one that did.
    fn meet(&mut self, place: usize) -> bool {
        let (word, bit) = (place / 64, 1_u64 << (place % 64));
        if self.failed.len() <= word {
            self.failed.resize((word + 1).next_power_of_two(), 0);
        }
        let met = self.failed[word] & bit != 0;
        self.failed[word] |= bit;
        met
    }

    fn spend(&mut self, rows: usize) -> Result<()> {
        self.steps += 1;
        if self.steps <= limits::PATTERN_STEPS + limits::PATTERN_STEPS_PER_ROW * rows as u64 {
            return Ok(());
        }
        let error = Error::limit_exceeded(format!("the pattern took more than {} steps over {rows} rows", self.steps - 1));
        Err(error.with_hint(
            "compare a row with PREV(…) rather than with former rows of the match, add WITHIN, or make conditions of neighbouring \
             variables exclude each other",
        ))
    }
}

struct Machine<'a> {
    spec: &'a Spec,
    rows: &'a Rows,
    start: usize,
    found: Match,
    registers: Vec<usize>,
    left: Vec<Frame>,
    /// Remembered choices on the way here: if it leads to a match, they did not fail.
    trail: Vec<usize>,
    examined: usize,
    at_end: bool,
    search: &'a mut Search,
}

impl Machine<'_> {
    fn run(mut self) -> Result<Attempt> {
        let mut at = 0;
        loop {
            self.search.spend(self.rows.len())?;
            let row = self.start + self.found.variables.len();
            let next = match self.spec.program.instructions[at] {
                Instruction::Accept => {
                    let words = &mut self.search.failed;
                    self.trail.iter().for_each(|place| words[place / 64] &= !(1 << (place % 64)));
                    return Ok(Attempt { found: Some(self.found), examined: self.examined, at_end: self.at_end });
                }
                Instruction::Row { variable, shown } => {
                    self.found.variables.push(variable);
                    self.found.shown.push(shown);
                    self.fits(variable, row)?.then_some(at + 1)
                }
                Instruction::Split { first, second } => self.choose(at, row, first, second),
                Instruction::Jump(to) => Some(to),
                Instruction::Enter { register } => {
                    self.registers[register] = row;
                    Some(at + 1)
                }
                Instruction::Leave { register, over, again } => Some(if self.registers[register] == row { over } else { again }),
                Instruction::Start => (row == 0 && self.rows.from_start).then_some(at + 1),
                Instruction::End => {
                    self.at_end |= row >= self.rows.len();
                    self.examined = self.examined.max(self.rows.len().min(row + 1));
                    (row >= self.rows.len()).then_some(at + 1)
                }
            };
            if self.at_end && !self.rows.to_end {
                return Ok(Attempt { found: None, examined: self.examined, at_end: true });
            }
            at = match next.or_else(|| self.back()) {
                Some(at) => at,
                None => return Ok(Attempt { found: None, examined: self.examined, at_end: self.at_end }),
            };
        }
    }

    fn choose(&mut self, at: usize, row: usize, first: usize, second: usize) -> Option<usize> {
        if let Some(choice) = self.search.remembered[at] {
            let base = if self.search.forgets { self.start } else { 0 };
            let place = (row - base) * self.search.choices + choice;
            if self.search.meet(place) {
                return None;
            }
            self.trail.push(place);
        }
        let depth = self.found.variables.len();
        self.left.push(Frame { at: second, depth, trail: self.trail.len(), registers: self.registers.clone() });
        Some(first)
    }

    /// The last choice that is left.
    fn back(&mut self) -> Option<usize> {
        let frame = self.left.pop()?;
        self.found.variables.truncate(frame.depth);
        self.found.shown.truncate(frame.depth);
        self.trail.truncate(frame.trail);
        self.registers = frame.registers;
        Some(frame.at)
    }

    /// Whether the row, which is the last of those found, is one of the variable's.
    fn fits(&mut self, variable: u8, row: usize) -> Result<bool> {
        let rows = self.rows;
        let define = &self.spec.defines[usize::from(variable)];
        self.at_end |= row + define.ahead >= rows.len();
        self.examined = self.examined.max((row + define.ahead + 1).min(rows.len()));
        if row >= rows.len() || (self.at_end && !rows.to_end) {
            return Ok(false);
        }
        let (first, time) = (rows.time(self.start), rows.time(row));
        let in_time = self.spec.within.is_none_or(|within| time < i64::MAX && time.saturating_sub(first) <= within);
        if !in_time || !rows.fits(variable, row) {
            return Ok(false);
        }
        let Some(test) = &define.of_match else { return Ok(true) };
        let mapped = Mapped { start: self.start, variables: &self.found.variables };
        fits_match(self.spec, rows, test, mapped, &mut self.search.totals)
    }
}
