//! `rbuild layers`: arguments.

use std::path::PathBuf;

use clap::Args;

use crate::failure::Failure;

/// Show what the layers of an image hold, and what of it is wasted.
#[derive(Debug, Args)]
pub struct LayersArgs {
    /// Name or id, or oci-archive:FILE[:NAME], docker-archive:FILE[:NAME], oci-layout://DIR[:TAG]
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// Of an index, the image for this platform
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<String>,
    /// The largest files too, with what became of them: of all layers, or of one
    #[arg(
        short = 'v',
        long,
        value_name = "LAYER",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "all"
    )]
    pub files: Option<FilesOf>,
    /// Whole instructions
    #[arg(long)]
    pub no_trunc: bool,
    /// `json`, or text with fields such as {{.Layer}} {{.Size}}, for each layer
    #[arg(long, value_name = "FORMAT", conflicts_with = "json")]
    pub format: Option<String>,
    /// One JSON document
    #[arg(long)]
    pub json: bool,
    /// Write a page to look at with a browser: one file that needs nothing else
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// The value of `--files`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilesOf {
    /// Those of all layers.
    All,
    /// Those of one, counted from 1 at the bottom.
    Layer(usize),
}

impl std::str::FromStr for FilesOf {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            number => match number.parse() {
                Ok(0) | Err(_) => Err("layers are counted from 1, the bottom one".to_owned()),
                Ok(layer) => Ok(Self::Layer(layer)),
            },
        }
    }
}

impl FilesOf {
    /// Whether the files of the layer with this index are meant, of `count` layers.
    pub fn index(self, count: usize) -> Result<Option<usize>, Failure> {
        match self {
            Self::All => Ok(None),
            Self::Layer(layer) if layer <= count => Ok(Some(layer - 1)),
            Self::Layer(layer) => {
                Err(Failure::usage(format!("--files={layer}: the image has {count} layers")))
            }
        }
    }
}
