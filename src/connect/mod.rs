//! Connectors: where rows come from that no client sends, and where they go that no client reads ([`sink`]).
//!
//! A [`Source`] is a pure generator (or a reader) with a position; it knows neither clock nor log. The [`runner`] gives each
//! stream that has `WITH (connector = …)` a thread, which asks its source for the rows that are due and commits them.
//!
//! ```text
//!   Source::next(now) ──► rows, position ──► Transaction { writes, producer: (stream, position) } ──► log
//!          ▲                                                                                           │
//!          └────────────────────── after a restart: goes on at the position the log knows ◄────────────┘
//! ```
//!
//! A source is one split: its rows come in one sequence, and what they say of event time is what its stream's watermark says. A
//! source of several (partitions of a topic, files) has to give the least of their watermarks itself; there is none yet.
//!
//! Invariant: the position after some rows is committed in the same transaction as the rows. So a source that is started again,
//! for whatever reason, neither repeats nor leaves out a row.

mod columns;
pub mod connection;
pub mod nexmark;
pub mod orders;
mod pace;
mod random;
pub mod runner;
pub mod sink;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::catalog::{Kind, Relation};
use crate::error::{Error, Result};
use crate::time::Micros;

pub use columns::Projection;
pub use runner::Connectors;

/// The option that makes a stream have a source.
pub const CONNECTOR: &str = "connector";

/// The options of all connectors, for the check that every option of a statement means something.
pub const OPTIONS: &[&str] = &[CONNECTOR, "events", "rate", "event_rate", "seed", "type", "table", "nexmark.table.type"];

/// What `--demo` runs: the stream of [`orders`] and two views over its windows.
pub const DEMO: &str = include_str!("../../sql/demo.sql");

/// Gives rows, from a position on.
pub trait Source: Send {
    /// What there is by now. Never waits, and never gives more than `limits::BATCH_ROWS` rows at once.
    fn next(&mut self, now: Micros) -> Next;
}

/// What a source has to say.
pub enum Next {
    /// Rows that are due, and the position after them: greater than any before.
    Rows { rows: RecordBatch, position: u64 },
    /// Nothing is due before this time.
    Wait(Micros),
    /// There will be no more.
    Finished,
}

/// What `WITH ( … )` says about a stream's source, understood and checked.
#[derive(Clone, Debug, PartialEq)]
pub enum Connector {
    /// `connector = 'nexmark'`
    Nexmark { kind: nexmark::Kind, end: Option<u64>, rate: u64, events: nexmark::Events },
    /// `connector = 'orders-demo'`
    Orders { events: Option<u64>, rate: u64, seed: u64 },
}

impl Connector {
    /// The connector of a relation; `None` if it has none. Called when the stream is made, so that mistakes come up then.
    pub fn of(relation: &Relation) -> Result<Option<Connector>> {
        let Some(name) = relation.options.get(CONNECTOR) else { return Ok(None) };
        if relation.kind != Kind::Stream {
            return Err(Error::invalid_object_definition(format!(
                "{} \"{}\" can't have a connector, only a stream can",
                relation.kind.noun(),
                relation.name
            )));
        }
        let connector = match name.to_ascii_lowercase().as_str() {
            "nexmark" => Connector::nexmark(relation)?,
            "orders-demo" => Connector::Orders {
                events: number(relation, "events")?,
                rate: number(relation, "rate")?.unwrap_or(orders::RATE),
                seed: number(relation, "seed")?.unwrap_or(nexmark::SEED),
            },
            _ => {
                let error = Error::invalid_parameter(format!("there is no connector '{name}'"));
                return Err(error.with_hint("the connectors are 'nexmark' and 'orders-demo'"));
            }
        };
        connector.projection(relation)?;
        Ok(Some(connector))
    }

    fn nexmark(relation: &Relation) -> Result<Connector> {
        let named = ["type", "table", "nexmark.table.type"].into_iter().find_map(|key| relation.options.get(key));
        // Without the option the stream's own name may say it: CREATE STREAM bid ( … ).
        let kind = match named.unwrap_or(&relation.name).to_ascii_lowercase().as_str() {
            "person" => nexmark::Kind::Person,
            "auction" => nexmark::Kind::Auction,
            "bid" => nexmark::Kind::Bid,
            other => {
                let error = Error::invalid_parameter(match named {
                    Some(_) => format!("connector 'nexmark' has no table '{other}'"),
                    None => format!("connector 'nexmark' must be told which table stream \"{}\" is", relation.name),
                });
                return Err(error.with_hint("write type = 'person', type = 'auction' or type = 'bid'"));
            }
        };
        let (rate, events) = (number(relation, "rate")?.unwrap_or(0), number(relation, "events")?);
        // Event time passes as the clock does where events have a pace.
        let paced = if rate == 0 { nexmark::EVENT_RATE } else { rate };
        let event_rate = number(relation, "event_rate")?.unwrap_or(paced);
        if event_rate == 0 {
            return Err(Error::invalid_parameter("option event_rate must be at least 1: events per second of event time"));
        }
        if events.is_some_and(|events| events > nexmark::MAX_EVENTS) || rate.max(event_rate) > nexmark::MAX_RATE {
            return Err(Error::invalid_parameter(format!(
                "connector 'nexmark' makes at most {} events at a rate of at most {}",
                nexmark::MAX_EVENTS,
                nexmark::MAX_RATE
            )));
        }
        let seed = number(relation, "seed")?.unwrap_or(nexmark::SEED);
        Ok(Connector::Nexmark { kind, end: events, rate, events: nexmark::Events { seed, rate: event_rate } })
    }

    /// As `WITH` calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Connector::Nexmark { .. } => "nexmark",
            Connector::Orders { .. } => "orders-demo",
        }
    }

    /// The columns that the source gives.
    pub fn schema(&self) -> SchemaRef {
        match self {
            Connector::Nexmark { kind, .. } => kind.schema(),
            Connector::Orders { .. } => orders::schema(),
        }
    }

    pub fn projection(&self, relation: &Relation) -> Result<Projection> {
        Projection::new(self.name(), relation, &self.schema())
    }

    /// A source that goes on after `position`; 0 is the beginning.
    pub fn open(&self, position: u64) -> Box<dyn Source> {
        match *self {
            Connector::Nexmark { kind, end, rate, events } => Box::new(nexmark::Nexmark::new(events, kind, end, rate, position)),
            Connector::Orders { events, rate, seed } => Box::new(orders::Orders::new(seed, events, rate, position)),
        }
    }
}

/// An option that is a whole number.
fn number(relation: &Relation, key: &str) -> Result<Option<u64>> {
    let Some(text) = relation.options.get(key) else { return Ok(None) };
    let wrong = |_| Error::invalid_parameter(format!("option {key} must be a whole number, not '{text}'"));
    text.trim().parse().map(Some).map_err(wrong)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::catalog::Column;
    use crate::time::TIMESTAMP;
    use arrow::datatypes::DataType;

    pub(crate) fn column(name: &str, data_type: DataType) -> Column {
        let (sql_type, nullable) = (data_type.to_string(), true);
        Column { name: name.into(), data_type, sql_type, nullable, default: None, generated: None, identity: None, comment: None }
    }

    pub(crate) fn stream(name: &str, columns: Vec<Column>, options: &[(&str, &str)]) -> Relation {
        let options = options.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        Relation { options, ..Relation::new(crate::catalog::FIRST_RELATION, name, Kind::Stream, columns) }
    }

    fn bid(options: &[(&str, &str)]) -> Relation {
        let columns = vec![column("price", DataType::Int32), column("date_time", TIMESTAMP)];
        stream("bid", columns, options)
    }

    #[test]
    fn options_are_understood() {
        let relation = bid(&[("connector", "nexmark"), ("events", "100"), ("rate", "7"), ("nexmark.table.type", "Bid")]);
        let expected = Connector::Nexmark {
            kind: nexmark::Kind::Bid,
            end: Some(100),
            rate: 7,
            events: nexmark::Events { seed: nexmark::SEED, rate: 7 },
        };
        assert_eq!(Connector::of(&relation).unwrap(), Some(expected.clone()));
        let by_name = bid(&[("connector", "nexmark"), ("events", "100"), ("rate", "7")]);
        assert_eq!(Connector::of(&by_name).unwrap(), Some(expected));
        assert_eq!(Connector::of(&bid(&[])).unwrap(), None);
    }

    #[rstest::rstest]
    #[case::connector(&[("connector", "kafkaesque")], "there is no connector 'kafkaesque'")]
    #[case::table(&[("connector", "nexmark"), ("type", "bids")], "connector 'nexmark' has no table 'bids'")]
    #[case::number(&[("connector", "nexmark"), ("events", "many")], "option events must be a whole number, not 'many'")]
    #[case::event_rate(&[("connector", "nexmark"), ("event_rate", "0")], "option event_rate must be at least 1: events per second of event time")]
    #[case::column(&[("connector", "orders-demo")], "connector 'orders-demo' has no column \"price\" for stream \"bid\"")]
    fn mistakes_come_up_when_the_stream_is_made(#[case] options: &[(&str, &str)], #[case] message: &str) {
        assert_eq!(Connector::of(&bid(options)).unwrap_err().message(), message);
    }

    #[test]
    fn a_stream_takes_the_columns_it_names_in_its_own_types() {
        let relation = bid(&[("connector", "nexmark"), ("events", "1000")]);
        let connector = Connector::of(&relation).unwrap().unwrap();
        let Next::Rows { rows, position } = connector.open(0).next(0) else { panic!("there are rows") };
        assert_eq!((rows.num_rows(), position), (920, 1000));
        let mine = connector.projection(&relation).unwrap().apply(&rows).unwrap();
        assert_eq!(mine.schema(), relation.schema());
        assert_eq!(mine.num_rows(), 920);
        let text = stream("bid", vec![column("price", DataType::Utf8)], &[("connector", "nexmark")]);
        let error = Connector::of(&text).unwrap_err();
        assert_eq!(error.state(), crate::error::SqlState::DatatypeMismatch);
    }
}
