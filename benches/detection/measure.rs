//! What rules have said, held against what went wrong.

use std::collections::BTreeMap;

use lictor_engine::backtest::Witness;
use lictor_schemas::event::{EnforcementEvent, State};
use lictor_schemas::time::EventTime;

use super::incidents::Calendar;
use super::keys::{KEYS, KEYS_PER_MODEL, MODELS, is_agent, number_in, scores_on_spans};

/// Whom a directive is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    Key(usize),
    Model(usize),
    /// Somebody else: a model that is on no list.
    Other,
}

/// A directive that began.
#[derive(Clone, Debug)]
pub(crate) struct Alarm {
    pub(crate) rule: String,
    pub(crate) who: Who,
    /// By event time: a window's end, or the row that was too much.
    pub(crate) at: EventTime,
    /// What it said.
    pub(crate) message: String,
}

/// Notes the directives that begin.
#[derive(Debug, Default)]
pub(crate) struct Listener {
    pub(crate) alarms: Vec<Alarm>,
}

impl Witness for Listener {
    fn see(&mut self, event: &EnforcementEvent) {
        if event.data.state != State::Firing {
            return;
        }
        let rule = event.data.rule.name.clone();
        let message = event.data.finding.message.clone().unwrap_or_default();
        self.alarms.push(Alarm { rule, who: who(event), at: event.time, message });
    }
}

fn who(event: &EnforcementEvent) -> Who {
    let text = |column: &&str| event.data.selector.matches.get(*column)?.as_str();
    let of_key = ["team", "project", "service_name", "agent_name"].iter().filter_map(text).find_map(number_in);
    if let Some(key) = of_key {
        return Who::Key(key);
    }
    let names = || ["request_model", "response_model", "model"].iter().filter_map(text);
    let model = MODELS.iter().position(|model| names().any(|name| name == model.request || name == model.response));
    model.map_or(Who::Other, Who::Model)
}

/// How soon one rule has seen one kind of incident, in nanoseconds of event time; none if it has not.
pub(crate) type Delays = Vec<Option<i64>>;

/// An incident is over for its rules an hour after its end: windows of an hour close then.
const GRACE_NS: i64 = 3_600_000_000_000;

/// Adds to `delays`, by the number of the kind and the rule, what the rules have made of the incidents.
pub(crate) fn add_delays(alarms: &[Alarm], calendar: &Calendar, delays: &mut BTreeMap<(usize, &'static str), Delays>) {
    for (number, incident) in calendar.incidents.iter().enumerate() {
        let model = incident.kind.model;
        let mut by_rule = |rule: &'static str, is_meant: &dyn Fn(Who) -> bool| {
            let within = |alarm: &&Alarm| {
                alarm.rule == rule
                    && is_meant(alarm.who)
                    && (incident.from <= alarm.at && alarm.at <= incident.until.plus(GRACE_NS))
            };
            let first = alarms.iter().filter(within).map(|alarm| alarm.at).min();
            let delay = first.map(|at| at.0 - incident.from.0);
            delays.entry((number, rule)).or_default().push(delay);
        };
        for rule in incident.kind.claimed_by {
            if is_by_model(rule) {
                by_rule(rule, &|who| matches!(who, Who::Other) || who == Who::Model(model));
            } else {
                let keys = model * KEYS_PER_MODEL..(model + 1) * KEYS_PER_MODEL;
                for key in keys.filter(|key| has_what_it_reads(rule, *key)) {
                    by_rule(rule, &|who| who == Who::Key(key));
                }
            }
        }
    }
}

/// Rules whose subject is a model and nobody's project.
fn is_by_model(rule: &str) -> bool {
    matches!(rule, "latency_anomaly" | "model_mix" | "model_swap" | "provider_errors" | "unpriced_model")
}

/// How many keys or models a rule judges.
pub(crate) fn judged(rule: &str) -> usize {
    if is_by_model(rule) { MODELS.len() } else { (0..KEYS).filter(|key| has_what_it_reads(rule, *key)).count() }
}

/// Whether a key's telemetry has what a rule about keys reads.
fn has_what_it_reads(rule: &str, key: usize) -> bool {
    match rule {
        "eval_drift" => scores_on_spans(key),
        "eval_drift_logged" => !scores_on_spans(key),
        "mix_drift_tool" | "parallel_burst" => is_agent(key),
        _ => true,
    }
}
