//! Numbers of scipy and numpy, committed, so that they hold wherever the repository lies.

use arrow::array::{Array, AsArray};
use arrow::datatypes::Float64Type;

use super::{Sql, is_near};

/// scipy's own error far out in the tails is about this.
const TOLERANCE: f64 = 2e-9;

#[test]
fn formulas_agree_with_scipy_and_numpy() {
    let lines: Vec<(&str, f64)> = include_str!("numbers.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.rsplit_once(" = ").unwrap())
        .map(|(expression, value)| (expression, value.parse().unwrap()))
        .collect();
    assert!(lines.len() > 250);
    let sql = Sql::new();
    let mut faults = Vec::new();
    for some in lines.chunks(50) {
        let columns: Vec<String> = some.iter().enumerate().map(|(i, (e, _))| format!("{e} AS c{i}")).collect();
        let rows = sql.rows(&format!("SELECT {}", columns.join(", "))).unwrap();
        for ((expression, expected), column) in some.iter().zip(rows.columns()) {
            let column = column.as_primitive::<Float64Type>();
            let found = if column.is_valid(0) { column.value(0) } else { f64::NAN };
            if !is_near(found, *expected, TOLERANCE) {
                faults.push(format!("{expression}: {found} instead of {expected}"));
            }
        }
    }
    assert!(faults.is_empty(), "{} differ:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn the_critical_psi_is_exceeded_as_rarely_as_it_says() {
    let sql = Sql::new();
    let mut random = fastrand::Rng::with_seed(5);
    let mut draw = |rows: usize| {
        let mut counts = [0; 10];
        (0..rows).for_each(|_| counts[random.usize(0..10)] += 1);
        format!("[{}]", counts.map(|n: i32| n.to_string()).join(", "))
    };
    let pairs: Vec<String> = (0..500).map(|_| format!("({}, {})", draw(1_000), draw(300))).collect();
    let query = format!(
        "SELECT avg(CASE WHEN psi(hist_of(r), hist_of(c)) > psi_critical(hist_of(r), hist_of(c), 0.05)
                         THEN 1e0 ELSE 0e0 END)
         FROM (VALUES {}) AS t(r, c)",
        pairs.join(", ")
    );
    let share = sql.column(&query).as_primitive::<Float64Type>().value(0);
    assert!((0.03..0.07).contains(&share), "{share}");
}
