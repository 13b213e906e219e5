//! The rows of the relations of schema pg_catalog, by theme.

mod classes;
mod functions;
mod roles;
mod server;
mod summaries;
mod types;

pub(super) use functions::{argument_types, result_type};
pub(super) use server::DATABASE;

use super::context::SystemContext;
use super::table::Table;

/// Fills the relation of this name. Those that are not named here have no rows: what they list does not exist in this server.
pub(super) fn fill(name: &str, context: &SystemContext, table: &mut Table<'_>) {
    match name {
        "pg_class" => classes::class(context, table),
        "pg_attribute" => classes::attribute(context, table),
        "pg_attrdef" => classes::attrdef(context, table),
        "pg_sequence" => classes::sequence(context, table),
        "pg_index" => classes::index(context, table),
        "pg_constraint" => classes::constraint(context, table),
        "pg_description" => classes::description(context, table),
        "pg_depend" => classes::depend(context, table),
        "pg_rewrite" => classes::rewrite(context, table),
        "pg_namespace" => server::namespace(context, table),
        "pg_type" => types::pg_type(context, table),
        "pg_range" | "pg_enum" => {}
        "pg_am" => types::access_method(table),
        "pg_opclass" => types::operator_class(table),
        "pg_opfamily" => types::operator_family(table),
        "pg_operator" => types::operator(table),
        "pg_cast" => types::cast(table),
        "pg_collation" => types::collation(table),
        "pg_language" => types::language(table),
        "pg_proc" => functions::proc(context, table),
        "pg_aggregate" => functions::aggregate(context, table),
        "pg_roles" => roles::roles(context, table, false),
        "pg_authid" => roles::roles(context, table, true),
        "pg_user" => roles::users(context, table, false),
        "pg_shadow" => roles::users(context, table, true),
        "pg_group" => roles::groups(context, table),
        "pg_auth_members" => roles::auth_members(context, table),
        "pg_default_acl" => roles::default_acl(context, table),
        "pg_db_role_setting" => roles::settings(context, table),
        "pg_database" => server::database(context, table),
        "pg_tablespace" => server::tablespace(table),
        "pg_settings" => server::settings(context, table),
        "pg_stat_activity" => server::activity(context, table),
        "pg_prepared_statements" => server::prepared_statements(context, table),
        "pg_cursors" => server::cursors(context, table),
        "pg_locks" => server::locks(context, table),
        "pg_stat_database" => server::stat_database(context, table),
        "pg_stat_ssl" => server::stat_ssl(context, table),
        "pg_timezone_names" => server::timezone_names(context, table),
        "pg_tables" => summaries::tables(context, table),
        "pg_views" => summaries::views(context, table),
        "pg_matviews" => summaries::materialized_views(context, table),
        "pg_indexes" => summaries::indexes(context, table),
        "pg_stat_user_tables" | "pg_stat_all_tables" => summaries::stat_tables(context, table),
        _ => {}
    }
}
