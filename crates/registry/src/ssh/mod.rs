//! SSH, as far as a program on a server is to be talked to: git's.
//!
//! Nobody is trusted blindly: a host's key must stand in one of the files of
//! [`RegistryOptions::known_hosts`](crate::RegistryOptions::known_hosts). Keys of the user stay
//! with an agent, which signs.

mod known_hosts;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use russh::client::{self, Handle, Msg};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{Algorithm, HashAlg, PublicKeyOrCertificate};
use russh::{Channel, ChannelMsg, Preferred};
use tokio::net::{TcpStream, UnixStream};

use self::known_hosts::{KnownKeys, Verdict};
use crate::RegistryError;
use crate::text::printable;

/// Where SSH servers listen.
pub const PORT: u16 = 22;
/// Most bytes of a program's own words that are kept for an error.
const MAX_SAID: usize = 4 << 10;
/// `SSH_EXTENDED_DATA_STDERR` (RFC 4254, 5.2).
const STDERR: u32 = 1;

/// Who logs in.
pub struct SshLogin {
    /// The user's name on the server.
    pub user: String,
    /// An agent that has the user's keys; without one nobody can log in.
    pub agent: Option<std::os::unix::net::UnixStream>,
}

/// What runs on the server.
pub struct SshCommand {
    /// For the user's shell there.
    pub line: String,
    /// A variable that the server may refuse.
    pub variable: (String, String),
}

/// A program on a server, and what it says.
pub(crate) struct Line {
    /// The connection ends with it.
    _session: Handle<Judge>,
    channel: Channel<Msg>,
    /// The beginning of what it says against the request.
    said: Vec<u8>,
    /// Whether it gave anything.
    gave: bool,
    /// Its exit code.
    status: Option<u32>,
}

/// An SSH server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshPlace {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What errors say is fetched there.
    pub subject: String,
}

/// Decides over the key that a host shows.
struct Judge {
    known: KnownKeys,
    place: Arc<SshPlace>,
    /// Why it was refused.
    refusal: Arc<Mutex<Option<RegistryError>>>,
}

impl client::Handler for Judge {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = key else { return Ok(false) };
        let name = known_hosts::shown(&self.place.host, self.place.port);
        let fingerprint = key.fingerprint(HashAlg::Sha256);
        let reason = match self.known.judge(key) {
            Verdict::Trusted => return Ok(true),
            Verdict::Unknown => format!(
                "nobody knows it here; its key is {fingerprint} ({}). If that is what its operator \
                 says, add the key to ~/.ssh/known_hosts: `ssh-keyscan{} {} >> ~/.ssh/known_hosts`",
                key.algorithm(),
                match self.place.port {
                    PORT => String::new(),
                    port => format!(" -p {port}"),
                },
                self.place.host,
            ),
            Verdict::Other => format!(
                "it shows another key than known_hosts has for it ({fingerprint}): somebody may \
                 stand between. If its operator says that the key was changed, remove the old one: \
                 `ssh-keygen -R '{name}'`"
            ),
            Verdict::Revoked => format!("its key {fingerprint} is revoked in known_hosts"),
        };
        let refusal = RegistryError::HostKey { host: printable(&name), reason };
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
        Ok(false)
    }
}

impl Line {
    /// Checks who the host is, logs in, and starts the program.
    pub(crate) async fn open(
        stream: TcpStream,
        place: SshPlace,
        files: &[std::path::PathBuf],
        login: SshLogin,
        command: SshCommand,
    ) -> Result<Self, RegistryError> {
        let place = Arc::new(place);
        let broken = |reason: String| RegistryError::Connection {
            subject: place.subject.clone(),
            host: printable(&place.host),
            reason: printable(&reason),
        };
        let known = KnownKeys::read(files, &place.host, place.port)
            .map_err(|error| broken(error.to_string()))?;
        let config = client::Config { preferred: preferred(&known), ..client::Config::default() };
        let refusal = Arc::new(Mutex::new(None));
        let judge = Judge { known, place: place.clone(), refusal: refusal.clone() };
        let connected = client::connect_stream(Arc::new(config), stream, judge).await;
        let mut session = connected.map_err(|error| {
            let refusal = refusal.lock().unwrap_or_else(PoisonError::into_inner).take();
            refusal.unwrap_or_else(|| broken(error.to_string()))
        })?;
        log_in(&mut session, login, &place).await?;
        let failed = |error: russh::Error| broken(error.to_string());
        let channel = session.channel_open_session().await.map_err(failed)?;
        let (name, value) = command.variable;
        channel.set_env(false, name, value).await.map_err(failed)?;
        channel.exec(true, command.line).await.map_err(failed)?;
        Ok(Self { _session: session, channel, said: Vec::new(), gave: false, status: None })
    }

    pub(crate) async fn send(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        self.channel.data_bytes(bytes).await.map_err(io::Error::other)
    }

    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        self.channel.eof().await.map_err(io::Error::other)
    }

    /// Some bytes; none at the end. An end without success is an error in the program's words.
    pub(crate) async fn receive(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.channel.wait().await {
                Some(ChannelMsg::Data { data }) if data.is_empty() => {}
                Some(ChannelMsg::Data { data }) => {
                    self.gave = true;
                    return Ok(data.to_vec());
                }
                Some(ChannelMsg::ExtendedData { data, ext: STDERR }) => {
                    let room = MAX_SAID.saturating_sub(self.said.len());
                    self.said.extend_from_slice(data.get(..room).unwrap_or(&data));
                }
                Some(ChannelMsg::ExitStatus { exit_status }) => self.status = Some(exit_status),
                Some(ChannelMsg::Failure) => {
                    return Err(io::Error::other("the server refuses to run git there"));
                }
                Some(ChannelMsg::Close) | None => break,
                Some(_) => {}
            }
        }
        let failed = self.status.is_some_and(|status| status != 0) || !self.gave;
        match String::from_utf8_lossy(&self.said).trim() {
            "" => Ok(Vec::new()),
            said if failed => Err(io::Error::other(format!("it says: {said}"))),
            _ => Ok(Vec::new()),
        }
    }
}

/// What the host is known by comes first; what cannot be verified is not asked for.
fn preferred(known: &KnownKeys) -> Preferred {
    let mut kinds: Vec<_> = Preferred::DEFAULT.key.iter().cloned().collect();
    kinds.retain(|kind| !matches!(kind, Algorithm::Rsa { .. }));
    kinds.sort_by_key(|kind| !known.has(kind));
    Preferred { key: kinds.into(), ..Preferred::DEFAULT }
}

async fn log_in(
    session: &mut Handle<Judge>,
    login: SshLogin,
    place: &SshPlace,
) -> Result<(), RegistryError> {
    let refused = |reason: String| RegistryError::Login {
        host: printable(&place.host),
        user: printable(&login.user),
        reason: printable(&reason),
    };
    let Some(agent) = login.agent else {
        return Err(refused("there are no keys to log in with".to_owned()));
    };
    let agent = agent.set_nonblocking(true).and_then(|()| UnixStream::from_std(agent));
    let mut agent = AgentClient::connect(agent.map_err(|error| refused(error.to_string()))?);
    let keys = agent
        .request_identities()
        .await
        .map_err(|error| refused(format!("the agent gives no keys: {error}")))?;
    let mut tried = 0;
    for identity in keys {
        let AgentIdentity::PublicKey { key, .. } = identity else { continue };
        let hash = match key.algorithm() {
            Algorithm::Rsa { .. } => {
                let best = session.best_supported_rsa_hash().await;
                let best = best.map_err(|error| refused(error.to_string()))?;
                Some(best.flatten().unwrap_or(HashAlg::Sha256))
            }
            _ => None,
        };
        tried += 1;
        let user = login.user.clone();
        match session.authenticate_publickey_with(user, key, hash, &mut agent).await {
            Ok(answer) if answer.success() => return Ok(()),
            Ok(_) if session.is_closed() => break,
            Ok(_) => {}
            Err(error) => return Err(refused(format!("the agent does not sign: {error}"))),
        }
    }
    Err(refused(match tried {
        0 => "the agent has no keys: `ssh-add` adds one".to_owned(),
        1 => "the agent's key does not open it".to_owned(),
        tried => format!("none of the agent's {tried} keys opens it"),
    }))
}
