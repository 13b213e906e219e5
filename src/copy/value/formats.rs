//! What the text of a value means to a session: the settings TimeZone and DateStyle.
//!
//! What is stored, and what runs on, knows none: to it text is read as with the defaults, in UTC and month before day.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};

use crate::error::Result;
use crate::time::zone::Zone;

/// How text is read, and where the clocks stand by which `timestamptz` is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Formats {
    pub zone: Zone,
    pub order: DateOrder,
}

impl Formats {
    /// Those of what is stored: in UTC, months first.
    pub fn are_usual(self) -> bool {
        self.zone.is_utc() && self.order == DateOrder::default()
    }
}

/// Which of three numbers is the day, the month and the year, where none is the year for sure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DateOrder {
    DayFirst,
    #[default]
    MonthFirst,
    YearFirst,
}

impl Zone {
    /// The type whose values are shown and taken apart by the clocks of this zone: the same, but for the name of the zone.
    pub fn typed(self, data_type: &DataType) -> DataType {
        let field =
            |field: &FieldRef| -> FieldRef { Arc::new(Field::clone(field).with_data_type(self.typed(field.data_type()))) };
        match data_type {
            DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, Some(self.type_name().into())),
            DataType::List(item) => DataType::List(field(item)),
            DataType::LargeList(item) => DataType::LargeList(field(item)),
            DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
            DataType::Map(entries, sorted) => DataType::Map(field(entries), *sorted),
            other => other.clone(),
        }
    }

    /// The values as such of that type.
    pub fn seen(self, values: &ArrayRef) -> Result<ArrayRef> {
        let to = self.typed(values.data_type());
        if to == *values.data_type() { Ok(Arc::clone(values)) } else { Ok(cast(values, &to)?) }
    }
}
