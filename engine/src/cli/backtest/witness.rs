//! Who listens to the events of a replay: the report, the file they are written to, the charts.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use lictor_engine::backtest::{Digest, EPISODES_MAX, Witness};
use lictor_schemas::event::EnforcementEvent;
use lictor_schemas::rule::RuleHeader;
use lictor_schemas::time::EventTime;

use super::html::Charts;

/// Listens to one rule set.
pub(super) struct Listener {
    pub(super) digest: Digest,
    pub(super) charts: Option<Charts>,
    events: Option<EventsFile>,
}

struct EventsFile {
    path: PathBuf,
    to: BufWriter<File>,
    /// Why the first line could not be written; the replay goes on, and this is said at its end.
    failed: Option<io::Error>,
}

impl Listener {
    /// Events count from `from` on.
    pub(super) fn new(
        rules: &[&RuleHeader],
        from: Option<EventTime>,
        events: Option<&Path>,
        has_charts: bool,
    ) -> anyhow::Result<Self> {
        let open = |path: &Path| -> anyhow::Result<EventsFile> {
            let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(EventsFile { path: path.to_path_buf(), to: BufWriter::new(file), failed: None })
        };
        let events = events.map(open).transpose()?;
        let digest = Digest::new(rules.iter().copied(), EPISODES_MAX).counting_from(from);
        Ok(Self { digest, charts: has_charts.then(Charts::default), events })
    }

    /// Everything was said.
    pub(super) fn finish(&mut self) -> anyhow::Result<()> {
        let Some(EventsFile { path, mut to, failed }) = self.events.take() else { return Ok(()) };
        let written = failed.map_or_else(|| to.flush(), Err);
        written.with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Witness for Listener {
    fn see(&mut self, event: &EnforcementEvent) {
        self.digest.see(event);
        if let Some(charts) = &mut self.charts {
            charts.add(event);
        }
        if let Some(events) = self.events.as_mut().filter(|events| events.failed.is_none()) {
            let mut line = event.to_json();
            line.push(b'\n');
            events.failed = events.to.write_all(&line).err();
        }
    }
    fn recall(&mut self, event: &EnforcementEvent) {
        self.digest.recall(event);
    }
}
