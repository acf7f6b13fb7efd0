//! in-toto statements: a claim of some type about some bytes.

use rbuild_image::ImageError;
use rbuild_types::Digest;
use serde::Serialize;
use serde_json::{Value, json};

use crate::BuildError;
use crate::sources::image::bad_document;

/// Media type of a statement.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.in-toto+json";
/// Type of a list of packages.
pub(super) const SPDX: &str = "https://spdx.dev/Document";
/// Type of provenance, in its two versions.
pub(super) const PROVENANCE_V02: &str = "https://slsa.dev/provenance/v0.2";
pub(super) const PROVENANCE_V1: &str = "https://slsa.dev/provenance/v1";

/// The version of statements that BuildKit writes.
const TYPE: &str = "https://in-toto.io/Statement/v1";

/// What is claimed, without that about which it is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Predicate {
    /// Its type.
    pub(crate) kind: &'static str,
    /// The file that it is in among files of the image.
    pub(crate) file: String,
    pub(crate) body: Value,
    /// Whether it goes with images only.
    pub(crate) inline_only: bool,
}

/// Some bytes.
#[derive(Debug, Clone, Serialize)]
pub(super) struct About {
    name: String,
    digest: Value,
}

impl About {
    pub(super) fn new(name: impl Into<String>, digest: Digest) -> Self {
        Self { name: name.into(), digest: json!({ "sha256": digest.hex() }) }
    }
}

#[derive(Serialize)]
struct Statement<'a> {
    #[serde(rename = "_type")]
    version: &'static str,
    #[serde(rename = "predicateType")]
    kind: &'static str,
    subject: &'a [About],
    predicate: &'a Value,
}

impl Predicate {
    /// The claim about these subjects.
    pub(super) fn about(&self, subject: &[About]) -> Result<Vec<u8>, BuildError> {
        let statement =
            Statement { version: TYPE, kind: self.kind, subject, predicate: &self.body };
        let failed = |error: serde_json::Error| -> ImageError {
            bad_document("statement", error.to_string())
        };
        Ok(serde_json::to_vec(&statement).map_err(failed)?)
    }
}
