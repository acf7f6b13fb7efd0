//! `rbuild fsck`: whether everything in the store is what it was.

use std::collections::HashSet;

use rayon::prelude::*;
use rbuild_cache::{Damage, Snapshot};
use rbuild_image::layer::{PackOptions, pack};
use rbuild_rooted::Root;
use rbuild_types::{CancelToken, Digest};

use crate::{BuildError, Engine};

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkup {
    /// What is damaged, and whether it was repaired.
    pub damage: Vec<(Damage, bool)>,
    /// Trees whose content was compared with their digests.
    pub verified: usize,
    /// Trees that no digest is known of: of steps that no image took in. Whatever is in them is
    /// theirs.
    pub unverified: usize,
}

impl Engine {
    /// Reads everything in the store and compares it with what was recorded: rows with trees and
    /// descriptions, blobs with their digests, trees with the digests of their layers. With `repair`
    /// damaged cache is removed, so that the next build makes it anew; images stay as they are.
    pub fn fsck(&self, repair: bool, cancel: &CancelToken) -> Result<Checkup, BuildError> {
        let fsck = self.store.fsck()?;
        let mut damage = fsck.index().to_vec();
        damage.extend(fsck.blobs(cancel)?);
        let (known, unverified) = with_digests(fsck.snapshots());
        let look = |(snapshot, diff_id): &(&Snapshot, Digest)| {
            let problem = self.problem_of(snapshot, diff_id, cancel)?;
            let damage = problem.map(|problem| fsck.tree(&snapshot.id, problem)).transpose()?;
            Ok::<_, BuildError>(damage.flatten())
        };
        let trees = || known.par_iter().map(look).collect::<Result<Vec<_>, _>>();
        damage.extend(self.pool()?.install(trees)?.into_iter().flatten());
        damage.extend(fsck.sizes()?);
        damage.sort_by(|a, b| b.loss.cmp(&a.loss).then_with(|| a.subject.cmp(&b.subject)));
        let repaired = match repair {
            true => fsck.repair(&damage)?,
            false => vec![false; damage.len()],
        };
        let damage = damage.into_iter().zip(repaired).collect();
        Ok(Checkup { damage, verified: known.len(), unverified })
    }

    /// Packs a tree as it was packed for its digest.
    fn problem_of(
        &self,
        snapshot: &Snapshot,
        diff_id: &Digest,
        cancel: &CancelToken,
    ) -> Result<Option<String>, BuildError> {
        let tree = self.store.snapshots().path(&snapshot.id).join("fs");
        let packed = Root::open(&tree).map_err(BuildError::from).and_then(|tree| {
            let options = PackOptions::default();
            Ok(pack(&tree, &options, &mut std::io::sink(), cancel)?)
        });
        cancel.check()?;
        Ok(match packed {
            Ok(packed) if packed.diff_id == *diff_id => None,
            Ok(packed) => {
                Some(format!("its files are those of layer {}, not of {diff_id}", packed.diff_id))
            }
            Err(error) => Some(format!("its files cannot be read: {error}")),
        })
    }
}

/// Each tree with a digest once, whatever stands upon it; and how many have none.
fn with_digests(snapshots: &[Snapshot]) -> (Vec<(&Snapshot, Digest)>, usize) {
    let tree = |snapshot: &Snapshot| snapshot.meta.tree.clone().unwrap_or(snapshot.id.clone());
    let mut seen = HashSet::new();
    let mut known = Vec::new();
    // The trees themselves before those that show them.
    for shows in [false, true] {
        for snapshot in snapshots.iter().filter(|it| it.meta.tree.is_some() == shows) {
            if let Some(diff_id) = snapshot.meta.diff_id
                && seen.insert(tree(snapshot))
            {
                known.push((snapshot, diff_id));
            }
        }
    }
    let all: HashSet<_> = snapshots.iter().map(tree).collect();
    (known, all.difference(&seen).count())
}
