//! How often the hot path asks for memory, and for how much of it: per span, while records are decoded and while rules
//! judge them.
//!
//! `cargo bench --bench allocations` prints one line per case. The counts depend on nothing but the records, so that
//! another run gives the same. Growing in place counts as one allocation of what was added. A rule's first epoch builds
//! its panes; the first half of the records therefore does not count.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it has measured")]

#[path = "counting.rs"]
mod counting;
#[path = "workload.rs"]
mod workload;

use std::sync::Arc;

use counting::Counts;
use lictor_engine::pipeline::Pipeline;
use lictor_queries::RuleSet;
use lictor_schemas::otlp::{Decoder, Wanted};
use lictor_schemas::prices::PriceTable;
use lictor_schemas::time::EventTime;
use workload::{decode_epoch, epochs, judge_epoch, records, rule_set, settings, spans_of};

fn main() {
    let records = records();
    let (warm, measured) = records.split_at(records.len() / 2);
    println!("{} records, {} spans counted, after as many to warm up", measured.len(), spans_of(measured));
    println!("{:36} {:>18} {:>12} {:>18} {:>12}", "", "allocations/record", "per span", "bytes/record", "per span");
    for count in [1, 20] {
        let wanted = rule_set(count).wanted;
        show(&format!("decode, columns of {count} rules"), measured, &decoding(warm, measured, &wanted));
    }
    for count in [1, 20, 100] {
        let (scan, end) = judging(warm, measured, rule_set(count));
        show(&format!("{count} rules: decode and sum up"), measured, &scan);
        show(&format!("{count} rules: end epochs"), measured, &end);
    }
}

fn decoding(warm: &[Vec<u8>], measured: &[Vec<u8>], wanted: &Wanted) -> Counts {
    let mut decoder = Decoder::new(wanted, &[], Arc::new(PriceTable::empty()));
    epochs(warm, 0).for_each(|epoch| decode_epoch(&mut decoder, epoch));
    Counts::of(|| epochs(measured, warm.len()).for_each(|epoch| decode_epoch(&mut decoder, epoch)))
}

/// While records are taken in, and while epochs end.
fn judging(warm: &[Vec<u8>], measured: &[Vec<u8>], rules: RuleSet) -> (Counts, Counts) {
    let mut pipeline = Pipeline::new(rules, Arc::new(PriceTable::empty()), &settings());
    for epoch in epochs(warm, 0) {
        judge_epoch(&mut pipeline, epoch);
        pipeline.end_epoch(EventTime(0));
    }
    let (mut scan, mut end) = (Counts::default(), Counts::default());
    for epoch in epochs(measured, warm.len()) {
        scan += Counts::of(|| judge_epoch(&mut pipeline, epoch));
        end += Counts::of(|| drop(pipeline.end_epoch(EventTime(0))));
    }
    (scan, end)
}

fn show(name: &str, records: &[Vec<u8>], counts: &Counts) {
    let (per_record, per_span) = (records.len() as f64, spans_of(records) as f64);
    let (allocations, bytes) = (counts.allocations as f64, counts.bytes as f64);
    println!(
        "{name:36} {:>18.1} {:>12.2} {:>18.0} {:>12.0}",
        allocations / per_record,
        allocations / per_span,
        bytes / per_record,
        bytes / per_span
    );
}
