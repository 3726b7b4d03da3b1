//! The topics that lictor writes to: made if absent, checked if present.
//!
//! Automatic creation by the broker is not relied on: production clusters switch it off, and it would give a compacted
//! topic the wrong policy.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::log::Logged;
use super::properties::{KafkaProperties, Role};
use super::{judge, refused};
use crate::error::{ConnectorError, Retry};

/// How long a broker may take for one question. At the start, so generous.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// How long somebody waits more to be told why there was no answer: a refusal comes at once.
const REASON_MAX: Duration = Duration::from_secs(3);

/// Lines of librdkafka's log that can come in that time.
const LINES_MAX: u32 = 100;

/// The replication factor that means "the broker's default".
const BROKER_DEFAULT: i32 = -1;

/// What differences are called: Kafka has no config for the first.
const PARTITIONS: &str = "partitions";
const CLEANUP_POLICY: &str = "cleanup.policy";

/// A topic as lictor needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// How many partitions it gets if it has to be created; -1 is the broker's default.
    pub partitions: i32,
    /// Whether an existing topic must have exactly so many. Otherwise it keeps its own number.
    pub partitions_fixed: bool,
    /// Whether only the newest message of each key is kept.
    pub compacted: bool,
    /// Further configs it is created with, as Kafka writes them; an existing topic keeps its own.
    pub configs: Vec<(&'static str, String)>,
}

impl TopicSpec {
    /// A topic that differs from the broker's defaults in nothing else.
    #[must_use]
    pub fn new(name: impl Into<String>, partitions: i32, compacted: bool) -> Self {
        Self { name: name.into(), partitions, partitions_fixed: false, compacted, configs: Vec::new() }
    }
}

/// What there is of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicState {
    /// Its name.
    pub name: String,
    /// Whether it is there. If not, nothing else is known.
    pub exists: bool,
    /// How many partitions it has.
    pub partitions: Option<i32>,
    /// How many brokers keep its first partition.
    pub replication: Option<i32>,
    /// Where it is not as it was specified, as far as the broker says.
    pub differences: Vec<Difference>,
}

/// Something that a topic has and should have otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// `partitions`, or a topic config.
    pub name: String,
    /// As it is.
    pub found: String,
    /// As it was specified.
    pub wanted: String,
    /// What would go wrong, if it cannot be lived with.
    pub fatal: Option<&'static str>,
}

impl Difference {
    /// Whether [`ensure_topics`] refuses the topic for it.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        self.fatal.is_some()
    }
}

/// Creates the topics that are absent and returns their names; checks the others, and warns of configs that differ.
///
/// May be called by several instances at the same time. A broker that does not say how a topic is configured (we have
/// no right to ask, or it is the embedded one) is believed. The embedded broker creates no topics on request: what is
/// absent there must be created with [`EmbeddedBroker::create_topic`](crate::EmbeddedBroker::create_topic).
///
/// # Errors
/// [`ConnectorError::TopicConfig`] if an existing topic would lose what is written to it or has another number of
/// partitions than it must have, [`ConnectorError::TopicMissing`] if a topic cannot be created,
/// [`ConnectorError::Kafka`] if no broker answers.
pub fn ensure_topics(properties: &KafkaProperties, topics: &[TopicSpec]) -> Result<Vec<String>, ConnectorError> {
    let admin: AdminClient<Logged> = properties.create(Role::Admin, &[], Logged::default())?;
    let existing = existing(&admin, properties)?;
    let (present, absent): (Vec<_>, Vec<_>) = topics.iter().partition(|topic| existing.contains_key(&topic.name));
    if properties.is_embedded()
        && let Some(topic) = absent.first()
    {
        return Err(not_on_embedded(topic));
    }
    // What cannot be lived with is said before anything is created.
    for state in states(&admin, properties, &present, &existing)? {
        judge_differences(&state)?;
    }
    create(&admin, &absent)
}

/// Compares the topics with what they should be, in their order, and changes nothing.
///
/// # Errors
/// [`ConnectorError::Kafka`] if no broker answers.
pub fn inspect_topics(properties: &KafkaProperties, topics: &[TopicSpec]) -> Result<Vec<TopicState>, ConnectorError> {
    let admin: AdminClient<Logged> = properties.create(Role::Admin, &[], Logged::default())?;
    states(&admin, properties, &topics.iter().collect::<Vec<_>>(), &existing(&admin, properties)?)
}

/// How many partitions topics have, in their order; none of those that do not exist or may not be seen. Asks for
/// nothing else, so that every broker answers.
///
/// # Errors
/// [`ConnectorError::Kafka`] if no broker answers.
pub fn count_partitions(
    properties: &KafkaProperties,
    topics: &[impl AsRef<str>],
) -> Result<Vec<Option<i32>>, ConnectorError> {
    let admin: AdminClient<Logged> = properties.create(Role::Admin, &[], Logged::default())?;
    let existing = existing(&admin, properties)?;
    Ok(topics.iter().map(|topic| existing.get(topic.as_ref()).map(|extent| extent.0)).collect())
}

fn not_on_embedded(topic: &TopicSpec) -> ConnectorError {
    let message = "the embedded broker creates its topics at the start".to_string();
    ConnectorError::TopicMissing { topic: topic.name.clone(), message, retry: Retry::Never }
}

/// Numbers of partitions and of replicas.
type Extent = (i32, i32);

fn existing(
    admin: &AdminClient<Logged>,
    properties: &KafkaProperties,
) -> Result<BTreeMap<String, Extent>, ConnectorError> {
    // All topics and not these: asking for a topic by name makes some brokers create it.
    let metadata = admin.inner().fetch_metadata(None, ANSWER_MAX).map_err(|error| unanswered(properties, &error))?;
    let count = |items: usize| i32::try_from(items).unwrap_or(i32::MAX);
    let extents = metadata.topics().iter().map(|topic| {
        let replicas = topic.partitions().first().map_or(0, |partition| partition.replicas().len());
        (topic.name().to_string(), (count(topic.partitions().len()), count(replicas)))
    });
    Ok(extents.collect())
}

/// No broker has answered. Why connections come to nothing librdkafka tells only whom it can call back, and an admin
/// client is not one of those; so another one asks once more.
fn unanswered(properties: &KafkaProperties, error: &KafkaError) -> ConnectorError {
    let error = refused("list topics", error);
    let Ok(asking) = properties.create::<_, BaseConsumer<Logged>>(Role::Admin, &[], Logged::default()) else {
        return error;
    };
    asking.client().fetch_metadata(None, REASON_MAX).ok();
    // A call serves one line at a time, and the last one counts.
    (0..LINES_MAX).for_each(|_| drop(asking.poll(Duration::from_millis(1))));
    match (error, asking.context().trouble()) {
        (ConnectorError::Kafka { action, message, fault, retry }, Some(trouble)) => {
            ConnectorError::Kafka { action, message: format!("{message}: {trouble}"), fault, retry }
        }
        (error, _) => error,
    }
}

fn create(admin: &AdminClient<Logged>, absent: &[&TopicSpec]) -> Result<Vec<String>, ConnectorError> {
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
    let new = NewTopic::new(&topic.name, topic.partitions, TopicReplication::Fixed(BROKER_DEFAULT))
        .set(CLEANUP_POLICY, policy_of(topic));
    topic.configs.iter().fold(new, |new, (name, value)| new.set(name, value))
}

fn policy_of(topic: &TopicSpec) -> &'static str {
    if topic.compacted { "compact" } else { "delete" }
}

fn states(
    admin: &AdminClient<Logged>,
    properties: &KafkaProperties,
    topics: &[&TopicSpec],
    existing: &BTreeMap<String, Extent>,
) -> Result<Vec<TopicState>, ConnectorError> {
    let present: Vec<_> = topics.iter().copied().filter(|topic| existing.contains_key(&topic.name)).collect();
    let mut configs = if properties.is_embedded() { BTreeMap::new() } else { describe(admin, &present)? };
    Ok(topics.iter().map(|topic| state(topic, existing.get(&topic.name), configs.remove(&topic.name))).collect())
}

fn state(topic: &TopicSpec, extent: Option<&Extent>, found: Option<BTreeMap<String, String>>) -> TopicState {
    let (name, exists) = (topic.name.clone(), extent.is_some());
    let (partitions, replication) = extent.copied().unzip();
    let mut differences: Vec<_> = partitions.and_then(|found| compare_partitions(topic, found)).into_iter().collect();
    if let Some(found) = found {
        differences.extend(found.get(CLEANUP_POLICY).and_then(|found| compare_policy(topic, found)));
        differences.extend(topic.configs.iter().filter_map(|(name, wanted)| {
            let found = found.get(*name).filter(|found| !is_same_value(found, wanted))?;
            Some(Difference { name: (*name).to_string(), found: found.clone(), wanted: wanted.clone(), fatal: None })
        }));
    }
    TopicState { name, exists, partitions, replication, differences }
}

fn compare_partitions(topic: &TopicSpec, found: i32) -> Option<Difference> {
    (topic.partitions_fixed && found != topic.partitions).then(|| Difference {
        name: PARTITIONS.to_string(),
        found: found.to_string(),
        wanted: topic.partitions.to_string(),
        fatal: Some("what was written under a key would not be found where the key leads to now"),
    })
}

fn compare_policy(topic: &TopicSpec, found: &str) -> Option<Difference> {
    let is_compacted = found.split(',').any(|part| part.trim() == "compact");
    let fatal = match (topic.compacted, is_compacted) {
        (true, false) => "what holds now would be deleted by age",
        (false, true) => "all but the newest event of a directive would be removed",
        _ => return None,
    };
    let (name, wanted) = (CLEANUP_POLICY.to_string(), policy_of(topic).to_string());
    Some(Difference { name, found: found.to_string(), wanted, fatal: Some(fatal) })
}

/// The broker may write a number in another way than it was given.
fn is_same_value(found: &str, wanted: &str) -> bool {
    let number = |text: &str| text.parse::<f64>().ok();
    found == wanted || number(found).is_some_and(|found| number(wanted) == Some(found))
}

/// The configs of topics that exist, without those of topics that the broker does not tell about.
fn describe(
    admin: &AdminClient<Logged>,
    present: &[&TopicSpec],
) -> Result<BTreeMap<String, BTreeMap<String, String>>, ConnectorError> {
    if present.is_empty() {
        return Ok(BTreeMap::new());
    }
    let resources: Vec<_> = present.iter().map(|topic| ResourceSpecifier::Topic(&topic.name)).collect();
    let answers = match block_on(admin.describe_configs(&resources, &options())) {
        Ok(answers) => answers,
        Err(error) if is_unknowable(&error) => {
            tracing::warn!(%error, "the broker does not say how topics are configured: not checked");
            return Ok(BTreeMap::new());
        }
        Err(error) => return Err(refused("describe topics", &error)),
    };
    let mut configs = BTreeMap::new();
    for (topic, answer) in present.iter().zip(answers) {
        match answer {
            Ok(config) => {
                let said = config.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?)));
                configs.insert(topic.name.clone(), said.collect());
            }
            Err(code) => tracing::warn!(topic = topic.name, %code, "the topic's configuration was not checked"),
        }
    }
    Ok(configs)
}

/// An old broker does not know the question; a cautious cluster does not let us ask it.
fn is_unknowable(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error,
        KafkaError::AdminOp(Code::UnsupportedFeature | Code::UnsupportedVersion | Code::ClusterAuthorizationFailed)
    )
}

/// Warns of what can be lived with.
fn judge_differences(state: &TopicState) -> Result<(), ConnectorError> {
    for difference in &state.differences {
        let Difference { name, found, wanted, fatal } = difference.clone();
        let topic = state.name.clone();
        match fatal {
            None => tracing::warn!(topic, config = name, found, wanted, "the topic is configured in another way"),
            Some(reason) => return Err(ConnectorError::TopicConfig { topic, name, found, wanted, reason }),
        }
    }
    Ok(())
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ANSWER_MAX)).operation_timeout(Some(ANSWER_MAX))
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
        TopicSpec::new(name, 1, compacted)
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
    fn the_embedded_broker_is_asked_for_partitions_and_changed_in_nothing() {
        let broker = EmbeddedBroker::start(&[("exchange", 2)]).unwrap();
        let topics = [TopicSpec { partitions_fixed: true, ..spec("exchange", false) }, spec("state", true)];
        let states = inspect_topics(&broker.properties(), &topics).unwrap();
        let [exchange, state] = states.as_slice() else { panic!("{states:?}") };
        assert_eq!((exchange.exists, exchange.partitions, exchange.replication), (true, Some(2), Some(1)));
        assert!(exchange.differences.iter().any(|d| d.name == "partitions" && d.is_fatal()), "{exchange:?}");
        assert_eq!((state.exists, state.partitions, state.differences.len()), (false, None, 0));
    }

    #[track_caller]
    fn compared(topic: &TopicSpec, partitions: i32, configs: &[(&str, &str)]) -> Vec<(String, bool)> {
        let found = configs.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect();
        let state = state(topic, Some(&(partitions, 3)), Some(found));
        state.differences.iter().map(|d| (format!("{}: {} not {}", d.name, d.found, d.wanted), d.is_fatal())).collect()
    }

    #[test]
    fn a_policy_that_would_lose_messages_is_refused() {
        assert!(compared(&spec("d", true), 1, &[("cleanup.policy", "compact")]).is_empty());
        assert!(compared(&spec("d", true), 1, &[("cleanup.policy", "compact,delete")]).is_empty());
        assert!(compared(&spec("e", false), 1, &[("cleanup.policy", "delete")]).is_empty());
        let policy = "cleanup.policy: delete not compact".to_string();
        assert_eq!(compared(&spec("d", true), 1, &[("cleanup.policy", "delete")]), [(policy, true)]);
        let policy = "cleanup.policy: delete,compact not delete".to_string();
        assert_eq!(compared(&spec("e", false), 1, &[("cleanup.policy", "delete,compact")]), [(policy, true)]);
    }

    #[test]
    fn only_a_fixed_number_of_partitions_is_compared() {
        let fixed = TopicSpec { partitions_fixed: true, ..spec("state", true) };
        assert!(compared(&spec("state", true), 4, &[]).is_empty());
        assert!(compared(&fixed, 1, &[]).is_empty());
        assert_eq!(compared(&fixed, 4, &[]), [("partitions: 4 not 1".to_string(), true)]);
    }

    #[test]
    fn other_configs_differ_by_value_and_not_by_spelling() {
        let configs = vec![("min.cleanable.dirty.ratio", "0.10".to_string()), ("segment.ms", "600000".to_string())];
        let topic = TopicSpec { configs, ..spec("state", true) };
        assert!(compared(&topic, 1, &[("min.cleanable.dirty.ratio", "0.1"), ("segment.ms", "600000")]).is_empty());
        let differences = compared(&topic, 1, &[("min.cleanable.dirty.ratio", "0.1"), ("segment.ms", "604800000")]);
        assert_eq!(differences, [("segment.ms: 604800000 not 600000".to_string(), false)]);
    }

    #[test]
    fn the_error_says_what_is_found_and_what_is_needed() {
        let found = BTreeMap::from([("cleanup.policy".to_string(), "delete".to_string())]);
        let state = state(&spec("d", true), Some(&(1, 1)), Some(found));
        assert_eq!(
            judge_differences(&state).unwrap_err().to_string(),
            "topic `d` has cleanup.policy=delete, but compact is needed: what holds now would be deleted by age"
        );
    }
}
