//! One image on its way through all tools: what each of them saves the program loads, and what it
//! saves they load. Digests stay as far as the formats have them: the image id everywhere, the
//! manifest where it is carried.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::acceptance::section;
use crate::command::Cmd;
use crate::failure::{Outcome, ensure};
use crate::peers::{Docker, Podman};
use crate::rbuild::Rbuild;
use crate::registry::Registry;

const IMAGE: &str = "exchange:1";

/// Docker builds an image; then it goes round.
pub(crate) fn hold(dir: &Path, registry: &Registry) -> Outcome {
    fs_err::create_dir_all(dir)?;
    let round = Round {
        rbuild: Rbuild::release(dir.join("store"))?,
        docker: Docker::start(&dir.join("docker"))?,
        podman: Podman::open(&dir.join("podman"))?,
        registry,
        dir,
    };
    let id = round.made_by_docker()?;
    round.through_archives(&id)?;
    round.through_layouts(&id)?;
    round.through_the_registry(&id)
}

struct Round<'r> {
    rbuild: Rbuild,
    docker: Docker,
    podman: Podman,
    registry: &'r Registry,
    dir: &'r Path,
}

impl Round<'_> {
    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A store that knows nothing.
    fn fresh(&self) -> Outcome<Rbuild> {
        let store = self.file("fresh");
        if store.exists() {
            fs_err::remove_dir_all(&store)?;
        }
        Ok(Rbuild { store, ..self.rbuild.clone() })
    }

    fn made_by_docker(&self) -> Outcome<String> {
        let context = self.file("context");
        fs_err::create_dir_all(&context)?;
        fs_err::copy("/bin/busybox", context.join("busybox"))?;
        let dockerfile = "FROM scratch\nCOPY busybox /bin/busybox\nCOPY Dockerfile /etc/made-by\n\
                          ENV A=b\nCMD [\"/bin/busybox\", \"cat\", \"/etc/made-by\"]\n";
        fs_err::write(context.join("Dockerfile"), dockerfile)?;
        self.docker.cmd().words("build -q -t").arg(IMAGE).arg(&context).output()?;
        let id = self.docker.cmd().words("inspect --format {{.Id}}").arg(IMAGE).output()?;
        Ok(id.trim().to_owned())
    }

    /// Loads a file or directory into a store that knows nothing, and says the image's id.
    fn load(&self, path: &Path) -> Outcome<(Rbuild, String)> {
        let fresh = self.fresh()?;
        fresh.cmd("load").arg("-q").arg("-i").arg(path).output()?;
        let ids = fresh.cmd("images").words("-a -q --no-trunc").output()?;
        Ok((fresh, ids.trim().to_owned()))
    }

    fn through_archives(&self, id: &str) -> Outcome {
        section("docker save, rbuild load and save, podman load and save, rbuild load");
        let saved = self.file("docker.tar");
        self.docker.cmd().arg("save").arg("-o").arg(&saved).arg(IMAGE).output()?;
        same("what docker saved", &self.load(&saved)?.1, id)?;
        self.rbuild.cmd("load").arg("-i").arg(&saved).output()?;
        for format in ["docker-archive", "oci-archive"] {
            let ours = self.file(&format!("rbuild.{format}"));
            self.save(format, &ours)?;
            let load = self.podman.cmd().words("load -q -i").arg(&ours);
            load.output()?;
            let podman = self.podman.cmd().words("inspect --format {{.Id}}").arg(IMAGE).output()?;
            same(&format!("podman's of our {format}"), &format!("sha256:{}", podman.trim()), id)?;
        }
        for format in ["docker-archive", "oci-archive", "oci-dir", "docker-dir"] {
            let theirs = self.file(&format!("podman.{format}"));
            let save = self.podman.cmd().words("save -q --format").arg(format);
            save.arg("-o").arg(&theirs).arg(IMAGE).output()?;
            let (store, loaded) = self.load(&theirs)?;
            same(&format!("podman's {format}"), &loaded, id)?;
            let said = store.cmd("run").arg("--rm").arg(&loaded).output()?;
            ensure(said.contains("FROM scratch"), || format!("{format}: it said {said:?}"))?;
        }
        section("docker load of what rbuild saved");
        self.docker.cmd().args(["rmi", "-f", IMAGE]).output()?;
        let ours = self.file("rbuild.docker-archive");
        self.docker.cmd().arg("load").arg("-i").arg(&ours).output()?;
        let loaded = self.docker.cmd().words("inspect --format {{.Id}}").arg(IMAGE).output()?;
        same("docker's of our docker-archive", loaded.trim(), id)
    }

    fn save(&self, format: &str, path: &Path) -> Outcome {
        let save = self.rbuild.cmd("save").arg("--format").arg(format);
        save.arg("-o").arg(path).arg(IMAGE).output().map(drop)
    }

    fn through_layouts(&self, id: &str) -> Outcome {
        section("rbuild's layout, skopeo to and from it, umoci into it");
        let layout = self.file("layout");
        self.save("oci-dir", &layout)?;
        let index: Value = serde_json::from_slice(&fs_err::read(layout.join("index.json"))?)?;
        let manifest = index["manifests"][0]["digest"].as_str().unwrap_or_default().to_owned();
        let place = format!("oci:{}:1", layout.display());
        let (dir, copy) = (self.file("skopeo.dir"), self.file("skopeo.oci"));
        skopeo(&place, &format!("dir:{}", dir.display()))?;
        skopeo(&place, &format!("oci:{}:1", copy.display()))?;
        for path in [&dir, &copy] {
            let (store, loaded) = self.load(path)?;
            same("skopeo's", &loaded, id)?;
            same("skopeo's manifest", &digest(&store, &loaded)?, &manifest)?;
        }
        Cmd::new("umoci")
            .arg("tag")
            .arg("--image")
            .arg(format!("{}:1", layout.display()))
            .arg("2")
            .output()?;
        same("umoci's", &self.load(&layout)?.1, id)?;
        section("skopeo to a registry, rbuild from there");
        let name = self.registry.reference("exchange/skopeo:1");
        skopeo(&place, &format!("docker://{name}"))?;
        same("the registry's", &self.raw("exchange/skopeo:1")?, &manifest)?;
        let fresh = self.fresh()?;
        fresh.cmd("pull").arg("-q").arg(&name).output()?;
        same("the pulled one", &digest(&fresh, &name)?, &manifest)
    }

    fn through_the_registry(&self, id: &str) -> Outcome {
        section("docker push, rbuild pull and push, docker and podman pull");
        let (theirs, ours) = ("exchange/docker:1", "exchange/rbuild:1");
        let name = self.registry.reference(theirs);
        self.docker.cmd().args(["tag", IMAGE, &name]).output()?;
        self.docker.cmd().args(["push", "-q", &name]).output()?;
        let before = self.raw(theirs)?;
        let fresh = self.fresh()?;
        fresh.cmd("pull").arg("-q").arg(&name).output()?;
        let back = self.registry.reference(ours);
        fresh.cmd("push").arg("-q").arg(&name).arg(&back).output()?;
        same("pulled and pushed", &self.raw(ours)?, &before)?;
        self.docker.cmd().args(["pull", "-q", &back]).output()?;
        let pulled = self.docker.cmd().words("inspect --format {{.Id}}").arg(&back).output()?;
        same("docker's", pulled.trim(), id)?;
        self.podman.cmd().args(["pull", "-q", "--tls-verify=false", &back]).output()?;
        let pulled = self.podman.cmd().words("inspect --format {{.Id}}").arg(&back).output()?;
        same("podman's", &format!("sha256:{}", pulled.trim()), id)
    }

    /// Digest of the manifest that a name stands for at the registry.
    fn raw(&self, name: &str) -> Outcome<String> {
        let image = format!("docker://{}", self.registry.reference(name));
        let inspect = Cmd::new("skopeo").words("inspect --tls-verify=false --format {{.Digest}}");
        Ok(inspect.arg(image).output()?.trim().to_owned())
    }
}

fn digest(rbuild: &Rbuild, image: &str) -> Outcome<String> {
    let inspect = rbuild.cmd("inspect").args(["--format", "{{.Descriptor.digest}}", image]);
    Ok(inspect.output()?.trim().to_owned())
}

fn skopeo(from: &str, to: &str) -> Outcome {
    Cmd::new("skopeo")
        .words("copy --quiet --insecure-policy --src-tls-verify=false --dest-tls-verify=false")
        .args([from, to])
        .output()
        .map(drop)
}

fn same(what: &str, found: &str, expected: &str) -> Outcome {
    ensure(found == expected, || format!("{what}: {found}, not {expected}"))?;
    println!("   {what}: {found}");
    Ok(())
}
