//! Numbers that scipy, numpy, Evidently and litellm gave, each worked out again as a rule would: in SQL.
//!
//! They lie beside the repository; where they do not, there is nothing to compare and the tests say so.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{Sql, is_near};

fn vectors(file: &str) -> Option<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors").join(file);
    match fs::read_to_string(&path) {
        Ok(text) => Some(serde_json::from_str(&text).unwrap()),
        Err(e) => {
            eprintln!("skipped: {} is not there: {e}", path.display());
            None
        }
    }
}

/// A JSON list as a list in SQL; infinite numbers are text in the files.
fn list(value: &Value) -> String {
    let item = |item: &Value| match item {
        Value::Array(_) => list(item),
        Value::String(text) if text.ends_with("inf") => format!("CAST('{text}' AS DOUBLE)"),
        Value::String(text) => format!("'{text}'"),
        number => format!("CAST({number} AS DOUBLE)"),
    };
    format!("[{}]", value.as_array().unwrap().iter().map(item).collect::<Vec<_>>().join(", "))
}

/// The reference and the current side of a case as expressions.
fn sides(input: &Value) -> (String, String) {
    let side = |counts: &str, values: &str| match (&input[counts], &input[values]) {
        (Value::Array(_), _) if input["edges"].is_array() => {
            format!("hist({}, {})", list(&input["edges"]), list(&input[counts]))
        }
        (Value::Array(_), _) => format!("hist_of({})", list(&input[counts])),
        (Value::Object(categories), _) => {
            let keys: Value = categories.keys().cloned().map(Value::String).collect();
            let counts: Value = categories.values().cloned().collect();
            format!("freq({}, {})", list(&keys), list(&counts))
        }
        (_, values) => list(values),
    };
    let (reference, current) = (side("ref_counts", "reference"), side("cur_counts", "current"));
    (reference, current)
}

/// Evidently's bins: of Sturges over both samples, or every value by itself if the reference has few.
fn evidently(function: &str) -> String {
    let edges = "hist_edges_sturges(array_concat(R, C))";
    format!(
        "CASE WHEN array_length(array_distinct(R)) > 20
              THEN {function}(hist_of_values(R, {edges}), hist_of_values(C, {edges}))
              ELSE {function}(freq_of_values(R), freq_of_values(C)) END"
    )
}

/// Each expected number of a group as an expression over R and C.
fn expressions(function: &str) -> Vec<(&'static str, String)> {
    let one = |name, expression: &str| vec![(name, expression.to_owned())];
    let doane =
        |function| format!("{function}(hist_of_values(R, hist_edges_doane(R)), hist_of_values(C, hist_edges_doane(R))");
    let several = |list: &[(&'static str, &str)]| list.iter().map(|(n, e)| (*n, (*e).to_owned())).collect();
    let sturges_of_values = "hist_edges_sturges(array_distinct(array_concat(R, C)))";
    match function {
        "psi_hist" | "evidently_psi_categorical" => one("psi", "psi_eps(R, C)"),
        "psi_hist_laplace" => one("psi", "psi(R, C, 0.5)"),
        "kl_hist" => several(&[("kl_ref_cur", "kl_divergence_eps(R, C)"), ("kl_cur_ref", "kl_divergence_eps(C, R)")]),
        "kl_hist_raw" => several(&[("kl_ref_cur", "kl_divergence(R, C)"), ("kl_cur_ref", "kl_divergence(C, R)")]),
        "js_distance" => several(&[
            ("base_e", "js_distance(R, C)"),
            ("base_2", "js_distance(R, C, 2)"),
            ("divergence_base_e", "js_divergence(R, C)"),
            ("divergence_base_2", "js_divergence(R, C, 2)"),
        ]),
        "evidently_js_categorical" => one("js", "js_distance(R, C)"),
        "hellinger_hist" | "evidently_hellinger_categorical" => one("hellinger", "hellinger(R, C)"),
        "tvd_hist" => one("tvd", "tvd(R, C)"),
        "linf_hist" => one("linf", "linf(R, C)"),
        "chi2_contingency_hist" => several(&[("statistic", "chi2_stat(R, C)"), ("p_value", "chi2_pvalue(R, C)")]),
        "chi2_gof_hist" => several(&[("statistic", "chi2_gof_stat(R, C)"), ("p_value", "chi2_gof_pvalue(R, C)")]),
        "evidently_chisquare_categorical" => one("p_value", "chi2_gof_pvalue(R, C)"),
        "g_test_hist" => several(&[("statistic", "g_test(R, C)"), ("p_value", "g_pvalue(R, C)")]),
        "psi_null_critical" => {
            several(&[("crit_0_05", "psi_critical(R, C, 0.05)"), ("crit_0_01", "psi_critical(R, C, 0.01)")])
        }
        "ks_hist" => several(&[
            ("statistic", "ks_stat(R, C)"),
            ("p_value", "ks_pvalue(R, C)"),
            (
                "p_value_asymptotic",
                "kolmogorov_sf(ks_stat(R, C) * sqrt(hist_count(R) * hist_count(C) / (hist_count(R) + hist_count(C))))",
            ),
        ]),
        "wasserstein_hist_midpoint" => one("distance", "wasserstein(R, C)"),
        "wasserstein_hist_linear" => one("distance", "wasserstein_linear(R, C)"),
        "evidently_psi_numeric" => vec![("psi", evidently("psi_eps"))],
        "evidently_kl_numeric" => vec![("kl", evidently("kl_divergence_eps"))],
        "evidently_js_numeric" => vec![("js", evidently("js_distance"))],
        "evidently_hellinger_numeric" => one(
            "hellinger",
            &format!("hellinger(hist_of_values(R, {sturges_of_values}), hist_of_values(C, {sturges_of_values}))"),
        ),
        "evidently_wasserstein_norm" => several(&[("w", "wasserstein_norm(R, C)"), ("w_raw", "wasserstein(R, C)")]),
        "ks_2samp" => several(&[
            ("statistic", "ks_stat(R, C)"),
            ("p_value", "ks_pvalue(R, C)"),
            (
                "p_value_asymp",
                "ks_sf(ks_stat(R, C), round(CAST(array_length(R) * array_length(C) AS DOUBLE) \
                 / (array_length(R) + array_length(C))))",
            ),
        ]),
        "nannyml_js_numeric" => {
            vec![("js", format!("{}, 2)", doane("js_distance"))), ("hellinger", format!("{})", doane("hellinger")))]
        }
        "evidently_mmd_numeric" | "mmd2_unbiased_rbf" => Vec::new(),
        "psi_decile_reference" => one(
            "psi",
            "psi_eps(hist_of_values(R, hist_edges_quantile(R, 10)), hist_of_values(C, hist_edges_quantile(R, 10)))",
        ),
        _ => Vec::new(),
    }
}

/// What a group expects and the query that gives it, where it is not one of R and C.
fn special(vector: &Value, streams: &Value) -> Vec<(&'static str, String)> {
    let input = &vector["input"];
    match vector["function"].as_str().unwrap() {
        "evidently_mmd_numeric" => {
            let (r, c) = sides(input);
            vec![("mmd2", format!("mmd2({r}, {c})"))]
        }
        "mmd2_unbiased_rbf" => {
            let arguments = format!("{}, {}, {}", list(&input["x"]), list(&input["y"]), vector["params"]["gamma"]);
            vec![("mmd2", format!("mmd2({arguments})")), ("mmd2_biased", format!("mmd2_biased({arguments})"))]
        }
        "embedding_centroid_distance" => {
            let rows = |side: &str| {
                let rows = input[side].as_array().unwrap().iter().map(|row| format!("({})", list(row)));
                format!("(SELECT vec_mean(v) FROM (VALUES {}) AS t(v))", rows.collect::<Vec<_>>().join(", "))
            };
            let (r, c) = (rows("ref"), rows("cur"));
            vec![
                ("euclidean", format!("l2_distance({r}, {c})")),
                ("cosine_distance", format!("cosine_distance({r}, {c})")),
            ]
        }
        "mad" => {
            let slice = input["slice"].as_array().unwrap();
            let [from, to] = [0, 1].map(|at: usize| usize::try_from(slice[at].as_u64().unwrap()).unwrap());
            let stream = streams[input["stream"].as_str().unwrap()].as_array().unwrap();
            let (values, last) = (list(&Value::Array(stream[from..to].to_vec())), stream.last().unwrap());
            vec![
                ("median", format!("list_median({values})")),
                ("mad", format!("mad({values})")),
                ("mad_normal", format!("1.482602218505602 * mad({values})")),
                (
                    "robust_z_of_last",
                    format!("(CAST({last} AS DOUBLE) - list_median({values})) / (1.482602218505602 * mad({values}))"),
                ),
            ]
        }
        _ => Vec::new(),
    }
}

fn expected(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| value.as_str().unwrap().parse().unwrap())
}

#[test]
fn every_vector_that_is_no_stream_comes_out_of_sql() {
    let Some(file) = vectors("drift.json") else { return };
    let sql = Sql::new();
    let (mut passed, mut faults) = (BTreeMap::<&str, (usize, usize)>::new(), Vec::new());
    for vector in file["vectors"].as_array().unwrap() {
        let function = vector["function"].as_str().unwrap();
        let mut asked = special(vector, &file["streams"]);
        if asked.is_empty() {
            asked = expressions(function);
        }
        if asked.is_empty() {
            continue;
        }
        let (r, c) = sides_or_none(&vector["input"]);
        for (name, expression) in asked {
            let expected = expected(&vector["expected"][name]);
            // The text is not R and C in other words: placeholders stand between brackets and commas.
            let query = put(&expression, &r, &c);
            let found = sql.number(&query).unwrap_or(f64::NAN);
            let tolerance = vector["rel_tol"].as_f64().unwrap();
            let count = passed.entry(function).or_default();
            count.1 += 1;
            if is_near(found, expected, tolerance) {
                count.0 += 1;
            } else {
                let case = &vector["input"]["case"];
                faults.push(format!("{function} {case} {name}: {found} instead of {expected}"));
            }
        }
    }
    for (function, (passed, all)) in &passed {
        eprintln!("{function}: {passed} of {all}");
    }
    assert!(faults.is_empty(), "{} differ:\n{}", faults.len(), faults.join("\n"));
    assert!(passed.len() >= 30, "only {} groups were found", passed.len());
}

fn sides_or_none(input: &Value) -> (String, String) {
    let has_sides = input["ref_counts"] != Value::Null || input["reference"] != Value::Null;
    if has_sides { sides(input) } else { (String::new(), String::new()) }
}

/// The expression with R and C replaced where they stand as words.
fn put(expression: &str, r: &str, c: &str) -> String {
    let is_word = |b: Option<char>| b.is_some_and(|b| b.is_alphanumeric() || b == '_' || b == '\'');
    let mut out = String::new();
    let mut before = None;
    let mut rest = expression.chars().peekable();
    while let Some(letter) = rest.next() {
        let stands_alone = !is_word(before) && !is_word(rest.peek().copied());
        match letter {
            'R' if stands_alone => out.push_str(r),
            'C' if stands_alone => out.push_str(c),
            letter => out.push(letter),
        }
        before = Some(letter);
    }
    out
}

#[test]
fn every_cost_of_litellm_comes_out_of_sql() {
    let Some(file) = vectors("cost.json") else { return };
    let mut passed = 0;
    let all = file["vectors"].as_array().unwrap();
    for vector in all {
        let sql = Sql::with_prices(&prices_of(vector));
        let usage = &vector["usage"];
        let tokens = |value: &Value| value.as_i64().unwrap_or(0);
        let input = &usage["prompt_tokens_details"];
        let tier = vector["service_tier"].as_str().map_or("NULL".to_owned(), |tier| format!("'{tier}'"));
        let cost = |input: i64, read: i64, write: i64, output: i64, reasoning: i64| {
            let (provider, model) = (vector["provider"].as_str().unwrap(), vector["model"].as_str().unwrap());
            sql.number(&format!(
                "llm_cost_usd('{provider}', '{model}', {input}, {read}, {write}, {output}, {reasoning}, {tier}, \
                 TIMESTAMP '2026-06-01T00:00:00')"
            ))
            .unwrap()
        };
        let (read, write) = (tokens(&input["cached_tokens"]), tokens(&input["cache_creation_tokens"]));
        let (prompt, completion) = (tokens(&usage["prompt_tokens"]), tokens(&usage["completion_tokens"]));
        let reasoning = tokens(&usage["completion_tokens_details"]["reasoning_tokens"]);
        let expected = &vector["expected"];
        let found = [
            ("input_usd", cost(prompt, read, write, 0, 0)),
            ("output_usd", cost(0, 0, 0, completion, reasoning)),
            ("total_usd", cost(prompt, read, write, completion, reasoning)),
        ];
        for (name, found) in found {
            assert!(is_near(found, expected[name].as_f64().unwrap(), 1e-12), "{}: {name} {found}", vector["case"]);
        }
        passed += 1;
    }
    eprintln!("llm_cost_usd: {passed} of {}", all.len());
}

/// The prices of a vector as a table of ours.
fn prices_of(vector: &Value) -> String {
    let price = |key: &str, tier: &str, suffix: &str| -> String {
        let name = format!("{key}{}{tier}{suffix}", if tier.is_empty() { "" } else { "_" });
        vector["prices"][&name].as_f64().map_or_else(String::new, |usd| format!("{}", usd * 1e6))
    };
    let mut csv = "provider,model,valid_from,tier,context_above_tokens,input_usd_per_mtok,output_usd_per_mtok,\
                   cache_read_usd_per_mtok,cache_write_usd_per_mtok,reasoning_usd_per_mtok,source"
        .to_owned();
    let (provider, model) = (vector["provider"].as_str().unwrap(), vector["model"].as_str().unwrap());
    for (tier, context, suffix) in [
        ("", "", ""),
        ("batches", "", ""),
        ("flex", "", ""),
        ("priority", "", ""),
        ("", "128000", "_above_128k_tokens"),
        ("", "200000", "_above_200k_tokens"),
        ("", "272000", "_above_272k_tokens"),
    ] {
        let of = |key| price(key, tier, suffix);
        let (input, output) = (of("input_cost_per_token"), of("output_cost_per_token"));
        if input.is_empty() || output.is_empty() {
            continue;
        }
        let (read, write) = (of("cache_read_input_token_cost"), of("cache_creation_input_token_cost"));
        let reasoning = of("output_cost_per_reasoning_token");
        csv += &format!(
            "\n{provider},{model},2020-01-01,{tier},{context},{input},{output},{read},{write},{reasoning},https://a"
        );
    }
    csv
}
