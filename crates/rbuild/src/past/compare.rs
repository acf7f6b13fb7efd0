//! What a step did: its root filesystem beside another one.

use rbuild_cache::{Lease, SnapshotId};
use rbuild_rooted::Root;
use rbuild_types::{CancelToken, Ctx, Platform, Progress};

use super::PastStep;
use crate::inspect::{OpenedImage, differing_files};
use crate::{BuildError, Engine, FileDifference};

/// A root filesystem that may be compared with another one.
#[derive(Debug, Clone, PartialEq)]
pub enum Tree {
    /// After a step.
    Step(PastStep),
    /// Before it.
    Before(PastStep),
    /// Of an image, named as for [`Engine::diff`].
    Image(String),
}

/// The files in which two root filesystems differ.
#[derive(Debug, Clone, PartialEq)]
pub struct TreeDifference {
    /// What the first is.
    pub before: String,
    /// What the second is.
    pub after: String,
    /// The files.
    pub files: Vec<FileDifference>,
    /// Further files that differ.
    pub more_files: u64,
}

impl Engine {
    /// Compares the files of two root filesystems, one of which at least is that of a step.
    ///
    /// # Errors
    ///
    /// [`BuildError::Conflict`] when the files of a step are not in the store (any more); those of
    /// [`Engine::diff`].
    pub fn diff_trees(
        &self,
        before: &Tree,
        after: &Tree,
        platform: Option<&Platform>,
        progress: &dyn Progress,
        cancel: &CancelToken,
    ) -> Result<TreeDifference, BuildError> {
        let _lease = self.store.lease()?;
        let ctx = Ctx::new(progress, cancel);
        let (before, one) = self.tree(before, platform, ctx)?;
        let (after, other) = self.tree(after, platform, ctx)?;
        let (files, more_files) = differing_files(&one, &other, cancel)?;
        Ok(TreeDifference { before, after, files, more_files })
    }

    fn tree(
        &self,
        tree: &Tree,
        platform: Option<&Platform>,
        ctx: Ctx<'_>,
    ) -> Result<(String, Root), BuildError> {
        match tree {
            Tree::Step(step) => {
                let name = format!("{} {}", step.name(), step.step.name);
                Ok((name, self.view(&self.step_layers(step)?)?))
            }
            Tree::Before(step) => {
                let mut layers = self.step_layers(step)?;
                match step.step.op.as_str() {
                    // All of an image, or of what was fetched, is what such a step brought.
                    "source" => layers.clear(),
                    _ => drop(layers.pop()),
                }
                Ok((format!("before {}", step.name()), self.view(&layers)?))
            }
            Tree::Image(name) => {
                let (identity, image) = OpenedImage::open(self, name, platform, ctx)?;
                let name = identity.name.unwrap_or_else(|| name.clone());
                Ok((name, image.root(self)?))
            }
        }
    }

    /// The root filesystem after a step, to be read only, with what keeps it from prune.
    pub(crate) fn step_root(&self, step: &PastStep) -> Result<(Lease, Root), BuildError> {
        let lease = self.store.lease()?;
        Ok((lease, self.view(&self.step_layers(step)?)?))
    }

    /// A root filesystem, to be read only.
    fn view(&self, layers: &[SnapshotId]) -> Result<Root, BuildError> {
        let mut paths = vec![self.empty_directory()?];
        paths.extend(layers.iter().map(|id| self.store.snapshots().path(id).join("fs")));
        Ok(Root::from_fd(rbuild_snapshot::view(&paths)?))
    }
}
