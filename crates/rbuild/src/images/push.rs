//! Images of the store to registries.

use rbuild_cache::ImageRecord;
use rbuild_image::manifest::Descriptor;
use rbuild_types::{CancelToken, Ctx, Digest, Platform, Progress, Reference};

use crate::export::package::Package;
use crate::export::push;
use crate::export::stored::{Chosen, StoredImage};
use crate::sources::image::ImageSource;
use crate::{BuildError, Engine, ImageForm, Pull};

/// What is pushed, and where.
#[derive(Debug, Clone, Default)]
pub struct PushRequest {
    /// A name, which says where it goes too; or an id, with a `destination`.
    pub image: String,
    /// The name that it gets there, if that is another.
    pub destination: Option<Reference>,
    /// Whether all tags of the name's repository are pushed.
    pub all_tags: bool,
    /// Of an index, only the image for this platform.
    pub platform: Option<Platform>,
    /// The form of the layers.
    pub form: ImageForm,
    /// Whether the registry may be spoken to in plain HTTP.
    pub insecure: bool,
}

/// What a registry has now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedImage {
    /// Its name there.
    pub name: Reference,
    /// Digest of the manifest or index as it was sent.
    pub digest: Digest,
    /// Bytes of it.
    pub size: u64,
}

impl Engine {
    /// Pushes an image, or all tags of a repository. What the registry has is not sent.
    ///
    /// # Errors
    ///
    /// [`BuildError::NoSuchImage`], [`BuildError::Push`], and [`BuildError::Request`] when it is not
    /// said where to.
    pub fn push_image(
        &self,
        request: &PushRequest,
        progress: &dyn Progress,
        cancel: &CancelToken,
    ) -> Result<Vec<PushedImage>, BuildError> {
        let ctx = Ctx::new(progress, cancel);
        let _lease = self.store.lease()?;
        let images = ImageSource::new(self, Pull::Missing, ctx);
        let mut pushed = Vec::new();
        for (record, name) in self.to_push(request)? {
            let known = self.known_as(&record)?;
            let from = known.first().unwrap_or(&name);
            let image = StoredImage {
                top: descriptor(&record),
                from,
                chosen: request.platform.clone().map_or(Chosen::All, Chosen::One),
            };
            let package = Package::stored(self, &image, &request.form, &images, ctx)?;
            let there = known
                .iter()
                .find(|known| known.host() == name.host() && known.path() != name.path());
            let names = std::slice::from_ref(&name);
            let to = push::To { names, by_digest: false, insecure: request.insecure };
            push::push(&package, &to, there, ctx)?;
            let Descriptor { digest, size, .. } = package.top;
            pushed.push(PushedImage { name, digest, size });
        }
        Ok(pushed)
    }

    /// Images with the names that they get.
    fn to_push(&self, request: &PushRequest) -> Result<Vec<(ImageRecord, Reference)>, BuildError> {
        if request.all_tags {
            return self.all_tags(request);
        }
        let record = self.find_image(&request.image)?;
        if let Some(destination) = &request.destination {
            return Ok(vec![(record, destination.clone())]);
        }
        match self.found_by(&record, &request.image) {
            Some(name) => Ok(vec![(record, name)]),
            None => Err(BuildError::Request {
                message: format!(
                    "where is {} to be pushed? give a name after the id, or `rbuild tag` it first",
                    request.image
                ),
            }),
        }
    }

    fn all_tags(&self, request: &PushRequest) -> Result<Vec<(ImageRecord, Reference)>, BuildError> {
        let wanted = self
            .reference(&request.image)
            .map_err(|_| BuildError::NoSuchImage { name: request.image.clone() })?;
        if request.destination.is_some() || Reference::is_exact(&request.image) {
            let message = "all tags are pushed of a name without a tag, to where it says";
            return Err(BuildError::Request { message: message.to_owned() });
        }
        let all = self.tags_in(&wanted)?;
        match all.is_empty() {
            true => Err(BuildError::NoSuchImage { name: request.image.clone() }),
            false => Ok(all),
        }
    }

    /// The names by which an image came from registries, then those that it has: what the store has
    /// not, those registries may have.
    pub(super) fn known_as(&self, record: &ImageRecord) -> Result<Vec<Reference>, BuildError> {
        let tags = self.store.tags();
        let mut known = tags.remembered_as(&record.manifest_digest)?;
        let same = |other: &ImageRecord| other.manifest_digest == record.manifest_digest;
        known.extend(tags.list()?.into_iter().filter(same).filter_map(|other| other.reference));
        Ok(known)
    }
}

/// An image of the store by its manifest or index.
pub(crate) fn descriptor(record: &ImageRecord) -> Descriptor {
    Descriptor::new(record.media_type.clone(), record.manifest_digest, record.manifest_size)
}
