//! COPY and ADD: selecting and writing, with the trees of a build.

use std::fs::File;
use std::path::Path;

use rbuild_cache::SnapshotId;
use rbuild_image::layer::{self, UnpackOptions};
use rbuild_plan::op::{Copy, CopySource, Unpack};
use rbuild_rooted::Root;
use rbuild_sandbox::linux::user;
use rbuild_types::{CancelToken, Cancelled, Digest};

use crate::copy::{
    ArchiveOptions, Archives, CopyError, Earlier, Listing, OwnerRule, Ownership, Selection,
    SourceTree, Target, apply, select,
};
use crate::error::StepError;
use crate::steps::active::{Writing, nothing};
use crate::steps::mkdir::accounts;
use crate::steps::{Executed, Job};
use crate::world::{Context, World};

/// The root filesystems that a copy looks at besides its own, mounted.
pub(crate) struct Trees<'a> {
    world: World<'a>,
    /// By input number; `None` where the copy does not look at an input.
    inputs: Vec<Option<Root>>,
}

impl<'a> Trees<'a> {
    /// Mounts what `op` reads; `chains` are the snapshots of each input, bottom first.
    pub(crate) fn mount(
        world: World<'a>,
        op: &Copy,
        chains: &[Vec<SnapshotId>],
    ) -> Result<Self, StepError> {
        let mut inputs: Vec<Option<Root>> = chains.iter().map(|_| None).collect();
        let sources = op.sources.iter().filter_map(|source| match source {
            CopySource::Input { input, .. } => Some(*input),
            _ => None,
        });
        for input in sources.chain(op.accounts) {
            if let (Some(slot @ None), Some(chain)) = (inputs.get_mut(input), chains.get(input)) {
                let mut layers = vec![nothing(world.store)?];
                layers.extend(world.layer_paths(chain));
                *slot = Some(Root::from_fd(rbuild_snapshot::view(&layers)?));
            }
        }
        Ok(Self { world, inputs })
    }

    /// The root filesystem of an input, if the copy looks at it.
    pub(crate) fn root(&self, input: usize) -> Option<&Root> {
        self.inputs.get(input)?.as_ref()
    }

    fn tree_of<'t>(&'t self, source: &CopySource) -> Option<SourceTree<'t>> {
        match source {
            CopySource::Context { context, .. } => {
                self.world.context(context.as_deref()).map(Context::tree)
            }
            CopySource::Input { input, .. } => {
                self.inputs.get(*input)?.as_ref().map(|root| SourceTree {
                    root,
                    ignore: None,
                    ignore_file: "",
                    name: "stage".to_owned(),
                    owner: OwnerRule::Keep,
                    stamps: None,
                })
            }
            CopySource::Inline { .. } | CopySource::Empty { .. } => None,
        }
    }

    /// Finds and hashes what `op` takes.
    pub(crate) fn select(&self, op: &Copy, cancel: &CancelToken) -> Result<Selection, StepError> {
        let tree_of = |source: &CopySource| self.tree_of(source);
        select(op, &tree_of, self.world.pool, cancel).map_err(StepError::from)
    }

    /// Who the named owner of a linked copy is.
    pub(crate) fn owner(&self, op: &Copy) -> Result<Option<(u32, u32)>, StepError> {
        let root = op.accounts.and_then(|input| self.root(input));
        let Some((root, text)) = root.zip(op.chown.as_deref()) else { return Ok(None) };
        let bad = |message| CopyError::BadChown { text: text.to_owned(), message };
        Ok(Some(owner_in(root, text).map_err(bad)?))
    }

    /// Writes a selection of the context into a tree that is no root filesystem; says what it
    /// really wrote.
    pub(crate) fn apply(
        &self,
        op: &Copy,
        selection: &Selection,
        into: &Root,
        cancel: &CancelToken,
    ) -> Result<Digest, StepError> {
        let lookup_owner = |text: &str| Err(format!("{text:?} cannot be looked up here"));
        let target = Target {
            root: into,
            lookup_owner: &lookup_owner,
            archives: None,
            ownership: Ownership::Set,
            earlier: None,
        };
        let tree_of = |source: &CopySource| self.tree_of(source);
        Ok(apply(op, selection, &tree_of, &target, self.world.pool, cancel)?.digest)
    }
}

impl From<CopyError> for StepError {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Cancelled => Self::Cancelled(Cancelled),
            other => Self::Copy(other),
        }
    }
}

pub(crate) fn execute(
    job: &Job<'_>,
    op: &Copy,
    chain: &[SnapshotId],
) -> Result<Executed, StepError> {
    let world = job.world;
    let trees = Trees::mount(world, op, &job.inputs)?;
    let selected;
    let selection = match &job.selection {
        Some(selection) => selection,
        None => {
            selected = trees.select(op, job.cancel)?;
            &selected
        }
    };
    let writing = Writing::start(&world, "copy", chain, nothing(world.store)?, job.cancel)?;
    let earlier = earlier(job)?;
    let applied = {
        // Written through a mount, directories would be marked as hiding what is below them.
        let root = if op.link { writing.upper()? } else { writing.mount()? };
        let accounts = op.accounts.and_then(|input| trees.root(input)).unwrap_or(&root);
        let lookup_owner = |text: &str| owner_in(accounts, text);
        let tars = Tars(job.cancel);
        let archives: Option<&dyn Archives> = (op.unpack != Unpack::None).then_some(&tars as _);
        let target = Target {
            root: &root,
            lookup_owner: &lookup_owner,
            archives,
            ownership: Ownership::Set,
            earlier: earlier.as_ref(),
        };
        let tree_of = |source: &CopySource| trees.tree_of(source);
        apply(op, selection, &tree_of, &target, world.pool, job.cancel)?
    };
    if let Some(earlier) = earlier {
        applied.left.lay(&writing.upper()?, &earlier, world.pool, job.cancel)?;
    }
    if let Some(listing) = Listing::new(selection, &applied) {
        writing.keep(&listing)?;
    }
    let changed = applied.changed.then(|| vec![applied.digest]);
    Ok(Executed { made: writing.publish(job)?, log: None, changed })
}

/// What the last run of the same instruction wrote, if it is still there.
fn earlier<'a>(job: &'a Job<'_>) -> Result<Option<Earlier<'a>>, StepError> {
    let snapshots = job.world.store.snapshots();
    let Some((snapshot, listing)) = &job.earlier else { return Ok(None) };
    // Asking puts it under the lease.
    if !snapshots.contains(snapshot)? {
        return Ok(None);
    }
    let tree = Root::open(snapshots.path(snapshot).join("fs"))?;
    Ok(Earlier::new(&tree, listing))
}

/// Whom the text of `--chown` means in a root filesystem.
fn owner_in(root: &Root, text: &str) -> Result<(u32, u32), String> {
    let (passwd, group) = accounts(root).map_err(|error| error.to_string())?;
    user::lookup_owner(text, &passwd, &group).map_err(|error| error.to_string())
}

/// ADD's archives, read by the image crate.
struct Tars<'a>(&'a CancelToken);

impl Archives for Tars<'_> {
    fn is_archive(&self, file: &File) -> std::io::Result<bool> {
        Ok(layer::is_archive(file))
    }

    fn unpack(
        &self,
        file: File,
        root: &Root,
        destination: &Path,
        options: &ArchiveOptions,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let into = root.enter(destination)?;
        let ownership = match (options.ownership, options.owner) {
            (Ownership::Leave, _) => layer::Ownership::Caller,
            (Ownership::Set, Some((uid, gid))) => layer::Ownership::Fixed { uid, gid },
            (Ownership::Set, None) => layer::Ownership::Archive,
        };
        let options = UnpackOptions { ownership, ..UnpackOptions::default() };
        layer::unpack_archive(&mut std::io::BufReader::new(file), &into, &options, self.0)?;
        Ok(())
    }
}
