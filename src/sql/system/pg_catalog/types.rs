//! Types, and what PostgreSQL keeps about handling them: access methods, operators, casts, collations, languages.

use std::sync::LazyLock;

use super::super::context::SystemContext;
use super::super::definitions::PG_CATALOG;
use super::super::objects::{self, OWNER};
use super::super::table::Table;
use super::super::types::{self, PgType};
use super::super::value::Value;
use super::classes::{BTREE, HEAP};

const HASH: u32 = 405;

/// Columns of pg_type that all rows give.
struct Row<'a> {
    oid: u32,
    name: &'a str,
    namespace: u32,
    of: &'a PgType,
    relation: u32,
    kind: &'a str,
    category: &'a str,
    array: u32,
    element: u32,
}

pub(super) fn pg_type(context: &SystemContext, table: &mut Table<'_>) {
    for of in types::all() {
        row(
            table,
            Row {
                oid: of.oid,
                name: of.name,
                namespace: PG_CATALOG,
                of,
                relation: 0,
                kind: of.kind,
                category: of.category,
                array: of.array,
                element: of.element,
            },
        );
    }
    // Every relation is a row type too, and has an array type.
    let (Some(record), Some(array)) = (types::by_name("record"), types::by_name("record[]")) else { return };
    for relation in context.relations() {
        let (oid, array_oid) = (objects::row_type_oid(relation.id), objects::row_type_array_oid(relation.id));
        let array_name = format!("_{}", relation.name);
        row(
            table,
            Row {
                oid,
                name: &relation.name,
                namespace: context.catalog().schema_of(relation),
                of: record,
                relation: relation.id,
                kind: "c",
                category: "C",
                array: array_oid,
                element: 0,
            },
        );
        row(
            table,
            Row {
                oid: array_oid,
                name: &array_name,
                namespace: context.catalog().schema_of(relation),
                of: array,
                relation: 0,
                kind: "b",
                category: "A",
                array: 0,
                element: oid,
            },
        );
    }
}

fn row(table: &mut Table<'_>, row: Row<'_>) {
    let function = |at: usize| Value::from(row.of.functions[at].0);
    table.row([
        ("oid", row.oid.into()),
        ("typname", row.name.into()),
        ("typnamespace", row.namespace.into()),
        ("typowner", OWNER.into()),
        ("typlen", row.of.len.into()),
        ("typbyval", row.of.by_value.into()),
        ("typtype", row.kind.into()),
        ("typcategory", row.category.into()),
        ("typispreferred", row.of.preferred.into()),
        ("typisdefined", true.into()),
        ("typdelim", ",".into()),
        ("typrelid", row.relation.into()),
        ("typelem", row.element.into()),
        ("typarray", row.array.into()),
        ("typinput", function(0)),
        ("typoutput", function(1)),
        ("typreceive", function(2)),
        ("typsend", function(3)),
        ("typmodin", function(4)),
        ("typmodout", function(5)),
        ("typalign", row.of.align.into()),
        ("typstorage", row.of.storage.into()),
        ("typtypmod", (-1).into()),
        ("typcollation", row.of.collation.into()),
    ]);
}

pub(super) fn access_method(table: &mut Table<'_>) {
    for (oid, name, kind) in [(HEAP, "heap", "t"), (BTREE, "btree", "i"), (HASH, "hash", "i")] {
        table.row([("oid", oid.into()), ("amname", name.into()), ("amtype", kind.into())]);
    }
}

pub(super) fn collation(table: &mut Table<'_>) {
    for (oid, name, provider) in [(100, "default", "d"), (950, "C", "c"), (951, "POSIX", "c")] {
        let locale: Value = if provider == "d" { Value::Null } else { name.into() };
        table.row([
            ("oid", oid.into()),
            ("collname", name.into()),
            ("collnamespace", PG_CATALOG.into()),
            ("collowner", OWNER.into()),
            ("collprovider", provider.into()),
            ("collisdeterministic", true.into()),
            ("collencoding", (-1).into()),
            ("collcollate", locale.clone()),
            ("collctype", locale),
        ]);
    }
}

pub(super) fn language(table: &mut Table<'_>) {
    for (oid, name, trusted) in [(12, "internal", false), (14, "sql", true)] {
        table.row([("oid", oid.into()), ("lanname", name.into()), ("lanowner", OWNER.into()), ("lanpltrusted", trusted.into())]);
    }
}

/// A type that can be compared, with the OIDs of PostgreSQL's operators on it: family, operator class, and `= < >`.
struct Comparable {
    type_oid: u32,
    name: &'static str,
    family: u32,
    class: u32,
    operators: [u32; 3],
}

const COMPARABLE: [Comparable; 14] = [
    comparable(16, "bool_ops", 424, 10000, [91, 58, 59]),
    comparable(17, "bytea_ops", 428, 10002, [1955, 1957, 1959]),
    comparable(20, "int8_ops", 1976, 3124, [410, 412, 413]),
    comparable(21, "int2_ops", 1976, 1979, [94, 95, 520]),
    comparable(23, "int4_ops", 1976, 1978, [96, 97, 521]),
    comparable(25, "text_ops", 1994, 3126, [98, 664, 666]),
    comparable(26, "oid_ops", 1989, 1981, [607, 609, 610]),
    comparable(700, "float4_ops", 1970, 10013, [620, 622, 623]),
    comparable(701, "float8_ops", 1970, 3123, [670, 672, 674]),
    comparable(1042, "bpchar_ops", 426, 10005, [1054, 1058, 1060]),
    comparable(1082, "date_ops", 434, 3122, [1093, 1095, 1097]),
    comparable(1114, "timestamp_ops", 434, 3128, [2060, 2062, 2064]),
    comparable(1184, "timestamptz_ops", 434, 3127, [1320, 1322, 1324]),
    comparable(1700, "numeric_ops", 1988, 3125, [1752, 1754, 1756]),
];

const fn comparable(type_oid: u32, name: &'static str, family: u32, class: u32, operators: [u32; 3]) -> Comparable {
    Comparable { type_oid, name, family, class, operators }
}

/// The operator class that an index on a column of this type uses.
pub(super) fn operator_class_of(type_oid: u32) -> u32 {
    let type_oid = if type_oid == 1043 { 25 } else { type_oid };
    COMPARABLE.iter().find(|c| c.type_oid == type_oid).map_or(0, |c| c.class)
}

pub(super) fn operator_class(table: &mut Table<'_>) {
    for c in &COMPARABLE {
        table.row([
            ("oid", c.class.into()),
            ("opcmethod", BTREE.into()),
            ("opcname", c.name.into()),
            ("opcnamespace", PG_CATALOG.into()),
            ("opcowner", OWNER.into()),
            ("opcfamily", c.family.into()),
            ("opcintype", c.type_oid.into()),
            ("opcdefault", true.into()),
        ]);
    }
}

pub(super) fn operator_family(table: &mut Table<'_>) {
    let families = [
        (424, "bool_ops"),
        (428, "bytea_ops"),
        (1976, "integer_ops"),
        (1994, "text_ops"),
        (1989, "oid_ops"),
        (1970, "float_ops"),
        (426, "bpchar_ops"),
        (434, "datetime_ops"),
        (1988, "numeric_ops"),
    ];
    for (oid, name) in families {
        table.row([
            ("oid", oid.into()),
            ("opfmethod", BTREE.into()),
            ("opfname", name.into()),
            ("opfnamespace", PG_CATALOG.into()),
            ("opfowner", OWNER.into()),
        ]);
    }
}

pub(super) fn operator(table: &mut Table<'_>) {
    for c in &COMPARABLE {
        let [equal, less, greater] = c.operators;
        for (oid, name, commutator) in [(equal, "=", equal), (less, "<", greater), (greater, ">", less)] {
            table.row([
                ("oid", oid.into()),
                ("oprname", name.into()),
                ("oprnamespace", PG_CATALOG.into()),
                ("oprowner", OWNER.into()),
                ("oprkind", "b".into()),
                ("oprcanmerge", (name == "=").into()),
                ("oprcanhash", (name == "=").into()),
                ("oprleft", c.type_oid.into()),
                ("oprright", c.type_oid.into()),
                ("oprresult", 16.into()),
                ("oprcom", commutator.into()),
            ]);
        }
    }
}

/// The numbers cast among each other, everything casts to text, and text casts to everything when asked.
static CASTS: LazyLock<Vec<(u32, u32, &'static str, &'static str)>> = LazyLock::new(|| {
    let numbers = [21u32, 23, 20, 1700, 700, 701];
    let mut casts = Vec::new();
    for (i, from) in numbers.iter().enumerate() {
        for (j, to) in numbers.iter().enumerate().filter(|(j, _)| *j != i) {
            casts.push((*from, *to, if j > i { "i" } else { "a" }, "f"));
        }
    }
    for other in [1043, 1042, 19] {
        casts.push((other, 25, "i", "b"));
        casts.push((25, other, if other == 19 { "i" } else { "a" }, "b"));
    }
    casts.extend([(1082, 1114, "i", "f"), (1082, 1184, "i", "f"), (1114, 1184, "i", "f"), (1184, 1114, "a", "f")]);
    casts.extend([(1114, 1082, "a", "f"), (1184, 1082, "a", "f"), (23, 16, "e", "f"), (16, 23, "e", "f")]);
    casts
});

pub(super) fn cast(table: &mut Table<'_>) {
    for (at, (from, to, context, method)) in (10_100u32..).zip(CASTS.iter()) {
        table.row([
            ("oid", at.into()),
            ("castsource", (*from).into()),
            ("casttarget", (*to).into()),
            ("castcontext", (*context).into()),
            ("castmethod", (*method).into()),
        ]);
    }
}
