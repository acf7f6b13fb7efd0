//! Repositories behind web servers: git's protocol in HTTP, or plain files.

use rbuild_registry::{BlobSink, Fetch, Fetched, Registry, RegistryError};
use rbuild_types::Ctx;

use super::error::GitError;
use super::memory::Memory;

/// What comes before git's own greeting is asked for here.
const GREETING: &str = "/info/refs?service=git-upload-pack";
/// The type of a greeting that is git's, and not a plain file.
const GREETING_TYPE: &str = "application/x-git-upload-pack-advertisement";

/// A repository's place on a web server.
pub(super) struct Web<'a> {
    network: &'a Registry,
    ctx: Ctx<'a>,
    /// Where its files are, without a slash at its end.
    base: String,
    /// As messages name it.
    name: String,
    authorization: Option<String>,
}

/// What it says first.
pub(super) struct Greeting {
    pub(super) bytes: Vec<u8>,
    /// Whether it speaks, or has only files.
    pub(super) speaks: bool,
}

impl<'a> Web<'a> {
    pub(super) fn new(
        network: &'a Registry,
        url: &str,
        authorization: Option<String>,
        ctx: Ctx<'a>,
    ) -> Self {
        let name = rbuild_plan::without_passwords(url);
        Self { network, ctx, base: url.trim_end_matches('/').to_owned(), name, authorization }
    }

    /// Asks the server how it speaks; from then on its answers are where a redirect has led.
    pub(super) fn greet(&mut self) -> Result<Greeting, GitError> {
        let mut answer = Memory::default();
        let fetched = self.send(GREETING, None, &mut answer)?;
        self.move_to(fetched.url.strip_suffix(GREETING));
        let speaks = fetched.content_type.as_deref() == Some(GREETING_TYPE);
        Ok(Greeting { bytes: answer.bytes, speaks })
    }

    /// Goes on where a redirect has led; credentials stay with their own origin.
    fn move_to(&mut self, base: Option<&str>) {
        let Some(base) = base else { return };
        let origin = |url: &str| {
            let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
            let authority = rest.split('/').next().unwrap_or_default();
            let host = authority.rsplit('@').next().unwrap_or_default();
            (scheme.to_owned(), host.to_owned(), rest[authority.len()..].to_owned())
        };
        let (from, to) = (origin(&self.base), origin(base));
        if from == to {
            return;
        }
        if (&from.0, &from.1) != (&to.0, &to.1) {
            self.authorization = None;
        }
        self.base = base.to_owned();
    }

    /// A plain file of the repository; `None` when it is not there.
    pub(super) fn file(
        &self,
        path: &str,
        sink: &mut dyn BlobSink,
    ) -> Result<Option<Fetched>, GitError> {
        match self.send(path, None, sink) {
            Ok(fetched) => Ok(Some(fetched)),
            Err(RegistryError::Status { answer, .. }) if matches!(answer.status, 404 | 410) => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Says something and takes the whole answer.
    pub(super) fn ask(&self, body: Vec<u8>, sink: &mut dyn BlobSink) -> Result<(), GitError> {
        self.send("/git-upload-pack", Some(body), sink)?;
        Ok(())
    }

    fn send(
        &self,
        path: &str,
        body: Option<Vec<u8>>,
        sink: &mut dyn BlobSink,
    ) -> Result<Fetched, RegistryError> {
        let mut headers = Vec::new();
        if body.is_some() || path == GREETING {
            headers.push(("Git-Protocol".to_owned(), "version=2".to_owned()));
        }
        if body.is_some() {
            let kind = |what: &str| format!("application/x-git-upload-pack-{what}");
            headers.push(("Content-Type".to_owned(), kind("request")));
            headers.push(("Accept".to_owned(), kind("result")));
        }
        let fetch = Fetch {
            url: format!("{}{path}", self.base),
            subject: self.name.clone(),
            headers,
            authorization: self.authorization.clone(),
            report: body.is_some(),
            body,
            put: false,
        };
        self.network.fetch(&fetch, sink, self.ctx)
    }
}
