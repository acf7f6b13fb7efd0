//! `RUN`.

use rbuild_parser::ast::{self, CommandLine, Heredoc, Instruction};
use rbuild_types::Diagnostic;

use super::stage::{Layer, StageLowering};
use super::{Stop, environment};
use crate::op::{Device, Network, Op, Run, Script, Security};
use crate::{AskedDevice, Entitlement};

/// Where scripts with `#!` are put; BuildKit's place.
const SCRIPTS: &str = "/dev/pipes";

impl StageLowering<'_, '_> {
    /// Lowers `RUN`.
    pub(super) fn run(&mut self, instruction: &Instruction, run: &ast::Run) -> Result<(), Stop> {
        let security = self.security(run)?;
        let network = self.network(run)?;
        let (argv, scripts) = self.command(run);
        if argv.is_empty() {
            let message = "RUN has no command";
            return Err(Diagnostic::error("empty-command", self.here, message).into());
        }
        let bytes: usize = argv.iter().map(String::len).sum();
        self.charge(self.state.variables.size() + bytes)?;
        // The environment may hold what a base image or a build argument brought.
        let env = self.state.variables.to_list();
        for text in argv.iter().chain(&env) {
            self.check_nul(text, instruction.span)?;
        }
        let mut inputs = self.inputs();
        let mounts = self.mounts(&run.mounts, &mut inputs)?;
        self.take_mounts(&mounts);
        let options = self.plan.options;
        let hostname = options.build_args.get("BUILDKIT_SANDBOX_HOSTNAME");
        let text = format!("RUN {}{} # buildkit", self.args_prefix(), argv.join(" "));
        let op = Op::Run(Run {
            has_root: inputs.has_root,
            argv,
            env,
            proxy_env: environment::proxy_env(options, &self.state.variables),
            cwd: self.state.directory(),
            user: self.state.config.config.user.clone(),
            network,
            scripts,
            hostname: hostname.unwrap_or(&options.hostname).clone(),
            mounts,
            security,
            extra_hosts: options.extra_hosts.clone(),
            ulimits: options.ulimits.clone(),
            shm_size: options.shm_size,
            platform: self.state.base_platform.clone(),
            devices: self.devices(run),
            latest: self.latest(true),
        });
        self.change_root(instruction, op, inputs);
        Ok(self.history(text, Layer::Filled)?)
    }

    fn security(&self, run: &ast::Run) -> Result<Security, Diagnostic> {
        let Some(mode) = &run.security else { return Ok(Security::Sandbox) };
        match mode.value.as_str() {
            "sandbox" => Ok(Security::Sandbox),
            "insecure" if self.plan.options.allow.contains(&Entitlement::SecurityInsecure) => {
                Ok(Security::Insecure)
            }
            "insecure" => Err(Entitlement::SecurityInsecure.refused(self.place(mode.span))),
            other => {
                let message = format!("invalid security mode {other:?}");
                Err(Diagnostic::error("security", self.place(mode.span), message))
            }
        }
    }

    fn devices(&mut self, run: &ast::Run) -> Vec<Device> {
        let origin = self.origin;
        let asked = run.devices.iter().map(|asked| AskedDevice {
            device: Device { name: asked.name.clone(), required: asked.required },
            span: origin.place(asked.text.span),
        });
        let asked: Vec<_> = asked.collect();
        let devices = asked.iter().map(|asked| asked.device.clone()).collect();
        for asked in asked {
            // Another platform may have asked before.
            if !self.plan.devices.contains(&asked) {
                self.plan.devices.push(asked);
            }
        }
        devices
    }

    fn network(&self, run: &ast::Run) -> Result<Network, Diagnostic> {
        let Some(mode) = &run.network else { return Ok(self.plan.options.network) };
        match mode.value.as_str() {
            "default" => Ok(self.plan.options.network),
            "none" => Ok(Network::None),
            "host" => Ok(Network::Host),
            other => {
                let message = format!("invalid network mode {other:?}");
                Err(Diagnostic::error("network", self.place(mode.span), message))
            }
        }
    }

    /// The argument vector, and the script file if it is one.
    fn command(&self, run: &ast::Run) -> (Vec<String>, Vec<Script>) {
        let text = match &run.command {
            CommandLine::Exec { argv, .. } => return (argv.clone(), Vec::new()),
            CommandLine::Shell { text, .. } => text,
        };
        match run.heredocs.as_slice() {
            [] => (self.with_shell(text.clone()), Vec::new()),
            [script] if text.trim() == script.word.value.trim() => self.script(script),
            several => {
                // The shell is to read the documents itself.
                let mut whole = text.clone();
                for heredoc in several {
                    whole.push('\n');
                    whole.push_str(&heredoc.body.value);
                    whole.push_str(&heredoc.name);
                }
                (self.with_shell(whole), Vec::new())
            }
        }
    }

    /// A here-document that is the whole command: a script for the shell, or a file of its own
    /// when it names its interpreter.
    fn script(&self, script: &Heredoc) -> (Vec<String>, Vec<Script>) {
        let content = script.content();
        if content.starts_with("#!") && self.state.config.os != "windows" {
            let path = format!("{SCRIPTS}/{}", script.name);
            return (self.with_shell(path.clone()), vec![Script { path, content }]);
        }
        (self.with_shell(content), Vec::new())
    }

    /// `|N k=v ... `: every `ARG` at its first place, with the value that it has now.
    fn args_prefix(&self) -> String {
        let mut names: Vec<&str> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        names.extend(
            self.state.args.iter().map(|(name, _)| name.as_str()).filter(|name| seen.insert(*name)),
        );
        if names.is_empty() {
            return String::new();
        }
        let mut prefix = format!("|{} ", names.len());
        for name in names {
            // An ARG with a value is set from there on.
            let value = self.state.variables.get(name).unwrap_or("");
            prefix.push_str(&format!("{name}={value} "));
        }
        prefix
    }
}
