//! Whether two JSON values say the same, numbers within a tolerance.

use serde_json::Value;

/// Where `a` and `b` differ first; numbers may differ by `tolerance`, relative to the larger of them and to one.
pub(crate) fn difference(path: &str, a: &Value, b: &Value, tolerance: f64) -> Option<String> {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) if x.keys().eq(y.keys()) => {
            x.iter().find_map(|(key, value)| difference(&format!("{path}.{key}"), value, &y[key], tolerance))
        }
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            let mut pairs = x.iter().zip(y).enumerate();
            pairs.find_map(|(i, (v, w))| difference(&format!("{path}[{i}]"), v, w, tolerance))
        }
        (Value::Number(x), Value::Number(y)) => {
            let (x, y) = (x.as_f64()?, y.as_f64()?);
            let is_near = (x - y).abs() <= tolerance * x.abs().max(y.abs()).max(1.0);
            (!is_near).then(|| format!("{path}: {x} or {y}"))
        }
        _ => (a != b).then(|| format!("{path}: {a} or {b}")),
    }
}
