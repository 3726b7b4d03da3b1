//! The frame of everything that we write for ourselves: a head in JSON, and bytes that it describes.
//!
//! Layout: format version (1 byte), length of the head (4 bytes, little endian), the head, the bytes.

use serde::Serialize;
use serde::de::DeserializeOwned;

const FORMAT: u8 = 1;

/// Why a frame could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PackedError {
    /// Another version of lictor has written it.
    #[error("its format is {found}, this version of lictor reads format {FORMAT}: update this instance")]
    Format {
        /// What was found.
        found: u8,
    },
    /// It is cut off, or something else.
    #[error("it is malformed: {0}")]
    Malformed(String),
}

impl PackedError {
    pub(crate) fn malformed(what: impl ToString) -> Self {
        Self::Malformed(what.to_string())
    }
}

/// Writes a frame; its bytes come in pieces, so that they are copied once.
pub(crate) fn pack<T: Serialize>(head: &T, pieces: &[Vec<u8>]) -> Vec<u8> {
    let head = serde_json::to_vec(head).unwrap_or_else(|e| unreachable!("heads are plain JSON: {e}"));
    let length = u32::try_from(head.len()).unwrap_or_else(|_| unreachable!("a head of {} bytes", head.len()));
    let mut packed = Vec::with_capacity(5 + head.len() + pieces.iter().map(Vec::len).sum::<usize>());
    packed.push(FORMAT);
    packed.extend_from_slice(&length.to_le_bytes());
    packed.extend_from_slice(&head);
    pieces.iter().for_each(|piece| packed.extend_from_slice(piece));
    packed
}

/// Reads a frame.
pub(crate) fn unpack<T: DeserializeOwned>(packed: &[u8]) -> Result<(T, &[u8]), PackedError> {
    let (format, rest) = packed.split_first().ok_or_else(|| PackedError::malformed("it is empty"))?;
    if *format != FORMAT {
        return Err(PackedError::Format { found: *format });
    }
    let cut_off = || PackedError::malformed("it is cut off");
    let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(cut_off)?;
    let (head, bytes) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(cut_off)?;
    Ok((serde_json::from_slice(head).map_err(PackedError::malformed)?, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_and_bytes_come_back() {
        let packed = pack(&vec!["a", "b"], &[b"by".to_vec(), b"tes".to_vec()]);
        assert_eq!(unpack::<Vec<String>>(&packed).unwrap(), (vec!["a".to_owned(), "b".to_owned()], &b"bytes"[..]));
    }

    #[test]
    fn another_format_and_a_cut_off_frame_are_told_apart() {
        let mut packed = pack(&1, &[]);
        assert!(matches!(unpack::<i32>(&packed[..4]), Err(PackedError::Malformed(_))));
        packed[0] = 9;
        let message = unpack::<i32>(&packed).unwrap_err().to_string();
        assert!(message.starts_with("its format is 9, this version of lictor reads format 1"), "{message}");
    }
}
