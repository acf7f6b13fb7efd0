//! What strangers' data may make this crate hold in memory, each with its reason.
//!
//! Nothing is allocated by a claimed size: buffers grow with the bytes that really arrive, up to
//! these limits.

/// Bytes of one manifest, index, config or layout file: what BuildKit and containers/image accept.
pub const DOCUMENT: u64 = 4 << 20;
/// Layers of one image: overlay cannot stack more than 500 lower directories.
pub const LAYERS: usize = 500;
/// Images and indexes that one index may list.
pub const INDEX_ENTRIES: usize = 4096;
/// Bytes of one pax extended header: Go's archive/tar accepts the same.
pub const PAX: u64 = 1 << 20;
/// Bytes of one GNU long name: sixteen times Linux' `PATH_MAX`.
pub const LONG_NAME: u64 = 64 << 10;
/// Segments of one sparse file: 16 MiB of memory.
pub const SPARSE_SEGMENTS: usize = 1 << 20;
/// Bytes of one path in an archive. Longer ones can be neither made nor linked to by one call.
pub const PATH: usize = 4095;
/// Bytes of memory that a zstd frame may ask for; the largest that `zstd --long` makes without
/// `--ultra` asking the reader for consent.
pub const ZSTD_WINDOW_LOG: u32 = 27;
/// Members of an archive that is read as an image (layers, documents and directories).
pub const ARCHIVE_MEMBERS: usize = 1 << 16;
