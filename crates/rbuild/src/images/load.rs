//! Images out of archives and layouts into the store: what docker, podman, buildah, skopeo and
//! BuildKit save.
//!
//! An archive says in `index.json` what it holds (OCI), in `manifest.json` (`docker save`), or in
//! both. What OCI names keeps its manifest; for `docker save` one is made, with the layers as they
//! are in the archive. Everything is hashed on the way in, and what runs here is unpacked, so that a
//! damaged archive is refused and not found out later.

use std::io::{Read, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use rbuild_image::blob::{BlobSource, reachable, read_document};
use rbuild_image::compress::{Compression, detect, reader};
use rbuild_image::config::parse_config;
use rbuild_image::index::{pick, pick_any};
use rbuild_image::layout::{IMAGE_NAME, Layout, REF_NAME};
use rbuild_image::manifest::{Descriptor, Document, Manifest, chain_ids, parse_manifest};
use rbuild_image::media_type::Family;
use rbuild_image::{BlobDir, ImageArchive, ImageError, SavedImage};
use rbuild_rooted::Root;
use rbuild_types::{CancelToken, Ctx, Digest, Event, Platform, Progress, Reference};

use crate::sources::image::{ImageSource, MAX_DOCUMENT, MAX_INDEX_DEPTH, too_deep};
use crate::sources::layers::{LayerBlob, copy_blob, diff_id_of};
use crate::{BuildError, Engine, Pull};

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
const HEAD: usize = 512;

impl Engine {
    /// Loads all images of an archive or layout. Names move to them when all of it is there.
    ///
    /// # Errors
    ///
    /// [`BuildError::Image`] for what is no image, or damaged; [`BuildError::Io`].
    pub fn load_images(
        &self,
        source: LoadSource<'_>,
        progress: &dyn Progress,
        cancel: &CancelToken,
    ) -> Result<Vec<LoadedImage>, BuildError> {
        let ctx = Ctx::new(progress, cancel);
        let _lease = self.store.lease()?;
        match source {
            LoadSource::Path(path) if path.is_dir() => self.load_directory(&path, ctx),
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
                    Some(Compression::None) => self.load_archive(file.into_file(), ctx),
                    _ => self.load_stream(Box::new(file), ctx),
                }
            }
            LoadSource::Stream(stream) => self.load_stream(stream, ctx),
        }
    }

    /// An archive is read at any offset, so a stream goes to a file first, decompressed.
    fn load_stream(
        &self,
        mut stream: Box<dyn Read + '_>,
        ctx: Ctx<'_>,
    ) -> Result<Vec<LoadedImage>, BuildError> {
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
            ctx.cancel.check()?;
            let count = plain.read(&mut buffer).map_err(failed)?;
            if count == 0 {
                break;
            }
            file.write_all(buffer.get(..count).unwrap_or_default()).map_err(full)?;
        }
        self.load_archive(fs_err::File::open(&path).map_err(full)?.into_file(), ctx)
    }

    fn load_archive(
        &self,
        file: std::fs::File,
        ctx: Ctx<'_>,
    ) -> Result<Vec<LoadedImage>, BuildError> {
        let archive = ImageArchive::open(file)?;
        let mut loading = Loading::new(self, ctx);
        let index = archive.index()?;
        for entry in index.iter().flat_map(|index| &index.manifests) {
            loading.entry(&archive, entry, 0)?;
        }
        let saved = archive.saved_images()?;
        for image in saved.iter().flatten() {
            loading.saved(&archive, image)?;
        }
        if index.is_none() && saved.is_none() {
            return Err(BuildError::Request {
                message: "the archive holds no images: there is neither an index.json nor a \
                          manifest.json in it"
                    .to_owned(),
            });
        }
        loading.finish()
    }

    fn load_directory(&self, path: &Path, ctx: Ctx<'_>) -> Result<Vec<LoadedImage>, BuildError> {
        let mut loading = Loading::new(self, ctx);
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
        loading.finish()
    }
}

/// Images on their way into the store.
struct Loading<'l> {
    engine: &'l Engine,
    ctx: Ctx<'l>,
    found: Vec<Found>,
}

/// An image whose bytes are in the store.
struct Found {
    top: Descriptor,
    /// The image that runs here, and its config.
    runs: Option<(Digest, Digest)>,
    names: Vec<Reference>,
}

impl<'l> Loading<'l> {
    fn new(engine: &'l Engine, ctx: Ctx<'l>) -> Self {
        Self { engine, ctx, found: Vec::new() }
    }

    /// Takes an image that an index names.
    fn entry(
        &mut self,
        blobs: &dyn BlobSource,
        entry: &Descriptor,
        depth: usize,
    ) -> Result<(), BuildError> {
        if depth > MAX_INDEX_DEPTH {
            return Err(too_deep().into());
        }
        let mut top = Descriptor::new(entry.media_type.clone(), entry.digest, entry.size);
        let mut runs = None;
        let bytes = read_document(blobs, &top)?;
        let media_type = Some(top.media_type.as_str()).filter(|text| !text.is_empty());
        match parse_manifest(&bytes, media_type)? {
            Document::Manifest(manifest) => {
                top.media_type = manifest.media_type().to_owned();
                runs = manifest.is_image().then_some((top.digest, manifest.config.digest));
            }
            Document::Index(mut index) => {
                top.media_type = index.media_type().to_owned();
                let named = index.manifests.len();
                index.manifests.retain(|child| blobs.size(child.digest).is_ok());
                let own = pick(&index, &Platform::host()).ok().cloned();
                if index.manifests.len() < named {
                    // Docker saves an index with those of its images that it has.
                    let Some(child) = pick_any(&index, &Platform::host()) else {
                        return Err(ImageError::MissingBlob { digest: top.digest }.into());
                    };
                    let message = "the archive lacks images of the index in it: one is taken";
                    self.ctx.report(Event::Notice { message: message.to_owned() });
                    let child =
                        Descriptor { annotations: entry.annotations.clone(), ..child.clone() };
                    return self.entry(blobs, &child, depth + 1);
                }
                if let Some(own) = own
                    && let Document::Manifest(manifest) =
                        parse_manifest(&read_document(blobs, &own)?, Some(&own.media_type))?
                {
                    runs = Some((own.digest, manifest.config.digest));
                }
            }
        }
        for (digest, size) in reachable(blobs, &top)? {
            self.copy(blobs, digest, size)?;
        }
        self.add(Found { top, runs, names: name(entry).into_iter().collect() });
        Ok(())
    }

    /// Takes an image that `manifest.json` names, unless the index did.
    fn saved(&mut self, archive: &ImageArchive, saved: &SavedImage) -> Result<(), BuildError> {
        let names: Vec<Reference> =
            saved.repo_tags.iter().flatten().filter_map(|name| name.parse().ok()).collect();
        let wrong = |problem: String| ImageError::Document {
            document: "manifest.json".to_owned(),
            problem,
        };
        let failed = |what: &str| {
            let what = format!("read {what} of the archive");
            move |source| BuildError::Io { what, source }
        };
        let mut config = Vec::new();
        archive
            .open_saved(&saved.config)?
            .take(MAX_DOCUMENT as u64 + 1)
            .read_to_end(&mut config)
            .map_err(failed("an image config"))?;
        if config.len() > MAX_DOCUMENT {
            return Err(wrong("an image config is too large".to_owned()).into());
        }
        let id = Digest::of(&config);
        let known = self.found.iter_mut().find(|found| found.runs.is_some_and(|it| it.1 == id));
        if let Some(known) = known {
            known.names.extend(names);
            return Ok(());
        }
        let diff_ids = parse_config(&config)?.rootfs.diff_ids;
        if diff_ids.len() != saved.layers.len() {
            let (there, named) = (saved.layers.len(), diff_ids.len());
            return Err(wrong(format!("{there} layers, its config names {named}")).into());
        }
        let store = &self.engine.store;
        let mut layers = Vec::new();
        let chain = chain_ids(&diff_ids);
        for ((path, diff_id), chain_id) in saved.layers.iter().zip(&diff_ids).zip(&chain) {
            let mut source = archive.open_saved(path)?;
            let mut head = Vec::new();
            source.by_ref().take(HEAD as u64).read_to_end(&mut head).map_err(failed("a layer"))?;
            // A layer without files may be shorter than a header.
            let compression = detect(&head).unwrap_or(Compression::None);
            let media_type = Family::Oci.layer(compression)?;
            let expected = (compression == Compression::None).then_some(*diff_id);
            let mut whole = std::io::Cursor::new(head).chain(source);
            let (digest, size) = copy_blob(store, &mut whole, expected, None, self.ctx.cancel)?;
            if expected.is_none() && store.snapshots().by_chain_id(chain_id)?.is_some() {
                let blob = LayerBlob {
                    digest,
                    compression,
                    diff_id: *diff_id,
                    tar_size: None,
                    made: None,
                };
                let (found, _) = diff_id_of(store, &blob, self.ctx.cancel)?;
                if found != *diff_id {
                    return Err(wrong(format!("layer {path} is {found}, not {diff_id}")).into());
                }
            }
            layers.push(Descriptor::new(media_type, digest, size));
        }
        store.blobs().put(&config)?;
        let config = Descriptor::of(Family::Oci.config(), &config);
        let manifest = Manifest::new(Family::Oci, config, layers).to_bytes()?;
        store.blobs().put(&manifest)?;
        let top = Descriptor::of(Family::Oci.manifest(), &manifest);
        self.add(Found { runs: Some((top.digest, id)), top, names });
        Ok(())
    }

    /// One image may stand in an archive several times, once for each name.
    fn add(&mut self, found: Found) {
        match self.found.iter_mut().find(|known| known.top.digest == found.top.digest) {
            Some(known) => known.names.extend(found.names),
            None => self.found.push(found),
        }
    }

    fn copy(&self, blobs: &dyn BlobSource, digest: Digest, size: u64) -> Result<(), BuildError> {
        let store = &self.engine.store;
        if store.blobs().contains(&digest)? {
            return Ok(());
        }
        let mut source = blobs.open(digest)?;
        copy_blob(store, &mut source, Some(digest), Some(size), self.ctx.cancel).map(drop)
    }

    /// Unpacks what runs here, then names everything.
    fn finish(self) -> Result<Vec<LoadedImage>, BuildError> {
        let images = ImageSource::new(self.engine, Pull::Never, self.ctx);
        for found in &self.found {
            if let Some((manifest, _)) = found.runs {
                let name = found.names.first().cloned().map_or_else(super::nameless, Ok)?;
                images.unpack_image(&*images.load(&name, manifest)?, self.ctx)?;
            }
        }
        let mut loaded = Vec::new();
        for Found { top, mut names, .. } in self.found {
            let tags = self.engine.store.tags();
            names.sort();
            names.dedup();
            // An archive may say anything.
            names.retain(|name| name.digest().is_none_or(|digest| digest == top.digest));
            for name in &names {
                tags.set(name, &top.digest, top.size, &top.media_type)?;
            }
            if names.is_empty() {
                tags.add_image(&top.digest, top.size, &top.media_type)?;
            }
            let all = tags.list()?;
            let id = all.iter().find(|record| record.manifest_digest == top.digest);
            let id = id.map_or(top.digest, |record| record.image_id);
            loaded.push(LoadedImage { id, names });
        }
        Ok(loaded)
    }
}

/// The name of an image in an index: whole as containerd writes it, or as skopeo and podman do. A tag
/// alone says no name.
fn name(entry: &Descriptor) -> Option<Reference> {
    let of = |key: &str| entry.annotations.get(key);
    let is_whole = |name: &&String| name.contains(['/', ':']);
    let name = of(IMAGE_NAME).or_else(|| of(REF_NAME).filter(is_whole))?;
    name.parse().ok()
}
