//! How much room things take.

use super::super::context::SystemContext;
use super::super::value::Value;
use super::{Call, Spec, immutable, int, registered, stable};
use crate::error::Result;

const RELATION: &[&[&str]] = &[&["reg"], &["reg", "text"]];

pub(super) const FUNCTIONS: &[Spec] = &[
    stable("pg_relation_size", RELATION, "int8", relation),
    stable("pg_table_size", &[&["reg"]], "int8", relation),
    stable("pg_total_relation_size", &[&["reg"]], "int8", relation),
    // Indexes are part of the relations that they are of.
    stable("pg_indexes_size", &[&["reg"]], "int8", |_, _| Ok(Value::Int(0))),
    stable("pg_database_size", &[&["reg"]], "int8", all),
    stable("pg_tablespace_size", &[&["reg"]], "int8", all),
    stable("pg_tablespace_location", &[&["oid"]], "text", |_, _| Ok("".into())),
    immutable("pg_size_pretty", &[&["int8"]], "text", |_, values| Ok(pretty(int(values, 0)).into())),
];

fn size(context: &SystemContext, id: u32) -> Option<i64> {
    context.server.size(id).map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX))
}

fn relation(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    let id = registered::class(call.context, &values[0])?;
    let known = call.context.objects().class(id);
    Ok(known.map(|_| size(call.context, id).unwrap_or(0)).into())
}

fn all(call: &Call<'_>, _: &[Value]) -> Result<Value> {
    let sizes = call.context.catalog().relations().filter_map(|r| size(call.context, r.id));
    Ok(sizes.fold(0i64, i64::saturating_add).into())
}

/// `8192 bytes`, `97 kB`: the unit grows when ten thousand of the smaller one are exceeded, as in PostgreSQL.
fn pretty(bytes: i64) -> String {
    let units = ["bytes", "kB", "MB", "GB", "TB", "PB"];
    let mut size = i128::from(bytes);
    let mut unit = 0;
    while size.abs() >= 10 * 1024 && unit + 1 < units.len() {
        // Halves round away from zero.
        size = (size + size.signum() * 512) / 1024;
        unit += 1;
    }
    format!("{size} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    #[rstest]
    #[case(0, "0 bytes")]
    #[case(10239, "10239 bytes")]
    #[case(10240, "10 kB")]
    #[case(1024 * 10240 - 1, "10 MB")]
    #[case(-20480, "-20 kB")]
    fn sizes_are_pretty(#[case] bytes: i64, #[case] text: &str) {
        assert_eq!(super::pretty(bytes), text);
    }
}
