//! The columns of `name$late`, where several nodes of a view cut late rows.
//!
//! Rows of all of them lie in one relation. Columns of one name and type are one column, whichever node they come from; a row
//! has NULL in those that its node has not.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};

pub struct LateRows {
    pub schema: SchemaRef,
    /// By node: which of its columns each column of the schema is.
    pub places: Vec<Vec<Option<usize>>>,
}

/// `nodes`: the columns of each, in the order of the plan from its leaves up. `None`: no row can be late.
pub fn late_rows(nodes: &[SchemaRef]) -> Option<LateRows> {
    let (first, others) = nodes.split_first()?;
    let mut fields: Vec<Field> = first.fields().iter().map(|field| field.as_ref().clone()).collect();
    let mut places: Vec<Vec<Option<usize>>> = vec![(0..fields.len()).map(Some).collect()];
    for node in others {
        let mut of_node = vec![None; fields.len()];
        for (column, field) in node.fields().iter().enumerate() {
            let same = |(place, known): (usize, &Field)| {
                let free = of_node.get(place).is_none_or(Option::is_none);
                free && known.name() == field.name() && known.data_type() == field.data_type()
            };
            match fields.iter().enumerate().position(same) {
                Some(place) => of_node[place] = Some(column),
                None => {
                    let taken = |name: &str| fields.iter().any(|known| known.name() == name);
                    let mut names = std::iter::once(field.name().clone()).chain((2..).map(|n| format!("{}_{n}", field.name())));
                    let name = names.find(|name| !taken(name)).unwrap_or_default();
                    fields.push(field.as_ref().clone().with_name(name));
                    of_node.push(Some(column));
                }
            }
        }
        places.push(of_node);
    }
    places.iter_mut().for_each(|of_node| of_node.resize(fields.len(), None));
    let everywhere = |column: usize| places.iter().all(|of_node| of_node[column].is_some());
    let fields: Vec<Field> = fields
        .into_iter()
        .enumerate()
        .map(|(column, field)| {
            let nullable = field.is_nullable() || !everywhere(column);
            field.with_nullable(nullable)
        })
        .collect();
    Some(LateRows { schema: Arc::new(Schema::new(fields)), places })
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;

    use super::*;

    #[test]
    fn columns_of_one_name_and_type_are_one() {
        let schema = |fields: &[(&str, DataType)]| -> SchemaRef {
            Arc::new(Schema::new(fields.iter().map(|(name, t)| Field::new(*name, t.clone(), false)).collect::<Vec<_>>()))
        };
        let (a, b) = (
            schema(&[("k", DataType::Utf8), ("n", DataType::Int64)]),
            schema(&[("n", DataType::Utf8), ("k", DataType::Utf8), ("k", DataType::Utf8)]),
        );
        let late = late_rows(&[Arc::clone(&a), b]).unwrap();
        let names: Vec<_> = late.schema.fields().iter().map(|f| (f.name().as_str(), f.is_nullable())).collect();
        assert_eq!(names, [("k", false), ("n", true), ("n_2", true), ("k_2", true)]);
        assert_eq!(late.places, [vec![Some(0), Some(1), None, None], vec![Some(1), None, Some(0), Some(2)]]);
        assert_eq!(late_rows(&[Arc::clone(&a), Arc::clone(&a)]).unwrap().schema, a);
    }
}
