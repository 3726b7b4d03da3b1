//! Other rules without a restart: read when their files or the topics of reference tables change, on SIGHUP, and when
//! `POST /-/reload` asks for it.
//!
//! The directory is compiled as a whole. If anything is wrong nothing changes, and what is wrong is logged and
//! answered.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use arrow::array::RecordBatch;
use lictor_engine::clock::{Clock as _, SystemClock};
use lictor_engine::config::Config;
use lictor_engine::console::{Console, ReloadNote};
use lictor_engine::fingerprint::fingerprint;
use lictor_engine::http::ReloadRequest;
use lictor_engine::metrics::Metrics;
use lictor_engine::pipeline::Stages;
use lictor_engine::rules_dir::{self, LoadedRules};
use lictor_engine::verdict::{RuleOutline, Verdict, verdicts};
use lictor_queries::{ReferenceDecl, References};
use lictor_schemas::prices::PriceTable;
use signal_hook::consts::SIGHUP;

use super::check::render_faults;
use super::console;
use super::topic_tables::TopicTables;

/// How often files, topics and signals are looked at. Files that change are read when they have stayed the same from
/// one look to the next: an editor or a copy may be in the middle of writing.
const LOOK: Duration = Duration::from_secs(1);

const NOTHING_CHANGED: &str = "no rule and no reference table has changed\n";

const TAKEN_BACK: &str = "what was refused is taken back: the files have the rules that run\n";

/// Reads rules again.
pub(super) struct Reloader {
    config: Config,
    metrics: Arc<Metrics>,
    console: Option<Arc<Console>>,
    outlines: Vec<RuleOutline>,
    references: References,
    prices: Arc<PriceTable>,
    topics: TopicTables,
    seen: Seen,
}

/// The fingerprints of the files.
struct Seen {
    /// When rules were read last.
    read: u64,
    /// At the last look.
    looked: u64,
}

impl Reloader {
    /// `loaded` is what runs now, with the rows that `topics` had, from files that had the fingerprint `at`.
    pub(super) fn new(
        config: &Config,
        (loaded, at): (&LoadedRules, u64),
        (metrics, console): (Arc<Metrics>, Option<Arc<Console>>),
        topics: TopicTables,
    ) -> Self {
        let (outlines, references) = (RuleOutline::of_set(&loaded.rules), loaded.references.clone());
        let (config, prices, seen) = (config.clone(), Arc::clone(&loaded.prices), Seen { read: at, looked: at });
        Self { config, metrics, console, outlines, references, prices, topics, seen }
    }

    /// Watches until the tasks end. Rule sets go to `tasks`, answers to whoever has sent one of the `requests`.
    ///
    /// # Errors
    /// The signal or a thread is not to be had.
    pub(super) fn start(
        mut self,
        requests: Receiver<ReloadRequest>,
        sources: Vec<PathBuf>,
        tasks: SyncSender<Stages>,
    ) -> anyhow::Result<()> {
        let hangup = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGHUP, Arc::clone(&hangup)).context("cannot take over SIGHUP")?;
        let watch = move || {
            let mut sources = sources;
            loop {
                let request = match requests.recv_timeout(LOOK) {
                    Ok(request) => Some(request),
                    Err(RecvTimeoutError::Timeout) => None,
                    // The HTTP server is off, or has ended: files and signals go on.
                    Err(RecvTimeoutError::Disconnected) => {
                        thread::park_timeout(LOOK);
                        None
                    }
                };
                let is_asked = request.is_some() || hangup.swap(false, Ordering::Relaxed);
                let has_news = self.topics.look(is_asked);
                if !(self.has_changed(&sources) || has_news || is_asked) {
                    continue;
                }
                let (answer, is_over) = self.reload(is_asked, &mut sources, &tasks);
                self.tell_refused(&answer);
                if let Some(request) = request {
                    // Whoever asked may have gone.
                    let _ = request.send(answer);
                }
                if is_over {
                    break;
                }
            }
        };
        thread::Builder::new().name("reload".to_owned()).spawn(watch).context("cannot watch the rules")?;
        Ok(())
    }

    /// What is wrong is for people who look to know, too, however rules came to be read.
    fn tell_refused(&self, answer: &Result<String, String>) {
        if let (Some(console), Err(why)) = (&self.console, answer) {
            console::set_refused(console, SystemClock::start().now(), why);
        }
    }

    /// Whether files have changed since they were read, and have stayed as they are since the last look.
    fn has_changed(&mut self, sources: &[PathBuf]) -> bool {
        let now = fingerprint(sources);
        let is_settled = std::mem::replace(&mut self.seen.looked, now) == now;
        is_settled && now != self.seen.read
    }

    /// Reads everything again; what has come of it, and whether the tasks have ended.
    ///
    /// If nobody `is_asking`, what means the same as before is left alone.
    fn reload(
        &mut self,
        is_asking: bool,
        sources: &mut Vec<PathBuf>,
        tasks: &SyncSender<Stages>,
    ) -> (Result<String, String>, bool) {
        self.seen.read = fingerprint(sources);
        let loaded = match self.load() {
            Ok(loaded) => loaded,
            Err(why) => {
                let why = self.config.redact(&why);
                tracing::error!("the rules in use stay: {why}");
                self.metrics.observe_reload(false);
                return (Err(why), false);
            }
        };
        self.topics.keep(&loaded.topic_tables());
        let outlines = RuleOutline::of_set(&loaded.rules);
        let is_same = outlines == self.outlines && loaded.prices == self.prices && {
            let rows = |table: &References| table.iter().map(|(n, t)| (n.clone(), t.clone().ok())).collect::<Vec<_>>();
            rows(&loaded.references) == rows(&self.references)
        };
        if is_same && !is_asking {
            *sources = loaded.sources;
            // What was refused may have been taken back: nobody shall be told of it any longer.
            if let Some(console) = &self.console {
                let (at, text) = (SystemClock::start().now(), TAKEN_BACK.to_owned());
                console.set_unchanged(ReloadNote { at, is_applied: true, text });
            }
            return (Ok(NOTHING_CHANGED.to_owned()), false);
        }
        let said = self.tell(&outlines, &loaded.references);
        let cards = self.console.as_ref().map(|_| console::cards(&loaded)).unwrap_or_default();
        let prices = Arc::clone(&loaded.prices);
        let stages = Stages::new(loaded.rules, loaded.prices, &self.config.pipeline_settings());
        if stages.scan.topics_read().is_empty() {
            self.metrics.observe_reload(false);
            return (Err("no topic carries what the rules read: name one in `topics`\n".to_owned()), false);
        }
        match tasks.try_send(stages) {
            Ok(()) => {
                tracing::info!("rules read again:\n{}", said.trim_end());
                (self.outlines, self.references, self.prices) = (outlines, loaded.references, prices);
                *sources = loaded.sources;
                self.metrics.observe_reload(true);
                if let Some(console) = &self.console {
                    let at = SystemClock::start().now();
                    console.set_rules(cards, ReloadNote { at, is_applied: true, text: said.clone() });
                }
                (Ok(said), false)
            }
            Err(TrySendError::Full(_)) => {
                self.seen.read = 0;
                self.topics.ask_again();
                (Err("the rules before are still being taken over: ask again\n".to_owned()), false)
            }
            Err(TrySendError::Disconnected(_)) => (Err("lictor is stopping\n".to_owned()), true),
        }
    }

    fn load(&mut self) -> Result<LoadedRules, String> {
        let Self { config, topics, .. } = self;
        let mut read_topic = |decl: &ReferenceDecl| topics.rows(decl);
        let loaded = rules_dir::load_with_topics(&config.rules, config.prices.as_deref(), &mut read_topic);
        let loaded = loaded.map_err(|error| format!("{error}\n"))?;
        if loaded.diagnostics.is_empty() { Ok(loaded) } else { Err(render_faults(&loaded)) }
    }

    /// What an edit means, a line for everything that has changed, and for tables that are behind their topics.
    fn tell(&self, outlines: &[RuleOutline], references: &References) -> String {
        let mut said = String::new();
        for (rule, verdict) in verdicts(&self.outlines, outlines) {
            if verdict != Verdict::Unchanged {
                let _ = writeln!(said, "rule {rule}: {verdict}");
            }
        }
        let rows = |table: &Result<RecordBatch, String>| table.as_ref().ok().cloned();
        for (name, table) in references {
            if self.references.get(name).and_then(rows) != rows(table) {
                let count = table.as_ref().map_or(0, RecordBatch::num_rows);
                let _ = writeln!(said, "reference table {name}: {count} rows");
            }
        }
        if said.is_empty() {
            said.push_str(NOTHING_CHANGED);
        }
        said.push_str(&self.topics.faults());
        said
    }
}

/// Rendering goes to a string here, which takes anything.
pub(super) fn to_text(render: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
    let mut text = Vec::new();
    let rendered = render(&mut text);
    debug_assert!(rendered.is_ok(), "writing to memory does not fail");
    String::from_utf8_lossy(&text).into_owned()
}
