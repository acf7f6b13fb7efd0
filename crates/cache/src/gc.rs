//! What uses what, and how much room it takes.
//!
//! A snapshot is in use when an image (tagged or dangling), a container or a live lease reaches
//! it: images by the chain ids of their configs, containers by `containers/<id>/pins` (one
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
use crate::lease::Protected;
use crate::records::{self, StepRecord};
use crate::recovery::read_json;
use crate::remove::DiskUsage;
use crate::snapshots::{Snapshot, SnapshotId, SnapshotMeta};
use crate::store::Store;

/// Indexes within indexes are followed this far.
const MAX_NESTING: usize = 4;

/// Longest `pins` file, in bytes.
const MAX_PINS: usize = 1 << 20;

/// Bytes on disk by class: blocks times 512, a file with several names counted once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Blobs that images use.
    pub image_blobs: u64,
    /// Blobs that no image uses.
    pub other_blobs: u64,
    /// Snapshots that images use.
    pub image_snapshots: u64,
    /// Snapshots that only the cache, containers or running builds use.
    pub other_snapshots: u64,
    /// The index with its log.
    pub records: u64,
    /// Full output of steps.
    pub logs: u64,
    /// Volumes and cache mounts.
    pub volumes: u64,
    /// Containers.
    pub containers: u64,
    /// Work in progress and what died processes left.
    pub temporary: u64,
    /// All of the store.
    pub total: u64,
}

/// What a [`Row`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// A tree with the records that lead to it.
    Snapshot,
    /// A record without a tree.
    Record,
    /// A blob.
    Blob,
}

/// One line of `du`, and one thing that prune can remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Snapshot id, or digest of a record's key or of a blob.
    pub id: String,
    /// What it is.
    pub class: Class,
    /// The step's operation or the word given to `allocate`; `blob` for a blob.
    pub kind: String,
    /// Bytes on disk, as recorded when it was made.
    pub size: u64,
    /// Milliseconds since 1970.
    pub created: i64,
    /// Milliseconds since 1970, exact to an hour.
    pub last_used: i64,
    /// Whether an image, a container or a running build uses it.
    pub in_use: bool,
    /// The step's name, or what else is known.
    pub description: String,
}

impl Store {
    /// Measures the store by walking it. Meant for people: takes a second per million files.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn usage(&self) -> Result<Usage, CacheError> {
        let reach = Reach::find(self, &Protected::default())?;
        let mut disk = DiskUsage::new();
        let mut usage = Usage::default();
        let root = self.root();
        for snapshot in self.snapshots().list()? {
            let class = match reach.image_snapshots.contains(&snapshot.id) {
                true => &mut usage.image_snapshots,
                false => &mut usage.other_snapshots,
            };
            *class += disk.add(&self.snapshots().path(&snapshot.id))?;
        }
        for digest in self.blobs().list()? {
            let class = match reach.image_blobs.contains(&digest) {
                true => &mut usage.image_blobs,
                false => &mut usage.other_blobs,
            };
            *class += disk.add(&self.blobs().path(&digest))?;
        }
        for name in ["index.db", "index.db-wal", "index.db-shm"] {
            usage.records += disk.add(&root.join(name))?;
        }
        usage.logs = disk.add(&root.join("logs"))?;
        usage.volumes = disk.add(&root.join("volumes"))?;
        usage.containers = disk.add(&root.join("containers"))?;
        usage.temporary = disk.add(&root.join("tmp"))?;
        usage.total = disk.bytes();
        Ok(usage)
    }

    /// Everything that the build cache holds: snapshots, records without one, and blobs that no
    /// image uses.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn rows(&self) -> Result<Vec<Row>, CacheError> {
        let reach = Reach::find(self, &Protected::read(&self.locks())?)?;
        Ok(Inventory::take(self)?.rows(&reach))
    }

    /// The snapshots that containers hold, from `containers/*/pins`.
    pub(crate) fn pins(&self) -> Result<HashSet<SnapshotId>, CacheError> {
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
}

impl Reach {
    /// Follows everything from images, containers and `protected`.
    pub(crate) fn find(store: &Store, protected: &Protected) -> Result<Self, CacheError> {
        let snapshots = store.snapshots().list()?;
        let mut reach = Self::default();
        let mut chains = HashSet::new();
        for image in store.tags().list()? {
            follow(store, &image.manifest_digest, 0, &mut reach.image_blobs, &mut chains);
        }
        let known: HashMap<_, _> =
            snapshots.iter().map(|snapshot| (&snapshot.id, &snapshot.meta)).collect();
        let of_images = snapshots
            .iter()
            .filter(|snapshot| snapshot.meta.chain_id.is_some_and(|chain| chains.contains(&chain)))
            .map(|snapshot| &snapshot.id);
        reach.image_snapshots = with_needs(of_images, &known);
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

fn parsed(store: &Store, digest: &Digest) -> Option<Manifest> {
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

/// All that gc can talk about.
#[derive(Debug)]
pub(crate) struct Inventory {
    pub(crate) snapshots: Vec<Snapshot>,
    /// In the order in which they were written.
    pub(crate) records: Vec<StepRecord>,
    /// With bytes on disk and time of the last change in milliseconds.
    pub(crate) blobs: Vec<(Digest, u64, i64)>,
}

impl Inventory {
    pub(crate) fn take(store: &Store) -> Result<Self, CacheError> {
        let blobs = store.blobs().list()?.into_iter().filter_map(|digest| {
            let stat = rustix::fs::lstat(store.blobs().path(&digest)).ok()?;
            Some((digest, stat.st_blocks as u64 * 512, stat.st_mtime * 1000))
        });
        // Records of lost work are listed too: they only go.
        let records: Vec<Option<StepRecord>> = store.index().read(|index| {
            let sql = "SELECT body, last_used FROM records ORDER BY seq";
            index.prepare(sql)?.query_map([], records::decode)?.collect()
        })?;
        Ok(Self {
            snapshots: store.snapshots().list()?,
            records: records.into_iter().flatten().collect(),
            blobs: blobs.collect(),
        })
    }

    /// Lines for people; blobs of images are left out.
    pub(crate) fn rows(&self, reach: &Reach) -> Vec<Row> {
        let mut by_snapshot: HashMap<&SnapshotId, &StepRecord> = HashMap::new();
        let mut rows = Vec::new();
        for record in &self.records {
            match &record.snapshot {
                Some(snapshot) => {
                    let newest = by_snapshot.entry(snapshot).or_insert(record);
                    if newest.last_used <= record.last_used {
                        *newest = record;
                    }
                }
                None => rows.push(record_row(record)),
            }
        }
        let snapshots = self.snapshots.iter();
        rows.extend(snapshots.map(|it| snapshot_row(it, by_snapshot.get(&it.id).copied(), reach)));
        let others = self.blobs.iter().filter(|(digest, ..)| !reach.image_blobs.contains(digest));
        rows.extend(others.map(|(digest, size, changed)| Row {
            id: digest.to_string(),
            class: Class::Blob,
            kind: "blob".to_owned(),
            size: *size,
            created: *changed,
            last_used: *changed,
            in_use: reach.blobs.contains(digest),
            description: "blob of no image".to_owned(),
        }));
        rows
    }
}

fn record_row(record: &StepRecord) -> Row {
    Row {
        id: record.key.to_string(),
        class: Class::Record,
        kind: record.op.clone(),
        size: 0,
        created: record.created,
        last_used: record.last_used,
        in_use: false,
        description: record.step_name.clone(),
    }
}

/// The line of a snapshot, whose newest record tells what it is.
pub(crate) fn snapshot_row(snapshot: &Snapshot, record: Option<&StepRecord>, reach: &Reach) -> Row {
    let created = snapshot.created;
    Row {
        id: snapshot.id.to_string(),
        class: Class::Snapshot,
        kind: record.map_or(&snapshot.kind, |record| &record.op).clone(),
        size: snapshot.meta.bytes,
        created,
        last_used: record.map_or(created, |record| record.last_used.max(created)),
        in_use: reach.snapshots.contains(&snapshot.id),
        description: record.map_or(&snapshot.kind, |record| &record.step_name).clone(),
    }
}
