//! Which system relations there are, and their columns: the text files beside this one, read once.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::types;

pub use crate::sql::types::PG_TYPE;

/// The schemas' OIDs.
pub(super) const PG_CATALOG: u32 = 11;
pub(super) const INFORMATION_SCHEMA: u32 = 13000;
pub(super) const TIDEGATE: u32 = 13001;

/// Where the numbering of relations starts to which PostgreSQL gives no fixed OID.
const FIRST_UNNUMBERED: u32 = 13100;

/// The schemas of the server's relations, with OID and purpose.
pub(super) const SCHEMAS: [(u32, &str, &str); 3] = [
    (PG_CATALOG, "pg_catalog", "system catalog schema"),
    (INFORMATION_SCHEMA, "information_schema", "the catalog as the SQL standard has it"),
    (TIDEGATE, "tidegate", "streams, views, watermarks and partitions"),
];

/// A column of a system relation.
#[derive(Debug)]
pub(super) struct SystemColumn {
    pub name: &'static str,
    /// PostgreSQL's name of the type; arrays end in `[]`.
    pub pg_type: &'static str,
    pub not_null: bool,
}

/// A system relation.
#[derive(Debug)]
pub(super) struct SystemRelation {
    pub schema: &'static str,
    pub name: &'static str,
    pub oid: u32,
    /// `r` or `v`, as pg_class.relkind has it.
    pub kind: &'static str,
    pub columns: Vec<SystemColumn>,
    pub arrow: SchemaRef,
}

impl SystemRelation {
    pub fn namespace(&self) -> u32 {
        SCHEMAS.iter().find(|(_, name, _)| *name == self.schema).map_or(PG_CATALOG, |(oid, _, _)| *oid)
    }

    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }
}

type ByName = BTreeMap<&'static str, BTreeMap<&'static str, Arc<SystemRelation>>>;

static DEFINITIONS: LazyLock<ByName> = LazyLock::new(|| {
    let texts = [include_str!("relations.txt"), include_str!("tidegate.txt")];
    let mut definitions = ByName::new();
    for (mut relation, number) in texts.into_iter().flat_map(read).zip(FIRST_UNNUMBERED..) {
        if relation.oid == 0 {
            relation.oid = number;
        }
        definitions.entry(relation.schema).or_default().insert(relation.name, Arc::new(relation));
    }
    definitions
});

/// All system relations, by schema and name.
pub(super) fn all() -> impl Iterator<Item = &'static Arc<SystemRelation>> {
    DEFINITIONS.values().flat_map(BTreeMap::values)
}

pub(super) fn find(schema: &str, name: &str) -> Option<&'static Arc<SystemRelation>> {
    DEFINITIONS.get(schema)?.get(name)
}

/// Reads a definition file. The files are part of the program: a fault in them is caught by the tests of this module.
fn read(text: &'static str) -> Vec<SystemRelation> {
    let mut relations: Vec<SystemRelation> = Vec::new();
    for line in text.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty()) {
        match line.strip_prefix(' ') {
            None => relations.push(head(line)),
            Some(columns) => {
                let relation = relations.last_mut().expect("a definition file starts with a head line");
                relation.columns.extend(columns.split_whitespace().map(column));
            }
        }
    }
    for relation in &mut relations {
        relation.arrow = Arc::new(Schema::new(relation.columns.iter().map(field).collect::<Vec<_>>()));
    }
    relations
}

fn head(line: &'static str) -> SystemRelation {
    let mut words = line.split(' ');
    let (schema, name) = words.next().and_then(|w| w.split_once('.')).expect("a head line starts with schema.name");
    let oid = words.next().and_then(|w| w.parse().ok()).expect("a head line has an oid");
    let kind = words.next().expect("a head line has a relkind");
    SystemRelation { schema, name, oid, kind, columns: Vec::new(), arrow: Arc::new(Schema::empty()) }
}

fn column(word: &'static str) -> SystemColumn {
    let (name, pg_type) = word.split_once(':').expect("a column is name:type");
    let not_null = pg_type.ends_with('!');
    SystemColumn { name, pg_type: pg_type.trim_end_matches('!'), not_null }
}

/// Columns are nullable to Arrow whatever the catalog says, so that outer joins and empty relations need no special care.
fn field(column: &SystemColumn) -> Field {
    let field = Field::new(column.name, arrow_type(column.pg_type), true);
    match types::arrow_says_it_all(column.pg_type) {
        true => field,
        false => field.with_metadata(HashMap::from([(PG_TYPE.to_string(), column.pg_type.to_string())])),
    }
}

/// How a type of the system relations is held in Arrow.
pub(super) fn arrow_type(pg_type: &str) -> DataType {
    if let Some(element) = pg_type.strip_suffix("[]") {
        return DataType::new_list(arrow_type(element), true);
    }
    match pg_type {
        "bool" => DataType::Boolean,
        "int2" => DataType::Int16,
        "int4" => DataType::Int32,
        "int8" => DataType::Int64,
        "oid" | "xid" | "cid" | "regproc" | "regtype" | "regclass" | "regnamespace" | "regrole" => DataType::UInt32,
        "float4" => DataType::Float32,
        "float8" => DataType::Float64,
        "numeric" => DataType::Decimal128(38, 0),
        "bytea" => DataType::Binary,
        "timestamp" => crate::time::TIMESTAMP,
        "timestamptz" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        "interval" => DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano),
        "int2vector" => DataType::new_list(DataType::Int16, true),
        "oidvector" => DataType::new_list(DataType::UInt32, true),
        "anyarray" => DataType::new_list(DataType::Utf8, true),
        _ => DataType::Utf8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_is_read_and_has_an_oid_of_its_own() {
        assert!(all().count() > 190);
        let class = find("pg_catalog", "pg_class").unwrap();
        assert_eq!((class.oid, class.kind, class.columns.len()), (1259, "r", 33));
        let oids: std::collections::HashSet<u32> = all().map(|r| r.oid).collect();
        assert_eq!(oids.len(), all().count(), "two relations share an oid");
    }

    #[test]
    fn every_column_has_a_known_type() {
        for relation in all() {
            for column in &relation.columns {
                assert!(types::by_name(column.pg_type).is_some(), "{}.{}: {}", relation.name, column.name, column.pg_type);
            }
        }
    }
}
