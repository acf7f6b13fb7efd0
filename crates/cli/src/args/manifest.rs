//! Arguments of `manifest` and its commands.

use clap::{Args, Subcommand};
use rbuild::ListChange;

use crate::args::transfer::PushArgs;
use crate::failure::Failure;

/// Put images for several platforms together under one name.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "A list is an image like others: `rbuild images`, `tag`, `save` and `rmi` take it. \
                  `rbuild build --platform A,B` makes one by itself."
)]
pub struct ManifestArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ManifestCommand,
}

/// What to do with manifest lists.
#[derive(Debug, Subcommand)]
pub enum ManifestCommand {
    /// Make a list of images, each in the store or at its registry
    Create(CreateArgs),
    /// Add images to a list
    Add(MembersArgs),
    /// Change what a list says of an image
    Annotate(Box<AnnotateArgs>),
    /// Show the manifest or index of an image, in the store or at its registry
    Inspect(InspectArgs),
    /// Push a list with all its images
    Push(Box<ListPushArgs>),
    /// Take images out of a list
    Remove(MembersArgs),
    /// Remove lists; their images stay if they have a name
    Rm(RmArgs),
    /// Say by the exit code whether there is such a list
    Exists(ExistsArgs),
}

/// Arguments of `manifest create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Name of the list
    #[arg(value_name = "LIST")]
    pub list: String,
    /// Images; one that is a list itself stands for all that are in it
    #[arg(value_name = "IMAGE")]
    pub images: Vec<String>,
    /// Add to a list that is there
    #[arg(short, long)]
    pub amend: bool,
}

/// Arguments of `manifest add` and `manifest remove`.
#[derive(Debug, Args)]
pub struct MembersArgs {
    /// Name of the list
    #[arg(value_name = "LIST")]
    pub list: String,
    /// Images, or their digests
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,
}

/// Arguments of `manifest annotate`.
#[derive(Debug, Args)]
pub struct AnnotateArgs {
    /// Name of the list
    #[arg(value_name = "LIST")]
    pub list: String,
    /// The image, or its digest
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// Operating system
    #[arg(long, value_name = "OS")]
    pub os: Option<String>,
    /// Architecture
    #[arg(long, value_name = "ARCH")]
    pub arch: Option<String>,
    /// Variant of the architecture
    #[arg(long, value_name = "VARIANT")]
    pub variant: Option<String>,
    /// Version of the operating system
    #[arg(long, value_name = "VERSION")]
    pub os_version: Option<String>,
    /// What the image wants of the operating system; may be repeated
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    pub os_features: Vec<String>,
    /// Text on the entry; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub annotation: Vec<String>,
}

/// Arguments of `manifest inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A list of the store to look into, and the image in it; or just an image
    #[arg(value_name = "IMAGE", required = true, num_args = 1..=2)]
    pub names: Vec<String>,
    /// Also media type and digest, and those of what an index names
    #[arg(short, long)]
    pub verbose: bool,
}

/// Arguments of `manifest push`.
#[derive(Debug, Args)]
pub struct ListPushArgs {
    /// As those of `push`.
    #[command(flatten)]
    pub push: PushArgs,
    /// Remove the list from the store when it was pushed
    #[arg(short, long, visible_alias = "rm")]
    pub purge: bool,
    /// Accepted for podman's sake: all images are pushed in any case
    #[arg(long, hide = true)]
    pub all: bool,
}

/// Arguments of `manifest rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// Names of lists
    #[arg(value_name = "LIST", required = true)]
    pub lists: Vec<String>,
}

/// Arguments of `manifest exists`.
#[derive(Debug, Args)]
pub struct ExistsArgs {
    /// Name of the list
    #[arg(value_name = "LIST")]
    pub list: String,
}

impl ManifestArgs {
    /// The images of a registry that the line names.
    pub fn images(&self) -> Vec<String> {
        match &self.command {
            ManifestCommand::Create(args) => args.images.clone(),
            ManifestCommand::Add(args) => args.images.clone(),
            ManifestCommand::Inspect(args) => args.names.iter().rev().take(1).cloned().collect(),
            ManifestCommand::Push(args) => {
                vec![args.push.destination.as_ref().unwrap_or(&args.push.image).clone()]
            }
            _ => Vec::new(),
        }
    }
}

impl AnnotateArgs {
    /// What the engine is asked.
    pub fn change(&self) -> Result<ListChange, Failure> {
        let pair = |text: &String| {
            let pair =
                text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
            pair.ok_or_else(|| Failure::usage(format!("--annotation {text}: expected NAME=VALUE")))
        };
        Ok(ListChange {
            os: self.os.clone(),
            architecture: self.arch.clone(),
            variant: self.variant.clone(),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            annotations: self.annotation.iter().map(pair).collect::<Result<_, _>>()?,
        })
    }
}
