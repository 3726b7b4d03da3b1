//! Rule files, through the compiler, and what compiles over some telemetry.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, iter};

use lictor_connectors::{RecordRef, TopicPartition};
use lictor_engine::company::Company;
use lictor_engine::pipeline::{Pipeline, PipelineSettings};
use lictor_queries::{References, RuleFile, compile};
use lictor_schemas::prices::PriceTable;
use lictor_schemas::tables::Signal;
use lictor_schemas::time::EventTime;

use super::Target;

const SECOND_NS: i64 = 1_000_000_000;

pub(crate) struct Rules {
    telemetry: Vec<Vec<u8>>,
    start: EventTime,
    compiled: u64,
    quarantined: u64,
}

/// Every rule that lies in the repository.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        match entry.extension() {
            _ if entry.is_dir() => found.extend(files(&entry)),
            Some(extension) if extension == "sql" => found.push(entry),
            _ => {}
        }
    }
    found.sort();
    found
}

impl Rules {
    pub(crate) fn new() -> Self {
        let start = EventTime::from_rfc3339("2026-03-01T08:00:00Z").unwrap();
        let mut company = Company::new(3, start).with_traces_per_s(1.0);
        let sent = company.next_batch(start.plus(20 * SECOND_NS)).into_iter();
        let telemetry = sent.filter(|message| message.0 == Signal::Traces).map(|message| message.2).collect();
        Self { telemetry, start, compiled: 0, quarantined: 0 }
    }
}

impl Target for Rules {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let places = ["queries/rules", "tests/language"];
        places.iter().flat_map(|place| files(&top.join(place))).map(|path| fs::read(path).unwrap()).collect()
    }

    fn run(&mut self, input: &[u8]) -> (&'static str, String) {
        let Ok(text) = str::from_utf8(input) else { return ("refused", "not UTF-8".to_owned()) };
        let file = RuleFile { file: "fuzz.sql".to_owned(), text: text.to_owned() };
        let (rules, faults) = compile(&[file], &References::new());
        for fault in &faults {
            assert!(!fault.message.is_empty(), "a fault says what is wrong");
        }
        let said = faults.iter().map(|fault| fault.message.as_str()).next();
        if rules.rules.is_empty() {
            let fate = if faults.is_empty() { "empty" } else { "refused" };
            return (fate, said.unwrap_or_default().to_owned());
        }
        self.compiled += 1;
        let mut pipeline = Pipeline::new(rules, Arc::new(PriceTable::empty()), &PipelineSettings::default());
        pipeline.assign(TopicPartition::new("otlp_spans", 0), self.start);
        let now = self.start.plus(120 * SECOND_NS);
        for (offset, payload) in iter::zip(0.., &self.telemetry) {
            let record = RecordRef {
                topic: "otlp_spans",
                offset,
                timestamp_ms: now.to_ms(),
                payload: Some(payload),
                ..RecordRef::default()
            };
            pipeline.absorb(record, now);
        }
        let epoch = pipeline.end_epoch(now);
        pipeline.end_epoch(now.plus(3_600 * SECOND_NS));
        let reasons: Vec<String> = pipeline.status().into_iter().filter_map(|status| status.quarantined).collect();
        self.quarantined += u64::from(!reasons.is_empty());
        ("compiled", format!("{} {} {}", epoch.decisions.len().min(2), reasons.join(" "), said.unwrap_or_default()))
    }

    fn settle(&mut self) -> String {
        format!(
            "; {} ran over {} records, {} of them quarantined",
            self.compiled,
            self.telemetry.len(),
            self.quarantined
        )
    }
}
