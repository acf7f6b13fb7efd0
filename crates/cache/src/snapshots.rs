//! Trees: `snapshots/<id>/`, each a layer over its parent or a whole tree of its own.
//!
//! A layer that was made upon nothing may stand on any number of others: [`Snapshots::stack`]
//! publishes it once more with another parent. Such a snapshot has everything that a snapshot has
//! but files: its `fs` is a symbolic link to that of the layer, which stays as long as it does.
//!
//! This crate makes, names and removes the directories; what is in them, and how they are mounted,
//! is the business of `snapshot`. A snapshot is made below `tmp/` and published by renaming, row
//! first: a row whose directory is missing is no snapshot, so neither order of a crash and a
//! rename can show half a tree. Order of the facts: a snapshot is published without a diff id when
//! its tar was not made yet; [`Snapshots::set_diff`] adds it later, and an exporter waits for it.
//!
//! The sidecar `<id>.json`, written by [`Store::sync`](crate::Store::sync), says that the tree is
//! durable and repeats the row, so that images survive the loss of the index.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rbuild_types::{CancelToken, Digest};
use rusqlite::{Connection, OptionalExtension as _, Row};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{At as _, CacheError};
use crate::index::Durability;
use crate::lease::Object;
use crate::lock::GcLock;
use crate::measure::{Measure, blocks_at};
use crate::store::Store;
use crate::{body, file, remove, sizes};

/// Names a snapshot: 1 to 64 of the letters `a`-`z` and digits; safe as a file name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotId(String);

/// Why a text is not a [`SnapshotId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a snapshot id")]
pub struct SnapshotIdError {
    /// The refused text, shortened.
    pub text: String,
}

impl SnapshotId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SnapshotId {
    type Err = SnapshotIdError;

    fn from_str(text: &str) -> Result<Self, SnapshotIdError> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if (1..=64).contains(&text.len()) && text.bytes().all(fits) {
            Ok(Self(text.to_owned()))
        } else {
            Err(SnapshotIdError { text: text.chars().take(80).collect() })
        }
    }
}

impl TryFrom<String> for SnapshotId {
    type Error = SnapshotIdError;

    fn try_from(text: String) -> Result<Self, SnapshotIdError> {
        text.parse()
    }
}

impl From<SnapshotId> for String {
    fn from(id: SnapshotId) -> Self {
        id.0
    }
}

/// What is known about a tree when it is published.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotMeta {
    /// The snapshot that this one is a layer on; `None` for a bottom or a whole tree.
    #[serde(default)]
    pub parent: Option<SnapshotId>,
    /// The snapshot whose files these are, where it has none of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<SnapshotId>,
    /// OCI chain id: names the content of this layer with all below it.
    #[serde(default)]
    pub chain_id: Option<Digest>,
    /// Digest of the layer's uncompressed tar.
    #[serde(default)]
    pub diff_id: Option<Digest>,
    /// Bytes of the uncompressed tar.
    #[serde(default)]
    pub tar_size: Option<u64>,
    /// Milliseconds since 1970 when the content was made, where that was not here and now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<i64>,
    /// Bytes on disk when it was published, without files that other snapshots have too;
    /// [`Snapshots::publish`] measures them.
    #[serde(default)]
    pub bytes: u64,
}

impl SnapshotMeta {
    /// The snapshots that this one is nothing without.
    pub(crate) fn needs(&self) -> impl Iterator<Item = &SnapshotId> {
        self.parent.iter().chain(&self.tree)
    }
}

/// A published snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its name.
    pub id: SnapshotId,
    /// What made it, for people: the word given to [`Snapshots::allocate`].
    pub kind: String,
    /// Milliseconds since 1970.
    pub created: i64,
    /// The rest.
    #[serde(flatten)]
    pub meta: SnapshotMeta,
}

impl Snapshot {
    /// Milliseconds since 1970 when its content was made.
    pub fn made(&self) -> i64 {
        self.meta.made.unwrap_or(self.created)
    }
}

/// A tree in the making. Dropped without [`Snapshots::publish`], it is removed.
#[derive(Debug)]
pub struct NewSnapshot {
    id: SnapshotId,
    kind: String,
    path: PathBuf,
    published: bool,
    /// Of whoever makes it.
    cancel: CancelToken,
    /// Keeps the lock on the owner's directory.
    _store: Store,
}

impl NewSnapshot {
    /// The id that it will have.
    pub fn id(&self) -> &SnapshotId {
        &self.id
    }

    /// Its directory: empty, mode 0755, on the store's file system.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes what it holds for something else than it was to be: another `kind`.
    pub fn call(&mut self, kind: &str) {
        kind.clone_into(&mut self.kind);
    }

    /// Keeps beside the tree what a process wrote, whatever becomes of the file at `path`.
    ///
    /// # Errors
    ///
    /// When it cannot be linked.
    pub fn keep_log(&self, path: &Path) -> Result<(), CacheError> {
        let link = self.path.join(LOG);
        rustix::fs::link(path, &link).at("link", &link)
    }

    /// Keeps beside the tree what it was made of, in the caller's structure: what is too long for
    /// a record, and of no use without the tree.
    ///
    /// # Errors
    ///
    /// When it cannot be encoded or written.
    pub fn write_listing<T: Serialize>(&self, listing: &T) -> Result<(), CacheError> {
        let path = self.path.join(LISTING);
        let bytes = body::encode(listing).map_err(std::io::Error::from).at("encode", &path)?;
        file::create_new(&path)?.write_all(&bytes).at("write", &path)
    }
}

impl Drop for NewSnapshot {
    fn drop(&mut self) {
        if !self.published {
            let _ = remove::remove_tree(&self.path, None);
        }
    }
}

/// The snapshots of a store.
#[derive(Debug, Clone, Copy)]
pub struct Snapshots<'a> {
    store: &'a Store,
}

/// The name of a listing in a snapshot's directory.
const LISTING: &str = "listing";
/// The name of a log there.
const LOG: &str = "log";

/// A usable row: durable, or written since the machine started.
const USABLE: &str = "(synced = 1 OR boot = ?2)";

impl<'a> Snapshots<'a> {
    pub(crate) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// Where the snapshot is, or would be.
    pub fn path(&self, id: &SnapshotId) -> PathBuf {
        self.store.root().join("snapshots").join(id.as_str())
    }

    pub(crate) fn sidecar(&self, id: &SnapshotId) -> PathBuf {
        self.store.root().join("snapshots").join(format!("{id}.json"))
    }

    /// Makes an empty directory for a new tree, and room for it where the store has limits. `kind`
    /// is a word for people, shown by `du`: `run`, `copy`, `layer`, … Room is waited for until
    /// `cancel` is cancelled, here and when the tree is published.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn allocate(&self, kind: &str, cancel: &CancelToken) -> Result<NewSnapshot, CacheError> {
        self.store.keep_limits(cancel)?;
        self.begin(kind, cancel)
    }

    fn begin(&self, kind: &str, cancel: &CancelToken) -> Result<NewSnapshot, CacheError> {
        let id = SnapshotId(file::random_name(12)?);
        let path = self.store.temporary("snapshot")?;
        file::make_dir(&path, 0o755)?;
        let (kind, cancel, _store) = (kind.to_owned(), cancel.clone(), self.store.clone());
        Ok(NewSnapshot { id, kind, path, published: false, cancel, _store })
    }

    /// Publishes a tree. When `meta` names a chain id that a snapshot has already (another process
    /// unpacked the same layer), the new tree is removed and the older snapshot's id returned.
    ///
    /// # Errors
    ///
    /// [`CacheError::NoSnapshot`] when the parent is not there.
    pub fn publish(&self, new: NewSnapshot, meta: SnapshotMeta) -> Result<SnapshotId, CacheError> {
        let cancel = new.cancel.clone();
        let id = self.publish_measured(new, meta)?;
        // It is there, and whoever is cancelled finds it the next time.
        let _ = self.store.keep_limits(&cancel);
        Ok(id)
    }

    fn publish_measured(
        &self,
        mut new: NewSnapshot,
        mut meta: SnapshotMeta,
    ) -> Result<SnapshotId, CacheError> {
        if let Some(chain_id) = &meta.chain_id
            && let Some(older) = self.by_chain_id(chain_id)?
        {
            return Ok(older);
        }
        if let Some(parent) = &meta.parent
            && !self.contains(parent)?
        {
            return Err(CacheError::NoSnapshot { id: parent.to_string() });
        }
        let mut measured = Measure::default();
        measured.add([&new.path]);
        meta.bytes = measured.own().iter().sum();
        let snapshot =
            Snapshot { id: new.id.clone(), kind: new.kind.clone(), created: file::now_ms(), meta };
        // Prune must not see the row without the directory, whether or not there is a lease.
        let protection = self.store.protect(&Object::Snapshot(snapshot.id.clone()))?;
        let _guard = match protection {
            Some(guard) => guard,
            None => GcLock::shared(&self.store.gc_path())?,
        };
        let boot = self.store.boot();
        self.store
            .index()
            .write(Durability::Lazy, |index| insert(index, &snapshot, boot, false))?;
        file::rename(&new.path, &self.path(&snapshot.id))?;
        new.published = true;
        Ok(snapshot.id)
    }

    /// Publishes `layer`, which was made upon nothing, as a layer upon `parent`. No file of it is
    /// touched, and what is known of its tar stays known.
    ///
    /// # Errors
    ///
    /// [`CacheError::NoSnapshot`] when one of the two is not there.
    pub fn stack(
        &self,
        layer: &SnapshotId,
        parent: Option<SnapshotId>,
        kind: &str,
    ) -> Result<SnapshotId, CacheError> {
        let missing = || CacheError::NoSnapshot { id: layer.to_string() };
        let known = self.meta(layer)?.ok_or_else(missing)?;
        let made = Some(known.made());
        let known = known.meta;
        let tree = known.tree.unwrap_or_else(|| layer.clone());
        // A link needs no room.
        let new = self.begin(kind, &CancelToken::default())?;
        let link = new.path().join("fs");
        std::os::unix::fs::symlink(format!("../{tree}/fs"), &link).at("link", &link)?;
        let (diff_id, tar_size) = (known.diff_id, known.tar_size);
        let tree = Some(tree);
        self.publish_measured(
            new,
            SnapshotMeta { parent, tree, diff_id, tar_size, made, ..Default::default() },
        )
    }

    /// Whether the snapshot is there and whole; a lease of this handle then keeps it.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn contains(&self, id: &SnapshotId) -> Result<bool, CacheError> {
        Ok(self.meta(id)?.is_some())
    }

    /// The snapshot's row, if it is there and whole; a lease of this handle then keeps it.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn meta(&self, id: &SnapshotId) -> Result<Option<Snapshot>, CacheError> {
        let sql = format!("SELECT body FROM snapshots WHERE id = ?1 AND {USABLE}");
        let boot = self.store.boot();
        let found = self.store.index().read(|index| {
            let mut statement = index.prepare_cached(&sql)?;
            statement.query_row((id.as_str(), boot), decode).optional()
        })?;
        match found.flatten() {
            Some(snapshot) if snapshot.id == *id && self.keep(&snapshot)? => Ok(Some(snapshot)),
            _ => Ok(None),
        }
    }

    /// Puts the listing of `new`, if it has one, in the place of that of `id`: both trees are the
    /// same, and `new` is not published.
    ///
    /// # Errors
    ///
    /// When it cannot be moved.
    pub fn take_listing(&self, new: &NewSnapshot, id: &SnapshotId) -> Result<(), CacheError> {
        let (from, to) = (new.path.join(LISTING), self.path(id).join(LISTING));
        if !file::exists(&from) {
            return Ok(());
        }
        let grown = sizes::signed(blocks_at(&from)) - sizes::signed(blocks_at(&to));
        file::rename(&from, &to)?;
        match grown {
            0 => Ok(()),
            grown => self
                .store
                .index()
                .write(Durability::Lazy, |index| sizes::grow_snapshot(index, id.as_str(), grown)),
        }
    }

    /// What [`NewSnapshot::write_listing`] kept; `None` when there is nothing of this form.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn listing<T: DeserializeOwned>(&self, id: &SnapshotId) -> Result<Option<T>, CacheError> {
        let path = self.path(id).join(LISTING);
        let Some(mut file) = file::open_if_there(&path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).at("read", &path)?;
        Ok(body::decode(&bytes))
    }

    /// Where [`NewSnapshot::keep_log`] kept what a process wrote, or would have.
    pub fn log(&self, id: &SnapshotId) -> PathBuf {
        self.path(id).join(LOG)
    }

    /// Removes all snapshots of this kind that nobody uses, but for the newest. Where a prune runs
    /// they stay until the next call: this waits for no removal but its own.
    ///
    /// # Errors
    ///
    /// When the index cannot be read, or files cannot be removed.
    pub fn keep_newest(&self, kind: &str, count: usize) -> Result<(), CacheError> {
        let all = self.list()?.into_iter().rev().filter(|snapshot| snapshot.kind == kind);
        let old: Vec<_> = all.skip(count).map(|snapshot| snapshot.id).collect();
        if old.is_empty() {
            return Ok(());
        }
        crate::prune::try_remove_snapshots(self.store, old)
    }

    /// The newest snapshot of this content, if there is one; a lease of this handle then keeps it.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn by_chain_id(&self, chain_id: &Digest) -> Result<Option<SnapshotId>, CacheError> {
        let sql = format!(
            "SELECT body FROM snapshots WHERE chain_id = ?1 AND {USABLE} ORDER BY seq DESC"
        );
        let boot = self.store.boot();
        let found: Vec<_> = self.store.index().read(|index| {
            let mut statement = index.prepare_cached(&sql)?;
            statement.query_map((chain_id.as_bytes(), boot), decode)?.collect()
        })?;
        for snapshot in found.into_iter().flatten() {
            if snapshot.meta.chain_id == Some(*chain_id) && self.keep(&snapshot)? {
                return Ok(Some(snapshot.id));
            }
        }
        Ok(None)
    }

    /// The snapshot with everything below it, bottom first.
    ///
    /// # Errors
    ///
    /// [`CacheError::NoSnapshot`] names the one that is missing.
    pub fn chain(&self, id: &SnapshotId) -> Result<Vec<SnapshotId>, CacheError> {
        let mut chain = vec![id.clone()];
        let mut next = Some(id.clone());
        while let Some(id) = next {
            let missing = || CacheError::NoSnapshot { id: id.to_string() };
            next = self.meta(&id)?.ok_or_else(missing)?.meta.parent;
            match &next {
                // Only a damaged index has a cycle.
                Some(parent) if chain.contains(parent) => return Err(missing()),
                Some(parent) => chain.push(parent.clone()),
                None => {}
            }
        }
        chain.reverse();
        Ok(chain)
    }

    /// Adds what is known once the layer's tar was made.
    ///
    /// # Errors
    ///
    /// [`CacheError::NoSnapshot`] when it is not there.
    pub fn set_diff(
        &self,
        id: &SnapshotId,
        diff_id: Digest,
        tar_size: u64,
        chain_id: Digest,
    ) -> Result<(), CacheError> {
        let missing = || CacheError::NoSnapshot { id: id.to_string() };
        let mut snapshot = self.meta(id)?.ok_or_else(missing)?;
        snapshot.meta.diff_id = Some(diff_id);
        snapshot.meta.tar_size = Some(tar_size);
        snapshot.meta.chain_id = Some(chain_id);
        let body = encode(&snapshot)?;
        let synced = self.store.index().write(Durability::Lazy, |index| {
            let sql = "UPDATE snapshots SET chain_id = ?2, body = ?3 WHERE id = ?1 \
                       RETURNING synced";
            let mut statement = index.prepare_cached(sql)?;
            let row = (id.as_str(), chain_id.as_bytes(), &body);
            statement.query_row(row, |row| row.get::<_, bool>(0)).optional()
        })?;
        // An unsynced one gets its sidecar with the next sync.
        if synced == Some(true) {
            file::replace(&self.store.temporary("sidecar")?, &self.sidecar(id), &body)?;
        }
        Ok(())
    }

    /// All snapshots that are there and whole.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn list(&self) -> Result<Vec<Snapshot>, CacheError> {
        let sql = "SELECT body FROM snapshots WHERE synced = 1 OR boot = ?1 ORDER BY seq";
        let boot = self.store.boot();
        let rows: Vec<Option<Snapshot>> = self
            .store
            .index()
            .read(|index| index.prepare_cached(sql)?.query_map([boot], decode)?.collect())?;
        let there = |snapshot: &Snapshot| file::exists(&self.path(&snapshot.id));
        Ok(rows.into_iter().flatten().filter(there).collect())
    }

    /// Removes the snapshot and its records; a missing one is fine.
    ///
    /// # Errors
    ///
    /// [`CacheError::InUse`] while it has children, or an image, a container or a build uses it.
    pub fn remove(&self, id: &SnapshotId) -> Result<(), CacheError> {
        crate::prune::remove_snapshot(self.store, id)
    }

    /// Protects the snapshot, and with it all that it needs, and says whether its files are there.
    fn keep(&self, snapshot: &Snapshot) -> Result<bool, CacheError> {
        let _guard = self.store.protect(&Object::Snapshot(snapshot.id.clone()))?;
        let tree = snapshot.meta.tree.iter();
        Ok(tree.chain([&snapshot.id]).all(|id| file::exists(&self.path(id))))
    }

    /// Writes the content of `<id>.json` to a temporary file, which the caller syncs and renames.
    pub(crate) fn prepare_sidecar(&self, snapshot: &Snapshot) -> Result<PathBuf, CacheError> {
        let temporary = self.store.temporary("sidecar")?;
        let mut file = file::create_new(&temporary)?;
        file.write_all(&encode(snapshot)?).at("write", &temporary)?;
        Ok(temporary)
    }
}

/// Encodes a row's body, which is a sidecar's content too.
fn encode(snapshot: &Snapshot) -> Result<Vec<u8>, CacheError> {
    body::encode(snapshot)
        .map_err(std::io::Error::from)
        .map_err(|error| CacheError::io("encode", Path::new(snapshot.id.as_str()), error))
}

/// Decodes the body in column 0; `None` when it is damaged.
pub(crate) fn decode(row: &Row<'_>) -> rusqlite::Result<Option<Snapshot>> {
    Ok(row.get_ref(0)?.as_blob().ok().and_then(body::decode))
}

/// Inserts a row.
pub(crate) fn insert(
    index: &Connection,
    snapshot: &Snapshot,
    boot: &str,
    synced: bool,
) -> rusqlite::Result<()> {
    let encoded = body::encode(snapshot)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    let sql = "INSERT OR REPLACE INTO snapshots(id, parent, chain_id, boot, synced, body)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    index.prepare_cached(sql)?.execute((
        snapshot.id.as_str(),
        snapshot.meta.parent.as_ref().map(SnapshotId::as_str),
        snapshot.meta.chain_id.as_ref().map(Digest::as_bytes),
        boot,
        synced,
        encoded,
    ))?;
    sizes::set_snapshot(index, snapshot.id.as_str(), snapshot.meta.bytes)
}

/// Inserts the row of a snapshot that its sidecar describes.
pub(crate) fn insert_described(
    index: &Connection,
    snapshot: &Snapshot,
    sidecar: &Path,
) -> rusqlite::Result<()> {
    insert(index, snapshot, "", true)?;
    sizes::grow_snapshot(index, snapshot.id.as_str(), sizes::signed(blocks_at(sidecar)))
}
