//! A repository on a server: which references it has, and its objects.
//!
//! Three ways lead there, and the first answer tells which: protocol 2, the older protocol 0, and
//! plain files behind a web server ("dumb"). With the first two a commit comes as one pack
//! without its history; plain files are fetched one by one as they are needed.

use std::fs::File;

use rbuild_plan::{GitAddress, GitWay};
use rbuild_registry::{BlobSink, Fetched, Registry};
use rbuild_solver::SshAgents;
use rbuild_types::Ctx;

use super::error::GitError;
use super::memory::Memory;
use super::object::ObjectId;
use super::packet::{self, PackSink, Packet, Request};
use super::web::Web;
use super::wire::Wire;

/// A repository that was greeted. Over a wire it answers one request.
pub(super) struct Remote<'a> {
    transport: Transport<'a>,
    /// As messages name it.
    pub(super) name: String,
    protocol: Protocol,
}

/// What a server may be told of who asks.
pub(super) struct Credentials<'a> {
    /// For a web server.
    pub(super) authorization: Option<String>,
    /// For an SSH server; nothing of them is told but that they can sign.
    pub(super) agents: &'a SshAgents,
}

enum Transport<'a> {
    Web(Web<'a>),
    Wire(Wire<'a>),
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
        credentials: Credentials<'_>,
        ctx: Ctx<'a>,
    ) -> Result<Self, GitError> {
        let name = rbuild_plan::without_passwords(url);
        let wrong = |problem| GitError::protocol(&name, problem);
        let address = GitAddress::parse(url).map_err(wrong)?;
        let (transport, protocol) = match address {
            None => {
                let mut web = Web::new(network, url, credentials.authorization, ctx);
                let greeting = web.greet()?;
                let protocol = match greeting.speaks {
                    true => advertised(&greeting.bytes).map_err(wrong)?,
                    false => Protocol::Dumb { references: listed(&greeting.bytes).map_err(wrong)? },
                };
                (Transport::Web(web), protocol)
            }
            Some(address) => {
                let mut wire = match &address.way {
                    GitWay::Git => Wire::tcp(network, &address, &name, ctx)?,
                    GitWay::Ssh { user } => {
                        Wire::ssh(network, &address, user, credentials.agents, &name, ctx)?
                    }
                };
                let protocol = advertised(&wire.greeting()?).map_err(wrong)?;
                (Transport::Wire(wire), protocol)
            }
        };
        Ok(Self { transport, name, protocol })
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
                self.ask(request.flush().bytes(), &mut answer)?;
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
        let mut text = Memory::default();
        self.file("/HEAD", &mut text)?;
        let text = String::from_utf8_lossy(&text.bytes);
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
        let sent = self.ask(request.bytes(), &mut sink);
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
        match &self.transport {
            Transport::Web(web) => web.file(path, sink),
            Transport::Wire(_) => Ok(None),
        }
    }

    fn ask(&self, body: Vec<u8>, sink: &mut dyn BlobSink) -> Result<(), GitError> {
        match &self.transport {
            Transport::Web(web) => web.ask(body, sink),
            Transport::Wire(wire) => wire.ask(body, sink),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_with_sha_256_names_are_refused() {
        let id = "0".repeat(40);
        for lines in [
            vec!["version 2\n".to_owned(), "object-format=sha256\n".to_owned()],
            vec![format!("{id} HEAD\0thin-pack object-format=sha256\n")],
        ] {
            let frames = lines.iter().flat_map(|line| packet::frame(line).unwrap());
            let answer: Vec<u8> = frames.chain(*b"0000").collect();
            let said = advertised(&answer).err().unwrap();
            assert!(said.contains("SHA-256 names, which are not supported yet"), "{said}");
        }
    }
}
