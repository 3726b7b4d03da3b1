//! What goes wrong on the eighth day, and which rules claim to see it.

use fastrand::Rng;
use lictor_schemas::time::EventTime;

use super::keys::KEYS_PER_MODEL;

const MINUTE_NS: i64 = 60_000_000_000;
const HOUR_NS: i64 = 60 * MINUTE_NS;

/// A kind of incident. It befalls all keys of one model at the same time.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// The model whose keys it befalls.
    pub(crate) model: usize,
    pub(crate) minutes: i64,
    /// The rules that claim to see it.
    pub(crate) claimed_by: &'static [&'static str],
    trouble: Trouble,
}

/// What is other than usual; the neutral value of each field is that of [`QUIET`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Trouble {
    /// Sessions that begin, as a multiple of the usual.
    pub(crate) traffic: f64,
    pub(crate) tokens: f64,
    pub(crate) latency: f64,
    /// The share of answers from another model than was asked for.
    pub(crate) swapped: f64,
    /// The share of answers that are cut off.
    pub(crate) cut_off: f64,
    /// The share of calls that fail.
    pub(crate) failing: f64,
    /// Added to the mean score of evaluations.
    pub(crate) score: f64,
    /// The reported cost as a multiple of the true one.
    pub(crate) cost: f64,
    /// The agent has lost the tool that it calls most.
    pub(crate) loses_tool: bool,
    /// Nothing is exported.
    pub(crate) is_silent: bool,
    /// Reservations are large, and nobody settles them.
    pub(crate) leaks: bool,
    /// Units of work consume three times what was reserved.
    pub(crate) overdraws: bool,
    /// Calls go to a region that is not on the list.
    pub(crate) strays: bool,
    /// Calls go to a model that is on no list and has no price.
    pub(crate) is_denied: bool,
    pub(crate) visit: Option<Visit>,
}

/// Somebody who comes once when an incident begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visit {
    /// An agent that calls itself every two seconds, the same tool in between, with an ever longer context.
    Loop,
    /// The same with a call every twenty seconds and other arguments each time.
    SlowLoop,
    /// Sixty calls of twenty seconds at once.
    Burst,
    /// Seven hundred short calls in half a minute.
    Flood,
    /// Somebody who tries out what a content filter lets pass, once a minute.
    Probe,
}

pub(crate) const QUIET: Trouble = Trouble {
    traffic: 1.0,
    tokens: 1.0,
    latency: 1.0,
    swapped: 0.0,
    cut_off: 0.03,
    failing: 0.005,
    score: 0.0,
    cost: 1.0,
    loses_tool: false,
    is_silent: false,
    leaks: false,
    overdraws: false,
    strays: false,
    is_denied: false,
    visit: None,
};

const fn visit(visit: Visit) -> Trouble {
    Trouble { visit: Some(visit), ..QUIET }
}

#[rustfmt::skip] // A table.
pub(crate) const KINDS: [Kind; 21] = [
    Kind { name: "silent model swap, 60 % of answers", model: 0, minutes: 720,
        claimed_by: &["model_swap", "model_mix", "mix_drift_model"], trouble: Trouble { swapped: 0.6, ..QUIET } },
    Kind { name: "silent model swap, 10 % of answers", model: 2, minutes: 720,
        claimed_by: &["model_swap", "mix_drift_model"], trouble: Trouble { swapped: 0.1, ..QUIET } },
    Kind { name: "tokens +30 %", model: 1, minutes: 720,
        claimed_by: &["shape_drift_output", "reference_drift_output", "unit_cost_drift"],
        trouble: Trouble { tokens: 1.3, ..QUIET } },
    Kind { name: "tokens +60 %", model: 3, minutes: 720,
        claimed_by: &["shape_drift_output", "reference_drift_output", "unit_cost_drift"],
        trouble: Trouble { tokens: 1.6, ..QUIET } },
    Kind { name: "latency × 2", model: 4, minutes: 720,
        claimed_by: &["latency_p95", "latency_anomaly", "shape_drift_latency", "reference_drift_latency", "sla_latency",
                      "sla_latency_burn"],
        trouble: Trouble { latency: 2.0, ..QUIET } },
    Kind { name: "latency × 1.3", model: 6, minutes: 720,
        claimed_by: &["shape_drift_latency", "reference_drift_latency"],
        trouble: Trouble { latency: 1.3, ..QUIET } },
    Kind { name: "an agent loses its main tool", model: 5, minutes: 720,
        claimed_by: &["mix_drift_tool"], trouble: Trouble { loses_tool: true, ..QUIET } },
    Kind { name: "answers cut off, 3 → 15 %", model: 8, minutes: 720,
        claimed_by: &["mix_drift_finish"], trouble: Trouble { cut_off: 0.15, ..QUIET } },
    Kind { name: "scores −0.06 (half a σ)", model: 9, minutes: 720,
        claimed_by: &["eval_drift", "eval_drift_logged"], trouble: Trouble { score: -0.06, ..QUIET } },
    Kind { name: "runaway loop, a call every 2 s", model: 6, minutes: 30,
        claimed_by: &["session_runaway", "session_step_limit", "repeat_call_loop", "context_snowball",
                      "cost_anomaly", "spend_level_anomaly"], trouble: visit(Visit::Loop) },
    Kind { name: "slow loop, a call every 20 s", model: 7, minutes: 120,
        claimed_by: &["session_step_limit", "context_snowball"], trouble: visit(Visit::SlowLoop) },
    Kind { name: "traffic × 60 for two hours", model: 0, minutes: 120,
        claimed_by: &["cost_anomaly", "spend_level_anomaly", "budget_burn_fast", "budget_forecast",
                      "team_daily_budget"], trouble: Trouble { traffic: 60.0, ..QUIET } },
    Kind { name: "traffic × 15 for ten hours", model: 2, minutes: 600,
        claimed_by: &["budget_burn_slow", "budget_forecast", "team_daily_budget"],
        trouble: Trouble { traffic: 15.0, ..QUIET } },
    Kind { name: "20 % of calls fail", model: 8, minutes: 120,
        claimed_by: &["provider_errors"], trouble: Trouble { failing: 0.2, ..QUIET } },
    Kind { name: "no telemetry", model: 3, minutes: 60,
        claimed_by: &["telemetry_silence"], trouble: Trouble { is_silent: true, ..QUIET } },
    Kind { name: "60 calls at once", model: 9, minutes: 10,
        claimed_by: &["parallel_burst"], trouble: visit(Visit::Burst) },
    Kind { name: "700 calls within a minute", model: 4, minutes: 10,
        claimed_by: &["key_rate_limit"], trouble: visit(Visit::Flood) },
    Kind { name: "content filter, once a minute", model: 1, minutes: 30,
        claimed_by: &["content_block_rate"], trouble: visit(Visit::Probe) },
    Kind { name: "reservations that nobody settles", model: 7, minutes: 120,
        claimed_by: &["accounting_gap_logged", "reservation_overcommit"], trouble: Trouble { leaks: true, ..QUIET } },
    Kind { name: "reported costs +10 %, thrice the reserved", model: 4, minutes: 60,
        claimed_by: &["cost_recompute_mismatch", "accounting_delta"],
        trouble: Trouble { cost: 1.1, overdraws: true, ..QUIET } },
    Kind { name: "denied model and region", model: 5, minutes: 60,
        claimed_by: &["model_allow_list", "region_allow_list", "unpriced_model"],
        trouble: Trouble { strays: true, is_denied: true, ..QUIET } },
];

/// An incident that happens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Incident {
    pub(crate) kind: &'static Kind,
    pub(crate) from: EventTime,
    pub(crate) until: EventTime,
}

/// When what happens.
#[derive(Clone, Debug)]
pub(crate) struct Calendar {
    pub(crate) incidents: Vec<Incident>,
}

impl Calendar {
    /// Nothing goes wrong.
    pub(crate) fn quiet() -> Self {
        Self { incidents: Vec::new() }
    }

    /// Every kind of incident on the day that begins at `day`. Those of twelve hours begin in its first half, at any
    /// minute; of two of one model the second is on the day after, so that neither hides the other.
    pub(crate) fn on(day: EventTime, random: &mut Rng) -> Self {
        let mut incidents: Vec<Incident> = Vec::new();
        for kind in &KINDS {
            let earliest_ns = 24 * HOUR_NS * i64::from(incidents.iter().any(|other| other.kind.model == kind.model));
            let latest_ns = (24 * 60 - kind.minutes).min(20 * 60) * MINUTE_NS;
            let from = day.plus(earliest_ns + random.i64(0..latest_ns));
            incidents.push(Incident { kind, from, until: from.plus(kind.minutes * MINUTE_NS) });
        }
        Self { incidents }
    }

    /// What is wrong with a model's keys.
    pub(crate) fn trouble(&self, model: usize, at: EventTime) -> Trouble {
        let is_on = |incident: &&Incident| incident.kind.model == model && incident.from <= at && at < incident.until;
        self.incidents.iter().find(is_on).map_or(QUIET, |incident| incident.kind.trouble)
    }
}

impl Incident {
    /// Whom somebody visits, and for how long.
    pub(crate) fn visit(&self) -> Option<(Visit, std::ops::Range<usize>)> {
        let first = self.kind.model * KEYS_PER_MODEL;
        self.kind.trouble.visit.map(|visit| (visit, first..first + KEYS_PER_MODEL))
    }
}
