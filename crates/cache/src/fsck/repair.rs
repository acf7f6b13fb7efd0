//! Putting right what costs nobody an image.

use std::collections::HashSet;

use rbuild_types::{CancelToken, Ctx, Digest, Silent};

use super::{Damage, Fsck, Loss, Object};
use crate::error::CacheError;
use crate::gc::{Nameless, Reach};
use crate::index::Durability;
use crate::lease::Protected;
use crate::lock::GcLock;
use crate::prune::remove_snapshots;
use crate::recovery::read_json;
use crate::snapshots::{self, Snapshot, SnapshotId};
use crate::{PruneOptions, RowFilter, body, file};

impl Fsck<'_> {
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
                Object::Blob(digest) => self.remove_blob(digest)?,
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

    /// Removes a damaged blob, unless somebody has written it anew since it was read, or it is an
    /// image's or a running build's by now.
    fn remove_blob(&self, digest: &Digest) -> Result<bool, CacheError> {
        let store = self.store;
        let _guard = GcLock::exclusive(&store.gc_path())?;
        if self.problem_of_blob(digest, &CancelToken::default())?.is_none() {
            return Ok(true);
        }
        let reach = Reach::find(store, &Protected::read(&store.locks())?, Nameless::Images)?;
        Ok(!reach.blobs.contains(digest) && store.blobs().remove(digest)?)
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
