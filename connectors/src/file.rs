//! Recorded OTLP from files, as the OpenTelemetry Collector's file exporter writes it.
//!
//! JSON (one object per line, or pretty-printed documents) and protobuf (frames with a length of four bytes, or one
//! bare message), as they are or packed with gzip or zstd, whole or frame by frame. A file is read as a partition of
//! its own, because its order is the only order known: rows of one file are never late because of another's. Files are
//! read one after the other, each is given up at its end, and nothing is loaded beyond the record at hand.
//!
//! Invariant: the same files in the same order give the same records with the same coordinates.

mod packing;
mod recording;
mod shape;
mod track;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lictor_schemas::tables::Signal;

use crate::error::ConnectorError;
use crate::record::{NextOffset, RecordRef, TopicPartition};
use crate::recorded::Meter;
use crate::source::{AssignmentChange, Polled, Source};
use recording::Recording;

pub use track::FileTrack;

/// Which topic a recorded record would have come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicBinding {
    /// For JSON with `resourceSpans`, and for JSON that cannot be recognised (it ends as a dead letter of this topic).
    pub traces: Arc<str>,
    /// For JSON with `resourceLogs`.
    pub logs: Arc<str>,
    /// For JSON with `resourceMetrics`.
    pub metrics: Arc<str>,
    /// What protobuf files hold: their bytes do not say it, and metrics would decode as logs without an error.
    pub protobuf: Option<Signal>,
}

impl TopicBinding {
    fn topic(&self, signal: Signal) -> Arc<str> {
        Arc::clone(match signal {
            Signal::Traces => &self.traces,
            Signal::Logs => &self.logs,
            Signal::Metrics => &self.metrics,
        })
    }
}

/// Reads recorded files once, from the beginning. Commits are accepted and mean nothing.
pub struct FileSource {
    binding: TopicBinding,
    paths: Vec<PathBuf>,
    /// The partition that each file begins with; announced by the first poll.
    to_announce: Option<Vec<TopicPartition>>,
    /// Index into `paths` of the file being read, or to be read next.
    current: usize,
    recording: Option<Recording>,
    /// The partitions that the current file turned out to hold.
    seen: BTreeSet<TopicPartition>,
}

impl FileSource {
    /// Looks at the first record of each file; nothing is held open. Partition `i` is the `i`-th path.
    ///
    /// # Errors
    /// A file cannot be read, is neither JSON nor protobuf, breaks off in its first record, or is protobuf while
    /// `binding.protobuf` does not say what it holds.
    pub fn open(paths: &[PathBuf], binding: TopicBinding) -> Result<Self, ConnectorError> {
        let mut first = Vec::new();
        for (index, path) in paths.iter().enumerate() {
            let mut recording = Recording::open(path, &Meter::default())?;
            if recording.read_next()? {
                let topic = topic_of(&recording, &binding, path)?;
                first.push(TopicPartition { topic, partition: partition_of(index) });
            }
        }
        Ok(Self {
            binding,
            paths: paths.to_vec(),
            to_announce: Some(first),
            current: 0,
            recording: None,
            seen: BTreeSet::new(),
        })
    }

    /// Hands over the next record of the current file; `false` at its end.
    fn read_current(&mut self, path: &Path, absorb: &mut dyn FnMut(RecordRef<'_>)) -> Result<bool, ConnectorError> {
        let recording = match &mut self.recording {
            Some(recording) => recording,
            none => none.insert(Recording::open(path, &Meter::default())?),
        };
        if !recording.read_next()? {
            self.recording = None;
            return Ok(false);
        }
        let topic = topic_of(recording, &self.binding, path)?;
        let partition = partition_of(self.current);
        absorb(RecordRef {
            topic: &topic,
            partition,
            offset: recording.ordinal(),
            timestamp_ms: 0,
            key: None,
            payload: Some(recording.record()),
            ..RecordRef::default()
        });
        self.seen.insert(TopicPartition { topic, partition });
        Ok(true)
    }
}

impl Source for FileSource {
    /// Never waits. The end of a file is reported as the revocation of its partitions, so that it holds back nobody's
    /// time.
    fn poll(&mut self, _wait: Duration, absorb: &mut dyn FnMut(RecordRef<'_>)) -> Result<Polled, ConnectorError> {
        if let Some(partitions) = self.to_announce.take() {
            return Ok(Polled::Assignment(AssignmentChange::Assigned(partitions)));
        }
        let Some(path) = self.paths.get(self.current).cloned() else { return Ok(Polled::Ended) };
        if self.read_current(&path, absorb)? {
            return Ok(Polled::Record);
        }
        self.current += 1;
        let finished = std::mem::take(&mut self.seen);
        Ok(Polled::Assignment(AssignmentChange::Revoked(finished.into_iter().collect())))
    }

    fn commit(&mut self, _next: &[(TopicPartition, NextOffset)]) -> Result<(), ConnectorError> {
        Ok(())
    }

    fn release(&mut self, _partitions: &[TopicPartition]) -> Result<(), ConnectorError> {
        Ok(())
    }
}

/// The ordinal of a file as a partition number; two thousand million files do not fit on a command line.
fn partition_of(index: usize) -> i32 {
    i32::try_from(index).unwrap_or(i32::MAX)
}

fn topic_of(recording: &Recording, binding: &TopicBinding, path: &Path) -> Result<Arc<str>, ConnectorError> {
    if recording.is_json() {
        let signal = shape::signal_of_json(recording.record()).unwrap_or(Signal::Traces);
        return Ok(binding.topic(signal));
    }
    binding.protobuf.map(|signal| binding.topic(signal)).ok_or_else(|| ConnectorError::Recording {
        path: path.to_path_buf(),
        position: 0,
        reason: "a protobuf file does not say what it holds: name its signal (traces, logs or metrics)".to_string(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::error::Fault;

    fn binding(protobuf: Option<Signal>) -> TopicBinding {
        TopicBinding { traces: "t".into(), logs: "l".into(), metrics: "m".into(), protobuf }
    }

    fn write(dir: &TempDir, files: &[(&str, &[u8])]) -> Vec<PathBuf> {
        let paths = files.iter().map(|(name, bytes)| {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        });
        paths.collect()
    }

    /// Everything the source says, as text: `+t[0]` assigned, `-t[0]` given up, `t[0]@3 payload` a record.
    fn said(source: &mut FileSource) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let polled = source.poll(Duration::ZERO, &mut |r| {
                let payload = String::from_utf8_lossy(r.payload.unwrap());
                lines.push(format!("{}[{}]@{} {payload}", r.topic, r.partition, r.offset));
            });
            match polled.unwrap() {
                Polled::Record => {}
                Polled::Assignment(AssignmentChange::Assigned(all)) => {
                    lines.extend(all.iter().map(|p| format!("+{p}")))
                }
                Polled::Assignment(AssignmentChange::Revoked(all)) => lines.extend(all.iter().map(|p| format!("-{p}"))),
                Polled::Ended => return lines,
                other => panic!("{other:?} from files"),
            }
        }
    }

    #[test]
    fn each_file_is_a_partition_and_each_json_line_goes_to_the_topic_of_its_root_key() {
        let dir = TempDir::new().unwrap();
        let mixed = b"{\"resourceSpans\":[]}\n{\"resourceLogs\":[]}\n";
        let files = write(&dir, &[("a.jsonl", mixed), ("b.jsonl", b"{ \"resourceMetrics\" : [] }")]);
        let mut source = FileSource::open(&files, binding(None)).unwrap();
        let expected = [
            "+t[0]",
            "+m[1]",
            "t[0]@0 {\"resourceSpans\":[]}",
            "l[0]@1 {\"resourceLogs\":[]}",
            "-l[0]",
            "-t[0]",
            "m[1]@0 { \"resourceMetrics\" : [] }",
            "-m[1]",
        ];
        assert_eq!(said(&mut source), expected);
        assert_eq!(source.poll(Duration::ZERO, &mut |_| panic!("ended")).unwrap(), Polled::Ended);
    }

    #[test]
    fn a_line_that_is_no_otlp_is_handed_over_for_the_dead_letters() {
        let dir = TempDir::new().unwrap();
        let files = write(&dir, &[("a.jsonl", b"{\"resourceLogs\":[]}\n{\"broken\n{\"resourceLogs\":[]}\n")]);
        let mut source = FileSource::open(&files, binding(None)).unwrap();
        let records = said(&mut source);
        assert!(records.contains(&"t[0]@1 {\"broken".to_string()), "{records:?}");
        assert!(records.contains(&"l[0]@2 {\"resourceLogs\":[]}".to_string()), "{records:?}");
    }

    #[test]
    fn protobuf_goes_to_the_topic_of_the_signal_that_was_named() {
        let dir = TempDir::new().unwrap();
        let files = write(&dir, &[("a.binpb", b"\0\0\0\x02\x0a\x00\0\0\0\x03abc"), ("b.pb", b"\x0a\x00")]);
        let mut source = FileSource::open(&files, binding(Some(Signal::Metrics))).unwrap();
        let expected = ["+m[0]", "+m[1]", "m[0]@0 \n\0", "m[0]@1 abc", "-m[0]", "m[1]@0 \n\0", "-m[1]"];
        assert_eq!(said(&mut source), expected);
    }

    #[test]
    fn protobuf_without_a_signal_is_refused() {
        let dir = TempDir::new().unwrap();
        let files = write(&dir, &[("a.pb", b"\x0a\x00")]);
        let error = FileSource::open(&files, binding(None)).err().unwrap();
        assert_eq!(error.fault(), Fault::User);
        assert!(error.to_string().contains("a.pb: byte 0: a protobuf file does not say"), "{error}");
    }

    #[test]
    fn an_empty_file_has_no_partition_and_no_records() {
        let dir = TempDir::new().unwrap();
        let files = write(&dir, &[("a.jsonl", b""), ("b.pb", b""), ("c.jsonl", b"\n\n")]);
        assert_eq!(said(&mut FileSource::open(&files, binding(None)).unwrap()), Vec::<String>::new());
    }

    #[test]
    fn a_missing_file_is_named() {
        let missing = PathBuf::from("no/such/spans.jsonl");
        let error = FileSource::open(&[missing], binding(None)).err().unwrap();
        assert!(error.to_string().starts_with("no/such/spans.jsonl: "), "{error}");
        assert_eq!(error.fault(), Fault::User);
    }
}
