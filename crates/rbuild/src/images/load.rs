//! Images out of archives and layouts into the store: what docker, podman, buildah, skopeo and
//! BuildKit save.
//!
//! An archive says in `index.json` what it holds (OCI), in `manifest.json` (`docker save`), or in
//! both. What OCI names keeps its manifest; for `docker save` one is made, with the layers as they
//! are in the archive. Everything is hashed on the way in, and what runs here is unpacked, so that a
//! damaged archive is refused and not found out later.

use std::io::{Read, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use rbuild_image::compress::{Compression, detect, reader};
use rbuild_image::layout::Layout;
use rbuild_image::{BlobDir, ImageArchive};
use rbuild_rooted::Root;
use rbuild_types::{CancelToken, Ctx, Digest, Platform, Progress, Reference};

use super::loading::{Loading, Wanted};
use crate::sources::layout::LayoutImage;
use crate::{BuildError, Engine};

/// Where images are loaded from.
pub enum LoadSource<'r> {
    /// An archive, compressed or not, or a directory with an OCI layout or in skopeo's `dir:` form.
    Path(PathBuf),
    /// An archive, compressed or not.
    Stream(Box<dyn Read + 'r>),
}

/// An image that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedImage {
    /// The image id.
    pub id: Digest,
    /// The names that it was given; none where the archive says none.
    pub names: Vec<Reference>,
}

/// Bytes that tell an archive's compression.
pub(super) const HEAD: usize = 512;

impl Engine {
    /// Loads all images of an archive or layout, or those for a platform: of an index, then, only
    /// the image for it. Names move to them when all of it is there.
    ///
    /// # Errors
    ///
    /// [`BuildError::Image`] for what is no image, or damaged, and when there is none for the
    /// platform; [`BuildError::Io`].
    pub fn load_images(
        &self,
        source: LoadSource<'_>,
        platform: Option<&Platform>,
        progress: &dyn Progress,
        cancel: &CancelToken,
    ) -> Result<Vec<LoadedImage>, BuildError> {
        let ctx = Ctx::new(progress, cancel);
        let _lease = self.store.lease()?;
        let wanted = Wanted { platform: platform.cloned(), name: None };
        let loaded = self.gather(source, wanted, ctx)?.finish()?;
        for image in &loaded {
            let name = image.names.first().map(Reference::familiar).unwrap_or_default();
            self.image_event("load", &image.id.to_string(), &name);
        }
        Ok(loaded)
    }

    /// Brings the bytes of images into the store, where they have no name yet. The caller has a
    /// lease.
    pub(crate) fn gather<'l>(
        &'l self,
        source: LoadSource<'_>,
        wanted: Wanted,
        ctx: Ctx<'l>,
    ) -> Result<Loading<'l>, BuildError> {
        let loading = Loading::new(self, wanted, ctx);
        match source {
            LoadSource::Path(path) if path.is_dir() => load_directory(loading, &path),
            LoadSource::Path(path) => {
                let failed =
                    |source| BuildError::Input { what: "read", path: path.clone(), source };
                let file = fs_err::File::open(&path).map_err(failed)?;
                let mut head = Vec::new();
                if file.metadata().map_err(failed)?.is_file() {
                    (&file).take(HEAD as u64).read_to_end(&mut head).map_err(failed)?;
                    (&file).rewind().map_err(failed)?;
                }
                match detect(&head) {
                    Some(Compression::None) => load_archive(loading, file.into_file()),
                    _ => self.load_stream(loading, Box::new(file)),
                }
            }
            LoadSource::Stream(stream) => self.load_stream(loading, stream),
        }
    }

    /// An archive is read at any offset, so a stream goes to a file first, decompressed.
    fn load_stream<'l>(
        &self,
        loading: Loading<'l>,
        mut stream: Box<dyn Read + '_>,
    ) -> Result<Loading<'l>, BuildError> {
        let failed = |source| BuildError::Io { what: "read the archive".to_owned(), source };
        let mut head = Vec::new();
        stream.by_ref().take(HEAD as u64).read_to_end(&mut head).map_err(failed)?;
        let compression = detect(&head).ok_or_else(|| BuildError::Request {
            message:
                "this is no archive of images: expected a tar, plain or compressed with gzip, \
                      zstd, xz or bzip2, as `docker save` or `skopeo copy` write it"
                    .to_owned(),
        })?;
        let whole = std::io::Cursor::new(head).chain(stream);
        let mut plain = reader(compression, whole, "the archive")?;
        let scratch = self.store.scratch("load")?;
        let path = scratch.path().join("archive.tar");
        let full = |source| BuildError::Io { what: "spool the archive".to_owned(), source };
        let mut file = fs_err::File::create_new(&path).map_err(full)?;
        let mut buffer = vec![0; 1 << 18];
        loop {
            loading.ctx.cancel.check()?;
            let count = plain.read(&mut buffer).map_err(failed)?;
            if count == 0 {
                break;
            }
            file.write_all(buffer.get(..count).unwrap_or_default()).map_err(full)?;
        }
        load_archive(loading, fs_err::File::open(&path).map_err(full)?.into_file())
    }

    /// [`Engine::gather`] for one image of a layout.
    pub(crate) fn gather_of_layout<'l>(
        &'l self,
        image: &LayoutImage,
        ctx: Ctx<'l>,
    ) -> Result<Loading<'l>, BuildError> {
        let mut loading = Loading::new(self, Wanted::default(), ctx);
        let layout = image.open()?;
        loading.entry(&layout, &image.find(&layout)?, 0)?;
        Ok(loading)
    }
}

fn load_archive(mut loading: Loading<'_>, file: std::fs::File) -> Result<Loading<'_>, BuildError> {
    let archive = ImageArchive::open(file)?;
    let index = archive.index()?;
    for entry in index.iter().flat_map(|index| &index.manifests) {
        if loading.wants_entry(entry) {
            loading.entry(&archive, entry, 0)?;
        }
    }
    let saved = archive.saved_images()?;
    for image in saved.iter().flatten() {
        if loading.wants_saved(image) {
            loading.saved(&archive, image)?;
        }
    }
    if index.is_none() && saved.is_none() {
        return Err(BuildError::Request {
            message: "the archive holds no images: there is neither an index.json nor a \
                      manifest.json in it"
                .to_owned(),
        });
    }
    Ok(loading)
}

fn load_directory<'l>(mut loading: Loading<'l>, path: &Path) -> Result<Loading<'l>, BuildError> {
    let root = Root::open(path)?;
    if path.join("oci-layout").exists() {
        let layout = Layout::open(root)?;
        for entry in &layout.index()?.manifests {
            loading.entry(&layout, entry, 0)?;
        }
    } else if path.join("manifest.json").exists() {
        let directory = BlobDir::open(root)?;
        loading.entry(&directory, directory.descriptor(), 0)?;
    } else {
        let message = format!(
            "{} holds no image: there is neither an oci-layout nor a manifest.json in it",
            path.display()
        );
        return Err(BuildError::Request { message });
    }
    Ok(loading)
}
