//! Layers as eStargz: gzip layers whose files can be fetched and read one by one.
//!
//! The form is that of containerd's stargz-snapshotter (its `docs/estargz.md`), written as BuildKit
//! writes it:
//!
//! * The tar as it is, byte for byte, its end included, cut into gzip members: one starts at the
//!   content of each file that has any, and every 4 MiB within it. What stands between contents
//!   (padding, headers, entries without content) follows in the member before, or in one of its own
//!   when it grows past 4 MiB.
//! * A second tar with nothing but `stargz.index.json`, in one member: the table of contents,
//!   with each entry of the first one, where its content starts, and digests.
//! * A member without content that says where that table starts: the footer.
//!
//! Whoever reads a blob as the gzip layer it also is meets the end of the first tar before the
//! table, and unpacks what was packed. (Programs that write the table in front of the end leave
//! `/stargz.index.json` in every container.) For the same reason there is no landmark file, which
//! would say how much to fetch ahead: BuildKit writes none either, and readers take their own
//! measure then.
//!
//! The uncompressed bytes are others than the layer's: so is the diff id, and with it the config
//! and the id of an image.

mod toc;
mod writer;

use rbuild_types::Digest;

pub use writer::EstargzWriter;

/// Annotation of a layer: the digest of its table of contents, which names those of all contents.
pub const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
/// Annotation of a layer: how many bytes come out of it, for podman's lazy storage.
pub const UNCOMPRESSED_SIZE: &str = "io.containers.estargz.uncompressed-size";

/// What is to be said of a finished blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estargz {
    /// Of the table of contents.
    pub toc_digest: Digest,
    /// Of all that comes out of the blob.
    pub diff_id: Digest,
    /// Bytes of that.
    pub uncompressed_size: u64,
}

/// The name of the table's entry.
const TOC_NAME: &str = "stargz.index.json";
/// Bytes of content in one member.
const CHUNK: usize = 4 << 20;

/// The last member: an empty one whose extra field holds the offset of the table's.
fn footer(toc_offset: u64) -> Vec<u8> {
    let offset = format!("{toc_offset:016x}STARGZ");
    let length = offset.len() as u16;
    // Deflate with an extra field, no time, no system.
    let mut footer = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff];
    footer.extend_from_slice(&(length + 4).to_le_bytes());
    footer.extend_from_slice(b"SG");
    footer.extend_from_slice(&length.to_le_bytes());
    footer.extend_from_slice(offset.as_bytes());
    // The last block of a stream, stored and empty; checksum and size of nothing.
    footer.extend_from_slice(&[1, 0, 0, 0xff, 0xff]);
    footer.extend_from_slice(&[0; 8]);
    footer
}
