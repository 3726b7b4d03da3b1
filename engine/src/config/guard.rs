//! The `guard` section, checked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::check::{Reader, count, not_empty, positive_ns, topic_name};
use super::said::{GuardSaid, Said};
use crate::guard::{GuardOptions, OnStale, header_name};
use crate::outputs::OutputTopics;

impl Reader<'_> {
    pub(super) fn guard(&mut self, said: Option<&GuardSaid>, outputs: &OutputTopics) -> GuardOptions {
        let nothing = GuardSaid::default();
        let (said, default) = (said.unwrap_or(&nothing), GuardOptions::default());
        let stale_after = said.stale_after.as_ref();
        let stale_after = stale_after.and_then(|after| self.read("guard.stale_after", after, positive_ns(i64::MAX)));
        GuardOptions {
            http: self.or("guard.http", said.http.as_ref(), default.http, guard_http),
            on_stale: self.or("guard.on_stale", said.on_stale.as_ref(), default.on_stale, on_stale),
            stale_after: stale_after.map_or(default.stale_after, |ns| Duration::from_nanos(ns.unsigned_abs())),
            headers: said.headers.as_ref().map_or(default.headers, |headers| self.headers(headers)),
            directives_max: self.or(
                "guard.directives_max",
                said.directives_max.as_ref(),
                default.directives_max,
                count,
            ),
            decisions: said.decisions.as_ref().and_then(|topic| self.decisions(topic, outputs)),
        }
    }

    /// A topic of telemetry, which lictor may read, and none of those that it writes.
    fn decisions(&mut self, said: &Said, outputs: &OutputTopics) -> Option<String> {
        const KEY: &str = "guard.decisions";
        let topic = self.read(KEY, said, topic_name)?;
        let OutputTopics { enforcement, directives, directives_shadow, dead_letter, late, otlp } = outputs;
        let own = [enforcement, directives, directives_shadow, dead_letter, late].into_iter();
        if own.chain(otlp.iter().map(|otlp| &otlp.topic)).any(|other| *other == topic) {
            let why = "lictor writes it: name one of spans, such as otlp_spans";
            self.fault(Some(said.referenced), format!("{KEY}: topic `{topic}` {why}"));
            return None;
        }
        Some(topic)
    }

    fn headers(&mut self, said: &BTreeMap<String, Said>) -> BTreeMap<String, String> {
        let mut headers = BTreeMap::new();
        for (header, column) in said {
            let key = format!("guard.headers.{header}");
            match header_name(header) {
                Ok(name) => headers.extend(self.read(&key, column, not_empty).map(|column| (name, column))),
                Err(why) => self.fault(Some(column.referenced), format!("{key}: `{header}` {why}")),
            }
        }
        headers
    }
}

/// Reads where the guard listens.
///
/// # Errors
/// What is wrong with it.
pub fn guard_http(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "is not an IP address and port such as 127.0.0.1:8090".to_owned())
}

fn on_stale(text: &str) -> Result<OnStale, String> {
    match text {
        "allow" => Ok(OnStale::Allow),
        "deny" => Ok(OnStale::Deny),
        _ => Err("is neither `allow` nor `deny`".to_owned()),
    }
}
