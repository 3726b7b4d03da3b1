//! librdkafka's properties, passed through verbatim, except for those that would break what lictor promises.
//!
//! One list serves all clients; `consumer.`, `producer.` and `admin.` in front of a property set it for that client
//! only. Unknown names are refused by librdkafka itself when a client is created. Names that only Java's clients know
//! are refused here, with what to write instead: most configurations are copied from a Java service.
//!
//! Invariant: neither `Debug` nor an error of this module shows the value of a secret.

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::KafkaError;

use crate::error::{ConnectorError, Fault, Retry};

/// Defaults of the consumer.
const CONSUMER_DEFAULTS: &[(&str, &str)] = &[
    // We commit what was flushed, nothing else does.
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    // Telemetry of aborted transactions never happened.
    ("isolation.level", "read_committed"),
    // A new group sees what the topic still holds; budgets would start too low otherwise.
    ("auto.offset.reset", "earliest"),
    // The default of one second stalls a full queue to a fifth of its throughput.
    ("fetch.queue.backoff.ms", "10"),
    ("fetch.message.max.bytes", "4194304"),
    ("fetch.max.bytes", "52428800"),
    // Per partition; the default of 100,000 small spans costs more in bookkeeping than in bytes.
    ("queued.min.messages", "20000"),
    ("queued.max.messages.kbytes", "131072"),
    ("max.poll.interval.ms", "60000"),
    // A topic that is created after us is found within this time; the default is five minutes.
    ("topic.metadata.refresh.interval.ms", "10000"),
    // Consumer lag comes with the statistics.
    ("statistics.interval.ms", "5000"),
];

/// Defaults of the consumer that the new group protocol takes from the broker instead.
const CLASSIC_GROUP_DEFAULTS: &[(&str, &str)] = &[
    ("partition.assignment.strategy", "cooperative-sticky"),
    // A crashed member's partitions move after this time.
    ("session.timeout.ms", "10000"),
    ("heartbeat.interval.ms", "1000"),
];

/// Defaults of the producer.
const PRODUCER_DEFAULTS: &[(&str, &str)] = &[
    ("enable.idempotence", "true"),
    ("acks", "all"),
    // Same key, same partition as a Java producer's.
    ("partitioner", "murmur2_random"),
    // Events are few and urgent; batches form by themselves under load.
    ("linger.ms", "0"),
    ("compression.codec", "lz4"),
    // How long a flush may wait for a broker that is away.
    ("message.timeout.ms", "120000"),
    // A topic that was denied once is refused until the next refresh; the default is five minutes.
    ("topic.metadata.refresh.interval.ms", "10000"),
];

/// How long a transaction may stay open if the user says nothing: as long hides a dead instance everything behind it
/// from every reader, and no longer than this may a commit last. It is Kafka Streams' value.
const TRANSACTION_TIMEOUT_MS: &str = "10000";

/// Values that would break a promise: property, value, reason.
const REFUSED_VALUES: &[(&str, &str, &str)] = &[
    (
        "enable.auto.commit",
        "true",
        "would commit records whose events were not published yet; remove it, lictor commits both in one transaction",
    ),
    (
        "enable.auto.offset.store",
        "true",
        "would commit records whose events were not published yet; remove it, lictor commits both in one transaction",
    ),
    ("isolation.level", "read_uncommitted", "would count telemetry of aborted transactions; remove it"),
    ("enable.idempotence", "false", "would duplicate and reorder enforcement events on a retry; remove it"),
    ("acks", "0", "would call events published that no broker has; remove it, acks=all is set"),
    ("acks", "1", "would lose events with the partition's leader; remove it, acks=all is set"),
];

/// Numbers that would break a promise: property, the least and the most it may be, reason.
const BOUNDS: &[(&str, i64, i64, &str)] = &[
    (
        "transaction.timeout.ms",
        1_000,
        60_000,
        "an instance that dies hides everything behind its open transaction from all readers for this long",
    ),
    (
        "max.in.flight.requests.per.connection",
        1,
        5,
        "the broker recognises repetitions among the last five batches only",
    ),
];

/// Properties that are ours to set: property, what to write instead.
const OURS: &[(&str, &str)] = &[
    ("group.id", "is derived from `application_id`; set that"),
    // A member with a name that is restarted between the two halves of a cooperative rebalance gets back what it had
    // after the first, and nobody asks for the second: partitions would belong to nobody.
    ("group.instance.id", "can leave partitions to nobody when an instance restarts during a rebalance; remove it"),
    ("transactional.id", "is derived from `application_id` and `instance_id`; set those"),
];

/// Java's names: property, what to write instead.
const JAVA_ONLY: &[(&str, &str)] = &[
    ("sasl.jaas.config", "write `sasl.username` and `sasl.password`"),
    ("sasl.login.class", "remove it; `sasl.mechanism` is enough"),
    ("sasl.login.callback.handler.class", "remove it; `sasl.mechanism` is enough"),
    ("sasl.client.callback.handler.class", "remove it; `sasl.mechanism` is enough"),
    ("ssl.truststore.location", "write `ssl.ca.location` with a PEM file"),
    ("ssl.truststore.password", "remove it; the PEM file of `ssl.ca.location` has no password"),
    ("ssl.truststore.type", "remove it; `ssl.ca.location` is a PEM file"),
    ("ssl.truststore.certificates", "write `ssl.ca.pem`"),
    ("ssl.keystore.type", "remove it; `ssl.keystore.location` is PKCS#12, or write `ssl.key.location`"),
    ("ssl.keystore.key", "write `ssl.key.pem`"),
    ("ssl.keystore.certificate.chain", "write `ssl.certificate.pem`"),
    ("ssl.protocol", "remove it; the TLS version is negotiated"),
    ("ssl.enabled.protocols", "remove it; the TLS version is negotiated"),
    ("key.deserializer", "remove it; lictor decodes OTLP itself"),
    ("value.deserializer", "remove it; lictor decodes OTLP itself"),
    ("key.serializer", "remove it; lictor writes JSON itself"),
    ("value.serializer", "remove it; lictor writes JSON itself"),
    ("max.poll.records", "remove it; `queued.min.messages` bounds what is fetched ahead"),
    ("fetch.max.wait.ms", "write `fetch.wait.max.ms`"),
    ("default.api.timeout.ms", "write `socket.timeout.ms`"),
    ("buffer.memory", "write `queue.buffering.max.kbytes`"),
    ("max.block.ms", "write `message.timeout.ms`"),
    ("max.request.size", "write `message.max.bytes`"),
    ("receive.buffer.bytes", "write `socket.receive.buffer.bytes`"),
    ("send.buffer.bytes", "write `socket.send.buffer.bytes`"),
    ("interceptor.classes", "remove it; there are no interceptors"),
    ("metric.reporters", "remove it; metrics are at /metrics"),
];

/// Which client a list is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Consumer,
    Producer,
    Admin,
}

impl Role {
    const ALL: [Self; 3] = [Self::Consumer, Self::Producer, Self::Admin];

    fn prefix(self) -> &'static str {
        match self {
            Self::Consumer => "consumer.",
            Self::Producer => "producer.",
            Self::Admin => "admin.",
        }
    }
}

/// The properties of all our Kafka clients, checked.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaProperties {
    said: BTreeMap<String, String>,
    /// Whether the broker is our embedded one, which leaves questions about topics unanswered.
    is_embedded: bool,
}

impl KafkaProperties {
    /// Checks what was written.
    ///
    /// # Errors
    /// [`ConnectorError::Property`] for the first property that breaks a promise, that only Java's clients know, or
    /// that is missing (`bootstrap.servers`).
    pub fn try_new(said: BTreeMap<String, String>) -> Result<Self, ConnectorError> {
        for (name, value) in &said {
            check_one(name, value)?;
        }
        let properties = Self { said, is_embedded: false };
        properties.check_group_protocols()?;
        if !properties.said.contains_key("bootstrap.servers") {
            return Err(refuse("bootstrap.servers", "is missing: write the brokers as `host:port,host:port`"));
        }
        Ok(properties)
    }

    /// Nothing but the brokers, as `host:port,host:port`.
    #[must_use]
    pub fn from_bootstrap(servers: &str) -> Self {
        let said = BTreeMap::from([("bootstrap.servers".to_string(), servers.to_string())]);
        Self { said, is_embedded: false }
    }

    /// These properties with one more, or another value of it.
    ///
    /// # Errors
    /// As [`KafkaProperties::try_new`].
    pub fn with(mut self, name: &str, value: &str) -> Result<Self, ConnectorError> {
        check_one(name, value)?;
        self.said.insert(name.to_string(), value.to_string());
        self.check_group_protocols()?;
        Ok(self)
    }

    /// The properties of the embedded broker at `servers`, with these of our own.
    pub(crate) fn for_embedded(servers: &str, own: &[(&str, &str)]) -> Self {
        let brokers = [("bootstrap.servers", servers)];
        let all = own.iter().chain(&brokers).map(|(name, value)| ((*name).to_string(), (*value).to_string()));
        Self { said: all.collect(), is_embedded: true }
    }

    /// Whether the broker is the embedded one.
    pub(super) fn is_embedded(&self) -> bool {
        self.is_embedded
    }

    /// How long the transaction coordinator waits for a transaction's end before it aborts it, in milliseconds.
    pub(super) fn transaction_timeout_ms(&self) -> &str {
        self.said_for(Role::Producer).get("transaction.timeout.ms").copied().unwrap_or(TRANSACTION_TIMEOUT_MS)
    }

    /// The brokers, as `host:port,host:port`.
    #[must_use]
    pub fn bootstrap_servers(&self) -> &str {
        self.said.get("bootstrap.servers").map_or("", String::as_str)
    }

    /// Creates a client of `role` with our defaults, then `own`, then what the user wrote.
    pub(super) fn create<C, T>(&self, role: Role, own: &[(&str, &str)], context: C) -> Result<T, ConnectorError>
    where
        C: ClientContext,
        T: FromClientConfigAndContext<C>,
    {
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Info);
        for (name, value) in self.defaults(role).iter().chain(own) {
            config.set(*name, *value);
        }
        for (name, value) in self.said_for(role) {
            config.set(name, value);
        }
        T::from_config_and_context(&config, context).map_err(|error| not_created(&error))
    }

    fn check_group_protocols(&self) -> Result<(), ConnectorError> {
        Role::ALL.iter().try_for_each(|role| check_group_protocol(&self.said_for(*role)))
    }

    fn defaults(&self, role: Role) -> Vec<(&'static str, &'static str)> {
        match role {
            Role::Admin => Vec::new(),
            Role::Producer => PRODUCER_DEFAULTS.to_vec(),
            Role::Consumer if self.said_for(role).get("group.protocol") == Some(&"consumer") => {
                CONSUMER_DEFAULTS.to_vec()
            }
            Role::Consumer => [CONSUMER_DEFAULTS, CLASSIC_GROUP_DEFAULTS].concat(),
        }
    }

    /// What the user wrote for `role`: the shared properties, overridden by those with its prefix.
    fn said_for(&self, role: Role) -> BTreeMap<&str, &str> {
        let shared = self.said.iter().filter(|(name, _)| Role::ALL.iter().all(|r| !name.starts_with(r.prefix())));
        let own = self.said.iter().filter_map(|(name, value)| Some((name.strip_prefix(role.prefix())?, value)));
        shared.map(|(name, value)| (name.as_str(), value)).chain(own).map(|(n, v)| (n, v.as_str())).collect()
    }
}

/// Shows every name, and the values of those that are no secret.
impl fmt::Debug for KafkaProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.said.iter().map(|(name, value)| (name, if is_secret(name) { "***" } else { value }));
        f.debug_map().entries(shown).finish()
    }
}

/// Errs on the side of hiding: all of `sasl.`, anything called a password or a secret, and keys that are written out.
fn is_secret(name: &str) -> bool {
    let name = strip_role(name).to_ascii_lowercase();
    let names_key_text = name.contains("key") && !name.ends_with("location") && !name.contains("ssl.keystore.type");
    name.starts_with("sasl.") && name != "sasl.mechanism" && name != "sasl.mechanisms"
        || name.contains("password")
        || name.contains("secret")
        || name.contains("token")
        || name.contains("pem")
        || names_key_text
}

fn strip_role(name: &str) -> &str {
    Role::ALL.iter().find_map(|role| name.strip_prefix(role.prefix())).unwrap_or(name)
}

fn refuse(name: &str, reason: &str) -> ConnectorError {
    ConnectorError::Property { name: name.to_string(), reason: reason.to_string() }
}

fn check_one(name: &str, value: &str) -> Result<(), ConnectorError> {
    let bare = strip_role(name);
    if let Some((_, reason)) = OURS.iter().find(|(refused, _)| *refused == bare) {
        return Err(refuse(name, reason));
    }
    if let Some((_, instead)) = JAVA_ONLY.iter().find(|(java, _)| *java == bare) {
        return Err(refuse(name, &format!("is a property of Java's clients only: {instead}")));
    }
    // Aliases of the same property; librdkafka takes the last one that is set.
    let canonical = match bare {
        "request.required.acks" => "acks",
        "max.in.flight" => "max.in.flight.requests.per.connection",
        other => other,
    };
    let value = value.trim().to_ascii_lowercase();
    if let Some((.., reason)) = REFUSED_VALUES.iter().find(|(n, v, _)| *n == canonical && *v == value) {
        return Err(refuse(name, &format!("= {value} {reason}")));
    }
    if let Some((_, least, most, reason)) = BOUNDS.iter().find(|(n, ..)| *n == canonical)
        && !value.parse().is_ok_and(|number| (*least..=*most).contains(&number))
    {
        return Err(refuse(name, &format!("= {value} is not between {least} and {most}: {reason}")));
    }
    if bare == "partition.assignment.strategy" {
        check_strategy(name, &value)?;
    }
    Ok(())
}

fn check_strategy(name: &str, value: &str) -> Result<(), ConnectorError> {
    if value.contains("org.apache.kafka") {
        return Err(refuse(name, "names a Java class: write `cooperative-sticky`, `range` or `roundrobin`"));
    }
    if value.contains("cooperative-sticky") && value.contains(',') {
        return Err(refuse(name, "mixes cooperative and eager strategies: write `cooperative-sticky` alone"));
    }
    Ok(())
}

fn check_group_protocol(said: &BTreeMap<&str, &str>) -> Result<(), ConnectorError> {
    if said.get("group.protocol") != Some(&"consumer") {
        return Ok(());
    }
    match CLASSIC_GROUP_DEFAULTS.iter().find(|(name, _)| said.contains_key(name)) {
        Some((name, _)) => Err(refuse(name, "cannot be combined with group.protocol=consumer: the broker sets it")),
        None => Ok(()),
    }
}

/// librdkafka's refusal of a property, without the value if that is a secret.
fn not_created(error: &KafkaError) -> ConnectorError {
    match error {
        KafkaError::ClientConfig(_, _, name, _) if is_secret(name) => {
            refuse(name, "is not a property or value it takes")
        }
        KafkaError::ClientConfig(_, description, name, _) => refuse(name, &format!("is refused: {description}")),
        other => ConnectorError::Kafka {
            action: "create a client",
            message: other.to_string(),
            fault: Fault::User,
            retry: Retry::Never,
        },
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::consumer::{BaseConsumer, DefaultConsumerContext};
    use rdkafka::producer::{BaseProducer, DefaultProducerContext};

    use super::*;

    fn properties(said: &[(&str, &str)]) -> Result<KafkaProperties, ConnectorError> {
        let brokers = [("bootstrap.servers", "127.0.0.1:9092")];
        KafkaProperties::try_new(
            brokers.iter().chain(said).map(|(n, v)| ((*n).to_string(), (*v).to_string())).collect(),
        )
    }

    #[track_caller]
    fn check_refused(name: &str, value: &str, expected: &str) {
        let message = properties(&[(name, value)]).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains(expected), "{message}");
    }

    #[test]
    fn what_breaks_a_promise_is_refused_with_the_reason() {
        check_refused("enable.auto.commit", "true", "in one transaction");
        check_refused("consumer.enable.auto.commit", "True", "in one transaction");
        check_refused("enable.auto.offset.store", "true", "in one transaction");
        check_refused("isolation.level", "read_uncommitted", "aborted transactions");
        check_refused("producer.enable.idempotence", "false", "duplicate");
        check_refused("acks", "1", "acks=all");
        check_refused("request.required.acks", "0", "acks=all");
        check_refused("group.id", "mine", "application_id");
        check_refused("transactional.id", "mine", "application_id");
        check_refused("consumer.group.instance.id", "mine", "to nobody");
        check_refused("transaction.timeout.ms", "60001", "between 1000 and 60000");
        check_refused("producer.transaction.timeout.ms", "999", "between 1000 and 60000");
        check_refused("transaction.timeout.ms", "10s", "between 1000 and 60000");
        check_refused("max.in.flight", "6", "between 1 and 5");
        check_refused("producer.max.in.flight.requests.per.connection", "1000", "between 1 and 5");
    }

    #[test]
    fn java_names_are_refused_with_what_to_write_instead() {
        check_refused("sasl.jaas.config", "…", "sasl.username");
        check_refused("ssl.truststore.location", "/a.jks", "ssl.ca.location");
        check_refused("consumer.max.poll.records", "500", "queued.min.messages");
        check_refused("key.deserializer", "x", "remove it");
        check_refused("partition.assignment.strategy", "org.apache.kafka.clients.consumer.RangeAssignor", "`range`");
        check_refused("partition.assignment.strategy", "cooperative-sticky,range", "mixes");
    }

    #[test]
    fn what_only_looks_dangerous_is_taken() {
        for (name, value) in [
            ("enable.auto.commit", "false"),
            ("acks", "all"),
            ("isolation.level", "read_committed"),
            ("transaction.timeout.ms", "60000"),
            ("max.in.flight", "5"),
            ("client.id", "mine"),
        ] {
            assert!(properties(&[(name, value)]).is_ok(), "{name}={value}");
        }
    }

    #[test]
    fn a_transaction_lasts_ten_seconds_unless_said() {
        assert_eq!(properties(&[]).unwrap().transaction_timeout_ms(), "10000");
        let said = properties(&[("transaction.timeout.ms", "2000"), ("producer.transaction.timeout.ms", "3000")]);
        assert_eq!(said.unwrap().transaction_timeout_ms(), "3000");
    }

    #[test]
    fn the_brokers_must_be_named() {
        let message = KafkaProperties::try_new(BTreeMap::new()).unwrap_err().to_string();
        assert_eq!(
            message,
            "kafka property `bootstrap.servers` is missing: write the brokers as `host:port,host:port`"
        );
    }

    #[test]
    fn the_new_group_protocol_excludes_what_the_broker_sets() {
        let both = [("group.protocol", "consumer"), ("session.timeout.ms", "9000")];
        assert!(properties(&both).unwrap_err().to_string().contains("session.timeout.ms"));
        let alone = properties(&[("group.protocol", "consumer")]).unwrap();
        assert!(alone.defaults(Role::Consumer).iter().all(|(name, _)| *name != "session.timeout.ms"));
    }

    #[test]
    fn a_prefixed_property_overrides_the_shared_one_for_its_client_only() {
        let said = properties(&[("client.id", "all"), ("producer.client.id", "out"), ("admin.retries", "1")]).unwrap();
        assert_eq!(said.said_for(Role::Consumer).get("client.id"), Some(&"all"));
        assert_eq!(said.said_for(Role::Producer).get("client.id"), Some(&"out"));
        assert_eq!(said.said_for(Role::Producer).get("retries"), None);
        assert_eq!(said.said_for(Role::Producer).get("admin.retries"), None);
    }

    #[test]
    fn debug_shows_no_secret() {
        let said = properties(&[
            ("sasl.username", "alice-s3cr3t"),
            ("sasl.password", "pw-s3cr3t"),
            ("producer.sasl.password", "pw2-s3cr3t"),
            ("ssl.key.password", "key-s3cr3t"),
            ("ssl.key.pem", "-----BEGIN s3cr3t"),
            ("sasl.oauthbearer.client.secret", "oidc-s3cr3t"),
            ("sasl.mechanism", "PLAIN"),
            ("ssl.ca.location", "/etc/ca.pem"),
        ])
        .unwrap();
        let shown = format!("{said:?}");
        assert!(!shown.contains("s3cr3t"), "{shown}");
        assert!(shown.contains(r#""sasl.password": "***""#) && shown.contains("PLAIN"), "{shown}");
        assert!(shown.contains("/etc/ca.pem"), "{shown}");
    }

    #[test]
    fn unknown_names_are_refused_by_librdkafka_without_their_secrets() {
        let said = properties(&[("sasl.passwort", "s3cr3t")]).unwrap();
        let made: Result<BaseConsumer, _> = said.create(Role::Consumer, &[], DefaultConsumerContext);
        let message = made.err().unwrap().to_string();
        assert!(message.contains("sasl.passwort") && !message.contains("s3cr3t"), "{message}");

        let said = properties(&[("fetch.mix.bytes", "1")]).unwrap();
        let made: Result<BaseConsumer, _> = said.create(Role::Consumer, &[], DefaultConsumerContext);
        assert!(made.err().unwrap().to_string().contains("No such configuration property"));
    }

    #[test]
    fn tls_and_every_sasl_mechanism_we_promise_are_compiled_in() {
        for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] {
            let said = properties(&[
                ("security.protocol", "SASL_SSL"),
                ("sasl.mechanism", mechanism),
                ("sasl.username", "u"),
                ("sasl.password", "p"),
            ]);
            let made: Result<BaseProducer, _> = said.unwrap().create(Role::Producer, &[], DefaultProducerContext);
            assert!(made.is_ok(), "{mechanism}: {:?}", made.err());
        }
    }
}
