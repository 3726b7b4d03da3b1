//! A snapshot as JSON. Instants are milliseconds since the Unix epoch, lengths of time in the unit that the name says.

use lictor_schemas::event::{EnforcementEvent, ExemplarRecord, Finding, WindowBounds};
use lictor_schemas::time::EventTime;
use lictor_schemas::violation::Subject;
use serde_json::{Map, Value, json};

use super::card::{Cards, RuleCard};
use super::series::{Point, Series};
use super::snapshot::{RuleFigures, Snapshot};
use super::{ConsoleOptions, DIRECTIVES_MAX, EVENTS_MAX};
use crate::aside::{DeadNote, without_quoted};
use crate::decision::Standing;
use crate::judge_stage::RuleStatus;
use crate::watermark::Mark;

/// What is asked for of events and directives.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    /// Words, each of which must be in the text of what is shown.
    pub words: Vec<String>,
    pub rule: Option<String>,
    pub action: Option<String>,
    pub id: Option<String>,
    pub limit: usize,
}

impl Filter {
    fn fits(&self, (rule, action, id): (&str, &str, &str), text: impl FnOnce() -> String) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        if !(is(&self.rule, rule) && is(&self.action, action) && is(&self.id, id)) {
            return false;
        }
        let text = if self.words.is_empty() { String::new() } else { text().to_lowercase() };
        self.words.iter().all(|word| text.contains(word.as_str()))
    }
}

impl Snapshot {
    pub(super) fn overview(&self, options: &ConsoleOptions, health: Value, cards: &Cards) -> Value {
        let firing: usize = self.rules.iter().map(|rule| rule.firing).sum();
        let count = |state: &str| self.rules.iter().filter(|rule| state_of(rule) == state).count();
        json!({
            "instance": self.instance(options),
            "health": health,
            "totals": {
                "records": self.totals.records,
                "rows": self.totals.rows,
                "late_rows": self.totals.late_rows,
                "dead_letters": self.totals.dead_letters,
                "events": self.totals.events,
                "latency_ms": self.totals.latency.map(|latency| latency.as_millis()),
            },
            "seconds": &self.seconds[..],
            "firing": firing,
            "by_action": self.standing.by_action,
            "rules": {
                "running": count("running"),
                "warming": count("warming"),
                "quarantined": count("quarantined"),
                "reload_refused": cards.is_refused(),
            },
            "signals": self.signals(),
        })
    }

    fn instance(&self, options: &ConsoleOptions) -> Value {
        json!({
            "application_id": options.application_id,
            "instance_id": options.instance_id,
            "version": env!("CARGO_PKG_VERSION"),
            "partitions": self.partitions,
            "shards": self.shards,
            "shards_of": options.shards,
        })
    }

    fn signals(&self) -> Vec<Value> {
        let signal = |(signal, time): (&lictor_schemas::tables::Signal, &crate::http::SignalTime)| {
            let held_by = time.held_by.as_ref().map(partition);
            json!({"signal": signal.as_str(), "watermark": begun(time.watermark), "held_by": held_by})
        };
        self.times.iter().map(signal).collect()
    }

    pub(super) fn rules(&self, cards: &Cards) -> Value {
        let rules = self.rules.iter().zip(&self.figures);
        let rules: Vec<Value> = rules.map(|(rule, figures)| row(rule, figures, cards.of(&rule.name))).collect();
        json!({ "rules": rules })
    }

    /// None if there is no such rule.
    pub(super) fn rule(&self, name: &str, cards: &Cards) -> Option<Value> {
        let (rule, figures) = self.rules.iter().zip(&self.figures).find(|(rule, _)| rule.name == name)?;
        let card = cards.of(name);
        let look =
            figures.look.map(|look| json!({"at": look.at.to_ms(), "groups": look.groups, "looked_at": look.looked_at}));
        let mut lines: Vec<&Series> = self.series.get(name).into_iter().flat_map(|lines| lines.values()).collect();
        lines.sort_by(|a, b| b.closeness.total_cmp(&a.closeness));
        Some(json!({
            "status": row(rule, figures, card),
            "card": card.map(RuleCard::to_json),
            "look": look,
            "series": lines.into_iter().map(series).collect::<Vec<_>>(),
        }))
    }

    pub(super) fn directives(&self, filter: &Filter) -> Value {
        let fits = |standing: &&Standing| {
            let id = standing.directive_id.as_str();
            filter.fits((&standing.rule, standing.action.as_str(), id), || {
                let message = standing.finding.message.as_deref().unwrap_or_default();
                format!("{} {} {id} {message}", standing.rule, standing.subject.to_key())
            })
        };
        let found: Vec<&Standing> = self.standing.first.iter().filter(fits).collect();
        json!({
            "firing": self.rules.iter().map(|rule| rule.firing).sum::<usize>(),
            "collected_max": DIRECTIVES_MAX,
            "found": found.len(),
            "directives": found.into_iter().take(filter.limit).map(directive).collect::<Vec<_>>(),
        })
    }

    pub(super) fn events(&self, filter: &Filter) -> Value {
        let fits = |(_, event): &&(u64, std::sync::Arc<EnforcementEvent>)| {
            let data = &event.data;
            filter.fits((&data.rule.name, data.action.as_str(), &data.directive_id), || {
                let message = data.finding.message.as_deref().unwrap_or_default();
                let subject = Value::Object(data.selector.matches.clone());
                format!("{} {} {subject} {} {message}", data.rule.name, data.state.as_str(), data.directive_id)
            })
        };
        let found = self.events.iter().rev().filter(fits).take(filter.limit);
        json!({
            "kept_max": EVENTS_MAX,
            "total": self.totals.events,
            "events": found.map(|(number, kept)| event(*number, kept)).collect::<Vec<_>>(),
        })
    }

    pub(super) fn partitions(&self, options: &ConsoleOptions) -> Value {
        let row = |mark: &Mark| {
            let aside = self.aside.get(&mark.partition).copied().unwrap_or_default();
            let holds = self
                .times
                .values()
                .any(|time| time.held_by.as_ref().is_some_and(|held_by| held_by.partition == mark.partition));
            json!({
                "topic": mark.partition.topic.as_ref(),
                "partition": mark.partition.partition,
                "signal": mark.signal.as_str(),
                "high": mark.high.and_then(begun),
                "idle": mark.is_idle,
                "holds_time_back": holds,
                "lag": self.lag.get(&mark.partition),
                "late_rows": aside.late_rows,
                "dead_letters": aside.dead,
            })
        };
        json!({
            "instance": self.instance(options),
            "signals": self.signals(),
            "partitions": self.marks.iter().map(row).collect::<Vec<_>>(),
        })
    }

    pub(super) fn dead_letters(&self) -> Value {
        let letter = |note: &DeadNote| {
            json!({
                "topic": note.partition.topic.as_ref(),
                "partition": note.partition.partition,
                "offset": note.offset,
                "at": note.stamped.map(EventTime::to_ms),
                "reason": note.reason,
                "message": without_quoted(&note.message),
                "bytes": note.bytes,
            })
        };
        json!({"total": self.totals.dead_letters, "letters": self.letters.iter().map(letter).collect::<Vec<_>>()})
    }
}

fn begun(at: EventTime) -> Option<i64> {
    (at > EventTime::MIN).then(|| at.to_ms())
}

fn partition(mark: &Mark) -> Value {
    json!({
        "topic": mark.partition.topic.as_ref(),
        "partition": mark.partition.partition,
        "high": mark.high.and_then(begun),
    })
}

fn state_of(rule: &RuleStatus) -> &'static str {
    match rule {
        RuleStatus { quarantined: Some(_), .. } => "quarantined",
        RuleStatus { is_warming: true, .. } => "warming",
        RuleStatus { .. } => "running",
    }
}

fn row(rule: &RuleStatus, figures: &RuleFigures, card: Option<&RuleCard>) -> Value {
    let of_card = |text: fn(&RuleCard) -> &str| card.map(text).unwrap_or_default();
    json!({
        "name": rule.name,
        "state": state_of(rule),
        "quarantined": rule.quarantined,
        "mode": rule.mode.as_str(),
        "action": of_card(|card| card.header.action.as_str()),
        "owner": of_card(|card| &card.header.owner),
        "summary": of_card(|card| first_sentence(&card.header.description)),
        "window": of_card(|card| &card.window),
        "emission": of_card(|card| &card.emission),
        "firing": rule.firing,
        "pending": rule.pending,
        "groups": rule.groups,
        "state_bytes": rule.state_bytes,
        "dropped": rule.dropped,
        "events": figures.events,
        "last_event": figures.last_event.map(EventTime::to_ms),
        "cpu_share": figures.share,
        "spent_ms": figures.spent.as_secs_f64() * 1e3,
    })
}

fn first_sentence(text: &str) -> &str {
    let end = text.find(". ").or_else(|| text.find(".\n")).map_or(text.len(), |dot| dot + 1);
    &text[..end]
}

fn series(line: &Series) -> Value {
    let point = |point: &Point| json!([point.at.to_ms(), point.observed, point.threshold]);
    json!({
        "subject": &line.subject.0,
        "unit": line.unit,
        "closeness": line.closeness,
        "points": line.points.iter().map(point).collect::<Vec<_>>(),
    })
}

/// What a rule has found, into the object that tells of it.
fn add_finding(to: &mut Map<String, Value>, finding: &Finding) {
    let window = |window: WindowBounds| json!({"start": window.start.to_ms(), "end": window.end.to_ms()});
    let exemplar = |exemplar: &ExemplarRecord| json!(exemplar);
    let said = json!({
        "result": finding.result.as_str(),
        "reason_code": finding.reason_code.as_ref().map(|code| code.as_str()),
        "observed": finding.observed,
        "threshold": finding.threshold,
        "unit": finding.unit,
        "message": finding.message,
        "window": finding.window.map(window),
        "sample_count": finding.sample_count,
        "exemplars": finding.exemplars.iter().map(exemplar).collect::<Vec<_>>(),
        "evidence": finding.evidence,
    });
    if let Value::Object(said) = said {
        to.extend(said);
    }
}

fn directive(standing: &Standing) -> Value {
    let Subject(subject) = &standing.subject;
    let mut all = Map::from_iter([
        ("directive_id".to_owned(), json!(standing.directive_id)),
        ("revision".to_owned(), json!(standing.revision)),
        ("rule".to_owned(), json!(standing.rule)),
        ("subject".to_owned(), json!(subject)),
        ("mode".to_owned(), json!(standing.mode.as_str())),
        ("action".to_owned(), json!(standing.action.as_str())),
        ("since".to_owned(), json!(standing.since.map(EventTime::to_ms))),
        ("valid_until".to_owned(), json!(standing.valid_until.to_ms())),
    ]);
    add_finding(&mut all, &standing.finding);
    Value::Object(all)
}

fn event(number: u64, kept: &EnforcementEvent) -> Value {
    let data = &kept.data;
    let mut all = Map::from_iter([
        ("number".to_owned(), json!(number)),
        ("id".to_owned(), json!(kept.id)),
        ("at".to_owned(), json!(kept.time.to_ms())),
        ("rule".to_owned(), json!(data.rule.name)),
        ("state".to_owned(), json!(data.state.as_str())),
        ("mode".to_owned(), json!(data.mode.as_str())),
        ("action".to_owned(), json!(data.action.as_str())),
        ("severity".to_owned(), json!(data.severity)),
        ("subject".to_owned(), json!(data.selector.matches)),
        ("directive_id".to_owned(), json!(data.directive_id)),
        ("revision".to_owned(), json!(data.revision)),
        ("since".to_owned(), json!(data.started_at.map(EventTime::to_ms))),
        ("valid_until".to_owned(), json!(data.valid_until.to_ms())),
        ("detected_at".to_owned(), json!(data.detected_at.map(EventTime::to_ms))),
    ]);
    add_finding(&mut all, &data.finding);
    Value::Object(all)
}
