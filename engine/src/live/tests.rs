//! The loop over scripted sources and a clock that moves when the script says so.

use std::collections::VecDeque;
use std::sync::Arc;

use lictor_connectors::Outgoing;
use lictor_queries::{References, RuleFile, compile};
use lictor_schemas::event::EnforcementEvent;
use lictor_schemas::otlp::encode::{RowDraft, encode_protobuf};
use lictor_schemas::prices::PriceTable;
use lictor_schemas::tables::{Signal, Table};
use serde_json::json;

use super::*;
use crate::clock::ManualClock;
use crate::pipeline::PipelineSettings;

const SECOND: Duration = Duration::from_secs(1);
const SPANS: &str = "otlp_spans";

/// Counts the calls of each minute; every other minute has another result, so that each is news.
const COUNTED: &str = "CREATE RULE counted WITH (action = 'block', reason_code = 'x_test') AS
    SELECT team, window_start, window_end, count(*) AS observed,
           CASE WHEN date_part('minute', window_start) % 2 = 0 THEN 'WARNING' ELSE 'BLOCKED' END AS result
    FROM TUMBLE(spans, event_time, INTERVAL '1 minute') GROUP BY team, window_start, window_end EMIT ON CLOSE;";

fn start() -> EventTime {
    EventTime::from_rfc3339("2026-03-01T08:00:00Z").unwrap()
}

enum Step {
    /// A record of a partition with one row, so long after the start; the broker has it since the start.
    Row(i32, Duration),
    /// Nothing comes for so long.
    Quiet(Duration),
    /// The process stands still for so long, in the middle of a poll.
    Pause(Duration),
}

struct Script<'a> {
    clock: &'a ManualClock,
    steps: VecDeque<Step>,
    has_begun: bool,
    offset: i64,
}

impl Script<'_> {
    fn hand_over(&mut self, partition: i32, payload: &[u8], absorb: &mut dyn FnMut(RecordRef<'_>)) -> Polled {
        self.offset += 1;
        let (offset, timestamp_ms, key) = (self.offset, start().to_ms(), None);
        // Judging a record takes its time.
        self.clock.advance(SECOND);
        absorb(RecordRef {
            topic: SPANS,
            partition,
            offset,
            timestamp_ms,
            key,
            payload: Some(payload),
            ..RecordRef::default()
        });
        Polled::Record
    }
}

impl Source for Script<'_> {
    fn poll(&mut self, wait: Duration, absorb: &mut dyn FnMut(RecordRef<'_>)) -> Result<Polled, ConnectorError> {
        if !std::mem::replace(&mut self.has_begun, true) {
            let partitions = (0..2).map(|partition| TopicPartition::new(SPANS, partition)).collect();
            return Ok(Polled::Assignment(AssignmentChange::Assigned(partitions)));
        }
        match self.steps.pop_front() {
            Some(Step::Row(partition, after)) => {
                let at = start().plus(i64::try_from(after.as_nanos()).unwrap());
                let columns = [("team".to_owned(), json!("a"))].into();
                let row = RowDraft { table: Table::Spans, event_time: at, columns };
                let payload = encode_protobuf(Signal::Traces, &[row]).unwrap();
                Ok(self.hand_over(partition, &payload, absorb))
            }
            Some(Step::Quiet(rest)) => {
                self.clock.advance(wait);
                if let Some(rest) = rest.checked_sub(wait) {
                    self.steps.push_front(Step::Quiet(rest));
                }
                Ok(Polled::Empty)
            }
            Some(Step::Pause(length)) => {
                self.clock.advance(length);
                Ok(Polled::Empty)
            }
            None => Ok(Polled::Ended),
        }
    }

    fn commit(&mut self, _: &[(TopicPartition, NextOffset)]) -> Result<(), ConnectorError> {
        Ok(())
    }

    fn release(&mut self, _: &[TopicPartition]) -> Result<(), ConnectorError> {
        Ok(())
    }
}

#[derive(Default)]
struct Published(Vec<Outgoing>);

impl Sink for Published {
    fn publish(&mut self, message: &Outgoing) -> Result<(), ConnectorError> {
        self.0.push(message.clone());
        Ok(())
    }

    fn flush(&mut self) -> Result<(), ConnectorError> {
        Ok(())
    }
}

struct Nobody;

impl Observer for Nobody {
    fn committed(&mut self, _: &Epoch, _: EpochTiming, _: &Pipeline) {}
}

/// Runs the script to its end; everything that is published.
fn published(steps: Vec<Step>) -> Vec<Outgoing> {
    let (rules, faults) = compile(&[RuleFile { file: "r.sql".into(), text: COUNTED.into() }], &References::new());
    assert_eq!(faults, []);
    let pipeline = Pipeline::new(rules, Arc::new(PriceTable::empty()), &PipelineSettings::default());
    let clock = ManualClock::at(start().plus(3_600_000_000_000));
    let mut source = Script { clock: &clock, steps: steps.into(), has_begun: false, offset: 0 };
    let mut sink = Published::default();
    let ends = Ends { source: &mut source, sink: &mut sink, clock: &clock };
    run(ends, pipeline, LiveOptions::default(), &AtomicBool::new(false), &mut Nobody).unwrap();
    sink.0
}

/// How many calls each minute is said to have had, in the order of the events.
fn counts(steps: Vec<Step>) -> Vec<f64> {
    let messages = published(steps);
    let events = messages.iter().filter(|message| message.topic == OutputTopics::default().enforcement);
    let events = events.map(|message| EnforcementEvent::from_json(message.payload.as_ref().unwrap()).unwrap());
    events.filter_map(|event| event.data.finding.observed).collect()
}

/// A call every ten seconds of two minutes, and one much later.
fn two_minutes(partition: i32) -> impl Iterator<Item = Step> {
    (0..12).map(|i| i * 10).chain([300]).map(move |at| Step::Row(partition, at * SECOND))
}

#[test]
fn a_backlog_that_comes_partition_by_partition_loses_no_row() {
    // Forty records of one partition, a second each, before the other one's first.
    let early = (0..30).map(|_| Step::Row(0, Duration::ZERO));
    assert_eq!(counts(early.chain(two_minutes(0)).chain(two_minutes(1)).collect()), [42.0, 12.0]);
}

#[test]
fn a_process_that_was_paused_does_not_take_waiting_partitions_for_idle() {
    let steps = two_minutes(0).take(3).chain([Step::Pause(90 * SECOND)]);
    assert_eq!(counts(steps.chain(two_minutes(0).skip(3)).chain(two_minutes(1)).collect()), [12.0, 12.0]);
}

#[test]
fn a_partition_that_is_silent_while_we_are_listening_is_not_waited_for() {
    let steps = two_minutes(0).chain([Step::Quiet(31 * SECOND), Step::Row(0, 301 * SECOND)]);
    assert_eq!(counts(steps.collect()), [6.0, 6.0, 1.0]);
}
