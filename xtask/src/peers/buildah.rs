//! buildah with a store of its own.

use std::path::{Path, PathBuf};

use crate::command::Cmd;
use crate::failure::Outcome;

/// Where its store and settings are.
#[derive(Debug)]
pub(crate) struct Buildah {
    dir: PathBuf,
    settings: PathBuf,
}

impl Buildah {
    pub(crate) fn open(dir: &Path) -> Outcome<Self> {
        Ok(Self { dir: dir.join("buildah"), settings: super::containers_conf(dir)? })
    }

    /// `buildah …` on this store.
    pub(crate) fn cmd(&self) -> Cmd {
        Cmd::new("buildah")
            .env("CONTAINERS_CONF", &self.settings)
            .words("--storage-driver overlay --root")
            .arg(self.dir.join("root"))
            .arg("--runroot")
            .arg(self.dir.join("run"))
    }
}
