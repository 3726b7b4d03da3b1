//! What a table is built from: which attributes are looked at, and where their values go.
//!
//! Rules name few of the many columns. The plan is made once from the wanted names; per attribute of a record it costs
//! one look at a list, and nothing at all is done for an attribute that no wanted column reads.
//!
//! Invariant: of all candidates for a slot the one with the lowest rank stays. A rank orders by source first and by
//! level second, so a better source on the resource beats a worse one on the record; of two equal ranks (a duplicate
//! key) the first stays.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap};

use super::cell::{Cell, read_into};
use super::names::{Name, Names};
use super::value::Attribute;
use crate::columns::{self, ColumnSpec, Derivation, ExtraSource, Kind, Reading, Role};
use crate::tables::{ATTR_PREFIX, Field, RESOURCE_ATTR_PREFIX, Table};

/// Where an attribute stands, in order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Record = 0,
    /// The span of a span event.
    Parent = 1,
    Resource = 2,
    Scope = 3,
}

const LEVELS: u32 = 4;
const ANY_LEVEL: u8 = 0b1111;
const NOT_PARENT: u8 = 0b1101;
const RESOURCE_ONLY: u8 = 0b0100;

/// The best candidate for a value so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot<'a> {
    rank: u32,
    pub(super) cell: Cell<'a>,
}

const EMPTY: Slot<'static> = Slot { rank: u32::MAX, cell: Cell::Null };

/// Where the value of a column comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    /// A field of the item.
    Own(Field),
    /// A slot, as it is.
    Slot(usize),
    /// A slot and others, through a computation.
    Derived(Derivation, usize),
}

/// A column to build.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) nullable: bool,
    pub(super) origin: Origin,
}

/// A slot that an attribute may fill.
struct Target {
    slot: usize,
    /// Of the record's level; the others follow.
    rank: u32,
    levels: u8,
    kind: Kind,
    reading: Reading,
}

struct SlotSpec {
    kind: Kind,
    sources: Vec<SourceSpec>,
}

#[derive(Clone, Copy)]
struct SourceSpec {
    reading: Reading,
    unit: &'static str,
}

/// The plan of one table.
pub(super) struct Plan {
    pub(super) outputs: Vec<Output>,
    slots: Vec<SlotSpec>,
    /// By the number of the attribute's name.
    targets: Vec<Vec<Target>>,
    columns: HashMap<&'static str, usize>,
    table: Table,
}

impl Plan {
    /// The plan of `table` for the columns named in `wanted`, names it does not have being ignored.
    pub(super) fn new(table: Table, wanted: &BTreeSet<String>, extra: &[ExtraSource], names: &mut Names) -> Self {
        let mut plan =
            Self { outputs: Vec::new(), slots: Vec::new(), targets: Vec::new(), columns: HashMap::new(), table };
        for own in table.own_columns().filter(|own| own.always || wanted.contains(own.name)) {
            plan.output(own.name, own.kind, Origin::Own(own.field));
        }
        for spec in columns::of(table).filter(|spec| wanted.contains(spec.name)) {
            let slot = plan.column(spec, extra, names);
            for needed in spec.needs.iter().filter_map(|name| columns::find(name)) {
                plan.column(needed, extra, names);
            }
            let origin = match spec.derivation {
                Derivation::None => Origin::Slot(slot),
                derivation => Origin::Derived(derivation, slot),
            };
            plan.output(spec.name, spec.kind, origin);
        }
        for name in wanted {
            plan.attribute(name, names);
        }
        plan
    }

    fn output(&mut self, name: &str, kind: Kind, origin: Origin) {
        let always = |field| {
            matches!(
                field,
                Field::EventTime
                    | Field::KafkaTopic
                    | Field::KafkaPartition
                    | Field::KafkaOffset
                    | Field::KafkaTimestamp
            )
        };
        let nullable = !matches!(origin, Origin::Own(field) if always(field));
        self.outputs.push(Output { name: name.to_owned(), kind, nullable, origin });
    }

    /// The slot of a canonical column, made at its first mention.
    fn column(&mut self, spec: &'static ColumnSpec, extra: &[ExtraSource], names: &mut Names) -> usize {
        if let Some(slot) = self.columns.get(spec.name) {
            return *slot;
        }
        let slot = self.slots.len();
        self.columns.insert(spec.name, slot);
        self.slots.push(SlotSpec { kind: spec.kind, sources: Vec::new() });
        let inherited = self.table != Table::SpanEvents || spec.role == Role::Identity;
        let levels = if inherited { ANY_LEVEL } else { NOT_PARENT };
        for own in extra.iter().filter(|own| own.column == spec.name) {
            self.source(slot, names.want(&own.attribute), SourceSpec { reading: Reading::Plain, unit: "" }, levels);
        }
        for source in spec.sources {
            let levels = if source.resource_only { RESOURCE_ONLY } else { levels };
            self.source(
                slot,
                names.want(source.attribute),
                SourceSpec { reading: source.reading, unit: source.unit },
                levels,
            );
        }
        slot
    }

    fn attribute(&mut self, column: &str, names: &mut Names) {
        let (name, levels) = if let Some(name) = column.strip_prefix(ATTR_PREFIX) {
            (name, NOT_PARENT)
        } else if let Some(name) = column.strip_prefix(RESOURCE_ATTR_PREFIX) {
            (name, RESOURCE_ONLY)
        } else {
            return;
        };
        let slot = self.slots.len();
        self.slots.push(SlotSpec { kind: Kind::Raw, sources: Vec::new() });
        self.source(slot, names.want(name), SourceSpec { reading: Reading::Plain, unit: "" }, levels);
        self.output(column, Kind::Raw, Origin::Slot(slot));
    }

    fn source(&mut self, slot: usize, name: Name, spec: SourceSpec, levels: u8) {
        let SlotSpec { kind, sources } = &mut self.slots[slot];
        let source = u32::try_from(sources.len()).unwrap_or(u32::MAX / LEVELS - 1);
        let target = Target { slot, rank: source * LEVELS, levels, kind: *kind, reading: spec.reading };
        sources.push(spec);
        if self.targets.len() <= name.at() {
            self.targets.resize_with(name.at() + 1, Vec::new);
        }
        self.targets[name.at()].push(target);
    }

    /// The slot of a canonical column, if the plan has it.
    #[inline]
    pub(super) fn slot_of(&self, column: &str) -> Option<usize> {
        self.columns.get(column).copied()
    }

    /// Whether a column with one of these derivations is built.
    pub(super) fn derives(&self, any: &[Derivation]) -> bool {
        self.outputs.iter().any(|output| matches!(output.origin, Origin::Derived(d, _) if any.contains(&d)))
    }

    /// The unit that the source of a slot's value defines; empty if it defines none.
    #[inline]
    pub(super) fn unit_of(&self, at: usize, slot: Slot<'_>) -> &'static str {
        self.winner(at, slot).map_or("", |source| source.unit)
    }

    /// Whether a slot's value was read from a source that holds for agents only.
    #[inline]
    pub(super) fn is_of_agent(&self, at: usize, slot: Slot<'_>) -> bool {
        self.winner(at, slot).is_some_and(|source| matches!(source.reading, Reading::OfAgent))
    }

    fn winner(&self, at: usize, slot: Slot<'_>) -> Option<&SourceSpec> {
        self.slots[at].sources.get(usize::try_from(slot.rank / LEVELS).ok()?)
    }

    /// Lets every attribute of a level compete for the slots it can fill.
    fn offer<'a>(
        &self,
        slots: &mut [Slot<'a>],
        level: Level,
        attributes: impl IntoIterator<Item = impl Borrow<Attribute<'a>>>,
    ) {
        for attribute in attributes {
            let Attribute { name, value } = *attribute.borrow();
            // A name that only another table wants may be beyond the end.
            let Some(targets) = self.targets.get(name.at()) else { continue };
            for target in targets {
                let rank = target.rank + level as u32;
                let slot = &mut slots[target.slot];
                let is_open = target.levels & (1 << level as u8) != 0 && rank < slot.rank;
                if is_open && read_into(&mut slot.cell, target.kind, target.reading, value) {
                    slot.rank = rank;
                }
            }
        }
    }
}

/// The slots of the records at hand; what resource and scope say is resolved once for all their records.
pub(super) struct Slots<'a> {
    resource: Vec<Slot<'a>>,
    scope: Vec<Slot<'a>>,
    /// One record's after the other.
    records: Vec<Slot<'a>>,
    entered: usize,
}

impl<'a> Slots<'a> {
    /// With room for so many records at a time.
    pub(super) fn new(plan: &Plan, records: usize) -> Self {
        let empty = vec![EMPTY; plan.slots.len()];
        let records = Vec::with_capacity(records * empty.len());
        Self { resource: empty.clone(), scope: empty, records, entered: 0 }
    }

    /// Begins a resource.
    pub(super) fn enter_resource(
        &mut self,
        plan: &Plan,
        attributes: impl IntoIterator<Item = impl Borrow<Attribute<'a>>>,
    ) {
        self.resource.fill(EMPTY);
        plan.offer(&mut self.resource, Level::Resource, attributes);
    }

    /// Begins a scope of the resource.
    pub(super) fn enter_scope(
        &mut self,
        plan: &Plan,
        attributes: impl IntoIterator<Item = impl Borrow<Attribute<'a>>>,
    ) {
        self.scope.copy_from_slice(&self.resource);
        plan.offer(&mut self.scope, Level::Scope, attributes);
    }

    /// Begins a record of the scope.
    pub(super) fn enter_record(
        &mut self,
        plan: &Plan,
        attributes: impl IntoIterator<Item = impl Borrow<Attribute<'a>>>,
    ) {
        self.records.extend_from_slice(&self.scope);
        self.entered += 1;
        self.add(plan, Level::Record, attributes);
    }

    /// Lets further attributes of the record compete, at their level.
    pub(super) fn add(
        &mut self,
        plan: &Plan,
        level: Level,
        attributes: impl IntoIterator<Item = impl Borrow<Attribute<'a>>>,
    ) {
        let before = self.records.len() - self.scope.len();
        plan.offer(&mut self.records[before..], level, attributes);
    }

    /// The slots of every record that was entered, in order.
    pub(super) fn records(&self) -> impl ExactSizeIterator<Item = &[Slot<'a>]> {
        let width = self.scope.len();
        (0..self.entered).map(move |record| &self.records[record * width..][..width])
    }

    pub(super) fn forget_records(&mut self) {
        self.records.clear();
        self.entered = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::value::Value;

    fn plan(table: Table, columns: &[&str], extra: &[ExtraSource]) -> (Plan, Names) {
        let mut names = Names::default();
        (Plan::new(table, &columns.iter().map(|c| (*c).to_owned()).collect(), extra, &mut names), names)
    }

    /// Those of them that are wanted.
    fn attributes<'a>(names: &Names, pairs: &[(&str, &'a str)]) -> Vec<Attribute<'a>> {
        let attribute =
            |(key, text): &(&str, &'a str)| Some(Attribute { name: names.of(key)?, value: Value::Str(text) });
        pairs.iter().filter_map(attribute).collect()
    }

    /// What a slot of the first record holds.
    fn cell<'a>(slots: &Slots<'a>, at: usize) -> Cell<'a> {
        slots.records().next().unwrap()[at].cell
    }

    /// What `column` gets from attributes of record, resource and scope.
    #[track_caller]
    fn check(column: &str, levels: [&[(&str, &str)]; 3], expected: Cell<'_>) {
        let (plan, names) = plan(Table::Spans, &[column], &[]);
        let [record, resource, scope] = levels.map(|pairs| attributes(&names, pairs));
        let mut slots = Slots::new(&plan, 1);
        slots.enter_resource(&plan, resource);
        slots.enter_scope(&plan, scope);
        slots.enter_record(&plan, record);
        assert_eq!(cell(&slots, 0), expected);
    }

    #[test]
    fn better_source_wins_over_nearer_level() {
        check("team", [&[("team", "near")], &[("genops.team", "far")], &[]], Cell::Str("far"));
    }

    #[test]
    fn of_one_source_the_record_wins_then_the_resource() {
        check("team", [&[("team", "r")], &[("team", "s")], &[("team", "c")]], Cell::Str("r"));
        check("team", [&[], &[("team", "s")], &[("team", "c")]], Cell::Str("s"));
        check("team", [&[], &[], &[("team", "c")]], Cell::Str("c"));
    }

    #[test]
    fn value_that_says_nothing_leaves_the_turn_to_the_next_source() {
        check("team", [&[("genops.team", "default"), ("team", "cx")], &[], &[]], Cell::Str("cx"));
    }

    #[test]
    fn first_of_duplicate_keys_wins() {
        check("team", [&[("team", "first"), ("team", "second")], &[], &[]], Cell::Str("first"));
    }

    #[test]
    fn attribute_columns_keep_placeholders_and_resource_attributes_stay_on_the_resource() {
        check("attr:genops.team", [&[("genops.team", "default")], &[], &[]], Cell::Str("default"));
        check("attr:x", [&[], &[("x", "far")], &[]], Cell::Str("far"));
        check("resource_attr:x", [&[("x", "near")], &[("x", "far")], &[("x", "scope")]], Cell::Str("far"));
        check("resource_attr:x", [&[("x", "near")], &[], &[]], Cell::Null);
    }

    #[test]
    fn in_house_attribute_goes_before_all_others() {
        let extra = [ExtraSource { column: "team".to_owned(), attribute: "acme.squad".to_owned() }];
        let (plan, names) = plan(Table::Spans, &["team"], &extra);
        let record = attributes(&names, &[("genops.team", "contract"), ("acme.squad", "house")]);
        let mut slots = Slots::new(&plan, 1);
        slots.enter_record(&plan, record);
        assert_eq!(cell(&slots, 0), Cell::Str("house"));
    }

    #[test]
    fn span_event_inherits_who_but_not_how_much() {
        let (plan, names) = plan(Table::SpanEvents, &["team", "output_tokens"], &[]);
        let span = attributes(&names, &[("team", "cx"), ("output_tokens", "7")]);
        let mut slots = Slots::new(&plan, 1);
        slots.enter_record(&plan, [] as [Attribute<'_>; 0]);
        slots.add(&plan, Level::Parent, span);
        assert_eq!((cell(&slots, 0), cell(&slots, 1)), (Cell::Str("cx"), Cell::Null));
    }

    #[test]
    fn only_wanted_columns_are_planned_and_unknown_names_are_ignored() {
        let (plan, _) = plan(Table::Logs, &["team", "no_such_column", "duration_ms"], &[]);
        let names: Vec<_> = plan.outputs.iter().map(|o| o.name.as_str()).collect();
        assert_eq!(
            names,
            ["event_time", "trace_id", "span_id", "kafka_partition", "kafka_offset", "kafka_timestamp", "team"]
        );
        assert_eq!(plan.slots.len(), 1);
    }
}
