//! The embeddable Dockerfile build engine: build, export, run; no daemon.
//!
//! ```no_run
//! use rbuild::{BuildRequest, CancelToken, Attach, Engine, Event, Output, Process};
//!
//! fn main() -> Result<(), rbuild::BuildError> {
//!     // The engine starts this program a second time to run steps in sandboxes.
//!     rbuild::sandbox_main();
//!
//!     let engine = Engine::open("/var/lib/rbuild")?;
//!     let request = BuildRequest::new(".")
//!         .target("release")
//!         .arg("VERSION", "1.2")
//!         .tag("app:latest")
//!         .output(Output::OciArchive("app.tar".into()));
//!
//!     // Clone it into a signal handler or a request guard.
//!     let cancel = CancelToken::default();
//!     let built = engine.build(&request, &|event: &Event| eprintln!("{event:?}"), &cancel)?;
//!     eprintln!("{} steps were cached", built.cached);
//!
//!     let process = Process { argv: vec!["/app".into()], ..Process::default() };
//!     let mut container = engine.create("app-1", "app:latest", process)?;
//!     container.start(Attach::Yes)?;
//!     let status = container.wait(&cancel, &mut |_, _| {})?;
//!     container.delete()?;
//!     std::process::exit(status.code())
//! }
//! ```
//!
//! # What the library leaves alone
//!
//! It prints nothing, reads no environment variable, installs no signal handler and keeps no
//! global state. Calls block; an async host uses its `spawn_blocking`. Events arrive on the thread
//! that called. Steps are started by executing the program once more ([`sandbox_main`]), so
//! nothing is forked from a host with many threads.

#![forbid(unsafe_code)]

mod annotation;
mod assemble;
mod attest;
mod build;
mod cache_mount;
mod cache_store;
mod check;
mod containers;
mod context_input;
mod copy;
mod devices;
mod engine;
mod error;
mod export;
mod front;
mod fsck;
mod history;
mod images;
mod inspect;
mod journal;
mod lint;
mod lock_file;
mod networks;
mod outline;
mod packaging;
mod past;
mod preview;
mod prune;
mod quiet;
mod remote_cache;
mod repro;
mod request;
mod sources;
mod step_network;
mod unused;
mod volume;
mod volumes;

pub use annotation::{Annotation, AnnotationPlace};
pub use attest::manifest::AttestationForm;
pub use attest::{Attestations, Provenance, ProvenanceMode, SlsaVersion, ToldProvenance};
pub use cache_mount::{CacheFile, CacheFileKind, CacheMount, OpenCache, ReadCacheFile};
pub use check::{Checked, Finding, Lines, check};
pub use containers::{
    Attach, CommitRequest, Connection, Container, ContainerChange, ContainerChangeKind,
    ContainerList, ContainerNetwork, ContainerOptions, ContainerProcess, ContainerRecord,
    ContainerUpdate, ContainerUsage, DeviceRequest, Dns, Exec, ExecOptions, ExecStreams, Input,
    Line, Membership, MountRecord, MountedFrom, Privileges, Process, SystemCalls, Tmpfs,
    UnreadableContainer,
};
pub use context_input::{ContextArchive, ContextInput, NamedContextInput, Sniffed};
pub use copy::{CopyOptions, CopyPlace};
pub use engine::{Engine, EngineOptions};
pub use error::BuildError;
pub use export::stored::ImageForm;
pub use fsck::Checkup;
pub use images::{
    HistoryLine, ImageDetails, ImageDocument, ImageManifest, ImagePrune, ImageWords, ListChange,
    LoadSource, LoadedImage, Platforms, PullRequest, PulledImage, PushRequest, PushedImage,
    RemovedImage, SaveRequest,
};
pub use inspect::{
    Aspect, ComparedImage, ContentDifference, Fate, FieldDifference, FileDifference, FileFacts,
    ImageDifference, ImageLayers, InspectedLayer, LayerDifference, LayerName, PathVersion,
};
pub use lock_file::{LockChange, LockError, Locked};
pub use networks::{DEFAULT_NETWORK, NetworkOptions, NetworkRecord};
pub use outline::{Outline, Parameter, Target, Targets, outline, targets};
pub use packaging::Packaging;
pub use past::{
    BuildState, EnterOptions, EnteredStep, PastBuild, PastStep, SHORT_BUILD, Tree, TreeDifference,
};
pub use preview::{Preview, Taken, TakenFile, preview_contexts};
pub use remote_cache::{
    CACHE_TIMEOUT, CacheExport, CacheImport, CacheLocation, CacheMode, CacheMounts, GhaLocation,
    S3Location,
};
pub use repro::{Cause, DEFAULT_EPOCH, Repro, ReproDifference, Round};
pub use request::{
    BuildRequest, Built, BuiltImage, ContextMode, Destination, DockerfileInput, Export,
    ExportedImage, LayerForm, Output, Pull, StepSummary,
};
pub use volume::{Volume, VolumeSource};
pub use volumes::{ANONYMOUS_VOLUME, VolumeRecord};

pub use rbuild_cache::{
    BuildRecord, BuiltStep, Class, Damage, FailedStep, Hold, ImageRecord, Loss, Outcome,
    PruneOptions, Pruned, Row, RowFilter, Space, SpaceLimits, Usage,
};
pub use rbuild_container::network::{Connected, OpenPort, Place};
pub use rbuild_container::{
    ContainerError, Ended, Health, HealthCheck, HealthChecks, HealthStatus, Restart, State, Status,
    Stop, events, logs,
};
pub use rbuild_image::compress::Encoding;
pub use rbuild_image::media_type::Family;
pub use rbuild_plan::op::Network;
pub use rbuild_plan::{Entitlement, ExtraHost, NoCache, Options, Ulimit, duration, ram_in_bytes};
pub use rbuild_registry::{
    BucketOptions, CredentialSource, Forgotten, Kept, Login, LoginStore, Mirror, Proxies,
    RegistriesConf, RegistryOptions, Secret, Serves,
};
pub use rbuild_rooted::FileKind;
pub use rbuild_sandbox::Network as SandboxNetwork;
pub use rbuild_sandbox::{
    Exit, MountSource, ProcessStat, Resources, SandboxError, SharedNamespaces, StartFailure,
};
pub use rbuild_solver::copy::{Decided, Decisions, IgnoredBy, InputKind};
pub use rbuild_solver::{
    Cutoff, InvalidSshKey, SecretKey, Secrets, SshAgents, StepError, StepFailure,
};
pub use rbuild_types::{
    CacheTraffic, CancelToken, Cancelled, ContainerConfig, Ctx, Diagnostic, Digest, Event,
    FileChange, HealthConfig, History, ImageConfig, Label, LineIndex, Platform, Progress, Reason,
    Reference, ReferenceError, Severity, Silent, Span, StepId, Stream, signal_number,
};

/// Becomes what the program was started as, when the engine started it: the helper that runs a
/// step or a container's process, or the supervisor of a container. Otherwise returns at once.
///
/// Call it first thing in `main`, before any thread is started.
pub fn sandbox_main() {
    rbuild_sandbox::sandbox_main();
    rbuild_container::supervisor_main();
}
