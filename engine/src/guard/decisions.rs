//! What the guard says of the calls that it stops: each is a span with its decision, on a topic of telemetry.
//!
//! Answers never wait for it: spans go through a queue with an end to a thread that writes them. What does not fit, or
//! what the brokers do not take, is left out and counted.

use std::iter;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use lictor_connectors::{ConnectorError, Outgoing, Sink};
use lictor_schemas::columns::RequestColumns;
use lictor_schemas::genops::PolicyResult;
use lictor_schemas::otlp::stopped::{StoppedCall, TOLD};
use lictor_schemas::time::EventTime;

use super::answer::{Outcome, STALE_REASON_CODE, Verdict};
use super::metrics::RecordedCounts;

/// At about 1 kB each they take 10 MB: two seconds of a guard that stops all that one core can answer.
const WAITING_MAX: usize = 10_000;

/// So many are on their way before they are waited for.
const WRITTEN_AT_ONCE_MAX: usize = 500;

/// Where the HTTP thread leaves what is to be written.
pub type Queue = SyncSender<Vec<u8>>;

/// A queue, and what a thread takes from it.
#[must_use]
pub fn queue() -> (Queue, Receiver<Vec<u8>>) {
    sync_channel(WAITING_MAX)
}

/// The caller's place in a trace: what `traceparent` says (W3C Trace Context, level 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    trace_id: u128,
    span_id: u64,
}

impl Caller {
    /// Reads `00-<trace id>-<span id>-<flags>`; none if it is anything else, or an id is zero.
    #[must_use]
    pub fn from_traceparent(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let (version, trace_id, span_id, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_hex = |text: &str| text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        let sizes = [(version, 2), (trace_id, 32), (span_id, 16), (flags, 2)];
        let is_well_formed = sizes.iter().all(|(part, digits)| part.len() == *digits && is_hex(part));
        // A later version may say more; this one is never to be.
        if !is_well_formed || version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let (trace_id, span_id) = (u128::from_str_radix(trace_id, 16).ok()?, u64::from_str_radix(span_id, 16).ok()?);
        (trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id })
    }
}

/// The span that is to be written of a decision; none if the call goes on, which is then its caller's to record.
///
/// `ids` are of a new trace and a new span; the trace is the caller's if he has one.
#[must_use]
pub fn message(
    verdict: &Verdict,
    request: &RequestColumns<'_>,
    caller: Option<Caller>,
    at: EventTime,
    ids: (u128, u64),
) -> Option<Vec<u8>> {
    let result = match verdict.outcome {
        Outcome::Allow => return None,
        Outcome::Throttle => PolicyResult::RateLimited,
        Outcome::Deny => PolicyResult::Blocked,
    };
    let stale = verdict.stale.filter(|_| verdict.is_refused_unknown()).map(|(stale, _)| stale.to_string());
    let held = verdict.directive.as_deref();
    let call = StoppedCall {
        at,
        trace_id: caller.map_or(ids.0, |caller| caller.trace_id),
        span_id: ids.1,
        parent_span_id: caller.map(|caller| caller.span_id),
        said: TOLD.iter().filter_map(|column| Some((*column, request.get(column)?))).collect(),
        result,
        reason_code: match held {
            Some(held) => held.reason_code.as_ref().map(|code| code.as_str()),
            None => Some(STALE_REASON_CODE),
        },
        rule: held.map(|held| held.rule.as_str()),
        message: held.map_or(stale.as_deref(), |held| held.message.as_deref()),
        directive_id: held.map(|held| held.directive_id.as_str()),
    };
    Some(call.to_message())
}

/// Leaves a span to be written, if there is room.
pub(super) fn leave(queue: &Queue, message: Vec<u8>, counts: &RecordedCounts) {
    match queue.try_send(message) {
        Ok(()) => {}
        Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => counts.add_left_out(),
    }
}

/// Writes what is left in the queue to `topic`, until nobody can leave anything any more. What goes wrong is logged
/// when it changes, with secrets taken out by `redact`, and the spans that it concerns are counted as undelivered.
pub fn write(
    waiting: &Receiver<Vec<u8>>,
    (sink, topic): (&mut dyn Sink, &str),
    counts: &RecordedCounts,
    redact: &dyn Fn(&str) -> String,
) {
    let mut trouble = None;
    while let Ok(first) = waiting.recv() {
        let batch: Vec<_> = iter::once(first).chain(waiting.try_iter().take(WRITTEN_AT_ONCE_MAX - 1)).collect();
        let spans = batch.len() as u64;
        let (undelivered, error) = write_batch(batch, sink, topic);
        counts.add_undelivered(undelivered);
        counts.add_written(spans.saturating_sub(undelivered));
        let told = error.map(|error| redact(&error.to_string()));
        if let Some(error) = told.as_ref().filter(|_| told != trouble) {
            tracing::error!(topic, error, "decisions could not be written");
        }
        trouble = told;
    }
}

/// How many spans the brokers do not have, and the last reason.
fn write_batch(batch: Vec<Vec<u8>>, sink: &mut dyn Sink, topic: &str) -> (u64, Option<ConnectorError>) {
    let (mut undelivered, mut last) = (0, None);
    for payload in batch {
        let message = Outgoing { topic: topic.to_owned(), key: None, payload: Some(payload), headers: Vec::new() };
        if let Err(error) = sink.publish(&message) {
            (undelivered, last) = (undelivered + 1, Some(error));
        }
    }
    if let Err(error) = sink.flush() {
        undelivered += if let ConnectorError::Undelivered { failed, .. } = &error { *failed } else { 0 };
        last = Some(error);
    }
    (undelivered, last)
}

#[cfg(test)]
mod tests;
