//! Spans as the tables are built from them: borrowed from a decoded message, or from the bytes themselves.
//!
//! Spans, events and attributes lie in one list each, in the order of the record; who belongs to whom is said by places
//! in those lists. Attributes that no column is built from are left out.

use std::ops::Range;

use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::trace::v1 as decoded;
use opentelemetry_proto::tonic::trace::v1::TracesData;

use super::names::Names;
use super::value::Attribute;

/// The spans of a record.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Traces<'a> {
    /// The attributes of each resource.
    pub(super) resources: Vec<Range<usize>>,
    pub(super) scopes: Vec<Scope<'a>>,
    pub(super) spans: Vec<Span<'a>>,
    pub(super) events: Vec<Event<'a>>,
    /// Of resources, scopes and spans.
    pub(super) attributes: Vec<Attribute<'a>>,
    pub(super) event_attributes: Vec<Attribute<'a>>,
}

/// An instrumentation scope of a resource.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Scope<'a> {
    pub(super) resource: usize,
    pub(super) name: &'a str,
    pub(super) version: &'a str,
    pub(super) attributes: Range<usize>,
}

/// A span of a scope.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Span<'a> {
    pub(super) scope: usize,
    pub(super) trace_id: &'a [u8],
    pub(super) span_id: &'a [u8],
    pub(super) trace_state: &'a str,
    pub(super) parent_span_id: &'a [u8],
    pub(super) name: &'a str,
    pub(super) kind: i32,
    pub(super) start_time_unix_nano: u64,
    pub(super) end_time_unix_nano: u64,
    pub(super) status_code: i32,
    pub(super) status_message: &'a str,
    pub(super) attributes: Range<usize>,
    pub(super) events: Range<usize>,
}

/// An event of a span.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Event<'a> {
    pub(super) time_unix_nano: u64,
    pub(super) name: &'a str,
    pub(super) attributes: Range<usize>,
}

impl<'a> Traces<'a> {
    /// A screened message; attributes that nobody wants are left out.
    pub(super) fn of(data: &'a TracesData, names: &Names) -> Self {
        let mut traces = Self::default();
        for resource_spans in &data.resource_spans {
            let resource = traces.resources.len();
            let pairs = resource_spans.resource.as_ref().map_or(&[][..], |r| &r.attributes);
            let attributes = keep(&mut traces.attributes, pairs, names);
            traces.resources.push(attributes);
            for scope_spans in &resource_spans.scope_spans {
                let scope = traces.scopes.len();
                let named = Scope { resource, ..traces.scope(scope_spans.scope.as_ref(), names) };
                traces.scopes.push(named);
                for span in &scope_spans.spans {
                    let span = Span { scope, ..traces.span(span, names) };
                    traces.spans.push(span);
                }
            }
        }
        traces
    }

    fn scope(&mut self, scope: Option<&'a InstrumentationScope>, names: &Names) -> Scope<'a> {
        let Some(scope) = scope else { return Scope::default() };
        let attributes = keep(&mut self.attributes, &scope.attributes, names);
        Scope { resource: 0, name: &scope.name, version: &scope.version, attributes }
    }

    fn span(&mut self, span: &'a decoded::Span, names: &Names) -> Span<'a> {
        let first_event = self.events.len();
        for event in &span.events {
            let attributes = keep(&mut self.event_attributes, &event.attributes, names);
            self.events.push(Event { time_unix_nano: event.time_unix_nano, name: &event.name, attributes });
        }
        let status = span.status.as_ref();
        Span {
            scope: 0,
            trace_id: &span.trace_id,
            span_id: &span.span_id,
            trace_state: &span.trace_state,
            parent_span_id: &span.parent_span_id,
            name: &span.name,
            kind: span.kind,
            start_time_unix_nano: span.start_time_unix_nano,
            end_time_unix_nano: span.end_time_unix_nano,
            status_code: status.map_or(0, |status| status.code),
            status_message: status.map_or("", |status| &status.message),
            attributes: keep(&mut self.attributes, &span.attributes, names),
            events: first_event..self.events.len(),
        }
    }

    /// The lists without what is in them, so that the next record need not make them anew.
    pub(super) fn emptied(self) -> Traces<'static> {
        Traces {
            resources: emptied(self.resources),
            scopes: emptied(self.scopes),
            spans: emptied(self.spans),
            events: emptied(self.events),
            attributes: emptied(self.attributes),
            event_attributes: emptied(self.event_attributes),
        }
    }

    pub(super) fn attributes(&self, range: &Range<usize>) -> &[Attribute<'a>] {
        &self.attributes[range.clone()]
    }

    pub(super) fn event_attributes(&self, event: &Event<'a>) -> &[Attribute<'a>] {
        &self.event_attributes[event.attributes.clone()]
    }
}

fn keep<'a>(kept: &mut Vec<Attribute<'a>>, pairs: &'a [KeyValue], names: &Names) -> Range<usize> {
    let first = kept.len();
    kept.extend(names.attributes(pairs));
    first..kept.len()
}

/// A list that has grown larger is not kept: few records are so large.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// The list's place in memory, for elements that borrow from elsewhere: collecting what an iterator over a list gives
/// reuses it.
fn emptied<T, U>(mut list: Vec<T>) -> Vec<U> {
    list.clear();
    list.shrink_to(KEPT_BYTES_MAX / size_of::<T>().max(1));
    list.into_iter().filter_map(|_| None).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emptied_lists_keep_their_place_unless_they_are_huge() {
        let text = "team".to_owned();
        let list = vec![text.as_str(); 100];
        let place = list.as_ptr().addr();
        let kept: Vec<&'static str> = emptied(list);
        assert_eq!((kept.len(), kept.capacity(), kept.as_ptr().addr()), (0, 100, place));
        let huge: Vec<&'static str> = emptied(vec![text.as_str(); KEPT_BYTES_MAX]);
        assert!(huge.capacity() <= KEPT_BYTES_MAX / size_of::<&str>());
    }
}
