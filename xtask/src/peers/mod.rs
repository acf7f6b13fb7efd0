//! The other tools that build, take and run images: each with its own store below `target/`,
//! under limits, and gone when its value is dropped.

mod buildah;
mod docker;
mod podman;

pub(crate) use buildah::Buildah;
pub(crate) use docker::Docker;
pub(crate) use podman::Podman;

use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};

use crate::failure::Outcome;

/// The `--runroot` of podman or buildah, which they refuse when its path is longer than 50
/// characters; so it is not below `target/`.
#[derive(Debug)]
struct RunRoot(PathBuf);

impl RunRoot {
    fn new(tool: &str) -> Self {
        Self(PathBuf::from(format!("/tmp/rbuild-{tool}-{}", std::process::id())))
    }
}

impl Drop for RunRoot {
    fn drop(&mut self) {
        if let Err(failure) = crate::paths::remove(&self.0) {
            eprintln!("note: {} stays: {failure}", self.0.display());
        }
    }
}

/// Settings for podman and buildah that also hold on a small machine and inside a container:
/// no systemd, no journal, and no more open files than this process may have.
fn containers_conf(dir: &Path) -> Outcome<PathBuf> {
    let most = |resource, wanted: u64| getrlimit(resource).maximum.unwrap_or(wanted).min(wanted);
    let text = format!(
        "[containers]\ndefault_ulimits = [\"nofile=1024:{}\", \"nproc=1024:{}\"]\n\
         [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n",
        most(Resource::Nofile, 20_000),
        most(Resource::Nproc, 2_048),
    );
    fs_err::create_dir_all(dir)?;
    let file = dir.join("containers.conf");
    fs_err::write(&file, text)?;
    Ok(file)
}
