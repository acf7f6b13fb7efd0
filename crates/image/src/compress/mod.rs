//! Compressed streams: readers that a hostile stream cannot make large, and parallel writers whose
//! bytes do not depend on the number of threads.

mod ahead;
mod detect;
mod gzip;
mod ordered;
mod read;
mod write;
mod zstd_frames;

pub use ahead::ahead;
pub use detect::detect;
pub(crate) use gzip::member as gzip_member;
pub(crate) use ordered::Ordered;
pub use read::reader;
pub use write::{COMPRESSION_FORMAT, CompressedWriter};

/// How bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// Only read, for `ADD`.
    Bzip2,
    /// Only read, for `ADD`.
    Xz,
}

/// What [`CompressedWriter`] makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// The bytes as they are.
    Uncompressed,
    /// Several gzip members, one after another.
    Gzip {
        /// 0 (stored) to 9.
        level: u32,
    },
    /// Gzip members that a layer's files can be read from one by one: see [`crate::estargz`].
    Estargz {
        /// Gzip's.
        level: u32,
    },
    /// Several zstd frames, one after another.
    Zstd {
        /// 1 to 22.
        level: i32,
    },
}

impl Encoding {
    /// Gzip at the level that is used when nobody asks for another.
    pub const GZIP: Self = Self::Gzip { level: gzip::DEFAULT_LEVEL };
    /// eStargz at the same level.
    pub const ESTARGZ: Self = Self::Estargz { level: gzip::DEFAULT_LEVEL };
    /// Zstd at its own default level.
    pub const ZSTD: Self = Self::Zstd { level: zstd::DEFAULT_COMPRESSION_LEVEL };

    /// Whether what comes out of the stream is more than what went in.
    pub fn is_estargz(self) -> bool {
        matches!(self, Self::Estargz { .. })
    }

    /// The format without its level.
    pub fn compression(self) -> Compression {
        match self {
            Self::Uncompressed => Compression::None,
            Self::Gzip { .. } | Self::Estargz { .. } => Compression::Gzip,
            Self::Zstd { .. } => Compression::Zstd,
        }
    }
}
