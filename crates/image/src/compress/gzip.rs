//! Gzip members that are compressed on their own; a stream may consist of any number of them.
//!
//! libdeflate takes a third of zlib's time for files of the same size, but ends every stream: so each
//! block is a member, as in an eStargz layer. RFC 1952 says that they are read as one, and all that
//! reads layers does.

use std::io;

use libdeflater::{CompressionLvl, Compressor};

/// Makes files of the size that the default of gzip, BuildKit and Go does, zlib's 6, for less than
/// libdeflate's 6 takes.
pub(super) const DEFAULT_LEVEL: u32 = 5;
/// Bytes of content in one member.
pub(super) const MEMBER: usize = 1 << 20;

/// Compresses one member.
pub(crate) fn member(input: &[u8], level: u32) -> io::Result<Vec<u8>> {
    let level = if looks_random(input) { 0 } else { level.min(9) };
    let level = CompressionLvl::new(level as i32)
        .map_err(|_| io::Error::other(format!("gzip has no level {level}")))?;
    let mut compressor = Compressor::new(level);
    let mut output = vec![0; compressor.gzip_compress_bound(input.len())];
    let count = compressor.gzip_compress(input, &mut output).map_err(io::Error::other)?;
    output.truncate(count);
    Ok(output)
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
