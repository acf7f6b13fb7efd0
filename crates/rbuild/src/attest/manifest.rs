//! Statements about an image, attached to it as BuildKit attaches them
//! (`docs/attestations/attestation-storage.md` of BuildKit): a manifest whose layers they are, in
//! the index beside the image's own.

use rbuild_image::index::{REFERENCE_DIGEST, REFERENCE_TYPE};
use rbuild_image::manifest::{Annotations, Descriptor, DescriptorPlatform};
use rbuild_image::media_type::{OCI_CONFIG, OCI_MANIFEST};
use rbuild_sbom::Purl;
use rbuild_types::{Platform, Reference};
use serde::Serialize;
use serde_json::{Value, json};

use super::statement::{About, MEDIA_TYPE, Predicate};
use crate::BuildError;
use crate::assemble::{Documents, add_document};
use crate::sources::image::bad_document;

/// In which form statements are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AttestationForm {
    /// As a manifest that looks like that of an image: every registry takes it.
    #[default]
    Image,
    /// As an OCI artifact, which names the image as its subject.
    Artifact,
}

/// Says of what type the statement is that a layer holds.
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
/// The type of the artifact.
const ARTIFACT_TYPE: &str = "application/vnd.docker.attestation.manifest.v1+json";
/// The config of what has none.
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";

/// What is attached to an image.
#[derive(Debug)]
pub(crate) struct Attached {
    /// The entry of the index.
    pub(crate) entry: Descriptor,
    /// What its manifest names.
    pub(crate) blobs: Vec<Descriptor>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u32,
    media_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'static str>,
    config: Value,
    layers: &'a [Descriptor],
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<Descriptor>,
}

/// Makes the documents that attach `predicates` to `image`, which has these names.
pub(crate) fn attach(
    image: &Descriptor,
    platform: &Platform,
    names: &[Reference],
    predicates: &[Predicate],
    form: AttestationForm,
    documents: &mut Documents,
) -> Result<Attached, BuildError> {
    let mut subjects: Vec<_> =
        names.iter().map(|name| About::new(purl("docker", name, platform), image.digest)).collect();
    if subjects.is_empty() {
        // The name of what has none.
        subjects.push(About::new("_", image.digest));
    }
    let mut layers = Vec::new();
    for predicate in predicates {
        let statement = predicate.about(&subjects)?;
        let mut layer = add_document(documents, MEDIA_TYPE, statement);
        layer.annotations.insert(PREDICATE_TYPE.to_owned(), predicate.kind.to_owned());
        layers.push(layer);
    }
    let (artifact_type, subject, config) = match form {
        AttestationForm::Image => {
            let diff_ids: Vec<_> = layers.iter().map(|layer| layer.digest).collect();
            let rootfs = json!({ "type": "layers", "diff_ids": diff_ids });
            let config = json!({
                "architecture": "unknown", "os": "unknown", "config": {}, "rootfs": rootfs,
            });
            (None, None, add_document(documents, OCI_CONFIG, config.to_string().into_bytes()))
        }
        AttestationForm::Artifact => {
            let subject = Descriptor::new(&image.media_type, image.digest, image.size);
            (
                Some(ARTIFACT_TYPE),
                Some(subject),
                add_document(documents, EMPTY_TYPE, b"{}".to_vec()),
            )
        }
    };
    let mut written = json!(config);
    if form == AttestationForm::Artifact {
        written["data"] = json!("e30=");
    }
    let manifest = Manifest {
        schema_version: 2,
        media_type: OCI_MANIFEST,
        artifact_type,
        config: written,
        layers: &layers,
        subject,
    };
    let failed = |error: serde_json::Error| bad_document("attestation", error.to_string());
    let mut entry =
        add_document(documents, OCI_MANIFEST, serde_json::to_vec(&manifest).map_err(failed)?);
    entry.annotations = Annotations::from([
        (REFERENCE_TYPE.to_owned(), "attestation-manifest".to_owned()),
        (REFERENCE_DIGEST.to_owned(), image.digest.to_string()),
    ]);
    // No runtime takes it for an image that it could run.
    entry.platform = Some(DescriptorPlatform {
        architecture: "unknown".to_owned(),
        os: "unknown".to_owned(),
        ..DescriptorPlatform::default()
    });
    layers.push(config);
    Ok(Attached { entry, blobs: layers })
}

/// An image as a package URL, as BuildKit writes it.
pub(super) fn purl(kind: &str, image: &Reference, platform: &Platform) -> String {
    let familiar = image.familiar_name();
    let (namespace, name) = familiar.rsplit_once('/').unwrap_or(("", &familiar));
    let digest = image.digest().map(|digest| digest.to_string()).unwrap_or_default();
    let purl = Purl {
        kind: kind.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        version: image.tag().unwrap_or_default().to_owned(),
        qualifiers: [("digest", digest), ("platform", platform.to_string())].into(),
    };
    purl.to_string()
}
