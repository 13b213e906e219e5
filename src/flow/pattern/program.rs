//! A pattern and the program that it becomes.
//!
//! The program is that of a backtracking machine: it takes rows one by one and, where the pattern leaves a choice, tries the
//! preferred way first. So the first match that it comes to is the one that SQL:2016 prefers: of alternatives the one written
//! first, of a quantifier as many rows as possible, or as few, if it is reluctant.
//!
//! ```text
//!   A B*? C        0 Row A    1 Split 4, 2    2 Row B    3 Jump 1    4 Row C    5 Accept
//! ```
//!
//! Quantifiers with bounds are copied out, so nothing is counted when a program runs. An iteration without a row ends its loop,
//! as in Perl: [`Instruction::Leave`] sees that.

use crate::error::{Error, Result};
use crate::limits;

/// A set of variables, a bit for each.
pub type Variables = u64;

/// All rows of a match, whatever their variable.
pub const ANY: Variables = Variables::MAX;

/// A pattern over numbered variables.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd)]
pub enum Pattern {
    Variable(u8),
    /// The beginning and the end of the partition: `^` and `$`.
    Start,
    End,
    /// One after the other; none is the empty pattern.
    Sequence(Vec<Pattern>),
    /// The first of these that leads to a match.
    Either(Vec<Pattern>),
    Repeat {
        of: Box<Pattern>,
        least: u32,
        most: Option<u32>,
        greedy: bool,
    },
    /// `{- … -}`: rows that are matched and not shown.
    Exclude(Box<Pattern>),
}

impl Pattern {
    /// It matches without any row.
    pub fn is_nullable(&self) -> bool {
        self.shortest() == 0
    }

    /// How many rows a match has at least.
    pub fn shortest(&self) -> usize {
        match self {
            Pattern::Variable(_) => 1,
            Pattern::Start | Pattern::End => 0,
            Pattern::Sequence(parts) => parts.iter().fold(0, |sum: usize, part| sum.saturating_add(part.shortest())),
            Pattern::Either(ways) => ways.iter().map(Pattern::shortest).min().unwrap_or(0),
            Pattern::Repeat { of, least, .. } => of.shortest().saturating_mul(*least as usize),
            Pattern::Exclude(of) => of.shortest(),
        }
    }

    /// How many rows of a match come before the first row of these variables, at least. `None`: no row is theirs.
    pub fn before(&self, variables: Variables) -> Option<usize> {
        match self {
            Pattern::Variable(variable) => (variables & bit(*variable) != 0).then_some(0),
            Pattern::Start | Pattern::End => None,
            Pattern::Sequence(parts) => {
                let mut passed = 0_usize;
                let mut least: Option<usize> = None;
                for part in parts {
                    if let Some(before) = part.before(variables) {
                        least = Some(least.unwrap_or(usize::MAX).min(passed.saturating_add(before)));
                    }
                    passed = passed.saturating_add(part.shortest());
                }
                least
            }
            Pattern::Either(ways) => ways.iter().filter_map(|way| way.before(variables)).min(),
            Pattern::Repeat { of, most, .. } => of.before(variables).filter(|_| *most != Some(0)),
            Pattern::Exclude(of) => of.before(variables),
        }
    }

    /// Every match has a row of these variables.
    pub fn always_has(&self, variables: Variables) -> bool {
        match self {
            Pattern::Variable(variable) => variables & bit(*variable) != 0,
            Pattern::Start | Pattern::End => false,
            Pattern::Sequence(parts) => parts.iter().any(|part| part.always_has(variables)),
            Pattern::Either(ways) => ways.iter().all(|way| way.always_has(variables)),
            Pattern::Repeat { of, least, .. } => *least > 0 && of.always_has(variables),
            Pattern::Exclude(of) => of.always_has(variables),
        }
    }

    /// Some part of it is like this.
    pub fn any(&self, is: &impl Fn(&Pattern) -> bool) -> bool {
        is(self)
            || match self {
                Pattern::Variable(_) | Pattern::Start | Pattern::End => false,
                Pattern::Sequence(parts) | Pattern::Either(parts) => parts.iter().any(|part| part.any(is)),
                Pattern::Repeat { of, .. } | Pattern::Exclude(of) => of.any(is),
            }
    }
}

/// The set of one variable.
pub fn bit(variable: u8) -> Variables {
    1 << variable
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// Take a row, if it is one of the variable's.
    Row {
        variable: u8,
        shown: bool,
    },
    /// Try one way, and the other if that leads to no match.
    Split {
        first: usize,
        second: usize,
    },
    Jump(usize),
    /// An iteration of a loop begins at this row.
    Enter {
        register: usize,
    },
    /// It ends: without a row of its own, the loop is over.
    Leave {
        register: usize,
        over: usize,
        again: usize,
    },
    /// The partition begins, or ends, here.
    Start,
    End,
    Accept,
}

#[derive(Clone, Debug)]
pub struct Program {
    pub instructions: Vec<Instruction>,
    pub registers: usize,
}

impl Program {
    pub fn new(pattern: &Pattern) -> Result<Program> {
        let mut program = Program { instructions: Vec::new(), registers: 0 };
        program.add(pattern, true)?;
        program.push(Instruction::Accept)?;
        Ok(program)
    }

    fn push(&mut self, instruction: Instruction) -> Result<usize> {
        if self.instructions.len() == limits::PATTERN_INSTRUCTIONS {
            let message =
                format!("the pattern is longer than {} steps when its quantifiers are written out", limits::PATTERN_INSTRUCTIONS);
            return Err(Error::limit_exceeded(message).with_hint("use smaller bounds, or * and + with a condition in DEFINE"));
        }
        self.instructions.push(instruction);
        Ok(self.instructions.len() - 1)
    }

    fn here(&self) -> usize {
        self.instructions.len()
    }

    fn add(&mut self, pattern: &Pattern, shown: bool) -> Result<()> {
        match pattern {
            Pattern::Variable(variable) => drop(self.push(Instruction::Row { variable: *variable, shown })?),
            Pattern::Start => drop(self.push(Instruction::Start)?),
            Pattern::End => drop(self.push(Instruction::End)?),
            Pattern::Sequence(parts) => parts.iter().try_for_each(|part| self.add(part, shown))?,
            Pattern::Exclude(of) => self.add(of, false)?,
            Pattern::Either(ways) => self.add_either(ways, shown)?,
            Pattern::Repeat { of, least, most, greedy } => {
                (0..*least).try_for_each(|_| self.add(of, shown))?;
                match most {
                    None => self.add_loop(of, *greedy, shown)?,
                    Some(most) => self.add_optional(of, most.saturating_sub(*least), *greedy, shown)?,
                }
            }
        }
        Ok(())
    }

    fn add_either(&mut self, ways: &[Pattern], shown: bool) -> Result<()> {
        let mut ends = Vec::new();
        for (n, way) in ways.iter().enumerate() {
            if n + 1 == ways.len() {
                self.add(way, shown)?;
                continue;
            }
            let split = self.push(Instruction::Accept)?;
            self.add(way, shown)?;
            ends.push(self.push(Instruction::Accept)?);
            self.instructions[split] = Instruction::Split { first: split + 1, second: self.here() };
        }
        let here = self.here();
        ends.into_iter().for_each(|end| self.instructions[end] = Instruction::Jump(here));
        Ok(())
    }

    fn add_loop(&mut self, of: &Pattern, greedy: bool, shown: bool) -> Result<()> {
        let split = self.push(Instruction::Accept)?;
        if of.is_nullable() {
            let register = self.registers;
            self.registers += 1;
            self.push(Instruction::Enter { register })?;
            self.add(of, shown)?;
            let over = self.here() + 1;
            self.push(Instruction::Leave { register, over, again: split })?;
        } else {
            self.add(of, shown)?;
            self.push(Instruction::Jump(split))?;
        }
        self.instructions[split] = choice(greedy, split + 1, self.here());
        Ok(())
    }

    /// Up to so many more.
    fn add_optional(&mut self, of: &Pattern, times: u32, greedy: bool, shown: bool) -> Result<()> {
        let (mut splits, mut leaves) = (Vec::new(), Vec::new());
        for _ in 0..times {
            splits.push(self.push(Instruction::Accept)?);
            if of.is_nullable() {
                let register = self.registers;
                self.registers += 1;
                self.push(Instruction::Enter { register })?;
                self.add(of, shown)?;
                let again = self.here() + 1;
                leaves.push(self.push(Instruction::Leave { register, over: again, again })?);
            } else {
                self.add(of, shown)?;
            }
        }
        let end = self.here();
        splits.into_iter().for_each(|split| self.instructions[split] = choice(greedy, split + 1, end));
        for leave in leaves {
            if let Instruction::Leave { over, .. } = &mut self.instructions[leave] {
                *over = end;
            }
        }
        Ok(())
    }

    /// Of each instruction: no instruction that may follow it is like this, nor is it itself.
    pub fn never_reaches(&self, is: impl Fn(&Instruction) -> bool) -> Vec<bool> {
        let mut reaches: Vec<bool> = self.instructions.iter().map(is).collect();
        loop {
            let mut changed = false;
            for at in (0..self.instructions.len()).rev() {
                let next = match self.instructions[at] {
                    Instruction::Split { first, second } => reaches[first] || reaches[second],
                    Instruction::Jump(to) => reaches[to],
                    Instruction::Leave { over, again, .. } => reaches[over] || reaches[again],
                    Instruction::Accept => false,
                    _ => reaches[at + 1],
                };
                changed |= next && !reaches[at];
                reaches[at] |= next;
            }
            if !changed {
                return reaches.into_iter().map(|reaches| !reaches).collect();
            }
        }
    }
}

fn choice(greedy: bool, more: usize, enough: usize) -> Instruction {
    match greedy {
        true => Instruction::Split { first: more, second: enough },
        false => Instruction::Split { first: enough, second: more },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(n: u8) -> Pattern {
        Pattern::Variable(n)
    }

    fn repeat(of: Pattern, least: u32, most: Option<u32>) -> Pattern {
        Pattern::Repeat { of: Box::new(of), least, most, greedy: true }
    }

    #[test]
    fn how_far_a_variable_is_from_the_first_row() {
        // A B* (C | D E)
        let pattern = Pattern::Sequence(vec![
            variable(0),
            repeat(variable(1), 0, None),
            Pattern::Either(vec![variable(2), Pattern::Sequence(vec![variable(3), variable(4)])]),
        ]);
        let before = |n| pattern.before(bit(n));
        assert_eq!([before(0), before(1), before(2), before(4), before(5)], [Some(0), Some(1), Some(1), Some(2), None]);
        assert!(pattern.always_has(bit(0)) && pattern.always_has(bit(2) | bit(3)));
        assert!(!pattern.always_has(bit(1)) && !pattern.always_has(bit(2)));
        assert_eq!(pattern.shortest(), 2);
    }

    #[test]
    fn bounds_are_written_out_up_to_a_limit() {
        let program = Program::new(&repeat(variable(0), 2, Some(4))).unwrap();
        let rows = program.instructions.iter().filter(|i| matches!(i, Instruction::Row { .. })).count();
        assert_eq!((rows, program.instructions.len()), (4, 7));
        let huge = repeat(repeat(variable(0), 1000, Some(1000)), 1000, Some(1000));
        assert!(Program::new(&huge).unwrap_err().message().contains("longer than"));
    }
}
