//! Who does what in the company: its teams, their projects, and the models they call.

/// A model as requests name it, and what it costs.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) provider: &'static str,
    pub(super) request: &'static str,
    pub(super) response: &'static str,
    pub(super) input_usd_per_mtok: f64,
    pub(super) output_usd_per_mtok: f64,
}

const fn model(
    provider: &'static str,
    request: &'static str,
    response: &'static str,
    input_usd_per_mtok: f64,
    output_usd_per_mtok: f64,
) -> Model {
    Model { provider, request, response, input_usd_per_mtok, output_usd_per_mtok }
}

static GPT_4O: Model = model("openai", "gpt-4o", "gpt-4o-2024-08-06", 2.5, 10.0);
static GPT_4O_MINI: Model = model("openai", "gpt-4o-mini", "gpt-4o-mini-2024-07-18", 0.15, 0.6);
static SONNET: Model = model("anthropic", "claude-sonnet-4-5", "claude-sonnet-4-5-20250929", 3.0, 15.0);
static HAIKU: Model = model("anthropic", "claude-haiku-4-5", "claude-haiku-4-5-20251001", 1.0, 5.0);
static GEMINI_PRO: Model = model("gcp.vertex_ai", "gemini-2.5-pro", "gemini-2.5-pro", 1.25, 10.0);
static GEMINI_FLASH: Model = model("gcp.vertex_ai", "gemini-2.5-flash", "gemini-2.5-flash", 0.3, 2.5);
static MISTRAL_LARGE: Model = model("mistral_ai", "mistral-large-2411", "mistral-large-2411", 2.0, 6.0);

/// What the runaway agent calls.
pub(super) static OPUS: Model = model("anthropic", "claude-opus-4-1", "claude-opus-4-1-20250805", 15.0, 75.0);
/// What nobody may call.
pub(super) static DENIED: Model = model("deepseek", "deepseek-reasoner", "deepseek-reasoner", 0.55, 2.19);
/// What answers instead of `gpt-4o` while it is swapped.
pub(super) const SWAPPED_RESPONSE: &str = "gpt-4o-mini-2024-07-18";
/// What retrieval embeds with.
pub(super) static EMBEDDER: Model = model("openai", "text-embedding-3-small", "text-embedding-3-small", 0.02, 0.0);

/// How a request is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One call.
    Chat,
    /// An embedding, a look-up, a call.
    Retrieval,
    /// A span for the agent that repeats the usage of the calls below it, and calls and tools below it.
    Agent,
}

/// Whose attribute names a service uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// GenOps attributes with costs.
    GenOps,
    /// OpenTelemetry's GenAI conventions: tokens, no cost.
    OpenTelemetry,
    /// OpenInference, with costs.
    OpenInference,
}

/// A project of a team, and what its service does.
#[derive(Debug)]
pub(super) struct Workload {
    pub(super) team: &'static str,
    pub(super) project: &'static str,
    pub(super) service: &'static str,
    pub(super) model: &'static Model,
    pub(super) shape: Shape,
    pub(super) dialect: Dialect,
    /// Its share of the company's requests, in requests of [`WEIGHTS`].
    pub(super) weight: usize,
    /// Median duration of a call.
    pub(super) latency_ms: f64,
    /// Median input and output of a call.
    pub(super) tokens: (f64, f64),
}

/// The sum of all weights.
pub(super) const WEIGHTS: usize = 40;

/// The team whose agent runs in circles.
pub(super) const RUNAWAY: usize = 7;

#[rustfmt::skip] // A table.
pub(super) static WORKLOADS: [Workload; 13] = [
    Workload { team: "search", project: "answers", service: "answers-api", model: &GPT_4O, shape: Shape::Retrieval,
        dialect: Dialect::GenOps, weight: 6, latency_ms: 900.0, tokens: (1600.0, 250.0) },
    Workload { team: "search", project: "ranking", service: "ranking-api", model: &GPT_4O_MINI, shape: Shape::Chat,
        dialect: Dialect::GenOps, weight: 6, latency_ms: 500.0, tokens: (700.0, 40.0) },
    Workload { team: "support", project: "helpdesk", service: "helpdesk", model: &GPT_4O_MINI, shape: Shape::Agent,
        dialect: Dialect::OpenTelemetry, weight: 4, latency_ms: 700.0, tokens: (1800.0, 220.0) },
    Workload { team: "checkout", project: "cart-assistant", service: "cart", model: &GEMINI_FLASH, shape: Shape::Chat,
        dialect: Dialect::GenOps, weight: 4, latency_ms: 1400.0, tokens: (900.0, 150.0) },
    Workload { team: "fraud", project: "transaction-review", service: "fraud-review", model: &GPT_4O,
        shape: Shape::Chat, dialect: Dialect::GenOps, weight: 4, latency_ms: 1100.0, tokens: (1400.0, 180.0) },
    Workload { team: "marketing", project: "campaigns", service: "campaign-writer", model: &SONNET, shape: Shape::Chat,
        dialect: Dialect::GenOps, weight: 2, latency_ms: 2200.0, tokens: (900.0, 600.0) },
    Workload { team: "legal", project: "contracts", service: "contract-reader", model: &GEMINI_PRO,
        shape: Shape::Retrieval, dialect: Dialect::OpenInference, weight: 1, latency_ms: 2500.0,
        tokens: (9000.0, 500.0) },
    Workload { team: "research", project: "agents", service: "lab", model: &SONNET, shape: Shape::Agent,
        dialect: Dialect::GenOps, weight: 2, latency_ms: 800.0, tokens: (2500.0, 350.0) },
    Workload { team: "data-platform", project: "pipelines", service: "sql-writer", model: &MISTRAL_LARGE,
        shape: Shape::Agent, dialect: Dialect::GenOps, weight: 3, latency_ms: 700.0, tokens: (1900.0, 200.0) },
    Workload { team: "people", project: "onboarding", service: "onboarding-bot", model: &HAIKU, shape: Shape::Chat,
        dialect: Dialect::GenOps, weight: 1, latency_ms: 900.0, tokens: (1200.0, 200.0) },
    Workload { team: "mobile", project: "app-copilot", service: "app-copilot", model: &GEMINI_FLASH, shape: Shape::Chat,
        dialect: Dialect::OpenInference, weight: 4, latency_ms: 700.0, tokens: (800.0, 120.0) },
    Workload { team: "docs", project: "handbook", service: "handbook-search", model: &HAIKU, shape: Shape::Retrieval,
        dialect: Dialect::GenOps, weight: 2, latency_ms: 900.0, tokens: (2100.0, 180.0) },
    Workload { team: "sales", project: "pitch", service: "pitch-writer", model: &GPT_4O, shape: Shape::Chat,
        dialect: Dialect::GenOps, weight: 1, latency_ms: 1500.0, tokens: (1100.0, 500.0) },
];
