//! `llm_cost_usd(…)`: what a call cost by the price table that the rules directory has.

use std::sync::Arc;

use datafusion::logical_expr::ScalarUDF;
use lictor_schemas::prices::{PriceTable, Usage};
use lictor_schemas::time::EventTime;

use super::FunctionDoc;
use super::coerce::Kind;
use super::scalar::{Gives, ScalarSpec, Value, udf_with};

pub(super) static LLM_COST_USD: ScalarSpec = ScalarSpec {
    doc: FunctionDoc {
        name: "llm_cost_usd",
        arguments: "provider, model, input, cache_read, cache_write, output, reasoning, tier, at",
        meaning: "cost in USD by llm_prices.csv, of the tier (null: standard; batch, flex, priority, …), the context \
                  and the date; input includes cached tokens, output reasoning; null if the model or at is null or \
                  has no price then, or if neither input nor output is known",
        source: "the table of the rules directory; agrees with litellm's generic_cost_per_token",
    },
    takes: &[
        Kind::Text,
        Kind::Text,
        Kind::Number,
        Kind::Number,
        Kind::Number,
        Kind::Number,
        Kind::Number,
        Kind::Text,
        Kind::Time,
    ],
    required: 9,
    gives: Gives::Number,
    body: |_| Ok(Value::Null),
};

/// The function over a price table.
pub(super) fn llm_cost_usd(prices: &Arc<PriceTable>) -> ScalarUDF {
    let prices = Arc::clone(prices);
    udf_with(&LLM_COST_USD, true, Arc::new(move |arguments| Ok(cost(&prices, arguments))))
}

fn cost(prices: &PriceTable, arguments: &[Value]) -> Value {
    let [provider, Value::Text(model), input, read, write, output, reasoning, tier, Value::Time(at)] = arguments else {
        return Value::Null;
    };
    if input.is_null() && output.is_null() {
        return Value::Null;
    }
    let tokens = [input, read, write, output, reasoning].map(tokens);
    let [Some(input_tokens), Some(cache_read_tokens), Some(cache_write_tokens), output, reasoning] = tokens else {
        return Value::Null;
    };
    let (Some(output_tokens), Some(reasoning_tokens)) = (output, reasoning) else { return Value::Null };
    let usage = Usage { input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens };
    let usd = prices.cost_usd_in(text(tier), text(provider), model, EventTime(*at), &usage);
    usd.map_or(Value::Null, Value::of)
}

fn text(value: &Value) -> Option<&str> {
    if let Value::Text(text) = value { Some(text) } else { None }
}

/// More tokens than any request has; up to here a count is exact in a `DOUBLE`.
const TOKENS_MAX: f64 = 9e15;

/// A count of tokens, null being none; nothing for what is no count.
#[expect(clippy::cast_possible_truncation, reason = "whole and within the range just checked")]
fn tokens(value: &Value) -> Option<i64> {
    match value {
        Value::Null => Some(0),
        Value::Number(x) if *x >= 0.0 && *x <= TOKENS_MAX => Some(x.round() as i64),
        _ => None,
    }
}
