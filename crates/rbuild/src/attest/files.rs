//! Statements about the files of an image, beside them: `-o type=local` and `type=tar`.

use std::path::PathBuf;

use rbuild_cache::Scratch;
use rbuild_rooted::{FileKind, Follow, Root};
use rbuild_types::{CancelToken, Digest, Hasher};
use std::io::Read as _;

use super::statement::{About, Predicate};
use crate::assemble::Assembled;
use crate::{BuildError, Engine};

/// Statements of an image as files in a directory, which is to be laid upon its root.
///
/// `suffix` tells files apart that are of several images in one directory.
pub(crate) fn write(
    engine: &Engine,
    image: &Assembled,
    root: &Root,
    suffix: Option<&str>,
    cancel: &CancelToken,
) -> Result<Option<Scratch>, BuildError> {
    let mut predicates = image.attestations.iter().filter(|it| !it.inline_only).peekable();
    if predicates.peek().is_none() {
        return Ok(None);
    }
    let subjects = subjects(root, cancel)?;
    let scratch = engine.store.scratch("attestations")?;
    let directory = Root::open(scratch.path())?;
    // It is seen in the place of the root's own.
    let own = root.metadata()?;
    directory.set_owner(".", own.uid, own.gid)?;
    for predicate in predicates {
        let mut file = directory.create_file(name(predicate, suffix), MODE)?;
        let bytes = predicate.about(&subjects)?;
        std::io::Write::write_all(&mut file, &bytes).map_err(|source| BuildError::Io {
            what: format!("write {}", predicate.file),
            source,
        })?;
    }
    directory.set_mode(".", own.mode)?;
    directory.set_times(".", own.mtime, own.mtime)?;
    Ok(Some(scratch))
}

/// They are the caller's, as in BuildKit.
const MODE: u32 = 0o600;

/// `provenance.json`, or `provenance.linux_amd64.json`.
fn name(predicate: &Predicate, suffix: Option<&str>) -> String {
    match (suffix, predicate.file.rsplit_once('.')) {
        (None, _) => predicate.file.clone(),
        (Some(suffix), Some((name, kind))) => format!("{name}.{suffix}.{kind}"),
        (Some(suffix), None) => format!("{}.{suffix}", predicate.file),
    }
}

/// All regular files and what is in them.
fn subjects(root: &Root, cancel: &CancelToken) -> Result<Vec<About>, BuildError> {
    let mut subjects = Vec::new();
    let mut waiting = vec![PathBuf::new()];
    let mut buffer = vec![0; 1 << 18];
    while let Some(directory) = waiting.pop() {
        for entry in root.read_dir(&directory)? {
            let path = directory.join(&entry.name);
            match entry.kind {
                FileKind::Directory => waiting.push(path),
                FileKind::Regular => {
                    let mut file = root.open_file(&path, Follow::No)?;
                    let digest = digest(&mut file, &mut buffer, cancel).map_err(|source| {
                        BuildError::Io { what: format!("read {}", path.display()), source }
                    })?;
                    cancel.check()?;
                    subjects.push((path.to_string_lossy().into_owned(), digest));
                }
                _ => {}
            }
        }
    }
    subjects.sort();
    Ok(subjects.into_iter().map(|(name, digest)| About::new(name, digest)).collect())
}

fn digest(
    file: &mut std::fs::File,
    buffer: &mut [u8],
    cancel: &CancelToken,
) -> std::io::Result<Digest> {
    let mut hasher = Hasher::new();
    loop {
        let count = file.read(buffer)?;
        if count == 0 || cancel.is_cancelled() {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..count]);
    }
}
