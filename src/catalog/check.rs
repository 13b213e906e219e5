//! CHECK: what must not be false of a row of a stream or table.
//!
//! The writer of a relation sees to it ([`crate::ingest`]), so it holds whichever way a row comes. A writer that does not know of
//! a new one yet is refused by the committer. Rows that were there before it was added may break it until it is `validated`.

use serde::{Deserialize, Serialize};

use super::{Relation, RelationId};
use crate::limits::NAME_BYTES;

/// Identifies a CHECK for ever; drawn from the same numbers as relations, so that it is an OID of its own, and rises.
pub type CheckId = RelationId;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub id: CheckId,
    /// No other of its relation has it.
    pub name: String,
    /// SQL over the relation's columns.
    pub expression: String,
    /// Indices of the columns that it names.
    pub columns: Vec<usize>,
    /// It holds for all rows that are there, too.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub validated: bool,
}

fn yes() -> bool {
    true
}

impl Relation {
    /// The newest of its CHECKs; 0 if there is none.
    pub fn newest_check(&self) -> CheckId {
        self.checks.iter().map(|check| check.id).max().unwrap_or(0)
    }

    /// Whether a constraint has this name.
    pub fn has_constraint(&self, name: &str) -> bool {
        let is_key = self.key_index().is_some_and(|key| key.name == name);
        is_key || self.checks.iter().any(|check| check.name == name)
    }

    /// As PostgreSQL calls a CHECK that is given no name: by the relation, and by the column if it names but one.
    pub fn free_check_name(&self, columns: &[usize]) -> String {
        let column = if let [one] = columns { self.columns.get(*one).map(|column| column.name.as_str()) } else { None };
        let name = |number: usize| {
            let number = if number == 0 { String::new() } else { number.to_string() };
            let end = format!("_check{number}");
            let (of, column) = shortened(&self.name, column, NAME_BYTES - end.len());
            match column {
                Some(column) => format!("{of}_{column}{end}"),
                None => format!("{of}{end}"),
            }
        };
        (0..).map(name).find(|name| !self.has_constraint(name)).unwrap_or_default()
    }
}

/// Two names that fit into so many bytes with the line between them; what is too long loses its end, the longer one first.
fn shortened<'a>(first: &'a str, second: Option<&'a str>, room: usize) -> (&'a str, Option<&'a str>) {
    let Some(second) = second else { return (&first[..first.floor_char_boundary(room)], None) };
    let (mut one, mut other) = (first.len(), second.len());
    while one + other + 1 > room {
        if one > other { one -= 1 } else { other -= 1 }
    }
    (&first[..first.floor_char_boundary(one)], Some(&second[..second.floor_char_boundary(other)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Kind;

    #[test]
    fn names_are_free_and_fit() {
        let column = |name: &str| crate::catalog::Column {
            name: name.into(),
            data_type: arrow::datatypes::DataType::Int32,
            sql_type: "integer".into(),
            nullable: true,
            default: None,
            generated: None,
            identity: None,
            comment: None,
        };
        let mut relation = Relation::new(1, "t", Kind::Table, vec![column("a"), column(&"b".repeat(60))]);
        assert_eq!(relation.free_check_name(&[0]), "t_a_check");
        assert_eq!(relation.free_check_name(&[0, 1]), "t_check");
        assert_eq!(relation.free_check_name(&[]), "t_check");
        let check =
            |name: &str| Check { id: 2, name: name.into(), expression: "a > 0".into(), columns: vec![0], validated: true };
        relation.checks = vec![check("t_a_check"), check("t_a_check1")];
        assert_eq!(relation.free_check_name(&[0]), "t_a_check2");
        assert_eq!(relation.free_check_name(&[1]), format!("t_{}_check", "b".repeat(55)));
        relation.name = "r".repeat(63);
        assert_eq!(relation.free_check_name(&[1]), format!("{}_{}_check", "r".repeat(28), "b".repeat(28)));
        assert_eq!(relation.free_check_name(&[0]), format!("{}_a_check", "r".repeat(55)));
    }
}
