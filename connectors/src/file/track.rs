//! One recorded file as a partition.

use std::path::Path;

use lictor_schemas::otlp::signal_of_protobuf;
use lictor_schemas::tables::Signal;

use super::recording::Recording;
use super::{TopicBinding, partition_of, shape};
use crate::error::ConnectorError;
use crate::record::TopicPartition;
use crate::recorded::{Meter, Recorded, Track};

/// A recorded file. Its records are of the topics that their signals are bound to; a file is one partition of each of
/// them, because its order is the only order known.
pub struct FileTrack {
    index: usize,
    binding: TopicBinding,
    recording: Recording,
    /// The signal of the last record that told it.
    signal: Signal,
    has_ended: bool,
}

impl FileTrack {
    /// Opens the file that is partition `index`; `meter` counts its bytes.
    ///
    /// # Errors
    /// The file cannot be read, or is neither JSON nor protobuf.
    pub fn open(path: &Path, index: usize, binding: &TopicBinding, meter: &Meter) -> Result<Self, ConnectorError> {
        let recording = Recording::open(path, meter)?;
        let signal = binding.protobuf.unwrap_or(Signal::Traces);
        Ok(Self { index, binding: binding.clone(), recording, signal, has_ended: false })
    }

    /// What the record at hand holds: as its bytes say, else as the binding does, else as the record before it. What
    /// is no OTLP at all ends as a dead letter, wherever it goes.
    fn signal(&mut self) -> Signal {
        let record = self.recording.record();
        let told = if self.recording.is_json() {
            shape::signal_of_json(record)
        } else {
            self.binding.protobuf.or_else(|| signal_of_protobuf(record))
        };
        self.signal = told.unwrap_or(self.signal);
        self.signal
    }
}

impl Track for FileTrack {
    fn read_next(&mut self) -> Result<Option<Recorded>, ConnectorError> {
        if self.has_ended || !self.recording.read_next()? {
            self.has_ended = true;
            return Ok(None);
        }
        let signal = self.signal();
        let topic = self.binding.topic(signal);
        Ok(Some(Recorded {
            partition: TopicPartition { topic, partition: partition_of(self.index) },
            offset: self.recording.ordinal(),
            timestamp_ms: 0,
            key: None,
            payload: Some(self.recording.record().to_vec()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use tempfile::TempDir;

    use super::*;

    const LINES: &[u8] = b"{\"resourceSpans\":[]}\n{\"resourceLogs\":[]}\n";

    fn gzipped(bytes: &[u8]) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    }

    fn read(name: &str, bytes: &[u8]) -> Result<(Vec<String>, u64), String> {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let binding = TopicBinding { traces: "t".into(), logs: "l".into(), metrics: "m".into(), protobuf: None };
        let meter = Meter::default();
        let mut track = FileTrack::open(&path, 7, &binding, &meter).map_err(|error| error.to_string())?;
        let mut records = Vec::new();
        while let Some(record) = track.read_next().map_err(|error| error.to_string())? {
            let payload = String::from_utf8_lossy(record.payload.as_deref().unwrap()).into_owned();
            records.push(format!("{}@{} {payload}", record.partition, record.offset));
        }
        assert_eq!(track.read_next().unwrap(), None, "it has ended for ever");
        Ok((records, meter.read()))
    }

    #[test]
    fn a_packed_file_holds_what_it_would_hold_unpacked() {
        let expected = vec!["t[7]@0 {\"resourceSpans\":[]}".to_owned(), "l[7]@1 {\"resourceLogs\":[]}".to_owned()];
        let packed = gzipped(LINES);
        let zstd = zstd::encode_all(LINES, 1).unwrap();
        for (name, bytes) in [("a.jsonl", LINES), ("a.jsonl.gz", &packed), ("a.jsonl.zst", &zstd), ("a", &packed)] {
            assert_eq!(read(name, bytes).unwrap(), (expected.clone(), bytes.len() as u64), "{name}");
        }
        // As a writer that was restarted leaves it.
        assert_eq!(read("a.gz", &[gzipped(b"{\"resourceSpans\":[]}\n"), gzipped(b"{}")].concat()).unwrap().0.len(), 2);
    }

    #[test]
    fn protobuf_tells_its_signal_by_its_shape_and_what_does_not_is_as_the_record_before() {
        let metric = b"\x0a\x0f\x12\x0d\x12\x0b\x0a\x01m\x3a\x06\x0a\x04\x18\x01\x18\x01".as_slice();
        let log = b"\x0a\x0d\x12\x0b\x12\x09\x09\x01\x00\x00\x00\x00\x00\x00\x00".as_slice();
        let frame = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
        let frames = [frame(b"\x0a\x00"), frame(log), frame(b"\x0a\x00"), frame(metric)].concat();
        let (records, _) = read("a.pb", &frames).unwrap();
        let topics: Vec<&str> = records.iter().map(|record| &record[..1]).collect();
        assert_eq!(topics, ["t", "l", "l", "m"]);
    }

    #[test]
    fn a_packed_file_that_breaks_off_is_an_error() {
        let packed = gzipped(&LINES.repeat(100));
        let error = read("a.jsonl.gz", &packed[..packed.len() - 10]).unwrap_err();
        assert!(error.contains("a.jsonl.gz: "), "{error}");
    }
}
