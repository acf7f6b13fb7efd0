//! Arguments of the commands that look at images or change their names.

use clap::Args;

use crate::args::flag_tables::{OfImages, OfInspect, OfRmi};
use crate::args::other_flags::OtherFlags;
use crate::args::switch;

/// List images.
#[derive(Debug, Args)]
pub struct ImagesArgs {
    /// Show only this name, `repository[:tag]`; `*` stands for any letters
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,
    /// Also images without a name
    #[arg(short, long)]
    pub all: bool,
    /// Whole ids
    #[arg(long)]
    pub no_trunc: bool,
    /// Show digests of manifests
    #[arg(long)]
    pub digests: bool,
    /// `json`, or text with fields such as {{.Repository}}:{{.Tag}}
    #[arg(long, value_name = "FORMAT", conflicts_with_all = ["quiet", "json"])]
    pub format: Option<String>,
    /// One JSON array
    #[arg(long, conflicts_with = "quiet")]
    pub json: bool,
    /// Show only images with reference=PATTERN, dangling=true, label=NAME[=VALUE], before=IMAGE,
    /// since=IMAGE or until=TIME; may be repeated
    #[arg(short, long, value_name = "FILTER")]
    pub filter: Vec<String>,
    /// Flags of Docker that are not here.
    #[command(flatten)]
    pub other: OtherFlags<OfImages>,
}

/// Remove images.
#[derive(Debug, Args)]
pub struct RmiArgs {
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,
    /// Remove an image by id although it has several names; a missing image is no error
    #[arg(short, long)]
    pub force: bool,
    /// Flags of Docker that are not here.
    #[command(flatten)]
    pub other: OtherFlags<OfRmi>,
}

/// Remove images without a name.
#[derive(Debug, Args)]
#[command(override_usage = "rbuild image prune [OPTIONS]")]
pub struct ImagePruneArgs {
    /// Also those with a name, unless a container runs from them
    #[arg(short, long)]
    pub all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// Only images with until=TIME, label=NAME[=VALUE] or label!=NAME[=VALUE]; may be repeated
    #[arg(long, value_name = "FILTER")]
    pub filter: Vec<String>,
}

/// Give an image another name.
#[derive(Debug, Args)]
pub struct TagArgs {
    /// Name or id
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// The further name
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// Show everything about containers or images as JSON.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Names or ids
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    /// Text with fields such as {{.Id}} or {{json .Config}}
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Of an index, the image for this platform
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<String>,
    /// `container` or `image`; containers first when not given
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<String>,
    /// Flags of Docker that are not here.
    #[command(flatten)]
    pub other: OtherFlags<OfInspect>,
}

/// Show how an image was made.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Name or id
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// Of an index, the image for this platform
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<String>,
    /// Whole instructions
    #[arg(long)]
    pub no_trunc: bool,
    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,
    /// `--human=false` shows bytes and times
    #[arg(
        short = 'H',
        long,
        action = clap::ArgAction::Set,
        value_parser = switch::parse,
        value_name = "true|false",
        num_args = 0..=1,
        require_equals = true,
        default_value = "true",
        default_missing_value = "true",
        hide_default_value = true
    )]
    pub human: bool,
    /// `json`, or text with fields such as {{.CreatedBy}}
    #[arg(long, value_name = "FORMAT", conflicts_with = "quiet")]
    pub format: Option<String>,
}

/// A command whose answer has fields.
#[derive(Debug, Args)]
pub struct FormatArgs {
    /// `json`, or text with fields
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
}
