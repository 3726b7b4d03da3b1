//! The report for programs: `schemas/conformance-report.v1.schema.json`.

use lictor_engine::conformance::{ClauseReport, Runtime, RuntimeReport, Standing, Unknown, Verdict};
use serde_json::{Map, Value, json};

use super::report::{Report, remarks};

/// The whole report; the same telemetry and rules give the same text.
pub(super) fn document(report: &Report, examples: usize) -> Value {
    let rows = report
        .rows()
        .into_iter()
        .map(|(table, used, late)| (table.name().to_owned(), json!({"judged": used, "late": late})));
    json!({
        "spec": "GenOps 0.1.0",
        "sources": report.read.names,
        "came": report.reading.came.map(|(first, last)| [first.to_rfc3339(), last.to_rfc3339()]),
        "is_stopped": report.is_stopped(),
        "rows": rows.collect::<Map<_, _>>(),
        "dead_letters": report.account.counts.dead_letters,
        "notes": report.read.notes,
        "runtimes": report.runtimes.iter().map(|of| runtime(report, of, examples)).collect::<Vec<_>>(),
        "without_claim": report.others.iter().map(|(who, spans)| {
            let mut other = named(who);
            other["spans"] = json!(spans);
            other
        }).collect::<Vec<_>>(),
    })
}

fn named(who: &Runtime) -> Value {
    json!({"service": who.service, "scope": who.scope, "scope_version": who.scope_version})
}

fn runtime(report: &Report, of: &RuntimeReport, examples: usize) -> Value {
    let [span_events, log_events] = of.events();
    let mut value = named(&of.runtime);
    let requirements = of.standings.iter().map(|(number, standing)| {
        let (why, broken_by) = match standing {
            Standing::Shown => (None, &[][..]),
            Standing::NotShown(why) => (Some(why), &[][..]),
            Standing::Broken(clauses) => (None, clauses.as_slice()),
        };
        json!({"number": number, "standing": standing.as_str(), "why": why, "broken_by": broken_by})
    });
    let more = json!({
        "sdks": of.tally.sdks,
        "spec_versions": of.tally.versions,
        "spans": of.spans(),
        "awus": of.awus(),
        "span_events": span_events,
        "log_events": log_events,
        "sampled": of.sampled,
        "remarks": remarks(of),
        "level": of.level.as_str(),
        "requirements": requirements.collect::<Vec<_>>(),
        "clauses": of.clauses.iter().map(|clause| clause_of(report, clause, examples)).collect::<Vec<_>>(),
    });
    if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
        value.extend(more);
    }
    value
}

fn clause_of(report: &Report, of: &ClauseReport, examples: usize) -> Value {
    let (judged, found, why) = match &of.verdict {
        Verdict::Passed { judged } => (Some(*judged), Some(0), None),
        Verdict::Failed { found, judged } => (Some(*judged), Some(*found), None),
        Verdict::NotAssessable(why) => (None, None, Some(why)),
    };
    let exemplars = of.exemplars.iter().take(examples).map(|found| {
        json!({
            "rule": found.rule, "trace_id": found.trace_id, "span_id": found.span_id,
            "place": report.place(found), "message": found.message,
        })
    });
    json!({
        "clause": of.clause.name,
        "sections": of.clause.sections,
        "title": of.clause.title,
        "requirements": of.clause.requirements,
        "is_absence": of.clause.is_absence,
        "rules": of.clause.rules.iter().map(|by| &by.rule).collect::<Vec<_>>(),
        "verdict": of.verdict.as_str(),
        "judged": judged,
        "found": found,
        "why": why.map(ToString::to_string),
        "reason": why.map(reason),
        "exemplars": exemplars.collect::<Vec<_>>(),
    })
}

/// A word for programs.
fn reason(why: &Unknown) -> &'static str {
    match why {
        Unknown::Nothing => "nothing",
        Unknown::Sampled(..) => "sampled",
        Unknown::NoSignal(_) => "no_signal",
        Unknown::Late(_) => "late",
        Unknown::RuleFailed(_) => "rule_failed",
    }
}
