//! `time_bucket('15 minutes', start_time, 'Europe/Berlin')`: the beginning of the bucket, in any IANA zone.

use std::sync::Arc;

use arrow::array::{AsArray, TimestampMicrosecondArray};
use arrow::compute::{max, min};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{exec_datafusion_err, plan_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use datafusion::scalar::ScalarValue;

use crate::query::bucket::Bucket;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct TimeBucket {
    signature: Signature,
}

impl TimeBucket {
    pub(super) fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

impl ScalarUDFImpl for TimeBucket {
    fn name(&self) -> &str {
        "time_bucket"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types.len() {
            2 => Ok(vec![DataType::Utf8, instant()]),
            3 => Ok(vec![DataType::Utf8, instant(), DataType::Utf8]),
            _ => plan_err!(
                "time_bucket takes a width, a time and, if not UTC, a time zone: time_bucket('1 hour', start_time, 'Europe/Berlin')"
            ),
        }
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(instant())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let width = word(&args.args[0])?;
        let zone = args.args.get(2).map_or(Ok("UTC"), word)?;
        let bucket = Bucket::parse(width, zone).map_err(DataFusionError::Plan)?;
        let times = args.args[1].to_array(args.number_rows)?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let (Some(first), Some(last)) = (min(times), max(times)) else {
            return Ok(ColumnarValue::Array(Arc::new(times.clone())));
        };
        // The zone's rules are looked up once for the batch; the rest is whole numbers.
        let clock = bucket.clock(first, last);
        let starts: TimestampMicrosecondArray =
            times.iter().map(|at| at.and_then(|at| bucket.start_of(&clock, at))).collect();
        Ok(ColumnarValue::Array(Arc::new(starts.with_timezone("UTC"))))
    }
}

fn word(value: &ColumnarValue) -> Result<&str> {
    match value {
        ColumnarValue::Scalar(ScalarValue::Utf8(Some(word))) => Ok(word),
        _ => {
            Err(exec_datafusion_err!("the width and the zone of time_bucket are the same for all rows: write them out"))
        }
    }
}
