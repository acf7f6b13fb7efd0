//! A network that steps join, where the caller names one.

use std::os::fd::OwnedFd;

use crate::error::StepError;

/// Connects steps to a network. Implemented by the engine.
pub trait StepNetworks: Sync {
    /// Its name, for the record of the build.
    fn name(&self) -> &str;

    /// What a process gets of it; the first call connects.
    fn join(&self) -> Result<StepNetwork, StepError>;
}

/// A network as a process sees it.
#[derive(Debug)]
pub struct StepNetwork {
    /// The network namespace.
    pub namespace: OwnedFd,
    /// The text of `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// The address that `host-gateway` stands for.
    pub gateway: String,
}
