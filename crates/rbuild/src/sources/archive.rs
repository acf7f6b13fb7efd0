//! Archives as build contexts: one that is a stream is unpacked for one build, one that a URL
//! gave is unpacked once and found again by its content.
//!
//! Both may be a stranger's, and are unpacked by the rules of a layer.

use std::path::PathBuf;

use rbuild_cache::{Scratch, SnapshotMeta, StepRecord, Store};
use rbuild_image::layer::{UnpackOptions, unpack_archive};
use rbuild_rooted::Root;
use rbuild_types::{Ctx, Hasher};
use serde_json::{Value, json};

use super::remote::RemoteSources;
use crate::{BuildError, ContextArchive};

/// A stream that was unpacked.
pub(super) struct Unpacked {
    pub(super) root: Root,
    /// Holds the files for as long as they are needed.
    pub(super) scratch: Scratch,
    /// The time of the newest file, seconds since 1970.
    pub(super) newest: Option<i64>,
}

/// Unpacks a stream into a directory that goes with the build.
pub(super) fn unpack_stream(
    store: &Store,
    archive: &ContextArchive,
    ctx: Ctx<'_>,
) -> Result<Unpacked, BuildError> {
    let Some(mut reader) = archive.take() else {
        let message = "the archive that is the context was read by an earlier build";
        return Err(BuildError::Request { message: message.to_owned() });
    };
    let scratch = store.scratch("context")?;
    let files = scratch.path().join("fs");
    fs_err::create_dir(&files).map_err(failed)?;
    let root = Root::open(&files)?;
    let unpacked = unpack_archive(&mut reader, &root, &UnpackOptions::default(), ctx.cancel)?;
    Ok(Unpacked { root, scratch, newest: unpacked.newest })
}

impl RemoteSources<'_> {
    /// The directory with the files of an archive that was downloaded; `identity` names its
    /// bytes, `shown` where they are from.
    pub(super) fn unpacked(
        &self,
        archive: &ContextArchive,
        identity: &Value,
        shown: &str,
        ctx: Ctx<'_>,
    ) -> Result<PathBuf, BuildError> {
        let digest = {
            let mut hasher = Hasher::new();
            hasher.field("rbuild archive tree 1").field(identity.to_string());
            hasher.finish()
        };
        let snapshots = self.store().snapshots();
        let _lock = self.store().step_lock(&digest, ctx.cancel)?;
        if let Some(tree) = snapshots.by_chain_id(&digest)? {
            return Ok(snapshots.path(&tree).join("fs"));
        }
        let mut reader =
            archive.take().ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
        let new = snapshots.allocate("archive", ctx.cancel)?;
        let files = new.path().join("fs");
        fs_err::create_dir(&files).map_err(failed)?;
        let options = UnpackOptions::default();
        unpack_archive(&mut reader, &Root::open(&files)?, &options, ctx.cancel)?;
        let meta = SnapshotMeta { chain_id: Some(digest), ..SnapshotMeta::default() };
        let tree = snapshots.publish(new, meta)?;
        let inputs = json!({ "unpacked": identity });
        let mut record = StepRecord::new(digest, "archive", &format!("unpack {shown}"), inputs);
        record.snapshot = Some(tree.clone());
        self.store().records().put(&record)?;
        Ok(snapshots.path(&tree).join("fs"))
    }
}

fn failed(source: std::io::Error) -> BuildError {
    BuildError::Io { what: "unpack the context".to_owned(), source }
}
