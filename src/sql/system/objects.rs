//! What has an OID: user relations, their indexes and constraints, and the system relations, brought into one form that
//! pg_class, pg_attribute, information_schema and the functions that turn names to OIDs all read.
//!
//! Things that a relation owns (its primary key's index and constraint, its row type, …) take their OIDs from the relation's,
//! so that they are as lasting as the relation is.

use std::collections::HashMap;
use std::sync::Arc;

use super::context::SystemContext;
use super::definitions::{self, PG_CATALOG};
use super::types;
use crate::catalog::index::Index;
use crate::catalog::schema::{PUBLIC, PUBLIC_SCHEMA};
use crate::catalog::{self, Catalog, Identity, Kind, Relation, RelationId, sequence_of};

/// OID of the role that owns all relations.
pub(super) const OWNER: u32 = 10;

// Ranges for what relations own. Relation ids, and those of keys' indexes, stay far below the first of them.
const CONSTRAINT: u32 = 0x2000_0000;
const ROW_TYPE: u32 = 0x3000_0000;
const ROW_TYPE_ARRAY: u32 = 0x4000_0000;
const RULE: u32 = 0x5000_0000;
/// Defaults: 2¹¹ per relation is more than the columns a relation may have.
const DEFAULT: u32 = 0x6000_0000;

/// A row of pg_class.
#[derive(Clone, Debug)]
pub(super) struct Class {
    pub oid: u32,
    pub name: String,
    pub namespace: u32,
    /// Its name.
    pub schema: String,
    /// `r`, `v`, `m`, `i`, `S`.
    pub kind: &'static str,
    pub source: Source,
}

#[derive(Clone, Debug)]
pub(super) enum Source {
    User(Arc<Relation>),
    /// Of the primary key, or made by a user.
    Index(Arc<Relation>, Arc<Index>),
    /// What numbers the rows of a table.
    Sequence(Arc<Relation>),
    System(&'static Arc<definitions::SystemRelation>),
}

/// A row of pg_attribute.
#[derive(Clone, Debug)]
pub(super) struct Attribute {
    pub number: i16,
    pub name: String,
    pub type_oid: u32,
    pub typmod: i32,
    pub not_null: bool,
    /// SQL of a default or of a computed column.
    pub default: Option<String>,
    pub generated: bool,
    pub identity: Option<Identity>,
}

pub(super) struct Objects {
    classes: Vec<Class>,
    by_oid: HashMap<u32, usize>,
    by_name: HashMap<(u32, String), usize>,
    /// OID, name and what else pg_proc has of a function.
    pub functions: Vec<Function>,
}

/// A row of pg_proc.
#[derive(Clone, Debug)]
pub(super) struct Function {
    pub oid: u32,
    pub info: super::context::FunctionInfo,
    /// What a user has defined; the others are built in.
    pub user: Option<Arc<catalog::function::Function>>,
}

impl Function {
    pub fn namespace(&self) -> u32 {
        if self.user.is_some() { PUBLIC_SCHEMA } else { PG_CATALOG }
    }

    pub fn schema(&self) -> &'static str {
        if self.user.is_some() { PUBLIC } else { "pg_catalog" }
    }
}

/// Where the numbering of functions starts that PostgreSQL gives no OID that we know of.
const FIRST_FUNCTION: u32 = 0x0800_0000;

impl Objects {
    pub fn new(context: &SystemContext) -> Objects {
        let system = definitions::all().map(|r| Class {
            oid: r.oid,
            name: r.name.to_string(),
            namespace: r.namespace(),
            schema: r.schema.to_string(),
            kind: r.kind,
            source: Source::System(r),
        });
        let catalog = context.catalog();
        let user = context
            .relations()
            .flat_map(|r| user_class(catalog, r).into_iter().chain(index_classes(catalog, r)).chain(sequence_class(catalog, r)));
        let classes: Vec<Class> = system.chain(user).collect();
        let by_oid = classes.iter().enumerate().map(|(i, c)| (c.oid, i)).collect();
        let by_name = classes.iter().enumerate().map(|(i, c)| ((c.namespace, c.name.clone()), i)).collect();
        Objects { classes, by_oid, by_name, functions: functions(context) }
    }

    pub fn classes(&self) -> &[Class] {
        &self.classes
    }

    pub fn class(&self, oid: u32) -> Option<&Class> {
        self.by_oid.get(&oid).map(|&i| &self.classes[i])
    }

    pub fn class_named(&self, schema: u32, name: &str) -> Option<&Class> {
        self.by_name.get(&(schema, name.to_string())).map(|&i| &self.classes[i])
    }

    /// The relation that a name means, looked up along the search path unless a schema is given.
    pub fn find_class(&self, context: &SystemContext, schema: Option<&str>, name: &str) -> Option<&Class> {
        if let Some(schema) = schema {
            return context.schema_oid(schema).and_then(|oid| self.class_named(oid, name));
        }
        self.path(context).into_iter().find_map(|schema| self.class_named(schema, name))
    }

    /// OIDs of the schemas on the search path, pg_catalog among them.
    pub fn path(&self, context: &SystemContext) -> Vec<u32> {
        let mut path: Vec<u32> = context.search_path().schemas().filter_map(|s| context.schema_oid(s)).collect();
        if !path.contains(&PG_CATALOG) {
            path.insert(0, PG_CATALOG);
        }
        path
    }

    /// It is what its bare name means.
    pub fn is_visible(&self, context: &SystemContext, oid: u32) -> Option<bool> {
        let class = self.class(oid)?;
        Some(self.find_class(context, None, &class.name).is_some_and(|found| found.oid == oid))
    }

    pub fn function(&self, oid: u32) -> Option<&Function> {
        self.functions.iter().find(|f| f.oid == oid)
    }

    pub fn functions_named(&self, name: &str) -> impl Iterator<Item = &Function> {
        self.functions.iter().filter(move |f| f.info.name == name)
    }
}

fn user_class(catalog: &Catalog, relation: &Arc<Relation>) -> Option<Class> {
    let kind = match relation.kind {
        Kind::Stream | Kind::Table | Kind::Late => "r",
        Kind::MaterializedView => "m",
        Kind::View => "v",
        Kind::Query | Kind::Sink => return None,
    };
    let source = Source::User(relation.clone());
    let (name, schema) = (relation.name.clone(), relation.schema.clone());
    Some(Class { oid: relation.id, name, namespace: catalog.schema_of(relation), schema, kind, source })
}

fn index_classes(catalog: &Catalog, relation: &Arc<Relation>) -> impl Iterator<Item = Class> {
    let class = move |index: Index| Class {
        oid: index.id,
        name: index.name.clone(),
        namespace: catalog.schema_of(relation),
        schema: relation.schema.clone(),
        kind: "i",
        source: Source::Index(relation.clone(), Arc::new(index)),
    };
    relation.all_indexes().map(class)
}

fn sequence_class(catalog: &Catalog, relation: &Arc<Relation>) -> Option<Class> {
    relation.identity().map(|_| Class {
        oid: sequence_of(relation.id),
        name: sequence_name(relation),
        namespace: catalog.schema_of(relation),
        schema: relation.schema.clone(),
        kind: "S",
        source: Source::Sequence(relation.clone()),
    })
}

/// `t_c_seq`, as PostgreSQL calls the sequence of a column.
pub(super) fn sequence_name(relation: &Relation) -> String {
    let column = relation.identity().map_or("", |(at, _)| relation.columns[at].name.as_str());
    format!("{}_{column}_seq", relation.name)
}

pub(super) fn constraint_oid(id: RelationId) -> u32 {
    CONSTRAINT + id
}

pub(super) fn row_type_oid(id: RelationId) -> u32 {
    ROW_TYPE + id
}

pub(super) fn row_type_array_oid(id: RelationId) -> u32 {
    ROW_TYPE_ARRAY + id
}

pub(super) fn rule_oid(id: RelationId) -> u32 {
    RULE + id
}

pub(super) fn default_oid(id: RelationId, number: i16) -> u32 {
    DEFAULT.wrapping_add(id.wrapping_shl(11)).wrapping_add(number.unsigned_abs().into())
}

/// The relation whose constraint this is.
pub(super) fn relation_of_constraint(oid: u32) -> Option<RelationId> {
    (CONSTRAINT..ROW_TYPE).contains(&oid).then(|| oid - CONSTRAINT)
}

/// The relation whose rule this is.
pub(super) fn relation_of_rule(oid: u32) -> Option<RelationId> {
    (RULE..DEFAULT).contains(&oid).then(|| oid - RULE)
}

impl Class {
    pub fn attributes(&self) -> Vec<Attribute> {
        match &self.source {
            Source::User(relation) => relation.columns.iter().enumerate().map(|(i, c)| user_attribute(relation, i, c)).collect(),
            Source::Index(relation, index) => {
                let key = index.columns.iter().enumerate();
                key.filter_map(|(at, &i)| Some((at, user_attribute(relation, i, relation.columns.get(i)?))))
                    .map(|(at, a)| Attribute {
                        number: number(at),
                        default: None,
                        generated: false,
                        identity: None,
                        not_null: false,
                        ..a
                    })
                    .collect()
            }
            Source::Sequence(_) => Vec::new(),
            Source::System(system) => system.columns.iter().enumerate().map(|(i, c)| system_attribute(i, c)).collect(),
        }
    }

    pub fn comment(&self) -> Option<&str> {
        match &self.source {
            Source::User(relation) => relation.comment.as_deref(),
            Source::Index(_, index) => index.comment.as_deref(),
            Source::Sequence(_) | Source::System(_) => None,
        }
    }
}

/// Numbers of columns, from 1.
pub(super) fn number(index: usize) -> i16 {
    i16::try_from(index + 1).unwrap_or(i16::MAX)
}

fn user_attribute(relation: &Relation, index: usize, column: &crate::catalog::Column) -> Attribute {
    let (type_oid, typmod) = types::of_column(column);
    Attribute {
        number: number(index),
        name: column.name.clone(),
        type_oid,
        typmod,
        not_null: !column.nullable || relation.key_index().is_some_and(|key| key.columns.contains(&index)),
        default: column.generated.clone().or_else(|| column.default.clone()),
        generated: column.generated.is_some(),
        identity: column.identity,
    }
}

fn system_attribute(index: usize, column: &definitions::SystemColumn) -> Attribute {
    Attribute {
        number: number(index),
        name: column.name.to_string(),
        type_oid: types::by_name(column.pg_type).map_or(25, |t| t.oid),
        typmod: -1,
        not_null: column.not_null,
        default: None,
        generated: false,
        identity: None,
    }
}

/// The functions of the planner, those that read and write the types, and the users'.
fn functions(context: &SystemContext) -> Vec<Function> {
    let mut functions: Vec<Function> = context
        .functions
        .iter()
        .zip(FIRST_FUNCTION..)
        .map(|(info, oid)| Function { oid, info: info.clone(), user: None })
        .collect();
    let mut seen = std::collections::HashSet::new();
    for (oid, name) in types::all().iter().flat_map(|t| t.functions).filter(|(oid, _)| *oid != 0) {
        if seen.insert(oid) {
            let info = super::context::FunctionInfo {
                name: name.to_string(),
                kind: 'f',
                volatility: 'i',
                result: None,
                arguments: None,
            };
            functions.push(Function { oid, info, user: None });
        }
    }
    functions.extend(context.catalog().functions().map(user_function));
    functions
}

fn user_function(function: &Arc<catalog::function::Function>) -> Function {
    let info = super::context::FunctionInfo {
        name: function.name.clone(),
        kind: 'f',
        volatility: function.volatility.letter(),
        result: None,
        arguments: None,
    };
    Function { oid: function.id, info, user: Some(Arc::clone(function)) }
}
