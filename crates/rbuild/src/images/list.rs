//! Manifest lists: indexes of images that were built apart, put together by hand.
//!
//! A list is an image of the store like others, so it is named, pushed, saved and removed as they
//! are. Of members that lie at a registry, manifest and config come here; the layers are taken by
//! the registry that the list goes to from where they lie, or fetched when it is another.

use rbuild_cache::StepLock;
use rbuild_image::config::parse_config;
use rbuild_image::index::{Index, is_attached};
use rbuild_image::manifest::{
    Annotations, Descriptor, DescriptorPlatform, Document, Manifest, parse_manifest,
};
use rbuild_image::media_type::{DocumentKind, Family, document_kind};
use rbuild_types::{CancelToken, Ctx, Digest, Hasher, Platform, Progress, Reference};
use serde_json::Value;

use super::push::descriptor;
use crate::sources::image::MAX_DOCUMENT;
use crate::sources::layers::fetch_blob;
use crate::{BuildError, Engine};

/// What is changed of a list's entry; what is `None` or empty stays.
#[derive(Debug, Clone, Default)]
pub struct ListChange {
    /// Operating system.
    pub os: Option<String>,
    /// Architecture.
    pub architecture: Option<String>,
    /// Variant of the architecture.
    pub variant: Option<String>,
    /// Version of the operating system.
    pub os_version: Option<String>,
    /// What the image wants of the operating system.
    pub os_features: Vec<String>,
    /// Texts on the entry.
    pub annotations: Annotations,
}

/// A manifest or an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageDocument {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its media type.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
}

impl Engine {
    /// Makes a list of images, each of the store or else of its registry. A member that is a list
    /// stands for all its images. Where there is a list of that name, its entries stay if it is
    /// `amend`ed, else it is in the way.
    ///
    /// # Errors
    ///
    /// [`BuildError::Conflict`] when the name is taken, [`BuildError::Registry`] when a member is
    /// not to be had.
    pub fn create_list(
        &self,
        name: &Reference,
        members: &[String],
        amend: bool,
        progress: &dyn Progress,
        cancel: &CancelToken,
    ) -> Result<Digest, BuildError> {
        let ctx = Ctx::new(progress, cancel);
        let _lease = self.store.lease()?;
        let _lock = self.lock_list(name, cancel)?;
        if name.digest().is_some() {
            let message = format!("{}: a list is named by a tag", name.familiar());
            return Err(BuildError::Request { message });
        }
        let old = match self.store.tags().get(name)? {
            None => Index::new(Family::Oci, Vec::new()),
            Some(_) if amend => self.list(name)?,
            Some(_) => {
                let name = name.familiar();
                let message = format!(
                    "the name {name} is taken: add to a list with --amend, or take another name"
                );
                return Err(BuildError::Conflict { message });
            }
        };
        let mut entries = old.manifests.clone();
        for member in members {
            for entry in self.member(member, ctx)? {
                entries.retain(|known| known.digest != entry.digest);
                entries.push(entry);
            }
        }
        self.set_list(name, Index { manifests: entries, ..old })
    }

    /// Changes what a list says of a member, which is named as it was when the list was made, or by
    /// its digest.
    ///
    /// # Errors
    ///
    /// [`BuildError::NoSuchImage`] when there is no such list or member.
    pub fn annotate_list(
        &self,
        name: &Reference,
        member: &str,
        change: &ListChange,
        progress: &dyn Progress,
        cancel: &CancelToken,
    ) -> Result<Digest, BuildError> {
        self.change_list(name, Ctx::new(progress, cancel), |list, ctx| {
            let meant = self.meant(list, member, ctx)?;
            for entry in list.manifests.iter_mut().filter(|entry| meant.contains(&entry.digest)) {
                let platform = entry.platform.get_or_insert_default();
                if let Some(os) = &change.os {
                    platform.os.clone_from(os);
                }
                if let Some(architecture) = &change.architecture {
                    platform.architecture.clone_from(architecture);
                }
                platform.variant = change.variant.clone().or(platform.variant.take());
                platform.os_version = change.os_version.clone().or(platform.os_version.take());
                if !change.os_features.is_empty() {
                    let features = Value::from(change.os_features.clone());
                    platform.other.insert("os.features".to_owned(), features);
                }
                entry.annotations.extend(change.annotations.clone());
            }
            Ok(())
        })
    }

    /// Takes members out of a list.
    ///
    /// # Errors
    ///
    /// [`BuildError::NoSuchImage`] when there is no such list or member.
    pub fn remove_from_list(
        &self,
        name: &Reference,
        members: &[String],
        progress: &dyn Progress,
        cancel: &CancelToken,
    ) -> Result<Digest, BuildError> {
        self.change_list(name, Ctx::new(progress, cancel), |list, ctx| {
            for member in members {
                let meant = self.meant(list, member, ctx)?;
                list.manifests.retain(|entry| !meant.contains(&entry.digest));
            }
            Ok(())
        })
    }

    /// Changes a list that is there.
    fn change_list(
        &self,
        name: &Reference,
        ctx: Ctx<'_>,
        change: impl FnOnce(&mut Index, Ctx<'_>) -> Result<(), BuildError>,
    ) -> Result<Digest, BuildError> {
        let _lease = self.store.lease()?;
        let _lock = self.lock_list(name, ctx.cancel)?;
        let mut list = self.list(name)?;
        change(&mut list, ctx)?;
        self.set_list(name, list)
    }

    /// The manifest or index of an image as it is: of the store, else of its registry.
    ///
    /// # Errors
    ///
    /// [`BuildError::Registry`] when neither has it.
    pub fn image_document(
        &self,
        name: &str,
        progress: &dyn Progress,
        cancel: &CancelToken,
    ) -> Result<ImageDocument, BuildError> {
        match self.find_image(name) {
            Ok(record) => Ok(ImageDocument {
                bytes: self.store.blobs().read_small(&record.manifest_digest, MAX_DOCUMENT)?,
                media_type: record.media_type,
                digest: record.manifest_digest,
            }),
            Err(BuildError::NoSuchImage { .. }) => {
                let reference = self.of_registry(name)?;
                if let Some(digest) = reference.digest()
                    && self.store.blobs().contains(&digest)?
                {
                    // A member of a list has no name of its own.
                    let bytes = self.store.blobs().read_small(&digest, MAX_DOCUMENT)?;
                    let media_type = match parse_manifest(&bytes, None)? {
                        Document::Manifest(manifest) => manifest.media_type().to_owned(),
                        Document::Index(index) => index.media_type().to_owned(),
                    };
                    return Ok(ImageDocument { bytes, media_type, digest });
                }
                let registry = self.registry(|| format!("{name} is not in the store"))?;
                let answer = registry.manifest(&reference, Ctx::new(progress, cancel))?;
                let (bytes, media_type, digest) = (answer.bytes, answer.media_type, answer.digest);
                Ok(ImageDocument { bytes, media_type, digest })
            }
            Err(error) => Err(error),
        }
    }

    /// Whether there is a list of this name, and not just an image.
    ///
    /// # Errors
    ///
    /// [`BuildError::NoSuchImage`], and [`BuildError::Request`] when it is no list.
    pub fn check_list(&self, name: &Reference) -> Result<(), BuildError> {
        self.list(name).map(drop)
    }

    /// Whoever changes a list reads it first: one at a time.
    fn lock_list(&self, name: &Reference, cancel: &CancelToken) -> Result<StepLock, BuildError> {
        let mut key = Hasher::new();
        key.field("manifest list").field(name.to_string());
        Ok(self.store.step_lock(&key.finish(), cancel)?)
    }

    /// The list of this name.
    fn list(&self, name: &Reference) -> Result<Index, BuildError> {
        let missing = || BuildError::NoSuchImage { name: name.familiar() };
        let record = self.store.tags().get(name)?.ok_or_else(missing)?;
        let bytes = self.store.blobs().read_small(&record.manifest_digest, MAX_DOCUMENT)?;
        match parse_manifest(&bytes, Some(&record.media_type))? {
            Document::Index(index) => Ok(index),
            Document::Manifest(_) => Err(BuildError::Request {
                message: format!("{} is one image and no list of them", name.familiar()),
            }),
        }
    }

    /// Keeps a list under its name. It is one of Docker's when all its members are.
    fn set_list(&self, name: &Reference, mut list: Index) -> Result<Digest, BuildError> {
        let is_docker = |entry: &Descriptor| {
            document_kind(&entry.media_type).is_some_and(|(_, family)| family == Family::Docker)
        };
        let all = !list.manifests.is_empty() && list.manifests.iter().all(is_docker);
        let family = if all { Family::Docker } else { Family::Oci };
        list.media_type = Some(family.index().to_owned());
        let bytes = list.to_bytes()?;
        let digest = self.store.blobs().put(&bytes)?;
        self.store.tags().set(name, &digest, bytes.len() as u64, family.index())?;
        Ok(digest)
    }

    /// The entries that a member is in a list.
    fn member(&self, text: &str, ctx: Ctx<'_>) -> Result<Vec<Descriptor>, BuildError> {
        let top = match self.find_image(text) {
            Ok(record) => descriptor(&record),
            Err(BuildError::NoSuchImage { .. }) => return self.remote_member(text, ctx),
            Err(error) => return Err(error),
        };
        let read = |digest: &Digest| self.store.blobs().read_small(digest, MAX_DOCUMENT);
        match parse_manifest(&read(&top.digest)?, Some(&top.media_type))? {
            Document::Index(index) => Ok(index.manifests),
            Document::Manifest(manifest) => {
                let platform = parse_config(&read(&manifest.config.digest)?)?.platform();
                let platform = Some(DescriptorPlatform::from(&platform));
                Ok(vec![Descriptor { platform, ..top }])
            }
        }
    }

    fn remote_member(&self, text: &str, ctx: Ctx<'_>) -> Result<Vec<Descriptor>, BuildError> {
        let name = self.of_registry(text)?;
        let registry = self.registry(|| format!("{text} is not in the store"))?;
        let answer = registry.manifest(&name, ctx)?;
        let top = Descriptor::of(&answer.media_type, &answer.bytes);
        let entries = match parse_manifest(&answer.bytes, Some(&answer.media_type))? {
            Document::Manifest(manifest) => {
                let platform = self.keep_member(&name, &manifest, &answer.bytes, ctx)?;
                let platform = Some(DescriptorPlatform::from(&platform));
                return Ok(vec![Descriptor { platform, ..top }]);
            }
            Document::Index(index) => index.manifests,
        };
        for entry in &entries {
            let answer = registry.manifest(&name.with_digest(entry.digest), ctx)?;
            let is_image = document_kind(&answer.media_type)
                .is_some_and(|(kind, _)| kind == DocumentKind::Manifest);
            match parse_manifest(&answer.bytes, Some(&answer.media_type))? {
                Document::Manifest(manifest) if is_image => {
                    self.keep_member(&name, &manifest, &answer.bytes, ctx)?;
                    if is_attached(entry) || !manifest.is_image() {
                        self.keep_parts(&name, &manifest, ctx)?;
                    }
                }
                _ => {
                    let message = format!("{text} is a list of lists");
                    return Err(BuildError::Request { message });
                }
            }
        }
        Ok(entries)
    }

    /// Keeps manifest and config, and where they came from.
    fn keep_member(
        &self,
        name: &Reference,
        manifest: &Manifest,
        bytes: &[u8],
        ctx: Ctx<'_>,
    ) -> Result<Platform, BuildError> {
        let registry = self.registry(|| format!("{} is not in the store", name.familiar()))?;
        let (digest, size) = (manifest.config.digest, manifest.config.size);
        let config = registry.document(name, digest, Some(size), ctx)?;
        self.store.blobs().put(&config)?;
        let digest = self.store.blobs().put(bytes)?;
        let platform = parse_config(&config)?.platform();
        self.store.tags().remember(&name.with_digest(digest), &platform, &digest)?;
        self.store.note_source(name, manifest.layers.iter().map(|layer| layer.digest))?;
        Ok(platform)
    }

    /// Fetches what an attestation holds: it is sent with the list as it is.
    fn keep_parts(
        &self,
        name: &Reference,
        manifest: &Manifest,
        ctx: Ctx<'_>,
    ) -> Result<(), BuildError> {
        let registry = self.registry(|| format!("{} is not in the store", name.familiar()))?;
        for part in &manifest.layers {
            fetch_blob(&self.store, registry, name, part, ctx)?;
        }
        Ok(())
    }

    /// The digests that a member stands for in a list.
    fn meant(&self, list: &Index, member: &str, ctx: Ctx<'_>) -> Result<Vec<Digest>, BuildError> {
        let there = |digest: &Digest| list.manifests.iter().any(|entry| entry.digest == *digest);
        let named = member.parse::<Digest>().ok();
        let named = named.or_else(|| self.reference(member).ok().and_then(|it| it.digest()));
        let meant: Vec<Digest> = match named {
            Some(digest) => vec![digest],
            None => self.member(member, ctx)?.into_iter().map(|entry| entry.digest).collect(),
        };
        match meant.iter().any(there) {
            true => Ok(meant),
            false => Err(BuildError::NoSuchImage { name: format!("{member} in the list") }),
        }
    }

    /// The name of a member that is at a registry; podman writes `docker://` before it.
    fn of_registry(&self, text: &str) -> Result<Reference, BuildError> {
        let bare = text.strip_prefix("docker://").unwrap_or(text);
        self.reference(bare)
            .map_err(|error| BuildError::Request { message: format!("{text}: {error}") })
    }
}
