//! `rbuild run`: a container in the foreground.
//!
//! Three threads besides the one that waits: one passes signals on; with a terminal, one passes
//! keys in and one passes output out. Those that read may block for ever and are left behind when
//! the command ends; the one for output is waited for, so that nothing is lost.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rbuild::{BuildError, CancelToken, Container, ContainerStdio, Ctx, Exit};

use crate::args::run::RunArgs;
use crate::args::transfer;
use crate::commands::{Context, terminal};
use crate::failure::Failure;
use crate::{exit_code, interrupt};

/// As many interrupts make the command kill a container that does not listen, as in Docker.
const PATIENCE: usize = 3;
/// How long output is waited for after the process has ended.
const DRAIN: Duration = Duration::from_secs(2);

/// Runs a container and answers its exit code.
pub fn run(args: &RunArgs, context: &Context<'_>) -> Result<i32, Failure> {
    run_inner(args, context).map_err(|failure| {
        let code = match &failure {
            Failure::Engine(error) => exit_code::of_run_error(error),
            Failure::Silent(code) => *code,
            _ => exit_code::CANNOT_RUN,
        };
        Failure::WithCode(code, Box::new(failure))
    })
}

fn run_inner(args: &RunArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let process = args.process(context.environment)?;
    let platform = transfer::platform(args.platform.as_deref())?;
    let typed = args.interactive && args.tty;
    if typed && !std::io::stdin().is_terminal() {
        return Err(Failure::usage_hint(
            "-t with -i needs a terminal at standard input",
            "leave -t out to pass data in",
        ));
    }
    let mut cid = args.cidfile.as_deref().map(CidFile::create).transpose()?;
    let name = args.name.clone().unwrap_or_else(random_name);
    let engine = context.engine()?;
    let cancel = interrupt::cancel_on_interrupt()?;
    let mut container = {
        let pull = args.pull.into();
        context.shown(args.quiet, |progress| {
            let ctx = Ctx::new(progress, &cancel);
            engine.create_reporting(&name, &args.image, process, pull, platform.as_ref(), ctx)
        })?
    };
    let signals = interrupt::forward(if args.tty { &[libc::SIGWINCH] } else { &[] })?;
    let stdio = match (args.tty, args.interactive) {
        (true, _) => ContainerStdio::Terminal,
        (false, true) => ContainerStdio::Inherit,
        (false, false) => ContainerStdio::NoInput,
    };
    if let Some(cid) = &mut cid {
        cid.fill(container.id())?;
    }
    container.start(stdio)?;
    let code = attend(&mut container, args, typed, signals, &cancel);
    let deleted = container.delete();
    let code = code?;
    deleted?;
    Ok(code)
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

/// Stays with the running container until it ends.
fn attend(
    container: &mut Container,
    args: &RunArgs,
    typed: bool,
    signals: OwnedFd,
    cancel: &CancelToken,
) -> Result<i32, Failure> {
    let io = |error: std::io::Error| Failure::io("use the container's terminal")(error);
    let mut raw = None;
    let mut output = None;
    let mut size_of = None;
    if args.tty {
        let master = container.terminal()?;
        terminal::copy_size(master.as_fd());
        size_of = Some(master.try_clone().map_err(io)?);
        if typed {
            raw = Some(terminal::Raw::enter()?);
            let keys = master.try_clone().map_err(io)?;
            std::thread::spawn(move || terminal::pass_input(keys));
        }
        let (ended, wait) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || {
            terminal::pass_output(master);
            drop(ended);
        });
        output = Some(wait);
    }
    let waited = wait(container, signals, size_of, cancel);
    if let Some(wait) = output {
        // An error that says that the thread is done, or the time is over.
        let _ = wait.recv_timeout(DRAIN);
    }
    drop(raw);
    match waited {
        Ok(exit) => Ok(exit.code()),
        Err(error) if exit_code::is_cancelled(&error) => Ok(interrupt::exit_code()),
        Err(error) => Err(error.into()),
    }
}

/// Waits for the end while another thread passes signals on and follows the terminal's size.
fn wait(
    container: &mut Container,
    signals: OwnedFd,
    size_of: Option<OwnedFd>,
    cancel: &CancelToken,
) -> Result<Exit, BuildError> {
    let process = container.signaller()?;
    let give_up = cancel.clone();
    std::thread::spawn(move || {
        let mut interrupts = 0;
        let (mut signals, mut byte) = (std::fs::File::from(signals), [0]);
        // The end that is written to is never closed, so this ends with the command.
        while signals.read_exact(&mut byte).is_ok() {
            let signal = i32::from(byte[0]);
            match (signal, &size_of) {
                (libc::SIGWINCH, Some(master)) => terminal::copy_size(master.as_fd()),
                _ => process.send(signal),
            }
            interrupts += usize::from([libc::SIGINT, libc::SIGTERM].contains(&signal));
            // Whose terminal is gone can neither be seen nor be ended by anyone.
            let alone = signal == libc::SIGHUP && size_of.is_some();
            if alone || interrupts >= PATIENCE {
                interrupt::interrupted_by(signal);
                give_up.cancel();
            }
        }
    });
    container.wait(cancel, &mut |_, _| {})
}

/// A name in messages for who gave none.
fn random_name() -> String {
    const MANNERS: [&str; 16] = [
        "brave", "bright", "calm", "clever", "eager", "gentle", "happy", "keen", "kind", "lively",
        "merry", "proud", "quick", "quiet", "steady", "witty",
    ];
    const PEOPLE: [&str; 16] = [
        "babbage",
        "curie",
        "dijkstra",
        "euler",
        "fermat",
        "gauss",
        "hopper",
        "kepler",
        "lovelace",
        "mirzakhani",
        "noether",
        "perlman",
        "ramanujan",
        "shannon",
        "turing",
        "wirth",
    ];
    let seed = usize::try_from(crate::human::now()).unwrap_or(0);
    let seed = seed.wrapping_mul(31).wrapping_add(std::process::id() as usize);
    format!("{}_{}", MANNERS[seed % 16], PEOPLE[seed / 16 % 16])
}
