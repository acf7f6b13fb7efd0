//! Which lists of files, in caches elsewhere, say exactly what a volume holds.
//!
//! That is so when the volume was made from a list, or a list from the volume, and as long as
//! nobody uses it since. So whoever takes a volume takes what is known of it too
//! ([`HeldVolume::origins`](crate::HeldVolume::origins)), for good, and may put it back when nothing
//! was changed. Only who holds a volume alone puts anything there.

use rbuild_types::Digest;

use crate::error::CacheError;
use crate::index::Durability;
use crate::store::Store;

/// The table.
pub(crate) const TABLE: &str = "
CREATE TABLE origins(
  volume TEXT NOT NULL, place TEXT NOT NULL, list BLOB NOT NULL, published INTEGER NOT NULL,
  PRIMARY KEY(volume, place)) WITHOUT ROWID;
";

/// A list that says what a volume holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Tells the cache that has it from others.
    pub place: String,
    /// The list's digest.
    pub list: Digest,
    /// Whether the cache's index names it; else it is about to.
    pub published: bool,
}

/// What is known of a volume.
pub(crate) fn of(store: &Store, volume: &str) -> Result<Vec<Origin>, CacheError> {
    store.index().read(|index| {
        let sql = "SELECT place, list, published FROM origins WHERE volume = ?1";
        let origin = |row: &rusqlite::Row<'_>| {
            let list = Digest::from_bytes(row.get(1)?);
            Ok(Origin { place: row.get(0)?, list, published: row.get(2)? })
        };
        index.prepare_cached(sql)?.query_map([volume], origin)?.collect()
    })
}

/// What is known of a volume, and is not any more.
pub(crate) fn take(store: &Store, volume: &str) -> Result<Vec<Origin>, CacheError> {
    let found = of(store, volume)?;
    if found.is_empty() {
        return Ok(found);
    }
    // A power cut must not bring it back beside other files.
    store.index().write(Durability::Synced, |index| {
        let sql = "DELETE FROM origins WHERE volume = ?1";
        index.prepare_cached(sql)?.execute([volume]).map(drop)
    })?;
    Ok(found)
}

/// Notes what a volume holds.
pub(crate) fn put(store: &Store, volume: &str, origins: &[Origin]) -> Result<(), CacheError> {
    if origins.is_empty() {
        return Ok(());
    }
    store.index().write(Durability::Lazy, |index| {
        let sql = "INSERT OR REPLACE INTO origins(volume, place, list, published)
                   VALUES (?1, ?2, ?3, ?4)";
        let mut insert = index.prepare_cached(sql)?;
        origins.iter().try_for_each(|Origin { place, list, published }| {
            insert.execute((volume, place, list.as_bytes(), published)).map(drop)
        })
    })
}

/// Notes that a cache's index names a list by now, if the volume still holds that.
pub(crate) fn publish(
    store: &Store,
    volume: &str,
    place: &str,
    list: &Digest,
) -> Result<(), CacheError> {
    store.index().write(Durability::Lazy, |index| {
        let sql = "UPDATE origins SET published = 1
                   WHERE volume = ?1 AND place = ?2 AND list = ?3";
        index.prepare_cached(sql)?.execute((volume, place, list.as_bytes())).map(drop)
    })
}
