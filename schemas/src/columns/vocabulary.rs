//! Words of the instrumentations and what they mean here.

use std::borrow::Cow;

use super::Kind;

/// Values that say nothing; a producer writes them when it does not know (GenOps §9.1 forbids them).
const PLACEHOLDERS: [&str; 5] = ["unknown", "none", "null", "default", "n/a"];

/// Spellings of providers met in the field, and the name OpenTelemetry gives them.
const PROVIDERS: &[(&str, &[&str])] = &[
    ("openai", &["openai", "open_ai", "openai.chat", "openai.responses", "openai.completion", "openai.embedding"]),
    ("anthropic", &["anthropic", "anthropic.messages", "claude"]),
    ("aws.bedrock", &["aws.bedrock", "aws_bedrock", "aws-bedrock", "bedrock", "amazon-bedrock", "amazon_bedrock"]),
    (
        "azure.ai.openai",
        &["azure.ai.openai", "az.ai.openai", "azure", "azure_openai", "azure-openai", "azure-openai.chat"],
    ),
    ("azure.ai.inference", &["azure.ai.inference", "az.ai.inference", "azure_ai"]),
    (
        "gcp.gemini",
        &["gcp.gemini", "gemini", "google", "google.generative-ai", "google_genai", "google-genai", "google_ai_studio"],
    ),
    ("gcp.vertex_ai", &["gcp.vertex_ai", "vertex_ai", "vertexai", "vertex", "google.vertex", "google.vertex.chat"]),
    ("mistral_ai", &["mistral_ai", "mistralai", "mistral", "mistral.chat"]),
    ("x_ai", &["x_ai", "xai", "xai.chat", "grok"]),
    ("cohere", &["cohere", "cohere_chat", "cohere.chat"]),
    ("deepseek", &["deepseek", "deepseek.chat"]),
    ("ibm.watsonx.ai", &["ibm.watsonx.ai", "watsonx"]),
    ("moonshot_ai", &["moonshot_ai", "moonshot"]),
];

/// Without blanks at its ends; most texts have none, and letters at both ends tell that at once.
#[inline]
pub(crate) fn trimmed(text: &str) -> &str {
    match text.as_bytes() {
        [b'!'..=b'~'] | [b'!'..=b'~', .., b'!'..=b'~'] => text,
        _ => text.trim(),
    }
}

/// Whether a value says nothing.
#[inline]
pub(crate) fn is_placeholder(text: &str) -> bool {
    text.is_empty() || PLACEHOLDERS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// `text` as a column of this kind spells it.
#[inline]
pub(crate) fn spelled(kind: Kind, text: &str) -> Cow<'_, str> {
    match kind {
        Kind::Lower => lower(text),
        Kind::Provider => provider(text),
        Kind::OperationType => operation_type(text),
        Kind::ToolName => Cow::Borrowed(tool_name(text)),
        Kind::PolicyResult => policy_result(text).map_or_else(|| Cow::Owned(text.to_uppercase()), Cow::Borrowed),
        _ => Cow::Borrowed(text),
    }
}

/// `text` in lower case, borrowed if it already is.
pub(crate) fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|b| b.is_ascii_uppercase() || !b.is_ascii()) {
        Cow::Owned(text.to_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}

/// The OpenTelemetry name of a provider; an unknown one in lower case.
pub(crate) fn provider(text: &str) -> Cow<'_, str> {
    let text = trimmed(text);
    let known = PROVIDERS.iter().find(|(_, spellings)| spellings.iter().any(|s| text.eq_ignore_ascii_case(s)));
    known.map_or_else(|| lower(text), |(name, _)| Cow::Borrowed(name))
}

/// A GenOps operation type: `ai.inference` (as the Python SDK writes it) is `inference`.
pub(crate) fn operation_type(text: &str) -> Cow<'_, str> {
    match lower(trimmed(text)) {
        Cow::Borrowed(word) => Cow::Borrowed(word.strip_prefix("ai.").unwrap_or(word)),
        Cow::Owned(word) => Cow::Owned(word.strip_prefix("ai.").map_or_else(|| word.clone(), str::to_owned)),
    }
}

/// The tool of `mcp__server__tool`; any other name as it is.
pub(crate) fn tool_name(text: &str) -> &str {
    let tool = text.strip_prefix("mcp__").and_then(|rest| rest.split_once("__")).map(|(_, tool)| tool);
    tool.filter(|tool| !tool.is_empty()).unwrap_or(text)
}

/// The GenOps decision state that a word of another vocabulary means.
///
/// A decision that was only simulated (`would_…`) let the work pass: a warning.
pub(crate) fn policy_result(text: &str) -> Option<&'static str> {
    match lower(trimmed(text)).as_ref() {
        "allowed" | "allow" | "pass" | "passed" | "request_allowed" => Some("ALLOWED"),
        "blocked" | "block" | "kill" | "reject" | "deny" | "denied" | "enforce" | "identity_rejected"
        | "policy_rejected" => Some("BLOCKED"),
        "warning" | "warn" | "alert" | "would_reject" | "would_throttle" | "would_kill" => Some("WARNING"),
        "rate_limited" | "throttle" | "throttled" | "guard_rejected" => Some("RATE_LIMITED"),
        _ => None,
    }
}

/// The reason code of GenOps (§5) that one of koshi-runtime means; any other as it is.
pub(crate) fn reason_code(text: &str) -> Option<&str> {
    Some(match text {
        // A decision that lets through, as its listener writes it.
        "" => return None,
        "budget_exhausted_throttle" | "budget_exhausted_kill" => "BUDGET_EXCEEDED",
        "upstream_timeout" => "PROVIDER_ERROR_UPSTREAM",
        "identity_missing" => "x_identity_missing",
        "policy_not_found" => "x_policy_not_found",
        "guard_max_tokens" => "x_guard_max_tokens",
        "upstream_not_configured" => "x_upstream_not_configured",
        "system_degraded" => "x_system_degraded",
        "budget_config_error" => "x_budget_config_error",
        other => other,
    })
}

/// A word of the vocabulary of [`policy_result`], as it is: the attribute name `decision` alone is too common to trust.
pub(crate) fn policy_word(text: &str) -> Option<&str> {
    policy_result(text).map(|_| text)
}

/// The event of GenOps (§7.2) that a type of koshi-runtime's events is; of its others the type, and no other word.
///
/// A request that it lets through it has reserved tokens for (`phase` is `reservation`): that it is a decision, too, is
/// in `policy_result`.
pub(crate) fn event_name_of_koshi(text: &str) -> Option<&str> {
    Some(match text {
        "enforcement" | "guard_rejected" | "identity_rejected" | "policy_rejected" | "listener_shadow" => {
            "genops.policy.evaluated"
        }
        "request_allowed" => "genops.budget.reservation",
        "budget_reconciled" => "genops.budget.reconciliation",
        "upstream_error" | "upstream_timeout" | "degraded_panic" | "degraded_passthrough" => text,
        _ => return None,
    })
}

/// A type of koshi-runtime's events that is a decision and has no word for it beside it: it answers 403 to the rejected
/// ones, and 429 to what its guard rejects.
pub(crate) fn decision_of_koshi(text: &str) -> Option<&str> {
    matches!(text, "request_allowed" | "identity_rejected" | "policy_rejected" | "guard_rejected").then_some(text)
}

/// Any string, but no number: `thread.id` is a session to some and an operating-system thread to others.
pub(crate) fn any_text(text: &str) -> Option<&str> {
    Some(text)
}

/// The operation type that the operation or span kind of any vocabulary means.
///
/// Wrappers of the Vercel AI SDK (`ai.generateText`) and their calls (`ai.generateText.doGenerate`) are both inference:
/// `usage_leaf` tells them apart.
pub(crate) fn operation_type_of(word: &str) -> Option<&'static str> {
    let word = lower(trimmed(word));
    Some(match word.as_ref() {
        "" => return None,
        "chat" | "completion" | "text_completion" | "generate_content" | "llm" | "generation" | "inference" => {
            "inference"
        }
        "embeddings" | "embedding" | "ai.embed" | "ai.embedmany" => "embedding",
        "retrieval" | "retriever" | "reranker" | "rerank" => "retrieval",
        "execute_tool" | "tool" | "ai.toolcall" => "tool",
        "invoke_agent" | "create_agent" | "agent" => "agent",
        "invoke_workflow" | "workflow" | "chain" | "task" => "workflow",
        "evaluation" | "evaluator" => "evaluation",
        "guardrail" => "guardrail",
        other if other.starts_with("ai.generate") || other.starts_with("ai.stream") => "inference",
        other if other.starts_with("ai.embed") => "embedding",
        _ => "other",
    })
}

/// The `gen_ai.operation.name` that the span kind of another vocabulary means.
pub(crate) fn gen_ai_operation_of(word: &str) -> Option<&'static str> {
    Some(match lower(trimmed(word)).as_ref() {
        "llm" | "chat" | "generation" => "chat",
        "completion" => "text_completion",
        "embedding" => "embeddings",
        "tool" => "execute_tool",
        "agent" => "invoke_agent",
        "chain" | "workflow" => "invoke_workflow",
        "retriever" | "reranker" | "rerank" => "retrieval",
        _ => return None,
    })
}

/// The cloud region in the host name of an AWS or Google endpoint (`bedrock-runtime.eu-west-1.amazonaws.com`).
pub(crate) fn region_of(host: &str) -> Option<&str> {
    let region = if let Some(service) = host.strip_suffix(".amazonaws.com") {
        service.rsplit('.').next().filter(|_| service.contains('.'))
    } else {
        host.strip_suffix("-aiplatform.googleapis.com")
    };
    region.filter(|r| r.contains('-'))
}

/// `ERROR` for the level of a failed Langfuse observation.
pub(crate) fn error_level(level: &str) -> Option<&'static str> {
    level.eq_ignore_ascii_case("error").then_some("ERROR")
}

/// Whether a log body is rather the name of an event: one dotted word, at most 128 bytes.
pub(crate) fn is_event_name(body: &str) -> bool {
    body.len() <= 128
        && body.contains('.')
        && body.starts_with(|c: char| c.is_ascii_alphabetic())
        && body.ends_with(|c: char| c.is_ascii_alphanumeric())
        && body.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_get_their_opentelemetry_name() {
        for (spelling, name) in [
            ("OpenAI", "openai"),
            (" gemini ", "gcp.gemini"),
            ("xai", "x_ai"),
            ("vLLM", "vllm"),
            ("azure", "azure.ai.openai"),
        ] {
            assert_eq!(provider(spelling), name);
        }
    }

    #[test]
    fn reason_codes_of_koshi_become_those_of_the_specification() {
        assert_eq!(reason_code("budget_exhausted_kill"), Some("BUDGET_EXCEEDED"));
        assert_eq!(reason_code("guard_max_tokens"), Some("x_guard_max_tokens"));
        assert_eq!(reason_code("POLICY_DENY_MODEL"), Some("POLICY_DENY_MODEL"));
    }

    #[test]
    fn words_of_koshi_become_decision_states() {
        assert_eq!(policy_result("would_throttle"), Some("WARNING"));
        assert_eq!(policy_result("kill"), Some("BLOCKED"));
        assert_eq!(policy_result("Rate_Limited"), Some("RATE_LIMITED"));
        assert_eq!(policy_result("maybe"), None);
    }

    #[test]
    fn operations_of_every_vocabulary_have_a_type() {
        for (word, expected) in [
            ("chat", "inference"),
            ("LLM", "inference"),
            ("ai.streamText.doStream", "inference"),
            ("ai.embed.doEmbed", "embedding"),
            ("ai.toolCall", "tool"),
            ("CHAIN", "workflow"),
            ("telepathy", "other"),
        ] {
            assert_eq!(operation_type_of(word), Some(expected), "{word}");
        }
        assert_eq!(operation_type_of(" "), None);
    }

    #[test]
    fn genops_types_lose_their_prefix() {
        assert_eq!(operation_type("ai.search"), "search");
        assert_eq!(operation_type("AI.Inference"), "inference");
        assert_eq!(operation_type("fine_tune"), "fine_tune");
    }

    #[test]
    fn a_tool_behind_mcp_keeps_only_its_name() {
        assert_eq!(tool_name("mcp__github__create_issue"), "create_issue");
        assert_eq!(tool_name("mcp__github"), "mcp__github");
        assert_eq!(tool_name("Bash"), "Bash");
    }

    #[test]
    fn regions_are_read_from_cloud_hosts_only() {
        assert_eq!(region_of("bedrock-runtime.eu-west-1.amazonaws.com"), Some("eu-west-1"));
        assert_eq!(region_of("us-central1-aiplatform.googleapis.com"), Some("us-central1"));
        assert_eq!(region_of("api.openai.com"), None);
        assert_eq!(region_of("s3.amazonaws.com"), None);
    }

    #[test]
    fn only_dotted_words_are_event_names() {
        assert!(is_event_name("claude_code.api_request"));
        for body in ["hello", "a sentence. with words", "done.", "1.5", ""] {
            assert!(!is_event_name(body), "{body}");
        }
    }
}
