//! `hist_log(x [, sub])`: numbers of any size in buckets of equal ratio.

use arrow::array::ArrayRef;
use datafusion::common::{Result, ScalarValue};

use super::FunctionDoc;
use super::aggregate::{AggregateSpec, constant_int};
use super::coerce::Kind;
use super::hist::{Cells, Hist, LogScale, SUB_MAX, hist_type};
use super::hist_summary::{Fill, Hists, fill_numbers};

pub(super) static HIST_LOG: AggregateSpec<Hists<Log>> = AggregateSpec {
    doc: FunctionDoc {
        name: "hist_log",
        arguments: "x [, sub = 8]",
        meaning: "histogram of numbers, `sub` buckets (1 to 64) per doubling, negative ones mirrored; |x| < 2^-30 \
                  counts as 0, from 2^64 on as 2^64; NaN and infinity are left out and counted",
        source: "log-linear histogram, as in OpenTelemetry's exponential histogram",
    },
    takes: &[Kind::Number, Kind::Int],
    required: 1,
    state_type: hist_type,
    result_type: hist_type,
    bind: Log::bind,
};

/// Buckets per doubling: 50 of them span four decades, and KS distances are off by 0.003 at most.
const SUB: i64 = 8;

#[derive(Debug)]
pub(super) struct Log(LogScale);

impl Log {
    fn bind(constants: &[Option<ScalarValue>]) -> Result<Hists<Self>> {
        let sub = constant_int(constants, 1, "the buckets per doubling of hist_log", SUB, 1..=i64::from(SUB_MAX))?;
        Ok(Hists(Self(LogScale::new(i32::try_from(sub).unwrap_or(SUB_MAX)))))
    }
}

impl Fill for Log {
    fn fill(
        &self,
        arguments: &[ArrayRef],
        rows: &mut dyn Iterator<Item = (usize, usize)>,
        groups: &mut [Option<Hist>],
    ) -> Result<()> {
        let empty = || Hist::new(Cells::Log { sub: self.0.sub(), buckets: Vec::new() });
        let count = |hist: &mut Hist, x: f64| {
            let Cells::Log { buckets, .. } = &mut hist.cells else { return };
            let bucket = self.0.bucket_of(x);
            match buckets.binary_search_by_key(&bucket, |b| b.0) {
                Ok(at) => buckets[at].1 += 1.0,
                Err(at) => buckets.insert(at, (bucket, 1.0)),
            }
        };
        fill_numbers(&arguments[0], rows, groups, &empty, &count);
        Ok(())
    }
}
