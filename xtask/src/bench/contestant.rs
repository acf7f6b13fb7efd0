//! The tools that are compared, each as the commands that do the same thing.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use crate::bases;
use crate::command::Cmd;
use crate::failure::{Outcome, fail};
use crate::peers::{Buildah, Docker, Podman};
use crate::rbuild::Rbuild;

/// What to build.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Build<'a> {
    pub(crate) context: &'a Path,
    pub(crate) dockerfile: &'a Path,
    pub(crate) tag: &'a str,
}

/// One column. A command that a tool does not have is `None`, and its cell stays empty.
pub(crate) trait Contestant {
    /// The column's head.
    fn name(&self) -> &'static str;
    /// Prints the version.
    fn version(&self) -> Cmd;
    /// Builds on the host's network and tags the result.
    fn build(&self, build: &Build<'_>) -> Option<Cmd>;
    /// Checks the Dockerfile without building; most tools have nothing of that kind.
    fn check(&self, _build: &Build<'_>) -> Option<Cmd> {
        None
    }
    /// Lists the stages of the Dockerfile.
    fn stages(&self, _build: &Build<'_>) -> Option<Cmd> {
        None
    }
    /// Writes the built image to one file, its layers with this codec.
    fn export(&self, build: &Build<'_>, file: &Path, codec: &str) -> Option<Cmd>;
    /// Removes what an export kept for the next one.
    fn forget_exports(&self) {}
    /// Pulls an image of a registry that speaks plain HTTP, and unpacks it.
    fn pull(&self, reference: &str) -> Cmd;
    /// Runs `true` in a new container on this network: `host`, `none` or `bridge`.
    fn container(&self, network: &str) -> Outcome<Option<Cmd>>;
    /// Removes what the last build of this tag made, so that disks do not fill up.
    fn remove(&self, _tag: &str) {}
    /// Removes what all builds made, and keeps the base image.
    fn forget(&self) {}
}

/// Opens a tool with an empty store below `dir` that has `busybox:latest` in it.
pub(crate) fn open(name: &str, dir: &Path) -> Outcome<Box<dyn Contestant>> {
    let base = format!("oci:{}:latest", bases::busybox_layout()?.display());
    Ok(match name {
        "rbuild" => {
            let rbuild = Rbuild::release(dir.join("rbuild"))?;
            rbuild.build_busybox()?;
            Box::new(rbuild)
        }
        "docker" => {
            let archive = dir.join("busybox.tar");
            Cmd::new("skopeo")
                .words("copy --quiet --insecure-policy")
                .arg(&base)
                .arg(format!("docker-archive:{}:busybox:latest", archive.display()))
                .output()?;
            let docker = Docker::start(dir)?;
            docker.cmd().arg("load").arg("-i").arg(&archive).output()?;
            Box::new(Dockers { docker, bridged: OnceCell::new(), dir: dir.to_owned(), archive })
        }
        "buildah" => {
            let buildah = Buildah::open(dir)?;
            let id = buildah.cmd().args(["pull", "-q"]).arg(&base).output()?;
            buildah.cmd().arg("tag").arg(id.trim()).arg("localhost/busybox:latest").output()?;
            buildah.cmd().words("from --name bench --pull-never localhost/busybox").output()?;
            Box::new(buildah)
        }
        "podman" => {
            let podman = Podman::open(dir)?;
            let id = podman.cmd().args(["pull", "-q"]).arg(&base).output()?;
            podman.cmd().arg("tag").arg(id.trim()).arg("localhost/busybox:latest").output()?;
            Box::new(podman)
        }
        other => return fail(format!("no peer `{other}`")),
    })
}

impl Contestant for Rbuild {
    fn name(&self) -> &'static str {
        "rbuild"
    }

    fn version(&self) -> Cmd {
        self.cmd("--version")
    }

    fn build(&self, build: &Build<'_>) -> Option<Cmd> {
        let cmd = self.cmd("build").words("-q --network host -t").arg(build.tag);
        Some(cmd.arg("-f").arg(build.dockerfile).arg(build.context))
    }

    fn check(&self, build: &Build<'_>) -> Option<Cmd> {
        let cmd = self.cmd("build").words("--check -f").arg(build.dockerfile);
        Some(cmd.arg(build.context))
    }

    fn stages(&self, build: &Build<'_>) -> Option<Cmd> {
        let cmd = self.cmd("build").words("--call=targets -f").arg(build.dockerfile);
        Some(cmd.arg(build.context))
    }

    fn export(&self, build: &Build<'_>, file: &Path, codec: &str) -> Option<Cmd> {
        let output = format!("type=oci,dest={},compression={codec}", file.display());
        let cmd = self.cmd("build").words("-q --network host -o").arg(output);
        Some(cmd.arg("-f").arg(build.dockerfile).arg(build.context))
    }

    /// There is no command that only pulls; a container costs a few milliseconds.
    fn pull(&self, reference: &str) -> Cmd {
        self.cmd("run").words("--rm --network host").arg(reference).arg("true")
    }

    fn container(&self, network: &str) -> Outcome<Option<Cmd>> {
        Ok(Some(self.cmd("run").args(["--rm", "--network", network, "busybox", "true"])))
    }

    fn forget_exports(&self) {
        let _ = self.cmd("prune").words("-f").capture();
    }

    fn remove(&self, tag: &str) {
        let _ = self.cmd("rmi").arg(tag).capture();
    }

    fn forget(&self) {
        let _ = self.cmd("prune").words("-a -f").capture();
    }
}

/// Docker, and a second daemon for containers on a bridge once there are any.
struct Dockers {
    docker: Docker,
    bridged: OnceCell<Docker>,
    dir: PathBuf,
    archive: PathBuf,
}

impl Dockers {
    fn cmd(&self) -> Cmd {
        self.docker.cmd()
    }

    fn bridged(&self) -> Outcome<&Docker> {
        if let Some(docker) = self.bridged.get() {
            return Ok(docker);
        }
        let docker = Docker::start_bridged(&self.dir.join("bridged"))?;
        docker.cmd().arg("load").arg("-i").arg(&self.archive).output()?;
        Ok(self.bridged.get_or_init(|| docker))
    }
}

impl Contestant for Dockers {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn version(&self) -> Cmd {
        self.cmd().arg("--version")
    }

    fn build(&self, build: &Build<'_>) -> Option<Cmd> {
        let cmd = self.cmd().words("build -q --network host -t").arg(build.tag);
        Some(cmd.arg("-f").arg(build.dockerfile).arg(build.context))
    }

    fn export(&self, build: &Build<'_>, file: &Path, codec: &str) -> Option<Cmd> {
        let save = || self.cmd().args(["save", "-o"]).arg(file).arg(build.tag);
        (codec != "zstd").then(save)
    }

    fn pull(&self, reference: &str) -> Cmd {
        self.cmd().words("pull -q").arg(reference)
    }

    fn container(&self, network: &str) -> Outcome<Option<Cmd>> {
        let docker = if network == "bridge" { self.bridged()? } else { &self.docker };
        Ok(Some(docker.cmd().args(["run", "--rm", "--network", network, "busybox", "true"])))
    }

    fn remove(&self, tag: &str) {
        let _ = self.cmd().args(["rmi", "-f", tag]).capture();
    }

    fn forget(&self) {
        let _ = self.cmd().words("builder prune -a -f").capture();
    }
}

impl Contestant for Buildah {
    fn name(&self) -> &'static str {
        "buildah"
    }

    fn version(&self) -> Cmd {
        Cmd::new("buildah").arg("--version")
    }

    fn build(&self, build: &Build<'_>) -> Option<Cmd> {
        let cmd = self.cmd().words("build -q --layers --jobs 4 --network host --pull-never -t");
        Some(cmd.arg(build.tag).arg("-f").arg(build.dockerfile).arg(build.context))
    }

    fn export(&self, build: &Build<'_>, file: &Path, codec: &str) -> Option<Cmd> {
        let cmd = match codec {
            "uncompressed" => self.cmd().words("push -q --disable-compression"),
            codec => self.cmd().words("push -q --compression-format").arg(codec),
        };
        let cmd = cmd.arg(build.tag);
        Some(cmd.arg(format!("oci-archive:{}", file.display())))
    }

    fn pull(&self, reference: &str) -> Cmd {
        self.cmd().words("pull -q --tls-verify=false").arg(reference)
    }

    /// It is set up without a bridge.
    fn container(&self, network: &str) -> Outcome<Option<Cmd>> {
        let run = self.cmd().args(["run", "--network", network, "bench", "true"]);
        Ok(Some(run).filter(|_| network != "bridge"))
    }

    fn remove(&self, tag: &str) {
        let _ = self.cmd().args(["rmi", "-f", tag]).capture();
    }

    fn forget(&self) {
        let _ = self.cmd().words("rmi --prune --force").capture();
    }
}

impl Contestant for Podman {
    fn name(&self) -> &'static str {
        "podman"
    }

    fn version(&self) -> Cmd {
        Cmd::new("podman").arg("--version")
    }

    /// podman builds with buildah's code, so that column would say the same twice.
    fn build(&self, _: &Build<'_>) -> Option<Cmd> {
        None
    }

    fn export(&self, _: &Build<'_>, _: &Path, _: &str) -> Option<Cmd> {
        None
    }

    fn pull(&self, reference: &str) -> Cmd {
        self.cmd().words("pull -q --tls-verify=false").arg(reference)
    }

    /// It is set up without a bridge.
    fn container(&self, network: &str) -> Outcome<Option<Cmd>> {
        let run = self.cmd().args(["run", "--rm", "--network", network, "busybox", "true"]);
        Ok(Some(run).filter(|_| network != "bridge"))
    }

    fn remove(&self, tag: &str) {
        let _ = self.cmd().args(["rmi", "-f", tag]).capture();
    }
}
