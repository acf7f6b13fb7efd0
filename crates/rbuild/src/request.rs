//! What a build is asked to do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rbuild_image::compress::Encoding;
use rbuild_image::media_type::Family;
use rbuild_plan::{NoCache, Options};
use rbuild_sandbox::Resources;
use rbuild_solver::{Cutoff, Secrets, SshAgents};
use rbuild_types::{CacheTraffic, Platform};

use crate::{
    Annotation, AttestationForm, Attestations, CacheExport, CacheImport, ContextInput,
    NamedContextInput, Packaging, ToldProvenance,
};

/// One build. [`BuildRequest::new`] and the methods that follow cover the common case; the fields
/// are public for the rest.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// Where COPY and ADD take files from.
    pub context: ContextInput,
    /// What stands for stages, images and names of `--from`, by name: `--build-context`.
    ///
    /// A name may end with `::` and a platform, which is then the only one that it holds for.
    pub contexts: BTreeMap<String, NamedContextInput>,
    /// The ignore file of the context; `None` is the one beside the Dockerfile, else the one at the
    /// context's root.
    pub ignore_file: Option<PathBuf>,
    /// Which modes files of directories have; `None` is [`ContextMode::Git`] for a directory that
    /// lies in a git work tree, and [`ContextMode::Plain`] for others.
    pub context_mode: Option<ContextMode>,
    /// The Dockerfile.
    pub dockerfile: DockerfileInput,
    /// Target, build arguments, platform, labels, network, cache.
    pub options: Options,
    /// The network of containers, by name or id, that steps join which would have the default one;
    /// in no key, as nothing is that steps find on a network.
    pub network: Option<String>,
    /// Secrets of `RUN --mount=type=secret`, by id.
    pub secrets: Secrets,
    /// Agents of `RUN --mount=type=ssh`, by id.
    pub ssh: SshAgents,
    /// What each step may use; in no key.
    pub resources: Resources,
    /// How old a result of a process may be that is taken from the cache; an instruction may say
    /// something else of its own, by `# rbuild: ttl=24h` above it.
    pub cache_ttl: Option<Duration>,
    /// When a step that ran has the result of an earlier one, so that what stands on it is found.
    pub cutoff: Cutoff,
    /// Steps that run at once; `None` is twice the number of processors, and four at least.
    pub jobs: Option<usize>,
    /// Names given to the image in the store.
    pub tags: Vec<String>,
    /// What becomes one layer of the image; steps are cached one by one in any case.
    pub packaging: Packaging,
    /// Whether the image gets, besides each of its tags, a name in the store with its digest.
    pub canonical_names: bool,
    /// The repository by which an image without tags is named, with its digest.
    pub dangling_name: Option<String>,
    /// Texts on the image's documents, in the store and in all outputs.
    pub annotations: Vec<Annotation>,
    /// What is made besides. Without any, the image in the store is the output.
    pub outputs: Vec<Export>,
    /// Whether an image that is only pushed is whole in the store too: else layers of its base are
    /// fetched when somebody needs their files.
    pub load: bool,
    /// Whether [`Output::Tar`] and [`Output::Directory`] have a directory for each platform, such
    /// as `linux_arm64`; `None` is where there may be several. Without them, no file may be in the
    /// images of two platforms.
    pub platform_split: Option<bool>,
    /// When base images are asked of their registry.
    pub pull: Pull,
    /// Whether every reference that may move is taken as `rbuild.lock` beside the Dockerfile names
    /// it, and one that is not there is an error. Else that file does not count.
    pub locked: bool,
    /// What is said of the images besides.
    pub attestations: Attestations,
    /// Caches elsewhere to take results from, the first first.
    pub cache_from: Vec<CacheImport>,
    /// Caches elsewhere that results go to.
    pub cache_to: Vec<CacheExport>,
}

/// Which modes the files of a context have that is a directory of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContextMode {
    /// Those that git keeps: 0755 for directories and for what its owner may execute, else 0644;
    /// also for files that git does not track. Every checkout gives the same then.
    Git,
    /// Those that they have.
    Plain,
}

/// Where the Dockerfile is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DockerfileInput {
    /// `Dockerfile` in the context, or `dockerfile`, or `Containerfile`, in this order.
    Default,
    /// A file; in the context when that is an archive.
    Path(PathBuf),
    /// A text, and the name it has in messages.
    Text {
        /// Name in messages.
        name: String,
        /// The text.
        text: String,
    },
}

/// One output, and the form of the layers in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Where it goes.
    pub output: Output,
    /// How layers are written; outputs of files have none.
    pub layers: LayerForm,
    /// What the image is called there; without any, as the build's tags say.
    pub names: Vec<String>,
    /// Annotations there, besides those of the request.
    pub annotations: Vec<Annotation>,
}

impl From<Output> for Export {
    fn from(output: Output) -> Self {
        let (names, annotations) = (Vec::new(), Vec::new());
        Self { output, layers: LayerForm::default(), names, annotations }
    }
}

/// How the layers of an image are written when it leaves the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerForm {
    /// How layers that were made here are compressed. Gzip unless said otherwise.
    pub encoding: Encoding,
    /// Whether layers of base images that are compressed in another way get this one too; else
    /// they stay as they came.
    pub force: bool,
    /// Whose media types manifest, config and layers have. OCI's unless said otherwise.
    pub family: Family,
    /// How attestations are attached, if there are any.
    pub attestations: AttestationForm,
}

impl Default for LayerForm {
    fn default() -> Self {
        Self {
            encoding: Encoding::GZIP,
            force: false,
            family: Family::Oci,
            attestations: AttestationForm::default(),
        }
    }
}

/// Something that a build makes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// A tar of an OCI image layout.
    OciArchive(Destination),
    /// A directory with an OCI image layout; other images in it stay.
    OciLayout(PathBuf),
    /// What `docker load` reads: one image, not an index.
    DockerArchive(Destination),
    /// Nothing: the results of the steps are all that is wanted, and the image's layers need not
    /// be here.
    CacheOnly,
    /// The root filesystem as a tar; of several platforms, each in a directory of its own.
    Tar(Destination),
    /// The root filesystem as files of the caller; of several platforms, each in a directory of
    /// its own.
    Directory(PathBuf),
    /// The same, and what else is in the directory is removed.
    ExactDirectory(PathBuf),
    /// The image in the registries that its names name, under each of them.
    Registry {
        /// Whether those registries may be spoken to in plain HTTP.
        insecure: bool,
        /// Whether only its digest names it there: no tag moves.
        by_digest: bool,
    },
}

/// A file, or the caller's standard output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A file; it appears whole or not at all.
    File(PathBuf),
    /// Standard output.
    Stdout,
}

impl<P: Into<PathBuf>> From<P> for Destination {
    fn from(path: P) -> Self {
        Self::File(path.into())
    }
}

/// When base images are asked of their registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pull {
    /// When the store does not know them.
    #[default]
    Missing,
    /// Always: a tag may have moved.
    Always,
    /// Never: what the store does not know is an error.
    Never,
}

impl BuildRequest {
    /// Builds the directory `context` with the Dockerfile in it.
    pub fn new(context: impl AsRef<Path>) -> Self {
        Self {
            context: ContextInput::Directory(context.as_ref().to_owned()),
            contexts: BTreeMap::new(),
            ignore_file: None,
            context_mode: None,
            dockerfile: DockerfileInput::Default,
            options: Options::default(),
            network: None,
            secrets: Secrets::default(),
            ssh: SshAgents::default(),
            resources: Resources::default(),
            cache_ttl: None,
            cutoff: Cutoff::default(),
            jobs: None,
            tags: Vec::new(),
            packaging: Packaging::default(),
            canonical_names: false,
            dangling_name: None,
            annotations: Vec::new(),
            outputs: Vec::new(),
            load: false,
            platform_split: None,
            pull: Pull::default(),
            locked: false,
            attestations: Attestations::default(),
            cache_from: Vec::new(),
            cache_to: Vec::new(),
        }
    }

    /// Takes this file as the Dockerfile.
    pub fn dockerfile(mut self, path: impl AsRef<Path>) -> Self {
        self.dockerfile = DockerfileInput::Path(path.as_ref().to_owned());
        self
    }

    /// Takes this text as the Dockerfile.
    pub fn dockerfile_text(mut self, text: impl Into<String>) -> Self {
        self.dockerfile =
            DockerfileInput::Text { name: "Dockerfile".to_owned(), text: text.into() };
        self
    }

    /// Lets a name stand for something else than the Dockerfile says.
    pub fn build_context(mut self, name: impl Into<String>, input: NamedContextInput) -> Self {
        self.contexts.insert(name.into(), input);
        self
    }

    /// Builds this stage instead of the last.
    pub fn target(mut self, stage: impl Into<String>) -> Self {
        self.options.target = Some(stage.into());
        self
    }

    /// Gives a value to an `ARG`.
    pub fn arg(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.build_args.insert(name.into(), value.into());
        self
    }

    /// Puts a label on the image.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.labels.insert(name.into(), value.into());
        self
    }

    /// Builds for this platform; said several times, for all of them, as an index of images.
    pub fn platform(mut self, platform: Platform) -> Self {
        self.options.platforms.push(platform);
        self
    }

    /// Runs every step.
    pub fn no_cache(mut self) -> Self {
        self.options.no_cache = NoCache::All;
        self
    }

    /// Names the image.
    pub fn tag(mut self, name: impl Into<String>) -> Self {
        self.tags.push(name.into());
        self
    }

    /// Makes something besides the image in the store.
    pub fn output(mut self, output: impl Into<Export>) -> Self {
        self.outputs.push(output.into());
        self
    }
}

/// What a build made.
#[derive(Debug, Clone, PartialEq)]
pub struct Built {
    /// The image; `None` when only a root filesystem was asked for.
    pub image: Option<BuiltImage>,
    /// Steps whose result was in the cache.
    pub cached: usize,
    /// Steps that ran.
    pub executed: usize,
    /// What caches elsewhere cost and saved, if there were any.
    pub cache_traffic: Option<CacheTraffic>,
    /// Every step in the order of the graph.
    pub steps: Vec<StepSummary>,
    /// How each image was made, if that was asked for.
    pub provenance: Vec<ToldProvenance>,
}

/// An image that was built, or an index of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltImage {
    /// The image id: digest of the config, or of the index.
    pub id: rbuild_types::Digest,
    /// Digest of the config; an index has none.
    pub config_digest: Option<rbuild_types::Digest>,
    /// Digest of the manifest, or of the index, in the store.
    pub manifest_digest: rbuild_types::Digest,
    /// Media type of the manifest or index.
    pub media_type: String,
    /// Bytes of the manifest or index.
    pub manifest_size: u64,
    /// The platform, or those of the images in the index, in their order.
    pub platforms: Vec<Platform>,
    /// Full names.
    pub names: Vec<String>,
    /// The image as the last output has it that is one: with its layers in another form than in
    /// the store, it has another manifest.
    pub exported: Option<ExportedImage>,
}

/// The manifest, or the index, of an image that left the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedImage {
    /// Its digest.
    pub digest: rbuild_types::Digest,
    /// Its media type.
    pub media_type: String,
    /// Its bytes.
    pub size: u64,
    /// What is said of it where it is named.
    pub annotations: BTreeMap<String, String>,
    /// The digest of its config, which is the image id where it is unpacked. That of the store, but
    /// for layers of [`Encoding::Estargz`]. An index has none.
    pub config_digest: Option<rbuild_types::Digest>,
}

/// What became of one step.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct StepSummary {
    /// `[stage i/n] TEXT`.
    pub name: String,
    /// Whether its result was in the cache.
    pub cached: bool,
    /// Why it ran, if it did.
    pub reason: Option<rbuild_types::Reason>,
    /// Milliseconds that it ran.
    pub ms: u64,
}
