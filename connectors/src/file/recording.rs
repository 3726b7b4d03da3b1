//! One recorded file, read record by record into one buffer.

use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};

use super::packing::{self, Unpacked, ZSTD_MAGIC};
use super::shape::{Nesting, Shape, shape_of};
use crate::error::ConnectorError;
use crate::recorded::Meter;

/// The largest record taken from a file. The collector's own limit for a received message is 20 MiB; anything near
/// this size is a misread length.
const RECORD_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What an editor on another system may have put in front of a JSON file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A file being read, and the record at hand.
pub(super) struct Recording {
    path: PathBuf,
    reader: Unpacked,
    shape: Shape,
    record: Vec<u8>,
    /// The ordinal of the record at hand; -1 before the first.
    ordinal: i64,
    /// Where the next unread byte lies.
    position: u64,
    /// Where the record at hand begins.
    record_position: u64,
}

impl Recording {
    /// Opens the file and tells its shape; `meter` counts what is read of it.
    pub(super) fn open(path: &Path, meter: &Meter) -> Result<Self, ConnectorError> {
        let failed = |source: io::Error| ConnectorError::File { path: path.to_path_buf(), source };
        let mut reader = packing::open(path, meter).map_err(failed)?;
        let has_mark = reader.fill_buf().map_err(failed)?.starts_with(BYTE_ORDER_MARK);
        let position = if has_mark { BYTE_ORDER_MARK.len() } else { 0 };
        reader.consume(position);
        let extension = packing::unpacked_name(path).extension().and_then(|extension| extension.to_str());
        let shape = shape_of(extension, reader.buffer()).ok_or_else(|| ConnectorError::Recording {
            path: path.to_path_buf(),
            position: 0,
            reason: "the file is neither OTLP/JSON nor OTLP protobuf".to_string(),
        })?;
        let position = position as u64;
        let path = path.to_path_buf();
        Ok(Self { path, reader, shape, record: Vec::new(), ordinal: -1, position, record_position: position })
    }

    /// Reads the next record; `false` at the end of the file.
    ///
    /// # Errors
    /// The file breaks off within a record, or cannot be read.
    pub(super) fn read_next(&mut self) -> Result<bool, ConnectorError> {
        self.record.clear();
        self.record_position = self.position;
        let is_there = match self.shape {
            Shape::Json | Shape::JsonLines | Shape::JsonDocuments => self.read_json()?,
            Shape::Frames => self.read_frame()?,
            Shape::BareMessage => self.read_bare()?,
        };
        self.ordinal += i64::from(is_there);
        Ok(is_there)
    }

    /// The bytes of the record at hand.
    pub(super) fn record(&self) -> &[u8] {
        &self.record
    }

    /// Which record of the file is at hand, from 0.
    pub(super) fn ordinal(&self) -> i64 {
        self.ordinal
    }

    /// Whether the record at hand is JSON text. A packed frame may hold either; no OTLP message begins with a brace.
    pub(super) fn is_json(&self) -> bool {
        match self.shape {
            Shape::Json | Shape::JsonLines | Shape::JsonDocuments => true,
            Shape::Frames => self.record.first() == Some(&b'{'),
            Shape::BareMessage => false,
        }
    }

    fn read_json(&mut self) -> Result<bool, ConnectorError> {
        while self.record.trim_ascii().is_empty() {
            self.record.clear();
            self.record_position = self.position;
            if !self.append_line()? {
                return Ok(false);
            }
        }
        if self.shape == Shape::Json {
            self.shape = if is_closed(&self.record) { Shape::JsonLines } else { Shape::JsonDocuments };
        }
        match self.shape {
            Shape::JsonDocuments => self.append_document()?,
            // Only the last line can lack its end, and only then can it have been cut off.
            _ if !self.record.ends_with(b"\n") && !is_closed(&self.record) => return Err(self.cut_off("line")),
            _ => {}
        }
        let kept = self.record.trim_ascii_end().len();
        self.record.truncate(kept);
        Ok(true)
    }

    /// Appends lines until the document that was begun is closed.
    fn append_document(&mut self) -> Result<(), ConnectorError> {
        let mut nesting = Nesting::default();
        nesting.feed(&self.record);
        while !nesting.is_closed() {
            let begun = self.record.len();
            if !self.append_line()? {
                return Err(self.cut_off("document"));
            }
            nesting.feed(&self.record[begun..]);
        }
        Ok(())
    }

    fn append_line(&mut self) -> Result<bool, ConnectorError> {
        let room = RECORD_BYTES_MAX.saturating_sub(self.record.len() as u64);
        let read = (&mut self.reader).take(room).read_until(b'\n', &mut self.record);
        let read = read.map_err(|error| self.unreadable(error))? as u64;
        self.position += read;
        if read == room && !self.record.ends_with(b"\n") {
            return Err(self.broken(format!("the record is larger than {RECORD_BYTES_MAX} bytes")));
        }
        Ok(read > 0)
    }

    fn read_frame(&mut self) -> Result<bool, ConnectorError> {
        let mut length = Vec::with_capacity(4);
        self.append_bytes(4, &mut length)?;
        let Ok(length) = <[u8; 4]>::try_from(length.as_slice()).map(u32::from_be_bytes) else {
            return match length.len() {
                0 => Ok(false),
                read => Err(self.broken(format!("the file ends after {read} of the 4 bytes of a frame's length"))),
            };
        };
        if u64::from(length) > RECORD_BYTES_MAX {
            return Err(self.broken(format!("the frame says {length} bytes, the largest taken is {RECORD_BYTES_MAX}")));
        }
        let mut record = std::mem::take(&mut self.record);
        self.append_bytes(u64::from(length), &mut record)?;
        self.record = record;
        if self.record.len() as u64 != u64::from(length) {
            let read = self.record.len();
            return Err(self.broken(format!("the frame says {length} bytes, the file ends after {read}")));
        }
        if self.record.starts_with(ZSTD_MAGIC) {
            self.record = self.unpacked()?;
        }
        Ok(true)
    }

    /// What the frame at hand holds, which the exporter packed by itself (`compression: zstd`).
    fn unpacked(&self) -> Result<Vec<u8>, ConnectorError> {
        let broken = |error: io::Error| self.broken(format!("the frame cannot be unpacked: {error}"));
        let mut unpacked = Vec::new();
        let decoder = zstd::Decoder::with_buffer(self.record.as_slice()).map_err(broken)?;
        decoder.take(RECORD_BYTES_MAX + 1).read_to_end(&mut unpacked).map_err(broken)?;
        if unpacked.len() as u64 > RECORD_BYTES_MAX {
            return Err(self.broken(format!("the frame unpacks to more than {RECORD_BYTES_MAX} bytes")));
        }
        Ok(unpacked)
    }

    fn read_bare(&mut self) -> Result<bool, ConnectorError> {
        let mut record = std::mem::take(&mut self.record);
        self.append_bytes(RECORD_BYTES_MAX + 1, &mut record)?;
        self.record = record;
        if self.record.len() as u64 > RECORD_BYTES_MAX {
            return Err(self.broken(format!("the message is larger than {RECORD_BYTES_MAX} bytes")));
        }
        Ok(!self.record.is_empty())
    }

    /// Appends up to `count` bytes; fewer only at the end of the file.
    fn append_bytes(&mut self, count: u64, bytes: &mut Vec<u8>) -> Result<(), ConnectorError> {
        let read = (&mut self.reader).take(count).read_to_end(bytes).map_err(|error| self.unreadable(error))?;
        self.position += read as u64;
        Ok(())
    }

    fn cut_off(&self, what: &str) -> ConnectorError {
        self.broken(format!("the JSON {what} is not closed, the file ends after {} bytes of it", self.record.len()))
    }

    fn broken(&self, reason: String) -> ConnectorError {
        ConnectorError::Recording { path: self.path.clone(), position: self.record_position, reason }
    }

    fn unreadable(&self, source: io::Error) -> ConnectorError {
        ConnectorError::File { path: self.path.clone(), source }
    }
}

fn is_closed(json: &[u8]) -> bool {
    let mut nesting = Nesting::default();
    nesting.feed(json);
    nesting.is_closed()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn read_all(name: &str, bytes: &[u8]) -> Result<Vec<String>, String> {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let strip = |error: ConnectorError| error.to_string().split_at(dir.path().as_os_str().len() + 1).1.to_string();
        let mut recording = Recording::open(&path, &Meter::default()).map_err(strip)?;
        let mut records = Vec::new();
        while recording.read_next().map_err(strip)? {
            assert_eq!(recording.ordinal(), i64::try_from(records.len()).unwrap());
            records.push(String::from_utf8_lossy(recording.record()).into_owned());
        }
        Ok(records)
    }

    #[track_caller]
    fn check(name: &str, bytes: &[u8], expected: &[&str]) {
        assert_eq!(read_all(name, bytes).unwrap(), expected);
    }

    #[track_caller]
    fn check_broken(name: &str, bytes: &[u8], expected: &str) {
        assert_eq!(read_all(name, bytes).unwrap_err(), expected);
    }

    #[test]
    fn json_lines_with_and_without_a_last_line_feed() {
        check("a.jsonl", b"{\"a\":1}\n\n{\"b\":2}\r\n{\"c\":3}", &["{\"a\":1}", "{\"b\":2}", "{\"c\":3}"]);
        check("a.jsonl", b"\xef\xbb\xbf{\"a\":1}\n", &["{\"a\":1}"]);
    }

    #[test]
    fn pretty_printed_documents() {
        check("a.json", b"{\n \"a\": \"}\"\n}\n", &["{\n \"a\": \"}\"\n}"]);
        check("a.json", b"{\n}\n{\n \"b\": [\n]}", &["{\n}", "{\n \"b\": [\n]}"]);
    }

    #[test]
    fn frames_and_bare_messages() {
        check("a.pb", b"\0\0\0\x01x\0\0\0\0\0\0\0\x02yz", &["x", "", "yz"]);
        check("a.pb", b"\x0a\x01z", &["\n\u{1}z"]);
    }

    #[test]
    fn what_breaks_off_is_named_with_its_place() {
        check_broken(
            "a.pb",
            b"\0\0\0\x01x\0\0\0\x09abc",
            "a.pb: byte 5: the frame says 9 bytes, the file ends after 3",
        );
        check_broken("a.pb", b"\0\0", "a.pb: byte 0: the file ends after 2 of the 4 bytes of a frame's length");
        check_broken(
            "a.json",
            b"{}\n{\"a\":[",
            "a.json: byte 3: the JSON line is not closed, the file ends after 6 bytes of it",
        );
        check_broken(
            "a.json",
            b"{\n\"a\":[\n",
            "a.json: byte 0: the JSON document is not closed, the file ends after 8 bytes of it",
        );
    }

    #[test]
    fn a_length_that_cannot_be_is_not_allocated() {
        check_broken(
            "a.pb",
            b"\x09\xff\xff\xff1234",
            "a.pb: byte 0: the frame says 167772159 bytes, the largest taken is 67108864",
        );
    }

    #[test]
    fn what_is_no_otlp_is_refused() {
        check_broken("a.parquet", b"PAR1", "a.parquet: byte 0: the file is neither OTLP/JSON nor OTLP protobuf");
    }

    #[test]
    fn frames_that_the_exporter_packed_are_unpacked() {
        let frame = |bytes: &[u8]| {
            let packed = zstd::encode_all(bytes, 1).unwrap();
            [&u32::try_from(packed.len()).unwrap().to_be_bytes(), packed.as_slice()].concat()
        };
        let frames = [frame(b"\x0a\x01z"), frame(b"{\"a\":1}")].concat();
        check("a.pb", &frames, &["\n\u{1}z", "{\"a\":1}"]);
        let broken = read_all("a.pb", b"\0\0\0\x05\x28\xb5\x2f\xfdz").unwrap_err();
        assert!(broken.starts_with("a.pb: byte 0: the frame cannot be unpacked: "), "{broken}");
    }
}
