//! Looks whether the store is what its index says, and repairs what costs nobody anything.
//!
//! What is damaged is told apart by what it costs: a *leftover* costs room, damaged *cache* costs
//! the work to make it anew, a damaged *image* is lost until somebody builds or pulls it again.
//! Only the first two are repaired; an image is never removed here, and neither is what one needs,
//! what a container lies on, or what a running build uses.
//!
//! Rows and names are looked at under the exclusive gc lock, so nothing appears or goes meanwhile.
//! Bytes are read without it, and what is damaged is looked at once more before it is reported:
//! prune may have taken it. Before a blob is removed it is read once more, under the lock. The
//! content of trees is the business of whoever can pack them; he reports with [`Fsck::tree`].

mod look;
mod repair;

use std::io::{ErrorKind, Read as _};

use rbuild_types::{CancelToken, Digest, Hasher};

use crate::error::CacheError;
use crate::gc::Holding;
use crate::lock::GcLock;
use crate::snapshots::{Snapshot, SnapshotId};
use crate::store::Store;
use crate::{file, sizes};

/// What a [`Damage`] costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// Room, or nothing.
    Leftover,
    /// The work to make it anew.
    Cache,
    /// An image.
    Image,
}

/// Something that is not as the index says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// What is damaged: `snapshot 5e…`, `blob sha256:…`, `image app:latest`.
    pub subject: String,
    /// What is wrong with it.
    pub problem: String,
    /// What it costs.
    pub loss: Loss,
    /// The images that need it.
    pub images: Vec<String>,
    object: Object,
}

/// What a repair has to do with.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Object {
    Snapshot(SnapshotId),
    /// A row of `snapshots` that cannot be read, by number and id.
    SnapshotRow(i64, String),
    /// A row of `records` that cannot be read, by number.
    RecordRow(i64),
    Record(Digest),
    Alias(Digest),
    Sidecar(SnapshotId),
    Blob(Digest),
    Orphan,
    Sizes,
    Image,
}

impl Damage {
    /// What whoever reads of it can do.
    pub fn way_out(&self) -> String {
        match (self.loss, self.images.as_slice()) {
            (Loss::Image, [image]) => format!(
                "`rbuild rmi {image}` and `rbuild fsck --repair`, then build or pull it again"
            ),
            (Loss::Image, _) => {
                "remove these images and run `rbuild fsck --repair`, then build or pull them again"
                    .to_owned()
            }
            (Loss::Cache, _) => {
                "`rbuild fsck --repair` removes it or writes it down anew; what is missing then, the \
                 next build makes"
                    .to_owned()
            }
            (Loss::Leftover, _) => "`rbuild fsck --repair` puts it right".to_owned(),
        }
    }
}

/// A check of one store.
#[derive(Debug)]
pub struct Fsck<'a> {
    store: &'a Store,
    /// What is there, and worth being looked into.
    snapshots: Vec<Snapshot>,
    holdings: Vec<Holding>,
    /// What is wrong with rows, names and descriptions.
    index: Vec<Damage>,
}

impl Store {
    /// Begins a check: looks at rows, names and descriptions, which is everything but the bytes of
    /// blobs and trees.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn fsck(&self) -> Result<Fsck<'_>, CacheError> {
        let _guard = match self.is_read_only() {
            true => None,
            false => Some(GcLock::exclusive(&self.gc_path())?),
        };
        let snapshots = self.snapshots().list()?;
        let images = self.tags().list()?.into_iter();
        let holdings = images.map(|image| Holding::of(self, image, &snapshots)).collect();
        let mut fsck = Fsck { store: self, snapshots, holdings, index: Vec::new() };
        fsck.index = fsck.look()?;
        Ok(fsck)
    }
}

impl Fsck<'_> {
    /// The trees whose content may be looked at.
    pub fn snapshots(&self) -> &[Snapshot] {
        &self.snapshots
    }

    /// What is wrong with rows, names and descriptions.
    pub fn index(&self) -> &[Damage] {
        &self.index
    }

    /// Reads all blobs.
    ///
    /// # Errors
    ///
    /// [`CacheError::Cancelled`], and when the directory cannot be read.
    pub fn blobs(&self, cancel: &CancelToken) -> Result<Vec<Damage>, CacheError> {
        let mut damage = Vec::new();
        for digest in self.store.blobs().list()? {
            let problem = self.problem_of_blob(&digest, cancel)?;
            damage.extend(problem.map(|problem| self.found(Object::Blob(digest), problem)));
        }
        Ok(damage)
    }

    /// Reads a blob; of one that is not there nothing is wrong.
    fn problem_of_blob(
        &self,
        digest: &Digest,
        cancel: &CancelToken,
    ) -> Result<Option<String>, CacheError> {
        let path = self.store.blobs().path(digest);
        let Some(mut blob) = file::open_if_there(&path)? else { return Ok(None) };
        let (mut hasher, mut buffer) = (Hasher::new(), vec![0; 1 << 17]);
        loop {
            cancel.check()?;
            match blob.read(&mut buffer) {
                Ok(0) => {
                    let found = hasher.finish();
                    let is_other = found != *digest;
                    return Ok(is_other.then(|| format!("its bytes are those of {found}")));
                }
                Ok(count) => hasher.update(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Ok(Some(format!("it cannot be read: {error}"))),
            }
        }
    }

    /// Reports a tree whose content is not what was recorded; `None` when it is gone by now.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn tree(&self, id: &SnapshotId, problem: String) -> Result<Option<Damage>, CacheError> {
        let there = self.store.snapshots().contains(id)?;
        Ok(there.then(|| self.found(Object::Snapshot(id.clone()), problem)))
    }

    /// Compares the recorded sizes of trees with what is there: walks the store. Less than a
    /// hundredth is nothing: a file system counts other blocks for a file once it has written it.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn sizes(&self) -> Result<Vec<Damage>, CacheError> {
        let measured = self.store.measure_snapshots()?;
        let off = sizes::difference(self.store, measured)?;
        let problem = format!("the recorded sizes of trees are off by {off} bytes");
        let is_off = off.unsigned_abs() > measured / 100;
        Ok(is_off.then(|| self.found(Object::Sizes, problem)).into_iter().collect())
    }

    fn found(&self, object: Object, problem: impl Into<String>) -> Damage {
        let subject = match &object {
            Object::Snapshot(id) => format!("snapshot {id}"),
            Object::SnapshotRow(_, id) => format!("snapshot {id}"),
            Object::Sidecar(id) => format!("snapshot {id}"),
            Object::RecordRow(seq) => format!("record number {seq}"),
            Object::Record(key) => format!("record {key}"),
            Object::Alias(key) => format!("alias {key}"),
            Object::Blob(digest) => format!("blob {digest}"),
            Object::Sizes => "the index".to_owned(),
            Object::Orphan | Object::Image => String::new(),
        };
        let holds = |holding: &&Holding| match &object {
            Object::Snapshot(id) => holding.snapshots.contains(id),
            Object::Blob(digest) => holding.blobs.contains(digest),
            _ => false,
        };
        let images: Vec<_> = self.holdings.iter().filter(holds).map(image_name).collect();
        let loss = match &object {
            Object::Alias(_) | Object::Record(_) | Object::Orphan | Object::Sizes => Loss::Leftover,
            _ if images.is_empty() => Loss::Cache,
            _ => Loss::Image,
        };
        Damage { subject, problem: problem.into(), loss, images, object }
    }
}

fn image_name(holding: &Holding) -> String {
    let image = &holding.image;
    match &image.reference {
        Some(reference) => reference.familiar(),
        None => image.image_id.short(),
    }
}
