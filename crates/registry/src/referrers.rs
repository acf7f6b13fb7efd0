//! Manifests that say of themselves that they belong to another: signatures, attestations.
//!
//! OCI distribution 1.1 lists them at `referrers/<digest>`. A registry that does not know this
//! keeps the list as an index under the tag `sha256-<hex>`, which whoever pushes a manifest with a
//! `subject` brings up to date. The specification has nothing against two processes that do so at
//! once, of which one writes over what the other wrote: the list is read again after it was written,
//! and written again where the entry is not in it. A registry that knows `If-Match` refuses the
//! second by itself. Within one handle it happens one after the other.

use std::collections::BTreeMap;

use bytes::Bytes;
use rbuild_types::{Ctx, Digest, Reference};
use reqwest::header::{ETAG, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::exchange::{Access, Client, Errand, Outgoing};
use crate::manifest::{MAX_DOCUMENT, OCI_INDEX};
use crate::place;
use crate::retry::Attempts;
use crate::text::printable;
use crate::{Registry, RegistryError};

/// A manifest that belongs to another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    /// What it is, for programs: the type of its document.
    pub media_type: String,
    /// Digest of its bytes.
    pub digest: Digest,
    /// How many bytes it has.
    pub size: u64,
    /// What it is, for people: the type of its content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Its annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// How often a list is written that others write too. Of those that do so at once one is done after
/// each turn.
const LIST_TRIES: usize = 10;

#[derive(Deserialize)]
struct List {
    manifests: Vec<Referrer>,
}

/// What of a manifest is about its subject.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claim {
    subject: Option<Subject>,
    artifact_type: Option<String>,
    config: Option<Config>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Subject {
    digest: Digest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    media_type: Option<String>,
}

impl Registry {
    /// The manifests in the repository whose subject is `subject`: all, or those of one artifact
    /// type. None where the registry knows nothing of the subject. Mirrors are not asked: they may
    /// know only some.
    ///
    /// # Errors
    /// Any [`RegistryError`] but those about blobs.
    pub fn referrers(
        &self,
        repository: &Reference,
        subject: Digest,
        artifact_type: Option<&str>,
        ctx: Ctx<'_>,
    ) -> Result<Vec<Referrer>, RegistryError> {
        let place = place::own_place(&self.inner.client.options, repository)?;
        let named = repository.with_digest(subject);
        let errand = Errand { place, subject: format!("the referrers of {named}") };
        let client = self.inner.client.clone();
        let mut found = self
            .inner
            .runtime
            .run(ctx.cancel, async move { client.referrers(&errand, &named, subject).await })?;
        found
            .retain(|one| artifact_type.is_none() || one.artifact_type.as_deref() == artifact_type);
        Ok(found)
    }
}

impl Client {
    async fn referrers(
        &self,
        errand: &Errand,
        repository: &Reference,
        subject: Digest,
    ) -> Result<Vec<Referrer>, RegistryError> {
        let outgoing = Outgoing {
            accept: Some(OCI_INDEX),
            ..Outgoing::new(Method::GET, format!("referrers/{subject}"), Access::Pull)
        };
        let mut found = Vec::new();
        let take = |page: List| {
            found.extend(page.manifests);
            Ok(())
        };
        match self.pages(errand, outgoing, take).await {
            Ok(()) => return Ok(found),
            Err(RegistryError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let Some((index, _)) = self.fallback(errand, repository, subject).await? else {
            return Ok(Vec::new());
        };
        let list = serde_json::from_value::<List>(index);
        Ok(list.map_err(|error| refused(errand, printable(&error.to_string())))?.manifests)
    }

    /// Puts a manifest that was pushed into the list of its subject, where the registry did not
    /// say that it does so itself: `headers` are those of its answer.
    pub(crate) async fn list_referrer(
        &self,
        errand: &Errand,
        repository: &Reference,
        media_type: &str,
        bytes: &[u8],
        headers: &HeaderMap,
    ) -> Result<(), RegistryError> {
        let Some((subject, referrer)) = claim(media_type, bytes) else { return Ok(()) };
        let known = headers.get("oci-subject").and_then(|value| value.to_str().ok());
        if known.is_some_and(|known| known.trim() == subject.to_string()) {
            return Ok(());
        }
        let _turn = self.referrers.lock().await;
        let path = format!("manifests/{}", tag(subject));
        let mut refused_state = None;
        for turn in 0..=LIST_TRIES {
            let found = self.fallback(errand, repository, subject).await?;
            let (mut index, state) = found.unwrap_or_else(|| (empty_list(), None));
            let Some(entries) = index.get_mut("manifests").and_then(Value::as_array_mut) else {
                return Err(refused(errand, "it is no index".to_owned()));
            };
            if entries.iter().any(|entry| entry["digest"] == json!(referrer.digest)) {
                return Ok(());
            }
            if turn == LIST_TRIES {
                break;
            }
            entries.push(json!(referrer));
            let bytes = Bytes::from(index.to_string());
            if bytes.len() as u64 > MAX_DOCUMENT {
                return Err(refused(errand, "it has no room for another".to_owned()));
            }
            // One that refuses the very state that it named does not know what it says.
            let state = state.filter(|state| refused_state.as_ref() != Some(state));
            let put = || self.put_manifest(errand, &path, OCI_INDEX, &bytes, state.as_ref());
            match Attempts::new(&self.options, false).repeat(put).await {
                Ok(_) => {}
                Err(RegistryError::Status { answer, .. })
                    if answer.status == StatusCode::PRECONDITION_FAILED && state.is_some() =>
                {
                    refused_state = state;
                }
                Err(error) => return Err(error),
            }
        }
        Err(refused(errand, "others write over it again and again".to_owned()))
    }

    /// The index under the tag that stands for a list of referrers, as it is: other programs'
    /// entries are kept with all that is in them. With it what its registry calls the state that it
    /// is in, if it does.
    async fn fallback(
        &self,
        errand: &Errand,
        repository: &Reference,
        subject: Digest,
    ) -> Result<Option<(Value, Option<HeaderValue>)>, RegistryError> {
        let name = format!("{}:{}", repository.repository(), tag(subject));
        let reference = name.parse().map_err(|_| refused(errand, "its tag is odd".to_owned()))?;
        match self.manifest_and_head(errand, &reference).await {
            Ok((found, head)) if found.is_index() => {
                // A weak one never matches.
                let state = head.get(ETAG).filter(|state| state.as_bytes().starts_with(b"\""));
                let index = serde_json::from_slice(&found.bytes)
                    .map_err(|error| refused(errand, printable(&error.to_string())))?;
                Ok(Some((index, state.cloned())))
            }
            Ok(_) => Err(refused(errand, format!("tag {} is no index", tag(subject)))),
            Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The subject of a manifest and its entry in the list, if it has a subject.
fn claim(media_type: &str, bytes: &[u8]) -> Option<(Digest, Referrer)> {
    let Claim { subject, artifact_type, config, annotations } =
        serde_json::from_slice(bytes).ok()?;
    let referrer = Referrer {
        media_type: media_type.to_owned(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        artifact_type: artifact_type.filter(|kind| !kind.is_empty()).or_else(|| config?.media_type),
        annotations: annotations.unwrap_or_default(),
    };
    Some((subject?.digest, referrer))
}

fn empty_list() -> Value {
    json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []})
}

/// The tag that stands for a list of referrers (OCI distribution 1.1, "Referrers Tag Schema").
fn tag(subject: Digest) -> String {
    subject.to_string().replace(':', "-")
}

fn refused(errand: &Errand, reason: String) -> RegistryError {
    let (subject, host) = (errand.subject.clone(), errand.place.host.clone());
    RegistryError::Listing { subject, host, reason }
}
