//! One file per command. A command prints its data and returns the code to exit with.

mod attach;
mod attend;
mod build;
mod builds;
mod cache;
mod check;
mod commit;
mod container_prune;
mod context;
mod cp;
mod diff;
mod du;
mod events;
mod exec;
mod export;
mod fsck;
mod history;
mod image_prune;
mod images;
mod import;
mod info;
mod inspect;
mod kill;
mod layers;
mod load;
mod lock;
mod login;
mod logout;
mod logs;
mod manifest;
mod network;
mod outline;
mod pause;
mod port;
mod prune;
mod ps;
mod pull;
mod push;
mod rename;
mod repro;
mod rm;
mod rmi;
mod rows;
mod run;
mod save;
mod shell;
mod start;
mod stats;
mod step_log;
mod stop;
mod tag;
mod terminal;
mod top;
mod update;
mod version;
mod volume;
mod wait;
mod why;

use rbuild::{Engine, EngineOptions, Progress};

use crate::args::global::GlobalArgs;
use crate::args::progress::ProgressMode;
use crate::args::{Args, Command};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::{exit_code, progress, report};

/// What a command gets besides its own arguments.
pub struct Context<'a> {
    global: &'a GlobalArgs,
    environment: &'a Environment,
    /// The images that the line names, whose registry a password on it is for.
    images: Vec<String>,
}

impl Context<'_> {
    /// Opens the store. Only commands that need it do: the others answer at once.
    fn engine(&self) -> Result<Engine, Failure> {
        Ok(Engine::with_options(self.engine_options()?)?)
    }

    fn engine_options(&self) -> Result<EngineOptions, Failure> {
        self.global.engine_options(self.environment, &self.images)
    }

    /// Shows how a call of the engine gets on, unless it is to be quiet.
    fn shown<T>(&self, quiet: bool, call: impl FnOnce(&dyn Progress) -> T) -> T {
        let mode = if quiet { ProgressMode::Quiet } else { ProgressMode::Auto };
        let display = progress::display(mode, self.environment);
        let done = call(display.as_ref());
        display.close();
        done
    }
}

/// Does something with each of several; what fails does not keep the others.
fn each(
    names: &[String],
    mut call: impl FnMut(&str) -> Result<(), Failure>,
) -> Result<i32, Failure> {
    let mut code = exit_code::SUCCESS;
    for name in names {
        if let Err(failure) = call(name) {
            code = report::failure(&failure);
        }
    }
    Ok(code)
}

/// Runs the command.
pub fn run(args: Args, environment: &Environment) -> Result<i32, Failure> {
    let images = args.command.images();
    let context = Context { global: &args.global, environment, images };
    match args.command {
        Command::Build(args) => build::run(&args, &context),
        Command::Context(args) => context::run(&args, &context),
        Command::Lock(args) => lock::run(&args, &context),
        Command::Run(args) => run::run(&args, &context),
        Command::Create(args) => run::create(&args, &context),
        Command::Ps(args) => ps::run(&args, &context),
        Command::Logs(args) => logs::run(&args, &context),
        Command::Start(args) => start::run(&args, &context),
        Command::Stop(args) => stop::run(&args, &context),
        Command::Restart(args) => stop::restart(&args, &context),
        Command::Kill(args) => kill::run(&args, &context),
        Command::Exec(args) => exec::run(&args, &context),
        Command::Shell(args) => shell::run(&args, &context),
        Command::Builds(args) => builds::run(&args, &context),
        Command::Attach(args) => attach::run(&args, &context),
        Command::Port(args) => port::run(&args, &context),
        Command::Network(args) => network::run(&args, &context),
        Command::Cp(args) => cp::run(&args, &context),
        Command::Commit(args) => commit::run(&args, &context),
        Command::Export(args) => export::run(&args, &context),
        Command::Import(args) => import::run(&args, &context),
        Command::Volume(args) => volume::run(&args, &context),
        Command::Top(args) => top::run(&args, &context),
        Command::Stats(args) => stats::run(&args, &context),
        Command::Events(args) => events::run(&args, &context),
        Command::Pause(args) => pause::pause(&args, &context),
        Command::Unpause(args) => pause::unpause(&args, &context),
        Command::Wait(args) => wait::run(&args, &context),
        Command::Rename(args) => rename::run(&args, &context),
        Command::Update(args) => update::run(&args, &context),
        Command::Rm(args) => rm::run(&args, &context),
        Command::ContainerPrune(args) => container_prune::run(&args, &context),
        Command::Images(args) => images::run(&args, &context),
        Command::ImagePrune(args) => image_prune::run(&args, &context),
        Command::Rmi(args) => rmi::run(&args, &context),
        Command::Tag(args) => tag::run(&args, &context),
        Command::Inspect(args) => inspect::run(&args, &context),
        Command::History(args) => history::run(&args, &context),
        Command::Pull(args) => pull::run(&args, &context),
        Command::Push(args) => push::run(&args, &context),
        Command::Manifest(args) => manifest::run(&args, &context),
        Command::Save(args) => save::run(&args, &context),
        Command::Load(args) => load::run(&args, &context),
        Command::Login(args) => login::run(&args, &context),
        Command::Logout(args) => logout::run(&args, &context),
        Command::Layers(args) => layers::run(&args, &context),
        Command::Diff(args) => diff::run(&args, &context),
        Command::Repro(args) => repro::run(&args, &context),
        Command::Why(args) => why::run(&args, &context),
        Command::Cache(args) => cache::run(&args, &context),
        Command::Du(args) => du::run(&args, &context),
        Command::Fsck(args) => fsck::run(&args, &context),
        Command::Prune(args) => prune::run(&args, &context),
        Command::Version(args) => version::run(&args, &context),
        Command::Info(args) => info::run(&args, &context),
    }
}
