//! PostgreSQL's types as its catalog describes them: OIDs, names, and the text of a type with its modifier.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::catalog::Column;

/// A row of pg_type, but for what is the same in all.
#[derive(Clone, Debug)]
pub(super) struct PgType {
    pub oid: u32,
    pub name: &'static str,
    pub array: u32,
    pub len: i16,
    pub by_value: bool,
    pub kind: &'static str,
    pub category: &'static str,
    pub preferred: bool,
    pub element: u32,
    pub align: &'static str,
    pub storage: &'static str,
    pub collation: u32,
    /// OID and name of input, output, receive, send, modin, modout.
    pub functions: [(u32, &'static str); 6],
}

/// The functions of all array types.
const ARRAY_FUNCTIONS: [(u32, &str); 4] = [(750, "array_in"), (751, "array_out"), (2400, "array_recv"), (2401, "array_send")];

static TYPES: LazyLock<Vec<PgType>> = LazyLock::new(|| {
    let lines = include_str!("types.txt").lines().filter(|l| !l.starts_with('#'));
    let mut types: Vec<PgType> = lines.map(|l| read(l).expect("a line of types.txt has 24 words")).collect();
    let arrays: Vec<PgType> = types.iter().filter(|t| t.array != 0).map(array_of).collect();
    types.extend(arrays);
    types
});

static BY_OID: LazyLock<HashMap<u32, &'static PgType>> = LazyLock::new(|| TYPES.iter().map(|t| (t.oid, t)).collect());
static BY_NAME: LazyLock<HashMap<&'static str, &'static PgType>> = LazyLock::new(|| TYPES.iter().map(|t| (t.name, t)).collect());

pub(super) fn all() -> &'static [PgType] {
    &TYPES
}

pub(super) fn by_oid(oid: u32) -> Option<&'static PgType> {
    BY_OID.get(&oid).copied()
}

fn read(line: &'static str) -> Option<PgType> {
    let words: Vec<&'static str> = line.split(' ').collect();
    let oid = |at: usize| words.get(at)?.parse::<u32>().ok();
    let mut functions = [(0, "-"); 6];
    for (i, function) in functions.iter_mut().enumerate() {
        *function = (oid(12 + 2 * i)?, words.get(13 + 2 * i)?);
    }
    Some(PgType {
        oid: oid(0)?,
        name: words[1],
        array: oid(2)?,
        len: words[3].parse().ok()?,
        by_value: words[4] == "t",
        kind: words[5],
        category: words[6],
        preferred: words[7] == "t",
        element: oid(8)?,
        align: words[9],
        storage: words[10],
        collation: oid(11)?,
        functions,
    })
}

fn array_of(element: &PgType) -> PgType {
    let mut functions = [(0, "-"); 6];
    functions[..4].copy_from_slice(&ARRAY_FUNCTIONS);
    functions[4..].copy_from_slice(&element.functions[4..]);
    PgType {
        oid: element.array,
        name: Box::leak(format!("_{}", element.name).into_boxed_str()),
        array: 0,
        len: -1,
        by_value: false,
        kind: if element.kind == "p" { "p" } else { "b" },
        category: if element.kind == "p" { "P" } else { "A" },
        preferred: false,
        element: element.oid,
        align: if element.align == "d" { "d" } else { "i" },
        storage: "x",
        collation: element.collation,
        functions,
    }
}

/// Other names of types, as SQL and users write them.
const SYNONYMS: [(&str, &str); 28] = [
    ("bigint", "int8"),
    ("integer", "int4"),
    ("int", "int4"),
    ("smallint", "int2"),
    ("tinyint", "int2"),
    ("boolean", "bool"),
    ("double precision", "float8"),
    ("double", "float8"),
    ("float", "float8"),
    ("real", "float4"),
    ("decimal", "numeric"),
    ("character varying", "varchar"),
    ("character", "bpchar"),
    ("string", "text"),
    ("bytes", "bytea"),
    ("varbinary", "bytea"),
    ("timestamp without time zone", "timestamp"),
    ("timestamp with time zone", "timestamptz"),
    ("timestamp_ltz", "timestamptz"),
    ("time without time zone", "time"),
    ("time with time zone", "timetz"),
    ("bit varying", "varbit"),
    ("\"char\"", "char"),
    ("\"any\"", "any"),
    ("serial", "int4"),
    ("bigserial", "int8"),
    ("dec", "numeric"),
    ("datetime", "timestamp"),
];

/// A type by any of its names, without modifier; `[]` makes it an array.
pub(super) fn by_name(name: &str) -> Option<&'static PgType> {
    if let Some(element) = name.strip_suffix("[]") {
        return by_name(element).and_then(|t| by_oid(t.array));
    }
    // `char` alone is character(1) in SQL; only the catalog's own files mean "char" by it, and they write what pg_type has.
    let internal = SYNONYMS.iter().find(|(other, _)| *other == name).map_or(name, |(_, internal)| internal);
    BY_NAME.get(internal).copied()
}

/// Clients can tell these types from the Arrow type alone.
pub(super) fn arrow_says_it_all(pg_type: &str) -> bool {
    let element = pg_type.strip_suffix("[]").unwrap_or(pg_type);
    matches!(
        element,
        "bool"
            | "int2"
            | "int4"
            | "int8"
            | "oid"
            | "float4"
            | "float8"
            | "numeric"
            | "text"
            | "bytea"
            | "timestamptz"
            | "interval"
    )
}

/// OID and type modifier of a user's column.
pub(super) fn of_column(column: &Column) -> (u32, i32) {
    let oid = crate::sql::types::oid(&column.data_type, &column.sql_type);
    (oid, crate::sql::types::typmod(&column.sql_type))
}

/// The text of a type: PostgreSQL's `format_type`. `None` stands for "no modifier known", which is not the same as -1.
pub(super) fn format_type(oid: u32, typmod: Option<i32>) -> String {
    if oid == 0 {
        return "-".to_string();
    }
    let Some(found) = by_oid(oid) else { return "???".to_string() };
    if found.element != 0 && found.category == "A" {
        return format!("{}[]", format_type(found.element, typmod));
    }
    let modifier = typmod.filter(|m| *m >= 0);
    let parenthesis = |n: Option<i32>| n.map_or(String::new(), |n| format!("({n})"));
    let length = || parenthesis(modifier.map(|m| m - 4));
    match found.name {
        "bool" => "boolean".to_string(),
        "int2" => "smallint".to_string(),
        "int4" => "integer".to_string(),
        "int8" => "bigint".to_string(),
        "float4" => "real".to_string(),
        "float8" => "double precision".to_string(),
        "char" => "\"char\"".to_string(),
        "any" => "\"any\"".to_string(),
        "varchar" => format!("character varying{}", length()),
        "bpchar" if typmod == Some(-1) => "bpchar".to_string(),
        "bpchar" => format!("character{}", length()),
        "varbit" => format!("bit varying{}", parenthesis(modifier)),
        "bit" if typmod == Some(-1) => "\"bit\"".to_string(),
        "bit" => format!("bit{}", parenthesis(modifier)),
        "numeric" => match modifier.map(|m| m - 4) {
            Some(m) => format!("numeric({},{})", (m >> 16) & 0xffff, ((m & 0x7ff) ^ 1024) - 1024),
            None => "numeric".to_string(),
        },
        "timestamp" => format!("timestamp{} without time zone", parenthesis(modifier)),
        "timestamptz" => format!("timestamp{} with time zone", parenthesis(modifier)),
        "time" => format!("time{} without time zone", parenthesis(modifier)),
        "timetz" => format!("time{} with time zone", parenthesis(modifier)),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("numeric(10,2)", "numeric(10,2)")]
    #[case("timestamp(3) without time zone", "timestamp(3) without time zone")]
    #[case("text", "text")]
    #[case("bigint", "bigint")]
    #[case("character varying(20)", "character varying(20)")]
    #[case("char(4)", "character(4)")]
    #[case("double precision", "double precision")]
    #[case("integer[]", "integer[]")]
    #[case("numeric(8,3)[]", "numeric(8,3)[]")]
    #[case("jsonb", "jsonb")]
    #[case("uuid", "uuid")]
    fn a_columns_type_is_printed_as_it_was_declared(#[case] sql: &str, #[case] text: &str) {
        let dialect = sqlparser::dialect::PostgreSqlDialect {};
        let declared = sqlparser::parser::Parser::new(&dialect).try_with_sql(sql).unwrap().parse_data_type().unwrap();
        let (data_type, sql_type) = crate::sql::types::from_ast(&declared).unwrap();
        let column = Column {
            name: "c".to_string(),
            data_type,
            sql_type,
            nullable: true,
            default: None,
            generated: None,
            identity: None,
            comment: None,
        };
        let (oid, modifier) = of_column(&column);
        assert_eq!(format_type(oid, Some(modifier)), text);
    }

    #[test]
    fn every_array_knows_its_element() {
        for array in all().iter().filter(|t| t.category == "A" && t.name.starts_with('_')) {
            assert_eq!(by_oid(array.element).unwrap().array, array.oid, "{}", array.name);
        }
    }
}
