//! Queries and rows drawn from a seed: what nobody thought of.
//!
//! `LICTOR_ORACLE_PAIRS` (200) says how many, `LICTOR_ORACLE_SEED` (1) where to begin; the seed of a pair that differs
//! is printed with the simplest query and the fewest rows that still differ.

use arrow::array::RecordBatch;
use fastrand::Rng;

use super::{Case, TOLERANCE, compare, number, pick, rows};

/// How a query is put together.
#[derive(Clone, Debug)]
struct Query {
    window: String,
    source: &'static str,
    keys: Vec<&'static str>,
    /// The first is what is observed.
    aggregates: Vec<&'static str>,
    filter: Option<&'static str>,
    having: Option<&'static str>,
    shape: Shape,
    on_update: bool,
}

/// What stands around the aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Plain,
    JoinBelow(&'static str),
    JoinAbove(&'static str),
    /// `OVER` with this frame.
    Over(&'static str),
    Folded,
}

const KEYS: [&str; 6] = ["team", "region", "request_model", "input_tokens", "usage_leaf", "upper(team)"];
const SOURCES: [&str; 4] = ["spans", "spans", "billed", "(SELECT * FROM spans WHERE latency_ms > 150)"];
const AGGREGATES: [&str; 27] = [
    "count(*)",
    "count(cost_total)",
    "sum(input_tokens)",
    "sum(cost_total)",
    "avg(latency_ms)",
    "min(latency_ms)",
    "max(input_tokens)",
    "count(DISTINCT request_model)",
    "sum(DISTINCT input_tokens)",
    "stddev(latency_ms)",
    "var_pop(cost_total)",
    "median(latency_ms)",
    "approx_distinct(input_tokens)",
    "first_value(request_model ORDER BY kafka_offset)",
    "last_value(latency_ms ORDER BY event_time, kafka_offset)",
    "array_agg(input_tokens ORDER BY kafka_offset)",
    "array_sort(array_agg(DISTINCT request_model))",
    "string_agg(request_model, ',' ORDER BY latency_ms)",
    "bool_or(usage_leaf)",
    "sum(cost_total) FILTER (WHERE usage_leaf)",
    "count(*) FILTER (WHERE region = 'eu')",
    "corr(latency_ms, input_tokens)",
    "max(event_time)",
    "bit_xor(input_tokens)",
    "hist_log(latency_ms)",
    "freq_map(request_model, 2)",
    "max_concurrency(event_time - INTERVAL '7 seconds', event_time)",
];
/// Aggregates that are numbers, to be observed.
const NUMBERS: usize = 13;
const FILTERS: [&str; 5] = [
    "team IS NOT NULL",
    "usage_leaf",
    "latency_ms BETWEEN 200 AND 900",
    "input_tokens % 2 = 0 OR cost_total > 0.3",
    "coalesce(region, 'moon') <> 'us'",
];
/// None decides by the last digit of a sum, which depends on the order of the rows; nor does any of the frames.
const HAVINGS: [&str; 4] =
    ["count(*) > 2", "sum(cost_total) >= 0.505", "count(*) BETWEEN 2 AND 6", "max(latency_ms) > 600"];
const BELOW: [&str; 3] = ["JOIN limits AS l ON l.team = s.team", "LEFT JOIN limits AS l ON l.team = s.team", ""];
const ABOVE: [&str; 3] = ["JOIN limits AS l ON l.team = c.k0", "LEFT JOIN limits AS l ON l.team = c.k0", ""];
const FRAMES: [&str; 4] = [
    "lag(c.a0) OVER (PARTITION BY c.k0 ORDER BY c.window_end)",
    "avg(c.a0) OVER (PARTITION BY c.k0 ORDER BY c.window_end ROWS BETWEEN 3 PRECEDING AND 1 PRECEDING)",
    "max(c.a0) OVER (PARTITION BY c.k0 ORDER BY c.window_end ROWS BETWEEN 2 PRECEDING AND CURRENT ROW)",
    "rank() OVER (PARTITION BY c.window_start, c.window_end ORDER BY round(CAST(c.a0 AS DOUBLE), 9), c.k0)",
];

fn draw_window(random: &mut Rng) -> String {
    let step = pick(random, &[10, 20, 30, 45]);
    let times = random.i64(1..6);
    let offset = if random.bool() { format!(", INTERVAL '{} seconds'", random.i64(1..40)) } else { String::new() };
    match random.usize(0..6) {
        5 => {
            let unit = pick(random, &["hour", "day", "week"]);
            let zone =
                "CASE region WHEN 'eu' THEN 'Asia/Kolkata' WHEN 'us' THEN 'America/Lima' WHEN 'moon' THEN 'UTC' END";
            format!("CALENDAR(SOURCE, event_time, '{unit}', {zone})")
        }
        4 => format!("SESSION(SOURCE, event_time, INTERVAL '{step} seconds')"),
        0 => format!("TUMBLE(SOURCE, event_time, INTERVAL '{} seconds'{offset})", step * times),
        1 => {
            let size = step * times + pick(random, &[0, 0, 5]);
            format!("HOP(SOURCE, event_time, INTERVAL '{step} seconds', INTERVAL '{size} seconds'{offset})")
        }
        2 => format!(
            "CUMULATE(SOURCE, event_time, INTERVAL '{step} seconds', INTERVAL '{} seconds'{offset})",
            step * times
        ),
        _ => {
            let zone = pick(random, &["UTC", "Asia/Kathmandu", "America/New_York", "Australia/Lord_Howe"]);
            format!("CALENDAR(SOURCE, event_time, '{}', '{zone}')", pick(random, &["hour", "day", "week"]))
        }
    }
}

impl Query {
    fn draw(random: &mut Rng) -> Self {
        let mut keys = KEYS.to_vec();
        random.shuffle(&mut keys);
        keys.truncate(random.usize(1..4));
        let mut aggregates = vec![AGGREGATES[random.usize(0..NUMBERS)]];
        aggregates.extend((0..random.usize(0..4)).map(|_| pick(random, &AGGREGATES)));
        let sometimes = |from: &[&'static str], random: &mut Rng| random.bool().then(|| pick(random, from));
        let (filter, having) = (sometimes(&FILTERS, random), sometimes(&HAVINGS, random));
        let shape = match random.usize(0..8) {
            0 => Shape::JoinBelow(pick(random, &BELOW)),
            1 => Shape::JoinAbove(pick(random, &ABOVE)),
            2 => Shape::Over(pick(random, &FRAMES)),
            3 => Shape::Folded,
            _ => Shape::Plain,
        };
        if matches!(shape, Shape::JoinAbove(_)) {
            keys.retain(|key| *key != "team");
            keys.insert(0, "team");
        }
        if matches!(shape, Shape::Over(_)) {
            // Ties within a window have no order that a query could name.
            keys.truncate(1);
        }
        let (window, source) = (draw_window(random), pick(random, &SOURCES));
        let is_session = window.starts_with("SESSION");
        let compares_keys = shape == Shape::Folded || shape == Shape::Over(FRAMES[3]);
        let shape = if is_session && compares_keys { Shape::Plain } else { shape };
        let on_update = random.bool() && !matches!(shape, Shape::Over(_) | Shape::Folded);
        Self { window, source, keys, aggregates, filter, having, shape, on_update }
    }

    fn query(&self) -> String {
        let Self { source, keys, aggregates, filter, having, shape, .. } = self;
        let window = self.window.replace("SOURCE", source);
        let columns = |list: &[&str], name: char| -> String {
            list.iter().enumerate().map(|(i, e)| format!("{e} AS {name}{i}, ")).collect()
        };
        let filter = filter.map_or_else(String::new, |filter| format!(" WHERE {filter}"));
        let having = having.map_or_else(String::new, |having| format!(" HAVING {having}"));
        let (join, of) = match shape {
            Shape::JoinBelow(join) => (format!(" AS s {join}"), "s."),
            _ => (String::new(), ""),
        };
        let own = |expr: &&str| {
            if *expr == "team" { format!("{of}team") } else { expr.replace("(team)", &format!("({of}team)")) }
        };
        let keys: Vec<String> = keys.iter().map(own).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let filter = filter.replace("team IS", &format!("{of}team IS"));
        let (keys, by, aggregates) = (columns(&keys, 'k'), keys.join(", "), columns(aggregates, 'a'));
        let inner = format!(
            "SELECT {keys}{aggregates}window_start, window_end FROM {window}{join}{filter}
             GROUP BY {by}, window_start, window_end{having}"
        );
        match shape {
            Shape::JoinAbove(join) => {
                let threshold = if join.is_empty() { "" } else { ", l.most AS threshold" };
                format!("SELECT c.*{threshold} FROM ({inner}) AS c {join}")
            }
            Shape::Over(frame) => format!("SELECT c.*, {frame} AS past FROM ({inner}) AS c"),
            Shape::Folded => format!(
                "SELECT k0, window_start, window_end, count(*) AS groups, max(a0) AS most FROM ({inner}) AS c
                 GROUP BY k0, window_start, window_end"
            ),
            Shape::Plain | Shape::JoinBelow(_) => inner,
        }
    }

    /// The same query with one thing less.
    fn simpler(&self) -> Vec<Self> {
        let mut simpler = Vec::new();
        if self.shape != Shape::Plain {
            simpler.push(Self { shape: Shape::Plain, ..self.clone() });
        }
        if self.filter.is_some() {
            simpler.push(Self { filter: None, ..self.clone() });
        }
        if self.having.is_some() {
            simpler.push(Self { having: None, ..self.clone() });
        }
        if self.source != "spans" {
            simpler.push(Self { source: "spans", ..self.clone() });
        }
        if self.on_update {
            simpler.push(Self { on_update: false, ..self.clone() });
        }
        for list in [&self.keys, &self.aggregates] {
            for at in (0..list.len()).filter(|_| list.len() > 1) {
                let mut fewer = list.clone();
                fewer.remove(at);
                let is_keys = std::ptr::eq(list, &self.keys);
                let (keys, aggregates) =
                    if is_keys { (fewer, self.aggregates.clone()) } else { (self.keys.clone(), fewer) };
                simpler.push(Self { keys, aggregates, ..self.clone() });
            }
        }
        simpler
    }

    fn differs(&self, rows: &RecordBatch) -> Option<String> {
        let text = self.query();
        let case = Case { name: "generated", query: &text, tolerance: TOLERANCE };
        let emission = if self.on_update { "UPDATE" } else { "CLOSE" };
        compare(&case, emission, std::slice::from_ref(rows)).err()
    }
}

/// The simplest query and the fewest rows that still differ, and how.
fn shrink(mut query: Query, mut rows: RecordBatch, mut difference: String) -> (Query, RecordBatch, String) {
    loop {
        let simpler = query.simpler().into_iter().find_map(|simpler| Some((simpler.differs(&rows)?, simpler)));
        if let Some((how, simpler)) = simpler {
            (query, difference) = (simpler, how);
            continue;
        }
        let halves = [(0, rows.num_rows() / 2), (rows.num_rows() / 2, rows.num_rows() - rows.num_rows() / 2)];
        let halves = halves.into_iter().filter(|(_, length)| *length > 0 && *length < rows.num_rows());
        let fewer = halves.map(|(from, length)| rows.slice(from, length));
        let Some((how, fewer)) = fewer.into_iter().find_map(|fewer| Some((query.differs(&fewer)?, fewer))) else {
            return (query, rows, difference);
        };
        (rows, difference) = (fewer, how);
    }
}

#[test]
fn generated_queries_over_generated_rows() {
    let (pairs, first) = (number("LICTOR_ORACLE_PAIRS", 200), number("LICTOR_ORACLE_SEED", 1));
    for seed in first..first + pairs {
        let random = &mut Rng::with_seed(seed);
        let query = Query::draw(random);
        let rows = rows(random.i64(0..1_000));
        if let Some(difference) = query.differs(&rows) {
            let (query, rows, difference) = shrink(query, rows, difference);
            let emission = if query.on_update { "UPDATE" } else { "CLOSE" };
            let (text, count) = (query.query(), rows.num_rows());
            panic!("LICTOR_ORACLE_SEED={seed}: {count} rows: {text} EMIT ON {emission}: {difference}");
        }
    }
    eprintln!("oracle: {pairs} generated pairs from seed {first}: streamed = batch");
}
