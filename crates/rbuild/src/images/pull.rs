//! Images from registries into the store, unpacked.

use std::collections::BTreeSet;

use rbuild_image::index::{is_for, pick};
use rbuild_image::manifest::{Descriptor, Document, parse_manifest};
use rbuild_image::media_type::is_foreign;
use rbuild_registry::Registry;
use rbuild_types::{CancelToken, Ctx, Digest, Event, Platform, Progress, Reference};

use crate::sources::image::{ImageSource, MAX_INDEX_DEPTH, too_deep};
use crate::sources::layers::fetch_blob;
use crate::{BuildError, Engine, Pull};

/// What is pulled.
#[derive(Debug, Clone)]
pub struct PullRequest {
    /// Its name; with a digest, that very image.
    pub name: Reference,
    /// Whether all tags of the repository are pulled, whatever tag the name has.
    pub all_tags: bool,
    /// Which image of an index.
    pub platforms: Platforms,
}

/// Which images of an index are pulled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Platforms {
    /// This machine's.
    #[default]
    Host,
    /// The one for this platform, and no other.
    One(Platform),
    /// All, with the index and what is attached to them: as the registry has it, bit for bit.
    All,
}

/// An image that was pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PulledImage {
    /// Its name.
    pub name: Reference,
    /// What the name stands for at the registry: a manifest or an index.
    pub digest: Digest,
    /// The image id.
    pub id: Digest,
    /// Whether the name stood for another image before, or for none.
    pub is_new: bool,
}

impl Engine {
    /// Pulls an image, or all tags of a repository, and unpacks what runs here.
    ///
    /// # Errors
    ///
    /// [`BuildError::Registry`], [`BuildError::Image`], [`BuildError::Offline`].
    pub fn pull_image(
        &self,
        request: &PullRequest,
        progress: &dyn Progress,
        cancel: &CancelToken,
    ) -> Result<Vec<PulledImage>, BuildError> {
        let ctx = Ctx::new(progress, cancel);
        let _lease = self.store.lease()?;
        let name = request.name.familiar();
        let registry = self.registry(|| format!("{name} is to be pulled"))?;
        if !request.all_tags {
            let pulled = self.pull_one(registry, &request.name, &request.platforms, ctx)?;
            self.image_event("pull", &name, &name);
            return Ok(vec![pulled]);
        }
        let mut pulled = Vec::new();
        for tag in registry.tags(&request.name, ctx)? {
            pulled.push(self.pull_one(registry, &tag, &request.platforms, ctx)?);
            self.image_event("pull", &tag.familiar(), &tag.familiar());
        }
        Ok(pulled)
    }

    fn pull_one(
        &self,
        registry: &Registry,
        name: &Reference,
        platforms: &Platforms,
        ctx: Ctx<'_>,
    ) -> Result<PulledImage, BuildError> {
        let answer = registry.manifest(name, ctx)?;
        let images = ImageSource::new(self, Pull::Missing, ctx);
        let top = Descriptor::of(&answer.media_type, &answer.bytes);
        let wanted = match platforms {
            Platforms::One(platform) => platform.clone(),
            Platforms::Host | Platforms::All => Platform::host(),
        };
        let runs = match parse_manifest(&answer.bytes, Some(&answer.media_type))? {
            Document::Manifest(_) => Some(top.clone()),
            Document::Index(index) => match (platforms, pick(&index, &wanted)) {
                (Platforms::All, picked) => picked.ok().cloned(),
                (_, picked) => Some(picked?.clone()),
            },
        };
        let is_whole = matches!(platforms, Platforms::All) || runs.is_none();
        let mut kept = top.clone();
        if is_whole && answer.is_index() {
            let mut fetched = BTreeSet::new();
            let all = Whole { registry, images: &images, name, ctx };
            all.fetch(&top, answer.bytes, 0, &mut fetched)?;
        }
        if let Some(manifest) = runs {
            let pinned = name.with_digest(manifest.digest);
            let image = images.resolve(&pinned, &wanted)?;
            let runs_here = is_for(&image.platform, &wanted);
            if !runs_here && matches!(platforms, Platforms::One(_)) {
                let (name, found) = (name.familiar(), &image.platform);
                let message = format!("{name} is an image for {found}, not for {wanted}");
                return Err(BuildError::Request { message });
            }
            if !runs_here {
                let (name, found) = (name.familiar(), &image.platform);
                let message = format!("{name} is an image for {found}; this machine is {wanted}");
                ctx.report(Event::Notice { message });
            }
            images.unpack_image(&image, ctx)?;
            if let (false, Some(digest)) = (is_whole, image.reference.digest()) {
                // Where an index stood in the index, it is what that led to.
                let size = self.store.blobs().size(&digest)?.unwrap_or(manifest.size);
                kept = Descriptor::new(image.manifest.media_type(), digest, size);
            }
            for layer in &image.manifest.layers {
                if !is_foreign(&layer.media_type) {
                    // A layer that was unpacked before may have come without its bytes.
                    images.fetch_layer(&image, layer, ctx)?;
                }
            }
            let digest = image.reference.digest().unwrap_or(manifest.digest);
            self.store.tags().remember(name, &image.platform, &digest)?;
        }
        // Out of an index with this digest an image was taken that has another.
        let own = match name.digest() {
            Some(_) => name.with_digest(kept.digest),
            None => name.clone(),
        };
        let before = self.store.tags().get(&own)?;
        let is_new = before.is_none_or(|before| before.manifest_digest != kept.digest);
        self.store.tags().set(&own, &kept.digest, kept.size, &kept.media_type)?;
        let id = self.find_image(&own.to_string())?.image_id;
        Ok(PulledImage { name: name.clone(), digest: answer.digest, id, is_new })
    }
}

/// An index with everything below it.
struct Whole<'w> {
    registry: &'w Registry,
    images: &'w ImageSource<'w>,
    name: &'w Reference,
    ctx: Ctx<'w>,
}

impl Whole<'_> {
    /// Fetches what a document names, then keeps it.
    fn fetch(
        &self,
        descriptor: &Descriptor,
        bytes: Vec<u8>,
        depth: usize,
        fetched: &mut BTreeSet<Digest>,
    ) -> Result<(), BuildError> {
        if depth > MAX_INDEX_DEPTH {
            return Err(too_deep().into());
        }
        if !fetched.insert(descriptor.digest) {
            return Ok(());
        }
        match parse_manifest(&bytes, Some(&descriptor.media_type))? {
            Document::Index(index) => {
                for child in &index.manifests {
                    let at = self.name.with_digest(child.digest);
                    let answer = self.registry.manifest(&at, self.ctx)?;
                    self.fetch(child, answer.bytes, depth + 1, fetched)?;
                }
            }
            Document::Manifest(manifest) => {
                let parts = std::iter::once(&manifest.config).chain(&manifest.layers);
                let layers = manifest.layers.iter().map(|layer| layer.digest);
                self.images.engine.store.note_source(self.name, layers)?;
                for part in parts.filter(|part| !is_foreign(&part.media_type)) {
                    let store = &self.images.engine.store;
                    fetch_blob(store, self.registry, self.name, part, self.ctx)?;
                }
            }
        }
        self.images.engine.store.blobs().put(&bytes)?;
        Ok(())
    }
}
