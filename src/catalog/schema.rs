//! Schemas, the names of relations in them, and the path along which names without a schema are looked up.
//!
//! Two relations may have one name in two schemas, so a relation's name is the pair of both ([`RelationName`]). As text, in
//! messages and where the log keeps it, the schema `public` is left out.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Catalog, Relation, RelationId};

/// Identifies a schema for ever; drawn from the same numbers as relations, so that it is an OID of its own.
pub type SchemaId = RelationId;

/// The schema that is always there.
pub const PUBLIC: &str = "public";
/// The schemas of the server's own relations; none is in the log.
pub const SYSTEM_SCHEMAS: [&str; 3] = ["pg_catalog", "information_schema", "tidegate"];
/// OID of `public`.
pub const PUBLIC_SCHEMA: SchemaId = 2200;

/// A namespace of relations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    pub id: SchemaId,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// All schemas at one commit.
#[derive(Clone, Debug)]
pub struct Schemas(BTreeMap<SchemaId, Arc<Schema>>);

impl Default for Schemas {
    fn default() -> Schemas {
        let comment = Some("standard public schema".to_string());
        let public = Schema { id: PUBLIC_SCHEMA, name: PUBLIC.to_string(), comment };
        Schemas(BTreeMap::from([(PUBLIC_SCHEMA, Arc::new(public))]))
    }
}

impl Schemas {
    pub(super) fn set(&mut self, schema: &Schema) {
        self.0.insert(schema.id, Arc::new(schema.clone()));
    }

    pub(super) fn remove(&mut self, id: SchemaId) {
        self.0.remove(&id);
    }

    pub fn get(&self, id: SchemaId) -> Option<&Arc<Schema>> {
        self.0.get(&id)
    }

    pub fn find(&self, name: &str) -> Option<&Arc<Schema>> {
        self.all().find(|schema| schema.name == name)
    }

    /// In the order of their ids.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Schema>> {
        self.0.values()
    }
}

/// The name of a relation, with its schema. With an empty schema it is a name that was written without one, and that no schema
/// of the path has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationName {
    pub schema: String,
    pub name: String,
}

impl RelationName {
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> RelationName {
        RelationName { schema: schema.into(), name: name.into() }
    }

    /// As SQL that means it under any path.
    pub fn to_sql(&self) -> String {
        match self.schema.as_str() {
            "" => quoted(&self.name),
            schema => format!("{}.{}", quoted(schema), quoted(&self.name)),
        }
    }

    /// As SQL that means it under the default path.
    pub fn to_kept_sql(&self) -> String {
        if self.schema == PUBLIC { quoted(&self.name) } else { self.to_sql() }
    }
}

impl fmt::Display for RelationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.schema.as_str() {
            "" | PUBLIC => f.write_str(&self.name),
            schema => write!(f, "{schema}.{}", self.name),
        }
    }
}

/// The schemas in which a name without one is looked up, in order. What is stored (the queries of views) is read along the
/// default path, `public` alone, whatever the path was where it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchPath(Arc<[String]>);

impl Default for SearchPath {
    fn default() -> SearchPath {
        SearchPath(Arc::from([PUBLIC.to_string()]))
    }
}

impl SearchPath {
    /// Of the setting `search_path`: `"$user"` is the user's own schema, if there is one, and what is not `usable` is passed over.
    pub fn new(setting: &str, own: Option<&str>, usable: impl Fn(&str) -> bool) -> SearchPath {
        let names = identifiers(setting, ',').unwrap_or_default().into_iter();
        let names = names.filter_map(|name| if name == "$user" { own.map(str::to_string) } else { Some(name) });
        let mut path: Vec<String> = Vec::new();
        for name in names.filter(|name| usable(name)) {
            if !path.contains(&name) {
                path.push(name);
            }
        }
        SearchPath(path.into())
    }

    /// The schemas, in order.
    pub fn schemas(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl Catalog {
    pub fn schemas(&self) -> &Schemas {
        &self.schemas
    }

    /// The id of a relation's schema.
    pub fn schema_of(&self, relation: &Relation) -> SchemaId {
        self.schemas.find(&relation.schema).map_or(PUBLIC_SCHEMA, |schema| schema.id)
    }

    /// By exact names (already folded to lower case unless quoted).
    pub fn find(&self, schema: &str, name: &str) -> Option<&Arc<Relation>> {
        self.by_name.get(schema)?.get(name).and_then(|id| self.by_id.get(id))
    }

    pub fn named(&self, name: &RelationName) -> Option<&Arc<Relation>> {
        self.find(&name.schema, &name.name)
    }

    /// What a name means, with a schema or along a path.
    pub fn resolve(&self, path: &SearchPath, schema: Option<&str>, name: &str) -> Option<&Arc<Relation>> {
        match schema {
            Some(schema) => self.find(schema, name),
            None => path.schemas().find_map(|schema| self.find(schema, name)),
        }
    }

    /// The relations of a schema, by name.
    pub fn relations_in(&self, schema: &str) -> impl Iterator<Item = &Arc<Relation>> {
        self.by_name.get(schema).into_iter().flat_map(BTreeMap::values).filter_map(|id| self.by_id.get(id))
    }

    /// The name is free, unless another has it already.
    pub(super) fn forget_name(&mut self, relation: &Relation) {
        if let Some(names) = self.by_name.get_mut(&relation.schema)
            && names.get(&relation.name) == Some(&relation.id)
        {
            names.remove(&relation.name);
            if names.is_empty() {
                self.by_name.remove(&relation.schema);
            }
        }
    }
}

/// The identifiers of a list like `a, "B c"` or a path like `a."B c"`: lower case unless quoted. `None`: it is malformed.
pub fn identifiers(text: &str, separator: char) -> Option<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    loop {
        let identifier;
        if let Some(quoted) = rest.strip_prefix('"') {
            let end = closing_quote(quoted)?;
            identifier = quoted[..end].replace("\"\"", "\"");
            rest = quoted[end + 1..].trim_start();
        } else {
            let end = rest.find(separator).unwrap_or(rest.len());
            identifier = rest[..end].trim().to_lowercase();
            if identifier.is_empty() {
                return None;
            }
            rest = &rest[end..];
        }
        found.push(identifier);
        match rest.strip_prefix(separator) {
            Some(more) => rest = more.trim_start(),
            None if rest.is_empty() => return Some(found),
            None => return None,
        }
    }
}

/// Where the quote ends; two quotes stand for one.
fn closing_quote(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'"', &bytes[at..]) {
        let end = at + found;
        if bytes.get(end + 1) != Some(&b'"') {
            return Some(end);
        }
        at = end + 2;
    }
    None
}

pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("a, \"B c\" ,d", &["a", "B c", "d"])]
    #[case("\"a,b\"", &["a,b"])]
    #[case("\"\"", &[""])]
    #[case("A", &["a"])]
    #[case("\"x\"\"y\", z", &["x\"y", "z"])]
    fn lists_of_identifiers(#[case] text: &str, #[case] expected: &[&str]) {
        assert_eq!(identifiers(text, ',').unwrap(), expected);
    }

    #[rstest]
    #[case("a,,b")]
    #[case("a,")]
    #[case("\"a")]
    #[case("\"a\" b")]
    #[case("")]
    fn malformed_lists(#[case] text: &str) {
        assert_eq!(identifiers(text, ','), None);
    }

    #[test]
    fn a_path_has_what_is_usable_once() {
        let path = SearchPath::new("\"$user\", public, nothing, b, public", Some("anna"), |name| name != "nothing");
        assert_eq!(path.schemas().collect::<Vec<_>>(), ["anna", "public", "b"]);
        assert_eq!(SearchPath::new("\"$user\", public", None, |_| true), SearchPath::default());
        assert_eq!(SearchPath::new("", Some("anna"), |_| true).schemas().count(), 0);
    }

    #[test]
    fn names_with_dots_are_others_than_names_with_schemas() {
        let (dotted, qualified) = (RelationName::new(PUBLIC, "a.b"), RelationName::new("a", "b"));
        assert_ne!(dotted, qualified);
        assert_eq!((dotted.to_sql().as_str(), qualified.to_sql().as_str()), ("\"public\".\"a.b\"", "\"a\".\"b\""));
    }
}
