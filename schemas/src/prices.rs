//! What tokens cost: a dated table of list prices.
//!
//! Most telemetry reports tokens and no cost. A price holds from a date on, so that a replay of last month prices with
//! last month's prices. The table is text that a user replaces or extends; nothing here is compiled in.
//!
//! Invariant: a model that is not in the table has no cost. It is never zero: a budget that adds zeros never fires.

use std::collections::HashMap;

use crate::time::EventTime;

/// The columns of the CSV, in order. Prices are in US dollars per million tokens; an empty cache price means that
/// cached tokens are billed as input.
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
    input: f64,
    output: f64,
    cache_read: Option<f64>,
    cache_write: Option<f64>,
}

impl PriceTable {
    /// A table without prices: nothing has a cost unless the telemetry reports it.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Reads a CSV with the header [`PRICE_COLUMNS`]; `valid_from` is a date (midnight UTC), fields are not quoted.
    ///
    /// # Errors
    /// Every faulty line, with its number: a wrong header or count of fields, a bad date, a price that is not a finite
    /// number of at least 0, a model without a source, the same provider, model and date twice.
    pub fn from_csv(text: &str) -> Result<Self, Vec<String>> {
        let mut table = Self::default();
        let mut errors = Vec::new();
        let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim_end()));
        match lines.next() {
            Some((_, header)) if header.trim_start_matches('\u{feff}') == PRICE_COLUMNS.join(",") => {}
            found => {
                let found = found.map_or("", |(_, line)| line);
                return Err(vec![format!("line 1: the header is `{found}`, not `{}`", PRICE_COLUMNS.join(","))]);
            }
        }
        for (number, line) in lines.filter(|(_, line)| !line.is_empty()) {
            match Price::from_line(line) {
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
        if prices.iter().any(|p| p.provider == price.provider && p.valid_from == price.valid_from) {
            return Err(format!("{} {model} has two prices from {}", price.provider, price.valid_from));
        }
        let at = prices.partition_point(|p| p.valid_from <= price.valid_from);
        prices.insert(at, price);
        Ok(())
    }

    /// What `usage` cost at `at`, in US dollars; none if the model has no price then.
    ///
    /// The model is looked up as it is, else without a trailing date (`-2024-08-06`, `-20250514`). Without a provider
    /// the model must be sold by only one. Prices that depend on the length of the context are not modelled: the base
    /// price is used.
    #[must_use]
    pub fn cost_usd(&self, provider: Option<&str>, model: &str, at: EventTime, usage: &Usage) -> Option<f64> {
        let price = self.price(provider, model, at).or_else(|| self.price(provider, undated(model)?, at))?;
        Some(price.cost_usd(usage))
    }

    fn price(&self, provider: Option<&str>, model: &str, at: EventTime) -> Option<&Price> {
        let prices = self.models.get(model)?;
        let provider = match provider {
            Some(provider) => provider,
            None => sole_provider(prices)?,
        };
        prices.iter().rev().find(|p| p.provider == provider && p.valid_from <= at)
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

impl Price {
    fn from_line(line: &str) -> Result<(&str, Self), Vec<String>> {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let [provider, model, from, input, output, cache_read, cache_write, source] = fields[..] else {
            return Err(vec![format!("{} fields instead of {}", fields.len(), PRICE_COLUMNS.len())]);
        };
        let mut faults = Vec::new();
        for (name, value) in [("provider", provider), ("model", model), ("source", source)] {
            if value.is_empty() {
                faults.push(format!("{name} is empty"));
            }
        }
        let valid_from = EventTime::from_rfc3339(&format!("{from}T00:00:00Z"))
            .map_err(|_| faults.push(format!("valid_from `{from}` is not a date like 2025-05-14")));
        let mut amount = |name: &str, value: &str| match value.parse::<f64>() {
            Ok(usd) if usd.is_finite() && usd >= 0.0 => Some(usd),
            _ => {
                faults.push(format!("{name} `{value}` is not a price"));
                None
            }
        };
        let input = amount("input_usd_per_mtok", input);
        let output = amount("output_usd_per_mtok", output);
        let mut cached = |name, value: &str| if value.is_empty() { None } else { amount(name, value) };
        let cache_read = cached("cache_read_usd_per_mtok", cache_read);
        let cache_write = cached("cache_write_usd_per_mtok", cache_write);
        match (valid_from, input, output) {
            (Ok(valid_from), Some(input), Some(output)) if faults.is_empty() => {
                let provider = provider.to_owned();
                Ok((model, Self { provider, valid_from, input, output, cache_read, cache_write }))
            }
            _ => Err(faults),
        }
    }

    /// Cached parts of the input at their own price, the rest of it at the input price.
    fn cost_usd(&self, usage: &Usage) -> f64 {
        let fresh = usage.input_tokens.saturating_sub(usage.cache_read_tokens).saturating_sub(usage.cache_write_tokens);
        let parts = [
            (fresh.max(0), self.input),
            (usage.cache_read_tokens, self.cache_read.unwrap_or(self.input)),
            (usage.cache_write_tokens, self.cache_write.unwrap_or(self.input)),
            (usage.output_tokens, self.output),
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
}
