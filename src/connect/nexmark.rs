//! The events of Nexmark's auction house: people who register, auctions they open, bids on these.
//!
//! Event number `n` alone decides everything about an event: of 50 consecutive ones the first is a person, three are auctions
//! and 46 are bids, and its values come from a generator seeded with (seed, n). So a stream of bids and a stream of auctions
//! made with the same seed belong together, and a source goes on at any event as if it had never stopped. Proportions and
//! skew are those of the Nexmark suite of Apache Beam: half of the bids go to the newest "hot" auction of every hundred, three
//! of four bidders and sellers are "hot" people, prices are uniform in their logarithm.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::columns::Strings;
use super::pace::Pace;
use super::random::Random;
use super::{Next, Source};
use crate::limits::BATCH_ROWS;
use crate::time::{Micros, TIMESTAMP};

/// Which of the three streams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Person,
    Auction,
    Bid,
}

/// The seed of a stream that names none.
pub const SEED: u64 = 42;

/// Events per second of event time where no rate is given, as in the standard suite.
pub const EVENT_RATE: u64 = 10_000;

/// Event time of event 0: 2025-01-01 00:00:00.
pub const BASE_TIME: Micros = 1_735_689_600_000_000;

/// Events of one source at most; leaves room in all that is computed from an event's number.
pub const MAX_EVENTS: u64 = 1 << 48;

/// Events per second at most.
pub const MAX_RATE: u64 = 1_000_000_000;

const GROUP: u64 = 50;
const PEOPLE: u64 = 1;
const AUCTIONS: u64 = 3;
const _: () = assert!(PEOPLE == 1, "`last_person` counts groups");

const FIRST_PERSON: u64 = 1000;
const FIRST_AUCTION: u64 = 1000;
const FIRST_CATEGORY: u64 = 10;
const CATEGORIES: u64 = 5;

/// People who bid and sell at a time, and auctions that are open at a time.
const ACTIVE_PEOPLE: u64 = 1000;
const OPEN_AUCTIONS: u64 = 100;
/// Ids that are named a little before their person or auction exists.
const LEAD: u64 = 10;
/// One in so many people and auctions can be hot.
const HOT: u64 = 100;
/// One in so many does *not* go to the hot one.
const NOT_HOT_SELLER: u64 = 4;
const NOT_HOT_AUCTION: u64 = 2;
const NOT_HOT_BIDDER: u64 = 4;
const NOT_HOT_CHANNEL: u64 = 2;

/// Bytes of a row on average, filled up by the column `extra`.
const PERSON_BYTES: usize = 200;
const AUCTION_BYTES: usize = 500;
const BID_BYTES: usize = 100;

const CHANNELS: u64 = 10_000;
const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
const CITIES: [&str; 10] =
    ["Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"];
const FIRST_NAMES: [&str; 11] = ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
const LAST_NAMES: [&str; 9] = ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];

impl Kind {
    pub fn of(event: u64) -> Kind {
        match event % GROUP {
            0..PEOPLE => Kind::Person,
            n if n < PEOPLE + AUCTIONS => Kind::Auction,
            _ => Kind::Bid,
        }
    }

    /// The first event of this kind that is not before `event`.
    fn first_from(self, event: u64) -> u64 {
        let (start, end) = match self {
            Kind::Person => (0, PEOPLE),
            Kind::Auction => (PEOPLE, PEOPLE + AUCTIONS),
            Kind::Bid => (PEOPLE + AUCTIONS, GROUP),
        };
        let (group, within) = (event / GROUP * GROUP, event % GROUP);
        match within {
            n if n < start => group + start,
            n if n < end => event,
            _ => group + GROUP + start,
        }
    }

    pub fn schema(self) -> SchemaRef {
        let columns: &[(&str, DataType)] = match self {
            Kind::Person => &[
                ("id", DataType::Int64),
                ("name", DataType::Utf8),
                ("email_address", DataType::Utf8),
                ("credit_card", DataType::Utf8),
                ("city", DataType::Utf8),
                ("state", DataType::Utf8),
                ("date_time", TIMESTAMP),
                ("extra", DataType::Utf8),
            ],
            Kind::Auction => &[
                ("id", DataType::Int64),
                ("item_name", DataType::Utf8),
                ("description", DataType::Utf8),
                ("initial_bid", DataType::Int64),
                ("reserve", DataType::Int64),
                ("date_time", TIMESTAMP),
                ("expires", TIMESTAMP),
                ("seller", DataType::Int64),
                ("category", DataType::Int64),
                ("extra", DataType::Utf8),
            ],
            Kind::Bid => &[
                ("auction", DataType::Int64),
                ("bidder", DataType::Int64),
                ("price", DataType::Int64),
                ("channel", DataType::Utf8),
                ("url", DataType::Utf8),
                ("date_time", TIMESTAMP),
                ("extra", DataType::Utf8),
            ],
        };
        let fields = columns.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), false));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }
}

/// All events of one seed and one pace of event time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Events {
    pub seed: u64,
    /// Events per second of event time; > 0.
    pub rate: u64,
}

impl Default for Events {
    fn default() -> Events {
        Events { seed: SEED, rate: EVENT_RATE }
    }
}

impl Events {
    /// Whole milliseconds, in microseconds.
    pub fn time(&self, event: u64) -> Micros {
        let (seconds, rest) = (event / self.rate, event % self.rate);
        let millis = seconds as i64 * 1000 + (rest * 1000 / self.rate) as i64;
        BASE_TIME + millis * 1000
    }

    /// The events of these numbers, which are all of this kind, as rows.
    pub fn rows(&self, kind: Kind, numbers: impl ExactSizeIterator<Item = u64>) -> RecordBatch {
        let columns = match kind {
            Kind::Person => self.people(numbers),
            Kind::Auction => self.auctions(numbers),
            Kind::Bid => self.bids(numbers),
        };
        RecordBatch::try_new(kind.schema(), columns).expect("a generator's columns are those of its schema")
    }

    fn people(&self, numbers: impl ExactSizeIterator<Item = u64>) -> Vec<ArrayRef> {
        let rows = numbers.len();
        let (mut ids, mut times) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
        let [mut names, mut emails, mut cards, mut cities, mut states, mut extras] =
            [16, 20, 20, 12, 2, 140].map(|bytes| Strings::with_capacity(rows, bytes));
        for event in numbers {
            let random = &mut Random::of(self.seed, event);
            ids.push((last_person(event) + FIRST_PERSON) as i64);
            times.push(self.time(event));
            let mut bytes = 8 + names.push_with(|to| {
                to.extend_from_slice(random.choose(&FIRST_NAMES).as_bytes());
                to.push(b' ');
                to.extend_from_slice(random.choose(&LAST_NAMES).as_bytes());
            });
            bytes += emails.push_with(|to| {
                random.letters(7, to);
                to.push(b'@');
                random.letters(5, to);
                to.extend_from_slice(b".com");
            });
            bytes += cards.push_with(|to| {
                let digits = random.below(10_000_000_000_000_000);
                let group = |n: u32| digits / 10_000_u64.pow(n) % 10_000;
                let text = format!("{:04} {:04} {:04} {:04}", group(3), group(2), group(1), group(0));
                to.extend_from_slice(text.as_bytes());
            });
            bytes += cities.push(random.choose(&CITIES));
            bytes += states.push(random.choose(&STATES));
            extras.push_with(|to| extra(random, bytes, PERSON_BYTES, to));
        }
        let strings = [names, emails, cards, cities, states].map(Strings::finish);
        let before_time = std::iter::once(integers(ids)).chain(strings);
        before_time.chain([instants(times), extras.finish()]).collect()
    }

    fn auctions(&self, numbers: impl ExactSizeIterator<Item = u64>) -> Vec<ArrayRef> {
        let rows = numbers.len();
        let integer_column = || Vec::with_capacity(rows);
        let (mut ids, mut initial_bids, mut reserves) = (integer_column(), integer_column(), integer_column());
        let (mut sellers, mut categories) = (integer_column(), integer_column());
        let (mut times, mut expires) = (integer_column(), integer_column());
        let [mut items, mut descriptions, mut extras] = [20, 100, 360].map(|bytes| Strings::with_capacity(rows, bytes));
        for event in numbers {
            let random = &mut Random::of(self.seed, event);
            ids.push((last_auction(event) + FIRST_AUCTION) as i64);
            let mut bytes = 8 + items.push_with(|to| random.letters(20, to));
            bytes += descriptions.push_with(|to| random.letters(100, to));
            let initial_bid = random.price();
            initial_bids.push(initial_bid);
            reserves.push(initial_bid + random.price());
            let time = self.time(event);
            times.push(time);
            expires.push(time + self.length_of_auction(event, random));
            let seller = match random.once_in(NOT_HOT_SELLER) {
                true => some_person(event, random),
                false => last_person(event) / HOT * HOT,
            };
            sellers.push((seller + FIRST_PERSON) as i64);
            categories.push((FIRST_CATEGORY + random.below(CATEGORIES)) as i64);
            extras.push_with(|to| extra(random, bytes + 5 * 8, AUCTION_BYTES, to));
        }
        vec![
            integers(ids),
            items.finish(),
            descriptions.finish(),
            integers(initial_bids),
            integers(reserves),
            instants(times),
            instants(expires),
            integers(sellers),
            integers(categories),
            extras.finish(),
        ]
    }

    /// Up to twice the event time in which as many auctions open as are open at a time.
    fn length_of_auction(&self, event: u64, random: &mut Random) -> Micros {
        let later = event + OPEN_AUCTIONS * GROUP / AUCTIONS;
        let horizon = (self.time(later) - self.time(event)) / 1000;
        (1 + random.below((horizon as u64 * 2).max(1)) as i64) * 1000
    }

    fn bids(&self, numbers: impl ExactSizeIterator<Item = u64>) -> Vec<ArrayRef> {
        let rows = numbers.len();
        let (mut auctions, mut bidders) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
        let (mut prices, mut times) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
        let [mut channels, mut urls, mut extras] = [12, 72, 70].map(|bytes| Strings::with_capacity(rows, bytes));
        let known = &*CHANNEL_TABLE;
        for event in numbers {
            let random = &mut Random::of(self.seed, event);
            let auction = match random.once_in(NOT_HOT_AUCTION) {
                true => some_auction(event, random),
                false => last_auction(event) / HOT * HOT,
            };
            auctions.push((auction + FIRST_AUCTION) as i64);
            // The second of a hundred, so that hot bidders are not the hot sellers.
            let bidder = match random.once_in(NOT_HOT_BIDDER) {
                true => some_person(event, random),
                false => last_person(event) / HOT * HOT + 1,
            };
            bidders.push((bidder + FIRST_PERSON) as i64);
            prices.push(random.price());
            let (channel, url) = match random.once_in(NOT_HOT_CHANNEL) {
                true => &known.all[random.below(CHANNELS) as usize],
                false => &known.hot[random.below(HOT_CHANNELS.len() as u64) as usize],
            };
            channels.push(channel);
            urls.push(url);
            times.push(self.time(event));
            extras.push_with(|to| extra(random, 4 * 8, BID_BYTES, to));
        }
        let strings = [channels, urls].map(Strings::finish);
        let before = [auctions, bidders, prices].map(integers).into_iter().chain(strings);
        before.chain([instants(times), extras.finish()]).collect()
    }
}

fn integers(values: Vec<i64>) -> ArrayRef {
    Arc::new(Int64Array::from(values))
}

fn instants(values: Vec<i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(values))
}

/// People and auctions count from 0 here; those that exist when an event happens, itself included, are 0 to `last_…`. Each
/// group of events begins with its one person.
fn last_person(event: u64) -> u64 {
    event / GROUP
}

/// Of an event that is no person: the first person comes before the first auction.
fn last_auction(event: u64) -> u64 {
    let within = (event % GROUP).saturating_sub(PEOPLE).min(AUCTIONS - 1);
    event / GROUP * AUCTIONS + within
}

/// One of the people who are active, or who will soon be.
fn some_person(event: u64, random: &mut Random) -> u64 {
    let people = last_person(event) + 1;
    let active = people.min(ACTIVE_PEOPLE);
    people - active + random.below(active + LEAD)
}

/// One of the auctions that are open, or will soon be.
fn some_auction(event: u64, random: &mut Random) -> u64 {
    let newest = last_auction(event);
    let oldest = newest.saturating_sub(OPEN_AUCTIONS);
    oldest + random.below(newest - oldest + 1 + LEAD)
}

/// Letters that bring a row to about the average of its kind, a fifth more or less.
fn extra(random: &mut Random, bytes: usize, average: usize, to: &mut Vec<u8>) {
    let missing = average.saturating_sub(bytes);
    let spread = (missing + 2) / 5;
    if spread > 0 {
        let length = missing - spread + random.below(2 * spread as u64) as usize;
        random.letters(length, to);
    }
}

/// Names and addresses of the channels that bids come through; the same for every seed.
struct ChannelTable {
    hot: Vec<(String, String)>,
    all: Vec<(String, String)>,
}

static CHANNEL_TABLE: LazyLock<ChannelTable> = LazyLock::new(|| {
    let address = |n: u64, random: &mut Random| {
        let mut url = b"https://www.nexmark.com/".to_vec();
        for _ in 0..3 {
            let letters = 3 + random.below(2) as usize;
            random.letters(letters, &mut url);
            url.push(b'/');
        }
        url.extend_from_slice(b"item.htm?query=1");
        // One in ten has no id.
        let id = (!random.once_in(10)).then(|| format!("&channel_id={}", (n as u32).reverse_bits() >> 1));
        (String::from_utf8(url).expect("made of ASCII"), id.unwrap_or_default())
    };
    let channel = |n| {
        let (url, id) = address(n, &mut Random::of(0, n));
        (format!("channel-{n}"), url + &id)
    };
    let hot = |(name, n): (&&str, u64)| (name.to_string(), address(n, &mut Random::of(0, n)).0);
    ChannelTable { hot: HOT_CHANNELS.iter().zip(0..).map(hot).collect(), all: (0..CHANNELS).map(channel).collect() }
});

/// The events of one kind, up to an end, at a pace.
pub struct Nexmark {
    events: Events,
    kind: Kind,
    end: u64,
    /// Events before this number, of whatever kind, are done.
    position: u64,
    pace: Pace,
}

impl Nexmark {
    /// `rate`: events of all kinds per second of the clock; 0: as fast as they are taken.
    pub fn new(events: Events, kind: Kind, end: Option<u64>, rate: u64, position: u64) -> Nexmark {
        let end = end.unwrap_or(MAX_EVENTS).min(MAX_EVENTS);
        Nexmark { events, kind, end, position, pace: Pace::new(rate, position) }
    }
}

impl Source for Nexmark {
    fn next(&mut self, now: Micros) -> Next {
        let first = self.kind.first_from(self.position);
        if first >= self.end {
            return Next::Finished;
        }
        let due = self.pace.due(now).min(self.end);
        if first >= due {
            return Next::Wait(self.pace.when(first, now));
        }
        let follow = |event: &u64| Some(self.kind.first_from(event + 1));
        let numbers = std::iter::successors(Some(first), follow).take(BATCH_ROWS).take_while(|event| *event < due);
        let numbers: Vec<u64> = numbers.collect();
        self.position = numbers.last().map_or(first, |last| last + 1);
        Next::Rows { rows: self.events.rows(self.kind, numbers.into_iter()), position: self.position }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::compute::concat_batches;
    use arrow::datatypes::{Int64Type, TimestampMicrosecondType};

    /// All rows of a source that need not wait.
    fn drain(mut source: Nexmark) -> RecordBatch {
        let mut batches = Vec::new();
        loop {
            match source.next(0) {
                Next::Rows { rows, .. } => batches.push(rows),
                Next::Finished => break,
                Next::Wait(_) => panic!("nothing to wait for"),
            }
        }
        concat_batches(&source.kind.schema(), &batches).unwrap()
    }

    fn all(kind: Kind, events: u64) -> RecordBatch {
        drain(Nexmark::new(Events::default(), kind, Some(events), 0, 0))
    }

    fn integers_of<'a>(rows: &'a RecordBatch, column: &str) -> &'a [i64] {
        rows.column_by_name(column).unwrap().as_primitive::<Int64Type>().values()
    }

    #[rstest::rstest]
    #[case::whole_groups(1000, [20, 60, 920])]
    #[case::begun_group(1003, [21, 62, 920])]
    #[case::nothing(0, [0, 0, 0])]
    fn one_person_three_auctions_and_46_bids_of_50_events(#[case] events: u64, #[case] expected: [usize; 3]) {
        let rows = [Kind::Person, Kind::Auction, Kind::Bid].map(|kind| all(kind, events).num_rows());
        assert_eq!(rows, expected);
    }

    #[test]
    fn a_kind_finds_its_next_event() {
        for kind in [Kind::Person, Kind::Auction, Kind::Bid] {
            for event in 0..200 {
                let expected = (event..).find(|n| Kind::of(*n) == kind).unwrap();
                assert_eq!(kind.first_from(event), expected, "{kind:?} from {event}");
            }
        }
    }

    /// The rows are a promise: figures measured elsewhere name a seed and a number of events.
    #[rstest::rstest]
    #[case::person(Kind::Person, 0x445c_be11)]
    #[case::auction(Kind::Auction, 0x68ed_0f11)]
    #[case::bid(Kind::Bid, 0xd720_b51e)]
    fn the_first_thousand_events_never_change(#[case] kind: Kind, #[case] expected: u32) {
        let text = arrow::util::pretty::pretty_format_batches(&[all(kind, 1000)]).unwrap().to_string();
        let sum = crc32fast::hash(text.as_bytes());
        assert_eq!(sum, expected, "{kind:?} has the checksum {sum:#010x}");
    }

    #[rstest::rstest]
    fn a_source_goes_on_where_another_stopped(#[values(Kind::Person, Kind::Auction, Kind::Bid)] kind: Kind) {
        let whole = all(kind, 500_000);
        let mut first = Nexmark::new(Events::default(), kind, Some(500_000), 0, 0);
        let Next::Rows { rows, position } = first.next(0) else { panic!("there are rows") };
        let rest = drain(Nexmark::new(Events::default(), kind, Some(500_000), 0, position));
        assert_eq!(concat_batches(&kind.schema(), [&rows, &rest]).unwrap(), whole);
    }

    #[test]
    fn another_seed_gives_other_rows() {
        let other = drain(Nexmark::new(Events { seed: SEED + 1, ..Events::default() }, Kind::Bid, Some(1000), 0, 0));
        assert_ne!(other, all(Kind::Bid, 1000));
    }

    #[test]
    fn ids_refer_to_people_and_auctions_that_are_there_or_soon_will_be() {
        const EVENTS: u64 = 100_000;
        let people = all(Kind::Person, EVENTS).num_rows() as i64;
        let auctions = all(Kind::Auction, EVENTS);
        let bids = all(Kind::Bid, EVENTS);
        let in_range = |ids: &[i64], first: u64, count: i64| {
            let end = first as i64 + count + LEAD as i64;
            assert!(ids.iter().all(|id| (first as i64..end).contains(id)));
        };
        in_range(integers_of(&auctions, "seller"), FIRST_PERSON, people);
        in_range(integers_of(&bids, "bidder"), FIRST_PERSON, people);
        in_range(integers_of(&bids, "auction"), FIRST_AUCTION, auctions.num_rows() as i64);
        let ids: Vec<i64> = (0..auctions.num_rows() as i64).map(|n| n + FIRST_AUCTION as i64).collect();
        assert_eq!(integers_of(&auctions, "id"), ids);
    }

    #[test]
    fn half_of_the_bids_are_for_hot_auctions_and_three_quarters_by_hot_bidders() {
        let bids = all(Kind::Bid, 200_000);
        let share = |column: &str, rest: i64| {
            let hits = integers_of(&bids, column).iter().filter(|id| (*id - 1000) % HOT as i64 == rest).count();
            hits as f64 / bids.num_rows() as f64
        };
        assert!((share("auction", 0) - 0.5).abs() < 0.02, "{}", share("auction", 0));
        assert!((share("bidder", 1) - 0.75).abs() < 0.02, "{}", share("bidder", 1));
    }

    #[test]
    fn event_time_goes_on_by_the_rate_in_whole_milliseconds() {
        let bids = all(Kind::Bid, 1_000_000);
        let times = bids.column_by_name("date_time").unwrap().as_primitive::<TimestampMicrosecondType>().values();
        assert!(times.windows(2).all(|pair| pair[0] <= pair[1]));
        assert!(times.iter().all(|time| time % 1000 == 0));
        assert_eq!(times.last(), Some(&(BASE_TIME + 99_999_000)), "10,000 events a second");
    }

    #[test]
    fn a_paced_source_gives_what_is_due_and_says_when_more_will_be() {
        let mut source = Nexmark::new(Events { rate: 50, ..Events::default() }, Kind::Bid, Some(100), 50, 0);
        let start = 1_000_000;
        assert!(matches!(source.next(start), Next::Wait(until) if until == start + 4 * 20_000), "the first bid is event 4");
        let Next::Rows { rows, position } = source.next(start + 100_000) else { panic!("two bids are due") };
        assert_eq!((rows.num_rows(), position), (2, 6));
        let Next::Rows { rows, position } = source.next(start + 60_000_000) else { panic!("all are due") };
        assert_eq!((rows.num_rows(), position), (90, 100));
        assert!(matches!(source.next(start + 60_000_000), Next::Finished));
    }
}
