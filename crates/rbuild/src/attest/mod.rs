//! What is said of an image besides: which packages are in it, and how it was made.
//!
//! [`attest`] makes both once for each image, when all its steps are done: [`provenance`] from
//! the [`facts`] that the plan and the sources of this build hold, the list of packages by
//! `rbuild-sbom` from the root filesystem. They become statements ([`statement`]) about whatever
//! they leave with: about a manifest, whose digest depends on how layers are compressed, by
//! [`manifest`]; about files, by [`files`].
//!
//! Neither values of secrets nor users of URLs are in any of it. With `SOURCE_DATE_EPOCH` nothing
//! is in it that differs from one build to the next.

mod facts;
mod files;
pub(crate) mod manifest;
mod provenance;
pub(crate) mod statement;
mod vcs;

use rbuild_plan::Plan;
use rbuild_sbom::{Subject, scan};
use rbuild_types::{Ctx, Platform, Reference};
use serde_json::Value;

use self::facts::Facts;
pub(crate) use self::facts::Invocation;
pub(crate) use self::files::write as write_files;
pub(crate) use self::statement::Predicate;
use crate::assemble::Product;
use crate::front::Front;
use crate::{BuildError, BuildRequest, Engine, Event, export};

/// What a build is asked to say of its images.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attestations {
    /// Whether the packages in them are listed, as SPDX.
    pub sbom: bool,
    /// How they were made, as SLSA provenance.
    pub provenance: Option<Provenance>,
    /// How much the caller gets told of how they were made ([`crate::Built::provenance`]), whether
    /// that is attached to them or not.
    pub told: Option<ProvenanceMode>,
    /// Whether it is left out which commit the context's directory is a checkout of.
    pub without_vcs: bool,
}

impl Attestations {
    /// Whether anything goes with the images.
    pub(crate) fn are_attached(&self) -> bool {
        self.sbom || self.provenance.is_some()
    }
}

/// Provenance that is attached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Provenance {
    /// How much is said.
    pub mode: ProvenanceMode,
    /// Which version of SLSA it follows.
    pub version: SlsaVersion,
    /// A URI for who builds; empty for nobody.
    pub builder_id: String,
    /// Its file among files of the image; `provenance.json` if empty.
    pub filename: String,
    /// Whether the image is claimed to be the same whoever builds it.
    pub reproducible: bool,
    /// Whether it goes with images only, not with files.
    pub inline_only: bool,
}

/// How much provenance says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum ProvenanceMode {
    /// Sources, times and options; values of build arguments and labels are left out.
    Min,
    /// Values, names of secrets, steps, layers, and the Dockerfile itself.
    #[default]
    Max,
}

/// Versions of SLSA's provenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SlsaVersion {
    /// `https://slsa.dev/provenance/v0.2`
    V02,
    /// `https://slsa.dev/provenance/v1`
    #[default]
    V1,
}

/// How an image was made, for the caller.
#[derive(Debug, Clone, PartialEq)]
pub struct ToldProvenance {
    /// Which image.
    pub platform: Platform,
    /// A predicate of SLSA 0.2, which is the form that buildx gives scripts.
    pub predicate: Value,
}

/// The file of the list of packages among files of the image: BuildKit's.
const SBOM_FILE: &str = "sbom.spdx.json";

/// How the images of a product were made.
pub(crate) struct Made<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) tags: &'a [Reference],
    pub(crate) invocation: &'a Invocation,
}

/// Gives the images of a product what they are to have, and says what the caller is to be told.
pub(crate) fn attest(
    engine: &Engine,
    request: &BuildRequest,
    front: &Front<'_>,
    made: &Made<'_>,
    product: &mut Product,
    ctx: Ctx<'_>,
) -> Result<Vec<ToldProvenance>, BuildError> {
    let Made { plan, tags, invocation } = *made;
    let Attestations { sbom, provenance, told, .. } = &request.attestations;
    let mut all_told = Vec::new();
    for (image, target) in product.images.iter_mut().zip(&plan.targets) {
        if *sbom {
            ctx.cancel.check()?;
            let found = scan(&export::merged(engine, image)?, ctx.cancel)?;
            if let Some(first) = found.notes.first() {
                let message = format!(
                    "the list of packages of {} may be incomplete: {first} (the document names all \
                     {} reasons)",
                    image.platform,
                    found.notes.len()
                );
                ctx.report(Event::Notice { message });
            }
            let name = tags.first().map_or("image".to_owned(), Reference::familiar);
            let created = image.created.as_deref().unwrap_or("1970-01-01T00:00:00Z");
            let subject = Subject { name: &name, created, tool: TOOL };
            let document = rbuild_sbom::document(&found, &subject);
            image.attestations.push(Predicate {
                kind: statement::SPDX,
                file: SBOM_FILE.to_owned(),
                body: serde_json::from_slice(&document).unwrap_or_default(),
                inline_only: false,
            });
        }
        if provenance.is_none() && told.is_none() {
            continue;
        }
        let modes = provenance.as_ref().map(|provenance| provenance.mode).into_iter().chain(*told);
        let mode = modes.max().unwrap_or_default();
        let facts = Facts::of(request, front, plan, target, image, invocation, mode);
        if let Some(options) = provenance {
            image.attestations.push(facts.predicate(options));
        }
        if let Some(mode) = told {
            let options = Provenance { mode: *mode, ..provenance.clone().unwrap_or_default() };
            let mut predicate = facts.v02(&options);
            if let (ProvenanceMode::Min, Value::Object(fields)) = (mode, &mut predicate) {
                fields.remove("metadata");
            }
            all_told.push(ToldProvenance { platform: image.platform.clone(), predicate });
        }
    }
    Ok(all_told)
}

/// Who says it all.
const TOOL: &str = concat!("rbuild-", env!("CARGO_PKG_VERSION"));
