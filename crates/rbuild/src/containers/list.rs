//! Finds containers.

use rbuild_container::State;

use super::directory::{all, ids};
use super::{Container, ContainerRecord};
use crate::{BuildError, Engine};

impl Engine {
    /// All containers, the newest first, each with how it is now.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn containers(&self) -> Result<Vec<(ContainerRecord, State)>, BuildError> {
        let containers = all(self.store.root());
        let mut found = Vec::new();
        for id in ids(&containers)? {
            let directory = containers.join(id);
            // One that goes away meanwhile is none.
            let Ok(Some(record)) = ContainerRecord::read(&directory) else { continue };
            let Ok((state, _)) = State::now(&directory) else { continue };
            found.push((record, state));
        }
        found.sort_by(|(a, _), (b, _)| b.created.cmp(&a.created).then(a.id.cmp(&b.id)));
        Ok(found)
    }

    /// A container by its name, its id, or the beginning of its id.
    ///
    /// # Errors
    ///
    /// [`BuildError::NoSuchContainer`]; [`BuildError::Request`] when several ids begin so.
    pub fn container(&self, name: &str) -> Result<Container, BuildError> {
        let none = || BuildError::NoSuchContainer { name: name.to_owned() };
        // As `docker inspect` shows them.
        let wanted = name.strip_prefix('/').unwrap_or(name);
        let containers = all(self.store.root());
        let mut by_name = None;
        let mut by_id = Vec::new();
        for id in ids(&containers)? {
            let named = fs_err::read_to_string(containers.join(&id).join(super::directory::NAME));
            if id == wanted {
                return self.opened(&id)?.ok_or_else(none);
            }
            if named.is_ok_and(|named| named == wanted) {
                by_name = Some(id.clone());
            }
            if !wanted.is_empty() && id.starts_with(wanted) {
                by_id.push(id);
            }
        }
        let id = match (by_name, by_id.as_slice()) {
            (Some(id), _) => id,
            (None, [id]) => id.clone(),
            (None, []) => return Err(none()),
            (None, [..]) => {
                return Err(BuildError::Request {
                    message: format!(
                        "{name} is the beginning of several containers' ids: give more"
                    ),
                });
            }
        };
        self.opened(&id)?.ok_or_else(none)
    }

    fn opened(&self, id: &str) -> Result<Option<Container>, BuildError> {
        let directory = all(self.store.root()).join(id);
        let record = ContainerRecord::read(&directory)?;
        Ok(record.map(|record| Container::new(self, directory, None, record)))
    }
}
