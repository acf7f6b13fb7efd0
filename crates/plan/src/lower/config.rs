//! The instructions that only change the image's config.

use rbuild_parser::ast::{CommandLine, Healthcheck, KeyValue, Text};
use rbuild_parser::lint::rules::JSON_ARGS_RECOMMENDED;
use rbuild_types::{Diagnostic, HealthConfig};
use serde_json::{Map, Value};

use super::environment::{MAX_VALUE, too_long};
use super::stage::{Layer, StageLowering};
use super::{go_text, signal};

impl StageLowering<'_, '_> {
    /// Lowers `ENV`: every value is expanded in the environment before the line.
    pub(super) fn env(&mut self, pairs: &[KeyValue]) -> Result<(), Diagnostic> {
        let pairs = self.expand_pairs("ENV", pairs)?;
        let mut text = "ENV".to_owned();
        for (name, value) in &pairs {
            text.push_str(&format!(" {name}={value}"));
            self.state.variables.set(name, value);
            let env = &mut self.state.config.config.env;
            let is_name = |entry: &&mut String| {
                entry.split_once('=').map_or(entry.as_str(), |(known, _)| known) == name
            };
            match env.iter_mut().find(is_name) {
                Some(entry) => *entry = format!("{name}={value}"),
                None => env.push(format!("{name}={value}")),
            }
        }
        self.history(text, Layer::Empty)
    }

    /// Lowers `LABEL`.
    pub(super) fn label(&mut self, pairs: &[KeyValue]) -> Result<(), Diagnostic> {
        let pairs = self.expand_pairs("LABEL", pairs)?;
        let mut text = "LABEL".to_owned();
        for (name, value) in pairs {
            text.push_str(&format!(" {name}={value}"));
            self.state.config.config.labels.insert(name, value);
        }
        self.history(text, Layer::Empty)
    }

    fn expand_pairs(
        &mut self,
        keyword: &str,
        pairs: &[KeyValue],
    ) -> Result<Vec<(String, String)>, Diagnostic> {
        let mut expanded = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let key = self.expand(&pair.key)?;
            if key.is_empty() {
                let message = format!("{keyword} names can not be blank");
                return Err(Diagnostic::error("blank-name", self.place(pair.key.span), message));
            }
            let value = self.expand(&pair.value)?;
            if value.len() > MAX_VALUE {
                return Err(too_long(&key, self.place(pair.key.span)));
            }
            expanded.push((key, value));
        }
        Ok(expanded)
    }

    /// Lowers `CMD`.
    pub(super) fn cmd(&mut self, command: &CommandLine) -> Result<(), Diagnostic> {
        self.recommend_json("CMD", command);
        let argv = self.argv(command);
        let text = format!("CMD {}", go_text::quoted_list(&argv));
        self.state.config.config.cmd = not_empty(argv);
        self.state.config.config.args_escaped = true;
        self.cmd_set = true;
        self.history(text, Layer::Empty)
    }

    /// Lowers `ENTRYPOINT`, which drops a `CMD` that was not set in this stage.
    pub(super) fn entrypoint(&mut self, command: &CommandLine) -> Result<(), Diagnostic> {
        self.recommend_json("ENTRYPOINT", command);
        let argv = self.argv(command);
        let text = format!("ENTRYPOINT {}", go_text::quoted_list(&argv));
        self.state.config.config.entrypoint = not_empty(argv);
        if !self.cmd_set {
            self.state.config.config.cmd = None;
        }
        self.history(text, Layer::Empty)
    }

    /// Warns of a shell form where nobody chose the shell, which then is process 1.
    fn recommend_json(&mut self, keyword: &str, command: &CommandLine) {
        let shell = self.state.config.config.shell.as_ref();
        if let CommandLine::Shell { span, .. } = command
            && shell.is_none_or(Vec::is_empty)
        {
            let message = format!(
                "JSON arguments recommended for {keyword} to prevent unintended behavior related \
                 to OS signals"
            );
            let warning = JSON_ARGS_RECOMMENDED.warning(self.place(*span), message);
            self.plan.warnings.push(warning);
        }
    }

    /// Lowers `SHELL`.
    pub(super) fn shell(&mut self, argv: &[Text]) -> Result<(), Diagnostic> {
        let argv: Vec<_> = argv.iter().map(|word| word.value.clone()).collect();
        let text = format!("SHELL {}", go_text::list(&argv));
        self.state.config.config.shell = Some(argv);
        self.history(text, Layer::Empty)
    }

    /// The argument vector of a command; the shell form goes through the stage's shell.
    pub(super) fn argv(&self, command: &CommandLine) -> Vec<String> {
        match command {
            CommandLine::Exec { argv, .. } => argv.clone(),
            CommandLine::Shell { text, .. } => self.with_shell(text.clone()),
        }
    }

    /// `text` as the last argument of the stage's shell.
    pub(super) fn with_shell(&self, text: String) -> Vec<String> {
        let shell = self.state.config.config.shell.as_ref().filter(|shell| !shell.is_empty());
        let mut argv = match shell {
            Some(shell) => shell.clone(),
            None if self.state.config.os == "windows" => {
                ["cmd", "/S", "/C"].map(str::to_owned).to_vec()
            }
            None => ["/bin/sh", "-c"].map(str::to_owned).to_vec(),
        };
        argv.push(text);
        argv
    }

    /// Lowers `USER`.
    pub(super) fn user(&mut self, user: &Text) -> Result<(), Diagnostic> {
        let user = self.expand(user)?;
        let text = format!("USER {user}");
        self.state.config.config.user = user;
        self.history(text, Layer::Empty)
    }

    /// Lowers `VOLUME`.
    pub(super) fn volume(&mut self, paths: &[Text]) -> Result<(), Diagnostic> {
        let mut volumes = Vec::new();
        for path in paths {
            let volume = self.expand(path)?;
            if volume.is_empty() {
                let message = "VOLUME specified can not be an empty string";
                return Err(Diagnostic::error("empty-volume", self.place(path.span), message));
            }
            volumes.push(volume);
        }
        let text = format!("VOLUME {}", go_text::list(&volumes));
        let empty = || Value::Object(Map::new());
        let known = &mut self.state.config.config.volumes;
        known.extend(volumes.into_iter().map(|volume| (volume, empty())));
        self.history(text, Layer::Empty)
    }

    /// Lowers `STOPSIGNAL`.
    pub(super) fn stopsignal(&mut self, signal: &Text) -> Result<(), Diagnostic> {
        let span = self.place(signal.span);
        let signal = self.expand(signal)?;
        if !signal::is_signal(&signal) {
            let message = format!("invalid signal: {signal}");
            return Err(Diagnostic::error("stop-signal", span, message));
        }
        let text = format!("STOPSIGNAL {signal}");
        self.state.config.config.stop_signal = signal;
        self.history(text, Layer::Empty)
    }

    /// Lowers `HEALTHCHECK`.
    pub(super) fn healthcheck(&mut self, check: &Healthcheck) -> Result<(), Diagnostic> {
        let test = match &check.command {
            None => vec!["NONE".to_owned()],
            Some(CommandLine::Shell { text, .. }) => vec!["CMD-SHELL".to_owned(), text.clone()],
            Some(CommandLine::Exec { argv, .. }) => {
                std::iter::once("CMD".to_owned()).chain(argv.iter().cloned()).collect()
            }
        };
        let check = HealthConfig {
            test,
            interval: check.interval,
            timeout: check.timeout,
            start_period: check.start_period,
            start_interval: check.start_interval,
            retries: check.retries,
        };
        let text = format!("HEALTHCHECK {}", go_text::healthcheck(&check));
        self.state.config.config.healthcheck = Some(check);
        self.history(text, Layer::Empty)
    }

    /// Lowers `MAINTAINER`.
    pub(super) fn maintainer(&mut self, name: &Text) -> Result<(), Diagnostic> {
        let text = format!("MAINTAINER {}", name.value);
        self.state.config.author = name.value.clone();
        self.history(text, Layer::Empty)
    }
}

/// An empty vector is `null` in the config.
fn not_empty(argv: Vec<String>) -> Option<Vec<String>> {
    Some(argv).filter(|argv| !argv.is_empty())
}
