//! A table of a PostgreSQL server as the place where a sink's rows go.
//!
//! A transaction there holds the changes of some commits and the commit that they go up to, which is kept in a table beside
//! ([`POSITIONS`]). So whatever ends between the two servers, and whenever, what was written once is not written again. The
//! position is compared when it is moved: two that believe to be the same sink cannot both go on.

use std::collections::HashSet;

use arrow::array::{Array, Int64Array, RecordBatch, UInt32Array};
use arrow::datatypes::SchemaRef;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::super::connection::{Connections, failure};
use super::Sink;
use crate::catalog::schema::quoted;
use crate::copy::value::write::text_writer;
use crate::delta::{Delta, consolidate};
use crate::error::{Error, Result};
use crate::log::CommitId;

/// Where the sinks of a schema keep how far they have come.
const POSITIONS: &str = "tidegate_sinks";

/// Rows in one statement.
const ROWS: usize = 5_000;

/// A sink's table over there, and a session to write to it.
pub(super) struct Target {
    client: Client,
    statements: Statements,
    schema: SchemaRef,
    key: Vec<usize>,
    id: String,
    position: Option<CommitId>,
    in_transaction: bool,
}

/// What is said to the other server. Values go there as text, in arrays, and are cast there.
struct Statements {
    create: String,
    create_positions: String,
    insert: String,
    delete: Option<String>,
    enter: String,
    position: String,
    advance: String,
    forget: String,
}

impl Statements {
    fn of(sink: &Sink) -> Statements {
        let schema = sink.schema.as_ref().map(|schema| format!("{}.", quoted(schema))).unwrap_or_default();
        let (table, positions) = (format!("{schema}{}", quoted(&sink.table)), format!("{schema}{POSITIONS}"));
        let names: Vec<String> = sink.relation.columns.iter().map(|column| quoted(&column.name)).collect();
        let types: Vec<&str> = sink.relation.columns.iter().map(|column| column.sql_type.as_str()).collect();
        let key: Vec<&str> = sink.relation.primary_key.iter().map(|at| names[*at].as_str()).collect();
        let list = |items: &mut dyn Iterator<Item = String>, between: &str| items.collect::<Vec<_>>().join(between);
        let all = names.join(", ");
        let arrays = |count: usize| list(&mut (1..=count).map(|n| format!("${n}::text[]")), ", ");
        let columns = names.iter().zip(&types);
        let defined = list(&mut columns.clone().map(|(name, sql_type)| format!("{name} {sql_type}")), ", ");
        let cast = list(&mut columns.map(|(name, sql_type)| format!("x.{name}::{sql_type}")), ", ");
        let with_key = if key.is_empty() { String::new() } else { format!(", PRIMARY KEY ({})", key.join(", ")) };
        let mut insert = format!("INSERT INTO {table} ({all}) SELECT {cast} FROM unnest({}) AS x({all})", arrays(names.len()));
        if !key.is_empty() {
            let others = names.iter().filter(|name| !key.contains(&name.as_str()));
            let set = list(&mut others.map(|name| format!("{name} = excluded.{name}")), ", ");
            let action = if set.is_empty() { "NOTHING".to_string() } else { format!("UPDATE SET {set}") };
            insert = format!("{insert} ON CONFLICT ({}) DO {action}", key.join(", "));
        }
        let delete = (!key.is_empty()).then(|| {
            let keys = sink.relation.primary_key.iter().map(|at| (&names[*at], types[*at]));
            let same = list(&mut keys.map(|(name, sql_type)| format!("t.{name} = x.{name}::{sql_type}")), " AND ");
            format!("DELETE FROM {table} AS t USING unnest({}) AS x({}) WHERE {same}", arrays(key.len()), key.join(", "))
        });
        let of = format!("FROM {positions} WHERE sink = $1::text");
        Statements {
            create: format!("CREATE TABLE IF NOT EXISTS {table} ({defined}{with_key})"),
            create_positions: format!(
                "CREATE TABLE IF NOT EXISTS {positions} (sink text PRIMARY KEY, name text, position bigint)"
            ),
            insert,
            delete,
            enter: format!("INSERT INTO {positions} (sink, name) VALUES ($1::text, $2::text) ON CONFLICT (sink) DO NOTHING"),
            position: format!("SELECT position {of}"),
            advance: format!(
                "UPDATE {positions} SET position = $2::bigint WHERE sink = $1::text AND position IS NOT DISTINCT FROM $3::bigint"
            ),
            forget: format!("DELETE {of}"),
        }
    }
}

impl Target {
    /// Connect, make the tables if they are not there yet, and see that the sink's rows fit.
    pub async fn open(connections: &Connections, sink: &Sink) -> Result<Target> {
        let client = connections.open(&sink.connection).await?;
        let statements = Statements::of(sink);
        let relation = &sink.relation;
        let mut target = Target {
            client,
            statements,
            schema: relation.schema(),
            key: relation.primary_key.clone(),
            id: sink.id.clone(),
            position: None,
            in_transaction: false,
        };
        let Statements { create, create_positions, enter, position, .. } = &target.statements;
        target.client.batch_execute(create_positions).await.map_err(|error| failure(&error))?;
        target.execute(enter, &[&target.id, &relation.full_name().to_string()]).await?;
        let row = target.client.query_one(position, &[&target.id]).await.map_err(|error| failure(&error))?;
        target.position = row.try_get::<_, Option<i64>>(0).map_err(|error| failure(&error))?.map(|commit| commit as CommitId);
        if target.position.is_none() {
            // Later on, a table that is not there has taken rows with it.
            target.client.batch_execute(create).await.map_err(|error| failure(&error))?;
        }
        let nothing = RecordBatch::new_empty(relation.schema());
        target.insert(&nothing).await?;
        target.delete(&nothing).await?;
        Ok(target)
    }

    /// The commit whose rows are there; `None`: nothing is there yet.
    pub fn position(&self) -> Option<CommitId> {
        self.position
    }

    /// Rows of the beginning, which are there with those that [`Target::write`] is given next.
    pub async fn begin_with(&mut self, rows: &Delta) -> Result<usize> {
        self.begin().await?;
        let rows = rows.repeated()?;
        self.insert(&rows).await?;
        Ok(rows.num_rows())
    }

    /// The changes up to a commit, in one transaction. Says how many rows that was.
    pub async fn write(&mut self, changes: &[Delta], commit: CommitId) -> Result<usize> {
        let (gone, new) = net(&self.schema, changes, &self.key)?;
        self.begin().await?;
        self.delete(&gone).await?;
        self.insert(&new).await?;
        let (to, from) = (commit as i64, self.position.map(|commit| commit as i64));
        if self.execute(&self.statements.advance, &[&self.id, &to, &from]).await? != 1 {
            return Err(Error::foreign(format!("another server has moved the sink's position in {POSITIONS}")));
        }
        self.client.batch_execute("COMMIT").await.map_err(|error| failure(&error))?;
        self.in_transaction = false;
        self.position = Some(commit);
        Ok(gone.num_rows() + new.num_rows())
    }

    /// The sink is no more: neither is its position.
    pub async fn forget(connections: &Connections, sink: &Sink) -> Result<()> {
        let client = connections.open(&sink.connection).await?;
        client.execute(&Statements::of(sink).forget, &[&sink.id]).await.map(drop).map_err(|error| failure(&error))
    }

    async fn begin(&mut self) -> Result<()> {
        if !self.in_transaction {
            self.client.batch_execute("BEGIN").await.map_err(|error| failure(&error))?;
            self.in_transaction = true;
        }
        Ok(())
    }

    async fn insert(&self, rows: &RecordBatch) -> Result<()> {
        let columns: Vec<usize> = (0..rows.num_columns()).collect();
        self.execute_with(&self.statements.insert, rows, &columns).await
    }

    async fn delete(&self, rows: &RecordBatch) -> Result<()> {
        match &self.statements.delete {
            Some(delete) => self.execute_with(delete, rows, &self.key).await,
            None => Ok(()),
        }
    }

    /// A statement over some columns of rows; also if there are none, once, so that it is checked.
    async fn execute_with(&self, statement: &str, rows: &RecordBatch, columns: &[usize]) -> Result<()> {
        let prepared = self.client.prepare(statement).await.map_err(|error| failure(&error))?;
        for start in (0..rows.num_rows().max(1)).step_by(ROWS) {
            let some = rows.slice(start, ROWS.min(rows.num_rows() - start));
            let values: Vec<Vec<Option<String>>> = columns.iter().map(|at| texts(&some, *at)).collect::<Result<_>>()?;
            let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|column| column as _).collect();
            self.client.execute(&prepared, &values).await.map_err(|error| failure(&error))?;
        }
        Ok(())
    }

    async fn execute(&self, statement: &str, values: &[&(dyn ToSql + Sync)]) -> Result<u64> {
        self.client.execute(statement, values).await.map_err(|error| failure(&error))
    }
}

/// What changes come to: rows whose keys are there no more, and rows that are there instead or for the first time. Without a key
/// there are new rows only.
fn net(schema: &SchemaRef, changes: &[Delta], key: &[usize]) -> Result<(RecordBatch, RecordBatch)> {
    let net = consolidate(schema, changes)?;
    let weights = net.diff.clone().unwrap_or_else(|| Int64Array::from_value(1, net.len()));
    let rows = |of: &dyn Fn(i64) -> bool| {
        let rows = weights.values().iter().enumerate().filter(|(_, weight)| of(**weight)).map(|(row, _)| row as u32);
        UInt32Array::from_iter_values(rows)
    };
    let new = net.take(&rows(&|weight| weight > 0))?.repeated()?;
    let gone = net.rows.clone();
    let gone = crate::delta::take(&gone, &rows(&|weight| weight < 0))?;
    if key.is_empty() {
        return match gone.num_rows() {
            0 => Ok((gone, new)),
            _ => Err(Error::internal("rows without a key were taken back from a sink")),
        };
    }
    let keys = |rows: &RecordBatch| -> Result<Vec<Vec<Option<String>>>> {
        let columns: Vec<_> = key.iter().map(|at| texts(rows, *at)).collect::<Result<_>>()?;
        Ok((0..rows.num_rows()).map(|row| columns.iter().map(|column| column[row].clone()).collect()).collect())
    };
    let replaced: HashSet<Vec<Option<String>>> = keys(&new)?.into_iter().collect();
    let is_gone = keys(&gone)?.into_iter().enumerate().filter(|(_, key)| !replaced.contains(key)).map(|(row, _)| row as u32);
    let is_gone = UInt32Array::from_iter_values(is_gone);
    Ok((crate::delta::take(&gone, &is_gone)?, new))
}

/// The values of a column, as text.
fn texts(rows: &RecordBatch, column: usize) -> Result<Vec<Option<String>>> {
    let array = rows.column(column);
    let write = text_writer(array)?;
    let value = |row| {
        let mut text = Vec::new();
        write(row, &mut text);
        String::from_utf8(text).map_err(|_| Error::internal("a value's text is no text"))
    };
    (0..rows.num_rows()).map(|row| array.is_valid(row).then(|| value(row)).transpose()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, StringArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;

    fn changes(rows: &[(&str, i64, i64)]) -> (SchemaRef, Delta) {
        let fields = vec![Field::new("k", DataType::Utf8, true), Field::new("v", DataType::Int64, true)];
        let schema = Arc::new(Schema::new(fields));
        let k: StringArray = rows.iter().map(|(k, _, _)| Some(*k)).collect();
        let v: Int64Array = rows.iter().map(|(_, v, _)| Some(*v)).collect();
        let diff: Int64Array = rows.iter().map(|(_, _, diff)| Some(*diff)).collect();
        let rows = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(k), Arc::new(v)]).unwrap();
        (schema, Delta::new(rows, diff))
    }

    fn shown(rows: &RecordBatch) -> Vec<String> {
        let (k, v) = (rows.column(0).as_string::<i32>(), rows.column(1).as_primitive::<Int64Type>());
        (0..rows.num_rows()).map(|row| format!("{} {}", k.value(row), v.value(row))).collect()
    }

    #[test]
    fn changes_of_several_commits_come_to_one() {
        let (schema, first) = changes(&[("a", 1, 1), ("b", 1, 1), ("c", 1, -1)]);
        let (_, second) = changes(&[("a", 1, -1), ("a", 2, 1), ("b", 1, -1), ("d", 5, -1), ("d", 6, 1)]);
        let (gone, new) = net(&schema, &[first, second], &[0]).unwrap();
        assert_eq!(shown(&gone), ["c 1"]);
        assert_eq!(shown(&new), ["a 2", "d 6"]);
    }

    #[test]
    fn rows_without_a_key_are_added() {
        let (schema, rows) = changes(&[("a", 1, 2), ("b", 1, 1)]);
        let (gone, new) = net(&schema, &[rows], &[]).unwrap();
        assert_eq!((gone.num_rows(), shown(&new)), (0, vec!["a 1".to_string(), "a 1".to_string(), "b 1".to_string()]));
        let (schema, rows) = changes(&[("a", 1, -1)]);
        assert!(net(&schema, &[rows], &[]).is_err());
    }
}
