//! Resolves tags and fetches manifests and indexes, as raw bytes.

use rbuild_types::{Ctx, Digest, Reference};
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Method, Response};
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::exchange::{Access, Client, Errand, Outgoing};
use crate::place::Asked;
use crate::retry::{Attempts, Failure, Retry};
use crate::text::printable;
use crate::{Registry, RegistryError, body};

/// Largest manifest, index or config, bytes: BuildKit's and containers/image's limit too.
pub const MAX_DOCUMENT: u64 = 4 << 20;

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's schema 1 has two types with this beginning.
const DOCKER_SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+";

const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// Types that plain file servers put on everything; they say nothing.
const GENERIC: [&str; 4] =
    ["application/json", "application/octet-stream", "binary/octet-stream", "text/plain"];

/// A manifest or an index as the registry sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestBytes {
    /// The bytes; their digest is `digest`. At most [`MAX_DOCUMENT`].
    pub bytes: Vec<u8>,
    /// One of the two OCI or two Docker media types, without parameters.
    pub media_type: String,
    /// Digest of `bytes`; the one asked for, if the reference was pinned.
    pub digest: Digest,
}

impl ManifestBytes {
    /// Whether this names manifests (an OCI index or a Docker list), not layers.
    pub fn is_index(&self) -> bool {
        is_index(&self.media_type)
    }
}

impl Registry {
    /// Finds the digest that a tag stands for now, by HEAD where the registry allows it.
    ///
    /// A pinned reference is its own answer and touches no network.
    ///
    /// # Errors
    /// Any [`RegistryError`] but those about blobs.
    pub fn resolve(&self, reference: &Reference, ctx: Ctx<'_>) -> Result<Digest, RegistryError> {
        if let Some(digest) = reference.digest() {
            return Ok(digest);
        }
        self.at_each_place(reference, Asked::Manifest, ctx.cancel, |place| {
            let errand = Errand::manifest(place, reference);
            let (client, reference) = (self.inner.client.clone(), reference.clone());
            let call = async move { client.resolve(&errand, &reference).await };
            self.inner.runtime.run(ctx.cancel, call)
        })
    }

    /// Fetches the manifest or index that `reference` names, checked against its digest if it is
    /// pinned, and made sure to be one of the two.
    ///
    /// # Errors
    /// Any [`RegistryError`] but those about blobs.
    pub fn manifest(
        &self,
        reference: &Reference,
        ctx: Ctx<'_>,
    ) -> Result<ManifestBytes, RegistryError> {
        self.at_each_place(reference, Asked::Manifest, ctx.cancel, |place| {
            let errand = Errand::manifest(place, reference);
            let (client, reference) = (self.inner.client.clone(), reference.clone());
            let call = async move { client.manifest(&errand, &reference).await };
            self.inner.runtime.run(ctx.cancel, call)
        })
    }
}

impl Client {
    async fn resolve(
        &self,
        errand: &Errand,
        reference: &Reference,
    ) -> Result<Digest, RegistryError> {
        let outgoing = outgoing(Method::HEAD, reference);
        let mut attempts = Attempts::new(&self.options, errand.place.has_successor);
        loop {
            let failure = match self.exchange(errand, &outgoing).await {
                Ok(response) => match named_digest(response.headers()) {
                    Some(digest) => return Ok(digest),
                    None => break,
                },
                Err(failure) => failure,
            };
            // An answer to HEAD has no text, so the error is better from GET.
            if matches!(
                failure.error,
                RegistryError::NotFound { .. }
                    | RegistryError::Status { .. }
                    | RegistryError::Unauthorized { .. }
            ) && failure.retry == Retry::Never
            {
                break;
            }
            attempts.wait_after(failure).await?;
        }
        Ok(self.manifest(errand, reference).await?.digest)
    }

    pub(crate) async fn manifest(
        &self,
        errand: &Errand,
        reference: &Reference,
    ) -> Result<ManifestBytes, RegistryError> {
        Ok(self.manifest_and_head(errand, reference).await?.0)
    }

    /// [`Client::manifest`], with the head of the answer.
    pub(crate) async fn manifest_and_head(
        &self,
        errand: &Errand,
        reference: &Reference,
    ) -> Result<(ManifestBytes, HeaderMap), RegistryError> {
        let outgoing = outgoing(Method::GET, reference);
        let mut attempts = Attempts::new(&self.options, errand.place.has_successor);
        let attempt = || async {
            let response = self.exchange(errand, &outgoing).await?;
            let head = response.headers().clone();
            Ok((self.read_manifest(errand, reference, response).await?, head))
        };
        attempts.repeat(attempt).await
    }

    async fn read_manifest(
        &self,
        errand: &Errand,
        reference: &Reference,
        response: Response,
    ) -> Result<ManifestBytes, Failure> {
        let Errand { subject, place } = errand;
        let content_type = essence(response.headers());
        let expected = reference.digest().or_else(|| named_digest(response.headers()));
        let limits = body::Limits::new(&self.options, subject, &place.host);
        let bytes = body::read_document(response, &limits, MAX_DOCUMENT).await?;
        let actual = Digest::of(&bytes);
        if let Some(expected) = expected.filter(|expected| *expected != actual) {
            let (subject, host) = (subject.clone(), place.host.clone());
            return Err(RegistryError::DigestMismatch { subject, host, expected, actual }.into());
        }
        let media_type = media_type(content_type.as_deref(), &bytes).map_err(|reason| {
            RegistryError::Manifest { subject: subject.clone(), host: place.host.clone(), reason }
        })?;
        Ok(ManifestBytes { bytes, media_type: media_type.to_owned(), digest: actual })
    }
}

fn outgoing(method: Method, reference: &Reference) -> Outgoing<'static> {
    let name = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    };
    let path = format!("manifests/{name}");
    Outgoing { accept: Some(ACCEPTED), ..Outgoing::new(method, path, Access::Pull) }
}

/// The digest in the answer's head. Digests of other algorithms are as good as none.
pub(crate) fn named_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.trim().parse().ok()
}

/// Content-Type without parameters, in lower case.
fn essence(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_LIST)
}

/// The one type that the header, the document's field and its content agree on
/// (CVE-2021-41190: a document that is two things at once).
fn media_type(content_type: Option<&str>, bytes: &[u8]) -> Result<&'static str, String> {
    let shape: Shape = serde_json::from_slice(bytes).map_err(|error| {
        format!("it is no JSON object of the expected form ({})", position(&error))
    })?;
    let said = content_type.filter(|kind| !GENERIC.contains(kind));
    let named = match (said, shape.media_type.as_deref()) {
        (Some(said), Some(field)) if said != field => {
            let (said, field) = (printable(said), printable(field));
            return Err(format!("it was sent as {said:?} but calls itself {field:?}"));
        }
        (said, field) => said.or(field),
    };
    if shape.manifests && (shape.layers || shape.config) {
        return Err("it is a manifest and an index at once".to_owned());
    }
    if named.is_some_and(|named| named.starts_with(DOCKER_SCHEMA_1)) || shape.fs_layers {
        return Err("it has Docker's old schema 1, which is no longer supported; ask its \
                    publisher to push it again with a current tool"
            .to_owned());
    }
    let known = match named {
        Some(named) => [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST]
            .into_iter()
            .find(|known| *known == named)
            .ok_or_else(|| format!("its media type {:?} is not known", printable(named)))?,
        None if shape.manifests => OCI_INDEX,
        None => OCI_MANIFEST,
    };
    match (is_index(known), shape.manifests, shape.layers && shape.config) {
        (true, true, _) | (false, false, true) => Ok(known),
        (true, ..) => Err("it is an index without manifests".to_owned()),
        (false, ..) => Err("it is a manifest without config or layers".to_owned()),
    }
}

fn position(error: &serde_json::Error) -> String {
    printable(&error.to_string())
}

/// The top-level fields of a document, without their content.
#[derive(Debug, Default)]
struct Shape {
    media_type: Option<String>,
    manifests: bool,
    layers: bool,
    fs_layers: bool,
    config: bool,
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a manifest or an index")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
        let mut shape = Shape::default();
        while let Some(key) = map.next_key::<String>()? {
            let seen = match key.as_str() {
                "mediaType" => {
                    // Parsers differ in which of two equal keys counts.
                    if shape.media_type.is_some() {
                        return Err(A::Error::custom("the key mediaType occurs twice"));
                    }
                    shape.media_type = map.next_value::<Option<String>>()?;
                    continue;
                }
                "manifests" => &mut shape.manifests,
                "layers" => &mut shape.layers,
                "fsLayers" => &mut shape.fs_layers,
                "config" => &mut shape.config,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            if std::mem::replace(seen, true) {
                return Err(A::Error::custom(format_args!("the key {key} occurs twice")));
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(shape)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MANIFEST: &str = r#""config":{},"layers":[]"#;
    const INDEX: &str = r#""manifests":[]"#;

    fn kind(content_type: Option<&str>, fields: &str) -> Result<&'static str, String> {
        media_type(content_type, format!("{{{fields}}}").as_bytes())
    }

    #[test]
    fn header_and_field_must_agree() {
        let field = |kind: &str, rest: &str| format!(r#""mediaType":"{kind}",{rest}"#);
        assert_eq!(kind(Some(OCI_MANIFEST), MANIFEST), Ok(OCI_MANIFEST));
        assert_eq!(kind(Some(DOCKER_LIST), &field(DOCKER_LIST, INDEX)), Ok(DOCKER_LIST));
        assert_eq!(
            kind(Some("application/json"), &field(DOCKER_MANIFEST, MANIFEST)),
            Ok(DOCKER_MANIFEST)
        );
        assert_eq!(kind(None, INDEX), Ok(OCI_INDEX));
        for (content_type, fields) in [
            (Some(OCI_MANIFEST), field(OCI_INDEX, INDEX)),
            (Some(OCI_MANIFEST), INDEX.to_owned()),
            (Some(OCI_INDEX), MANIFEST.to_owned()),
            (Some("text/html"), MANIFEST.to_owned()),
            (None, r#""schemaVersion":2"#.to_owned()),
        ] {
            assert!(kind(content_type, &fields).is_err(), "{content_type:?} {fields}");
        }
    }

    #[test]
    fn a_document_is_one_thing() {
        for (fields, part) in [
            (format!("{MANIFEST},{INDEX}"), "at once"),
            (format!(r#"{INDEX},"config":{{}}"#), "at once"),
            (format!("{MANIFEST},{MANIFEST}"), "twice"),
            (r#""fsLayers":[],"schemaVersion":1"#.to_owned(), "schema 1"),
        ] {
            let error = kind(None, &fields).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn deep_documents_do_not_overflow_the_stack() {
        let deep = format!(r#"{{"x":{}"#, "[".repeat(1_000_000));
        assert!(media_type(None, deep.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = media_type(None, &bytes);
        }
    }
}
