//! Logs and metrics of the company: evaluations, a coding agent, and what SDKs measure every minute.

use lictor_schemas::otlp::encode::RowDraft;
use lictor_schemas::tables::Table;
use serde_json::json;

use super::traces::{Columns, Scribe, texts};
use super::workloads::WORKLOADS;

impl Scribe<'_> {
    /// The log records of this second: an evaluation now and then, and a developer's coding agent.
    pub(super) fn logs(&mut self) -> Vec<RowDraft> {
        let mut records = Vec::new();
        if self.second % 4 == 0 {
            records.push(self.evaluation());
        }
        if self.second % 7 == 0 {
            records.push(self.coding_agent_request());
        }
        records
    }

    /// How many seconds the last minute's calls of each service took, as a histogram.
    pub(super) fn metrics(&mut self) -> Vec<RowDraft> {
        let end = self.begin.plus(999_000_000);
        let mut points = Vec::new();
        for workload in &WORKLOADS {
            let calls = 5 + self.random.u64(0..20);
            let seconds = workload.latency_ms / 1000.0;
            let mut columns = Columns::from(texts([
                ("service_name", workload.service),
                ("team", workload.team),
                ("provider", workload.model.provider),
                ("request_model", workload.model.request),
            ]));
            columns.extend(texts([
                ("metric_name", "gen_ai.client.operation.duration"),
                ("metric_type", "histogram"),
                ("unit", "s"),
                ("temporality", "delta"),
            ]));
            columns.insert("start_time".to_owned(), json!(end.plus(-60_000_000_000).0));
            columns.insert("count".to_owned(), json!(calls));
            #[expect(clippy::cast_precision_loss, reason = "at most 25 calls")]
            let sum = calls as f64 * seconds;
            columns.insert("sum".to_owned(), json!(sum));
            points.push(RowDraft { table: Table::Metrics, event_time: end, columns });
        }
        points
    }

    fn evaluation(&mut self) -> RowDraft {
        let workload = &WORKLOADS[self.random.usize(0..WORKLOADS.len())];
        let score = 0.75 + 0.25 * self.random.f64();
        let mut columns = Columns::from(texts([
            ("service_name", workload.service),
            ("team", workload.team),
            ("project", workload.project),
            ("event_name", "gen_ai.evaluation.result"),
        ]));
        let session = self.session(workload);
        columns.extend(texts([("eval_metric", "relevance"), ("session_id", &session), ("severity_text", "INFO")]));
        columns.insert("severity_number".to_owned(), json!(9));
        columns.insert("eval_score".to_owned(), json!(score));
        columns.insert("eval_passed".to_owned(), json!(score >= 0.8));
        RowDraft { table: Table::Logs, event_time: self.moment(), columns }
    }

    /// Coding agents report requests as log records, with numbers as text and without trace context.
    fn coding_agent_request(&mut self) -> RowDraft {
        let (input, output) = (self.random.u32(2_000..20_000), self.random.u32(50..900));
        let cost = format!("{:.6}", f64::from(input) * 3e-6 + f64::from(output) * 15e-6);
        let developer = format!("dev-{}", self.random.u32(0..12));
        let mut columns = Columns::from(texts([
            ("service_name", "claude-code"),
            ("resource_attr:genops.team", "mobile"),
            ("body", "claude_code.api_request"),
            ("attr:event.name", "api_request"),
            ("attr:model", "claude-sonnet-4-5"),
            ("attr:session.id", &developer),
        ]));
        columns.extend(texts([
            ("attr:input_tokens", &input.to_string()),
            ("attr:output_tokens", &output.to_string()),
            ("attr:cost_usd", &cost),
        ]));
        RowDraft { table: Table::Logs, event_time: self.moment(), columns }
    }
}
