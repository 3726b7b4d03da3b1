//! What tokens cost: a dated table of list prices.
//!
//! Most telemetry reports tokens and no cost. A price holds from a date on, so that a replay of last month prices with
//! last month's prices. The table is text that a user replaces or extends; nothing here is compiled in.
//!
//! Invariant: a model that is not in the table has no cost. It is never zero: a budget that adds zeros never fires.

use std::collections::HashMap;

use crate::time::EventTime;

/// The columns that a CSV of prices has, in any order. Prices are in US dollars per million tokens; an empty cache
/// price means that cached tokens are billed as input.
pub const PRICE_COLUMNS: [&str; 8] = [
    "provider",
    "model",
    "valid_from",
    "input_usd_per_mtok",
    "output_usd_per_mtok",
    "cache_read_usd_per_mtok",
    "cache_write_usd_per_mtok",
    "source",
];

/// The columns that it may have besides: the service tier that a price is for (empty: standard), the input tokens that
/// a request must exceed for it (empty: none), and the price of reasoning tokens (empty: that of output).
pub const OPTIONAL_PRICE_COLUMNS: [&str; 3] = ["tier", "context_above_tokens", "reasoning_usd_per_mtok"];

/// The tier that a price without one is for.
const STANDARD: &str = "standard";

const TOKENS_PER_MTOK: f64 = 1e6;

/// The tokens of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// All input tokens, cached ones included.
    pub input_tokens: i64,
    /// All output tokens, reasoning included.
    pub output_tokens: i64,
    /// Those of the input that were read from a cache.
    pub cache_read_tokens: i64,
    /// Those of the input that were written to a cache.
    pub cache_write_tokens: i64,
    /// Those of the output that were spent on reasoning.
    pub reasoning_tokens: i64,
}

/// List prices by model, provider and date.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PriceTable {
    /// The prices of a model, oldest first.
    models: HashMap<String, Vec<Price>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Price {
    provider: String,
    valid_from: EventTime,
    /// In lower case, `batch` for what some call `batches`.
    tier: String,
    /// Requests with more input tokens than this, as a whole.
    context_above: i64,
    input: f64,
    output: f64,
    cache_read: Option<f64>,
    cache_write: Option<f64>,
    reasoning: Option<f64>,
}

impl PriceTable {
    /// A table without prices: nothing has a cost unless the telemetry reports it.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Reads a CSV with a header of [`PRICE_COLUMNS`] and any of [`OPTIONAL_PRICE_COLUMNS`]; `valid_from` is a date
    /// (midnight UTC), fields are not quoted.
    ///
    /// # Errors
    /// Every faulty line, with its number: a wrong header or count of fields, a bad date, a price that is not a finite
    /// number of at least 0, a model without a source, the same provider, model, date, tier and context twice.
    pub fn from_csv(text: &str) -> Result<Self, Vec<String>> {
        let mut table = Self::default();
        let mut errors = Vec::new();
        let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim_end()));
        let header = lines.next().map_or("", |(_, line)| line.trim_start_matches('\u{feff}'));
        let header = Header::read(header).map_err(|fault| vec![format!("line 1: {fault}")])?;
        for (number, line) in lines.filter(|(_, line)| !line.is_empty()) {
            match Price::from_line(&header, line) {
                Ok((model, price)) => {
                    if let Err(e) = table.insert(model, price) {
                        errors.push(format!("line {number}: {e}"));
                    }
                }
                Err(faults) => errors.extend(faults.into_iter().map(|e| format!("line {number}: {e}"))),
            }
        }
        if errors.is_empty() { Ok(table) } else { Err(errors) }
    }

    fn insert(&mut self, model: &str, price: Price) -> Result<(), String> {
        let prices = self.models.entry(model.to_owned()).or_default();
        if prices.iter().any(|p| p.is_of_the_same(&price)) {
            return Err(format!("{} {model} has two prices from {}", price.provider, price.valid_from));
        }
        let at = prices.partition_point(|p| p.valid_from <= price.valid_from);
        prices.insert(at, price);
        Ok(())
    }

    /// What `usage` cost at `at` in the standard tier, in US dollars; none if the model has no price then.
    ///
    /// The model is looked up as it is, else without a trailing date (`-2024-08-06`, `-20250514`). Without a provider
    /// the model must be sold by only one. A price for long contexts is that of the whole request.
    #[must_use]
    pub fn cost_usd(&self, provider: Option<&str>, model: &str, at: EventTime, usage: &Usage) -> Option<f64> {
        self.cost_usd_in(None, provider, model, at, usage)
    }

    /// As [`PriceTable::cost_usd`], in a service tier (`batch`, `flex`, `priority`, …). A model without prices for the
    /// tier costs what it costs in the standard tier.
    #[must_use]
    pub fn cost_usd_in(
        &self,
        tier: Option<&str>,
        provider: Option<&str>,
        model: &str,
        at: EventTime,
        usage: &Usage,
    ) -> Option<f64> {
        let tier = tier_name(tier.unwrap_or_default());
        let tiers: &[&str] = if tier == STANDARD { &[STANDARD] } else { &[&tier, STANDARD] };
        let models = [Some(model), undated(model)];
        let find = |model| tiers.iter().find_map(|tier| self.price(provider, model, at, tier, usage.input_tokens));
        Some(models.into_iter().flatten().find_map(find)?.cost_usd(usage))
    }

    /// The price that holds at `at`, of those that the request is long enough for that of the longest context.
    fn price(
        &self,
        provider: Option<&str>,
        model: &str,
        at: EventTime,
        tier: &str,
        input_tokens: i64,
    ) -> Option<&Price> {
        let prices = self.models.get(model)?;
        let provider = match provider {
            Some(provider) => provider,
            None => sole_provider(prices)?,
        };
        let holds = |p: &&Price| p.provider == provider && p.tier == tier && p.valid_from <= at;
        let held = prices.iter().rev().find(|p| holds(p) && p.context_above == 0)?;
        let is_long = |p: &&Price| holds(p) && p.valid_from >= held.valid_from && input_tokens > p.context_above;
        prices.iter().filter(is_long).max_by_key(|p| (p.context_above, p.valid_from)).or(Some(held))
    }
}

/// A tier as the table names it: how providers and their clients spell it differs.
fn tier_name(said: &str) -> String {
    let said = said.trim().to_ascii_lowercase();
    match said.as_str() {
        "" | "default" | "auto" | "on_demand" | "standard_only" => STANDARD.to_owned(),
        "batches" => "batch".to_owned(),
        _ => said,
    }
}

fn sole_provider(prices: &[Price]) -> Option<&str> {
    let first = &prices.first()?.provider;
    prices.iter().all(|p| p.provider == *first).then_some(first)
}

/// The model without its release date, if it has one.
fn undated(model: &str) -> Option<&str> {
    let dated = |at: usize, pattern: &[u8]| {
        let suffix = model.as_bytes().get(at..)?;
        let fits = suffix.iter().zip(pattern).all(|(b, p)| if *p == b'0' { b.is_ascii_digit() } else { b == p });
        fits.then(|| &model[..at])
    };
    [b"-0000-00-00".as_slice(), b"-00000000"].into_iter().find_map(|p| dated(model.len().checked_sub(p.len())?, p))
}

/// Which field of a line is which column.
struct Header {
    columns: Vec<String>,
}

impl Header {
    fn read(line: &str) -> Result<Self, String> {
        let columns: Vec<String> = line.split(',').map(|column| column.trim().to_owned()).collect();
        let is_known =
            |c: &&String| PRICE_COLUMNS.contains(&c.as_str()) || OPTIONAL_PRICE_COLUMNS.contains(&c.as_str());
        let has_all = PRICE_COLUMNS.iter().all(|name| columns.iter().filter(|c| *c == name).count() == 1);
        if has_all && columns.iter().all(|c| is_known(&c)) {
            return Ok(Self { columns });
        }
        let (needed, optional) = (PRICE_COLUMNS.join(","), OPTIONAL_PRICE_COLUMNS.join(","));
        Err(format!("the header is `{line}`, not `{needed}`, with or without `{optional}`"))
    }

    /// A line's field of a column; empty if the table does not have the column.
    fn field<'a>(&self, fields: &[&'a str], column: &str) -> &'a str {
        self.columns.iter().position(|c| c == column).and_then(|at| fields.get(at).copied()).unwrap_or_default()
    }
}

impl Price {
    /// Whether it is for the same provider, date, tier and context.
    fn is_of_the_same(&self, other: &Self) -> bool {
        (&self.provider, self.valid_from, &self.tier, self.context_above)
            == (&other.provider, other.valid_from, &other.tier, other.context_above)
    }

    fn from_line<'a>(header: &Header, line: &'a str) -> Result<(&'a str, Self), Vec<String>> {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        if fields.len() != header.columns.len() {
            return Err(vec![format!("{} fields instead of {}", fields.len(), header.columns.len())]);
        }
        let said = |column: &str| header.field(&fields, column);
        let mut faults = Vec::new();
        for name in ["provider", "model", "source"] {
            if said(name).is_empty() {
                faults.push(format!("{name} is empty"));
            }
        }
        let from = said("valid_from");
        let valid_from = EventTime::from_rfc3339(&format!("{from}T00:00:00Z"))
            .map_err(|_| faults.push(format!("valid_from `{from}` is not a date like 2025-05-14")));
        let context = said("context_above_tokens");
        let context_above = if context.is_empty() { Some(0) } else { context.parse().ok().filter(|n: &i64| *n >= 0) };
        if context_above.is_none() {
            faults.push(format!("context_above_tokens `{context}` is not a number of tokens"));
        }
        let mut amount = |name: &'static str| match said(name).parse::<f64>() {
            Ok(usd) if usd.is_finite() && usd >= 0.0 => Some(usd),
            _ => {
                faults.push(format!("{name} `{}` is not a price", said(name)));
                None
            }
        };
        let (input, output) = (amount("input_usd_per_mtok"), amount("output_usd_per_mtok"));
        let mut optional = |name| if said(name).is_empty() { None } else { amount(name) };
        let (cache_read, cache_write) = (optional("cache_read_usd_per_mtok"), optional("cache_write_usd_per_mtok"));
        let reasoning = optional("reasoning_usd_per_mtok");
        match (valid_from, context_above, input, output) {
            (Ok(valid_from), Some(context_above), Some(input), Some(output)) if faults.is_empty() => {
                let (provider, tier) = (said("provider").to_owned(), tier_name(said("tier")));
                let price = Self {
                    provider,
                    valid_from,
                    tier,
                    context_above,
                    input,
                    output,
                    cache_read,
                    cache_write,
                    reasoning,
                };
                Ok((said("model"), price))
            }
            _ => Err(faults),
        }
    }

    /// Cached parts of the input at their own price, the rest of it at the input price; likewise reasoning and output.
    fn cost_usd(&self, usage: &Usage) -> f64 {
        let fresh = usage.input_tokens.saturating_sub(usage.cache_read_tokens).saturating_sub(usage.cache_write_tokens);
        let reasoning = usage.reasoning_tokens.clamp(0, usage.output_tokens.max(0));
        let parts = [
            (fresh.max(0), self.input),
            (usage.cache_read_tokens, self.cache_read.unwrap_or(self.input)),
            (usage.cache_write_tokens, self.cache_write.unwrap_or(self.input)),
            (usage.output_tokens - reasoning, self.output),
            (reasoning, self.reasoning.unwrap_or(self.output)),
        ];
        parts.into_iter().map(|(tokens, usd_per_mtok)| tokens as f64 * usd_per_mtok).sum::<f64>() / TOKENS_PER_MTOK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!("../../queries/rules/llm_prices.csv");

    fn csv(lines: &str) -> String {
        format!("{}\n{lines}", PRICE_COLUMNS.join(","))
    }

    fn at(date: &str) -> EventTime {
        EventTime::from_rfc3339(&format!("{date}T12:00:00Z")).unwrap()
    }

    fn usage(input: i64, output: i64, cache_read: i64, cache_write: i64) -> Usage {
        Usage {
            input_tokens: input,
            output_tokens: output,
            cache_read_tokens: cache_read,
            cache_write_tokens: cache_write,
            reasoning_tokens: 0,
        }
    }

    #[track_caller]
    fn check(provider: &str, model: &str, usage: Usage, usd: f64) {
        let table = PriceTable::from_csv(SHIPPED).unwrap();
        let cost = table.cost_usd(Some(provider), model, at("2026-06-01"), &usage).unwrap();
        assert!((cost - usd).abs() < 1e-12, "{model}: {cost} instead of {usd}");
    }

    #[test]
    fn shipped_prices_agree_with_the_cost_calculator_of_litellm() {
        check("openai", "gpt-4o", usage(1000, 500, 0, 0), 0.0075);
        check("openai", "gpt-4o", usage(10_000, 500, 8000, 0), 0.02);
        check("openai", "o3", usage(2000, 5000, 0, 0), 0.044);
        check("anthropic", "claude-sonnet-4-5", usage(12_000, 800, 9000, 2000), 0.0252);
    }

    #[test]
    fn every_shipped_price_names_its_source() {
        assert!(SHIPPED.lines().skip(1).all(|line| line.rsplit(',').next().unwrap().starts_with("https://")));
        assert!(SHIPPED.lines().count() > 25);
    }

    #[test]
    fn unknown_model_has_no_cost() {
        let table = PriceTable::from_csv(SHIPPED).unwrap();
        let one = usage(1, 1, 0, 0);
        assert_eq!(table.cost_usd(Some("openai"), "gpt-99", at("2026-01-01"), &one), None);
        assert_eq!(table.cost_usd(Some("gcp.gemini"), "gpt-4o", at("2026-01-01"), &one), None);
        assert_eq!(PriceTable::empty().cost_usd(None, "gpt-4o", at("2026-01-01"), &one), None);
    }

    #[test]
    fn price_is_the_latest_that_holds_at_the_time() {
        let table =
            PriceTable::from_csv(&csv("p,m,2025-03-01,2,0,,,https://b\np,m,2025-01-01,1,0,,,https://a")).unwrap();
        let mtok = usage(1_000_000, 0, 0, 0);
        assert_eq!(table.cost_usd(Some("p"), "m", at("2024-12-31"), &mtok), None);
        assert_eq!(table.cost_usd(Some("p"), "m", at("2025-02-28"), &mtok), Some(1.0));
        assert_eq!(table.cost_usd(Some("p"), "m", at("2025-03-01"), &mtok), Some(2.0));
    }

    #[test]
    fn release_date_is_dropped_only_if_the_exact_model_is_missing() {
        let table =
            PriceTable::from_csv(&csv("p,m,2025-01-01,1,0,,,https://a\np,m-2025-02-03,2025-01-01,5,0,,,https://a"))
                .unwrap();
        let cost = |model| table.cost_usd(Some("p"), model, at("2026-01-01"), &usage(1_000_000, 0, 0, 0));
        assert_eq!(cost("m-2025-02-03"), Some(5.0));
        assert_eq!(cost("m-2025-06-07"), Some(1.0));
        assert_eq!(cost("m-20250607"), Some(1.0));
        assert_eq!(cost("m-2025"), None);
        assert_eq!(cost("é-20250607"), None);
        assert_eq!(cost(""), None);
    }

    #[test]
    fn without_provider_the_seller_must_be_the_only_one() {
        let table = PriceTable::from_csv(&csv(
            "p,m,2025-01-01,1,0,,,https://a\nq,m,2025-01-01,2,0,,,https://a\nq,n,2025-01-01,3,0,,,https://a",
        ))
        .unwrap();
        let mtok = usage(1_000_000, 0, 0, 0);
        assert_eq!(table.cost_usd(None, "m", at("2026-01-01"), &mtok), None);
        assert_eq!(table.cost_usd(None, "n", at("2026-01-01"), &mtok), Some(3.0));
    }

    #[test]
    fn missing_cache_price_bills_as_input() {
        let table = PriceTable::from_csv(&csv("p,m,2025-01-01,2,0,,,https://a")).unwrap();
        let cost = table.cost_usd(Some("p"), "m", at("2026-01-01"), &usage(1_000_000, 0, 500_000, 500_000));
        assert_eq!(cost, Some(2.0));
    }

    #[test]
    fn all_errors_are_told_at_once_with_their_lines() {
        let errors = PriceTable::from_csv(&csv("p,m,2025-13-01,x,1,,,https://a\np,m\n,m,2025-01-01,1,1,-2,,\n\
             p,m,2025-01-01,1,1,,,https://a\np,m,2025-01-01,1,1,,,https://a"))
        .unwrap_err();
        for expected in [
            "line 2: valid_from",
            "line 2: input_usd",
            "line 3: 2 fields",
            "line 4: provider is empty",
            "line 4: source is empty",
            "line 4: cache_read_usd_per_mtok `-2`",
            "line 6: p m has two prices",
        ] {
            assert!(errors.iter().any(|e| e.starts_with(expected)), "no `{expected}` in {errors:#?}");
        }
        assert_eq!(errors.len(), 7);
        assert!(PriceTable::from_csv("model,price").unwrap_err()[0].starts_with("line 1: the header"));
        assert!(PriceTable::from_csv("").is_err());
    }

    fn tiers() -> PriceTable {
        let header = "provider,model,valid_from,tier,context_above_tokens,input_usd_per_mtok,output_usd_per_mtok,\
                      cache_read_usd_per_mtok,cache_write_usd_per_mtok,reasoning_usd_per_mtok,source";
        let lines = [
            "p,m,2025-01-01,,,2,10,1,,,https://a",
            "p,m,2025-01-01,,200000,4,20,2,,,https://a",
            "p,m,2025-01-01,batch,,1,5,,,,https://a",
            "p,m,2025-06-01,,,3,10,1,,40,https://a",
        ];
        PriceTable::from_csv(&format!("{header}\n{}", lines.join("\n"))).unwrap()
    }

    #[test]
    fn long_context_is_priced_as_a_whole_request() {
        let cost = |input| tiers().cost_usd(Some("p"), "m", at("2025-02-01"), &usage(input, 0, 0, 0)).unwrap();
        assert!((cost(200_000) - 0.4).abs() < 1e-12);
        assert!((cost(200_001) - 0.800_004).abs() < 1e-12);
    }

    #[test]
    fn a_later_price_ends_the_long_context_price_before_it() {
        let cost = tiers().cost_usd(Some("p"), "m", at("2025-07-01"), &usage(1_000_000, 0, 0, 0));
        assert_eq!(cost, Some(3.0));
    }

    #[test]
    fn a_tier_without_prices_costs_the_standard_ones() {
        let cost = |tier| tiers().cost_usd_in(tier, Some("p"), "m", at("2025-02-01"), &usage(100_000, 0, 0, 0));
        assert_eq!([None, Some(""), Some("AUTO")].map(cost), [Some(0.2); 3]);
        assert_eq!([Some("batch"), Some("batches")].map(cost), [Some(0.1); 2]);
        assert_eq!(cost(Some("priority")), Some(0.2));
    }

    #[test]
    fn reasoning_has_its_own_price_where_there_is_one() {
        let used = Usage { output_tokens: 1_000_000, reasoning_tokens: 250_000, ..Usage::default() };
        let cost = |date| tiers().cost_usd(Some("p"), "m", at(date), &used);
        assert_eq!([cost("2025-02-01"), cost("2025-07-01")], [Some(10.0), Some(17.5)]);
    }

    #[test]
    fn shipped_tiers_agree_with_the_cost_calculator_of_litellm() {
        let table = PriceTable::from_csv(SHIPPED).unwrap();
        let cost = |tier, provider, model, usage| {
            table.cost_usd_in(Some(tier), Some(provider), model, at("2026-06-01"), &usage).unwrap()
        };
        assert!((cost("flex", "openai", "o3", usage(2000, 5000, 0, 0)) - 0.022).abs() < 1e-12);
        assert!((cost("priority", "openai", "gpt-4o", usage(1000, 500, 0, 0)) - 0.01275).abs() < 1e-12);
        let gemini = |input| cost("", "gcp.gemini", "gemini-2.5-pro", usage(input, 0, 0, 0));
        assert!((gemini(199_999) - 0.249_998_75).abs() < 1e-12);
        assert!((gemini(200_001) - 0.500_002_5).abs() < 1e-12);
    }

    #[test]
    fn optional_columns_are_checked() {
        let header = format!("{},tier,context_above_tokens", PRICE_COLUMNS.join(","));
        let faults = PriceTable::from_csv(&format!("{header}\np,m,2025-01-01,1,1,,,https://a,flex,-5")).unwrap_err();
        assert_eq!(faults, ["line 2: context_above_tokens `-5` is not a number of tokens"]);
        assert!(PriceTable::from_csv(&format!("{header},colour")).unwrap_err()[0].contains("the header is"));
    }
}
