//! Removing images that nobody asked to keep.

use std::collections::{BTreeMap, HashSet};

use rbuild_cache::{ImageRecord, PruneOptions, Pruned, RowFilter, SnapshotId};
use rbuild_image::manifest::chain_ids;
use rbuild_types::{CancelToken, Digest, Progress, Reference};

use super::RemovedImage;
use super::descriptor;
use crate::{BuildError, Engine};

/// Which images go.
#[derive(Debug, Clone, Default)]
pub struct ImagePrune {
    /// Also those with a name; else those without one.
    pub all: bool,
    /// Only those that were made before this time, milliseconds since 1970.
    pub until: Option<i64>,
    /// Only those with all of these labels; a value that is `None` may be any.
    pub labels: Vec<(String, Option<String>)>,
    /// Not those with one of these labels.
    pub without: Vec<(String, Option<String>)>,
}

impl Engine {
    /// Removes images, then the layers and blobs that they alone used. What is build cache too stays
    /// for [`Engine::prune`]; what a container runs from stays until it ends.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn prune_images(
        &self,
        which: &ImagePrune,
        progress: &dyn Progress,
        cancel: &CancelToken,
    ) -> Result<(RemovedImage, Pruned), BuildError> {
        let mut by_manifest: BTreeMap<Digest, Vec<ImageRecord>> = BTreeMap::new();
        for record in self.store.tags().list()? {
            by_manifest.entry(record.manifest_digest).or_default().push(record);
        }
        let pins = self.store.pins()?;
        let mut removed = RemovedImage::default();
        for (manifest, records) in by_manifest {
            cancel.check()?;
            let Some(first) = records.first() else { continue };
            let is_named = records.iter().any(|record| record.reference.is_some());
            if is_named && !which.all || !self.is_wanted(first, which)? {
                continue;
            }
            if is_named && self.runs(first, &pins)? {
                continue;
            }
            let tags = self.store.tags();
            // One without a name may have got one meanwhile.
            let gone = match is_named {
                true => tags.remove_image(&manifest)?,
                false => tags.forget_nameless(&[manifest])?,
            };
            if gone {
                let names = records.iter().filter_map(|record| record.reference.as_ref());
                removed.untagged.extend(names.map(Reference::familiar));
                let id = first.image_id.to_string();
                self.image_event("delete", &id, &id);
                removed.deleted.push(first.image_id);
            }
        }
        let kinds = ["layer", "blob"].map(str::to_owned).into();
        let filter = RowFilter { kinds, ..RowFilter::default() };
        let options = PruneOptions { filter, ..PruneOptions::default() };
        Ok((removed, self.prune(&options, progress, cancel)?))
    }

    /// Whether a container runs from the image.
    fn runs(&self, record: &ImageRecord, pins: &HashSet<SnapshotId>) -> Result<bool, BuildError> {
        let Ok(known) = self.documents(&descriptor(record), None) else { return Ok(false) };
        let chain = chain_ids(&known.config.rootfs.diff_ids);
        let Some(top) = chain.last() else { return Ok(false) };
        let snapshot = self.store.snapshots().by_chain_id(top)?;
        Ok(snapshot.is_some_and(|snapshot| pins.contains(&snapshot)))
    }

    fn is_wanted(&self, record: &ImageRecord, which: &ImagePrune) -> Result<bool, BuildError> {
        if which.until.is_some_and(|until| record.created >= until) {
            return Ok(false);
        }
        if which.labels.is_empty() && which.without.is_empty() {
            return Ok(true);
        }
        // What has no config, such as an artifact, has no labels.
        let known =
            self.documents(&descriptor(record), None).map(|known| known.config.config.labels);
        let labels = known.unwrap_or_default();
        let has = |(name, wanted): &(String, Option<String>)| match (labels.get(name), wanted) {
            (found, None) => found.is_some(),
            (found, wanted) => found == wanted.as_ref(),
        };
        Ok(which.labels.iter().all(has) && !which.without.iter().any(has))
    }
}
