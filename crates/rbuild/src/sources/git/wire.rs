//! Repositories on servers that speak git's protocol over a connection of its own.

use std::cell::RefCell;

use rbuild_plan::GitAddress;
use rbuild_registry::{
    BlobSink, Conversation, Registry, RegistryError, SSH_PORT, SshCommand, SshLogin, SshPlace,
};
use rbuild_solver::SshAgents;
use rbuild_types::Ctx;

use super::error::GitError;
use super::memory::Memory;
use super::packet::{self, Packet};

/// The agent that is asked, as in BuildKit: that of `--ssh default`.
const AGENT: &str = "default";
/// Where git's own servers listen.
const GIT_PORT: u16 = 9418;

/// A connection to a server that serves one repository, and takes one request.
pub(super) struct Wire<'a> {
    conversation: RefCell<Conversation>,
    ctx: Ctx<'a>,
    /// As messages name it.
    name: String,
}

impl<'a> Wire<'a> {
    /// Connects to one of git's own servers, which asks nobody who he is.
    pub(super) fn tcp(
        network: &Registry,
        address: &GitAddress,
        name: &str,
        ctx: Ctx<'a>,
    ) -> Result<Self, GitError> {
        let GitAddress { host, port, path, .. } = address;
        let mut conversation = network.connect(host, port.unwrap_or(GIT_PORT), name, ctx)?;
        let place = match port {
            Some(port) => format!("{host}:{port}"),
            None => host.clone(),
        };
        let line = format!("git-upload-pack {path}\0host={place}\0\0version=2\0");
        let request = packet::frame(&line).map_err(|problem| GitError::protocol(name, problem))?;
        conversation.send(request, ctx)?;
        Ok(Self { conversation: RefCell::new(conversation), ctx, name: name.to_owned() })
    }

    /// Logs in to an SSH server and starts git there.
    pub(super) fn ssh(
        network: &Registry,
        address: &GitAddress,
        user: &str,
        agents: &SshAgents,
        name: &str,
        ctx: Ctx<'a>,
    ) -> Result<Self, GitError> {
        let place = SshPlace {
            host: address.host.clone(),
            port: address.port.unwrap_or(SSH_PORT),
            subject: name.to_owned(),
        };
        let login = SshLogin { user: user.to_owned(), agent: agents.connect(AGENT)? };
        let path = address.path.replace('\'', r"'\''");
        let command = SshCommand {
            line: format!("git-upload-pack '{path}'"),
            variable: ("GIT_PROTOCOL".to_owned(), "version=2".to_owned()),
        };
        let conversation = network.execute(place, login, command, ctx)?;
        Ok(Self { conversation: RefCell::new(conversation), ctx, name: name.to_owned() })
    }

    /// What the server says first.
    pub(super) fn greeting(&mut self) -> Result<Vec<u8>, GitError> {
        let mut greeting = Memory::default();
        let mut seen = 0;
        loop {
            let rest = greeting.bytes.get(seen..).unwrap_or_default();
            let found = packet::split(rest);
            match found.map_err(|problem| GitError::protocol(&self.name, problem))? {
                Some((Packet::Mark, _)) => return Ok(greeting.bytes),
                Some((Packet::Data(data), length)) => {
                    if let Some(message) = data.strip_prefix(b"ERR ") {
                        return Err(GitError::refused(&self.name, message));
                    }
                    seen += length;
                }
                None => {
                    let bytes = self.conversation.get_mut().receive(self.ctx)?;
                    if bytes.is_empty() {
                        return Err(GitError::protocol(&self.name, "it hangs up at once"));
                    }
                    let refused =
                        |source| RegistryError::Sink { subject: self.name.clone(), source };
                    greeting.write(&bytes).map_err(refused)?;
                }
            }
        }
    }

    /// Says the one thing that there is to say and takes the whole answer.
    pub(super) fn ask(&self, body: Vec<u8>, sink: &mut dyn BlobSink) -> Result<(), GitError> {
        let mut conversation = self.conversation.borrow_mut();
        conversation.send(body, self.ctx)?;
        conversation.finish(self.ctx)?;
        Ok(conversation.receive_rest(sink, self.ctx)?)
    }
}
