//! Calls that are expressions in other words, and aggregates under other names.

/// A function, the number of its arguments, and what a call of it stands for. Each argument is there once, or costs nothing twice.
pub(super) const CALLS: [(&str, usize, &str); 74] = [
    ("array_length", 1, "cardinality($1)"),
    ("array_remove", 2, "CASE WHEN $2 IS NULL THEN array_compact($1) ELSE array_remove_all($1, $2) END"),
    ("array_replace", 3, "array_replace_all($1, $2, $3)"),
    ("as_map", 2, "map_from_arrays($1, $2)"),
    ("as_value", 1, "$1"),
    ("bin", 1, "to_bin($1)"),
    ("convert_tz", 3, "timezone($3, timezone($2, $1::timestamp))"),
    ("cube_explode", 1, "unnest(array_cube($1))"),
    ("current_row_timestamp", 0, "now()"),
    ("dayofmonth", 1, "extract(day FROM $1)::integer"),
    ("dayofweek", 1, "extract(dow FROM $1)::integer + 1"),
    ("dayofyear", 1, "extract(doy FROM $1)::integer"),
    ("e", 0, "exp(1.0::double precision)"),
    ("element", 1, "CASE WHEN cardinality($1) = 1 THEN ($1)[1] END"),
    ("endswith", 2, "ends_with($1, $2)"),
    ("entries", 2, "map_items($1, $2)"),
    ("explode", 1, "unnest($1)"),
    ("from_base64", 1, "arrow_cast(decode($1, 'base64'), 'Utf8')"),
    ("from_days", 1, "DATE '1970-01-01' + $1"),
    (
        "geo_distance",
        4,
        "2 * 6371 * asin(sqrt(power(sin(radians($3 - $1) / 2), 2) + cos(radians($1)) * cos(radians($3)) * power(sin(radians($4 - $2) / 2), 2)))",
    ),
    ("hex", 1, "hex_of($1)"),
    ("hour", 1, "extract(hour FROM $1)::integer"),
    ("if", 3, "CASE WHEN $1 THEN $2 ELSE $3 END"),
    ("ifnull", 2, "coalesce($1, $2)"),
    ("instr", 3, "text_place($1, $2, $3, 1)"),
    ("instr", 4, "text_place($1, $2, $3, $4)"),
    ("is_alpha", 1, "coalesce($1 ~ '^\\p{L}+$', false)"),
    ("is_decimal", 1, "coalesce($1::text ~ '^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$', false)"),
    ("is_digit", 1, "coalesce($1 ~ '^\\d+$', false)"),
    ("is_json_string", 1, "is_json($1)"),
    ("json_items", 1, "json_items_or_null($1)"),
    ("json_keys", 1, "json_keys_or_null($1)"),
    ("json_quote", 1, "to_json($1::text)::text"),
    ("json_records", 1, "map_from_pairs(json_pairs_or_null($1))"),
    ("json_string", 1, "to_json($1)::text"),
    ("lcase", 1, "lower($1)"),
    ("len", 1, "length($1)"),
    ("locate", 2, "strpos($2, $1)"),
    ("locate", 3, "text_place($2, $1, $3, 1)"),
    ("map_access", 2, "($1)[$2]"),
    ("map_cat", 2, "map_union($1, $2)"),
    ("map_from_key_values", 2, "map_from_arrays($1, $2)"),
    ("map_insert", 3, "map_union($1, map_from_arrays(ARRAY[$2], ARRAY[$3]))"),
    ("map_length", 1, "cardinality($1)"),
    ("minute", 1, "extract(minute FROM $1)::integer"),
    ("month", 1, "extract(month FROM $1)::integer"),
    ("nvl", 2, "coalesce($1, $2)"),
    ("proctime", 0, "now()"),
    ("quarter", 1, "extract(quarter FROM $1)::integer"),
    ("rand_integer", 1, "floor(random() * $1)::integer"),
    ("regexp", 2, "$1 ~ $2"),
    ("second", 1, "floor(extract(second FROM $1))::integer"),
    ("sha1", 1, "sha1_of($1)"),
    ("sha2", 2, "encode(digest($1, 'sha' || $2), 'hex')"),
    ("slice", 3, "array_slice($1, $2, $3)"),
    ("split_index", 3, "(string_to_array($1, $2))[$3 + 1]"),
    ("split_to_map", 3, "map_from_pairs(text_pairs($1, $2, $3, false))"),
    ("startswith", 2, "starts_with($1, $2)"),
    ("str_to_map", 1, "map_from_pairs(text_pairs($1, ',', '=', true))"),
    ("str_to_map", 3, "map_from_pairs(text_pairs($1, $2, $3, true))"),
    ("to_base64", 1, "encode($1::bytea, 'base64')"),
    ("to_json_string", 1, "coalesce(to_json($1)::text, 'null')"),
    ("truncate", 1, "trunc($1)"),
    ("truncate", 2, "trunc($1, $2)"),
    ("typeof", 1, "pg_typeof($1)::text"),
    ("ucase", 1, "upper($1)"),
    ("unhex", 1, "decode($1, 'hex')"),
    ("unix_date", 0, "current_date - DATE '1970-01-01'"),
    ("unix_date", 1, "$1::date - DATE '1970-01-01'"),
    ("url_decode", 1, "url_decode_param($1)"),
    ("url_encode", 1, "url_encode_param($1)"),
    ("week", 1, "extract(week FROM $1)::integer"),
    ("year", 1, "extract(year FROM $1)::integer"),
    ("zeroifnull", 1, "coalesce($1, 0)"),
];

/// An aggregate, its name here, and whether it takes each value once.
pub(super) const AGGREGATES: [(&str, &str, bool); 9] = [
    ("approx_count_distinct", "approx_distinct", false),
    ("collect_list", "array_agg", false),
    ("collect_set", "array_agg", true),
    ("correlation", "corr", false),
    ("count_distinct", "count", true),
    ("grouping_id", "grouping", false),
    ("listagg", "string_agg", false),
    ("percentile", "percentile_cont", false),
    ("stddev_sample", "stddev_samp", false),
];

/// An aggregate that is a function of another one.
pub(super) const OF_AGGREGATES: [(&str, &str, &str); 2] =
    [("collect", "array_agg", "map_counts"), ("histogram", "array_agg", "map_counts")];

#[cfg(test)]
mod tests {
    use sqlparser::ast as sp;

    use super::super::stand_in;
    use super::*;

    /// Every call stands for something that parses, with all of its arguments in it.
    #[test]
    fn calls_stand_for_expressions() {
        for (name, count, text) in CALLS {
            let arguments: Vec<sp::Expr> =
                (0..count).map(|at| sp::Expr::Identifier(sp::Ident::new(format!("argument{at}")))).collect();
            let expr = stand_in(text, &arguments).unwrap().to_string();
            assert!((0..count).all(|at| expr.contains(&format!("argument{at}"))), "{name}: {expr}");
            assert!(!(1..=9).any(|at| expr.contains(&format!("${at}"))), "{name}: {expr}");
        }
    }
}
