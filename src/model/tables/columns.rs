//! Column types and the functions that fill them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryViewArray, BooleanArray, Decimal128Array, Decimal128Builder, Float64Array, Int64Array,
    Int64Builder, ListBuilder, MapBuilder, MapFieldNames, StringBuilder, StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Fields, TimeUnit};

use crate::base::{Money, TimestampUs};

/// The types that stand in our tables: each is a Delta type, an Arrow type and a SQL type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    Text,
    Long,
    Double,
    Boolean,
    Timestamp,
    Money,
    Binary,
    TextList,
    TextMap,
    LongMap,
    MoneyMap,
}

impl ColumnType {
    pub fn arrow(self) -> DataType {
        match self {
            Self::Text => DataType::Utf8View,
            Self::Long => DataType::Int64,
            Self::Double => DataType::Float64,
            Self::Boolean => DataType::Boolean,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Money => MONEY,
            Self::Binary => DataType::BinaryView,
            Self::TextList => DataType::List(Arc::new(Field::new("element", DataType::Utf8, true))),
            Self::TextMap => map_of(DataType::Utf8),
            Self::LongMap => map_of(DataType::Int64),
            Self::MoneyMap => map_of(MONEY),
        }
    }

    /// As a Delta schema writes it.
    pub fn delta(self) -> serde_json::Value {
        let map_of = |value: &str| serde_json::json!({"type": "map", "keyType": "string", "valueType": value, "valueContainsNull": true});
        match self {
            Self::Text => "string".into(),
            Self::Long => "long".into(),
            Self::Double => "double".into(),
            Self::Boolean => "boolean".into(),
            Self::Timestamp => "timestamp".into(),
            Self::Money => "decimal(18,12)".into(),
            Self::Binary => "binary".into(),
            Self::TextList => serde_json::json!({"type": "array", "elementType": "string", "containsNull": true}),
            Self::TextMap => map_of("string"),
            Self::LongMap => map_of("long"),
            Self::MoneyMap => map_of("decimal(18,12)"),
        }
    }

    /// As `sql/schema.sql` writes it.
    pub fn sql(self) -> &'static str {
        match self {
            Self::Text => "VARCHAR",
            Self::Long => "BIGINT",
            Self::Double => "DOUBLE",
            Self::Boolean => "BOOLEAN",
            Self::Timestamp => "TIMESTAMP WITH TIME ZONE",
            Self::Money => "DECIMAL(18,12)",
            Self::Binary => "BYTEA",
            Self::TextList => "VARCHAR[]",
            Self::TextMap => "MAP(VARCHAR, VARCHAR)",
            Self::LongMap => "MAP(VARCHAR, BIGINT)",
            Self::MoneyMap => "MAP(VARCHAR, DECIMAL(18,12))",
        }
    }
}

const MONEY: DataType = DataType::Decimal128(Money::PRECISION, Money::SCALE);

// The names inside lists and maps are those of the Parquet specification, which every reader knows.
fn map_of(value: DataType) -> DataType {
    let fields = Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", value, true)]);
    DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(fields), false)), false)
}

fn map_names() -> Option<MapFieldNames> {
    Some(MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() })
}

pub(super) fn text<'a, R>(rows: &'a [R], get: impl Fn(&'a R) -> Option<&'a str>) -> ArrayRef {
    Arc::new(rows.iter().map(get).collect::<StringViewArray>())
}

pub(super) fn long<R>(rows: &[R], get: impl Fn(&R) -> Option<i64>) -> ArrayRef {
    Arc::new(rows.iter().map(get).collect::<Int64Array>())
}

pub(super) fn double<R>(rows: &[R], get: impl Fn(&R) -> Option<f64>) -> ArrayRef {
    Arc::new(rows.iter().map(get).collect::<Float64Array>())
}

pub(super) fn boolean<R>(rows: &[R], get: impl Fn(&R) -> Option<bool>) -> ArrayRef {
    Arc::new(rows.iter().map(get).collect::<BooleanArray>())
}

pub(super) fn timestamp<R>(rows: &[R], get: impl Fn(&R) -> Option<TimestampUs>) -> ArrayRef {
    Arc::new(rows.iter().map(get).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

pub(super) fn money<R>(rows: &[R], get: impl Fn(&R) -> Option<Money>) -> ArrayRef {
    let amounts: Decimal128Array = rows.iter().map(|row| get(row).map(|amount| i128::from(amount.pico()))).collect();
    Arc::new(amounts.with_data_type(MONEY))
}

pub(super) fn binary<'a, R>(rows: &'a [R], get: impl Fn(&'a R) -> Option<&'a [u8]>) -> ArrayRef {
    Arc::new(rows.iter().map(get).collect::<BinaryViewArray>())
}

pub(super) fn text_list<'a, R>(rows: &'a [R], get: impl Fn(&'a R) -> Cow<'a, [String]>) -> ArrayRef {
    let mut builder = ListBuilder::new(StringBuilder::new()).with_field(Field::new("element", DataType::Utf8, true));
    for row in rows {
        for value in get(row).iter() {
            builder.values().append_value(value);
        }
        builder.append(true);
    }
    Arc::new(builder.finish())
}

pub(super) fn text_map<'a, R>(rows: &'a [R], get: impl Fn(&'a R) -> &'a BTreeMap<String, String>) -> ArrayRef {
    let mut builder = MapBuilder::new(map_names(), StringBuilder::new(), StringBuilder::new());
    for row in rows {
        for (key, value) in get(row) {
            builder.keys().append_value(key);
            builder.values().append_value(value);
        }
        builder.append(true).expect("as many values as keys");
    }
    Arc::new(builder.finish())
}

pub(super) fn long_map<'a, R>(rows: &'a [R], get: impl Fn(&'a R) -> &'a BTreeMap<String, i64>) -> ArrayRef {
    let mut builder = MapBuilder::new(map_names(), StringBuilder::new(), Int64Builder::new());
    for row in rows {
        for (key, value) in get(row) {
            builder.keys().append_value(key);
            builder.values().append_value(*value);
        }
        builder.append(true).expect("as many values as keys");
    }
    Arc::new(builder.finish())
}

pub(super) fn money_map<'a, R>(rows: &'a [R], get: impl Fn(&'a R) -> &'a BTreeMap<String, Money>) -> ArrayRef {
    let values = Decimal128Builder::new().with_data_type(MONEY);
    let mut builder = MapBuilder::new(map_names(), StringBuilder::new(), values);
    for row in rows {
        for (key, value) in get(row) {
            builder.keys().append_value(key);
            builder.values().append_value(i128::from(value.pico()));
        }
        builder.append(true).expect("as many values as keys");
    }
    let filled = builder.finish();
    debug_assert_eq!(filled.data_type(), &ColumnType::MoneyMap.arrow());
    Arc::new(filled)
}
