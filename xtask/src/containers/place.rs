//! The namespace, the store, and what may be found in them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::bases;
use crate::command::Cmd;
use crate::failure::{Outcome, ensure, fail};
use crate::leftovers;
use crate::rbuild::Rbuild;

/// How long the kernel may take to end what belonged to a killed process.
const SETTLE: Duration = Duration::from_secs(5);
/// The variable by which the processes of a container are found: the container's name.
const MARKER: &str = "XTASK_CONTAINER";

/// Where the containers are.
pub(super) struct Place {
    pub(super) dir: PathBuf,
    pub(super) rbuild: Rbuild,
    cgroups_before: BTreeSet<PathBuf>,
}

impl Place {
    /// In `dir`, where the program is `bin/rbuild`.
    pub(super) fn new(dir: PathBuf) -> Outcome<Self> {
        let rbuild = Rbuild { program: dir.join("bin/rbuild"), store: dir.join("store") };
        Cmd::new("ip").words("link set lo up").output()?;
        Ok(Self { dir, rbuild, cgroups_before: leftovers::cgroups() })
    }

    /// `rbuild VERB`, with the default network that it has for everybody.
    pub(super) fn cmd(&self, verb: &str) -> Cmd {
        self.rbuild.cmd(verb).env("RBUILD_NETWORK", "")
    }

    /// `rbuild run -d --name NAME …`, whose process is told from others.
    pub(super) fn run(&self, name: &str) -> Cmd {
        let run = self.cmd("run").args(["-d", "--name", name]);
        run.arg("-e").arg(format!("{MARKER}={}/{name}", self.dir.display()))
    }

    /// Makes Debian's Python the `python:3.7.4` of the store.
    pub(super) fn load_python(&self) -> Outcome {
        let said = self.cmd("load").arg("-q").arg("-i").arg(bases::python_layout()?).output()?;
        let Some(id) = said.split_whitespace().find(|word| word.starts_with("sha256:")) else {
            return fail(format!("`rbuild load` said {said:?}"));
        };
        self.cmd("tag").args([id, "python:3.7.4"]).output().map(drop)
    }

    /// The names of the containers that run, as `ps` says.
    pub(super) fn said_to_run(&self) -> Outcome<BTreeSet<String>> {
        let format = "{{.Names}} {{.State}}";
        let listed = self.cmd("ps").args(["-a", "--format", format]).output()?;
        Ok(listed
            .lines()
            .filter_map(|line| line.strip_suffix(" running"))
            .map(str::to_owned)
            .collect())
    }

    /// The names of the containers that have a process, as /proc says.
    pub(super) fn has_process(&self) -> BTreeSet<String> {
        let start = format!("{MARKER}={}/", self.dir.display());
        leftovers::environments()
            .iter()
            .flat_map(|variables| variables.split('\0'))
            .filter_map(|variable| variable.strip_prefix(&start))
            .map(str::to_owned)
            .collect()
    }

    /// Waits until `ps` and /proc say the same; what that is.
    pub(super) fn truth(&self) -> Outcome<BTreeSet<String>> {
        let until = Instant::now() + SETTLE;
        loop {
            let (said, true_) = (self.said_to_run()?, self.has_process());
            if said == true_ {
                return Ok(said);
            }
            ensure(Instant::now() < until, || {
                format!("`rbuild ps` says that {said:?} run, but it is {true_:?}")
            })?;
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until a container has written this.
    pub(super) fn logs(&self, name: &str, text: &str) -> Outcome {
        let until = Instant::now() + SETTLE;
        loop {
            let said = self.cmd("logs").arg(name).capture()?;
            let said = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
            if said.contains(text) {
                return Ok(());
            }
            ensure(Instant::now() < until, || format!("no {text:?} in `rbuild logs`: {said}"))?;
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Removes all containers.
    pub(super) fn remove_all(&self) -> Outcome {
        let ids = self.cmd("ps").args(["-a", "-q"]).output()?;
        if ids.trim().is_empty() {
            return Ok(());
        }
        self.cmd("rm").arg("-f").words(&ids).output().map(drop)
    }

    /// No process, mount, network device, rule, control group or file of a container is there.
    pub(super) fn nothing_is_left(&self) -> Outcome {
        let until = Instant::now() + SETTLE;
        loop {
            let left = self.left()?;
            if left.is_empty() {
                return Ok(());
            }
            ensure(Instant::now() < until, || format!("left over: {left:#?}"))?;
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn left(&self) -> Outcome<Vec<String>> {
        let store = &self.rbuild.store;
        let marker = format!("{MARKER}={}/", self.dir.display());
        let mut left = leftovers::processes(&self.dir.join("bin"), &marker);
        left.extend(leftovers::mounts_anywhere(store));
        let devices = Cmd::new("ip").words("-o link").output()?;
        let ours = |line: &&str| line.contains("rbuild") || line.contains("veth");
        left.extend(devices.lines().filter(ours).map(str::to_owned));
        left.extend(Cmd::new("nft").words("list tables").output()?.lines().map(str::to_owned));
        let cgroups = leftovers::cgroups();
        let new = cgroups.difference(&self.cgroups_before);
        left.extend(new.map(|group| group.display().to_string()));
        for folder in ["containers", "tmp"] {
            let files = leftovers::entries(&store.join(folder));
            left.extend(files.iter().map(|file| file.display().to_string()));
        }
        for network in leftovers::entries(&store.join("networks")) {
            let files = leftovers::entries(&network.join("endpoints"));
            left.extend(files.iter().map(|file| file.display().to_string()));
        }
        Ok(left)
    }
}
