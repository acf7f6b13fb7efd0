//! Several processes that pull one image at once, and images that are too much.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use rbuild::{Digest, Platform};

use crate::program::{Outcome, Program, can_build};

/// A registry with one image, which counts who asks for its layer.
struct Registry {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    /// An empty tar.
    layer: Vec<u8>,
    config: String,
    manifest: Vec<u8>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// How often the layer was asked for.
    asked: usize,
    /// Whether the first to ask for the layer gets half of it, and no more before this is false.
    held: bool,
}

impl Registry {
    /// With a small image.
    fn start(held: bool) -> Self {
        let layer = vec![0; 1 << 20];
        let layer_digest = Digest::of(&layer);
        let config = format!(
            r#"{{"os":"linux","architecture":"{}","config":{{}},
                "rootfs":{{"type":"layers","diff_ids":["{layer_digest}"]}}}}"#,
            Platform::host().architecture
        );
        let oci = "application/vnd.oci.image";
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{oci}.manifest.v1+json",
                "config":{{"mediaType":"{oci}.config.v1+json","digest":"{}","size":{}}},
                "layers":[{{"mediaType":"{oci}.layer.v1.tar","digest":"{layer_digest}",
                "size":{}}}]}}"#,
            Digest::of(&config),
            config.len(),
            layer.len()
        );
        Self::with(layer, config, manifest.into_bytes(), held)
    }

    fn with(layer: Vec<u8>, config: String, manifest: Vec<u8>, held: bool) -> Self {
        let state = Mutex::new(State { asked: 0, held });
        let shared = Arc::new(Shared { layer, config, manifest, state, changed: Condvar::new() });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, server) = (stream.unwrap(), server.clone());
                // Clients hang up as they like.
                std::thread::spawn(move || server.serve(stream).ok());
            }
        });
        Self { address, shared }
    }

    fn asked(&self) -> usize {
        self.shared.state.lock().unwrap().asked
    }

    /// Waits until somebody asks for the layer.
    fn wait_for_somebody(&self) {
        let state = self.shared.state.lock().unwrap();
        drop(self.shared.changed.wait_while(state, |state| state.asked == 0).unwrap());
    }

    fn release(&self) {
        self.shared.state.lock().unwrap().held = false;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut writer = stream.try_clone()?;
        let mut lines = BufReader::new(stream).lines();
        while let Some(line) = lines.next() {
            let line = line?;
            for header in lines.by_ref() {
                if header?.is_empty() {
                    break;
                }
            }
            let path = line.split(' ').nth(1).unwrap_or_default();
            let is_layer = path.ends_with(&Digest::of(&self.layer).to_string());
            let body = match path {
                _ if is_layer => &self.layer[..],
                "/v2/" => b"{}",
                _ if path.contains("/blobs/") => self.config.as_bytes(),
                _ => &self.manifest,
            };
            let length = body.len();
            write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")?;
            if line.starts_with("HEAD") {
                continue;
            }
            let mut rest = body;
            if is_layer {
                let mut state = self.state.lock().unwrap();
                state.asked += 1;
                self.changed.notify_all();
                if state.asked == 1 && state.held {
                    writer.write_all(&body[..length / 2])?;
                    rest = &body[length / 2..];
                    drop(self.changed.wait_while(state, |state| state.held).unwrap());
                }
            }
            writer.write_all(rest)?;
        }
        Ok(())
    }
}

#[test]
fn pulls_at_once_fetch_a_layer_once() {
    if !can_build() {
        return;
    }
    let (program, registry) = (Program::new(), Registry::start(false));
    let line = format!("pull {}/team/app", registry.address);
    let pulls: Vec<_> = (0..6).map(|_| program.start(&line, &[])).collect();
    for pull in pulls {
        Outcome::of(pull).good();
    }
    assert_eq!(registry.asked(), 1);
}

#[test]
fn pulls_that_are_killed_cost_the_others_no_more_than_theirs() {
    if !can_build() {
        return;
    }
    let (program, registry) = (Program::new(), Registry::start(true));
    let line = format!("pull {}/team/app", registry.address);
    let mut killed = vec![program.start(&line, &[])];
    registry.wait_for_somebody();
    killed.push(program.start(&line, &[]));
    let pulls: Vec<_> = (0..6).map(|_| program.start(&line, &[])).collect();
    for process in &mut killed {
        process.kill().unwrap();
        process.wait().unwrap();
    }
    registry.release();
    for pull in pulls {
        Outcome::of(pull).good();
    }
    assert!(registry.asked() <= 4, "{} times", registry.asked());
    program.run("images").good();
    let left: Vec<_> = fs_err::read_dir(program.store().join("tmp")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Documents that nobody needs are refused, and cost no more memory than others.
#[test]
fn documents_that_are_too_large_cost_little() {
    if !can_build() {
        return;
    }
    let oci = "application/vnd.oci.image";
    let empty = Digest::of("");
    let described =
        |kind: &str| format!(r#"{{"mediaType":"{oci}.{kind}","digest":"{empty}","size":0}}"#);
    let (config, layer) = (described("config.v1+json"), described("layer.v1.tar"));
    let head = format!(
        r#"{{"schemaVersion":2,"mediaType":"{oci}.manifest.v1+json","config":{config},"layers":["#
    );
    let long = " ".repeat(60 << 20);
    let deep = format!("{head}{}{}]}}", "[".repeat(200_000), "]".repeat(200_000));
    let many = format!("{head}{layer}{}]}}", format!(",{layer}").repeat(20_000));
    for (manifest, told) in [(long, "no sane document"), (deep, "manifest"), (many, "layers")] {
        let registry = Registry::with(Vec::new(), String::new(), manifest.into_bytes(), false);
        let program = Program::new();
        let line = format!("pull {}/team/app", registry.address);
        let outcome = program.run_within(300 << 20, &line);
        outcome.refused(1, told);
        let left: Vec<_> = fs_err::read_dir(program.store().join("tmp")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
