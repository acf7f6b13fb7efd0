//! What steps may touch, by reference: the store, the context, images, remote sources, the helper.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rbuild_cache::{FileStamp, SnapshotId, StatCache, Store};
use rbuild_parser::ignore_file::Patterns;
use rbuild_plan::op::Source;
use rbuild_rooted::Root;
use rbuild_sandbox::Resources;
use rbuild_sandbox::linux::binfmt::Emulators;
use rbuild_types::{Ctx, Digest, Platform, Reference};

use crate::copy::{DigestCache, OwnerRule, SourceTree};
use crate::device::Devices;
use crate::elsewhere::{Exports, Imports};
use crate::error::StepError;
use crate::layer::Layer;
use crate::network::StepNetworks;
use crate::same::Cutoff;
use crate::secrets::Secrets;
use crate::ssh_agent::SshAgents;

/// Everything outside of the graph that a solve needs.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// Where results are kept. The caller holds a lease on it.
    pub store: &'a Store,
    /// For hashing, walking and packing; never for running steps, which wait.
    pub pool: &'a rayon::ThreadPool,
    /// Base images.
    pub images: &'a dyn Images,
    /// URLs and git repositories.
    pub remotes: &'a dyn Remotes,
    /// Caches elsewhere that results are taken from.
    pub imports: Option<&'a dyn Imports>,
    /// Caches elsewhere that results go to.
    pub exports: Option<&'a dyn Exports>,
    /// Devices of the machine.
    pub devices: &'a dyn Devices,
    /// The build context, if there is one.
    pub context: Option<&'a Context>,
    /// Directories that go by a name: `--build-context`.
    pub named: &'a BTreeMap<String, Context>,
    /// The program to start as the sandbox helper.
    pub helper: &'a Path,
    /// The network of steps that do not say which; without one it is the host's.
    pub network: Option<&'a dyn StepNetworks>,
    /// What steps see as `/etc/resolv.conf` on the host's network.
    pub resolv_conf: &'a str,
    /// Values of secrets by id.
    pub secrets: &'a Secrets,
    /// SSH agents that steps may use, by id.
    pub ssh: &'a SshAgents,
    /// What one step may use.
    pub resources: &'a Resources,
    /// What runs the programs of other processors.
    pub emulators: &'a Emulators,
    /// How old a result of a process may be, unless its instruction says so itself.
    pub ttl: Option<Duration>,
    /// When a step's result is that of an earlier one.
    pub cutoff: Cutoff,
    /// Names what is built, so that the next build of the same can be explained by this one.
    pub project: &'a str,
    /// Directory below the store's `logs/` for the output of this build's steps.
    pub log_directory: &'a str,
    /// Who wants layers of targets while later steps run, if anybody does.
    pub finished: Option<&'a dyn FinishedLayers>,
}

/// Is told of layers. Implemented by the engine, where bytes of layers leave the machine.
pub trait FinishedLayers: Sync {
    /// A layer of a target has got its digest: a new one, or one of the cache. Called once for
    /// each by the coordinator, so it must not wait for anything.
    fn finished(&self, layer: &Layer);
}

/// Gives root filesystems of images. Implemented over a registry by the engine.
pub trait Images: Sync {
    /// The digests of the image's uncompressed layers, bottom first: names the content without
    /// fetching it.
    fn diff_ids(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Vec<Digest>, StepError>;

    /// Makes sure that all layers are unpacked in the store; snapshots bottom first.
    fn unpack(
        &self,
        reference: &Reference,
        platform: &Platform,
        ctx: Ctx<'_>,
    ) -> Result<Vec<SnapshotId>, StepError>;
}

/// Gives the trees of remote sources. Implemented by the engine.
pub trait Remotes: Sync {
    /// What the source is now, as far as that decides over its content: a part of the keys of
    /// all that read it. May ask a server, and may fetch.
    fn identify(&self, source: &Source, ctx: Ctx<'_>) -> Result<serde_json::Value, StepError>;

    /// Makes sure that the tree that was identified before is in the store.
    fn fetch(&self, source: &Source, ctx: Ctx<'_>) -> Result<SnapshotId, StepError>;
}

/// A directory that files are copied from: a local one, or what an archive was unpacked to.
#[derive(Debug)]
pub struct Context {
    /// Its name in messages: `context`, or `context` and the name that it goes by.
    pub name: String,
    /// Its directory on the host, if it stays there after the build.
    pub path: Option<PathBuf>,
    /// Its directory, held open.
    pub root: Root,
    /// The rules of its ignore file.
    pub ignore: Patterns,
    /// The name of that file.
    pub ignore_file: String,
    /// Where it lies on the host, unless it is the file of the directory.
    pub ignore_path: Option<PathBuf>,
    /// Whose copied files become, and what becomes of their modes.
    pub owner: OwnerRule,
    /// Digests remembered from earlier builds; of no use where the files are new each time.
    pub stamps: Option<Arc<RememberedDigests>>,
}

impl Context {
    /// As a source of copies.
    pub fn tree(&self) -> SourceTree<'_> {
        SourceTree {
            root: &self.root,
            ignore: Some(&self.ignore),
            ignore_file: &self.ignore_file,
            name: self.name.clone(),
            owner: self.owner,
            stamps: self.stamps.as_deref().map(|stamps| stamps as &dyn DigestCache),
        }
    }
}

/// The store's stat cache as the copy engine wants it.
#[derive(Debug)]
pub struct RememberedDigests {
    cache: StatCache,
    /// When the build began to look at files: everything younger than this, by two seconds, is
    /// not trusted by its stamp alone.
    began: SystemTime,
}

impl RememberedDigests {
    /// Starts a build's use of `cache`.
    pub fn new(cache: StatCache) -> Self {
        Self { cache, began: SystemTime::now() }
    }

    /// Writes what is new.
    pub fn save(&self) -> Result<(), rbuild_cache::CacheError> {
        self.cache.save()
    }
}

impl DigestCache for RememberedDigests {
    fn get(&self, stamp: &FileStamp) -> Option<Digest> {
        self.cache.get(stamp)
    }

    fn insert(&self, stamp: FileStamp, digest: Digest) {
        self.cache.insert(stamp, digest, self.began);
    }
}

impl<'a> World<'a> {
    /// The directory that goes by this name; the build context has none.
    pub(crate) fn context(&self, name: Option<&str>) -> Option<&'a Context> {
        match name {
            None => self.context,
            Some(name) => self.named.get(name),
        }
    }

    /// The directories that overlay the given snapshots, bottom first.
    pub(crate) fn layer_paths(&self, chain: &[SnapshotId]) -> Vec<PathBuf> {
        chain.iter().map(|id| self.store.snapshots().path(id).join("fs")).collect()
    }
}
