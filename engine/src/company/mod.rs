//! A small company's AI telemetry, made up: for `lictor demo` and the benchmarks.
//!
//! A dozen teams call models of four providers, by chat, retrieval and agents, in three dialects of telemetry; now and
//! then something goes wrong, see [`Company::incidents`]. It is written as a collector would write it: spans of several
//! services in one OTLP message, some of them late, one record that is no telemetry at all.
//!
//! Invariant: the seed and the start determine every byte; asking for one long stretch gives the same messages as
//! asking for many short ones.

mod governance;
mod incidents;
mod signals;
mod traces;
mod workloads;

use lictor_schemas::otlp::encode::{RowDraft, encode_protobuf};
use lictor_schemas::tables::Signal;
use lictor_schemas::time::EventTime;

use incidents::INCIDENTS;
use traces::Scribe;
use workloads::WORKLOADS;

/// A Kafka record to be: its signal, its key and its value.
pub type Message = (Signal, Option<Vec<u8>>, Vec<u8>);

/// How much the company does, in traces per second of event time, unless asked for more. The shipped budgets and
/// service levels fit this rate.
pub const TRACES_PER_S: f64 = 4.0;

/// Collectors that the services send to; each writes one message per second.
const COLLECTORS: usize = 3;

/// Seconds between two messages of metrics, as OpenTelemetry's SDKs do it by default.
const METRICS_EVERY_S: i64 = 60;

/// Seconds between two spans that come too late to count.
const LATE_EVERY_S: i64 = 53;

/// The second in which a record comes that is no telemetry.
const GARBAGE_AT_S: i64 = 300;

const NANOS_PER_S: i64 = 1_000_000_000;

/// Something that goes wrong in the company.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// When it begins, in event time.
    pub at: EventTime,
    /// When it is over.
    pub until: EventTime,
    /// Its name.
    pub name: &'static str,
    /// What happens, in a sentence.
    pub story: &'static str,
}

/// The company: a deterministic stream of telemetry.
#[derive(Clone, Debug)]
pub struct Company {
    start: EventTime,
    /// Whole seconds since the start that have been written.
    second: i64,
    traces_per_s: f64,
    /// Services that speak GenOps do all that it asks for.
    is_governed: bool,
    /// The fraction of a trace that is still owed.
    owed: f64,
    random: fastrand::Rng,
}

impl Company {
    /// The company that `seed` makes, beginning at `start`. All incidents lie within its first hour, and have their
    /// consequences within a UTC day only if `start` leaves an hour of it.
    #[must_use]
    pub fn new(seed: u64, start: EventTime) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self { start, second: 0, traces_per_s: TRACES_PER_S, is_governed: false, owed: 0.0, random }
    }

    /// The same company with a gateway that governs: calls of services that speak GenOps bear a decision and
    /// accounting, and have the events that the specification asks for, as log records.
    #[must_use]
    pub fn governed(mut self) -> Self {
        self.is_governed = true;
        self
    }

    /// The same company with more or less to do; a trace has about two and a half spans.
    #[must_use]
    pub fn with_traces_per_s(mut self, traces_per_s: f64) -> Self {
        self.traces_per_s = traces_per_s;
        self
    }

    /// What goes wrong, in order of time.
    #[must_use]
    pub fn incidents(&self) -> Vec<Incident> {
        let at = |minute: i64| self.start.plus(minute * 60 * NANOS_PER_S);
        let to_incident = |plan: &incidents::Plan| Incident {
            at: at(plan.from_minute),
            until: at(plan.until_minute),
            name: plan.name,
            story: plan.story,
        };
        INCIDENTS.iter().map(to_incident).collect()
    }

    /// Everything that is sent in the whole seconds up to `until`, in the order in which it is sent.
    ///
    /// Spans are less than ten seconds older than the newest span before them, except for those that are late on
    /// purpose.
    pub fn next_batch(&mut self, until: EventTime) -> Vec<Message> {
        let mut messages = Vec::new();
        while self.start.plus((self.second + 1) * NANOS_PER_S) <= until {
            self.write_second(&mut messages);
            self.second += 1;
        }
        messages
    }

    fn write_second(&mut self, messages: &mut Vec<Message>) {
        let (second, begin) = (self.second, self.start.plus(self.second * NANOS_PER_S));
        let mut by_collector: [Vec<RowDraft>; COLLECTORS] = [const { Vec::new() }; COLLECTORS];
        self.owed += self.traces_per_s;
        let mut scribe = Scribe::new(&mut self.random, (second, begin), self.traces_per_s, self.is_governed);
        while self.owed >= 1.0 {
            self.owed -= 1.0;
            let index = scribe.pick();
            by_collector[index % COLLECTORS].extend(scribe.trace(&WORKLOADS[index]));
        }
        by_collector[0].extend(scribe.runaway());
        let late = (second % LATE_EVERY_S == LATE_EVERY_S - 1).then(|| scribe.late_trace());
        let logs: Vec<RowDraft> = scribe.logs().into_iter().chain(scribe.take_governance()).collect();
        for spans in by_collector.into_iter().chain(late).filter(|spans| !spans.is_empty()) {
            messages.push(message(Signal::Traces, &spans));
        }
        if !logs.is_empty() {
            messages.push(message(Signal::Logs, &logs));
        }
        if second % METRICS_EVERY_S == METRICS_EVERY_S - 1 {
            messages.push(message(Signal::Metrics, &scribe.metrics()));
        }
        if second == GARBAGE_AT_S {
            messages.push((Signal::Traces, None, b"\xff\xfe this is not OTLP".to_vec()));
        }
    }
}

/// Without a key, as the OpenTelemetry Collector writes by default.
fn message(signal: Signal, drafts: &[RowDraft]) -> Message {
    let payload = encode_protobuf(signal, drafts).expect("the company uses columns that exist");
    (signal, None, payload)
}

#[cfg(test)]
mod tests;
