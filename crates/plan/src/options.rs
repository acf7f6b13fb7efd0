//! What a caller may choose about one lowering.

use std::collections::{BTreeMap, BTreeSet};

use rbuild_types::Platform;

use crate::named_context::NamedContexts;
use crate::op::Network;
use crate::{Entitlement, ExtraHost, Ulimit};

/// The choices. [`Default`] is a build of the last stage for this machine.
#[derive(Debug, Clone)]
pub struct Options {
    /// `--target`: a stage name in any case; `None` is the last stage. A number finds nothing,
    /// as in BuildKit.
    pub target: Option<String>,
    /// `--build-arg` values.
    pub build_args: BTreeMap<String, String>,
    /// `--platform`, in the order of the images in the index; without any the image is for the
    /// build machine, or for what a base image is for where the language says so.
    pub platforms: Vec<Platform>,
    /// The machine that builds.
    pub build_platform: Platform,
    /// What that machine runs besides. The engine fills it in.
    pub emulated_platforms: Vec<Platform>,
    /// `--network` of steps that do not say.
    pub network: Network,
    /// `--label`: put on the target image only, over `LABEL`.
    pub labels: BTreeMap<String, String>,
    /// Whether the cache may not be read.
    pub no_cache: NoCache,
    /// Host name of steps.
    pub hostname: String,
    /// `--add-host`: names in the `/etc/hosts` of steps.
    pub extra_hosts: Vec<ExtraHost>,
    /// `--ulimit` of steps.
    pub ulimits: Vec<Ulimit>,
    /// Whether files that are made get no later time than `SOURCE_DATE_EPOCH`: `None` is all but
    /// what processes make, for whose keys the time then does not count.
    pub rewrite_timestamps: Option<bool>,
    /// `--shm-size`: bytes of the `/dev/shm` of steps; `None` is 64 MiB.
    pub shm_size: Option<u64>,
    /// `--allow`: what steps may have besides.
    pub allow: BTreeSet<Entitlement>,
    /// `--build-context`. The engine fills it in from its request.
    pub contexts: NamedContexts,
}

/// For which steps the cache may not be read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NoCache {
    /// For none.
    #[default]
    Off,
    /// For all.
    All,
    /// For those of the named stages.
    Stages(Vec<String>),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            target: None,
            build_args: BTreeMap::new(),
            platforms: Vec::new(),
            build_platform: Platform::host(),
            emulated_platforms: Vec::new(),
            network: Network::Default,
            labels: BTreeMap::new(),
            no_cache: NoCache::Off,
            // BuildKit's name; Dockerfiles in the wild test for it.
            hostname: "buildkitsandbox".to_owned(),
            extra_hosts: Vec::new(),
            ulimits: Vec::new(),
            rewrite_timestamps: None,
            shm_size: None,
            allow: BTreeSet::new(),
            contexts: NamedContexts::default(),
        }
    }
}
