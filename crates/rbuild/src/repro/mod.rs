//! Building twice under different conditions, to see whether both images are the same bytes.
//!
//! Both builds run every step, in one store, so that a base image is the same in both. What the
//! second has otherwise is said by [`Conditions`]: it begins later, its context is a copy that was
//! made by somebody else in another order, its steps have another host name and come one after the
//! other. What differs by itself with every process (process ids, addresses, random numbers, the
//! order in which threads come to run) differs here too. What both builds have in common, and
//! another machine may have otherwise, is not tried: kernel, processor, network, cache mounts.
//!
//! Of two images that differ the first layer from the bottom that differs is looked into: what is
//! above it was often made from it.

mod cause;
mod conditions;
mod context_copy;
mod elf;
mod members;
mod suspect;

use rbuild_image::layer::TreeForm;
use rbuild_image::manifest::{Document, parse_manifest};
use rbuild_plan::SOURCE_DATE_EPOCH;
use rbuild_rooted::{FileKind, Root};
use rbuild_types::{CancelToken, Ctx, Digest, Silent};

pub use cause::Cause;

use crate::front::Front;
use crate::images::nameless;
use crate::inspect::{
    Aspect, FieldDifference, FileDifference, LayerName, OpenedImage, compare, config_differences,
    layer_name,
};
use crate::sources::image::MAX_DOCUMENT;
use crate::{BuildError, BuildRequest, Built, Engine};
use conditions::{Conditions, PAUSE};
use suspect::Suspect;

/// The time of builds that nobody gave one: the earliest that every archive format can hold, that
/// of zip beginning in 1980. Files of a context are later, so that their times do not count.
pub const DEFAULT_EPOCH: i64 = 315_532_800;
/// Differing files of the layer that are kept.
const FILES: usize = 1_000;
/// Larger files are not looked into for a cause.
const CONTENT: u64 = 64 << 20;

/// Which of the two builds is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// As it was asked for.
    First,
    /// Under other conditions. Callers may vary what belongs to their process too, such as the
    /// umask.
    Second,
}

/// What two builds gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Repro {
    /// Id and manifest digest of the image, or the index, that the first build gave.
    pub first: (Digest, Digest),
    /// The same of the second.
    pub second: (Digest, Digest),
    /// What the second build had otherwise, in words.
    pub varied: Vec<String>,
    /// Where they differ first; `None` when they are the same bytes.
    pub difference: Option<ReproDifference>,
}

/// The first place where two builds of one Dockerfile differ.
#[derive(Debug, Clone, PartialEq)]
pub enum ReproDifference {
    /// A layer.
    Layer {
        /// Its index from the bottom, from 0.
        index: usize,
        /// The layer of the first build, and its instruction.
        layer: LayerName,
        /// Its differing files in the order of their paths, but those first that differ in more
        /// than their times, each with the reason for which it usually does.
        files: Vec<(FileDifference, Option<Cause>)>,
        /// Further ones.
        more_files: u64,
    },
    /// One build has more layers.
    LayerCount {
        /// Layers of the first.
        first: usize,
        /// Layers of the second.
        second: usize,
    },
    /// All layers are the same, and these fields of the config are not.
    Config {
        /// The fields.
        fields: Vec<FieldDifference>,
        /// The reason for which they usually differ.
        cause: Option<Cause>,
    },
}

impl Engine {
    /// Fixes the times of a build, as it takes to get the same image again: `SOURCE_DATE_EPOCH` is
    /// [`DEFAULT_EPOCH`] where neither the request nor the Dockerfile says another, and no file is
    /// later unless the request says otherwise.
    ///
    /// # Errors
    ///
    /// As [`Engine::build`] before its first step.
    pub fn fix_times(
        &self,
        request: &mut BuildRequest,
        cancel: &CancelToken,
    ) -> Result<(), BuildError> {
        conditions::check(request)?;
        request.options.rewrite_timestamps.get_or_insert(true);
        if request.options.build_args.contains_key(SOURCE_DATE_EPOCH) {
            return Ok(());
        }
        let _lease = self.store.lease()?;
        let (front, _) = Front::open(self, request, Ctx::new(&Silent, cancel))?;
        let is_said = front.has_default(SOURCE_DATE_EPOCH);
        drop(front);
        if !is_said {
            let epoch = DEFAULT_EPOCH.to_string();
            request.options.build_args.insert(SOURCE_DATE_EPOCH.to_owned(), epoch);
        }
        Ok(())
    }

    /// Builds twice by means of `build`, which passes a request on to [`Engine::build`], and
    /// compares. Both images are in the store without a name.
    ///
    /// # Errors
    ///
    /// Those of `build`, and [`BuildError::Request`] for a request that cannot be built twice.
    pub fn repro(
        &self,
        request: &BuildRequest,
        build: &mut dyn FnMut(Round, &BuildRequest) -> Result<Built, BuildError>,
        cancel: &CancelToken,
    ) -> Result<Repro, BuildError> {
        conditions::check(request)?;
        // Images without a name stay until they were compared.
        let _lease = self.store.lease()?;
        let mut conditions = Conditions::of(self, request)?;
        let first = ids(&build(Round::First, &conditions.first)?)?;
        wait(cancel)?;
        conditions.copy_contexts(cancel)?;
        let second = ids(&build(Round::Second, &conditions.second)?)?;
        let difference = match first.1 == second.1 {
            true => None,
            false => Some(self.first_difference(first.1, second.1, &conditions, cancel)?),
        };
        Ok(Repro { first, second, varied: conditions.varied, difference })
    }

    fn first_difference(
        &self,
        first: Digest,
        second: Digest,
        conditions: &Conditions,
        cancel: &CancelToken,
    ) -> Result<ReproDifference, BuildError> {
        let ctx = Ctx::new(&Silent, cancel);
        let pairs = self.manifests(first)?.into_iter().zip(self.manifests(second)?);
        let differing = pairs.filter(|(first, second)| first != second);
        let mut last = None;
        for (first, second) in differing {
            let open = |digest| OpenedImage::of_manifest(self, &nameless()?, digest, ctx);
            let (first, second) = (open(first)?, open(second)?);
            last = Some(difference(&first, &second, conditions, cancel)?);
            if let Some(ReproDifference::Layer { .. }) = last {
                break;
            }
        }
        last.ok_or_else(|| BuildError::Request {
            message: "the indexes of both builds differ, though their images do not".to_owned(),
        })
    }

    /// The manifests of an image or an index, by digest.
    fn manifests(&self, top: Digest) -> Result<Vec<Digest>, BuildError> {
        let bytes = self.store.blobs().read_small(&top, MAX_DOCUMENT)?;
        Ok(match parse_manifest(&bytes, None)? {
            Document::Manifest(_) => vec![top],
            Document::Index(index) => index.manifests.iter().map(|one| one.digest).collect(),
        })
    }
}

fn ids(built: &Built) -> Result<(Digest, Digest), BuildError> {
    let missing = || BuildError::Request { message: "the build made no image".to_owned() };
    let image = built.image.as_ref().ok_or_else(missing)?;
    Ok((image.id, image.manifest_digest))
}

/// Lets time pass, so that no second of the first build comes again.
fn wait(cancel: &CancelToken) -> Result<(), BuildError> {
    const TICKS: u32 = 21;
    for _ in 0..TICKS {
        cancel.check()?;
        std::thread::sleep(PAUSE / TICKS);
    }
    Ok(())
}

fn difference(
    first: &OpenedImage,
    second: &OpenedImage,
    conditions: &Conditions,
    cancel: &CancelToken,
) -> Result<ReproDifference, BuildError> {
    let layers = first.layers.iter().zip(&second.layers).enumerate();
    for (index, (one, other)) in layers {
        if one.diff_id == other.diff_id {
            continue;
        }
        let trees = (one.open()?, other.open()?);
        let (mut found, mut more_files) = (Vec::new(), 0);
        compare(&trees.0, &trees.1, TreeForm::Overlay, cancel, &mut |file| {
            match found.len() < FILES {
                true => found.push(file),
                false => more_files += 1,
            }
            Ok(())
        })?;
        let causes = causes(&found, &trees, conditions)?;
        let mut files: Vec<_> = found.into_iter().zip(causes).collect();
        files.sort_by_key(|(file, _)| file.aspects == [Aspect::Time]);
        return Ok(ReproDifference::Layer { index, layer: layer_name(one), files, more_files });
    }
    if first.layers.len() != second.layers.len() {
        let (first, second) = (first.layers.len(), second.layers.len());
        return Ok(ReproDifference::LayerCount { first, second });
    }
    let fields = config_differences(first, second)?;
    let is_time = |field: &FieldDifference| field.field.rsplit('.').next() == Some("created");
    let only_times = !fields.is_empty() && fields.iter().all(is_time);
    Ok(ReproDifference::Config { fields, cause: only_times.then_some(Cause::ImageTime) })
}

fn causes(
    found: &[FileDifference],
    trees: &(Root, Root),
    conditions: &Conditions,
) -> Result<Vec<Option<Cause>>, BuildError> {
    let (one, other) = (&conditions.host_names.0, &conditions.host_names.1);
    let mut causes = Vec::new();
    for difference in found {
        let contents = match is_readable(difference) {
            true => {
                use std::os::unix::ffi::OsStrExt as _;
                let path = std::path::Path::new(std::ffi::OsStr::from_bytes(&difference.path));
                Some((trees.0.read_small(path, CONTENT)?, trees.1.read_small(path, CONTENT)?))
            }
            false => None,
        };
        let contents = contents.as_ref().map(|(one, other)| (one.as_slice(), other.as_slice()));
        let host_names = (one.as_str(), other.as_str());
        causes.push(suspect::cause(&Suspect { difference, contents, host_names, all: found }));
    }
    Ok(causes)
}

/// Whether both are files that fit into memory, and their contents are the question.
fn is_readable(difference: &FileDifference) -> bool {
    let sides = [&difference.before, &difference.after];
    difference.content.is_some()
        && sides.iter().all(|facts| {
            let fits = |facts: &crate::FileFacts| {
                facts.kind == Some(FileKind::Regular) && facts.size <= CONTENT
            };
            facts.as_ref().is_some_and(fits)
        })
}

#[cfg(test)]
mod tests;
