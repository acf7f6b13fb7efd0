//! Containers that join and leave networks after they were made.

use rbuild_container::{Connection as Wire, ContainerError, State};

use super::{Connection, Container, ContainerRecord, Membership, connect};
use crate::{BuildError, networks};

impl Container {
    /// Connects the container to one more network, now if it runs, and whenever it is started.
    ///
    /// # Errors
    ///
    /// [`BuildError::Conflict`] when it is connected to that already, or to the host's network or
    /// none; [`BuildError::NoSuchNetwork`].
    pub fn connect(&mut self, membership: &Membership) -> Result<(), BuildError> {
        let name = networks::find(&self.store, &membership.network)?.name;
        let membership = Membership { network: name, ..membership.clone() };
        let joining = connect::joining(self, &membership)?;
        self.change_networks(
            |connection| match place(connection, &membership.network) {
                Some(_) => Err(format!("it is connected to {} already", membership.network)),
                None => {
                    connection.networks.push(membership.clone());
                    Ok(())
                }
            },
            |supervisor| supervisor.join(&joining),
        )
    }

    /// Disconnects the container from a network, now if it runs, and for whenever it is started.
    ///
    /// # Errors
    ///
    /// [`BuildError::Conflict`] when it is not connected to that; [`BuildError::NoSuchNetwork`].
    pub fn disconnect(&mut self, network: &str) -> Result<(), BuildError> {
        let name = networks::find(&self.store, network)?.name;
        self.change_networks(
            |connection| match place(connection, &name) {
                Some(at) => {
                    connection.networks.remove(at);
                    Ok(())
                }
                None => Err(format!("it is not connected to {name}")),
            },
            |supervisor| supervisor.leave(&name),
        )
    }

    /// Removes from its networks what a supervisor left there that was killed, for who holds the
    /// container's lock.
    pub(super) fn forget_networks(&self) {
        let connected = State::last(&self.directory).map(|state| state.connected);
        if connected.is_ok_and(|connected| connected.networks.is_empty()) {
            return;
        }
        let memberships = self.record.connection.iter().flat_map(|it| &it.networks);
        for joining in memberships.filter_map(|it| connect::joining(self, it).ok()) {
            rbuild_container::network::forget(&self.record.id, &joining);
        }
    }

    fn change_networks(
        &mut self,
        change: impl FnOnce(&mut Connection) -> Result<(), String>,
        order: impl FnOnce(&Wire) -> Result<(), ContainerError>,
    ) -> Result<(), BuildError> {
        let change = |record: &mut ContainerRecord| match &mut record.connection {
            Some(connection) => change(connection),
            None => {
                Err("it shares the host's network, or has none: make it on a network of its own"
                    .to_owned())
            }
        };
        self.change(change, |supervisor, _| order(supervisor))
    }
}

/// Where a network is among those of a container.
fn place(connection: &Connection, network: &str) -> Option<usize> {
    connection.networks.iter().position(|it| it.network == network)
}
