//! What uses what.
//!
//! A snapshot is in use when an image (tagged or dangling), a container or a live lease reaches
//! it: images by the chain ids of their configs (of several trees with one, the newest), containers by `containers/<id>/pins` (one
//! snapshot id per line), leases by name; what a snapshot needs (its parent, and the
//! layer whose files it shows) is in use with it. A blob is in use
//! when an image's manifest reaches it, a lease names it, or it is the manifest or config of a
//! remembered remote name (a rebuild without network needs those two).

use std::collections::{HashMap, HashSet};

use rbuild_types::Digest;
use rusqlite::Row as SqlRow;

use crate::error::CacheError;
use crate::file;
use crate::image_json::{MAX_JSON, Manifest, chain_ids};
use crate::images::ImageRecord;
use crate::lease::Protected;
use crate::recovery::read_json;
use crate::snapshots::{Snapshot, SnapshotId, SnapshotMeta};
use crate::store::Store;

/// Indexes within indexes are followed this far.
const MAX_NESTING: usize = 4;

/// Longest `pins` file, in bytes.
const MAX_PINS: usize = 1 << 20;

impl Store {
    /// The snapshots that containers hold, from `containers/*/pins`.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub fn pins(&self) -> Result<HashSet<SnapshotId>, CacheError> {
        let containers = self.root().join("containers");
        let mut pins = HashSet::new();
        for name in file::names(&containers)? {
            let path = containers.join(name).join("pins");
            // A container that goes away meanwhile pins nothing.
            let Ok(Some(file)) = file::open_if_there(&path) else { continue };
            let bytes = file::read_capped(file, &path, MAX_PINS)?;
            let text = String::from_utf8_lossy(&bytes);
            pins.extend(text.lines().filter_map(|line| line.trim().parse::<SnapshotId>().ok()));
        }
        Ok(pins)
    }
}

/// What is in use.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    /// Snapshots in use by anything.
    pub(crate) snapshots: HashSet<SnapshotId>,
    /// Snapshots that live leases protect; records are kept for these even by `all`.
    pub(crate) leased: HashSet<SnapshotId>,
    /// Blobs in use by anything.
    pub(crate) blobs: HashSet<Digest>,
    /// Snapshots that images reach.
    pub(crate) image_snapshots: HashSet<SnapshotId>,
    /// Blobs that images reach.
    pub(crate) image_blobs: HashSet<Digest>,
    /// Images without a name that nobody uses, where those count as cache; what they alone reach
    /// is in none of the sets above.
    pub(crate) loose: Vec<Holding>,
}

/// An image and what it holds.
#[derive(Debug)]
pub(crate) struct Holding {
    pub(crate) image: ImageRecord,
    pub(crate) snapshots: HashSet<SnapshotId>,
    pub(crate) blobs: HashSet<Digest>,
}

impl Holding {
    /// Follows everything from `image`, as far as it is among `snapshots`.
    pub(crate) fn of(store: &Store, image: ImageRecord, snapshots: &[Snapshot]) -> Self {
        let (mut blobs, mut chains) = (HashSet::new(), HashSet::new());
        follow(store, &image.manifest_digest, 0, &mut blobs, &mut chains);
        let known = snapshots.iter().map(|snapshot| (&snapshot.id, &snapshot.meta)).collect();
        Self { snapshots: with_needs(of_chains(snapshots, &chains), &known), image, blobs }
    }
}

/// What images without a name are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nameless {
    /// Images, as others are.
    Images,
    /// Cache.
    Cache,
}

impl Reach {
    /// Follows everything from images, containers and `protected`.
    pub(crate) fn find(
        store: &Store,
        protected: &Protected,
        nameless: Nameless,
    ) -> Result<Self, CacheError> {
        let snapshots = store.snapshots().list()?;
        let mut reach = Self::default();
        let known: HashMap<_, _> =
            snapshots.iter().map(|snapshot| (&snapshot.id, &snapshot.meta)).collect();
        let mut chains = HashSet::new();
        for image in store.tags().list()? {
            let manifest = image.manifest_digest;
            let is_loose = nameless == Nameless::Cache
                && image.reference.is_none()
                && !protected.blobs.contains(&manifest);
            if is_loose {
                reach.loose.push(Holding::of(store, image, &snapshots));
            } else {
                follow(store, &manifest, 0, &mut reach.image_blobs, &mut chains);
            }
        }
        reach.image_snapshots = with_needs(of_chains(&snapshots, &chains), &known);
        reach.leased = with_needs(protected.snapshots.iter(), &known);
        reach.snapshots = with_needs(store.pins()?.iter(), &known);
        reach.snapshots.extend(reach.image_snapshots.iter().chain(&reach.leased).cloned());
        reach.blobs = reach.image_blobs.union(&protected.blobs).copied().collect();
        // Layers of a base image are in its snapshots; what names them stays.
        for manifest in remembered(store)? {
            reach.blobs.extend(small_parts(store, &manifest));
        }
        Ok(reach)
    }
}

/// The snapshots that are found by these chain ids: of several with one, the newest.
fn of_chains<'a>(
    snapshots: &'a [Snapshot],
    chains: &HashSet<Digest>,
) -> impl Iterator<Item = &'a SnapshotId> {
    let with_chain = snapshots.iter().filter_map(|it| Some((it.meta.chain_id?, &it.id)));
    let newest: HashMap<_, _> = with_chain.filter(|(id, _)| chains.contains(id)).collect();
    newest.into_values()
}

fn with_needs<'a>(
    roots: impl Iterator<Item = &'a SnapshotId>,
    known: &HashMap<&'a SnapshotId, &'a SnapshotMeta>,
) -> HashSet<SnapshotId> {
    let mut found = HashSet::new();
    let mut pending: Vec<_> = roots.collect();
    while let Some(id) = pending.pop() {
        if found.insert(id.clone()) {
            pending.extend(known.get(id).into_iter().flat_map(|meta| meta.needs()));
        }
    }
    found
}

/// Collects the blobs of an image and the chain ids of its layers. What is missing or damaged is
/// passed over: it cannot lead anywhere.
fn follow(
    store: &Store,
    digest: &Digest,
    depth: usize,
    blobs: &mut HashSet<Digest>,
    chains: &mut HashSet<Digest>,
) {
    if !blobs.insert(*digest) || depth > MAX_NESTING {
        return;
    }
    let Some(manifest) = parsed(store, digest) else { return };
    blobs.extend(manifest.layers.iter().map(|layer| layer.digest));
    if let Some(config) = &manifest.config
        && blobs.insert(config.digest)
        && let Some(json) = read_json(&store.blobs().path(&config.digest), Some(&config.digest))
    {
        chains.extend(chain_ids(&json));
    }
    for child in &manifest.manifests {
        follow(store, &child.digest, depth + 1, blobs, chains);
    }
}

/// A manifest or an index whose bytes are those that its digest names.
pub(crate) fn parsed(store: &Store, digest: &Digest) -> Option<Manifest> {
    serde_json::from_slice(&read_json(&store.blobs().path(digest), Some(digest))?).ok()
}

/// A manifest and its config; an index, its manifests and their configs.
fn small_parts(store: &Store, digest: &Digest) -> Vec<Digest> {
    let mut parts = vec![*digest];
    let Some(manifest) = parsed(store, digest) else { return parts };
    parts.extend(manifest.config.map(|config| config.digest));
    for child in manifest.manifests.iter().filter(|child| child.size <= MAX_JSON as u64) {
        parts.push(child.digest);
        let config = parsed(store, &child.digest).and_then(|manifest| manifest.config);
        parts.extend(config.map(|config| config.digest));
    }
    parts
}

fn remembered(store: &Store) -> Result<Vec<Digest>, CacheError> {
    store.index().read(|index| {
        let digest = |row: &SqlRow<'_>| row.get(0).map(Digest::from_bytes);
        index.prepare("SELECT DISTINCT manifest FROM remembered")?.query_map([], digest)?.collect()
    })
}
