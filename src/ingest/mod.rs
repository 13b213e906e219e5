//! Rows on their way into the log.
//!
//! ```text
//!  rows ─► complete ─► generated columns ─► type modifiers ─► NOT NULL, CHECK ─► dead letters ─► partitions ─► batches: log::Write
//!          (defaults)                       varchar(n), …     23502     23514    NULL or far-off   by key, or
//!                                                                                event time        in turn
//! ```
//!
//! * [`assign`](mod@assign): what an INSERT gives, as rows of the relation.
//! * [`compile`]: the SQL expressions stored with a relation, ready to run.
//! * [`writer`]: the path above, a column at a time.
//! * [`query`]: the rows of running queries, on the same path.
//! * [`numbers`]: numbers for rows.
//! * [`partition`]: which partition a key belongs to, for ever.
//! * [`idle`]: the watermark of a stream to which no rows come.
//! * `refresh`: the end of a period, for views that are shown with a delay, if no commit tells it.
//! * [`dead`]: `name$dead`, where rows go that would do harm in the stream.
//! * `misfits`: rows of running queries and sources that do not fit go there, too.
//!
//! Invariants: the same key goes to the same partition in every version of this program. Rows of one partition keep their
//! order. No clock is read, save by [`idle`] for itself and for those views: `now` is the caller's. Either all rows of a call become writes, or there is an error and none do.

mod assign;
mod compile;
mod dead;
pub mod idle;
mod misfits;
mod numbers;
mod partition;
mod query;
mod refresh;
mod writer;
mod xxh64;

pub use assign::assign;
pub use compile::{CompiledRelation, interval_option};
pub use dead::{DEAD_SUFFIX, dead_letter_relation};
pub use numbers::Numbers;
pub use partition::{hash_rows, partitions_of};
pub use query::QueryIntake;
pub use writer::RelationWriter;
