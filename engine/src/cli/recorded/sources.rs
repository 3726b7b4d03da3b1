//! Where recorded telemetry is: ranges of topics, or files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use lictor_connectors::{
    FileTrack, KafkaRestorer, KafkaTrack, Meter, NextOffset, TopicBinding, TopicPartition, Track, count_partitions,
};
use lictor_engine::backtest::Range;
use lictor_engine::config::Config;
use lictor_schemas::tables::Signal;
use lictor_schemas::time::EventTime;

/// How long a broker may say nothing.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the names of recorded files end; packed ones have `.gz` or `.zst` behind it.
const RECORDED: [&str; 8] = ["json", "jsonl", "ndjson", "pb", "binpb", "protobuf", "proto", "bin"];

/// Telemetry to be read.
pub(in crate::cli) struct Sources {
    pub(in crate::cli) tracks: Vec<Box<dyn Track>>,
    /// The partitions that windows wait for from the beginning.
    pub(in crate::cli) expected: BTreeSet<TopicPartition>,
    /// How much was read, of how much, in what.
    pub(in crate::cli) meter: Meter,
    pub(in crate::cli) total: u64,
    pub(in crate::cli) unit: &'static str,
    /// What is read, for the report.
    pub(in crate::cli) names: Vec<String>,
    /// What a reader of the report has to know.
    pub(in crate::cli) notes: Vec<String>,
}

/// Offsets of one partition that were named on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Offsets {
    partition: TopicPartition,
    from: NextOffset,
    to: NextOffset,
}

impl FromStr for Offsets {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = || {
            let (partition, range) = text.split_once("]=")?;
            let (topic, partition) = partition.split_once('[')?;
            let (from, to) = range.split_once("..")?;
            let (from, to) = (NextOffset(from.parse().ok()?), NextOffset(to.parse().ok()?));
            let partition = TopicPartition::new(topic, partition.parse().ok()?);
            (from < to).then_some(Self { partition, from, to })
        };
        parsed().ok_or_else(|| "is no range of offsets: write otlp_spans[0]=100..200, the second exclusive".to_owned())
    }
}

impl Offsets {
    /// What a reader has to know if the partition ends before the range does.
    fn note_of_cut(&self, end: NextOffset) -> Option<String> {
        let (partition, to) = (&self.partition, self.to.0);
        (self.to > end).then(|| format!("{partition} ends at offset {}: there is nothing up to {to} yet", end.0))
    }
}

/// The first partition of which more than one range is named.
fn named_twice(offsets: &[Offsets]) -> Option<&TopicPartition> {
    let mut named = BTreeSet::new();
    offsets.iter().map(|of| &of.partition).find(|partition| !named.insert(*partition))
}

/// What brokers still have of the topics that carry `signals`: between offsets if some are named, else of the range.
pub(in crate::cli) fn topics(
    config: &Config,
    signals: &[Signal],
    range: &Range,
    offsets: &[Offsets],
) -> anyhow::Result<Sources> {
    if let Some(twice) = named_twice(offsets) {
        bail!("--offsets names {twice} twice: of one partition one range is read");
    }
    let bound = config.topics.signals();
    let group = format!("{}-scan", config.application_id);
    let client_id = format!("{}-backtest", config.application_id);
    let log = KafkaRestorer::try_new(&config.kafka, &group, &client_id)?;
    let mut notes = Vec::new();
    let partitions = if offsets.is_empty() {
        let read = bound.iter().filter(|(_, signal)| signals.contains(signal)).map(|(topic, _)| topic.clone());
        partitions(config, &read.collect::<Vec<_>>(), &mut notes)?
    } else {
        offsets.iter().map(|of| of.partition.clone()).collect()
    };
    if let Some(unbound) = partitions.iter().find(|p| !bound.contains_key(p.topic.as_ref())) {
        bail!("{unbound}: the configuration does not say what topic `{}` carries", unbound.topic);
    }
    let mut ranges = Vec::new();
    for partition in partitions {
        let begin = log.begin_of(&partition, PATIENCE)?;
        let end = log.end_of(&partition, PATIENCE)?;
        let (first, last) = match offsets.iter().find(|of| of.partition == partition) {
            Some(named) => {
                notes.extend(named.note_of_cut(end));
                (named.from, named.to.min(end))
            }
            None => {
                let at = |from: EventTime| log.offset_at(&partition, from.to_ms(), PATIENCE);
                let first = range.read_from.map_or(Ok(Some(begin)), at)?.unwrap_or(end);
                // One record with a stamp of the future would end the range: what came too late is left out later.
                (first, end)
            }
        };
        if begin > NextOffset(0) && first <= begin {
            notes.push(format!("{partition} begins at offset {}: what was there before was deleted", begin.0));
        }
        let offsets = first.max(begin)..last;
        if !offsets.is_empty() {
            ranges.push((partition, offsets));
        }
    }
    let meter = Meter::default();
    let tracks = KafkaTrack::open(&config.kafka, (&group, &client_id), &ranges, (PATIENCE, &meter))?;
    let count = |offsets: &std::ops::Range<NextOffset>| u64::try_from(offsets.end.0 - offsets.start.0);
    Ok(Sources {
        tracks: tracks.into_iter().map(|track| Box::new(track) as Box<dyn Track>).collect(),
        expected: ranges.iter().map(|(partition, _)| partition.clone()).collect(),
        meter,
        total: ranges.iter().filter_map(|(_, offsets)| count(offsets).ok()).sum(),
        unit: "records",
        names: ranges.iter().map(|(p, offsets)| format!("{p} {}..{}", offsets.start.0, offsets.end.0)).collect(),
        notes,
    })
}

fn partitions(config: &Config, topics: &[String], notes: &mut Vec<String>) -> anyhow::Result<Vec<TopicPartition>> {
    let mut partitions = Vec::new();
    for (topic, count) in topics.iter().zip(count_partitions(&config.kafka, topics)?) {
        if count.is_none() {
            notes.push(format!("topic `{topic}` does not exist"));
        }
        partitions.extend((0..count.unwrap_or_default()).map(|p| TopicPartition::new(topic, p)));
    }
    if partitions.is_empty() {
        bail!("none of the topics that the rules read is there: {}", topics.join(", "));
    }
    Ok(partitions)
}

/// Recorded files, and those in folders whose names say that they are some.
pub(in crate::cli) fn files(
    paths: &[PathBuf],
    signals: &BTreeMap<String, Signal>,
    protobuf: Option<Signal>,
) -> anyhow::Result<Sources> {
    let topic_of = |signal: Signal| {
        let topic = signals.iter().find(|(_, carried)| **carried == signal);
        topic.map_or_else(|| signal.as_str().into(), |(topic, _)| topic.as_str().into())
    };
    let [traces, logs, metrics] = [Signal::Traces, Signal::Logs, Signal::Metrics].map(topic_of);
    let binding = TopicBinding { traces, logs, metrics, protobuf };
    let mut found = Vec::new();
    for path in paths {
        let before = found.len();
        collect(path, &mut found)?;
        if found.len() == before {
            bail!("{}: no recorded telemetry is in it (files named *.{})", path.display(), RECORDED.join(", *."));
        }
    }
    let meter = Meter::default();
    let (mut tracks, mut total) = (Vec::<Box<dyn Track>>::new(), 0);
    for (index, path) in found.iter().enumerate() {
        total += fs::metadata(path).map(|metadata| metadata.len()).unwrap_or_default();
        tracks.push(Box::new(FileTrack::open(path, index, &binding, &meter)?));
    }
    let names = found.iter().map(|path| path.display().to_string()).collect();
    let (expected, notes) = (BTreeSet::new(), Vec::new());
    Ok(Sources { tracks, expected, meter, total, unit: "bytes", names, notes })
}

/// Appends the file, or the recorded files in the folder and those below it, in the order of their names.
fn collect(path: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let cannot = || format!("cannot read {}", path.display());
    if !fs::metadata(path).with_context(cannot)?.is_dir() {
        found.push(path.to_path_buf());
        return Ok(());
    }
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).with_context(cannot)? {
        let entry = entry.with_context(cannot)?.path();
        if !entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            entries.push(entry);
        }
    }
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            collect(&entry, found)?;
        } else if is_recorded(&entry) {
            found.push(entry);
        }
    }
    Ok(())
}

fn is_recorded(path: &Path) -> bool {
    let name = path.to_string_lossy().to_ascii_lowercase();
    let name = [".gz", ".zst", ".zstd"].iter().find_map(|packed| name.strip_suffix(packed)).unwrap_or(&name);
    name.rsplit_once('.').is_some_and(|(_, extension)| RECORDED.contains(&extension))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn offsets_are_a_partition_and_a_range() {
        let offsets: Offsets = "a.b-c[3]=10..20".parse().unwrap();
        assert_eq!(offsets.partition, TopicPartition::new("a.b-c", 3));
        assert_eq!((offsets.from, offsets.to), (NextOffset(10), NextOffset(20)));
        for text in ["", "t[0]", "t[0]=5", "t[0]=5..5", "t[x]=1..2", "t=1..2", "t[0]=1..x"] {
            assert!(text.parse::<Offsets>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_partition_has_one_range_and_one_that_ends_early_is_said_to() {
        let offsets = |text: &str| text.parse::<Offsets>().unwrap();
        let [a, b, again] = ["t[0]=1..5", "t[1]=1..5", "t[0]=7..9"].map(offsets);
        assert_eq!(named_twice(&[a.clone(), b.clone()]), None);
        assert_eq!(named_twice(&[a.clone(), b, again]), Some(&TopicPartition::new("t", 0)));
        assert_eq!(a.note_of_cut(NextOffset(5)), None);
        let note = a.note_of_cut(NextOffset(3)).unwrap();
        assert_eq!(note, "t[0] ends at offset 3: there is nothing up to 5 yet");
    }

    #[test]
    fn folders_are_searched_for_files_that_say_what_they_are() {
        let dir = TempDir::new().unwrap();
        for name in ["b/2.jsonl", "b/1.json.gz", "a.pb", "notes.txt", ".hidden.json", "c/rules.sql"] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let mut found = Vec::new();
        collect(dir.path(), &mut found).unwrap();
        let names: Vec<_> = found.iter().map(|path| path.strip_prefix(dir.path()).unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.pb", "b/1.json.gz", "b/2.jsonl"]);
        let error = files(&[dir.path().join("c")], &BTreeMap::new(), None).err().unwrap();
        assert!(error.to_string().contains("no recorded telemetry is in it"), "{error}");
        let error = files(&[dir.path().join("gone.json")], &BTreeMap::new(), None).err().unwrap();
        assert!(format!("{error:#}").contains("cannot read"), "{error:#}");
    }
}
