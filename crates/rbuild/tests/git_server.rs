//! Git repositories and a server for them on the loopback device. Git itself makes the
//! repositories and the packs.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::build_http::engine;
use crate::support::{Place, build, build_error, explain};
use crate::web::{Answer, Asked, Web, answer};

/// How a repository is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Two,
    Zero,
    Dumb,
}

/// Repositories below one directory, and a server for them.
pub struct Server {
    pub place: Place,
    pub web: Web,
}

impl Server {
    pub fn start(protocol: Protocol) -> Self {
        let place = Place::new();
        let root = place.path().join("git");
        fs_err::create_dir(&root).unwrap();
        let web = Web::start(move |asked| serve(&root, protocol, asked));
        Self { place, web }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path().join("git").join(name)
    }

    /// Runs git in a repository's work tree.
    pub fn git(&self, name: &str, line: &str) -> String {
        git(&self.path(name), &line.split(' ').collect::<Vec<_>>())
    }

    /// A work tree `name`, which is served as `name.git`.
    pub fn repository(&self, name: &str) {
        fs_err::create_dir(self.path(name)).unwrap();
        self.git(name, "init -q -b main .");
        fs_err::os::unix::fs::symlink(
            self.path(name).join(".git"),
            self.path(&format!("{name}.git")),
        )
        .unwrap();
        for option in ["user.name a", "user.email a@b", "protocol.file.allow always"] {
            self.git(name, &format!("config {option}"));
        }
    }

    pub fn write(&self, name: &str, file: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name).join(file);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, content).unwrap();
    }

    pub fn commit(&self, name: &str) -> String {
        self.git(name, "add -A");
        self.git(name, "commit -q -m message");
        self.git(name, "update-server-info");
        self.git(name, "rev-parse HEAD").trim().to_owned()
    }

    pub fn url(&self, rest: &str) -> String {
        self.web.url(&format!("/{rest}"))
    }

    /// How many packs were asked for since the last call, and how many other requests there were.
    pub fn asked(&self) -> (usize, usize) {
        let asked = self.web.asked();
        let is_pack = |asked: &&Asked| {
            asked.method == "POST" && String::from_utf8_lossy(&asked.body).contains("want ")
        };
        let packs = asked.iter().filter(is_pack).count();
        (packs, asked.len() - packs)
    }

    /// Builds one `ADD` to `/g` and gives what a script says there.
    pub fn added(&self, add: &str, script: &str) -> String {
        let engine = engine(&self.place);
        build(&engine, &self.place.request(&format!("ADD {add} /g\n")).tag("app"));
        self.place.sh(&engine, "app", &format!("cd /g && {script}"))
    }

    pub fn error(&self, add: &str) -> String {
        let request = self.place.request(&format!("ADD {add} /g\n"));
        explain(&build_error(&engine(&self.place), &request))
    }
}

pub fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(directory)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", "/nonexistent")
        .env("GIT_AUTHOR_DATE", "1500000000 +0000")
        .env("GIT_COMMITTER_DATE", "1500000000 +0000")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What git's own server does for a web server, without it.
pub fn serve(root: &Path, protocol: Protocol, asked: &Asked) -> Answer {
    let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
    if protocol == Protocol::Dumb {
        return match fs_err::read(root.join(path.trim_start_matches('/'))) {
            Ok(bytes) => answer(200, bytes),
            Err(_) => answer(404, ""),
        };
    }
    let version = match protocol {
        Protocol::Two => asked.header("git-protocol"),
        _ => "",
    };
    let upload_pack = |repository: &str, options: &[&str], body: &[u8]| {
        let mut child = Command::new("git")
            .args(["-c", "safe.directory=*", "upload-pack", "--stateless-rpc"])
            .args(options)
            .arg(root.join(repository.trim_start_matches('/')))
            .env("GIT_PROTOCOL", version)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(body).ok();
        child.wait_with_output().unwrap().stdout
    };
    let kind = |what: &str| format!("application/x-git-upload-pack-{what}");
    if let Some(repository) = path.strip_suffix("/info/refs") {
        if !root.join(repository.trim_start_matches('/')).exists() {
            return answer(404, "");
        }
        assert_eq!(query, "service=git-upload-pack");
        let mut bytes = b"001e# service=git-upload-pack\n0000".to_vec();
        bytes.extend(upload_pack(repository, &["--advertise-refs"], b""));
        return answer(200, bytes).with("Content-Type", kind("advertisement"));
    }
    match path.strip_suffix("/git-upload-pack") {
        Some(repository) if asked.header("content-type") == kind("request") => {
            answer(200, upload_pack(repository, &[], &asked.body))
                .with("Content-Type", kind("result"))
        }
        _ => answer(404, ""),
    }
}

/// Two commits: the first is tagged `v1` and, annotated, `v2`.
pub fn served(protocol: Protocol) -> (Server, String, String) {
    let server = Server::start(protocol);
    server.repository("r");
    server.write("r", "f", "one\n");
    server.write("r", "sub/g", "in\n");
    server.write("r", "sub/deep/h", "deep\n");
    server.write("r", "x.sh", "#!/bin/sh\n");
    server.write("r", "private", "p");
    let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    fs_err::set_permissions(server.path("r").join("x.sh"), mode(0o700)).unwrap();
    fs_err::set_permissions(server.path("r").join("private"), mode(0o600)).unwrap();
    fs_err::os::unix::fs::symlink("f", server.path("r").join("l")).unwrap();
    let first = server.commit("r");
    server.git("r", "tag v1");
    server.git("r", "tag -a v2 -m annotated");
    server.write("r", "f", "two\n");
    let second = server.commit("r");
    (server, first, second)
}

/// One of git's own servers, of the repositories below a directory.
pub struct Daemon {
    pub address: SocketAddr,
    /// What clients said first.
    pub asked: Arc<Mutex<Vec<String>>>,
}

impl Daemon {
    /// `speaks` is whether it knows protocol 2.
    pub fn start(root: &Path, speaks: Protocol) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (root, heard) = (root.to_owned(), asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (root, heard) = (root.clone(), heard.clone());
                // Clients hang up as they like.
                std::thread::spawn(move || converse(stream.unwrap(), &root, speaks, &heard).ok());
            }
        });
        Self { address, asked }
    }

    pub fn url(&self, rest: &str) -> String {
        format!("git://{}/{rest}", self.address)
    }
}

fn converse(
    mut stream: TcpStream,
    root: &Path,
    speaks: Protocol,
    heard: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut digits = [0; 4];
    stream.read_exact(&mut digits)?;
    let length = usize::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap();
    let mut line = vec![0; length - 4];
    stream.read_exact(&mut line)?;
    let line = String::from_utf8(line).unwrap();
    heard.lock().unwrap().push(line.clone());
    let parts: Vec<_> = line.split('\0').collect();
    let path = parts[0].strip_prefix("git-upload-pack /").unwrap();
    if !root.join(path).exists() {
        return stream.write_all(b"0021ERR access denied: /nope.git\n\0");
    }
    let version = if speaks == Protocol::Two { parts[3] } else { "" };
    let output = Stdio::from(std::os::fd::OwnedFd::from(stream.try_clone()?));
    let status = Command::new("git")
        .args(["-c", "safe.directory=*", "upload-pack"])
        .arg(root.join(path))
        .env("GIT_PROTOCOL", version)
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(stream.try_clone()?)))
        .stdout(output)
        .stderr(Stdio::null())
        .status()?;
    assert!(status.success() || speaks == Protocol::Zero, "{line:?}");
    stream.shutdown(std::net::Shutdown::Both)
}
