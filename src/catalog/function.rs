//! Functions that users define in SQL: what the catalog keeps of them.
//!
//! A function is its signature and the text of an expression over its parameters. Replacing it makes a new version of it, under the
//! same id. What is stored (a materialized view, a computed column) keeps the versions that it was made with, and the catalog
//! keeps those for it; queries and plain views mean the newest.

use arrow::datatypes::DataType;
use serde::{Deserialize, Serialize};

use super::RelationId;

/// Identifies a function for ever; drawn from the same numbers as relations, so that it is an OID of its own.
pub type FunctionId = RelationId;

/// One version of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FunctionRef {
    pub id: FunctionId,
    pub version: u32,
}

/// What the value of a call depends on, besides its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Volatility {
    /// Nothing.
    Immutable,
    /// The statement.
    Stable,
    /// The call.
    Volatile,
}

impl Volatility {
    pub fn word(self) -> &'static str {
        match self {
            Volatility::Immutable => "IMMUTABLE",
            Volatility::Stable => "STABLE",
            Volatility::Volatile => "VOLATILE",
        }
    }

    /// As in pg_proc.provolatile.
    pub fn letter(self) -> char {
        match self {
            Volatility::Immutable => 'i',
            Volatility::Stable => 's',
            Volatility::Volatile => 'v',
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parameter {
    pub name: Option<String>,
    pub data_type: DataType,
    /// As PostgreSQL prints it.
    pub sql_type: String,
    /// SQL of its value in calls that leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Function {
    pub id: FunctionId,
    pub version: u32,
    pub name: String,
    pub parameters: Vec<Parameter>,
    pub returns: DataType,
    /// The result's type as PostgreSQL prints it.
    pub returns_sql: String,
    /// An expression, or `SELECT expression`, as it was written.
    pub body: String,
    pub volatility: Volatility,
    /// NULL if an argument is NULL.
    pub strict: bool,
    /// Functions that its body and its defaults call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<FunctionId>,
    /// The statement that made it, as the user wrote it.
    pub create_sql: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

impl Function {
    pub fn reference(&self) -> FunctionRef {
        FunctionRef { id: self.id, version: self.version }
    }

    /// Types that tell it from others of its name.
    pub fn types(&self) -> impl ExactSizeIterator<Item = &str> {
        self.parameters.iter().map(|parameter| base_type(&parameter.sql_type))
    }

    /// As messages call it: `f(integer,text)`.
    pub fn signature(&self) -> String {
        format!("{}({})", self.name, self.types().collect::<Vec<_>>().join(","))
    }

    /// Arguments that a call must give.
    pub fn required(&self) -> usize {
        self.parameters.iter().take_while(|parameter| parameter.default.is_none()).count()
    }
}

/// A type without its length or precision, which no signature has.
pub fn base_type(sql_type: &str) -> &str {
    match sql_type.split_once('(') {
        // `timestamp(3) without time zone` is told apart by what follows, and by nothing else.
        Some((name, rest)) => match rest.split_once(')').map(|(_, rest)| rest) {
            Some(" with time zone") if name == "timestamp" => "timestamp with time zone",
            Some(" without time zone") if name == "timestamp" => "timestamp without time zone",
            Some(" without time zone") if name == "time" => "time without time zone",
            Some("[]") if name == "numeric" => "numeric[]",
            Some("[]") if name == "character varying" => "character varying[]",
            Some("") | None => name,
            _ => sql_type,
        },
        None => sql_type,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    #[rstest]
    #[case("numeric(10,2)", "numeric")]
    #[case("character varying(10)", "character varying")]
    #[case("timestamp(3) without time zone", "timestamp without time zone")]
    #[case("timestamp with time zone", "timestamp with time zone")]
    #[case("numeric(10,2)[]", "numeric[]")]
    #[case("integer", "integer")]
    fn lengths_are_no_part_of_a_signature(#[case] sql_type: &str, #[case] base: &str) {
        assert_eq!(super::base_type(sql_type), base);
    }
}
