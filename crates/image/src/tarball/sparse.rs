//! Files with holes: where the stored bytes go (GNU tar manual, "Storing Sparse Files").

use super::number;
use super::pax::{Records, decimal};
use crate::limits;

/// A run of stored bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where it starts in the file.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
}

/// Collects segments and refuses maps that overlap, run backwards, leave the file or are too many.
#[derive(Debug, Default)]
pub(super) struct Map {
    segments: Vec<Segment>,
    end: u64,
    stored: u64,
}

impl Map {
    pub(super) fn push(&mut self, offset: u64, length: u64) -> Result<(), String> {
        if self.segments.len() >= limits::SPARSE_SEGMENTS {
            return Err(format!("more than {} sparse segments", limits::SPARSE_SEGMENTS));
        }
        let end = offset.checked_add(length).ok_or("sparse segment beyond any file")?;
        if offset < self.end {
            return Err("sparse segments overlap".to_owned());
        }
        self.end = end;
        self.stored += length;
        if length > 0 {
            self.segments.push(Segment { offset, length });
        }
        Ok(())
    }

    /// The segments, once they are known to agree with the two sizes.
    pub(super) fn finish(self, stored: u64, size: u64) -> Result<Vec<Segment>, String> {
        if self.end > size {
            return Err("sparse segment beyond the end of the file".to_owned());
        }
        if self.stored != stored {
            return Err("sparse segments do not add up to what is stored".to_owned());
        }
        Ok(self.segments)
    }
}

/// Reads `count` pairs of 12-byte fields (GNU's own header form) into `map`. Says whether the
/// table ended early.
pub(super) fn push_gnu_fields(map: &mut Map, table: &[u8]) -> Result<bool, String> {
    for pair in table.chunks_exact(24) {
        let (offset, length) = pair.split_at(12);
        if offset[0] == 0 || length[0] == 0 {
            return Ok(true);
        }
        let number = |field| number::parse(field).and_then(|value| u64::try_from(value).ok());
        match (number(offset), number(length)) {
            (Some(offset), Some(length)) => map.push(offset, length)?,
            _ => return Err("malformed sparse segment".to_owned()),
        }
    }
    Ok(false)
}

/// The map of pax formats 0.0 (repeated keys) and 0.1 (one comma-separated list).
pub(super) fn pax_0(records: &Records) -> Result<Map, String> {
    let mut map = Map::default();
    let malformed = || "malformed sparse map".to_owned();
    let numbers: Vec<u64> = match records.get("GNU.sparse.map") {
        Some(list) => list
            .split(|byte| *byte == b',')
            .map(|text| decimal(text).ok_or_else(malformed))
            .collect::<Result<_, _>>()?,
        None => {
            let offsets_first =
                records.sparse_pairs.chunks(2).all(|pair| matches!(pair, [(true, _), (false, _)]));
            if !offsets_first {
                return Err(malformed());
            }
            records
                .sparse_pairs
                .iter()
                .map(|(_, text)| decimal(text).ok_or_else(malformed))
                .collect::<Result<_, _>>()?
        }
    };
    if !numbers.len().is_multiple_of(2) {
        return Err(malformed());
    }
    for pair in numbers.chunks_exact(2) {
        map.push(pair[0], pair[1])?;
    }
    Ok(map)
}
