//! The constructors of the SQL standard for JSON, by PostgreSQL's functions. Keys and values come in turn from
//! [`super::super::super::parse`], which puts NULL ON NULL where nothing is said, so that it tells `JSON_OBJECT(k VALUE v)` from PostgreSQL's
//! `json_object(keys, values)`.
//!
//! | written | planned |
//! | --- | --- |
//! | `JSON_OBJECT(k VALUE v NULL ON NULL)`, `… ABSENT ON NULL` | `json_build_object(k, v)`, `json_object_of_present(k, v)` |
//! | `JSON_ARRAY(a, b NULL ON NULL)`, `… ABSENT ON NULL` | `json_build_array(a, b)`, `json_array_of_present(a, b)` |
//! | `JSON_OBJECTAGG(k VALUE v NULL ON NULL)`, `… ABSENT ON NULL` | `json_object_agg(k, v)`, `json_object_agg_strict(k, v)` |
//! | `JSON_ARRAYAGG(v NULL ON NULL)`, `… ABSENT ON NULL` | `json_agg(v)`, `json_agg_strict(v)` |
//! | `… RETURNING t` | `…::t` |

use sqlparser::ast as sp;

use super::{casts, forms, sets};
use crate::error::{Error, Result};

/// The function for NULL ON NULL, the one for ABSENT ON NULL, and whether the latter is meant where nothing is said.
const CONSTRUCTORS: [(&str, &str, &str, bool); 4] = [
    ("json_object", "json_build_object", "json_object_of_present", false),
    ("json_array", "json_build_array", "json_array_of_present", true),
    ("json_objectagg", "json_object_agg", "json_object_agg_strict", false),
    ("json_arrayagg", "json_agg", "json_agg_strict", true),
];

/// Names that these calls have taken.
pub fn constructs_json(name: &str) -> bool {
    CONSTRUCTORS.iter().any(|(known, ..)| *known == name) || name.ends_with("_agg_strict") && sets::collects(name)
}

/// What a constructor stands for.
pub(super) fn constructor(name: &str, function: &mut sp::Function) -> Result<Option<sp::Expr>> {
    use sp::FunctionArgumentClause as C;
    let Some((_, with_nulls, without, by_default)) = CONSTRUCTORS.iter().find(|(known, ..)| *known == name) else {
        return Ok(None);
    };
    let sp::FunctionArguments::List(list) = &mut function.args else { return Ok(None) };
    let (mut absent, mut returned) = (None, None);
    for clause in &list.clauses {
        match clause {
            C::JsonNullClause(clause) => absent = Some(*clause == sp::JsonNullClause::AbsentOnNull),
            C::JsonReturningClause(clause) => returned = Some(clause.data_type.clone()),
            _ => {}
        }
    }
    if name == "json_object" && absent.is_none() {
        let is_pair = |argument: &sp::FunctionArg| matches!(argument, sp::FunctionArg::Named { .. });
        return match list.args.iter().any(is_pair) {
            true => Err(Error::syntax("JSON_OBJECT takes keys with values, or none of them").with_hint("write KEY k VALUE v")),
            false => Ok(None),
        };
    }
    list.clauses.retain(|clause| !matches!(clause, C::JsonNullClause(_) | C::JsonReturningClause(_)));
    let name = if absent.unwrap_or(*by_default) { without } else { with_nulls };
    function.name = sp::ObjectName::from(vec![sp::Ident::new(*name)]);
    let made = sets::expression(name, function).unwrap_or_else(|| sp::Expr::Function(function.clone()));
    let Some(data_type) = returned else { return Ok(Some(made)) };
    let mut cast = forms::cast(made, data_type);
    casts::cast(&mut cast)?;
    Ok(Some(cast))
}
