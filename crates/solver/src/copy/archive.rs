//! ADD's archives, by the unpacker of `rbuild-image`.

use std::fs::File;
use std::path::Path;

use rbuild_image::layer::{self, UnpackOptions};
use rbuild_rooted::Root;
use rbuild_types::CancelToken;

use super::apply::{ArchiveOptions, Archives, Ownership};

/// Unpacks archives as `rbuild-image` does: plain tar, gzip, bzip2, xz and zstd.
#[derive(Debug, Clone)]
pub struct LocalArchives<'a> {
    /// Device nodes, limits and marks of the target's file system. Its ownership is not looked
    /// at: the instruction decides.
    pub unpack: UnpackOptions,
    /// Stops a long unpacking.
    pub cancel: &'a CancelToken,
}

impl Archives for LocalArchives<'_> {
    fn is_archive(&self, file: &File) -> std::io::Result<bool> {
        Ok(layer::is_archive(file))
    }

    fn unpack(
        &self,
        mut file: File,
        root: &Root,
        destination: &Path,
        options: &ArchiveOptions,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut unpack = self.unpack.clone();
        let mut chown = options.owner;
        unpack.ownership = match options.ownership {
            Ownership::Set => layer::Ownership::Archive,
            Ownership::Leave => {
                chown = None;
                layer::Ownership::Caller
            }
        };
        let options = layer::ArchiveOptions { destination: destination.to_owned(), chown, unpack };
        layer::unpack_archive(&mut file, root, &options, self.cancel)?;
        Ok(())
    }
}
