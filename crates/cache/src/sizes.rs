//! How large the store is, without walking it.
//!
//! The table `sizes` has the bytes of every snapshot, written in the transaction that publishes it
//! and gone with its row. While a store has limits it has more: of each volume that was measured
//! since its last use, of each that was measured in use, until the next look, and of the *parts*
//! that have no rows of their own: blobs, logs and containers, which are measured when a build
//! begins and followed from there. What is left is looked at each time: the index and a few small
//! files. Work in progress below `tmp/` does not count.
//!
//! A snapshot that shares files with others by hard links is recorded with what it added. When it
//! goes, less or more than that may come back; the part `links` holds the difference. What a killed
//! prune leaves uncounted there, the next [`Store::usage`], which walks, puts right.

use std::collections::{HashMap, HashSet};

use rusqlite::Connection;

use crate::error::CacheError;
use crate::file;
use crate::index::Durability;
use crate::measure::{Measure, blocks_at};
use crate::store::Store;

/// The table, and what an older store knows: the bodies of rows stand behind a checksum.
pub(crate) const TABLE: &str = "
CREATE TABLE sizes(
  kind TEXT NOT NULL, name TEXT NOT NULL, bytes INTEGER NOT NULL,
  PRIMARY KEY(kind, name)) WITHOUT ROWID;
CREATE TRIGGER sizes_of_snapshots AFTER DELETE ON snapshots BEGIN
  DELETE FROM sizes WHERE kind = 'snapshot' AND name = OLD.id; END;
INSERT INTO sizes SELECT 'snapshot', id, coalesce(json_extract(json, '$.bytes'), 0)
  FROM (SELECT id, CAST(substr(body, 9) AS TEXT) AS json FROM snapshots) WHERE json_valid(json);
";

/// A part of the store without rows of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Blobs,
    Logs,
    Containers,
    /// What the rows of snapshots say too little, or too much when it is negative.
    Links,
}

impl Part {
    /// Those that are measured; their names are those of their directories.
    const MEASURED: [Self; 3] = [Self::Blobs, Self::Logs, Self::Containers];

    fn name(self) -> &'static str {
        match self {
            Self::Blobs => "blobs",
            Self::Logs => "logs",
            Self::Containers => "containers",
            Self::Links => "links",
        }
    }
}

/// Volumes that nobody used when they were measured, and what was used then: whoever used it may
/// have been killed since, and says nothing any more.
const VOLUME: &str = "volume";
const VOLUME_IN_USE: &str = "volume in use";

/// Sets the size of one thing.
fn set(index: &Connection, kind: &str, name: &str, bytes: i64) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO sizes(kind, name, bytes) VALUES (?1, ?2, ?3)";
    index.prepare_cached(sql)?.execute((kind, name, bytes)).map(drop)
}

/// Sets the size of a snapshot.
pub(crate) fn set_snapshot(index: &Connection, id: &str, bytes: u64) -> rusqlite::Result<()> {
    set(index, "snapshot", id, signed(bytes))
}

/// Adds to the size of a snapshot.
pub(crate) fn grow_snapshot(index: &Connection, id: &str, bytes: i64) -> rusqlite::Result<()> {
    let sql = "UPDATE sizes SET bytes = bytes + ?2 WHERE kind = 'snapshot' AND name = ?1";
    index.prepare_cached(sql)?.execute((id, bytes)).map(drop)
}

/// Adds to a part that somebody follows.
pub(crate) fn grow(index: &Connection, part: Part, bytes: i64) -> rusqlite::Result<()> {
    let sql = match part {
        Part::Links => {
            "INSERT INTO sizes(kind, name, bytes) VALUES ('part', ?1, ?2)
             ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes"
        }
        _ => "UPDATE sizes SET bytes = bytes + ?2 WHERE kind = 'part' AND name = ?1",
    };
    index.prepare_cached(sql)?.execute((part.name(), bytes)).map(drop)
}

/// Forgets what was measured of a volume.
pub(crate) fn forget_volume(store: &Store, name: &str) -> Result<(), CacheError> {
    let row = "FROM sizes WHERE kind IN ('volume', 'volume in use') AND name = ?1";
    let known = store
        .index()
        .read(|index| index.prepare_cached(&format!("SELECT 1 {row}"))?.exists([name]))?;
    if !known {
        return Ok(());
    }
    store.index().write(Durability::Lazy, |index| {
        index.prepare_cached(&format!("DELETE {row}"))?.execute([name]).map(drop)
    })
}

/// The recorded bytes of all things of one kind by name.
pub(crate) fn of_kind(store: &Store, kind: &str) -> Result<HashMap<String, u64>, CacheError> {
    store.index().read(|index| {
        let sql = "SELECT name, bytes FROM sizes WHERE kind = ?1";
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, unsigned(row.get(1)?)));
        index.prepare_cached(sql)?.query_map([kind], row)?.collect()
    })
}

/// The bytes of volumes by name, of those in use as they were last measured.
pub(crate) fn of_volumes(store: &Store) -> Result<HashMap<String, u64>, CacheError> {
    let mut volumes = of_kind(store, VOLUME)?;
    volumes.extend(of_kind(store, VOLUME_IN_USE)?);
    Ok(volumes)
}

/// Bytes that the store takes, but for work in progress.
pub(crate) fn used(store: &Store) -> Result<u64, CacheError> {
    let recorded: i64 = store.index().read(|index| {
        let sql = "SELECT coalesce(sum(bytes), 0) FROM sizes";
        index.prepare_cached(sql)?.query_row([], |row| row.get(0))
    })?;
    Ok(unsigned(recorded) + looked_at(store)?)
}

/// Bytes of what is too small, or changes too often, to be written down.
fn looked_at(store: &Store) -> Result<u64, CacheError> {
    let root = store.root();
    let mut bytes = blocks_at(root);
    for name in file::names(root)? {
        bytes += match name.as_str() {
            "tmp" | "blobs" | "logs" | "containers" => 0,
            "base" | "locks" => Measure::default().add([root.join(name)]),
            _ => blocks_at(&root.join(name)),
        };
    }
    let volumes = root.join("volumes");
    let sidecars = file::names(&volumes)?.into_iter().filter(|name| name.starts_with('.'));
    Ok(bytes + sidecars.map(|name| blocks_at(&volumes.join(name))).sum::<u64>())
}

/// Measures the parts, and volumes that were used.
pub(crate) fn refresh(store: &Store) -> Result<(), CacheError> {
    let mut measured = Measure::default();
    let parts = Part::MEASURED.map(|part| {
        let bytes = measured.add([store.root().join(part.name())]);
        (part.name(), signed(bytes))
    });
    store.index().write(Durability::Lazy, |index| {
        parts.iter().try_for_each(|(name, bytes)| set(index, "part", name, *bytes))
    })?;
    measure_volumes(store)
}

/// Measures the volumes that were used since they were measured, or are in use.
pub(crate) fn measure_volumes(store: &Store) -> Result<(), CacheError> {
    let known = of_kind(store, VOLUME)?;
    let mut gone: HashSet<String> = of_volumes(store)?.into_keys().collect();
    for volume in store.volumes().list()? {
        let name = &volume.name;
        gone.remove(name);
        if known.contains_key(name) && !volume.in_use {
            continue;
        }
        let bytes = signed(Measure::default().add([store.volumes().path(name)]));
        let (kind, other) = match volume.in_use {
            true => (VOLUME_IN_USE, VOLUME),
            false => (VOLUME, VOLUME_IN_USE),
        };
        store.index().write(Durability::Lazy, |index| {
            let sql = "DELETE FROM sizes WHERE kind = ?1 AND name = ?2";
            index.prepare_cached(sql)?.execute((other, name))?;
            set(index, kind, name, bytes)
        })?;
    }
    gone.iter().try_for_each(|name| forget_volume(store, name))
}

/// What the running figure says too little: `measured` are the bytes of all snapshots.
pub(crate) fn difference(store: &Store, measured: u64) -> Result<i64, CacheError> {
    let recorded: i64 = store.index().read(|index| {
        let sql = "SELECT coalesce(sum(bytes), 0) FROM sizes
                   WHERE kind = 'snapshot' OR kind = 'part' AND name = 'links'";
        index.prepare_cached(sql)?.query_row([], |row| row.get(0))
    })?;
    Ok(signed(measured) - recorded)
}

/// Puts the running figure right.
pub(crate) fn reconcile(store: &Store, measured: u64) -> Result<(), CacheError> {
    match difference(store, measured)? {
        0 => Ok(()),
        off => store.index().write(Durability::Lazy, |index| grow(index, Part::Links, off)),
    }
}

/// SQLite's numbers have a sign.
pub(crate) fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn unsigned(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or(0)
}
