//! `cargo xtask acceptance`: the classic Flask image, built as people build it, and taken by
//! every tool that takes images: skopeo, a registry, podman, docker and umoci.
//!
//! The base image `python:3.7.4` is a Debian root with Python, served by Debian's
//! docker-registry as a mirror of docker.io. pip installs from wherever this machine's pip does.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::args::Args;
use crate::bases;
use crate::command::Cmd;
use crate::exchange;
use crate::failure::{Outcome, ensure, fail};
use crate::http;
use crate::packages::{self, BASES, PEERS};
use crate::paths;
use crate::peers::{Docker, Podman};
use crate::rbuild::Rbuild;
use crate::registries;
use crate::registry::Registry;
use crate::service::terminate;
use crate::steps::{Step, not_cached};

/// Flask's port, which the classic names.
const PORT: u16 = 5000;

/// How long a container may take until it answers.
const PATIENCE: Duration = Duration::from_secs(30);

const IMAGE: &str = "docker_flask:latest";

/// `cargo xtask acceptance [--peers-only|--registries-only]`; the first switch tries the other tools
/// with an image that they made themselves, to see whether they work on this machine.
pub(crate) fn run(args: &mut Args) -> Outcome {
    let peers_only = args.switch("--peers-only");
    let registries_only = args.switch("--registries-only");
    let exchange_only = args.switch("--exchange-only");
    args.words()?;
    ensure(packages::is_root(), || "acceptance starts dockerd and podman: it needs root".into())?;
    ensure(!http::answers(PORT), || format!("something listens on port {PORT} already"))?;
    packages::ensure_installed(&[BASES, PEERS].concat())?;
    let dir = paths::fresh("acceptance")?;
    if !peers_only && !exchange_only {
        registries::hold(&dir.join("registries"))?;
    }
    if registries_only {
        return paths::remove(&dir);
    }
    if exchange_only {
        return exchange::hold(&dir.join("exchange"), &Registry::start(&dir.join("registry"))?);
    }
    let base = format!("oci:{}:latest", bases::python_layout()?.display());
    let registry = Registry::start(&dir.join("registry"))?;
    registry.push(&base, "library/python:3.7.4")?;

    let images = if peers_only {
        peer_made_images(&dir, &registry)?
    } else {
        let rbuild = Rbuild::release(dir.join("store"))?;
        let classic = Classic { rbuild, registry: &registry, context: dir.join("flask") };
        copy_example(&classic.context)?;
        classic.build_run_edit()?;
        classic.cached_variant()?;
        classic.pushes(&dir)?;
        classic.images(&dir)?
    };
    others_take(&dir, &registry, &images)?;
    if !peers_only {
        exchange::hold(&dir.join("exchange"), &registry)?;
    }
    drop(registry);
    paths::remove(&dir)?;
    println!("\nacceptance: every step held");
    Ok(())
}

/// The image in both archive forms, and what it answers.
struct Images {
    oci: PathBuf,
    docker: PathBuf,
    answer: String,
}

/// The example, its registry and the program that builds it.
struct Classic<'a> {
    rbuild: Rbuild,
    registry: &'a Registry,
    context: PathBuf,
}

impl Classic<'_> {
    fn build(&self) -> Cmd {
        self.nameless_build().arg("-t").arg(IMAGE)
    }

    /// With a name the image would be pushed by that too.
    fn nameless_build(&self) -> Cmd {
        let mirror = format!("docker.io=http://127.0.0.1:{}", self.registry.port);
        self.rbuild
            .cmd("build")
            .arg("--registry-mirror")
            .arg(mirror)
            .args(proxies())
            .words("--network host")
            .arg(".")
            .dir(&self.context)
    }

    fn build_run_edit(&self) -> Outcome {
        section("the classic, cold");
        let steps = self.steps(&self.build())?;
        ensure(steps.iter().all(|s| !s.cached), || "an empty store answered a step".into())?;
        self.answers("Hello from Flask")?;

        section("the classic, unchanged");
        expect_ran(&self.steps(&self.build())?, &[])?;

        section("the classic, after an edit of a file that the build does not see");
        fs_err::write(self.context.join("Dockerfile.notes"), "ignored")?;
        expect_ran(&self.steps(&self.build())?, &[])?;

        section("the classic, after an edit of app.py: all below `COPY . /app` runs again");
        self.edit("Hello from Flask", "Hello again")?;
        let steps = self.steps(&self.build())?;
        let pip = |s: &Step| s.name.contains("pip install");
        ensure(steps.iter().any(|s| pip(s) && !s.cached), || {
            "the step that depends on the edited file did not run".into()
        })?;
        self.answers("Hello again")
    }

    fn cached_variant(&self) -> Outcome {
        section("requirements.txt first: the edit no longer reaches pip");
        let build = self.build().arg("-f").arg("Dockerfile.cached");
        self.steps(&build)?;
        self.edit("Hello again", "Hello for the third time")?;
        expect_ran(&self.steps(&build)?, &["COPY . /app"])?;
        self.answers("Hello for the third time")
    }

    fn pushes(&self, dir: &Path) -> Outcome {
        for codec in ["gzip", "zstd", "uncompressed"] {
            section(&format!("the program pushes {codec}, and skopeo takes it"));
            let name = self.registry.reference(&format!("pushed:{codec}"));
            let output =
                format!("type=registry,name={name},compression={codec},force-compression=true");
            let build = self.nameless_build().arg("-f").arg("Dockerfile.cached");
            build.arg("-o").arg(output).output()?;
            let image = format!("docker://{name}");
            let skopeo = || Cmd::new("skopeo");
            let manifest =
                skopeo().words("inspect --raw --tls-verify=false").arg(&image).output()?;
            let kind = match codec {
                "uncompressed" => "layer.v1.tar\"".to_owned(),
                codec => format!("layer.v1.tar+{codec}"),
            };
            ensure(manifest.contains(&kind), || format!("no layer of {codec} in {manifest}"))?;
            let copy = format!("oci:{}:{codec}", dir.join("pushed").display());
            skopeo()
                .words("copy --quiet --insecure-policy --src-tls-verify=false")
                .arg(&image)
                .arg(copy)
                .output()?;
        }
        Ok(())
    }

    fn images(&self, dir: &Path) -> Outcome<Images> {
        section("both archive forms");
        let (oci, docker) = (dir.join("flask.oci.tar"), dir.join("flask.docker.tar"));
        let to = |kind: &str, file: &Path| format!("type={kind},dest={}", file.display());
        let both = self
            .build()
            .arg("-f")
            .arg("Dockerfile.cached")
            .arg("-o")
            .arg(to("oci", &oci))
            .arg("-o")
            .arg(to("docker", &docker));
        expect_ran(&self.steps(&both)?, &[])?;
        Ok(Images { oci, docker, answer: "Hello for the third time".into() })
    }

    fn steps(&self, build: &Cmd) -> Outcome<Vec<Step>> {
        let started = std::time::Instant::now();
        let steps = self.rbuild.build_steps(build)?;
        println!("   {} ms", started.elapsed().as_millis());
        for step in &steps {
            println!("   {} {}", if step.cached { "cached" } else { "ran   " }, step.name);
        }
        Ok(steps)
    }

    fn edit(&self, old: &str, new: &str) -> Outcome {
        let file = self.context.join("app.py");
        let text = fs_err::read_to_string(&file)?;
        ensure(text.contains(old), || format!("`{}` lacks {old:?}", file.display()))?;
        Ok(fs_err::write(&file, text.replace(old, new))?)
    }

    fn answers(&self, expected: &str) -> Outcome {
        let run = self.rbuild.cmd("run").args(["--rm", "--network", "host", IMAGE]);
        Container::start(&run)?.answers(expected)
    }
}

/// A foreground `run` of one of the tools.
struct Container {
    command: Cmd,
    child: Child,
    log: PathBuf,
}

impl Container {
    fn start(command: &Cmd) -> Outcome<Self> {
        let log = paths::scratch("acceptance")?.join("container.log");
        let output = fs_err::File::create(&log)?.into_parts().0;
        let mut process = command.command();
        let process = process.stdout(Stdio::from(output.try_clone()?)).stderr(output);
        let child = process.spawn().map_err(|e| command.not_started(&e))?;
        Ok(Self { command: command.clone(), child, log })
    }

    /// Asks for the page, then stops the container and sees that the port is free again.
    fn answers(mut self, expected: &str) -> Outcome {
        let body = http::get_within(PORT, "/", PATIENCE).map_err(|failure| {
            let said = fs_err::read_to_string(&self.log).unwrap_or_default();
            failure.during(format!("{} said\n{said}", self.command))
        })?;
        ensure(body.contains(expected), || {
            format!("{} answered {body:?}, not {expected:?}", self.command)
        })?;
        println!("   answered {body:?}");
        // Python as process 1 has no handler for SIGTERM; it has one for SIGINT.
        terminate(&mut self.child, Signal::INT, PATIENCE)?;
        ensure(!http::answers(PORT), || format!("{} left its server running", self.command))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Err(failure) = terminate(&mut self.child, Signal::TERM, PATIENCE) {
            eprintln!("warning: {failure}");
        }
    }
}

fn others_take(dir: &Path, registry: &Registry, images: &Images) -> Outcome {
    section("skopeo takes the OCI archive to a registry");
    let archive = format!("oci-archive:{}", images.oci.display());
    let reference = registry.reference("docker_flask:latest");
    registry.push(&archive, "docker_flask:latest")?;

    section("umoci unpacks it");
    umoci_unpacks(dir, &archive)?;

    section("podman runs it");
    let podman = Podman::open(&dir.join("peers"))?;
    podman.cmd().args(["pull", "--quiet", "--tls-verify=false", &reference]).output()?;
    let run = podman.cmd().args(["run", "--rm", "--network", "host", &reference]);
    Container::start(&run)?.answers(&images.answer)?;

    section("docker pulls and runs it");
    let docker = Docker::start(&dir.join("peers"))?;
    docker.cmd().args(["pull", "--quiet", &reference]).output()?;
    let run = docker.cmd().args(["run", "--rm", "--network", "host", &reference]);
    Container::start(&run)?.answers(&images.answer)?;

    section("docker loads the docker archive");
    docker.cmd().args(["rmi", "-f", &reference]).output()?;
    let said = docker.cmd().arg("load").arg("-i").arg(&images.docker).output()?;
    ensure(said.contains("docker_flask"), || format!("`docker load` said {said:?}"))?;
    let run = docker.cmd().args(["run", "--rm", "--network", "host", IMAGE]);
    Container::start(&run)?.answers(&images.answer)
}

fn umoci_unpacks(dir: &Path, archive: &str) -> Outcome {
    let (layout, bundle) = (dir.join("umoci"), dir.join("bundle"));
    Cmd::new("skopeo")
        .words("copy --quiet --insecure-policy")
        .arg(archive)
        .arg(format!("oci:{}:flask", layout.display()))
        .output()?;
    Cmd::new("umoci")
        .args(["unpack", "--image"])
        .arg(format!("{}:flask", layout.display()))
        .arg(&bundle)
        .output()?;
    let unpacked = bundle.join("rootfs/app/app.py");
    ensure(unpacked.is_file(), || format!("umoci unpacked no `{}`", unpacked.display()))
}

/// Hands this machine's proxy settings to pip, as one would by hand: without a value, so that
/// the program takes it from its environment.
pub(crate) fn proxies() -> Vec<String> {
    ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"]
        .iter()
        .filter(|name| std::env::var_os(name).is_some())
        .flat_map(|name| ["--build-arg".to_owned(), (*name).to_owned()])
        .collect()
}

/// The same archives without the program under test: Debian's docker builds the example.
fn peer_made_images(dir: &Path, registry: &Registry) -> Outcome<Images> {
    section("docker builds the example");
    let context = dir.join("flask");
    copy_example(&context)?;
    let base = registry.reference("library/python:3.7.4");
    let dockerfile = context.join("Dockerfile");
    let text = fs_err::read_to_string(&dockerfile)?.replace("python:3.7.4", &base);
    fs_err::write(&dockerfile, text)?;
    let docker = Docker::start(&dir.join("maker"))?;
    let build = docker.cmd().words("build -q --network host -t").arg(IMAGE).arg(&context);
    build.output()?;
    let (oci, tar) = (dir.join("flask.oci.tar"), dir.join("flask.docker.tar"));
    docker.cmd().args(["save", "-o"]).arg(&tar).arg(IMAGE).output()?;
    Cmd::new("skopeo")
        .words("copy --quiet --insecure-policy")
        .arg(format!("docker-archive:{}", tar.display()))
        .arg(format!("oci-archive:{}:docker_flask:latest", oci.display()))
        .output()?;
    Ok(Images { oci, docker: tar, answer: "Hello from Flask".into() })
}

/// The web application of the examples, to be built and edited.
pub(crate) fn copy_example(context: &Path) -> Outcome {
    fs_err::create_dir_all(context)?;
    for entry in fs_err::read_dir(paths::workspace().join("examples/flask"))? {
        let entry = entry?;
        fs_err::copy(entry.path(), context.join(entry.file_name()))?;
    }
    Ok(())
}

/// Holds when exactly the named instructions ran and the cache answered the others.
fn expect_ran(steps: &[Step], expected: &[&str]) -> Outcome {
    let ran = not_cached(steps);
    let matches = ran.len() == expected.len()
        && ran.iter().zip(expected).all(|(name, instruction)| name.ends_with(instruction));
    if matches { Ok(()) } else { fail(format!("these steps ran: {ran:?}, not {expected:?}")) }
}

pub(crate) fn section(title: &str) {
    println!("\n==> {title}");
}
