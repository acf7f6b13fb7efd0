//! `rbuild diff`: arguments.

use clap::Args;

/// Compare two images: configs, manifests, layers and files; or the files of steps of past builds. Of
/// one container, show what it changed in its root filesystem: A for what it added, C for what it
/// changed, D for what it removed.
#[derive(Debug, Args)]
#[command(after_help = super::step::STEPS)]
pub struct DiffArgs {
    /// Container; image: name or id, or oci-archive:FILE[:NAME], docker-archive:FILE[:NAME],
    /// oci-layout://DIR[:TAG]; or a step such as @3
    #[arg(value_name = "A")]
    pub before: String,
    /// The other image or step; without one, what the step did
    #[arg(value_name = "B")]
    pub after: Option<String>,
    /// Of indexes, the images for this platform
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<String>,
    /// Print nothing: the exit code says it
    #[arg(short, long)]
    pub quiet: bool,
    /// Text with fields such as {{.What}} {{.Name}} {{.Change}}, or `json`, for each difference
    #[arg(long, value_name = "FORMAT", conflicts_with_all = ["quiet", "json"])]
    pub format: Option<String>,
    /// One JSON document
    #[arg(long, conflicts_with = "quiet")]
    pub json: bool,
}
