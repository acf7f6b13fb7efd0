//! Secrets of a build, and what of them is in keys.

use std::collections::BTreeMap;

use rbuild_cache::{CacheError, Store};
use rbuild_plan::mount::MountKind;
use rbuild_plan::op::Op;

/// Secrets by id. Without `Debug` output of the values on purpose.
#[derive(Clone, Default)]
pub struct Secrets {
    values: BTreeMap<String, Secret>,
    /// The text that keyed digests are made with; without one the store has its own.
    pub mac_key: Option<String>,
}

#[derive(Clone)]
struct Secret {
    value: Vec<u8>,
    key: SecretKey,
}

/// What of a secret is in the keys of the steps that use it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SecretKey {
    /// Nothing: a result is used whatever the value was, with a warning if it was another.
    #[default]
    Nothing,
    /// A keyed digest of the value: with another value the step runs again.
    Content,
    /// This text.
    Version(String),
}

impl Secrets {
    /// Adds one that is in no key.
    pub fn insert(&mut self, id: impl Into<String>, value: Vec<u8>) {
        self.insert_keyed(id, value, SecretKey::Nothing);
    }

    /// Adds one.
    pub fn insert_keyed(&mut self, id: impl Into<String>, value: Vec<u8>, key: SecretKey) {
        self.values.insert(id.into(), Secret { value, key });
    }

    /// The value of one.
    pub fn get(&self, id: &str) -> Option<&Vec<u8>> {
        self.values.get(id).map(|secret| &secret.value)
    }

    /// What is to be known of the secrets that a step uses.
    pub(crate) fn of(&self, op: &Op, store: &Store) -> Result<Used, CacheError> {
        let mut used = Used::default();
        let Op::Run(run) = op else { return Ok(used) };
        for mount in &run.mounts {
            let MountKind::Secret(wanted) = &mount.kind else { continue };
            let Some(secret) = self.values.get(&wanted.id) else { continue };
            let mac = store.mac(self.mac_key.as_deref(), &wanted.id, &secret.value)?;
            let in_key = match &secret.key {
                SecretKey::Nothing => {
                    used.others.insert(wanted.id.clone(), mac);
                    continue;
                }
                SecretKey::Content => format!("content {mac}"),
                SecretKey::Version(text) => format!("version {text}"),
            };
            used.in_key.insert(wanted.id.clone(), in_key);
        }
        Ok(used)
    }
}

/// The secrets that a step uses, by id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Used {
    /// What of them is in its key.
    pub(crate) in_key: BTreeMap<String, String>,
    /// Keyed digests of those that are not.
    pub(crate) others: BTreeMap<String, String>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}
