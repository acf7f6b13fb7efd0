//! Arguments of `cache` and its commands.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use rbuild::CopyPlace;

use crate::failure::Failure;

/// Look at the cache mounts of builds, and carry them elsewhere.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "ID is what the Dockerfile says: id=ID of `RUN --mount=type=cache`, or the target \
                  where there is no id; or the start of a name that `rbuild cache ls` shows. A \
                  container gets one with `rbuild run -v cache:ID:/target`."
)]
pub struct CacheArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: CacheCommand,
}

/// What to do with cache mounts.
#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// List cache mounts
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Show everything about cache mounts as JSON
    Inspect(InspectArgs),
    /// Copy files between a cache mount and the host, as `docker cp` does
    Cp(CpArgs),
    /// Write all of a cache mount as a tar
    Export(ExportArgs),
    /// Put what is in a tar in the place of all that is in a cache mount
    Import(ImportArgs),
    /// Remove cache mounts
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
}

/// Arguments of `cache ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,
    /// `json`, or text with fields such as {{.ID}}: {{.Size}}
    #[arg(long, value_name = "FORMAT", conflicts_with = "quiet")]
    pub format: Option<String>,
}

/// Arguments of `cache inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Ids
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
    /// `json`, or text with fields such as {{.Size}}
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// Arguments of `cache cp`.
#[derive(Debug, Args)]
pub struct CpArgs {
    /// Keep owners, and with them setuid and setgid
    #[arg(short, long)]
    pub archive: bool,
    /// ID:/PATH or a path of the host; with `/.` at its end what is in a directory
    #[arg(value_name = "FROM")]
    pub from: String,
    /// The other of the two
    #[arg(value_name = "TO")]
    pub to: String,
}

/// Arguments of `cache export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Id
    #[arg(value_name = "ID")]
    pub id: String,
    /// File to write, compressed if it ends with `.zst` or `.gz`; `-` for standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
}

/// Arguments of `cache import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Id; the cache mount is made when it is not there
    #[arg(value_name = "ID")]
    pub id: String,
    /// Tar, compressed or not; `-` for standard input
    #[arg(value_name = "FILE", default_value = "-")]
    pub file: PathBuf,
}

/// Arguments of `cache rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// Ids
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
    /// One that is not there is no error
    #[arg(short, long)]
    pub force: bool,
}

impl CpArgs {
    /// Both ends.
    pub fn places(&self) -> Result<(CopyPlace, CopyPlace), Failure> {
        Ok((place(&self.from)?, place(&self.to)?))
    }
}

/// What holds `:/` is in a cache mount, unless it begins with a dot: ids may begin with a slash.
fn place(text: &str) -> Result<CopyPlace, Failure> {
    if text == "-" {
        return Err(Failure::usage_hint(
            "cache cp: `-` is not supported yet",
            "for a tar of all there are `rbuild cache export` and `import`",
        ));
    }
    Ok(match text.rsplit_once(":/").filter(|_| !text.starts_with('.')) {
        Some((id, path)) => CopyPlace::Cache { id: id.to_owned(), path: format!("/{path}") },
        None => CopyPlace::Local(text.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_caches_have_a_colon_and_a_slash() {
        let cache = |id: &str, path: &str| CopyPlace::Cache { id: id.into(), path: path.into() };
        assert_eq!(place("go:/a/b").unwrap(), cache("go", "/a/b"));
        assert_eq!(place("/root/.cache:/").unwrap(), cache("/root/.cache", "/"));
        for local in ["/a/b", "a:b", "./go:/a", "../x:/y", "."] {
            assert_eq!(place(local).unwrap(), CopyPlace::Local(local.into()), "{local}");
        }
        assert!(place("-").is_err());
    }
}
