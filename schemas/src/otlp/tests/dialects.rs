//! What every instrumentation says in its own words.

use super::*;

#[test]
fn genops() {
    check_span(
        json!({
            "genops.team": "cx", "genops.project": "bot", "genops.environment": "production",
            "genops.customer_id": "acme", "genops.feature": "reply", "genops.cost_center": "default",
            "genops.operation.name": "answer", "genops.operation.type": "ai.inference",
            "genops.provider": "OpenAI", "genops.model": "gpt-4o",
            "genops.cost.total": "0.25", "genops.cost.currency": "EUR",
            "genops.tokens.input": "1000", "genops.tokens.output": 500.0,
            "genops.budget.name": "daily", "genops.budget.allocated": 100, "genops.budget.consumed": 80.0,
            "genops.policy.result": "rate_limited", "genops.policy.reason_code": "BUDGET_EXCEEDED",
            "genops.policy.timestamp": 1_790_000_000_500_i64,
            "genops.accounting.reserved": 2.0, "genops.accounting.actual": 1.5, "genops.accounting.unit": "USD",
            "genops.eval.metric": "toxicity", "genops.eval.score": "0.1", "genops.eval.passed": "True",
            "genops.sla.latency_target_ms": "800", "genops.sla.met": false,
            "genops.data.classification": "Confidential", "genops.spec.version": "0.1.0", "genops.success": "false",
        }),
        &[
            ("team", "cx"),
            ("project", "bot"),
            ("environment", "production"),
            ("customer_id", "acme"),
            ("feature", "reply"),
            ("cost_center", ""),
            ("operation_name", "answer"),
            ("operation_type", "inference"),
            ("provider", "openai"),
            ("request_model", "gpt-4o"),
            ("cost_total", "0.25"),
            ("cost_currency", "EUR"),
            ("cost_source", "reported"),
            ("input_tokens", "1000"),
            ("output_tokens", "500"),
            ("total_tokens", "1500"),
            ("budget_remaining", "20.0"),
            ("budget_utilization", "0.8"),
            ("policy_result", "RATE_LIMITED"),
            ("policy_result_raw", "rate_limited"),
            ("policy_reason_code", "BUDGET_EXCEEDED"),
            ("policy_ts", "2026-09-21T14:13:20.500"),
            ("accounting_delta", "-0.5"),
            ("eval_score", "0.1"),
            ("eval_passed", "true"),
            ("sla_target_ms", "800"),
            ("sla_met", "false"),
            ("data_sensitivity", "confidential"),
            ("spec_version", "0.1.0"),
            ("status_code", "ERROR"),
            ("usage_leaf", "true"),
        ],
    );
}

#[test]
fn opentelemetry_genai_new_names() {
    check_span(
        json!({
            "gen_ai.operation.name": "chat", "gen_ai.provider.name": "aws.bedrock",
            "gen_ai.request.model": "m", "gen_ai.response.model": "m-2", "gen_ai.response.id": "r",
            "gen_ai.response.finish_reasons": ["stop", "length"], "gen_ai.conversation.id": "c",
            "gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 20,
            "gen_ai.usage.cache_read.input_tokens": 60, "gen_ai.usage.cache_write.input_tokens": 10,
            "gen_ai.usage.reasoning.output_tokens": 5, "gen_ai.response.time_to_first_chunk": 0.25,
            "server.address": "bedrock-runtime.eu-west-1.amazonaws.com", "gen_ai.tool.name": "mcp__jira__search",
            "error.type": "timeout",
        }),
        &[
            ("gen_ai_operation", "chat"),
            ("operation_type", "inference"),
            ("operation_name", "work"),
            ("provider", "aws.bedrock"),
            ("request_model", "m"),
            ("response_model", "m-2"),
            ("response_id", "r"),
            ("finish_reason", "stop,length"),
            ("session_id", "c"),
            ("input_tokens", "100"),
            ("cache_read_tokens", "60"),
            ("cache_write_tokens", "10"),
            ("reasoning_tokens", "5"),
            ("ttft_ms", "250.0"),
            ("region", "eu-west-1"),
            ("tool_name", "search"),
            ("error_type", "timeout"),
            ("cost_total", ""),
            ("cost_source", ""),
            ("cost_currency", ""),
        ],
    );
}

#[test]
fn opentelemetry_genai_old_names_are_priced() {
    check_span(
        json!({
            "gen_ai.system": "openai", "gen_ai.request.model": "gpt-4o", "gen_ai.response.model": "gpt-4o-2024-11-20",
            "gen_ai.usage.prompt_tokens": 10000, "gen_ai.usage.completion_tokens": 500,
            "gen_ai.usage.cached_input_tokens": 8000, "gen_ai.response.finish_reasons": "[\"stop\"]",
        }),
        &[
            ("provider", "openai"),
            ("input_tokens", "10000"),
            ("output_tokens", "500"),
            ("finish_reason", "stop"),
            ("cost_total", "0.02"),
            ("cost_currency", "USD"),
            ("cost_source", "priced"),
        ],
    );
}

#[test]
fn openinference() {
    check_span(
        json!({
            "openinference.span.kind": "AGENT", "llm.system": "anthropic", "llm.model_name": "claude-sonnet-4-5",
            "llm.token_count.prompt": 4, "llm.token_count.completion": 767, "llm.token_count.total": 771,
            "llm.token_count.prompt_details.cache_read": 29447, "llm.token_count.prompt_details.cache_write": 2861,
            "llm.cost.total": 0.0713, "session.id": "s", "user.id": "unknown", "tool.name": "Bash",
        }),
        &[
            ("operation_type", "agent"),
            ("gen_ai_operation", "invoke_agent"),
            ("provider", "anthropic"),
            ("request_model", "claude-sonnet-4-5"),
            ("response_model", "claude-sonnet-4-5"),
            ("input_tokens", "32312"),
            ("total_tokens", "33079"),
            ("cost_total", "0.0713"),
            ("cost_currency", "USD"),
            ("session_id", "s"),
            ("user_id", ""),
            ("tool_name", "Bash"),
        ],
    );
}

#[test]
fn openllmetry() {
    let agent = json!({"traceloop.span.kind": "agent", "traceloop.entity.name": "planner",
        "traceloop.workflow.name": "triage", "traceloop.association.properties.session_id": "s"});
    let task = json!({"traceloop.span.kind": "task", "traceloop.entity.name": "fetch"});
    let call = json!({"llm.request.type": "completion", "gen_ai.usage.cache_read_input_tokens": 3,
        "gen_ai.response.stop_reason": "end_turn", "llm.usage.total_tokens": 9});
    let record = traces(json!({}), &[span(1, 0, agent), span(2, 1, task), span(3, 2, call)]);
    let batch = rows(Table::Spans, &record);
    let agent = [("agent_name", "planner"), ("operation_type", "agent"), ("feature", "triage"), ("session_id", "s")];
    check_row(&batch, 0, &agent);
    check_row(&batch, 1, &[("agent_name", ""), ("operation_type", "workflow")]);
    let call = [
        ("operation_type", "inference"),
        ("gen_ai_operation", "text_completion"),
        ("cache_read_tokens", "3"),
        ("finish_reason", "end_turn"),
        ("total_tokens", "9"),
        ("usage_leaf", "false"),
    ];
    check_row(&batch, 2, &call);
}

#[test]
fn vercel_ai_sdk() {
    check_span(
        json!({
            "ai.operationId": "ai.streamText.doStream", "ai.model.provider": "anthropic.messages",
            "ai.model.id": "claude-haiku-4-5-20251001", "ai.telemetry.functionId": "session.llm",
            "ai.telemetry.metadata.userId": "u", "ai.telemetry.metadata.sessionId": "s",
            "ai.usage.inputTokens": 12632, "ai.usage.outputTokens": 100,
            "ai.usage.inputTokenDetails.cacheWriteTokens": 12629, "ai.response.msToFirstChunk": 812.5,
            "ai.response.finishReason": "stop",
        }),
        &[
            ("operation_type", "inference"),
            ("provider", "anthropic"),
            ("request_model", "claude-haiku-4-5-20251001"),
            ("feature", "session.llm"),
            ("user_id", "u"),
            ("session_id", "s"),
            ("input_tokens", "12632"),
            ("ttft_ms", "812.5"),
            ("finish_reason", "stop"),
            // 3 fresh tokens at 1, 12,629 cache writes at 1.25 and 100 output tokens at 5 dollars per million.
            ("cost_total", "0.01628925"),
        ],
    );
}

#[test]
fn litellm() {
    check_span(
        json!({
            "gen_ai.system": "Unknown", "llm.provider": "azure", "gen_ai.request.model": "gpt-4o",
            "metadata.user_api_key_team_alias": "", "metadata.user_api_key_team_id": "team-7",
            "metadata.user_api_key_org_id": "org", "metadata.user_api_key_user_id": "None",
            "llm.user": "", "gen_ai.response.finish_reasons": "[\"tool_calls\", \"stop\"]",
            "gen_ai.cost.total_cost": "0.5", "gen_ai.usage.input_tokens": "12", "gen_ai.usage.output_tokens": "",
        }),
        &[
            ("provider", "azure.ai.openai"),
            ("team", "team-7"),
            ("customer_id", "org"),
            ("user_id", ""),
            ("finish_reason", "tool_calls,stop"),
            ("cost_total", "0.5"),
            ("cost_currency", "USD"),
            ("input_tokens", "12"),
            ("output_tokens", ""),
            ("total_tokens", ""),
        ],
    );
}

#[test]
fn langfuse() {
    check_span(
        json!({
            "langfuse.observation.type": "generation", "langfuse.observation.model.name": "gpt-4o",
            "langfuse.observation.usage_details": "{\"input\": 10, \"output\": \"5\", \"total\": 15}",
            "langfuse.observation.cost_details": "{\"total\": 0.125}", "langfuse.observation.level": "ERROR",
            "langfuse.observation.completion_start_time": "\"2026-09-21T14:13:20.400Z\"",
            "langfuse.environment": "staging", "langfuse.user.id": "u", "langfuse.session.id": "s",
        }),
        &[
            ("operation_type", "inference"),
            ("response_model", "gpt-4o"),
            ("input_tokens", "10"),
            ("output_tokens", "5"),
            ("total_tokens", "15"),
            ("cost_total", "0.125"),
            ("cost_currency", "USD"),
            ("status_code", "ERROR"),
            ("ttft_ms", "400.0"),
            ("environment", "staging"),
            ("user_id", "u"),
            ("session_id", "s"),
        ],
    );
}

#[test]
fn koshi_decisions_become_genops_states() {
    check_span(
        json!({"decision_shadow": "would_throttle", "reserved_tokens": 100, "actual_tokens": 80}),
        &[
            ("policy_result", "WARNING"),
            ("policy_result_raw", "would_throttle"),
            ("policy_ts", "2026-09-21T14:13:21"),
            ("accounting_unit", "tokens"),
            ("accounting_delta", "-20.0"),
        ],
    );
    check_span(
        json!({"decision": "kill", "reason_code": "budget_exhausted_kill"}),
        &[("policy_result", "BLOCKED"), ("policy_reason_code", "BUDGET_EXCEEDED")],
    );
    check_span(json!({"decision": "left"}), &[("policy_result", ""), ("policy_result_raw", ""), ("policy_ts", "")]);
    check_span(json!({"genops.policy.result": "perhaps"}), &[("policy_result", "PERHAPS")]);
}

#[test]
fn reported_parts_of_a_cost_are_added() {
    check_span(
        json!({"gen_ai.usage.input_cost": 0.5, "gen_ai.usage.output_cost": "0.25"}),
        &[("cost_total", "0.75"), ("cost_source", "reported"), ("cost_currency", ""), ("usage_leaf", "true")],
    );
    check_span(json!({"llm.cost.prompt": 1.0}), &[("cost_total", ""), ("usage_leaf", "false")]);
    check_span(json!({"llm.cost.prompt": 1.0, "llm.cost.completion": 1.0}), &[("cost_currency", "USD")]);
}

#[test]
fn error_type_of_a_span_comes_from_its_exception_event() {
    let mut failed = span(1, 0, json!({"http.response.status_code": 429}));
    failed["events"] = json!([
        {"name": "exception", "timeUnixNano": END, "attributes": {"exception.type": "RateLimitError"}},
        {"name": "retry", "attributes": {"team": "cx"}},
    ]);
    failed["status"] = json!({"code": 2, "message": "no"});
    let record =
        traces(json!({"genops.project": "bot"}), &[failed, span(2, 0, json!({"http.response.status_code": 503}))]);
    let (_, batches) = absorb(Signal::Traces, record.to_string().as_bytes());
    let spans = &batches[&Table::Spans];
    check_row(spans, 0, &[("error_type", "RateLimitError"), ("status_code", "ERROR"), ("status_message", "no")]);
    check_row(spans, 0, &[("team", "")]);
    check_row(spans, 1, &[("error_type", "503"), ("status_code", "UNSET"), ("status_message", "")]);
    let events = &batches[&Table::SpanEvents];
    assert_eq!(events.num_rows(), 2);
    check_row(events, 0, &[("name", "exception"), ("span_name", "work"), ("error_type", "RateLimitError")]);
    check_row(events, 1, &[("name", "retry"), ("team", "cx"), ("project", "bot"), ("error_type", "")]);
    check_row(events, 1, &[("event_time", "2026-09-21T14:13:21"), ("span_id", "0000000000000001")]);
}

#[test]
fn usage_counts_once_along_a_chain_of_wrappers() {
    let usage = json!({"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 1});
    let spans = [
        span(1, 0, json!({})),
        span(2, 1, usage.clone()),
        span(3, 2, usage.clone()),
        span(4, 3, json!({"gen_ai.usage.input_tokens": 0})),
        span(5, 1, usage),
    ];
    let batch = rows(Table::Spans, &traces(json!({}), &spans));
    let leaves: Vec<_> = (0..5).map(|row| cell(&batch, row, "usage_leaf")).collect();
    assert_eq!(leaves, ["false", "false", "true", "false", "true"]);
}

#[test]
fn claude_code_log_event() {
    let record = json!({"resourceLogs": [{"resource": {"attributes": {"service.name": "claude-code"}}, "scopeLogs": [{
    "scope": {"name": "events", "version": "2"},
    "logRecords": [{"timeUnixNano": END, "severityNumber": "SEVERITY_NUMBER_WARN", "severityText": "warn",
        "traceId": "", "body": {"stringValue": "claude_code.api_request"},
        "attributes": [
            {"key": "cost_usd", "value": {"stringValue": "0.5"}},
            {"key": "input_tokens", "value": {"stringValue": "4"}},
            {"key": "cache_read_tokens", "value": {"intValue": "100"}},
            {"key": "duration_ms", "value": {"stringValue": "1250"}},
            {"key": "model", "value": {"stringValue": "claude-opus-4-1"}},
            {"key": "session.id", "value": {"stringValue": "s"}},
        ]}]}]}]});
    check_row(
        &rows(Table::Logs, &record),
        0,
        &[
            ("event_name", "claude_code.api_request"),
            ("event_time", "2026-09-21T14:13:21"),
            ("service_name", "claude-code"),
            ("scope_name", "events"),
            ("scope_version", "2"),
            ("severity_number", "13"),
            ("severity_text", "warn"),
            ("trace_id", ""),
            ("observed_time", ""),
            ("input_tokens", "104"),
            ("cost_total", "0.5"),
            ("cost_currency", "USD"),
            ("latency_ms", "1250.0"),
            ("request_model", "claude-opus-4-1"),
            ("session_id", "s"),
            ("kafka_topic", "otlp_spans"),
            ("kafka_partition", "3"),
            ("kafka_offset", "42"),
            ("kafka_timestamp", "2026-09-21T14:13:20"),
        ],
    );
}
