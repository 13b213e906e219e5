//! Paths into documents, as SQL/JSON writes them.

use sqlparser::ast as sp;

use super::super::string;
use crate::error::{Error, Result};

/// A path of names and positions, `$.a['b'][0]`, as PostgreSQL writes it: `{a,b,0}`.
pub(super) fn elements(function: &str, path: &sp::Expr) -> Result<String> {
    let refused = || {
        let message = format!("{function} takes a constant path of names and positions");
        Error::unsupported(message).with_hint("write '$.name.list[0]', or json -> 'name' ->> 'other'")
    };
    let mut rest = string(path).and_then(|path| path.trim().strip_prefix('$')).ok_or_else(refused)?;
    let mut elements = Vec::new();
    while !rest.is_empty() {
        let element = if let Some(named) = rest.strip_prefix('.') {
            let end = named.find(['.', '[']).unwrap_or(named.len());
            rest = &named[end..];
            &named[..end]
        } else {
            let (inner, after) = rest.strip_prefix('[').and_then(|inner| inner.split_once(']')).ok_or_else(refused)?;
            rest = after;
            let quoted = |quote| inner.strip_prefix(quote).and_then(|inner| inner.strip_suffix(quote));
            match quoted('\'').or_else(|| quoted('"')) {
                Some(name) => name,
                None if !inner.is_empty() && inner.bytes().all(|byte| byte.is_ascii_digit()) => inner,
                None => return Err(refused()),
            }
        };
        if element.is_empty() || element.contains('*') {
            return Err(refused());
        }
        elements.push(format!("\"{}\"", element.replace('\\', "\\\\").replace('"', "\\\"")));
    }
    Ok(format!("{{{}}}", elements.join(",")))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::super::literal;
    use super::*;

    #[rstest]
    #[case("$.a.b", Some("{\"a\",\"b\"}"))]
    #[case("$", Some("{}"))]
    #[case("$.list[0]['a key'].x", Some("{\"list\",\"0\",\"a key\",\"x\"}"))]
    #[case("$.a\\\"b", Some("{\"a\\\\\\\"b\"}"))]
    #[case("a.b", None)]
    #[case("$..a", None)]
    #[case("$.a[*]", None)]
    #[case("$.a[", None)]
    #[case("$.a[]", None)]
    fn paths_become_elements(#[case] path: &str, #[case] expected: Option<&str>) {
        assert_eq!(elements("json_value", &literal(path)).ok().as_deref(), expected);
    }
}
