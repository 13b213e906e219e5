//! ALTER of streams and tables: columns that are added or renamed, options, defaults.
//!
//! Each is one commit that gives the relation another definition under the same id. Stored rows stay as they are: they have in
//! an added column the value that its default had when it was added. Views over the relation keep the columns that it had.

use std::sync::Arc;

use arrow::array::Array;
use sqlparser::ast as sp;

use super::check::{with_check, with_renamed_column, without_constraint};
use super::client::done;
use super::define::{check_options, column_of, durability, existing, no_column};
use super::read::planner_over;
use super::{Client, Outcome};
use crate::catalog::schema::{RelationName, quoted};
use crate::catalog::{Catalog, Change, Kind, Relation};
use crate::connect::Connector;
use crate::error::{Error, Result};
use crate::ingest::CompiledRelation;
use crate::limits;
use crate::log::layout::value_to_text;
use crate::sql::ast::{AlterAction, AlterRelation, ColumnDef, Options, SqlExpr};
use crate::sql::parse::parse_expression;
use crate::sql::plan::names::fold;

/// Options that say how a relation lies in the log, or where its rows come from: they stay what they were.
const FIXED: [&str; 2] = ["partitions", "connector"];

impl Client {
    pub(super) async fn alter_relation(&mut self, alter: &AlterRelation, sql: &str) -> Result<Outcome> {
        let tag = "ALTER TABLE";
        self.beside_block(tag)?;
        let Some(name) = self.altered_name(&alter.name, alter.if_exists)? else { return done(tag) };
        let catalog = self.database.log.catalog();
        if let (AlterAction::AddColumn { column, if_not_exists: true }, Some(relation)) = (&alter.action, catalog.named(&name))
            && relation.column(&fold(&column.name)).is_some()
        {
            let message = format!("column \"{}\" of relation \"{}\" already exists, skipping", fold(&column.name), name.name);
            self.notices.push(Error::duplicate_column(message));
            return done(tag);
        }
        if let AlterAction::ValidateConstraint(constraint) = &alter.action {
            return self.validate_check(&name, &fold(constraint), None).await;
        }
        if let (AlterAction::DropConstraint { name: constraint, if_exists: true }, Some(relation)) =
            (&alter.action, catalog.named(&name))
            && !relation.has_constraint(&fold(constraint))
        {
            let message = format!("constraint \"{}\" of relation \"{}\" does not exist, skipping", fold(constraint), name.name);
            self.notices.push(Error::undefined_object(message));
            return done(tag);
        }
        let added = parking_lot::Mutex::new(None);
        let (database, reader, now) = (Arc::clone(&self.database), self.reader(), self.database.clock.now());
        self.change_catalog(|catalog| {
            let relation = alterable(catalog, &name)?;
            let planner = planner_over(&database, Arc::new(catalog.clone()), reader.clone());
            let mut altered = match &alter.action {
                AlterAction::AddColumn { column, .. } => {
                    let empty = database.log.head(relation.id).is_none_or(|head| head.next_offsets.iter().all(|next| *next == 0));
                    let added = with_column(relation, column)?;
                    let compiled = CompiledRelation::compile(Arc::new(added.clone()), &planner)?;
                    with_fill(added, &compiled, empty, now)?
                }
                AlterAction::RenameColumn { from, to } => with_renamed(catalog, relation, &fold(from), &fold(to))?,
                AlterAction::SetOptions(options) => with_options(relation, options)?,
                AlterAction::AddCheck { check, .. } => {
                    let checked = with_check(relation, check, database.new_relation_id(), false)?;
                    *added.lock() = checked.checks.last().map(|check| check.name.clone());
                    checked
                }
                AlterAction::DropConstraint { name, .. } => without_constraint(relation, &fold(name))?,
                AlterAction::ValidateConstraint(_) => relation.as_ref().clone(),
                AlterAction::SetDefault { column, default } => with_default(relation, &fold(column), default.as_deref())?,
            };
            altered.create_sql = format!("{};\n{sql}", relation.create_sql);
            CompiledRelation::compile(Arc::new(altered.clone()), &planner)?;
            altered.functions = planner.functions_called();
            Connector::of(&altered)?;
            Ok(vec![Change::Alter(altered)])
        })
        .await?;
        match (&alter.action, added.into_inner()) {
            (AlterAction::AddCheck { not_valid: false, .. }, Some(added)) => self.validate_check(&name, &added, Some(sql)).await,
            _ => done(tag),
        }
    }
}

fn alterable<'a>(catalog: &'a Catalog, name: &RelationName) -> Result<&'a Arc<Relation>> {
    let relation = existing(catalog, name)?;
    let (noun, hint) = match relation.kind {
        Kind::Stream | Kind::Table if relation.query.is_none() && relation.parent.is_none() => return Ok(relation),
        Kind::MaterializedView => {
            ("materialized view", "ALTER MATERIALIZED VIEW … AS, or CREATE OR REPLACE, gives it another query")
        }
        Kind::View => ("view", "CREATE OR REPLACE VIEW gives it another query"),
        Kind::Stream if relation.is_derived() => {
            ("derived stream", "ALTER STREAM … AS, or CREATE OR REPLACE STREAM … AS, gives it another query")
        }
        kind => (kind.noun(), "it belongs to a query or to another relation, and follows that"),
    };
    Err(Error::wrong_object_type(format!("\"{name}\" is a {noun}: its columns are those of its query")).with_hint(hint))
}

pub(super) fn with_column(relation: &Relation, column: &ColumnDef) -> Result<Relation> {
    let column = column_of(column, None)?;
    if relation.column(&column.name).is_some() {
        let message = format!("column \"{}\" of relation \"{}\" already exists", column.name, relation.name);
        return Err(Error::duplicate_column(message));
    }
    if relation.columns.len() >= limits::COLUMNS {
        return Err(Error::limit_exceeded(format!("a relation has at most {} columns", limits::COLUMNS)));
    }
    if column.generated.is_some() {
        return Err(Error::unsupported("a generated column cannot be added: the rows that are stored do not have it")
            .with_hint("compute it in a view over the relation"));
    }
    if column.identity.is_some() {
        return Err(Error::unsupported("a column that numbers the rows cannot be added: the rows that are stored have none")
            .with_hint("CREATE TABLE a new one, and INSERT INTO it SELECT from this one"));
    }
    let mut added = relation.clone();
    added.columns.push(column);
    Ok(added)
}

/// What the rows that there are have in the last column: its default, once for all.
pub(super) fn with_fill(
    mut added: Relation,
    compiled: &CompiledRelation,
    empty: bool,
    now: crate::time::Micros,
) -> Result<Relation> {
    let last = added.columns.len() - 1;
    let value = compiled.default_of(last, 1, now)?;
    let column = &added.columns[last];
    if value.is_null(0) && !column.nullable && !empty {
        let message = format!("column \"{}\" of relation \"{}\" contains null values", column.name, added.name);
        return Err(Error::not_null_violation(message).with_hint("give the column a DEFAULT for the rows that there are"));
    }
    if !value.is_null(0) {
        added.fills.insert(last, value_to_text(&value)?);
    }
    Ok(added)
}

fn with_renamed(catalog: &Catalog, relation: &Relation, from: &str, to: &str) -> Result<Relation> {
    let at = relation.column(from).ok_or_else(|| no_column(from, &relation.name))?;
    if relation.column(to).is_some() {
        let message = format!("column \"{to}\" of relation \"{}\" already exists", relation.name);
        return Err(Error::duplicate_column(message));
    }
    if let Some(reader) = catalog.dependents(relation.id).next() {
        let (noun, word) = (relation.kind.noun(), reader.kind.noun());
        let message = format!("cannot rename column {from} of {noun} {} because {word} {} reads it", relation.name, reader.name);
        return Err(
            Error::dependent_objects(message).with_hint("give the column its new name in the query of the view: from AS to")
        );
    }
    let mut renamed = relation.clone();
    renamed.columns[at].name = to.to_string();
    let checks = relation.checks.iter().map(|check| with_renamed_column(check, from, to));
    renamed.checks = checks.collect::<Result<_>>()?;
    // The watermark may be the column itself; what is computed of it is kept as text.
    if let Some(watermark) = renamed.watermark.as_mut().filter(|w| w.column == at)
        && mentions(&watermark.expression, from)?
        && matches!(parse_expression(&watermark.expression)?, sp::Expr::Identifier(_))
    {
        watermark.expression = quoted(to);
    }
    let generated = renamed.columns.iter().filter_map(|c| c.generated.as_deref());
    for expression in generated.chain(renamed.watermark.as_ref().map(|w| w.expression.as_str())) {
        if mentions(expression, from)? {
            let message = format!("cannot rename column {from} of {}: the expression {expression} is made of it", relation.name);
            return Err(Error::dependent_objects(message).with_hint("name it as you like in a view over the relation"));
        }
    }
    Ok(renamed)
}

/// Whether an expression names this column.
fn mentions(expression: &str, column: &str) -> Result<bool> {
    let expr = parse_expression(expression)?;
    let found = sp::visit_expressions(&expr, |expr| match expr {
        sp::Expr::Identifier(ident) if fold(ident) == column => std::ops::ControlFlow::Break(()),
        sp::Expr::CompoundIdentifier(idents) if idents.last().is_some_and(|ident| fold(ident) == column) => {
            std::ops::ControlFlow::Break(())
        }
        _ => std::ops::ControlFlow::Continue(()),
    });
    Ok(found.is_break())
}

pub(super) fn with_options(relation: &Relation, options: &Options) -> Result<Relation> {
    check_options(options)?;
    if let Some(fixed) = FIXED.into_iter().find(|fixed| options.contains_key(*fixed)) {
        return Err(Error::invalid_parameter(format!("{fixed} of \"{}\" cannot be changed", relation.name))
            .with_hint("create a new relation, and INSERT … SELECT into it"));
    }
    let mut altered = relation.clone();
    altered.options.extend(options.iter().map(|(key, value)| (key.clone(), value.clone())));
    altered.durability = durability(&altered.options)?;
    Ok(altered)
}

fn with_default(relation: &Relation, column: &str, default: Option<&SqlExpr>) -> Result<Relation> {
    let at = relation.column(column).ok_or_else(|| no_column(column, &relation.name))?;
    if relation.columns[at].generated.is_some() {
        let message = format!("column \"{column}\" of relation \"{}\" is a generated column", relation.name);
        return Err(Error::invalid_column_definition(message));
    }
    let mut altered = relation.clone();
    altered.columns[at].default = default.map(|e| e.sql.clone());
    Ok(altered)
}
