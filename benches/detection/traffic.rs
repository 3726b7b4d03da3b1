//! Telemetry without end: sessions come, call models and tools, and go; spans leave in the order in which they end.
//!
//! It is stationary: nothing but the hour of the day and chance makes one day another. Sessions arrive as a Poisson
//! process whose rate follows the hour; a session has three turns in the mean, so calls come in bursts. Latencies and
//! tokens are log-normal, latency follows output, load and a model's weather (an AR(1) process with a memory of an
//! hour and a standard deviation of 5 %).
//!
//! Invariant: the seed determines every byte.

use std::collections::BTreeMap;

use fastrand::Rng;
use lictor_schemas::otlp::encode::RowDraft;
use lictor_schemas::tables::Table;
use lictor_schemas::time::{EventTime, NANOS_PER_MS};
use serde_json::json;

use super::incidents::{Calendar, Trouble, Visit};
use super::keys::{KEYS_PER_MODEL, Key, MODELS, keys};
use super::random::{log_normal, normal, poisson, whole};
use super::spans::{Call, Ending, Writer};

/// What leaves together. A collector would send more often; each message costs the rules that speak on update a look at
/// all that they hold, so a minute is what keeps a seed to minutes. Times are those of rows whatever it is.
pub(crate) const CHUNK_NS: i64 = 60_000 * NANOS_PER_MS;
const HOUR_NS: i64 = 3_600_000 * NANOS_PER_MS;

/// A session ends after each turn with this probability.
const ENDS: f64 = 1.0 / 3.0;
/// An agent calls a model twice in a turn, in the mean.
const STEPS: f64 = 2.0;
/// How much of a model's weather is left after a chunk: of an hour's, exp(-1).
const WEATHER_KEPT: f64 = 0.983_471;
const WEATHER_SPREAD: f64 = 0.05;
/// By how much a day's busiest and quietest hours differ from its mean: calls come 60 % more or fewer, and are 8 %
/// slower or faster.
const SEASON: f64 = 0.6;
const LOAD: f64 = 0.08;
/// The share of calls that reserve a budget before.
const RESERVES: f64 = 0.05;
/// What a reservation is that nobody settles.
const LEAK_USD: f64 = 20.0;

/// What comes next in a session.
#[derive(Clone, Debug)]
struct Turn {
    key: usize,
    session: String,
    /// Tokens of what was said before.
    context: f64,
    /// Who visits, and for the how manieth time; none is somebody like everybody.
    visit: Option<(Visit, usize)>,
}

/// The stream.
pub(crate) struct Traffic {
    random: Rng,
    calendar: Calendar,
    pub(crate) keys: Vec<Key>,
    now: EventTime,
    turns: BTreeMap<(EventTime, u64), Turn>,
    /// Spans and log records that have not ended yet.
    outbox: BTreeMap<(EventTime, u64), RowDraft>,
    weather: [f64; MODELS.len()],
    serial: u64,
    /// What each key has spent, and its latencies if they are to be kept.
    pub(crate) spent_usd: Vec<f64>,
    pub(crate) latencies_ms: Option<Vec<Vec<f64>>>,
}

impl Traffic {
    /// The keys that `company` makes, at work from `start` on as `seed` has it.
    pub(crate) fn new((company, seed): (u64, u64), start: EventTime, calendar: Calendar) -> Self {
        let keys = keys(&mut Rng::with_seed(company));
        let mut traffic = Self {
            random: Rng::with_seed(seed),
            calendar,
            spent_usd: vec![0.0; keys.len()],
            latencies_ms: None,
            keys,
            now: start,
            turns: BTreeMap::new(),
            outbox: BTreeMap::new(),
            weather: [0.0; MODELS.len()],
            serial: 0,
        };
        traffic.expect_visits();
        traffic
    }

    fn expect_visits(&mut self) {
        for incident in self.calendar.incidents.clone() {
            let Some((visit, keys)) = incident.visit() else { continue };
            for key in keys {
                self.serial += 1;
                let session = format!("visit-{key:02}-{}", self.serial);
                let turn = Turn { key, session, context: 0.0, visit: Some((visit, 0)) };
                self.turns.insert((incident.from, self.serial), turn);
            }
        }
    }

    /// What ends within the next chunk, by the time it ends; and when the chunk ends.
    pub(crate) fn next_chunk(&mut self) -> (Vec<RowDraft>, EventTime) {
        let end = self.now.plus(CHUNK_NS);
        for weather in &mut self.weather {
            let left = (1.0 - WEATHER_KEPT * WEATHER_KEPT).sqrt();
            *weather = WEATHER_KEPT * *weather + left * WEATHER_SPREAD * normal(&mut self.random);
        }
        for key in 0..self.keys.len() {
            self.begin_sessions(key);
        }
        while let Some(next) = self.turns.first_entry().filter(|next| next.key().0 < end) {
            let ((at, _), turn) = next.remove_entry();
            self.take_turn(at, turn);
        }
        self.now = end;
        let later = self.outbox.split_off(&(end, 0));
        let done = std::mem::replace(&mut self.outbox, later);
        (done.into_values().collect(), end)
    }

    fn begin_sessions(&mut self, number: usize) {
        let trouble = self.calendar.trouble(number / KEYS_PER_MODEL, self.now);
        let key = &self.keys[number];
        let calls_per_session = if key.tools.is_some() { STEPS } else { 1.0 } / ENDS;
        let chunk_h = to_f64(CHUNK_NS) / to_f64(HOUR_NS);
        let calls = key.calls_per_h * (1.0 + SEASON * self.season(key)) * trouble.traffic * chunk_h;
        for _ in 0..poisson(&mut self.random, calls / calls_per_session) {
            self.serial += 1;
            let at = self.now.plus(self.random.i64(0..CHUNK_NS));
            let session = format!("s-{number:02}-{}", self.serial);
            self.turns.insert((at, self.serial), Turn { key: number, session, context: 0.0, visit: None });
        }
    }

    /// From -1 in the quietest hour to 1 in the busiest.
    fn season(&self, key: &Key) -> f64 {
        let hour = to_f64(self.now.0.rem_euclid(24 * HOUR_NS)) / to_f64(HOUR_NS);
        (std::f64::consts::TAU * (hour - key.peak_h) / 24.0).cos()
    }

    fn take_turn(&mut self, at: EventTime, mut turn: Turn) {
        let trouble = self.calendar.trouble(turn.key / KEYS_PER_MODEL, at);
        let key = self.keys[turn.key].clone();
        let mut writer = Writer::new(&key, &turn.session, &mut self.random);
        let mut end = at;
        match turn.visit {
            Some((visit, nth)) => {
                let (spans, next) = writer.visit(visit, nth, at);
                spans.into_iter().for_each(|(end, span)| self.leave(end, span));
                // A visit lasts as long as its incident.
                let is_over = trouble.visit != Some(visit);
                if let Some(next_ns) = next.filter(|_| !is_over) {
                    turn.visit = Some((visit, nth + 1));
                    self.come_back(at.plus(next_ns), turn);
                }
                return;
            }
            None => {
                let steps = if key.tools.is_some() { self.random.usize(1..=3) } else { 1 };
                for step in 0..steps {
                    let call = self.call(&key, turn.context, trouble, step + 1 == steps);
                    turn.context += 200.0 + to_f64(call.output_tokens);
                    let begin = end;
                    end = end.plus(whole(call.duration_ms * to_f64(NANOS_PER_MS)));
                    self.account(&key, &turn.session, (begin, end), &call, trouble);
                    if step + 1 < steps {
                        end = self.use_tool(&key, &turn.session, end, trouble);
                    }
                }
            }
        }
        if self.random.f64() > ENDS {
            let think_ms = log_normal(&mut self.random, 40_000.0, 0.8);
            self.come_back(end.plus(whole(think_ms * to_f64(NANOS_PER_MS))), turn);
        }
    }

    fn come_back(&mut self, at: EventTime, turn: Turn) {
        self.serial += 1;
        self.turns.insert((at, self.serial), turn);
    }

    fn leave(&mut self, end: EventTime, draft: RowDraft) {
        self.serial += 1;
        self.outbox.insert((end, self.serial), draft);
    }

    fn call(&mut self, key: &Key, context: f64, trouble: Trouble, is_last: bool) -> Call {
        let weather = self.weather[key.model_number()];
        let load = (LOAD * self.season(key) + weather).exp();
        let random = &mut self.random;
        let input = trouble.tokens * (log_normal(random, key.input_tokens, 0.5) + context);
        let output = trouble.tokens * log_normal(random, key.output_tokens, 0.6);
        // Half of the median latency is writing the answer.
        let writing = 0.5 + 0.5 * output / (trouble.tokens * key.output_tokens);
        let tail = if random.f64() < 0.01 { 3.0 } else { 1.0 };
        let duration_ms = log_normal(random, key.latency_ms, 0.35) * writing * load * tail * trouble.latency;
        let ending = match random.f64() {
            chance if chance < trouble.failing => Ending::Failed,
            chance if chance < trouble.failing + trouble.cut_off => Ending::CutOff,
            _ if !is_last => Ending::CallsTools,
            _ => Ending::Stopped,
        };
        if let Some(latencies) = &mut self.latencies_ms {
            latencies[key.number].push(duration_ms);
        }
        Call { input_tokens: whole(input), output_tokens: whole(output).max(1), duration_ms, ending }
    }

    /// A call's span, and what is said of its budget.
    fn account(&mut self, key: &Key, session: &str, at: (EventTime, EventTime), call: &Call, trouble: Trouble) {
        let reserves = trouble.leaks || self.random.f64() < RESERVES;
        let mut writer = Writer::new(key, session, &mut self.random);
        let cost = call.cost_usd(key);
        self.spent_usd[key.number] += cost;
        let reserved = if trouble.overdraws { cost / 3.0 } else { 1.5 * cost };
        let span = writer.call_span(call, at.1, trouble, reserves.then_some(reserved));
        if trouble.is_silent {
            return;
        }
        let logs = reserves.then(|| {
            let promised = if trouble.leaks { LEAK_USD } else { reserved };
            let settled = (!trouble.leaks).then_some(cost);
            writer.reservation(&span, at, promised, settled)
        });
        let evaluation = writer.evaluation(call, at.1, trouble);
        self.leave(at.1, span);
        logs.into_iter().flatten().chain(evaluation).for_each(|(when, log)| self.leave(when, log));
    }

    fn use_tool(&mut self, key: &Key, session: &str, begin: EventTime, trouble: Trouble) -> EventTime {
        let duration_ms = log_normal(&mut self.random, 150.0, 0.6);
        let end = begin.plus(whole(duration_ms * to_f64(NANOS_PER_MS)));
        let span = Writer::new(key, session, &mut self.random).tool_span(end, duration_ms, trouble);
        if !trouble.is_silent {
            self.leave(end, span);
        }
        end
    }
}

/// A span or log record of a table.
pub(crate) fn draft<const N: usize>(table: Table, at: EventTime, texts: [(&str, String); N]) -> RowDraft {
    let columns = texts.into_iter().map(|(name, text)| (name.to_owned(), json!(text))).collect();
    RowDraft { table, event_time: at, columns }
}

#[expect(clippy::cast_precision_loss, reason = "lengths of time and token counts")]
pub(crate) fn to_f64(number: i64) -> f64 {
    number as f64
}
