//! How a row's fields are stored: JSON behind eight bytes of checksum.
//!
//! The columns of a table are there to find a row; the body is what is believed. A body whose
//! checksum does not fit is as good as no row, so that a flipped bit costs work, never truth.

use serde::Serialize;
use serde::de::DeserializeOwned;

const CHECKSUM: usize = 8;

/// Encodes `value`.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = vec![0; CHECKSUM];
    serde_json::to_writer(&mut bytes, value)?;
    let sum = checksum(&bytes[CHECKSUM..]);
    bytes[..CHECKSUM].copy_from_slice(&sum);
    Ok(bytes)
}

/// Decodes what [`encode`] made; `None` for anything else.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (sum, json) = bytes.split_at_checked(CHECKSUM)?;
    if sum != checksum(json) {
        return None;
    }
    serde_json::from_slice(json).ok()
}

/// The first eight bytes of the BLAKE3 hash: against accidents, not against enemies.
pub(crate) fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let mut sum = [0; CHECKSUM];
    sum.copy_from_slice(&blake3::hash(bytes).as_bytes()[..CHECKSUM]);
    sum
}
