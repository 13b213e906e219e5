//! From the text of PATTERN to a [`Pattern`], and back for EXPLAIN.

use crate::error::{Error, Result};
use crate::flow::pattern::program::Pattern;
use crate::limits;

/// How many orders PERMUTE may write out.
const PERMUTATIONS: usize = 720;

/// The pattern and the names of its variables, in the order of their numbers. `position`: of the text, for errors.
pub fn parse(text: &str, position: u32) -> Result<(Pattern, Vec<String>)> {
    let mut reader = Reader { text: text.chars().collect(), at: 0, position, names: Vec::new() };
    let pattern = reader.either()?;
    match reader.peek() {
        None => Ok((pattern, reader.names)),
        Some(_) => Err(reader.unexpected("expected a variable, a quantifier or |")),
    }
}

struct Reader {
    text: Vec<char>,
    at: usize,
    position: u32,
    names: Vec<String>,
}

impl Reader {
    fn peek(&mut self) -> Option<char> {
        while self.text.get(self.at).is_some_and(|c| c.is_whitespace()) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn eat(&mut self, c: char) -> bool {
        let next = self.peek() == Some(c);
        self.at += usize::from(next);
        next
    }

    fn expect(&mut self, c: char) -> Result<()> {
        if self.eat(c) { Ok(()) } else { Err(self.unexpected(&format!("expected {c}"))) }
    }

    fn error(&self, message: impl Into<String>) -> Error {
        Error::syntax(message).at(self.position + self.at as u32)
    }

    fn unexpected(&mut self, detail: &str) -> Error {
        let error = match self.peek() {
            Some(c) => self.error(format!("syntax error at or near \"{c}\" in PATTERN")),
            None => self.error("syntax error at the end of PATTERN"),
        };
        error.with_detail(detail)
    }

    /// `a | b`
    fn either(&mut self) -> Result<Pattern> {
        let mut ways = vec![self.sequence()?];
        while self.eat('|') {
            ways.push(self.sequence()?);
        }
        Ok(if ways.len() == 1 { ways.remove(0) } else { Pattern::Either(ways) })
    }

    /// `a b`
    fn sequence(&mut self) -> Result<Pattern> {
        let mut parts = vec![self.quantified()?];
        while self.peek().is_some_and(|c| !matches!(c, '|' | ')' | ',' | '-')) {
            parts.push(self.quantified()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Pattern::Sequence(parts) })
    }

    /// `a`, `a*`, `a{2,3}?`
    fn quantified(&mut self) -> Result<Pattern> {
        let of = self.primary()?;
        let (least, most) = match self.peek() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            Some('{') if self.text.get(self.at + 1) != Some(&'-') => return self.bounded(of),
            _ => return Ok(of),
        };
        self.at += 1;
        self.repeat(of, least, most)
    }

    /// `{n}`, `{n,}`, `{,m}`, `{n,m}`
    fn bounded(&mut self, of: Pattern) -> Result<Pattern> {
        self.at += 1;
        let least = self.number()?;
        let most = if self.eat(',') { self.number()? } else { least };
        let open = least.is_none() && most.is_none();
        if open || (most == Some(0)) || most.is_some_and(|most| most < least.unwrap_or(0)) {
            return Err(self.error("the bounds of a quantifier are {n}, {n,}, {,m} or {n,m}, with 0 < m and n <= m"));
        }
        self.expect('}')?;
        self.repeat(of, least.unwrap_or(0), most)
    }

    fn number(&mut self) -> Result<Option<u32>> {
        self.peek();
        let digits: String = self.text[self.at.min(self.text.len())..].iter().take_while(|c| c.is_ascii_digit()).collect();
        if digits.is_empty() {
            return Ok(None);
        }
        let number = digits.parse().map_err(|_| self.error("the bound of a quantifier is too great"))?;
        self.at += digits.len();
        Ok(Some(number))
    }

    fn repeat(&mut self, of: Pattern, least: u32, most: Option<u32>) -> Result<Pattern> {
        let greedy = !self.eat('?');
        if matches!(self.peek(), Some('*' | '+' | '?')) {
            return Err(self.unexpected("a quantifier follows another: put what it repeats into parentheses"));
        }
        Ok(Pattern::Repeat { of: Box::new(of), least, most, greedy })
    }

    fn primary(&mut self) -> Result<Pattern> {
        match self.peek() {
            Some('^') => {
                self.at += 1;
                Ok(Pattern::Start)
            }
            Some('$') => {
                self.at += 1;
                Ok(Pattern::End)
            }
            Some('(') => {
                self.at += 1;
                if self.eat(')') {
                    return Ok(Pattern::Sequence(Vec::new()));
                }
                let inner = self.either()?;
                self.expect(')')?;
                Ok(inner)
            }
            Some('{') if self.text.get(self.at + 1) == Some(&'-') => {
                self.at += 2;
                let inner = self.either()?;
                self.expect('-')?;
                self.expect('}')?;
                Ok(Pattern::Exclude(Box::new(inner)))
            }
            Some(c) if c.is_alphabetic() || c == '_' || c == '"' => self.name(),
            _ => Err(self.unexpected("expected a variable, (, ^, $, {- or PERMUTE")),
        }
    }

    fn name(&mut self) -> Result<Pattern> {
        let start = self.at;
        let quoted = self.text[start] == '"';
        let name: String = if quoted {
            let mut name = String::new();
            self.at += 1;
            loop {
                match (self.text.get(self.at), self.text.get(self.at + 1)) {
                    (Some('"'), Some('"')) => self.at += 1,
                    (Some('"'), _) => break,
                    (None, _) => return Err(self.unexpected("expected \"")),
                    _ => {}
                }
                name.push(self.text[self.at]);
                self.at += 1;
            }
            self.at += 1;
            name
        } else {
            let is_part = |c: &&char| c.is_alphanumeric() || matches!(**c, '_');
            let name: String = self.text[start..].iter().take_while(is_part).collect();
            self.at += name.chars().count();
            name.to_lowercase()
        };
        if !quoted && name == "permute" && self.eat('(') {
            return self.permute();
        }
        let number = self.names.iter().position(|known| *known == name).unwrap_or(self.names.len());
        if number == self.names.len() {
            if number == limits::PATTERN_VARIABLES {
                let message = format!("a pattern has at most {} variables", limits::PATTERN_VARIABLES);
                return Err(Error::limit_exceeded(message).at(self.position + start as u32));
            }
            self.names.push(name);
        }
        Ok(Pattern::Variable(number as u8))
    }

    /// `PERMUTE(a, b, …)`: all orders, those preferred that are first by how the parts are written.
    fn permute(&mut self) -> Result<Pattern> {
        let mut parts = vec![self.either()?];
        while self.eat(',') {
            parts.push(self.either()?);
        }
        self.expect(')')?;
        let orders = orders(parts.len()).ok_or_else(|| {
            let error = Error::limit_exceeded(format!("PERMUTE of {} parts has more than {PERMUTATIONS} orders", parts.len()));
            error.at(self.position + self.at as u32).with_hint("write (a | b | …){n} and count the variables in MEASURES")
        })?;
        let way = |order: Vec<usize>| Pattern::Sequence(order.into_iter().map(|part| parts[part].clone()).collect());
        Ok(Pattern::Either(orders.into_iter().map(way).collect()))
    }
}

/// All orders of so many parts, in lexical order. `None`: too many.
fn orders(parts: usize) -> Option<Vec<Vec<usize>>> {
    let mut orders: Vec<Vec<usize>> = vec![Vec::new()];
    for _ in 0..parts {
        let longer = orders.iter().flat_map(|order| {
            (0..parts).filter(|part| !order.contains(part)).map(|part| order.iter().copied().chain([part]).collect())
        });
        orders = longer.collect();
        if orders.len() > PERMUTATIONS {
            return None;
        }
    }
    Some(orders)
}

/// The pattern as one might write it.
pub fn show(pattern: &Pattern, names: &[String]) -> String {
    let list = |parts: &[Pattern], between: &str| parts.iter().map(|part| show(part, names)).collect::<Vec<_>>().join(between);
    match pattern {
        Pattern::Variable(variable) => names[usize::from(*variable)].clone(),
        Pattern::Start => "^".into(),
        Pattern::End => "$".into(),
        Pattern::Sequence(parts) if parts.is_empty() => "()".into(),
        Pattern::Sequence(parts) => list(parts, " "),
        Pattern::Either(ways) => format!("({})", list(ways, " | ")),
        Pattern::Exclude(of) => format!("{{- {} -}}", show(of, names)),
        Pattern::Repeat { of, least, most, greedy } => {
            let of = match **of {
                Pattern::Sequence(ref parts) if !parts.is_empty() => format!("({})", show(of, names)),
                Pattern::Repeat { .. } => format!("({})", show(of, names)),
                _ => show(of, names),
            };
            let quantifier = match (least, most) {
                (0, None) => "*".into(),
                (1, None) => "+".into(),
                (0, Some(1)) => "?".into(),
                (least, None) => format!("{{{least},}}"),
                (least, Some(most)) if least == most => format!("{{{least}}}"),
                (least, Some(most)) => format!("{{{least},{most}}}"),
            };
            format!("{of}{quantifier}{}", if *greedy { "" } else { "?" })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case("A B+ C", "a b+ c")]
    #[case("A*? (B|C){2,3} D{,4}? E{2} F{1,} G??", "a*? (b | c){2,3} d{0,4}? e{2} f+ g??")]
    #[case("^ A (B C)* $", "^ a (b c)* $")]
    #[case("a {- b+ | c -} \"D d\"", "a {- (b+ | c) -} D d")]
    #[case("PERMUTE(A, B | C) ()", "(a (b | c) | (b | c) a) ()")]
    #[case("((a))", "a")]
    fn patterns_are_read(#[case] text: &str, #[case] shown: &str) {
        let (pattern, names) = parse(text, 1).unwrap();
        assert_eq!(show(&pattern, &names), shown);
    }

    #[rstest::rstest]
    #[case("", 1, "at the end")]
    #[case("A )", 3, "near \")\"")]
    #[case("A || B", 4, "near \"|\"")]
    #[case("A ** B", 4, "near \"*\"")]
    #[case("A{3,2}", 6, "bounds")]
    #[case("(A B", 5, "at the end")]
    #[case("A{99999999999}", 3, "too great")]
    #[case("PERMUTE(A,B,C,D,E,F,G,H)", 25, "orders")]
    #[case("A é& B", 4, "near \"&\"")]
    fn mistakes_have_their_place(#[case] text: &str, #[case] position: u32, #[case] message: &str) {
        let error = parse(text, 1).unwrap_err();
        assert!(error.message().contains(message), "{error}");
        assert_eq!(error.position(), Some(position));
    }
}
