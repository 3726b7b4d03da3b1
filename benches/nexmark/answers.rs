//! Answers in one form, so that what lictor's events say can be held against what DataFusion says.

use std::collections::BTreeMap;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, TimestampNanosecondType};
use arrow::util::display::array_value_to_string;
use lictor_schemas::event::{EnforcementEvent, State};
use lictor_schemas::time::EventTime;
use serde_json::Value;

use crate::questions::{Question, Saying};

/// What is said of whom, and when: the time of the row, or the end of the window.
type Fact = (Vec<String>, EventTime);

/// How often each fact is there.
pub(crate) type Facts = BTreeMap<Fact, usize>;

/// Numbers by the fact that they belong to, as text of an `f64`.
type Values = BTreeMap<Fact, Option<String>>;

/// How many differences are shown.
const EXAMPLES: usize = 5;

/// What DataFusion says.
pub(crate) struct Expected {
    facts: Facts,
    values: Values,
}

impl Expected {
    /// Reads the result of a question's plain SQL.
    pub(crate) fn read(question: &Question, batches: &[RecordBatch]) -> Self {
        let mut expected = Self { facts: Facts::new(), values: Values::new() };
        for batch in batches {
            let column = |name: &str| {
                batch.column_by_name(name).unwrap_or_else(|| panic!("{}: no column {name}", question.name))
            };
            let to_ns = DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, None);
            let at = cast(column("at"), &to_ns).unwrap_or_else(|e| panic!("{e}"));
            let at = at.as_primitive::<TimestampNanosecondType>();
            let observed = batch.column_by_name("observed");
            let observed = observed.map(|c| cast(c, &DataType::Float64).unwrap_or_else(|e| panic!("{e}")));
            let text = |name: &&str, row| array_value_to_string(column(name), row).unwrap_or_else(|e| panic!("{e}"));
            for row in 0..batch.num_rows() {
                let key = question.key.iter().map(|name| text(name, row)).collect();
                let value = observed.as_ref().map(|c| c.as_primitive::<Float64Type>().value(row).to_string());
                let fact = (key, EventTime(at.value(row)));
                *expected.facts.entry(fact.clone()).or_default() += 1;
                expected.values.insert(fact, value);
            }
        }
        expected
    }

    /// How many facts there are.
    pub(crate) fn len(&self) -> usize {
        self.facts.values().sum()
    }
}

/// What lictor's events say, event by event.
pub(crate) struct Said<'a> {
    question: &'a Question,
    facts: Facts,
    /// A revision that only takes a directive back says no number.
    values: Values,
    /// Directives that hold: whom they are about, and the end of their first window.
    holding: BTreeMap<String, Fact>,
    pub(crate) events: usize,
}

impl<'a> Said<'a> {
    /// Nothing yet.
    pub(crate) fn new(question: &'a Question) -> Self {
        let (facts, values, holding) = (Facts::new(), Values::new(), BTreeMap::new());
        Self { question, facts, values, holding, events: 0 }
    }

    /// Takes the next event.
    pub(crate) fn hear(&mut self, event: &EnforcementEvent) {
        self.events += 1;
        let data = &event.data;
        if data.state.is_ended() {
            if let (Some(first), Saying::Runs(slide_ns)) =
                (self.holding.remove(&data.directive_id), self.question.saying)
            {
                self.add_run(first, event.time, slide_ns);
            }
            return;
        }
        let fact = (self.key_of(event), data.finding.window.map_or(event.time, |window| window.end));
        match self.question.saying {
            Saying::Rows if data.state != State::Firing => panic!("{}: {event:?} is no row's own", self.question.name),
            Saying::Rows | Saying::Windows => *self.facts.entry(fact.clone()).or_default() += 1,
            Saying::Runs(_) => drop(self.holding.entry(data.directive_id.clone()).or_insert_with(|| fact.clone())),
        }
        self.values.insert(fact, data.finding.observed.map(|number| number.to_string()));
    }

    fn key_of(&self, event: &EnforcementEvent) -> Vec<String> {
        let (subject, evidence) = (&event.data.selector.matches, &event.data.finding.evidence);
        let text = |name: &&str| match subject.get(*name).or_else(|| evidence.get(*name)) {
            Some(Value::String(text)) => text.clone(),
            other => panic!("{}: {name} is {other:?}", self.question.name),
        };
        self.question.key.iter().map(text).collect()
    }

    /// The directive held in every window from its first until the one that ended at `until`, which took it back.
    fn add_run(&mut self, (key, first): Fact, until: EventTime, slide_ns: i64) {
        let mut end = first;
        while end < until {
            *self.facts.entry((key.clone(), end)).or_default() += 1;
            end = end.plus(slide_ns);
        }
    }

    /// Holds everything that was said against what was expected.
    ///
    /// # Panics
    /// Something differs; the first differences are shown.
    pub(crate) fn compare(&self, expected: &Expected) {
        let name = self.question.name;
        assert!(self.holding.is_empty(), "{name}: {} directives hold after the end of time", self.holding.len());
        let missing = expected.facts.iter().filter(|(fact, count)| self.facts.get(*fact) != Some(*count));
        let surplus = self.facts.iter().filter(|(fact, _)| !expected.facts.contains_key(*fact));
        let wrong = self.values.iter().filter(|(fact, value)| expected.values.get(*fact) != Some(*value));
        let mut differences: Vec<String> = Vec::new();
        differences
            .extend(missing.map(|(fact, n)| format!("expected {n} of {fact:?}, said {:?}", self.facts.get(fact))));
        differences.extend(surplus.map(|(fact, n)| format!("expected none of {fact:?}, said {n}")));
        differences.extend(
            wrong.map(|(fact, value)| format!("{fact:?}: expected {:?}, said {value:?}", expected.values.get(fact))),
        );
        let shown: Vec<&str> = differences.iter().take(EXAMPLES).map(String::as_str).collect();
        assert!(differences.is_empty(), "{name}: {} differences:\n{}", differences.len(), shown.join("\n"));
    }
}
