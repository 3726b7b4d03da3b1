//! Shipments as bytes: what the scan stage writes to the shuffle topic for one shard.
//!
//! A parcel is a [`packed`](crate::packed) list of items; its bytes are what the list names: batches, as
//! [`ipc`](crate::ipc) writes them, and violations in JSON. Rules go by name and partial sums by the id of their state,
//! because the instance that reads them may have other rules than the one that wrote them.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use lictor_connectors::{NextOffset, TopicPartition};
use lictor_queries::update_schema;
use lictor_schemas::tables::Signal;
use lictor_schemas::time::EventTime;
use lictor_schemas::violation::Violation;
use serde::{Deserialize, Serialize};

use super::route::Hash;
use super::{Feeding, RuleFailure, RuleId, Shipment, StoreFailure, StoreId};
use crate::ipc;
use crate::packed::{PackedError, pack, unpack};
use crate::watermark::Mark;

/// Brokers take messages of 1 MB unless told otherwise; this leaves room for the head.
pub const PARCEL_BYTES: usize = 900_000;

/// A single group's state, or a single violation, that is larger than this fits no message.
pub(crate) const ROW_BYTES_MAX: usize = 7_000_000;

/// What a store is called in parcels and in the state log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreName {
    /// The id of its state.
    pub state: String,
    /// The columns of partial sums.
    pub schema: SchemaRef,
}

/// All rules and stores of an instance, by number and by name.
#[derive(Clone, Debug)]
pub struct Names {
    rules: Vec<String>,
    stores: Vec<StoreName>,
    rules_by_name: HashMap<String, RuleId>,
    stores_by_state: HashMap<String, StoreId>,
}

impl Names {
    /// Both in the order of their numbers.
    #[must_use]
    pub fn new(rules: Vec<String>, stores: Vec<StoreName>) -> Self {
        let rules_by_name = rules.iter().enumerate().map(|(n, rule)| (rule.clone(), RuleId(n))).collect();
        let stores_by_state = stores.iter().enumerate().map(|(n, store)| (store.state.clone(), StoreId(n))).collect();
        Self { rules, stores, rules_by_name, stores_by_state }
    }

    /// The rule of that name.
    #[must_use]
    pub fn find_rule(&self, name: &str) -> Option<RuleId> {
        self.rules_by_name.get(name).copied()
    }

    /// What a rule is called.
    #[must_use]
    pub fn rule(&self, rule: RuleId) -> &str {
        &self.rules[rule.0]
    }

    /// The store with that state.
    #[must_use]
    pub fn find_store(&self, state: &str) -> Option<StoreId> {
        self.stores_by_state.get(state).copied()
    }

    /// The same for all instances that have the same stores.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut states: Vec<&str> = self.stores.iter().map(|store| store.state.as_str()).collect();
        states.sort_unstable();
        states.into_iter().fold(Hash::of(b"stores"), |hash, state| hash.add(state.as_bytes())).value()
    }

    /// What a store is called.
    #[must_use]
    pub fn store(&self, store: StoreId) -> &StoreName {
        &self.stores[store.0]
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Item {
    Partial {
        state: String,
        bytes: usize,
    },
    /// Sums of several records.
    Update {
        state: String,
        bytes: usize,
    },
    /// Sums that cannot be shipped.
    StoreFailure {
        state: String,
        message: String,
    },
    Violations {
        rule: String,
        bytes: usize,
    },
    Failure {
        rule: String,
        message: String,
    },
    Sources(Vec<(String, i32, Signal)>),
    Marks(Vec<MarkSaid>),
    Feeding {
        stores: u64,
        from: Vec<(String, i32, i64)>,
    },
    /// The items since the last end make a shipment.
    End {
        now: EventTime,
        newest: Option<EventTime>,
        #[serde(default)]
        feeder: u64,
    },
}

/// A mark, in the short form that is kept in logs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MarkSaid {
    topic: String,
    partition: i32,
    signal: Signal,
    high: Option<EventTime>,
    idle: bool,
}

impl From<&Mark> for MarkSaid {
    fn from(mark: &Mark) -> Self {
        let TopicPartition { topic, partition } = &mark.partition;
        let (topic, partition) = (topic.to_string(), *partition);
        Self { topic, partition, signal: mark.signal, high: mark.high, idle: mark.is_idle }
    }
}

impl From<MarkSaid> for Mark {
    fn from(said: MarkSaid) -> Self {
        let partition = TopicPartition::new(&said.topic, said.partition);
        Self { partition, signal: said.signal, high: said.high, is_idle: said.idle }
    }
}

/// Writes the shipments of one shard, in their order, as parcels of at most about [`PARCEL_BYTES`].
#[must_use]
pub fn encode(shipments: &[Shipment], names: &Names) -> Vec<Vec<u8>> {
    let mut writer =
        Writer { names, items: vec![], pieces: vec![], bytes: 0, parcels: vec![], end: (EventTime::MIN, 0) };
    for shipment in shipments.iter().filter(|s| !s.is_empty()) {
        writer.shipment(shipment);
    }
    writer.end_parcel();
    writer.parcels
}

struct Writer<'a> {
    names: &'a Names,
    items: Vec<Item>,
    /// What the items describe, so many bytes.
    pieces: Vec<Vec<u8>>,
    bytes: usize,
    parcels: Vec<Vec<u8>>,
    /// The tick and the feeder of the shipment being written.
    end: (EventTime, u64),
}

impl Writer<'_> {
    fn shipment(&mut self, shipment: &Shipment) {
        let Shipment {
            partials,
            updates,
            violations,
            sources,
            marks,
            feeder,
            feeding,
            now,
            newest,
            failures,
            store_failures,
        } = shipment;
        self.end = (*now, *feeder);
        if let Some(Feeding { stores, from }) = feeding {
            let said = |(p, next): &(TopicPartition, NextOffset)| (p.topic.to_string(), p.partition, next.0);
            self.items.push(Item::Feeding { stores: *stores, from: from.iter().map(said).collect() });
        }
        for (store, rows) in updates {
            self.partial(*store, rows, &|state, bytes| Item::Update { state, bytes });
        }
        for RuleFailure { rule, message } in failures {
            self.items.push(Item::Failure { rule: self.name(*rule), message: message.clone() });
        }
        for (rule, violations) in violations {
            self.violations(*rule, violations);
        }
        for (store, partial) in partials {
            self.partial(*store, partial, &|state, bytes| Item::Partial { state, bytes });
        }
        for StoreFailure { store, message } in store_failures {
            self.items.push(Item::StoreFailure { state: self.state(*store), message: message.clone() });
        }
        if !sources.is_empty() {
            let said = |(p, signal): &(TopicPartition, Signal)| (p.topic.to_string(), p.partition, *signal);
            self.items.push(Item::Sources(sources.iter().map(said).collect()));
        }
        if !marks.is_empty() {
            self.items.push(Item::Marks(marks.iter().map(MarkSaid::from).collect()));
        }
        self.items.push(Item::End { now: *now, newest: *newest, feeder: *feeder });
    }

    fn violations(&mut self, rule: RuleId, violations: &[Violation]) {
        let bytes = serde_json::to_vec(violations).unwrap_or_else(|e| unreachable!("violations are plain JSON: {e}"));
        if bytes.len() > PARCEL_BYTES && violations.len() > 1 {
            let (first, second) = violations.split_at(violations.len() / 2);
            self.violations(rule, first);
            self.violations(rule, second);
        } else if bytes.len() > ROW_BYTES_MAX {
            let message = format!("a violation has {} bytes, at most {ROW_BYTES_MAX} fit", bytes.len());
            self.items.push(Item::Failure { rule: self.name(rule), message });
        } else {
            let item = Item::Violations { rule: self.name(rule), bytes: bytes.len() };
            self.put(bytes.len(), [bytes], item);
        }
    }

    fn partial(&mut self, store: StoreId, partial: &RecordBatch, item: &dyn Fn(String, usize) -> Item) {
        let rows = partial.num_rows();
        let encoded = ipc::encode(partial).map(|pieces| (pieces.iter().map(Vec::len).sum::<usize>(), pieces));
        match encoded {
            Ok((bytes, _)) if bytes > PARCEL_BYTES && rows > 1 => {
                self.partial(store, &partial.slice(0, rows / 2), item);
                self.partial(store, &partial.slice(rows / 2, rows - rows / 2), item);
            }
            Ok((bytes, pieces)) if bytes <= ROW_BYTES_MAX => {
                let item = item(self.state(store), bytes);
                self.put(bytes, pieces, item);
            }
            Ok((bytes, _)) => {
                let message = format!("the state of one group has {bytes} bytes, at most {ROW_BYTES_MAX} fit");
                self.items.push(Item::StoreFailure { state: self.state(store), message });
            }
            Err(error) => self.items.push(Item::StoreFailure { state: self.state(store), message: error.to_string() }),
        }
    }

    /// Adds an item with what it describes; in a new parcel if it is too much for this one.
    fn put(&mut self, bytes: usize, pieces: impl IntoIterator<Item = Vec<u8>>, item: Item) {
        if self.bytes > 0 && self.bytes + bytes > PARCEL_BYTES {
            let (now, feeder) = self.end;
            self.items.push(Item::End { now, newest: None, feeder });
            self.end_parcel();
        }
        self.items.push(item);
        self.pieces.extend(pieces);
        self.bytes += bytes;
    }

    fn end_parcel(&mut self) {
        if self.items.is_empty() {
            return;
        }
        self.parcels.push(pack(&std::mem::take(&mut self.items), &std::mem::take(&mut self.pieces)));
        self.bytes = 0;
    }

    fn name(&self, rule: RuleId) -> String {
        self.names.rule(rule).to_owned()
    }

    fn state(&self, store: StoreId) -> String {
        self.names.store(store).state.clone()
    }
}

/// Reads a parcel. What rules say that we do not have, or have with another state, is left out.
///
/// # Errors
/// [`PackedError`].
pub fn decode(parcel: &[u8], names: &Names) -> Result<Vec<Shipment>, PackedError> {
    let (items, mut rest) = unpack::<Vec<Item>>(parcel)?;
    let mut take = |bytes: usize| {
        let (taken, behind) = rest.split_at_checked(bytes).ok_or_else(|| PackedError::malformed("cut off"))?;
        rest = behind;
        Ok(taken)
    };
    let mut shipments = Vec::new();
    let mut open = Shipment::empty(EventTime::MIN);
    for item in items {
        match item {
            Item::Partial { state, bytes } => {
                let batch = take(bytes)?;
                if let Some(store) = names.find_store(&state) {
                    let schema = SchemaRef::clone(&names.store(store).schema);
                    open.partials.push((store, ipc::decode(batch, schema).map_err(PackedError::malformed)?));
                }
            }
            Item::Update { state, bytes } => {
                let batch = take(bytes)?;
                if let Some(store) = names.find_store(&state) {
                    let schema = update_schema(&names.store(store).schema);
                    open.updates.push((store, ipc::decode(batch, schema).map_err(PackedError::malformed)?));
                }
            }
            Item::StoreFailure { state, message } => {
                open.store_failures.extend(names.find_store(&state).map(|store| StoreFailure { store, message }));
            }
            Item::Violations { rule, bytes } => {
                let violations = take(bytes)?;
                if let Some(rule) = names.find_rule(&rule) {
                    open.violations.push((rule, serde_json::from_slice(violations).map_err(PackedError::malformed)?));
                }
            }
            Item::Failure { rule, message } => {
                open.failures.extend(names.find_rule(&rule).map(|rule| RuleFailure { rule, message }));
            }
            Item::Sources(sources) => {
                open.sources.extend(sources.into_iter().map(|(t, p, signal)| (TopicPartition::new(&t, p), signal)));
            }
            Item::Feeding { stores, from } => {
                let read = |(topic, p, next): (String, i32, i64)| (TopicPartition::new(&topic, p), NextOffset(next));
                open.feeding = Some(Feeding { stores, from: from.into_iter().map(read).collect() });
            }
            Item::Marks(marks) => open.marks.extend(marks.into_iter().map(Mark::from)),
            Item::End { now, newest, feeder } => {
                (open.now, open.newest, open.feeder) = (now, newest, feeder);
                shipments.push(std::mem::replace(&mut open, Shipment::empty(EventTime::MIN)));
            }
        }
    }
    Ok(shipments)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, UInt32Array};
    use arrow::datatypes::{DataType, Field, Schema};
    use lictor_schemas::genops::{PolicyResult, ReasonCode};
    use lictor_schemas::violation::Subject;
    use serde_json::{Map, json};

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("pane_start", DataType::Int64, true)]))
    }

    fn names(state: &str) -> Names {
        Names::new(
            vec!["row".to_owned(), "budget".to_owned()],
            vec![StoreName { state: state.to_owned(), schema: schema() }],
        )
    }

    fn partial(rows: i64) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        RecordBatch::try_new(schema(), vec![column]).unwrap()
    }

    fn violation() -> Violation {
        Violation {
            subject: Subject(Map::from_iter([("team".to_owned(), json!("docs"))])),
            result: PolicyResult::Warning,
            reason_code: ReasonCode::parse("BUDGET_EXCEEDED").unwrap(),
            observed: Some(0.1 + 0.2),
            threshold: None,
            unit: None,
            message: None,
            valid_until: None,
            params: None,
            window: None,
            window_kind: None,
            sample_count: None,
            evidence: Map::new(),
            exemplars: Vec::new(),
            at: EventTime(5),
        }
    }

    /// Two rows of one record and one of another.
    fn update() -> RecordBatch {
        let (rows, turns) = (partial(3), Arc::new(UInt32Array::from(vec![0, 0, 4])) as ArrayRef);
        let columns = rows.columns().iter().cloned().chain([turns]).collect();
        RecordBatch::try_new(update_schema(&rows.schema()), columns).unwrap()
    }

    fn shipment(rows: i64) -> Shipment {
        let partition = TopicPartition::new("spans", 3);
        let mark =
            Mark { partition: partition.clone(), signal: Signal::Traces, high: Some(EventTime(9)), is_idle: true };
        Shipment {
            partials: vec![(StoreId(0), partial(rows))],
            updates: vec![(StoreId(0), update())],
            violations: vec![(RuleId(0), vec![violation()])],
            sources: vec![(partition.clone(), Signal::Traces)],
            marks: vec![mark],
            feeder: 7,
            feeding: Some(Feeding { stores: u64::MAX, from: vec![(partition, NextOffset(12))] }),
            now: EventTime(77),
            newest: Some(EventTime(76)),
            failures: vec![RuleFailure { rule: RuleId(0), message: "overflow".to_owned() }],
            store_failures: vec![StoreFailure { store: StoreId(0), message: "overflow".to_owned() }],
        }
    }

    fn partial_rows(shipments: &[Shipment]) -> usize {
        shipments.iter().flat_map(|s| &s.partials).map(|(_, batch)| batch.num_rows()).sum()
    }

    #[test]
    fn a_shipment_survives_the_round_trip() {
        let sent = shipment(3);
        let parcels = encode(&[sent.clone(), Shipment::empty(EventTime(1))], &names("s"));
        assert_eq!(parcels.len(), 1);
        let read = decode(&parcels[0], &names("s")).unwrap();
        assert_eq!(format!("{read:?}"), format!("{:?}", [sent]));
    }

    #[test]
    fn a_shipment_that_is_too_large_is_split_and_its_marks_come_last() {
        let rows = 400_000;
        let parcels = encode(&[shipment(rows)], &names("s"));
        assert!(parcels.len() > 3 && parcels.iter().all(|p| p.len() < 1_000_000), "{}", parcels.len());
        let read: Vec<Shipment> = parcels.iter().flat_map(|p| decode(p, &names("s")).unwrap()).collect();
        assert_eq!(partial_rows(&read), usize::try_from(rows).unwrap());
        let with_marks: Vec<usize> = (0..read.len()).filter(|i| !read[*i].marks.is_empty()).collect();
        assert_eq!(with_marks, [read.len() - 1]);
    }

    #[test]
    fn violations_that_are_too_many_for_a_message_are_split_and_keep_their_order() {
        let many: Vec<Violation> =
            (0..20_000).map(|n| Violation { observed: Some(f64::from(n)), ..violation() }).collect();
        let sent = Shipment { violations: vec![(RuleId(0), many.clone())], ..Shipment::empty(EventTime(7)) };
        let parcels = encode(&[sent], &names("s"));
        assert!(parcels.len() > 3 && parcels.iter().all(|p| p.len() < 1_000_000), "{}", parcels.len());
        let read = parcels.iter().flat_map(|p| decode(p, &names("s")).unwrap());
        let violations: Vec<Violation> = read.flat_map(|s| s.violations).flat_map(|(_, some)| some).collect();
        assert_eq!(violations, many);
    }

    #[test]
    fn a_violation_that_fits_no_message_is_a_failure_of_its_rule() {
        let long = Violation { message: Some("x".repeat(ROW_BYTES_MAX)), ..violation() };
        let sent = Shipment { violations: vec![(RuleId(0), vec![long, violation()])], ..Shipment::empty(EventTime(7)) };
        let parcels = encode(&[sent], &names("s"));
        let read: Vec<Shipment> = parcels.iter().flat_map(|p| decode(p, &names("s")).unwrap()).collect();
        assert_eq!(read.iter().flat_map(|s| &s.failures).count(), 1);
        assert_eq!(read.iter().flat_map(|s| &s.violations).count(), 1);
    }

    #[test]
    fn sums_for_another_state_are_left_out() {
        let parcels = encode(&[shipment(3)], &names("old"));
        let read = decode(&parcels[0], &names("new")).unwrap();
        assert_eq!((partial_rows(&read), read[0].violations.len(), read[0].marks.len()), (0, 1, 1));
    }
}
