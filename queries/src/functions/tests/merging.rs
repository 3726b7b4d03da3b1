//! Aggregates give the same of rows however these are cut, merged, or slid over.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, ListArray, RecordBatch, StringViewArray,
    TimestampNanosecondArray, UInt64Array,
};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Field, Float64Type, Int64Type, Schema};
use arrow::util::display::array_value_to_string;
use datafusion::logical_expr::{AggregateUDF, EmitTo};
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::expressions::{col, lit};
use fastrand::Rng;

use super::super::aggregates;

/// Numbers of all sizes with nulls, NaN and infinity; text with a heavy one and a long tail; intervals; vectors.
fn rows(seed: u64, count: usize) -> RecordBatch {
    let random = &mut Rng::with_seed(seed);
    let number = |random: &mut Rng| match random.usize(0..20) {
        0 => None,
        1 => Some(f64::NAN),
        2 => Some(f64::INFINITY),
        3 => Some(0.0),
        _ => Some((random.f64() - 0.3) * (random.f64() * 40.0).exp2()),
    };
    let text = |random: &mut Rng| match random.usize(0..10) {
        0 => None,
        1..5 => Some("gpt-4o".to_owned()),
        _ => Some(format!("model-{}", random.usize(0..30))),
    };
    let vector = |random: &mut Rng| Some((0..3).map(|_| Some(random.f64())).collect::<Vec<_>>());
    let starts: Vec<i64> = (0..count).map(|_| random.i64(0..1_000_000)).collect();
    let ends = starts.iter().map(|start| start + random.i64(-10..50_000)).collect::<Vec<_>>();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("x", Arc::new((0..count).map(|_| number(random)).collect::<Float64Array>())),
        ("s", Arc::new((0..count).map(|_| text(random)).collect::<StringViewArray>())),
        ("t0", Arc::new(TimestampNanosecondArray::from(starts))),
        ("t1", Arc::new(TimestampNanosecondArray::from(ends))),
        ("v", Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>((0..count).map(|_| vector(random))))),
        ("w", Arc::new((0..count).map(|_| Some(f64::from(random.i32(0..5)))).collect::<Float64Array>())),
    ];
    let fields: Vec<_> = columns.iter().map(|(name, c)| Field::new(*name, c.data_type().clone(), true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|c| c.1).collect()).unwrap()
}

/// Calls over the columns of [`rows`]; whether their results are equal to the last bit.
const CALLS: [(&str, &[&str], bool); 7] = [
    ("hist_log", &["x"], true),
    ("hist_fixed", &["x"], true),
    ("freq_map", &["s"], true),
    ("moments", &["x"], false),
    ("vec_mean", &["v"], false),
    ("max_concurrency", &["t0", "t1"], true),
    ("exemplar", &["s", "s", "w"], true),
];

fn function(name: &str) -> Arc<AggregateUDF> {
    Arc::new(aggregates().into_iter().find(|(doc, _)| doc.name == name).unwrap().1)
}

fn call(name: &str, columns: &[&str], schema: &Schema) -> AggregateFunctionExpr {
    let mut arguments: Vec<_> = columns.iter().map(|c| col(c, schema).unwrap()).collect();
    if name == "hist_fixed" {
        arguments.extend([lit(-10.0), lit(10.0), lit(8_i64)]);
    }
    let builder = AggregateExprBuilder::new(function(name), arguments).schema(Arc::new(schema.clone())).alias("a");
    builder.build().unwrap()
}

fn arguments(call: &AggregateFunctionExpr, rows: &RecordBatch) -> Vec<ArrayRef> {
    let evaluate = |e: &Arc<dyn datafusion::physical_expr::PhysicalExpr>| {
        e.evaluate(rows).unwrap().into_array(rows.num_rows()).unwrap()
    };
    call.expressions().iter().map(evaluate).collect()
}

fn whole(call: &AggregateFunctionExpr, rows: &RecordBatch) -> ArrayRef {
    let mut accumulator = call.create_accumulator().unwrap();
    accumulator.update_batch(&arguments(call, rows)).unwrap();
    accumulator.evaluate().unwrap().to_array().unwrap()
}

/// The rows of 1 to 9 random parts, each summed up by itself, merged in random order through their states.
fn in_parts(call: &AggregateFunctionExpr, rows: &RecordBatch, random: &mut Rng) -> ArrayRef {
    let parts = random.usize(1..10);
    let mut of_part: Vec<Vec<u64>> = vec![Vec::new(); parts];
    for row in 0..rows.num_rows() {
        of_part[random.usize(0..parts)].push(row as u64);
    }
    let mut merged = call.create_groups_accumulator().unwrap();
    for rows_of_part in of_part {
        let taken = take_record_batch(rows, &UInt64Array::from(rows_of_part)).unwrap();
        let mut part = call.create_groups_accumulator().unwrap();
        let groups = vec![0; taken.num_rows()];
        for at in (0..taken.num_rows()).step_by(7) {
            let some = taken.slice(at, 7.min(taken.num_rows() - at));
            part.update_batch(&arguments(call, &some), &groups[..some.num_rows()], None, 1).unwrap();
        }
        if taken.num_rows() > 0 {
            merged.merge_batch(&part.state(EmitTo::All).unwrap(), &[0], 1).unwrap();
        }
    }
    merged.evaluate(EmitTo::All).unwrap()
}

#[track_caller]
fn same(name: &str, left: &ArrayRef, right: &ArrayRef, exact: bool) {
    if exact {
        assert_eq!(left.to_data(), right.to_data(), "{name}");
        return;
    }
    let text = |array: &ArrayRef| array_value_to_string(array, 0).unwrap();
    let numbers = |text: &str| -> Vec<f64> {
        let is_number = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | 'e' | '+');
        text.split(|c| !is_number(c)).filter_map(|word| word.parse().ok()).collect()
    };
    let (left, right) = (text(left), text(right));
    let pairs: Vec<_> = numbers(&left).into_iter().zip(numbers(&right)).collect();
    assert!(numbers(&left).len() == numbers(&right).len() && !pairs.is_empty(), "{name}: {left} and {right}");
    assert!(pairs.iter().all(|(a, b)| super::is_near(*a, *b, 1e-9)), "{name}: {left} and {right}");
}

#[test]
fn parts_merge_to_the_whole() {
    for seed in 0..12 {
        let all = rows(seed, 400);
        let random = &mut Rng::with_seed(seed);
        for (name, columns, exact) in &CALLS {
            let call = call(name, columns, all.schema_ref());
            same(name, &in_parts(&call, &all, random), &whole(&call, &all), *exact);
        }
    }
}

#[test]
fn a_frame_is_as_if_what_has_left_it_had_never_been_there() {
    for seed in 0..6 {
        let all = rows(seed, 150);
        let random = &mut Rng::with_seed(seed);
        for (name, columns, exact) in &CALLS {
            let call = call(name, columns, all.schema_ref());
            let mut frame = call.create_sliding_accumulator().unwrap();
            let (mut from, mut to) = (0, 0);
            while to < all.num_rows() {
                let more = random.usize(0..9).min(all.num_rows() - to);
                frame.update_batch(&arguments(&call, &all.slice(to, more))).unwrap();
                to += more;
                let fewer = random.usize(0..8).min(to - from);
                frame.retract_batch(&arguments(&call, &all.slice(from, fewer))).unwrap();
                from += fewer;
                let found = frame.evaluate().unwrap().to_array().unwrap();
                let rest = all.slice(from, to - from);
                let expected = whole(&call, &rest);
                if found.is_null(0) || expected.is_null(0) {
                    assert_eq!(found.is_null(0), expected.is_null(0), "{name}");
                } else {
                    same(name, &found, &expected, *exact);
                }
            }
        }
    }
}

#[test]
fn an_outlier_leaves_nothing_behind_in_a_frame() {
    let sql = super::Sql::new();
    let found = sql.column(
        "SELECT m['m2'] / CAST(m['n'] AS DOUBLE) FROM (
           SELECT t, moments(x) OVER (ORDER BY t ROWS BETWEEN 3 PRECEDING AND CURRENT ROW) AS m
           FROM (VALUES (1, 5e0), (2, 1e300), (3, 7e0), (4, 5e0), (5, 7e0), (6, 5e0), (7, 7e0)) AS v(t, x)
         ) ORDER BY t",
    );
    let variances = found.as_primitive::<Float64Type>();
    assert!(variances.values()[5..].iter().all(|variance| (variance - 1.0).abs() < 1e-12), "{variances:?}");
}

#[test]
fn merged_histograms_are_the_histogram_of_all_rows() {
    let sql = super::Sql::new();
    let rows = "(VALUES (1, 3e0, 'a'), (1, -2e0, 'b'), (2, 100e0, 'a'), (3, 0e0, 'c'), (3, 3e0, 'a')) AS v(w, x, s)";
    for hist in ["hist_log(x, 4)", "hist_fixed(x, 0, 50, 5)", "hist_fixed(x, [-5, 0, 3, 4])", "freq_map(s, 2)"] {
        let whole = sql.column(&format!("SELECT {hist} FROM {rows}"));
        let merged = sql.column(&format!(
            "SELECT hist_merge(h) FROM (SELECT w, {hist} AS h FROM {rows} GROUP BY w ORDER BY w DESC)"
        ));
        if !hist.starts_with("freq_map") {
            assert_eq!(whole.to_data(), merged.to_data(), "{hist}");
        }
        let counts = |column: &ArrayRef| {
            let counts = column.as_struct().column_by_name("counts").unwrap().as_list::<i32>().value(0);
            counts.as_primitive::<Float64Type>().values().iter().sum::<f64>()
        };
        assert_eq!((counts(&whole), counts(&merged)), (5.0, 5.0));
        let over = sql.column(&format!(
            "SELECT hist_count(hist_merge(h) OVER (ORDER BY w ROWS BETWEEN 2 PRECEDING AND 1 PRECEDING))
             FROM (SELECT w, {hist} AS h FROM {rows} GROUP BY w) ORDER BY w"
        ));
        let over: Vec<_> = over.as_primitive::<Float64Type>().iter().collect();
        assert_eq!(over, [None, Some(2.0), Some(3.0)], "{hist}");
    }
}

#[test]
fn rare_texts_are_forgotten_within_the_bound_and_the_total_is_exact() {
    let mut random = Rng::with_seed(2);
    let texts: Vec<String> = (0..6_000)
        .map(|_| match random.usize(0..10) {
            0..3 => "often".to_owned(),
            3 => "sometimes".to_owned(),
            _ => format!("rare-{}", random.usize(0..5_000)),
        })
        .collect();
    let exact = texts.iter().filter(|text| *text == "often").count() as f64;
    let column: ArrayRef = Arc::new(StringViewArray::from_iter_values(&texts));
    let schema = Schema::new(vec![Field::new("s", column.data_type().clone(), true)]);
    let rows = RecordBatch::try_new(Arc::new(schema), vec![column]).unwrap();
    let arguments = vec![col("s", rows.schema_ref()).unwrap(), lit(8_i64)];
    let call = AggregateExprBuilder::new(function("freq_map"), arguments).schema(rows.schema()).alias("a");
    let found = in_parts(&call.build().unwrap(), &rows, &mut random);
    let found = found.as_struct();
    let (keys, counts) = (found.column(3).as_list::<i32>().value(0), found.column(4).as_list::<i32>().value(0));
    let counts = counts.as_primitive::<Float64Type>();
    assert_eq!(counts.values().iter().sum::<f64>(), 6_000.0);
    assert_eq!(keys.len(), 9, "eight texts and the others");
    let at = keys.as_string::<i32>().iter().position(|key| key == Some("often")).unwrap();
    let often = counts.value(at);
    assert!(often <= exact && exact - often <= 6_000.0 / 17.0, "{often} of {exact}");
}

#[test]
fn rows_that_a_filter_refuses_are_not_absorbed() {
    let sql = super::Sql::new();
    let found = sql.column(
        "SELECT CAST((moments(x) FILTER (WHERE x > 1))['n'] AS BIGINT)
         FROM (VALUES (1, 1e0), (1, 2e0), (1, 3e0)) AS v(k, x)
         GROUP BY k",
    );
    assert_eq!(found.as_primitive::<Int64Type>(), &Int64Array::from(vec![2]));
}

#[test]
fn different_values_are_counted_over_parts_and_frames() {
    let sql = super::Sql::new();
    let rows = "(SELECT value % 20000 AS x, value % 7 AS w FROM generate_series(1, 60000))";
    let count = |query: &str| sql.column(query).as_primitive::<Float64Type>().value(0);
    let whole = count(&format!("SELECT distinct_count(distinct_sketch(x)) FROM {rows}"));
    assert!((whole - 20_000.0).abs() < 20_000.0 * 0.05, "{whole}");
    let parts = format!("(SELECT w, distinct_sketch(x) AS s FROM {rows} GROUP BY w)");
    assert_eq!(count(&format!("SELECT distinct_count(distinct_merge(s)) FROM {parts}")), whole);
    let frames = sql.column(
        "SELECT distinct_count(distinct_merge(s) OVER (ORDER BY w ROWS BETWEEN 1 PRECEDING AND CURRENT ROW))
         FROM (SELECT w, distinct_sketch(x) AS s FROM (VALUES (1, 'a'), (1, 'b'), (2, 'b'), (3, 'c'), (3, NULL))
               AS v(w, x) GROUP BY w) ORDER BY w",
    );
    assert_eq!(frames.as_primitive::<Float64Type>().values()[..], [2.0, 2.0, 2.0]);
    let fault = sql.fault("SELECT distinct_count(CAST('x' AS BYTEA))");
    assert!(fault.contains("1 bytes are no sketch"), "{fault}");
}
