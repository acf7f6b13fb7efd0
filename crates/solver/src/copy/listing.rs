//! The files that a step took and where it laid them, kept beside its tree: a later miss is
//! explained with it, and files that are the same again are shared with the tree (`reuse.rs`).

use std::path::PathBuf;

use rbuild_cache::{CacheError, SnapshotId, Store};
use serde::{Deserialize, Serialize};

use super::apply::Applied;
use super::digest::Input;
use super::select::{ItemKind, Selection};

/// The files of one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Each selected file, in the order of the key.
    pub files: Vec<Input>,
    /// Where they are, if the copy is of one directory's contents: then every file has a place of
    /// its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) laid: Option<Laid>,
}

/// Of which directory's contents another is full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Laid {
    /// The directory in the source's tree; no name in it is a link.
    pub(super) from: PathBuf,
    /// The directory in the tree that was written.
    pub(super) into: PathBuf,
}

impl Listing {
    /// What [`super::apply()`] made of a selection. `None` when it found other files.
    pub fn new(selection: &Selection, applied: &Applied) -> Option<Self> {
        if applied.changed {
            return None;
        }
        let from = match selection.items.as_slice() {
            [item] => match &item.kind {
                ItemKind::Dir { dirs } => dirs.first().map(|top| &top.source),
                _ => None,
            },
            _ => None,
        };
        let laid = from.zip(applied.into.as_ref());
        let laid = laid.map(|(from, into)| Laid { from: from.clone(), into: into.clone() });
        Some(Self { files: selection.inputs(), laid })
    }

    /// Files that were shown to a step and written nowhere.
    pub fn of_files(files: &[Input]) -> Self {
        Self { files: files.to_vec(), laid: None }
    }

    /// The listing of a snapshot; `None` when there is none, or none that can be read.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn of(store: &Store, snapshot: &SnapshotId) -> Result<Option<Self>, CacheError> {
        store.snapshots().listing(snapshot)
    }
}
