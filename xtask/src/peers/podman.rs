//! podman with a store of its own.

use std::path::{Path, PathBuf};

use super::RunRoot;
use crate::command::Cmd;
use crate::failure::Outcome;

/// Where its store and settings are.
#[derive(Debug)]
pub(crate) struct Podman {
    dir: PathBuf,
    settings: PathBuf,
    run: RunRoot,
}

impl Podman {
    pub(crate) fn open(dir: &Path) -> Outcome<Self> {
        let (dir, settings) = (dir.join("podman"), super::containers_conf(dir)?);
        Ok(Self { dir, settings, run: RunRoot::new("podman") })
    }

    /// `podman …` on this store.
    pub(crate) fn cmd(&self) -> Cmd {
        Cmd::new("podman")
            .env("CONTAINERS_CONF", &self.settings)
            .words("--storage-driver overlay --root")
            .arg(self.dir.join("root"))
            .arg("--runroot")
            .arg(&self.run.0)
    }
}
