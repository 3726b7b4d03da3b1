//! What leaves lictor: which topics a decision is written to, and as what.
//!
//! | topic | what | key |
//! |---|---|---|
//! | `enforcement` | every event, in order | the directive |
//! | `directives` | what holds now and is to be applied; a tombstone when it ends | the directive |
//! | `directives_shadow` | what holds now and is only to be looked at; a tombstone when it ends | the directive |
//! | `otlp`, if it is named | the same events as OTLP log records | the directive |
//!
//! A gateway that forgets to look at `mode` must not block by mistake, so what is not to be applied lies elsewhere.
//!
//! Invariant: a directive lies on the topic of its mode and on no other. When a rule goes from one mode to the other,
//! the directive of the mode before ends, and what still holds is another one.

use lictor_connectors::Outgoing;
use lictor_schemas::otlp::evaluation::{self, Encoding};
use lictor_schemas::rule::Mode;

use crate::decision::{Decision, DirectiveRecord};

/// The topics that are written to for others to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputTopics {
    /// Every event, in order.
    pub enforcement: String,
    /// What holds now, compacted.
    pub directives: String,
    /// What would hold now if it were not in shadow mode, compacted.
    pub directives_shadow: String,
    /// What could not be decoded.
    pub dead_letter: String,
    /// Notes on rows that came too late.
    pub late: String,
    /// Events as OTLP log records, if anybody wants them.
    pub otlp: Option<OtlpTopic>,
}

/// A topic of OTLP log records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpTopic {
    /// Its name.
    pub topic: String,
    /// How a record is written.
    pub encoding: Encoding,
}

impl Default for OutputTopics {
    fn default() -> Self {
        Self {
            enforcement: "lictor.enforcement".to_owned(),
            directives: "lictor.directives".to_owned(),
            directives_shadow: "lictor.directives.shadow".to_owned(),
            dead_letter: "lictor.dead-letter".to_owned(),
            late: "lictor.late".to_owned(),
            otlp: None,
        }
    }
}

impl OutputTopics {
    /// The messages that a decision is published as: the event, what becomes of the directive, and the log records.
    #[must_use]
    pub fn messages_of(&self, decision: &Decision) -> Vec<Outgoing> {
        let event = decision.event.to_json();
        let key = decision.event.data.directive_id.clone().into_bytes();
        let headers: Vec<_> =
            decision.event.headers().into_iter().map(|(n, v)| (n.to_owned(), v.into_bytes())).collect();
        let directive = match decision.directive {
            DirectiveRecord::Put => Some(event.clone()),
            DirectiveRecord::Tombstone => None,
        };
        let message = |topic: &str, payload| Outgoing {
            topic: topic.to_owned(),
            key: Some(key.clone()),
            payload,
            headers: headers.clone(),
        };
        let directives = self.directives_of(decision.event.data.mode);
        let mut messages = vec![message(&self.enforcement, Some(event)), message(directives, directive)];
        if let Some(OtlpTopic { topic, encoding }) = &self.otlp {
            let records = evaluation::messages(&decision.event, *encoding).into_iter();
            messages.extend(records.map(|payload| Outgoing { headers: Vec::new(), ..message(topic, Some(payload)) }));
        }
        messages
    }

    /// Where directives of a mode lie.
    #[must_use]
    pub fn directives_of(&self, mode: Mode) -> &str {
        match mode {
            Mode::Enforce => &self.directives,
            Mode::Shadow => &self.directives_shadow,
        }
    }
}

#[cfg(test)]
mod tests {
    use lictor_schemas::event::{EnforcementEvent, Finding, Revision, State};
    use lictor_schemas::genops::{Action, ReasonCode, Severity};
    use lictor_schemas::rule::{RuleHeader, RuleVersion};
    use lictor_schemas::time::EventTime;
    use lictor_schemas::violation::Subject;
    use serde_json::{Map, json};

    use super::*;

    fn decision(mode: Mode, directive: DirectiveRecord) -> Decision {
        let rule = RuleHeader {
            severity: Severity::Info,
            mode,
            file: "r.sql".to_owned(),
            version: RuleVersion("v".to_owned()),
            ..RuleHeader::new("r", Action::Warn, ReasonCode::parse("x_test").unwrap())
        };
        let subject = Subject(Map::from_iter([("team".to_owned(), json!("a"))]));
        let revision = Revision {
            directive_id: "d1",
            revision: 1,
            state: State::Firing,
            subject: &subject,
            finding: Finding::cleared(None),
            mode,
            started_at: None,
            at: EventTime(1),
            valid_until: EventTime(2),
        };
        Decision { event: EnforcementEvent::new("app", &rule, revision), directive }
    }

    /// Topic, and whether there is a value.
    fn written(topics: &OutputTopics, decision: &Decision) -> Vec<(String, bool)> {
        let messages = topics.messages_of(decision);
        assert!(messages.iter().all(|message| message.key.as_deref() == Some(b"d1")));
        messages.into_iter().map(|message| (message.topic, message.payload.is_some())).collect()
    }

    #[track_caller]
    fn check(mode: Mode, directive: DirectiveRecord, topic: &str, is_put: bool) {
        let found = written(&OutputTopics::default(), &decision(mode, directive));
        assert_eq!(found, [("lictor.enforcement".to_owned(), true), (topic.to_owned(), is_put)]);
    }

    #[test]
    fn a_directive_and_its_end_lie_on_the_topic_of_its_mode() {
        check(Mode::Enforce, DirectiveRecord::Put, "lictor.directives", true);
        check(Mode::Enforce, DirectiveRecord::Tombstone, "lictor.directives", false);
        check(Mode::Shadow, DirectiveRecord::Put, "lictor.directives.shadow", true);
        check(Mode::Shadow, DirectiveRecord::Tombstone, "lictor.directives.shadow", false);
    }

    #[test]
    fn log_records_come_with_the_event_if_their_topic_is_named() {
        let otlp = Some(OtlpTopic { topic: "o".to_owned(), encoding: Encoding::Json });
        let topics = OutputTopics { otlp, ..OutputTopics::default() };
        let found = written(&topics, &decision(Mode::Enforce, DirectiveRecord::Tombstone));
        assert_eq!(found[2..], [("o".to_owned(), true)]);
    }
}
