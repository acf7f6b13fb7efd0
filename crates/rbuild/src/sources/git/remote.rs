//! A repository on a server: which references it has, and its objects.
//!
//! Three ways lead there, and the first answer tells which: protocol 2, the older protocol 0, and
//! plain files behind a web server ("dumb"). With the first two a commit comes as one pack
//! without its history; plain files are fetched one by one as they are needed.

use std::fs::File;
use std::io;

use rbuild_registry::{BlobSink, Fetch, Fetched, Registry, RegistryError};
use rbuild_types::Ctx;

use super::error::GitError;
use super::object::ObjectId;
use super::packet::{self, PackSink, Packet, Request};

/// Largest list of references, bytes: a million of them.
const MAX_LIST: usize = 128 << 20;

/// A repository that was greeted.
pub(super) struct Remote<'a> {
    network: &'a Registry,
    ctx: Ctx<'a>,
    /// Where its files are, without a slash at its end.
    base: String,
    /// As messages name it.
    pub(super) name: String,
    authorization: Option<String>,
    protocol: Protocol,
}

enum Protocol {
    Two { shallow: bool },
    Zero { references: Vec<Reference>, capabilities: String },
    Dumb { references: Vec<Reference> },
}

/// A name and what it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) name: String,
    pub(super) id: ObjectId,
    /// The commit behind an annotated tag.
    pub(super) peeled: Option<ObjectId>,
}

impl<'a> Remote<'a> {
    /// Asks the server how it speaks.
    pub(super) fn greet(
        network: &'a Registry,
        url: &str,
        authorization: Option<String>,
        ctx: Ctx<'a>,
    ) -> Result<Self, GitError> {
        let name = rbuild_plan::without_passwords(url);
        let base = url.trim_end_matches('/').to_owned();
        let protocol = Protocol::Dumb { references: Vec::new() };
        let mut remote = Self { network, ctx, base, name, authorization, protocol };
        let tail = "/info/refs?service=git-upload-pack";
        let (fetched, answer) = remote.get(tail)?;
        remote.move_to(fetched.url.strip_suffix(tail));
        let smart =
            fetched.content_type.as_deref() == Some("application/x-git-upload-pack-advertisement");
        let wrong = |problem| GitError::protocol(&remote.name, problem);
        remote.protocol = match smart {
            true => advertised(&answer).map_err(wrong)?,
            false => Protocol::Dumb { references: listed(&answer).map_err(wrong)? },
        };
        Ok(remote)
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

    /// All references that one of `prefixes` may begin, and perhaps others.
    pub(super) fn references(&self, prefixes: &[String]) -> Result<Vec<Reference>, GitError> {
        match &self.protocol {
            Protocol::Zero { references, .. } => Ok(references.clone()),
            Protocol::Dumb { references } => {
                let mut references = references.clone();
                references.extend(self.head(&references)?);
                Ok(references)
            }
            Protocol::Two { .. } => {
                let mut request = Request::default()
                    .line("command=ls-refs")
                    .line("object-format=sha1")
                    .delimiter()
                    .line("peel")
                    .line("symrefs");
                for prefix in prefixes {
                    request = request.line(&format!("ref-prefix {prefix}"));
                }
                let mut answer = Memory::default();
                self.post(request.flush().bytes(), &mut answer)?;
                let wrong = |problem| GitError::protocol(&self.name, problem);
                let mut references = Vec::new();
                for packet in packet::all(&answer.bytes).map_err(wrong)? {
                    let Packet::Data(line) = packet else { continue };
                    if let Some(message) = line.strip_prefix(b"ERR ") {
                        return Err(GitError::refused(&self.name, message));
                    }
                    // An unborn HEAD has no id.
                    let Some((id, name, rest)) = packet::reference(line) else { continue };
                    let attributes = rest.split(|byte| *byte == b' ');
                    let peeled = attributes
                        .filter_map(|one| ObjectId::from_hex(one.strip_prefix(b"peeled:")?))
                        .next();
                    references.push(Reference { name, id, peeled });
                }
                Ok(references)
            }
        }
    }

    /// What `HEAD` of plain files stands for.
    fn head(&self, references: &[Reference]) -> Result<Option<Reference>, GitError> {
        let (_, text) = self.get("/HEAD")?;
        let text = String::from_utf8_lossy(&text);
        let (text, name) = (text.trim(), "HEAD".to_owned());
        let id = match text.strip_prefix("ref:") {
            Some(target) => {
                let target = references.iter().find(|one| one.name == target.trim());
                target.map(|target| target.id)
            }
            None => ObjectId::from_hex(text.as_bytes()),
        };
        Ok(id.map(|id| Reference { name, id, peeled: None }))
    }

    /// Whether objects come as plain files.
    pub(super) fn is_dumb(&self) -> bool {
        matches!(self.protocol, Protocol::Dumb { .. })
    }

    /// Fetches an object with all that it needs, without history, as a pack; gives the size.
    pub(super) fn pack(&self, id: &ObjectId, file: File) -> Result<(File, u64), GitError> {
        let request = match &self.protocol {
            Protocol::Two { shallow } => {
                let mut request = Request::default()
                    .line("command=fetch")
                    .line("object-format=sha1")
                    .delimiter()
                    .line("no-progress")
                    .line("ofs-delta")
                    .line(&format!("want {id}"));
                if *shallow {
                    request = request.line("deepen 1");
                }
                request.line("done").flush()
            }
            Protocol::Zero { capabilities, .. } => {
                let has = |name: &str| capabilities.split(' ').any(|one| one == name);
                if !has("side-band-64k") {
                    return Err(GitError::protocol(&self.name, "it lacks side-band-64k"));
                }
                let want = format!("want {id} side-band-64k ofs-delta no-progress");
                let mut request = Request::default().line(&want);
                if has("shallow") {
                    request = request.line("deepen 1");
                }
                request.flush().line("done")
            }
            Protocol::Dumb { .. } => {
                return Err(GitError::protocol(&self.name, "it makes no packs"));
            }
        };
        let mut sink = PackSink::new(&self.name, file);
        let sent = self.post(request.bytes(), &mut sink);
        if let Some(refusal) = sink.refusal() {
            return Err(refusal);
        }
        sent?;
        Ok((sink.file, sink.size))
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

    fn get(&self, path: &str) -> Result<(Fetched, Vec<u8>), GitError> {
        let mut answer = Memory::default();
        let fetched = self.send(path, None, &mut answer)?;
        Ok((fetched, answer.bytes))
    }

    fn post(&self, body: Vec<u8>, sink: &mut dyn BlobSink) -> Result<(), GitError> {
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
        if !self.is_dumb() || path.starts_with("/info/refs") {
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
        };
        self.network.fetch(&fetch, sink, self.ctx)
    }
}

/// An answer in memory, with a limit.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) bytes: Vec<u8>,
}

impl BlobSink for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.bytes.len() + bytes.len() > MAX_LIST {
            return Err(io::Error::other("the answer is too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn restart(&mut self) -> io::Result<()> {
        self.bytes.clear();
        Ok(())
    }
}

/// What a server that makes packs says first.
fn advertised(answer: &[u8]) -> Result<Protocol, &'static str> {
    let packets = packet::all(answer)?;
    let mut lines = packets.into_iter().filter_map(|packet| match packet {
        Packet::Data(line) => Some(line.strip_suffix(b"\n").unwrap_or(line)),
        Packet::Mark => None,
    });
    let mut first = lines.next().ok_or("it says nothing")?;
    if first.starts_with(b"# service=") {
        first = lines.next().ok_or("it has no references")?;
    }
    if first == b"version 2" {
        let mut shallow = false;
        for line in lines {
            shallow |= line
                .strip_prefix(b"fetch=")
                .is_some_and(|rest| rest.split(|byte| *byte == b' ').any(|one| one == b"shallow"));
            if line == b"object-format=sha256" {
                return Err("its objects have SHA-256 names, which are not supported yet");
            }
        }
        return Ok(Protocol::Two { shallow });
    }
    let mut capabilities = String::new();
    let mut references: Vec<Reference> = Vec::new();
    for line in std::iter::once(first).chain(lines) {
        let (line, rest) = match line.iter().position(|byte| *byte == 0) {
            Some(end) => (line.get(..end).unwrap_or_default(), line.get(end + 1..)),
            None => (line, None),
        };
        if let Some(rest) = rest {
            capabilities = String::from_utf8_lossy(rest).trim().to_owned();
        }
        add(&mut references, line);
    }
    if capabilities.split(' ').any(|one| one == "object-format=sha256") {
        return Err("its objects have SHA-256 names, which are not supported yet");
    }
    Ok(Protocol::Zero { references, capabilities })
}

/// `info/refs` of plain files.
fn listed(answer: &[u8]) -> Result<Vec<Reference>, &'static str> {
    let mut references = Vec::new();
    for line in answer.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        if !add(&mut references, line) {
            return Err("its list of references is none");
        }
    }
    Ok(references)
}

/// Adds a line of a list; whether it was one.
fn add(references: &mut Vec<Reference>, line: &[u8]) -> bool {
    let Some((id, name, _)) = packet::reference(line) else { return false };
    match name.strip_suffix("^{}") {
        Some(name) => {
            if let Some(tag) = references.iter_mut().rev().find(|one| one.name == name) {
                tag.peeled = Some(id);
            }
        }
        None => references.push(Reference { name, id, peeled: None }),
    }
    true
}
