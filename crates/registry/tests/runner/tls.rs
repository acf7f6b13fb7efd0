//! Certificates, against `openssl s_server`; skipped where there is no openssl.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rbuild_registry::{Registry, RegistryError, RegistryOptions};
use rbuild_types::{CancelToken, Ctx, Reference, Silent};

use crate::support::{Image, OCI_INDEX, quick};

struct TlsServer {
    child: Child,
    address: SocketAddr,
    directory: tempfile::TempDir,
}

impl TlsServer {
    /// Serves the index of an image with a certificate for 127.0.0.1 and `r.example.test`, which
    /// is its own CA.
    fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    fn start_with(more: &[&str]) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let manifests = directory.path().join("v2/team/app/manifests");
        fs_err::create_dir_all(&manifests).unwrap();
        let index = String::from_utf8(Image::oci(1).index.to_vec()).unwrap();
        let answer = format!(
            "HTTP/1.0 200 OK\r\nContent-Type: {OCI_INDEX}\r\nContent-Length: {}\r\n\r\n{index}",
            index.len()
        );
        fs_err::write(manifests.join("latest"), answer).unwrap();
        let made = openssl(directory.path())
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=test", "-keyout", "key.pem", "-out", "ca.crt"])
            .args(["-addext", "subjectAltName=IP:127.0.0.1,DNS:r.example.test"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .status();
        if !made.is_ok_and(|status| status.success()) {
            eprintln!("skipped: needs openssl");
            return None;
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let child = openssl(directory.path())
            .args(["s_server", "-quiet", "-HTTP", "-cert", "ca.crt", "-key", "key.pem"])
            .args(["-accept", &address.to_string()])
            .args(more)
            .spawn()
            .unwrap();
        for _ in 0..200 {
            if TcpStream::connect(address).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self { child, address, directory })
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn openssl(directory: &Path) -> Command {
    let mut command = Command::new("openssl");
    command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn fetch(options: RegistryOptions, host: &str) -> Result<Vec<u8>, RegistryError> {
    let reference: Reference = format!("{host}/team/app").parse().unwrap();
    let cancel = CancelToken::default();
    let registry = Registry::new(options).unwrap();
    registry.manifest(&reference, Ctx::new(&Silent, &cancel)).map(|manifest| manifest.bytes)
}

#[test]
fn a_hosts_own_certificate_is_trusted_for_that_host_only() {
    let Some(server) = TlsServer::start() else { return };
    let index = Image::oci(1).index.to_vec();
    let named = format!("r.example.test:{}", server.address.port());
    let certs_dir = server.directory.path().join("certs.d");
    for host in [&server.address.to_string(), &named] {
        let options = || RegistryOptions {
            resolve: [("r.example.test".to_owned(), server.address)].into(),
            ..quick()
        };
        // Loopback is asked in plain HTTP first and then found to speak TLS.
        let error = fetch(options(), host).unwrap_err().to_string();
        let known = ["certificate is not accepted", "no root certificates"];
        assert!(known.iter().any(|part| error.contains(part)), "{error}");

        let mine = certs_dir.join(host);
        fs_err::create_dir_all(&mine).unwrap();
        fs_err::copy(server.directory.path().join("ca.crt"), mine.join("ca.crt")).unwrap();
        let certs_dirs = vec!["/nowhere".into(), certs_dir.clone()];
        let with_certs = RegistryOptions { certs_dirs, ..options() };
        assert_eq!(fetch(with_certs, host).unwrap(), index);
        let cert_dir = Some(mine.clone());
        let with_one = RegistryOptions { cert_dir, ..options() };
        assert_eq!(fetch(with_one, host).unwrap(), index);
        fs_err::remove_dir_all(&mine).unwrap();
    }
}

#[test]
fn only_who_is_listed_need_not_prove_who_it_is() {
    let Some(server) = TlsServer::start() else { return };
    let index = Image::oci(1).index.to_vec();
    let (port, host) = (server.address.port(), format!("r.example.test:{}", server.address.port()));
    let options = |insecure: &[&str]| RegistryOptions {
        resolve: [("r.example.test".to_owned(), server.address)].into(),
        insecure: insecure.iter().map(ToString::to_string).collect(),
        ..quick()
    };
    assert_eq!(fetch(options(&[&host]), &host).unwrap(), index);
    let all = RegistryOptions { tls_verify: false, ..options(&[]) };
    assert_eq!(fetch(all, &host).unwrap(), index);
    let other = format!("r.example.test:{}", port.wrapping_add(1));
    for wrong in ["r.example.test", "example.test", &other] {
        let error = fetch(options(&[wrong]), &host).unwrap_err();
        assert!(matches!(error, RegistryError::Connection { .. }), "{wrong}: {error:?}");
    }
}

#[test]
fn a_client_certificate_is_shown_to_its_host() {
    let wanted = ["-Verify", "1", "-verify_return_error", "-CAfile", "ca.crt"];
    let Some(server) = TlsServer::start_with(&wanted) else { return };
    let index = Image::oci(1).index.to_vec();
    let host = format!("r.example.test:{}", server.address.port());
    let certs_dir = server.directory.path().join("certs.d");
    let mine = certs_dir.join(&host);
    fs_err::create_dir_all(&mine).unwrap();
    let put = |from: &str, to: &str| {
        fs_err::copy(server.directory.path().join(from), mine.join(to)).unwrap();
    };
    put("ca.crt", "ca.crt");
    let fetched = || {
        let options = RegistryOptions {
            resolve: [("r.example.test".to_owned(), server.address)].into(),
            certs_dirs: vec![certs_dir.clone()],
            retries: 1,
            ..quick()
        };
        fetch(options, &host)
    };
    let error = fetched().unwrap_err().to_string();
    assert!(error.contains("client certificate"), "{error}");
    put("ca.crt", "me.cert");
    let error = fetched().unwrap_err().to_string();
    assert!(error.contains("me.key"), "{error}");
    put("ca.crt", "me.key");
    let error = fetched().unwrap_err().to_string();
    assert!(error.contains("me.cert") && !error.contains("BEGIN"), "{error}");
    put("key.pem", "me.key");
    assert_eq!(fetched().unwrap(), index);
    put("ca.crt", "other.cert");
    assert!(fetched().unwrap_err().to_string().contains("other.cert"));
    fs_err::remove_file(mine.join("other.cert")).unwrap();

    // The first place that says who we are counts, and a directory for everybody alone.
    let odd = server.directory.path().join("odd");
    fs_err::create_dir_all(odd.join(&host)).unwrap();
    fs_err::write(odd.join(&host).join("other.cert"), "odd").unwrap();
    let with = |certs_dirs: [&Path; 2], cert_dir: Option<&Path>| {
        let options = RegistryOptions {
            resolve: [("r.example.test".to_owned(), server.address)].into(),
            certs_dirs: certs_dirs.map(Path::to_owned).into(),
            cert_dir: cert_dir.map(Path::to_owned),
            retries: 1,
            ..quick()
        };
        fetch(options, &host)
    };
    assert_eq!(with([&certs_dir, &odd], None).unwrap(), index);
    assert!(with([&odd, &certs_dir], None).unwrap_err().to_string().contains("other.key"));
    assert_eq!(with([&odd, &odd], Some(&mine)).unwrap(), index);
}
