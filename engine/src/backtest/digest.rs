//! What a rule set has said, put together: episodes, and per rule how many, about whom, and for how long.
//!
//! An *episode* is the life of one directive, from its first event to its end. That is what a person calls "it fired
//! once for team docs", however many renewals it took.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use lictor_schemas::event::{EnforcementEvent, Instruction, State};
use lictor_schemas::genops::PolicyResult;
use lictor_schemas::rule::{Mode, RuleHeader};
use lictor_schemas::time::EventTime;

use super::Witness;

/// At about 300 bytes each these are 300 MB. A rule that says so much in a backtest says nothing to anybody.
pub const EPISODES_MAX: usize = 1_000_000;

/// The life of a directive.
#[derive(Clone, Debug, PartialEq)]
pub struct Episode {
    /// Whom it was about, as `column=value`, in the order of the columns.
    pub subject: String,
    /// When it began.
    pub started: EventTime,
    /// How and when it ended; none if it still held at the end of the telemetry.
    pub ended: Option<(State, EventTime)>,
    /// The most severe result.
    pub strongest: PolicyResult,
    /// The most that a controller was asked to do.
    pub action: Instruction,
    /// Whether that was to be done.
    pub mode: Mode,
    /// Its highest measure.
    pub peak: Option<Peak>,
    /// How many events it took.
    pub events: u32,
}

/// A measure and what it was compared with.
#[derive(Clone, Debug, PartialEq)]
pub struct Peak {
    /// What was measured.
    pub observed: f64,
    /// Against what.
    pub threshold: Option<f64>,
    /// In what.
    pub unit: Option<String>,
    /// When.
    pub at: EventTime,
}

/// What one rule has said.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleDigest {
    /// Its head.
    pub header: RuleHeader,
    /// Events by state; those that only renew a directive are counted apart.
    pub by_state: BTreeMap<&'static str, u64>,
    /// About whom.
    pub subjects: BTreeSet<String>,
    /// When the first event was, and the last.
    pub span: Option<(EventTime, EventTime)>,
    /// The highest measure, and whose it was.
    pub peak: Option<(String, Peak)>,
    /// For how long directives held, in nanoseconds, summed up over subjects, by what they asked for.
    pub held_ns: BTreeMap<Instruction, i64>,
    /// Its episodes, in the order in which they began.
    pub episodes: Vec<Episode>,
}

/// Takes events and puts them together.
#[derive(Clone, Debug)]
pub struct Digest {
    rules: BTreeMap<String, RuleDigest>,
    /// Directives that hold, by id.
    open: HashMap<String, Open>,
    episodes: usize,
    episodes_max: usize,
    events: u64,
    /// Events count from here on.
    from: Option<EventTime>,
}

/// A directive that holds.
#[derive(Clone, Debug)]
struct Open {
    /// The number of its episode; none if there were too many.
    episode: Option<usize>,
    rule: String,
    /// What it has asked for since when, and until when at most.
    asks: (Instruction, EventTime, EventTime),
    result: PolicyResult,
    /// Nothing of it was among the events that count yet.
    is_recalled: bool,
}

impl RuleDigest {
    fn new(header: &RuleHeader) -> Self {
        Self {
            header: header.clone(),
            by_state: BTreeMap::new(),
            subjects: BTreeSet::new(),
            span: None,
            peak: None,
            held_ns: BTreeMap::new(),
            episodes: Vec::new(),
        }
    }

    /// All its events.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.by_state.values().sum()
    }

    fn hold(&mut self, (action, since, until): (Instruction, EventTime, EventTime), to: EventTime) {
        let held_ns = to.min(until).0.saturating_sub(since.0).max(0);
        if until < since {
            // It had ended before what counts.
            return;
        }
        *self.held_ns.entry(action).or_default() += held_ns;
    }
}

impl Digest {
    /// Nothing was said yet; rules that say nothing are named, too.
    #[must_use]
    pub fn new<'a>(rules: impl IntoIterator<Item = &'a RuleHeader>, episodes_max: usize) -> Self {
        let rules = rules.into_iter().map(|header| (header.name.clone(), RuleDigest::new(header))).collect();
        Self { rules, open: HashMap::new(), episodes: 0, episodes_max, events: 0, from: None }
    }

    /// What held before `from` does not count; what was recalled holds from there on.
    #[must_use]
    pub fn counting_from(self, from: Option<EventTime>) -> Self {
        Self { from, ..self }
    }

    /// What the rules have said, by name. `end` is the end of the telemetry: what still held then had held until then.
    #[must_use]
    pub fn conclude(mut self, end: Option<EventTime>) -> BTreeMap<String, RuleDigest> {
        for open in self.open.into_values() {
            if let Some(rule) = self.rules.get_mut(&open.rule)
                && let Some(end) = end
            {
                rule.hold(open.asks, end);
            }
        }
        self.rules
    }

    /// How many events there were.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Whether there were more episodes than are kept.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.episodes > self.episodes_max
    }

    /// Takes over an event about a directive that is not known yet.
    fn begin(&mut self, event: &EnforcementEvent) {
        self.episodes += 1;
        let directive = &event.data;
        let Some(rule) = self.rules.get_mut(&directive.rule.name) else { return };
        let is_kept = self.episodes <= self.episodes_max;
        if is_kept {
            rule.episodes.push(Episode {
                subject: event.to_subject_text(),
                started: directive.started_at.unwrap_or(event.time),
                ended: None,
                strongest: directive.finding.result,
                action: directive.action,
                mode: directive.mode,
                peak: None,
                events: 0,
            });
        }
        let open = Open {
            episode: is_kept.then(|| rule.episodes.len() - 1),
            rule: directive.rule.name.clone(),
            asks: (directive.action, event.time, directive.valid_until),
            result: directive.finding.result,
            is_recalled: false,
        };
        self.open.insert(directive.directive_id.clone(), open);
    }
}

impl Witness for Digest {
    fn see(&mut self, event: &EnforcementEvent) {
        self.events += 1;
        let directive = &event.data;
        let known = self.open.get(&directive.directive_id).map(|open| (open.is_recalled, open.asks, open.result));
        let recalled = known.filter(|known| known.0);
        let is_new = known.is_none();
        // Of one that ends the beginning may have come before events counted, and may not have been read.
        if is_new || recalled.is_some() {
            self.begin(event);
        }
        let (Some(rule), Some(open)) =
            (self.rules.get_mut(&directive.rule.name), self.open.get_mut(&directive.directive_id))
        else {
            return;
        };
        if let Some((_, asks, result)) = recalled {
            (open.asks, open.result) = (asks, result);
        }
        let is_renewal = !is_new && directive.state == State::Updated && open.result == directive.finding.result;
        let state = if is_renewal { "renewed" } else { directive.state.as_str() };
        *rule.by_state.entry(state).or_default() += 1;
        let subject = event.to_subject_text();
        let span = rule.span.get_or_insert((event.time, event.time));
        *span = (span.0.min(event.time), span.1.max(event.time));
        if !is_new {
            rule.hold(open.asks, event.time);
        }
        open.asks = (directive.action, event.time, directive.valid_until);
        open.result = directive.finding.result;
        let peak = peak_of(event);
        if let Some(episode) = open.episode.and_then(|episode| rule.episodes.get_mut(episode)) {
            episode.add(event, peak.as_ref());
        }
        if let Some(peak) = peak.filter(|peak| rule.peak.as_ref().is_none_or(|(_, before)| peak.is_above(before))) {
            rule.peak = Some((subject.clone(), peak));
        }
        if open.episode.is_some() {
            rule.subjects.insert(subject);
        }
        if directive.state.is_ended() {
            self.open.remove(&directive.directive_id);
        }
    }

    fn recall(&mut self, event: &EnforcementEvent) {
        let directive = &event.data;
        if directive.state.is_ended() {
            self.open.remove(&directive.directive_id);
            return;
        }
        let since = self.from.unwrap_or(event.time).max(event.time);
        let open = Open {
            episode: None,
            rule: directive.rule.name.clone(),
            asks: (directive.action, since, directive.valid_until),
            result: directive.finding.result,
            is_recalled: true,
        };
        self.open.insert(directive.directive_id.clone(), open);
    }
}

impl Episode {
    fn add(&mut self, event: &EnforcementEvent, peak: Option<&Peak>) {
        let directive = &event.data;
        self.events += 1;
        self.strongest = self.strongest.max(directive.finding.result);
        self.action = self.action.max(directive.action);
        if directive.state.is_ended() {
            self.ended = Some((directive.state, event.time));
        }
        if let Some(peak) = peak.filter(|peak| self.peak.as_ref().is_none_or(|before| peak.is_above(before))) {
            self.peak = Some(peak.clone());
        }
    }
}

impl Peak {
    /// How far the threshold was passed, or the measure itself if there is none (or it is 0).
    fn weight(&self) -> f64 {
        match self.threshold {
            Some(threshold) if threshold != 0.0 => self.observed / threshold,
            _ => self.observed,
        }
    }

    fn is_above(&self, other: &Self) -> bool {
        self.weight() > other.weight()
    }
}

fn peak_of(event: &EnforcementEvent) -> Option<Peak> {
    let finding = &event.data.finding;
    let (threshold, unit) = (finding.threshold, finding.unit.clone());
    finding.observed.map(|observed| Peak { observed, threshold, unit, at: event.time })
}

#[cfg(test)]
mod tests {
    use lictor_schemas::event::{Finding, Revision};
    use lictor_schemas::genops::{Action, ReasonCode};
    use lictor_schemas::violation::Subject;
    use serde_json::{Map, json};

    use super::*;

    const MINUTE: i64 = 60_000_000_000;

    fn header() -> RuleHeader {
        RuleHeader::new("r", Action::Block, ReasonCode::parse("BUDGET_EXCEEDED").unwrap())
    }

    /// An event of a directive at a minute, which holds until twenty minutes later.
    fn event(directive: &str, state: State, minute: i64, (result, observed): (PolicyResult, f64)) -> EnforcementEvent {
        let subject = Subject(Map::from_iter([("team".to_owned(), json!(directive))]));
        let at = EventTime(minute * MINUTE);
        let measured = (!state.is_ended()).then_some(observed);
        let finding = Finding { result, observed: measured, threshold: Some(10.0), ..Finding::cleared(None) };
        let revision = Revision {
            directive_id: directive,
            revision: 1,
            state,
            subject: &subject,
            finding,
            mode: Mode::Enforce,
            started_at: None,
            at,
            valid_until: at.plus(20 * MINUTE),
        };
        EnforcementEvent::new("lictor", &header(), revision)
    }

    const ALLOWED: (PolicyResult, f64) = (PolicyResult::Allowed, 0.0);

    fn digest(events: &[EnforcementEvent], episodes_max: usize) -> Digest {
        let mut digest = Digest::new([&header()], episodes_max);
        events.iter().for_each(|event| digest.see(event));
        digest
    }

    fn story() -> Vec<EnforcementEvent> {
        let (warning, blocked) = (PolicyResult::Warning, PolicyResult::Blocked);
        vec![
            event("a", State::Firing, 0, (warning, 9.0)),
            event("b", State::Firing, 1, (blocked, 11.0)),
            event("a", State::Updated, 2, (warning, 9.5)),
            event("a", State::Updated, 5, (blocked, 12.0)),
            event("a", State::Resolved, 9, ALLOWED),
        ]
    }

    #[test]
    fn an_episode_is_the_life_of_a_directive() {
        let mut rules = digest(&story(), 10).conclude(Some(EventTime(11 * MINUTE)));
        let rule = rules.remove("r").unwrap();
        assert_eq!(rule.by_state, BTreeMap::from([("firing", 2), ("renewed", 1), ("resolved", 1), ("updated", 1)]));
        assert_eq!((rule.subjects.len(), rule.span), (2, Some((EventTime(0), EventTime(9 * MINUTE)))));
        let [a, b] = rule.episodes.as_slice() else { panic!("{:?}", rule.episodes) };
        assert_eq!((a.subject.as_str(), a.events, a.strongest), ("team=a", 4, PolicyResult::Blocked));
        assert_eq!(a.ended, Some((State::Resolved, EventTime(9 * MINUTE))));
        assert_eq!((b.ended, b.action), (None, Instruction::Block));
        let (subject, peak) = rule.peak.unwrap();
        assert_eq!((subject.as_str(), peak.observed, peak.at), ("team=a", 12.0, EventTime(5 * MINUTE)));
        // Five minutes of warning; four of blocking for a, and for b those until the end of the telemetry.
        assert_eq!(rule.held_ns[&Instruction::Warn], 5 * MINUTE);
        assert_eq!(rule.held_ns[&Instruction::Block], (4 + 10) * MINUTE);
    }

    #[test]
    fn what_began_before_the_beginning_holds_from_there_on() {
        let from = EventTime(6 * MINUTE);
        let recalled = |events: &[EnforcementEvent]| {
            let mut digest = Digest::new([&header()], 10).counting_from(Some(from));
            for event in events {
                if event.time < from { digest.recall(event) } else { digest.see(event) }
            }
            digest.conclude(Some(EventTime(11 * MINUTE))).remove("r").unwrap()
        };
        let rule = recalled(&story());
        // Of a three minutes until it is resolved, of b five until the end, of which no event counts.
        assert_eq!(rule.held_ns, BTreeMap::from([(Instruction::Block, (3 + 5) * MINUTE)]));
        assert_eq!((rule.by_state, rule.episodes.len()), (BTreeMap::from([("resolved", 1)]), 1));
        let blocked = (PolicyResult::Blocked, 11.0);
        let ended = [event("a", State::Firing, 0, blocked), event("a", State::Resolved, 3, ALLOWED)];
        assert_eq!(recalled(&ended).held_ns, BTreeMap::new(), "it was over by then");
        assert_eq!(recalled(&[event("a", State::Firing, -15, blocked)]).held_ns, BTreeMap::new(), "it had run out");
        let renewed = [event("a", State::Firing, 0, blocked), event("a", State::Updated, 8, blocked)];
        assert_eq!(recalled(&renewed).by_state, BTreeMap::from([("renewed", 1)]));
    }

    #[test]
    fn a_directive_holds_no_longer_than_it_says() {
        let rules = digest(&story()[1..2], 10).conclude(Some(EventTime(500 * MINUTE)));
        assert_eq!(rules["r"].held_ns[&Instruction::Block], 20 * MINUTE);
    }

    #[test]
    fn more_episodes_than_are_kept_are_counted_and_said_to_be_missing() {
        let cut = digest(&story(), 1);
        assert!(cut.is_cut() && !digest(&story(), 2).is_cut());
        let rules = cut.conclude(None);
        assert_eq!((rules["r"].episodes.len(), rules["r"].events()), (1, 5));
    }
}
