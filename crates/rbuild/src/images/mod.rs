//! The images in the store: listing, naming, looking into, removing; and in files of their own how
//! they come and go.

pub(crate) mod grow;
mod import;
mod list;
mod load;
mod loading;
mod prune;
mod pull;
mod push;
mod save;

pub use grow::ImageWords;
pub use list::{ImageDocument, ListChange};
pub use load::{LoadSource, LoadedImage};
pub use prune::ImagePrune;
pub use pull::{Platforms, PullRequest, PulledImage};
pub use push::{PushRequest, PushedImage};
pub use save::SaveRequest;

pub(crate) use loading::Wanted;
pub(crate) use push::descriptor;

use rbuild_cache::ImageRecord;
use rbuild_container::events::Event;
use rbuild_image::ImageError;
use rbuild_image::config::parse_config;
use rbuild_image::index::{attested, is_for, pick, pick_any};
use rbuild_image::manifest::{Descriptor, Document, Manifest, chain_ids, parse_manifest};
use rbuild_types::{Digest, ImageConfig, Platform, Reference};

use crate::sources::image::MAX_DOCUMENT;
use crate::{BuildError, Engine};

/// Shortest id prefix that names an image.
const MIN_PREFIX: usize = 2;

/// What is known about an image.
#[derive(Debug, Clone)]
pub struct ImageDetails {
    /// The image id: digest of the config, or of the index.
    pub id: Digest,
    /// Digest of the manifest or index.
    pub manifest_digest: Digest,
    /// Media type of the manifest or index.
    pub media_type: String,
    /// Familiar names.
    pub names: Vec<String>,
    /// The config; of an index, that of this machine's image, else of the first.
    pub config: ImageConfig,
    /// What an index holds; an image by itself has none.
    pub manifests: Vec<ImageManifest>,
    /// Milliseconds since 1970 when it came into this store.
    pub created_ms: i64,
    /// Bytes of the layers as the manifest states them.
    pub size: u64,
}

/// The image for one platform in an index, or what is said of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageManifest {
    /// Digest of its manifest.
    pub digest: Digest,
    /// Media type of its manifest.
    pub media_type: String,
    /// Bytes of its manifest.
    pub size: u64,
    /// The platform.
    pub platform: Option<Platform>,
    /// The manifest that it is an attestation of; an image has none.
    pub attests: Option<Digest>,
}

/// One line of an image's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryLine {
    /// RFC 3339 time.
    pub created: Option<String>,
    /// The instruction.
    pub created_by: String,
    /// Bytes of its layer's uncompressed tar; 0 without a layer, or when it is not known.
    pub size: u64,
    /// `buildkit.dockerfile.v0` for instructions.
    pub comment: String,
    /// Whether it made no layer.
    pub empty_layer: bool,
}

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RemovedImage {
    /// Familiar names taken away.
    pub untagged: Vec<String>,
    /// Ids of images that are gone.
    pub deleted: Vec<Digest>,
}

impl Engine {
    /// All images, once per name.
    pub fn images(&self) -> Result<Vec<ImageRecord>, BuildError> {
        Ok(self.store.tags().list()?)
    }

    /// The image of a name, also one with a digest, or of an id or the beginning of one.
    ///
    /// # Errors
    ///
    /// [`BuildError::NoSuchImage`]; [`BuildError::Conflict`] when a prefix names several.
    pub fn find_image(&self, name: &str) -> Result<ImageRecord, BuildError> {
        for reference in self.names_meant(name) {
            if let Some(image) = self.store.tags().get(&reference)? {
                return Ok(image);
            }
        }
        let missing = || BuildError::NoSuchImage { name: name.to_owned() };
        if let Ok(reference) = self.reference(name)
            && let Some(digest) = reference.digest()
        {
            // The image of any of its tags, if it is that very one, or the one for this machine out of
            // an index that had the digest.
            let known = self.store.tags().recall(&reference, &Platform::host())?;
            let digest = known.map_or(digest, |(manifest, _)| manifest);
            let same = |image: &ImageRecord| {
                let repository = image.reference.as_ref().map(Reference::repository);
                image.manifest_digest == digest && repository == Some(reference.repository())
            };
            return self.store.tags().list()?.into_iter().find(same).ok_or_else(missing);
        }
        let prefix = name.strip_prefix("sha256:").unwrap_or(name);
        if prefix.len() < MIN_PREFIX || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(missing());
        }
        let prefix = prefix.to_ascii_lowercase();
        let all = self.store.tags().list()?;
        let mut found: Vec<_> =
            all.into_iter().filter(|image| image.image_id.hex().starts_with(&prefix)).collect();
        found.dedup_by_key(|image| image.image_id);
        match found.len() {
            0 => Err(missing()),
            1 => found.pop().ok_or_else(missing),
            count => Err(BuildError::Conflict {
                message: format!("{name} is the beginning of {count} image ids: give more digits"),
            }),
        }
    }

    /// What a name may stand for in the store: what it does everywhere, else the very words. An
    /// archive may have brought an image of that name, and listings show it by it.
    fn names_meant(&self, text: &str) -> impl Iterator<Item = Reference> {
        [self.reference(text).ok(), text.parse().ok()].into_iter().flatten()
    }

    /// The name of an image by which it was found, unless that was its id.
    fn found_by(&self, record: &ImageRecord, text: &str) -> Option<Reference> {
        let found = record.reference.clone()?;
        self.names_meant(text).any(|name| name == found).then_some(found)
    }

    /// Gives an image a further name.
    pub fn tag_image(&self, name: &str, new_name: &str) -> Result<(), BuildError> {
        // An image without a name may be pruned up to the moment in which it gets one.
        let _lease = self.store.lease()?;
        let image = self.find_image(name)?;
        let reference = self.tag(new_name)?;
        let (digest, size) = (image.manifest_digest, image.manifest_size);
        self.store.tags().set(&reference, &digest, size, &image.media_type)?;
        self.image_event("tag", &image.image_id.to_string(), &reference.familiar());
        Ok(())
    }

    /// Writes down what happened to an image.
    fn image_event(&self, action: &str, id: &str, name: &str) {
        self.happened(Event::now("image", action, id).with("name", name));
    }

    /// Takes a name away, and the image with its last name. Named by its id, an image loses all
    /// its names, with `force` if there are several.
    pub fn remove_image(&self, name: &str, force: bool) -> Result<RemovedImage, BuildError> {
        let image = self.find_image(name)?;
        let all = self.store.tags().list()?;
        let names: Vec<_> = all
            .into_iter()
            .filter(|other| other.manifest_digest == image.manifest_digest)
            .filter_map(|other| other.reference)
            .collect();
        let by_name = self.found_by(&image, name);
        let victims = match by_name {
            Some(name) => vec![name],
            None if names.len() > 1 && !force => {
                return Err(BuildError::Conflict {
                    message: format!(
                        "image {name} has {} names: remove them one by one, or all with -f",
                        names.len()
                    ),
                });
            }
            None => names.clone(),
        };
        let mut removed = RemovedImage::default();
        for victim in &victims {
            if self.store.tags().remove(victim)? {
                self.image_event("untag", &image.image_id.to_string(), &victim.familiar());
                removed.untagged.push(victim.familiar());
            }
        }
        if victims.len() == names.len() && self.store.tags().remove_image(&image.manifest_digest)? {
            self.image_event("delete", &image.image_id.to_string(), name);
            removed.deleted.push(image.image_id);
        }
        Ok(removed)
    }

    /// Names, config and sizes of an image; of an index, this machine's counts, else the first.
    pub fn image_config(&self, name: &str) -> Result<ImageDetails, BuildError> {
        self.details(name, None)
    }

    /// The same, with the config of the image for a platform.
    ///
    /// # Errors
    ///
    /// [`BuildError::Image`] when it is none for that platform.
    pub fn image_config_for(
        &self,
        name: &str,
        platform: &Platform,
    ) -> Result<ImageDetails, BuildError> {
        self.details(name, Some(platform))
    }

    fn details(&self, name: &str, platform: Option<&Platform>) -> Result<ImageDetails, BuildError> {
        let image = self.find_image(name)?;
        let top = descriptor(&image);
        let Documents { config, manifests, .. } = self.documents(&top, platform)?;
        let all = self.store.tags().list()?;
        let names = all
            .iter()
            .filter(|other| other.manifest_digest == image.manifest_digest)
            .filter_map(|other| other.reference.as_ref().map(Reference::familiar))
            .collect();
        Ok(ImageDetails {
            id: image.image_id,
            manifest_digest: image.manifest_digest,
            media_type: image.media_type,
            names,
            config,
            manifests,
            created_ms: image.created,
            size: image.size,
        })
    }

    /// How an image came about, the newest instruction first; of an index, this machine's, else the
    /// first.
    pub fn history(&self, name: &str) -> Result<Vec<HistoryLine>, BuildError> {
        self.history_lines(name, None)
    }

    /// The same of the image for a platform.
    ///
    /// # Errors
    ///
    /// [`BuildError::Image`] when it is none for that platform.
    pub fn history_for(
        &self,
        name: &str,
        platform: &Platform,
    ) -> Result<Vec<HistoryLine>, BuildError> {
        self.history_lines(name, Some(platform))
    }

    fn history_lines(
        &self,
        name: &str,
        platform: Option<&Platform>,
    ) -> Result<Vec<HistoryLine>, BuildError> {
        let image = self.find_image(name)?;
        let top = descriptor(&image);
        let Documents { manifest, config, .. } = self.documents(&top, platform)?;
        let chain = chain_ids(&config.rootfs.diff_ids);
        let mut sizes = Vec::new();
        for (chain_id, layer) in chain.iter().zip(&manifest.layers) {
            let snapshots = self.store.snapshots();
            let snapshot = match snapshots.by_chain_id(chain_id)? {
                Some(id) => snapshots.meta(&id)?,
                None => None,
            };
            sizes.push(snapshot.and_then(|one| one.meta.tar_size).unwrap_or(layer.size));
        }
        let mut sizes = sizes.into_iter();
        let mut lines: Vec<_> = config
            .history
            .into_iter()
            .map(|item| HistoryLine {
                created: item.created,
                created_by: item.created_by,
                size: if item.empty_layer { 0 } else { sizes.next().unwrap_or_default() },
                comment: item.comment,
                empty_layer: item.empty_layer,
            })
            .collect();
        lines.reverse();
        Ok(lines)
    }

    /// Of an index, the documents of the image for a platform are meant; where none is named, those
    /// of this machine's, else of the first.
    pub(crate) fn documents(
        &self,
        top: &Descriptor,
        platform: Option<&Platform>,
    ) -> Result<Documents, BuildError> {
        let read = |digest: &Digest| self.store.blobs().read_small(digest, MAX_DOCUMENT);
        let mut digest = top.digest;
        let mut document = parse_manifest(&read(&digest)?, Some(&top.media_type))?;
        let mut manifests = Vec::new();
        if let Document::Index(index) = &document {
            manifests = index.manifests.iter().map(ImageManifest::of).collect();
            let own = match platform {
                Some(platform) => pick(index, platform)?,
                None => pick_any(index, &Platform::host()).ok_or_else(|| empty_index(top))?,
            };
            digest = own.digest;
            document = parse_manifest(&read(&own.digest)?, Some(&own.media_type))?;
        }
        let Document::Manifest(manifest) = document else { return Err(empty_index(top)) };
        let config = parse_config(&read(&manifest.config.digest)?)?;
        if let Some(wanted) = platform
            && !is_for(&config.platform(), wanted)
            && manifests.is_empty()
        {
            let (wanted, found) = (wanted.clone(), vec![config.platform()]);
            return Err(ImageError::NoPlatform { wanted, found }.into());
        }
        Ok(Documents { digest, manifest, config, manifests })
    }
}

/// What an image is described by.
pub(crate) struct Documents {
    /// Digest of the manifest.
    pub(crate) digest: Digest,
    manifest: Manifest,
    config: ImageConfig,
    /// What else is in its index.
    manifests: Vec<ImageManifest>,
}

impl Documents {
    /// The image id of the image or index that they are of.
    pub(crate) fn id(&self, top: &Descriptor) -> Digest {
        match self.digest == top.digest {
            true => self.manifest.config.digest,
            false => top.digest,
        }
    }
}

impl ImageManifest {
    fn of(descriptor: &Descriptor) -> Self {
        Self {
            digest: descriptor.digest,
            media_type: descriptor.media_type.clone(),
            size: descriptor.size,
            platform: descriptor.platform.as_ref().map(Platform::from),
            attests: attested(descriptor),
        }
    }
}

impl Engine {
    /// The images that have a tag in a repository, with that name.
    fn tags_in(&self, wanted: &Reference) -> Result<Vec<(ImageRecord, Reference)>, BuildError> {
        let named = self.store.tags().list()?.into_iter().filter_map(|record| {
            let name = record.reference.clone()?;
            let fits = name.tag().is_some() && name.repository() == wanted.repository();
            fits.then_some((record, name))
        });
        Ok(named.collect())
    }
}

/// Stands for where an image came from that has no name: nowhere.
pub(crate) fn nameless() -> Result<Reference, BuildError> {
    let message = |error| BuildError::Request { message: format!("{error}") };
    "nameless.invalid/image".parse().map_err(message)
}

fn empty_index(top: &Descriptor) -> BuildError {
    let message = format!("the index {} holds no image", top.digest);
    BuildError::Request { message }
}
