//! `to_char` with PostgreSQL's templates, for instants and for numbers; for intervals see [`to_char_interval`](super::to_char_interval).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::datatypes::{DataType, FieldRef};
use chrono::{Datelike, NaiveDateTime, Timelike};
use datafusion::logical_expr::Volatility;

use super::super::value::{Value, value_at};
use super::to_char_interval::Parts;
use super::{Body, Spec};
use crate::copy::value::write::push_offset;
use crate::error::{Error, Result};
use crate::time::Micros;
use crate::time::zone::Zone;

pub(super) const FUNCTIONS: &[Spec] = &[Spec {
    name: "to_char",
    forms: &[&["any", "text"]],
    result: "text",
    strict: true,
    volatility: Volatility::Immutable,
    body: Body::Columns(to_char),
}];

fn to_char(fields: &[FieldRef], columns: &[ArrayRef]) -> Result<ArrayRef> {
    let [values, templates] = columns else { return Err(Error::internal("to_char takes two arguments")) };
    let templates = templates.as_string::<i32>();
    let kind = fields.first().map(|f| f.data_type());
    let zone = match kind {
        Some(DataType::Timestamp(_, zone)) => Some(zone.as_deref().map(Zone::of_type)),
        Some(DataType::Date32 | DataType::Date64) => Some(None),
        _ => None,
    };
    let mut output = StringBuilder::with_capacity(values.len(), values.len() * 10);
    let mut written = String::new();
    // Of the row before: mostly the same.
    let mut read: Option<(&str, Vec<Piece>)> = None;
    for row in 0..values.len() {
        if values.is_null(row) || templates.is_null(row) {
            output.append_null();
            continue;
        }
        let (value, template) = (value_at(values, row), templates.value(row));
        match (zone, value) {
            (Some(zone), Value::Int(micros)) => {
                if read.as_ref().is_none_or(|(text, _)| *text != template) {
                    read = Some((template, pieces(template)));
                }
                let pieces = read.as_ref().map_or(&[][..], |(_, pieces)| pieces);
                written.clear();
                let local = zone.map_or(Ok(micros), |zone| zone.local(micros))?;
                write(super::time::instant(local)?, zone.map(|zone| (zone, micros)), pieces, &mut written);
                output.append_value(&written);
            }
            (None, Value::Interval { months, days, micros }) => {
                written.clear();
                Parts::new(months, days, micros).write(&pieces(template), &mut written)?;
                output.append_value(&written);
            }
            (None, value) => output.append_value(number_as_text(&value, kind, template)?),
            (Some(_), _) => output.append_null(),
        }
    }
    Ok(Arc::new(output.finish()))
}

fn number_as_text(value: &Value, kind: Option<&DataType>, template: &str) -> Result<String> {
    match (value, kind) {
        (Value::Int(n), _) => number(&n.to_string(), template),
        (Value::Float(f), _) if !f.is_finite() => Ok(f.to_string()),
        (Value::Float(f), _) => number(&format!("{f}"), template),
        // Decimals come as their exact text.
        (Value::Text(digits), Some(DataType::Decimal128(..) | DataType::Decimal256(..))) => number(digits, template),
        (_, other) => {
            let name = other.map_or(String::new(), |t| t.to_string().to_lowercase());
            Err(Error::undefined_function(format!("function to_char({name}, text) does not exist"))
                .with_hint("to_char takes timestamps, dates, intervals and numbers"))
        }
    }
}

const MONTHS: [&str; 12] =
    ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// The patterns of instants; a longer one comes before those that it starts with.
const PATTERNS: [&str; 64] = [
    "Y,YYY", "SSSSS", "MONTH", "Month", "month", "HH24", "HH12", "SSSS", "IYYY", "YYYY", "A.M.", "P.M.", "a.m.", "p.m.", "IDDD",
    "B.C.", "A.D.", "FF1", "FF2", "FF3", "FF4", "FF5", "FF6", "YYY", "IYY", "MON", "Mon", "mon", "DAY", "Day", "day", "DDD",
    "TZH", "TZM", "HH", "MI", "SS", "MS", "US", "AM", "PM", "am", "pm", "YY", "IY", "MM", "DY", "Dy", "dy", "DD", "ID", "WW",
    "IW", "CC", "TZ", "tz", "OF", "BC", "AD", "Y", "D", "W", "J", "Q",
];

/// A part of a template for instants.
pub(super) enum Piece {
    Text(String),
    /// `th`: followed by the ending of an ordinal, in upper case or not.
    Field {
        pattern: &'static str,
        fill: bool,
        th: Option<bool>,
    },
}

fn pieces(template: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            let mut text = String::new();
            rest = quoted(&rest[1..], &mut text);
            pieces.push(Piece::Text(text));
            continue;
        }
        let (fill, start) = match rest.strip_prefix("FM").or_else(|| rest.strip_prefix("fm")) {
            Some(after) => (false, after),
            None => (true, rest),
        };
        let upper = start.to_ascii_uppercase();
        let exact = PATTERNS.iter().find(|p| start.starts_with(**p));
        let Some(pattern) = exact.or_else(|| PATTERNS.iter().find(|p| upper.starts_with(**p))) else {
            if fill {
                pieces.push(Piece::Text(first.to_string()));
                rest = &rest[first.len_utf8()..];
            } else {
                rest = start;
            }
            continue;
        };
        rest = &start[pattern.len()..];
        let th = rest.get(..2).filter(|th| ["TH", "th"].contains(th)).map(|th| th == "TH");
        rest = if th.is_some() { &rest[2..] } else { rest };
        pieces.push(Piece::Field { pattern, fill, th });
    }
    pieces
}

/// The zone that an instant is shown in, and the instant.
type Seen = Option<(Zone, Micros)>;

fn write(t: NaiveDateTime, seen: Seen, pieces: &[Piece], output: &mut String) {
    for piece in pieces {
        match piece {
            Piece::Text(text) => output.push_str(text),
            Piece::Field { pattern, fill: true, th: None } if digits(t, pattern, output) => {}
            Piece::Field { pattern, fill, th } => {
                let written = field(t, seen, pattern, *fill);
                output.push_str(&written);
                match th {
                    Some(true) => output.push_str(&ordinal(&written).to_uppercase()),
                    Some(false) => output.push_str(ordinal(&written)),
                    None => {}
                }
            }
        }
    }
}

/// The fields that templates are mostly made of, without a string of their own; false for others.
fn digits(t: NaiveDateTime, pattern: &str, output: &mut String) -> bool {
    let (n, width) = match pattern {
        "YYYY" if (0..=9999).contains(&t.year()) => (t.year().unsigned_abs(), 4),
        "MM" => (t.month(), 2),
        "DD" => (t.day(), 2),
        "HH24" => (t.hour(), 2),
        "MI" => (t.minute(), 2),
        "SS" => (t.second(), 2),
        "MS" => (t.nanosecond() / 1_000_000, 3),
        "US" => (t.nanosecond() / 1000, 6),
        _ => return false,
    };
    for place in (0..width).rev() {
        output.push(char::from(b'0' + (n / 10_u32.pow(place) % 10) as u8));
    }
    true
}

/// Copies up to the closing quote.
fn quoted<'a>(text: &'a str, output: &mut String) -> &'a str {
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return &text[at + 1..],
            '\\' => output.extend(characters.next().map(|(_, c)| c)),
            c => output.push(c),
        }
    }
    ""
}

fn field(t: NaiveDateTime, seen: Seen, pattern: &str, fill: bool) -> String {
    let number = |n: i64, width: usize| if fill { format!("{n:0width$}") } else { n.to_string() };
    let name = |name: &str| if fill { format!("{name:9}") } else { name.to_string() };
    let (month, day) = (MONTHS[t.month0() as usize], DAYS[t.weekday().num_days_from_sunday() as usize]);
    let hour12 = i64::from(t.hour12().1);
    let (micros, year, week_year) = (i64::from(t.nanosecond() / 1000), i64::from(t.year()), t.iso_week());
    let east = seen.map_or(0, |(zone, at)| zone.offset(at));
    let noon = |before: &str, after: &str| (if t.hour() < 12 { before } else { after }).to_string();
    let era = |before: &str, after: &str| (if year > 0 { after } else { before }).to_string();
    let fraction = |digits: u32| format!("{:06}", micros)[..digits as usize].to_string();
    match pattern {
        "HH24" => number(t.hour().into(), 2),
        "HH12" | "HH" => number(hour12, 2),
        "MI" => number(t.minute().into(), 2),
        "SS" => number(t.second().into(), 2),
        "MS" => number(micros / 1000, 3),
        "US" => number(micros, 6),
        "FF1" => fraction(1),
        "FF2" => fraction(2),
        "FF3" => fraction(3),
        "FF4" => fraction(4),
        "FF5" => fraction(5),
        "FF6" => fraction(6),
        "SSSS" | "SSSSS" => t.num_seconds_from_midnight().to_string(),
        "AM" | "PM" => noon("AM", "PM"),
        "am" | "pm" => noon("am", "pm"),
        "A.M." | "P.M." => noon("A.M.", "P.M."),
        "a.m." | "p.m." => noon("a.m.", "p.m."),
        "BC" | "AD" => era("BC", "AD"),
        "B.C." | "A.D." => era("B.C.", "A.D."),
        "Y,YYY" => format!("{},{:03}", year / 1000, year % 1000),
        "YYYY" => number(year, 4),
        "YYY" => number(year % 1000, 3),
        "YY" => number(year % 100, 2),
        "Y" => (year % 10).to_string(),
        "IYYY" => number(week_year.year().into(), 4),
        "IYY" => number(i64::from(week_year.year()) % 1000, 3),
        "IY" => number(i64::from(week_year.year()) % 100, 2),
        "MONTH" => name(&month.to_uppercase()),
        "Month" => name(month),
        "month" => name(&month.to_lowercase()),
        "MON" => month[..3].to_uppercase(),
        "Mon" => month[..3].to_string(),
        "mon" => month[..3].to_lowercase(),
        "MM" => number(t.month().into(), 2),
        "DAY" => name(&day.to_uppercase()),
        "Day" => name(day),
        "day" => name(&day.to_lowercase()),
        "DY" => day[..3].to_uppercase(),
        "Dy" => day[..3].to_string(),
        "dy" => day[..3].to_lowercase(),
        "DDD" => number(t.ordinal().into(), 3),
        "IDDD" => number((i64::from(week_year.week()) - 1) * 7 + i64::from(t.weekday().number_from_monday()), 3),
        "DD" => number(t.day().into(), 2),
        "D" => t.weekday().number_from_sunday().to_string(),
        "ID" => t.weekday().number_from_monday().to_string(),
        "W" => (t.day0() / 7 + 1).to_string(),
        "WW" => number((t.ordinal0() / 7 + 1).into(), 2),
        "IW" => number(week_year.week().into(), 2),
        "CC" => number((year + 99) / 100, 2),
        "J" => (t.num_days_from_ce() + 1_721_425).to_string(),
        "Q" => (t.month0() / 3 + 1).to_string(),
        "TZ" => seen.map_or_else(String::new, |(zone, at)| zone.abbreviation(at).to_uppercase()),
        "tz" => seen.map_or_else(String::new, |(zone, at)| zone.abbreviation(at).to_lowercase()),
        "OF" => {
            let mut offset = Vec::new();
            push_offset(&mut offset, east, false);
            String::from_utf8_lossy(&offset).into_owned()
        }
        "TZH" => format!("{}{:02}", if east < 0 { '-' } else { '+' }, east.unsigned_abs() / 3600),
        "TZM" => format!("{:02}", east.unsigned_abs() / 60 % 60),
        _ => String::new(),
    }
}

pub(super) fn ordinal(number: &str) -> &'static str {
    let digits = number.trim_end();
    match (digits.ends_with('1'), digits.ends_with('2'), digits.ends_with('3')) {
        _ if digits.len() > 1 && digits[..digits.len() - 1].ends_with('1') => "th",
        (true, ..) => "st",
        (_, true, _) => "nd",
        (_, _, true) => "rd",
        _ => "th",
    }
}

/// A number's template, read once from left to right.
#[derive(Default)]
struct NumberTemplate {
    items: Vec<Item>,
    whole: usize,
    fraction: usize,
    /// Position among the whole digits from which zeros are written.
    zero_from: Option<usize>,
    /// Fraction digits up to which zeros are written whatever FM says.
    zero_to: usize,
    fill: bool,
    is_signed: bool,
}

enum Item {
    Digit,
    Point,
    Group,
    Literal(String),
    /// `S`, `SG`: always a sign; `MI`: minus or blank; `PL`: plus or blank.
    Sign(&'static str),
    Ordinal(bool),
}

fn read_template(template: &str) -> Result<NumberTemplate> {
    let mut read = NumberTemplate { fill: true, ..NumberTemplate::default() };
    let mut rest = template;
    let mut after_point = false;
    while let Some(first) = rest.chars().next() {
        let upper: String = rest.chars().take(4).collect::<String>().to_ascii_uppercase();
        let mut used = first.len_utf8();
        match upper.as_str() {
            u if u.starts_with("FM") => {
                read.fill = false;
                used = 2;
            }
            u if u.starts_with("MI") || u.starts_with("PL") || u.starts_with("SG") => {
                let sign = if u.starts_with("MI") {
                    "MI"
                } else if u.starts_with("PL") {
                    "PL"
                } else {
                    "SG"
                };
                read.items.push(Item::Sign(sign));
                read.is_signed = true;
                used = 2;
            }
            u if u.starts_with("TH") => {
                read.items.push(Item::Ordinal(rest.starts_with("TH")));
                used = 2;
            }
            u if u.starts_with("EEEE") || u.starts_with("RN") || u.starts_with("PR") || u.starts_with('V') => {
                let error = Error::unsupported(format!("to_char does not support \"{rest}\" in a template for numbers"));
                return Err(error.with_hint("use 9, 0, \".\", \",\", D, G, S, MI, PL, SG, TH, FM"));
            }
            u if u.starts_with('S') => {
                read.items.push(Item::Sign("S"));
                read.is_signed = true;
            }
            u if u.starts_with('9') || u.starts_with('0') => {
                read.digit(first == '0', after_point);
            }
            u if u.starts_with('.') || u.starts_with('D') => {
                if after_point {
                    return Err(Error::syntax("multiple decimal points"));
                }
                after_point = true;
                read.items.push(Item::Point);
            }
            u if u.starts_with(',') || u.starts_with('G') => read.items.push(Item::Group),
            u if u.starts_with('L') => read.items.push(Item::Literal(" ".to_string())),
            u if u.starts_with('"') => {
                let mut literal = String::new();
                let after = quoted(&rest[1..], &mut literal);
                used = rest.len() - after.len();
                read.items.push(Item::Literal(literal));
            }
            _ => read.items.push(Item::Literal(first.to_string())),
        }
        rest = &rest[used..];
    }
    Ok(read)
}

impl NumberTemplate {
    fn digit(&mut self, is_zero: bool, after_point: bool) {
        if after_point {
            self.fraction += 1;
            if is_zero {
                self.zero_to = self.fraction;
            }
        } else {
            if is_zero && self.zero_from.is_none() {
                self.zero_from = Some(self.whole);
            }
            self.whole += 1;
        }
        self.items.push(Item::Digit);
    }
}

fn number(decimal: &str, template: &str) -> Result<String> {
    let template = read_template(template)?;
    let (is_negative, whole, fraction) = round(decimal, template.fraction);
    let is_negative = is_negative && (whole.bytes().chain(fraction.bytes()).any(|b| b != b'0'));
    let too_long = whole.len() > template.whole;
    let mut output = String::new();
    let first = if whole == "0" && (template.fraction > 0) { template.whole } else { template.whole.saturating_sub(whole.len()) };
    let begins = template.zero_from.map_or(first, |z| z.min(first));
    let trailing = significant(&fraction, template.zero_to, template.fill);
    let (mut at, mut started) = (0, false);
    // An S before the digits is written before the first of them.
    let leading = template
        .items
        .iter()
        .take_while(|item| !matches!(item, Item::Digit | Item::Point))
        .any(|item| matches!(item, Item::Sign("S")));
    let mut sign_done = template.is_signed && !leading;
    let positive = match template.fill {
        _ if leading => "+",
        true => " ",
        false => "",
    };
    for item in &template.items {
        match item {
            Item::Digit if at < template.whole => {
                if at >= begins || too_long {
                    push_sign(&mut output, &mut sign_done, is_negative, positive);
                    started = true;
                    output.push(if too_long { '#' } else { digit_at(&whole, at + whole.len(), template.whole) });
                } else if template.fill {
                    output.push(' ');
                }
                at += 1;
            }
            Item::Digit => {
                let digit = at - template.whole;
                match fraction.as_bytes().get(digit) {
                    Some(_) if too_long => output.push('#'),
                    Some(b) if digit < trailing => output.push(char::from(*b)),
                    _ => {}
                }
                at += 1;
            }
            Item::Point => {
                push_sign(&mut output, &mut sign_done, is_negative, positive);
                if template.fill || trailing > 0 || template.fraction == 0 || started {
                    output.push('.');
                }
            }
            Item::Group if started => output.push(','),
            Item::Group => output.push_str(if template.fill { " " } else { "" }),
            Item::Literal(text) => output.push_str(text),
            Item::Sign("MI") => output.push_str(if is_negative {
                "-"
            } else if template.fill {
                " "
            } else {
                ""
            }),
            Item::Sign("PL") => output.push_str(if !is_negative {
                "+"
            } else if template.fill {
                " "
            } else {
                ""
            }),
            Item::Sign("S") if leading && at == 0 => {}
            Item::Sign(_) => output.push(if is_negative { '-' } else { '+' }),
            Item::Ordinal(upper) => {
                let suffix = ordinal(&whole);
                output.push_str(&if *upper { suffix.to_uppercase() } else { suffix.to_string() });
            }
        }
    }
    Ok(output)
}

/// The sign stands before the first digit, in a place of its own.
fn push_sign(output: &mut String, done: &mut bool, is_negative: bool, positive: &str) {
    if !*done {
        *done = true;
        output.push_str(if is_negative { "-" } else { positive });
    }
}

fn digit_at(whole: &str, at: usize, places: usize) -> char {
    at.checked_sub(places).and_then(|i| whole.as_bytes().get(i)).map_or('0', |b| char::from(*b))
}

/// Fraction digits that are written: with FM, without the zeros at the end.
fn significant(fraction: &str, zero_to: usize, fill: bool) -> usize {
    if fill { fraction.len() } else { fraction.trim_end_matches('0').len().max(zero_to) }
}

/// Sign, whole and fraction digits of a decimal, rounded half away from zero to `places` fraction digits.
fn round(decimal: &str, places: usize) -> (bool, String, String) {
    let (is_negative, unsigned) = match decimal.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, decimal),
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let whole = whole.trim_start_matches('0');
    let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes().chain(std::iter::repeat(b'0')).take(places)).collect();
    if fraction.as_bytes().get(places).is_some_and(|b| *b >= b'5') {
        let mut at = digits.len();
        loop {
            if at == 0 {
                digits.insert(0, b'1');
                break;
            }
            at -= 1;
            if digits[at] < b'9' {
                digits[at] += 1;
                break;
            }
            digits[at] = b'0';
        }
    }
    let text: String = digits.into_iter().map(char::from).collect();
    let cut = text.len() - places;
    let whole = if cut == 0 { "0" } else { &text[..cut] };
    (is_negative, whole.to_string(), text[cut..].to_string())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    // All texts are what PostgreSQL 15 answers.
    #[rstest]
    #[case("YYYY-MM-DD HH24:MI:SS.US", "2024-02-05 14:03:09.012345")]
    #[case("FMMonth FMDDth, YYYY", "February 5th, 2024")]
    #[case("Day|DY|D|ID|DDD|WW|IW|W|Q|CC|J", "Monday   |MON|2|1|036|06|06|1|1|21|2460346")]
    #[case("HH12:MI am \"at\" Y,YYY", "02:03 pm at 2,024")]
    #[case("MONTH|mon|YY|MS|SSSS", "FEBRUARY |feb|24|012|50589")]
    fn instants(#[case] template: &str, #[case] expected: &str) {
        let t = "2024-02-05T14:03:09.012345".parse().unwrap();
        let mut written = String::new();
        super::write(t, None, &super::pieces(template), &mut written);
        assert_eq!(written, expected);
    }

    #[rstest]
    #[case("1234.567", "9,999.99", " 1,234.57")]
    #[case("-1234.567", "9,999.99", "-1,234.57")]
    #[case("12", "9999", "   12")]
    #[case("12", "0999", " 0012")]
    #[case("-12", "9999", "  -12")]
    #[case("0.5", "9.99", "  .50")]
    #[case("0.5", "0.99", " 0.50")]
    #[case("0", "999", "   0")]
    #[case("12345", "999", " ###")]
    #[case("1234.5", "FM999,999.00", "1,234.50")]
    #[case("12.5", "FM99.99", "12.5")]
    #[case("-5", "9MI", "5-")]
    #[case("5", "S9", "+5")]
    #[case("-5", "S999", "  -5")]
    #[case("5", "FMS999", "+5")]
    #[case("-5", "999S", "  5-")]
    #[case("-0.5", "S9.9", " -.5")]
    #[case("3", "9th", " 3rd")]
    #[case("999.995", "999.99", " ###.##")]
    fn numbers(#[case] value: &str, #[case] template: &str, #[case] expected: &str) {
        assert_eq!(super::number(value, template).unwrap(), expected);
    }
}
