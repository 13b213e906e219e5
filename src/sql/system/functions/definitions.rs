//! The SQL text of objects, for pg_get_indexdef and its relatives and for the views that show it.

use super::super::context::SystemContext;
use crate::catalog::Relation;
use crate::catalog::check::Check;
use crate::catalog::function::{Function, Parameter};
use crate::catalog::index::Index;

/// Quotes an identifier where it would not be read back as it is.
pub(in crate::sql) fn quote_ident(name: &str) -> String {
    let mut characters = name.chars();
    let starts_plain = characters.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_');
    let is_plain = starts_plain && characters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '$');
    if is_plain && !is_reserved(name) {
        return name.to_string();
    }
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The words that can't be names of columns or relations without quotes (PostgreSQL manual, appendix C).
fn is_reserved(name: &str) -> bool {
    const RESERVED: [&str; 77] = [
        "all",
        "analyse",
        "analyze",
        "and",
        "any",
        "array",
        "as",
        "asc",
        "asymmetric",
        "both",
        "case",
        "cast",
        "check",
        "collate",
        "column",
        "constraint",
        "create",
        "current_catalog",
        "current_date",
        "current_role",
        "current_time",
        "current_timestamp",
        "current_user",
        "default",
        "deferrable",
        "desc",
        "distinct",
        "do",
        "else",
        "end",
        "except",
        "false",
        "fetch",
        "for",
        "foreign",
        "from",
        "grant",
        "group",
        "having",
        "in",
        "initially",
        "intersect",
        "into",
        "lateral",
        "leading",
        "limit",
        "localtime",
        "localtimestamp",
        "not",
        "null",
        "offset",
        "on",
        "only",
        "or",
        "order",
        "placing",
        "primary",
        "references",
        "returning",
        "select",
        "session_user",
        "some",
        "symmetric",
        "table",
        "then",
        "to",
        "trailing",
        "true",
        "union",
        "unique",
        "user",
        "using",
        "variadic",
        "when",
        "where",
        "window",
        "with",
    ];
    RESERVED.binary_search(&name).is_ok()
}

fn columns(relation: &Relation, of: &[usize]) -> String {
    let columns = of.iter().filter_map(|&i| relation.columns.get(i));
    columns.map(|c| quote_ident(&c.name)).collect::<Vec<_>>().join(", ")
}

/// `CREATE INDEX …`.
pub(in crate::sql::system) fn index(relation: &Relation, index: &Index) -> String {
    let (unique, name) = (if index.unique { "UNIQUE " } else { "" }, quote_ident(&index.name));
    let (schema, on) = (quote_ident(&relation.schema), quote_ident(&relation.name));
    format!("CREATE {unique}INDEX {name} ON {schema}.{on} USING btree ({})", columns(relation, &index.columns))
}

/// `PRIMARY KEY (…)`.
pub(in crate::sql::system) fn key(relation: &Relation) -> Option<String> {
    relation.key_index().map(|key| format!("PRIMARY KEY ({})", columns(relation, &key.columns)))
}

/// `CHECK (…)`, as it was written; in parentheses of its own where nobody asks for the prettier form.
pub(in crate::sql::system) fn check(check: &Check, pretty: bool) -> String {
    let (open, close) = if pretty { ("(", ")") } else { ("((", "))") };
    let valid = if check.validated { "" } else { " NOT VALID" };
    format!("CHECK {open}{}{close}{valid}", check.expression)
}

/// A view's query, as it was written.
pub(in crate::sql::system) fn view(context: &SystemContext, relation: &Relation) -> Option<String> {
    relation.query.as_ref().map(|query| format!(" {};", context.shown(query).trim()))
}

/// The parameters of a function: `a integer, b text DEFAULT 'x'`.
pub(in crate::sql::system) fn arguments(function: &Function, with_defaults: bool) -> String {
    let argument = |parameter: &Parameter| {
        let name = parameter.name.as_ref().map(|name| quote_ident(name) + " ").unwrap_or_default();
        let default = parameter.default.as_ref().filter(|_| with_defaults);
        let default = default.map(|default| format!(" DEFAULT {default}")).unwrap_or_default();
        format!("{name}{}{default}", parameter.sql_type)
    };
    function.parameters.iter().map(argument).collect::<Vec<_>>().join(", ")
}

/// `CREATE OR REPLACE FUNCTION …`, laid out as PostgreSQL does.
pub(in crate::sql::system) fn function(function: &Function) -> String {
    let (name, arguments) = (quote_ident(&function.name), arguments(function, true));
    let strict = if function.strict { " STRICT" } else { "" };
    let mut tag = "$function$".to_string();
    while function.body.contains(&tag) {
        tag.insert(1, 'x');
    }
    format!(
        "CREATE OR REPLACE FUNCTION public.{name}({arguments})\n RETURNS {}\n LANGUAGE sql\n {}{strict}\nAS {tag}{}{tag}\n",
        function.returns_sql,
        function.volatility.word(),
        function.body
    )
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    #[rstest]
    #[case("orders", "orders")]
    #[case("Orders", "\"Orders\"")]
    #[case("revenue$late", "revenue$late")]
    #[case("user", "\"user\"")]
    #[case("with", "\"with\"")]
    #[case("a\"b", "\"a\"\"b\"")]
    #[case("1st", "\"1st\"")]
    #[case("", "\"\"")]
    fn identifiers_are_quoted_where_they_must_be(#[case] name: &str, #[case] quoted: &str) {
        assert_eq!(super::quote_ident(name), quoted);
    }
}
