//! Files that were packed with gzip or zstd, told by their first bytes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::recorded::Meter;

/// How much is read at once; also how much of a file tells its shape.
pub(super) const BUFFER_BYTES: usize = 64 * 1024;

const GZIP_MAGIC: &[u8] = b"\x1f\x8b";
/// How a zstd frame begins.
pub(super) const ZSTD_MAGIC: &[u8] = b"\x28\xb5\x2f\xfd";

/// What a file holds once it is unpacked.
pub(super) type Unpacked = BufReader<Box<dyn Read + Send>>;

/// Opens a file; `meter` counts its bytes as they are on the disk.
pub(super) fn open(path: &Path, meter: &Meter) -> io::Result<Unpacked> {
    let file = Metered { file: File::open(path)?, meter: meter.clone() };
    let mut packed = BufReader::with_capacity(BUFFER_BYTES, file);
    let head = packed.fill_buf()?;
    let unpacked: Box<dyn Read + Send> = if head.starts_with(GZIP_MAGIC) {
        Box::new(MultiGzDecoder::new(packed))
    } else if head.starts_with(ZSTD_MAGIC) {
        Box::new(zstd::Decoder::with_buffer(packed)?)
    } else {
        Box::new(packed)
    };
    Ok(BufReader::with_capacity(BUFFER_BYTES, unpacked))
}

/// The name without what says how it is packed: `spans.jsonl.gz` holds what `spans.jsonl` would.
pub(super) fn unpacked_name(path: &Path) -> &Path {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match (extension, path.file_stem()) {
        ("gz" | "zst" | "zstd", Some(stem)) => Path::new(stem),
        _ => path,
    }
}

struct Metered {
    file: File,
    meter: Meter,
}

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.meter.add(read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_says_what_is_inside() {
        for (name, inside) in [("a/b.jsonl.gz", "b.jsonl"), ("b.pb.zst", "b.pb"), ("a/b.json", "a/b.json"), ("b", "b")]
        {
            assert_eq!(unpacked_name(Path::new(name)), Path::new(inside));
        }
    }
}
