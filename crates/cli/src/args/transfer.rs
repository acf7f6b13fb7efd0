//! Arguments of the commands that bring images in and out: `push`, `pull`, `save`, `load`.

use std::path::PathBuf;

use clap::Args;
use rbuild::{
    Destination, Encoding, Family, ImageForm, Output, Platform, Platforms, PullRequest,
    PushRequest, Reference, RegistriesConf, SaveRequest,
};

use crate::args::flag_tables::{OfLoad, OfPull, OfPush, OfSave};
use crate::args::other_flags::OtherFlags;
use crate::args::output;
use crate::failure::Failure;

/// Push images to a registry.
#[derive(Debug, Args)]
pub struct PushArgs {
    /// A name in the store, which says where to; or an id
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// The name that it gets at the registry, if that is another
    #[arg(value_name = "DESTINATION")]
    pub destination: Option<String>,
    /// All tags of the repository
    #[arg(short, long, conflicts_with = "destination")]
    pub all_tags: bool,
    /// Of an index, only the image for this platform
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<String>,
    /// Print nothing but the name that was pushed
    #[arg(short, long)]
    pub quiet: bool,
    /// How layers are written.
    #[command(flatten)]
    pub form: FormArgs,
    /// Write the digest of what was pushed to this file
    #[arg(long, value_name = "FILE", conflicts_with = "all_tags")]
    pub digestfile: Option<PathBuf>,
    /// Flags of Docker that are not here.
    #[command(flatten)]
    pub other: OtherFlags<OfPush>,
}

/// Pull images from a registry.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// Names, with a tag or digest
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    /// All tags of the repository
    #[arg(short, long)]
    pub all_tags: bool,
    /// Of an index, the image for this platform
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<String>,
    /// The index with all its images and attestations, as the registry has it
    #[arg(long, conflicts_with = "platform")]
    pub all_platforms: bool,
    /// Print nothing but the names that were pulled
    #[arg(short, long)]
    pub quiet: bool,
    /// Flags of Docker that are not here.
    #[command(flatten)]
    pub other: OtherFlags<OfPull>,
}

/// Write images to an archive.
#[derive(Debug, Args)]
pub struct SaveArgs {
    /// Names or ids; a name without a tag stands for all its tags
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,
    /// The file, or directory; standard output without it
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// `docker-archive` for `docker load`; `oci-archive`, or `oci-dir` for a layout
    #[arg(long, value_name = "FORMAT", default_value = "docker-archive")]
    pub format: String,
    /// Of an index, only the image for this platform
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<String>,
    /// Accepted for podman's sake: there may be several images in any case
    #[arg(short, long, hide = true)]
    pub multi_image_archive: bool,
    /// No progress
    #[arg(short, long)]
    pub quiet: bool,
    /// How layers are written.
    #[command(flatten)]
    pub form: FormArgs,
    /// Flags of Docker that are not here.
    #[command(flatten)]
    pub other: OtherFlags<OfSave>,
}

/// Load images from an archive or a layout.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// What to read: an archive of docker, podman, skopeo or BuildKit, compressed or not, or a
    /// directory; standard input without it
    #[arg(value_name = "PATH", conflicts_with = "input")]
    pub path: Option<PathBuf>,
    /// The same, in Docker's spelling
    #[arg(short, long, value_name = "PATH")]
    pub input: Option<PathBuf>,
    /// Only images for this platform; of an index, the one for it
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<String>,
    /// Print nothing but the names, or ids, that were loaded
    #[arg(short, long)]
    pub quiet: bool,
    /// Flags of Docker that are not here.
    #[command(flatten)]
    pub other: OtherFlags<OfLoad>,
}

/// How an image is written when it leaves.
#[derive(Debug, Args)]
pub struct FormArgs {
    /// How layers are compressed that are not: `gzip`, `estargz`, `zstd` or `uncompressed`
    #[arg(long, value_name = "CODEC", alias = "compression-format")]
    pub compression: Option<String>,
    /// From 0 to 9 for gzip and estargz, to 22 for zstd
    #[arg(long, value_name = "LEVEL")]
    pub compression_level: Option<String>,
    /// Compress all other layers anew too
    #[arg(long)]
    pub force_compression: bool,
    /// Whose media types the documents have: as they are, or `false` for Docker's and `true` for
    /// OCI's
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true)]
    pub oci_mediatypes: Option<bool>,
}

impl FormArgs {
    /// Nothing where nothing was said; `usual` is what is not compressed otherwise.
    fn form(&self) -> Result<Option<ImageForm>, Failure> {
        let said = self.compression.is_some()
            || self.compression_level.is_some()
            || self.force_compression
            || self.oci_mediatypes.is_some();
        if !said {
            return Ok(None);
        }
        let (codec, level) = (self.compression.as_deref(), self.compression_level.as_deref());
        let encoding =
            output::encoding(codec, level).map_err(|why| Failure::usage(format!("--{why}")))?;
        let family = self.oci_mediatypes.map(|oci| if oci { Family::Oci } else { Family::Docker });
        if family == Some(Family::Docker) {
            output::estargz_is_ocis(encoding).map_err(|why| Failure::usage(format!("--{why}")))?;
        }
        if family == Some(Family::Docker) && matches!(encoding, Encoding::Zstd { .. }) {
            return Err(Failure::usage(
                "--oci-mediatypes=false: Docker has no name for layers of zstd",
            ));
        }
        Ok(Some(ImageForm { encoding, force: self.force_compression, family }))
    }
}

impl PushArgs {
    /// What the engine is asked.
    pub fn request(&self, registries: &RegistriesConf) -> Result<PushRequest, Failure> {
        self.other.settle()?;
        let destination = self.destination.as_deref();
        let destination = destination.map(|text| destination_of(text, registries)).transpose()?;
        Ok(PushRequest {
            image: self.image.clone(),
            destination,
            all_tags: self.all_tags,
            platform: platform(self.platform.as_deref())?,
            form: self.form.form()?.unwrap_or_default(),
            insecure: false,
        })
    }
}

impl PullArgs {
    /// What the engine is asked, name by name.
    pub fn requests(&self, registries: &RegistriesConf) -> Result<Vec<PullRequest>, Failure> {
        self.other.settle()?;
        let platforms = match (self.all_platforms, platform(self.platform.as_deref())?) {
            (true, _) => Platforms::All,
            (false, Some(platform)) => Platforms::One(platform),
            (false, None) => Platforms::Host,
        };
        let request = |text: &String| {
            let bare = text.strip_prefix("docker://").unwrap_or(text);
            let name = registries.reference(bare).map_err(|error| bad_name(text, &error))?;
            if self.all_tags && Reference::is_exact(bare) {
                return Err(Failure::usage(format!(
                    "--all-tags: {text} names a tag or a digest: leave it out"
                )));
            }
            Ok(PullRequest { name, all_tags: self.all_tags, platforms: platforms.clone() })
        };
        self.names.iter().map(request).collect()
    }
}

impl SaveArgs {
    /// What the engine is asked.
    pub fn request(&self) -> Result<SaveRequest, Failure> {
        self.other.settle()?;
        let path = self.output.clone().filter(|path| path.as_os_str() != "-");
        let stream = || path.clone().map_or(Destination::Stdout, Destination::File);
        let output = match self.format.as_str() {
            "docker-archive" | "docker" => Output::DockerArchive(stream()),
            "oci-archive" | "oci" => Output::OciArchive(stream()),
            "oci-dir" => Output::OciLayout(path.clone().ok_or_else(|| {
                Failure::usage("--format oci-dir: a layout is a directory: name one with -o DIR")
            })?),
            other => {
                return Err(Failure::usage_hint(
                    format!("--format {other}: no such format"),
                    "there are docker-archive, oci-archive and oci-dir",
                ));
            }
        };
        let platform = platform(self.platform.as_deref())?;
        Ok(SaveRequest { images: self.images.clone(), output, platform, form: self.form.form()? })
    }
}

impl LoadArgs {
    /// The file or directory; `None` for standard input.
    pub fn path(&self) -> Option<&PathBuf> {
        self.path.as_ref().or(self.input.as_ref()).filter(|path| path.as_os_str() != "-")
    }
}

/// `--platform`.
pub fn platform(text: Option<&str>) -> Result<Option<Platform>, Failure> {
    let parse = |text: &str| {
        text.parse().map_err(|error| Failure::usage(format!("--platform {text}: {error}")))
    };
    text.map(parse).transpose()
}

/// Where an image goes; podman writes `docker://` before it, and other ways out have other commands.
fn destination_of(text: &str, registries: &RegistriesConf) -> Result<Reference, Failure> {
    let bare = text.strip_prefix("docker://").unwrap_or(text);
    let archives = ["oci:", "oci-archive:", "docker-archive:", "dir:", "docker-daemon:"];
    if archives.iter().any(|scheme| text.starts_with(scheme)) {
        return Err(Failure::usage_hint(
            format!("{text} is no name at a registry"),
            "`rbuild save` writes archives and layouts",
        ));
    }
    registries.reference(bare).map_err(|error| bad_name(text, &error))
}

fn bad_name(text: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::usage(format!("{text}: {error}"))
}
