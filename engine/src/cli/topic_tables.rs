//! The reference tables that lie in Kafka, while lictor runs.
//!
//! A table is read to its end before anything is judged by it, and followed afterwards. When it has changed, the rules
//! are read again, as when a file has changed. If a topic cannot be followed any more, what was last read of it stays
//! in use until it has been read from its beginning again.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use lictor_connectors::{ConnectorError, KafkaTable, RefusedRecord, Retry};
use lictor_engine::config::Config;
use lictor_engine::metrics::Metrics;
use lictor_queries::ReferenceDecl;

/// How long a broker is waited for that has nothing to say, while a topic is read to its end.
const READ_WAIT: Duration = Duration::from_secs(30);
/// Looks after which news is taken over although more keeps coming: shards are read back for it, which must not become
/// what an instance does all day.
const NEWS_LOOKS_MAX: u32 = 10;
/// Looks before a topic that could not be read is tried again.
const LOST_LOOKS: u32 = 10;
/// How many refused records are told when a topic has been read; a program that writes nonsense writes a lot of it.
const REFUSED_TOLD_MAX: usize = 10;

/// Reads and follows the topics that rules declare as tables.
pub(super) struct TopicTables {
    config: Config,
    metrics: Arc<Metrics>,
    stop: Arc<AtomicBool>,
    tables: Vec<TopicTable>,
}

struct TopicTable {
    name: String,
    topic: String,
    schema: SchemaRef,
    reader: KafkaTable,
    /// What rules judge by: what was last read, or why nothing was.
    rows: Result<RecordBatch, String>,
    news: News,
    lost: Option<Lost>,
}

/// Why a topic is not followed.
struct Lost {
    error: ConnectorError,
    /// The error in words, without secrets.
    reason: String,
    looks_left: u32,
}

impl Lost {
    /// A broker may answer, and a topic that is not there may be made. One that is too large is read again when
    /// somebody says that it is not any more.
    fn is_tried_again(&self) -> bool {
        self.looks_left == 0 && !matches!(self.error, ConnectorError::TableTooLarge { .. })
    }
}

/// When news is taken over: once a look brings no more of it, or after [`NEWS_LOOKS_MAX`] looks.
#[derive(Debug, Default)]
struct News {
    /// How many looks ago it began; 0 if there is none.
    looks: u32,
}

impl News {
    fn is_due(&mut self, changes: usize) -> bool {
        if self.looks == 0 && changes == 0 {
            return false;
        }
        self.looks += 1;
        let is_due = changes == 0 || self.looks > NEWS_LOOKS_MAX;
        if is_due {
            self.looks = 0;
        }
        is_due
    }
}

impl TopicTables {
    /// Nothing is read before a table is asked for. Once `stop` is set, reading ends.
    pub(super) fn new(config: &Config, metrics: Arc<Metrics>, stop: Arc<AtomicBool>) -> Self {
        Self { config: config.clone(), metrics, stop, tables: Vec::new() }
    }

    /// The rows of a declared table as far as its topic was read; a topic that is new is read to its end first.
    ///
    /// # Errors
    /// Why there are no rows.
    pub(super) fn rows(&mut self, decl: &ReferenceDecl) -> Result<RecordBatch, String> {
        let schema = decl.schema.clone().ok_or("a table in Kafka declares its columns")?;
        let is_it = |table: &TopicTable| table.topic == decl.location && table.schema == schema;
        if let Some(table) = self.tables.iter_mut().find(|table| is_it(table)) {
            table.name.clone_from(&decl.name);
            return table.take();
        }
        let group = format!("{}-tables", self.config.application_id);
        let reader = KafkaTable::try_new(&self.config.kafka, &group, &decl.location, SchemaRef::clone(&schema));
        let reader = reader.map_err(|error| self.config.redact(&error.to_string()))?;
        let (name, topic) = (decl.name.clone(), decl.location.clone());
        let rows = Err("it was not read yet".to_owned());
        let mut table = TopicTable { name, topic, schema, reader, rows, news: News::default(), lost: None };
        table.read(&self.config, &self.stop);
        let rows = table.take();
        self.tables.push(table);
        self.observe();
        rows
    }

    /// Takes over what has come; whether the rules are to be read again. If somebody `is_asking`, topics that could not
    /// be read are tried again at once.
    pub(super) fn look(&mut self, is_asking: bool) -> bool {
        let mut is_due = false;
        for table in &mut self.tables {
            is_due |= table.look(is_asking, &self.config, &self.stop);
        }
        self.observe();
        is_due
    }

    /// What was due could not be taken over: it is due again at the next look.
    pub(super) fn ask_again(&mut self) {
        self.tables.iter_mut().for_each(|table| table.news.looks = NEWS_LOOKS_MAX);
    }

    /// Gives up the tables that are not among `declared`.
    pub(super) fn keep(&mut self, declared: &[ReferenceDecl]) {
        let is_declared = |table: &TopicTable| {
            declared.iter().any(|d| d.location == table.topic && d.schema.as_ref() == Some(&table.schema))
        };
        self.tables.retain(is_declared);
    }

    /// Why a table is not there that a broker may still answer for.
    pub(super) fn unanswered(&self) -> Option<String> {
        let lost = self.tables.iter().filter_map(|table| Some((table, table.lost.as_ref()?)));
        let mut waiting = lost.filter(|(_, lost)| lost.error.retry() == Retry::Backoff);
        waiting.next().map(|(table, lost)| format!("reference table {}: {}", table.name, lost.reason))
    }

    /// A line for every table whose rows are older than its topic.
    pub(super) fn faults(&self) -> String {
        let mut said = String::new();
        for table in &self.tables {
            let (name, mut refused) = (&table.name, table.reader.refused());
            let count = refused.len();
            if let Some(first) = refused.next() {
                let first = self.config.redact(&first.to_string());
                let _ = writeln!(said, "reference table {name}: refused records: {count}, such as {first}");
            }
            if let Some(lost) = &table.lost {
                let _ = writeln!(said, "reference table {name}: its topic is not followed: {}", lost.reason);
            }
        }
        said
    }

    fn observe(&self) {
        let refused = self.tables.iter().map(|table| (table.name.as_str(), table.reader.refused().len()));
        self.metrics.observe_refused_references(refused);
    }
}

impl TopicTable {
    fn take(&mut self) -> Result<RecordBatch, String> {
        if self.lost.is_none() {
            self.news = News::default();
            self.rows = self.reader.rows().map_err(|error| error.to_string());
        }
        self.rows.clone()
    }

    /// Reads the topic from its beginning to its end; whether that went well.
    fn read(&mut self, config: &Config, stop: &AtomicBool) -> bool {
        match self.reader.read_to_end(READ_WAIT, &|| !stop.load(Ordering::Relaxed)) {
            Ok(()) => {
                self.lost = None;
                tracing::info!(table = self.name, topic = self.topic, "reference table read");
                let refused = self.reader.refused();
                let more = refused.len().saturating_sub(REFUSED_TOLD_MAX);
                tell_refused(&self.name, refused.take(REFUSED_TOLD_MAX), more, config);
                true
            }
            Err(error) => {
                self.lose(error, config);
                false
            }
        }
    }

    fn look(&mut self, is_asking: bool, config: &Config, stop: &AtomicBool) -> bool {
        if let Some(lost) = &mut self.lost {
            lost.looks_left = lost.looks_left.saturating_sub(1);
            return (is_asking || lost.is_tried_again()) && self.read(config, stop);
        }
        match self.reader.follow() {
            Ok(followed) => {
                tell_refused(&self.name, followed.refused.iter(), followed.refused_more, config);
                self.news.is_due(followed.changes)
            }
            Err(error) => {
                self.lose(error, config);
                false
            }
        }
    }

    fn lose(&mut self, error: ConnectorError, config: &Config) {
        let reason = config.redact(&error.to_string());
        if self.lost.as_ref().is_none_or(|lost| lost.reason != reason) {
            let stays = if self.rows.is_ok() { "; the rows that were read before stay" } else { "" };
            tracing::error!(table = self.name, "the reference table's topic is not followed: {reason}{stays}");
        }
        if self.rows.is_err() {
            self.rows = Err(reason.clone());
        }
        self.lost = Some(Lost { error, reason, looks_left: LOST_LOOKS });
    }
}

fn tell_refused<'a>(table: &str, refused: impl Iterator<Item = &'a RefusedRecord>, more: usize, config: &Config) {
    for record in refused {
        let record = config.redact(&record.to_string());
        tracing::error!(table, "a record is no row of the reference table, its key keeps the row it had: {record}");
    }
    if more > 0 {
        tracing::error!(table, more, "more records are no rows of the reference table");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::thread;

    use lictor_connectors::{EmbeddedBroker, KafkaSink, Outgoing, Sink};
    use lictor_queries::{RuleFile, references};
    use tempfile::TempDir;

    use super::*;

    /// 1,200 looks are a minute, for a broker on a busy machine.
    const LOOKS_MAX: usize = 1_200;
    const PAUSE: Duration = Duration::from_millis(50);

    fn tables(broker: &EmbeddedBroker) -> TopicTables {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("lictor.yaml");
        fs::write(&path, "kafka: {bootstrap.servers: \"127.0.0.1:1\"}\nrules: .\nhttp: off\n").unwrap();
        let mut config = Config::load(&path).unwrap();
        config.kafka = broker.properties();
        TopicTables::new(&config, Arc::new(Metrics::new()), Arc::default())
    }

    fn declare(topic: &str) -> ReferenceDecl {
        let text = format!("CREATE EXTERNAL TABLE budgets (usd DOUBLE) STORED AS KAFKA LOCATION '{topic}'");
        references(&[RuleFile { file: "a.sql".to_owned(), text }]).remove(0)
    }

    fn publish(broker: &EmbeddedBroker, key: &str, value: &str) {
        let mut sink = KafkaSink::try_new(&broker.properties(), "test-out").unwrap();
        let (topic, key, payload) = ("budgets".to_owned(), Some(key.into()), Some(value.into()));
        sink.publish(&Outgoing { topic, key, payload, headers: Vec::new() }).unwrap();
        sink.flush().unwrap();
    }

    #[track_caller]
    fn look_until_due(tables: &mut TopicTables) {
        let is_due = (0..LOOKS_MAX).any(|_| {
            thread::park_timeout(PAUSE);
            tables.look(false)
        });
        assert!(is_due, "{}", tables.faults());
    }

    #[test]
    fn a_topic_is_read_when_it_is_asked_for_and_news_is_due_once() {
        let broker = EmbeddedBroker::start(&[("budgets", 2)]).unwrap();
        publish(&broker, "a", "{\"usd\":1}");
        let (mut tables, decl) = (tables(&broker), declare("budgets"));
        assert_eq!(tables.rows(&decl).unwrap().num_rows(), 1);
        assert_eq!((tables.look(false), tables.faults()), (false, String::new()));

        publish(&broker, "a", "[]");
        publish(&broker, "b", "{\"usd\":2}");
        look_until_due(&mut tables);
        assert_eq!(tables.rows(&decl).unwrap().num_rows(), 2);
        let faults = tables.faults();
        assert!(faults.starts_with("reference table budgets: refused records: 1, such as budgets["), "{faults}");
        assert!(!tables.look(false));
        tables.ask_again();
        assert!(tables.look(false), "what could not be taken over is due again");

        tables.keep(&[declare("other")]);
        assert!(tables.tables.is_empty());
    }

    #[test]
    fn a_topic_that_is_not_there_is_tried_again_and_stops_nobody() {
        let broker = EmbeddedBroker::start(&[("other", 1)]).unwrap();
        let (mut tables, decl) = (tables(&broker), declare("budgets"));
        let why = tables.rows(&decl).unwrap_err();
        assert!(why.contains("topic `budgets` does not exist"), "{why}");
        assert_eq!(tables.unanswered(), None);
        assert!(tables.faults().contains("its topic is not followed"), "{}", tables.faults());
        broker.create_topic("budgets", 1).unwrap();
        look_until_due(&mut tables);
        assert_eq!(tables.rows(&decl).unwrap().num_rows(), 0);
        assert_eq!(tables.faults(), "");
    }

    #[test]
    fn news_is_taken_over_when_no_more_comes() {
        let mut news = News::default();
        let due: Vec<bool> = [0, 3, 1, 0, 0].into_iter().map(|changes| news.is_due(changes)).collect();
        assert_eq!(due, [false, false, false, true, false]);
    }

    #[test]
    fn news_that_never_ends_is_taken_over_all_the_same() {
        let mut news = News::default();
        let due = (1..=40).filter(|_| news.is_due(1)).count();
        assert_eq!(due, 3);
    }
}
