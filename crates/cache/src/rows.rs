//! What `du` lists and prune chooses among.

use std::collections::HashMap;

use rbuild_types::Digest;

use crate::error::CacheError;
use crate::gc::Reach;
use crate::images::ImageRecord;
use crate::measure::blocks;
use crate::records::{self, StepRecord};
use crate::snapshots::{Snapshot, SnapshotId};
use crate::store::Store;
use crate::volumes::{Volume, VolumeInfo};
use crate::{file, sizes};

/// What a [`Row`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// A tree with the records that lead to it.
    Snapshot,
    /// A record without a tree.
    Record,
    /// A blob.
    Blob,
    /// A cache mount.
    Cache,
    /// An image without a name. Only what prune removed has such rows.
    Image,
}

/// One line of `du`, and one thing that prune can remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Snapshot id, digest of a record's key, of a blob or an image, or name of a cache mount.
    pub id: String,
    /// What it is.
    pub class: Class,
    /// The step's operation or the word given to `allocate`; `blob`, `cache` or `image` for others.
    pub kind: String,
    /// Ids of the rows that it is nothing without.
    pub parents: Vec<String>,
    /// Bytes on disk that belong to nothing else.
    pub size: u64,
    /// Milliseconds since 1970.
    pub created: i64,
    /// Milliseconds since 1970; of a step exact to an hour.
    pub last_used: i64,
    /// Whether an image, a container or a running build uses it.
    pub in_use: bool,
    /// Whether an image uses it.
    pub shared: bool,
    /// The step's name, or what else is known.
    pub description: String,
}

impl Row {
    /// What BuildKit calls this sort of thing.
    pub fn buildkit_type(&self) -> &'static str {
        match (self.class, self.kind.as_str()) {
            (Class::Cache, _) => "exec.cachemount",
            (_, "git") => "source.git.checkout",
            _ => "regular",
        }
    }

    /// Whether it changes while it is used.
    pub fn is_mutable(&self) -> bool {
        self.class == Class::Cache
    }
}

/// Chooses rows; the default takes all of them. Of several values for one question one is enough.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowFilter {
    /// Last used before this time, milliseconds since 1970.
    pub until: Option<i64>,
    /// Of one of these kinds, as [`Row::kind`] or [`Row::buildkit_type`] has them.
    pub kinds: Vec<String>,
    /// With an id that starts with one of these texts.
    pub ids: Vec<String>,
    /// With a parent whose id starts with one of these texts.
    pub parents: Vec<String>,
    /// With one of these texts in the description.
    pub descriptions: Vec<String>,
    /// As [`Row::in_use`].
    pub in_use: Option<bool>,
    /// As [`Row::shared`].
    pub shared: Option<bool>,
    /// As [`Row::is_mutable`].
    pub mutable: Option<bool>,
}

impl RowFilter {
    /// Whether it takes everything.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it takes this row.
    pub fn takes(&self, row: &Row) -> bool {
        let one_of = |wanted: &[String], fits: &dyn Fn(&str) -> bool| {
            wanted.is_empty() || wanted.iter().any(|wanted| fits(wanted))
        };
        let is = |wanted: Option<bool>, found: bool| wanted.is_none_or(|wanted| wanted == found);
        self.until.is_none_or(|until| row.last_used < until)
            && one_of(&self.kinds, &|kind| kind == row.kind || kind == row.buildkit_type())
            && one_of(&self.ids, &|id| names(&row.id, id))
            && one_of(&self.parents, &|id| row.parents.iter().any(|parent| names(parent, id)))
            && one_of(&self.descriptions, &|text| row.description.contains(text))
            && is(self.in_use, row.in_use)
            && is(self.shared, row.shared)
            && is(self.mutable, row.is_mutable())
    }

    /// Whether it asks for this row in particular.
    pub(crate) fn names(&self, row: &Row) -> bool {
        (!self.kinds.is_empty() || !self.ids.is_empty()) && self.takes(row)
    }
}

/// Whether `wanted` is the id or the start of it, with or without `sha256:`.
fn names(id: &str, wanted: &str) -> bool {
    let bare = |text: &str| text.strip_prefix("sha256:").unwrap_or(text).to_owned();
    !bare(wanted).is_empty() && bare(id).starts_with(&bare(wanted))
}

/// All that gc can talk about.
#[derive(Debug)]
pub(crate) struct Inventory {
    pub(crate) snapshots: Vec<Snapshot>,
    /// In the order in which they were written.
    pub(crate) records: Vec<StepRecord>,
    /// With bytes on disk and time of the last change in milliseconds.
    pub(crate) blobs: Vec<(Digest, u64, i64)>,
    /// Cache mounts.
    pub(crate) caches: Vec<Volume>,
    /// Recorded bytes of snapshots by id.
    snapshot_sizes: HashMap<String, u64>,
    /// Measured bytes of volumes by name; not of those that were used since.
    volume_sizes: HashMap<String, u64>,
}

impl Inventory {
    pub(crate) fn take(store: &Store) -> Result<Self, CacheError> {
        let blobs = store.blobs().list()?.into_iter().filter_map(|digest| {
            let stat = rustix::fs::lstat(store.blobs().path(&digest)).ok()?;
            Some((digest, blocks(&stat), file::changed_ms(&stat)))
        });
        // Records of lost work are listed too: they only go.
        let records: Vec<Option<StepRecord>> = store.index().read(|index| {
            let sql = "SELECT body, last_used FROM records ORDER BY seq";
            index.prepare(sql)?.query_map([], records::decode)?.collect()
        })?;
        let mut caches = store.volumes().list()?;
        caches.retain(Volume::is_cache);
        Ok(Self {
            snapshots: store.snapshots().list()?,
            records: records.into_iter().flatten().collect(),
            blobs: blobs.collect(),
            caches,
            snapshot_sizes: sizes::of_kind(store, "snapshot")?,
            volume_sizes: sizes::of_volumes(store)?,
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
        for snapshot in &self.snapshots {
            let record = by_snapshot.get(&snapshot.id).copied();
            rows.push(self.snapshot_row(snapshot, record, reach));
        }
        let others = self.blobs.iter().filter(|(digest, ..)| !reach.image_blobs.contains(digest));
        rows.extend(others.map(|(digest, size, changed)| Row {
            id: digest.to_string(),
            class: Class::Blob,
            kind: "blob".to_owned(),
            parents: Vec::new(),
            size: *size,
            created: *changed,
            last_used: *changed,
            in_use: reach.blobs.contains(digest),
            shared: false,
            description: "blob of no image".to_owned(),
        }));
        rows.extend(self.caches.iter().map(|volume| self.cache_row(volume)));
        rows
    }

    fn snapshot_row(&self, snapshot: &Snapshot, record: Option<&StepRecord>, reach: &Reach) -> Row {
        let (id, created) = (snapshot.id.to_string(), snapshot.created);
        Row {
            class: Class::Snapshot,
            kind: record.map_or(&snapshot.kind, |record| &record.op).clone(),
            parents: snapshot.meta.needs().map(ToString::to_string).collect(),
            size: self.snapshot_sizes.get(&id).copied().unwrap_or(snapshot.meta.bytes),
            created,
            // The newest record tells what it is.
            last_used: record.map_or(created, |record| record.last_used.max(created)),
            in_use: reach.snapshots.contains(&snapshot.id),
            shared: reach.image_snapshots.contains(&snapshot.id),
            description: record.map_or(&snapshot.kind, |record| &record.step_name).clone(),
            id,
        }
    }

    fn cache_row(&self, volume: &Volume) -> Row {
        let id = volume.info.as_ref().map(VolumeInfo::shown_id);
        Row {
            id: volume.name.clone(),
            class: Class::Cache,
            kind: "cache".to_owned(),
            parents: Vec::new(),
            size: self.volume_sizes.get(&volume.name).copied().unwrap_or(0),
            created: volume.info.as_ref().map_or(volume.last_used, |info| info.created),
            last_used: volume.last_used,
            in_use: volume.in_use,
            shared: false,
            description: format!("cache mount {}", id.unwrap_or("of unknown id")),
        }
    }
}

fn record_row(record: &StepRecord) -> Row {
    Row {
        id: record.key.to_string(),
        class: Class::Record,
        kind: record.op.clone(),
        parents: Vec::new(),
        size: 0,
        created: record.created,
        last_used: record.last_used,
        in_use: false,
        shared: false,
        description: record.step_name.clone(),
    }
}

/// The row of an image that may go; its bytes are those of its layers.
pub(crate) fn image_row(image: &ImageRecord, last_used: i64) -> Row {
    Row {
        id: image.image_id.to_string(),
        class: Class::Image,
        kind: "image".to_owned(),
        parents: Vec::new(),
        size: 0,
        created: image.created,
        last_used,
        in_use: false,
        shared: false,
        description: "image without a name".to_owned(),
    }
}
