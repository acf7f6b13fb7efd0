//! Finds containers.

use rbuild_container::State;

use super::directory::{all, ids};
use super::{Container, ContainerRecord};
use crate::{BuildError, Engine};

/// All containers of a store.
#[derive(Debug, Default)]
pub struct ContainerList {
    /// The newest first, each with how it is now.
    pub containers: Vec<(ContainerRecord, State)>,
    /// Those of which nobody knows what they are.
    pub unreadable: Vec<UnreadableContainer>,
}

/// A container whose files are damaged. [`Engine::remove_container`] removes it by force.
#[derive(Debug)]
pub struct UnreadableContainer {
    /// 64 hex digits.
    pub id: String,
    /// Its name, or its id where that is not known.
    pub name: String,
    /// What is wrong with it.
    pub problem: BuildError,
}

impl Engine {
    /// All containers, the newest first, each with how it is now.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn containers(&self) -> Result<Vec<(ContainerRecord, State)>, BuildError> {
        Ok(self.list_containers()?.containers)
    }

    /// All containers, also those that are damaged.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn list_containers(&self) -> Result<ContainerList, BuildError> {
        let containers = all(self.store.root());
        let mut list = ContainerList::default();
        for id in ids(&containers)? {
            let directory = containers.join(&id);
            let found = match ContainerRecord::read(&directory) {
                Ok(None) => continue,
                Ok(Some(record)) => State::now(&directory)
                    .map(|(state, _)| (record, state))
                    .map_err(BuildError::from),
                Err(problem) => Err(problem),
            };
            match found {
                Ok(found) => list.containers.push(found),
                // One that goes away meanwhile is none.
                Err(_) if !directory.exists() => {}
                Err(problem) => {
                    let name = fs_err::read_to_string(directory.join(super::directory::NAME));
                    let name = name.unwrap_or_else(|_| id.clone());
                    list.unreadable.push(UnreadableContainer { id, name, problem });
                }
            }
        }
        list.containers.sort_by(|(a, _), (b, _)| b.created.cmp(&a.created).then(a.id.cmp(&b.id)));
        Ok(list)
    }

    /// A container by its name, its id, or the beginning of its id.
    ///
    /// # Errors
    ///
    /// [`BuildError::NoSuchContainer`]; [`BuildError::Request`] when several ids begin so.
    pub fn container(&self, name: &str) -> Result<Container, BuildError> {
        let none = || BuildError::NoSuchContainer { name: name.to_owned() };
        self.opened(&self.container_id(name)?)?.ok_or_else(none)
    }

    /// Removes a container; one that runs, or that is damaged, by force only.
    ///
    /// # Errors
    ///
    /// Those of [`Engine::container`]; [`BuildError::Conflict`] when it runs and `force` is not
    /// given.
    pub fn remove_container(&self, name: &str, force: bool) -> Result<(), BuildError> {
        let id = self.container_id(name)?;
        match self.opened(&id) {
            Ok(Some(mut container)) => container.remove(force),
            Ok(None) => Err(BuildError::NoSuchContainer { name: name.to_owned() }),
            Err(_) if force => super::remove_at(&all(self.store.root()).join(&id), name),
            Err(problem) => Err(BuildError::Conflict {
                message: format!(
                    "{problem}; `rbuild rm -f {name}` removes the container all the same"
                ),
            }),
        }
    }

    /// The id of the container that is meant.
    fn container_id(&self, name: &str) -> Result<String, BuildError> {
        let none = || BuildError::NoSuchContainer { name: name.to_owned() };
        // As `docker inspect` shows them.
        let wanted = name.strip_prefix('/').unwrap_or(name);
        let containers = all(self.store.root());
        let mut by_name = None;
        let mut by_id = Vec::new();
        for id in ids(&containers)? {
            let named = fs_err::read_to_string(containers.join(&id).join(super::directory::NAME));
            if id == wanted {
                return Ok(id);
            }
            if named.is_ok_and(|named| named == wanted) {
                by_name = Some(id.clone());
            }
            if !wanted.is_empty() && id.starts_with(wanted) {
                by_id.push(id);
            }
        }
        match (by_name, by_id.as_slice()) {
            (Some(id), _) => Ok(id),
            (None, [id]) => Ok(id.clone()),
            (None, []) => Err(none()),
            (None, [..]) => Err(BuildError::Request {
                message: format!("{name} is the beginning of several containers' ids: give more"),
            }),
        }
    }

    fn opened(&self, id: &str) -> Result<Option<Container>, BuildError> {
        let directory = all(self.store.root()).join(id);
        let record = ContainerRecord::read(&directory)?;
        Ok(record.map(|record| Container::new(self, directory, None, record)))
    }
}
