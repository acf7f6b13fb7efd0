//! Cache mounts in caches elsewhere.
//!
//! Files are cut into *chunks*: small ones are one chunk, larger ones are cut by their content, so a
//! change moves no bounds but those beside it. Chunks lie in *packs*, in the order of paths, each
//! compressed as a row of zstd frames; a [`list`] says which files there are and where their chunks
//! lie. The index names list and packs of each mount as it names layers. What is sent a second time
//! is the list, and packs of what no pack there holds ([`pack`], [`send`]).
//!
//! A mount is told from others as the store tells its volume: by id, mode, owner and seed. Who wrote
//! last counts. It is taken when a step that mounts it runs, and only where no local work would be
//! lost ([`restore`]).

pub(super) mod list;
mod pack;
mod restore;
mod send;

use std::sync::{Mutex, PoisonError};

use rbuild_image::ImageError;
use rbuild_image::manifest::Descriptor;
use serde::{Deserialize, Serialize};

use self::list::{LIST_TYPE, ListError, MAX_LIST};
pub(super) use self::restore::Restoring;
pub(crate) use self::send::cache_mount_ids;
pub(super) use self::send::{Sending, Sent, note_published};
use crate::BuildError;
use crate::cache_store::CacheStoreError;

/// What the bytes of a pack are called.
pub(super) const PACK_TYPE: &str = "application/vnd.rbuild.cache.mount.pack.v1+zstd";

/// Bytes of a chunk. A file that is no larger is one.
const MAX_CHUNK: usize = 512 << 10;
/// Bytes of a pack before it is compressed, and compressed.
const MAX_PACK: u64 = 8 << 30;
/// Packs of one mount.
const MAX_PACKS: usize = 1024;
/// Bytes of the files of one mount.
const MAX_MOUNT: u64 = 1 << 40;
/// Packs that are sent or fetched at once, as layers are.
const PARALLEL_PACKS: usize = 4;
/// Bytes of an id.
const MAX_ID: usize = 4096;

/// A cache mount as a cache has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Mount {
    /// The name of its volume, which follows from id, mode, owner and seed.
    pub(super) volume: String,
    /// The id as people write it.
    pub(super) id: String,
    pub(super) list: Descriptor,
    /// By the numbers that the list uses.
    pub(super) packs: Vec<Descriptor>,
    /// How many files there are.
    pub(super) files: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// The generation of the index that used it last.
    #[serde(default)]
    pub(super) used: u64,
}

impl Mount {
    /// All that must be kept for it.
    pub(super) fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.list).chain(&self.packs)
    }

    /// What of it cannot be.
    pub(super) fn problem(&self) -> Option<&'static str> {
        let is_pack =
            |pack: &Descriptor| pack.media_type == PACK_TYPE && (1..=MAX_PACK).contains(&pack.size);
        if self.volume.len() > MAX_ID || self.id.len() > MAX_ID {
            Some("has a cache mount with an id that is too long")
        } else if self.list.media_type != LIST_TYPE || self.list.size > MAX_LIST {
            Some("has a cache mount without a list")
        } else if self.packs.len() > MAX_PACKS || !self.packs.iter().all(is_pack) {
            Some("has a cache mount with packs that cannot be")
        } else {
            None
        }
    }
}

/// Why a cache mount could not be sent or taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MountError {
    #[error(transparent)]
    Store(#[from] CacheStoreError),
    #[error(transparent)]
    List(#[from] ListError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("pack {pack} {problem}")]
    Pack { pack: String, problem: String },
    #[error("{path} changed while it was read")]
    Changed { path: String },
    #[error(transparent)]
    Engine(#[from] BuildError),
}

impl MountError {
    /// Whether what the cache has is of no use, to nobody.
    fn is_damage(&self) -> bool {
        match self {
            Self::List(_) | Self::Image(_) | Self::Pack { .. } => true,
            Self::Store(error) => error.is_damage(),
            Self::Changed { .. } | Self::Engine(_) => false,
        }
    }

    /// Whether it says no more than that somebody has cancelled it.
    fn is_cancelled(&self) -> bool {
        matches!(
            self,
            Self::Store(CacheStoreError::Cancelled(_)) | Self::Engine(BuildError::Cancelled(_))
        )
    }
}

/// Does something for each of these, a few at once; the first failure ends it.
fn side_by_side<T: Send>(
    items: impl Iterator<Item = T> + Send,
    work: &(dyn Fn(T) -> Result<(), MountError> + Sync),
) -> Result<(), MountError> {
    let (waiting, failure) = (Mutex::new(items), Mutex::new(None));
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL_PACKS {
            scope.spawn(|| {
                while let Some(item) = next() {
                    let failed = work(item).err();
                    let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                    *failure = failure.take().or(failed);
                    if failure.is_some() {
                        break;
                    }
                }
            });
        }
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

impl From<rbuild_cache::CacheError> for MountError {
    fn from(error: rbuild_cache::CacheError) -> Self {
        Self::Engine(error.into())
    }
}

impl From<rbuild_rooted::RootedError> for MountError {
    fn from(error: rbuild_rooted::RootedError) -> Self {
        Self::Engine(error.into())
    }
}

impl From<rbuild_types::Cancelled> for MountError {
    fn from(cancelled: rbuild_types::Cancelled) -> Self {
        Self::Engine(cancelled.into())
    }
}
