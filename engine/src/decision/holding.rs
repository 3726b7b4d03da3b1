//! One subject in violation: what holds, what was published about it, and what must be said next.

use std::collections::BTreeSet;

use lictor_schemas::event::{EnforcementEvent, Finding, Instruction, Revision, State, WindowBounds, directive_id};
use lictor_schemas::genops::PolicyResult;
use lictor_schemas::rule::{Mode, RuleHeader};
use lictor_schemas::time::{EventTime, Window};
use lictor_schemas::violation::Subject;
use serde::{Deserialize, Serialize};

use super::hold::{Hold, Slot};
use super::standing::Standing;
use super::{Decision, DirectiveRecord};

/// What every event of a rule has in common.
pub(super) struct Context<'a> {
    pub(super) application_id: &'a str,
    pub(super) subjects_max: usize,
    pub(super) rule: &'a RuleHeader,
}

/// What is known of a subject besides what holds.
pub(super) struct About<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) key: &'a str,
    /// Directives that ended before the running window they began in.
    pub(super) ended: &'a [Started],
}

impl About<'_> {
    /// How many directives of windows that still run began at `at`.
    fn times_started(&self, at: EventTime) -> u32 {
        self.ended.iter().find(|started| started.at == at).map_or(0, |started| started.nth + 1)
    }
}

/// When a directive began, and the how-manieth of this beginning it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Started {
    /// The start of the window or the time of the row: the same however the rows were batched.
    pub(super) at: EventTime,
    /// The end of that window: until then another directive may begin at the same time.
    pub(super) until: EventTime,
    /// 0 for the first.
    pub(super) nth: u32,
}

/// A subject in violation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Active {
    pub(super) subject: Subject,
    holds: Vec<Hold>,
    #[serde(flatten)]
    phase: Phase,
}

/// How far a violation has come. The words of `Firing` are those of logs in which nothing could be pending yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Phase {
    /// It holds, and controllers know.
    Firing {
        /// When.
        started: Started,
        /// What they know.
        published: Published,
    },
    /// It has not gone on for long enough (`for`).
    Pending {
        /// When it was found first.
        pending_since: EventTime,
    },
}

/// The last event about a subject, as far as the next one depends on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Published {
    directive_id: String,
    revision: u32,
    result: PolicyResult,
    window: Option<WindowBounds>,
    at: EventTime,
    valid_until: EventTime,
    /// These three are not known of what an older version has published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<Mode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    action: Option<Instruction>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fired_at: Option<EventTime>,
}

impl Published {
    /// From here on less than half of the published validity is left.
    fn half_life(&self) -> EventTime {
        self.at.plus(self.valid_until.0.saturating_sub(self.at.0) / 2)
    }

    /// When something must be said, even if nothing changes, about what holds as `best`, and at all `until` then.
    fn speaks_at(&self, rule: &RuleHeader, best: &Hold, until: EventTime) -> EventTime {
        let is_longer = until > self.valid_until;
        let renewed_at = is_longer.then(|| self.half_life());
        let interval_ns = rule.repeat_interval_ns.filter(|_| !best.is_kept());
        let repeated_at = interval_ns.map(|interval_ns| self.at.plus(interval_ns));
        renewed_at.into_iter().chain(repeated_at).min().unwrap_or(EventTime::MAX)
    }

    /// Before it was remembered, everything lay on the topic of what is enforced.
    fn mode(&self) -> Mode {
        self.mode.unwrap_or(Mode::Enforce)
    }

    fn is_of_other_mode(&self, rule: &RuleHeader) -> bool {
        self.mode() != rule.mode
    }

    /// Whether the rule now asks for something else than was published.
    fn is_outdated(&self, rule: &RuleHeader) -> bool {
        self.action.is_some_and(|action| action != Instruction::of(rule.action, self.result))
    }
}

impl Active {
    /// A subject that was not in violation is now; none if nothing holds.
    pub(super) fn begin(about: &About<'_>, subject: Subject, holds: Vec<Hold>) -> Option<(Self, Option<Decision>)> {
        let pending_since = holds.iter().map(Hold::found_at).max()?;
        let mut active = Self { subject, holds, phase: Phase::Pending { pending_since } };
        let is_due = about.context.rule.for_ns == 0;
        let decision = if is_due { active.fire(about, EventTime::MIN) } else { None };
        Some((active, decision))
    }

    /// It is said for the first time that the subject is in violation: as of the best of what holds, or of `earliest`.
    fn fire(&mut self, about: &About<'_>, earliest: EventTime) -> Option<Decision> {
        let best = self.best()?.clone();
        let window = best.finding.window;
        // Windows that cumulate begin together, and each of them is judged once.
        let bound = |window: WindowBounds| if best.slot == Slot::Closed { window.end } else { window.start };
        let started_at = window.map_or(best.at, bound);
        let until = window.map_or(best.at, |window| window.end);
        let started = Started { at: started_at, until, nth: about.times_started(started_at) };
        self.fire_as(about, started, earliest)
    }

    fn fire_as(&mut self, about: &About<'_>, started: Started, earliest: EventTime) -> Option<Decision> {
        let Context { rule, .. } = *about.context;
        let best = self.best()?.clone();
        let at = best.at.max(earliest);
        let published = Published {
            directive_id: directive_id((&rule.name, rule.mode), about.key, started.at, started.nth),
            revision: 0,
            result: PolicyResult::Allowed,
            window: best.finding.window,
            at,
            valid_until: at,
            mode: Some(rule.mode),
            action: None,
            fired_at: Some(at),
        };
        self.phase = Phase::Firing { started, published };
        let valid_until = self.valid_until(rule);
        self.publish(about.context, State::Firing, best.finding, at, valid_until)
    }

    /// Takes the cleared slots away at `at` and puts the new holds in; says nothing yet.
    pub(super) fn update(&mut self, rule: &RuleHeader, at: EventTime, cleared: &BTreeSet<Slot>, holds: Vec<Hold>) {
        let keep_ns = self.keep_ns(rule);
        let mut over: Vec<Hold> =
            self.holds.extract_if(.., |hold| !hold.is_kept() && cleared.contains(&hold.slot)).collect();
        for hold in holds {
            if let Phase::Pending { pending_since } = &mut self.phase {
                *pending_since = hold.found_at().min(*pending_since);
            }
            match self.holds.iter_mut().find(|held| !held.is_kept() && held.slot == hold.slot) {
                Some(held) if held.outlasts(&hold) => {}
                Some(held) => over.push(std::mem::replace(held, hold)),
                None => self.holds.push(hold),
            }
        }
        over.into_iter().for_each(|hold| self.keep(hold.kept_until(at.plus(keep_ns), State::Resolved), at));
        self.forget_covered();
    }

    /// How long something goes on firing that does not hold any more: what nobody was told of ends in silence.
    fn keep_ns(&self, rule: &RuleHeader) -> i64 {
        match self.phase {
            Phase::Firing { .. } => rule.keep_firing_for_ns,
            Phase::Pending { .. } => 0,
        }
    }

    /// Keeps what is over at `at`; of each result there is at most one, that which ends last.
    fn keep(&mut self, kept: Hold, at: EventTime) {
        let is_covered = |held: &Hold| held.is_kept() && held.covers(&kept);
        if kept.ends_at() <= at || self.holds.iter().any(is_covered) {
            return;
        }
        self.holds.retain(|held| !(held.is_kept() && kept.covers(held)));
        self.holds.push(kept);
    }

    /// What is kept makes no difference beside something as severe that holds: that will be kept in its turn, and for
    /// longer.
    fn forget_covered(&mut self) {
        let held = self.holds.iter().filter(|hold| !hold.is_kept()).map(Hold::result).max();
        self.holds.retain(|hold| !hold.is_kept() || Some(hold.result()) > held);
    }

    /// When the directive began.
    pub(super) fn started(&self) -> Option<Started> {
        match self.phase {
            Phase::Firing { started, .. } => Some(started),
            Phase::Pending { .. } => None,
        }
    }

    pub(super) fn is_firing(&self) -> bool {
        matches!(self.phase, Phase::Firing { .. })
    }

    /// Whether nothing of it holds or is kept any more.
    pub(super) fn is_over(&self) -> bool {
        self.holds.is_empty()
    }

    /// The running windows in which a violation was found that still holds.
    pub(super) fn running(&self) -> impl Iterator<Item = Window> {
        self.holds.iter().filter(|hold| !hold.is_kept()).filter_map(|hold| match hold.slot {
            Slot::Running(WindowBounds { start, end, .. }) => Some(Window { start, end }),
            Slot::Closed | Slot::Row(_) => None,
        })
    }

    /// Whether a violation was found in `slot` and still holds.
    pub(super) fn has(&self, slot: Slot) -> bool {
        self.holds.iter().any(|hold| !hold.is_kept() && hold.slot == slot)
    }

    /// The event that is due at `at`, if there is any, after the telemetry has changed what holds. What was found anew
    /// was so at `found_at`.
    pub(super) fn settle(&mut self, about: &About<'_>, at: EventTime, found_at: Option<EventTime>) -> Option<Decision> {
        match self.phase {
            Phase::Firing { .. } => self.settle_as(about.context, at, State::Resolved),
            Phase::Pending { pending_since } => {
                // A running window needs no confirmation: it would have cleared.
                let fires_at = pending_since.plus(about.context.rule.for_ns);
                let is_confirmed = !self.is_watched() && found_at.is_some_and(|found_at| found_at >= fires_at);
                if is_confirmed { self.fire(about, EventTime::MIN) } else { None }
            }
        }
    }

    /// Whether what holds is known at every instant.
    fn is_watched(&self) -> bool {
        self.holds.iter().any(Hold::is_running)
    }

    /// Goes through what happens up to `to`, one instant after the other; whether anything of it is left is then known.
    /// If it `waits`, windows do not lapse: whoever knows how far time has come will let them.
    pub(super) fn advance(&mut self, about: &About<'_>, (to, waits): (EventTime, bool), out: &mut Vec<Decision>) {
        let rule = about.context.rule;
        while !self.is_over() {
            let at = self.deadline(rule);
            let lapse = self.holds.iter().filter_map(Hold::lapse).min().filter(|_| waits);
            if at > to || lapse.is_some_and(|lapse| at >= lapse) {
                return;
            }
            let ended = self.expire(at, self.keep_ns(rule));
            out.extend(match self.phase {
                Phase::Firing { .. } => self.settle_as(about.context, at, ended),
                Phase::Pending { pending_since } => {
                    let is_due = self.is_watched() && pending_since.plus(rule.for_ns) <= at;
                    if is_due { self.fire(about, at) } else { None }
                }
            });
        }
    }

    /// Takes away what has come to its end; returns what is to be said if nothing is left.
    fn expire(&mut self, at: EventTime, keep_ns: i64) -> State {
        let mut ended = State::Expired;
        for hold in self.holds.extract_if(.., |hold| hold.ends_at() <= at).collect::<Vec<_>>() {
            let of_hold = hold.ended(at);
            if of_hold == State::Resolved {
                ended = State::Resolved;
            }
            if !hold.is_kept() {
                self.keep(hold.kept_until(at.plus(keep_ns), of_hold), at);
            }
        }
        self.forget_covered();
        ended
    }

    /// The next instant at which something happens to the subject even if no row comes.
    pub(super) fn deadline(&self, rule: &RuleHeader) -> EventTime {
        let first_end = self.holds.iter().map(Hold::ends_at).min().unwrap_or(EventTime::MAX);
        let speaks_at = match &self.phase {
            Phase::Firing { published, .. } => {
                self.best().map(|best| published.speaks_at(rule, best, self.valid_until(rule)))
            }
            Phase::Pending { pending_since } => self.is_watched().then(|| pending_since.plus(rule.for_ns)),
        };
        first_end.min(speaks_at.unwrap_or(EventTime::MAX))
    }

    /// Until when something holds. What is milder and holds longer is said when it is its turn, which is a while after
    /// the most severe has ended: controllers must not let go in between.
    fn valid_until(&self, rule: &RuleHeader) -> EventTime {
        let untils = self.holds.iter().map(|hold| hold.valid_until(rule.keep_firing_for_ns));
        untils.max().unwrap_or(EventTime::MIN)
    }

    /// What the directive asks for; nothing while it is pending.
    pub(super) fn action(&self, rule: &RuleHeader) -> Option<Instruction> {
        let Phase::Firing { published, .. } = &self.phase else { return None };
        Some(published.action.unwrap_or_else(|| Instruction::of(rule.action, published.result)))
    }

    /// The directive, as it was published last, with what holds now; none while it is pending.
    pub(super) fn standing(&self, rule: &RuleHeader) -> Option<Standing> {
        let Phase::Firing { published, .. } = &self.phase else { return None };
        Some(Standing {
            rule: rule.name.clone(),
            directive_id: published.directive_id.clone(),
            revision: published.revision,
            subject: self.subject.clone(),
            mode: published.mode(),
            action: self.action(rule)?,
            finding: self.best()?.finding.clone(),
            since: published.fired_at,
            valid_until: published.valid_until,
        })
    }

    fn best(&self) -> Option<&Hold> {
        self.holds.iter().max_by_key(|hold| hold.rank())
    }

    fn settle_as(&mut self, context: &Context<'_>, at: EventTime, ended: State) -> Option<Decision> {
        let Phase::Firing { published, .. } = &self.phase else { return None };
        let Some(best) = self.best() else {
            let finding = Finding::cleared(published.window);
            let valid_until = published.valid_until.max(at);
            return self.publish(context, ended, finding, at, valid_until);
        };
        let is_other = best.result() != published.result || published.is_outdated(context.rule);
        if !is_other && published.speaks_at(context.rule, best, self.valid_until(context.rule)) > at {
            return None;
        }
        let (finding, valid_until) = (best.finding.clone(), self.valid_until(context.rule));
        self.publish(context, State::Updated, finding, at, valid_until)
    }

    /// Whether `rule`, as it is now, would have published something else.
    pub(super) fn is_foreign(&self, rule: &RuleHeader) -> bool {
        match &self.phase {
            Phase::Firing { published, .. } => published.is_of_other_mode(rule) || published.is_outdated(rule),
            Phase::Pending { .. } => false,
        }
    }

    /// Goes over to the rule as it is now: a directive of another mode gives way to one of this mode, and what is asked
    /// for is said anew if it is something else.
    pub(super) fn adopt(&mut self, about: &About<'_>, watermark: EventTime, out: &mut Vec<Decision>) {
        let (rule, at) = (about.context.rule, self.latest(about.context.rule, watermark));
        let Phase::Firing { started, published } = &self.phase else { return };
        let started = Started { nth: started.nth + 1, ..*started };
        if published.is_of_other_mode(rule) {
            out.extend(self.supersede(about.context, at));
            self.holds.retain(|hold| !hold.is_kept());
            out.extend(self.fire_as(about, started, at));
        } else {
            out.extend(self.settle_as(about.context, at, State::Resolved));
        }
    }

    /// Whether controllers apply its directive.
    pub(super) fn is_enforced(&self) -> bool {
        matches!(&self.phase, Phase::Firing { published, .. } if published.mode() == Mode::Enforce)
    }

    /// Nobody will say any more whether the violation holds.
    pub(super) fn supersede(&mut self, context: &Context<'_>, at: EventTime) -> Option<Decision> {
        let Phase::Firing { published, .. } = &self.phase else { return None };
        let (finding, valid_until) = (Finding::cleared(published.window), published.valid_until.max(at));
        self.publish(context, State::Superseded, finding, at, valid_until)
    }

    /// How far time has come for what was published: to the `watermark`, but not beyond what would happen next.
    pub(super) fn latest(&self, rule: &RuleHeader, watermark: EventTime) -> EventTime {
        let published_at = match &self.phase {
            Phase::Firing { published, .. } => published.at,
            Phase::Pending { pending_since } => *pending_since,
        };
        published_at.max(watermark.min(self.deadline(rule)))
    }

    fn publish(
        &mut self,
        context: &Context<'_>,
        state: State,
        finding: Finding,
        at: EventTime,
        valid_until: EventTime,
    ) -> Option<Decision> {
        let Phase::Firing { published, .. } = &mut self.phase else { return None };
        published.revision += 1;
        published.result = finding.result;
        published.window = finding.window;
        published.at = at;
        published.valid_until = valid_until;
        published.action = Some(Instruction::of(context.rule.action, finding.result));
        let revision = Revision {
            directive_id: &published.directive_id,
            revision: published.revision,
            state,
            subject: &self.subject,
            finding,
            mode: published.mode(),
            started_at: published.fired_at,
            at,
            valid_until,
        };
        let event = EnforcementEvent::new(context.application_id, context.rule, revision);
        let directive = if state.is_ended() { DirectiveRecord::Tombstone } else { DirectiveRecord::Put };
        Some(Decision { event, directive })
    }
}
