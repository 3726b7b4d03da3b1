//! Traces: what a request leaves behind, in the dialect of the service that made it.

use std::collections::BTreeMap;

use fastrand::Rng;
use lictor_schemas::otlp::encode::RowDraft;
use lictor_schemas::tables::Table;
use lictor_schemas::time::{EventTime, NANOS_PER_MS};
use serde_json::{Value, json};

use super::governance::govern;
use super::incidents::Trouble;
use super::workloads::{Dialect, EMBEDDER, Model, OPUS, RUNAWAY, Shape, WEIGHTS, WORKLOADS, Workload};

/// Columns of a draft that is being written.
pub(super) type Columns = BTreeMap<String, Value>;

/// Writes the telemetry of one second.
pub(super) struct Scribe<'a> {
    pub(super) random: &'a mut Rng,
    pub(super) second: i64,
    pub(super) begin: EventTime,
    trouble: Trouble,
    /// Sessions per project that are open at a time: enough that a healthy one makes a few calls a minute.
    sessions: u32,
    /// Events of calls of this second, if they are governed.
    governance: Option<Vec<RowDraft>>,
}

/// A call of a model.
struct Call<'a> {
    model: &'a Model,
    response: &'a str,
    operation: &'static str,
    input_tokens: i64,
    output_tokens: i64,
    duration_ms: f64,
}

impl Call<'_> {
    fn cost(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^52")]
        let of = |tokens: i64, usd_per_mtok: f64| tokens as f64 * usd_per_mtok / 1e6;
        of(self.input_tokens, self.model.input_usd_per_mtok) + of(self.output_tokens, self.model.output_usd_per_mtok)
    }
}

/// What all spans of a trace have in common.
struct Trace<'a> {
    workload: &'a Workload,
    common: Columns,
    end: EventTime,
}

impl<'a> Scribe<'a> {
    pub(super) fn new(
        random: &'a mut Rng,
        (second, begin): (i64, EventTime),
        traces_per_s: f64,
        is_governed: bool,
    ) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and never is negative")]
        let sessions = 20 + (traces_per_s * 5.0) as u32;
        let governance = is_governed.then(Vec::new);
        Self { random, second, begin, trouble: Trouble::at(second), sessions, governance }
    }

    /// The events of the calls that were written.
    pub(super) fn take_governance(&mut self) -> Vec<RowDraft> {
        self.governance.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The index of the workload that makes the next request.
    pub(super) fn pick(&mut self) -> usize {
        let mut ticket = self.random.usize(0..WEIGHTS);
        let wins = |workload: &Workload| match ticket.checked_sub(workload.weight) {
            Some(rest) => {
                ticket = rest;
                false
            }
            None => true,
        };
        WORKLOADS.iter().position(wins).unwrap_or(0)
    }

    /// The spans of one request that ends within this second.
    pub(super) fn trace(&mut self, workload: &Workload) -> Vec<RowDraft> {
        let end = self.moment();
        let trace = self.open(workload, end);
        match workload.shape {
            Shape::Chat => {
                let call = self.call(workload);
                vec![self.call_span(&trace, &call, end, None)]
            }
            Shape::Retrieval => self.retrieval(&trace),
            Shape::Agent => self.agent(&trace),
        }
    }

    /// A request whose spans come minutes after the fact.
    pub(super) fn late_trace(&mut self) -> Vec<RowDraft> {
        let workload = &WORKLOADS[1];
        let end = self.begin.plus(-self.random.i64(60..600) * 1_000 * NANOS_PER_MS);
        let trace = self.open(workload, end);
        let call = self.call(workload);
        vec![self.call_span(&trace, &call, end, None)]
    }

    /// The next step of the runaway agent, if it runs.
    pub(super) fn runaway(&mut self) -> Vec<RowDraft> {
        let Some(progress) = self.trouble.runaway() else { return Vec::new() };
        let workload = &WORKLOADS[RUNAWAY];
        let end = self.moment();
        let mut trace = self.open(workload, end);
        trace.common.insert("session_id".to_owned(), json!("lab-loop-7f3a"));
        trace.common.insert("agent_name".to_owned(), json!("literature-scout"));
        let call = Call {
            model: &OPUS,
            response: OPUS.response,
            operation: "chat",
            input_tokens: self.around(17_000.0 + 33_000.0 * progress, 0.1),
            output_tokens: self.around(600.0, 0.2),
            duration_ms: self.duration(1500.0),
        };
        vec![self.call_span(&trace, &call, end, None)]
    }

    fn retrieval(&mut self, trace: &Trace<'_>) -> Vec<RowDraft> {
        let answer = self.call(trace.workload);
        let embed = Call {
            model: &EMBEDDER,
            response: EMBEDDER.response,
            operation: "embeddings",
            input_tokens: self.around(40.0, 0.5),
            output_tokens: 0,
            duration_ms: self.duration(60.0),
        };
        let embedded_at = trace.end.plus(-nanos(answer.duration_ms));
        vec![self.call_span(trace, &embed, embedded_at, None), self.call_span(trace, &answer, trace.end, None)]
    }

    /// An agent's span comes last and says the usage of all calls below it once more.
    fn agent(&mut self, trace: &Trace<'_>) -> Vec<RowDraft> {
        let agent_id = self.id(16);
        let (mut spans, mut end) = (Vec::new(), trace.end);
        let (mut input_tokens, mut output_tokens, mut cost) = (0, 0, 0.0);
        for step in 0..self.random.usize(1..=3) {
            let call = self.call(trace.workload);
            input_tokens += call.input_tokens;
            output_tokens += call.output_tokens;
            cost += call.cost();
            spans.push(self.call_span(trace, &call, end, Some(&agent_id)));
            end = end.plus(-nanos(call.duration_ms));
            if step > 0 {
                let (tool, took) = self.tool_span(trace, end, &agent_id);
                spans.push(tool);
                end = end.plus(-took);
            }
        }
        spans.reverse();
        let mut columns = trace.common.clone();
        let name = format!("{}-agent", trace.workload.project);
        columns.extend(texts([
            ("name", &format!("invoke_agent {name}")),
            ("span_id", &agent_id),
            ("kind", "INTERNAL"),
        ]));
        columns.insert("agent_name".to_owned(), json!(name));
        columns.insert("gen_ai_operation".to_owned(), json!("invoke_agent"));
        columns.insert("start_time".to_owned(), json!(end.0));
        columns.extend(usage(trace.workload.dialect, input_tokens, output_tokens, cost));
        spans.push(RowDraft { table: Table::Spans, event_time: trace.end, columns });
        spans
    }

    /// A tool's span and how long it took, in nanoseconds.
    fn tool_span(&mut self, trace: &Trace<'_>, end: EventTime, parent: &str) -> (RowDraft, i64) {
        let tool = ["search_orders", "read_page", "run_sql", "send_mail"][self.random.usize(0..4)];
        let duration_ms = self.duration(150.0);
        let mut columns = trace.common.clone();
        columns.extend(texts([
            ("name", &format!("execute_tool {tool}")),
            ("parent_span_id", parent),
            ("kind", "INTERNAL"),
        ]));
        columns.extend(texts([("span_id", &self.id(16)), ("gen_ai_operation", "execute_tool"), ("tool_name", tool)]));
        columns.insert("duration_ms".to_owned(), json!(duration_ms));
        (RowDraft { table: Table::Spans, event_time: end, columns }, nanos(duration_ms))
    }

    fn call(&mut self, workload: &Workload) -> Call<'static> {
        let model = self.trouble.model(workload, self.random.f64());
        let response = self.trouble.response(model, self.random.f64());
        let length = self.trouble.length(workload);
        Call {
            model,
            response,
            operation: "chat",
            input_tokens: self.around(workload.tokens.0 * length, 0.5),
            output_tokens: self.around(workload.tokens.1 * length, 0.5),
            duration_ms: self.duration(workload.latency_ms * self.trouble.slowness(workload)),
        }
    }

    fn call_span(&mut self, trace: &Trace<'_>, call: &Call<'_>, end: EventTime, parent: Option<&str>) -> RowDraft {
        let dialect = trace.workload.dialect;
        let mut columns = trace.common.clone();
        let name = format!("{} {}", call.operation, call.model.request);
        columns.extend(texts([("name", name.as_str()), ("span_id", &self.id(16)), ("kind", "CLIENT")]));
        columns.extend(parent.map(|parent| ("parent_span_id".to_owned(), json!(parent))));
        columns.insert("duration_ms".to_owned(), json!(call.duration_ms));
        if self.random.u32(0..200) == 0 {
            columns.extend(texts([
                ("status_code", "ERROR"),
                ("error_type", "overloaded"),
                ("status_message", "try later"),
            ]));
        }
        columns.extend(match dialect {
            Dialect::OpenInference => texts([
                ("attr:llm.provider", call.model.provider),
                ("attr:llm.request.model_name", call.model.request),
                ("attr:llm.response.model_name", call.response),
                ("attr:openinference.span.kind", if call.operation == "embeddings" { "EMBEDDING" } else { "LLM" }),
            ]),
            Dialect::GenOps | Dialect::OpenTelemetry => texts([
                ("provider", call.model.provider),
                ("request_model", call.model.request),
                ("response_model", call.response),
                ("gen_ai_operation", call.operation),
            ]),
        });
        columns.extend(usage(dialect, call.input_tokens, call.output_tokens, call.cost()));
        if let Some(events) = self.governance.as_mut().filter(|_| dialect == Dialect::GenOps) {
            let operation_type = if call.operation == "embeddings" { "embedding" } else { "inference" };
            events.extend(govern(&mut columns, (operation_type, call.cost()), end, nanos(call.duration_ms)));
        }
        RowDraft { table: Table::Spans, event_time: end, columns }
    }

    fn open<'w>(&mut self, workload: &'w Workload, end: EventTime) -> Trace<'w> {
        let session = self.session(workload);
        let customer = format!("customer-{:03}", self.random.u32(0..200));
        let environment = if self.random.u32(0..20) == 0 { "staging" } else { "production" };
        let mut common = Columns::from(texts([
            ("service_name", workload.service),
            ("team", workload.team),
            ("project", workload.project),
            ("trace_id", &self.id(32)),
        ]));
        common.extend(texts([("environment", environment), ("customer_id", &customer), ("session_id", &session)]));
        Trace { workload, common, end }
    }

    /// One of the sessions that are open; every ten minutes new ones take their places.
    pub(super) fn session(&mut self, workload: &Workload) -> String {
        format!("{}-{}-{}", workload.project, self.second / 600, self.random.u32(0..self.sessions))
    }

    /// An instant within this second.
    pub(super) fn moment(&mut self) -> EventTime {
        self.begin.plus(self.random.i64(0..1_000) * NANOS_PER_MS)
    }

    /// An id of so many hex digits, not zero.
    fn id(&mut self, digits: usize) -> String {
        let number = self.random.u128(1..=u128::MAX);
        let text = format!("{number:032x}");
        if text[..digits].bytes().all(|c| c == b'0') { "1".repeat(digits) } else { text[..digits].to_owned() }
    }

    /// A whole number around `middle`, at most `spread` of it away.
    fn around(&mut self, middle: f64, spread: f64) -> i64 {
        #[expect(clippy::cast_possible_truncation, reason = "token counts are small")]
        let number = (middle * (1.0 + spread * (2.0 * self.random.f64() - 1.0))) as i64;
        number
    }

    /// A duration in milliseconds around `median_ms`; one in thirty takes more than twice as long.
    fn duration(&mut self, median_ms: f64) -> f64 {
        let tail = if self.random.u32(0..30) == 0 { 2.2 } else { 1.0 };
        (median_ms * (0.6 + 0.8 * self.random.f64()) * tail).round()
    }
}

/// Tokens and cost in the words of a dialect.
fn usage(dialect: Dialect, input: i64, output: i64, cost: f64) -> Vec<(String, Value)> {
    let names = match dialect {
        Dialect::GenOps => ["input_tokens", "output_tokens", "cost_total"],
        Dialect::OpenTelemetry => ["attr:gen_ai.usage.input_tokens", "attr:gen_ai.usage.output_tokens", ""],
        Dialect::OpenInference => {
            ["attr:llm.token_count.prompt", "attr:llm.token_count.completion", "attr:llm.cost.total"]
        }
    };
    let currency = (dialect == Dialect::GenOps).then(|| ("cost_currency".to_owned(), json!("USD")));
    let values = [json!(input), json!(output), json!(cost)];
    let columns = names.into_iter().zip(values).filter(|(name, _)| !name.is_empty());
    columns.map(|(name, value)| (name.to_owned(), value)).chain(currency).collect()
}

/// Text columns.
pub(super) fn texts<const N: usize>(columns: [(&str, &str); N]) -> [(String, Value); N] {
    columns.map(|(name, text)| (name.to_owned(), json!(text)))
}

fn nanos(ms: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "durations are minutes at most")]
    let nanos = (ms * NANOS_PER_MS as f64) as i64;
    nanos
}
