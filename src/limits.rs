//! Every bound of the server in one place, with the relations between them asserted when it is compiled.

use std::time::Duration;

/// Rows of a batch, in memory and as stored.
pub const BATCH_ROWS: usize = 8192;

/// Bytes of Arrow data after which a stored batch is cut, whatever its rows.
pub const BATCH_BYTES: usize = 1 << 20;

/// The largest value the store is ever given; a row that does not fit is refused.
pub const STORED_VALUE_BYTES: usize = 4 << 20;

/// What is kept of a row that goes to the dead letters: one that is too large to be stored shows how it begins.
pub const DEAD_LETTER_BYTES: usize = 2 << 20;

/// What one group commit takes in at most before it flushes.
pub const GROUP_COMMIT_BYTES: usize = 8 << 20;

/// Bytes handed to the store and not flushed yet, at most: the store has no back-pressure of its own.
pub const UNFLUSHED_BYTES: usize = 32 << 20;

/// Transactions that wait for the committer, at most; further writers wait.
pub const COMMIT_QUEUE: usize = 1024;

/// Arrow bytes of the log's newest commits kept decoded for the engine.
pub const TAIL_BYTES: usize = 128 << 20;

/// Rows a step of the engine takes in before it publishes, unless one commit alone is larger.
pub const STEP_ROWS: usize = 64 * BATCH_ROWS;

/// Commits a step takes in at most.
pub const STEP_COMMITS: usize = 4096;

/// How often state is written to disk when it changes.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(10);

/// Encoded bytes of a chunk of a checkpoint.
pub const CHECKPOINT_CHUNK_BYTES: usize = 256 << 10;

/// Free disk space below which writes are refused: the store aborts the process when a write fails.
pub const FREE_DISK_BYTES: u64 = 64 << 20;

/// Block of COPY input that is decoded at once; a row must fit in it.
pub const COPY_BLOCK_BYTES: usize = 1 << 20;

/// Steps a subscriber may fall behind before it is cut off.
pub const SUBSCRIBER_STEPS: usize = 4096;

/// Bytes a subscriber may fall behind before it is cut off.
pub const SUBSCRIBER_BYTES: usize = 64 << 20;

/// Bytes that a running query may be ahead of the committer before the engine waits for it.
pub const OUTPUT_BYTES: usize = 32 << 20;

/// How long a session waits for a snapshot that covers its own last commit.
pub const OWN_WRITES_WAIT: Duration = Duration::from_secs(30);

/// Nodes of a query's plan, as it comes from its text. Planning takes time for each, and hears of nothing meanwhile.
pub const PLAN_NODES: u64 = 10_000;

/// How long an Execute waits for what the client sends behind it, to know whether it stands alone.
pub const SYNC_DELAY: Duration = Duration::from_millis(5);

/// Rows of a segment of a view after which it is not merged further.
pub const SEGMENT_ROWS: usize = 64 * 1024;

/// The least delay of a view that is shown with one, and the least timeout of its windows, in microseconds.
pub const LEAST_PERIOD: i64 = 1000;

/// Partitions of a stream at most.
pub const PARTITIONS: u32 = 1024;

/// Memory that all queries together may take; one that needs more fails.
pub const QUERY_BYTES: usize = 2 << 30;

/// Memory that one statement may take, unless its session says otherwise (`statement_memory`).
pub const STATEMENT_MEMORY: usize = 1 << 30;

/// What the results of one function for a batch of rows may take, of functions that make much of little.
pub const FUNCTION_BYTES: u64 = 256 << 20;

/// Connections at most, unless the server is told otherwise.
pub const CONNECTIONS: usize = 256;

/// Of these, how many are kept for superusers.
pub const SUPERUSER_CONNECTIONS: usize = 3;

/// The longest message a client may send.
pub const MESSAGE_BYTES: usize = 64 << 20;

/// The longest statement text; more data than this comes in by COPY.
pub const STATEMENT_BYTES: usize = 8 << 20;

/// Parentheses and brackets in each other, at most.
pub const STATEMENT_NESTING: usize = 100;

/// How deep the parser may recurse; a level of parentheses takes up to two.
pub const PARSER_RECURSION: usize = 2 * STATEMENT_NESTING + 50;

/// Operators in one chain (`1 + 1 + …`, `… UNION …`), at most. Chains of AND and OR are not bound: they become balanced trees.
pub const STATEMENT_OPERATORS: usize = 1000;

/// Columns of a relation.
pub const COLUMNS: usize = 1600;

/// The longest message before a client's session has begun.
pub const STARTUP_BYTES: usize = 10_000;

/// The longest message of a client that proves who it is.
pub const AUTHENTICATION_BYTES: usize = 2048;

/// How long a client may take to say who it is, and to prove it.
pub const STARTUP_TIME: Duration = Duration::from_secs(30);

/// How long an attempt to log in waits after the first failure from its address; twice as long after each further one.
pub const FAILURE_DELAY: Duration = Duration::from_millis(100);

/// How long it waits at most.
pub const FAILURE_DELAY_MOST: Duration = Duration::from_secs(5);

/// How long a failure counts.
pub const FAILURES_REMEMBERED: Duration = Duration::from_secs(120);

/// Addresses whose failures are counted, at most.
pub const FAILURES_COUNTED: usize = 10_000;

/// Bytes of answers that are gathered before they are sent.
pub const SEND_BYTES: usize = 64 << 10;

/// Bytes read from a client at once.
pub const READ_BYTES: usize = 64 << 10;

/// Reads that wait for a session that is busy; the client waits after that.
pub const READS_AHEAD: usize = 8;

/// Characters of a statement that other sessions are shown.
pub const SHOWN_QUERY: usize = 1024;

/// Bytes of a name; more are cut off.
pub const NAME_BYTES: usize = 63;

/// Warnings of a statement that lets go of advisory locks that are not held.
pub const ADVISORY_WARNINGS: usize = 1000;

/// Advisory locks of all sessions together.
pub const ADVISORY_LOCKS: usize = 100_000;

/// Prepared statements of a connection, and as many portals.
pub const PREPARED_STATEMENTS: usize = 10_000;

/// How long statements may run on when the server shuts down.
pub const SHUTDOWN_TIME: Duration = Duration::from_secs(10);

/// How far ahead of its commit an event time may be, unless the stream says otherwise (`max_future`), before the row goes to
/// the dead letters: one such row would move the watermark past all others.
pub const MAX_FUTURE: Duration = Duration::from_secs(366 * 24 * 3600);

/// Windows a row may fall into (HOP size / slide).
pub const WINDOWS_PER_ROW: i64 = 10_000;

/// Parameters of a function, as in PostgreSQL.
pub const FUNCTION_PARAMETERS: usize = 100;

/// Parts of the expression that a call of a function becomes: functions that call functions grow fast.
pub const FUNCTION_PARTS: usize = 10_000;

/// Instructions of a row pattern, its bounded quantifiers written out.
pub const PATTERN_INSTRUCTIONS: usize = 4096;

/// Variables of a row pattern: a bit of a word each.
pub const PATTERN_VARIABLES: usize = 63;

/// How many rows PREV, NEXT, FIRST and LAST may be told to go.
pub const PATTERN_OFFSET: u32 = 100_000;

/// Steps that the search for a row pattern may take over the rows of one partition, and as many more for each of the rows.
pub const PATTERN_STEPS: u64 = 1_000_000;
pub const PATTERN_STEPS_PER_ROW: u64 = 10_000;

/// Rows with which GAP_FILL fills one gap.
pub const GAP_STEPS: i64 = 1_000_000;

/// The exponent that a number of a `jsonb` may be written with, up or down: it is kept as digits.
pub const JSON_EXPONENT: i32 = 400;

const _: () = {
    assert!(BATCH_BYTES < STORED_VALUE_BYTES);
    assert!(STORED_VALUE_BYTES <= GROUP_COMMIT_BYTES);
    assert!(DEAD_LETTER_BYTES + BATCH_BYTES < STORED_VALUE_BYTES);
    assert!(GROUP_COMMIT_BYTES <= UNFLUSHED_BYTES);
    assert!(COPY_BLOCK_BYTES <= STORED_VALUE_BYTES);
    assert!(BATCH_ROWS <= STEP_ROWS);
    assert!(COPY_BLOCK_BYTES < MESSAGE_BYTES);
    assert!(STATEMENT_BYTES <= MESSAGE_BYTES);
    assert!(STATEMENT_NESTING < PARSER_RECURSION);
    assert!(STATEMENT_MEMORY < QUERY_BYTES);

    assert!(AUTHENTICATION_BYTES < STARTUP_BYTES);
    assert!(STARTUP_BYTES < MESSAGE_BYTES);
    assert!(SUPERUSER_CONNECTIONS < CONNECTIONS);
    assert!(FAILURE_DELAY_MOST.as_secs() < STARTUP_TIME.as_secs());
};
