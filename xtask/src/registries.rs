//! The program at Debian's docker-registry: one that is open, one with passwords, one with TLS and
//! passwords, and one that wants certificates of its clients. What is pushed comes back as it was,
//! and whoever is not let in is told why.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::acceptance::section;
use crate::command::{Cmd, tail};
use crate::failure::{Outcome, ensure};
use crate::paths;
use crate::random::Random;
use crate::rbuild::Rbuild;
use crate::registry::{Guard, Registry};

/// Bytes of the layer that goes there and back: more than a window of the client, and random, so
/// that it stays as large when it is compressed.
const LAYER: usize = 24 << 20;

const PASSWORD: &str = "correct-horse";

/// Tries all of them.
pub(crate) fn hold(dir: &Path) -> Outcome {
    fs_err::create_dir_all(dir)?;
    let passwords = passwords(dir)?;
    let certificates = certificates(&dir.join("certificates"))?;
    let client = Client::build(dir)?;
    let guard = |locked: bool, tls: bool, clients: bool| Guard {
        passwords: locked.then_some(passwords.as_path()),
        tls: tls.then_some(certificates.as_path()),
        clients,
    };

    section("docker-registry, open to all: there and back");
    let registry = Registry::start_guarded(&dir.join("open"), guard(false, false, false))?;
    client.there_and_back(&registry, &[])?;

    section("docker-registry with passwords");
    let registry = Registry::start_guarded(&dir.join("locked"), guard(true, false, false))?;
    client.logs_in(&registry, &[])?;

    section("docker-registry with TLS and passwords");
    let registry = Registry::start_guarded(&dir.join("tls"), guard(true, true, false))?;
    client.is_refused("push", &registry, &[], "certificate is not accepted")?;
    client.there_and_back(&registry, &["--tls-verify=false", "--creds", &creds()])?;
    let trusted = dir.join("trusted");
    fs_err::create_dir_all(&trusted)?;
    fs_err::copy(certificates.join("ca.crt"), trusted.join("ca.crt"))?;
    client.logs_in(&registry, &["--cert-dir", &trusted.display().to_string()])?;
    // And without a flag, from the user's own directory.
    let own = client.home.join(format!(".config/containers/certs.d/127.0.0.1:{}", registry.port));
    fs_err::create_dir_all(&own)?;
    fs_err::copy(certificates.join("ca.crt"), own.join("ca.crt"))?;
    client.there_and_back(&registry, &["--creds", &creds()])?;

    section("docker-registry that wants to see a certificate");
    let registry = Registry::start_guarded(&dir.join("clients"), guard(false, true, true))?;
    let trusted = trusted.display().to_string();
    client.is_refused("push", &registry, &["--cert-dir", &trusted], "client certificate")?;
    for (from, to) in [("client.crt", "me.cert"), ("client.key", "me.key")] {
        fs_err::copy(certificates.join(from), dir.join("trusted").join(to))?;
    }
    client.there_and_back(&registry, &["--cert-dir", &trusted])
}

fn creds() -> String {
    format!("me:{PASSWORD}")
}

/// The program, with a home of its own and an image.
struct Client {
    rbuild: Rbuild,
    home: PathBuf,
    /// A store that has nothing of the image, for what is pulled.
    other: PathBuf,
}

impl Client {
    fn build(dir: &Path) -> Outcome<Self> {
        let rbuild = Rbuild::release(dir.join("store"))?;
        let client = Self { rbuild, home: dir.join("home"), other: dir.join("other") };
        let context = dir.join("context");
        for made in [&client.home, &context] {
            fs_err::create_dir_all(made)?;
        }
        let mut random = Random::new(1);
        let layer: Vec<u8> = (0..LAYER / 8).flat_map(|_| random.next().to_le_bytes()).collect();
        fs_err::write(context.join("layer"), layer)?;
        fs_err::write(context.join("Dockerfile"), "FROM scratch\nCOPY layer /\n")?;
        client.cmd("build").words("-q -t there").arg(&context).output()?;
        Ok(client)
    }

    fn cmd(&self, verb: &str) -> Cmd {
        self.rbuild.cmd(verb).env("HOME", &self.home).env("DOCKER_CONFIG", &self.home)
    }

    /// Pushes, and pulls the same into a store that knows nothing.
    fn there_and_back(&self, registry: &Registry, flags: &[&str]) -> Outcome {
        let name = registry.reference("team/there:1");
        let started = Instant::now();
        let push = self.cmd("push").args(flags).arg("there").arg(&name);
        let pushed = push.output()?;
        let pushing = started.elapsed();
        paths::remove(&self.other)?;
        let started = Instant::now();
        let pull = self.cmd("pull").env("RBUILD_ROOT", &self.other);
        let pulled = pull.args(flags).arg(&name).output()?;
        println!("   push {} ms, pull {} ms", pushing.as_millis(), started.elapsed().as_millis());
        let digest = |text: &str| {
            let at = text.find("sha256:")?;
            text.get(at..at + "sha256:".len() + 64).map(str::to_owned)
        };
        let (there, back) = (digest(&pushed), digest(&pulled));
        ensure(there.is_some() && there == back, || {
            format!("pushed as {there:?}, pulled as {back:?}")
        })
    }

    /// Is nobody, then somebody else, then itself, then nobody again.
    fn logs_in(&self, registry: &Registry, flags: &[&str]) -> Outcome {
        let server = format!("127.0.0.1:{}", registry.port);
        self.is_refused("push", registry, flags, "rbuild login")?;
        let login = |password: &str| {
            self.cmd("login").args(flags).args(["-u", "me", "-p", password]).arg(&server)
        };
        let wrong = login("wrong").capture()?;
        ensure(!wrong.status.success() && tail(&wrong).contains("does not let me in"), || {
            format!("a wrong password: {}", tail(&wrong))
        })?;
        login(PASSWORD).output()?;
        self.there_and_back(registry, flags)?;
        self.cmd("logout").arg(&server).output()?;
        self.is_refused("pull", registry, flags, "rbuild login")
    }

    /// Sees that the registry does not take or give anything, for this reason.
    fn is_refused(&self, verb: &str, registry: &Registry, flags: &[&str], reason: &str) -> Outcome {
        let image = if verb == "push" { &["there"][..] } else { &[] };
        let name = registry.reference("team/there:1");
        let refused = self.cmd(verb).args(flags).args(image).arg(name).capture()?;
        let said = tail(&refused);
        ensure(!refused.status.success() && said.contains(reason), || {
            format!("`{verb}` was not refused because of {reason:?}: {said}")
        })
    }
}

/// A file with one user, whose password the registry compares by bcrypt.
fn passwords(dir: &Path) -> Outcome<PathBuf> {
    let file = dir.join("htpasswd");
    Cmd::new("htpasswd").args(["-B", "-b", "-c"]).arg(&file).args(["me", PASSWORD]).output()?;
    Ok(file)
}

/// A CA, and what it signed: a certificate for the registry and one for its clients.
fn certificates(dir: &Path) -> Outcome<PathBuf> {
    fs_err::create_dir_all(dir)?;
    let openssl = || Cmd::new("openssl").dir(dir);
    let new = "req -x509 -newkey rsa:2048 -nodes -days 2";
    openssl().words(new).words("-subj /CN=test-ca -keyout ca.key -out ca.crt").output()?;
    for (name, usage) in
        [("server", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")]
    {
        openssl()
            .words(new)
            .words("-CA ca.crt -CAkey ca.key -addext basicConstraints=critical,CA:FALSE")
            .args(["-addext", usage, "-subj", &format!("/CN={name}")])
            .args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.crt")])
            .output()?;
    }
    Ok(dir.to_owned())
}
