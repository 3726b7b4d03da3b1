//! The topics that lictor writes to: made if absent, checked if present.
//!
//! Automatic creation by the broker is not relied on: production clusters switch it off, and it would give a compacted
//! topic the wrong policy.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::properties::{KafkaProperties, Role};
use super::{judge, log, refused};
use crate::error::{ConnectorError, Retry};

/// How long a broker may take for one question. At the start, so generous.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// The replication factor that means "the broker's default".
const BROKER_DEFAULT: i32 = -1;

/// A topic as lictor needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// How many partitions it gets if it has to be created; an existing topic keeps its own.
    pub partitions: i32,
    /// Whether only the newest message of each key is kept.
    pub compacted: bool,
}

/// Creates the topics that are absent and returns their names; checks `cleanup.policy` of the others.
///
/// May be called by several instances at the same time. A broker that does not say how a topic is configured (we have
/// no right to ask, or it is the embedded one) is believed. The embedded broker creates no topics on request: what is
/// absent there must be created with [`EmbeddedBroker::create_topic`](crate::EmbeddedBroker::create_topic).
///
/// # Errors
/// [`ConnectorError::TopicPolicy`] if an existing topic would lose what is written to it,
/// [`ConnectorError::TopicMissing`] if a topic cannot be created, [`ConnectorError::Kafka`] if no broker answers.
pub fn ensure_topics(properties: &KafkaProperties, topics: &[TopicSpec]) -> Result<Vec<String>, ConnectorError> {
    let admin: AdminClient<Asking> = properties.create(Role::Admin, &[], Asking)?;
    let existing = names_of_existing(&admin)?;
    let (present, absent): (Vec<_>, Vec<_>) = topics.iter().partition(|topic| existing.contains(&topic.name));
    if properties.is_embedded() {
        return absent.first().map_or(Ok(Vec::new()), |topic| Err(not_on_embedded(topic)));
    }
    let created = create(&admin, &absent)?;
    verify(&admin, &present)?;
    Ok(created)
}

fn not_on_embedded(topic: &TopicSpec) -> ConnectorError {
    let message = "the embedded broker creates its topics at the start".to_string();
    ConnectorError::TopicMissing { topic: topic.name.clone(), message, retry: Retry::Never }
}

fn names_of_existing(admin: &AdminClient<Asking>) -> Result<BTreeSet<String>, ConnectorError> {
    // All topics and not these: asking for a topic by name makes some brokers create it.
    let metadata = admin.inner().fetch_metadata(None, ANSWER_MAX).map_err(|error| refused("list topics", &error))?;
    Ok(metadata.topics().iter().map(|topic| topic.name().to_string()).collect())
}

fn create(admin: &AdminClient<Asking>, absent: &[&TopicSpec]) -> Result<Vec<String>, ConnectorError> {
    if absent.is_empty() {
        return Ok(Vec::new());
    }
    let wanted: Vec<NewTopic<'_>> = absent.iter().map(|topic| as_new_topic(topic)).collect();
    let answers =
        block_on(admin.create_topics(&wanted, &options())).map_err(|error| refused("create topics", &error))?;
    let mut created = Vec::new();
    for answer in answers {
        match answer {
            Ok(name) => created.push(name),
            // Another instance was faster.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => {
                return Err(ConnectorError::TopicMissing {
                    topic,
                    message: code.to_string(),
                    retry: judge(Some(code)).1,
                });
            }
        }
    }
    Ok(created)
}

fn as_new_topic(topic: &TopicSpec) -> NewTopic<'_> {
    let new = NewTopic::new(&topic.name, topic.partitions, TopicReplication::Fixed(BROKER_DEFAULT));
    new.set("cleanup.policy", if topic.compacted { "compact" } else { "delete" })
}

fn verify(admin: &AdminClient<Asking>, present: &[&TopicSpec]) -> Result<(), ConnectorError> {
    if present.is_empty() {
        return Ok(());
    }
    let resources: Vec<_> = present.iter().map(|topic| ResourceSpecifier::Topic(&topic.name)).collect();
    let answers = match block_on(admin.describe_configs(&resources, &options())) {
        Ok(answers) => answers,
        Err(error) if is_unknowable(&error) => {
            tracing::warn!(%error, "the broker does not say how topics are configured: not checked");
            return Ok(());
        }
        Err(error) => return Err(refused("describe topics", &error)),
    };
    for (topic, answer) in present.iter().zip(answers) {
        match answer.as_ref().map(|config| config.get("cleanup.policy").and_then(|entry| entry.value.as_deref())) {
            Ok(Some(policy)) => verify_policy(topic, policy)?,
            Ok(None) => tracing::warn!(topic = topic.name, "the broker does not name a cleanup.policy: not checked"),
            Err(code) => tracing::warn!(topic = topic.name, %code, "the topic's cleanup.policy was not checked"),
        }
    }
    Ok(())
}

/// An old broker does not know the question; a cautious cluster does not let us ask it.
fn is_unknowable(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error,
        KafkaError::AdminOp(Code::UnsupportedFeature | Code::UnsupportedVersion | Code::ClusterAuthorizationFailed)
    )
}

fn verify_policy(topic: &TopicSpec, policy: &str) -> Result<(), ConnectorError> {
    let is_compacted = policy.split(',').any(|part| part.trim() == "compact");
    let (wanted, reason) = match (topic.compacted, is_compacted) {
        (true, false) => ("compact", "what holds now would be deleted by age"),
        (false, true) => ("delete", "all but the newest event of a directive would be removed"),
        _ => return Ok(()),
    };
    let (topic, found) = (topic.name.clone(), policy.to_string());
    Err(ConnectorError::TopicPolicy { topic, found, wanted, reason })
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ANSWER_MAX)).operation_timeout(Some(ANSWER_MAX))
}

/// Lets librdkafka's log through to ours.
struct Asking;

impl ClientContext for Asking {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log::line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log::global_error(&error, reason);
    }
}

/// Waits for one of the client's answers. They come from its own thread, so parking is all that an executor would do.
fn block_on<F: Future>(question: F) -> F::Output {
    let mut question = pin!(question);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(answer) = question.as_mut().poll(&mut context) {
            return answer;
        }
        thread::park();
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::EmbeddedBroker;

    fn spec(name: &str, compacted: bool) -> TopicSpec {
        TopicSpec { name: name.to_string(), partitions: 1, compacted }
    }

    #[test]
    fn existing_topics_of_a_broker_that_cannot_describe_them_are_believed() {
        let broker = EmbeddedBroker::start(&[("events", 1), ("directives", 1)]).unwrap();
        let created = ensure_topics(&broker.properties(), &[spec("events", false), spec("directives", true)]).unwrap();
        assert_eq!(created, Vec::<String>::new());
    }

    #[test]
    fn the_embedded_broker_says_which_topic_it_lacks() {
        let broker = EmbeddedBroker::start(&[]).unwrap();
        let error = ensure_topics(&broker.properties(), &[spec("events", false)]).unwrap_err();
        assert!(error.to_string().starts_with("topic `events` is missing"), "{error}");
    }

    #[test]
    fn a_policy_that_would_lose_messages_is_refused() {
        assert!(verify_policy(&spec("d", true), "compact").is_ok());
        assert!(verify_policy(&spec("d", true), "compact,delete").is_ok());
        assert!(verify_policy(&spec("e", false), "delete").is_ok());
        let error = verify_policy(&spec("d", true), "delete").unwrap_err().to_string();
        assert_eq!(
            error,
            "topic `d` has cleanup.policy=delete, but compact is needed: what holds now would be deleted by age"
        );
        let error = verify_policy(&spec("e", false), "delete,compact").unwrap_err().to_string();
        assert!(error.contains("but delete is needed"), "{error}");
    }
}
