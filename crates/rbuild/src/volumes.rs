//! Volumes as people name, list and remove them. What is mounted in containers is in `volume.rs`.
//!
//! A container keeps its volumes from being removed, whether it runs or not: whoever removes one
//! holds it alone and then looks at all containers, and whoever makes a container holds its volumes
//! until the container is written down. So one of the two sees the other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use rbuild_cache::{Hold, NamedInfo, Volume, VolumeInfo};
use rbuild_container::events::Event;

use crate::containers::MountedFrom;
use crate::engine::random_id;
use crate::volume::check_name;
use crate::{BuildError, ContainerRecord, Engine};

/// The label of volumes whose name nobody chose, as in Docker.
pub const ANONYMOUS_VOLUME: &str = "com.docker.volume.anonymous";

/// How cache mounts are named beside volumes.
const CACHE: &str = "cache:";

/// A volume that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeRecord {
    /// Its name; of a cache mount `cache:` and its id or a short name, as containers name it too.
    pub name: String,
    /// Whether it is a cache mount of builds.
    pub is_cache: bool,
    /// When it was made, in milliseconds since 1970.
    pub created: i64,
    /// Given to it.
    pub labels: BTreeMap<String, String>,
    /// Its directory.
    pub path: PathBuf,
    /// The names of the containers that mount it, running or not.
    pub users: Vec<String>,
}

impl Engine {
    /// All volumes, by name, cache mounts last.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn volumes(&self) -> Result<Vec<VolumeRecord>, BuildError> {
        let containers = self.containers()?;
        let records: Vec<_> = containers.iter().map(|(record, _)| record).collect();
        let mut volumes = self
            .store
            .volumes()
            .list()?
            .into_iter()
            .map(|volume| self.volume_record(volume, &records))
            .collect::<Result<Vec<_>, _>>()?;
        volumes.sort_by(|a, b| (a.is_cache, &a.name).cmp(&(b.is_cache, &b.name)));
        Ok(volumes)
    }

    /// A volume by its name, or a cache mount as `cache:ID`.
    ///
    /// # Errors
    ///
    /// [`BuildError::NoSuchVolume`].
    pub fn volume(&self, name: &str) -> Result<VolumeRecord, BuildError> {
        let volume = self.find_volume(name)?;
        let containers = self.containers()?;
        let records: Vec<_> = containers.iter().map(|(record, _)| record).collect();
        self.volume_record(volume, &records)
    }

    /// Makes an empty volume, with a random name if none is given; one that is there already stays
    /// as it is.
    ///
    /// # Errors
    ///
    /// [`BuildError::Request`] for what is no name.
    pub fn create_volume(
        &self,
        name: Option<&str>,
        mut labels: BTreeMap<String, String>,
    ) -> Result<VolumeRecord, BuildError> {
        let name = match name {
            Some(name) => name.to_owned(),
            None => {
                labels.insert(ANONYMOUS_VOLUME.to_owned(), String::new());
                random_id()?
            }
        };
        check_name(&name)?;
        let volumes = self.store.volumes();
        // Who uses it made it.
        while volumes.find(&name)?.is_none() {
            if let Some(held) = volumes.try_take(&name, Hold::Alone)?
                && !held.path().exists()
            {
                // In this order: a volume that is there has its labels.
                held.note_named(&NamedInfo::new(std::mem::take(&mut labels)))?;
                self.put_in_place(&held, None)?;
                self.happened(Event::now("volume", "create", &name).with("driver", "local"));
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.volume(&name)
    }

    /// Removes a volume, or a cache mount as `cache:ID`, with all that is in it.
    ///
    /// # Errors
    ///
    /// [`BuildError::NoSuchVolume`]; [`BuildError::Conflict`] while a container, running or not,
    /// mounts it, or a step uses it.
    pub fn remove_volume(&self, name: &str) -> Result<(), BuildError> {
        let volume = self.find_volume(name)?.name;
        self.check_unused(name, &volume)?;
        let conflict = |why: &str| {
            let message = format!("volume {name} is in use {why}");
            BuildError::Conflict { message }
        };
        let held = self.alone(&volume)?.ok_or_else(|| conflict("by a step of a build"))?;
        self.check_unused(name, &volume)?;
        held.remove()?;
        self.happened(Event::now("volume", "destroy", name).with("driver", "local"));
        Ok(())
    }

    /// Refuses while a container mounts the volume.
    fn check_unused(&self, name: &str, volume: &str) -> Result<(), BuildError> {
        let list = self.list_containers()?;
        let users: Vec<&str> = list
            .containers
            .iter()
            .filter(|(record, _)| mounts(record, volume))
            .map(|(record, _)| record.name.as_str())
            .collect();
        let message = match (users.as_slice(), list.unreadable.first()) {
            ([], None) => return Ok(()),
            ([], Some(unreadable)) => format!(
                "volume {name} may be in use: container {} cannot be read; remove that one first \
                 (rbuild rm -f {})",
                unreadable.name, unreadable.name
            ),
            (users, _) => format!(
                "volume {name} is in use by container {}: remove that first (rbuild rm {})",
                users.join(", "),
                users.join(" ")
            ),
        };
        Err(BuildError::Conflict { message })
    }

    fn find_volume(&self, name: &str) -> Result<Volume, BuildError> {
        let volumes = self.store.volumes();
        let found = match name.strip_prefix(CACHE) {
            Some(id) => volumes.find_cache(id)?,
            // Anything else is not below `volumes/`.
            None if check_name(name).is_ok() => volumes.find(name)?,
            None => None,
        };
        found.ok_or_else(|| BuildError::NoSuchVolume { name: name.to_owned() })
    }

    fn volume_record(
        &self,
        volume: Volume,
        containers: &[&ContainerRecord],
    ) -> Result<VolumeRecord, BuildError> {
        let is_cache = volume.is_cache();
        let id = volume.info.as_ref().map(VolumeInfo::shown_id);
        let name = match is_cache {
            false => volume.name.clone(),
            true => match id {
                // Of several with one id only one is meant by that. Some would be no word in a list.
                Some(id) if is_word(id) && VolumeInfo::plain(id).volume_name() == volume.name => {
                    format!("{CACHE}{id}")
                }
                _ => format!("{CACHE}{}", volume.name.chars().take(18).collect::<String>()),
            },
        };
        let path = self.store.volumes().path(&volume.name);
        let users = containers.iter().filter(|record| mounts(record, &volume.name));
        let users = users.map(|record| record.name.clone()).collect();
        let of_directory = || {
            let changed = fs_err::metadata(&path).and_then(|it| it.modified()).ok();
            let since = changed.and_then(|it| it.duration_since(std::time::UNIX_EPOCH).ok());
            since.and_then(|it| i64::try_from(it.as_millis()).ok()).unwrap_or_default()
        };
        let created = match (&volume.info, &volume.named) {
            (Some(info), _) => info.created,
            (None, Some(named)) => named.created,
            (None, None) => of_directory(),
        };
        let labels = volume.named.map(|named| named.labels).unwrap_or_default();
        Ok(VolumeRecord { name, is_cache, created, labels, path, users })
    }
}

/// Whether it can be shown to people and given to programs as it is.
fn is_word(id: &str) -> bool {
    // Those that change the direction of the text hide what follows.
    let reorders = |it| matches!(it, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !id.is_empty() && !id.contains(|it: char| it.is_whitespace() || it.is_control() || reorders(it))
}

fn mounts(record: &ContainerRecord, volume: &str) -> bool {
    record.mounts.iter().any(|mount| match &mount.source {
        MountedFrom::Volume { name, .. } => name == volume,
        MountedFrom::Path(_) | MountedFrom::Anonymous(_) => false,
    })
}
