//! Which repositories have a blob, as far as this store has seen: of an image that was built here
//! upon another, nothing else says where the layers below lie.
//!
//! A row is a hint: whoever follows it checks what he gets, and whoever finds none loses no more than
//! time. Rows are small, and stay.

use rbuild_types::{Digest, Reference};
use rusqlite::Row;

use crate::error::CacheError;
use crate::index::Durability;
use crate::store::Store;

/// The table.
pub(crate) const TABLE: &str = "
CREATE TABLE sources(
  blob BLOB NOT NULL, repository TEXT NOT NULL, PRIMARY KEY(blob, repository)) WITHOUT ROWID;
";

/// Repositories that are told of one blob.
const MOST: i64 = 16;

impl Store {
    /// Notes that a repository has these blobs.
    ///
    /// # Errors
    ///
    /// When the index cannot be written.
    pub fn note_source(
        &self,
        repository: &Reference,
        blobs: impl Iterator<Item = Digest>,
    ) -> Result<(), CacheError> {
        let (name, blobs) = (repository.repository(), blobs.collect::<Vec<_>>());
        self.index().write(Durability::Lazy, |index| {
            let sql = "INSERT OR IGNORE INTO sources(blob, repository) VALUES (?1, ?2)";
            let mut insert = index.prepare_cached(sql)?;
            blobs.iter().try_for_each(|blob| insert.execute((blob.as_bytes(), &name)).map(drop))
        })
    }

    /// Repositories that have a blob, as references without a meaning of their tag.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn sources(&self, blob: &Digest) -> Result<Vec<Reference>, CacheError> {
        self.index().read(|index| {
            let sql = "SELECT repository FROM sources WHERE blob = ?1 ORDER BY repository LIMIT ?2";
            let name = |row: &Row<'_>| row.get::<_, String>(0);
            let names: Vec<String> = index
                .prepare_cached(sql)?
                .query_map((blob.as_bytes(), MOST), name)?
                .collect::<Result<_, _>>()?;
            Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
        })
    }
}
