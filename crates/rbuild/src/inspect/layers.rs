//! What each layer of an image adds, changes, removes and wastes.

use std::collections::HashSet;

use rbuild_image::layer::TreeForm;
use rbuild_rooted::Metadata;
use rbuild_types::{CancelToken, Ctx, Digest, Platform, Progress};

use super::opened::{Identity, OpenedImage, OpenedLayer};
use super::path_history::{Doings, PathHistory, PathVersion, Sums};
use super::walk::{Visitor, walk};
use crate::{BuildError, Engine};

/// The layers of an image and what became of their files.
#[derive(Debug)]
pub struct ImageLayers {
    /// The image id.
    pub id: Digest,
    /// Its familiar name, if it has one.
    pub name: Option<String>,
    /// Bottom first.
    pub layers: Vec<InspectedLayer>,
    history: PathHistory,
    sums: Sums,
}

/// A layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectedLayer {
    /// Digest of its uncompressed tar.
    pub diff_id: Digest,
    /// What the image's history says of it; empty where it says nothing.
    pub created_by: String,
    /// Bytes of its uncompressed tar.
    pub size: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Files that no layer below shows; directories are not counted.
    pub added: u64,
    /// Files that layers below show too.
    pub changed: u64,
    /// Files of layers below that it takes away.
    pub removed: u64,
    /// Bytes of its files that are not in the image's root filesystem, because a layer above
    /// replaces or removes them.
    pub wasted: u64,
}

impl Engine {
    /// What the layers of an image hold, which is named as for [`Engine::diff`]: of an index, of the image for `platform`, or else of this
    /// machine's or the first. Layers that are in the store as blobs only are unpacked, those that
    /// are elsewhere are fetched.
    ///
    /// # Errors
    ///
    /// [`BuildError::NoSuchImage`], [`BuildError::Image`] when it is none for that platform, and when a layer cannot be had or read.
    pub fn layers(
        &self,
        name: &str,
        platform: Option<&Platform>,
        progress: &dyn Progress,
        cancel: &CancelToken,
    ) -> Result<ImageLayers, BuildError> {
        let _lease = self.store.lease()?;
        let (identity, image) =
            OpenedImage::open(self, name, platform, Ctx::new(progress, cancel))?;
        let mut history = PathHistory::default();
        for layer in &image.layers {
            history.begin_layer();
            let mut record = Record { history: &mut history, linked: HashSet::new() };
            walk(&layer.open()?, TreeForm::Overlay, &mut record, cancel)?;
        }
        let (doings, sums) = history.finish();
        let layers =
            image.layers.iter().zip(doings).map(|(layer, doings)| inspected(layer, doings));
        let Identity { id, name } = identity;
        Ok(ImageLayers { id, name, layers: layers.collect(), history, sums })
    }
}

fn inspected(layer: &OpenedLayer, doings: Doings) -> InspectedLayer {
    let Doings { added, changed, removed, bytes, wasted } = doings;
    let (diff_id, size, created_by) = (layer.diff_id, layer.tar_size, layer.created_by.clone());
    InspectedLayer { diff_id, created_by, size, bytes, added, changed, removed, wasted }
}

impl ImageLayers {
    /// Bytes of all files of all layers.
    pub fn total(&self) -> u64 {
        self.sums.total
    }

    /// Bytes of files that are in a layer and not in the root filesystem.
    pub fn wasted(&self) -> u64 {
        self.sums.total - self.sums.kept
    }

    /// How much of the layers is needed, from 0 to 1, by dive's measure: the smallest size that
    /// each path ever had, 0 for what was removed, over the sizes of all versions.
    pub fn efficiency(&self) -> f64 {
        self.sums.efficiency()
    }

    /// Every file of every layer, in the order of the paths.
    pub fn versions(&self) -> impl Iterator<Item = PathVersion<'_>> {
        self.history.versions()
    }

    /// The `count` largest of those that `takes` takes, the largest first.
    pub fn largest(
        &self,
        count: usize,
        takes: impl Fn(&PathVersion<'_>) -> bool,
    ) -> Vec<PathVersion<'_>> {
        let mut all: Vec<_> = self.versions().filter(|version| takes(version)).collect();
        all.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.path.cmp(b.path)));
        all.truncate(count);
        all
    }
}

/// Writes down what a layer says.
struct Record<'a> {
    history: &'a mut PathHistory,
    /// Files with several names that were met: bytes count once.
    linked: HashSet<(u64, u64)>,
}

impl Visitor for Record<'_> {
    fn opaque(&mut self, path: &[u8]) -> Result<(), BuildError> {
        self.history.hide_below(path);
        Ok(())
    }

    fn removed(&mut self, path: &[u8]) -> Result<(), BuildError> {
        self.history.removed(path);
        Ok(())
    }

    fn file(&mut self, path: &[u8], metadata: &Metadata) -> Result<(), BuildError> {
        if metadata.is_dir() {
            self.history.directory(path);
            return Ok(());
        }
        // Names in other snapshots count too, so this is more than a layer needs, and never less.
        let is_first = metadata.nlink == 1 || self.linked.insert((metadata.dev, metadata.ino));
        let size = if metadata.is_file() && is_first { metadata.size } else { 0 };
        self.history.file(path, size);
        Ok(())
    }
}
