//! Containers that are changed after they were made.

use rbuild_container::{Allowance, Connection as Wire, ContainerError, Restart};
use rbuild_sandbox::Resources;

use super::directory::Locked;
use super::{Container, ContainerRecord};
use crate::BuildError;

/// What is to be changed of a container; the rest stays as it is.
#[derive(Debug, Clone, Default)]
pub struct ContainerUpdate {
    /// What it and all that it starts may use together.
    pub resources: Resources,
    /// When it is started again after it ended by itself.
    pub restart: Option<Restart>,
}

impl Container {
    /// Changes what the container may use, now if it runs, and whenever it is started.
    ///
    /// # Errors
    ///
    /// [`BuildError::Conflict`] when it runs without such a limit, which it cannot get then, or what
    /// is asked for cannot be.
    pub fn update(&mut self, update: &ContainerUpdate) -> Result<(), BuildError> {
        let change = |record: &mut ContainerRecord| {
            let resources = update.resources.clone().over(&record.spec.resources);
            if let Some(problem) = resources.problem() {
                return Err(problem);
            }
            let restart = update.restart.unwrap_or(record.restart);
            if record.auto_remove && restart != Restart::No {
                return Err("it is removed when it ends, and so never started again".to_owned());
            }
            (record.spec.resources, record.restart) = (resources, restart);
            Ok(())
        };
        self.change(change, |supervisor, record| {
            let resources = record.spec.resources.clone();
            supervisor.allow(&Allowance { resources, restart: record.restart })
        })
    }

    /// Changes the record, and what runs by an order to its supervisor.
    pub(super) fn change(
        &mut self,
        change: impl FnOnce(&mut ContainerRecord) -> Result<(), String>,
        order: impl FnOnce(&Wire, &ContainerRecord) -> Result<(), ContainerError>,
    ) -> Result<(), BuildError> {
        let refused = |name: &str, why: &str| BuildError::Conflict {
            message: format!("container {name}: {why}"),
        };
        // Nobody else changes it meanwhile.
        let _all = Locked::wait(self.store.root())?;
        if let Some(record) = ContainerRecord::read(&self.directory)? {
            self.record = record;
        }
        let name = self.record.name.clone();
        change(&mut self.record).map_err(|why| refused(&name, &why))?;
        let lock = match Wire::open(&self.directory) {
            Ok(supervisor) => match order(&supervisor, &self.record) {
                Err(ContainerError::Refused(why)) => return Err(refused(&name, &why)),
                ordered => {
                    ordered?;
                    None
                }
            },
            Err(ContainerError::NotRunning) if self.lock.is_some() => None,
            // Nobody may start it before this is written down.
            Err(ContainerError::NotRunning) => Some(self.take_lock("it is about to be started")?),
            Err(error) => return Err(error.into()),
        };
        let written = self.record.write(&self.directory);
        drop(lock);
        written
    }
}
