//! An engine in memory, and how long its parts have worked.

use std::sync::Arc;
use std::time::Duration;

use lictor_connectors::RecordRef;
use lictor_engine::clock::{Clock, SystemClock};
use lictor_engine::decision::Decision;
use lictor_engine::decoding::{Decoded, Decoding};
use lictor_engine::pipeline::{Pipeline, PipelineSettings};
use lictor_engine::scan_stage::ScanCounts;
use lictor_engine::watermark::Tolerances;
use lictor_queries::{References, RuleFile, RuleSet, compile};
use lictor_schemas::event::Finding;
use lictor_schemas::otlp::Decoder;
use lictor_schemas::prices::PriceTable;
use lictor_schemas::tables::Table;
use lictor_schemas::time::EventTime;

use crate::report::{Case, ns_each, rss_bytes, setting};
use crate::spans::{MANY_TOKENS, Pass, Record};

pub(crate) const TOPIC: &str = "otlp_spans";

/// Rows that are judged at once.
pub(crate) fn epoch_rows() -> usize {
    setting("LICTOR_EPOCH_ROWS", 65_536)
}

/// The aggregates of all cases, of windows that `from` says; what crosses the line violates the rule when its window
/// closes.
pub(crate) fn rule(from: &str) -> String {
    format!(
        "CREATE RULE tokens WITH (action = 'warn', reason_code = 'x_bench') AS
         SELECT s.customer_id, window_start, window_end, sum(s.output_tokens) AS observed, count(*) AS calls,
                min(s.output_tokens) AS fewest, max(s.output_tokens) AS most
         FROM {from} AS s GROUP BY s.customer_id, window_start, window_end
         HAVING max(s.output_tokens) >= {MANY_TOKENS} EMIT ON CLOSE;"
    )
}

pub(crate) fn rule_set(text: &str) -> RuleSet {
    let file = RuleFile { file: "bench.sql".to_owned(), text: text.to_owned() };
    let (rules, faults) = compile(&[file], &References::new());
    assert!(faults.is_empty(), "{faults:?}");
    rules
}

/// Windows close at once when time has come to their ends. With the default of `groups_max` a rule of more than a
/// million groups would be quarantined.
pub(crate) fn settings() -> PipelineSettings {
    let tolerances = Tolerances { lateness_ns: 0, ..Tolerances::default() };
    PipelineSettings { tolerances, groups_max: usize::MAX, ..PipelineSettings::default() }
}

/// What decodes the columns of `rules`.
pub(crate) fn decoding(rules: &RuleSet) -> Decoding {
    let decoder = Decoder::new(&rules.wanted, &[], Arc::new(PriceTable::empty()));
    Decoding::new(decoder, settings().signals)
}

/// Decodes one record.
pub(crate) fn decode(decoding: &mut Decoding, offset: i64, payload: &[u8]) {
    let record = RecordRef { topic: TOPIC, partition: 0, offset, payload: Some(payload), ..RecordRef::default() };
    assert!(decoding.absorb(record, EventTime(0)).is_some());
}

/// What work has taken, and of how many rows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Took {
    pub(crate) rows: usize,
    pub(crate) decoding: Duration,
    pub(crate) judging: Duration,
}

impl Took {
    pub(crate) fn rows_per_s(&self) -> f64 {
        self.rows as f64 / (self.decoding + self.judging).as_secs_f64()
    }

    pub(crate) fn decoding_ns(&self) -> f64 {
        ns_each(self.decoding, self.rows)
    }

    pub(crate) fn judging_ns(&self) -> f64 {
        ns_each(self.judging, self.rows)
    }
}

/// Both stages of `run` with the exchange in memory.
pub(crate) struct Engine {
    clock: SystemClock,
    decoding: Decoding,
    pipeline: Pipeline,
    epoch_rows: usize,
    offset: i64,
    took: Took,
    /// What was decided last.
    decision: Option<Decision>,
    counts: ScanCounts,
    rss_bytes_max: usize,
}

impl Engine {
    pub(crate) fn new(text: &str) -> Self {
        let rules = rule_set(text);
        let decoding = decoding(&rules);
        let pipeline = Pipeline::new(rules, Arc::new(PriceTable::empty()), &settings());
        Self {
            clock: SystemClock::start(),
            decoding,
            pipeline,
            epoch_rows: epoch_rows(),
            offset: 0,
            took: Took::default(),
            decision: None,
            counts: ScanCounts::default(),
            rss_bytes_max: 0,
        }
    }

    /// Takes the records of a pass, in epochs.
    pub(crate) fn absorb(&mut self, record: &mut Record, pass: Pass) {
        for number in 0..pass.records() {
            self.decode(record.write(pass.spans(number)));
            if self.decoding.rows() >= self.epoch_rows {
                self.end_epoch();
            }
        }
        self.end_epoch();
    }

    /// Takes a record of one span, in an epoch of its own; returns what judging took.
    pub(crate) fn cross(&mut self, record: &mut Record, key: usize, at: EventTime) -> Duration {
        let before = self.took.judging;
        self.decode(record.write([(key, at)].into_iter()));
        self.end_epoch();
        self.took.judging.saturating_sub(before)
    }

    fn decode(&mut self, payload: &[u8]) {
        let began = self.clock.monotonic();
        decode(&mut self.decoding, self.offset, payload);
        self.took.decoding += self.clock.monotonic().saturating_sub(began);
        self.offset += 1;
    }

    fn end_epoch(&mut self) {
        let began = self.clock.monotonic();
        self.took.rows += self.decoding.rows();
        let decoded = self.decoding.take();
        self.took.decoding += self.clock.monotonic().saturating_sub(began);
        self.judge(decoded);
        self.rss_bytes_max = self.rss_bytes_max.max(rss_bytes());
    }

    /// Takes rows that were decoded before.
    pub(crate) fn judge(&mut self, decoded: Decoded) {
        let began = self.clock.monotonic();
        let mut epoch = self.pipeline.take_over(decoded, EventTime(0));
        self.took.judging += self.clock.monotonic().saturating_sub(began);
        self.decision = epoch.decisions.pop().or(self.decision.take());
        self.counts.add(epoch.counts);
    }

    /// What work has taken since the last call.
    pub(crate) fn take(&mut self) -> Took {
        std::mem::take(&mut self.took)
    }

    /// The most memory there was at the end of an epoch.
    pub(crate) fn rss_bytes_max(&self) -> usize {
        self.rss_bytes_max
    }

    /// How much the engine says that state takes.
    pub(crate) fn state_bytes(&self) -> usize {
        self.pipeline.status()[0].state_bytes
    }

    /// How long the rule has been scanned for and judged.
    pub(crate) fn spent(&self) -> [Duration; 2] {
        self.pipeline.spent().map(|of_rules| of_rules.values().sum())
    }

    /// Fails unless the engine has taken so many rows, and has so many groups.
    pub(crate) fn check_groups(&self, rows: usize, groups: usize) {
        let status = &self.pipeline.status()[0];
        assert_eq!((status.quarantined.as_ref(), status.groups, status.dropped), (None, groups, 0));
        let used = self.counts.rows_used.get(&Table::Spans).copied();
        assert_eq!((used, self.counts.rows_untimely.len()), (u64::try_from(rows).ok(), 0));
    }

    /// Fails unless the last window has these sums.
    pub(crate) fn check_sums(&self, sums: Sums) {
        assert_eq!(self.decision.as_ref().map(|decision| Sums::of(&decision.event.data.finding)), Some(sums));
    }

    /// Goes on for a moment with little to do: the allocator gives memory back by and by. Returns what is still used.
    pub(crate) fn rest(&mut self, record: &mut Record, at: EventTime) -> usize {
        const REST: Duration = Duration::from_secs(2);
        let began = self.clock.monotonic();
        while self.clock.monotonic().saturating_sub(began) < REST {
            self.cross(record, 0, at);
            std::thread::sleep(Duration::from_millis(1));
        }
        rss_bytes()
    }
}

/// What a window's violation says of its group.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sums {
    /// When the window ends.
    pub(crate) end: EventTime,
    pub(crate) sum: f64,
    pub(crate) count: i64,
    pub(crate) fewest: i64,
    pub(crate) most: i64,
}

impl Sums {
    pub(crate) fn of(finding: &Finding) -> Self {
        let number = |name: &str| finding.evidence.get(name).and_then(serde_json::Value::as_i64).unwrap_or_default();
        let end = finding.window.as_ref().map_or(EventTime::MIN, |window| window.end);
        let (count, fewest, most) = (number("calls"), number("fewest"), number("most"));
        Self { end, sum: finding.observed.unwrap_or(f64::NAN), count, fewest, most }
    }
}

/// Prints what filling has taken.
pub(crate) fn print_filling(case: &Case, what: &str, took: &Took) {
    let figure = format!("{:.0} rows/s", took.rows_per_s());
    let note = format!("{:.0} ns/row decode, {:.0} ns/row scan and judge", took.decoding_ns(), took.judging_ns());
    case.line(what, &figure, &note);
}
