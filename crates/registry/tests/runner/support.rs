//! A registry on 127.0.0.1 that fails on demand. Standard library only; a thread per connection.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rbuild_registry::RegistryOptions;
use rbuild_types::{Digest, Reference};

pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// What a client sent.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// With the query.
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// Whether the rest of the body was not taken.
    pub cut: bool,
    /// How many requests with this method and path came before.
    pub before: usize,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn is_blob(&self) -> bool {
        self.path.contains("/blobs/")
    }
}

/// What goes wrong while a reply is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    None,
    /// The connection ends after this many bytes of the body.
    CutAfter(usize),
    /// Nothing follows these many bytes, and the connection stays.
    StallAfter(usize),
    /// A byte now and then.
    Trickle,
    /// No Content-Length: the end of the connection is the end of the body.
    NoLength,
}

#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Arc<Vec<u8>>,
    pub fault: Fault,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let body = Arc::new(body.into());
        Self { status, headers: Vec::new(), body, fault: Fault::None }
    }

    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub fn fault(mut self, fault: Fault) -> Self {
        self.fault = fault;
        self
    }

    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let body = format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#);
        Self::new(status, body).with("Content-Type", "application/json")
    }
}

/// How much of a request's body is taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Intake {
    All,
    /// The connection ends after this many bytes; the handler is told, and its reply lost.
    CutAfter(usize),
    /// Nothing more is read after this many bytes, and the connection stays.
    StallAfter(usize),
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;
type Taking = dyn Fn(&Request) -> Intake + Send + Sync;

pub struct FaultyRegistry {
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    /// Answers for `/v2/`.
    root: Arc<Handler>,
    handler: Arc<Handler>,
    taking: Box<Taking>,
    requests: Mutex<Vec<Request>>,
    body_bytes: AtomicU64,
    stop: AtomicBool,
}

impl FaultyRegistry {
    pub fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_taking(handler, |_| Intake::All)
    }

    /// `taking` sees a request before its body.
    /// One whose handler is also asked about `/v2/` itself; else that is open to all.
    pub fn start_at_the_root(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let handler: Arc<Handler> = Arc::new(handler);
        Self::listen(handler.clone(), handler, |_| Intake::All)
    }

    pub fn start_taking(
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
        taking: impl Fn(&Request) -> Intake + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Arc::new(|_: &Request| Reply::new(200, "{}")), Arc::new(handler), taking)
    }

    fn listen(
        root: Arc<Handler>,
        handler: Arc<Handler>,
        taking: impl Fn(&Request) -> Intake + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            root,
            handler,
            taking: Box::new(taking),
            requests: Mutex::default(),
            body_bytes: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stop.load(Ordering::SeqCst) {
                    break;
                }
                let (stream, shared) = (stream.unwrap(), shared.clone());
                std::thread::spawn(move || {
                    // Clients hang up as they like.
                    let _ = shared.serve(stream);
                });
            }
        });
        Self { address, state }
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.host()).parse().unwrap()
    }

    /// All requests but the probes of `/v2/`.
    pub fn requests(&self) -> Vec<Request> {
        let requests = self.state.requests.lock().unwrap().clone();
        requests.into_iter().filter(|request| request.path != "/v2/").collect()
    }

    /// Bytes of bodies sent.
    pub fn body_bytes(&self) -> u64 {
        self.state.body_bytes.load(Ordering::SeqCst)
    }

    /// Whether any request carried an authorization with `text` in it, or a body with it.
    pub fn saw(&self, text: &str) -> bool {
        let requests = self.state.requests.lock().unwrap();
        requests.iter().any(|request| {
            request.header("authorization").is_some_and(|header| header.contains(text))
                || request.text().contains(text)
                || request.path.contains(text)
        })
    }
}

impl Drop for FaultyRegistry {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        // Head and body are written one after the other, and nobody should wait in between.
        stream.set_nodelay(true)?;
        let mut writer = stream.try_clone()?;
        let mut reader = BufReader::new(stream);
        while let Some(mut request) = read_head(&mut reader)? {
            request.before = {
                let requests = self.requests.lock().unwrap();
                let same =
                    |other: &&Request| other.method == request.method && other.path == request.path;
                requests.iter().filter(same).count()
            };
            let intake = (self.taking)(&request);
            let length = request.header("content-length").and_then(|text| text.parse().ok());
            let wanted = match intake {
                Intake::All => length.unwrap_or(0),
                Intake::CutAfter(bytes) | Intake::StallAfter(bytes) => bytes as u64,
            };
            (&mut reader).take(wanted).read_to_end(&mut request.body)?;
            request.cut = intake != Intake::All;
            self.requests.lock().unwrap().push(request.clone());
            if let Intake::StallAfter(_) = intake {
                self.pause(Duration::from_secs(60));
                break;
            }
            let handler = if request.path == "/v2/" { &self.root } else { &self.handler };
            let reply = handler(&request);
            if request.cut {
                break;
            }
            self.send(&mut writer, &request, &reply)?;
            if reply.fault != Fault::None {
                break;
            }
        }
        writer.shutdown(std::net::Shutdown::Both)
    }

    fn send(&self, out: &mut TcpStream, request: &Request, reply: &Reply) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} X\r\n", reply.status);
        if reply.fault == Fault::NoLength {
            head.push_str("Connection: close\r\n");
        } else if !reply.headers.iter().any(|(name, _)| name == "Content-Length") {
            head.push_str(&format!("Content-Length: {}\r\n", reply.body.len()));
        }
        for (name, value) in &reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        out.write_all(head.as_bytes())?;
        if request.method == "HEAD" {
            return Ok(());
        }
        let body = reply.body.as_slice();
        let mut write = |bytes: &[u8]| {
            self.body_bytes.fetch_add(bytes.len() as u64, Ordering::SeqCst);
            out.write_all(bytes)
        };
        match reply.fault {
            Fault::None | Fault::NoLength => write(body),
            Fault::CutAfter(bytes) => write(&body[..bytes]),
            Fault::StallAfter(bytes) => {
                write(&body[..bytes])?;
                self.pause(Duration::from_secs(60));
                Ok(())
            }
            Fault::Trickle => {
                for byte in body.chunks(1) {
                    write(byte)?;
                    if !self.pause(Duration::from_millis(20)) {
                        break;
                    }
                }
                Ok(())
            }
        }
    }

    /// Sleeps unless the server ends.
    fn pause(&self, time: Duration) -> bool {
        let end = std::time::Instant::now() + time;
        while std::time::Instant::now() < end {
            if self.stop.load(Ordering::SeqCst) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }
}

fn read_head(reader: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Ok(Some(Request { method, path, headers, body: Vec::new(), cut: false, before: 0 }))
}

/// An index with one manifest with a config and a layer, all in repository `team/app`.
#[derive(Debug, Clone)]
pub struct Image {
    pub index: Arc<Vec<u8>>,
    pub manifest: Arc<Vec<u8>>,
    pub config: Arc<Vec<u8>>,
    pub layer: Arc<Vec<u8>>,
    index_type: &'static str,
    manifest_type: &'static str,
}

impl Image {
    pub fn oci(layer_size: usize) -> Self {
        Self::new(layer_size, OCI_INDEX, OCI_MANIFEST)
    }

    pub fn docker(layer_size: usize) -> Self {
        Self::new(layer_size, DOCKER_LIST, DOCKER_MANIFEST)
    }

    fn new(layer_size: usize, index_type: &'static str, manifest_type: &'static str) -> Self {
        // Not periodic in any power of two, so that misplaced pieces show.
        let layer: Vec<u8> =
            (0..layer_size as u64).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 13) as u8).collect();
        let config = br#"{"os":"linux","architecture":"amd64"}"#.to_vec();
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{manifest_type}","config":{{"digest":"{}","size":{}}},"layers":[{{"digest":"{}","size":{}}}]}}"#,
            Digest::of(&config),
            config.len(),
            Digest::of(&layer),
            layer.len()
        );
        let index = format!(
            r#"{{"schemaVersion":2,"mediaType":"{index_type}","manifests":[{{"digest":"{}","size":{}}}]}}"#,
            Digest::of(&manifest),
            manifest.len()
        );
        Self {
            index: Arc::new(index.into_bytes()),
            manifest: Arc::new(manifest.into_bytes()),
            config: Arc::new(config),
            layer: Arc::new(layer),
            index_type,
            manifest_type,
        }
    }

    pub fn layer_digest(&self) -> Digest {
        Digest::of(self.layer.as_slice())
    }

    /// What a registry without faults replies; honours Range.
    pub fn reply(&self, request: &Request) -> Reply {
        let digest = |bytes: &Vec<u8>| Digest::of(bytes).to_string();
        let name = request.path.rsplit('/').next().unwrap_or_default();
        let document = |bytes: &Arc<Vec<u8>>, kind: &str| Reply {
            body: bytes.clone(),
            ..Reply::new(200, "")
                .with("Content-Type", kind)
                .with("Docker-Content-Digest", digest(bytes))
        };
        match request.path.strip_prefix("/v2/team/app/") {
            Some(path) if path.starts_with("manifests/") => {
                if name == "latest" || name == digest(&self.index) {
                    return document(&self.index, self.index_type);
                }
                if name == digest(&self.manifest) {
                    return document(&self.manifest, self.manifest_type);
                }
                Reply::error(404, "MANIFEST_UNKNOWN", "manifest unknown")
            }
            Some(path) if path.starts_with("blobs/") => {
                let blobs = [&self.config, &self.layer];
                match blobs.into_iter().find(|blob| name == digest(blob)) {
                    Some(blob) => ranged(request, blob),
                    None => Reply::error(404, "BLOB_UNKNOWN", "blob unknown"),
                }
            }
            _ => Reply::error(404, "NAME_UNKNOWN", "repository name not known"),
        }
    }
}

/// The part of `blob` that the request asks for.
fn ranged(request: &Request, blob: &Arc<Vec<u8>>) -> Reply {
    let from = request
        .header("range")
        .and_then(|text| text.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    match from {
        Some(from) => Reply::new(206, &blob[from..])
            .with("Content-Range", format!("bytes {from}-{}/{}", blob.len() - 1, blob.len())),
        None => Reply { body: blob.clone(), ..Reply::new(200, "") },
    }
}

/// Options that do not make tests wait.
pub fn quick() -> RegistryOptions {
    RegistryOptions {
        backoff: Duration::from_millis(5),
        backoff_max: Duration::from_millis(20),
        ..Default::default()
    }
}
