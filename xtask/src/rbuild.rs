//! The program under test: where it is, and how the chores call it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::bases;
use crate::command::{Cmd, tail};
use crate::failure::{Outcome, ensure, fail};
use crate::paths;
use crate::steps::{self, Step};

/// A program and the store that this chore uses with it.
#[derive(Debug, Clone)]
pub(crate) struct Rbuild {
    pub(crate) program: PathBuf,
    pub(crate) store: PathBuf,
}

impl Rbuild {
    /// Builds the release program, unless `RBUILD_BIN` names one, and checks that it starts.
    pub(crate) fn release(store: PathBuf) -> Outcome<Self> {
        let program = match std::env::var_os("RBUILD_BIN") {
            Some(program) => fs_err::canonicalize(program)?,
            None => compile()?,
        };
        let rbuild = Self { program, store };
        let version = rbuild.cmd("--version").output()?;
        ensure(version.contains("rbuild"), || {
            format!(
                "`{} --version` does not say that it is rbuild: {version:?}",
                rbuild.program.display()
            )
        })?;
        Ok(rbuild)
    }

    /// `rbuild VERB` on this chore's store.
    pub(crate) fn cmd(&self, verb: &str) -> Cmd {
        // Containers are on the host's network unless a chore is about networks.
        let cmd = Cmd::new(&self.program).arg(verb).env("RBUILD_ROOT", &self.store);
        cmd.env("RBUILD_NETWORK", "host")
    }

    /// Makes `busybox:latest` out of a folder, as anyone can: `FROM scratch`, `COPY rootfs /`.
    pub(crate) fn build_busybox(&self) -> Outcome {
        let rootfs = bases::busybox_rootfs()?;
        let Some(context) = rootfs.parent() else { return fail("a rootfs without a folder") };
        let dockerfile = context.join("Dockerfile");
        fs_err::write(&dockerfile, "FROM scratch\nCOPY rootfs /\nCMD [\"sh\"]\n")?;
        // The folder also holds the layout made of the same files.
        fs_err::write(context.join(".dockerignore"), "*\n!rootfs\n")?;
        let build = self.cmd("build").words("-q -t busybox:latest -f").arg(dockerfile).arg(context);
        build.output().map(drop)
    }

    /// Runs `build`, which is `self.cmd("build")` and arguments, and tells its steps.
    pub(crate) fn build_steps(&self, build: &Cmd) -> Outcome<Vec<Step>> {
        let metadata = self.store.with_extension("metadata.json");
        let build = build.clone().arg("--progress=plain").arg("--metadata-file").arg(&metadata);
        let output = build.capture()?;
        ensure(output.status.success(), || format!("{build} failed\n{}", tail(&output)))?;
        let document: Value = match fs_err::read_to_string(&metadata) {
            Ok(text) => serde_json::from_str(&text)?,
            Err(_) => Value::Null,
        };
        let _ = fs_err::remove_file(&metadata);
        let told = steps::from_metadata(&document)
            .unwrap_or_else(|| steps::from_plain(&String::from_utf8_lossy(&output.stderr)));
        ensure(!told.is_empty(), || format!("{build} told no steps\n{}", tail(&output)))?;
        Ok(told)
    }
}

/// Compiles the program and asks cargo where it put it.
fn compile() -> Outcome<PathBuf> {
    println!("==> cargo build --release");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let build = Cmd::new(cargo)
        .words("build --release --package rbuild-cli --message-format=json-render-diagnostics")
        .dir(paths::workspace());
    let child = build.command().stdout(std::process::Stdio::piped()).spawn();
    let output = child.and_then(std::process::Child::wait_with_output);
    let output = output.map_err(|e| build.not_started(&e))?;
    ensure(output.status.success(), || format!("{build} failed: see above"))?;
    executable(&String::from_utf8_lossy(&output.stdout))
}

/// Finds the program among cargo's messages, one JSON document a line.
fn executable(messages: &str) -> Outcome<PathBuf> {
    let is_program = |m: &Value| m["target"]["name"] == "rbuild" && m["executable"].is_string();
    let found = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(is_program)
        .and_then(|m| m["executable"].as_str().map(PathBuf::from));
    match found {
        Some(program) if Path::is_file(&program) => Ok(program),
        _ => fail("rbuild-cli has no program named `rbuild` yet"),
    }
}
