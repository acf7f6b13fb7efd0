//! Arguments of `rbuild cp`.

use clap::Args;
use rbuild::CopyPlace;

use crate::failure::Failure;

/// Copy files between a container, which need not run, and the host, or from a step of a past build.
#[derive(Debug, Args)]
#[command(
    override_usage = "rbuild cp [OPTIONS] CONTAINER:SRC|@STEP:/SRC DEST|-\n       \
                      rbuild cp [OPTIONS] SRC|- CONTAINER:DEST",
    after_help = "A directory becomes DEST, or goes into it when it is there; `SRC/.` is what is in \
                  it. `-` is a tar on standard input or output. Of a container that does not run, a \
                  directory comes without what is mounted below it: name that itself. `rbuild logs \
                  --help` says how steps are named."
)]
pub struct CpArgs {
    /// Keep owners, and with them setuid and setgid
    #[arg(short, long)]
    pub archive: bool,
    /// Copy what SRC leads to when it is a link
    #[arg(short = 'L', long)]
    pub follow_link: bool,
    /// Say nothing, which happens in any case
    #[arg(short, long)]
    pub quiet: bool,
    /// A path of the host, CONTAINER:PATH, @STEP:/PATH or `-`
    #[arg(value_name = "SRC")]
    pub from: String,
    /// The other of them
    #[arg(value_name = "DEST")]
    pub to: String,
}

/// One end, where `-` may stand for a tar.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// Standard input or output.
    Standard,
    /// Files.
    Place(CopyPlace),
}

/// Reads an end as Docker does: an absolute path, and what begins with a dot before the first
/// colon, is the host's.
pub fn end(text: &str) -> Result<End, Failure> {
    let local = || Ok(End::Place(CopyPlace::Local(text.into())));
    match text.split_once(':') {
        _ if text == "-" => Ok(End::Standard),
        _ if text.is_empty() => Err(Failure::usage("cp: an empty path")),
        _ if text.starts_with('/') => local(),
        None => local(),
        // The name of a step may have colons in it.
        Some(_) if text.starts_with('@') => match text.split_once(":/") {
            Some((step, path)) => {
                let (step, path) = (step.to_owned(), format!("/{path}"));
                Ok(End::Place(CopyPlace::Step { step, path }))
            }
            None => Err(Failure::usage_hint(
                format!("cp: {text} names no file of a step"),
                "the form is @STEP:/PATH, as in @failed:/etc/passwd",
            )),
        },
        Some((container, _)) if container.starts_with('.') => local(),
        Some((container, path)) if !container.is_empty() && !path.is_empty() => {
            let (container, path) = (container.to_owned(), path.to_owned());
            Ok(End::Place(CopyPlace::Container { container, path }))
        }
        Some(_) => Err(Failure::usage_hint(
            format!("cp: {text} names no file of a container"),
            "the form is CONTAINER:PATH",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart_as_docker_does() {
        let inside = |container: &str, path: &str| {
            End::Place(CopyPlace::Container { container: container.into(), path: path.into() })
        };
        assert_eq!(end("web:/a:b").unwrap(), inside("web", "/a:b"));
        assert_eq!(end("web:a/.").unwrap(), inside("web", "a/."));
        for local in ["/a:b", "./a:b", "../a:b", ".", "a", "a/b"] {
            assert_eq!(end(local).unwrap(), End::Place(CopyPlace::Local(local.into())), "{local}");
        }
        assert_eq!(end("-").unwrap(), End::Standard);
        let step = |step: &str, path: &str| {
            End::Place(CopyPlace::Step { step: step.into(), path: path.into() })
        };
        assert_eq!(end("@failed:/a:b").unwrap(), step("@failed", "/a:b"));
        assert_eq!(end("@build:3:/").unwrap(), step("@build:3", "/"));
        for bad in ["", ":/a", "web:", "@failed:a"] {
            assert!(end(bad).is_err(), "{bad}");
        }
    }
}
