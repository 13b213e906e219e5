//! Orders of a small shop, made up as time goes by: the stream of the demo.
//!
//! What is ordered is a function of the seed and the order's number; when is a matter of the clock, for the demo is to show
//! windows of the present. Orders arrive a little out of order, and a few arrive late.

use std::sync::Arc;

use arrow::array::{Decimal128Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::columns::Strings;
use super::pace::Pace;
use super::random::Random;
use super::{Next, Source};
use crate::limits::BATCH_ROWS;
use crate::time::{Micros, TIMESTAMP};

/// Orders per second where no rate is given.
pub const RATE: u64 = 20;

const CUSTOMERS: u64 = 200;
const CATEGORIES: [&str; 6] = ["books", "games", "garden", "kitchen", "music", "toys"];

/// How long an order is on its way at most.
const DELAY_MILLIS: u64 = 2_000;
/// One in so many takes far longer.
const STRAGGLERS: u64 = 500;
const STRAGGLER_MILLIS: u64 = 60_000;

pub fn schema() -> SchemaRef {
    let column = |name: &str, data_type| Field::new(name, data_type, false);
    Arc::new(Schema::new(vec![
        column("order_id", DataType::Utf8),
        column("customer_id", DataType::Utf8),
        column("amount", DataType::Decimal128(10, 2)),
        column("category", DataType::Utf8),
        column("event_time", TIMESTAMP),
    ]))
}

pub struct Orders {
    seed: u64,
    end: u64,
    position: u64,
    pace: Pace,
}

impl Orders {
    /// `rate`: orders per second; 0: as fast as they are taken.
    pub fn new(seed: u64, orders: Option<u64>, rate: u64, position: u64) -> Orders {
        Orders { seed, end: orders.unwrap_or(u64::MAX), position, pace: Pace::new(rate, position) }
    }

    fn rows(&self, first: u64, end: u64, now: Micros) -> RecordBatch {
        let rows = (end - first) as usize;
        let [mut ids, mut customers, mut categories] = [10, 6, 8].map(|bytes| Strings::with_capacity(rows, bytes));
        let (mut amounts, mut times) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
        for order in first..end {
            let random = &mut Random::of(self.seed, order);
            ids.push(&format!("o{order:08}"));
            // The smaller of two: some customers are better than others.
            let customer = random.below(CUSTOMERS).min(random.below(CUSTOMERS));
            customers.push(&format!("c{customer:03}"));
            amounts.push(i128::from(random.price() % 50_000 + 99));
            categories.push(random.choose(&CATEGORIES));
            let delay = match random.once_in(STRAGGLERS) {
                true => random.below(STRAGGLER_MILLIS),
                false => random.below(DELAY_MILLIS),
            };
            let ordered = self.pace.time(order).unwrap_or(now);
            times.push((ordered.div_euclid(1000) - delay as i64) * 1000);
        }
        let amounts = Decimal128Array::from(amounts).with_precision_and_scale(10, 2).expect("amounts have few digits");
        let times = Arc::new(TimestampMicrosecondArray::from(times));
        let columns = vec![ids.finish(), customers.finish(), Arc::new(amounts), categories.finish(), times];
        RecordBatch::try_new(schema(), columns).expect("a generator's columns are those of its schema")
    }
}

impl Source for Orders {
    fn next(&mut self, now: Micros) -> Next {
        let first = self.position;
        if first >= self.end {
            return Next::Finished;
        }
        let due = self.pace.due(now).min(self.end).min(first.saturating_add(BATCH_ROWS as u64));
        if first >= due {
            return Next::Wait(self.pace.when(first, now));
        }
        self.position = due;
        Next::Rows { rows: self.rows(first, due, now), position: due }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::TimestampMicrosecondType;

    const NOON: Micros = 1_735_732_800_000_000;

    fn take(source: &mut Orders, now: Micros) -> RecordBatch {
        match source.next(now) {
            Next::Rows { rows, .. } => rows,
            _ => panic!("there are rows"),
        }
    }

    #[test]
    fn the_same_orders_at_the_same_times() {
        let run = || take(&mut Orders::new(1, Some(100), 0, 0), NOON);
        assert_eq!(run(), run());
        assert_eq!(run().num_rows(), 100);
    }

    #[test]
    fn orders_go_on_by_number_after_a_restart() {
        let whole = take(&mut Orders::new(1, Some(100), 0, 0), NOON);
        let rest = take(&mut Orders::new(1, Some(100), 0, 60), NOON);
        assert_eq!(rest, whole.slice(60, 40));
    }

    #[test]
    fn orders_are_of_the_present_and_out_of_order() {
        let rows = take(&mut Orders::new(1, Some(8000), 0, 0), NOON);
        let times = rows.column(4).as_primitive::<TimestampMicrosecondType>().values();
        assert!(times.iter().all(|time| (NOON - 60_000_000..=NOON).contains(time)));
        assert!(times.windows(2).any(|pair| pair[1] < pair[0]));
        let late = times.iter().filter(|time| **time < NOON - 5_000_000).count();
        assert!((1..40).contains(&late), "{late} stragglers of 8000");
    }

    #[test]
    fn the_rate_is_kept() {
        let mut orders = Orders::new(1, None, 20, 0);
        assert_eq!(take(&mut orders, NOON).num_rows(), 1);
        assert!(matches!(orders.next(NOON), Next::Wait(until) if until == NOON + 50_000));
        assert_eq!(take(&mut orders, NOON + 1_000_000).num_rows(), 20);
    }
}
