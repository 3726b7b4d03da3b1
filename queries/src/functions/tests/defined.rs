//! What functions say of nulls, NaN, infinity and nothing at all; and what they refuse.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, TimestampNanosecondType};

use super::Sql;

#[track_caller]
fn check(expressions: &[(&str, Option<f64>)]) {
    let sql = Sql::new();
    for (expression, expected) in expressions {
        assert_eq!(sql.number(expression), *expected, "{expression}");
    }
}

#[test]
fn a_null_argument_makes_a_scalar_null() {
    check(&[
        ("psi(NULL, hist_of([1, 2]))", None),
        ("psi(hist_of([1, 2]), hist_of([1, 2]), NULL)", None),
        ("ks_stat([1, 2], NULL)", None),
        ("hist_quantile(NULL, 0.5)", None),
        ("burn_rate(NULL, 60, 1, 60)", None),
        ("mad(NULL)", None),
    ]);
}

#[test]
fn what_is_not_defined_is_null() {
    check(&[
        ("psi(hist_of([0, 0]), hist_of([1, 2]))", None),
        ("psi_eps(hist_of([1, 2]), hist_of([0, 0]))", None),
        ("js_distance(hist_of([0, 0]), hist_of([1, 2]))", None),
        ("chi2_pvalue(hist_of([0, 0]), hist_of([1, 2]))", None),
        ("ks_pvalue(hist_of([0]), hist_of([1]))", None),
        ("wasserstein([], [1])", None),
        ("js_distance(hist_of([1, 0]), hist_of([1, 2]), 1)", None),
        ("hist_quantile(hist_of([1, 2]), 1.5)", None),
        ("hist_quantile(hist_of([0, 0]), 0.5)", None),
        ("hist_mean(hist_of([0, 0]))", None),
        ("hist_count(hist_of([1, -1]))", None),
        ("hist_count(hist_of([1, CAST('nan' AS DOUBLE)]))", None),
        ("cosine_distance([0, 0], [1, 1])", None),
        ("cosine_distance([1], [1, 2])", None),
        ("l2_distance([1], [1, 2])", None),
        ("mmd2([[1, 2], [1]], [1, 2])", None),
        ("mmd2(range(2001), [1, 2])", None),
        ("mmd2(array_repeat(range(400), 300), array_repeat(range(400), 300), 1)", None),
        ("mmd2([1], [1, 2])", None),
        ("burn_rate(1, 0, 1, 60)", None),
        ("burn_rate(1, 60, 0, 60)", None),
        ("burn_rate_ratio(0, 0, 0.99)", None),
        ("burn_rate_ratio(1, 2, 1)", None),
        ("psi_critical(hist_of([1, 2]), hist_of([1, 2]), 2)", None),
        ("ks_sf(0.5, 2.5)", None),
    ]);
}

#[test]
fn identical_and_disjoint_shares_have_the_least_and_the_greatest_distance() {
    let (same, apart) = ("hist_of([1, 2, 0]), hist_of([10, 20, 0])", "hist_of([5, 0]), hist_of([0, 9])");
    for distance in ["psi_eps", "kl_divergence", "js_distance", "hellinger", "tvd", "linf", "ks_stat", "wasserstein"] {
        check(&[(&format!("{distance}({same})"), Some(0.0))]);
    }
    for distance in ["hellinger", "tvd", "linf", "ks_stat", "wasserstein"] {
        check(&[(&format!("{distance}({apart})"), Some(1.0))]);
    }
    check(&[
        (&format!("kl_divergence({apart})"), Some(f64::INFINITY)),
        (&format!("js_distance({apart}, 2)"), Some(1.0)),
        (&format!("chi2_pvalue({same})"), Some(1.0)),
        ("chi2_pvalue(hist_of([5]), hist_of([7]))", Some(1.0)),
        ("psi_critical(hist_of([5]), hist_of([7]), 0.01)", Some(0.0)),
        ("tvd(freq(['a'], [3]), freq(['b'], [1]))", Some(1.0)),
        ("tvd(freq(['a', 'a', 'b'], [1, 1, 2]), freq(['b', 'a'], [5, 5]))", Some(0.0)),
    ]);
}

#[test]
fn nan_and_infinity_are_left_out_of_samples() {
    let odd = "CAST('nan' AS DOUBLE), CAST('inf' AS DOUBLE), CAST('-inf' AS DOUBLE), NULL";
    check(&[
        (&format!("ks_stat([1e0, 2e0, {odd}], [1e0, 2e0])"), Some(0.0)),
        (&format!("wasserstein([1e0, {odd}], [3e0])"), Some(2.0)),
        (&format!("mad([1e0, 3e0, {odd}])"), Some(1.0)),
        (&format!("hist_count(hist_of_values([1e0, {odd}], [0, 2]))"), Some(1.0)),
        (&format!("hist_ignored(hist_of_values([1e0, {odd}], [0, 2]))"), Some(4.0)),
        (&format!("l2_distance([1e0, {odd}], [1e0, {odd}])"), None),
    ]);
}

#[test]
fn aggregates_skip_nulls_and_are_null_of_nothing() {
    let sql = Sql::new();
    let calls = ["hist_log(x)", "hist_fixed(x, 0, 1, 2)", "freq_map(s)", "moments(x)", "vec_mean(v)"];
    let rows = "(VALUES (CAST(NULL AS DOUBLE), CAST(NULL AS VARCHAR), CAST(NULL AS DOUBLE[]))) AS t(x, s, v)";
    for call in calls.into_iter().chain(["hist_merge(hist_of(v))", "exemplar(s, s, x)"]) {
        assert!(sql.column(&format!("SELECT {call} FROM {rows}")).is_null(0), "{call}");
        assert!(sql.column(&format!("SELECT {call} FROM {rows} WHERE false")).is_null(0), "{call} of no row");
    }
    let odd = "(VALUES (1e0), (CAST('nan' AS DOUBLE)), (CAST('inf' AS DOUBLE))) AS t(x)";
    for hist in ["hist_log(x)", "hist_fixed(x, 0, 2, 2)"] {
        let counts = sql.rows(&format!("SELECT hist_count(h), hist_ignored(h) FROM (SELECT {hist} AS h FROM {odd})"));
        let counts = counts.unwrap();
        let count = |at: usize| counts.column(at).as_primitive::<Float64Type>().value(0);
        assert_eq!((count(0), count(1)), (1.0, 2.0), "{hist}");
    }
    let unequal = sql.column("SELECT vec_mean(v) FROM (VALUES ([1e0, 2e0]), ([1e0])) AS t(v)");
    assert!(unequal.is_null(0));
}

#[test]
fn quantiles_and_shares_lie_evenly_within_cells() {
    check(&[
        ("hist_quantile(hist([0, 10, 20], [1, 1]), 0.25)", Some(5.0)),
        ("hist_quantile(hist([0, 10, 20], [1, 1]), 1)", Some(20.0)),
        ("hist_quantile(hist([0, 10, 20], [0, 1]), 0)", Some(10.0)),
        ("hist_cdf(hist([0, 10, 20], [1, 1]), 5)", Some(0.25)),
        ("hist_cdf(hist([0, 10, 20], [1, 1]), -1)", Some(0.0)),
        ("hist_cdf(hist([0, 10, 20], [1, 1]), 99)", Some(1.0)),
        ("hist_mean(hist([0, 10, 20], [1, 3]))", Some(12.5)),
        ("hist_share(freq(['a', 'b'], [1, 3]), 'b')", Some(0.75)),
        ("hist_share(freq(['a', 'b'], [1, 3]), 'c')", Some(0.0)),
    ]);
    let sql = Sql::new();
    let query = "SELECT hist_quantile(hist_log(CAST(value AS DOUBLE), 32), 0.95) FROM generate_series(1, 10000)";
    let p95 = sql.column(query).as_primitive::<Float64Type>().value(0);
    assert!((p95 - 9_500.0).abs() < 9_500.0 * 0.003, "{p95}");
}

#[test]
fn what_can_never_be_right_is_an_error_that_says_why() {
    let sql = Sql::new();
    for (expression, why) in [
        ("psi(hist_of([1]), hist_of([1, 2]))", "1 numbered bins and a histogram of 2 numbered bins cannot be compared"),
        ("tvd(hist([0, 1], [1]), hist([0, 2], [1]))", "cannot be compared"),
        ("ks_stat(freq(['a'], [1]), freq(['a'], [1]))", "categories have no order"),
        ("wasserstein(freq(['a'], [1]), freq(['a'], [1]))", "categories have no distance"),
        ("ks_stat(hist_of([1]), [1])", "not one with the other"),
        ("hist([0, 1], [1, 2])", "2 counts do not fit between 2 edges"),
        ("hist([1, 0], [1])", "do not ascend"),
        ("freq(['a'], [1, 2])", "1 keys have 2 counts"),
        ("hist_mean(freq(['a'], [1]))", "categories are no numbers"),
        ("psi(1, 2)", "argument 1 of psi(ref, cur [, alpha = 0.5]) must be a histogram"),
        ("psi(hist_of([1]))", "1 arguments are not those of psi(ref, cur [, alpha = 0.5])"),
    ] {
        let fault = sql.fault(&format!("SELECT {expression}"));
        assert!(fault.contains(why), "{expression}: {fault}");
    }
    let rows = "(VALUES (1e0, 'a', 9)) AS t(x, s, n)";
    for (call, why) in [
        ("hist_log(x, 0)", "the buckets per doubling of hist_log is 0, not a number from 1 to 64"),
        ("hist_log(x, n)", "the buckets per doubling of hist_log must be a constant"),
        ("hist_fixed(x, 0, 1)", "hist_fixed takes x, lo, hi, bins or x, edges"),
        ("hist_fixed(x, 1, 0, 4)", "do not ascend"),
        ("hist_fixed(x, [1])", "1 edges make no bin"),
        ("freq_map(DISTINCT s)", "freq_map takes no DISTINCT"),
        ("freq_map(x)", "must be text"),
        ("hist_merge(x)", "must be a histogram"),
    ] {
        let fault = sql.fault(&format!("SELECT {call} FROM {rows}"));
        assert!(fault.contains(why), "{call}: {fault}");
    }
}

#[test]
fn budgets_burn_and_run_out() {
    check(&[
        ("burn_rate(3, INTERVAL '1 hour', 720, INTERVAL '1 month')", Some(3.0)),
        ("burn_rate(30, 60, 720, 1440)", Some(1.0)),
        ("burn_rate(0, 60, 720, 1440)", Some(0.0)),
    ]);
    let sql = Sql::new();
    let burned = sql.number("burn_rate_ratio(144, 1000, 0.99)").unwrap();
    assert!((burned - 14.4).abs() < 1e-9, "{burned}");
    let day = "TIMESTAMP '2026-03-01T00:00:00', TIMESTAMP '2026-03-02T00:00:00'";
    let projected =
        |spent, now| sql.number(&format!("linear_projection({spent}, {day}, TIMESTAMP '2026-03-01T{now}')"));
    assert_eq!(projected(10, "06:00:00"), Some(40.0));
    // A minute after midnight counts as an hour: 1 + 1 / h * 23 h 59 min.
    assert!((projected(1, "00:01:00").unwrap() - (1.0 + 1439.0 / 60.0)).abs() < 1e-9);
    let gone = |spent, limit, now: &str| {
        let at =
            sql.column(&format!("SELECT linear_exhaustion({spent}, {limit}, {day}, TIMESTAMP '2026-03-01T{now}')"));
        let at = at.as_primitive::<TimestampNanosecondType>();
        at.is_valid(0).then(|| lictor_schemas::time::EventTime(at.value(0)).to_rfc3339())
    };
    assert_eq!(gone(10, 40, "06:00:00").as_deref(), Some("2026-03-02T00:00:00Z"));
    assert_eq!(gone(10, 20, "06:00:00").as_deref(), Some("2026-03-01T12:00:00Z"));
    assert_eq!(gone(40, 20, "06:00:00").as_deref(), Some("2026-03-01T06:00:00Z"));
    assert_eq!(gone(0, 20, "06:00:00"), None);
}

#[test]
fn what_has_no_price_costs_null_and_never_zero() {
    let at = "TIMESTAMP '2026-06-01T00:00:00'";
    check(&[
        (&format!("llm_cost_usd('openai', 'gpt-4o', 1000, 0, 0, 500, 0, NULL, {at})"), Some(0.0075)),
        (&format!("llm_cost_usd('openai', 'gpt-4o', 1000, NULL, NULL, 500, NULL, 'batch', {at})"), Some(0.00375)),
        (&format!("llm_cost_usd(NULL, 'gpt-4o', 1000, 0, 0, NULL, 0, NULL, {at})"), Some(0.0025)),
        (&format!("llm_cost_usd('openai', 'gpt-99', 1000, 0, 0, 500, 0, NULL, {at})"), None),
        (&format!("llm_cost_usd('openai', NULL, 1000, 0, 0, 500, 0, NULL, {at})"), None),
        (&format!("llm_cost_usd('openai', 'gpt-4o', NULL, 0, 0, NULL, 0, NULL, {at})"), None),
        (&format!("llm_cost_usd('openai', 'gpt-4o', -1, 0, 0, 500, 0, NULL, {at})"), None),
        ("llm_cost_usd('openai', 'gpt-4o', 1, 0, 0, 5, 0, NULL, TIMESTAMP '2020-01-01T00:00:00')", None),
    ]);
}
