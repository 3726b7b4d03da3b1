//! The precedence lists, one per canonical column.
//!
//! Order within a list is precedence. GenOps names come first (they are the contract), then OpenTelemetry's current
//! names, then its old ones, then the vendors'. The lists are data: code that reads them lies elsewhere.

use super::vocabulary::{
    any_text, decision_of_koshi, error_level, event_name_of_koshi, gen_ai_operation_of, operation_type_of, policy_word,
    reason_code, region_of,
};
use super::{ColumnSpec, Derivation, Kind, Reading, Role, Source};
use crate::tables::Table;

const SPANS: &[Table] = &[Table::Spans];
const LOGS: &[Table] = &[Table::Logs];

const fn at(attribute: &'static str) -> Source {
    Source { attribute, reading: Reading::Plain, unit: "", resource_only: false }
}

const fn read(attribute: &'static str, reading: Reading) -> Source {
    Source { attribute, reading, unit: "", resource_only: false }
}

const fn resource(attribute: &'static str) -> Source {
    Source { attribute, reading: Reading::Plain, unit: "", resource_only: true }
}

/// A source that is defined to be in US dollars.
const fn usd(attribute: &'static str) -> Source {
    Source { attribute, reading: Reading::Plain, unit: "USD", resource_only: false }
}

const fn tokens(attribute: &'static str) -> Source {
    Source { attribute, reading: Reading::Plain, unit: "tokens", resource_only: false }
}

/// A source in seconds, for a column in milliseconds.
const fn seconds(attribute: &'static str) -> Source {
    read(attribute, Reading::Scaled(1000.0))
}

const fn json(attribute: &'static str, field: &'static str) -> Source {
    read(attribute, Reading::JsonField(field))
}

const fn map(attribute: &'static str, function: fn(&str) -> Option<&str>) -> Source {
    read(attribute, Reading::Mapped(function))
}

const fn column(
    name: &'static str,
    kind: Kind,
    role: Role,
    doc: &'static str,
    sources: &'static [Source],
) -> ColumnSpec {
    let tables = &Table::ALL;
    ColumnSpec { name, kind, unit: "", doc, sources, role, tables, derivation: Derivation::None, needs: &[] }
}

const fn label(name: &'static str, doc: &'static str, sources: &'static [Source]) -> ColumnSpec {
    column(name, Kind::Label, Role::Identity, doc, sources)
}

const fn fact(name: &'static str, kind: Kind, doc: &'static str, sources: &'static [Source]) -> ColumnSpec {
    column(name, kind, Role::Fact, doc, sources)
}

impl ColumnSpec {
    const fn of_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    const fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    const fn on(mut self, tables: &'static [Table]) -> Self {
        self.tables = tables;
        self
    }

    const fn derived(mut self, derivation: Derivation, needs: &'static [&'static str]) -> Self {
        self.derivation = derivation;
        self.needs = needs;
        self
    }
}

/// Every canonical column, in the order in which tables have them.
#[rustfmt::skip] // A table: one source per line would make it four times as long and no clearer.
pub static COLUMNS: &[ColumnSpec] = &[
    // Who: attribution.
    label("service_name", "the service that sent the telemetry", &[resource("service.name")]).of_kind(Kind::Text),
    label("team", "team that answers for the work",
        &[at("genops.team"), at("langwatch.team.id"), at("metadata.user_api_key_team_alias"),
          at("metadata.user_api_key_team_id"), at("user_api_key_team_id"), at("team.id"), at("team")]),
    label("project", "project or product the work belongs to",
        &[at("genops.project"), at("langwatch.project.id"), at("langfuse.project.id"), at("gen_ai.application_name"),
          at("project")]),
    label("environment", "deployment environment",
        &[at("genops.environment"), at("deployment.environment.name"), at("deployment.environment"),
          at("langfuse.environment"), at("gen_ai.environment"), at("environment")]),
    label("cost_center", "who pays", &[at("genops.cost_center"), at("cost_center")]),
    label("customer_id", "customer or tenant the work is done for",
        &[at("genops.customer_id"), at("genops.customer"), at("genops.tenant"), at("langwatch.customer.id"),
          at("customer_id"), at("metadata.user_api_key_org_id"), at("tenant.id")]),
    label("feature", "feature of the product",
        &[at("genops.feature"), at("traceloop.workflow.name"), at("gen_ai.workflow.name"),
          at("ai.telemetry.functionId"), at("langfuse.trace.name")]),
    label("session_id", "conversation, thread or agent session",
        &[at("genops.session_id"), at("genops.session.id"), at("genops.conversation.id"), at("langfuse.session.id"),
          at("gen_ai.conversation.id"), at("session.id"), map("thread.id", any_text),
          at("ai.telemetry.metadata.sessionId"), at("traceloop.association.properties.session_id"),
          at("gcp.vertex.agent.session_id")]),
    label("user_id", "end user",
        &[at("genops.user_id"), at("genops.user.id"), at("langfuse.user.id"), at("enduser.id"), at("user.id"),
          at("gen_ai.user"), at("gen_ai.request.user"), at("llm.user"), at("metadata.user_api_key_user_id"),
          at("ai.telemetry.metadata.userId"), at("user.account_uuid")]),
    label("agent_name", "name of the agent",
        &[at("gen_ai.agent.name"), at("genops.agent.name"), at("agent.name"),
          read("traceloop.entity.name", Reading::OfAgent)])
    .derived(Derivation::AgentName, &["traceloop_span_kind"]),
    label("traceloop_span_kind", "read for agent_name", &[at("traceloop.span.kind")]).on(&[]),
    label("agent_id", "identifier of the agent", &[at("gen_ai.agent.id"), at("agent_id")]),
    // What: operation, model, place.
    label("operation_name", "name of the operation; else of the span", &[at("genops.operation.name")])
        .of_kind(Kind::Text)
        .derived(Derivation::OperationName, &[]),
    label("operation_type",
        "inference, embedding, retrieval, tool, agent, workflow, evaluation, guardrail, other, or as GenOps says",
        &[at("genops.operation.type"), at("genops.operation_type"), map("gen_ai.operation.name", operation_type_of),
          map("openinference.span.kind", operation_type_of), map("traceloop.span.kind", operation_type_of),
          map("llm.request.type", operation_type_of), map("ai.operationId", operation_type_of),
          map("langfuse.observation.type", operation_type_of)])
    .of_kind(Kind::OperationType),
    label("gen_ai_operation", "gen_ai.operation.name: chat, embeddings, execute_tool, invoke_agent, …",
        &[at("gen_ai.operation.name"), map("openinference.span.kind", gen_ai_operation_of),
          map("traceloop.span.kind", gen_ai_operation_of), map("llm.request.type", gen_ai_operation_of),
          map("langfuse.observation.type", gen_ai_operation_of)]),
    label("provider",
        "provider of the model, by its OpenTelemetry name: openai, anthropic, aws.bedrock, gcp.gemini, …",
        &[at("gen_ai.provider.name"), at("gen_ai.system"), at("genops.cost.provider"), at("genops.provider"),
          at("llm.provider"), at("llm.system"), at("ai.model.provider"), at("gen_ai.request.provider")])
    .of_kind(Kind::Provider),
    label("request_model", "model that was asked for",
        &[at("gen_ai.request.model"), at("genops.cost.model"), at("genops.model"), at("genops.model.id"),
          at("llm.request.model_name"), at("llm.request.model"), at("ai.model.id"), at("llm.model_name"),
          at("embedding.model_name"), at("model")]),
    label("response_model", "model that answered",
        &[at("gen_ai.response.model"), at("langfuse.observation.model.name"), at("llm.response.model_name"),
          at("llm.response.model"), at("ai.response.model"), at("llm.model_name")]),
    label("response_id", "the provider's identifier of the answer",
        &[at("gen_ai.response.id"), at("ai.response.id"), at("request_id"), at("litellm.call_id")]),
    label("region", "cloud region",
        &[at("cloud.region"), at("aws.region"), at("gen_ai.request.region"), at("genops.region"),
          map("server.address", region_of)]),
    label("tool_name", "tool that was called; of an MCP tool without its server",
        &[at("gen_ai.tool.name"), at("tool.name"), at("ai.toolCall.name"), at("tool_name")])
    .of_kind(Kind::ToolName),
    label("mcp_method", "method of the Model Context Protocol", &[at("mcp.method.name")]),
    label("data_sensitivity", "public, internal, confidential, restricted, or as the producer says",
        &[at("genops.data_sensitivity"), at("genops.data.classification"), at("genops.data_classification"),
          at("genops.compliance.data_classification"), at("dataclassification")])
    .of_kind(Kind::Lower),
    label("spec_version", "version of the GenOps specification", &[at("genops.spec.version")]),
    label("event_name", "name of the event; of koshi-runtime's what they are in GenOps",
        &[at("event.name"), at("event_name"), map("event_type", event_name_of_koshi)])
        .on(LOGS)
        .derived(Derivation::EventName, &[]),
    // How much: tokens.
    fact("input_tokens", Kind::Integer,
        "input, cached tokens included; where a source counts them apart, they are added",
        &[at("genops.tokens.input"), at("gen_ai.usage.input_tokens"), at("gen_ai.usage.prompt_tokens"),
          at("llm.token_count.prompt"), at("llm.usage.prompt_tokens"), at("ai.usage.inputTokens"),
          at("genops.input_tokens"), at("codex.turn.token_usage.input_tokens"), at("input_token_count"),
          at("input_tokens"), json("langfuse.observation.usage_details", "input")])
    .unit("tokens")
    .derived(Derivation::InputTokens, &["cache_read_tokens", "cache_write_tokens"]),
    fact("output_tokens", Kind::Integer, "output, reasoning included",
        &[at("genops.tokens.output"), at("gen_ai.usage.output_tokens"), at("gen_ai.usage.completion_tokens"),
          at("llm.token_count.completion"), at("llm.usage.completion_tokens"), at("ai.usage.outputTokens"),
          at("genops.output_tokens"), at("genops.tokens_out"), at("output_token_count"), at("output_tokens"),
          json("langfuse.observation.usage_details", "output")])
    .unit("tokens"),
    fact("cache_read_tokens", Kind::Integer, "input served from a cache",
        &[at("gen_ai.usage.cache_read.input_tokens"), at("gen_ai.usage.cache_read_input_tokens"),
          at("llm.token_count.prompt_details.cache_read"), at("ai.usage.inputTokenDetails.cacheReadTokens"),
          at("ai.usage.cachedInputTokens"), at("gen_ai.usage.cached_input_tokens"), at("cached_content_token_count"),
          at("cache_read_tokens")])
    .unit("tokens"),
    fact("cache_write_tokens", Kind::Integer, "input written to a cache",
        &[at("gen_ai.usage.cache_write.input_tokens"), at("gen_ai.usage.cache_creation.input_tokens"),
          at("gen_ai.usage.cache_creation_input_tokens"), at("llm.token_count.prompt_details.cache_write"),
          at("ai.usage.inputTokenDetails.cacheWriteTokens"), at("cache_creation_tokens")])
    .unit("tokens"),
    fact("reasoning_tokens", Kind::Integer, "output spent on reasoning",
        &[at("gen_ai.usage.reasoning.output_tokens"), at("gen_ai.usage.reasoning_tokens"),
          at("llm.token_count.completion_details.reasoning"), at("ai.usage.reasoningTokens"),
          at("thoughts_token_count")])
    .unit("tokens"),
    fact("total_tokens", Kind::Integer, "input plus output; reported totals only where one of them is missing",
        &[at("genops.tokens.total"), at("gen_ai.usage.total_tokens"), at("llm.usage.total_tokens"),
          at("llm.token_count.total"), at("ai.usage.totalTokens"),
          json("langfuse.observation.usage_details", "total")])
    .unit("tokens")
    .derived(Derivation::TotalTokens, &["input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"]),
    fact(
        "usage_leaf",
        Kind::Flag,
        "true where usage may be summed: the span bears tokens or a reported cost and no descendant in the same record \
         does. Descendants that arrive in another record are not seen: USAGE_LEAVES(spans, wait) waits for them",
        &[])
    .on(SPANS)
    .derived(
        Derivation::UsageLeaf,
        &["input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cost_total"]),
    // How much: money.
    fact("cost_total", Kind::Number,
        "reported cost; else input plus output cost; else tokens at the price table; null if the model is not in it",
        &[at("genops.cost.total"), at("genops.cost.amount"), at("gen_ai.usage.cost.amount"), usd("gen_ai.usage.cost"),
          usd("gen_ai.cost.total_cost"), usd("llm.cost.total"),
          Source { unit: "USD", ..json("langfuse.observation.cost_details", "total") }, at("agw.ai.usage.cost.total"),
          at("_signoz.gen_ai.total_cost"), at("langwatch.span.cost"), usd("genops.total_cost_usd"),
          usd("genops.cost_usd"), at("genops.total_cost"), usd("cost_usd")])
    .unit("cost_currency")
    .derived(Derivation::CostTotal, COST_INPUTS),
    fact("cost_input", Kind::Number, "reported cost of the input",
        &[at("genops.cost.input"), at("genops.cost.input_cost"), usd("llm.cost.prompt"), at("gen_ai.usage.input_cost")])
    .unit("cost_currency"),
    fact("cost_output", Kind::Number, "reported cost of the output",
        &[at("genops.cost.output"), at("genops.cost.output_cost"), usd("llm.cost.completion"),
          at("gen_ai.usage.output_cost")])
    .unit("cost_currency"),
    fact("cost_currency", Kind::Label,
        "ISO 4217 code of cost_total; USD where the source is defined in dollars or the cost is priced",
        &[at("genops.cost.currency"), at("gen_ai.usage.cost.currency")])
    .derived(Derivation::CostCurrency, COST_NEEDS),
    fact("cost_source", Kind::Raw, "reported by the telemetry, or priced from the price table", &[])
        .derived(Derivation::CostSource, COST_NEEDS),
    // How long, how well.
    fact("latency_ms", Kind::Number, "duration of the span; else as reported",
        &[at("genops.sla.actual_latency_ms"), at("genops.latency_ms"), at("genops.latency.ms"),
          at("genops.latency.total_ms"), at("genops.duration_ms"), at("genops.operation.duration_ms"),
          at("genops.performance.duration_ms"), seconds("gen_ai.latency.e2e"), at("duration_ms")])
    .unit("ms")
    .derived(Derivation::LatencyMs, &[]),
    fact("ttft_ms", Kind::Number, "time to the first token",
        &[seconds("gen_ai.response.time_to_first_chunk"), seconds("gen_ai.server.time_to_first_token"),
          seconds("gen_ai.server.ttft"), seconds("gen_ai.latency.time_to_first_token"),
          seconds("agw.ai.time_to_first_token"), at("ai.response.msToFirstChunk"), at("ttft_ms"),
          at("copilot_chat.time_to_first_token"),
          read("langfuse.observation.completion_start_time", Reading::Rfc3339)])
    .unit("ms")
    .derived(Derivation::TtftMs, &[]),
    fact("status_code", Kind::Raw, "UNSET, OK or ERROR; ERROR too where an attribute says that the operation failed",
        &[read("genops.success", Reading::FalseIsError), read("success", Reading::FalseIsError),
          map("langfuse.observation.level", error_level)])
    .on(SPANS)
    .derived(Derivation::StatusCode, &[]),
    fact("error_type", Kind::Label, "class of the error; of a span also from its exception event",
        &[at("error.type"), at("genops.error.type"), at("genops.error_type"), at("exception.type"),
          read("http.response.status_code", Reading::HttpError)]),
    fact("finish_reason", Kind::List, "why generation ended; several reasons are joined by commas, in order",
        &[at("gen_ai.response.finish_reasons"), at("gen_ai.response.finish_reason"),
          at("gen_ai.response.stop_reason"), at("llm.response.finish_reason"), at("llm.finish_reason"),
          at("ai.response.finishReason")]),
    // Governance: budget, policy, accounting, evaluation, service level.
    fact("budget_name", Kind::Label, "name of the budget", &[at("genops.budget.name"), at("genops.budget.id")]),
    fact("budget_allocated", Kind::Number, "allocation of the budget",
        &[at("genops.budget.allocated"), at("genops.budget.limit"), at("genops.budget_limit"),
          at("genops.cost.budget_limit")]),
    fact("budget_consumed", Kind::Number, "what of it is consumed",
        &[at("genops.budget.consumed"), at("genops.budget.used")]),
    fact("budget_remaining", Kind::Number, "what of it is left; else allocated minus consumed", 
        &[at("genops.budget.remaining")])
    .derived(Derivation::BudgetRemaining, &["budget_allocated", "budget_consumed"]),
    fact("budget_period", Kind::Label, "period of the budget", &[at("genops.budget.period"), at("budget_period")]),
    fact("budget_utilization", Kind::Number, "consumed by allocated, 0 to 1; else as reported",
        &[read("genops.budget.utilization_percent", Reading::Scaled(0.01)), at("genops_budget_utilization_ratio")])
    .unit("ratio")
    .derived(Derivation::BudgetUtilization, &["budget_allocated", "budget_consumed"]),
    fact("policy_name", Kind::Label, "policy that was evaluated",
        &[at("genops.policy.name"), at("policy_id"), at("gen_ai.guardrail.security.policy.id"), at("guardrail_name")]),
    fact("policy_result", Kind::PolicyResult, "ALLOWED, BLOCKED, WARNING, RATE_LIMITED, or the raw value", POLICY),
    fact("policy_result_raw", Kind::Raw, "the result as it was written", POLICY),
    fact("policy_reason_code", Kind::Label, "why, in the taxonomy of GenOps",
        &[at("genops.policy.reason_code"), map("reason_code", reason_code)]),
    fact("policy_reason", Kind::Text, "why, for a person", &[at("genops.policy.reason"), at("reason")]),
    fact("policy_ts", Kind::Instant, "when it was decided; else event_time", &[at("genops.policy.timestamp")])
        .derived(Derivation::PolicyTime, &["policy_result"]),
    fact("accounting_reserved", Kind::Number, "what was reserved before execution",
        &[at("genops.accounting.reserved"), tokens("reserved_tokens"), tokens("estimated_tokens")])
    .unit("accounting_unit"),
    fact("accounting_actual", Kind::Number, "what was consumed",
        &[at("genops.accounting.actual"), tokens("actual_tokens")])
    .unit("accounting_unit"),
    fact("accounting_unit", Kind::Label, "unit of both; tokens where the source is defined so",
        &[at("genops.accounting.unit")])
    .derived(Derivation::AccountingUnit, &["accounting_reserved", "accounting_actual"]),
    fact("accounting_delta", Kind::Number, "as reported; else actual minus reserved",
        &[at("genops.accounting.reconciliation_delta"), tokens("delta_tokens")])
    .unit("accounting_unit")
    .derived(Derivation::AccountingDelta, &["accounting_reserved", "accounting_actual"]),
    fact("eval_metric", Kind::Label, "what was evaluated",
        &[at("genops.eval.metric"), at("gen_ai.evaluation.name"), at("evaluations.0.evaluation.name"),
          at("annotation.name")]),
    fact("eval_score", Kind::Number, "score of the evaluation",
        &[at("genops.eval.score"), at("gen_ai.evaluation.score.value"), at("evaluations.0.evaluation.score"),
          at("evaluation.score")]),
    fact("eval_label", Kind::Text, "verdict of the evaluation",
        &[at("gen_ai.evaluation.score.label"), at("evaluations.0.evaluation.label"), at("evaluation.label")]),
    fact("eval_threshold", Kind::Number, "score needed to pass", &[at("genops.eval.threshold")]),
    fact("eval_passed", Kind::Flag, "whether it passed", &[at("genops.eval.passed")]),
    fact("sla_tier", Kind::Label, "tier of the service level", &[at("genops.sla.tier")]),
    fact("sla_target_ms", Kind::Integer, "latency promised", &[at("genops.sla.latency_target_ms")]).unit("ms"),
    fact("sla_actual_ms", Kind::Integer, "latency measured", &[at("genops.sla.actual_latency_ms")]).unit("ms"),
    fact("sla_met", Kind::Flag, "whether the promise was kept", &[at("genops.sla.met")]),
];

const POLICY: &[Source] = &[
    at("genops.policy.result"),
    map("decision_shadow", policy_word),
    map("decision", policy_word),
    map("event_type", decision_of_koshi),
];

/// What a cost is computed from besides its own sources.
const COST_INPUTS: &[&str] = &[
    "cost_input",
    "cost_output",
    "provider",
    "request_model",
    "response_model",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
];

/// What the columns beside a cost are computed from.
const COST_NEEDS: &[&str] = &[
    "cost_total",
    "cost_input",
    "cost_output",
    "provider",
    "request_model",
    "response_model",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
];
