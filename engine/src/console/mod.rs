//! The console: what an instance knows of itself, for people with a browser.
//!
//! The loops tell a [`Console`] what they have done and, once per second, how they are. From that it makes an immutable
//! [`Snapshot`] and publishes it; whoever asks over HTTP reads the last one and never meets a lock that a loop takes.
//! What is expensive to collect is collected only while somebody looks, and everything that is kept has a limit.
//!
//! It shows what *this* instance reads and judges: with several instances each has a console of its own.

mod access;
mod api;
mod card;
mod pages;
mod rates;
mod series;
mod snapshot;
mod view;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lictor_connectors::TopicPartition;
use lictor_schemas::event::EnforcementEvent;
use lictor_schemas::tables::Signal;
use lictor_schemas::time::EventTime;
use tokio::sync::watch;

pub(crate) use access::is_asked_here;
pub use access::{TOKEN_CHARS_MIN, is_local};
pub use api::router;
pub use card::{ReloadNote, RuleCard};
pub use snapshot::Snapshot;

use crate::aside::{AsideCounts, LastDead};
use crate::decision::{AllStanding, Decision};
use crate::http::SignalTime;
use crate::judge_stage::RuleStatus;
use crate::scan_stage::ScanCounts;
use crate::watermark::Mark;
use crate::windowed::Observed;
use card::Cards;
use rates::{Rates, Second};
use series::SeriesBook;
use snapshot::{RuleFigures, Totals};

/// Events that are kept: some screens full. An event has about 2 kB.
pub const EVENTS_MAX: usize = 1_000;

/// Directives that a snapshot has: nobody reads further down, and a search narrows what is shown of them. Collecting
/// them takes about a millisecond, once per second while somebody looks.
pub const DIRECTIVES_MAX: usize = 1_000;

/// Somebody looks as long as he has asked within this time: a page asks every second or two.
const LOOKING: Duration = Duration::from_secs(10);

/// Who the instance is and who may see it.
#[derive(Clone, Default)]
pub struct ConsoleOptions {
    /// Names the deployment.
    pub application_id: String,
    /// Names the instance.
    pub instance_id: String,
    /// Whoever asks must say it; none lets this machine ask, and nobody else.
    pub token: Option<String>,
    /// Whether a certificate is as good, and without a token needed.
    pub needs_certificate: bool,
    /// Whether rules may be read again from here.
    pub allow_reload: bool,
    /// Shards of the deployment, of which this instance serves some.
    pub shards: u32,
}

/// What the judge loop knows of itself.
#[derive(Debug, Default)]
pub struct Status {
    /// How the rules are doing.
    pub rules: Vec<RuleStatus>,
    /// How long judging has taken, of each rule.
    pub spent: BTreeMap<String, Duration>,
    /// What holds, if that was asked for.
    pub standing: Option<AllStanding>,
    /// Where input partitions stand.
    pub marks: Vec<Mark>,
    /// How far the time of each signal has come.
    pub times: BTreeMap<Signal, SignalTime>,
    /// Shards that are served.
    pub shards: usize,
}

/// Collects, and publishes snapshots.
pub struct Console {
    options: ConsoleOptions,
    recording: Mutex<Recording>,
    published: watch::Sender<Arc<Snapshot>>,
    cards: Mutex<Arc<Cards>>,
    /// When somebody has asked last, in milliseconds of the monotonic clock, and one more.
    asked_ms: AtomicU64,
}

/// What the loops have told so far.
#[derive(Default)]
struct Recording {
    totals: Totals,
    aside: BTreeMap<TopicPartition, AsideCounts>,
    letters: LastDead,
    events: VecDeque<(u64, Arc<EnforcementEvent>)>,
    /// Events of each rule, and when the last one was.
    by_rule: BTreeMap<String, (u64, EventTime)>,
    lag: BTreeMap<TopicPartition, i64>,
    /// Input partitions that this instance reads.
    partitions: usize,
    scan_spent: BTreeMap<String, Duration>,
    series: SeriesBook,
    standing: Arc<AllStanding>,
    rates: Rates,
}

impl Console {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(options: ConsoleOptions) -> Self {
        let (published, _) = watch::channel(Arc::new(Snapshot::default()));
        Self { options, recording: Mutex::default(), published, cards: Mutex::default(), asked_ms: AtomicU64::new(0) }
    }

    /// The rules that run now, and what was said when they were read.
    pub fn set_rules(&self, rules: Vec<RuleCard>, note: ReloadNote) {
        let mut cards = self.cards.lock().unwrap_or_else(PoisonError::into_inner);
        *cards = Arc::new(cards.with(Some(rules), note));
    }

    /// Rules were read again and the ones before stay, for the reason in the note.
    pub fn set_refused(&self, note: ReloadNote) {
        let mut cards = self.cards.lock().unwrap_or_else(PoisonError::into_inner);
        *cards = Arc::new(cards.with(None, note));
    }

    /// Rules were read again and are those that run: if what was read before was refused, that is over.
    pub fn set_unchanged(&self, note: ReloadNote) {
        let mut cards = self.cards.lock().unwrap_or_else(PoisonError::into_inner);
        if cards.is_refused() {
            *cards = Arc::new(cards.with(None, note));
        }
    }

    fn cards(&self) -> Arc<Cards> {
        Arc::clone(&self.cards.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Only the loops take this lock: the two of them, for microseconds.
    fn recording(&self) -> MutexGuard<'_, Recording> {
        self.recording.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An epoch of scanning is durable.
    pub fn scanned(&self, counts: &ScanCounts) {
        let mut recording = self.recording();
        recording.totals.add(counts);
        for (partition, counts) in &counts.aside {
            recording.aside.entry(partition.clone()).or_default().add(*counts);
        }
        recording.letters.append(counts.last_dead.clone());
    }

    /// An epoch of judging is durable.
    pub fn judged(&self, decisions: &[Decision], latency: Option<Duration>) {
        let mut recording = self.recording();
        recording.totals.events += decisions.len() as u64;
        if !decisions.is_empty() {
            recording.totals.latency = latency.or(recording.totals.latency);
        }
        let first = recording.totals.events - decisions.len() as u64;
        for (number, decision) in (first..).zip(decisions) {
            let data = &decision.event.data;
            match recording.by_rule.get_mut(&data.rule.name) {
                Some((count, at)) => (*count, *at) = (*count + 1, decision.event.time),
                None => drop(recording.by_rule.insert(data.rule.name.clone(), (1, decision.event.time))),
            }
            // Of a burst only the end is kept.
            if number + (EVENTS_MAX as u64) < recording.totals.events {
                continue;
            }
            recording.series.add_event(&decision.event);
            recording.keep_event(number, &decision.event);
        }
    }

    /// How many records of each partition that this instance reads were not read yet.
    pub fn lags(&self, lag: &[(TopicPartition, i64)]) {
        self.recording().lag = lag.iter().cloned().collect();
    }

    /// So many input partitions are read here.
    pub fn reads(&self, partitions: usize) {
        self.recording().partitions = partitions;
    }

    /// How long scanning has taken, of each rule.
    pub fn scan_spent(&self, spent: BTreeMap<String, Duration>) {
        self.recording().scan_spent = spent;
    }

    /// What groups of some rules measure.
    pub fn observed(&self, seen: &[(String, Observed)]) {
        let mut recording = self.recording();
        seen.iter().for_each(|(rule, observed)| recording.series.add_look(rule, observed));
    }

    /// Whether somebody looks at `monotonic`.
    #[must_use]
    pub fn is_watched(&self, monotonic: Duration) -> bool {
        let asked = self.asked_ms.load(Ordering::Relaxed);
        asked > 0 && monotonic.saturating_sub(Duration::from_millis(asked)) < LOOKING
    }

    /// Somebody looks at `monotonic`; returns whether somebody did before.
    fn note_watcher(&self, monotonic: Duration) -> bool {
        let was_watched = self.is_watched(monotonic);
        let ms = u64::try_from(monotonic.as_millis()).unwrap_or(u64::MAX);
        self.asked_ms.store(ms.saturating_add(1), Ordering::Relaxed);
        was_watched
    }

    /// Publishes a snapshot; to be called about once per second, with the time of both clocks.
    pub fn publish(&self, status: Status, (now, monotonic): (EventTime, Duration)) {
        let mut recording = self.recording();
        if let Some(standing) = status.standing {
            recording.standing = Arc::new(standing);
        }
        let mut spent = status.spent;
        for (rule, scanning) in &recording.scan_spent {
            *spent.entry(rule.clone()).or_default() += *scanning;
        }
        let lag = (!recording.lag.is_empty()).then(|| recording.lag.values().sum());
        let second = Second::new(now, &recording.totals, lag, &status.times);
        recording.rates.add(second, monotonic, spent);
        recording.series.retain(|rule| status.rules.iter().any(|status| status.name == rule));
        let names = status.rules.iter().map(|status| status.name.as_str());
        let figures = names.map(|name| recording.figures_of(name)).collect();
        let number = self.published.borrow().number + 1;
        let snapshot = Snapshot {
            number,
            at: now,
            totals: recording.totals,
            seconds: recording.rates.seconds(),
            rules: status.rules,
            figures,
            standing: Arc::clone(&recording.standing),
            events: recording.events.clone(),
            marks: status.marks,
            times: status.times,
            lag: recording.lag.clone(),
            aside: recording.aside.clone(),
            letters: recording.letters.clone(),
            series: recording.series.snapshot(),
            partitions: recording.partitions,
            shards: status.shards,
        };
        drop(recording);
        self.published.send_replace(Arc::new(snapshot));
    }
}

impl Recording {
    fn keep_event(&mut self, number: u64, event: &EnforcementEvent) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back((number, Arc::new(event.clone())));
    }

    fn figures_of(&self, rule: &str) -> RuleFigures {
        let (events, last_event) = self.by_rule.get(rule).map_or((0, None), |(count, at)| (*count, Some(*at)));
        let (spent, share) = self.rates.cost_of(rule);
        RuleFigures { events, last_event, spent, share, look: self.series.look_of(rule) }
    }
}

#[cfg(test)]
mod tests;
