//! The hour in which a time lies, UTC, as whole numbers reckon it: for any time there is, with no calendar.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use datafusion::common::plan_err;
use datafusion::error::Result;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

pub(crate) const HOUR_US: i64 = 3_600_000_000;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct HourOf {
    signature: Signature,
}

impl HourOf {
    pub(super) fn new() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for HourOf {
    fn name(&self) -> &str {
        "hour_of"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match &types[0] {
            DataType::Timestamp(TimeUnit::Microsecond, zone) if zone.as_deref() == Some("UTC") => Ok(types[0].clone()),
            _ => plan_err!("hour_of takes a time in UTC"),
        }
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let times = args.args[0].to_array(args.number_rows)?;
        // The first hour there is began before the first time there is.
        let hour_of = |at: i64| at.saturating_sub(at.rem_euclid(HOUR_US));
        let hours: TimestampMicrosecondArray = times.as_primitive::<TimestampMicrosecondType>().unary(hour_of);
        Ok(ColumnarValue::Array(Arc::new(hours.with_timezone("UTC")) as ArrayRef))
    }
    /// Rows that come by time come by hour: one hour's groups are done when the next begins.
    fn output_ordering(&self, input: &[ExprProperties]) -> Result<SortProperties> {
        Ok(input[0].sort_properties)
    }
}
