//! An SSH server on the loopback device that runs what it is asked to, for git.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{PrivateKey, PublicKey};
use russh::server::{
    Auth, ChannelOpenHandle, Config, Handle, Handler, Msg, Session, VerifiedPublicKey, run_stream,
};
use russh::{Channel, ChannelId};

/// Files with the private keys of those who may log in as `git`. The server cannot verify those of
/// RSA.
const KEYS: [&str; 2] = ["ed25519", "ecdsa"];

/// Reads them; this program must not hold them, because steps of other tests run it.
pub fn keys() -> [String; 2] {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../solver/tests/keys");
    KEYS.map(|name| fs_err::read_to_string(directory.join(name)).unwrap())
}

/// A server; its thread lives as long as the tests.
pub struct Ssh {
    pub address: SocketAddr,
    /// Its key, as `known_hosts` has it.
    pub key: String,
    /// Users that logged in, and what they ran.
    pub asked: Arc<Mutex<Vec<String>>>,
}

/// What a server does.
#[derive(Clone)]
pub struct Manners {
    /// Where commands run.
    pub directory: PathBuf,
    /// Whether clients may set variables.
    pub takes_variables: bool,
}

impl Ssh {
    pub fn start(manners: Manners) -> Self {
        let host = PrivateKey::from(Ed25519Keypair::from_seed(&[7; 32]));
        let key = host.public_key().to_openssh().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let config = Arc::new(Config {
            keys: vec![host],
            auth_rejection_time: std::time::Duration::ZERO,
            ..Config::default()
        });
        let heard = asked.clone();
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                listener.set_nonblocking(true).unwrap();
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let client = Client::new(manners.clone(), heard.clone());
                    let config = config.clone();
                    tokio::spawn(async move {
                        // Clients hang up as they like.
                        if let Ok(session) = run_stream(config, stream, client).await {
                            let _ = session.await;
                        }
                    });
                }
            });
        });
        Self { address, key, asked }
    }

    /// The line of `known_hosts` for a name.
    pub fn known_as(&self, name: &str) -> String {
        format!("{name} {}\n", self.key)
    }

    /// The URL of a path.
    pub fn url(&self, path: &Path) -> String {
        format!("ssh://git@{}{}", self.address, path.display())
    }
}

struct Client {
    manners: Manners,
    asked: Arc<Mutex<Vec<String>>>,
    version: String,
    input: Option<ChildStdin>,
}

impl Client {
    fn new(manners: Manners, asked: Arc<Mutex<Vec<String>>>) -> Self {
        Self { manners, asked, version: String::new(), input: None }
    }
}

impl Handler for Client {
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        let public = |text: String| -> PublicKey {
            PrivateKey::from_openssh(text).unwrap().public_key().clone()
        };
        let mut known = keys().into_iter().map(public);
        let known = known.any(|known| known.key_data() == key.public_key.key_data());
        self.asked.lock().unwrap().push(format!("{user} {}", key.algorithm));
        Ok(if known && user == "git" { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn env_request(
        &mut self,
        _: ChannelId,
        name: &str,
        value: &str,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        if self.manners.takes_variables && name == "GIT_PROTOCOL" {
            self.version = value.to_owned();
        }
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let line = String::from_utf8(command.to_vec()).unwrap();
        self.asked.lock().unwrap().push(line.clone());
        let mut child = Command::new("/bin/sh")
            .args(["-c", &line])
            .current_dir(&self.manners.directory)
            .env("GIT_PROTOCOL", &self.version)
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "safe.directory")
            .env("GIT_CONFIG_VALUE_0", "*")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        self.input = child.stdin.take();
        let (handle, runtime) = (session.handle(), tokio::runtime::Handle::current());
        std::thread::spawn(move || {
            let mut output = child.stdout.take().unwrap();
            let mut bytes = vec![0; 20_000];
            while let Ok(count) = output.read(&mut bytes) {
                let sent = bytes[..count].to_vec();
                if count == 0 || runtime.block_on(handle.data(channel, sent)).is_err() {
                    break;
                }
            }
            let mut said = Vec::new();
            child.stderr.take().unwrap().read_to_end(&mut said).unwrap();
            let code = child.wait().unwrap().code().unwrap_or(1);
            runtime.block_on(end(&handle, channel, said, code as u32));
        });
        session.channel_success(channel)
    }

    async fn data(
        &mut self,
        _: ChannelId,
        data: &[u8],
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(input) = &mut self.input {
            let _ = input.write_all(data);
        }
        Ok(())
    }

    async fn channel_eof(&mut self, _: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.input = None;
        Ok(())
    }
}

async fn end(handle: &Handle, channel: ChannelId, said: Vec<u8>, code: u32) {
    // The client may be gone.
    let _ = handle.extended_data(channel, 1, said).await;
    let _ = handle.eof(channel).await;
    let _ = handle.exit_status_request(channel, code).await;
    let _ = handle.close(channel).await;
}
