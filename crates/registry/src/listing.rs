//! Lists that a registry gives page by page: the tags of a repository, the referrers of a manifest.
//!
//! The next page is where the answer's `Link` header says, which is as untrusted as a redirect. A
//! list ends at limits on its bytes and pages: it might lead in a circle.

use std::collections::BTreeSet;

use rbuild_types::{Ctx, Reference};
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderValue, LINK};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::exchange::{Access, Client, Errand, Outgoing, Target};
use crate::manifest::MAX_DOCUMENT;
use crate::place;
use crate::retry::{Attempts, Failure};
use crate::text::printable;
use crate::{Registry, RegistryError, body};

/// Largest list, bytes of all its pages.
const MAX_LIST: u64 = 64 << 20;
/// Most pages of a list.
const MAX_PAGES: usize = 1000;
/// Entries asked for at once: what Docker's own registry and ECR give at most.
const PAGE: usize = 1000;

#[derive(Deserialize)]
struct Tags {
    /// Docker's registry writes null for none.
    tags: Option<Vec<String>>,
}

impl Registry {
    /// All tags of the repository, sorted. Mirrors are not asked: they may know only some.
    ///
    /// # Errors
    /// Any [`RegistryError`] but those about blobs.
    pub fn tags(
        &self,
        repository: &Reference,
        ctx: Ctx<'_>,
    ) -> Result<Vec<Reference>, RegistryError> {
        let place = place::own_place(&self.inner.client.options, repository)?;
        let errand = Errand { place, subject: format!("the tags of {}", repository.repository()) };
        let (client, repository) = (self.inner.client.clone(), repository.clone());
        self.inner.runtime.run(ctx.cancel, async move {
            let outgoing = Outgoing::new(Method::GET, format!("tags/list?n={PAGE}"), Access::Pull);
            let mut found = BTreeSet::new();
            let take = |page: Tags| {
                for tag in page.tags.unwrap_or_default() {
                    let name = format!("{}:{tag}", repository.repository());
                    let reference = name.parse::<Reference>().ok();
                    let Some(reference) = reference.filter(|it| it.tag() == Some(&tag)) else {
                        return Err(format!("{:?} is no tag", printable(&tag)));
                    };
                    found.insert(reference);
                }
                Ok(())
            };
            client.pages(&errand, outgoing, take).await?;
            Ok(found.into_iter().collect())
        })
    }
}

impl Client {
    /// Gives every page of a list to `take`, which says what is wrong with one.
    pub(crate) async fn pages<P: DeserializeOwned>(
        &self,
        errand: &Errand,
        mut outgoing: Outgoing<'static>,
        mut take: impl FnMut(P) -> Result<(), String>,
    ) -> Result<(), RegistryError> {
        let refused = |reason| RegistryError::Listing {
            subject: errand.subject.clone(),
            host: errand.place.host.clone(),
            reason,
        };
        let mut left = MAX_LIST;
        for _ in 0..MAX_PAGES {
            let mut attempts = Attempts::new(&self.options, errand.place.has_successor);
            let limit = MAX_DOCUMENT.min(left);
            let (bytes, next) = attempts.repeat(|| self.page(errand, &outgoing, limit)).await?;
            let page = serde_json::from_slice(&bytes)
                .map_err(|error| refused(printable(&error.to_string())))?;
            take(page).map_err(refused)?;
            left -= bytes.len() as u64;
            match next {
                Some(next) => outgoing.target = next,
                None => return Ok(()),
            }
        }
        Err(refused(format!("it has more than {MAX_PAGES} pages")))
    }

    /// One page, and where the next one is.
    async fn page(
        &self,
        errand: &Errand,
        outgoing: &Outgoing<'_>,
        limit: u64,
    ) -> Result<(Vec<u8>, Option<Target>), Failure> {
        let answered = self.exchange_at(errand, outgoing).await?;
        let next = match next_page(answered.response.headers()) {
            Some(link) => Some(Target::Given(self.spot(errand, &answered, &link).await?)),
            None => None,
        };
        let limits = body::Limits::new(&self.options, &errand.subject, &errand.place.host);
        Ok((body::read_document(answered.response, &limits, limit).await?, next))
    }
}

/// The target of `Link: <URL>; rel="next"` (RFC 8288).
fn next_page(headers: &HeaderMap) -> Option<HeaderValue> {
    let texts = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(links).find(|link| link.is_next).and_then(|link| link.url.parse().ok())
}

struct Link<'a> {
    url: &'a str,
    is_next: bool,
}

fn links(mut text: &str) -> Vec<Link<'_>> {
    let mut found = Vec::new();
    while let Some((_, rest)) = text.split_once('<') {
        let Some((url, rest)) = rest.split_once('>') else { break };
        // A comma within a quoted parameter ends nothing, but no registry has any.
        let (parameters, rest) = rest.split_once(',').unwrap_or((rest, ""));
        let relation = |parameter: &str| {
            let (name, value) = parameter.split_once('=')?;
            let value = name.trim().eq_ignore_ascii_case("rel").then(|| value.trim())?;
            Some(value.trim_matches('"').eq_ignore_ascii_case("next"))
        };
        let is_next = parameters.split(';').filter_map(relation).any(|is| is);
        found.push(Link { url: url.trim(), is_next });
        text = rest;
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn next(text: &str) -> Option<&str> {
        links(text).into_iter().find(|link| link.is_next).map(|link| link.url)
    }

    #[test]
    fn links_of_the_field() {
        let url = "/v2/a/tags/list?last=1%2C2&n=2";
        for text in [
            format!("<{url}>; rel=\"next\""),
            format!("<{url}>;rel=next"),
            format!("</first>; rel=\"first\", <{url}>; title=x; REL=\"next\""),
        ] {
            assert_eq!(next(&text), Some(url), "{text}");
        }
        for text in ["", "<", "<a", "<a>", "<a>; rel=\"prev\"", "rel=\"next\""] {
            assert_eq!(next(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_link_ends(text in "(<|>|;|,|rel=|\"|next| |/x){0,40}") {
            links(&text);
        }
    }
}
