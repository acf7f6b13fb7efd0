//! Documents that a cache elsewhere has: JSON with a version, compressed as one zstd stream.
//!
//! They are not trusted: no more is read than a document may have, and what is quoted is short.

use std::fmt::Display;
use std::io::{self, Read, Write as _};

use rayon::ThreadPool;
use rbuild_image::compress::{CompressedWriter, Compression, Encoding, reader};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Characters of a parser's message: what a line of a terminal holds. Parsers quote strangers' text.
const MAX_QUOTED: usize = 200;

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Reads a document of at most `limit` bytes, uncompressed, and of this version. The error is the
/// end of a sentence that begins with what the document is.
pub(super) fn read<D: DeserializeOwned>(
    source: impl Read,
    limit: u64,
    known: u32,
) -> Result<D, String> {
    let mut text = Vec::new();
    reader(Compression::Zstd, source, "the stream")
        .map_err(damaged)?
        .take(limit + 1)
        .read_to_end(&mut text)
        .map_err(damaged)?;
    if text.len() as u64 > limit {
        return Err("is too large".to_owned());
    }
    // Another version may have other fields.
    let Versioned { version } = serde_json::from_slice(&text).map_err(damaged)?;
    if version != known {
        return Err(format!("has version {version}, known is {known}: use a newer rbuild"));
    }
    serde_json::from_slice(&text).map_err(damaged)
}

/// The bytes of a document that has this text.
pub(super) fn compressed(text: &[u8], pool: &ThreadPool) -> io::Result<Vec<u8>> {
    let mut writer = CompressedWriter::new(Vec::new(), Encoding::ZSTD, pool);
    writer.write_all(text)?;
    writer.finish()
}

fn damaged(problem: impl Display) -> String {
    let problem: String = problem.to_string().chars().take(MAX_QUOTED).collect();
    format!("is damaged: {problem}")
}
