//! `rbuild build`: arguments, and their one translation into a [`BuildRequest`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use rbuild::{
    BuildRequest, ContextArchive, ContextInput, ContextMode, Cutoff, Destination, DockerfileInput,
    Entitlement, Export, Family, NamedContextInput, Network, NoCache, Output, Packaging, Platform,
    Pull, Sniffed,
};

use crate::args::call::{Call, Method};
use crate::args::flag_tables::OfBuild;
use crate::args::limits::LimitArgs;
use crate::args::other_flags::OtherFlags;
use crate::args::progress::ProgressMode;
use crate::args::{annotation, attest, limits, output, remote_cache, secret, ssh};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::output::note;

/// Allows `mode=delete` of an output anywhere.
const LOCAL_DELETE: &str = "buildx.local.delete";
/// More than any Dockerfile: what is typed into the wrong command ends here.
const MAX_DOCKERFILE: u64 = 16 << 20;

/// Build an image from a Dockerfile.
#[derive(Debug, Args)]
#[command(
    override_usage = "rbuild [build] [OPTIONS] PATH\n       rbuild [build] [OPTIONS] URL\n       \
                      rbuild [build] [OPTIONS] -"
)]
pub struct BuildArgs {
    /// Directory that COPY and ADD take files from, a git repository (URL.git#REF:DIRECTORY) or
    /// the URL of a tar; `-` reads from standard input: a tar to take files from, or a Dockerfile
    /// that needs none
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Name of the image, `name[:tag]`, whatever name= an output has; may be repeated
    #[arg(short, long, value_name = "NAME")]
    pub tag: Vec<String>,
    /// The Dockerfile; `-` reads it from standard input [default: PATH/Dockerfile]
    #[arg(short, long, value_name = "PATH")]
    pub file: Option<PathBuf>,
    /// What a stage, an image or a name of --from stands for: NAME=DIR, NAME=URL,
    /// NAME=docker-image://IMAGE or NAME=oci-layout://DIR; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub build_context: Vec<String>,
    /// Ignore file of the context [default: the Dockerfile's name with .dockerignore behind it,
    /// else PATH/.dockerignore]
    #[arg(long, value_name = "FILE")]
    pub ignorefile: Option<PathBuf>,
    /// Modes of the files of contexts that are directories: `git` for those that git keeps, 0644
    /// and 0755, or `plain` for their own [default: git in a git work tree, else plain]
    #[arg(long, value_name = "git|plain", hide_possible_values = true)]
    pub context_mode: Option<ModesOfContext>,
    /// Value of an ARG; without `=` taken from the environment; may be repeated
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub build_arg: Vec<String>,
    /// Stage to build instead of the last
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// Run every step
    #[arg(long)]
    pub no_cache: bool,
    /// Run every step of these stages
    #[arg(long, value_name = "STAGE,…", value_delimiter = ',')]
    pub no_cache_filter: Vec<String>,
    /// Label of the image; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub label: Vec<String>,
    /// Text on the image's manifest, or with `index:` and the like in front on another of its
    /// documents; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub annotation: Vec<String>,
    /// Give files that are made no later time than SOURCE_DATE_EPOCH; by default those that
    /// processes make keep theirs
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = super::switch::parse)]
    pub rewrite_timestamp: Option<bool>,
    /// When a step that ran again made what it had made before, so that what follows stays cached:
    /// `bytes`, or `content` where times do not count
    #[arg(
        long,
        value_name = "bytes|content",
        default_value = "bytes",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub early_cutoff: EarlyCutoff,
    /// Platform to build for, such as linux/arm64; several make an index of images
    #[arg(long, value_name = "PLATFORM,…", value_delimiter = ',')]
    pub platform: Vec<String>,
    /// Network of RUN: default (the host's), none, host, or one of `rbuild network`, where steps
    /// find containers by name
    #[arg(long, alias = "net", value_name = "NETWORK", default_value = "default")]
    pub network: String,
    /// What to make besides the image in the store: type=oci|docker|tar|local,dest=PATH, or
    /// type=registry; a bare PATH is a directory, `-` a tar on standard output. Layers of images
    /// take compression=gzip|zstd|uncompressed, compression-level=N and force-compression=true
    #[arg(short, long, value_name = "OUTPUT")]
    pub output: Vec<String>,
    /// Push the image to the registry that each of its names names; the same as -o type=registry
    #[arg(long)]
    pub push: bool,
    /// Cache to take results from: type=registry,ref=NAME, type=local,src=DIR or
    /// type=s3,bucket=NAME,region=REGION; may be repeated
    #[arg(long, value_name = "CACHE")]
    pub cache_from: Vec<String>,
    /// Cache that results go to: type=registry,ref=NAME, type=local,dest=DIR, type=s3 or type=inline; with
    /// mode=max those of all steps, else of the image's; with mounts=ID the cache mount too; may be repeated
    #[arg(long, value_name = "CACHE")]
    pub cache_to: Vec<String>,
    /// With --push, have all layers of the base image in the store too; without it they always are
    #[arg(long, hide = true)]
    pub load: bool,
    /// How to show progress: auto, tty, plain, quiet, none or rawjson [env: BUILDKIT_PROGRESS]
    #[arg(long, value_name = "MODE", hide_possible_values = true)]
    pub progress: Option<ProgressMode>,
    /// Print the image id only
    #[arg(short, long)]
    pub quiet: bool,
    /// What becomes one layer: `each` instruction, `base+1` for one upon the base image, N for so
    /// many at most, or `squash` for everything; the cache has each step in any case
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true,
          default_missing_value = "each", value_parser = packaging)]
    pub layers: Option<Packaging>,
    /// One layer upon the base image; the same as --layers=base+1
    #[arg(long, conflicts_with_all = ["layers", "squash_all"])]
    pub squash: bool,
    /// One layer, base image and all; the same as --layers=squash
    #[arg(long, conflicts_with = "layers")]
    pub squash_all: bool,
    /// Write the image id to this file
    #[arg(long, value_name = "FILE")]
    pub iidfile: Option<PathBuf>,
    /// Write what was built to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    /// What to say of the image besides, attached to it or in files beside its own: type=sbom for a
    /// list of its packages, type=provenance,mode=min|max for how it was made; may be repeated
    #[arg(long, value_name = "ATTESTATION")]
    pub attest: Vec<String>,
    /// The same as --attest=type=sbom
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub sbom: Option<String>,
    /// The same as --attest=type=provenance
    #[arg(long, value_name = "BOOL|mode=…", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub provenance: Option<String>,
    /// When to ask the registry for base images; `--pull` alone is always [default: missing]
    #[arg(
        long,
        value_name = "always|missing|never",
        default_value = "missing",
        default_missing_value = "always",
        num_args = 0..=1,
        require_equals = true,
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub pull: PullPolicy,
    /// Take images, URLs and git references as rbuild.lock beside the Dockerfile names them; what
    /// is not in it, or does not fit, is an error. `rbuild lock` writes it
    #[arg(long)]
    pub locked: bool,
    /// Run processes again whose results are older, such as 24h or 7d; `# rbuild: ttl=24h` above an
    /// instruction says it of that one
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub cache_ttl: Option<Duration>,
    /// Secret of `RUN --mount=type=secret`: id=NAME,src=FILE or id=NAME,env=VARIABLE; with
    /// key=content its value counts for the cache, with key=TEXT that text
    #[arg(long, value_name = "SECRET")]
    pub secret: Vec<String>,
    /// Agent of `RUN --mount=type=ssh`, and for git repositories: default, for that of
    /// SSH_AUTH_SOCK, NAME=SOCKET, or NAME=KEY,… for files with private keys
    #[arg(long, value_name = "default|NAME[=PATH]")]
    pub ssh: Vec<String>,
    /// What a Dockerfile may have besides: network.host, security.insecure, device[=NAME]; may be
    /// repeated
    #[arg(long, value_name = "ENTITLEMENT", value_delimiter = ',')]
    pub allow: Vec<String>,
    /// Name in /etc/hosts of steps: NAME:ADDRESS, where ADDRESS may be `host-gateway`; may be
    /// repeated
    #[arg(long, value_name = "NAME:ADDRESS")]
    pub add_host: Vec<String>,
    /// Limits of steps.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Steps to run at once [default: twice the processors, four at least]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// Say what is wrong with the Dockerfile and run nothing; the same as --call=check
    #[arg(long)]
    pub check: bool,
    /// What to do instead of building: check, outline, targets (also with `,format=json`) or dot,
    /// which prints the graph of the build
    #[arg(long, value_name = "METHOD", default_value = "build", hide_default_value = true)]
    pub call: String,
    /// Flags of Docker that are not here.
    #[command(flatten)]
    pub other: OtherFlags<OfBuild>,
}

/// `true` and `false` are podman's, whose `false` makes one layer upon the base.
fn packaging(text: &str) -> Result<Packaging, String> {
    match (text, text.parse::<usize>()) {
        (_, Ok(most)) if most > 0 => Ok(Packaging::AtMost(most)),
        ("each" | "true", _) => Ok(Packaging::Each),
        ("base+1" | "false", _) => Ok(Packaging::AtMost(1)),
        ("squash", _) => Ok(Packaging::One),
        _ => Err("expected each, base+1, a number of layers, or squash".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    rbuild::duration(text).ok_or_else(|| "it is no duration, such as 90s, 24h or 7d".to_owned())
}

/// `--context-mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModesOfContext {
    /// Those that git keeps
    Git,
    /// Their own
    Plain,
}

/// `--early-cutoff`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EarlyCutoff {
    /// All that a layer holds
    Bytes,
    /// All but times
    Content,
}

/// `--pull`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PullPolicy {
    /// Always
    #[value(aliases = super::switch::TRUE)]
    Always,
    /// When the store has none
    #[value(aliases = super::switch::FALSE)]
    Missing,
    /// Never
    Never,
}

impl From<PullPolicy> for Pull {
    fn from(policy: PullPolicy) -> Self {
        match policy {
            PullPolicy::Always => Self::Always,
            PullPolicy::Missing => Self::Missing,
            PullPolicy::Never => Self::Never,
        }
    }
}

impl BuildArgs {
    /// What is done with the Dockerfile.
    pub fn call(&self) -> Result<Call, Failure> {
        let call = Call::parse(&self.call, self.check)?;
        if self.locked && !matches!(call.method, Method::Build | Method::Dot) {
            let message = "--locked is for builds: a check asks no server";
            return Err(Failure::usage(message));
        }
        Ok(call)
    }

    /// The arguments as the engine wants them. Reads standard input and the files of secrets.
    pub fn request(&self, environment: &Environment) -> Result<BuildRequest, Failure> {
        self.other.settle()?;
        let (context, dockerfile) = self.inputs()?;
        let mut request = BuildRequest::new(".");
        request.context = context;
        request.dockerfile = dockerfile;
        request.contexts = named_contexts(&self.build_context)?;
        if request.context == ContextInput::None && self.ignorefile.is_some() {
            let message = "there is no context that --ignorefile could hold for";
            return Err(Failure::usage(message));
        }
        request.ignore_file.clone_from(&self.ignorefile);
        request.context_mode = self.context_mode(&request)?;
        let options = &mut request.options;
        options.target.clone_from(&self.target);
        options.platforms = platforms(&self.platform)?;
        let (mode, network) = network(&self.network)?;
        options.network = mode;
        request.network = network;
        options.no_cache = match (self.no_cache, self.no_cache_filter.is_empty()) {
            (true, _) => NoCache::All,
            (false, true) => NoCache::Off,
            (false, false) => NoCache::Stages(self.no_cache_filter.clone()),
        };
        for text in self.allow.iter().filter(|text| *text != LOCAL_DELETE) {
            let entitlement = text.parse::<Entitlement>();
            let entitlement =
                entitlement.map_err(|error| Failure::usage(format!("--allow: {error}")))?;
            options.allow.insert(entitlement);
        }
        options.extra_hosts = limits::all("--add-host", &self.add_host)?;
        options.ulimits = self.limits.ulimits()?;
        options.shm_size = self.limits.shm_size()?;
        for label in &self.label {
            let (name, value) = label.split_once('=').unwrap_or((label, ""));
            options.labels.insert(name.to_owned(), value.to_owned());
        }
        options.build_args = all_arguments(&self.build_arg, environment)?;
        request.secrets = secret::read(&self.secret, environment)?;
        request.ssh = ssh::of_request(&self.ssh, &request, environment)?;
        request.resources = self.limits.resources()?;
        request.jobs = self.jobs.map(usize::from);
        request.cache_ttl = self.cache_ttl;
        request.options.rewrite_timestamps = self.rewrite_timestamp;
        request.cutoff = match self.early_cutoff {
            EarlyCutoff::Bytes => Cutoff::Bytes,
            EarlyCutoff::Content => Cutoff::Content,
        };
        request.pull = self.pull.into();
        request.locked = self.locked;
        request.tags.clone_from(&self.tag);
        request.packaging = match (self.squash, self.squash_all) {
            (true, _) => Packaging::AtMost(1),
            (_, true) => Packaging::One,
            _ => self.layers.unwrap_or_default(),
        };
        for text in &self.annotation {
            request.annotations.extend(annotation::parse(text)?);
        }
        for text in &self.output {
            let mut wanted = output::parse(text)?;
            // As in buildx, where names of outputs count only beside no other.
            if self.tag.is_empty() {
                request.tags.extend(wanted.names);
            } else {
                let own = wanted.output.as_mut().map(|output| std::mem::take(&mut output.names));
                let names = own.unwrap_or(wanted.names).join(",");
                if !names.is_empty() {
                    let why = "because --tag names the image";
                    note(&format!("--output: name={names} is not used, {why}"));
                }
            }
            if let Some(Output::ExactDirectory(path)) = wanted.output.as_ref().map(|it| &it.output)
            {
                self.may_delete(path)?;
            }
            request.outputs.extend(wanted.output);
            request.annotations.extend(wanted.annotations);
            request.canonical_names |= wanted.store.canonical;
            request.dangling_name = wanted.store.dangling.or(request.dangling_name);
            let clamps = &mut request.options.rewrite_timestamps;
            *clamps = (*clamps).or(wanted.rewrite_timestamp);
            if let Some(split) = wanted.platform_split {
                let before = request.platform_split.replace(split);
                if before.is_some_and(|before| before != split) {
                    let message = "--output: platform-split has to be the same for all outputs";
                    return Err(Failure::usage(message));
                }
            }
        }
        for output in &mut request.outputs {
            let says = !output.annotations.is_empty() || !request.annotations.is_empty();
            if says && output.layers.family == Family::Docker {
                note(
                    "oci-mediatypes=false: Docker's documents have no annotations, so OCI's are used",
                );
                output.layers.family = Family::Oci;
            }
        }
        let is_push = |wanted: &Export| matches!(wanted.output, Output::Registry { .. });
        if self.push && !request.outputs.iter().any(is_push) {
            request.outputs.push(Output::Registry { insecure: false, by_digest: false }.into());
        }
        for text in &self.cache_from {
            request.cache_from.push(remote_cache::from(text, environment)?);
        }
        for text in &self.cache_to {
            request.cache_to.push(remote_cache::to(text, environment)?);
        }
        request.attestations = attest::parse(&self.attest, &self.sbom, &self.provenance)?;
        request.attestations.without_vcs = environment.without_git_info();
        if self.metadata_file.is_some() {
            request.attestations.told = environment.metadata_provenance();
        }
        request.load = self.load;
        one_reader_of_stdout(&request.outputs, self.quiet)?;
        Ok(request)
    }

    /// Files outside of the current directory are removed only if that was allowed (buildx).
    fn may_delete(&self, path: &Path) -> Result<(), Failure> {
        let here = std::env::current_dir().map_err(Failure::io("find the current directory"))?;
        let path = std::path::absolute(path).map_err(Failure::io("find the output"))?;
        let goes_up = path.components().any(|part| part == std::path::Component::ParentDir);
        let real = fs_err::canonicalize(&path).unwrap_or_else(|_| path.clone());
        let is_inside = !goes_up && real.starts_with(&here) && real != here;
        if is_inside || self.allow.iter().any(|text| text == LOCAL_DELETE) {
            return Ok(());
        }
        Err(Failure::usage_hint(
            format!(
                "--output: mode=delete removes files of {}, which is not below the current \
                     directory",
                path.display()
            ),
            format!("allow that with --allow {LOCAL_DELETE}"),
        ))
    }

    fn context_mode(&self, request: &BuildRequest) -> Result<Option<ContextMode>, Failure> {
        let Some(mode) = self.context_mode else { return Ok(None) };
        let is_directory =
            |named: &NamedContextInput| matches!(named, NamedContextInput::Directory(_));
        let named = request.contexts.values().any(is_directory);
        if !named && !matches!(request.context, ContextInput::Directory(_)) {
            let message = "there is no directory whose files --context-mode could hold for";
            return Err(Failure::usage(message));
        }
        Ok(Some(match mode {
            ModesOfContext::Git => ContextMode::Git,
            ModesOfContext::Plain => ContextMode::Plain,
        }))
    }

    /// Context and Dockerfile. Only one of them can be standard input.
    fn inputs(&self) -> Result<(ContextInput, DockerfileInput), Failure> {
        let is_stdin = |path: &Path| path == Path::new("-");
        if is_stdin(&self.path) {
            return self.inputs_on_stdin();
        }
        let context = context_of(&self.path);
        if !matches!(context, ContextInput::Directory(_)) {
            return Ok((context, self.dockerfile()?));
        }
        if !self.path.exists() {
            let path = self.path.display();
            return Err(Failure::usage(format!("the context {path} does not exist")));
        }
        let metadata = fs_err::metadata(&self.path).map_err(Failure::io("open the context"))?;
        if !metadata.is_dir() {
            let path = self.path.display();
            return Err(Failure::usage_hint(
                format!("the context {path} is not a directory"),
                format!("to build that Dockerfile: `rbuild -f {path} DIR`"),
            ));
        }
        Ok((context, self.dockerfile()?))
    }

    fn dockerfile(&self) -> Result<DockerfileInput, Failure> {
        match &self.file {
            None => Ok(DockerfileInput::Default),
            Some(path) if path == Path::new("-") => match sniff_stdin()? {
                Sniffed::Bytes(bytes) => dockerfile_of(bytes),
                Sniffed::Archive(_) => Err(Failure::usage_hint(
                    "the Dockerfile that came on standard input is an archive",
                    "for a context on standard input: `rbuild - < context.tar`",
                )),
            },
            Some(path) => Ok(DockerfileInput::Path(path.clone())),
        }
    }

    /// A tar is a context with the Dockerfile in it, anything else a Dockerfile without context.
    fn inputs_on_stdin(&self) -> Result<(ContextInput, DockerfileInput), Failure> {
        match (sniff_stdin()?, &self.file) {
            (Sniffed::Archive(_), Some(file)) if file == Path::new("-") => {
                Err(Failure::usage("context and Dockerfile cannot both come on standard input"))
            }
            (Sniffed::Archive(archive), file) => {
                let dockerfile =
                    file.clone().map_or(DockerfileInput::Default, DockerfileInput::Path);
                Ok((ContextInput::Archive(archive), dockerfile))
            }
            (Sniffed::Bytes(_), Some(_)) => Err(Failure::usage_hint(
                "PATH `-` reads the Dockerfile from standard input, so --file has no place",
                "for a context and a Dockerfile on standard input: `rbuild -f - DIR`",
            )),
            (Sniffed::Bytes(bytes), None) => Ok((ContextInput::None, dockerfile_of(bytes)?)),
        }
    }
}

/// What PATH means; a directory is one whatever its name.
pub(super) fn context_of(path: &Path) -> ContextInput {
    match path.is_dir() {
        true => ContextInput::Directory(path.to_owned()),
        false => ContextInput::of(&path.to_string_lossy()),
    }
}

/// The values of `--build-arg`.
pub(super) fn arguments(
    list: &[String],
    environment: &Environment,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut arguments = BTreeMap::new();
    for argument in list {
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (argument.as_str(), environment.get(argument)),
        };
        if name.is_empty() {
            return Err(Failure::usage(format!("--build-arg {argument}: no name")));
        }
        if let Some(value) = value {
            arguments.insert(name.to_owned(), value.to_owned());
        }
    }
    Ok(arguments)
}

/// The same with what the environment gives every build.
pub(super) fn all_arguments(
    list: &[String],
    environment: &Environment,
) -> Result<BTreeMap<String, String>, Failure> {
    let epoch = environment.source_date_epoch();
    let epoch = epoch.map(|epoch| ("SOURCE_DATE_EPOCH".to_owned(), epoch.to_owned()));
    Ok(epoch.into_iter().chain(arguments(list, environment)?).collect())
}

/// The values of `--platform`.
pub(super) fn platforms(list: &[String]) -> Result<Vec<Platform>, Failure> {
    list.iter().map(|text| platform(text)).collect()
}

/// The values of `--build-context`.
pub(super) fn named_contexts(
    list: &[String],
) -> Result<BTreeMap<String, NamedContextInput>, Failure> {
    list.iter().map(|text| named_context(text)).collect()
}

fn named_context(text: &str) -> Result<(String, NamedContextInput), Failure> {
    let Some((name, value)) = text.split_once('=') else {
        let message = format!("invalid context value: {text}, expected NAME=VALUE");
        return Err(Failure::usage(message));
    };
    let context = NamedContextInput::parse(value)
        .map_err(|error| Failure::usage(format!("--build-context {name}: {error}")))?;
    if let NamedContextInput::Directory(path) = &context
        && !path.is_dir()
    {
        let message = match path.exists() {
            true => format!("the build context {name} is not a directory: {value}"),
            false => format!("the build context {name} does not exist: {value}"),
        };
        return Err(Failure::usage_hint(message, "an image is docker-image://NAME"));
    }
    Ok((name.to_owned(), context))
}

fn sniff_stdin() -> Result<Sniffed, Failure> {
    ContextArchive::sniff(std::io::stdin(), MAX_DOCKERFILE)
        .map_err(Failure::io("read standard input"))
}

fn dockerfile_of(bytes: Vec<u8>) -> Result<DockerfileInput, Failure> {
    if bytes.len() as u64 > MAX_DOCKERFILE {
        return Err(Failure::usage("what came on standard input is too long for a Dockerfile"));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::usage("what came on standard input is not UTF-8 text"))?;
    Ok(DockerfileInput::Text { name: "Dockerfile".to_owned(), text })
}

fn platform(text: &str) -> Result<Platform, Failure> {
    text.trim().parse().map_err(|error| Failure::usage(format!("--platform: {error}")))
}

/// The network of steps that do not say which, and the network of containers that stands for the
/// default one.
fn network(text: &str) -> Result<(Network, Option<String>), Failure> {
    match text {
        "default" | "" => Ok((Network::Default, None)),
        "none" => Ok((Network::None, None)),
        "host" => Ok((Network::Host, None)),
        other if other.starts_with("container:") => {
            Err(Failure::usage(format!("--network {other} is not supported yet")))
        }
        name => Ok((Network::Default, Some(name.to_owned()))),
    }
}

/// Two archives in one stream are none, and an archive on the screen is a mistake.
fn one_reader_of_stdout(outputs: &[Export], quiet: bool) -> Result<(), Failure> {
    use std::io::IsTerminal as _;
    let to_stdout = outputs.iter().filter(|wanted| {
        matches!(
            wanted.output,
            Output::OciArchive(Destination::Stdout)
                | Output::DockerArchive(Destination::Stdout)
                | Output::Tar(Destination::Stdout)
        )
    });
    match to_stdout.count() + usize::from(quiet) {
        2.. if quiet => Err(Failure::usage("--quiet and an output both want standard output")),
        2.. => Err(Failure::usage("several outputs want standard output")),
        1 if !quiet && std::io::stdout().is_terminal() => Err(Failure::usage_hint(
            "an archive is not written to a terminal",
            "redirect standard output, or give dest=FILE",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, FromArgMatches as _, Parser};

    use rbuild::ProvenanceMode;

    use super::*;
    use crate::args::switch;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        build: BuildArgs,
    }

    fn request(line: &str, variables: &[(&str, &str)]) -> Result<BuildRequest, Failure> {
        let words = std::iter::once("build").chain(line.split_whitespace());
        let line = switch::with_values(Line::command())
            .try_get_matches_from(words)
            .and_then(|matches| Line::from_arg_matches(&matches))
            .map_err(|error| Failure::usage(error.to_string()))?;
        line.build.request(&Environment::of(variables))
    }

    #[test]
    fn build_arguments_come_from_the_line_and_the_environment() {
        let variables = [("SET", "s"), ("SOURCE_DATE_EPOCH", "7"), ("HTTP_PROXY", "p")];
        let line = "--build-arg A=1=2 --build-arg SET --build-arg UNSET .";
        let args = request(line, &variables).unwrap().options.build_args;
        let expected = [("A", "1=2"), ("SET", "s"), ("SOURCE_DATE_EPOCH", "7")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(args.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn names_of_outputs_count_without_tags_only() {
        let tags = |line: &str| request(line, &[]).unwrap().tags;
        let output = "-o type=registry,name=localhost:5000/other -o type=oci,dest=a.tar";
        assert_eq!(tags(&format!("{output} .")), ["localhost:5000/other"]);
        assert_eq!(tags(&format!("-t one -t two {output} .")), ["one", "two"]);
    }

    #[test]
    fn pull_is_a_switch_and_a_choice() {
        assert_eq!(request(".", &[]).unwrap().pull, Pull::Missing);
        assert_eq!(request("--pull .", &[]).unwrap().pull, Pull::Always);
        assert_eq!(request("--pull=never .", &[]).unwrap().pull, Pull::Never);
        assert_eq!(request("--pull=false .", &[]).unwrap().pull, Pull::Missing);
        assert_eq!(request("--pull=1 .", &[]).unwrap().pull, Pull::Always);
        assert!(request("--pull=maybe .", &[]).is_err());
    }

    #[test]
    fn no_cache_is_on_or_off() {
        let no_cache = |line: &str| request(line, &[]).unwrap().options.no_cache;
        assert_eq!(no_cache("--no-cache ."), NoCache::All);
        assert_eq!(no_cache("--no-cache=true ."), NoCache::All);
        assert_eq!(no_cache("--no-cache=false ."), NoCache::Off);
        assert_eq!(no_cache("--no-cache --no-cache=f ."), NoCache::Off);
    }

    #[test]
    fn contexts_have_a_name_and_a_value() {
        let contexts = |line: &str| request(line, &[]).unwrap().contexts;
        let line = "--build-context a=. --build-context b=docker-image://c:1 .";
        let expected = [
            ("a".to_owned(), NamedContextInput::Directory(".".into())),
            ("b".to_owned(), NamedContextInput::Image("c:1".to_owned())),
        ];
        assert_eq!(contexts(line).into_iter().collect::<Vec<_>>(), expected);
        for (line, text) in [
            ("--build-context a .", "expected NAME=VALUE"),
            ("--build-context a=/nowhere/at/all .", "does not exist"),
            ("--build-context a=ftp://x .", "ftp://"),
        ] {
            match request(line, &[]) {
                Err(Failure::Usage { message, .. }) => assert!(message.contains(text), "{message}"),
                other => panic!("{line}: {other:?}"),
            }
        }
        for git in ["https://example.com/x.git#main", "github.com/o/r"] {
            let context = request(git, &[]).unwrap().context;
            assert_eq!(context, ContextInput::Git(git.to_owned()));
        }
    }

    #[test]
    fn platforms_come_in_lists() {
        let line = "--platform linux/amd64,linux/arm --platform linux/s390x \
                    -o type=local,dest=d,platform-split=false .";
        let request = request(line, &[]).unwrap();
        let shown: Vec<_> = request.options.platforms.iter().map(Platform::to_string).collect();
        assert_eq!(shown, ["linux/amd64", "linux/arm/v7", "linux/s390x"]);
        assert_eq!(request.platform_split, Some(false));
    }

    #[test]
    fn a_context_on_an_ssh_server_gets_the_caller_s_agent() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent");
        let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let variables = [("SSH_AUTH_SOCK", socket.to_str().unwrap())];
        let agents =
            |line: &str, variables: &[_]| format!("{:?}", request(line, variables).unwrap().ssh);
        for context in ["git@h:x", "ssh://git@h/x#main"] {
            assert!(agents(context, &variables).contains("\"default\""), "{context}");
        }
        let none = agents(".", &variables);
        assert!(!none.contains("default"));
        assert_eq!(agents("https://h/x.git", &variables), none);
        assert_eq!(agents("git@h:x", &[]), none);
    }

    #[test]
    fn a_metadata_file_tells_as_much_as_the_environment_says() {
        let told = |line: &str, mode: &str| {
            let variables = [("BUILDX_METADATA_PROVENANCE", mode)];
            request(line, &variables).unwrap().attestations.told
        };
        assert_eq!(told(".", "max"), None);
        let line = "--metadata-file f .";
        assert_eq!(told(line, "max"), Some(ProvenanceMode::Max));
        assert_eq!(told(line, ""), Some(ProvenanceMode::Min));
        assert_eq!((told(line, "disabled"), told(line, "0")), (None, None));
    }

    #[test]
    fn the_environment_can_leave_git_out() {
        let is_left_out = |value: &str| {
            request(".", &[("BUILDX_GIT_INFO", value)]).unwrap().attestations.without_vcs
        };
        assert!(is_left_out("false") && is_left_out("0"));
        assert!(!is_left_out("true") && !is_left_out(""));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let refused = |line: &str| match request(line, &[]) {
            Err(Failure::Usage { message, .. }) => message,
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!(refused("--stream ."), "--stream is not supported yet".to_owned());
        assert!(refused("--network container:a .").contains("not supported yet"));
        let network = |line: &str| request(line, &[]).unwrap().network;
        assert_eq!(network("--network mynet ."), Some("mynet".to_owned()));
        assert_eq!(network("--network host ."), None);
        assert!(refused("-o type=oci -q .").contains("standard output"));
        assert!(request("--provenance=false --sbom=false --load --rm --force-rm .", &[]).is_ok());
    }
}
