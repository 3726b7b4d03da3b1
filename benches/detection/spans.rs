//! How a call, a tool and a reservation look in telemetry.

use fastrand::Rng;
use lictor_schemas::otlp::encode::RowDraft;
use lictor_schemas::tables::Table;
use lictor_schemas::time::{EventTime, NANOS_PER_MS};
use serde_json::{Value, json};

use super::incidents::{QUIET, Trouble, Visit};
use super::keys::{DENIED_MODEL, Key, SWAPPED_RESPONSE, TOOLS, scores_on_spans};
use super::random::{normal, weighted};
use super::traffic::{draft, to_f64};

const SECOND_NS: i64 = 1_000 * NANOS_PER_MS;

/// The share of answers that somebody evaluates.
const EVALUATED: f64 = 0.15;
const SCORE_SPREAD: f64 = 0.12;
/// How long a judge takes who writes a log record.
const JUDGED_AFTER_NS: i64 = 3 * SECOND_NS;

/// What a unit of work may take, as a multiple of its project's median: usually less than a hundredth take longer.
const TARGET: f64 = 4.0;

/// How a call ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Stopped,
    CutOff,
    CallsTools,
    Filtered,
    Failed,
}

/// A call of a model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) input_tokens: i64,
    pub(crate) output_tokens: i64,
    pub(crate) duration_ms: f64,
    pub(crate) ending: Ending,
}

impl Call {
    /// What it costs; one that fails costs nothing.
    pub(crate) fn cost_usd(&self, key: &Key) -> f64 {
        let model = key.model();
        let of = |tokens: i64, usd_per_mtok: f64| to_f64(tokens) * usd_per_mtok / 1e6;
        match self.ending {
            Ending::Failed => 0.0,
            _ => of(self.input_tokens, model.input_usd_per_mtok) + of(self.output_tokens, model.output_usd_per_mtok),
        }
    }
}

/// Writes the telemetry of one turn.
pub(crate) struct Writer<'a> {
    key: &'a Key,
    session: &'a str,
    trace_id: String,
    random: &'a mut Rng,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(key: &'a Key, session: &'a str, random: &'a mut Rng) -> Self {
        let trace_id = format!("{:032x}", random.u128(1..));
        Self { key, session, trace_id, random }
    }

    fn span(&mut self, name: &str, end: EventTime, duration_ms: f64) -> RowDraft {
        let key = self.key;
        let mut span = draft(
            Table::Spans,
            end,
            [
                ("service_name", key.name("service")),
                ("team", key.name("team")),
                ("project", key.name("project")),
                ("session_id", self.session.to_owned()),
                ("trace_id", self.trace_id.clone()),
                ("span_id", format!("{:016x}", self.random.u64(1..))),
                ("name", name.to_owned()),
                ("environment", "production".to_owned()),
            ],
        );
        span.columns.insert("duration_ms".to_owned(), json!(duration_ms));
        if key.tools.is_some() {
            set(&mut span, "agent_name", json!(key.name("agent")));
        }
        span
    }

    /// A call's span; `reserved` is what was reserved for it.
    pub(crate) fn call_span(
        &mut self,
        call: &Call,
        end: EventTime,
        trouble: Trouble,
        reserved: Option<f64>,
    ) -> RowDraft {
        let (key, model) = (self.key, self.key.model());
        let is_swapped = self.random.f64() < trouble.swapped;
        let request = if trouble.is_denied { DENIED_MODEL } else { model.request };
        let response = match (trouble.is_denied, is_swapped) {
            (true, _) => DENIED_MODEL,
            (false, true) => SWAPPED_RESPONSE,
            (false, false) => model.response,
        };
        let mut span = self.span(&format!("chat {request}"), end, call.duration_ms);
        for (name, text) in [
            ("kind", "CLIENT"),
            ("gen_ai_operation", "chat"),
            ("provider", model.provider),
            ("request_model", request),
            ("region", if trouble.strays { "us-east-1" } else { "eu-west-1" }),
            ("sla_tier", "standard"),
        ] {
            set(&mut span, name, json!(text));
        }
        set(&mut span, "sla_target_ms", json!(super::random::whole(TARGET * key.latency_ms)));
        if call.ending == Ending::Failed {
            set(&mut span, "status_code", json!("ERROR"));
            set(&mut span, "error_type", json!("overloaded"));
            return span;
        }
        let finish_reason = match call.ending {
            Ending::CutOff => "length",
            Ending::CallsTools => "tool_calls",
            Ending::Filtered => "content_filter",
            Ending::Stopped | Ending::Failed => "stop",
        };
        set(&mut span, "response_model", json!(response));
        set(&mut span, "finish_reason", json!(finish_reason));
        set(&mut span, "input_tokens", json!(call.input_tokens));
        set(&mut span, "output_tokens", json!(call.output_tokens));
        let cost = call.cost_usd(key);
        if key.reports_cost && !is_swapped && !trouble.is_denied || trouble.cost != QUIET.cost {
            set(&mut span, "cost_total", json!(cost * trouble.cost));
            set(&mut span, "cost_currency", json!("USD"));
        }
        if let Some(reserved) = reserved {
            set(&mut span, "accounting_reserved", json!(reserved));
            set(&mut span, "accounting_actual", json!(cost));
            set(&mut span, "accounting_unit", json!("USD"));
        }
        if scores_on_spans(key.number) {
            self.evaluate(&mut span, trouble);
        }
        span
    }

    /// Writes the score of an answer into a draft, if somebody evaluates it.
    fn evaluate(&mut self, draft: &mut RowDraft, trouble: Trouble) -> bool {
        let is_evaluated = self.random.f64() < EVALUATED;
        if is_evaluated {
            let score = self.key.score + trouble.score + SCORE_SPREAD * normal(self.random);
            set(draft, "eval_metric", json!("relevance"));
            set(draft, "eval_score", json!(score.clamp(0.0, 1.0)));
        }
        is_evaluated
    }

    /// The log record that OpenTelemetry has for the score of an answer, if somebody evaluates it and not on its span.
    pub(crate) fn evaluation(
        &mut self,
        call: &Call,
        end: EventTime,
        trouble: Trouble,
    ) -> Option<(EventTime, RowDraft)> {
        let (key, at) = (self.key, end.plus(JUDGED_AFTER_NS));
        let texts = [
            ("service_name", key.name("service")),
            ("team", key.name("team")),
            ("project", key.name("project")),
            ("event_name", "gen_ai.evaluation.result".to_owned()),
            ("trace_id", self.trace_id.clone()),
        ];
        let mut log = draft(Table::Logs, at, texts);
        let is_due = !scores_on_spans(key.number) && call.ending != Ending::Failed;
        (is_due && self.evaluate(&mut log, trouble)).then_some((at, log))
    }

    pub(crate) fn tool_span(&mut self, end: EventTime, duration_ms: f64, trouble: Trouble) -> RowDraft {
        let mut shares = self.key.tools.unwrap_or([1.0; 5]);
        if trouble.loses_tool {
            shares[0] = 0.0;
        }
        let tool = TOOLS[weighted(self.random, &shares)];
        let arguments = format!("{{\"q\":{}}}", self.random.u32(..));
        self.tool(tool, arguments, end, duration_ms)
    }

    fn tool(&mut self, tool: &str, arguments: String, end: EventTime, duration_ms: f64) -> RowDraft {
        let mut span = self.span(&format!("execute_tool {tool}"), end, duration_ms);
        for (name, text) in [("kind", "INTERNAL"), ("gen_ai_operation", "execute_tool"), ("tool_name", tool)] {
            set(&mut span, name, json!(text));
        }
        set(&mut span, "attr:gen_ai.tool.call.arguments", json!(arguments));
        span
    }

    /// What is written when a call begins and, if it is settled, when it has ended.
    pub(crate) fn reservation(
        &self,
        span: &RowDraft,
        (begin, end): (EventTime, EventTime),
        promised: f64,
        settled: Option<f64>,
    ) -> Vec<(EventTime, RowDraft)> {
        let log = |at: EventTime, name: &str, numbers: &[(&str, f64)]| {
            let mut log = draft(
                Table::Logs,
                at,
                [
                    ("service_name", self.key.name("service")),
                    ("team", self.key.name("team")),
                    ("event_name", name.to_owned()),
                    ("accounting_unit", "USD".to_owned()),
                    ("trace_id", self.trace_id.clone()),
                ],
            );
            log.columns.insert("span_id".to_owned(), span.columns["span_id"].clone());
            numbers.iter().for_each(|(name, number)| set(&mut log, name, json!(number)));
            (at, log)
        };
        let reserved = ("accounting_reserved", promised);
        let begun = log(begin, "genops.budget.reservation", &[reserved]);
        let done =
            settled.map(|actual| log(end, "genops.budget.reconciliation", &[reserved, ("accounting_actual", actual)]));
        [Some(begun), done].into_iter().flatten().collect()
    }

    /// The spans of somebody who comes for the `nth` time, with their ends, and in how many nanoseconds there is a next
    /// time.
    pub(crate) fn visit(
        &mut self,
        visit: Visit,
        nth: usize,
        at: EventTime,
    ) -> (Vec<(EventTime, RowDraft)>, Option<i64>) {
        let steps = to_f64(i64::try_from(nth).unwrap_or(i64::MAX));
        let call = |input: f64, output_tokens: i64, duration_ms: f64| Call {
            input_tokens: super::random::whole(input),
            output_tokens,
            duration_ms,
            ending: Ending::CallsTools,
        };
        match visit {
            Visit::Loop | Visit::SlowLoop => {
                let (per_step, every_ns) = match visit {
                    Visit::Loop => (120.0, 2 * SECOND_NS),
                    _ => (400.0, 20 * SECOND_NS),
                };
                let end = at.plus(SECOND_NS);
                let span = self.call_span(&call(2_000.0 + per_step * steps, 150, 1_000.0), end, QUIET, None);
                let arguments = match visit {
                    Visit::Loop => "{\"q\":\"the same\"}".to_owned(),
                    _ => format!("{{\"q\":{nth}}}"),
                };
                let tool = self.tool(TOOLS[0], arguments, end.plus(SECOND_NS / 5), 200.0);
                (vec![(end, span), (end.plus(SECOND_NS / 5), tool)], Some(every_ns))
            }
            Visit::Burst => (self.at_once(60, at, &call(1_000.0, 150, 20_000.0), SECOND_NS), None),
            Visit::Flood => (self.at_once(700, at, &call(200.0, 20, 300.0), 30 * SECOND_NS), None),
            Visit::Probe => {
                let filtered = Call { ending: Ending::Filtered, ..call(500.0, 5, 900.0) };
                let end = at.plus(SECOND_NS);
                (vec![(end, self.call_span(&filtered, end, QUIET, None))], Some(60 * SECOND_NS))
            }
        }
    }

    /// So many calls that begin within some time, each in a session of its own.
    fn at_once(&mut self, calls: usize, at: EventTime, call: &Call, within_ns: i64) -> Vec<(EventTime, RowDraft)> {
        let one = |n: usize| {
            let end = at.plus(self.random.i64(0..within_ns) + super::random::whole(call.duration_ms) * NANOS_PER_MS);
            let mut span = self.call_span(call, end, QUIET, None);
            set(&mut span, "session_id", json!(format!("{}-{n}", self.session)));
            (end, span)
        };
        (0..calls).map(one).collect()
    }
}

fn set(draft: &mut RowDraft, column: &str, value: Value) {
    draft.columns.insert(column.to_owned(), value);
}
