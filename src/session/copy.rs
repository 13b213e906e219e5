//! COPY: bulk loads in, rows out.
//!
//! ```text
//!   bytes ─► blocks of whole rows ─┬─► decode, check, partition ─┐ in order   ─► small batches joined ─► stage ─┐
//!                                  └─► (several at a time)       ┘               (per partition)               ├─► one commit
//!                                                                                                    … ────────┘
//! ```
//!
//! A COPY is one transaction: its batches are on their way to the disk while it runs, and become visible together at its end.
//! An error anywhere, or a client that goes away, leaves nothing behind.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::StreamExt;
use tokio::task::JoinHandle;

use super::client::copied_query;
use super::define::no_column;
use super::transaction::Work;
use super::write::STAGE_ROWS;
use super::{Bound, Client, CopyChunk, CopyOut, CopySink, Known, Outcome};
use crate::catalog::{Kind, Relation, RelationId};
use crate::copy::{Block, BlockSplitter, Decoder, Encoder, Options};
use crate::database::Database;
use crate::error::{Error, Result};
use crate::ingest::RelationWriter;
use crate::limits;
use crate::log::{self, Rows, Staged, Write};
use crate::sql::ast::{Copy, CopyFormat, CopyTarget};
use crate::sql::plan::names::fold;

/// Blocks that are decoded at the same time, at most: with what they become, the memory of a COPY.
const BLOCKS: usize = 4;

impl Client {
    pub(super) fn copy_in(&mut self, copy: &Copy) -> Result<CopySession> {
        let CopyTarget::Relation { name, columns } = &copy.target else {
            return Err(Error::syntax("COPY FROM STDIN needs the name of a stream or table"));
        };
        let relation = self.writable(name, "COPY")?;
        let targets = copied_columns(columns, &relation)?;
        let chosen: Vec<_> = targets.iter().map(|at| relation.columns[*at].clone()).collect();
        let options = Options::new(copy, self.settings.formats())?;
        let writer = self.database.writer(&relation)?;
        let defaults = writer.compiled().default_values(&targets, self.database.clock.now());
        let decoder = Decoder::new(&relation.name, &chosen, &options)?.with_defaults(defaults);
        let shared = Shared { database: Arc::clone(&self.database), writer, decoder, targets, kind: record_kind(&relation) };
        Ok(CopySession {
            splitter: Some(BlockSplitter::new(&relation.name, &chosen, &options)),
            columns: chosen.len(),
            binary: copy.format == CopyFormat::Binary,
            shared: Arc::new(shared),
            decoding: VecDeque::new(),
            staging: VecDeque::new(),
            open: HashMap::new(),
            writes: Vec::new(),
            rows: 0,
            block: self.transaction.is_some().then(|| Arc::clone(&self.copied)),
            last_commit: Arc::clone(&self.last_commit),
            waits_to_be_seen: self.settings.waits_to_be_seen(),
        })
    }

    pub(super) async fn copy_out(&mut self, copy: &Copy, sql: &str) -> Result<Outcome> {
        let outcome = match copied_query(&copy.target) {
            Some(statement) => {
                let parsed = crate::sql::ast::Parsed {
                    statement: statement.clone(),
                    sql: sql.to_string(),
                    offset: 0,
                    notices: Vec::new(),
                };
                let prepared = super::ClientSession::prepare(self, Arc::new(parsed), &[]).await?;
                Box::pin(super::ClientSession::execute(self, &prepared, Vec::new())).await?
            }
            None => {
                let query = self.query_of(&copy.target)?;
                self.select(&query, Bound::default(), &Known::default()).await?
            }
        };
        let Outcome::Rows(rows) = outcome else {
            return Err(Error::syntax("COPY (…) TO STDOUT needs a query that returns rows"));
        };
        let encoder = Encoder::for_schema(&rows.schema, &Options::new(copy, self.settings.formats())?)?;
        let (header, trailer) = (encoder.header(), encoder.trailer());
        let (columns, binary) = (rows.schema.fields().len(), copy.format == CopyFormat::Binary);
        let encoded = rows.batches.map(move |batch| batch.and_then(|batch| Ok((encoder.encode(&batch)?, batch.num_rows()))));
        let single = |bytes: Option<Bytes>| futures::stream::iter(bytes.map(|bytes| Ok((vec![bytes], 0))));
        let messages = match binary {
            false => single(header).chain(encoded).chain(single(trailer)).boxed(),
            true => led_by(header, encoded.chain(single(trailer))).boxed(),
        };
        let chunks = Box::pin(messages.map(|messages| messages.map(|(messages, rows)| joined(messages, rows))));
        Ok(Outcome::CopyOut(CopyOut { columns, binary, chunks, live: rows.live }))
    }

    /// `COPY t (a, b) TO` as a query.
    fn query_of(&self, target: &CopyTarget) -> Result<sqlparser::ast::Query> {
        let CopyTarget::Relation { name, columns } = target else { return Err(Error::internal("a query is no relation")) };
        let columns: Vec<String> = columns.iter().map(|c| crate::catalog::schema::quoted(&fold(c))).collect();
        let columns = if columns.is_empty() { "*".to_string() } else { columns.join(", ") };
        let text = format!("SELECT {columns} FROM {}", self.relation_name(name)?.to_sql());
        match crate::sql::parse::parse(&text)?.pop().map(|p| p.statement) {
            Some(crate::sql::ast::Statement::Query { query, .. }) => Ok(*query),
            _ => Err(Error::internal("a SELECT was read as something else")),
        }
    }
}

/// The header of the binary format is no message of its own: it stands before the first row, or the trailer.
fn led_by(
    header: Option<Bytes>,
    messages: impl futures::Stream<Item = Result<(Vec<Bytes>, usize)>>,
) -> impl futures::Stream<Item = Result<(Vec<Bytes>, usize)>> {
    let mut header = header;
    messages.map(move |messages| {
        let (mut messages, rows) = messages?;
        if let Some(first) = messages.first_mut()
            && let Some(header) = header.take()
        {
            *first = [header, first.clone()].concat().into();
        }
        Ok((messages, rows))
    })
}

/// Messages as one chunk.
fn joined(messages: Vec<Bytes>, rows: usize) -> CopyChunk {
    let mut data = bytes::BytesMut::with_capacity(messages.iter().map(Bytes::len).sum());
    let mut ends = Vec::with_capacity(messages.len());
    for message in messages {
        data.extend_from_slice(&message);
        ends.push(data.len());
    }
    CopyChunk { data: data.freeze(), ends, rows: rows as u64 }
}

fn record_kind(relation: &Relation) -> log::Kind {
    if relation.kind == Kind::Stream { log::Kind::Append } else { log::Kind::Upsert }
}

fn copied_columns(columns: &[sqlparser::ast::Ident], relation: &Relation) -> Result<Vec<usize>> {
    if columns.is_empty() {
        return Ok((0..relation.columns.len()).filter(|at| relation.columns[*at].generated.is_none()).collect());
    }
    let mut targets = Vec::new();
    for column in columns {
        let name = fold(column);
        let at = relation.column(&name).ok_or_else(|| no_column(&name, &relation.name))?;
        if relation.columns[at].generated.is_some() {
            return Err(Error::invalid_column_definition(format!("column \"{name}\" is a generated column"))
                .with_detail("generated columns cannot be used in COPY"));
        }
        if targets.contains(&at) {
            return Err(Error::duplicate_column(format!("column \"{name}\" specified more than once")));
        }
        targets.push(at);
    }
    Ok(targets)
}

/// Rows of a block, and what they become in the log.
type Decoded = (usize, Vec<Write>);

/// What decodes a block, on any thread.
struct Shared {
    database: Arc<Database>,
    writer: Arc<RelationWriter>,
    decoder: Decoder,
    targets: Vec<usize>,
    kind: log::Kind,
}

impl Shared {
    fn decode(&self, block: &Block) -> Result<Decoded> {
        let now = self.database.clock.now();
        let rows = self.decoder.decode(block)?;
        let count = rows.num_rows();
        let rows = self.writer.compiled().complete(&self.targets, &rows, now)?;
        Ok((count, self.writer.write(rows, self.kind, now)?))
    }

    fn stage(&self, write: Write) -> Result<Write> {
        let Rows::Batch(rows) = &write.rows else { return Ok(write) };
        Ok(Write { rows: Rows::Staged(self.database.log.stage(rows.clone())?), ..write })
    }
}

/// A COPY FROM STDIN under way.
pub(super) struct CopySession {
    splitter: Option<BlockSplitter>,
    columns: usize,
    binary: bool,
    shared: Arc<Shared>,
    /// In the order of the blocks.
    decoding: VecDeque<JoinHandle<Result<Decoded>>>,
    /// In the order in which the rows stand.
    staging: VecDeque<JoinHandle<Result<Write>>>,
    /// Rows of a partition that are too few for a batch of their own yet.
    open: HashMap<(RelationId, u32), Vec<Write>>,
    writes: Vec<Write>,
    rows: usize,
    /// Where the writes go if it runs in a transaction block.
    block: Option<Arc<parking_lot::Mutex<Vec<Write>>>>,
    last_commit: Arc<std::sync::atomic::AtomicU64>,
    waits_to_be_seen: bool,
}

impl CopySession {
    pub fn columns(&self) -> usize {
        self.columns
    }

    pub fn is_binary(&self) -> bool {
        self.binary
    }

    async fn decode(&mut self, blocks: Vec<Block>) -> Result<()> {
        for block in blocks {
            while self.decoding.len() >= BLOCKS {
                self.take_decoded().await?;
            }
            let shared = Arc::clone(&self.shared);
            self.decoding.push_back(tokio::task::spawn_blocking(move || shared.decode(&block)));
        }
        Ok(())
    }

    async fn take_decoded(&mut self) -> Result<()> {
        let Some(oldest) = self.decoding.pop_front() else { return Ok(()) };
        let (rows, writes) = oldest.await.map_err(|_| Error::internal("decoding a block of a COPY panicked"))??;
        self.rows += rows;
        for write in writes {
            self.collect(write).await?;
        }
        Ok(())
    }

    /// Join small batches of a partition, and stage what is large enough.
    async fn collect(&mut self, write: Write) -> Result<()> {
        let key = (write.relation, write.partition);
        let open = self.open.entry(key).or_default();
        open.push(write);
        let rows: usize = open.iter().map(rows_of).sum();
        if rows >= STAGE_ROWS {
            let joined = join(std::mem::take(open))?;
            self.stage(joined).await?;
        }
        Ok(())
    }

    async fn stage(&mut self, writes: Vec<Write>) -> Result<()> {
        for write in writes {
            while self.staging.len() >= BLOCKS {
                self.take_staged().await?;
            }
            let shared = Arc::clone(&self.shared);
            self.staging.push_back(tokio::task::spawn_blocking(move || shared.stage(write)));
        }
        Ok(())
    }

    async fn take_staged(&mut self) -> Result<()> {
        if let Some(oldest) = self.staging.pop_front() {
            let write = oldest.await.map_err(|_| Error::internal("staging a batch of a COPY panicked"))??;
            self.writes.push(write);
        }
        Ok(())
    }

    /// The last rows: everything is in `writes` after this.
    async fn drain(&mut self) -> Result<()> {
        if let Some(splitter) = self.splitter.take() {
            self.decode(splitter.finish()?).await?;
        }
        while !self.decoding.is_empty() {
            self.take_decoded().await?;
        }
        while !self.staging.is_empty() {
            self.take_staged().await?;
        }
        let mut open: Vec<_> = self.open.drain().collect();
        open.sort_by_key(|(key, _)| *key);
        for (_, writes) in open {
            self.writes.extend(join(writes)?);
        }
        Ok(())
    }
}

fn rows_of(write: &Write) -> usize {
    match &write.rows {
        Rows::Batch(rows) => rows.num_rows(),
        Rows::Staged(staged) => staged.rows(),
    }
}

/// Neighbours of one partition as batches of at most the usual size.
fn join(writes: Vec<Write>) -> Result<Vec<Write>> {
    let mut joined = Vec::new();
    let mut group: Vec<Write> = Vec::new();
    let mut rows = 0;
    for write in writes {
        if rows + rows_of(&write) > limits::BATCH_ROWS && !group.is_empty() {
            joined.push(join_group(std::mem::take(&mut group))?);
            rows = 0;
        }
        rows += rows_of(&write);
        group.push(write);
    }
    if !group.is_empty() {
        joined.push(join_group(group)?);
    }
    Ok(joined)
}

fn join_group(mut group: Vec<Write>) -> Result<Write> {
    if group.len() == 1 {
        return Ok(group.remove(0));
    }
    let batches: Vec<&RecordBatch> =
        group.iter().filter_map(|w| if let Rows::Batch(rows) = &w.rows { Some(rows) } else { None }).collect();
    let rows = arrow::compute::concat_batches(&batches[0].schema(), batches.iter().copied())?;
    let times = group.iter().filter_map(|w| w.event_times);
    let event_times = times.reduce(|(a, b), (c, d)| (a.min(c), b.max(d)));
    let watermark = group.iter().filter_map(|w| w.watermark).max();
    let number = group.iter().filter_map(|w| w.number).max();
    let first = &group[0];
    Ok(Write {
        relation: first.relation,
        partition: first.partition,
        kind: first.kind,
        rows: Rows::Batch(rows),
        event_times,
        watermark,
        number,
        checked: group.iter().map(|w| w.checked).min().unwrap_or(0),
    })
}

#[async_trait::async_trait]
impl CopySink for CopySession {
    async fn push(&mut self, data: Bytes) -> Result<()> {
        let Some(splitter) = &mut self.splitter else { return Err(Error::protocol_violation("copy data after its end")) };
        let blocks = splitter.push(&data)?;
        self.decode(blocks).await
    }

    async fn finish(mut self: Box<Self>) -> Result<String> {
        self.drain().await?;
        let writes = std::mem::take(&mut self.writes);
        match &self.block {
            Some(block) => block.lock().extend(writes),
            None if writes.is_empty() => {}
            None => {
                let durability = self.shared.writer.relation().durability;
                let transaction = Work { writes, durability, ..Work::default() }.into_transaction();
                let committed = self.shared.database.log.submit(transaction).await?;
                self.last_commit.fetch_max(committed.commit, std::sync::atomic::Ordering::SeqCst);
                if self.waits_to_be_seen {
                    // It is written however this ends; a read of the session says so if it did not.
                    let _ = super::read::await_commit(Arc::clone(&self.shared.database), committed.commit).await;
                }
            }
        }
        Ok(format!("COPY {}", self.rows))
    }
}

impl Drop for CopySession {
    /// Give back what was staged for a COPY that did not end well.
    fn drop(&mut self) {
        let staged = |write: Write| if let Rows::Staged(staged) = write.rows { Some(staged) } else { None };
        let staged: Vec<Staged> = std::mem::take(&mut self.writes).into_iter().filter_map(staged).collect();
        if !staged.is_empty() {
            self.shared.database.log.discard(staged);
        }
        let running = std::mem::take(&mut self.staging);
        if !running.is_empty()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let shared = Arc::clone(&self.shared);
            runtime.spawn(async move {
                for stage in running {
                    if let Ok(Ok(Write { rows: Rows::Staged(staged), .. })) = stage.await {
                        shared.database.log.discard(vec![staged]);
                    }
                }
            });
        }
    }
}
