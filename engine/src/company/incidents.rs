//! What goes wrong in the company, when, and how it shows in the telemetry.

use super::workloads::{DENIED, Model, SWAPPED_RESPONSE, Workload};

/// An incident on the company's calendar, in minutes after its start.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) from_minute: i64,
    pub(super) until_minute: i64,
    pub(super) name: &'static str,
    pub(super) story: &'static str,
}

pub(super) static INCIDENTS: [Plan; 5] = [
    Plan {
        from_minute: 8,
        until_minute: 14,
        name: "denied model",
        story: "team marketing tries deepseek-reasoner, which is not on the allow-list",
    },
    Plan {
        from_minute: 15,
        until_minute: 25,
        name: "slow model",
        story: "the cart assistant's model answers four, then eight times slower than usual",
    },
    Plan {
        from_minute: 28,
        until_minute: 40,
        name: "runaway agent",
        story: "an agent of team research calls itself in circles with an ever longer context",
    },
    Plan {
        from_minute: 32,
        until_minute: 44,
        name: "silent model swap",
        story: "two of three requests for gpt-4o are answered by gpt-4o-mini, and nobody was told",
    },
    Plan {
        from_minute: 45,
        until_minute: 50,
        name: "cost jump",
        story: "a change of team fraud's prompt makes every request eight times longer",
    },
];

/// What is wrong in one second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trouble {
    second: i64,
}

impl Trouble {
    pub(super) fn at(second: i64) -> Self {
        Self { second }
    }

    fn is_within(self, from_minute: i64, until_minute: i64) -> bool {
        (from_minute * 60..until_minute * 60).contains(&self.second)
    }

    fn is_on(self, name: &str) -> bool {
        INCIDENTS.iter().any(|plan| plan.name == name && self.is_within(plan.from_minute, plan.until_minute))
    }

    /// The model that a request goes to; `chance` is drawn from 0 to 1.
    pub(super) fn model(self, workload: &Workload, chance: f64) -> &'static Model {
        let is_tempted = workload.team == "marketing" && self.is_on("denied model") && chance < 0.3;
        if is_tempted { &DENIED } else { workload.model }
    }

    /// The model that an answer says it comes from.
    pub(super) fn response(self, model: &Model, chance: f64) -> &'static str {
        let is_swapped = model.request == "gpt-4o" && self.is_on("silent model swap") && chance < 0.65;
        if is_swapped { SWAPPED_RESPONSE } else { model.response }
    }

    /// By how much a call takes longer than usual.
    pub(super) fn slowness(self, workload: &Workload) -> f64 {
        match workload.project == "cart-assistant" && self.is_on("slow model") {
            true if self.is_within(20, 25) => 8.0,
            true => 4.0,
            false => 1.0,
        }
    }

    /// By how much a call is longer than usual.
    pub(super) fn length(self, workload: &Workload) -> f64 {
        if workload.team == "fraud" && self.is_on("cost jump") { 8.0 } else { 1.0 }
    }

    /// How far the runaway agent has come, 0 to 1, if it calls a model in this second: in every other one.
    pub(super) fn runaway(self) -> Option<f64> {
        let plan = INCIDENTS.iter().find(|plan| plan.name == "runaway agent")?;
        let (from, until) = (plan.from_minute * 60, plan.until_minute * 60);
        let is_calling = self.is_within(plan.from_minute, plan.until_minute) && self.second % 2 == 0;
        let to_float = |seconds: i64| f64::from(i32::try_from(seconds).unwrap_or(i32::MAX));
        is_calling.then(|| to_float(self.second - from) / to_float(until - from))
    }
}
