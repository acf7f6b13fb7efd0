//! `config.json`: what a container is. Written when it is made, and whole again when its networks or
//! what it may use are changed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;

use rbuild_cache::SnapshotId;
use rbuild_container::logs::LogOptions;
use rbuild_container::{HealthChecks, Restart, Stop};
use rbuild_plan::ExtraHost;
use rbuild_sandbox::Spec;
use rbuild_types::Digest;
use serde::{Deserialize, Serialize};

use super::directory::NAME;
use super::{Connection, Dns, MountRecord, Privileges};
use crate::BuildError;

/// The file's name.
pub(super) const FILE: &str = "config.json";
/// Longest that is read.
const MAX_RECORD: u64 = 64 << 20;

/// What a container is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// 64 hex digits.
    pub id: String,
    /// Its name, which is in a file of its own.
    #[serde(skip)]
    pub name: String,
    /// When it was made, in nanoseconds since 1970.
    pub created: i64,
    /// The image as it was asked for.
    pub image: String,
    /// The image's id.
    pub image_id: Digest,
    /// What runs in it.
    pub spec: Spec,
    /// What it may do, as it was asked for.
    #[serde(default)]
    pub privileges: Privileges,
    /// What is mounted, besides memory.
    pub mounts: Vec<MountRecord>,
    /// Ports that are published, or said to be listened on besides the image's: `80/tcp`.
    #[serde(default)]
    pub exposed: BTreeSet<String>,
    /// How it is connected to networks, if it is.
    pub connection: Option<Connection>,
    /// Name servers and relatives instead of the host's.
    pub dns: Dns,
    /// Names with addresses, or `host-gateway`.
    pub hosts: Vec<ExtraHost>,
    /// The image's layers, the bottom first.
    pub(crate) layers: Vec<SnapshotId>,
    /// Whether standard input stays open for those who attach.
    pub open_stdin: bool,
    /// Whether it is removed when it ends.
    pub auto_remove: bool,
    /// Whether it ends with whoever started it.
    pub tied: bool,
    /// When it is started again.
    pub restart: Restart,
    /// How it is stopped.
    pub stop: Stop,
    /// How its output is kept.
    pub log: LogOptions,
    /// How its health is checked, if it is.
    #[serde(default)]
    pub health: Option<HealthChecks>,
    /// Those of the image, and those given to it.
    pub labels: BTreeMap<String, String>,
}

impl ContainerRecord {
    /// What is said of it in events.
    pub(super) fn attributes(&self) -> BTreeMap<String, String> {
        let image = ("image".to_owned(), self.image.clone());
        self.labels.clone().into_iter().chain([image]).collect()
    }

    /// The record of the container in `directory`; `None` while it is being made or removed.
    pub(super) fn read(directory: &Path) -> Result<Option<Self>, BuildError> {
        let path = directory.join(FILE);
        let io = |source| BuildError::Io { what: format!("read {}", path.display()), source };
        let file = match fs_err::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
        };
        let reader = std::io::BufReader::new(std::io::Read::take(file, MAX_RECORD));
        let record: Self = serde_json::from_reader(reader).map_err(|error| io(error.into()))?;
        let name = fs_err::read_to_string(directory.join(NAME)).map_err(io)?;
        Ok(Some(Self { name, ..record }))
    }

    /// Writes it whole.
    pub(super) fn write(&self, directory: &Path) -> Result<(), BuildError> {
        let path = directory.join(FILE);
        let io = |source| BuildError::Io { what: format!("write {}", path.display()), source };
        let new = directory.join("config.json.new");
        let text = serde_json::to_vec(self).map_err(|error| io(error.into()))?;
        let mut file = fs_err::File::create(&new).map_err(io)?;
        file.write_all(&text).map_err(io)?;
        fs_err::rename(&new, &path).map_err(io)
    }
}
