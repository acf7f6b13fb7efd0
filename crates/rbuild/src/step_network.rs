//! Steps on a network of containers: `build --network NAME`.
//!
//! All steps of a build that have no network of their own share one namespace, connected when the first
//! of them runs. They find containers of the network by name; nobody reaches them. To others they are
//! one more endpoint, whose `lock` lies below `tmp/` and is held by this process: when it is killed, the
//! kernel takes the namespace and the rules, and the next command the rest.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::sync::{Mutex, PoisonError};

use rbuild_cache::Scratch;
use rbuild_container::network::{Connect, Live};
use rbuild_network::resolv_conf::{DnsSettings, ResolvConf};
use rbuild_solver::{StepError, StepNetwork, StepNetworks};

use crate::engine::random_id;
use crate::{BuildError, Engine, NetworkRecord, networks};

/// A connection. Dropped, it is ended, and nothing of it is left.
pub(crate) struct Joined {
    /// Until it is dropped.
    live: Option<Live>,
    resolv_conf: String,
    gateway: String,
    _lock: File,
    _scratch: Scratch,
}

impl Joined {
    /// Connects to a network.
    pub(crate) fn to(engine: &Engine, network: NetworkRecord) -> Result<Self, BuildError> {
        let io = |source| BuildError::Io { what: "join the network".to_owned(), source };
        let scratch = engine.store.scratch("network")?;
        let lock = fs_err::File::create(scratch.path().join("lock")).map_err(io)?.into_file();
        lock.lock().map_err(io)?;
        let id = random_id()?;
        let name = format!("{}{}", networks::OF_BUILD, id.get(..12).unwrap_or(&id));
        let gateway = network.gateway.to_string();
        let resolver =
            ResolvConf::parse(&engine.resolv_conf()).with(&DnsSettings::default()).with_resolver();
        let options = resolver.options();
        let connect = Connect {
            networks: vec![networks::joining(&engine.store, network, vec![name], None)],
            ports: Vec::new(),
            servers: options.servers,
            forwards_single_labels: options.forwards_single_labels,
        };
        let live = Live::connect(&id, scratch.path().to_owned(), &connect)?;
        let resolv_conf = resolver.text;
        Ok(Self { live: Some(live), resolv_conf, gateway, _lock: lock, _scratch: scratch })
    }

    /// What one process gets of it.
    pub(crate) fn share(&self) -> std::io::Result<StepNetwork> {
        let live = self.live.as_ref().ok_or_else(|| std::io::Error::other("it has ended"))?;
        Ok(StepNetwork {
            namespace: live.netns().as_fd().try_clone_to_owned()?,
            resolv_conf: self.resolv_conf.clone(),
            gateway: self.gateway.clone(),
        })
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        if let Some(live) = self.live.take() {
            live.leave()();
        }
    }
}

impl std::fmt::Debug for Joined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Joined")
    }
}

/// The network of a build's steps.
pub(crate) struct OfBuild<'a> {
    engine: &'a Engine,
    network: NetworkRecord,
    joined: Mutex<Option<Joined>>,
}

impl<'a> OfBuild<'a> {
    /// Of a network by its name or id; nobody is connected yet.
    pub(crate) fn find(engine: &'a Engine, name: &str) -> Result<Self, BuildError> {
        let network = networks::find(&engine.store, name)?;
        Ok(Self { engine, network, joined: Mutex::default() })
    }

    /// The connection, if there is one.
    pub(crate) fn into_joined(self) -> Option<Joined> {
        self.joined.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StepNetworks for OfBuild<'_> {
    fn name(&self) -> &str {
        &self.network.name
    }

    fn join(&self) -> Result<StepNetwork, StepError> {
        let mut joined = self.joined.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(joined) = joined.as_ref() {
            return Ok(joined.share()?);
        }
        let made = Joined::to(self.engine, self.network.clone()).map_err(|error| {
            StepError::Missing(format!("network {}: {error}", self.network.name))
        })?;
        Ok(joined.insert(made).share()?)
    }
}
