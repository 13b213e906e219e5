//! Names and schemas in a catalog.

use super::schema::SearchPath;
use super::*;

fn table(id: RelationId, schema: &str, name: &str) -> Change {
    Change::Create(Relation { schema: schema.to_string(), ..Relation::new(id, name, Kind::Table, Vec::new()) })
}

fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    catalog.apply(&Change::SetSchema(schema::Schema { id: 1, name: "a".into(), comment: None }));
    [table(2, PUBLIC, "t"), table(3, "a", "t"), table(4, "a", "only"), table(5, PUBLIC, "a.t")]
        .iter()
        .for_each(|change| catalog.apply(change));
    catalog
}

fn found(catalog: &Catalog, path: &str, schema: Option<&str>, name: &str) -> Option<RelationId> {
    let path = SearchPath::new(path, None, |_| true);
    catalog.resolve(&path, schema, name).map(|relation| relation.id)
}

#[test]
fn a_name_is_the_first_of_its_path() {
    let catalog = catalog();
    assert_eq!(found(&catalog, "public, a", None, "t"), Some(2));
    assert_eq!(found(&catalog, "a, public", None, "t"), Some(3));
    assert_eq!(found(&catalog, "public, a", None, "only"), Some(4));
    assert_eq!(found(&catalog, "public", None, "only"), None);
    assert_eq!(found(&catalog, "", Some("a"), "t"), Some(3));
    assert_eq!(found(&catalog, "a", None, "a.t"), None);
    assert_eq!(found(&catalog, "public", None, "a.t"), Some(5));
}

#[test]
fn names_swap_and_move_within_one_commit() {
    let mut catalog = catalog();
    let moved = |id, schema: &str| Relation { schema: schema.to_string(), ..Relation::clone(&catalog.by_id[&id]) };
    let changes = [Change::Alter(moved(2, "a")), Change::Alter(moved(3, PUBLIC))];
    changes.iter().for_each(|change| catalog.apply(change));
    assert_eq!(found(&catalog, "public", None, "t"), Some(3));
    assert_eq!(found(&catalog, "a", None, "t"), Some(2));
    catalog.apply(&Change::Drop(3));
    assert_eq!(found(&catalog, "public", None, "t"), None);
    assert_eq!(catalog.relations_in("a").map(|r| r.id).collect::<Vec<_>>(), [4, 2]);
}

#[test]
fn what_was_kept_without_a_schema_is_in_public() {
    let relation = Relation::new(2, "t", Kind::Table, Vec::new());
    let text = serde_json::to_value(&relation).unwrap();
    assert_eq!(text.get("schema"), None, "as it was kept before there were schemas");
    assert_eq!(serde_json::from_value::<Relation>(text).unwrap().schema, PUBLIC);
    let elsewhere = Relation { schema: "a".into(), ..relation };
    let text = serde_json::to_string(&elsewhere).unwrap();
    assert_eq!(serde_json::from_str::<Relation>(&text).unwrap(), elsewhere);
}
