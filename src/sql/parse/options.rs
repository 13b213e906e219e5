//! `WITH (key = value, …)`, and the values that options have: lengths of time, booleans.

use sqlparser::tokenizer::Token;

use super::grammar::Grammar;
use crate::error::{Error, Result};
use crate::sql::ast::Options;

impl Grammar<'_> {
    /// `WITH (…)`, if it is next: keys bare, dotted or quoted, in any case.
    pub fn with_options(&mut self, options: &mut Options) -> Result<()> {
        if !self.is("WITH") || *self.peek_nth(1) != Token::LParen {
            return Ok(());
        }
        self.skip(1);
        self.options(options)
    }

    /// `(key = value, …)`
    pub fn options(&mut self, options: &mut Options) -> Result<()> {
        self.expect_token(&Token::LParen)?;
        if self.eat_token(&Token::RParen) {
            return Ok(());
        }
        loop {
            let position = self.position();
            let key = self.option_key()?;
            self.expect_token(&Token::Eq)?;
            let value = self.option_value()?;
            if options.insert(key.clone(), value).is_some() {
                return Err(Error::syntax(format!("option \"{key}\" is given twice")).at(position));
            }
            if !self.eat_token(&Token::Comma) {
                return self.expect_token(&Token::RParen);
            }
        }
    }

    /// A key in lower case: `a`, `a.b.c`, `a-b`, `'a.b'`.
    pub fn option_key(&mut self) -> Result<String> {
        let mut key = String::new();
        loop {
            match self.peek() {
                Token::Word(word) => key.push_str(&word.value),
                Token::SingleQuotedString(text) => key.push_str(text),
                _ => return Err(self.unexpected("the name of an option")),
            }
            self.skip(1);
            match self.peek() {
                Token::Period => key.push('.'),
                Token::Minus => key.push('-'),
                _ => return Ok(key.to_lowercase()),
            }
            self.skip(1);
        }
    }

    /// A string, number, word or `INTERVAL '…'`, as text without quotes.
    pub fn option_value(&mut self) -> Result<String> {
        if self.is("INTERVAL") {
            self.skip(1);
            let mut text = self.string()?;
            if self.is_nth(1, "TO") {
                // INTERVAL '-08:00' HOUR TO MINUTE.
                self.skip(3);
            } else if let Token::Word(unit) = self.peek() {
                text = format!("{text} {}", unit.value.to_lowercase());
                self.skip(1);
            }
            return Ok(text);
        }
        let sign = if self.eat_token(&Token::Minus) { "-" } else { "" };
        match self.peek().clone() {
            Token::Number(number, _) => {
                self.skip(1);
                let unit = match self.peek() {
                    Token::Word(unit) if is_unit(&unit.value) => format!(" {}", unit.value.to_lowercase()),
                    _ => String::new(),
                };
                self.skip(usize::from(!unit.is_empty()));
                Ok(format!("{sign}{number}{unit}"))
            }
            Token::Word(word) if sign.is_empty() => {
                self.skip(1);
                Ok(if word.quote_style.is_some() { word.value } else { word.value.to_lowercase() })
            }
            _ if sign.is_empty() => self.string(),
            _ => Err(self.unexpected("a number")),
        }
    }

    /// `name`, `name = true`, `name false`: a switch in a list of options.
    pub fn switch(&mut self) -> Result<bool> {
        let assigned = self.eat_token(&Token::Eq);
        if !assigned && matches!(self.peek(), Token::Comma | Token::RParen) {
            return Ok(true);
        }
        let position = self.position();
        let value = self.option_value()?;
        boolean(&value).ok_or_else(|| Error::syntax(format!("\"{value}\" is neither true nor false")).at(position))
    }
}

/// As PostgreSQL reads booleans in options.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "on" | "1" | "yes" | "t" | "y" => Some(true),
        "false" | "off" | "0" | "no" | "f" | "n" => Some(false),
        _ => None,
    }
}

/// `1s`, `500 ms`, `2 minutes`, `250` (milliseconds) in milliseconds.
pub(super) fn milliseconds(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "ms" | "msec" | "millisecond" | "milliseconds" => 1.0,
        "s" | "sec" | "secs" | "second" | "seconds" => 1e3,
        "m" | "min" | "mins" | "minute" | "minutes" => 60e3,
        "h" | "hour" | "hours" => 3600e3,
        "d" | "day" | "days" => 86_400e3,
        _ => return None,
    };
    let milliseconds = number.parse::<f64>().ok()? * factor;
    (milliseconds.is_finite() && milliseconds < u64::MAX as f64).then_some(milliseconds as u64)
}

fn is_unit(word: &str) -> bool {
    const UNITS: [&str; 8] = ["millisecond", "second", "minute", "hour", "day", "week", "month", "year"];
    let word = word.to_ascii_lowercase();
    UNITS.contains(&word.strip_suffix('s').unwrap_or(&word))
}
