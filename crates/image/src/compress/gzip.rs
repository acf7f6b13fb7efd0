//! One gzip member made of blocks that are compressed on their own.
//!
//! Each block ends in an empty stored block (zlib's "sync flush"), so the blocks' outputs are one
//! deflate stream when put after each other; the last one is ended properly. No block looks back
//! into the one before, which costs about one per cent and makes the bytes a function of content
//! and level alone.

use std::io;

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// What gzip, BuildKit and Go call the default.
pub(super) const DEFAULT_LEVEL: u32 = 6;
/// Bytes of content in one block.
pub(super) const BLOCK: usize = 1 << 20;

/// Header: deflate, no flags, no time, no level hint, unknown system (RFC 1952, 2.3).
pub(super) const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// Whether more blocks follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position {
    Inner,
    Last,
}

/// Compresses one block.
pub(super) fn block(input: &[u8], level: u32, position: Position) -> io::Result<Vec<u8>> {
    let flush = match position {
        Position::Inner => FlushCompress::Sync,
        Position::Last => FlushCompress::Finish,
    };
    let level = if looks_random(input) { 0 } else { level.min(9) };
    let mut deflate = Compress::new(Compression::new(level), false);
    // Deflate never adds more than five bytes per 16 KiB of stored content, and the flush five.
    let mut output = Vec::with_capacity(input.len() + input.len() / 1024 + 64);
    loop {
        let read = usize::try_from(deflate.total_in()).unwrap_or(input.len());
        let status = deflate.compress_vec(&input[read..], &mut output, flush)?;
        let all_read = deflate.total_in() == input.len() as u64;
        match (status, position) {
            (Status::StreamEnd, _) => return Ok(output),
            // A flush is complete once it left room in the output.
            (_, Position::Inner) if all_read && output.len() < output.capacity() => {
                return Ok(output);
            }
            _ => output.reserve(input.len() / 2 + 64),
        }
    }
}

/// Bytes that are looked at together to tell whether they can be compressed.
const SAMPLE: usize = 64 << 10;

/// Whether a block is as good as random: compressed already, or encrypted. Deflate takes longer for
/// such content than for any other and gains nothing, so it is stored.
///
/// Every sample's bytes must be spread as evenly as random ones are: for those, the squares of the
/// 256 counts add up to about `SAMPLE^2 / 256 + SAMPLE`, which is 0.4 per cent above the least
/// possible; two per cent are allowed. Only repeats of 16 KiB and more of random bytes are missed.
fn looks_random(input: &[u8]) -> bool {
    const MOST: u64 = (SAMPLE as u64 * SAMPLE as u64 / 256) / 100 * 102;
    let samples = input.chunks_exact(SAMPLE);
    // A short rest counts for little; a short block is compressed as asked.
    samples.len() > 0 && {
        samples.into_iter().all(|sample| {
            let mut counts = [0u32; 256];
            sample.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
            counts.iter().map(|count| u64::from(*count).pow(2)).sum::<u64>() <= MOST
        })
    }
}

/// Checksum and length of the whole content (modulo 2^32).
pub(super) fn trailer(crc: &Crc) -> [u8; 8] {
    let mut trailer = [0; 8];
    trailer[..4].copy_from_slice(&crc.sum().to_le_bytes());
    trailer[4..].copy_from_slice(&crc.amount().to_le_bytes());
    trailer
}
