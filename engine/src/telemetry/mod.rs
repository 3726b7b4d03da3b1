//! What lictor measures of itself, told to an OTLP receiver: metrics ([`exposition`]) and traces ([`epochs`]).
//!
//! A thread of its own sends both every few seconds, over OTLP/HTTP with protobuf. The loops know of a bounded queue
//! and nothing else, so a receiver that is away or slow costs them nothing. Metrics count from the start, so one that
//! comes back misses no count; epochs wait for it as long as there is room.

pub mod epochs;
pub mod exposition;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::http::Method;
use lictor_schemas::otlp::export::{self, AttributeValue, Attributes};
use lictor_schemas::time::EventTime;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::clock::Clock;
use crate::http::call::{CallError, Caller, Endpoint, Question};
use epochs::Epochs;

/// How long an answer may take. A process that stops waits for two of them.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// Epochs of one request: about 1 MB.
const BATCH_EPOCHS: usize = 512;

/// The statuses that ask to try again (OTLP, "Retryable Response Codes"); others are about what was sent.
const RETRYABLE: [u16; 4] = [429, 502, 503, 504];

const SIGNALS: [&str; 2] = ["metrics", "traces"];
const OUTCOMES: [&str; 3] = ["taken", "failed", "refused"];

/// Where it is told, and as whom.
#[derive(Clone, PartialEq, Eq)]
pub struct TelemetrySettings {
    /// The receiver; `/v1/metrics` and `/v1/traces` come behind its prefix.
    pub endpoint: Endpoint,
    /// How often.
    pub interval: Duration,
    /// Who we are: `service.name` and others.
    pub resource: Vec<(String, String)>,
}

impl TelemetrySettings {
    /// Says who we are, where that is not said already.
    #[must_use]
    pub fn of_instance(mut self, application_id: &str, instance_id: &str) -> Self {
        for (name, value) in [
            ("service.name", "lictor"),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("service.instance.id", instance_id),
            ("lictor.application_id", application_id),
        ] {
            if self.resource.iter().all(|(said, _)| said != name) {
                self.resource.push((name.to_owned(), value.to_owned()));
            }
        }
        self
    }
}

/// Shows where, and nothing that could be a secret.
impl fmt::Debug for TelemetrySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TelemetrySettings")
            .field("endpoint", &self.endpoint)
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

/// What is counted of what is sent.
#[derive(Clone, Debug)]
pub struct ExportCounts {
    posts: Family<[(&'static str, &'static str); 2], Counter>,
    dropped: Counter,
}

impl Default for ExportCounts {
    fn default() -> Self {
        let posts: Family<[(&str, &str); 2], Counter> = Family::default();
        for signal in SIGNALS {
            OUTCOMES
                .into_iter()
                .for_each(|outcome| drop(posts.get_or_create(&[("signal", signal), ("outcome", outcome)])));
        }
        Self { posts, dropped: Counter::default() }
    }
}

impl ExportCounts {
    /// Makes them metrics.
    pub(crate) fn register(&self, to: &mut Registry) {
        let posts = "Requests with telemetry of lictor's own, by signal and outcome: a failed one is sent again";
        to.register("telemetry_posts", posts, self.posts.clone());
        let dropped = "Epochs that are in no trace: there was no room for more, or they were refused";
        to.register("telemetry_dropped_epochs", dropped, self.dropped.clone());
    }

    fn posted(&self, signal: &'static str, outcome: &'static str) {
        self.posts.get_or_create(&[("signal", signal), ("outcome", outcome)]).inc();
    }

    fn dropped_epochs(&self, epochs: usize) {
        self.dropped.inc_by(epochs as u64);
    }

    #[cfg(test)]
    fn epochs_dropped(&self) -> u64 {
        self.dropped.get()
    }
}

/// What is sent.
pub struct Exported {
    /// The text that `/metrics` serves, as of now.
    pub metrics: Box<dyn Fn() -> String + Send>,
    /// What is to be traces.
    pub epochs: Arc<Epochs>,
    /// What is counted of it.
    pub counts: ExportCounts,
}

/// Sends what is due; nothing here waits for time to pass.
pub struct Sender<C> {
    caller: Caller,
    resource: Attributes,
    exported: Exported,
    clock: C,
    started: EventTime,
    ids: fastrand::Rng,
    is_failing: bool,
}

impl<C: Clock> Sender<C> {
    /// Nothing is sent yet; counters count from now.
    ///
    /// # Errors
    /// The operating system refuses what waiting for answers needs.
    pub fn try_new(settings: TelemetrySettings, exported: Exported, clock: C) -> io::Result<Self> {
        let text = |(name, value): (String, String)| (name, AttributeValue::Text(value));
        let resource = settings.resource.into_iter().map(text).collect();
        let caller = Caller::try_new(settings.endpoint)?.with_patience(ANSWER_MAX);
        // Traces of two instances must not have the same ids, however close they were started.
        let ids = fastrand::Rng::new();
        let started = clock.now();
        Ok(Self { caller, resource, exported, clock, started, ids, is_failing: false })
    }

    /// Sends the metrics as they are, and the epochs that wait. `redact` takes secrets out of other people's messages.
    pub fn send(&mut self, redact: &dyn Fn(&str) -> String) {
        let metrics = exposition::to_metrics(&(self.exported.metrics)());
        let body = export::metrics_request(&self.resource, &metrics, (self.started, self.clock.now()));
        let said = self.post("metrics", "/v1/metrics", body);
        let told = self.send_epochs();
        let answer = said.and(told);
        match answer {
            Ok(()) if self.is_failing => tracing::info!("the OTLP receiver takes telemetry again"),
            Err(ref error) if !self.is_failing => {
                let (url, error) = (self.caller.endpoint().to_url(), redact(&error.to_string()));
                tracing::warn!(url, error, "the OTLP receiver does not take lictor's own telemetry: tried again");
            }
            Ok(()) | Err(_) => {}
        }
        self.is_failing = answer.is_err();
    }

    fn send_epochs(&mut self) -> Result<(), CallError> {
        let mut waiting = self.exported.epochs.take();
        while !waiting.is_empty() {
            let rest = waiting.split_off(waiting.len().min(BATCH_EPOCHS));
            let now = (self.clock.now(), self.clock.monotonic());
            let ids = &mut self.ids;
            let spans: Vec<_> = waiting.iter().flat_map(|epoch| epochs::to_spans(epoch, now, ids)).collect();
            let body = export::traces_request(&self.resource, &spans);
            if let Err(error) = self.post("traces", "/v1/traces", body) {
                if is_temporary(&error) {
                    waiting.extend(rest);
                    self.exported.epochs.put_back(waiting);
                } else {
                    self.exported.counts.dropped_epochs(waiting.len());
                    self.exported.epochs.put_back(rest);
                }
                return Err(error);
            }
            waiting = rest;
        }
        Ok(())
    }

    fn post(&self, signal: &'static str, path: &str, body: Vec<u8>) -> Result<(), CallError> {
        let question = Question { method: Method::POST, path, content_type: "application/x-protobuf", body };
        let answer = self.caller.ask(question).map(drop);
        self.exported.counts.posted(
            signal,
            match &answer {
                Ok(()) => "taken",
                Err(error) if is_temporary(error) => "failed",
                Err(_) => "refused",
            },
        );
        answer
    }
}

fn is_temporary(error: &CallError) -> bool {
    match error {
        CallError::Unreachable(_) => true,
        CallError::Status { status, .. } => RETRYABLE.contains(status),
    }
}

/// A running exporter; it ends with the value, after it has sent what there is.
#[derive(Debug)]
pub struct Exporter {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Exporter {
    /// Sends every `interval` from now on.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start<C: Clock + Send + 'static>(
        mut sender: Sender<C>,
        interval: Duration,
        redact: impl Fn(&str) -> String + Send + 'static,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let run = move || {
            let mut due = sender.clock.monotonic() + interval;
            while !stopping.load(Ordering::Relaxed) {
                let now = sender.clock.monotonic();
                if now < due {
                    thread::park_timeout(due - now);
                    continue;
                }
                due = now + interval;
                sender.send(&redact);
            }
            // Nobody waits for a receiver that was away just now.
            if !sender.is_failing {
                sender.send(&redact);
            }
        };
        let thread = thread::Builder::new().name("telemetry".to_owned()).spawn(run)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the thread that sends telemetry panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests;
