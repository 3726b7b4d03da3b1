//! Rows of `spans` and `span_events`.

use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

use super::RecordMeta;
use super::cell::Cell;
use super::derive::Item;
use super::leaf::{Node, usage_leaves};
use super::names::Names;
use super::plan::{Level, Slots};
use super::rows::Rows;
use super::traces::{Event, Scope, Span, Traces};
use crate::tables::Field;

const NANOS_PER_MS: f64 = 1e6;
const EXCEPTION: &str = "exception";
/// The one attribute that a span takes from its exception events.
const EXCEPTION_TYPE: &str = "exception.type";

/// So many that what is known of them while they become rows lies close to the processor.
const SPANS_AT_ONCE: usize = 32;

/// Appends every span of a record.
pub(super) fn append_spans<'a>(rows: &mut Rows, names: &Names, traces: &Traces<'a>, record: &RecordMeta<'a>) {
    let exception_type = names.of(EXCEPTION_TYPE);
    let has_leaves = rows.has_leaves();
    let mut nodes = Vec::with_capacity(if has_leaves { traces.spans.len() } else { 0 });
    let mut append = |rows: &mut Rows, slots: &mut Slots<'a>, items: &mut Vec<SpanItem<'_, 'a>>| {
        rows.append(slots, items, record);
        if has_leaves {
            nodes.extend(items.iter().zip(rows.bear_usage()).map(|(item, bears_usage)| node(item.span, bears_usage)));
        }
        items.clear();
    };
    let at_once = traces.spans.len().min(SPANS_AT_ONCE);
    let (mut slots, mut items) = (Slots::new(&rows.plan, at_once), Vec::with_capacity(at_once));
    for_each_span(rows, &mut slots, traces, |rows, slots, span| {
        slots.enter_record(&rows.plan, traces.attributes(&span.attributes));
        for event in traces.events[span.events.clone()].iter().filter(|event| event.name == EXCEPTION) {
            let mut attributes = traces.event_attributes(event).iter();
            let found = attributes.find(|attribute| Some(attribute.name) == exception_type);
            slots.add(&rows.plan, Level::Parent, found);
        }
        items.push(SpanItem { span, scope: &traces.scopes[span.scope] });
        if items.len() == SPANS_AT_ONCE {
            append(rows, slots, &mut items);
        }
    });
    append(rows, &mut slots, &mut items);
    if has_leaves {
        rows.append_leaves(&usage_leaves(&nodes));
    }
}

/// Appends every event of every span of a record.
pub(super) fn append_events<'a>(rows: &mut Rows, traces: &Traces<'a>, record: &RecordMeta<'a>) {
    let mut slots = Slots::new(&rows.plan, 1);
    for_each_span(rows, &mut slots, traces, |rows, slots, span| {
        for event in &traces.events[span.events.clone()] {
            slots.enter_record(&rows.plan, traces.event_attributes(event));
            slots.add(&rows.plan, Level::Parent, traces.attributes(&span.attributes));
            rows.append(slots, &[EventItem { event, span, scope: &traces.scopes[span.scope] }], record);
        }
    });
}

/// Every span in order, with the slots as its resource and scope leave them.
fn for_each_span<'t, 'a>(
    rows: &mut Rows,
    slots: &mut Slots<'a>,
    traces: &'t Traces<'a>,
    mut each: impl FnMut(&mut Rows, &mut Slots<'a>, &'t Span<'a>),
) {
    let (mut resource, mut scope) = (None, None);
    for span in &traces.spans {
        if scope != Some(span.scope) {
            scope = Some(span.scope);
            let entered = &traces.scopes[span.scope];
            if resource != Some(entered.resource) {
                resource = Some(entered.resource);
                slots.enter_resource(&rows.plan, traces.attributes(&traces.resources[entered.resource]));
            }
            slots.enter_scope(&rows.plan, traces.attributes(&entered.attributes));
        }
        each(rows, slots, span);
    }
}

fn node(span: &Span<'_>, bears_usage: bool) -> Node {
    Node {
        trace_id: u128::from_be_bytes(span.trace_id.try_into().unwrap_or_default()),
        span_id: number(span.span_id),
        parent_span_id: number(span.parent_span_id),
        bears_usage,
    }
}

/// A span's identifier of the length that it was found to have; 0 if there is none.
fn number(id: &[u8]) -> u64 {
    u64::from_be_bytes(id.try_into().unwrap_or_default())
}

struct SpanItem<'t, 'a> {
    span: &'t Span<'a>,
    scope: &'t Scope<'a>,
}

impl<'a> Item<'a> for SpanItem<'_, 'a> {
    fn own(&self, field: Field) -> Cell<'a> {
        let span = self.span;
        match field {
            Field::EventTime => Cell::time(span.end_time_unix_nano),
            Field::StartTime => Cell::time(span.start_time_unix_nano),
            Field::TraceId => Cell::Id(span.trace_id),
            Field::SpanId => Cell::Id(span.span_id),
            Field::ParentSpanId => id(span.parent_span_id),
            Field::TraceState => Cell::text(span.trace_state),
            Field::Name | Field::SpanName => Cell::Str(span.name),
            Field::Kind => Cell::Str(kind(span.kind)),
            Field::StatusCode => Cell::Str(status(span.status_code)),
            Field::StatusMessage => Cell::text(span.status_message),
            Field::DurationMs => duration_ms(span),
            Field::ScopeName => Cell::text(self.scope.name),
            Field::ScopeVersion => Cell::text(self.scope.version),
            _ => Cell::Null,
        }
    }
}

struct EventItem<'t, 'a> {
    event: &'t Event<'a>,
    span: &'t Span<'a>,
    scope: &'t Scope<'a>,
}

impl<'a> Item<'a> for EventItem<'_, 'a> {
    fn own(&self, field: Field) -> Cell<'a> {
        match field {
            Field::EventTime => match Cell::time(self.event.time_unix_nano) {
                Cell::Null => Cell::time(self.span.end_time_unix_nano),
                time => time,
            },
            Field::Name => Cell::Str(self.event.name),
            Field::SpanName => Cell::Str(self.span.name),
            Field::TraceId => Cell::Id(self.span.trace_id),
            Field::SpanId => Cell::Id(self.span.span_id),
            Field::ScopeName => Cell::text(self.scope.name),
            Field::ScopeVersion => Cell::text(self.scope.version),
            _ => Cell::Null,
        }
    }
}

/// What the scope says of its items.
pub(super) fn of_scope(scope: Option<&InstrumentationScope>, field: Field) -> Cell<'_> {
    match (field, scope) {
        (Field::ScopeName, Some(scope)) => Cell::text(&scope.name),
        (Field::ScopeVersion, Some(scope)) => Cell::text(&scope.version),
        _ => Cell::Null,
    }
}

/// An identifier; all zero means that there is none.
pub(super) fn id(bytes: &[u8]) -> Cell<'_> {
    if bytes.iter().all(|b| *b == 0) { Cell::Null } else { Cell::Id(bytes) }
}

fn duration_ms(span: &Span<'_>) -> Cell<'static> {
    match (Cell::time(span.start_time_unix_nano), Cell::time(span.end_time_unix_nano)) {
        (Cell::Time(start), Cell::Time(end)) => Cell::Float((end - start) as f64 / NANOS_PER_MS),
        _ => Cell::Null,
    }
}

fn kind(kind: i32) -> &'static str {
    let kind = SpanKind::try_from(kind).unwrap_or(SpanKind::Unspecified).as_str_name();
    kind.strip_prefix("SPAN_KIND_").unwrap_or(kind)
}

fn status(code: i32) -> &'static str {
    let code = StatusCode::try_from(code).unwrap_or(StatusCode::Unset).as_str_name();
    code.strip_prefix("STATUS_CODE_").unwrap_or(code)
}
