//! Entering a step: another process where the step's own one was.

use rbuild_cache::Lease;
use rbuild_cache::SnapshotId;
use rbuild_plan::op::{Network, Run, Security};
use rbuild_solver::{Entry, Held, Recorded, Secrets, SshAgents, StepError, StepNetworks};
use rbuild_types::{CancelToken, Ctx, Silent};

use super::PastStep;
use crate::containers::process::{DEFAULT_PATH, TERM, merged};
use crate::sources::context;
use crate::step_network::{Joined, OfBuild};
use crate::{BuildError, Engine, Exec, ExecStreams};

/// What runs in a step that is entered, and what it is given.
#[derive(Debug, Default)]
pub struct EnterOptions {
    /// The program and its arguments; a shell of the root filesystem when it is empty.
    pub argv: Vec<String>,
    /// `NAME=value`, over those of the step.
    pub env: Vec<String>,
    /// Working directory, which must be there; the step's when not given.
    pub cwd: Option<String>,
    /// User; the step's when not given.
    pub user: Option<String>,
    /// Secrets that the step's mounts may show; others stay away.
    pub secrets: Secrets,
    /// SSH agents that they may show.
    pub ssh: SshAgents,
}

/// A step that was entered.
#[derive(Debug)]
pub struct EnteredStep {
    /// The process.
    pub exec: Exec,
    /// What the step had and the process has not, a sentence each.
    pub missing: Vec<String>,
}

/// What must stay until the process has ended.
#[derive(Debug)]
pub(crate) struct HeldByStep {
    _files: Held,
    _joined: Option<Joined>,
    _lease: Lease,
}

impl Engine {
    /// Starts a process in the surroundings of a step: upon a writable layer above its root
    /// filesystem, that of a failed step as it was when it failed, with its mounts, variables, user,
    /// directory and network. What it writes goes with it, but for what it writes into cache mounts.
    ///
    /// A step that runs nothing has the variables, directory and user of the nearest `RUN` of its
    /// stage, and neither its mounts nor its rights, network or limits.
    ///
    /// # Errors
    ///
    /// [`BuildError::Conflict`] when the files of the step are not in the store (any more);
    /// [`BuildError::Request`] when there is no shell; [`crate::SandboxError::Start`] when the program
    /// cannot be executed.
    pub fn enter_step(
        &self,
        step: &PastStep,
        options: &EnterOptions,
        streams: ExecStreams,
        cancel: &CancelToken,
    ) -> Result<EnteredStep, BuildError> {
        let lease = self.store.lease()?;
        let layers = self.step_layers(step)?;
        let mut missing = Vec::new();
        let mut recorded = self.surroundings(step, &mut missing)?;
        let run = &mut recorded.run;
        let terminal = streams == ExecStreams::Terminal;
        let term = terminal.then(|| TERM.to_owned());
        run.env = merged(term.into_iter().chain(run.env.drain(..)).chain(options.env.clone()));
        run.argv = options.argv.clone();
        run.cwd = options.cwd.clone().unwrap_or_else(|| run.cwd.clone());
        run.user = options.user.clone().unwrap_or_else(|| run.user.clone());
        let directory = step.build.context.as_ref();
        let (ignore_file, ctx) = (step.build.ignore_file.as_deref(), Ctx::new(&Silent, cancel));
        let context =
            directory.and_then(|directory| context::of_past(directory, ignore_file, ctx).ok());
        let named = step.build.network.as_ref().filter(|_| run.network == Network::Default);
        let network = match named.map(|name| OfBuild::find(self, name)).transpose() {
            Err(BuildError::NoSuchNetwork { name }) => {
                missing.push(format!("network {name} is not there any more: there is none"));
                run.network = Network::None;
                None
            }
            found => found?,
        };
        let (helper, resolv_conf, emulators) =
            (self.helper(), self.resolv_conf(), self.emulators());
        let entry = Entry {
            store: &self.store,
            pool: self.pool()?,
            helper: &helper,
            network: network.as_ref().map(|network| network as &dyn StepNetworks),
            resolv_conf: &resolv_conf,
            emulators: &emulators,
            secrets: &options.secrets,
            ssh: &options.ssh,
            context: context.as_ref(),
            step: recorded,
            layers,
            inputs: step.step.inputs.iter().map(|top| self.input(top.as_ref())).collect(),
        };
        let (stdio, input) = streams.stdio()?;
        let entered = entry.start(terminal, stdio, cancel).map_err(of_enter)?;
        missing.extend(entered.missing);
        let joined = network.and_then(OfBuild::into_joined);
        let held = HeldByStep { _files: entered.held, _joined: joined, _lease: lease };
        let exec = Exec::of(entered.running, streams, input, Some(held))?;
        Ok(EnteredStep { exec, missing })
    }

    /// A root filesystem that a mount shows, if it is still there.
    fn input(&self, top: Option<&SnapshotId>) -> Option<Vec<SnapshotId>> {
        self.store.snapshots().chain(top?).ok()
    }

    fn surroundings(
        &self,
        step: &PastStep,
        missing: &mut Vec<String>,
    ) -> Result<Recorded, BuildError> {
        if let Some(own) = self.recorded(&step.build.steps, step.number - 1)? {
            return Ok(own);
        }
        if step.step.op == "run" {
            let gone =
                "what the step ran is not known any more: its mounts and variables are not here";
            missing.push(gone.to_owned());
        }
        let steps = &step.build.steps;
        let earlier = (0..step.number - 1).rev();
        for near in earlier.chain(step.number..steps.len()) {
            if steps[near].stage == step.step.stage
                && let Some(found) = self.recorded(steps, near)?
            {
                let Run { env, cwd, user, hostname, extra_hosts, platform, .. } = found.run;
                let run = Run { env, cwd, user, hostname, extra_hosts, platform, ..plain() };
                return Ok(Recorded { run, input_keys: Vec::new() });
            }
        }
        Ok(Recorded { run: plain(), input_keys: Vec::new() })
    }

    /// What a step ran, as its record or that of its failure has it.
    fn recorded(
        &self,
        steps: &[rbuild_cache::BuiltStep],
        place: usize,
    ) -> Result<Option<Recorded>, BuildError> {
        let Some(step) = steps.get(place).filter(|step| step.op == "run") else { return Ok(None) };
        if let Some(failure) = &step.failure {
            return Ok(Recorded::of(&failure.inputs));
        }
        let record = match &step.key {
            Some(key) => self.store.records().peek(key)?,
            None => None,
        };
        Ok(record.and_then(|record| Recorded::of(&record.inputs)))
    }
}

/// The surroundings where no instruction says any.
fn plain() -> Run {
    Run {
        has_root: true,
        argv: Vec::new(),
        env: vec![format!("PATH={DEFAULT_PATH}")],
        proxy_env: Vec::new(),
        cwd: "/".to_owned(),
        user: String::new(),
        network: Network::Default,
        scripts: Vec::new(),
        hostname: "rbuild".to_owned(),
        mounts: Vec::new(),
        security: Security::Sandbox,
        extra_hosts: Vec::new(),
        ulimits: Vec::new(),
        shm_size: None,
        platform: None,
        devices: Vec::new(),
        latest: None,
    }
}

fn of_enter(error: StepError) -> BuildError {
    match error {
        StepError::Cancelled(cancelled) => BuildError::Cancelled(cancelled),
        StepError::Store(error) => error.into(),
        StepError::Sandbox(error) => error.into(),
        StepError::Snapshot(error) => error.into(),
        StepError::Rooted(error) => error.into(),
        other => BuildError::Request { message: other.to_string() },
    }
}
