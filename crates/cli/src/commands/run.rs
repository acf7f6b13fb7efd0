//! `rbuild run` and `create`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use rbuild::{Attach, CancelToken, Container, Ctx, Engine, EngineOptions};

use crate::args::run::{CreateArgs, NewArgs, RunArgs};
use crate::commands::Context;
use crate::commands::attend::{Attending, attend};
use crate::commands::terminal::DetachKeys;
use crate::failure::Failure;
use crate::{exit_code, interrupt, output};

/// Runs a container and answers its exit code, or leaves it behind and prints its id.
pub fn run(args: &RunArgs, context: &Context<'_>) -> Result<i32, Failure> {
    run_inner(args, context).map_err(with_code)
}

/// Makes a container and prints its id.
pub fn create(args: &CreateArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let create = || {
        let cancel = interrupt::cancel_on_interrupt()?;
        let container = new(&args.new, false, context, &cancel)?;
        output::line(container.id())?;
        Ok(exit_code::SUCCESS)
    };
    create().map_err(with_code)
}

/// Docker's codes of what cannot be run.
pub fn with_code(failure: Failure) -> Failure {
    let code = match &failure {
        Failure::Engine(error) => exit_code::of_run_error(error),
        Failure::Silent(code) => *code,
        _ => exit_code::CANNOT_RUN,
    };
    Failure::WithCode(code, Box::new(failure))
}

fn run_inner(args: &RunArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let how = Attending { tty: args.new.tty, input: args.new.interactive, owner: true };
    if !args.detach {
        how.check()?;
    } else if args.detach_keys.is_some() {
        output::note("--detach-keys has no meaning with -d: give it to attach");
    }
    let keys = DetachKeys::of(args.detach_keys.as_deref())?;
    let cancel = interrupt::cancel_on_interrupt()?;
    let mut container = new(&args.new, true, context, &cancel)?;
    if args.detach {
        start(&mut container, Attach::No)?;
        output::line(container.id())?;
        return Ok(exit_code::SUCCESS);
    }
    let signals = how.signals()?;
    start(&mut container, Attach::Yes)?;
    attend(&mut container, how, keys, signals, &cancel)
}

/// One that goes when it ends goes too when it cannot begin.
fn start(container: &mut Container, attach: Attach) -> Result<(), Failure> {
    let started = container.start(attach);
    if started.is_err() && container.record().auto_remove {
        // The error of the start is the one to tell.
        let _ = container.remove(false);
    }
    Ok(started?)
}

/// Makes a container, which is about to be started or not.
fn new(
    args: &NewArgs,
    starts_container: bool,
    context: &Context<'_>,
    cancel: &CancelToken,
) -> Result<Container, Failure> {
    let options = args.options(context.environment)?;
    let cid = args.cidfile.as_deref().map(CidFile::create).transpose()?;
    let engine = EngineOptions { starts_container, ..context.engine_options()? };
    let engine = Engine::with_options(engine)?;
    let container = context.shown(args.quiet, |progress| {
        engine.create_container(options, Ctx::new(progress, cancel))
    })?;
    if let Some(mut cid) = cid {
        cid.fill(container.id())?;
    }
    Ok(container)
}

/// `--cidfile`: made before anything else, so that two containers never share one, and taken away
/// again when there is no container whose id it could hold.
struct CidFile {
    path: PathBuf,
    file: fs_err::File,
    filled: bool,
}

impl CidFile {
    fn create(path: &Path) -> Result<Self, Failure> {
        let file = fs_err::OpenOptions::new().write(true).create_new(true).open(path);
        match file {
            Ok(file) => Ok(Self { path: path.to_owned(), file, filled: false }),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(Failure::usage_hint(
                    format!("--cidfile {}: the file is there already", path.display()),
                    "if it is from a container that has ended, remove it",
                ))
            }
            Err(error) => Err(Failure::io("write the container's id")(error)),
        }
    }

    fn fill(&mut self, id: &str) -> Result<(), Failure> {
        self.file.write_all(id.as_bytes()).map_err(Failure::io("write the container's id"))?;
        self.filled = true;
        Ok(())
    }
}

impl Drop for CidFile {
    fn drop(&mut self) {
        if !self.filled {
            let _ = fs_err::remove_file(&self.path);
        }
    }
}
