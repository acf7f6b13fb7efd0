//! The engine: a store, a pool and a registry client behind one handle.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use rbuild_cache::{SpaceLimits, Store};
use rbuild_container::Supervisor;
use rbuild_registry::{Registry, RegistryOptions};
use rbuild_sandbox::linux::binfmt::{self, Emulators};
use rbuild_types::{Reference, ReferenceError};

use crate::BuildError;
use crate::quiet::QuietPool;

/// Where the Container Device Interface has its files: those of the administrator, then those
/// that programs make anew after each start of the machine.
const CDI_DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// How an engine is set up.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Directory of the store; made when it is missing.
    pub root: PathBuf,
    /// Program that runs steps: `None` is the running program, which must then call
    /// [`crate::sandbox_main`]; otherwise an rbuild binary.
    pub helper: Option<PathBuf>,
    /// How large the store may be: whatever a build makes is preceded and followed by a prune of
    /// what is too much. What running builds and images with a name use stays. Cache mounts and
    /// images without a name count as cache.
    pub limits: SpaceLimits,
    /// How registries are reached.
    pub registry: RegistryOptions,
    /// Whether nothing is asked of any server: what lies elsewhere is what it was when it was asked
    /// last, and what the store does not have is [`BuildError::Offline`]. Steps have the network
    /// that their options say.
    pub offline: bool,
    /// What steps and containers see as `/etc/resolv.conf`; `None` is the host's file.
    pub resolv_conf: Option<String>,
    /// Where the kernel lists what runs the programs of other processors.
    pub binfmt_misc: PathBuf,
    /// Directories with files of the Container Device Interface, for `RUN --device`; later ones
    /// count more.
    pub cdi_directories: Vec<PathBuf>,
    /// Whether a container is to be made and started at once: what looks after it is then started
    /// while the store is opened, and ready sooner.
    pub starts_container: bool,
}

impl EngineOptions {
    /// The defaults, with the store in `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            helper: None,
            limits: SpaceLimits::default(),
            registry: RegistryOptions::default(),
            offline: false,
            resolv_conf: None,
            binfmt_misc: binfmt::DIRECTORY.into(),
            cdi_directories: CDI_DIRECTORIES.map(PathBuf::from).into(),
            starts_container: false,
        }
    }
}

/// Builds images and runs containers from them. Share it by reference between threads; several
/// engines, also of several processes, may use one store at once.
#[derive(Debug)]
pub struct Engine {
    pub(crate) store: Store,
    pub(crate) options: EngineOptions,
    /// Made with first use, as the pool is: listing images needs neither.
    registry: OnceLock<Registry>,
    pool: OnceLock<rayon::ThreadPool>,
    quiet_pool: OnceLock<QuietPool>,
    /// For the next container.
    supervisor: Mutex<Option<Supervisor>>,
}

impl Engine {
    /// Opens the store in `root`, making it when it is missing.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, BuildError> {
        Self::with_options(EngineOptions::new(root.as_ref()))
    }

    /// Opens an engine with all choices made.
    ///
    /// # Errors
    ///
    /// When the store cannot be opened, and when this process was started as a sandbox helper and
    /// did not call [`crate::sandbox_main`]: it would start itself for ever.
    pub fn with_options(options: EngineOptions) -> Result<Self, BuildError> {
        let ours = [rbuild_sandbox::HELPER_NAME, rbuild_container::SUPERVISOR_NAME];
        if std::env::args_os().next().is_some_and(|name| ours.iter().any(|ours| name == *ours)) {
            return Err(rbuild_sandbox::SandboxError::NoAnswer {
                helper: rbuild_solver::this_program().display().to_string(),
            }
            .into());
        }
        let program = options.helper.clone().unwrap_or_else(rbuild_solver::this_program);
        let supervisor =
            options.starts_container.then(|| Supervisor::start(&program)).transpose()?;
        let store = Store::open(&options.root)?;
        store.limit(options.limits);
        if !store.is_read_only() {
            crate::containers::directory::sweep_unless_busy(store.root());
            crate::networks::sweep(&store);
        }
        let engine = Self::of(store, options);
        *engine.supervisor.lock().unwrap_or_else(PoisonError::into_inner) = supervisor;
        Ok(engine)
    }

    /// Opens an engine whose store is only looked at: nothing in it changes, and it is not made
    /// when it is missing.
    pub fn read_only(options: EngineOptions) -> Result<Self, BuildError> {
        let store = Store::open_read_only(&options.root)?;
        Ok(Self::of(store, options))
    }

    fn of(store: Store, options: EngineOptions) -> Self {
        let (registry, pool, quiet_pool) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self { store, options, registry, pool, quiet_pool, supervisor: Mutex::default() }
    }

    /// One that was started for the next container.
    pub(crate) fn supervisor(&self) -> Option<Supervisor> {
        self.supervisor.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What a name stands for that people wrote, be it to get an image or to name one: short ones may
    /// be aliases of the machine's files.
    pub fn reference(&self, name: &str) -> Result<Reference, ReferenceError> {
        self.options.registry.registries.reference(name)
    }

    /// The way to all servers; nothing else opens a connection. `missing` says what is not there
    /// without them: `x is not in the store`.
    pub(crate) fn registry(
        &self,
        missing: impl FnOnce() -> String,
    ) -> Result<&Registry, BuildError> {
        if self.options.offline {
            return Err(BuildError::Offline { missing: missing() });
        }
        if let Some(registry) = self.registry.get() {
            return Ok(registry);
        }
        let made = Registry::new(self.options.registry.clone())?;
        Ok(self.registry.get_or_init(|| made))
    }

    /// The pool for hashing, walking, packing and compressing. It is the engine's own: the global
    /// one belongs to the host.
    pub(crate) fn pool(&self) -> Result<&rayon::ThreadPool, BuildError> {
        if let Some(pool) = self.pool.get() {
            return Ok(pool);
        }
        let made = rayon::ThreadPoolBuilder::new()
            .thread_name(|number| format!("rbuild-pool-{number}"))
            .build()
            .map_err(|error| BuildError::Io {
                what: "start the thread pool".to_owned(),
                source: std::io::Error::other(error),
            })?;
        Ok(self.pool.get_or_init(|| made))
    }

    /// The pool for work that is done ahead of time while steps run.
    pub(crate) fn quiet_pool(&self) -> Result<&QuietPool, BuildError> {
        if let Some(pool) = self.quiet_pool.get() {
            return Ok(pool);
        }
        let made = QuietPool::new()?;
        Ok(self.quiet_pool.get_or_init(|| made))
    }

    /// What lies under the layers of a root filesystem.
    pub(crate) fn empty_directory(&self) -> Result<PathBuf, BuildError> {
        rbuild_solver::nothing(&self.store)
            .map_err(|source| BuildError::Io { what: "prepare the store".to_owned(), source })
    }

    pub(crate) fn helper(&self) -> PathBuf {
        self.options.helper.clone().unwrap_or_else(rbuild_solver::this_program)
    }

    /// What runs the programs of other processors now: it may be installed at any time.
    pub(crate) fn emulators(&self) -> Emulators {
        Emulators::read(&self.options.binfmt_misc)
    }

    /// What processes see as `/etc/resolv.conf`.
    pub(crate) fn resolv_conf(&self) -> String {
        match &self.options.resolv_conf {
            Some(text) => text.clone(),
            // A host without one resolves nothing, and neither do its steps.
            None => fs_err::read_to_string("/etc/resolv.conf").unwrap_or_default(),
        }
    }
}

/// A random name of 64 hex digits.
pub(crate) fn random_id() -> Result<String, BuildError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| BuildError::Io {
        what: "ask the kernel for random bytes".to_owned(),
        source: std::io::Error::other(error.to_string()),
    })?;
    Ok(hex::encode(bytes))
}
