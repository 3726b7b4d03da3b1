//! Rows under construction: one Arrow builder per wanted column.
//!
//! Values go straight from the decoded message into the builders; text that has to be rewritten (lower case, hex, a
//! joined list) passes through one scratch buffer per column.
//!
//! Invariant: between two calls all columns have the same length, `usage_leaf` excepted until the record is complete.

use std::collections::BTreeSet;
use std::mem;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int32Builder, Int64Builder, RecordBatch, StringViewBuilder,
    TimestampNanosecondBuilder,
};
use arrow::datatypes::{Field as ArrowField, Schema, SchemaRef};

use super::RecordMeta;
use super::cell::{Cell, write_list, write_text};
use super::derive::{Facts, Inputs, Item, Row};
use super::names::Names;
use super::plan::{Origin, Plan, Slots};
use crate::columns::{Derivation, ExtraSource, Kind, vocabulary};
use crate::prices::PriceTable;
use crate::tables::{Field, Table, data_type};
use crate::time::EventTime;

/// The rows of one table.
pub(super) struct Rows {
    pub(super) plan: Plan,
    inputs: Inputs,
    schema: SchemaRef,
    columns: Vec<Column>,
    prices: Arc<PriceTable>,
    has_facts: bool,
    /// Of the rows that were appended last.
    facts: Vec<Facts>,
    rows: usize,
    /// So many rows the last batch had.
    rows_last: usize,
}

struct Column {
    kind: Kind,
    builder: Builder,
    scratch: String,
}

enum Builder {
    Text(StringViewBuilder),
    Small(Int32Builder),
    Integer(Int64Builder),
    Number(Float64Builder),
    Flag(BooleanBuilder),
    Instant(TimestampNanosecondBuilder),
}

impl Rows {
    pub(super) fn new(
        table: Table,
        wanted: &BTreeSet<String>,
        extra: &[ExtraSource],
        prices: &Arc<PriceTable>,
        names: &mut Names,
    ) -> Self {
        let plan = Plan::new(table, wanted, extra, names);
        let field =
            |output: &super::plan::Output| ArrowField::new(&output.name, data_type(output.kind), output.nullable);
        Self {
            inputs: Inputs::new(&plan),
            schema: Arc::new(Schema::new(plan.outputs.iter().map(field).collect::<Vec<_>>())),
            columns: plan.outputs.iter().map(|output| Column::new(output.kind)).collect(),
            prices: Arc::clone(prices),
            has_facts: plan.derives(&[
                Derivation::InputTokens,
                Derivation::TotalTokens,
                Derivation::UsageLeaf,
                Derivation::CostTotal,
                Derivation::CostCurrency,
                Derivation::CostSource,
            ]),
            facts: Vec::new(),
            rows: 0,
            rows_last: 0,
            plan,
        }
    }

    pub(super) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    pub(super) fn len(&self) -> usize {
        self.rows
    }

    /// Appends a row for every item, each with the slots of the record that was entered for it; those are taken.
    /// `usage_leaf` is appended by [`Rows::append_leaves`].
    ///
    /// Column by column: what a column holds and how it is built is asked once for all of them.
    pub(super) fn append<'a>(&mut self, slots: &mut Slots<'a>, items: &[impl Item<'a>], record: &RecordMeta<'a>) {
        assert_eq!(slots.records().len(), items.len(), "a record is entered for every item");
        if self.rows == 0 {
            self.columns.iter_mut().for_each(|column| column.begin(self.rows_last));
        }
        let row = |(slots, item)| Row { plan: &self.plan, inputs: &self.inputs, slots, item };
        let rows = || slots.records().zip(items).map(row);
        self.facts.clear();
        self.facts.extend(rows().map(|row| if self.has_facts { row.facts(&self.prices) } else { Facts::default() }));
        for (output, column) in self.plan.outputs.iter().zip(&mut self.columns) {
            match output.origin {
                Origin::Own(field) => column.append(items.iter().map(|item| own(field, item, record))),
                Origin::Slot(at) => column.append(slots.records().map(|slots| slots[at].cell)),
                Origin::Derived(Derivation::UsageLeaf, _) => {}
                Origin::Derived(derivation, at) => {
                    column.append(rows().zip(&self.facts).map(|(row, facts)| row.derived(derivation, at, facts)));
                }
            }
        }
        self.rows += items.len();
        slots.forget_records();
    }

    /// Whether the rows that were appended last bear usage, if a wanted column needs to know.
    pub(super) fn bear_usage(&self) -> impl Iterator<Item = bool> {
        self.facts.iter().map(Facts::bears_usage)
    }

    /// Whether `usage_leaf` is built, so that the spans of a record have to be compared.
    pub(super) fn has_leaves(&self) -> bool {
        self.plan.derives(&[Derivation::UsageLeaf])
    }

    /// Appends `usage_leaf` for the last rows.
    pub(super) fn append_leaves(&mut self, leaves: &[bool]) {
        for (output, column) in self.plan.outputs.iter().zip(&mut self.columns) {
            if matches!(output.origin, Origin::Derived(Derivation::UsageLeaf, _)) {
                column.append(leaves.iter().map(|leaf| Cell::Bool(*leaf)));
            }
        }
    }

    /// The rows so far, and starts anew.
    pub(super) fn take(&mut self) -> RecordBatch {
        self.rows_last = mem::take(&mut self.rows);
        let arrays = self.columns.iter_mut().map(Column::finish).collect();
        // Invariant of this type: as many columns as fields, each of its field's type, all of one length.
        RecordBatch::try_new(self.schema(), arrays).unwrap_or_else(|e| unreachable!("columns disagree: {e}"))
    }
}

fn own<'a>(field: Field, item: &impl Item<'a>, record: &RecordMeta<'a>) -> Cell<'a> {
    match field {
        Field::KafkaTopic => Cell::Str(record.topic),
        Field::KafkaPartition => Cell::Int(i64::from(record.partition)),
        Field::KafkaOffset => Cell::Int(record.offset),
        Field::KafkaTimestamp => Cell::Time(EventTime::from_ms(record.timestamp_ms).0),
        other => item.own(other),
    }
}

impl Builder {
    fn new(kind: Kind, rows: usize) -> Self {
        match kind {
            Kind::Small => Self::Small(Int32Builder::with_capacity(rows)),
            Kind::Integer => Self::Integer(Int64Builder::with_capacity(rows)),
            Kind::Number => Self::Number(Float64Builder::with_capacity(rows)),
            Kind::Flag => Self::Flag(BooleanBuilder::with_capacity(rows)),
            Kind::Instant => Self::Instant(TimestampNanosecondBuilder::with_capacity(rows)),
            _ => Self::Text(StringViewBuilder::with_capacity(rows)),
        }
    }
}

impl Column {
    fn new(kind: Kind) -> Self {
        Self { kind, builder: Builder::new(kind, 0), scratch: String::new() }
    }

    /// Begins a batch of about as many rows as the last one. A builder that has been finished would grow to them anew,
    /// and the one for text takes twice as large a block with every batch.
    fn begin(&mut self, rows: usize) {
        self.builder = Builder::new(self.kind, rows);
    }

    fn append<'a>(&mut self, cells: impl Iterator<Item = Cell<'a>>) {
        match &mut self.builder {
            Builder::Text(text) => cells.for_each(|cell| append_text(text, &mut self.scratch, self.kind, cell)),
            Builder::Small(small) => {
                cells.for_each(|cell| small.append_option(cell.as_int().and_then(|n| i32::try_from(n).ok())));
            }
            Builder::Integer(integer) => cells.for_each(|cell| integer.append_option(cell.as_int())),
            Builder::Number(number) => cells.for_each(|cell| number.append_option(cell.as_float())),
            Builder::Flag(flag) => cells.for_each(|cell| flag.append_option(cell.as_bool())),
            Builder::Instant(instant) => cells.for_each(|cell| instant.append_option(cell.as_time())),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match &mut self.builder {
            Builder::Text(text) => Arc::new(text.finish()),
            Builder::Small(small) => Arc::new(small.finish()),
            Builder::Integer(integer) => Arc::new(integer.finish()),
            Builder::Number(number) => Arc::new(number.finish()),
            Builder::Flag(flag) => Arc::new(flag.finish()),
            Builder::Instant(instant) => Arc::new(instant.finish()),
        }
    }
}

fn append_text(builder: &mut StringViewBuilder, scratch: &mut String, kind: Kind, cell: Cell<'_>) {
    let text = match cell {
        Cell::Null => return builder.append_null(),
        Cell::Str(text) if kind != Kind::List => text,
        other => {
            scratch.clear();
            match kind {
                Kind::List => write_list(scratch, other),
                _ => write_text(scratch, other),
            }
            scratch.as_str()
        }
    };
    builder.append_value(vocabulary::spelled(kind, text));
}
