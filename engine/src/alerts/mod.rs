//! Directives as Prometheus alerts: who tells the Alertmanager what fires, and until when.
//!
//! The directives topic says what holds now, so a thread follows it ([`forwarder`]) and nothing of this can hold the
//! judging back. What fires is sent at once, and again every resend interval, since an Alertmanager keeps alerts in
//! memory only. `endsAt` is the directive's `valid_until`: if nobody sends any more, the alert lapses when a controller
//! would drop the directive. One that has ended is sent until the Alertmanager has taken it.
//!
//! A directive that ended while nobody followed is found by asking the Alertmanager what it has from this deployment:
//! what it has and the topic has not is resolved. So nothing need be stored, and every instance may send everything:
//! alerts with equal labels are one alert.
//!
//! Invariant: the labels are those of the rule and its subject, so that all revisions of a directive have the same;
//! what a revision may change is an annotation. An alert is resolved once no directive of its labels is left.

pub mod client;
pub mod forwarder;

use std::collections::{BTreeMap, BTreeSet};

use lictor_schemas::event::{Directive, EnforcementEvent, EventError};
use lictor_schemas::time::EventTime;
use serde_json::{Value, json};

/// Names and values of labels or annotations.
pub type Pairs = BTreeMap<String, String>;

/// The label by which alerts of a deployment are found again.
pub const DEPLOYMENT: &str = "lictor";

/// Alerts of one request: about 500 kB, half of what proxies often let pass.
pub const BATCH_MAX: usize = 500;

/// Directives that are alerts at a time, at about 2 kB each. More than an Alertmanager can group, and than people read;
/// those beyond are left out and counted.
pub const ALERTS_MAX: usize = 20_000;

/// What an alert says besides its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Firing {
    labels: Pairs,
    annotations: Pairs,
    starts_at: EventTime,
    ends_at: EventTime,
    generator_url: Option<String>,
    /// Whether the Alertmanager does not know this revision yet.
    is_due: bool,
}

/// An alert that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ended {
    annotations: Pairs,
    starts_at: EventTime,
    ends_at: EventTime,
    /// When the Alertmanager would end it by itself.
    lapses_at: EventTime,
    generator_url: Option<String>,
}

/// An alert that the Alertmanager has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    /// What it is known by.
    pub labels: Pairs,
    /// What else it says.
    pub annotations: Pairs,
    /// Since when it fires there.
    pub starts_at: EventTime,
    /// Until when, if nobody says anything else.
    pub ends_at: EventTime,
}

/// What was put into one request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// The alerts as the API takes them.
    pub alerts: Vec<Value>,
    firing: Vec<String>,
    ended: Vec<(Pairs, EventTime)>,
}

/// What fires, and what has ended and was not told yet.
#[derive(Debug)]
pub struct Alerts {
    application_id: String,
    generator_url: Option<String>,
    /// By directive.
    firing: BTreeMap<String, Firing>,
    /// How many directives have these labels.
    labels: BTreeMap<Pairs, usize>,
    ended: BTreeMap<Pairs, Ended>,
    /// What the Alertmanager had and we had not when it was asked: it may have been quicker than our reading.
    suspects: Vec<Reported>,
    left_out: BTreeSet<String>,
    alerts_max: usize,
}

impl Alerts {
    /// Nothing fires. `{rule}` in `generator_url` stands for the rule's name.
    #[must_use]
    pub fn new(application_id: &str, generator_url: Option<&str>, alerts_max: usize) -> Self {
        Self {
            application_id: application_id.to_owned(),
            generator_url: generator_url.map(str::to_owned),
            firing: BTreeMap::new(),
            labels: BTreeMap::new(),
            ended: BTreeMap::new(),
            suspects: Vec::new(),
            left_out: BTreeSet::new(),
            alerts_max,
        }
    }

    /// Takes over a record of the directives topic, which was read at `now`. Says whether the directive was left out
    /// because there are too many, for the first time.
    ///
    /// # Errors
    /// The value is no event: nothing has changed.
    pub fn absorb(&mut self, key: &[u8], value: Option<&[u8]>, now: EventTime) -> Result<bool, EventError> {
        let id = String::from_utf8_lossy(key).into_owned();
        let Some(value) = value else {
            self.end(&id, now);
            return Ok(false);
        };
        let event = EnforcementEvent::from_json(value)?;
        let mut firing = self.alert_of(&event);
        match self.firing.get(&id) {
            Some(known) if known.labels == firing.labels => firing.starts_at = known.starts_at.min(firing.starts_at),
            // Its rule has another severity or owner since.
            Some(_) => self.end(&id, now),
            None if self.firing.len() >= self.alerts_max => return Ok(self.left_out.insert(id)),
            None => {}
        }
        self.left_out.remove(&id);
        self.ended.remove(&firing.labels);
        let labels = firing.labels.clone();
        if self.firing.insert(id, firing).is_none() {
            *self.labels.entry(labels).or_default() += 1;
        }
        Ok(false)
    }

    /// The topic is read from its beginning again: what fires is what comes now.
    pub fn begin_anew(&mut self) {
        self.firing.clear();
        self.labels.clear();
        self.left_out.clear();
    }

    /// How many directives are alerts.
    #[must_use]
    pub fn firing(&self) -> usize {
        self.firing.len()
    }

    /// How many directives are no alerts because there are too many.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out.len()
    }

    /// Takes over what the Alertmanager has from this deployment.
    pub fn suspect(&mut self, reported: Vec<Reported>) {
        self.suspects = reported.into_iter().filter(|alert| !self.labels.contains_key(&alert.labels)).collect();
    }

    /// What the Alertmanager had at the last [`Alerts::suspect`] and is still not in the topic, which was read on since
    /// then, is over.
    pub fn end_suspects(&mut self, now: EventTime) {
        for Reported { labels, annotations, starts_at, ends_at: lapses_at } in std::mem::take(&mut self.suspects) {
            if !self.labels.contains_key(&labels) {
                let (starts_at, ends_at, generator_url) = (starts_at.min(now), now, None);
                self.put_ended(labels, Ended { annotations, starts_at, ends_at, lapses_at, generator_url });
            }
        }
    }

    /// Forgets the ends that the Alertmanager knows by itself at `now`.
    pub fn forget_lapsed(&mut self, now: EventTime) {
        self.ended.retain(|_, ended| ended.lapses_at > now);
    }

    /// All that fires is to be sent again.
    pub fn resend(&mut self) {
        self.firing.values_mut().for_each(|firing| firing.is_due = true);
    }

    /// What is to be told next, [`BATCH_MAX`] alerts at most; empty if there is nothing. What has lapsed by `now` is
    /// left out.
    #[must_use]
    pub fn next_batch(&self, now: EventTime) -> Batch {
        let mut batch = Batch::default();
        for (labels, ended) in self.ended.iter().take(BATCH_MAX) {
            let Ended { annotations, starts_at, ends_at, generator_url, .. } = ended;
            batch.alerts.push(to_json(labels, annotations, (*starts_at, *ends_at), generator_url.as_deref()));
            batch.ended.push((labels.clone(), *ends_at));
        }
        let due = self.firing.iter().filter(|(_, firing)| firing.is_due && firing.ends_at > now);
        for (id, firing) in due.take(BATCH_MAX - batch.alerts.len()) {
            let Firing { labels, annotations, starts_at, ends_at, generator_url, .. } = firing;
            batch.alerts.push(to_json(labels, annotations, (*starts_at, *ends_at), generator_url.as_deref()));
            batch.firing.push(id.clone());
        }
        batch
    }

    /// The Alertmanager has taken the batch, or will never take it.
    pub fn told(&mut self, batch: Batch) {
        for id in batch.firing {
            if let Some(firing) = self.firing.get_mut(&id) {
                firing.is_due = false;
            }
        }
        for (labels, ends_at) in batch.ended {
            self.ended.retain(|known, ended| *known != labels || ended.ends_at != ends_at);
        }
    }

    fn end(&mut self, id: &str, now: EventTime) {
        self.left_out.remove(id);
        let Some(firing) = self.firing.remove(id) else { return };
        let Firing { labels, annotations, starts_at, ends_at: lapses_at, generator_url, .. } = firing;
        if let Some(count) = self.labels.get_mut(&labels) {
            *count -= 1;
            if *count > 0 {
                return;
            }
        }
        self.labels.remove(&labels);
        // Event time may be ahead of our clock, and an end before the beginning is refused.
        let (starts_at, ends_at) = (starts_at.min(now), now);
        self.put_ended(labels, Ended { annotations, starts_at, ends_at, lapses_at, generator_url });
    }

    /// While an Alertmanager is away for long there may be more than it should be told; those it ends by itself.
    fn put_ended(&mut self, labels: Pairs, ended: Ended) {
        if self.ended.len() < self.alerts_max {
            self.ended.insert(labels, ended);
        }
    }

    fn alert_of(&self, event: &EnforcementEvent) -> Firing {
        let Directive { rule, started_at, valid_from, valid_until, .. } = &event.data;
        Firing {
            labels: labels(&self.application_id, &event.data),
            annotations: annotations(event),
            // Not this revision's beginning, else it would jump when a compacted topic is read again.
            starts_at: started_at.unwrap_or(*valid_from).min(*valid_until),
            ends_at: *valid_until,
            generator_url: self.generator_url.as_ref().map(|url| url.replace("{rule}", &rule.name)),
            is_due: true,
        }
    }
}

fn labels(application_id: &str, directive: &Directive) -> Pairs {
    let mut labels = Pairs::from([
        ("alertname".to_owned(), directive.rule.name.clone()),
        ("severity".to_owned(), directive.severity.as_str().to_owned()),
        (DEPLOYMENT.to_owned(), application_id.to_owned()),
        ("owner".to_owned(), directive.rule.owner.clone()),
    ]);
    for (column, value) in &directive.selector.matches {
        let mut name = format!("selector_{}", label_name(column));
        // Two columns of one rule must stay two.
        while labels.contains_key(&name) {
            name.push('_');
        }
        labels.insert(name, text(value));
    }
    // An Alertmanager drops empty labels, and would report the alert by other labels than ours.
    labels.retain(|_, value| !value.is_empty());
    labels
}

/// What every version of the Alertmanager takes as part of a label's name.
fn label_name(column: &str) -> String {
    column.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
}

fn annotations(event: &EnforcementEvent) -> Pairs {
    let Directive { finding, rule, .. } = &event.data;
    let summary = finding.message.clone().unwrap_or_else(|| format!("{}: {}", rule.name, event.to_subject_text()));
    let said = [
        ("summary", Some(summary)),
        ("description", Some(rule.description.clone())),
        ("action", Some(event.data.action.as_str().to_owned())),
        ("result", Some(finding.result.as_str().to_owned())),
        ("reason_code", finding.reason_code.as_ref().map(|code| code.as_str().to_owned())),
        ("observed", finding.observed.map(|value| value.to_string())),
        ("threshold", finding.threshold.map(|value| value.to_string())),
        ("unit", finding.unit.clone()),
        ("valid_until", Some(event.data.valid_until.to_rfc3339())),
        ("directive_id", Some(event.data.directive_id.clone())),
        ("revision", Some(event.data.revision.to_string())),
        ("trace_id", finding.exemplars.first().map(|exemplar| exemplar.trace_id.clone())),
    ];
    let said = said.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    said.filter(|(_, value)| !value.is_empty()).collect()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn to_json(labels: &Pairs, annotations: &Pairs, (starts, ends): (EventTime, EventTime), url: Option<&str>) -> Value {
    let mut alert = json!({
        "labels": labels,
        "annotations": annotations,
        "startsAt": starts.to_rfc3339(),
        "endsAt": ends.to_rfc3339(),
    });
    if let Some(url) = url {
        alert["generatorURL"] = json!(url);
    }
    alert
}

#[cfg(test)]
mod tests;
