//! Images on their way out of an archive or layout into the store.

use std::io::Read as _;

use rbuild_image::blob::{BlobSource, reachable, read_document};
use rbuild_image::compress::{Compression, detect};
use rbuild_image::config::parse_config;
use rbuild_image::index::{is_for, pick, pick_any};
use rbuild_image::layout::{IMAGE_NAME, REF_NAME};
use rbuild_image::manifest::{Descriptor, Document, Manifest, chain_ids, parse_manifest};
use rbuild_image::media_type::Family;
use rbuild_image::{ImageArchive, ImageError, SavedImage};
use rbuild_types::{Ctx, Digest, Event, Platform, Reference};

use super::load::{HEAD, LoadedImage};
use super::nameless;
use crate::sources::image::{ImageSource, MAX_DOCUMENT, MAX_INDEX_DEPTH, too_deep};
use crate::sources::layers::{LayerBlob, copy_blob, diff_id_of};
use crate::sources::layout::has_tag;
use crate::{BuildError, Engine, Pull};

/// Which images of an archive or layout are taken: all where nothing is said.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// Those for this platform.
    pub(crate) platform: Option<Platform>,
    /// The one of this name or tag.
    pub(crate) name: Option<String>,
}

/// Images on their way into the store.
pub(crate) struct Loading<'l> {
    engine: &'l Engine,
    wanted: Wanted,
    pub(super) ctx: Ctx<'l>,
    found: Vec<Found>,
    /// The platforms of what is there and was not taken.
    passed: Vec<Platform>,
}

/// An image whose bytes are in the store.
struct Found {
    top: Descriptor,
    /// The image that runs here, and its config.
    runs: Option<(Digest, Digest)>,
    names: Vec<Reference>,
}

impl<'l> Loading<'l> {
    pub(super) fn new(engine: &'l Engine, wanted: Wanted, ctx: Ctx<'l>) -> Self {
        Self { engine, wanted, ctx, found: Vec::new(), passed: Vec::new() }
    }

    /// Whether an image that an index names has the name that is wanted.
    pub(super) fn wants_entry(&self, entry: &Descriptor) -> bool {
        self.wanted.name.as_ref().is_none_or(|wanted| {
            let parsed = wanted.parse::<Reference>().ok();
            has_tag(entry, wanted) || parsed.is_some_and(|wanted| name(entry) == Some(wanted))
        })
    }

    /// The same of one that `manifest.json` names.
    pub(super) fn wants_saved(&self, saved: &SavedImage) -> bool {
        self.wanted.name.as_ref().is_none_or(|wanted| {
            let wanted = wanted.parse().ok();
            wanted.is_some_and(|wanted| saved_names(saved).contains(&wanted))
        })
    }

    /// Whether an image with this config is for the platform that is wanted.
    fn wants_config(&mut self, config: &[u8]) -> Result<bool, BuildError> {
        let Some(wanted) = &self.wanted.platform else { return Ok(true) };
        let platform = parse_config(config)?.platform();
        let fits = is_for(&platform, wanted);
        if !fits {
            self.passed.push(platform);
        }
        Ok(fits)
    }

    /// Takes an image that an index names.
    pub(super) fn entry(
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
                if self.wanted.platform.is_some()
                    && !(manifest.is_image()
                        && self.wants_config(&read_document(blobs, &manifest.config)?)?)
                {
                    return Ok(());
                }
                top.media_type = manifest.media_type().to_owned();
                runs = manifest.is_image().then_some((top.digest, manifest.config.digest));
            }
            Document::Index(mut index) => {
                top.media_type = index.media_type().to_owned();
                let named = index.manifests.len();
                index.manifests.retain(|child| blobs.size(child.digest).is_ok());
                if let Some(wanted) = &self.wanted.platform {
                    return match pick(&index, wanted) {
                        Ok(child) => self.entry(blobs, &called(child, entry), depth + 1),
                        Err(ImageError::NoPlatform { found, .. }) => {
                            self.passed.extend(found);
                            Ok(())
                        }
                        Err(error) => Err(error.into()),
                    };
                }
                let own = pick(&index, &Platform::host()).ok().cloned();
                if index.manifests.len() < named {
                    // Docker saves an index with those of its images that it has.
                    let Some(child) = pick_any(&index, &Platform::host()) else {
                        return Err(ImageError::MissingBlob { digest: top.digest }.into());
                    };
                    let message = "the archive lacks images of the index in it: one is taken";
                    self.ctx.report(Event::Notice { message: message.to_owned() });
                    return self.entry(blobs, &called(child, entry), depth + 1);
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
    pub(super) fn saved(
        &mut self,
        archive: &ImageArchive,
        saved: &SavedImage,
    ) -> Result<(), BuildError> {
        let names = saved_names(saved);
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
        if !self.wants_config(&config)? {
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

    /// The image, where there is one.
    pub(crate) fn only_one(mut self) -> Result<Descriptor, BuildError> {
        match (self.found.pop(), self.found.is_empty()) {
            (Some(found), true) => Ok(found.top),
            (None, _) => Err(BuildError::Request { message: "there is no such image".to_owned() }),
            (Some(last), false) => {
                let all = self.found.iter().chain([&last]).flat_map(|found| &found.names);
                let names: Vec<String> = all.map(Reference::familiar).collect();
                let message = format!("there are several images, name one: {}", names.join(", "));
                Err(BuildError::Request { message })
            }
        }
    }

    /// Unpacks what runs here, then names everything.
    pub(super) fn finish(self) -> Result<Vec<LoadedImage>, BuildError> {
        if let (Some(wanted), true) = (&self.wanted.platform, self.found.is_empty()) {
            let (wanted, mut found) = (wanted.clone(), self.passed);
            found.sort_by_key(Platform::to_string);
            found.dedup();
            return Err(ImageError::NoPlatform { wanted, found }.into());
        }
        let images = ImageSource::new(self.engine, Pull::Never, self.ctx);
        for found in &self.found {
            if let Some((manifest, _)) = found.runs {
                let name = found.names.first().cloned().map_or_else(nameless, Ok)?;
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

/// The names that `manifest.json` gives an image.
fn saved_names(saved: &SavedImage) -> Vec<Reference> {
    saved.repo_tags.iter().flatten().filter_map(|name| name.parse().ok()).collect()
}

/// An image of an index, by the name of the index.
fn called(child: &Descriptor, index: &Descriptor) -> Descriptor {
    Descriptor { annotations: index.annotations.clone(), ..child.clone() }
}
