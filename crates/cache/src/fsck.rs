//! Looks whether the store is what its index says, and repairs what costs nobody anything.
//!
//! What is damaged is told apart by what it costs: a *leftover* costs room, damaged *cache* costs
//! the work to make it anew, a damaged *image* is lost until somebody builds or pulls it again. Only
//! the first two are repaired; an image is never removed here, and neither is what one needs, what
//! a container lies on, or what a running build uses.
//!
//! Rows and names are looked at under the exclusive gc lock, so nothing appears or goes meanwhile.
//! Bytes are read without it, and what is damaged is looked at once more before it is reported:
//! prune may have taken it. The content of trees is the business of whoever can pack them; he
//! reports with [`Fsck::tree`].

use std::collections::HashSet;
use std::io::Read as _;

use rbuild_types::{CancelToken, Ctx, Digest, Hasher, Silent};

use crate::error::{At as _, CacheError};
use crate::gc::{Holding, parsed};
use crate::image_json::chain_ids;
use crate::index::Durability;
use crate::lease::Protected;
use crate::lock::GcLock;
use crate::prune::remove_snapshots;
use crate::records::{self, StepRecord};
use crate::recovery::read_json;
use crate::snapshots::{self, Snapshot, SnapshotId};
use crate::store::Store;
use crate::{PruneOptions, RowFilter, body, file, sizes};

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
}

impl Store {
    /// Begins a check; [`Fsck`] has its parts.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn fsck(&self) -> Result<Fsck<'_>, CacheError> {
        let snapshots = self.snapshots().list()?;
        let images = self.tags().list()?.into_iter();
        let holdings = images.map(|image| Holding::of(self, image, &snapshots)).collect();
        Ok(Fsck { store: self, snapshots, holdings })
    }
}

impl Fsck<'_> {
    /// The trees whose content may be looked at.
    pub fn snapshots(&self) -> &[Snapshot] {
        &self.snapshots
    }

    /// Looks at rows, names and descriptions: everything but the bytes of blobs and trees.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn index(&self) -> Result<Vec<Damage>, CacheError> {
        let _guard = match self.store.is_read_only() {
            true => None,
            false => Some(GcLock::exclusive(&self.store.gc_path())?),
        };
        let mut damage = Vec::new();
        self.snapshot_rows(&mut damage)?;
        self.record_rows(&mut damage)?;
        for holding in &self.holdings {
            self.image(holding, &mut damage);
        }
        Ok(damage)
    }

    fn snapshot_rows(&self, damage: &mut Vec<Damage>) -> Result<(), CacheError> {
        let store = self.store;
        let rows: Vec<(i64, String, bool, Option<Snapshot>)> = store.index().read(|index| {
            let sql = "SELECT body, seq, id, synced FROM snapshots WHERE synced = 1 OR boot = ?1";
            let row = |row: &rusqlite::Row<'_>| {
                Ok((row.get(1)?, row.get(2)?, row.get(3)?, snapshots::decode(row)?))
            };
            index.prepare_cached(sql)?.query_map([store.boot()], row)?.collect()
        })?;
        let protected = Protected::read(&store.locks())?;
        let there: HashSet<&str> = rows.iter().map(|(_, id, ..)| id.as_str()).collect();
        for (seq, id, synced, snapshot) in &rows {
            let Some(snapshot) = snapshot.as_ref().filter(|it| it.id.as_str() == id) else {
                let object = Object::SnapshotRow(*seq, id.clone());
                damage.push(self.found(object, "its row is damaged"));
                continue;
            };
            let mut wrong = |problem: String| {
                damage.push(self.found(Object::Snapshot(snapshot.id.clone()), problem));
            };
            if !file::exists(&store.snapshots().path(&snapshot.id)) {
                wrong("its tree is gone".to_owned());
            }
            for needed in snapshot.meta.needs().filter(|id| !there.contains(id.as_str())) {
                wrong(format!("snapshot {needed}, which it needs, is gone"));
            }
            if !*synced {
                continue;
            }
            let beside = Object::Sidecar(snapshot.id.clone());
            let described = read_json(&store.snapshots().sidecar(&snapshot.id), None);
            match described.and_then(|it| body::decode::<Snapshot>(&it)) {
                Some(described) if described == *snapshot => {}
                // Two processes wrote at once: one of them had not heard of the layer's digest.
                Some(_) => damage.push(Damage {
                    loss: Loss::Leftover,
                    ..self.found(beside, "its description beside it is an old one")
                }),
                None => damage.push(self.found(beside, "its description beside it is damaged")),
            }
        }
        for name in file::names(&store.root().join("snapshots"))? {
            let id = name.strip_suffix(".json").unwrap_or(&name);
            let leased = id.parse().is_ok_and(|id| protected.snapshots.contains(&id));
            if !there.contains(id) && !leased {
                damage.push(Damage {
                    subject: format!("snapshots/{name}"),
                    ..self.found(Object::Orphan, "no row knows it")
                });
            }
        }
        Ok(())
    }

    fn record_rows(&self, damage: &mut Vec<Damage>) -> Result<(), CacheError> {
        let store = self.store;
        let rows: Vec<(i64, Option<StepRecord>)> = store.index().read(|index| {
            let sql = "SELECT body, last_used, seq FROM records WHERE synced = 1 OR boot = ?1";
            let row = |row: &rusqlite::Row<'_>| Ok((row.get(2)?, records::decode(row)?));
            index.prepare_cached(sql)?.query_map([store.boot()], row)?.collect()
        })?;
        let there: HashSet<_> = self.snapshots.iter().map(|snapshot| &snapshot.id).collect();
        let mut keys = HashSet::new();
        for (seq, record) in rows {
            let Some(record) = record else {
                damage.push(self.found(Object::RecordRow(seq), "its row is damaged"));
                continue;
            };
            keys.insert(record.key);
            if record.snapshot.is_some_and(|id| !there.contains(&id)) {
                damage.push(self.found(Object::Record(record.key), "it leads to no tree"));
            }
        }
        let aliases: Vec<(Digest, Digest)> = store.index().read(|index| {
            let row = |row: &rusqlite::Row<'_>| {
                Ok((Digest::from_bytes(row.get(0)?), Digest::from_bytes(row.get(1)?)))
            };
            index.prepare("SELECT fast, key FROM aliases")?.query_map([], row)?.collect()
        })?;
        let leads = |key: &Digest| keys.contains(key) || file::exists(&store.blobs().path(key));
        for (fast, _) in aliases.iter().filter(|(_, key)| !leads(key)) {
            damage.push(self.found(Object::Alias(*fast), "it leads nowhere"));
        }
        Ok(())
    }

    /// Whether all that an image needs is there, whatever is in it.
    fn image(&self, holding: &Holding, damage: &mut Vec<Damage>) {
        let chains: HashSet<_> =
            self.snapshots.iter().filter_map(|snapshot| snapshot.meta.chain_id).collect();
        let name = image_name(holding);
        let mut wrong = |problem: String| {
            let (subject, images) = (format!("image {name}"), vec![name.clone()]);
            let loss = Loss::Image;
            damage.push(Damage { subject, problem, loss, images, object: Object::Image });
        };
        let Some(manifest) = parsed(self.store, &holding.image.manifest_digest) else {
            return wrong("its manifest is damaged or gone".to_owned());
        };
        let mut manifests = vec![manifest];
        // Of a pulled index only what was asked for is here.
        let children: Vec<_> = std::mem::take(&mut manifests[0].manifests);
        manifests.extend(children.iter().filter_map(|child| parsed(self.store, &child.digest)));
        for manifest in &manifests {
            let Some(config) = &manifest.config else { continue };
            let path = self.store.blobs().path(&config.digest);
            let Some(json) = read_json(&path, Some(&config.digest)) else {
                wrong("its config is damaged or gone".to_owned());
                continue;
            };
            for (chain, layer) in chain_ids(&json).iter().zip(&manifest.layers) {
                let blob = self.store.blobs().path(&layer.digest);
                if !chains.contains(chain) && !file::exists(&blob) {
                    wrong(format!("layer {} is gone", layer.digest.short()));
                }
            }
        }
    }

    /// Reads all blobs.
    ///
    /// # Errors
    ///
    /// [`CacheError::Cancelled`], and when the disk cannot be read.
    pub fn blobs(&self, cancel: &CancelToken) -> Result<Vec<Damage>, CacheError> {
        let mut damage = Vec::new();
        let mut buffer = vec![0; 1 << 17];
        for digest in self.store.blobs().list()? {
            let path = self.store.blobs().path(&digest);
            let Some(mut blob) = file::open_if_there(&path)? else { continue };
            let mut hasher = Hasher::new();
            loop {
                cancel.check()?;
                match blob.read(&mut buffer).at("read", &path)? {
                    0 => break,
                    count => hasher.update(&buffer[..count]),
                }
            }
            let found = hasher.finish();
            if found != digest {
                let problem = format!("its bytes are those of {found}");
                damage.push(self.found(Object::Blob(digest), problem));
            }
        }
        Ok(damage)
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

    /// Compares the recorded sizes of trees with what is there: walks the store.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn sizes(&self) -> Result<Vec<Damage>, CacheError> {
        let off = sizes::difference(self.store, self.store.measure_snapshots()?)?;
        let problem = format!("the recorded sizes of trees are off by {off} bytes");
        Ok((off != 0).then(|| self.found(Object::Sizes, problem)).into_iter().collect())
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

    /// Removes damaged cache, and writes down anew what is known elsewhere. Says of each damage
    /// whether it was repaired; what an image, a container or a running build needs stays as it is,
    /// but no record leads to it any more.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn repair(&self, damage: &[Damage]) -> Result<Vec<bool>, CacheError> {
        let store = self.store;
        let mut trees = HashSet::new();
        let mut done = Vec::new();
        for one in damage.iter() {
            done.push(match &one.object {
                Object::Snapshot(id) => {
                    trees.insert(id.clone());
                    false
                }
                _ if one.loss == Loss::Image => false,
                Object::Image => false,
                Object::SnapshotRow(seq, id) => self.rewrite_row(*seq, id)?,
                Object::RecordRow(seq) => {
                    self.delete("DELETE FROM records WHERE seq = ?1", [seq])?;
                    true
                }
                Object::Record(key) => store.records().remove(key)?,
                Object::Alias(fast) => {
                    self.delete("DELETE FROM aliases WHERE fast = ?1", [fast.as_bytes()])?;
                    true
                }
                Object::Sidecar(id) => self.rewrite_sidecar(id)?,
                Object::Blob(digest) => store.blobs().remove(digest)?,
                // What comes below takes them, or puts them right.
                Object::Orphan | Object::Sizes => true,
            });
        }
        let gone = remove_snapshots(store, trees)?;
        for (one, done) in damage.iter().zip(&mut done) {
            if let Object::Snapshot(id) = &one.object {
                *done |= gone.contains(id);
            }
        }
        // A filter that takes nothing: what has no row goes all the same.
        let nothing = RowFilter { until: Some(i64::MIN), ..RowFilter::default() };
        let options = PruneOptions { filter: nothing, ..PruneOptions::default() };
        store.prune(&options, &Ctx::new(&Silent, &CancelToken::default()))?;
        store.usage()?;
        Ok(done)
    }

    fn delete(&self, sql: &str, row: impl rusqlite::Params + Copy) -> Result<(), CacheError> {
        self.store
            .index()
            .write(Durability::Lazy, |index| index.prepare_cached(sql)?.execute(row).map(drop))
    }

    /// A row that cannot be read is made anew of what lies beside the tree; else it goes, and its
    /// tree after it.
    fn rewrite_row(&self, seq: i64, id: &str) -> Result<bool, CacheError> {
        let path = self.store.root().join("snapshots").join(format!("{id}.json"));
        let described = read_json(&path, None).and_then(|bytes| body::decode::<Snapshot>(&bytes));
        let described = described.filter(|snapshot| snapshot.id.as_str() == id);
        self.store.index().write(Durability::Lazy, |index| {
            index.execute("DELETE FROM snapshots WHERE seq = ?1", [seq])?;
            match &described {
                Some(snapshot) => snapshots::insert_described(index, snapshot, &path),
                None => Ok(()),
            }
        })?;
        Ok(true)
    }

    fn rewrite_sidecar(&self, id: &SnapshotId) -> Result<bool, CacheError> {
        let snapshots = self.store.snapshots();
        let Some(snapshot) = self.snapshots.iter().find(|snapshot| snapshot.id == *id) else {
            return Ok(false);
        };
        file::rename(&snapshots.prepare_sidecar(snapshot)?, &snapshots.sidecar(id))?;
        Ok(true)
    }
}

fn image_name(holding: &Holding) -> String {
    let image = &holding.image;
    match &image.reference {
        Some(reference) => reference.familiar(),
        None => image.image_id.short(),
    }
}
