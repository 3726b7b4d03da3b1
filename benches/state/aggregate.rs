//! One windowed aggregate beside DataFusion's batch engine over the same rows.
//!
//! Both get rows that were decoded before, so decoding is in neither figure. The batch engine runs as it does for a
//! baseline (`lictor_queries::Baseline`): DataFusion's plan, one partition, fed from memory. The streaming engine
//! judges epoch by epoch and closes the window.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use lictor_engine::clock::{Clock, SystemClock};
use lictor_engine::decoding::Decoded;
use lictor_queries::{Baseline, References, RuleFile};
use lictor_schemas::otlp::{Decoder, RecordMeta};
use lictor_schemas::prices::PriceTable;
use lictor_schemas::tables::Signal;
use lictor_schemas::time::EventTime;

use crate::engine::{Engine, Sums, TOPIC, decode, decoding, epoch_rows, rule, rule_set};
use crate::report::{Case, ns_each};
use crate::spans::{MANY_TOKENS, MINUTE_NS, Pass, Record, START, tokens_at};
use crate::spread::{Spread, runs};

/// Every key has so many spans: two million rows of ten thousand.
const PASSES: usize = 200;
const WINDOW: &str = "TUMBLE(spans, event_time, INTERVAL '1 day')";
const DAY: EventTime = EventTime(START.0 + 24 * 60 * MINUTE_NS);
/// Rows of a batch of the batch engine: DataFusion's own choice.
const BATCH_ROWS: usize = 8_192;
/// What a row may cost.
const ROW_NS_GOAL: f64 = 45.0;

/// The same telemetry as both engines take it.
struct Telemetry {
    epochs: Vec<Decoded>,
    /// Lets the window close.
    last: Decoded,
    batches: Vec<RecordBatch>,
    rows: usize,
}

pub(crate) fn measure(keys: usize) {
    let case = Case { name: "aggregate", keys };
    let telemetry = telemetry(keys);
    let batch = batch(&case, &telemetry, "batch: GROUP BY key", "spans", "");
    let bounds = ", window_start, window_end";
    let windowed = self::batch(&case, &telemetry, "batch: GROUP BY key and window", WINDOW, bounds);
    let all: Vec<Run> = (0..runs()).map(|_| run(&telemetry, keys)).collect();
    let row_ns = |of: fn(&Run) -> Duration| Spread::of(all.iter().map(|run| ns_each(of(run), telemetry.rows)));
    let whole = row_ns(|run| run.judging);
    let note = format!(
        "{:.2} of the goal; {:.2} and {:.2} times the batch engine",
        whole.median / ROW_NS_GOAL,
        whole.median / batch,
        whole.median / windowed
    );
    case.line("streaming: rows to closed window", &format!("{whole:.1} ns/row"), &note);
    case.line("of that, sums of each epoch", &format!("{:.1} ns/row", row_ns(|run| run.scanning)), "scan stage");
    case.line("of that, merged and closed", &format!("{:.1} ns/row", row_ns(|run| run.merging)), "judge stage");
}

fn telemetry(keys: usize) -> Telemetry {
    let (mut usual, mut crossing) = (Record::usual(), Record::crossing());
    let rules = rule_set(&rule(WINDOW));
    let mut decoding = decoding(&rules);
    let mut decoder = Decoder::new(&rules.wanted, &[], Arc::new(PriceTable::empty()));
    let (mut epochs, mut batches, mut offset) = (Vec::new(), Vec::new(), 0);
    for number in 0..PASSES {
        let from = START.plus(MINUTE_NS * i64::try_from(number).unwrap());
        let pass = Pass { keys, number, from, length_ns: MINUTE_NS };
        for record in 0..pass.records() {
            let payload = usual.write(pass.spans(record));
            decode(&mut decoding, offset, payload);
            let meta = RecordMeta { topic: TOPIC, partition: 0, offset, timestamp_ms: 0 };
            decoder.absorb(Signal::Traces, payload, meta).unwrap();
            offset += 1;
            if decoding.rows() >= epoch_rows() {
                epochs.push(decoding.take());
                batches.extend(decoder.take().into_iter().map(|(_, rows)| rows));
            }
        }
    }
    epochs.push(decoding.take());
    batches.extend(decoder.take().into_iter().map(|(_, rows)| rows));
    decode(&mut decoding, offset, crossing.write([(0, DAY.plus(-1))].into_iter()));
    epochs.push(decoding.take());
    decode(&mut decoding, offset + 1, crossing.write([(1, DAY)].into_iter()));
    Telemetry {
        epochs,
        last: decoding.take(),
        batches: batches.iter().flat_map(in_batches).collect(),
        rows: keys * PASSES,
    }
}

fn in_batches(rows: &RecordBatch) -> Vec<RecordBatch> {
    let starts = (0..rows.num_rows()).step_by(BATCH_ROWS);
    starts.map(|from| rows.slice(from, BATCH_ROWS.min(rows.num_rows() - from))).collect()
}

/// Prints what a row costs the batch engine.
fn batch(case: &Case, telemetry: &Telemetry, what: &str, from: &str, bounds: &str) -> f64 {
    let text = format!(
        "CREATE VIEW tokens AS SELECT customer_id, sum(output_tokens) AS total, count(*) AS calls,
             min(output_tokens) AS fewest, max(output_tokens) AS most
         FROM {from} GROUP BY customer_id{bounds};"
    );
    let files = [RuleFile { file: "bench.sql".to_owned(), text }];
    let (references, prices) = (References::new(), Arc::new(PriceTable::empty()));
    let baseline = Baseline::try_new(&files, &references, &prices, None).unwrap_or_else(|faults| panic!("{faults:?}"));
    let clock = SystemClock::start();
    let once = || {
        let batches = telemetry.batches.clone();
        let began = clock.monotonic();
        let groups = baseline.run(batches.into_iter()).unwrap();
        let took = clock.monotonic().saturating_sub(began);
        let sum = |column: &str| groups[column].as_primitive::<Int64Type>().values().iter().sum::<i64>();
        let rows = i64::try_from(telemetry.rows).unwrap();
        let tokens = (0..100).map(tokens_at).sum::<i64>() * rows / 100;
        assert_eq!((groups.num_rows(), sum("calls"), sum("total")), (case.keys, rows, tokens));
        ns_each(took, telemetry.rows)
    };
    let row_ns = Spread::of((0..runs()).map(|_| once()));
    let note = format!("DataFusion, one partition, batches of {BATCH_ROWS} rows");
    case.line(what, &format!("{row_ns:.1} ns/row"), &note);
    row_ns.median
}

/// What the streaming engine took.
struct Run {
    judging: Duration,
    scanning: Duration,
    merging: Duration,
}

fn run(telemetry: &Telemetry, keys: usize) -> Run {
    let mut engine = Engine::new(&rule(WINDOW));
    let (epochs, last) = (telemetry.epochs.clone(), telemetry.last.clone());
    epochs.into_iter().for_each(|decoded| engine.judge(decoded));
    engine.check_groups(telemetry.rows + 1, keys);
    engine.judge(last);
    engine.check_groups(telemetry.rows + 2, 1);
    let passes = i64::try_from(PASSES).unwrap();
    let (sum, fewest) = ((passes * tokens_at(0) + MANY_TOKENS) as f64, tokens_at(0));
    engine.check_sums(Sums { end: DAY, sum, count: passes + 1, fewest, most: MANY_TOKENS });
    let [scanning, merging] = engine.spent();
    Run { judging: engine.take().judging, scanning, merging }
}
