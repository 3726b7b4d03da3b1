//! Who there is: fifty keys, each a project of a team with a service of its own, five for each of ten models.

use fastrand::Rng;

use super::random::log_normal;

/// A model as requests and answers name it, and what `llm_prices.csv` says it costs.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) provider: &'static str,
    pub(crate) request: &'static str,
    pub(crate) response: &'static str,
    pub(crate) input_usd_per_mtok: f64,
    pub(crate) output_usd_per_mtok: f64,
}

const fn model(provider: &'static str, request: &'static str, response: &'static str, usd_per_mtok: [f64; 2]) -> Model {
    let [input_usd_per_mtok, output_usd_per_mtok] = usd_per_mtok;
    Model { provider, request, response, input_usd_per_mtok, output_usd_per_mtok }
}

pub(crate) const MODELS: [Model; 10] = [
    model("openai", "gpt-4o", "gpt-4o-2024-08-06", [2.5, 10.0]),
    model("openai", "gpt-4.1", "gpt-4.1-2025-04-14", [2.0, 8.0]),
    model("anthropic", "claude-haiku-4-5", "claude-haiku-4-5-20251001", [1.0, 5.0]),
    model("gcp.gemini", "gemini-2.5-flash", "gemini-2.5-flash", [0.3, 2.5]),
    model("openai", "gpt-4o-mini", "gpt-4o-mini-2024-07-18", [0.15, 0.6]),
    model("openai", "o4-mini", "o4-mini-2025-04-16", [1.1, 4.4]),
    model("anthropic", "claude-sonnet-4-5", "claude-sonnet-4-5-20250929", [3.0, 15.0]),
    model("mistral_ai", "mistral-large-2411", "mistral-large-2411", [2.0, 6.0]),
    model("openai", "gpt-5", "gpt-5-2025-08-07", [1.25, 10.0]),
    model("gcp.gemini", "gemini-2.5-pro", "gemini-2.5-pro", [1.25, 10.0]),
];

/// What answers instead of a model that is silently swapped.
pub(crate) const SWAPPED_RESPONSE: &str = "gpt-4o-mini-2024-07-18";
/// A model that is on nobody's list and has no price.
pub(crate) const DENIED_MODEL: &str = "in-house-7b";

/// Keys of one model.
pub(crate) const KEYS_PER_MODEL: usize = 5;
pub(crate) const KEYS: usize = MODELS.len() * KEYS_PER_MODEL;

/// What agents call, from often to seldom.
pub(crate) const TOOLS: [&str; 5] = ["search", "read_page", "run_sql", "calculator", "send_mail"];

/// Whether the project of that number has an agent.
pub(crate) fn is_agent(number: usize) -> bool {
    !(number / KEYS_PER_MODEL).is_multiple_of(2)
}

/// Whether its scores are on spans; else they are log records.
pub(crate) fn scores_on_spans(number: usize) -> bool {
    number.is_multiple_of(2)
}

/// One project and how it works.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) number: usize,
    /// Calls in an hour, the mean of a day.
    pub(crate) calls_per_h: f64,
    /// Of a call without its output, in the median.
    pub(crate) latency_ms: f64,
    /// Of the first turn of a session, in the median.
    pub(crate) input_tokens: f64,
    pub(crate) output_tokens: f64,
    /// How often each of [`TOOLS`] is called; none if the project has no agent.
    pub(crate) tools: Option<[f64; 5]>,
    /// The mean score of its evaluations.
    pub(crate) score: f64,
    /// Whether its telemetry says what calls cost; else the price table does.
    pub(crate) reports_cost: bool,
    /// The busiest hour of its day.
    pub(crate) peak_h: f64,
}

impl Key {
    fn new(number: usize, random: &mut Rng) -> Self {
        let tools = is_agent(number).then(|| [0.4, 0.3, 0.15, 0.1, 0.05].map(|share| log_normal(random, share, 0.2)));
        Self {
            number,
            // Above 300 an hour by day, so that no rule on hours is left without hours.
            calls_per_h: log_normal(random, 450.0, 0.35).clamp(300.0, 1_200.0),
            latency_ms: log_normal(random, 700.0, 0.4),
            input_tokens: log_normal(random, 1_500.0, 0.4),
            output_tokens: log_normal(random, 250.0, 0.4),
            tools,
            score: 0.75 + 0.1 * random.f64(),
            reports_cost: number.is_multiple_of(2),
            peak_h: 12.0 + 4.0 * random.f64(),
        }
    }

    pub(crate) fn model_number(&self) -> usize {
        self.number / KEYS_PER_MODEL
    }

    pub(crate) fn model(&self) -> &'static Model {
        &MODELS[self.model_number()]
    }

    /// The name of something of this key's; [`number_in`] is the way back.
    pub(crate) fn name(&self, what: &str) -> String {
        format!("{what}-{:02}", self.number)
    }
}

/// The number of the key that a name is of.
pub(crate) fn number_in(name: &str) -> Option<usize> {
    name.split('-').nth(1)?.parse().ok()
}

/// All keys, as `random` makes them.
pub(crate) fn keys(random: &mut Rng) -> Vec<Key> {
    (0..KEYS).map(|number| Key::new(number, random)).collect()
}
