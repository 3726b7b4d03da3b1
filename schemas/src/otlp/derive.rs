//! Columns that follow from several facts of a row.
//!
//! A formula lives here if it reads more than one source: the cache convention of input tokens, cost, what remains of
//! a budget. Money and tokens of a row are worked out once and shared by the columns that show them.
//!
//! Invariant: a computed value is null when an input it needs is missing; nothing is assumed to be zero.

use std::borrow::Cow;

use super::cell::Cell;
use super::plan::{Plan, Slot};
use crate::columns::{Derivation, vocabulary};
use crate::prices::{PriceTable, Usage};
use crate::tables::Field;
use crate::time::EventTime;

const NANOS_PER_MS: f64 = 1e6;

/// Something that becomes a row: a span, a span event, a log record, a data point.
pub(super) trait Item<'a> {
    /// What OTLP itself says; null for a field that this item does not have.
    fn own(&self, field: Field) -> Cell<'a>;
}

/// The slots that computations read.
pub(super) struct Inputs {
    traceloop_kind: Option<usize>,
    input: Option<usize>,
    output: Option<usize>,
    cache_read: Option<usize>,
    cache_write: Option<usize>,
    reasoning: Option<usize>,
    cost_total: Option<usize>,
    cost_input: Option<usize>,
    cost_output: Option<usize>,
    provider: Option<usize>,
    request_model: Option<usize>,
    response_model: Option<usize>,
    allocated: Option<usize>,
    consumed: Option<usize>,
    reserved: Option<usize>,
    actual: Option<usize>,
    policy_result: Option<usize>,
    /// Whether a column shows a cost, so that a missing one is looked up in the price table.
    prices: bool,
}

impl Inputs {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            traceloop_kind: plan.slot_of("traceloop_span_kind"),
            input: plan.slot_of("input_tokens"),
            output: plan.slot_of("output_tokens"),
            cache_read: plan.slot_of("cache_read_tokens"),
            cache_write: plan.slot_of("cache_write_tokens"),
            reasoning: plan.slot_of("reasoning_tokens"),
            cost_total: plan.slot_of("cost_total"),
            cost_input: plan.slot_of("cost_input"),
            cost_output: plan.slot_of("cost_output"),
            provider: plan.slot_of("provider"),
            request_model: plan.slot_of("request_model"),
            response_model: plan.slot_of("response_model"),
            allocated: plan.slot_of("budget_allocated"),
            consumed: plan.slot_of("budget_consumed"),
            reserved: plan.slot_of("accounting_reserved"),
            actual: plan.slot_of("accounting_actual"),
            policy_result: plan.slot_of("policy_result"),
            prices: plan.derives(&[Derivation::CostTotal, Derivation::CostCurrency, Derivation::CostSource]),
        }
    }
}

/// A row while it is computed.
pub(super) struct Row<'r, 'a, I> {
    pub(super) plan: &'r Plan,
    pub(super) inputs: &'r Inputs,
    pub(super) slots: &'r [Slot<'a>],
    pub(super) item: &'r I,
}

/// Tokens and money of a row.
#[derive(Default)]
pub(super) struct Facts {
    input: Option<i64>,
    output: Option<i64>,
    cost: Option<Cost>,
}

struct Cost {
    total: f64,
    /// The currency that its source defines; empty if it does not.
    currency: &'static str,
    priced: bool,
}

impl Facts {
    /// Whether the row has used something: tokens, or money by its own account.
    pub(super) fn bears_usage(&self) -> bool {
        let tokens = self.input.unwrap_or(0).saturating_add(self.output.unwrap_or(0));
        tokens > 0 || self.cost.as_ref().is_some_and(|cost| !cost.priced && cost.total > 0.0)
    }
}

impl<'a, I: Item<'a>> Row<'_, 'a, I> {
    fn cell(&self, at: Option<usize>) -> Cell<'a> {
        at.map_or(Cell::Null, |at| self.slots[at].cell)
    }

    fn float(&self, at: Option<usize>) -> Option<f64> {
        self.cell(at).as_float()
    }

    fn unit(&self, at: Option<usize>) -> &'static str {
        at.map_or("", |at| self.plan.unit_of(at, self.slots[at]))
    }

    /// Works out tokens and money, as far as wanted columns need them.
    pub(super) fn facts(&self, prices: &PriceTable) -> Facts {
        let inputs = self.inputs;
        let cache_read = self.cell(inputs.cache_read).as_int();
        let cache_write = self.cell(inputs.cache_write).as_int();
        let cached = cache_read.unwrap_or(0).saturating_add(cache_write.unwrap_or(0));
        let input = self.cell(inputs.input).as_int().map(|n| cache_inclusive(n, cached));
        let output = self.cell(inputs.output).as_int();
        let usage = (input.is_some() || output.is_some()).then(|| Usage {
            input_tokens: input.unwrap_or(0),
            output_tokens: output.unwrap_or(0),
            cache_read_tokens: cache_read.unwrap_or(0),
            cache_write_tokens: cache_write.unwrap_or(0),
            reasoning_tokens: self.cell(inputs.reasoning).as_int().unwrap_or(0),
        });
        let cost = self.reported_cost().or_else(|| {
            let total = self.priced_cost(prices, &usage.filter(|_| inputs.prices)?)?;
            Some(Cost { total, currency: "USD", priced: true })
        });
        Facts { input, output, cost }
    }

    fn reported_cost(&self) -> Option<Cost> {
        let inputs = self.inputs;
        if let Some(total) = self.float(inputs.cost_total) {
            return Some(Cost { total, currency: self.unit(inputs.cost_total), priced: false });
        }
        let total = self.float(inputs.cost_input)? + self.float(inputs.cost_output)?;
        let (unit, other) = (self.unit(inputs.cost_input), self.unit(inputs.cost_output));
        Some(Cost { total, currency: if unit == other { unit } else { "" }, priced: false })
    }

    /// The model that answered is priced; if it has no price, the one that was asked for.
    fn priced_cost(&self, prices: &PriceTable, usage: &Usage) -> Option<f64> {
        let at = EventTime(self.item.own(Field::EventTime).as_time()?);
        let provider: Option<Cow<'_, str>> = self.cell(self.inputs.provider).as_str().map(vocabulary::provider);
        [self.inputs.response_model, self.inputs.request_model].into_iter().find_map(|model| {
            let model = self.cell(model).as_str()?;
            prices.cost_usd(provider.as_deref(), model, at, usage)
        })
    }

    /// The value of a computed column whose own sources fill slot `at`.
    pub(super) fn derived(&self, derivation: Derivation, at: usize, facts: &Facts) -> Cell<'a> {
        let read = self.slots[at].cell;
        match derivation {
            Derivation::None | Derivation::UsageLeaf => read,
            Derivation::AgentName => self.agent_name(at),
            Derivation::OperationName => or(read, || self.item.own(Field::SpanName)),
            Derivation::EventName => or(self.item.own(Field::EventName), || or(read, || self.body_name())),
            Derivation::InputTokens => Cell::int(facts.input),
            Derivation::TotalTokens => match (facts.input, facts.output) {
                (Some(input), Some(output)) => Cell::Int(input.saturating_add(output)),
                _ => read,
            },
            Derivation::CostTotal => Cell::float(facts.cost.as_ref().map(|cost| cost.total)),
            Derivation::CostCurrency => currency(read, facts.cost.as_ref()),
            Derivation::CostSource => match &facts.cost {
                Some(cost) => Cell::Str(if cost.priced { "priced" } else { "reported" }),
                None => Cell::Null,
            },
            Derivation::LatencyMs => or(self.item.own(Field::DurationMs), || read),
            Derivation::TtftMs => self.ttft_ms(read),
            Derivation::StatusCode => or(read, || self.item.own(Field::StatusCode)),
            Derivation::BudgetRemaining => or(read, || self.difference(self.inputs.allocated, self.inputs.consumed)),
            Derivation::BudgetUtilization => or(self.utilization(), || read),
            Derivation::AccountingUnit => or(read, || {
                or(Cell::text(self.unit(self.inputs.reserved)), || Cell::text(self.unit(self.inputs.actual)))
            }),
            Derivation::AccountingDelta => or(read, || self.difference(self.inputs.actual, self.inputs.reserved)),
            Derivation::PolicyTime if self.cell(self.inputs.policy_result).is_null() => read,
            Derivation::PolicyTime => or(read, || self.item.own(Field::EventTime)),
        }
    }

    fn agent_name(&self, at: usize) -> Cell<'a> {
        let slot = self.slots[at];
        let is_agent =
            || self.cell(self.inputs.traceloop_kind).as_str().is_some_and(|k| k.eq_ignore_ascii_case("agent"));
        if self.plan.is_of_agent(at, slot) && !is_agent() { Cell::Null } else { slot.cell }
    }

    fn body_name(&self) -> Cell<'a> {
        match self.item.own(Field::Body) {
            Cell::Str(body) if vocabulary::is_event_name(body) => Cell::Str(body),
            _ => Cell::Null,
        }
    }

    fn ttft_ms(&self, read: Cell<'a>) -> Cell<'a> {
        match (read, self.item.own(Field::StartTime)) {
            (Cell::Time(first_token), Cell::Time(start)) => {
                Cell::Float(first_token.saturating_sub(start) as f64 / NANOS_PER_MS)
            }
            (Cell::Time(_), _) => Cell::Null,
            _ => read,
        }
    }

    fn difference(&self, from: Option<usize>, minus: Option<usize>) -> Cell<'a> {
        Cell::float(self.float(from).zip(self.float(minus)).map(|(from, minus)| from - minus))
    }

    fn utilization(&self) -> Cell<'a> {
        let pair = self.float(self.inputs.consumed).zip(self.float(self.inputs.allocated));
        Cell::float(pair.filter(|(_, allocated)| *allocated > 0.0).map(|(consumed, allocated)| consumed / allocated))
    }
}

fn or<'a>(first: Cell<'a>, second: impl FnOnce() -> Cell<'a>) -> Cell<'a> {
    if first.is_null() { second() } else { first }
}

/// Sources that count cached tokens apart (Anthropic's own numbers) show more cached than input tokens.
fn cache_inclusive(input: i64, cached: i64) -> i64 {
    if cached > input { input.saturating_add(cached) } else { input }
}

fn currency<'a>(reported: Cell<'a>, cost: Option<&Cost>) -> Cell<'a> {
    match cost {
        Some(cost) if cost.priced => Cell::Str(cost.currency),
        Some(cost) => or(reported, || Cell::text(cost.currency)),
        None => reported,
    }
}
