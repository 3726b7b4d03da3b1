//! The report for programs.

use lictor_engine::backtest::{Episode, Peak, RuleDifference, RuleDigest};
use lictor_schemas::event::Instruction;
use serde_json::{Map, Value, json};

use super::report::Report;
use super::text::edit_text;

/// The whole report; the same telemetry and rules give the same text.
pub(super) fn document(report: &Report) -> Value {
    let (reading, counts) = (&report.reading, &report.account.counts);
    let time = |at: Option<lictor_schemas::time::EventTime>| at.map(lictor_schemas::time::EventTime::to_rfc3339);
    let rows = report.tables().map(|table| {
        let [used, late, future] = report.rows(table);
        (table.name().to_owned(), json!({"used": used, "late": late, "future": future}))
    });
    let dead = report.account.dead.iter().map(|letter| {
        json!({
            "topic": *letter.partition.topic, "partition": letter.partition.partition, "offset": letter.offset,
            "reason": letter.reason, "message": letter.message,
        })
    });
    let mut document = json!({
        "sources": report.sources,
        "from": time(report.range.from),
        "to": time(report.range.to),
        "came": reading.came.map(|(first, last)| [first.to_rfc3339(), last.to_rfc3339()]),
        "is_stopped": reading.is_stopped,
        "records": {
            "read": counts.records,
            "used": counts.records - counts.records_dead - counts.records_partly_dead,
            "dead": counts.records_dead,
            "partly_dead": counts.records_partly_dead,
            "out_of_range": reading.outside,
            "bytes": reading.bytes,
        },
        "rows": rows.collect::<Map<_, _>>(),
        "dead_letters": {"by_reason": counts.dead_letters, "first": dead.collect::<Vec<_>>()},
        "notes": report.notes,
        "rules": report.rules.values().map(rule).collect::<Vec<_>>(),
    });
    if let Some(difference) = &report.difference {
        let (added, removed, moved, unchanged) = difference.totals();
        let rules = difference.rules.iter().map(|(name, rule)| changes(name, rule));
        document["difference"] = json!({
            "added": added, "removed": removed, "moved": moved, "unchanged": unchanged,
            "rules": rules.collect::<Vec<_>>(),
        });
    }
    document
}

fn rule(rule: &RuleDigest) -> Value {
    let held = rule.held_ns.iter().filter(|(action, _)| **action != Instruction::Allow);
    let held = held.map(|(action, ns)| (action.as_str().to_owned(), json!(ns / 1_000_000)));
    json!({
        "name": rule.header.name,
        "version": rule.header.version.0,
        "file": rule.header.file,
        "mode": rule.header.mode.as_str(),
        "events": rule.by_state,
        "subjects": rule.subjects.len(),
        "first": rule.span.map(|span| span.0.to_rfc3339()),
        "last": rule.span.map(|span| span.1.to_rfc3339()),
        "peak": rule.peak.as_ref().map(|(subject, of)| {
            let mut peak = peak(of);
            peak["subject"] = json!(subject);
            peak
        }),
        "held_ms": held.collect::<Map<_, _>>(),
        "episodes": rule.episodes.len(),
    })
}

fn changes(name: &str, rule: &RuleDifference) -> Value {
    let moved = rule
        .moved
        .iter()
        .map(|pair| json!({"in": pair.differs_in(), "before": episode(&pair.before), "after": episode(&pair.after)}));
    json!({
        "rule": name,
        "edit": edit_text(rule),
        "added": rule.added.iter().map(episode).collect::<Vec<_>>(),
        "removed": rule.removed.iter().map(episode).collect::<Vec<_>>(),
        "moved": moved.collect::<Vec<_>>(),
        "unchanged": rule.unchanged,
    })
}

fn episode(episode: &Episode) -> Value {
    json!({
        "subject": episode.subject,
        "started": episode.started.to_rfc3339(),
        "ended": episode.ended.map(|(_, at)| at.to_rfc3339()),
        "how": episode.ended.map(|(state, _)| state.as_str()),
        "result": episode.strongest.as_str(),
        "action": episode.action.as_str(),
        "mode": episode.mode.as_str(),
        "peak": episode.peak.as_ref().map(peak),
        "events": episode.events,
    })
}

fn peak(peak: &Peak) -> Value {
    let (observed, threshold, unit) = (peak.observed, peak.threshold, &peak.unit);
    json!({"observed": observed, "threshold": threshold, "unit": unit, "at": peak.at.to_rfc3339()})
}
