//! Writing a lock file: every reference of every stage is asked for anew.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;

use rbuild_plan::op::{Op, Source};
use rbuild_plan::{ImageConfigs, ImageError, ResolvedImage, without_users};
use rbuild_types::{CancelToken, Ctx, Digest, Platform, Progress, Reference, ReferenceError};

use super::{Entries, command, document, place, read};
use crate::front::Front;
use crate::sources::image::ImageSource;
use crate::sources::remote::Pin;
use crate::{BuildError, BuildRequest, Destination, Engine, Pull, export};

/// A lock file that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locked {
    /// Where it is.
    pub path: PathBuf,
    /// References in it.
    pub references: usize,
    /// What is not as it was there before.
    pub changes: Vec<LockChange>,
}

/// One reference that stands for something else, is new, or has gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockChange {
    /// The reference.
    pub reference: String,
    /// What it stood for.
    pub before: Option<String>,
    /// What it stands for.
    pub after: Option<String>,
}

impl Engine {
    /// Writes the lock file of a Dockerfile: what the references of all stages, or of those that
    /// the target needs, stand for now, on each platform of the request. Offline they are what
    /// they were. A file that says so already is not touched.
    ///
    /// # Errors
    ///
    /// When a reference cannot be found, and as [`Engine::build`] before the first step.
    pub fn lock(
        &self,
        request: &BuildRequest,
        progress: &dyn Progress,
        cancel: &CancelToken,
    ) -> Result<Locked, BuildError> {
        let ctx = Ctx::new(progress, cancel);
        let path = place(request)?;
        let pull = if self.options.offline { Pull::Missing } else { Pull::Always };
        let request = BuildRequest { pull, locked: false, ..request.clone() };
        let _lease = self.store.lease()?;
        let (front, _) = Front::open(self, &request, ctx)?;
        let entries = entries(&front, ctx)?;
        let text = document::write(&entries).map_err(|problem| {
            let command = command(&request);
            super::LockError::Text { path: path.clone(), problem, command }
        })?;
        let before = read(&path)?;
        if before.as_ref() != Some(&text) {
            export::to(&Destination::File(path.clone()), &mut |sink| {
                sink.write_all(text.as_bytes()).map_err(|source| BuildError::Io {
                    what: format!("write {}", path.display()),
                    source,
                })
            })?;
        }
        self.store.sync()?;
        // What cannot be read, perhaps because two people wrote it, is replaced.
        let before = before.and_then(|text| document::parse(&text).ok()).unwrap_or_default();
        let (before, after) = (before.lines(), entries.lines());
        Ok(Locked { path, references: after.len(), changes: changes(&before, &after) })
    }
}

fn entries(front: &Front<'_>, ctx: Ctx<'_>) -> Result<Entries, BuildError> {
    let images = Recorder { images: &front.images, asked: RefCell::default() };
    let looked = front.look(&images)?;
    let mut entries = Entries { images: images.asked.into_inner(), ..Entries::default() };
    let mut add = |source: &Source, subject: &str| {
        match front.remotes.pin(source, subject, ctx)? {
            None => {}
            Some(Pin::Url(url, digest)) => drop(entries.urls.insert(without_users(url), digest)),
            Some(Pin::Git(git, resolved)) => {
                let key = (without_users(&git.remote), git.reference.clone());
                entries.repositories.insert(key, resolved);
            }
        }
        Ok::<_, BuildError>(())
    };
    for (_, vertex) in looked.graph.vertices() {
        if let Op::Source(source) = &vertex.op {
            add(source, &vertex.name)?;
        }
    }
    for source in front.opened.source.iter().chain(&looked.epoch) {
        add(source, "what the build is made from")?;
    }
    Ok(entries)
}

fn changes(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<LockChange> {
    let gone = before.iter().filter(|(reference, _)| !after.contains_key(*reference));
    let gone = gone.map(|(reference, digest)| LockChange {
        reference: reference.clone(),
        before: Some(digest.clone()),
        after: None,
    });
    let moved = after.iter().filter(|(reference, digest)| before.get(*reference) != Some(digest));
    let moved = moved.map(|(reference, digest)| LockChange {
        reference: reference.clone(),
        before: before.get(reference).cloned(),
        after: Some(digest.clone()),
    });
    gone.chain(moved).collect()
}

/// Keeps what images were asked for.
struct Recorder<'a> {
    images: &'a ImageSource<'a>,
    asked: RefCell<BTreeMap<(String, String), Digest>>,
}

impl ImageConfigs for Recorder<'_> {
    fn reference(&self, name: &str) -> Result<Reference, ReferenceError> {
        self.images.reference(name)
    }

    fn config(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<ResolvedImage, ImageError> {
        let found = self.images.config(reference, platform)?;
        if self.images.can_move(reference)
            && let Some(digest) = found.reference.digest()
        {
            let key = (reference.to_string(), platform.to_string());
            self.asked.borrow_mut().insert(key, digest);
        }
        Ok(found)
    }
}
