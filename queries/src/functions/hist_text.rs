//! Histograms as text, so that a table in a file can have them.
//!
//! The text is JSON with the fields of the struct that are not null: `{"sub":8,"buckets":[12,13],"counts":[3,5]}`. An
//! edge that is infinite is `null`, as JSON has no name for it. Numbers come back as they were, to the last bit.

use datafusion::common::{Result, exec_err};
use serde_json::{Map, Value as Json, json};

use super::FunctionDoc;
use super::coerce::Kind;
use super::hist::{Cells, Hist, fault};
use super::scalar::{Gives, ScalarSpec, Value};

pub(super) static HIST_TEXT_FUNCTIONS: [ScalarSpec; 2] = [
    ScalarSpec {
        doc: FunctionDoc {
            name: "hist_text",
            arguments: "hist",
            meaning: "the histogram as JSON text, as `lictor baseline` writes it",
            source: "its fields that are not null",
        },
        takes: &[Kind::Hist],
        required: 1,
        gives: Gives::Text,
        body: |arguments| match arguments {
            [Value::Hist(hist)] => Ok(Value::Text(to_text(hist))),
            _ => Ok(Value::Null),
        },
    },
    ScalarSpec {
        doc: FunctionDoc {
            name: "hist_parse",
            arguments: "text",
            meaning: "the histogram that hist_text has written",
            source: "inverse of hist_text",
        },
        takes: &[Kind::Text],
        required: 1,
        gives: Gives::Hist,
        body: |arguments| match arguments {
            [Value::Text(text)] => Ok(Value::Hist(from_text(text)?)),
            _ => Ok(Value::Null),
        },
    },
];

/// A histogram as text.
pub(crate) fn to_text(hist: &Hist) -> String {
    let mut fields = match &hist.cells {
        Cells::Log { sub, buckets } => {
            let (numbers, counts): (Vec<i32>, Vec<f64>) = buckets.iter().copied().unzip();
            Map::from_iter([("sub", json!(sub)), ("buckets", json!(numbers)), ("counts", as_json(&counts))].map(named))
        }
        Cells::Edges { edges, counts } => {
            Map::from_iter([("edges", as_json(edges)), ("counts", as_json(counts))].map(named))
        }
        Cells::Categories(cells) => {
            let (keys, counts): (Vec<&str>, Vec<f64>) = cells.iter().map(|(key, count)| (key.as_str(), *count)).unzip();
            Map::from_iter([("keys", json!(keys)), ("counts", as_json(&counts))].map(named))
        }
        Cells::Bins(counts) => Map::from_iter([("counts", as_json(counts))].map(named)),
    };
    if hist.ignored != 0 {
        fields.insert("ignored".to_owned(), json!(hist.ignored));
    }
    Json::Object(fields).to_string()
}

fn named((name, value): (&str, Json)) -> (String, Json) {
    (name.to_owned(), value)
}

/// Whole numbers without a fraction are what people expect of counts.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

fn as_json(numbers: &[f64]) -> Json {
    let number = |x: &f64| {
        if x.fract() == 0.0 && x.abs() < WHOLE_MAX && !(*x == 0.0 && x.is_sign_negative()) {
            #[expect(clippy::cast_possible_truncation, reason = "a whole number below 2^53")]
            return json!(*x as i64);
        }
        // Infinity becomes null.
        json!(x)
    };
    Json::Array(numbers.iter().map(number).collect())
}

fn from_text(text: &str) -> Result<Hist> {
    let shown = || text.chars().take(60).collect::<String>();
    let Ok(Json::Object(fields)) = serde_json::from_str(text) else {
        return exec_err!("hist_parse: `{}` is no histogram", shown());
    };
    let Some(hist) = read(&fields) else {
        return exec_err!("hist_parse: `{}` has no fields of a histogram", shown());
    };
    match fault(&hist.cells) {
        None => Ok(hist),
        Some(fault) => exec_err!("hist_parse: {fault}"),
    }
}

fn read(fields: &Map<String, Json>) -> Option<Hist> {
    let list = |name: &str| fields.get(name)?.as_array();
    let counts = list("counts")?.iter().map(Json::as_f64).collect::<Option<Vec<_>>>()?;
    let cells = if let Some(sub) = fields.get("sub") {
        let number = |bucket: &Json| i32::try_from(bucket.as_i64()?).ok();
        let buckets = list("buckets")?.iter().map(number).collect::<Option<Vec<_>>>()?;
        let sub = i32::try_from(sub.as_i64()?).ok()?;
        (buckets.len() == counts.len())
            .then(|| Cells::Log { sub, buckets: buckets.into_iter().zip(counts).collect() })?
    } else if let Some(edges) = list("edges") {
        let ends = [f64::NEG_INFINITY, f64::INFINITY];
        let edge =
            |(at, edge): (usize, &Json)| if edge.is_null() { Some(ends[usize::from(at > 0)]) } else { edge.as_f64() };
        Cells::Edges { edges: edges.iter().enumerate().map(edge).collect::<Option<_>>()?, counts }
    } else if let Some(keys) = list("keys") {
        let keys = keys.iter().map(|key| Some(key.as_str()?.to_owned())).collect::<Option<Vec<_>>>()?;
        (keys.len() == counts.len()).then(|| Cells::Categories(keys.into_iter().zip(counts).collect()))?
    } else {
        Cells::Bins(counts)
    };
    Some(Hist { cells, ignored: fields.get("ignored").map_or(Some(0), Json::as_i64)? })
}

#[cfg(test)]
mod tests {
    use super::super::hist::OTHER;
    use super::*;

    #[test]
    fn every_kind_comes_back_from_its_text() {
        let kinds = [
            Cells::Log { sub: 8, buckets: vec![(-3, 1.0), (0, 2.0), (17, 3.0)] },
            Cells::Edges {
                edges: vec![f64::NEG_INFINITY, 0.1, 1.0 / 3.0, f64::INFINITY],
                counts: vec![0.0, 1.0, 2.5, 0.0, 4.0],
            },
            Cells::Categories(vec![(OTHER.to_owned(), 2.5), ("a \"b\",\u{e4}\n".to_owned(), 1.0)]),
            Cells::Bins(vec![0.0, 7.0]),
            Cells::Log { sub: 1, buckets: vec![] },
        ];
        for (ignored, cells) in (0..).zip(kinds) {
            let hist = Hist { cells, ignored };
            assert_eq!(from_text(&to_text(&hist)).unwrap(), hist);
        }
        let hist = Hist::new(Cells::Log { sub: 8, buckets: vec![(12, 3.0), (13, 5.0)] });
        assert_eq!(to_text(&hist), r#"{"buckets":[12,13],"counts":[3,5],"sub":8}"#);
    }

    #[test]
    fn what_is_no_histogram_is_refused() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            let message = from_text(text).unwrap_err().strip_backtrace();
            assert!(message.contains(expected), "{message}");
        }
        check("", "is no histogram");
        check("[1]", "is no histogram");
        check("{}", "has no fields of a histogram");
        check(r#"{"counts":["a"]}"#, "has no fields of a histogram");
        check(r#"{"keys":["a"],"counts":[]}"#, "has no fields of a histogram");
        check(r#"{"sub":8,"buckets":[1],"counts":[1,2]}"#, "has no fields of a histogram");
        check(r#"{"sub":800,"buckets":[1],"counts":[1]}"#, "800 buckets per doubling");
        check(r#"{"edges":[2,1],"counts":[0,0,0]}"#, "do not ascend");
        check(r#"{"counts":[-1]}"#, "counts must be numbers from 0");
    }
}
